"""Exact truncation from an opened masked wire: no slack, no failure.

|x| < 2^k, k <= 59; c = x + 2^k + r mod p is public, r uniform.  With m = [r >= 2^60], dealt,
and pub = [c < 2^(k+1)], public, the wrap of the sum is w = pub m exactly: where c is at least
2^(k+1) the sum cannot have wrapped, and where it is smaller, r either exceeds p - 2^(k+1)
(wrap, m = 1) or is at most 2^(k+1) < 2^60 (no wrap, m = 0).  Then

    y = (c >> f) - (r >> f) + 2^(61-f) w - 2^(k-f)     is floor(x / 2^f) or one more, unbiased

(up to 2^(k+1-61-f), what the wrap's p = 2^61 - 1 lacks to a multiple of 2^f).

The rounding coin is c itself, so anyone who knows x and c knows y.
"""

from __future__ import annotations

import numpy as np

from mpc import field as fp
from mpc import kernels


def offset(public: np.ndarray, bits: int) -> np.ndarray:
    """Compute c = x^ + 2^k from the opened wire x^ = x + r."""
    return fp.add_int(public, 1 << bits)


def opened(public: np.ndarray, bits: int, shift: int, less: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return c and (c >> shift) - less, modulo 2^64, of the opened wire (rows, n), with its columns as rows:
    (n, rows).
    """
    c, c1 = (np.empty(public.shape[::-1], dtype=np.uint64) for _ in range(2))
    kernels.offset_columns(public, np.uint64(1 << bits), shift, np.uint64(less), c, c1)
    return c, c1


def moved(public: np.ndarray, by: int | np.ndarray) -> np.ndarray:
    """Return (public + by) mod p, |by| < 2^61: for readings in the clear, which wait for no compiled loop."""
    total = np.asarray(public.astype(np.int64) + by)
    found = (total & np.int64(fp.P)) + (total >> np.int64(fp.BITS))  # 2^61 = 1 mod p; what is left over is p for 0
    return np.where(found == fp.P, 0, found).astype(np.uint64)


def reference(x: np.ndarray, public: np.ndarray, bits: int, shift: int) -> np.ndarray:
    """Return y for integers x and the opened wire: exactly what the parties reconstruct.

    Args:
        x: int64 with |x| < 2^bits.
        public: x + r mod p, same shape.
    """
    c = moved(public, 1 << bits).astype(np.int64)
    lifted = x + np.int64(1 << bits)
    wrap = (c < lifted).astype(np.int64)
    r = c - lifted + wrap * np.int64(fp.P)
    return (c >> shift) - (r >> shift) + (wrap << np.int64(fp.BITS - shift)) - np.int64(1 << (bits - shift))


def mask_parts(r: np.ndarray, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (r1, m) of plain masks: what the provider deals from r."""
    return r >> np.uint64(shift), (r >> np.uint64(fp.BITS - 1)).astype(np.uint64)
