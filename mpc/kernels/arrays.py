"""Element by element: sums, products, checks of what came from outside."""

from __future__ import annotations

import numpy as np
from numba import njit

from mpc.kernels.scalar import ONE, S61, ZERO, P, add_mod, compiled, mul_mod, sub_mod


@compiled
def add(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Compute out = a + b mod p, flat arrays of one length."""
    for i in range(out.size):
        out[i] = add_mod(a[i], b[i])


@compiled
def add_constant(a: np.ndarray, constant: np.uint64, out: np.ndarray) -> None:
    """Compute out = a + constant mod p."""
    for i in range(out.size):
        out[i] = add_mod(a[i], constant)


@compiled
def sub(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Compute out = a - b mod p, flat arrays of one length."""
    for i in range(out.size):
        out[i] = sub_mod(a[i], b[i])


@compiled
def mul(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Compute out = a b mod p, flat arrays of one length."""
    for i in range(out.size):
        out[i] = mul_mod(a[i], b[i])


@compiled
def scale(a: np.ndarray, constant: np.uint64, out: np.ndarray) -> None:
    """Compute out = a constant mod p."""
    for i in range(out.size):
        out[i] = mul_mod(a[i], constant)


@compiled
def sum_rows(rows: np.ndarray, out: np.ndarray, start: int, stop: int) -> None:
    """Compute out[i] = sum over j of rows[j, i] mod p, for i from start to stop."""
    total = out[start:stop]
    for i in range(total.size):
        total[i] = ZERO
    for j in range(rows.shape[0]):
        row = rows[j][start:stop]
        for i in range(total.size):
            total[i] = add_mod(total[i], row[i])


@njit(inline="always")
def _not_canonical(word: np.uint64) -> np.int64:
    """1 for p or more, else 0: the bits above the 61st of the word, or of the one behind it."""
    above = (word >> S61) | ((word + ONE) >> S61)
    return np.int64((above | (ZERO - above)) >> np.uint64(63))


@compiled
def mask_61(words: np.ndarray) -> int:
    """Keep 61 bits of every word in place; returns how many then equal p (to be redrawn)."""
    rejected = 0
    for i in range(words.size):
        value = words[i] & P
        words[i] = value
        rejected += _not_canonical(value)
    return rejected


@compiled
def count_not_canonical(words: np.ndarray) -> int:
    """Return how many words are p or more."""
    bad = 0
    for i in range(words.size):
        bad += _not_canonical(words[i])
    return bad


@compiled
def add_received(own: np.ndarray, received: np.ndarray, out: np.ndarray) -> int:
    """Compute out = own + received mod p, flat arrays of one length; returns how many received words are p or more."""
    bad = 0
    for i in range(out.size):
        word = received[i]
        bad += _not_canonical(word)
        out[i] = add_mod(own[i], word)
    return bad
