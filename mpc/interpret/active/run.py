"""A run that is checked: the plan on masked wires, then its replay on tags and the check, then what is revealed."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

import numpy as np

from mpc.correlations import Bundle
from mpc.encoding import digest
from mpc.errors import LocalProtocolError
from mpc.gates.base import NO_GATE
from mpc.interpret.active.audit import Audit, SessionTags, Sums
from mpc.interpret.active.check import Check
from mpc.interpret.party import Buffer, Log, PartyRun
from mpc.interpret.preparing import Arrivals
from mpc.interpret.run_wires import RunWires
from mpc.interpret.session_wires import SessionWires
from mpc.plan.checking import CHECK_SIZES, ZERO, ZERO_WORD
from mpc.plan.plan import Plan
from mpc.plan.schedule import Schedule
from mpc.prg import Seed
from mpc.shares import Lane, Masked, Share
from mpc.transcript import Transcript


class CheckedRun:
    """One party's run of a bound plan in a session whose runs are checked; used as a `PartyRun` is.

    Args:
        index: of this party, of `parties`.
        bundle: its correlations, with tags.
        tags: what outlives a run of tags.
        context: digest of what the parties have agreed on beyond the run: plan, roster, manifest of the weights.
        fresh: 32 bytes that nobody else knows, for this run alone.
        wires, arrivals: as of `PartyRun`; the replay reads these wires too, and what was dealt is there until then.
    """

    def __init__(
        self,
        plan: Plan,
        index: int,
        parties: int,
        bundle: Bundle,
        session: SessionWires,
        tags: SessionTags,
        *,
        context: bytes,
        fresh: Seed,
        transcript_key: bytes = b"",
        stored: Mapping[str, Masked] | None = None,
        wires: RunWires | None = None,
        arrivals: Arrivals | None = None,
    ) -> None:
        self._log: Log = {}
        wires = RunWires(plan, replayed=True) if wires is None else wires
        lane = Lane.passive(index)
        self.run = PartyRun(plan, lane, bundle, session, transcript_key, stored, self._log, wires, arrivals)
        self._me, self._parties, self._tags = index, parties, tags
        self._context, self._fresh = context, fresh
        self._check: Check | None = None
        self._audit = Audit(self.run, self._log, tags)
        self.manifest = b""
        """Hold what the provider has signed of the run's bundle; set before `steps`."""

    def __repr__(self) -> str:
        return f"<CheckedRun of {self.run.bundle.id.entry}>"

    @property
    def checked(self) -> bool:
        """Has the check passed?"""
        return self._check is not None and self._check.passed

    @property
    def schedule(self) -> Schedule:
        """Return the steps before the check."""
        return self.run.schedule

    @property
    def exchanges(self) -> tuple[int, ...]:
        """Return the bytes of this party's payloads, those of the check too."""
        return (*self.run.exchanges, *CHECK_SIZES)

    @property
    def agreed(self) -> bool:
        """Have the parties agreed on what was entered?"""
        return self.run.agreed

    @property
    def whole(self) -> bool:
        """Is all of it prepared?"""
        return self.run.whole

    def entered(self) -> list[bytes]:
        """Return digests of all that each owner has entered; see `PartyRun.entered`."""
        return self.run.entered()

    def prepare(self) -> None:
        """Do all work that needs no input; see `PartyRun.prepare`."""
        self.run.prepare()
        self._audit.prepare()

    def steps(self, given: Mapping[str, np.ndarray]) -> Generator[Buffer, Sequence[Buffer], None]:
        """Evaluate the run, then check it; see `PartyRun.steps` and `Check.steps`.

        The peers' payloads come in the order of the parties.  Runs are checked in their order; behind one that did not
        pass, for whatever reason, there is none (`SessionTags.open`).
        """
        self._tags.open()
        yield from self.run.steps(given)
        bundle = self.run.bundle.id
        held = digest(
            "mpc/v1/check-held",
            self._context,
            bundle.session,
            bundle.entry.number,
            bundle.batch,
            self.manifest,
            self.run.transcript.digest,
        )
        self._check = Check(self._me, self._parties, held, self._fresh, self.replay)
        yield from self._check.steps()
        self._tags.passed()

    def replay(self, coin: Seed) -> Sums:
        """Run all gates on tags, and add up by the coin."""
        sums = self._audit.fold(coin)
        bundle = self.run.bundle
        field = Share(sums.elements) + bundle.take(NO_GATE, ZERO)
        return Sums(field.values, sums.words ^ bundle.take_bits(NO_GATE, ZERO_WORD).values)

    @property
    def transcript(self) -> Transcript:
        """Return the digest of all openings, as clients compare it."""
        return self.run.transcript

    def masked(self, name: str) -> Masked:
        """Return a wire that was written, or a weight."""
        return self.run.masked(name)

    def unopened(self, name: str) -> Share:
        """Return this party's share of a wire that is not opened."""
        return self.run.unopened(name)

    def output(self, wire: str) -> np.ndarray:
        """Return z^ of an output wire."""
        return self.run.output(wire)

    def release(self, wire: str) -> Seed:
        """Return this party's sub-seed of an output's mask, for a recipient; once, and of a checked run only.

        Raises:
            LocalProtocolError: the check has not passed.
        """
        self._require_checked()
        return self.run.release(wire)

    def keep(self, wire: str) -> Seed:
        """Return this party's sub-seed of the mask of an output that stays at the parties; raises as `release`."""
        self._require_checked()
        return self.run.keep(wire)

    def _require_checked(self) -> None:
        if not self.checked:
            raise LocalProtocolError("an output's mask may not be released before the run is checked")
