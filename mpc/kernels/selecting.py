"""Choosing by an opened bit, see `mpc.gates.selection`, and the truncation before it."""

from __future__ import annotations

import numpy as np

from mpc.kernels.scalar import ONE, add_mod, compiled, fold, mul_mod, sub_mod


@compiled
def deal_selected(
    r: np.ndarray,
    beta: np.ndarray,
    shift: int,
    share_beta: np.ndarray,
    share_r1: np.ndarray,
    share_m: np.ndarray,
    share_beta_r1: np.ndarray,
    share_beta_m: np.ndarray,
) -> None:
    """Turn the others' shares of beta, r1 = r >> shift, m = [r >= 2^60], beta r1 and beta m into the last ones.

    Shapes: r (rows, n) plain masks; beta (n, rows) plain bits; the shares (n, rows).
    """
    f, top = np.uint64(shift), np.uint64(60)
    rows, n = r.shape
    for k in range(n):
        for i in range(rows):
            bit, r1, m = np.uint64(beta[k, i]), r[i, k] >> f, r[i, k] >> top
            share_beta[k, i] = sub_mod(bit, share_beta[k, i])
            share_r1[k, i] = sub_mod(r1, share_r1[k, i])
            share_m[k, i] = sub_mod(m, share_m[k, i])
            share_beta_r1[k, i] = sub_mod(bit * r1, share_beta_r1[k, i])
            share_beta_m[k, i] = sub_mod(bit * m, share_beta_m[k, i])


@compiled
def offset_columns(public: np.ndarray, constant: np.uint64, shift: int, c: np.ndarray, c1: np.ndarray) -> None:
    """c = public + constant mod p and c1 = c >> shift; public (rows, n), c and c1 (n, rows)."""
    rows, n = public.shape
    f = np.uint64(shift)
    for k in range(n):
        for i in range(rows):
            value = add_mod(public[i, k], constant)
            c[k, i] = value
            c1[k, i] = value >> f


@compiled
def select(
    c: np.ndarray,
    e: np.ndarray,
    beta: np.ndarray,
    r1: np.ndarray,
    beta_r1: np.ndarray,
    m: np.ndarray,
    beta_m: np.ndarray,
    one: np.uint64,
    bits: int,
    shift: int,
    out: np.ndarray,
) -> None:
    """out[i] += share of the sum over k of (e xor beta)[k, i] y[k, i], y the truncation of c = x + 2^bits + r.

    Shapes: out (rows,), all others (n, rows).
    """
    f = np.uint64(shift)
    centre = ONE << np.uint64(bits - shift)
    threshold = ONE << np.uint64(bits + 1)
    wrap = fold(ONE << np.uint64(61 - shift))
    n, rows = c.shape
    for k in range(n):
        for i in range(rows):
            value = sub_mod(c[k, i] >> f, centre)
            chosen = sub_mod(one, beta[k, i]) if e[k, i] == 1 else beta[k, i]
            minus = sub_mod(r1[k, i], beta_r1[k, i]) if e[k, i] == 1 else beta_r1[k, i]
            total = sub_mod(add_mod(out[i], mul_mod(value, chosen)), minus)
            if c[k, i] < threshold:
                carry = sub_mod(m[k, i], beta_m[k, i]) if e[k, i] == 1 else beta_m[k, i]
                total = add_mod(total, mul_mod(carry, wrap))
            out[i] = total
