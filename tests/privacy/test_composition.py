"""Losses of answers together, by the least that holds for all of them: compared with every outcome, one by one."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from mpc.privacy.composition import MOST_ANSWERS, composed
from mpc.privacy.facts import Loss


def short(epsilon: float, delta: float, count: int, together: float) -> float:
    """Delta of the worst answers that cost (epsilon, delta) each: all outcomes of all of them, as pairs of chances.

    With chance delta an answer tells all; else a bit, right with chance e^epsilon / (1 + e^epsilon).
    """
    right, wrong = (math.exp(each) / (1 + math.exp(epsilon)) * (1 - delta) for each in (epsilon, 0.0))
    one = [(delta, 0.0), (right, wrong), (wrong, right), (0.0, delta)]
    total = 0.0
    for outcome in itertools.product(one, repeat=count):
        here, there = (math.prod(each[side] for each in outcome) for side in (0, 1))
        total += max(0.0, here - math.exp(together) * there)
    return total


@pytest.mark.parametrize(
    ("epsilon", "delta", "count", "most"),
    [
        ("0.5", "0", 1, "0.01"),
        ("0.5", "0", 2, "0.05"),
        ("0.3", "0", 6, "0.02"),
        ("0.2", "1/1000", 5, "0.02"),
        ("1", "1/500", 4, "0.1"),
        ("0.25", "0", 6, "0.4"),
    ],
)
def test_no_less_holds_and_this_does(epsilon: str, delta: str, count: int, most: str) -> None:
    each, whole = Loss(Fraction(epsilon), Fraction(delta)), Fraction(most)
    found = composed(each.epsilon, [each.delta] * count, whole)
    assert short(float(each.epsilon), float(each.delta), count, float(found)) <= float(whole) + 1e-12
    if found:
        less = float(found) - 1e-6
        assert short(float(each.epsilon), float(each.delta), count, less) > float(whole) - 1e-12
    assert 0 <= found <= count * each.epsilon


def test_golden_numbers() -> None:
    """An accountant of privacy loss distributions (dp-accounting 0.6, steps of 0.001) finds 4.7746 and 0.99937."""
    tenth = Fraction(1, 10)
    assert composed(tenth, [Fraction(0)] * 100, Fraction(1, 10**6)) == Fraction(4774567589, 10**9)
    assert composed(tenth, [Fraction(0)] * 10, Fraction(1, 10**6)) == Fraction(999370906, 10**9)
    assert composed(Fraction(1, 2), [Fraction(0)] * 10, Fraction(1, 10**6)) < 5


def test_a_delta_that_is_spent_already_leaves_the_sum() -> None:
    each = Loss(Fraction(1, 10), Fraction(1, 10**7))
    assert composed(each.epsilon, [each.delta] * (20), Fraction(19, 10**7)) == 2
    assert composed(each.epsilon, [each.delta] * (20), Fraction(1, 10**12)) == 2
    assert composed(each.epsilon, [each.delta] * (20), Fraction(1, 10**5)) < 2


def test_more_answers_tell_more_and_more_delta_says_less() -> None:
    each = Loss(Fraction(1, 20), Fraction(1, 10**12))
    counts = [composed(each.epsilon, [each.delta] * (count), Fraction(1, 10**6)) for count in (1, 2, 10, 100, 1000)]
    assert counts == sorted(counts) and len({*counts}) == 5
    deltas = [composed(each.epsilon, [each.delta] * (100), Fraction(1, 10**power)) for power in (3, 6, 8)]
    assert deltas == sorted(deltas) and len({*deltas}) == 3


def test_of_sums_beyond_what_decimals_hold_the_sum_is_said() -> None:
    for epsilon, count in ((150, 16384), (1000, 3000), (2_400_000, 1)):
        deltas = [Fraction(0)] * count
        assert composed(Fraction(epsilon), deltas, Fraction(1, 10**6)) == epsilon * count


def test_of_too_many_answers_the_sum_is_said() -> None:
    each = Loss(Fraction(1, 10))
    assert composed(each.epsilon, [each.delta] * (MOST_ANSWERS), Fraction(1, 10**6)) < MOST_ANSWERS * each.epsilon
    assert (
        composed(each.epsilon, [each.delta] * (MOST_ANSWERS + 1), Fraction(1, 10**6))
        == (MOST_ANSWERS + 1) * each.epsilon
    )


def test_answers_of_one_epsilon_may_have_different_deltas() -> None:
    """Each counts with its own: the worst answers of two, outcome by outcome."""
    epsilon, deltas, whole = Fraction(2, 5), (Fraction(1, 100), Fraction(1, 1000)), Fraction(1, 20)
    found = float(composed(epsilon, deltas, whole))
    right, wrong = (np.exp(0.4) / (1 + np.exp(0.4)), 1 / (1 + np.exp(0.4)))

    def short_of(together: float) -> float:
        sides = [
            [
                (float(d), 0.0),
                (right * (1 - float(d)), wrong * (1 - float(d))),
                (wrong * (1 - float(d)), right * (1 - float(d))),
            ]
            for d in deltas
        ]
        pairs = [(a * c, b * e) for a, b in sides[0] for c, e in sides[1]]
        return float(sum(max(0.0, a - np.exp(together) * b) for a, b in pairs))

    assert short_of(found) <= float(whole) + 1e-9 < short_of(found - 1e-5)
