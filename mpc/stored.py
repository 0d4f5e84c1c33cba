"""Data at rest: columns that were masked once, x^ = x + sum_i PRG(k_i), and are read by many sessions.

A column is cut into blocks of `BLOCK_ROWS` rows, and each party has a seed k_i of its own for each block; so x^ and
the masks of a few rows are found without those of all rows.  A wire that stands for several columns has the elements
of each of its rows in the order of the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from mpc.prg import Seed, expand_field_part

BLOCK_ROWS = 1 << 16


def count_blocks(rows: int) -> int:
    """Return how many blocks a column of so many rows has."""
    return -(-rows // BLOCK_ROWS)


def rows_of(block: int, rows: int) -> int:
    """Return how many rows one block has, of a column of `rows`; `ValueError` if the column has no such block."""
    if not 0 <= block < count_blocks(rows):
        raise ValueError(f"block {block} of a column of {rows} rows")
    return min(BLOCK_ROWS, rows - block * BLOCK_ROWS)


def expand_rows(seed: Callable[[int], Seed], rows: int, shape: tuple[int, ...], first: int, count: int) -> np.ndarray:
    """Expand one party's share of the masks of a few rows of a column, (count, *shape).

    Args:
        seed: that party's of a block of this column.
        rows: of the whole column.
        shape: of the column in one row.
    """

    def part(block: int, start: int, stop: int) -> np.ndarray:
        if stop > rows_of(block, rows):
            raise ValueError(f"row {block * BLOCK_ROWS + stop} of a column of {rows}")
        return expand_field_part(seed(block), start * prod(shape), (stop - start) * prod(shape))

    return read_rows(part, first, count).reshape(count, *shape)


def read_rows(read: Callable[[int, int, int], np.ndarray], first: int, count: int) -> np.ndarray:
    """Return rows `first` to `first + count` of a column, `read` of (block, its first row, the row behind its last)."""
    last = first + count
    parts = []
    for block in range(first // BLOCK_ROWS, (last - 1) // BLOCK_ROWS + 1):
        start = block * BLOCK_ROWS
        parts.append(read(block, max(0, first - start), min(BLOCK_ROWS, last - start)))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def join_columns(columns: Sequence[np.ndarray], sizes: tuple[int, ...]) -> np.ndarray:
    """Lay columns of equally many rows side by side, as a wire of these sizes; `ValueError` if they do not fill it."""
    rows = len(columns[0])
    beside = [column.reshape(rows, -1) for column in columns]
    joined = beside[0] if len(beside) == 1 else np.concatenate(beside, axis=1)
    return np.ascontiguousarray(joined.reshape(sizes))
