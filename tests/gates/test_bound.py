"""Bound: its result lies in [0, 2^width) whatever the parties hold, and in range it is the rounded value."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from mpc.field import P
from mpc.gates.bound import Bound
from mpc.gates.open import Open
from mpc.gates.truncate import Truncate
from mpc.plan.cost import gate_cost, plan_cost
from mpc.plan.plan import Plan
from mpc.wires import Masking
from tests.support.plans import Builder, wire
from tests.support.worlds import make_world

B = "batch"


def plan(width: int, shift: int, bits: int, masking: Masking = Masking.UNOPENED) -> Plan:
    b = Builder()
    b.enter("x", (B,), bits, Fraction(1 << shift))
    b.gate(Bound(name="b", x="x", out="y", width=width, shift=shift), wire("y", (B,), width, masking=masking))
    if masking is Masking.UNOPENED:
        b.gate(Open(name="o", x="y", out="z"), wire("z", (B,), width))
    b.output(b.wires[-1].name)
    return b.build()


def bounded(plan: Plan, x: np.ndarray, parties: int = 2, number: int = 1) -> np.ndarray:
    return make_world(plan, {}, parties, number).run({"x": x}, x.size).outputs[plan.outputs[0].wire]


@pytest.mark.parametrize(("width", "shift"), [(1, 0), (12, 0), (12, 17), (16, 45), (20, 3), (48, 13)])
@pytest.mark.parametrize("parties", [2, 3])
def test_security_40_no_element_of_the_field_leaves_the_bound(width: int, shift: int, parties: int) -> None:
    """Values that no honest owner enters, under a declared bound that lies in either direction."""
    rng = np.random.default_rng([width, shift])
    edges = np.array([0, 1, -1, P // 2, -(P // 2), 1 << 59, -(1 << 59), (1 << (width + shift)) % P // 2])
    x = np.concatenate([edges, rng.integers(-(P // 2), P // 2, 3000, endpoint=True)])
    for bits in (shift + 1, 59):
        y = bounded(plan(width, shift, bits), x, parties)
        assert y.min() >= 0 and y.max() < 1 << width
        assert len(np.unique(y)) > min(1 << width, 2000) // 2  # and it is not a constant


@pytest.mark.parametrize("masking", [Masking.DRAWN, Masking.UNOPENED])
def test_it_rounds_without_a_bias(masking: Masking) -> None:
    x = np.full(20_000, (700 << 10) + 300)  # 700 and 300/1024
    y = bounded(plan(12, 10, 22, masking), x)
    assert set(y.tolist()) == {700, 701}
    assert abs((y - 700).mean() - 300 / 1024) < 5 * 0.5 / np.sqrt(x.size)


@pytest.mark.parametrize(("width", "shift"), [(12, 0), (12, 9)])
def test_the_whole_range_is_kept(width: int, shift: int) -> None:
    x = np.arange((1 << width) - 1, dtype=np.int64) << shift
    assert (bounded(plan(width, shift, width + shift), x) == np.arange(x.size)).all()


def test_a_truncation_is_bounded_by_nothing() -> None:
    """The control: what `Truncate` makes of the field's elements is no bound at all."""
    b = Builder()
    b.enter("x", (B,), 12)
    b.gate(Truncate(name="t", x="x", out="y", shift=0), wire("y", (B,), 12))
    b.output("y")
    y = bounded(b.build(), np.random.default_rng(1).integers(-(P // 2), P // 2, 100))
    assert np.abs(y).max() > 1 << 50


@pytest.mark.parametrize(("width", "dealt"), [(12, 22), (16, 26), (20, 34)])
def test_what_it_costs(width: int, dealt: int) -> None:
    bound = plan(width, 3, 40).bind(800)
    cost = gate_cost(bound.gates[1], bound.wire)
    assert (cost.rounds, cost.dealt) == (2, 800 * dealt)
    assert cost.sent == 800 * 9 // 8
    assert plan_cost(plan(width, 3, 40), 800).rounds == 3
