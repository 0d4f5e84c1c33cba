"""Comparison by dealt tables, see `mpc.comparison`: dealing them, and looking up."""

from __future__ import annotations

import numpy as np
from numba import njit

from mpc.kernels.scalar import ONE, THREE, ZERO, compiled, shift_left, shift_right

_BLOCK = 2048
"""Comparisons that stay in the first cache while their chunks are gone through."""
_SHORT_BITS = 31
"""Numbers of so many bits, and their sign, fit words of 32 bits, of which a register holds twice as many."""


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
