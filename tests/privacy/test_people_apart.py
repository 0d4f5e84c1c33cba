"""Who may be in several origins at once, and what of each counts: the most that one person moves, and never less."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import gaussian as table
from mpc.errors import PlanError
from mpc.gates.linear import Combine, Weigh
from mpc.gates.moves import Take
from mpc.gates.truncate import Truncate
from mpc.plan.ends import PlanOutput
from mpc.privacy import gaussian
from mpc.privacy.facts import StoredFacts
from mpc.privacy.guarantee import guarantee, sensitivities
from mpc.privacy.intervals import interval, of_rows
from mpc.privacy.states import MOST_APART, Moved, most
from tests.support.effort import examples
from tests.support.plans import wire
from tests.support.questions import FACTS, WIDE, B, Question

LONE = frozenset[str]()


def among(parts: dict[str, Moved], apart: dict[str, frozenset[str]]) -> Moved:
    """The most of all sets of origins no two of which are apart, by going through all sets."""
    found = Moved()
    for number in range(1, len(parts) + 1):
        for names in combinations(parts, number):
            if not any(b in apart[a] and a in apart[b] for a, b in combinations(names, 2)):
                total = sum((parts[name] for name in names), Moved())
                found = Moved(max(found.first, total.first), max(found.second, total.second))
    return found


@examples(60)
@given(st.data())
def test_no_person_moves_more_than_is_found(data: st.DataObject) -> None:
    names = "abcde"[: data.draw(st.integers(1, 5))]
    sizes = st.builds(Moved, st.integers(0, 9), st.fractions(0, 9, max_denominator=4))
    parts = {name: data.draw(sizes) for name in names}
    apart = {name: frozenset(data.draw(st.sets(st.sampled_from(names)))) - {name} for name in names}
    assert most(parts, apart) == among(parts, apart)


def test_one_side_alone_says_nothing() -> None:
    parts = {"one": Moved(3, Fraction(1)), "two": Moved(2, Fraction(2))}
    for apart in ({"one": frozenset(["two"]), "two": LONE}, {"one": LONE, "two": frozenset(["one"])}):
        assert most(parts, apart) == Moved(5, Fraction(3))
    both = {"one": frozenset(["two"]), "two": frozenset(["one"])}
    assert most(parts, both) == Moved(3, Fraction(2))  # of each size its own most


@pytest.mark.parametrize(("many", "found"), [(MOST_APART, 1), (MOST_APART + 1, MOST_APART + 1)])
def test_of_many_origins_all_count(many: int, found: int) -> None:
    names = [str(number) for number in range(many)]
    apart = {name: frozenset(names) - {name} for name in names}
    assert most(dict.fromkeys(names, Moved(1, Fraction(1))), apart) == Moved(found, Fraction(found))


def total(**facts: StoredFacts) -> int:
    """D1 of the sum of three columns of [0, 15], each of another stored wire."""
    q = Question((B, 1))
    for name in ("second", "third"):
        q.enter(name, (B, 1), 20)
    for name in ("x", "second", "third"):
        q.bound(name, f"{name}_held")
        q.rows(f"{name}_held", f"{name}_sum")
    q.noised(q.combine("x_sum", "second_sum", "third_sum", out="t"), sensitivity=1)
    return sensitivities(q.build(), facts)["draw:n"]


def test_an_origin_is_apart_where_all_its_wires_are() -> None:
    """Of two wires of one dataset one says nothing of the other origin: a person may be in both."""
    one, silent = StoredFacts(9, 1, "one", apart=frozenset(["two"])), StoredFacts(9, 1, "one")
    two = StoredFacts(9, 4, "two", apart=frozenset(["one"]))
    assert total(x=one, second=one, third=two) == 60
    assert total(x=one, second=silent, third=two) == total(x=silent, second=one, third=two) == 30 + 60


def test_a_person_has_the_most_rows_that_any_wire_says() -> None:
    few, many = StoredFacts(9, 1, "one"), StoredFacts(9, 3, "one")
    assert (
        total(x=few, second=many, third=few)
        == total(x=many, second=few, third=few)
        == total(x=few, second=few, third=many)
        == 3 * 45
    )


def test_further_origins_of_a_wire_count() -> None:
    alone = StoredFacts(9, 1, "one")
    assert total(x=StoredFacts(9, 1, "one", others=(("two", 2),)), second=alone, third=alone) == 45 + 2 * 15


def test_a_sum_that_stays_at_the_parties_is_a_sum_without_noise() -> None:
    """Rows may stay there, where their history is kept; a sum has none of its own rows any more."""
    q = Question()
    q.bound(drawn=True)
    q.rows()
    kept = wire("kept", (4,), WIDE, Fraction(1, 4), kept=True)
    q.gate(Truncate(name="t", x="s", out="kept", shift=2), kept)
    q.outputs.append(PlanOutput(name="kept", wire="kept", shape=(4,), dtype="float32", keep=True))
    with pytest.raises(PlanError, match="'kept' tells a sum without noise"):
        guarantee(q.build(), FACTS)


def test_a_sum_lies_between_those_of_one_row_and_of_all() -> None:
    assert of_rows((3, 5), 10) == (3, 50)
    assert of_rows((-5, -3), 10) == (-50, -3)
    assert of_rows((-5, 3), 10) == (-50, 30)


def test_what_a_take_leaves_out_is_zero_and_factors_of_either_sign_count() -> None:
    wires = {name: wire(name, (B, 2), 20) for name in ("x", "out")}
    left_out = Take(name="t", x="x", axis=1, indices=(0, -1), out="out")
    assert interval(left_out, [(3, 5)], wires) == (0, 5)
    assert interval(left_out.model_copy(update={"indices": (1, 0)}), [(3, 5)], wires) == (3, 5)
    weighed = Weigh(name="w", x="x", axis=1, factors=(-2, 3), out="out")
    assert interval(weighed, [(1, 4)], wires) == (-8, 12)


def test_what_is_added_moves_an_interval() -> None:
    """What is compared with levels later is where its bound says only with the constant."""
    wires = {name: wire(name, (B, 2), 20) for name in ("x", "y", "out")}
    added = Combine(name="c", xs=("x", "y"), factors=(2, -1), constant=7, out="out")
    assert interval(added, [(3, 5), (0, 4)], wires) == (2 * 3 - 4 + 7, 2 * 5 + 7)


def test_a_delta_is_refused_from_its_limit_on() -> None:
    gaussian.check_delta(gaussian.MOST_DELTA)
    assert gaussian.MOST_DELTA == Fraction(1, 10**5)
    with pytest.raises(PlanError, match="with a delta of"):
        gaussian.check_delta(gaussian.MOST_DELTA + Fraction(1, 1 << 80))


@pytest.mark.parametrize("sigma", [Fraction(1, 64), Fraction(3, 2), Fraction(40)])
def test_a_word_on_a_threshold_is_above_it(sigma: Fraction) -> None:
    """N is the least k with u < T_k: a word of T_k itself belongs to the next k whose threshold is larger."""
    found = table.thresholds(sigma)
    reach = table.reach(sigma)
    ends = [next((k for k, t in enumerate(found) if word < t), len(found)) - reach for word in found]
    np.testing.assert_array_equal(table.drawn(found, sigma), ends)
