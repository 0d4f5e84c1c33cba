"""Datasets at the parties, for owners who put them and analysts who ask: `cluster.datasets`, `cluster.dataset(name)`.

What is said of a dataset - schema, ranges, rows, description, sample rows - is its owner's signed word, and public to
those who may see it.  Its values are no party's and nobody's here: what stands for them refuses to become numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from mpc.errors import MpcWarning, SessionError, UsageError
from mpc.text import shown
from parties.agreed.grants import Grant
from parties.agreed.questions import Bound
from parties.client.at_rest import amending, catalogue, keeping, upload
from parties.client.at_rest.bound import Chosen
from parties.client.at_rest.listing import UNCHECKED, Listing, Versions
from parties.client.at_rest.objects import Objects
from parties.client.at_rest.said import as_expiry, as_readers, full_name, own_name
from parties.client.channels import Parties
from parties.client.consent import granted, granting
from parties.client.consent.requests import Requested, list_requests
from parties.client.consent.told import Given, Verdict
from parties.client.dataset import Dataset
from parties.client.running.roles import ACTIVE, read_security
from parties.client.tables.published import published_rows
from parties.client.tables.stated import Stated
from parties.client.tables.table import read_table, require_rows_per_person

_SAID = {"types", "units", "descriptions", "shapes", "bits", "missing", "columns", "person"}
Progress = Callable[[str, int, int | None], None]
"""Told what is being done ("check", then "put"; or "refresh"), how many rows are, and of how many, if that is known."""


class Datasets(Objects[Listing]):
    """Datasets that this client owns or may see."""

    _ONE, _OTHER, _GROUP, _LISTED = "dataset", "model", "data", Listing

    def put(
        self,
        name: str,
        table: Any,
        ranges: Any = None,
        categories: Any = None,
        description: str = "",
        rows_per_person: int | None = None,
        expires: Any = None,
        sample: Any = None,
        visible: bool | Sequence[str] = True,
        progress: Progress | None = None,
        **said: Any,
    ) -> Dataset:
        """Put a table at the parties, masked, as the next version of its name; this client is its owner.

        Everything that is said of it becomes public to those who may see it, so nothing is taken from the data.  Values
        that do not fit what is said are refused here, and then nothing leaves this machine.  An interrupted put goes on
        where it was when it is made again.

        Args:
            name: "NAME" or "OWNER/NAME", where OWNER is this client.
            table: a data frame of pandas, polars or pyarrow, a numpy array, arrays by column, a list of dicts, or the
                path of a .csv, .tsv, .parquet, .npy or .npz file.
            ranges: (low, high) by column in its own unit, or one pair for all columns of numbers.
            categories: by column, texts or whole numbers in the order of their codes 0, 1, 2, ...
            description: for people, who find the dataset by its words.
            rows_per_person: the most rows that are one person's; noise has to cover them.
            expires: when it is removed: "2y", "90d", a date, or None for never.
            sample: rows to publish, a table of the same columns; "mock" or None: samples are made from the schema.
            visible: True: whoever a party lets in; False: this client; or names of clients.
            said: `types`, `units`, `descriptions`, `shapes`, `bits` (fractional ones of reals), `missing` by column,
                `columns` to put, and `person`, the column that says whose a row is: see
                `parties.client.tables.stated.Stated`.

        Raises:
            UsageError, InputError: what is said is not enough, or does not fit the table; no value is named.
            PolicyError, SessionError, PeerError: a party refuses, or is lost; the put can be made again.
        """
        short = own_name(self._me, name)
        if unknown := set(said) - _SAID:
            raise UsageError(
                f"put has no argument {min(unknown)!r}",
                remedy=f"it takes ranges, categories, description, rows_per_person, expires, sample, visible, "
                f"{', '.join(sorted(_SAID))}",
            )
        stated = Stated.of(ranges, categories, rows_per_person=require_rows_per_person(rows_per_person), **said)
        tell = progress or (lambda stage, done, of: None)
        found = read_table(table, stated, lambda rows: tell("check", rows, None))
        described = upload.Described(
            name=short,
            columns=found.columns,
            rows=found.rows,
            rows_per_person=stated.rows_per_person,
            description=description,
            visible=as_readers(visible),
            expires=as_expiry(expires),
            sample=published_rows(sample, found.columns),
        )
        for told in found.published:
            warnings.warn(MpcWarning(f"who sees {short} learns {told}"), stacklevel=2)
        made = upload.put(self._parties, described, found.blocks(), lambda done, of: tell("put", done, of))
        return Dataset(made, self._parties)

    def append(
        self,
        name: str,
        table: Any,
        person: str | None = None,
        rows_per_person: int | None = None,
        expires: Any = None,
        progress: Progress | None = None,
    ) -> Dataset:
        """Put more rows of a dataset of this client's own: its next version, which keeps all blocks of the one before.

        Types, ranges and categories are those of the first version, and values that do not fit are refused here.  Only
        the new rows are masked and sent.  Versions before stay, with the sessions and exact grants that name them,
        until they are removed or expire; answers with noise cost one budget, over all versions.

        Args:
            name: "NAME" or "OWNER/NAME", where OWNER is this client.
            table: the new rows, as for `put`; columns that the dataset does not have are left out.
            person: the column that says whose a row is, counted in the new rows alone.
            rows_per_person: the most rows that are one person's, old and new together; None: as before.
            expires: as for `put`; None: as before.

        Raises:
            UsageError, InputError, PolicyError, SessionError, PeerError: as `put`.
        """
        made = amending.append(
            self._parties,
            self._full_own(name),
            table,
            person,
            rows_per_person,
            as_expiry(expires),
            *_tellers(progress),
        )
        return Dataset(made, self._parties)

    def remove_rows(
        self, name: str, rows: Sequence[int], table: Any, sample: Any = None, progress: Progress | None = None
    ) -> Dataset:
        """Remove rows of a dataset of this client's own, as of one person: its next version is without them.

        What lies at the parties is masked and cannot be cut.  So the blocks that the rows lie in are masked anew, from
        the owner's own copy, and all other blocks are kept.  All versions before are removed at every party, for good,
        in the moment in which the new one begins to exist there; sessions on them end, and their exact grants too.

        Args:
            name: "NAME" or "OWNER/NAME", where OWNER is this client.
            rows: their numbers in the newest version; the first row is 0.
            table: this client's copy of all rows of that version, in their order, or of the rows of these blocks alone
                (a block has 65,536 rows or less).  It is compared with what was put where this machine has put it.
            sample: rows to publish from now on: those of before might be the person's.

        Raises:
            InputError: there are no such rows, or the copy is not what was put.
            UsageError, PolicyError, SessionError, PeerError: as `put`.
        """
        made = amending.remove_rows(
            self._parties,
            self._full_own(name),
            rows,
            table,
            lambda base: published_rows(sample, base.columns),
            *_tellers(progress),
        )
        return Dataset(made, self._parties)

    def versions(self, name: str) -> Versions:
        """List the versions of a dataset that are there, the newest first, by what their owner said of each.

        Raises:
            SessionError: there is none that this client may see.
        """
        full = self.full_name(name)
        every = catalogue.search(self._parties)
        found = [entry.id for entry in every if entry.name == full]
        if not found:
            raise _no_dataset(full, [entry.name for entry in every])
        return Versions(catalogue.describe(self._parties, object_id=each) for each in found)

    def get(self, name: str) -> Dataset:
        """Return the newest version of a dataset.

        Raises:
            SessionError: there is none that this client may see.
            UsageError: it is a model.
        """
        return Dataset(self._manifest(name), self._parties)

    def refresh(self, name: str, progress: Progress | None = None) -> Dataset:
        """Mask a dataset of this client's anew, as its next version: the values stay, all that hides them is new.

        What somebody had of the old version - a stolen seed, an old backup, what a former provider knew - opens the new
        one no more, and the parties erase the old one.  Grants of the old version hold for the new one.

        Args:
            progress: told "refresh", how many rows are done, and of how many.

        Raises:
            UsageError: it is not this client's.
            PolicyError: it was kept of others' data, and not all of them allow it.
        """
        full = self._full_own(name)
        tell = progress or (lambda stage, done, of: None)
        found = self.get(full).manifest
        made = keeping.refresh(self._parties, found, lambda done, of: tell("refresh", done, of))
        return Dataset(made, self._parties)

    def remove(self, name: str) -> Listing:
        """Remove all versions of a dataset of this client's own, at all parties and for good.

        Raises:
            InputError: there is none of that name.
        """
        gone = super().remove(name)
        with upload.open_log(self._parties) as log:
            log.drop(self._full_own(name))
        return gone

    def grant(
        self,
        name: str,
        coordinators: Any,
        recipients: Any = None,
        plans: Any = None,
        data: granted.Data | None = None,
        weights: Mapping[str, Bound] | None = None,
        epsilon: Any = None,
        epsilon_each: Any = None,
        delta: Any = granted.DELTA,
        outputs: int = granted.OUTPUTS,
        mechanisms: Any = None,
        apart: Sequence[str] = (),
        bit: bool = False,
        uses: int | None = None,
        expires: Any = None,
        security: str | None = None,
    ) -> Grant:
        """Allow others to compute from a dataset of this client's: exact plans, or answers with noise.

        Parties decide by what is signed here, whatever a coordinator says.  Answers with noise need a budget besides:
        `cluster.set_budget`.

        Args:
            name: "NAME" or "OWNER/NAME", where OWNER is this client.
            coordinators: names of clients that may ask.
            recipients: of those that may learn answers; None: those who ask.
            plans: exactly these, of the newest version: `session.plan`, compiled models, or files of plans; or what
                `Model.place` gives of a model at the parties, which is pinned then.
            data: input -> columns, for all stored inputs of the plans, other owners' too, and of several datasets where
                their rows follow one another; or a list of several such, each of which the plans may read:
                `[{"x": ds[["age"]][7:8]}, {"x": ds[["age"]][9:10]}]`.
            weights: wire -> what a stored weight is pinned to; all others are chosen by the asker for each session.
            epsilon, delta: answers with noise, of all versions, which together cost at most this.
            epsilon_each: the most that one run costs; None: all of it.
            outputs: the most outputs that a plan with noise has.
            mechanisms: kinds of noise, "laplace" or "gaussian"; None: both.
            apart: datasets "OWNER/NAME" of other owners in which, as you state, nobody is who is in this one.  Where
                their owners state it of yours, a sum over both has noise for one of them, not for both.
            bit: each plan tells one bit, and the grant is of `uses` bits: about whomever the asker chooses, where it
                enters an input or a weight itself.
            uses: the most runs.
            expires: "36h", "90d", "2y", a date; None: never.
            security: "active": only of sessions whose runs are checked, and that read nothing kept in unchecked ones;
                None: as your cluster file says.

        Raises:
            UsageError, InputError: that is not one of the two, or a plan reads something that is not said.
            SessionError, PolicyError: there is no such dataset, or a party does not take the grant.
        """
        if (plans is None) == (epsilon is None):
            raise UsageError(
                "a grant is of exact plans, or of answers with noise",
                remedy="epsilon=1.0 for answers with noise, plans=session.plan for exact ones",
            )
        full, least = self._full_own(name), read_security(security, self._parties.config.security)
        asking = granted.as_clients(coordinators, "coordinators")
        learning = asking if recipients is None else granted.as_clients(recipients, "recipients")
        if plans is None:
            question, of = granted.noised(epsilon, epsilon_each, delta, outputs, mechanisms, apart), full
        else:
            manifest = catalogue.describe(self._parties, full)
            question, of = granted.exact(plans, data, manifest, weights or {}, bit, least), manifest.id.hex()
        made = granting.give(self._parties, of, question, asking, learning, uses, as_expiry(expires), least)
        if plans is None and _has_no_budget(self._parties, full):
            remedy = f"cluster.set_budget({full!r}, epsilon=1.0), or mpc budget set {full} --epsilon 1"
            warnings.warn(MpcWarning(f"{full} has no budget, so nothing is answered yet: {remedy}"), stacklevel=2)
        if least == ACTIVE and _is_unchecked(self._parties, full):
            warnings.warn(MpcWarning(f"{full} is {UNCHECKED}: put it, or keep it, anew"), stacklevel=2)
        return made

    def grants(self) -> tuple[Given, ...]:
        """List the grants that this client has given, and those that name it."""
        return tuple(granting.given(self._parties))

    def ask(self, plan: Any, data: Mapping[str, Chosen]) -> tuple[Verdict, ...]:
        """Ask every party whether it would answer a plan of these datasets, and if not, whose word is missing.

        Nothing is opened, charged, or shown to a provider.

        Raises:
            PolicyError: a party's policy does not let this client run the plan.
        """
        [read] = granted.as_plans(plan)
        return tuple(granting.ask(self._parties, read, granted.bindings_of(plan, data)))

    def requests(self) -> tuple[Requested, ...]:
        """List what others ask of this client's datasets, and what it asks itself, where somebody's word is missing."""
        return tuple(list_requests(self._parties.clients, self._parties.config.deadlines.submit))

    def full_name(self, name: str) -> str:
        """Complete NAME to OWNER/NAME, the owner being this client."""
        return full_name(self._me, name)

    def _unknown(self, name: str, known: Sequence[str]) -> SessionError:
        return _no_dataset(name, known)


def _tellers(progress: Progress | None) -> tuple[Callable[[int, int], None], Callable[[int], None]]:
    """Return what is told of rows that are put, and of rows that are checked."""
    tell = progress or (lambda stage, done, of: None)
    return lambda done, of: tell("put", done, of), lambda rows: tell("check", rows, None)


def _is_unchecked(parties: Parties, name: str) -> bool:
    try:
        return not catalogue.describe(parties, name).is_checked
    except SessionError:  # there is no version of it yet
        return False


def _has_no_budget(parties: Parties, name: str) -> bool:
    try:
        return granting.budget(parties, name).epsilon is None
    except SessionError:  # nothing was put under that name yet
        return True


def _no_dataset(name: str, known: Sequence[str]) -> SessionError:
    """Say that there is no dataset of that name, and which one may have been meant."""
    tail = name.partition("/")[2]
    close = get_close_matches(tail, {each.partition("/")[2] for each in known}, 3, 0.7)
    near = sorted({each for each in known if each.partition("/")[2] in close})
    return SessionError(
        f"there is no dataset {shown(name)}, or you may not see it",
        remedy=f"perhaps {', '.join(map(shown, near[:3]))}" if near else "mpc data list shows which you may see",
    )
