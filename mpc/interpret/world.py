"""All parties and the provider in one process, for tests and experiments: no sockets, no clock.

Every value is a function of the master seed, so a run can be repeated exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mpc import field as fp
from mpc.correlations import Bundle, BundleId
from mpc.encoding import decode_field, encode_field
from mpc.gates.base import Gate, mask_name
from mpc.gates.input import Input
from mpc.interpret.dealer import Dealt, SessionMasks, deal
from mpc.interpret.party import PartyRun
from mpc.interpret.session_wires import SessionWires
from mpc.plan.plan import Plan
from mpc.prg import Seed, expand_field
from mpc.shares import Lane
from mpc.wires import Masking, Wire

Tamper = Callable[[int, int, bytes], bytes]
"""(step, sender, payload) -> what arrives instead."""


@dataclass
class WorldRun:
    """What a run leaves behind.

    Args:
        outputs: opened integers of each output wire, as recipients unmask them.
        public: every opened wire's x^ at party 0: the rounding coins.
        unopened: every other wire's x, which nobody learns: the sum of what the parties hold.
        sent: payload bytes of one party to each peer, step by step.
        dealt: bytes of corrections.
        transcripts: one digest a party.
    """

    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    public: dict[str, np.ndarray] = field(default_factory=dict)
    unopened: dict[str, np.ndarray] = field(default_factory=dict)
    sent: list[int] = field(default_factory=list)
    dealt: int = 0
    transcripts: list[bytes] = field(default_factory=list)
    payloads: list[list[bytes]] = field(default_factory=list)


class World:
    """A session among `parties` parties.

    Args:
        plan: not bound.
        weights: int64 integers of every weight wire.
    """

    def __init__(self, plan: Plan, weights: Mapping[str, np.ndarray], parties: int, master: Seed) -> None:
        self.plan, self.parties, self._master = plan, parties, master
        self._session_id = master.derive("session").secret
        self.transcript_key = master.derive("transcript-key").secret
        self._masks = SessionMasks()
        self._sessions = [SessionWires() for _ in range(parties)]
        self._runs = 0
        dealt, bundles = self._deal(plan, plan.weights, 0, 1)
        for gate in plan.weights:
            self._enter_weight(gate, weights[gate.out], bundles)

    def _enter_weight(self, gate: Input, values: np.ndarray, bundles: list[Bundle]) -> None:
        wire, public = self.plan.wire[gate.out], gate.is_public(self.plan.wire)
        sent = self._mask_input(wire, values, [] if public else bundles)
        if public:
            self._masks.public[wire.name] = sent
        for session, bundle in zip(self._sessions, bundles, strict=True):
            session.add(wire, sent, None if public else bundle.take(gate.name, mask_name(wire.name)))

    def _deal(self, plan: Plan, gates: Sequence[Gate], run: int, batch: int) -> tuple[Dealt, list[Bundle]]:
        bundle = BundleId(self._session_id, run, batch)
        seeds = [self._master.derive("party", index, run) for index in range(self.parties)]
        dealt = deal(gates, plan.wire, bundle, seeds, self._masks)
        bundles = [
            Bundle(bundle, seed, gates, plan.wire, dealt.corrections if index == dealt.corrected else None)
            for index, seed in enumerate(seeds)
        ]
        return dealt, bundles

    def _mask_input(self, wire: Wire, values: np.ndarray, bundles: list[Bundle]) -> np.ndarray:
        total = fp.from_signed(values)
        for bundle in bundles:
            total = fp.add(total, expand_field(bundle.mask_seed(wire.name), wire.sizes))
        return decode_field(encode_field(total), wire.sizes)  # as it arrives: read-only

    def run(self, inputs: Mapping[str, np.ndarray], batch: int, tamper: Tamper | None = None) -> WorldRun:
        """One run on int64 integers of every data input wire."""
        self._runs += 1
        plan = self.plan.bind(batch)
        dealt, bundles = self._deal(plan, plan.online, self._runs, batch)
        result = WorldRun(dealt=len(dealt.corrections))
        given = {name: self._mask_input(plan.wire[name], value, bundles) for name, value in inputs.items()}
        parties = [
            PartyRun(plan, Lane.passive(index), bundle, session, self.transcript_key)
            for index, (bundle, session) in enumerate(zip(bundles, self._sessions, strict=True))
        ]
        for party in parties:
            party.prepare()
        self._exchange(parties, given, result, tamper)
        for wire in plan.wires:
            if wire.masking is Masking.UNOPENED:
                result.unopened[wire.name] = _sum([party.unopened(wire.name).values for party in parties])
            elif wire.name not in self._sessions[0].masked:
                result.public[wire.name] = parties[0].masked(wire.name).public
        for name in dict.fromkeys(output.wire for output in plan.outputs):
            total = parties[0].output(name)
            for party in parties:
                total = fp.sub(total, expand_field(party.release(name), plan.wire[name].sizes))
            result.outputs[name] = fp.to_signed(total)
        result.transcripts = [party.transcript.digest for party in parties]
        return result

    def _exchange(
        self, parties: list[PartyRun], given: dict[str, np.ndarray], result: WorldRun, tamper: Tamper | None
    ) -> None:
        running = [party.steps(given) for party in parties]
        payloads = [bytes(next(steps)) for steps in running] if parties[0].schedule.steps else []
        for number in range(len(parties[0].schedule.steps)):
            result.sent.append(len(payloads[0]))
            result.payloads.append(payloads)
            if tamper is not None:
                payloads = [tamper(number, sender, payload) for sender, payload in enumerate(payloads)]
            following = []
            for index, steps in enumerate(running):
                try:
                    following.append(bytes(steps.send([p for sender, p in enumerate(payloads) if sender != index])))
                except StopIteration:
                    following.append(b"")
            payloads = following


def _sum(shares: list[np.ndarray]) -> np.ndarray:
    total = shares[0]
    for share in shares[1:]:
        total = fp.add(total, share)
    return fp.to_signed(total)
