"""Compute what Gaussian noise is worth: delta for an epsilon, from sigma and D2, rounded up; the sigma needed.

Discrete Gaussian noise of sigma on integers that one person changes by at most D2 (Euclidean) is rho-concentrated
private, rho = D2^2 / (2 sigma^2), whatever the number of elements.  Then for every epsilon and every alpha > 1

    delta = exp((alpha - 1) (alpha rho - epsilon)) (1 - 1 / alpha)^alpha / (alpha - 1)

is a bound (both in Canonne, Kamath and Steinke 2020, The discrete Gaussian for differential privacy).  Its logarithm is
convex in alpha, and the alpha that is taken is close to the best.  To it comes what the table is off the law by, for
each element: (1 + e^epsilon) times their distance.

Computed with decimals of 60 digits in a context of its own, as in `law`.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from mpc import gaussian
from mpc.errors import PlanError
from mpc.privacy.law import DELTA_UNIT, arithmetic, check_epsilon, power

MOST_DELTA = Fraction(1, 10**5)
"""A vector with more is refused: it might tell a few people's rows altogether."""
_HALVINGS = 100
_SLACK = Fraction(1, 10**40)


def delta(epsilon: Fraction, sigma: Fraction, euclidean: Fraction, elements: int) -> Fraction:
    """Return what a vector costs beside epsilon, rounded up to a multiple of 2^-80; at most 1.

    Args:
        euclidean: D2, above 0, in units of the noise.

    Raises:
        PlanError: epsilon is refused.
    """
    check_epsilon(epsilon)
    apart = elements * (1 + power(epsilon)) * gaussian.distance(sigma)
    whole = _concentrated(epsilon, euclidean**2 / (2 * sigma**2)) * (1 + _SLACK) + apart
    return min(Fraction(1), Fraction(-(-(whole * DELTA_UNIT) // 1), DELTA_UNIT))


@lru_cache(maxsize=256)
def together(epsilon: Fraction, parts: tuple[tuple[Fraction, Fraction, int], ...]) -> Fraction:
    """Return what several vectors, each of which may follow from what was told of the ones before, cost beside one
    epsilon of all of them together, rounded up to a multiple of 2^-80; at most 1.

    Concentrated privacy adds up: rho of all is the sum of D2^2 / (2 sigma^2) (Bun and Steinke 2016, Concentrated
    differential privacy, Lemma 2.3).  So T steps need sigma only sqrt(T) times as large as one does, and not T times.

    Args:
        parts: (sigma, D2, elements) of each.

    Raises:
        PlanError: epsilon is refused.
    """
    check_epsilon(epsilon)
    apart = sum((elements * gaussian.distance(sigma) for sigma, _, elements in parts), Fraction(0))
    rho = sum((euclidean**2 / (2 * sigma**2) for sigma, euclidean, _ in parts), Fraction(0))
    whole = _concentrated(epsilon, rho) * (1 + _SLACK) + (1 + power(epsilon)) * apart
    return min(Fraction(1), Fraction(-(-(whole * DELTA_UNIT) // 1), DELTA_UNIT))


def smallest(epsilon: Fraction, most: Fraction, euclidean: Fraction, elements: int) -> Fraction | None:
    """Return the smallest sigma whose delta is at most `most`; None if the largest has more.

    Raises:
        PlanError: epsilon is refused.
    """
    low, high = 0, gaussian.MOST_SIGMA * gaussian.FINEST
    if delta(epsilon, Fraction(high, gaussian.FINEST), euclidean, elements) > most:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = delta(epsilon, Fraction(middle, gaussian.FINEST), euclidean, elements) <= most
        low, high = (low, middle) if enough else (middle, high)
    return Fraction(high, gaussian.FINEST)


def check_delta(found: Fraction) -> None:
    """Refuse a delta that protects nobody.

    Raises:
        PlanError: it is too large.
    """
    if found > MOST_DELTA:
        raise PlanError(
            f"a noised vector with a delta of {float(found):.2g}",
            cause=f"its sigma is too small for its epsilon; a delta is at most {float(MOST_DELTA):g}",
            remedy="compile the plan anew: sigma follows from epsilon, delta and from what a row can change",
        )


def _concentrated(epsilon: Fraction, rho: Fraction) -> Fraction:
    """The bound where its logarithm stops falling: (2 alpha - 1) rho - epsilon + ln(1 - 1 / alpha) = 0."""
    context = arithmetic()
    e, r, one = _decimal(epsilon), _decimal(rho), Decimal(1)
    low, high = one, context.add(Decimal(3), context.divide(context.add(e, one), r))

    def steep(alpha: Decimal) -> bool:
        gone = context.ln(context.divide(context.subtract(alpha, one), alpha))
        line = context.multiply(context.subtract(context.multiply(Decimal(2), alpha), one), r)
        return context.add(context.subtract(line, e), gone) > 0

    for _ in range(_HALVINGS):
        middle = context.divide(context.add(low, high), Decimal(2))
        if middle == low:
            break
        low, high = (low, middle) if steep(middle) else (middle, high)
    alpha, before = high, context.subtract(high, one)
    powers = context.multiply(before, context.subtract(context.multiply(alpha, r), e))
    falls = context.subtract(context.multiply(before, context.ln(before)), context.multiply(alpha, context.ln(alpha)))
    logarithm = context.add(powers, falls)
    return Fraction(1) if logarithm >= 0 else Fraction(context.exp(logarithm))


def _decimal(value: Fraction) -> Decimal:
    return arithmetic().divide(Decimal(value.numerator), Decimal(value.denominator))
