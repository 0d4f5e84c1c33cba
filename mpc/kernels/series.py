"""Fourier series, see `mpc.gates.fourier`: dealt waves and their public factors.

The waves are functions of masks, so they are polynomials in integers: no table is read at a secret
place.  The factors are functions of opened values, and read the table that the plan names.
"""

from __future__ import annotations

from math import factorial, pi

import numpy as np
from numba import njit

from mpc.kernels.scalar import ONE, TWO, add_mod, compiled, mul_mod

_HALF_WORD = np.uint64(1 << 31)
_LOW_WORD = np.uint64((1 << 32) - 1)
_WORD = np.uint64(32)
_TURN = np.uint64(round(2 * pi * (1 << 29)))
"""2 pi in units of 2^-29."""
_C2, _C4, _C6, _C8, _C10 = (np.uint64(round((1 << 32) / factorial(k))) for k in (2, 4, 6, 8, 10))
_S3, _S5, _S7, _S9, _S11 = (np.uint64(round((1 << 32) / factorial(k))) for k in (3, 5, 7, 9, 11))
"""Taylor's coefficients in units of 2^-32; what is left out is below 2^-36 on an eighth of a turn."""


@njit(inline="always")
def _cos_sin(angle: np.uint64, window: np.uint64, table: np.ndarray) -> tuple[np.int64, np.int64]:
    """Cosine and sine of a public 2 pi angle / 2^window in units of 2^-30, from the integer table."""
    index = angle >> (window - np.uint64(24)) if window >= np.uint64(24) else angle << (np.uint64(24) - window)
    coarse, fine = index >> np.uint64(12), index & np.uint64(4095)
    hc, hs, lc, ls = table[0, coarse], table[1, coarse], table[2, fine], table[3, fine]
    half = np.int64(1 << 29)
    return (hc * lc - hs * ls + half) >> np.int64(30), (hc * ls + hs * lc + half) >> np.int64(30)


@njit(inline="always")
def _secret_cos_sin(angle: np.uint64) -> tuple[np.int64, np.int64]:
    """Cosine and sine of 2 pi angle / 2^32 in units of 2^-30, off by less than 3 of them.

    The angle is folded into an eighth of a turn on both sides of the nearest quarter, where both are polynomials in
    32-bit words; signs and quarters are masks of bits.  All steps are the same for all angles.
    """
    quarter = (angle + (ONE << np.uint64(29))) >> np.uint64(30)
    beyond = angle - (quarter << np.uint64(30))
    sign = np.uint64(0) - (beyond >> np.uint64(63))
    size = (beyond ^ sign) - sign
    x = ((size & _LOW_WORD) * _TURN + (ONE << np.uint64(28))) >> np.uint64(29)
    square = (x * x + _HALF_WORD) >> _WORD
    s = _S7 - ((square * (_S9 - ((square * _S11) >> _WORD))) >> _WORD)
    s = _S3 - ((square * (_S5 - ((square * s) >> _WORD))) >> _WORD)
    s = x - ((x * ((square * s + _HALF_WORD) >> _WORD) + _HALF_WORD) >> _WORD)
    c = _C6 - ((square * (_C8 - ((square * _C10) >> _WORD))) >> _WORD)
    c = _C2 - ((square * (_C4 - ((square * c) >> _WORD))) >> _WORD)
    c = (ONE << _WORD) - ((square * c + _HALF_WORD) >> _WORD)
    negative = np.int64(sign)
    cos, sin = np.int64((c + TWO) >> TWO), (np.int64((s + TWO) >> TWO) ^ negative) - negative
    odd = np.int64(0) - np.int64(quarter & ONE)  # all ones or none: no branch
    against = np.int64(0) - np.int64(((quarter + ONE) >> ONE) & ONE)
    below = np.int64(0) - np.int64((quarter >> ONE) & ONE)
    turned_cos, turned_sin = (cos & ~odd) | (sin & odd), (sin & ~odd) | (cos & odd)
    return (turned_cos ^ against) - against, (turned_sin ^ below) - below


@compiled
def harmonics(r: np.ndarray, window: int, terms: int, drop: int, out: np.ndarray) -> None:
    """out[j - 1] = cos, out[terms + j - 1] = sin of 2 pi j r / 2^window, j = 1..terms, `drop` bits fewer.

    Shapes: r (size,) secret masks, out (2 terms, size) int64 in units of 2^(drop - 30).
    """
    up = np.uint64(64) - np.uint64(window)
    half = np.int64((1 << drop) >> 1)
    for j in range(terms):
        cosines, sines = out[j], out[terms + j]
        for i in range(r.size):
            angle = ((r[i] * np.uint64(j + 1)) << up) + _HALF_WORD  # of 2^64 a turn
            c, s = _secret_cos_sin(angle >> _WORD)
            cosines[i] = (c + half) >> np.int64(drop)
            sines[i] = (s + half) >> np.int64(drop)


@compiled
def turned_coefficients(
    c: np.ndarray, window: int, cosines: np.ndarray, sines: np.ndarray, table: np.ndarray, out: np.ndarray
) -> None:
    """The public factors of the dealt cosines and sines: the series' coefficients turned by c.

    out[j - 1] = A_j cos jc + B_j sin jc,  out[J + j - 1] = A_j sin jc - B_j cos jc.
    """
    w = np.uint64(window)
    low = (ONE << w) - ONE
    terms = cosines.size
    half = np.int64(1 << 29)
    for i in range(c.size):
        for j in range(terms):
            cos, sin = _cos_sin((c[i] * np.uint64(j + 1)) & low, w, table)
            out[j, i] = (cosines[j] * cos + sines[j] * sin + half) >> np.int64(30)
            out[terms + j, i] = (cosines[j] * sin - sines[j] * cos + half) >> np.int64(30)


@compiled
def dot_planes(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out[i] += sum over j of a[j, i] b[j, i] mod p."""
    planes, size = a.shape
    for i in range(size):
        total = out[i]
        for j in range(planes):
            total = add_mod(total, mul_mod(a[j, i], b[j, i]))
        out[i] = total
