"""Kept outputs of one session, at this party: what becomes of z^ and of this party's own part of its mask.

A run that keeps something ends so, behind its last opening and before anybody is told of it (`kept_run`):

    every party writes z^ to its disk, and all compare keyed digests of it
    the transaction of `revealed` lists the blocks; with the last run all of the object is here
    then each party signs its manifest; who has all signatures lets the object exist
    of a refresh, each party tells the others so, and erases the old version once all have

So a party signs what its own policy and the owners' words allowed, and what it has on its disk; a crash or a refusal
anywhere leaves an object that is whole at every party, or one that exists nowhere that it could be used.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpc.errors import InputError, MpcError, PolicyError, SessionError
from mpc.plan.plan import Plan
from mpc.stored import BLOCK_ROWS
from mpc.wires import BATCH
from parties.agreed import manifest as dealt
from parties.agreed.bindings import rows_of
from parties.agreed.keeps import Keep, check_keeps
from parties.agreed.kept import kept_schema
from parties.agreed.objects import Schema
from parties.agreed.refreshing import refreshed
from parties.agreed.terms import Terms
from parties.party.consent.asked import Asked
from parties.party.kept_run import DIGESTS, EXISTS, SIGNATURES, KeptRun, Unfinished
from parties.party.link import Link
from parties.party.run import Run
from parties.party.vault.admission import granted
from parties.party.vault.keeps import Making, require_ours
from parties.party.vault.vault import Vault
from parties.telemetry import logger


class SessionKeeping:
    """All objects that one session makes, at this party.

    Args:
        asked: what the session reads, and who coordinates it.

    Raises:
        HandshakeError: the terms do not say what becomes of the plan's kept outputs, or this party keeps no data.
        PolicyError, SessionError, InputError: an object of that name may not be made here.
    """

    def __init__(self, plan: Plan, terms: Terms, vault: Vault, asked: Asked) -> None:
        check_keeps(plan, terms.keeps, asked.coordinator)
        self._plan, self._terms, self._vault, self._asked = plan, terms, vault, asked
        self._rows = rows_of(plan, terms.bindings)
        self._wires = {out.name: out.wire for out in plan.kept}
        self._with_rows = {out.name for out in plan.kept if BATCH in plan.wire[out.wire].shape}
        program = plan.program
        self._only = None if program is None else program.keeps_in(tuple(self._wires))
        self._key = b""
        self._batches: dict[int, int] = {}
        self._dealt: dict[int, dealt.Manifest] = {}
        self._objects: list[Unfinished] = []
        if terms.keeps:
            self._admit()

    def __repr__(self) -> str:
        return f"<SessionKeeping objects={len(self._terms.keeps)}>"

    def _admit(self) -> None:
        config, coordinator = self._vault.config, self._asked.coordinator
        require_ours(config, self._terms.parties)
        others = sorted(self._plan.owners - {coordinator})
        if others:
            raise PolicyError(
                f"nothing is kept of what {' and '.join(others)} would enter",
                cause="who enters something for a run has no say in what later sessions read of it",
                remedy=f"let {others[0]} put it as a dataset, which takes grants: cluster.datasets.put",
            )
        manifests = {each: read.manifest for each, read in self._asked.read.items()}
        full, rest = divmod(self._rows or 1, BLOCK_ROWS)
        for keep in self._terms.keeps:
            before = refreshed(keep, self._plan, self._terms, manifests)
            making = Making(self._vault, keep, self._asked.key)
            making.require_new(before is not None)
            self._objects.append(Unfinished(keep, making, before))
            schema = self._schema(keep, (BLOCK_ROWS,) * full + ((rest,) if rest else ()))
            granted(schema, config.limits)  # refuses what is no object

    def _schema(self, keep: Keep, lengths: Sequence[int]) -> Schema:
        """Return the schema of an object whose rows were computed in runs of these lengths."""
        cluster, rows = self._vault.config.cluster or "", self._with_rows.issuperset(keep.outputs)
        return kept_schema(keep, self._plan, self._terms, cluster, self._asked.read, lengths if rows else (1,))

    # -- before a run

    def begin(self, transcript_key: bytes) -> None:
        """Take what all parties know in common, once they have greeted."""
        self._key = transcript_key

    def require(self, number: int, batch: int) -> None:
        """Hold a run that is about to be prepared to what is to be kept of it.

        Raises:
            SessionError: all that the session keeps is whole.
            InputError: it has other rows than a block may have.
        """
        if not self._objects:
            return
        if self._plan.program is not None:  # which says in which run all is kept
            self._batches[number] = batch
            return
        done = sum(self._batches[each] for each in range(1, number))
        if number > 1 and done == (self._rows or done):
            raise SessionError(
                "all that this session keeps is whole with the runs before",
                remedy="start another session for what comes next, which keeps it as the next version",
            )
        if len(self._with_rows) < len(self._wires) and batch != (self._rows or batch):
            raise InputError(
                f"a run of {batch} rows; what is kept has none, so one run reads all {self._rows}",
                remedy="run once on all rows",
            )
        if self._with_rows and batch > BLOCK_ROWS:
            raise InputError(
                f"a run of {batch:,} rows, of which at most {BLOCK_ROWS:,} are kept at once",
                remedy="keep them in several runs",
            )
        self._batches[number] = batch

    def dealt(self, number: int, found: dealt.Manifest) -> None:
        """Take the provider's word on every party's part of a run's masks."""
        if self._keeps_in(number):
            self._dealt[number] = found

    def _keeps_in(self, number: int) -> bool:
        """Does a run leave anything to be kept?"""
        return bool(self._objects) and self._only in (None, number)

    def _lengths(self, number: int) -> list[int]:
        return [self._batches[each] for each in range(1, number + 1)]

    def _is_last(self, number: int) -> bool:
        """Is all that the session keeps whole with this run?"""
        if self._only is not None:
            return True
        return self._rows is None or sum(self._lengths(number)) == self._rows

    def tells(self, number: int) -> int:
        """Return how often each peer tells something behind the last opening of a run."""
        if not self._keeps_in(number):
            return 0
        if not self._is_last(number):
            return DIGESTS
        return EXISTS if any(each.before for each in self._objects) else SIGNATURES

    # -- behind a run's last opening

    def take(self, run: Run, links: Sequence[Link]) -> KeptRun | None:
        """Write what is kept of a run to the disk, and compare it with the other parties; None if nothing is.

        Raises:
            IntegrityError: they hold something else.
        """
        if not self._keeps_in(run.number):
            return None
        lengths, seconds = self._lengths(run.number), self._vault.config.deadlines.submit
        objects = [(each, self._schema(each.keep, lengths)) for each in self._objects]
        kept = KeptRun(self._vault, run, links, objects, self._is_last(run.number), seconds)
        try:
            kept.write(self._wires, self._dealt.pop(run.number), self._key, self._terms.session_id)
        except BaseException:
            kept.discard()
            raise
        return kept

    def end(self) -> None:
        """Erase what is not whole: the session is over."""
        for each in self._objects:
            try:
                each.making.give_up()
            except MpcError as error:
                logger().error("what a session began to keep stays until the next start", exc_info=error)
