"""The law of drawn noise: which thresholds belong to an epsilon and a sensitivity, and what they are short of.

    P[N = k] ~ exp(-epsilon |k| / D)         discrete Laplace, N = G - G', G and G' geometric
    T_j = round(2^48 / (1 + exp(epsilon 2^j / D)))         P[digit j of G is one], j < B
    B = ceil log2((D / epsilon) ln 2^45)         P[G >= 2^B] <= 2^-45

Ghosh, Roughgarden and Sundararajan 2009 (Universally utility-maximizing privacy mechanisms) have the law, Dwork et al.
2006 (Our data, ourselves) its independent digits.  What is drawn differs from the law by at most 2 B 2^-49 + 2^-44 in
total variation, an element: digits are rounded to 2^-49, and two tails are cut.  A vector of d elements that is
epsilon-private with the law is so with delta = d (1 + e^epsilon) times that.

Everything is computed with integers and with decimals of 60 digits, in a context of its own: each process finds the
same numbers, and no floating-point library is asked.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from functools import lru_cache

from mpc.errors import PlanError
from mpc.gates.draw import WORD_BITS

MOST_EPSILON = 5
"""The largest epsilon of one vector: delta grows with its exponential."""
MOST_DIGITS = 56
"""The most digits of noise, so that noise and sum stay below half the field."""
_TAIL_BITS = 45
DELTA_UNIT = 1 << 80
"""Deltas are rounded up to multiples of its inverse."""


def arithmetic() -> Context:
    """Return the decimals that all processes compute with."""
    return Context(prec=60, rounding=ROUND_HALF_EVEN, traps=[])


def check_epsilon(epsilon: Fraction) -> None:
    """Refuse an epsilon that is not above 0 and at most 5.

    Raises:
        PlanError: it is not.
    """
    if not 0 < epsilon <= MOST_EPSILON:
        raise PlanError(
            f"an epsilon of {float(epsilon):g} for one noised vector",
            cause=f"it has to be above 0 and at most {MOST_EPSILON}",
            remedy="ask with an epsilon between 0.01 and 5; a vector's elements share one",
        )


@lru_cache(maxsize=256)
def digits(epsilon: Fraction, sensitivity: int) -> int:
    """Return B, the number of digits of each sign.

    Raises:
        PlanError: noise so large would not fit the field, or epsilon is refused.
    """
    check_epsilon(epsilon)
    context = arithmetic()
    ratio = context.divide(Decimal(sensitivity * epsilon.denominator), Decimal(epsilon.numerator))
    wanted = context.multiply(ratio, context.multiply(Decimal(_TAIL_BITS), context.ln(Decimal(2))))
    count = next((b for b in range(1, MOST_DIGITS + 1) if Decimal(1 << b) >= wanted), None)
    if count is None:
        raise PlanError(
            "the noise would be larger than the field holds",
            cause=f"a row may change the sum by {float(sensitivity):.3g} units, at an epsilon of {float(epsilon):g}",
            remedy="fewer bits of precision (a smaller width), a smaller factor behind the sum, or a larger epsilon",
        )
    return count


@lru_cache(maxsize=256)
def thresholds(epsilon: Fraction, sensitivity: int) -> tuple[int, ...]:
    """Return T_j of all digits, the lowest first.

    Args:
        sensitivity: D, the most that one person's rows change the noised vector by, in the sum of its elements' sizes.

    Raises:
        PlanError: as `digits`.
    """
    context, found = arithmetic(), []
    for j in range(digits(epsilon, sensitivity)):
        top, bottom = Decimal(epsilon.numerator << j), Decimal(sensitivity * epsilon.denominator)
        odds = context.add(Decimal(1), context.exp(context.divide(top, bottom)))
        found.append(int(context.divide(Decimal(1 << WORD_BITS), odds).to_integral_value(ROUND_HALF_EVEN)))
    return tuple(found)


def delta(epsilon: Fraction, digits: int, elements: int) -> Fraction:
    """Return what a noised vector falls short of pure privacy by, rounded up to a multiple of 2^-80."""
    factor = 1 + power(epsilon)
    apart = Fraction(2 * digits, 1 << (WORD_BITS + 1)) + Fraction(2, 1 << _TAIL_BITS)
    return Fraction(-(-(elements * factor * apart * DELTA_UNIT) // 1), DELTA_UNIT)


def power(epsilon: Fraction) -> Fraction:
    """Return e^epsilon, rounded up."""
    context = arithmetic()
    found = context.exp(context.divide(Decimal(epsilon.numerator), Decimal(epsilon.denominator)))
    return Fraction(found) * (1 + Fraction(1, 10**50))


def variance(thresholds: tuple[int, ...]) -> Fraction:
    """Return the variance of one element's noise, exactly: of independent digits of both signs."""
    unit = 1 << WORD_BITS
    return sum((Fraction(2 * (t * (unit - t) << 2 * j), unit * unit) for j, t in enumerate(thresholds)), Fraction(0))
