"""Fourier series, see `mpc.gates.fourier`: dealt waves and their public factors."""

from __future__ import annotations

import numpy as np
from numba import njit

from mpc.kernels.scalar import ONE, add_mod, compiled, mul_mod


@njit(inline="always")
def _cos_sin(angle: np.uint64, window: np.uint64, table: np.ndarray) -> tuple[np.int64, np.int64]:
    """Cosine and sine of 2 pi angle / 2^window in units of 2^-30, from the integer table."""
    index = angle >> (window - np.uint64(24)) if window >= np.uint64(24) else angle << (np.uint64(24) - window)
    coarse, fine = index >> np.uint64(12), index & np.uint64(4095)
    hc, hs, lc, ls = table[0, coarse], table[1, coarse], table[2, fine], table[3, fine]
    half = np.int64(1 << 29)
    return (hc * lc - hs * ls + half) >> np.int64(30), (hc * ls + hs * lc + half) >> np.int64(30)


@compiled
def harmonics(r: np.ndarray, window: int, terms: int, drop: int, table: np.ndarray, out: np.ndarray) -> None:
    """out[j - 1] = cos, out[terms + j - 1] = sin of 2 pi j r / 2^window, j = 1..terms, `drop` bits fewer."""
    w = np.uint64(window)
    low = (ONE << w) - ONE
    half = np.int64((1 << drop) >> 1)
    for i in range(r.size):
        for j in range(terms):
            c, s = _cos_sin((r[i] * np.uint64(j + 1)) & low, w, table)
            out[j, i] = (c + half) >> np.int64(drop)
            out[terms + j, i] = (s + half) >> np.int64(drop)


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
