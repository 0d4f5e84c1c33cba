"""Over all gates: openings carry fresh uniforms, and outputs also fresh dealt shares (security.md 38).

A party's own correlations are changed one by one, and what it then sends is compared: so the mask of each opening is
found by what it does, not by what it is called.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import field as fp
from mpc.correlations import Bundle, BundleId
from mpc.gates import GATES
from mpc.gates.base import Correlation, Gate, Opening, mask_name
from mpc.gates.input import Input
from mpc.interpret import reference
from mpc.interpret.dealer import deal
from mpc.interpret.party import PartyRun
from mpc.interpret.world import World
from mpc.plan.plan import Plan
from mpc.prg import expand_words
from mpc.shares import BitShare, Lane, Share
from tests.support.case import Case
from tests.support.cases import CASES, maximum_case
from tests.support.effort import examples
from tests.support.plans import Builder, wire
from tests.support.worlds import seed

Key = tuple[int, str, str]
"""(step, gate, opening)."""
Sent = dict[Key, tuple[Opening, np.ndarray]]
OPENS = {"between", "bound", "convolution", "draw", "fourier", "matmul", "maximum", "multiply", "onehot", "open",
         "pieces", "relu", "select", "step", "truncate"}  # fmt: skip
"""Gates that open something, the product gates where their second operand is secret."""
FEW = {"maximum": maximum_case(most=5)}
"""Smaller cases where the usual ones have hundreds of openings."""
FREE = {"combine", "concat", "gaussian", "input", "reshape", "rows", "scatter", "take", "total", "weigh"}
"""Gates that never do, and so write no output."""


class Changed(Bundle):
    """A party's bundle in which its share of one correlation is another one."""

    change: tuple[str, str, np.ndarray] | None = None

    def take(self, gate: str, name: str) -> Share:
        values = super().take(gate, name).values
        delta = self.delta(gate, name, values)
        return Share(values if delta is None else fp.add(values, delta))

    def take_bits(self, gate: str, name: str) -> BitShare:
        bits = super().take_bits(gate, name)
        delta = self.delta(gate, name, bits.values)
        return BitShare(bits.values if delta is None else bits.values ^ delta.astype(bits.values.dtype), bits.width)

    def delta(self, gate: str, name: str, values: np.ndarray) -> np.ndarray | None:
        wanted = self.change is not None and self.change[:2] == (gate, name)
        return self.change[2].reshape(values.shape) if wanted else None


@dataclass
class Pad:
    """What one change does first: to which openings of one party, and how.

    Args:
        own: the wire's own mask, whose seeds its recipients are given.
        entered: the mask of an input, which hides no opening; but an output that is an input's element carries it.
    """

    gate: str
    correlation: Correlation
    delta: np.ndarray
    own: str
    entered: bool = False
    effects: dict[Key, np.ndarray] = field(default_factory=dict)


class Bench:
    """One party of one run, to be run again with other correlations; its peers send what they sent."""

    def __init__(self, case: Case, party: int, batch: int, number: int) -> None:
        self.case, self.party, self.batch, self.number = case, party, batch, number
        self.plan: Plan = case.builder.build()
        self.weights = {gate.out: case.values(gate.out, 1, number) for gate in self.plan.weights}
        self.world = World(self.plan, self.weights, 2, seed(number))
        self.bound = self.plan.bind(batch)
        self.run = self.world.run(case.inputs(batch, number), batch)
        self.id = BundleId.of_run(seed(number).derive("session").secret, 1, batch)
        self.seeds = [seed(number).derive("party", index, 1) for index in range(2)]
        self.dealt = deal(self.bound.online, self.bound.wire, self.id, self.seeds, self.world.masks)
        self.given = {end.wire: self.run.public[end.wire] for end in self.plan.inputs}
        self.sent: Sent = self.send(None)

    def send(self, change: tuple[str, str, np.ndarray] | None, until: dict | None = None) -> Sent:
        """What this party sends, opening by opening; no further than the first step that differs from `until`."""
        corrections = self.dealt.corrections if self.party == self.dealt.corrected else None
        bundle = Changed(self.id, self.seeds[self.party], self.bound.online, self.bound.wire, corrections)
        bundle.change = change
        run = PartyRun(
            self.bound, Lane.passive(self.party), bundle, self.world.sessions[self.party], self.world.transcript_key
        )
        run.prepare()
        steps, found = run.steps(self.given), {}
        payload = next(steps)
        for step, sent in zip(run.schedule.steps, self.run.payloads, strict=True):
            position, differs = step.agreement, False
            for turn in step.turns:
                for opening in turn.openings:
                    key = (step.number, turn.gate.name, opening.name)
                    part = memoryview(payload)[position : position + opening.size]
                    found[key] = (opening, opening.decode(part).reshape(-1))
                    position += opening.size
                    differs |= until is not None and bool((found[key][1] != until[key][1]).any())
            try:
                payload = steps.send([sent[1 - self.party]])
            except StopIteration:
                break
            if differs:
                break
        return found

    def first_effect(self, pad: Pad) -> Pad:
        """Fill in what the change does in the first step where it does anything."""
        for key, (opening, other) in self.send((pad.gate, pad.correlation.name, pad.delta), self.sent).items():
            values = self.sent[key][1]
            if (values != other).any():
                pad.effects[key] = values ^ other if opening.width else fp.sub(other, values)
        return pad

    def pads(self) -> Iterator[Pad]:
        """Every field value that was dealt, and every bit of every uniform word."""
        rng = np.random.default_rng(self.number)
        for gate in self.bound.online:
            entered = isinstance(gate, Input)
            for spec in gate.correlations(self.bound.wire):
                size = int(np.prod(spec.shape))
                own = spec.name if spec.name.startswith(mask_name("")) and not entered else ""
                if spec.width == 0:
                    delta = rng.integers(1, fp.P, size, dtype=np.uint64)
                    yield self.first_effect(Pad(gate.name, spec, delta, own, entered))
                elif not spec.dependent:
                    some = rng.integers(0, 2, size, dtype=np.uint64) | (np.arange(size) == 0)
                    for bit, flipped in product(range(spec.width), (some, 1 - some)):
                        if flipped.any():
                            delta = flipped.astype(np.uint64) << np.uint64(bit)
                            yield self.first_effect(Pad(gate.name, spec, delta, own))

    def steady(self, wire: str) -> np.ndarray:
        """Which elements of a wire do not follow from the run's inputs at all, with these coins; tried with others."""
        tries = []
        for number in range(self.number + 1, self.number + 9):
            given = {**self.weights, **self.case.inputs(self.batch, number)}
            words = partial(drawn_words, number)
            tries.append(reference.evaluate(self.bound, given, lambda name, shape: self.run.public[name], words)[wire])
        return np.all([each == tries[0] for each in tries], axis=0).reshape(-1)


def drawn_words(number: int, gate: str, name: str, shape: tuple[int, ...], width: int) -> np.ndarray:
    """Other words for each number, as another run has."""
    return expand_words(seed(number).derive(gate, name), shape, width)


def padded(opening: Opening, key: Key, pads: list[Pad]) -> np.ndarray:
    """Which bits of an opening, element by element, these uniform values shift one to one: (elements, width), or
    (elements, 1) of field elements."""
    found = np.zeros((int(np.prod(opening.shape)), opening.width or 1), dtype=bool)
    for pad in pads:
        if bool(opening.width) != bool(pad.correlation.width):
            continue
        effect = pad.effects[key].astype(np.uint64)
        if not opening.width:
            found |= (effect == pad.delta).all() or (fp.neg(effect) == pad.delta).all()
            continue
        ones = (pad.delta != 0).astype(np.uint64)
        for start, place in product(range(0, effect.size, ones.size), range(opening.width)):
            here = np.zeros_like(effect)
            here[start : start + ones.size] = ones << np.uint64(place)
            if (effect == here).all():
                found[here != 0, place] = True
    return found


def check_openings(bench: Bench, pads: list[Pad]) -> None:
    """Each element of each opening has a uniform value of its own, which nothing before it has shown.

    Of openings side by side, in some order each has values that no later one shows: then all are uniform together.
    """
    uniform = [pad for pad in pads if not pad.correlation.dependent and not pad.entered]
    left = set(bench.sent)
    while left:
        shown = {key: [pad for pad in uniform if set(pad.effects) & left == {key}] for key in left}
        hidden = {key for key in left if padded(bench.sent[key][0], key, shown[key]).all()}
        assert hidden, left
        left -= hidden


def check_outputs(bench: Bench, pads: list[Pad]) -> None:
    """Beside its own mask, whose seeds its recipients have, each element of an output carries dealt shares.

    What the plan makes a constant needs none: a padding, a series of zeros.  Of outputs side by side in some order each
    has shares that no later one carries, so that together they show no more than apart; but several public linear
    maps of one unopened wire (Open) show that wire's shares, as one would.
    """
    dealt = [pad for pad in pads if not pad.own]
    writers = {name: gate for gate in bench.bound.gates for name in gate.writes}
    left = {opening_of(writers[out.wire], out.wire, bench): out.wire for out in bench.bound.outputs}
    for key, name in left.items():
        assert any(pad.own == mask_name(name) and set(pad.effects) == {key} for pad in pads), name
    while left:
        covered = set()
        for key, name in left.items():
            others = set() if writers[name].kind == "open" else set(left) - {key}
            effects = [pad.effects[key] != 0 for pad in dealt if key in pad.effects and not others & set(pad.effects)]
            if np.any([bench.steady(name), *effects], axis=0).all():
                covered.add(key)
        assert covered, left
        left = {key: name for key, name in left.items() if key not in covered}


def opening_of(gate: Gate, wire: str, bench: Bench) -> Key:
    """The opening that makes an output's wire public."""
    rounds = gate.openings(bench.bound.wire)
    [last] = {key[0] for key in bench.sent if key[1] == gate.name and key[2] in {o.name for o in rounds[-1]}} or {None}
    assert last is not None, f"{gate.kind} writes an output and opens nothing"
    names = [opening.name for opening in rounds[-1]]
    return (last, gate.name, names[0] if len(names) == 1 else wire)


def test_security_38_every_gate_is_known() -> None:
    """Who adds a gate says here whether it opens anything; the tests below then find out."""
    assert OPENS | FREE == set(GATES) == set(CASES) and not OPENS & FREE


@pytest.mark.parametrize("kind", sorted(GATES))
def test_security_38_openings_carry_fresh_uniforms_and_outputs_fresh_dealt_shares(kind: str) -> None:
    seen: set[bool] = set()

    @examples(8)
    @given(case=FEW.get(kind, CASES[kind]), party=st.sampled_from([0, 1]), number=st.integers(1, 1 << 30))
    def attempt(case: Case, party: int, number: int) -> None:
        bench = Bench(case, party, batch=2, number=number)
        gates = [gate for gate in bench.bound.online if gate.kind == kind]
        seen.update(bool(gate.openings(bench.bound.wire)) for gate in gates)
        pads = list(bench.pads())
        check_openings(bench, pads)
        check_outputs(bench, pads)

    attempt()
    assert (True in seen) == (kind in OPENS), seen


def by_hand(*kinds: str) -> Case:
    """An input, then a truncation or a ReLU."""
    b = Builder()
    b.enter("x", ("batch", 3), 20)
    last = "x"
    for kind in kinds:
        b.gate(GATES[kind](name=kind, x=last, out=f"by {kind}", shift=0), wire(f"by {kind}", ("batch", 3), 21))
        last = f"by {kind}"
    b.output(last)
    return Case(b, {"x": (1 << 18, 1)}, lambda values: None)


@pytest.mark.parametrize("kinds", [("truncate",), ("relu",), ("truncate", "relu")])
def test_security_38_what_has_no_mask_or_no_dealt_share_is_found(kinds: tuple[str, ...]) -> None:
    """The control: both checks fail if what they look for is not there."""
    bench = Bench(by_hand(*kinds), party=0, batch=2, number=7)
    pads = list(bench.pads())
    check_openings(bench, pads)
    check_outputs(bench, pads)
    with pytest.raises(AssertionError):  # as if nothing but its own mask, which recipients know, hid an output's share
        check_outputs(bench, [pad for pad in pads if pad.own])
    for missing in {
        (pad.gate, pad.correlation.name) for pad in pads if not pad.correlation.dependent and not pad.entered
    }:
        with pytest.raises(AssertionError):  # as if an opening were not masked
            check_openings(bench, [pad for pad in pads if (pad.gate, pad.correlation.name) != missing])


def test_security_38_one_mask_for_two_elements_is_found() -> None:
    bench = Bench(by_hand("truncate"), party=0, batch=2, number=7)
    [pad] = [pad for pad in bench.pads() if not pad.correlation.dependent and not pad.entered]
    [(key, effect)] = pad.effects.items()
    pad.effects[key] = np.full_like(effect, effect[0])
    with pytest.raises(AssertionError):
        check_openings(bench, [pad])
