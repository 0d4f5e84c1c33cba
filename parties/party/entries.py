"""What owners enter into one session: the masks that they are given for it, and x^ as it comes.

Correlations are burnt in the ledger, durably, before the first mask seed leaves this process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from mpc.correlations import Bundle
from mpc.encoding import decode_field, field_size
from mpc.errors import InputError, PolicyError, SessionError
from mpc.gates.base import mask_name
from mpc.gates.input import Input
from mpc.interpret.party import Buffer
from mpc.interpret.session_wires import SessionWires
from mpc.prg import Seed
from mpc.wires import Masking
from parties.party.ledger.states import RunState
from parties.party.life import SessionFacts, SessionLife
from parties.party.online import Online
from parties.party.run import Run
from parties.party.runs import Runs
from parties.pb.party_pb2 import Manifest as SignedManifest
from parties.wire.transport import patience


class Entries:
    """The inputs of one session, and its weights.  Thread-safe.

    Args:
        wires: where weights go.
        online: starts a run when its last input is here.
    """

    def __init__(self, facts: SessionFacts, life: SessionLife, runs: Runs, wires: SessionWires, online: Online) -> None:
        self._facts, self._plan = facts, facts.plan
        self._life, self._runs, self._wires, self._online = life, runs, wires, online
        self.weights: Bundle | None = None
        self._weights_signed = SignedManifest()
        self._asked: set[str] = set()
        self.receiving_now: set[tuple[int, str]] = set()

    def put_weights(self, bundle: Bundle, signed: SignedManifest) -> None:
        """Take the weights' masks."""
        self.weights, self._weights_signed = bundle, signed

    def masks(self, number: int, owner: str) -> tuple[list[tuple[str, Seed]], SignedManifest]:
        """The sub-seeds of the caller's own inputs; burns the correlations first."""
        self._life.require_open()
        with self._life.lock:
            run = self._runs.get(number) if number else None
            gates = run.plan.online if run else self._plan.weights
            entered = [gate.out for gate in gates if isinstance(gate, Input)]
            masked = [wire for wire in entered if self._plan.wire[wire].masking is not Masking.PUBLIC]
            owned = [wire for wire in masked if self._plan.wire[wire].holders == (owner,)]
            if not owned:
                raise PolicyError(f"{owner!r} owns no input of run {number} that is masked")
        if run is not None:
            self._burn(run)
        with self._life.lock:
            self._life.require_open()
            if run is not None:
                run.asked_at = run.asked_at or time.monotonic()
                bundle, signed, asked = run.party.bundle, run.signed, run.asked
            else:
                bundle, signed, asked = self._weights_bundle(), self._weights_signed, self._asked
            asked.update(owned)
            return [(wire, bundle.mask_seed(wire)) for wire in owned], signed

    def _weights_bundle(self) -> Bundle:
        if self.weights is None:
            raise SessionError("the weights' masks are not here yet")
        return self.weights

    def _burn(self, run: Run) -> None:
        """Enter the run as burnt, once; the disk is waited for without the session's lock."""
        with run.burning:
            if not run.burnt:
                self._facts.ledger.advance(self._facts.terms.session_id, run.number, RunState.BURNT)
                run.burnt = True

    def input_size(self, number: int, wire: str, owner: str) -> int:
        """Bytes that this input has; refuses a wire that the caller does not own or has sent."""
        self._life.require_open()
        with self._life.lock:
            run = self._runs.get(number) if number else None
            plan = run.plan if run else self._plan
            gates = plan.online if run else plan.weights
            if not any(isinstance(gate, Input) and gate.out == wire for gate in gates):
                raise InputError(f"run {number} has no input wire of that name")
            if plan.wire[wire].holders != (owner,):
                raise PolicyError(f"{owner!r} does not own the input wire {wire}")
            if wire in (run.given if run else self._wires.masked):
                raise InputError(f"the input wire {wire} was submitted before")
            masked = plan.wire[wire].masking is not Masking.PUBLIC
            if masked and wire not in (run.asked if run else self._asked):
                raise SessionError(f"the input wire {wire} was submitted before its mask was asked for")
            return field_size(plan.wire[wire].sizes)

    @contextmanager
    def receiving(self, number: int, wire: str, owner: str) -> Iterator[int]:
        """While one input of the caller's arrives: bytes that it has.  Nobody makes this party hold it twice."""
        with self._life.lock:
            size = self.input_size(number, wire, owner)
            if (number, wire) in self.receiving_now:
                raise InputError(f"the input wire {wire} is being submitted", remedy="wait for it, or hang up")
            self.receiving_now.add((number, wire))
        try:
            yield size
        finally:
            with self._life.lock:
                self.receiving_now.discard((number, wire))

    def submit(self, number: int, wire: str, owner: str, data: Buffer) -> None:
        """x^ of one input; starts the run when it was the last one."""
        with self._life.changed:
            self.input_size(number, wire, owner)
            run = self._runs.get(number) if number else None
            plan = run.plan if run else self._plan
            public = decode_field(data, plan.wire[wire].sizes)
            if run is None:
                gate = next(gate for gate in plan.weights if gate.out == wire)
                masked = not gate.is_public(plan.wire)
                mask = self._weights_bundle().take(gate.name, mask_name(wire)) if masked else None
                self._wires.add(plan.wire[wire], public, mask)
                self._life.changed.notify_all()
                return
            run.given[wire] = public
            complete = run.complete
        if complete:
            self._burn(run)
            self._online.start_complete()

    def await_weights(self) -> None:
        """Wait until all weights are here; `SessionError` if their owner does not submit them in time."""
        deadline = time.monotonic() + patience(self._facts.config.deadlines.submit)
        with self._life.changed:
            while len(self._wires.masked) < len(self._plan.weights):
                self._life.require_open()
                left = deadline - time.monotonic()
                if not self._life.changed.wait(min(1.0, left)) and time.monotonic() >= deadline:
                    raise SessionError("the model's owner has not submitted all weights")
