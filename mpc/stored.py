"""Data at rest: columns that were masked once, x^ = x + sum_i PRG(k_i), and are read by many sessions.

A column is cut into blocks of at most `BLOCK_ROWS` rows, and each party has a seed k_i of its own for each block; so x^
and the masks of a few rows are found without those of all rows.  Blocks are full but for the last one, unless rows
were appended or taken out: no block ever changes, others stand beside it or in its place.  A wire that stands for
several columns has the elements of each of its rows in the order of the columns.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import Protocol

import numpy as np

from mpc.prg import Seed, expand_field_part
from mpc.shares import Share

BLOCK_ROWS = 1 << 16
BAND_ELEMENTS = 1 << 20
"""Elements that are read of long rows at a time, or one row, where bands of them are wanted."""


class AtRest(Protocol):
    """Rows of a stored input: x^, and this party's share of its mask; here, or read when they are asked for."""

    @property
    def public(self) -> np.ndarray:
        """x^."""

    @property
    def mask(self) -> Share | None:
        """This party's share of the mask."""

    @property
    def agreed(self) -> bytes | memoryview:
        """Bytes of x^, or a digest of them: parties compare it before they compute with x^."""


@dataclass(frozen=True)
class Layout:
    """Which rows of a column lie in which block.

    Args:
        rows: of the column.
        lengths: rows of each block; none: 65,536 each, and in the last one what is left.
    """

    rows: int
    lengths: tuple[int, ...] = ()

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *accumulate(self.lengths)]

    @property
    def count(self) -> int:
        """Blocks of the column."""
        return len(self.lengths) or -(-self.rows // BLOCK_ROWS)

    def rows_of(self, block: int) -> int:
        """Return how many rows one block has; `ValueError` if there is no such block."""
        if not 0 <= block < self.count:
            raise ValueError(f"block {block} of a column of {self.count} blocks")
        return self.lengths[block] if self.lengths else min(BLOCK_ROWS, self.rows - block * BLOCK_ROWS)

    def start(self, block: int) -> int:
        """Return the number of a block's first row."""
        return self._starts[block] if self.lengths else block * BLOCK_ROWS

    def block_at(self, row: int) -> int:
        """Return the block that a row lies in; `ValueError` if there is no such row."""
        if not 0 <= row < self.rows:
            raise ValueError(f"row {row} of a column of {self.rows}")
        return bisect_right(self._starts, row) - 1 if self.lengths else row // BLOCK_ROWS

    def blocks(self, first: int, count: int) -> range:
        """Return the numbers of the blocks that rows `first` to `first + count` lie in; `ValueError` if beyond."""
        return range(self.block_at(first), self.block_at(first + count - 1) + 1)


def expand_rows(
    seed: Callable[[int], Seed], layout: Layout, shape: tuple[int, ...], first: int, count: int
) -> np.ndarray:
    """Expand one party's share of the masks of a few rows of a column, (count, *shape).

    Args:
        seed: that party's of a block of this column.
        shape: of the column in one row.

    Raises:
        ValueError: there are no such rows.
    """

    def part(block: int, start: int, stop: int) -> np.ndarray:
        return expand_field_part(seed(block), start * prod(shape), (stop - start) * prod(shape))

    return read_rows(part, layout, first, count).reshape(count, *shape)


def expand_band(seed: Seed, elements: int, band: range, rows: range) -> np.ndarray:
    """Expand one party's share of the masks of a band of some rows of a block, (rows, elements of the band).

    Args:
        seed: that party's of the block.
        elements: of a row.
    """
    parts = [expand_field_part(seed, row * elements + band.start, len(band)) for row in rows]
    return np.stack(parts)


def stretches(layout: Layout, rows: np.ndarray, most: int) -> Iterator[tuple[slice, int, range]]:
    """Yield rows in their order, some neighbours of one block at a time: (their places, the block, its rows).

    Args:
        most: of rows at a time.
    """
    place = 0
    while place < len(rows):
        block, last = layout.block_at(int(rows[place])), place + 1
        end = layout.start(block) + layout.rows_of(block)
        while last - place < most and last < len(rows) and rows[last - 1] + 1 == rows[last] < end:
            last += 1
        first = int(rows[place]) - layout.start(block)
        yield slice(place, last), block, range(first, first + last - place)
        place = last


def read_rows(read: Callable[[int, int, int], np.ndarray], layout: Layout, first: int, count: int) -> np.ndarray:
    """Return rows `first` to `first + count` of a column, `read` of (block, its first row, the row behind its last).

    Raises:
        ValueError: there are no such rows.
    """
    last = first + count
    parts = []
    for block in layout.blocks(first, count):
        start = layout.start(block)
        parts.append(read(block, max(0, first - start), min(layout.rows_of(block), last - start)))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def join_columns(columns: Sequence[np.ndarray], sizes: tuple[int, ...]) -> np.ndarray:
    """Lay columns of equally many rows side by side, as a wire of these sizes; `ValueError` if they do not fill it."""
    rows = len(columns[0])
    beside = [column.reshape(rows, -1) for column in columns]
    joined = beside[0] if len(beside) == 1 else np.concatenate(beside, axis=1)
    return np.ascontiguousarray(joined.reshape(sizes))


def gather(read: Callable[[int, int], np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Return rows in any order, each once; `read` of (first row, how many) is asked for each stretch of neighbours."""
    order = np.argsort(rows, kind="stable")
    stretches = np.split(rows[order], np.flatnonzero(np.diff(rows[order]) != 1) + 1)
    found = [read(int(stretch[0]), len(stretch)) for stretch in stretches]
    if len(found) == 1 and (np.diff(order) == 1).all():
        return found[0]
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return np.concatenate(found)[back]
