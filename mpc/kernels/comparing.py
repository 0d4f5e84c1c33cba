"""Comparison by dealt tables, see `mpc.comparison`: dealing, looking up, and the AND node."""

from __future__ import annotations

import numpy as np
from numba import njit

from mpc.kernels.scalar import ONE, THREE, ZERO, compiled

_BLOCK = 2048
"""Comparisons that stay in the first cache while their chunks are gone through."""
_NONE = np.uint8(0)
_NODE_BLOCK = 512
"""Nodes whose bits and products, a byte each, stay in a near cache."""


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
    every = ((ONE << low) << ONE) - ONE
    for i in range(r.size):
        chunk = (r[i] >> shift) & low
        word = ((ONE << chunk) << ONE) - ONE  # shifted twice: by 64 at once is undefined
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


@njit(inline="always")
def _spread_bits(words: np.ndarray, width: int, out: np.ndarray) -> None:
    """Rows of bytes, all ones where the word has bit k, else none: no place in memory depends on a word."""
    for k in range(width):
        row, bit = out[k], words.dtype.type(1 << k)
        for i in range(words.size):
            row[i] = _NONE - np.uint8((words[i] & bit) == bit)


@njit(inline="always")
def _pack_byte(products: np.ndarray, out: np.ndarray) -> None:
    """Up to eight rows of bytes, all ones or none, as the bits of one row."""
    out[:] = _NONE
    for place in range(products.shape[0]):
        row, bit = products[place], np.uint8(1 << place)
        for i in range(out.size):
            out[i] |= row[i] & bit


@compiled
def deal_nodes(mask: np.ndarray, factors: np.ndarray, leaf_width: int, node: np.ndarray, free: np.ndarray) -> None:
    """Add the products of plain leaf masks to a share of the nodes; the free bit, above them, comes out.

    Products are made bit by bit, many words side by side: a table would be read at secret places.

    Shapes: mask (n,) words; factors (products, 2), which bit or product before is multiplied with which bit;
    node (n, bytes) uint8; free (n,) uint8.
    """
    count, size = factors.shape[0], min(_NODE_BLOCK, mask.size)
    bits = np.empty((leaf_width + count, size), dtype=np.uint8)
    packed = np.empty((2, size), dtype=np.uint8)
    top = np.uint64(leaf_width)
    for start in range(0, mask.size, _NODE_BLOCK):
        words, nodes = mask[start : start + _NODE_BLOCK], node[start : start + _NODE_BLOCK]
        found, low, high = free[start : start + _NODE_BLOCK], packed[0][: words.size], packed[1][: words.size]
        _spread_bits(words, leaf_width, bits)
        for i in range(words.size):
            found[i] = np.uint8((np.uint64(words[i]) >> top) & ONE)
        for place in range(count):
            left, right, row = bits[factors[place, 0]], bits[factors[place, 1]], bits[leaf_width + place]
            for i in range(words.size):
                row[i] = left[i] & right[i]
        products = bits[leaf_width:]
        if node.shape[1] == 2:
            both = nodes.reshape(-1).view(np.uint16)
            _pack_byte(products[:8], low)
            _pack_byte(products[8:], high)
            for i in range(words.size):
                both[i] ^= np.uint16(low[i]) | (np.uint16(high[i]) << np.uint16(8))
        else:
            for b in range(node.shape[1]):
                _pack_byte(products[8 * b : 8 * b + 8], low)
                for i in range(words.size):
                    nodes[i, b] ^= low[i]


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
