"""What Gaussian noise is worth: never less than what its law tells, and not much more than needed."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import gaussian as table
from mpc import truncation
from mpc.errors import PlanError
from mpc.field import P
from mpc.gates.linear import Combine
from mpc.privacy import gaussian, products
from mpc.privacy.facts import StoredFacts
from mpc.privacy.forms import Matrix
from mpc.privacy.guarantee import guarantee, hidden
from mpc.privacy.sensitivity import root
from mpc.wires import Masking
from tests.support.effort import examples
from tests.support.plans import wire
from tests.support.questions import EPSILON, FACTS, B, Question, by_category
from tests.support.worlds import make_world


def exact(epsilon: float, sigma: float, move: tuple[int, ...]) -> float:
    """The delta of discrete Gaussian noise for one change, by going through all that can be told."""
    most = int(12 * sigma) + 2 * max(map(abs, move)) + 2
    k = np.arange(-most, most + 1)
    one = np.exp(-(k**2) / (2 * sigma**2)) / np.exp(-(k**2) / (2 * sigma**2)).sum()
    here, there = np.ones(1), np.ones(1)
    for by in move:
        shifted = np.exp(-((k - by) ** 2) / (2 * sigma**2)) / np.exp(-(k**2) / (2 * sigma**2)).sum()
        here, there = (np.outer(a, b).reshape(-1) for a, b in ((here, one), (there, shifted)))
    return float(np.maximum(here - np.exp(epsilon) * there, 0).sum())


@pytest.mark.parametrize("epsilon", ["1/10", "1/2", "1", "5"])
@pytest.mark.parametrize("move", [(1,), (3,), (1, 1), (2, 1, 1)], ids=str)
def test_delta_covers_the_law_and_not_much_more(epsilon: str, move: tuple[int, ...]) -> None:
    squared = sum(by * by for by in move)
    for factor in (2, 4, 6) if len(move) < 3 else (2,):
        sigma = Fraction(round(64 * factor * squared**0.5 / float(Fraction(epsilon))), 64)
        if float(sigma) * len(move) > 60 or sigma > 100:
            continue
        said = gaussian.delta(Fraction(epsilon), sigma, root(squared), len(move))
        true = exact(float(Fraction(epsilon)), float(sigma), move)
        assert true * (1 - 1e-9) <= said
        assert float(said) <= 12 * true + 1e-13


def test_delta_covers_the_table_itself() -> None:
    """Of the probabilities that are really drawn, exactly: two parties' outputs, one a unit apart."""
    sigma, epsilon = Fraction(3, 2), Fraction(1)
    cells = np.diff([0, *map(int, table.thresholds(sigma)), 1 << 63]).tolist()
    with localcontext() as context:
        context.prec = 50
        e = Decimal(1).exp()
        told = [Decimal(a) - e * Decimal(b) for a, b in zip([*cells, 0], [0, *cells], strict=True)]
        true = sum(max(each, Decimal(0)) for each in told) / (1 << 63)
    assert true <= Decimal(float(gaussian.delta(epsilon, sigma, Fraction(1), 1)))


def test_golden_deltas() -> None:
    """Every process has to find these; another number is another charge."""
    found = gaussian.delta(Fraction(1, 2), Fraction(100), Fraction(10), 65)
    assert found == Fraction(41699610077571973, 1 << 80)
    assert gaussian.smallest(Fraction(1, 2), Fraction(1, 10**8), Fraction(10), 65) == Fraction(6689, 64)


@pytest.mark.parametrize("epsilon", [Fraction(1, 100), Fraction(1, 2), Fraction(5)])
def test_the_smallest_sigma_is_enough_and_no_smaller_one_is(epsilon: Fraction) -> None:
    most = Fraction(1, 10**9)
    sigma = gaussian.smallest(epsilon, most, Fraction(1, 2), 9)
    assert sigma is not None and gaussian.delta(epsilon, sigma, Fraction(1, 2), 9) <= most
    assert gaussian.delta(epsilon, sigma - Fraction(1, 64), Fraction(1, 2), 9) > most
    assert gaussian.smallest(epsilon, most, Fraction(10**6), 9) is None


def test_delta_grows_with_what_is_hidden_and_is_never_more_than_one() -> None:
    found = [gaussian.delta(EPSILON, Fraction(100), Fraction(2) ** k, 1) for k in range(-10, 40, 5)]
    assert found == sorted(found) and found[-1] == 1 and found[0] > 0
    many = gaussian.delta(EPSILON, Fraction(100), Fraction(1, 1024), 10**6)
    assert many >= 10**6 * table.distance(Fraction(100)) * 2


@pytest.mark.parametrize("epsilon", [Fraction(0), Fraction(-1), Fraction(5) + Fraction(1, 10**9)])
def test_an_epsilon_outside_is_refused(epsilon: Fraction) -> None:
    with pytest.raises(PlanError, match="epsilon"):
        gaussian.delta(epsilon, Fraction(1), Fraction(1), 1)


# ------------------------------------------------------------------ in a plan


def noised(columns: int, sigma: Fraction, shift: int = 0, width: int = 4) -> Question:
    q = Question((B, columns))
    q.bound(width=width)
    name = q.rows()
    if shift:
        name = q.rounded(shift=shift)
    q.gaussian((columns,), sigma=sigma)
    q.combine(name, "n")
    if shift:
        q.wires[-2] = q.wires[-2].model_copy(update={"scale": Fraction(1, 1 << shift)})
        q.wires[-1] = q.wires[-1].model_copy(update={"scale": Fraction(1, 1 << shift)})
    q.told("v")
    q.wires[-1] = q.wires[-1].model_copy(update={"scale": Fraction(1, 1 << shift)})
    return q


def test_a_vector_costs_its_root() -> None:
    [vector] = guarantee(noised(49, Fraction(1000)).build(), FACTS).vectors
    assert (vector.mechanism, vector.sensitivity, vector.variance) == ("gaussian", 49 * 15, 2 * 10**6)
    assert vector.euclidean == 7 * 15
    assert vector.loss.delta == gaussian.delta(EPSILON, Fraction(1000), Fraction(105), 49) < Fraction(1, 10**6)


@pytest.mark.parametrize("shift", [1, 3, 6])
def test_a_rounded_sum_moves_by_a_unit_more(shift: int) -> None:
    plan = noised(9, Fraction(1000), shift).build()
    [moved] = hidden(plan, FACTS).values()
    assert moved.second == Fraction(45, 1 << shift) + 3 and moved.first == 135 // (1 << shift) + 9
    assert guarantee(plan, FACTS).vectors[0].euclidean == moved.second


@examples(200)
@given(
    ends=st.tuples(st.integers(-255, 255), st.integers(-255, 255)),
    mask=st.one_of(st.integers(0, 600), st.integers(P - 600, P - 1), st.integers(0, P - 1)),
    shift=st.integers(1, 7),
    fixed=st.booleans(),
)
def test_rounding_moves_a_value_by_less_than_its_part_and_one(
    ends: tuple[int, int], mask: int, shift: int, fixed: bool
) -> None:
    """For each mask, which the provider knows, and for each opened value, which parties know."""
    x = np.array(ends)
    public = np.array([(value + mask) % P if fixed else mask for value in ends], dtype=np.uint64)
    y = truncation.reference(x, public, 8, shift)
    assert abs(int(y[0] - y[1])) <= abs(ends[0] - ends[1]) / 2**shift + 1
    if ends[0] == ends[1]:
        assert y[0] == y[1]


def test_noise_is_added_to_a_rounded_sum_as_it_is() -> None:
    """In a run: the sum's higher bits, and noise of the table's reach."""
    plan = noised(3, Fraction(1), 2).build()
    x = np.tile(np.array([[4, 8, 15]]), (100, 1))
    found = make_world(plan, {}, 3, 5).run({"x": x}, 100).outputs["z"]
    assert (np.abs(found - np.array([100, 200, 375])) <= 2 * table.reach(Fraction(1)) + 1).all()


def test_both_kinds_of_noise_in_one_plan_add_up() -> None:
    q = noised(4, Fraction(1000))
    q.rows("y", "s2")
    q.noised("s2", sensitivity=60, tag="2")
    found = guarantee(q.build(), FACTS)
    assert found.mechanisms(["x"]) == ("gaussian", "laplace")
    assert found.of(["x"]).epsilon == 1
    assert found.of(["x"]).delta == sum(vector.loss.delta for vector in found.vectors)


@pytest.mark.parametrize("rows", [1, 3])
def test_several_rows_of_a_person_move_more(rows: int) -> None:
    facts = {"x": StoredFacts(100, rows, "one")}
    [moved] = hidden(noised(9, Fraction(1000), 3).build(), facts).values()
    assert moved.second == Fraction(rows * 45, 8) + 3


def test_a_rounded_sum_takes_laplace_noise_too() -> None:
    q = Question((B, 2))
    q.bound()
    q.rows()
    q.rounded(shift=1)
    q.draw((2,), sensitivity=15 + 2)
    gate = Combine(name="c", xs=("t", "n"), factors=(1, 1), out="v")
    q.gate(gate, wire("v", (2,), 42, Fraction(1, 2), masking=Masking.UNOPENED))
    q.told("v")
    q.wires[-1] = q.wires[-1].model_copy(update={"scale": Fraction(1, 2)})
    assert guarantee(q.build(), FACTS).vectors[0].sensitivity == 17


# ------------------------------------------------------------------ products of a pattern with bounded values


@pytest.mark.parametrize("bins", [2, 5, 9])
def test_a_sum_by_category_costs_twice_its_width(bins: int) -> None:
    q, width = by_category(bins), 15
    q.noised("p_sum")
    [moved] = hidden(q.unchecked(), FACTS).values()
    assert moved.first == 2 * width
    assert moved.second == root(2 * width * width)


@examples(60)
@given(case=st.data())
def test_no_product_of_a_pattern_moves_farther_than_is_proved(case: st.DataObject) -> None:
    """Against every pattern and both ends of every value, for maps of all kinds before and behind the product."""
    small = st.integers(-3, 3)
    levels, size, outputs = (case.draw(st.integers(1, 3)) for _ in range(3))
    low = case.draw(st.integers(-4, 4))
    high = low + case.draw(st.integers(0, 5))
    m = np.array(case.draw(st.lists(st.lists(small, min_size=levels, max_size=levels), min_size=size, max_size=size)))
    a = np.array(case.draw(st.lists(st.lists(small, min_size=size, max_size=size), min_size=outputs, max_size=outputs)))
    made = [Matrix(*np.nonzero(each), each[np.nonzero(each)].astype(np.int64)) for each in (m, a)]
    vectors = products.patterns(made[0], size, levels)
    atoms = products.multiplied(vectors, (low, high), frozenset())
    values = [
        a @ (m[:, :pattern].sum(axis=1) * np.array(ends))
        for pattern in range(levels + 1)
        for ends in product((low, high), repeat=size)
    ]
    apart = np.array(values)[:, None] - np.array(values)[None]
    if not made[1].values.size:
        return
    first, second, widths = products.moves(made[1], atoms)
    assert first >= np.abs(apart).sum(axis=-1).max() and second >= (apart**2).sum(axis=-1).max()
    for output, width in widths.items():
        assert width >= np.abs(apart[..., output]).max()
