"""Runs in the in-memory world, and what a test may know that nobody in the protocol knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mpc import field as fp
from mpc.correlations import Bundle, BundleId, corrected_party
from mpc.entry import EntryId
from mpc.gates.base import Opening
from mpc.interpret import reference
from mpc.interpret.active.world import CheckedWorld
from mpc.interpret.dealer import Dealer, SessionMasks
from mpc.interpret.world import World, WorldRun
from mpc.plan.checking import with_checks
from mpc.plan.cost import plan_cost
from mpc.plan.plan import Plan
from mpc.plan.schedule import schedule
from mpc.prg import Draws, Seed, expand_words
from mpc.wires import Masking

Arrays = dict[str, np.ndarray]
OpeningKey = tuple[int, str, str]


def seed(number: int) -> Seed:
    """A seed for tests."""
    return Seed(number.to_bytes(32, "big"))


def make_world(
    plan: Plan, weights: Mapping[str, np.ndarray], parties: int, number: int = 1, checked: bool = False
) -> World:
    """A world whose every value follows from `number`, and that may check its runs."""
    return (CheckedWorld if checked else World)(plan, weights, parties, seed(number))


@dataclass
class Deal:
    """All that a provider dealt for one run, in the clear."""

    plan: Plan
    bundles: list[Bundle]
    masks: Arrays
    corrections: bytes
    corrected: int

    def plain(self, gate: str, name: str) -> np.ndarray:
        """The plain value of a correlation; takes it from every bundle."""
        return self.combine(self.shares(gate, name), self.width(gate, name))

    def width(self, gate: str, name: str) -> int:
        """0 for field elements."""
        specs = next(g for g in self.plan.gates if g.name == gate).correlations(self.plan.wire)
        return next(spec for spec in specs if spec.name == name).width

    def shares(self, gate: str, name: str) -> list[np.ndarray]:
        """Every party's share, taken from its bundle."""
        if self.width(gate, name):
            return [bundle.take_bits(gate, name).values for bundle in self.bundles]
        return [bundle.take(gate, name).values for bundle in self.bundles]

    @staticmethod
    def combine(shares: list[np.ndarray], width: int) -> np.ndarray:
        total = shares[0]
        for share in shares[1:]:
            total = total ^ share if width else fp.add(total, share)
        return total


def deal_by_hand(
    plan: Plan, parties: int, run: int = 1, number: int = 1, session: SessionMasks | None = None, batch: int = 1
) -> Deal:
    """Deal one run of an unbound plan; the weights' masks too, unless `session` has them, public weights zero."""
    bound, master = plan.bind(batch), seed(number)
    if session is None:
        session = SessionMasks()
        session.public.update({gate.out: fp.zeros(plan.wire[gate.out].sizes) for gate in plan.public_weights})
        if plan.weights:
            session.masks.update(_deal(bound, plan.weights, parties, session, _ids(master, 0, 1)).masks)
    return _deal(bound, bound.online, parties, session, _ids(master, run, batch))


def _ids(master: Seed, run: int, batch: int) -> tuple[Seed, BundleId]:
    """As World names its bundles, so that its runs can be looked into."""
    return master, BundleId(master.derive("session").secret, EntryId(run), batch)


def _deal(
    plan: Plan,
    gates: tuple,
    parties: int,
    session: SessionMasks,
    ids: tuple[Seed, BundleId],
    states: Mapping[str, np.ndarray] | None = None,
) -> Deal:
    master, bundle = ids
    seeds = [master.derive("party", index, bundle.entry.number) for index in range(parties)]
    corrected = corrected_party(bundle, parties)
    dealer = Dealer(plan.wire, [bundle.draws(each) for each in seeds], corrected, session, states=states)
    corrections, written = bytearray(), {name for gate in gates for name in gate.writes}
    masked = {name for name in written if plan.wire[name].masking not in (Masking.UNOPENED, Masking.PUBLIC)}
    masks = dealer.run(gates, corrections.extend, masked)
    bundles = [
        Bundle(bundle, each, gates, plan.wire, bytes(corrections) if index == corrected else None)
        for index, each in enumerate(seeds)
    ]
    return Deal(plan, bundles, session.masks | masks, bytes(corrections), corrected)


def openings(plan: Plan, run: WorldRun) -> dict[OpeningKey, tuple[Opening, np.ndarray]]:
    """Every opened value of a run of a bound plan, added up from the payloads."""
    found: dict[OpeningKey, tuple[Opening, np.ndarray]] = {}
    for step, payloads in zip(schedule(plan.online, plan.wire).steps, run.payloads, strict=False):
        position = step.agreement
        for turn in step.turns:
            for opening in turn.openings:
                parts = [opening.decode(p[position : position + opening.size]) for p in payloads]
                found[step.number, turn.gate.name, opening.name] = (opening, Deal.combine(parts, opening.width))
                position += opening.size
        assert all(len(payload) == position for payload in payloads)
    return found


def words_of(world: World, bound: Plan, run: int, batch: int, number: int) -> reference.Words:
    """Which noise a run of a world draws: the dealt words from a second dealing, the common ones from its key."""
    ids = _ids(seed(number), run, batch)
    dealt: list[Deal] = []
    common = Draws(Seed(world.transcript_key), "common", ids[1].session, run, batch)

    def words(gate: str, name: str, shape: tuple[int, ...], width: int) -> np.ndarray:
        if name == "c":
            return expand_words(common.sub_seed(gate, name), shape, width)
        if not dealt:
            dealt.append(_deal(bound, bound.online, world.parties, world.masks, ids))
        return dealt[0].plain(gate, name)

    return words


@dataclass
class Checked:
    """A run that passed every check of `run_checked`."""

    plan: Plan
    run: WorldRun
    values: Arrays
    masks: Arrays


class Trial:
    """A session of which every run is held to all that the project promises of every gate."""

    def __init__(
        self, plan: Plan, weights: Mapping[str, np.ndarray], parties: int, number: int = 1, checked: bool = False
    ) -> None:
        self.plan, self.weights, self.parties, self.number = plan, dict(weights), parties, number
        self.checked = checked
        self.world = make_world(plan, weights, parties, number, checked)
        self.runs = 0
        self.state = reference.first_states(plan, self.weights)
        self.state_masks = self._first_masks()

    def run(self, inputs: Mapping[str, np.ndarray], batch: int) -> Checked:
        """One run; compares parties, reference, cost, schedule and transcripts."""
        self.runs += 1
        bound = self.plan.bind(batch)
        run = self.world.run(inputs, batch)
        words = words_of(self.world, bound, self.runs, batch, self.number)
        given = {**self.weights, **self.state, **inputs}
        values = reference.evaluate(bound, given, lambda name, _: self._public(run, name), words)
        masks = self._masks(bound, batch)
        for wire in bound.wires:
            if wire.masking is Masking.UNOPENED:
                held = run.unopened[wire.name]
            else:
                mask = fp.zeros(()) if wire.masking is Masking.PUBLIC else masks[wire.name]
                public = self._public(run, wire.name)
                held = public ^ mask if wire.masking is Masking.FLIPPED else fp.to_signed(fp.sub(public, mask))
            np.testing.assert_array_equal(held, values[wire.name], err_msg=f"wire {wire.name}")
        for output in bound.outputs:
            np.testing.assert_array_equal(run.outputs[output.wire], values[output.wire])
        self._check_cost(bound, run, batch)
        assert len(run.transcripts) == self.parties and len(set(run.transcripts)) == 1
        self.state = reference.next_states(self.plan, values)
        self.state_masks = {state.in_: masks[state.out] for state in self.plan.states}
        return Checked(bound, run, values, masks)

    def _public(self, run: WorldRun, name: str) -> np.ndarray:
        weights = self.world.sessions[0].masked
        return weights[name].public if name in weights else run.public[name]

    def _masks(self, bound: Plan, batch: int) -> Arrays:
        """Every wire's mask, from a second dealing."""
        ids = _ids(seed(self.number), self.runs, batch)
        return _deal(bound, bound.online, self.parties, self.world.masks, ids, self.state_masks).masks

    def _first_masks(self) -> Arrays:
        known = self.world.masks.masks
        zeros = {state.in_: fp.zeros(self.plan.wire[state.in_].sizes) for state in self.plan.states}
        return zeros | {state.in_: known[state.init] for state in self.plan.states if state.init in known}

    def _check_cost(self, bound: Plan, run: WorldRun, batch: int) -> None:
        cost = plan_cost(self.plan.with_security("active") if self.checked else self.plan, batch)
        sizes = tuple(step.size for step in schedule(bound.online, bound.wire).steps)
        assert tuple(run.sent) == (with_checks(bound, sizes) if self.checked else sizes)
        assert (len(run.sent), sum(run.sent), run.dealt) == (cost.rounds, cost.sent, cost.dealt)
        assert all(len(payload) == size for size, step in zip(run.sent, run.payloads, strict=True) for payload in step)
