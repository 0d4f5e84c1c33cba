"""Element by element: sums, products, checks of what came from outside."""

from __future__ import annotations

import numpy as np

from mpc.kernels.scalar import ZERO, P, add_mod, compiled, mul_mod, sub_mod


@compiled
def add(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out = a + b mod p, flat arrays of one length."""
    for i in range(out.size):
        out[i] = add_mod(a[i], b[i])


@compiled
def add_constant(a: np.ndarray, constant: np.uint64, out: np.ndarray) -> None:
    """out = a + constant mod p."""
    for i in range(out.size):
        out[i] = add_mod(a[i], constant)


@compiled
def sub(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out = a - b mod p, flat arrays of one length."""
    for i in range(out.size):
        out[i] = sub_mod(a[i], b[i])


@compiled
def mul(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out = a b mod p, flat arrays of one length."""
    for i in range(out.size):
        out[i] = mul_mod(a[i], b[i])


@compiled
def scale(a: np.ndarray, constant: np.uint64, out: np.ndarray) -> None:
    """out = a constant mod p."""
    for i in range(out.size):
        out[i] = mul_mod(a[i], constant)


@compiled
def sum_rows(rows: np.ndarray, out: np.ndarray) -> None:
    """out[i] = sum over j of rows[j, i] mod p."""
    for i in range(out.size):
        out[i] = ZERO
    for j in range(rows.shape[0]):
        row = rows[j]
        for i in range(out.size):
            out[i] = add_mod(out[i], row[i])


@compiled
def mask_61(words: np.ndarray) -> int:
    """Keep 61 bits of every word in place; returns how many then equal p (to be redrawn)."""
    rejected = 0
    for i in range(words.size):
        value = words[i] & P
        words[i] = value
        if value == P:
            rejected += 1
    return rejected


@compiled
def count_not_canonical(words: np.ndarray) -> int:
    """How many words are p or more."""
    bad = 0
    for i in range(words.size):
        if words[i] >= P:
            bad += 1
    return bad


@compiled
def add_received(own: np.ndarray, received: np.ndarray, out: np.ndarray) -> int:
    """out = own + received mod p, flat arrays of one length; returns how many received words are p or more."""
    bad = 0
    for i in range(out.size):
        word = received[i]
        if word >= P:
            bad += 1
        out[i] = add_mod(own[i], word)
    return bad
