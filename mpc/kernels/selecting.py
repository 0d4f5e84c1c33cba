"""Choosing by an opened bit, see `mpc.gates.selection`, and the truncation before it."""

from __future__ import annotations

import numpy as np

from mpc.kernels.scalar import ONE, ZERO, add_mod, compiled, fold, mul_mod, sub_mod

_BLOCK = 512
"""Elements that are taken through all steps at one time: what is between the steps stays in the nearest cache."""


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
    """Compute c = public + constant mod p and c1 = c >> shift; public (rows, n), c and c1 (n, rows)."""
    rows, n = public.shape
    f = np.uint64(shift)
    for k in range(n):
        for i in range(rows):
            value = add_mod(public[i, k], constant)
            c[k, i] = value
            c1[k, i] = value >> f


@compiled
def choose(opened: np.ndarray, dealt: np.ndarray, out: np.ndarray) -> None:
    """Compute out = of four dealt values for each element the one of the two opened bits, the first the lower one.

    Shapes: opened (2, N), dealt (4, N), out (N,).
    """
    for i in range(out.size):
        out[i] = dealt[opened[0, i] | (opened[1, i] << np.uint8(1)), i]


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
    """Add to out[i] the share of the sum over k of (e xor beta)[k, i] y[k, i], y the truncation of c = x + 2^bits + r.

    Shapes: out (rows,), all others (n, rows).
    """
    f = np.uint64(shift)
    centre = ONE << np.uint64(bits - shift)
    threshold = ONE << np.uint64(bits + 1)
    wrap = fold(ONE << np.uint64(61 - shift))
    n, rows = c.shape
    size = min(_BLOCK, rows)
    factors, others = np.empty(size, dtype=np.uint64), np.empty(size, dtype=np.uint64)
    for k in range(n):
        for start in range(0, rows, _BLOCK):
            total, places = out[start : start + _BLOCK], slice(start, start + _BLOCK)
            opened, flips, bit = c[k][places], e[k][places], beta[k][places]
            root, both = r1[k][places], beta_r1[k][places]
            for i in range(total.size):
                flip = ZERO - np.uint64(flips[i])  # all ones or none: no branch, which would be taken at random
                factors[i] = (sub_mod(one, bit[i]) & flip) | (bit[i] & ~flip)
                others[i] = sub_mod(total[i], (sub_mod(root[i], both[i]) & flip) | (both[i] & ~flip))
            for i in range(total.size):
                value = sub_mod(opened[i] >> f, centre)
                total[i] = add_mod(others[i], mul_mod(value, factors[i]))
            for i in range(total.size):
                if opened[i] < threshold:
                    row = start + i
                    carry = sub_mod(m[k, row], beta_m[k, row]) if flips[i] == 1 else beta_m[k, row]
                    total[i] = add_mod(total[i], mul_mod(carry, wrap))
