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
    start: int,
    stop: int,
) -> None:
    """Turn the others' shares of beta, r1 = r >> shift, m = [r >= 2^60], beta r1 and beta m into the last ones, for the
    rows from start to stop.

    Shapes: r (rows, n) plain masks; beta (n, rows) plain bits; the shares (n, rows).
    """
    f, top = np.uint64(shift), np.uint64(60)
    for first in range(start, stop, _BLOCK):
        places = slice(first, min(first + _BLOCK, stop))
        masks = r[places]
        for k in range(r.shape[1]):
            bits, of_beta, of_r1, of_m = beta[k][places], share_beta[k][places], share_r1[k][places], share_m[k][places]
            of_beta_r1, of_beta_m = share_beta_r1[k][places], share_beta_m[k][places]
            for i in range(bits.size):
                bit, r1, m = np.uint64(bits[i]), masks[i, k] >> f, masks[i, k] >> top
                of_beta[i] = sub_mod(bit, of_beta[i])
                of_r1[i] = sub_mod(r1, of_r1[i])
                of_m[i] = sub_mod(m, of_m[i])
                of_beta_r1[i] = sub_mod(bit * r1, of_beta_r1[i])
                of_beta_m[i] = sub_mod(bit * m, of_beta_m[i])


@compiled
def offset_columns(
    public: np.ndarray,
    constant: np.uint64,
    shift: int,
    less: np.uint64,
    c: np.ndarray,
    c1: np.ndarray,
    start: int,
    stop: int,
) -> None:
    """Compute c = public + constant mod p and c1 = (c >> shift) - less mod 2^64, for the rows from start to stop.

    Shapes: public (rows, n), c and c1 (n, rows).
    """
    f = np.uint64(shift)
    for first in range(start, stop, _BLOCK):
        places = slice(first, min(first + _BLOCK, stop))
        rows = public[places]
        for k in range(public.shape[1]):
            column, shifted = c[k][places], c1[k][places]
            for i in range(column.size):
                value = add_mod(rows[i, k], constant)
                column[i] = value
                shifted[i] = (value >> f) - less


@compiled
def choose(opened: np.ndarray, dealt: np.ndarray, out: np.ndarray, start: int, stop: int) -> None:
    """Compute out = of four dealt values for each element the one of the two opened bits, the first the lower one, from
    start to stop.

    Shapes: opened (2, N), dealt (4, N), out (N,).
    """
    low, high, chosen, values = opened[0][start:stop], opened[1][start:stop], out[start:stop], dealt[:, start:stop]
    for i in range(chosen.size):
        chosen[i] = values[low[i] | (high[i] << np.uint8(1)), i]


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
    start: int,
    stop: int,
) -> None:
    """Add to out[i] the share of the sum over k of (e xor beta)[k, i] y[k, i], y the truncation of c = x + 2^bits + r,
    for i from start to stop.

    Shapes: out (rows,), all others (n, rows).
    """
    f = np.uint64(shift)
    centre = ONE << np.uint64(bits - shift)
    threshold = ONE << np.uint64(bits + 1)
    wrap = fold(ONE << np.uint64(61 - shift))
    for k in range(c.shape[0]):
        for first in range(start, stop, _BLOCK):
            places = slice(first, min(first + _BLOCK, stop))
            total = out[places]
            opened, flips, bit = c[k][places], e[k][places], beta[k][places]
            root, both = r1[k][places], beta_r1[k][places]
            wrapped = ZERO
            for i in range(total.size):
                flip = ZERO - np.uint64(flips[i])  # all ones or none: no branch, which would be taken at random
                factor = (sub_mod(one, bit[i]) & flip) | (bit[i] & ~flip)
                other = sub_mod(total[i], (sub_mod(root[i], both[i]) & flip) | (both[i] & ~flip))
                total[i] = add_mod(other, mul_mod(sub_mod(opened[i] >> f, centre), factor))
                wrapped |= opened[i] - threshold  # its top bit, where c is smaller
            if wrapped >> np.uint64(63) == ZERO:
                continue
            for i in range(total.size):
                if opened[i] < threshold:
                    row = first + i
                    carry = sub_mod(m[k, row], beta_m[k, row]) if flips[i] == 1 else beta_m[k, row]
                    total[i] = add_mod(total[i], mul_mod(carry, wrap))
