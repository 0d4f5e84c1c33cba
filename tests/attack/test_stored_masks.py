"""One x^, one mask, many runs: what is opened of data at rest has a mask of its own in each run, whatever is asked.

x^ and its mask stay for years.  So whoever keeps all openings and all messages may lay any two runs beside each other,
and x^ beside both: what they show together has to be uniform too.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from mpc import field as fp
from mpc import tables
from mpc.field import P
from mpc.gates.base import Gate
from mpc.gates.bound import Bound
from mpc.gates.convolution import Convolution
from mpc.gates.fourier import Clamp, Fourier
from mpc.gates.linear import Combine
from mpc.gates.matmul import Matmul
from mpc.gates.maximum import Maximum
from mpc.gates.moves import Reshape
from mpc.gates.multiply import Multiply
from mpc.gates.relu import Relu
from mpc.gates.step import Step
from mpc.gates.truncate import Truncate
from mpc.interpret.world import World, WorldRun
from mpc.plan.plan import Plan
from mpc.windows import Windows
from mpc.wires import Lifetime, Masking, Wire
from tests.support.plans import Builder, wire, with_parts
from tests.support.questions import Question, fitted
from tests.support.statistics import assert_uniform
from tests.support.worlds import openings, seed

B = "batch"
ROWS = 2000
F = Fraction(1 << 8)
INHERITED, DERIVED = {"masking": Masking.INHERITED}, {"masking": Masking.DERIVED}
WEIGHT = {"w": np.arange(16).reshape(4, 4) - 7}
WAVE = {"window": 30, "constant": 3, "cosines": (5, -2), "sines": (1, 9), "dealt_bits": 20}
CLAMP = Clamp(low=-(1 << 20), high=1 << 21, below=0, above=1 << 30, shift=8)
SLIDE = Windows(kernel=(2,), strides=(1,), dilations=(1,), pads=((1, 0),), groups=2)
ASKED: dict[str, tuple[Gate, Wire]] = {
    "bound": (Bound(name="g", x="x", out="z", width=12, shift=8), wire("z", (B, 4), 23)),
    "convolution": (
        Convolution(name="g", x="grid", weight="k", windows=SLIDE, out="z"), wire("z", (B, 2, 2), 50, F)),
    "fourier": (
        Fourier(name="g", x="x", out="z", table=tables.sincos_digest(), clamp=CLAMP, **WAVE), wire("z", (B, 4), 50)),
    "matmul": (Matmul(name="g", x="x", weight="w", out="z"), wire("z", (B, 4), 50, F)),
    "matmul, derived": (Matmul(name="g", x="x", weight="w", out="z"), wire("z", (B, 4), 50, F, **DERIVED)),
    "matmul, both at rest": (Matmul(name="g", x="grid", y="other", out="z"), wire("z", (B, 2, 2), 59, F * F)),
    "maximum": (Maximum(name="g", x="x", value="z", index="i", shift=8), wire("z", (B, 1), 23)),
    "multiply, both at rest": (Multiply(name="g", x="x", y="same", out="z"), wire("z", (B, 4), 59, F * F)),
    "relu": (Relu(name="g", x="x", out="z", shift=8), wire("z", (B, 4), 23)),
    "step": (Step(name="g", x="x", levels=(0, 1 << 20), shift=8, out="z"), wire("z", (B, 4, 2), 1)),
    "truncate": (Truncate(name="g", x="x", out="z", shift=8), wire("z", (B, 4), 23)),
    "truncate, of a map": (Truncate(name="g", x="map", out="z", shift=0), wire("z", (B, 4), 33, F)),
}  # fmt: skip


def plan_of(kind: str) -> Plan:
    """A stored wire of four columns, the same column once more, and one gate that opens something of them."""
    b, (gate, out) = Builder(), ASKED[kind]
    b.enter("w", (4, 4), 12, session=True)
    b.enter("k", (2, 1, 2), 12, session=True)
    for name in ("x", "same"):
        b.enter(name, (B, 4), 30, F)
    b.gate(Reshape(name="grid", x="x", out="grid"), wire("grid", (B, 2, 2), 30, F, **INHERITED))
    b.gate(Reshape(name="other", x="same", out="other"), wire("other", (B, 2, 2), 30, F, **INHERITED))
    b.gate(Combine(name="map", xs=("x", "same"), factors=(2, -5), out="map"), wire("map", (B, 4), 33, F, **INHERITED))
    b.gate(gate, out, *(wire(name, (B, 1), 3) for name in gate.writes[1:]))
    if out.masking is Masking.DERIVED:
        b.gate(Truncate(name="t", x="z", out="t", shift=0), wire("t", out.shape, 51, F))
    b.output(b.wires[-1].name)
    return at_rest(b.build(), "x", "same")


def at_rest(plan: Plan, *wires: str) -> Plan:
    """The plan with these inputs stored."""
    gates = [g.model_copy(update={"lifetime": Lifetime.STORED}) if g.writes[0] in wires else g for g in plan.gates]
    return with_parts(plan, gates=gates)


def two_runs(plan: Plan, values: np.ndarray) -> tuple[World, list[WorldRun]]:
    """All rows twice, in one world: x^ and masks are those of the first run, all else is dealt anew."""
    weights = {**WEIGHT, "k": np.arange(4).reshape(2, 1, 2) - 1}
    world = World(plan, weights, 3, seed(7), {"x": values, "same": values})
    return world, [world.run({}, ROWS) for _ in range(2)]


@pytest.mark.parametrize("kind", sorted(ASKED))
def test_no_two_openings_of_data_at_rest_are_related(kind: str) -> None:
    plan = plan_of(kind)
    _, (first, second) = two_runs(plan, np.tile([3 << 20, -(3 << 20), 256, 0], (ROWS, 1)))
    assert all((first.public[name] == second.public[name]).all() for name in ("x", "same"))
    bound = plan.bind(ROWS)
    one, two = openings(bound, first), openings(bound, second)
    assert one
    for key, (opening, values) in one.items():
        beside = two[key][1]
        if opening.width:
            assert_uniform(values ^ beside, opening.width, f"{key}: both runs")
            continue
        for factor in (1, 2, fp.P - 1, fp.P - 2):  # what a mask that both runs share would leave
            assert_uniform(fp.add(values, fp.scale(beside, factor)), 0, f"{key}: both runs, {factor}")
        if values.size == first.public["x"].size:
            shown = first.public["x"].reshape(-1)
            for factor in (1, fp.P - 1):
                assert_uniform(fp.add(values.reshape(-1), fp.scale(shown, factor)), 0, f"{key}: with x^, {factor}")


@pytest.mark.parametrize("kind", sorted(ASKED))
def test_no_partys_messages_of_two_runs_are_related(kind: str) -> None:
    _, (first, second) = two_runs(plan_of(kind), np.zeros((ROWS, 4), dtype=np.int64))
    for each, other in zip(first.payloads, second.payloads, strict=True):
        for one, two in zip(each, other, strict=True):
            mine, later = (np.frombuffer(payload, dtype=np.uint8) for payload in (one, two))
            assert_uniform((mine ^ later)[: 1 << 14], 8 if len(one) % 8 else 4, "messages of two runs")


def test_a_shared_mask_would_show() -> None:
    """The control: x^ itself, opened in both runs."""
    values = np.arange(100, dtype=np.uint64)
    with pytest.raises(AssertionError):
        assert_uniform(fp.add(values, fp.scale(values, P - 1)), 0, "both")


def test_a_noised_sum_of_data_at_rest_is_noised_anew_each_time() -> None:
    """One question, over and over, of the same rows in one session: no noise comes again, and none follows another."""
    q = Question()
    q.bound()
    q.rows()
    q.noised()
    world = World(at_rest(fitted(q.build()), "x"), {}, 2, seed(3), {"x": np.full((50, 4), 7)})
    noise = np.array([world.run({}, 50).outputs["z"] - 350 for _ in range(40)])
    assert len({row.tobytes() for row in noise}) == 40
    assert np.abs(np.corrcoef(noise.T) - np.eye(4)).max() < 0.6
    assert np.abs(np.corrcoef(noise[1:].reshape(-1), noise[:-1].reshape(-1))[0, 1]) < 0.4
