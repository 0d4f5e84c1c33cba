"""Words that authenticate bits: one of 64 bits for each bit, dealt, looked up, joined and added up; see `mpc.tags`.

The loops do on words what `comparing` and `conjunctions` do on bits.  Their first axes are those of the bits, and the
last one has a word for each bit of an element.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from mpc.kernels.carryless import dot_carryless, multiply_carryless, reduce_carryless
from mpc.kernels.conjunctions import _gather_words
from mpc.kernels.scalar import ONE, ZERO, add_mod, compiled, mul_mod, swap_bytes

_BLOCK = 512
"""Elements whose words are joined at one time, before they are multiplied."""
_SIGN = np.int64(63)
_SUMS = 64
"""Sums that are kept side by side, as a compiler adds them up at one time."""


@njit(inline="always")
def _every(bit: np.uint64) -> np.uint64:
    """All ones where the bit is one, else zero."""
    return ZERO - (bit & ONE)


@compiled
def tag_words(bits: np.ndarray, key: np.uint64, share: np.ndarray) -> None:
    """Turn the others' shares of words into the last one: add the key wherever the plain bit is one.

    Shapes: bits uint8 and share (N, width).
    """
    for i in range(share.shape[0]):
        for k in range(share.shape[1]):
            share[i, k] ^= key & _every(np.uint64(bits[i, k]))


@compiled
def find_signs(values: np.ndarray, first: np.ndarray, second: np.ndarray, bits: int, sign: np.ndarray) -> None:
    """Compute sign = the bit above those that are compared, of the public values[first] - values[second].

    Shapes: values (n, rows); first, second (pairs,), -1 for zero; sign (pairs * rows,) uint8.
    """
    rows, top = values.shape[1], np.uint64(bits)
    for pair in range(first.size):
        left, right = values[max(first[pair], 0)], values[max(second[pair], 0)]
        of_left, of_right = (ONE if first[pair] >= 0 else ZERO), (ONE if second[pair] >= 0 else ZERO)
        out = sign[pair * rows : pair * rows + rows]
        for i in range(rows):
            out[i] = np.uint8(((left[i] * of_left - right[i] * of_right) >> top) & ONE)


@compiled
def find_words(
    values: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    start: int,
    bits: int,
    shifts: np.ndarray,
    widths: np.ndarray,
    places: np.ndarray,
) -> None:
    """Find where the words of leaf bits lie in a table, at the public values[first] - values[second]; see `look_up`.

    Shapes: places (2 K, comparisons) int64, of those from `start` on, of each chunk the word of [r >= c] and, in the
    next row, that of [r > c], which lies beside it; -1 where nothing can exceed c, and -2 where nothing can be less:
    there words are those of the bits 0 and 1.
    """
    rows = values.shape[1]
    size, count, low = first.size * rows, shifts.size, (ONE << np.uint64(bits)) - ONE
    pair, row, done = start // rows, start % rows, 0
    while done < places.shape[1]:
        number = min(rows - row, places.shape[1] - done)
        left = values[max(first[pair], 0), row : row + number]
        right = values[max(second[pair], 0), row : row + number]
        of_left, of_right = (low if first[pair] >= 0 else ZERO), (low if second[pair] >= 0 else ZERO)
        offset = 0
        for j in range(count):
            chunk, shift = (ONE << widths[j]) - ONE, shifts[j]
            last, at = np.int64(chunk), offset + np.int64(chunk) * (start + done) - 1
            least, above = places[2 * j][done : done + number], places[2 * j + 1][done : done + number]
            for i in range(number):
                c = ((left[i] & of_left) - (right[i] & of_right)) & low
                place = np.int64((c >> shift) & chunk)
                here = at + last * i + place
                least[i] = here if place > 0 else -2
                above[i] = here + 1 if place < last else -1
            offset += last * size
        pair, row, done = pair + 1, 0, done + number


@compiled
def read_words(words: np.ndarray, places: np.ndarray, out: np.ndarray, start: int, stop: int) -> None:
    """Compute out = the words at places, (rows, N), for those from start to stop of each row; any, at a place below 0.

    Two rows are read at one time: what `find_words` finds for them lies side by side, and is fetched once.
    """
    rows = places.shape[0]
    for row in range(0, rows - 1, 2):
        one, other, of_one, of_other = places[row], places[row + 1], out[row], out[row + 1]
        for i in range(start, stop):
            of_one[i] = words[max(one[i], 0)]
            of_other[i] = words[max(other[i], 0)]
    for row in range(rows - rows % 2, rows):
        last, of_last = places[row], out[row]
        for i in range(start, stop):
            of_last[i] = words[max(last[i], 0)]


@compiled
def number_blocks(places: np.ndarray, blocks: np.ndarray) -> None:
    """Write the numbers of the blocks of two words in which places lie, as 16 big-endian bytes each; blocks (N, 2)."""
    for i in range(places.size):
        blocks[i, 0] = ZERO
        blocks[i, 1] = swap_bytes(np.uint64(max(places[i], 0)) >> ONE)


@compiled
def pick_words(blocks: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
    """Compute out = of each block (N, 2) the word at its place."""
    for i in range(places.size):
        every = _every(np.uint64(places[i]))
        out[i] = (blocks[i, 0] & ~every) | (blocks[i, 1] & every)


@njit(inline="always")
def _selected(words: np.ndarray, selector: np.ndarray) -> np.uint64:
    """The sum of the words that a row of a selector lets in."""
    total = ZERO
    for k in range(words.size):
        total ^= words[k] & np.uint64(np.int64(selector[k]))
    return total


@compiled
def select_words(words: np.ndarray, opened: np.ndarray, selector: np.ndarray, out: np.ndarray) -> None:
    """Compute out = the sums of the words that opened words select; shapes and selector as of `resolve_words`."""
    for i in range(opened.size):
        out[i] = _selected(words[i], selector[opened[i]])


@compiled
def resolve_words(
    opened: np.ndarray,
    masks: np.ndarray,
    node: np.ndarray,
    selector: np.ndarray,
    constant: np.ndarray,
    public: np.ndarray,
    one: np.uint64,
    out: np.ndarray,
) -> None:
    """Compute out = the share of the word of an AND node's bit, as `resolve_node` does of the bit.

    Shapes: masks (N,), what is selected of the masks' words; node (N, products); out (N,); selector (opened words,
    products at least) int8, -1 of what enters the sum and else 0.  `one` is this party's share of the word of the
    bit 1.
    """
    for i in range(opened.size):
        o = opened[i]
        out[i] = masks[i] ^ (one & _every(np.uint64(constant[o] ^ public[i]))) ^ _selected(node[i], selector[o])


@compiled
def and_words(
    bits: np.ndarray,
    places: np.ndarray,
    flips: np.ndarray,
    node: np.ndarray,
    selection: np.ndarray,
    fresh: np.ndarray,
    one: np.uint64,
    out: np.ndarray,
) -> None:
    """Compute out = shares of the words of ANDs under `fresh`, as `and_nodes` does of the bits.

    Shapes: node, in a row, of each node and of each of its rows the products of the inputs that are there; fresh and
    out (nodes, rows, 1).
    """
    rows, start = bits.shape[1], 0
    words = np.empty(rows, dtype=np.uint8)
    for n in range(places.shape[0]):
        _gather_words(bits, places[n], flips[n], 1, 0, words)
        products = 0
        for slot in range(places.shape[1]):
            products = 2 * products + 1 if places[n, slot] >= 0 else products
        for i in range(rows):
            chosen = np.uint64(selection[words[i]])
            total = fresh[n, i, 0] ^ (one if words[i] == 15 else ZERO)
            for k in range(products):
                total ^= node[start + i * products + k] & _every(chosen >> np.uint64(k))
            out[n, i, 0] = total
        start += rows * products


@njit(inline="always")
def _add_row(
    total: tuple[np.uint64, np.uint64, np.uint64], above: np.uint64, below: np.uint64, coin: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64]:
    """A polynomial of three words, and added to it one of two words times the coin of a row."""
    high, middle, low = total
    more, less = multiply_carryless(below, coin)
    over, under = multiply_carryless(above, coin)
    return high ^ over, middle ^ more ^ under, low ^ less


@njit(inline="always")
def _add_columns(totals: np.ndarray, columns: np.ndarray, sums: np.ndarray) -> None:
    """Add to sums (1,) of each column the sum of its words times the coins of rows, times the column's coin.

    Shapes: totals (columns, 2), (high, low) each.
    """
    total = (ZERO, ZERO, ZERO)
    for k in range(columns.size):
        total = _add_row(total, totals[k, 0], totals[k, 1], columns[k])
    sums[0] ^= reduce_carryless(total[0], total[1], total[2])


@compiled
def fold_words(
    words: np.ndarray, opened: np.ndarray, one: np.uint64, columns: np.ndarray, rows: np.ndarray, sums: np.ndarray
) -> None:
    """Add to sums (1,) each word xor its opened bit times `one`, times two coins, in the field of 2^64 elements.

    Shapes: words (N, width); opened (N,) uint64; columns (width,) and rows (N,), coins of a word's place and element.
    """
    totals, room = np.zeros((columns.size, 2), dtype=np.uint64), np.empty(_BLOCK, dtype=np.uint64)
    for first in range(0, words.shape[0], _BLOCK):
        some, bits, coins = words[first : first + _BLOCK], opened[first : first + _BLOCK], rows[first : first + _BLOCK]
        off = room[: bits.size]
        for k in range(columns.size):
            place = np.uint64(k)
            for i in range(bits.size):
                off[i] = some[i, k] ^ (one & _every(bits[i] >> place))
            high, low = dot_carryless(off, coins)
            totals[k, 0] ^= high
            totals[k, 1] ^= low
    _add_columns(totals, columns, sums)


@compiled
def fold_leaves(
    words: np.ndarray,
    places: np.ndarray,
    mask: np.ndarray,
    opened: np.ndarray,
    one: np.uint64,
    columns: np.ndarray,
    rows: np.ndarray,
    selector: np.ndarray,
    selected: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Add to sums the words of leaf bits, under those of their masks, as `fold_words` does; and compute what of the
    masks enters `resolve_words`, which so reads none.

    Shapes: words, at the places of `find_words`, (2 K, N); mask (N, 2 K); opened (N,), 2 K - 1 bits each; selector
    (opened words,), bit k says whether word k of the masks enters the sum; selected (N,).
    """
    count = words.shape[0] // 2
    totals, room = np.zeros((columns.size, 2), dtype=np.uint64), np.empty(_BLOCK, dtype=np.uint64)
    planes, wanted = np.empty((2 * count, _BLOCK), dtype=np.uint64), np.empty(_BLOCK, dtype=np.uint64)
    for first in range(0, opened.size, _BLOCK):
        part = slice(first, min(first + _BLOCK, opened.size))
        bits, masks, coins, chosen = opened[part], mask[part], rows[part], selected[part]
        off = room[: bits.size]
        for i in range(bits.size):
            wanted[i] = selector[bits[i]]
            chosen[i] = ZERO
        for k in range(2 * count):
            plane, place = planes[k], np.uint64(k)
            for i in range(bits.size):
                plane[i] = masks[i, k]
            for i in range(bits.size):
                chosen[i] ^= plane[i] & _every(wanted[i] >> place)
        for j in range(count):
            above, is_above, place = words[2 * j + 1][part], places[2 * j + 1][part], np.uint64(j)
            under = planes[j]
            for i in range(bits.size):
                over = above[i] & ~np.uint64(is_above[i] >> _SIGN)
                off[i] = over ^ under[i] ^ (one & _every(bits[i] >> place))
            high, low = dot_carryless(off, coins)
            totals[j, 0] ^= high
            totals[j, 1] ^= low
            if j == count - 1:
                continue
            least, is_least, place = words[2 * j][part], places[2 * j][part], np.uint64(count + j)
            under = planes[count + j]
            for i in range(bits.size):
                over, none = above[i] & ~np.uint64(is_above[i] >> _SIGN), np.uint64(is_least[i] >> _SIGN)
                equal = over ^ (least[i] & ~none) ^ (one & none)
                off[i] = equal ^ under[i] ^ (one & _every(bits[i] >> place))
            high, low = dot_carryless(off, coins)
            totals[count + j, 0] ^= high
            totals[count + j, 1] ^= low
    _add_columns(totals, columns, sums)


@compiled
def dot(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Add the inner product of a and b, (N,), to out, (1,); sums of every 64th place side by side."""
    sums, total = np.zeros(_SUMS, dtype=np.uint64), out[0]
    whole = a.size - a.size % _SUMS
    for first in range(0, whole, _SUMS):
        left, right = a[first : first + _SUMS], b[first : first + _SUMS]
        for i in range(_SUMS):
            sums[i] = add_mod(sums[i], mul_mod(left[i], right[i]))
    for i in range(_SUMS):
        total = add_mod(total, sums[i])
    for i in range(whole, a.size):
        total = add_mod(total, mul_mod(a[i], b[i]))
    out[0] = total
