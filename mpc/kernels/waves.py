"""Cosines and sines in integers, for whole arrays as for the loops that numba makes of them: the same, unit for unit.

Loops are compiled from these functions (`mpc.kernels.series`).  Numpy runs them as they stand where a series is
evaluated in the clear, so that whoever only inspects a model waits for no compiled loop.
"""

from __future__ import annotations

from math import factorial, pi
from typing import Any

import numpy as np

ONE, TWO = np.uint64(1), np.uint64(2)
HALF_WORD = np.uint64(1 << 31)
HASH = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: its multiples spread over the high bits (Knuth, The Art of Computer Programming, 6.4)."""
_LOW_WORD = np.uint64((1 << 32) - 1)
_WORD = np.uint64(32)
_TURN = np.uint64(round(2 * pi * (1 << 29)))
"""2 pi in units of 2^-29."""
_C2, _C4, _C6, _C8, _C10 = (np.uint64(round((1 << 32) / factorial(k))) for k in (2, 4, 6, 8, 10))
_S3, _S5, _S7, _S9, _S11 = (np.uint64(round((1 << 32) / factorial(k))) for k in (3, 5, 7, 9, 11))
"""Taylor's coefficients in units of 2^-32; what is left out is below 2^-36 on an eighth of a turn."""


def cos_sin(angle: Any, window: np.uint64, table: np.ndarray) -> tuple[Any, Any]:
    """Return cosine and sine of a public 2 pi angle / 2^window in units of 2^-30, from the integer table."""
    index = angle >> (window - np.uint64(24)) if window >= np.uint64(24) else angle << (np.uint64(24) - window)
    coarse, fine = index >> np.uint64(12), index & np.uint64(4095)
    hc, hs, lc, ls = table[0, coarse], table[1, coarse], table[2, fine], table[3, fine]
    half = np.int64(1 << 29)
    return (hc * lc - hs * ls + half) >> np.int64(30), (hc * ls + hs * lc + half) >> np.int64(30)


def secret_cos_sin(angle: Any) -> tuple[Any, Any]:
    """Return cosine and sine of 2 pi angle / 2^32 in units of 2^-30, off by less than 3 of them.

    The angle is folded into an eighth of a turn on both sides of the nearest quarter, where both are polynomials in
    32-bit words; signs and quarters are masks of bits.  All steps are the same for all angles.
    """
    quarter = (angle + (ONE << np.uint64(29))) >> np.uint64(30)
    beyond = angle - (quarter << np.uint64(30))
    sign = np.uint64(0) - (beyond >> np.uint64(63))
    size = (beyond ^ sign) - sign
    x = ((size & _LOW_WORD) * _TURN + (ONE << np.uint64(28))) >> np.uint64(29)
    square = ((x & _LOW_WORD) * (x & _LOW_WORD) + HALF_WORD) >> _WORD
    # factors are cut to 32 bits, which they have: only then a processor multiplies two words at a time as such
    low = _LOW_WORD
    s = _S7 - ((square * ((_S9 - ((square * _S11) >> _WORD)) & low)) >> _WORD)
    s = _S3 - ((square * ((_S5 - ((square * (s & low)) >> _WORD)) & low)) >> _WORD)
    s = x - (((x & low) * ((square * (s & low) + HALF_WORD) >> _WORD) + HALF_WORD) >> _WORD)
    c = _C6 - ((square * ((_C8 - ((square * _C10) >> _WORD)) & low)) >> _WORD)
    c = _C2 - ((square * ((_C4 - ((square * (c & low)) >> _WORD)) & low)) >> _WORD)
    c = (ONE << _WORD) - ((square * (c & low) + HALF_WORD) >> _WORD)
    negative = np.int64(sign)
    cos, sin = np.int64((c + TWO) >> TWO), (np.int64((s + TWO) >> TWO) ^ negative) - negative
    odd = np.int64(0) - np.int64(quarter & ONE)  # all ones or none: no branch
    against = np.int64(0) - np.int64(((quarter + ONE) >> ONE) & ONE)
    below = np.int64(0) - np.int64((quarter >> ONE) & ONE)
    turned_cos, turned_sin = (cos & ~odd) | (sin & odd), (sin & ~odd) | (cos & odd)
    return (turned_cos ^ against) - against, (turned_sin ^ below) - below


def harmonics(r: np.ndarray, window: int, terms: int, drop: int) -> np.ndarray:
    """Return what `deal_waves` deals of plain masks: (2 terms, size) int64, first all cosines."""
    up, half = np.uint64(64 - window), np.int64((1 << drop) >> 1)
    out = np.empty((2, terms, r.size), dtype=np.int64)
    for j in range(terms):
        angle = ((r * np.uint64(j + 1)) << up) + HALF_WORD  # of 2^64 a turn
        out[:, j] = [(each + half) >> np.int64(drop) for each in secret_cos_sin(angle >> _WORD)]
    return out.reshape(2 * terms, r.size)


def turned_coefficients(
    c: np.ndarray, window: int, cosines: np.ndarray, sines: np.ndarray, fine: int, table: np.ndarray
) -> np.ndarray:
    """Return the waves' public factors, as `add_series` makes them: (2 terms, size) int64."""
    w, half = np.uint64(window), np.int64(1 << 29)
    low, out = (ONE << w) - ONE, np.empty((2, len(cosines), c.size), dtype=np.int64)
    for j, (a, b) in enumerate(zip(cosines, sines, strict=True)):
        cos, sin = cos_sin((c * np.uint64(j + 1)) & low, w, table)
        out[:, j] = (a * cos + b * sin + half) >> np.int64(30), (a * sin - b * cos + half) >> np.int64(30)
    factors = out.reshape(2 * len(cosines), c.size)
    if not fine:
        return factors
    odd = (TWO * np.arange(len(factors), dtype=np.uint64) + ONE) * HASH  # modulo 2^64, as all of it
    dither = (c * odd[:, None]) >> np.uint64(64 - fine)
    return np.asarray((factors + dither.astype(np.int64)) >> np.int64(fine))
