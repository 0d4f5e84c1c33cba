"""Rows that are held to a norm: what is proved of them, against every row that there can be, and what is not proved."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.errors import PlanError
from mpc.gates.linear import Combine, Total, Weigh
from mpc.gates.moves import Reshape, Take
from mpc.gates.multiply import Multiply
from mpc.gates.step import Step
from mpc.interpret import reference
from mpc.plan.plan import Plan
from mpc.privacy.guarantee import guarantee, sensitivities
from tests.support.effort import examples
from tests.support.plans import wire, with_parts
from tests.support.questions import FACTS, INHERITED, B, Question, fitted

COLUMNS, WIDTH = 2, 2
CENTER = 2


def held(level: int = 5, factors: tuple[int, ...] = (1, 1), shift: int = 0, low: int = -1) -> Question:
    """The sum over rows of u h: u are two bounded columns, zeros where u^2 has reached `level`, weighed by `factors`;
    h is the third, of low to low + 3."""
    q = Question((B, COLUMNS + 1))
    shape = (B, COLUMNS)
    for name, places in (("x.v", (0, 1)), ("x.h", (2,))):
        gate = Take(name=name, x="x", axis=1, indices=places, out=name)
        q.gate(gate, wire(name, (B, len(places)), 20, **INHERITED))
    q.bound("x.v", "raw", WIDTH, drawn=True)
    q.bound("x.h", "one", WIDTH, drawn=True)
    for name, x, constant in (("c", "raw", -CENTER), ("h", "one", low)):
        gate = Combine(name=name, xs=(x,), factors=(1,), constant=constant, out=name)
        q.gate(gate, wire(name, shape if name == "c" else (B, 1), 3, **INHERITED))
    q.gate(Multiply(name="squares", x="c", y="c", out="squares"), wire("squares", shape, 8))
    q.gate(Total(name="norm", x="squares", axes=(1,), out="norm"), wire("norm", (B, 1), 8, **INHERITED))
    q.gate(Step(name="far", x="norm", levels=(level,), shift=shift, out="far"), wire("far", (B, 1, 1), 1))
    q.gate(Reshape(name="flat", x="far", out="flat"), wire("flat", (B, 1), 1, **INHERITED))
    q.gate(
        Combine(name="near", xs=("flat",), factors=(-1,), constant=1, out="near"), wire("near", (B, 1), 2, **INHERITED)
    )
    q.gate(Multiply(name="u", x="c", y="near", out="u"), wire("u", shape, 6))
    q.gate(Weigh(name="w", x="u", axis=1, factors=factors, out="w"), wire("w", shape, 12, **INHERITED))
    q.gate(Multiply(name="p", x="w", y="h", out="p"), wire("p", shape, 16))
    q.rows("p")
    q.noised("s")
    return q


def every_row(plan: Plan) -> np.ndarray:
    """The noised vector without its noise, for every row: (rows, elements)."""
    bound, found = plan.bind(1), []
    for row in product(range(1 << WIDTH), repeat=COLUMNS + 1):
        for coin in (0, 1):

            def coins(name: str, shape: tuple[int, ...], add: int = coin) -> np.ndarray:
                return np.full(shape, 1000 + add, dtype=np.uint64)

            given = {"x": np.array([row])}
            words = reference.evaluate(bound, given, coins, lambda gate, name, shape, bits: np.zeros(shape, np.uint64))
            found.append(words["s"].reshape(-1))
    return np.array(found)


@examples(40)
@given(
    level=st.integers(0, 9),
    factors=st.tuples(st.integers(-3, 3), st.integers(-3, 3)),
    shift=st.integers(0, 2),
    low=st.integers(-3, 0),
)
def test_no_two_rows_are_farther_apart_than_is_proved(
    level: int, factors: tuple[int, int], shift: int, low: int
) -> None:
    plan = held(level, factors, shift, low).unchecked()
    values = every_row(plan)
    apart = values[:, None] - values[None]
    first, second = np.abs(apart).sum(axis=-1).max(), np.sqrt((apart**2).sum(axis=-1)).max()
    if not first:
        return
    [vector] = guarantee(fitted(plan), FACTS).vectors
    assert vector.sensitivity >= first
    assert float(vector.euclidean) >= second * (1 - 1e-9)
    if factors == (1, 1):  # a ball is all that is known: two of its opposite points, times the largest number
        most = max(-low, low + 3)
        assert float(vector.euclidean) <= 2 * most * max(level - 1, 0) ** 0.5 + 1e-5


def replaced(name: str, **changes: object) -> Callable[[Plan], Plan]:
    return lambda plan: with_parts(
        plan, gates=[g.model_copy(update=changes) if g.name == name else g for g in plan.gates]
    )


def narrower(plan: Plan) -> Plan:
    return with_parts(plan, wires=[w.model_copy(update={"bits": 2}) if w.name == "norm" else w for w in plan.wires])


@pytest.mark.parametrize(
    "lie",
    [
        replaced("squares", y="x.v"),  # a product with what is not bounded
        replaced("squares", x="raw", y="raw"),  # the norm of another value
        replaced("norm", x="c"),  # no squares
        replaced("near", factors=(1,), constant=0),  # keeps the rows that are too long
        replaced("near", factors=(-1,), constant=2),  # keeps all rows
        replaced("near", factors=(-2,), constant=1),
        replaced("u", x="x.v"),  # other rows are kept than those that were measured
        replaced("far", x="squares"),
        narrower,  # the norm may leave what it is compared on
    ],
)
def test_what_is_not_the_norm_of_these_rows_proves_nothing(lie: Callable[[Plan], Plan]) -> None:
    plan = held().unchecked()
    assert sensitivities(plan, FACTS)["draw:n"] > 0
    with pytest.raises(PlanError, match="nothing is proved of what a row contributes"):
        guarantee(lie(plan), FACTS)
