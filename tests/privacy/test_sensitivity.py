"""What is proved of a row's contribution, against every row that there can be."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.errors import PlanError
from mpc.field import P
from mpc.gates.linear import Total, Weigh
from mpc.gates.moves import Concat, Reshape, Take
from mpc.gates.step import Step
from mpc.interpret import reference
from mpc.plan.plan import Plan
from mpc.privacy import forms
from mpc.privacy.guarantee import guarantee, sensitivities
from tests.support.effort import examples
from tests.support.plans import wire
from tests.support.questions import FACTS, INHERITED, WIDE, B, Question, fitted
from tests.support.worlds import make_world

small = st.integers(-3, 3)


def contributions(plan: Plan, vector: str, width: int, columns: int) -> np.ndarray:
    """The noised vector without its noise for every row of values below 2^width: (rows, elements)."""
    bound, found = plan.bind(1), []
    for row in product(range(1 << width), repeat=columns):
        x = np.array([row])

        def coin(name: str, shape: tuple[int, ...], x: np.ndarray = x) -> np.ndarray:
            return x.astype(np.uint64)  # masked by zeros: nothing is rounded

        words = reference.evaluate(bound, {"x": x}, coin, lambda gate, name, shape, bits: np.zeros(shape, np.uint64))
        found.append(words[vector].reshape(-1))
    return np.array(found)


def farthest(values: np.ndarray) -> tuple[int, float]:
    """The largest change between any two rows: of sizes added up, and Euclidean."""
    apart = values[:, None] - values[None]
    return int(np.abs(apart).sum(axis=-1).max()), float(np.sqrt((apart**2).sum(axis=-1)).max())


@st.composite
def questions(draw: st.DrawFn) -> tuple[Question, int, bool]:
    """Bounded values or bits of levels, mapped within a row, summed, mapped again: (a question, columns, bits?)."""
    columns, bits = draw(st.integers(1, 2)), draw(st.booleans())
    q = Question((B, columns))
    q.bound(width=2, drawn=bits)
    shape: tuple = (B, columns)
    if bits:
        levels = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
        q.step(*levels, x="y", out="b")
        shape = (B, columns, len(levels))
    name, place = ("b" if bits else "y"), 0
    for stage in ("row", "sum"):
        for _ in range(draw(st.integers(0, 3))):
            place += 1
            name, shape = mapped(draw, q, name, shape, f"{stage}{place}")
        if stage == "row":
            name, shape = q.rows(name), shape[1:]
    q.noised(name)
    return q, columns, bits


def mapped(draw: st.DrawFn, q: Question, x: str, shape: tuple, out: str) -> tuple[str, tuple]:
    """One public linear map along the last axis."""
    axis, size = len(shape) - 1, int(shape[-1])
    kind = draw(st.sampled_from(["weigh", "take", "combine", "total", "reshape", "concat"]))
    if kind == "weigh":
        factors = tuple(draw(st.lists(small, min_size=size, max_size=size)))
        gate, after = Weigh(name=out, x=x, axis=axis, factors=factors, out=out), shape
    elif kind == "take":
        indices = tuple(draw(st.lists(st.integers(-1, size - 1), min_size=1, max_size=4)))
        gate, after = Take(name=out, x=x, axis=axis, indices=indices, out=out), (*shape[:-1], len(indices))
    elif kind == "total":
        gate, after = Total(name=out, x=x, axes=(axis,), out=out), (*shape[:-1], 1)
    elif kind == "reshape":
        gate, after = Reshape(name=out, x=x, out=out), (*shape[:-1], 1, size)
    elif kind == "concat":
        gate, after = Concat(name=out, xs=(x, x), axis=axis, out=out), (*shape[:-1], 2 * size)
    else:
        q.combine(x, x, factors=(draw(small) or 1, draw(small) or 2), out=out)
        q.wires[-1] = q.wires[-1].model_copy(update={"bits": WIDE - 8})
        return out, shape
    known = next(w for w in q.wires if w.name == x)
    q.gate(gate, wire(out, after, known.bits if kind in ("take", "reshape", "concat") else WIDE - 8, **INHERITED))
    return out, after


@examples(40)
@given(case=questions())
def test_no_two_rows_are_farther_apart_than_is_proved(case: tuple[Question, int, bool]) -> None:
    q, columns, bits = case
    plan = q.unchecked()
    values = contributions(plan, "v", 2, columns)
    first, second = farthest(values)
    if not first:
        return
    try:
        needed = sensitivities(plan, FACTS)["draw:n"]
    except PlanError as refusal:  # a vector that no row changes, but for what this test's coins leave out
        assert "says nothing" in str(refusal)
        return
    [vector] = guarantee(fitted(plan), FACTS).vectors
    assert vector.sensitivity == needed >= first
    assert float(vector.euclidean) >= second * (1 - 1e-9)
    assert vector.euclidean <= needed
    if columns == 1 and not bits:
        assert needed == first  # one atom: the ends of its interval are the farthest rows
        assert float(vector.euclidean) == pytest.approx(second, abs=1e-5)


def histogram(levels: tuple[int, ...], columns: int = 1) -> Question:
    """How many rows lie between neighbouring levels: differences of neighbouring bits."""
    q, size = Question((B, columns)), len(levels)
    q.bound(width=4, drawn=True)
    q.step(*levels, x="y", out="b")
    q.rows("b")
    lower, upper = (-1, *range(size)), (*range(size), -1)
    for name, indices in (("lower", lower), ("upper", upper)):
        q.gate(
            Take(name=name, x="s", axis=1, indices=indices, out=name),
            wire(name, (columns, size + 1), WIDE, **INHERITED),
        )
    q.combine("lower", "upper", factors=(1, -1), out="h")
    return q


@pytest.mark.parametrize("bins", [2, 3, 9, 15])
def test_a_histogram_costs_two_however_many_bins(bins: int) -> None:
    """A person leaves one bin and enters another; the first bin counts from below its level, up to a constant."""
    levels = tuple(range(1, bins))
    q = histogram(levels)
    q.noised("h")
    assert sensitivities(q.unchecked(), FACTS)["draw:n"] == 2
    q = histogram(levels, columns=3)
    q.noised("h")
    assert sensitivities(q.unchecked(), FACTS)["draw:n"] == 6


def test_a_count_costs_one_and_a_sum_its_width() -> None:
    q = Question((B, 1))
    q.step(7, x="x", out="y")
    q.rows()
    q.noised()
    assert guarantee(q.build(), FACTS).vectors[0].sensitivity == 1
    q = Question((B, 1))
    q.bound(width=12)
    q.rows()
    q.noised(sensitivity=4095)
    [vector] = guarantee(q.build(), FACTS).vectors
    assert (vector.sensitivity, vector.euclidean, vector.elements) == (4095, 4095, 1)
    assert float(vector.variance) == pytest.approx(2 * (4095 * 2) ** 2, rel=1e-3)  # of Laplace noise at 1/2


def test_too_many_coefficients_are_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred times a sum of many elements, in a plan of a few bytes: all products were made, and counted then."""
    columns = 1 << 15
    monkeypatch.setattr(forms, "MOST_ENTRIES", 2 * columns)
    q = Question((B, columns))
    q.bound()
    q.gate(Total(name="t", x="y", axes=(1,), out="t"), wire("t", (B, 1), WIDE, **INHERITED))
    q.gate(Concat(name="c", xs=("t",) * 100, axis=1, out="c"), wire("c", (B, 100), WIDE, **INHERITED))
    q.rows("c")
    q.noised()
    tracemalloc.start()
    try:
        with pytest.raises(PlanError, match="more than 65,536 coefficients"):
            sensitivities(q.unchecked(), FACTS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 * columns * 20  # a product has 24 bytes an element


def test_bits_of_raw_data_are_bits_but_fall_no_more() -> None:
    """Data may lie beyond its declared bound: each bit is 0 or 1, in any pattern."""
    q = Question((B, 1))
    q.step(1, 2, 3, x="x", out="b")
    q.rows("b")
    q.gate(Total(name="t", x="s", axes=(1,), out="t"), wire("t", (1, 1), WIDE, **INHERITED))
    q.noised("t")
    assert sensitivities(q.unchecked(), FACTS)["draw:n"] == 3
    q = histogram((1, 2, 3))
    q.noised("h")
    assert sensitivities(q.unchecked(), FACTS)["draw:n"] == 2


def test_euclidean_is_the_smaller_of_two_bounds() -> None:
    """Of d bounded columns sqrt(d) widths, not d."""
    q = Question((B, 100))
    q.bound()
    q.rows()
    q.noised()
    [vector] = guarantee(fitted(q.unchecked()), FACTS).vectors
    assert vector.sensitivity == 1500 and float(vector.euclidean) == pytest.approx(150, abs=1e-5)
    assert isinstance(vector.euclidean, Fraction) and vector.euclidean >= 150


@pytest.mark.parametrize("shift", [0, 1, 3])
@pytest.mark.parametrize("parties", [2, 3])
def test_bits_of_bounded_values_fall_whatever_the_data(shift: int, parties: int) -> None:
    """The ground of a histogram's 2, in a run: elements of the whole field, levels that rise, and every coin."""
    levels = (-9, -1, 0, 2, 3, 7, 8, 11, 15)
    q = Question((B, 3))
    q.bound(width=4, drawn=True)
    gate = Step(name="step", x="y", levels=levels, shift=shift, out="b")
    q.gate(gate, wire("b", (B, 3, len(levels)), 1))
    q.output("b")
    x = np.random.default_rng(shift).integers(-(P // 2), P // 2, (400, 3))
    bits = make_world(q.build(), {}, parties, shift + 1).run({"x": x}, 400).outputs["b"]
    assert np.isin(bits, (0, 1)).all() and (np.diff(bits, axis=-1) <= 0).all()
    assert len(np.unique(bits.sum(axis=-1))) > 5
