"""Comparison by dealt tables, see `mpc.comparison`: dealing, looking up, and the AND node."""

from __future__ import annotations

import numpy as np
from numba import njit

from mpc.kernels.scalar import ONE, THREE, ZERO, compiled, shift_left, shift_right

_BLOCK = 2048
"""Comparisons that stay in the first cache while their chunks are gone through."""
_EACH_BYTE = np.uint64(0x0101010101010101)
_PAIRS, _OTHERS = np.uint64(0x0000FFFF0000FFFF), np.uint64(0x00FF00FF00FF00FF)
_SHORT_BITS = 31
"""Numbers of so many bits, and their sign, fit words of 32 bits, of which a register holds twice as many."""
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
def _put_signs(c: np.ndarray, words: np.ndarray, bits: int, short: bool, signs: np.ndarray) -> None:
    """The bit above those that are compared."""
    if short:
        above = np.uint32(bits)
        for i in range(signs.size):
            signs[i] = np.uint8(shift_right(words[i], above))
    else:
        for i in range(signs.size):
            signs[i] = np.uint8(c[i] >> np.uint64(bits))


@njit(inline="always")
def _narrow(values: np.ndarray, shift: np.uint64, out: np.ndarray) -> None:
    """The lowest 32 bits of values >> shift."""
    for i in range(out.size):
        out[i] = np.uint32(values[i] >> shift)


@njit(inline="always")
def _add_thermometers(plane: np.ndarray, r: np.ndarray, shift: np.uint32, width: np.uint64) -> None:
    """plane ^= (2 << chunk) - 1, of as many bits as a chunk has values, at most 32: bit v says chunk > v - 1."""
    low, one = np.uint32((ONE << width) - ONE), np.uint32(1)
    every = np.uint32(((ONE << np.uint64(low)) << ONE) - ONE)
    for i in range(r.size):
        chunk = np.uint32(shift_right(r[i], shift) & low)
        plane[i] ^= np.uint32(shift_left(shift_left(one, chunk), one) - one) & every  # by 32 at once is undefined


@njit(inline="always")
def _add_long_thermometers(plane: np.ndarray, r: np.ndarray, shift: np.uint64) -> None:
    """Do so for chunks of six bits."""
    for i in range(r.size):
        chunk = (r[i] >> shift) & np.uint64(63)
        plane[i] ^= ((ONE << chunk) << ONE) - ONE  # by 64 at once is undefined


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
    start: int,
    stop: int,
) -> None:
    """Add the thermometers of values[first] - values[second] to a share of the table, pair by pair, for the rows from
    start to stop.

    Shapes: values (n, rows) uint64; first, second (pairs,), -1 for zero; table bytes, a plane a chunk, of
    pairs * rows words; sign (pairs * rows,) uint8, set to the bit above those that are compared.
    """
    rows = values.shape[1]
    size = first.size * rows
    low = (ONE << np.uint64(bits + 1)) - ONE
    buffer = np.empty(min(_BLOCK, stop - start), dtype=np.uint64)
    narrow, short = np.empty(buffer.size, dtype=np.uint32), bits <= _SHORT_BITS
    for row in range(start, stop, _BLOCK):
        for pair in range(first.size):
            size_of_block = min(_BLOCK, stop - row)
            r, words = buffer[:size_of_block], narrow[:size_of_block]
            _difference(values, first[pair], second[pair], row, low, r)
            _narrow(r, ZERO, words)
            at = pair * rows + row
            _put_signs(r, words, bits, short, sign[at : at + r.size])
            offset = 0
            for j in range(widths.size):
                word = _word_size(widths[j])
                plane = table[offset + word * at : offset + word * (at + r.size)]
                offset += word * size
                if word == 8:
                    _add_long_thermometers(plane.view(np.uint64), r, shifts[j])
                    continue
                if not short:
                    _narrow(r, shifts[j], words)
                shift = np.uint32(shifts[j] if short else ZERO)
                if word == 4:
                    _add_thermometers(plane.view(np.uint32), words, shift, widths[j])
                elif word == 2:
                    _add_thermometers(plane.view(np.uint16), words, shift, widths[j])
                else:
                    _add_thermometers(plane, words, shift, widths[j])


@njit(inline="always")
def _byte_planes(words: np.ndarray, out: np.ndarray) -> None:
    """The low bytes of words of one or two, and the high ones if there are any, each in a row."""
    low = out[0]
    for i in range(words.size):
        low[i] = np.uint8(words[i])
    if out.shape[0] > 1:
        high = out[1]
        for i in range(words.size):
            high[i] = np.uint8(words[i] >> np.uint16(8))


@njit(inline="always")
def _pack_bytes(products: np.ndarray, out: np.ndarray) -> None:
    """Up to eight rows of bytes, all ones or none, as the bits of one row; eight bytes a word."""
    out[:] = ZERO
    for place in range(products.shape[0]):
        row, bit = products[place], _EACH_BYTE << np.uint64(place)
        for i in range(out.size):
            out[i] |= row[i] & bit


@njit(inline="always")
def _every_other(word: np.uint64) -> np.uint64:
    """Four bytes, with room for another beside each."""
    word = (word | (word << np.uint64(16))) & _PAIRS
    return (word | (word << np.uint64(8))) & _OTHERS


@njit(inline="always")
def _add_pairs(packed: np.ndarray, room: np.ndarray, nodes: np.ndarray) -> None:
    """nodes ^= two rows of packed bytes, byte by byte beside each other; room for as many bytes."""
    halves = packed.view(np.uint32)
    low, high = halves[0], halves[1]
    for i in range(low.size):
        room[i] = _every_other(np.uint64(low[i])) | (_every_other(np.uint64(high[i])) << np.uint64(8))
    flat, added = nodes.reshape(-1), room.view(np.uint8)
    for i in range(flat.size):
        flat[i] ^= added[i]


@compiled
def deal_nodes(mask: np.ndarray, factors: np.ndarray, leaf_width: int, node: np.ndarray, free: np.ndarray) -> None:
    """Add the products of plain leaf masks to a share of the nodes; the free bit, above them, comes out.

    Products are made bit by bit, a byte for each bit and eight bytes a word: a table would be read at secret places.

    Shapes: mask (n,) words of one or two bytes; factors (products, 2), which bit or product before is multiplied with
    which bit; node (n, bytes) uint8, contiguous; free (n,) uint8.
    """
    count, lanes, last = factors.shape[0], _NODE_BLOCK // 8, leaf_width + factors.shape[0]
    plain = np.zeros((mask.itemsize, _NODE_BLOCK), dtype=np.uint8)
    planes = plain.view(np.uint64)
    bits = np.empty((last + 1, lanes), dtype=np.uint64)  # of the leaf masks, the products, the free one
    packed, room = np.empty((2, lanes), dtype=np.uint64), np.empty(2 * lanes, dtype=np.uint64)
    for start in range(0, mask.size, _NODE_BLOCK):
        words, nodes = mask[start : start + _NODE_BLOCK], node[start : start + _NODE_BLOCK]
        _byte_planes(words, plain)
        for k in range(leaf_width + 1):
            row, plane, at = bits[k if k < leaf_width else last], planes[k >> 3], np.uint64(k & 7)
            for i in range(lanes):
                bit = (plane[i] >> at) & _EACH_BYTE
                row[i] = (bit << np.uint64(8)) - bit  # 255 times each byte
        found, top = free[start : start + _NODE_BLOCK], bits[last].view(np.uint8)
        for i in range(words.size):
            found[i] = top[i] & np.uint8(1)
        for place in range(count):
            left, right, row = bits[factors[place, 0]], bits[factors[place, 1]], bits[leaf_width + place]
            for i in range(lanes):
                row[i] = left[i] & right[i]
        products = bits[leaf_width:last]
        if node.shape[1] == 2:
            _pack_bytes(products[:8], packed[0])
            _pack_bytes(products[8:], packed[1])
            _add_pairs(packed, room, nodes)
        else:
            for b in range(node.shape[1]):
                _pack_bytes(products[8 * b : 8 * b + 8], packed[0])
                row = packed[0].view(np.uint8)
                for i in range(words.size):
                    nodes[i, b] ^= row[i]


@njit(inline="always")
def _put_bits(pair: np.uint32, gt: np.uint32, eq: np.uint32, wanted: np.uint32) -> np.uint32:
    """[r > c] at bit gt and [r = c] at bit eq, where it is wanted, from two neighbouring bits of a thermometer."""
    over = np.uint32(shift_right(pair, np.uint32(1)) & np.uint32(1))
    return np.uint32(shift_left(over, gt) | shift_left(np.uint32((pair ^ over) & wanted), eq))


@njit(inline="always")
def _look_up_chunk(
    plane: np.ndarray, c: np.ndarray, shift: np.uint32, width: np.uint64, gt: int, eq: int, out: np.ndarray
) -> None:
    """out ^= [r > c] at bit gt and [r = c] at bit eq, of one chunk of at most five bits; no eq where that is
    negative."""
    low = np.uint32((ONE << width) - ONE)
    above, equal, wanted = np.uint32(gt), np.uint32(max(eq, 0)), np.uint32(1 if eq >= 0 else 0)
    for i in range(c.size):
        pair = shift_right(np.uint32(plane[i]), np.uint32(shift_right(c[i], shift) & low))
        out[i] ^= _put_bits(pair, above, equal, wanted)


@njit(inline="always")
def _look_up_long_chunk(plane: np.ndarray, c: np.ndarray, shift: np.uint64, gt: int, eq: int, out: np.ndarray) -> None:
    """Do so for a chunk of six bits."""
    above, equal = np.uint64(gt), np.uint64(max(eq, 0))
    wanted = ONE if eq >= 0 else ZERO
    for i in range(c.size):
        pair = (plane[i] >> ((c[i] >> shift) & np.uint64(63))) & THREE
        over = pair >> ONE
        out[i] ^= (over << above) | (((pair ^ over) & wanted) << equal)


@njit(inline="always")
def _look_up_block(
    table: np.ndarray,
    size: int,
    at: int,
    c: np.ndarray,
    words: np.ndarray,
    short: bool,
    shifts: np.ndarray,
    widths: np.ndarray,
    mask: np.ndarray,
    out: np.ndarray,
) -> None:
    """Leaf bits of comparisons at .. at + len(c) of `size`, under the low 2 K - 1 bits of mask.

    words: the lowest 32 bits of c, which are all where they are `short`; room for others if they are not.
    """
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
            _look_up_long_chunk(plane.view(np.uint64), c, shifts[j], j, eq, out)
            continue
        if not short:
            _narrow(c, shifts[j], words)
        shift = np.uint32(shifts[j] if short else ZERO)
        if word == 4:
            _look_up_chunk(plane.view(np.uint32), words, shift, widths[j], j, eq, out)
        elif word == 2:
            _look_up_chunk(plane.view(np.uint16), words, shift, widths[j], j, eq, out)
        else:
            _look_up_chunk(plane, words, shift, widths[j], j, eq, out)


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
    start: int,
    stop: int,
) -> None:
    """Look up the leaf bits at the public values[first] - values[second]; see `deal_thermometers` for shapes and rows.

    Bit j of out is gt_j and bit K + j is eq_j of chunk j, most significant chunk first, xor the low 2 K - 1 bits
    of mask; the last chunk's eq is never formed, so that it cannot leave unmasked.  sign: the public value's bit
    above those that are compared.
    """
    rows = values.shape[1]
    size = first.size * rows
    low = (ONE << np.uint64(bits + 1)) - ONE
    buffer = np.empty(min(_BLOCK, stop - start), dtype=np.uint64)
    narrow, short = np.empty(buffer.size, dtype=np.uint32), bits <= _SHORT_BITS
    for row in range(start, stop, _BLOCK):
        for pair in range(first.size):
            size_of_block = min(_BLOCK, stop - row)
            c, words = buffer[:size_of_block], narrow[:size_of_block]
            _difference(values, first[pair], second[pair], row, low, c)
            _narrow(c, ZERO, words)
            at = pair * rows + row
            end = at + c.size
            _put_signs(c, words, bits, short, sign[at:end])
            _look_up_block(table, size, at, c, words, short, shifts, widths, mask[at:end], out[at:end])


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
    """Compute out = the share of the AND node's bit: the monomials that the opened bits select.

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
    """Resolve a node whose mask (one byte) and node (N,) are one word of at most 31 bits, the constant its top bit."""
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
