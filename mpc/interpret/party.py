"""The plan read on masked wires and shares, by each party.

Sans-I/O: `PartyRun.steps` is a generator that yields the bytes this party sends to every peer
in one round and is sent the peers' bytes.  Whoever drives it - gRPC between processes, or a
test that runs all parties in one - decides how they travel.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np

from mpc.correlations import Bundle
from mpc.encoding import digest, view_field
from mpc.errors import EncodingError, IntegrityError, LocalProtocolError
from mpc.gates.base import Evaluation, Gate, Opening
from mpc.interpret.gate_reading import Party
from mpc.interpret.preparing import AllHere, Arrivals, Preparing
from mpc.interpret.run_wires import RunWires
from mpc.interpret.session_wires import SessionWires
from mpc.plan.cost import plan_schedule
from mpc.plan.masking import shared_masks
from mpc.plan.plan import Plan
from mpc.plan.schedule import Schedule, Step
from mpc.plan.segments import segments
from mpc.prg import SEED_BYTES, Draws, Seed, expand_words
from mpc.shares import BitShare, Lane, Masked, Share
from mpc.stored import AtRest
from mpc.transcript import Transcript

Buffer = bytes | memoryview
Waiting = dict[str, tuple[Share | BitShare, ...]]
"""Gate -> the shares that it wants opened in the next round."""
Log = dict[str, list[tuple[np.ndarray, ...]]]
"""Gate -> what was opened for it, round by round."""


class PartyRun:
    """One party's reading of one run of a bound plan.

    Args:
        bundle: its correlations, expanded, for this run only.
        session: the weights, and what the run before has left.
        transcript_key: 32 bytes, known to the parties alone; without it nothing can be drawn in common.
        stored: this run's rows of the stored inputs, with this party's shares of their masks.
        log: where to put what is opened, round by round, by gate; nowhere, unless the run is checked.
        wires: where to put the run's wires; fresh ones, which go when nobody reads them any more, if it is left out.
        arrivals: what was dealt, segment by segment; all of it is here if it is left out.
        window: bytes of correlations that are prepared before inputs exist; all if it is left out.
    """

    def __init__(
        self,
        plan: Plan,
        lane: Lane,
        bundle: Bundle,
        session: SessionWires,
        transcript_key: bytes = b"",
        stored: Mapping[str, AtRest] | None = None,
        log: Log | None = None,
        wires: RunWires | None = None,
        arrivals: Arrivals | None = None,
        window: int | None = None,
    ) -> None:
        self.plan = plan
        self._log = log
        self.also: Callable[[Gate], None] | None = None
        """Prepare what else is computed with a gate's correlations, behind the gate; set before `prepare`."""
        self._stored = stored or {}
        self.lane = lane
        self.bundle = bundle
        self.session = session
        self.given: Mapping[str, np.ndarray] = {}
        self._key = transcript_key
        self._agreed = self._left = False
        self._common = self.common_draws()
        self.transcript = Transcript(
            transcript_key, bundle.id.session, bundle.id.entry.number, bundle.id.batch, session.digest()
        )
        self.shared_masks = shared_masks(plan.online, plan.wire, plan.carried)
        self.schedule: Schedule = plan_schedule(plan)
        self.wires = RunWires(plan) if wires is None else wires
        self._state_masks: Mapping[str, Share] = {}
        self._state: Mapping[str, np.ndarray] = {}
        parts = segments(plan, bundle.id.entry)
        self._preparing = Preparing(parts, AllHere() if arrivals is None else arrivals, window)
        self._starting: dict[int, list[Gate]] = {}
        for gate in plan.online:
            self._starting.setdefault(self.schedule.starts[gate.name], []).append(gate)

    def __repr__(self) -> str:
        return f"<PartyRun of {self.bundle.id.entry}>"

    @property
    def exchanges(self) -> tuple[int, ...]:
        """Return the bytes of this party's payloads, one after another."""
        return tuple(step.size for step in self.schedule.steps)

    def step_at(self, exchange: int) -> Step | None:
        """Return the step of which an exchange is; None if it is a check's, as of no run here."""
        return self.schedule.steps[exchange]

    @property
    def agreed(self) -> bool:
        """Have the parties agreed on what was entered?"""
        return self._agreed

    @property
    def whole(self) -> bool:
        """Are all gates prepared, with all that was dealt?"""
        return self._preparing.whole and (self._left or not self.plan.states)

    def masked(self, name: str) -> Masked:
        return self.wires.masked(name) if name in self.wires else self.session.masked[name]

    def mask_share(self, name: str) -> Share | None:
        return self.session.masked[name].mask if name in self.session.masked else self.wires.mask(name)

    def common_draws(self) -> Draws | None:
        """Return draws that all parties have in common, for one reading of the run; None without their key."""
        if len(self._key) != SEED_BYTES:
            return None
        bundle = self.bundle.id
        return Draws(Seed(self._key), "common", bundle.session, bundle.entry.number, bundle.batch)

    def common(self, gate: str, name: str, shape: tuple[int, ...], width: int) -> np.ndarray:
        if self._common is None:
            raise LocalProtocolError(f"gate {gate} draws in common, and this run has no key of the parties")
        return expand_words(self._common.sub_seed(gate, name), shape, width)

    def stored_mask(self, wire: str) -> Share:
        mask = self._stored[wire].mask
        if mask is None:
            raise LocalProtocolError(f"this party holds no share of the mask of what is stored as {wire}")
        return mask

    def state_mask(self, wire: str) -> Share:
        return self._state_masks[wire]

    def given_to(self, wire: str) -> np.ndarray:
        if wire in self._state:
            return self._state[wire]
        return self._stored[wire].public if wire in self._stored else self.given[wire]

    def set_mask(self, wire: str, mask: Share) -> None:
        self.wires.set_mask(wire, mask)

    def set(self, name: str, public: np.ndarray) -> None:
        self.wires.set(name, public)

    def set_share(self, name: str, share: Share) -> None:
        self.wires.set_share(name, share)

    def unopened(self, name: str) -> Share:
        return self.wires.unopened(name)

    def _part(self, gate: Gate) -> Party:
        """Make a gate's reading; the run does not hold it: both would stay until Python's collector of cycles comes."""
        return Party(self, gate)

    def prepare(self) -> None:
        """Do the work that needs no input, as far ahead as the window says: call once, before `steps`.  The run before
        is prepared by then.

        Raises:
            ReuseError: it is not, or this run was prepared before; of a plan with states.
        """
        if self.plan.states:
            self._read_state_masks()
        for name in sorted(self._stored):  # agreed on with what is entered: a party's disk may have been altered
            self.transcript.absorb("stored", name, self._stored[name].agreed)
        self._preparing.ahead(self._prepare_gate)
        self._leave_masks()

    def _prepare_gate(self, gate: Gate) -> Any:
        kept = gate.prepare(self._part(gate))
        if self.also is not None:
            self.also(gate)
        return kept

    def _leave_masks(self) -> None:
        """Hand the masks of states on, as soon as all gates are prepared."""
        if self.plan.states and self._preparing.whole and not self._left:
            self._left = True
            kept = {state.in_: self._part_of_mask(state.out) for state in self.plan.states}
            self.session.states.masks.leave(self.bundle.id.entry.number, kept)

    def _read_state_masks(self) -> None:
        number = self.bundle.id.entry.number
        if number == 1:
            self.session.begin(self.plan)
        self._state_masks = self.session.states.masks.read(number)

    def _part_of_mask(self, wire: str) -> Share:
        mask = self.mask_share(wire)
        if mask is None:
            raise LocalProtocolError(f"no share is held of the mask of wire {wire}, which the next run reads")
        return mask

    def _read_state(self) -> None:
        """Take x^ of what the run before has left; the parties agree on it as on what is entered."""
        self._state = self.session.states.public.read(self.bundle.id.entry.number)
        for name in sorted(self._state):
            self.transcript.absorb("state", name, view_field(self._state[name]))

    def steps(self, given: Mapping[str, np.ndarray]) -> Generator[Buffer, Sequence[Buffer], None]:
        """Evaluate the run, a round at a time.

        Args:
            given: x^ of every input wire of the run.

        Yields:
            this party's payload of each step; expects the peers' payloads of that step, in any order.

        Raises:
            EncodingError: a payload is not the canonical encoding of the step's openings.
            IntegrityError: the peers were not sent the inputs and weights that this party was; see `entered`.  Or what
                lies at them, or the run before has left them, is not what is here.
            ReuseError: the run before is not over, or this run was computed before; of a plan with states.
        """
        self.given = given
        if self.plan.states:
            self._read_state()
        for name in sorted(given):
            self.transcript.absorb("input", name, view_field(given[name]))
        active: dict[str, Evaluation] = {}
        waiting: Waiting = {}
        self._start(0, active, waiting)
        for step in self.schedule.steps:
            opened = yield from self._open(step, waiting)
            waiting = {}
            for turn in step.turns:
                self._resume(turn.gate, active, waiting, opened[turn.gate.name])
            self._start(step.number + 1, active, waiting)
        if active or waiting:
            raise LocalProtocolError(f"gates are left over: {sorted(active)}")
        if self.plan.states:
            left = {state.in_: self.masked(state.out).public for state in self.plan.states}
            self.session.states.public.leave(self.bundle.id.entry.number, left)

    def _start(self, number: int, active: dict[str, Evaluation], waiting: Waiting) -> None:
        for gate in self._starting.get(number, ()):
            kept = self._preparing.take(gate, self._prepare_gate)
            self._leave_masks()
            active[gate.name] = gate.evaluate(self._part(gate), kept)
            self._resume(gate, active, waiting, None)

    def _resume(self, gate: Gate, active: dict[str, Evaluation], waiting: Waiting, opened: Any) -> None:
        try:
            waiting[gate.name] = active[gate.name].send(opened)
        except StopIteration:
            del active[gate.name]
            self.wires.over(gate)
            if self._log is None:
                self._preparing.over(gate)

    def replayed(self, gate: Gate) -> None:
        """Let go of what a replay was still computing with, once it is through with a gate."""
        self.wires.replayed(gate)
        self._preparing.over(gate)

    def _open(
        self, step: Step, waiting: Waiting
    ) -> Generator[Buffer, Sequence[Buffer], dict[str, tuple[np.ndarray, ...]]]:
        """The one place where anything is opened: encode, exchange, add up, put in the transcript."""
        own = [
            opening.encode(_expect(share, opening, turn.gate))
            for turn in step.turns
            for share, opening in zip(waiting[turn.gate.name], turn.openings, strict=True)
        ]
        agreement = self.transcript.digest if step.agreement else b""
        payloads = yield own[0] if len(own) == 1 and not agreement else b"".join([agreement, *own])
        for payload in payloads:
            if len(payload) != step.size:
                raise EncodingError(f"step {step.number}: {len(payload)} bytes where {step.size} belong")
        if agreement:
            self._agree(agreement, payloads)
        opened: dict[str, tuple[np.ndarray, ...]] = {}
        position, shares = step.agreement, iter(own)
        for turn in step.turns:
            values: list[np.ndarray] = []
            for opening in turn.openings:
                mine = next(shares)
                part = slice(position, position + opening.size)
                position += opening.size
                value, encoded = opening.reconstruct(mine, [memoryview(p)[part] for p in payloads])
                self.transcript.absorb(step.number, turn.gate.name, opening.name, encoded)
                values.append(value)
            opened[turn.gate.name] = tuple(values)
            if self._log is not None:
                self._log.setdefault(turn.gate.name, []).append(tuple(values))
        return opened

    def _agree(self, agreement: bytes, payloads: Sequence[Buffer]) -> None:
        """Compare what the first payloads begin with: the transcript, before anything is opened, of w^ and all x^,
        entered or stored."""
        if any(bytes(payload[: len(agreement)]) != agreement for payload in payloads):
            raise IntegrityError("the parties were not all sent the same inputs and weights")
        self._agreed = True

    def entered(self) -> list[bytes]:
        """Return digests of all that each owner has entered, in the order of their names, to find out whose differs.

        They are keyed as the transcript is: for the other parties alone.
        """
        masked = {name: wire.public for name, wire in self.session.masked.items()} | dict(self.given)
        bundle = self.bundle.id
        context = ("mpc/v2/entered", self._key, bundle.session, bundle.entry.number, bundle.batch)
        found = []
        for owner in sorted(self.plan.owners):
            names = [name for name in sorted(masked) if self.plan.wire[name].holders == (owner,)]
            found.append(
                digest(*context, owner, *(part for name in names for part in (name, view_field(masked[name]))))
            )
        return found

    def output(self, wire: str) -> np.ndarray:
        """Return z^ of an output wire, after the last step."""
        return self.wires.masked(wire).public

    def keep(self, wire: str) -> Seed:
        """Return this party's sub-seed of the mask of an output that stays at the parties; once.

        Raises:
            LocalProtocolError: the parties have not agreed on what was entered.
        """
        self._require_agreed()
        return self.bundle.kept_seed(wire)

    def release(self, wire: str) -> Seed:
        """Return this party's sub-seed of an output's mask, for a recipient; only after the barrier, once.

        Raises:
            LocalProtocolError: the parties have not agreed on what was entered.
        """
        self._require_agreed()
        return self.bundle.mask_seed(wire)

    def _require_agreed(self) -> None:
        if not self._agreed:
            raise LocalProtocolError(
                "an output's mask may not be released before the parties agree on what was entered"
            )


def _expect(share: Share | BitShare, opening: Opening, gate: Gate) -> np.ndarray:
    width = share.width if isinstance(share, BitShare) else 0
    if share.shape != opening.shape or width != opening.width:
        raise LocalProtocolError(f"gate {gate.name} opens {share!r} where it declared {opening}")
    return share.values
