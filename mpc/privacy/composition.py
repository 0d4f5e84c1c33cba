"""Compose losses of one epsilon: what so many answers tell together, which is less than the sum of what each tells.

Answers that cost (epsilon, delta_i), k of them, each chosen after those before were read, are together

    (e, 1 - prod_i (1 - delta_i) (1 - d(e)))        d(e) = sum_l C(k, l) max(0, x^(k - l) - exp(e) x^l) / (1 + x)^k

for every e >= 0, where x = exp(epsilon), and no less can be said of all such answers (Kairouz, Oh and Viswanath 2015,
The composition theorem for differential privacy, Theorems 3.3 and 3.5; by their proof for every e).  That k is fixed
beforehand is part of the theorem, and that all have one epsilon.  An accountant of privacy loss distributions finds as
much of such losses: it convolves the two distributions whose k-fold product this is.

Computed with decimals in a context of its own, as in `law`: every process finds the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import accumulate

from mpc.privacy.facts import CHARGE_UNIT, Loss
from mpc.privacy.law import arithmetic

MOST_ANSWERS = 1 << 14
_MOST_SPENT = 2_000_000
"""Leave larger sums of epsilons as they are: exp of them is beyond the range of these decimals."""
_SLACK = Fraction(1, 10**30)
"""Numbers here are off by less: 60 digits, of sums of at most 2^14 terms that are at most 1."""


def composed(epsilon: Fraction, deltas: Sequence[Fraction], delta: Fraction) -> Fraction:
    """Return the epsilon of answers of one epsilon each together, rounded up to a billionth.

    Args:
        deltas: of each of them; their number, 1 to 2^14, was fixed before the first.
        delta: that all of them together may cost beside it; 0 < delta < 1.

    Returns:
        At most the sum of their epsilons.  It is that sum where delta is not above what their own deltas cost together.
    """
    count, charge = len(deltas), Loss(epsilon).charge
    whole, kept = count * charge, _kept(deltas)
    left = 1 - (1 - delta) / kept if kept > 0 else Fraction(-1)
    if not 1 <= count <= MOST_ANSWERS or left <= _SLACK or whole > _MOST_SPENT * CHARGE_UNIT:
        return Fraction(whole, CHARGE_UNIT)
    curve = _Curve(Fraction(charge, CHARGE_UNIT), count)
    low, high = -1, whole
    while high - low > 1:
        middle = (low + high) // 2
        if curve.delta(Fraction(middle, CHARGE_UNIT)) + _SLACK <= left:
            high = middle
        else:
            low = middle
    return Fraction(high, CHARGE_UNIT)


def _kept(deltas: Sequence[Fraction]) -> Fraction:
    """Return prod_i (1 - delta_i), and no more."""
    context, found = arithmetic(), Decimal(1)
    for delta in deltas:
        found = context.multiply(found, _decimal(1 - delta))
    return Fraction(found) - _SLACK if any(deltas) else Fraction(1)


class _Curve:
    """d(e) for k answers of one epsilon: sums of its terms up to each l, so that each e takes one difference."""

    def __init__(self, epsilon: Fraction, count: int) -> None:
        context = arithmetic()
        self._context, self._epsilon, self._count = context, epsilon, count
        x = context.exp(_decimal(epsilon))
        term = context.divide(Decimal(1), context.power(context.add(Decimal(1), x), Decimal(count)))
        falling = [term]  # C(k, l) x^l / (1 + x)^k; for k - l answers the other way round it is the first sum's term
        for place in range(count):
            factor = context.divide(context.multiply(x, Decimal(count - place)), Decimal(place + 1))
            falling.append(context.multiply(falling[-1], factor))
        self._first = [*accumulate(falling[::-1], context.add)]  # C(k, l) x^(k - l): C(k, l) = C(k, k - l)
        self._second = [*accumulate(falling, context.add)]

    def delta(self, epsilon: Fraction) -> Fraction:
        """Return d(epsilon)."""
        # terms with (k - 2 l) times each epsilon above epsilon count
        places = int(-((epsilon / self._epsilon - self._count) / 2 // 1)) if self._epsilon else 0
        if places <= 0:
            return Fraction(0)
        last = min(places, self._count + 1) - 1
        context = self._context
        weighed = context.multiply(context.exp(_decimal(epsilon)), self._second[last])
        return max(Fraction(0), Fraction(context.subtract(self._first[last], weighed)))


def _decimal(value: Fraction) -> Decimal:
    return arithmetic().divide(Decimal(value.numerator), Decimal(value.denominator))
