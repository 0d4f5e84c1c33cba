"""Comparison whose bit is opened in one round, see `mpc.at_once`: dealing, looking up, and what is told."""

from __future__ import annotations

import numpy as np
from numba import njit

from mpc.kernels.comparing import _BLOCK, _difference
from mpc.kernels.scalar import ONE, ZERO, compiled

_TOP, _BYTE = np.uint64(63), np.uint64(8)


@njit(inline="always")
def _level(word: np.uint64, level: int) -> np.uint64:
    """The `level` bits that a level has in a word of masks or of opened bits, level 1 first."""
    return (word >> np.uint64(level * (level - 1) // 2)) & ((ONE << np.uint64(level)) - ONE)


@njit(inline="always")
def _settle(word: np.uint64, count: int) -> np.uint64:
    """From a word's bits those that are told: bit i is H of level i, or mu of it, and bit 0 the result, or beta."""
    told = _level(word, count)
    for level in range(count - 1, 0, -1):
        told ^= _level(word, level) & (ZERO - ((told >> np.uint64(level)) & ONE))
    return told


@njit(inline="always")
def _entry(v: np.uint64, chunk: np.uint64, mark: np.uint64, above: np.uint64, level: int, last: bool) -> np.uint64:
    """The word of a table at v: where the chunk is v those of `above`, and where chunk + mark is larger."""
    larger = above & (ZERO - ((v - chunk - mark) >> _TOP))
    equal = above & (ZERO - (((v ^ chunk) - ONE) >> _TOP))
    return larger if last else equal | (larger << np.uint64(level))


@njit(inline="always")
def _add_tables(
    r: np.uint64, mask: np.uint64, told: np.uint64, shifts: np.ndarray, widths: np.ndarray, row: np.ndarray
) -> None:
    """row ^= the tables of one comparison, bit by bit from the lowest on."""
    count, above = shifts.size, ONE
    held, filled, byte = ZERO, np.uint64(0), 0
    for j in range(count):
        level, last = j + 1, j == count - 1
        size = np.uint64(level if last else 2 * level)
        values = np.int64(1) << np.int64(widths[j])
        chunk = (r >> shifts[j]) & np.uint64(values - 1)
        mark = ZERO if last else (told >> np.uint64(level)) & ONE
        for v in range(values):
            held |= _entry(np.uint64(v), chunk, mark, above, level, last) << filled
            filled += size
            while filled >= _BYTE:
                row[byte] ^= np.uint8(held & np.uint64(255))
                held >>= _BYTE
                filled -= _BYTE
                byte += 1
        above = _level(mask, level) | (ONE << np.uint64(level))
    if filled > ZERO:
        row[byte] ^= np.uint8(held & np.uint64(255))


@compiled
def deal_at_once(
    values: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    bits: int,
    shifts: np.ndarray,
    widths: np.ndarray,
    mask: np.ndarray,
    table: np.ndarray,
    sign: np.ndarray,
    free: np.ndarray,
    start: int,
    stop: int,
) -> None:
    """Add the tables of values[first] - values[second] to a share of them, for the rows from start to stop.

    Every byte is written, for any secret.

    Shapes: values (n, rows) uint64; first, second (pairs,), -1 for zero; mask (pairs * rows,) plain words; table
    (pairs * rows, bytes) uint8; sign, set to the bit above those that are compared, and free, to the bit under which
    the result is opened, (pairs * rows,) uint8.
    """
    rows, count = values.shape[1], shifts.size
    low = (ONE << np.uint64(bits + 1)) - ONE
    buffer = np.empty(min(_BLOCK, stop - start), dtype=np.uint64)
    for pair in range(first.size):
        for row in range(start, stop, _BLOCK):
            r = buffer[: min(_BLOCK, stop - row)]
            _difference(values, first[pair], second[pair], row, low, r)
            at = pair * rows + row
            for i in range(r.size):
                word = np.uint64(mask[at + i])
                told = _settle(word, count)
                sign[at + i] = np.uint8(r[i] >> np.uint64(bits))
                free[at + i] = np.uint8(told & ONE)
                _add_tables(r[i], word, told, shifts, widths, table[at + i])


@njit(inline="always")
def _read(row: np.ndarray, at: int, size: int) -> np.uint64:
    """Up to 17 bits of a row, from a bit on."""
    byte, last = at >> 3, row.size - 1
    word = np.uint64(row[byte])
    word |= np.uint64(row[min(byte + 1, last)]) << _BYTE
    word |= np.uint64(row[min(byte + 2, last)]) << np.uint64(16)
    return (word >> np.uint64(at & 7)) & ((ONE << np.uint64(size)) - ONE)


@compiled
def look_up_at_once(
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
    """Look up what is opened at the public values[first] - values[second]; see `deal_at_once` for shapes and rows.

    out: words of K (K + 1) / 2 bits, under those of mask; sign: the public value's bit above those that are compared.
    """
    rows, count = values.shape[1], shifts.size
    low = (ONE << np.uint64(bits + 1)) - ONE
    told = np.uint64(count * (count - 1) // 2)
    buffer = np.empty(min(_BLOCK, stop - start), dtype=np.uint64)
    for pair in range(first.size):
        for row in range(start, stop, _BLOCK):
            c = buffer[: min(_BLOCK, stop - row)]
            _difference(values, first[pair], second[pair], row, low, c)
            for i in range(c.size):
                at = pair * rows + row + i
                tables, word, offset = table[at], np.uint64(mask[at]), np.int64(0)
                for j in range(count):
                    level, chunk = j + 1, np.int64(1) << np.int64(widths[j])
                    v = np.int64((c[i] >> shifts[j]) & np.uint64(chunk - 1))
                    size = level if level == count else 2 * level
                    found = _read(tables, offset + v * size, size)
                    offset += size * chunk
                    if level < count:
                        equal = found & ((ONE << np.uint64(level)) - ONE)
                        word ^= equal << np.uint64(level * (level - 1) // 2)
                        found >>= np.uint64(level)
                    word ^= found << told
                out[at] = word
                sign[at] = np.uint8(c[i] >> np.uint64(bits))


@compiled
def settle(opened: np.ndarray, count: int, public: np.ndarray, out: np.ndarray) -> None:
    """Compute out = the opened bit of comparisons in `count` chunks xor a public one, from their opened words (N,)."""
    for i in range(opened.size):
        out[i] = np.uint8(_settle(np.uint64(opened[i]), count) & ONE) ^ public[i]
