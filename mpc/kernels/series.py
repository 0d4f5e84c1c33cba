"""Fourier series, see `mpc.gates.fourier`: dealt waves and their public factors.

The waves are functions of masks, so they are polynomials in integers: no table is read at a secret
place.  The factors are functions of opened values, and read the table that the plan names.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from mpc.kernels import waves
from mpc.kernels.scalar import ONE, add_mod, compiled, mul_mod
from mpc.kernels.waves import HALF_WORD

_WORD = np.uint64(32)
_cos_sin = njit(inline="always")(waves.cos_sin)
_secret_cos_sin = njit(inline="always")(waves.secret_cos_sin)


@compiled
def harmonics(r: np.ndarray, window: int, terms: int, drop: int, out: np.ndarray) -> None:
    """Compute out[j - 1] = cos, out[terms + j - 1] = sin of 2 pi j r / 2^window, j = 1..terms, `drop` bits fewer.

    Shapes: r (size,) secret masks, out (2 terms, size) int64 in units of 2^(drop - 30).
    """
    up = np.uint64(64) - np.uint64(window)
    half = np.int64((1 << drop) >> 1)
    for j in range(terms):
        cosines, sines = out[j], out[terms + j]
        for i in range(r.size):
            angle = ((r[i] * np.uint64(j + 1)) << up) + HALF_WORD  # of 2^64 a turn
            c, s = _secret_cos_sin(angle >> _WORD)
            cosines[i] = (c + half) >> np.int64(drop)
            sines[i] = (s + half) >> np.int64(drop)


@compiled
def turned_coefficients(
    c: np.ndarray, window: int, cosines: np.ndarray, sines: np.ndarray, table: np.ndarray, out: np.ndarray
) -> None:
    """Compute the public factors of the dealt cosines and sines: the series' coefficients turned by c.

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
    """Add to out[i] the sum over j of a[j, i] b[j, i] mod p."""
    planes, size = a.shape
    for i in range(size):
        total = out[i]
        for j in range(planes):
            total = add_mod(total, mul_mod(a[j, i], b[j, i]))
        out[i] = total
