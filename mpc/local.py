"""Randomised response: a person's own noise on a bit, for whoever trusts no party with it (Warner 1965).

Each person tells the bit with probability p and the other one with 1 - p, where

    p = T / 2^64        T = 2^64 - ceil(2^64 / (1 + exp(epsilon)))

so the odds p / (1 - p) are at most exp(epsilon): what is told is epsilon-private whatever is done with it, and to
whomever it is told.  T is found with decimals of 60 digits, and the choice compares 64 random bits with it: no
probability is a floating-point number.

The price is noise that grows with the root of the number of people; noise that parties draw for a sum does not.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from functools import lru_cache
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike

from mpc.errors import UsageError

LEAST_EPSILON, MOST_EPSILON = Fraction(1, 10**6), 32
"""With 64 random bits a much larger epsilon tells every bit as it is, and a much smaller one nothing."""
_WORD = 1 << 64
_GUARD = Decimal(1).scaleb(-30)
"""Far above the error of what is rounded up, far below one."""
Draw = Callable[[int], bytes]
Epsilon = Fraction | Decimal | int | float


def randomise(bits: ArrayLike, epsilon: Epsilon, draw: Draw = secrets.token_bytes) -> int | np.ndarray:
    """Return what a person tells of a bit: itself, or by chance the other one.

    Args:
        bits: 0 or 1, or an array of them, each told by a choice of its own.  Bits about one person cost that person
            the sum of their epsilons.
        epsilon: what is told of each bit, a millionth to 32.  A float counts as it is written: 0.1 is a tenth.
        draw: gives so many fresh random bytes; the operating system's, unless somebody repeats a run.

    Returns:
        An int for one bit, else a uint8 array of that shape.

    Raises:
        UsageError: these are no bits, or this is no epsilon.
    """
    own = _bits(bits)
    words = np.frombuffer(draw(8 * own.size), dtype="<u8").reshape(own.shape)
    told = own ^ (words >= np.uint64(threshold(epsilon))).astype(np.uint8)
    return told if own.shape else int(told)


def debias(told: ArrayLike, epsilon: Epsilon) -> float | np.ndarray:
    """Return the share of ones among people's own bits, estimated without bias from what they told.

    Args:
        told: a bit of each person, (people,) or (people, ...); people are the first axis.
        epsilon: with which each was randomised.

    Returns:
        A float, or an array of the other axes' shape.  It can lie outside 0 to 1: cut it, and it is biased.

    Raises:
        UsageError: these are no bits of people, or this is no epsilon.
    """
    found = _bits(told)
    if not found.shape or not len(found):
        raise UsageError("nobody has told a bit", remedy="debias takes an array, a bit a person")
    kept = threshold(epsilon)
    ones = found.sum(axis=0, dtype=np.int64)
    scaled = [Fraction(int(each) * _WORD, len(found)) - (_WORD - kept) for each in np.ravel(ones)]
    shares = np.array([float(each / (2 * kept - _WORD)) for each in scaled]).reshape(np.shape(ones))
    return shares if found.ndim > 1 else float(shares)


def deviation(people: int, epsilon: Epsilon) -> float:
    """Return the standard deviation of the noise in `debias` of so many people."""
    if people < 1:
        raise UsageError(f"{people} people", remedy="one person or more")
    kept = threshold(epsilon)
    return sqrt(Fraction(kept * (_WORD - kept), people * (2 * kept - _WORD) ** 2))


def threshold(epsilon: Epsilon) -> int:
    """Return T: of 2^64 equally likely words those below T keep a bit as it is.

    Raises:
        UsageError: epsilon is not between a millionth and 32.
    """
    if not _is_epsilon(epsilon):
        raise UsageError(
            f"an epsilon of {str(epsilon)[:40]} for a bit",
            cause=f"it is a number from a millionth to {MOST_EPSILON}; 1 tells a bit right 73 times in 100",
            remedy="an epsilon between 0.1 and 4, say",
        )
    return _threshold(Fraction(str(epsilon)) if isinstance(epsilon, float) else Fraction(epsilon))


def _is_epsilon(given: object) -> bool:
    if isinstance(given, bool) or not isinstance(given, Fraction | Decimal | int | float):
        return False
    try:
        return LEAST_EPSILON <= given <= MOST_EPSILON
    except ArithmeticError:  # Decimal("NaN") is not compared
        return False


@lru_cache(maxsize=64)
def _threshold(epsilon: Fraction) -> int:
    context = Context(prec=60, traps=[])
    power = context.exp(context.divide(Decimal(epsilon.numerator), Decimal(epsilon.denominator)))
    flipped = context.add(context.divide(Decimal(_WORD), context.add(Decimal(1), power)), _GUARD)
    return _WORD - int(flipped.to_integral_value(ROUND_CEILING))


def _bits(given: ArrayLike) -> np.ndarray:
    found = np.asarray(given)
    if found.dtype.kind not in "bui" or not ((found == 0) | (found == 1)).all():
        raise UsageError("randomised response is for bits", remedy="give 0 or 1, or an array of them")
    return found.astype(np.uint8)
