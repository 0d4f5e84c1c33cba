"""A collection as its clients see it: many enter a row each, and one noised sum of all of them is told."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.errors import InputError, PolicyError, SessionError, UsageError, WaitingError, warn
from mpc.privacy.facts import GAUSSIAN, LAPLACE, Loss
from mpc.privacy.gaussian import MOST_DELTA
from mpc.privacy.law import MOST_EPSILON
from parties.addresses import ANY
from parties.agreed.bindings import Binding
from parties.agreed.collecting import FEWEST, MOST_CONTRIBUTIONS, SUM_TOLD, contribution_name
from parties.agreed.collecting import Collection as Said
from parties.agreed.memory import needed_memory
from parties.client.at_rest import upload
from parties.client.at_rest.said import as_end, as_expiry, full_name, own_name
from parties.client.channels import Parties
from parties.client.collections import calls as collecting
from parties.client.collections.spent import Spent, place_of
from parties.client.collections.sums import SUM, Wishes, banded, compiled, undivided
from parties.client.consent.granted import as_amount, as_clients, as_mechanisms
from parties.client.running.roles import ACTIVE, PASSIVE
from parties.client.session import Session
from parties.config.models import USUAL_MEMORY, Limits

if TYPE_CHECKING:
    from mpc.compiler.compile import Compiled
    from mpc.plan.plan import Plan, Security

WIDTH = 12
_LONG = 12
"""Elements from which on Gaussian noise is the better one."""


@dataclass(frozen=True)
class Collected:
    """A sum that was told, or a mean.

    Args:
        value: a float64 array.
        std: standard deviation of the noise in each element.
        rows: how many clients' rows it is of.
        epsilon, delta: what it tells of each client, at most.
        mechanism: "gaussian" or "laplace".
    """

    value: np.ndarray
    std: float
    rows: int
    epsilon: Fraction
    delta: Fraction
    mechanism: str


def open_collection(
    parties: Parties,
    name: str,
    size: int,
    low: Any,
    high: Any,
    *,
    at_least: int,
    epsilon: Any,
    until: Any,
    at_most: int | None = None,
    delta: Any = "1/1000000",
    mechanism: str | None = None,
    contributors: Sequence[str] | None = None,
    expires: Any = "7d",
    width: int = WIDTH,
) -> Collection:
    """Sign a collection and open it at all parties; the arguments are `Cluster.collect`'s.

    Raises:
        UsageError: an argument makes no sense.
        ModelError: nothing is proved of the sum.
        PolicyError, SessionError, PeerError: a party refuses, or is lost.
    """
    me, now = parties.config.name, time.time()
    named = (ANY,) if contributors is None else tuple(sorted(as_clients(contributors, "contributors")))
    most = at_most if at_most is not None else MOST_CONTRIBUTIONS if contributors is None else len(named)
    numbers: dict[str, object] = {"size": size, "at_least": at_least, "at_most": most}
    for what, given in numbers.items():
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise UsageError(f"{what} is a whole number above 0", remedy=f"{what}=100")
    if not FEWEST <= at_least <= most <= MOST_CONTRIBUTIONS:
        raise UsageError(
            f"a collection of {at_least:,} to {most:,} rows",
            remedy=f"at_least is {FEWEST} or more, at_most no less than that, and {MOST_CONTRIBUTIONS:,} at most",
        )
    spent, lost = as_amount(epsilon, "epsilon"), as_amount(delta, "delta")
    if spent > MOST_EPSILON or lost > MOST_DELTA:
        raise UsageError(
            f"an epsilon of {float(spent):g} with a delta of {float(lost):g}",
            remedy=f"epsilon is at most {MOST_EPSILON}, delta at most {float(MOST_DELTA):g}",
        )
    try:
        ends = Fraction(str(low)), Fraction(str(high))
    except ValueError:
        raise UsageError("low and high are numbers", remedy="low=-1, high=1") from None
    if ends[0] >= ends[1]:
        raise UsageError("low is below high", remedy="low=-1, high=1")
    kind = as_mechanisms(mechanism) if mechanism else ((GAUSSIAN,) if size >= _LONG else (LAPLACE,))
    wishes = Wishes(size, *ends, at_least, most, spent, lost, kind[0], width)
    whole = compiled(me, wishes, parties.config.security)
    plan = whole.plan
    _note_size(plan, most, size)
    said = Said(
        cluster=parties.config.cluster or "",
        owner=me,
        name=full_name(me, own_name(me, name)),
        parties=parties.names,
        provider=parties.config.provider.name,
        column=wishes.column,
        at_least=at_least,
        at_most=most,
        contributors=named,
        recipients=(me,),
        mechanism=kind[0],
        epsilon=spent,
        delta=lost,
        plan=plan.digest.hex(),
        created=int(now),
        until=as_end(until, now),
        expires=as_expiry(expires, now) or int(now) + 7 * 86_400,
    )
    collecting.open_collection(parties, said)
    return Collection(parties, said, width, whole.deviations[SUM])


def _note_size(plan: Plan, most: int, size: int) -> None:
    """Say so before anybody enters a row, if a sum of so many needs more memory than parties allow by themselves."""
    needed, allowed = needed_memory(plan, most, Limits().max_window_bytes), USUAL_MEMORY
    if needed > allowed:
        warn(
            f"a sum of {most:,} rows of {size:,} numbers needs {needed / 2**30:.1f} GiB of memory at each process, "
            f"and one on a small machine allows {allowed >> 30} GiB (its limits.max_memory_bytes): take fewer rows "
            f"(at_most={most * allowed * 19 // (needed * 20)}), or shorter ones in several collections"
        )


class Collection:
    """A collection at the parties.

    Whoever has opened it learns the sum, once it is closed; everybody else may enter one row.
    """

    def __init__(self, parties: Parties, said: Said, width: int | None = None, std: float | None = None) -> None:
        """Take what was signed.

        Args:
            std: standard deviation of the noise in the sum, if it is known without compiling the plan.
        """
        self.said, self.std, self._parties, self._width = said, std, parties, width

    @property
    def name(self) -> str:
        """OWNER/NAME."""
        return self.said.name

    @property
    def size(self) -> int:
        """Numbers of a row."""
        return self.said.column.elements(1)

    @property
    def mean_noise(self) -> str:
        """Text on the noise that a mean will have; empty if this client has not opened the collection just now."""
        if self.std is None:
            return ""
        few, many = self.said.at_least, self.said.at_most
        told = f"{self.std / few:.2g} if {few:,} enter a row"
        return told if few == many else f"{told}, {self.std / many:.2g} if {many:,} do"

    @property
    def standing(self) -> collecting.Standing:
        """Facts of how many rows are in, and whether it is closed."""
        return collecting.read(self._parties, self.name)[1]

    def enter(self, values: Any, clip: bool = False) -> None:
        """Enter this client's one row; it may be taken back until the collection is closed.

        What was interrupted goes on when the same row is entered again, from where it was begun.  What the collection
        tells of this client is counted in its list of what it has spent, before anything leaves.

        Args:
            values: `size` numbers within the collection's range.
            clip: bring those that are outside to its ends, where else they would be refused.

        Raises:
            InputError: it is no such row; no number is named.
            SessionError: this client has entered one, or the collection is closed or full.
            ConfigError: the list cannot be written.
        """
        column = self.said.column
        row = np.asarray(values, dtype=np.float64).reshape(-1)
        if row.shape != (self.size,) or not np.isfinite(row).all():
            raise InputError(f"a row of {self.name} has {self.size:,} finite numbers, and this one has {row.size:,}")
        low, high = float(column.low), float(column.high)
        if clip:
            row = np.clip(row, low, high)
        elif row.min() < low or row.max() > high:
            raise InputError(
                f"the row has numbers outside of {low:g} to {high:g}, the range of {self.name}",
                remedy="clip=True brings them to its ends",
            )
        ends = column.ends
        integers = np.clip(np.rint(row * float(column.scale)), *ends).astype(np.int64)
        name = contribution_name(self._parties.config.name, self.said.id).partition("/")[2]
        described = upload.Described(name, (column,), 1, expires=self.said.expires, collection=self.said.id)
        if not self._is_begun():
            self._require_place()
        spent = Spent(place_of(self._parties.config))
        spent.spend(self.said.id, self.name, Loss(self.said.epsilon, self.said.delta))
        upload.put(self._parties, described, iter([{column.name: integers.reshape(1, -1)}]))

    def take_back(self) -> None:
        """Take this client's row back, before the collection is closed; no other can be entered in its place.

        Raises:
            SessionError: there is none, or the collection is closed.
        """
        from parties.client.at_rest import catalogue

        own = catalogue.own(self._parties, contribution_name(self._parties.config.name, self.said.id))
        if not own:
            raise SessionError(f"{self._parties.config.name} has no row in {self.name}")
        for each in own:
            catalogue.remove(self._parties, each.id)

    def close(self) -> int:
        """Close the collection, once its time is over or it is full; how many rows it has.

        Raises:
            SessionError: its time is not over, or it has too few rows: then nothing of it is ever told.
            PolicyError: it is another client's.
        """
        self._require_own()
        return collecting.gathered(self._parties, self.said).rows

    def sum(self) -> Collected:
        """Close the collection if it is open, and return the sum of its rows, with noise; it is told once.

        Raises:
            SessionError: as `close`.
            PolicyError: its sum has been told, it is another client's, or a party's operator does not allow it.
        """
        self._require_own()
        whole = collecting.gathered(self._parties, self.said)
        plan = self.signed_plan()
        bindings = [
            Binding(given.wire, whole.id, (self.said.column.name,), 0, whole.rows) for given in plan.plan.inputs
        ]
        try:
            with Session(self._parties, plan, bindings=bindings, quiet=True) as session:
                [value] = session.run(None, {})
        except WaitingError as error:
            if SUM_TOLD not in error.what:
                raise
            raise PolicyError(  # for which nobody's word is missing
                f"{self.name}: {SUM_TOLD}", cause="it is told once", remedy="open another collection for another sum"
            ) from None
        cost = sum((each.loss for each in plan.guarantee.vectors), Loss()) if plan.guarantee is not None else Loss()
        std = plan.deviations[SUM]
        return Collected(np.asarray(value, float), std, whole.rows, cost.epsilon, cost.delta, self.said.mechanism)

    def mean(self) -> Collected:
        """Return `sum` over how many rows there are, which is public."""
        found = self.sum()
        return Collected(
            found.value / found.rows, found.std / found.rows, found.rows, found.epsilon, found.delta, found.mechanism
        )

    def _require_own(self) -> None:
        if self._parties.config.name != self.said.owner:
            raise PolicyError(
                f"the sum of {self.name} is for {' and '.join(self.said.recipients)}",
                cause="others may enter a row, and learn nothing",
                remedy=f"ask {self.said.owner}",
            )

    def _is_begun(self) -> bool:
        """Has this client begun to enter a row, and been interrupted?  It may be at some of the parties."""
        with upload.open_log(self._parties) as log:
            return log.find(contribution_name(self._parties.config.name, self.said.id)) is not None

    def _require_place(self) -> None:
        from parties.client.at_rest.versions import next_version

        if next_version(self._parties, contribution_name(self._parties.config.name, self.said.id))[0] > 1:
            raise SessionError(
                f"{self._parties.config.name} has entered a row of {self.name} already",
                cause="one row counts of each client, and one that was taken back is not entered again",
            )
        if self.standing.entered >= self.said.at_most:
            raise SessionError(
                f"{self.name} is full: it takes {self.said.at_most:,} rows", remedy="wait for another collection"
            )

    def signed_plan(self) -> Compiled:
        """Compile the plan that was signed; only its width and its security are not said elsewhere."""
        said = self.said
        about = (self.size, said.column.low, said.column.high, said.at_least, said.at_most)
        widths = (self._width,) if self._width is not None else sorted(range(2, 21), key=lambda each: abs(each - WIDTH))
        kinds: tuple[Security, ...] = (PASSIVE, ACTIVE) if self._parties.config.security == PASSIVE else (ACTIVE,)
        for width, security in product(widths, kinds):
            wishes = Wishes(*about, said.epsilon, said.delta, said.mechanism, width)
            whole = undivided(said.owner, wishes, security)
            for found in (banded(whole, wishes, security), whole):  # earlier versions divided none
                if found.plan.digest.hex() == said.plan:
                    return found
        raise SessionError(
            f"{self.name} was opened for a plan that this version of mpc does not compile",
            remedy="ask for its sum with the version that opened it",
        )

    def __repr__(self) -> str:
        said = self.said
        column = said.column
        mean = f"; the mean's noise has a standard deviation of {self.mean_noise}" if self.std is not None else ""
        return (
            f"<collection {self.name}: {self.size:,} numbers, {float(column.low):g} to {float(column.high):g}, of "
            f"{said.at_least:,} to {said.at_most:,} clients; one sum with {said.mechanism} noise, epsilon "
            f"{float(said.epsilon):g}, delta {float(said.delta):g}, for {', '.join(said.recipients)}{mean}>"
        )


def find(parties: Parties, name: str) -> Collection:
    """Return a collection, by name, as whoever collects has signed it.

    Raises:
        SessionError: there is none for this client.
    """
    said, _ = collecting.read(parties, full_name(parties.config.name, name))
    return Collection(parties, said)
