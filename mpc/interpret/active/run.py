"""A run that is checked: the plan on masked wires, its replay on tags and a check, window by window; then what is told.

A run that needs less than a window has one check, behind its last opening.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from weakref import WeakMethod

import numpy as np

from mpc import field as fp
from mpc.correlations import Bundle
from mpc.encoding import digest
from mpc.errors import LocalProtocolError
from mpc.gates.base import NO_GATE, Gate
from mpc.interpret.active.audit import Audit, SessionTags, Sums
from mpc.interpret.active.check import Check
from mpc.interpret.party import Buffer, Log, PartyRun
from mpc.interpret.preparing import Arrivals
from mpc.interpret.run_wires import RunWires
from mpc.interpret.session_wires import SessionWires
from mpc.plan.checking import ZERO, ZERO_WORD, check_windows, step_of, with_checks
from mpc.plan.plan import Plan
from mpc.plan.schedule import Step
from mpc.prg import Seed
from mpc.shares import Lane, Masked, Share
from mpc.stored import AtRest
from mpc.transcript import Transcript


class CheckedRun:
    """One party's run of a bound plan in a session whose runs are checked; used as a `PartyRun` is.

    Args:
        index: of this party, of `parties`.
        bundle: its correlations, with tags.
        tags: what outlives a run of tags.
        context: digest of what the parties have agreed on beyond the run: plan, roster, manifest of the weights.
        fresh: 32 bytes that nobody else knows, for this run alone.
        wires, arrivals, window: as of `PartyRun`; the replay reads wires and what was dealt too, which are there until
            then.
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
        stored: Mapping[str, AtRest] | None = None,
        wires: RunWires | None = None,
        arrivals: Arrivals | None = None,
        window: int | None = None,
    ) -> None:
        self._log: Log = {}
        wires = RunWires(plan, replayed=True) if wires is None else wires
        lane = Lane.passive(index)
        self.run = PartyRun(plan, lane, bundle, session, transcript_key, stored, self._log, wires, arrivals, window)
        self._me, self._parties, self._tags = index, parties, tags
        self._context, self._fresh = context, fresh
        self._audit = Audit(self.run, self._log, tags)
        self.run.also = _held_weakly(WeakMethod(self._audit.prepare_gate))
        self._windows = check_windows(plan)
        self.passed = 0
        """How many windows have passed."""
        self.zeros: Sums | None = None
        """Shares of zero that hide this party's sums, one of each kind a window; None until the run is prepared."""
        self.newest: Callable[[], bytes] = bytes
        """Return what the provider has signed last of the run's bundle, which binds all before; set before `steps`."""

    def __repr__(self) -> str:
        return f"<CheckedRun of {self.run.bundle.id.entry}>"

    @property
    def checked(self) -> bool:
        """Have all checks passed?"""
        return self.passed == len(self._windows)

    @property
    def exchanges(self) -> tuple[int, ...]:
        """Return the bytes of this party's payloads, those of checks too."""
        return with_checks(self.run.plan, self.run.exchanges)

    def step_at(self, exchange: int) -> Step | None:
        """Return the step of which an exchange is; None if it is of a check."""
        number = step_of(self.run.plan, exchange)
        return None if number is None else self.run.schedule.steps[number]

    @property
    def agreed(self) -> bool:
        """Have the parties agreed on what was entered?"""
        return self.run.agreed

    @property
    def whole(self) -> bool:
        """Is all of it prepared?"""
        return self._audit.whole

    def entered(self) -> list[bytes]:
        """Return digests of all that each owner has entered; see `PartyRun.entered`."""
        return self.run.entered()

    def prepare(self) -> None:
        """Do the work that needs no input, as far ahead as the window says; see `PartyRun.prepare`."""
        self._audit.begin()
        self.run.prepare()
        bundle = self.run.bundle
        self.zeros = Sums(bundle.take(NO_GATE, ZERO).values, bundle.take_bits(NO_GATE, ZERO_WORD).values)
        self._audit.leave()

    def steps(self, given: Mapping[str, np.ndarray]) -> Generator[Buffer, Sequence[Buffer], None]:
        """Evaluate the run, and check each window behind its last opening; see `PartyRun.steps` and `Check.steps`.

        The peers' payloads come in the order of the parties.  Windows are checked in their order, and so are runs;
        behind one that did not pass, for whatever reason, there is none (`SessionTags.open`).
        """
        self._tags.open()
        steps, number = self.run.steps(given), 0
        own = next(steps, None)
        for window in self._windows:
            while number < window.stop:
                if own is None:
                    raise LocalProtocolError(f"a run of {window.stop} steps or more ends before step {number}")
                received = yield own
                try:
                    own = steps.send(received)
                except StopIteration:
                    own = None
                self._audit.leave()
                number += 1
            yield from self.check().steps()
            self.passed += 1
        self._tags.passed()

    def check(self) -> Check:
        """Return the check of the next window.  What the last one holds, all parties have at its time: the provider's
        newest statement is one that the windows of their memory let them hear of early or late."""
        bundle, last = self.run.bundle.id, self.passed == len(self._windows) - 1
        held = digest(
            "mpc/v2/check-held",
            self._context,
            bundle.session,
            bundle.entry.number,
            bundle.batch,
            self.passed,
            self.newest() if last else b"",
            self.run.transcript.digest,
        )
        return Check(self._me, self._parties, held, self._fresh.derive("window", self.passed), self.replay)

    def replay(self, coin: Seed) -> Sums:
        """Run the gates of the next window on tags, and add up by the coin."""
        if self.zeros is None:
            raise LocalProtocolError("a run is checked before it is prepared")
        one, zeros = slice(self.passed, self.passed + 1), self.zeros
        sums = self._audit.fold(coin, self._windows[self.passed].gates, self.passed == len(self._windows) - 1)
        return Sums(fp.add(sums.elements, zeros.elements[one]), sums.words ^ zeros.words[one])

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


def _held_weakly(method: WeakMethod[Callable[[Gate], None]]) -> Callable[[Gate], None]:
    """Return a call of a method whose object it does not hold: a run and its replay would hold each other."""

    def call(gate: Gate) -> None:
        found = method()
        if found is not None:
            found(gate)

    return call
