"""Randomised response: the odds are those that were promised, exactly, and the estimate is right on average."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal, getcontext, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from mpc.errors import UsageError
from mpc.local import debias, deviation, randomise, threshold

WORD = 1 << 64
EPSILONS = (Fraction(1, 10**6), 0.01, 0.1, Fraction(1, 3), Decimal("0.5"), 1, np.log(3), 2.5, 8, 32)


def fraction(epsilon: Any) -> Fraction:
    return Fraction(str(epsilon)) if isinstance(epsilon, float) else Fraction(epsilon)


@pytest.mark.parametrize("epsilon", EPSILONS, ids=str)
def test_the_odds_are_below_what_was_promised_by_less_than_one_word(epsilon: Any) -> None:
    """By a series of its own, in other numbers: e^epsilon between two fractions."""
    kept, exact = threshold(epsilon), fraction(epsilon)
    low, term, number = Fraction(0), Fraction(1), 0
    while number < 200:
        low, number = low + term, number + 1
        term = term * exact / number
    high = low + 2 * term  # what is left is below twice its first term
    assert Fraction(kept, WORD - kept) <= low  # never more is told than epsilon says
    assert high < Fraction(kept + 1, WORD - kept - 1)  # and the next threshold would tell too much


def test_the_loss_by_the_usual_formula() -> None:
    """ln(p / (1 - p)), as other libraries give a randomised response's loss, in 50 digits."""
    with localcontext() as context:
        context.prec = 50
        for epsilon in EPSILONS:
            kept = threshold(epsilon)
            loss = (Decimal(kept) / Decimal(WORD - kept)).ln()
            exact = fraction(epsilon)
            wanted = Decimal(exact.numerator) / Decimal(exact.denominator)
            assert 0 <= wanted - loss < Decimal(10) ** -4 * wanted
            if wanted <= 8:
                assert wanted - loss < Decimal(10) ** -15
    assert getcontext().prec == 28  # another context is nobody's business


def test_thresholds_that_are_known() -> None:
    """1 / (1 + 1/e) to 40 digits, and ln 3, which keeps three of four."""
    assert threshold(1) == int(Fraction("0.7310585786300048792511592418218362743651") * WORD)
    assert abs(threshold(Fraction("1.0986122886681098")) - 3 * (WORD // 4)) < 1 << 10
    assert threshold(Fraction(1, 10**6)) > WORD // 2


@pytest.mark.parametrize("bit", [0, 1, True, False, np.uint8(1)])
def test_the_words_decide_at_the_threshold_exactly(bit: Any) -> None:
    kept = threshold(1)
    for word, stays in ((0, True), (kept - 1, True), (kept, False), (WORD - 1, False)):
        told = randomise(bit, 1, lambda n, word=word: word.to_bytes(n, "little"))
        assert type(told) is int and told == (int(bit) if stays else 1 - int(bit))


def test_each_bit_has_a_word_of_its_own() -> None:
    kept = threshold(2)
    words = np.array([[0, WORD - 1, kept], [kept - 1, kept, 0]], dtype="<u8")
    asked: list[int] = []

    def draw(n: int) -> bytes:
        asked.append(n)
        return words.tobytes()

    bits = np.array([[0, 0, 1], [1, 1, 1]])
    told = randomise(bits, 2, draw)
    assert asked == [48] and np.array_equal(told, [[0, 1, 0], [1, 0, 1]]) and told.dtype == np.uint8
    assert bits.sum() == 4  # whose they are keeps them


@pytest.mark.parametrize("epsilon", [0.1, 1, 4])
def test_the_estimate_is_unbiased_and_as_noisy_as_it_says(epsilon: Any) -> None:
    rng, people, often = np.random.default_rng(11), 2000, 300
    own = np.repeat((rng.random(people) < 0.3).astype(np.uint8)[:, None], often, axis=1)
    found = debias(randomise(own, epsilon, rng.bytes), epsilon)
    spread = deviation(people, epsilon)
    assert abs(found.mean() - own[:, 0].mean()) < 5 * spread / np.sqrt(often)
    assert 0.8 < found.std() / spread < 1.2


def test_the_estimate_in_small_numbers() -> None:
    kept = Fraction(threshold(1), WORD)
    for ones in range(5):
        told = [1] * ones + [0] * (4 - ones)
        assert debias(told, 1) == float((Fraction(ones, 4) - (1 - kept)) / (2 * kept - 1))
    both = debias(np.array([[1, 0], [1, 1]]), 32)
    assert both.shape == (2,) and np.allclose(both, [1, 0.5])


def test_entropy_is_the_systems_unless_it_is_given() -> None:
    """Nothing of numpy's or Python's generators decides: seeded alike, two programs tell different bits."""
    code = (
        "import random, numpy as np; random.seed(1); np.random.seed(1); from mpc.local import randomise; "
        "print(np.packbits(randomise(np.zeros(256, dtype=int), 0.1)).tobytes().hex())"
    )
    told = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)}
    assert len(told) == 2 and all(len(each) == 65 for each in told)


@pytest.mark.parametrize(
    "epsilon",
    [
        0,
        -1,
        33,
        Fraction(1, 10**7),
        float("nan"),
        float("inf"),
        Decimal("NaN"),
        Decimal("1e999999999"),
        True,
        None,
        "1",
    ],
    ids=str,
)
def test_an_epsilon_that_is_none(epsilon: Any) -> None:
    for call in (lambda: randomise(1, epsilon), lambda: debias([1], epsilon), lambda: deviation(1, epsilon)):
        with pytest.raises(UsageError, match="an epsilon of"):
            call()


@pytest.mark.parametrize("bits", [2, -1, 0.0, [0, 1, 3], "1", None, [[1], [2]]], ids=str)
def test_bits_that_are_none(bits: Any) -> None:
    for call in (randomise, debias):
        with pytest.raises(UsageError, match="is for bits"):
            call(bits, 1)


def test_nobody_has_told_anything() -> None:
    with pytest.raises(UsageError, match="nobody"):
        debias(np.zeros(0, dtype=int), 1)
    with pytest.raises(UsageError, match="nobody"):
        debias(1, 1)
    with pytest.raises(UsageError, match="0 people"):
        deviation(0, 1)
