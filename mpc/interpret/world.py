"""All parties and the provider in one process, for tests and experiments: no sockets, no clock.

Every value is a function of the master seed, so a run can be repeated exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from mpc import field as fp
from mpc.correlations import NO_TAGS, Bundle, BundleId, Tags
from mpc.encoding import decode_field, encode_field
from mpc.entry import WEIGHTS, EntryId
from mpc.gates.base import Gate, mask_name
from mpc.gates.input import Input
from mpc.interpret.dealer import Dealer, DealerKind, Dealt, SessionMasks, deal
from mpc.interpret.party import Buffer, PartyRun
from mpc.interpret.run_wires import RunWires
from mpc.interpret.session_wires import SessionWires
from mpc.plan.plan import Plan
from mpc.plan.segments import in_turn
from mpc.prg import Seed, expand_field
from mpc.shares import Lane, Masked, Share
from mpc.transcript import Transcript
from mpc.wires import Masking, Wire

Tamper = Callable[[int, int, bytes], bytes]
"""(step, sender, payload) -> what arrives instead."""


class Running(Protocol):
    """One party's reading of a run."""

    def prepare(self) -> None: ...

    def steps(self, given: Mapping[str, np.ndarray]) -> Generator[Buffer, Sequence[Buffer], None]: ...

    def output(self, wire: str) -> np.ndarray: ...

    def release(self, wire: str) -> Seed: ...

    def keep(self, wire: str) -> Seed: ...

    def masked(self, name: str) -> Masked: ...

    def unopened(self, name: str) -> Share: ...

    @property
    def transcript(self) -> Transcript: ...


@dataclass
class WorldRun:
    """The results of a run.

    Args:
        outputs: opened integers of each output wire, as recipients unmask them, or whoever reads what is kept.
        kept: every party's sub-seed of the mask of an output that stays at the parties, by wire.
        commitments: what the provider commits to of sub-seeds, by wire.
        public: every opened wire's x^ at party 0: the rounding coins.
        unopened: every other wire's x, which nobody learns: the sum of what the parties hold.
        sent: payload bytes of one party to each peer, step by step.
        dealt: bytes of corrections.
        transcripts: one digest a party.
    """

    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    kept: dict[str, list[Seed]] = field(default_factory=dict)
    commitments: dict[str, list[bytes]] = field(default_factory=dict)
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
        stored: int64 integers of every stored input that has rows, all of them, as equally many; runs go through them
            in order, and begin anew when they are through.
        sessions: each party's wires that live for the session.
        masks: the provider's: plain masks of the weights, and public weights.
        forgets: parties let go of wires that nobody reads any more, as they do outside of tests.
        window: bytes of correlations that parties prepare before inputs exist; all if it is None.
    """

    def __init__(
        self,
        plan: Plan,
        weights: Mapping[str, np.ndarray],
        parties: int,
        master: Seed,
        stored: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.plan, self.parties, self._master = plan, parties, master
        self._stored = {name: self._store(name, values) for name, values in (stored or {}).items()}
        self._rows = len(next(iter(self._stored.values()))[0]) if self._stored else 0
        self._first = 0
        self.window: int | None = None
        self._session_id = master.derive("session").secret
        self.transcript_key = master.derive("transcript-key").secret
        self.masks = SessionMasks()
        self.sessions = [SessionWires() for _ in range(parties)]
        self.runs, self.forgets = 0, False
        kept = {gate.out: self._store(gate.out, weights[gate.out]) for gate in plan.weights if gate.is_stored}
        dealt, bundles = self.deal(
            plan, plan.weights, WEIGHTS.number, 1, {name: sum_shares(kept[name][1]) for name in kept}
        )
        for gate in plan.weights:
            if gate.is_stored:
                for session, mask in zip(self.sessions, kept[gate.out][1], strict=True):
                    session.add(plan.wire[gate.out], kept[gate.out][0], Share(mask))
            else:
                self._enter_weight(gate, weights[gate.out], bundles)

    def _store(self, name: str, values: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """(x^, every party's share of its mask) of what is stored as a wire."""
        seeds = [self._master.derive("stored", index, name) for index in range(self.parties)]
        masks = [expand_field(seed, values.shape) for seed in seeds]
        return fp.add(fp.from_signed(values), sum_shares(masks)), masks

    def _enter_weight(self, gate: Input, values: np.ndarray, bundles: list[Bundle]) -> None:
        wire, public = self.plan.wire[gate.out], gate.is_public(self.plan.wire)
        sent = self.mask_input(wire, values, [] if public else bundles)
        if public:
            self.masks.public[wire.name] = sent
        for session, bundle in zip(self.sessions, bundles, strict=True):
            session.add(wire, sent, None if public else bundle.take(gate.name, mask_name(wire.name)))

    def deal(
        self, plan: Plan, gates: Sequence[Gate], run: int, batch: int, stored: Mapping[str, np.ndarray] | None = None
    ) -> tuple[Dealt, list[Bundle]]:
        """Deal one run of a bound plan: (what the provider knows of it, each party's bundle).

        Args:
            stored: plain masks of stored inputs, by wire.
        """
        bundle = BundleId(self._session_id, EntryId(run), batch)
        seeds = [self._master.derive("party", index, run) for index in range(self.parties)]
        states = () if bundle.entry.is_weights else plan.states
        kind, tags = self.dealing(plan, bundle.entry)
        gates = gates if bundle.entry.is_weights else in_turn(gates, plan.wire)
        dealt = deal(gates, plan.wire, bundle, seeds, self.masks, stored=stored or {}, states=states, kind=kind)
        bundles = [
            Bundle(bundle, seed, gates, plan.wire, dealt.corrections if index == dealt.corrected else None, tags)
            for index, seed in enumerate(seeds)
        ]
        return dealt, bundles

    def dealing(self, plan: Plan, entry: EntryId) -> tuple[DealerKind, Tags]:
        """Return what deals an entry, and the tags that it deals: here none."""
        return Dealer, NO_TAGS

    def mask_input(self, wire: Wire, values: np.ndarray, bundles: list[Bundle]) -> np.ndarray:
        """Mask int64 integers of an input wire, as its owner does with every party's seed: x^."""
        total = fp.from_signed(values)
        for bundle in bundles:
            total = fp.add(total, expand_field(bundle.mask_seed(wire.name), wire.sizes))
        return decode_field(encode_field(total), wire.sizes)  # as it arrives: read-only

    def run(self, inputs: Mapping[str, np.ndarray], batch: int, tamper: Tamper | None = None) -> WorldRun:
        """Run once on int64 integers of every data input wire."""
        self.runs += 1
        plan = self.plan.at(self.runs).bind(batch)
        public, masks = self._rows_of_run(batch)
        plain = {name: sum_shares(shares) for name, shares in masks.items()}
        dealt, bundles = self.deal(plan, plan.online, self.runs, batch, plain)
        result = WorldRun(dealt=len(dealt.corrections), commitments=dealt.commitments)
        given = {name: self.mask_input(plan.wire[name], value, bundles) for name, value in inputs.items()}
        stored = [
            {name: Masked(public[name], Share(masks[name][index])) for name in public} for index in range(self.parties)
        ]
        parties = [self.make_party(plan, index, bundle, stored[index]) for index, bundle in enumerate(bundles)]
        for party in parties:
            party.prepare()
        self.exchange(parties, given, result, tamper)
        for wire in () if self.forgets else plan.wires:
            if wire.masking is Masking.UNOPENED:
                shares = [party.unopened(wire.name).values for party in parties]
                result.unopened[wire.name] = fp.to_signed(sum_shares(shares))
            elif wire.name not in self.sessions[0].masked:
                result.public[wire.name] = parties[0].masked(wire.name).public
        for name in dict.fromkeys(output.wire for output in plan.outputs):
            total = parties[0].output(name)
            seeds = [party.keep(name) if plan.wire[name].kept else party.release(name) for party in parties]
            if plan.wire[name].kept:
                result.kept[name] = seeds
            for seed in seeds:
                total = fp.sub(total, expand_field(seed, plan.wire[name].sizes))
            result.outputs[name] = fp.to_signed(total)
        result.transcripts = [party.transcript.digest for party in parties]
        return result

    def make_party(self, plan: Plan, index: int, bundle: Bundle, stored: Mapping[str, Masked]) -> Running:
        """Make one party's reading of a run."""
        wires = RunWires(plan, self._wanted(plan))
        return PartyRun(
            plan,
            Lane.passive(index),
            bundle,
            self.sessions[index],
            self.transcript_key,
            stored,
            wires=wires,
            window=self.window,
        )

    def _wanted(self, plan: Plan) -> Collection[str]:
        """Wires that stay behind the gates that read them."""
        return () if self.forgets else {wire.name for wire in plan.wires}

    def _rows_of_run(self, batch: int) -> tuple[dict[str, np.ndarray], dict[str, list[np.ndarray]]]:
        """(x^, every party's share of its mask) of each stored input, of the rows whose turn it is."""
        rows: slice | np.ndarray = slice(self._first, self._first + batch)
        program = self.plan.program
        if self._stored and program is not None and program.rows is not None:
            rows = program.rows_of(self.runs, self._rows)
        elif self._stored:
            self._first = (self._first + batch) % self._rows
        public = {name: np.ascontiguousarray(values[rows]) for name, (values, _) in self._stored.items()}
        masks = {
            name: [np.ascontiguousarray(share[rows]) for share in shares] for name, (_, shares) in self._stored.items()
        }
        return public, masks

    def exchange(
        self, parties: Sequence[Running], given: dict[str, np.ndarray], result: WorldRun, tamper: Tamper | None
    ) -> None:
        running = [party.steps(given) for party in parties]
        payloads = [_next(steps) for steps in running]
        number = 0
        while all(payload is not None for payload in payloads):
            sent = [payload for payload in payloads if payload is not None]
            result.sent.append(len(sent[0]))
            result.payloads.append(sent)
            if tamper is not None:
                sent = [tamper(number, sender, payload) for sender, payload in enumerate(sent)]
            payloads = [
                _next(steps, [payload for sender, payload in enumerate(sent) if sender != index])
                for index, steps in enumerate(running)
            ]
            number += 1


def _next(steps: Generator[Buffer, Sequence[Buffer], None], received: Sequence[Buffer] | None = None) -> bytes | None:
    """Return a party's next payload; None behind its last."""
    try:
        return bytes(next(steps) if received is None else steps.send(received))
    except StopIteration:
        return None


def sum_shares(shares: Sequence[np.ndarray]) -> np.ndarray:
    """Add up all parties' shares: the plain field elements."""
    total = shares[0]
    for share in shares[1:]:
        total = fp.add(total, share)
    return total
