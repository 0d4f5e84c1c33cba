"""Comparison by dealt tables, see `mpc.comparison`: dealing, looking up, and the AND node."""

from __future__ import annotations

import numpy as np
from numba import njit

from mpc.kernels.scalar import ONE, THREE, TWO, ZERO, compiled

_BLOCK = 2048
"""Comparisons that stay in the first cache while their chunks are gone through."""


@njit(inline="always")
def _word_size(width: np.uint64) -> np.int64:
    """Bytes of a thermometer for a chunk of that many bits."""
    values = np.int64(1) << np.int64(width)
    return max(np.int64(1), values >> np.int64(3))


@njit(inline="always")
def _difference(values: np.ndarray, a: int, b: int, start: int, low: np.uint64, out: np.ndarray) -> None:
    """out = values[a] - values[b] modulo a power of two, from `start` on; row -1 is zero."""
    end = start + out.size
    left, right = values[max(a, 0), start:end], values[max(b, 0), start:end]
    keep_left, keep_right = (low if a >= 0 else ZERO), (low if b >= 0 else ZERO)
    for i in range(out.size):
        out[i] = ((left[i] & keep_left) - (right[i] & keep_right)) & low


@njit(inline="always")
def _add_thermometers(plane: np.ndarray, r: np.ndarray, shift: np.uint64, width: np.uint64) -> None:
    """plane ^= (2 << chunk) - 1, of as many bits as a chunk has values: bit v says chunk > v - 1."""
    low = (ONE << width) - ONE
    every = ((TWO << low) if low < np.uint64(63) else ZERO) - ONE
    for i in range(r.size):
        chunk = (r[i] >> shift) & low
        word = ((TWO << chunk) if chunk < np.uint64(63) else ZERO) - ONE
        plane[i] ^= word & every


@compiled
def deal_thermometers(
    values: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    bits: int,
    shifts: np.ndarray,
    widths: np.ndarray,
    table: np.ndarray,
    sign: np.ndarray,
) -> None:
    """Add the thermometers of values[first] - values[second] to a share of the table, pair by pair.

    Shapes: values (n, rows) uint64; first, second (pairs,), -1 for zero; table bytes, a plane a chunk, of
    pairs * rows words; sign (pairs * rows,) uint8, set to the bit above those that are compared.
    """
    rows = values.shape[1]
    size = first.size * rows
    low = (ONE << np.uint64(bits + 1)) - ONE
    buffer = np.empty(min(_BLOCK, rows), dtype=np.uint64)
    for pair in range(first.size):
        for start in range(0, rows, _BLOCK):
            r = buffer[: min(_BLOCK, rows - start)]
            _difference(values, first[pair], second[pair], start, low, r)
            at = pair * rows + start
            signs = sign[at : at + r.size]
            for i in range(r.size):
                signs[i] = np.uint8(r[i] >> np.uint64(bits))
            offset = 0
            for j in range(widths.size):
                word = _word_size(widths[j])
                plane = table[offset + word * at : offset + word * (at + r.size)]
                offset += word * size
                if word == 8:
                    _add_thermometers(plane.view(np.uint64), r, shifts[j], widths[j])
                elif word == 4:
                    _add_thermometers(plane.view(np.uint32), r, shifts[j], widths[j])
                elif word == 2:
                    _add_thermometers(plane.view(np.uint16), r, shifts[j], widths[j])
                else:
                    _add_thermometers(plane, r, shifts[j], widths[j])


@compiled
def deal_nodes(mask: np.ndarray, products: np.ndarray, leaf_width: int, node: np.ndarray, free: np.ndarray) -> None:
    """Add the products of plain leaf masks to a share of the nodes; the free bit, above them, comes out."""
    low = (ONE << np.uint64(leaf_width)) - ONE
    for i in range(mask.size):
        word = np.uint64(mask[i])
        for b in range(node.shape[1]):
            node[i, b] ^= products[word & low, b]
        free[i] = np.uint8((word >> np.uint64(leaf_width)) & ONE)


@njit(inline="always")
def _look_up_chunk(
    plane: np.ndarray, c: np.ndarray, shift: np.uint64, width: np.uint64, gt: int, eq: int, out: np.ndarray
) -> None:
    """out ^= [r > c] at bit gt and [r = c] at bit eq, of one chunk; no eq where that is negative."""
    low = (ONE << width) - ONE
    above, equal = np.uint64(gt), np.uint64(max(eq, 0))
    wanted = ONE if eq >= 0 else ZERO
    for i in range(c.size):
        pair = (np.uint64(plane[i]) >> ((c[i] >> shift) & low)) & THREE
        over = pair >> ONE
        out[i] ^= (over << above) | (((pair ^ over) & wanted) << equal)


@njit(inline="always")
def _look_up_block(
    table: np.ndarray,
    size: int,
    at: int,
    c: np.ndarray,
    shifts: np.ndarray,
    widths: np.ndarray,
    mask: np.ndarray,
    out: np.ndarray,
) -> None:
    """Leaf bits of comparisons at .. at + len(c) of `size`, under the low 2 K - 1 bits of mask."""
    count = shifts.size
    keep = (ONE << np.uint64(2 * count - 1)) - ONE
    for i in range(c.size):
        out[i] = np.uint64(mask[i]) & keep
    offset = 0
    for j in range(count):
        word = _word_size(widths[j])
        plane = table[offset + word * at : offset + word * (at + c.size)]
        offset += word * size
        eq = count + j if j < count - 1 else -1
        if word == 8:
            _look_up_chunk(plane.view(np.uint64), c, shifts[j], widths[j], j, eq, out)
        elif word == 4:
            _look_up_chunk(plane.view(np.uint32), c, shifts[j], widths[j], j, eq, out)
        elif word == 2:
            _look_up_chunk(plane.view(np.uint16), c, shifts[j], widths[j], j, eq, out)
        else:
            _look_up_chunk(plane, c, shifts[j], widths[j], j, eq, out)


@compiled
def look_up(
    table: np.ndarray,
    values: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    bits: int,
    shifts: np.ndarray,
    widths: np.ndarray,
    mask: np.ndarray,
    out: np.ndarray,
    sign: np.ndarray,
) -> None:
    """Leaf bits at the public values[first] - values[second]; see `deal_thermometers` for the shapes.

    Bit j of out is gt_j and bit K + j is eq_j of chunk j, most significant chunk first, xor the low 2 K - 1 bits
    of mask; the last chunk's eq is never formed, so that it cannot leave unmasked.  sign: the public value's bit
    above those that are compared.
    """
    rows = values.shape[1]
    size = first.size * rows
    low = (ONE << np.uint64(bits + 1)) - ONE
    buffer = np.empty(min(_BLOCK, rows), dtype=np.uint64)
    for pair in range(first.size):
        for start in range(0, rows, _BLOCK):
            c = buffer[: min(_BLOCK, rows - start)]
            _difference(values, first[pair], second[pair], start, low, c)
            at = pair * rows + start
            end = at + c.size
            signs = sign[at:end]
            for i in range(c.size):
                signs[i] = np.uint8(c[i] >> np.uint64(bits))
            _look_up_block(table, size, at, c, shifts, widths, mask[at:end], out[at:end])


@njit(inline="always")
def _parity(word: np.uint64) -> np.uint64:
    word ^= word >> np.uint64(32)
    word ^= word >> np.uint64(16)
    word ^= word >> np.uint64(8)
    word ^= word >> np.uint64(4)
    word ^= word >> np.uint64(2)
    return (word ^ (word >> ONE)) & ONE


@compiled
def resolve_node(
    opened: np.ndarray,
    mask: np.ndarray,
    node: np.ndarray,
    mask_selector: np.ndarray,
    node_selector: np.ndarray,
    constant: np.ndarray,
    public: np.ndarray,
    one: np.uint64,
    out: np.ndarray,
) -> None:
    """out = the share of the AND node's bit: the monomials that the opened bits select.

    mask (N,) and node (N, bytes) are shares of the monomials of the masks; the selectors
    are tables over the opened word; `constant`, and the public bit that is added to the
    result, enter through this party's share of one.
    """
    width = node.shape[1]
    for i in range(opened.size):
        o = opened[i]
        chosen = np.uint64(mask[i]) & np.uint64(mask_selector[o])
        for b in range(width):
            chosen ^= np.uint64(node[i, b] & node_selector[o, b])
        chosen ^= np.uint64(constant[o] ^ public[i]) & one
        out[i] = np.uint8(_parity(chosen))


@compiled
def resolve_short_node(
    opened: np.ndarray,
    mask: np.ndarray,
    node: np.ndarray,
    selector: np.ndarray,
    public: np.ndarray,
    one: np.uint64,
    out: np.ndarray,
) -> None:
    """`resolve_node` where mask (one byte) and node (N,) are one word of at most 31 bits, the constant its top bit."""
    top = np.uint32(31)
    constant, bit = np.uint32(one) << top, np.uint8(one)
    chosen = np.empty(min(_BLOCK, opened.size), dtype=np.uint32)
    for start in range(0, opened.size, _BLOCK):
        words = opened[start : start + _BLOCK]
        for i in range(words.size):
            chosen[i] = selector[words[i]]
        masks, nodes = mask[start : start + _BLOCK], node[start : start + _BLOCK]
        added, bits = public[start : start + _BLOCK], out[start : start + _BLOCK]
        for i in range(words.size):
            word = (np.uint32(masks[i]) | (np.uint32(nodes[i]) << np.uint32(8)) | constant) & chosen[i]
            word ^= word >> np.uint32(16)
            word ^= word >> np.uint32(8)
            word ^= word >> np.uint32(4)
            word ^= word >> np.uint32(2)
            word ^= word >> np.uint32(1)
            bits[i] = np.uint8(word & np.uint32(1)) ^ (added[i] & bit)
