"""Table of the discrete Gaussian law: sigma in, thresholds of 63-bit words out, by integers alone.

    P[N = k] = exp(-k^2 / (2 sigma^2)) / Z        |k| <= K = ceil(9 sigma) + 1
    T_k = round(2^63 P[N <= k])                    N = the least k with u < T_k, u uniform in [0, 2^63)

Every process makes the table from sigma: a plan holds no threshold that could lie.  exp(-(k+1)^2 / 2 sigma^2) is
exp(-k^2 / 2 sigma^2) times exp(-(2k + 1) / 2 sigma^2), so one exponential is computed, by decimals of 80 digits in a
context of their own, and the rest are products of integers in units of 2^-200.  The lower half is rounded and the upper
half mirrored: what is drawn is symmetric exactly.

Sources: the law and its tails are those of Canonne, Kamath and Steinke 2020 (The discrete Gaussian for differential
privacy).
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from functools import lru_cache

import numpy as np

WORD_BITS = 63
"""Bits of the words that noise is drawn from."""
FINEST, MOST_SIGMA = 64, 1024
"""A sigma is a multiple of 1/64, and at most 1024: a table has 18,434 thresholds then."""
_UNIT_BITS = 200


def is_sigma(sigma: Fraction) -> bool:
    """Tell whether there is a table for a sigma."""
    return 0 < sigma <= MOST_SIGMA and FINEST % sigma.denominator == 0


def reach(sigma: Fraction) -> int:
    """Return K: noise is at most so large."""
    return -(-9 * sigma.numerator // sigma.denominator) + 1


@lru_cache(maxsize=32)
def thresholds(sigma: Fraction) -> np.ndarray:
    """Return T_k for k = -K .. K - 1, rising, as uint64; nothing is below T_K = 2^63 but all words.

    Args:
        sigma: as `is_sigma` has it.
    """
    most, unit, whole = reach(sigma), 1 << _UNIT_BITS, 1 << WORD_BITS
    context = Context(prec=80, rounding=ROUND_HALF_EVEN, traps=[])
    squares = Decimal(2 * sigma.numerator**2), Decimal(-(sigma.denominator**2))
    factor = int(context.multiply(context.exp(context.divide(squares[1], squares[0])), Decimal(unit)))
    weights, step = [unit], factor
    for _ in range(most):
        weights.append(weights[-1] * step >> _UNIT_BITS)
        step = (step * factor >> _UNIT_BITS) * factor >> _UNIT_BITS
    total, below, lower = 2 * sum(weights) - unit, 0, []
    for k in range(most, 0, -1):
        below += weights[k]
        lower.append((2 * whole * below + total) // (2 * total))
    found = np.array([*lower, *(whole - each for each in reversed(lower))], dtype=np.uint64)
    found.setflags(write=False)
    return found


def drawn(words: np.ndarray, sigma: Fraction) -> np.ndarray:
    """Return the noise that uniform 63-bit words stand for, as int64."""
    places = np.searchsorted(thresholds(sigma), words.reshape(-1), side="right")
    return (places.astype(np.int64) - reach(sigma)).reshape(words.shape)


def distance(sigma: Fraction) -> Fraction:
    """Return a bound on the total variation between what is drawn and the law.

    Each of the 2 K + 1 probabilities is off by at most 2^-63 for its two rounded ends and by less than 2^-100 for the
    units, and half of that counts; both tails beyond K, of at most exp(-K^2 / 2 sigma^2) <= exp(-81 / 2) each, are cut.
    """
    return Fraction(2 * reach(sigma) + 2, 1 << WORD_BITS + 1) + Fraction(1, 1 << 57)
