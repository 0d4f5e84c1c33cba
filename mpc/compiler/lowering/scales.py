"""Scales, the public numbers that integers on a wire are divided by: powers of two, wherever one can be had.

A mean over 288 places or a sixth leaves an odd factor in a scale, and the product of two such wires the product of
both.  Weights, truncations and rounded factors take such a factor in for nothing: they are chosen anew anyway.
"""

from __future__ import annotations

import math
from fractions import Fraction

MOST_ODD_BITS = 48
"""Of the odd part of a scale that is computed with: a product of two then has twice as many."""


def log2(scale: Fraction) -> int:
    """Return floor(log2(scale))."""
    return math.frexp(float(scale))[1] - 1


def even(scale: Fraction) -> Fraction:
    """Return the largest power of two that is not above it."""
    return Fraction(2) ** log2(scale)


def is_even(scale: Fraction) -> bool:
    """Is it a power of two?"""
    return odd_bits(scale) == 1


def odd_bits(scale: Fraction) -> int:
    """Return bits of what is left of numerator or denominator, whichever is longer, without its factors of two."""
    return max(_odd(scale.numerator).bit_length(), _odd(scale.denominator).bit_length())


def _odd(number: int) -> int:
    return number // (number & -number)
