"""Ranges and bounds from samples, for inputs whose range nobody knows and for models too deep to be bounded.

Intervals grow with every layer; after a dozen of them what can be proved is often far beyond
what ever happens.  On samples the owner sees how large each value gets, and may take that, times
a margin, as its bound.  Such a bound is no proof: data unlike the samples may exceed it, and then
the answer is wrong (never visible to anybody: masks stay uniform).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil, log2

import numpy as np

from mpc.compiler.graph.evaluate import evaluate
from mpc.compiler.graph.graph import MOVES, Graph, Range, static
from mpc.wires import BATCH

MARGIN = 4.0
_BLOCK_ROWS = 32
_SMALLEST = 2.0**-10
_FAR = 16.0
"""Data that are so many times further from zero than they are wide have a range of their own."""
_UNEVEN = 10
"""Columns whose sizes differ by more than this power of two have ranges of their own."""
_MOST_COLUMNS = 4096
_BOUNDED = frozenset({"matmul", "conv", "scale", "multiply", "sum", "total"})

Feeds = Mapping[str, np.ndarray]


def ranges_around(feeds: Feeds, columns: bool = False) -> dict[str, Range]:
    """Return a power of two around the data of each input; far from zero, one or two windows of that size.

    Parties see them in the plan, and so a little of the data: its size to a factor of two, and where it lies.

    Args:
        feeds: samples of every input; what is not a number in them is left out.
        columns: one range for each column of the last axis.
    """
    return {name: _around(values, columns and values.ndim > 1) for name, values in feeds.items()}


def suited_ranges(feeds: Feeds) -> dict[str, Range]:
    """Return `ranges_around`, with one range a column for tables whose columns are very different."""
    return {name: _around(values, uneven(values)) for name, values in feeds.items()}


def uneven(values: np.ndarray) -> bool:
    """Is it a table of which some columns are far larger than others, or far from zero?"""
    if values.ndim != 2 or not 1 < values.shape[1] <= _MOST_COLUMNS:
        return False
    low, high = _extremes(values, True)
    exponents = np.log2(np.maximum(high, -low), where=(low != 0) | (high != 0), out=np.zeros(low.shape))
    return bool(_far(low, high).any() or np.ptp(exponents) > _UNEVEN)


def are_bits(values: np.ndarray) -> bool:
    """Are these whole numbers, each 0 or 1?"""
    return values.dtype.kind in "iu" and bool(np.isin(values, (0, 1)).all())


def _around(values: np.ndarray, columns: bool) -> Range:
    """-2^e : 2^e, 2^-10 at least; or multiples of a power of two that is as wide as the data; 0 : 1 of bits."""
    if are_bits(values):
        return 0.0, 1.0
    low, high = _extremes(values, columns)
    ends = np.exp2(np.ceil(np.log2(np.maximum(np.maximum(high, -low), _SMALLEST))))
    wide = np.exp2(np.ceil(np.log2(np.maximum(high - low, _SMALLEST))))
    first = np.floor(low / wide)
    last = np.maximum(np.ceil(high / wide), first + 1)
    far = _far(low, high)
    least, most = np.where(far, first * wide, -ends), np.where(far, last * wide, ends)
    if values.dtype.kind in "iu":
        least, most = (np.clip(end, np.iinfo(values.dtype).min, np.iinfo(values.dtype).max) for end in (least, most))
    if least.ndim == 0:
        return float(least), float(most)
    return tuple(least.tolist()), tuple(most.tolist())


def _extremes(values: np.ndarray, columns: bool) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest of all, or of each column; 0 where there is none."""
    rows = values.reshape(-1, values.shape[-1] if columns else 1).astype(np.float64)
    there = np.isfinite(rows)
    low = np.where(there, rows, np.inf).min(axis=0)
    high = np.where(there, rows, -np.inf).max(axis=0)
    some = there.any(axis=0)
    low, high = np.where(some, low, 0.0), np.where(some, high, 0.0)
    return (low, high) if columns else (low[0], high[0])


def _far(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Tell, for each column, whether zero is many times further away than the data are wide.

    One value alone is taken as its size.
    """
    nearest = np.where((low > 0) | (high < 0), np.minimum(np.abs(low), np.abs(high)), 0.0)
    return np.asarray((high > low) & (nearest > _FAR * (high - low)))


def bounded_by(graph: Graph, feeds: Feeds) -> Graph:
    """Return the graph whose sums and products are known to stay within `MARGIN` times what they are on the samples.

    Each of these bounds is the next power of two: the plan shows it, and should say no more of the samples than that.
    It also knows how large each value usually is, unless it is only moved: rough errors rest on that.
    """
    seen: dict[str, _Seen] = {}
    for block in _blocks(graph, feeds):
        for node, value in evaluate(graph, block):
            if node.op not in MOVES:
                seen.setdefault(node.writes, _Seen()).take(value.reshape(-1, *static(node.shape)))
    nodes = []
    for node in graph.nodes:
        if node.op not in MOVES:
            known = node.attributes.known
            if node.op in _BOUNDED:
                most = 2.0 ** ceil(log2(max(MARGIN * seen[node.writes].largest, _SMALLEST)))
                low, high = known or (-np.inf, np.inf)
                known = (max(low, -most), min(high, most))
            node = replace(node, attributes=replace(node.attributes, known=known, usual=seen[node.writes].usual))
        nodes.append(node)
    return Graph(graph.inputs, nodes, graph.outputs)


class _Seen:
    """Collects how large a value is on the samples so far, element by element of a row."""

    def __init__(self) -> None:
        self.largest = 0.0
        self._rows = 0
        self._total: np.ndarray | float = 0.0
        self._squares: np.ndarray | float = 0.0

    def take(self, values: np.ndarray) -> None:
        """Some more rows: shape (rows, *value)."""
        self.largest = max(self.largest, float(np.abs(values).max(initial=0.0)))
        self._rows += len(values)
        self._total = self._total + values.sum(axis=0)
        self._squares = self._squares + np.square(values).sum(axis=0)

    @property
    def usual(self) -> tuple[np.ndarray, np.ndarray]:
        """(mean, variance)"""
        mean = np.asarray(self._total) / self._rows
        return mean, np.maximum(np.asarray(self._squares) / self._rows - np.square(mean), 0.0)


def _blocks(graph: Graph, feeds: Feeds) -> list[dict[str, np.ndarray]]:
    """A few rows at a time, so that memory stays bounded; as many as the model takes where it fixes how many."""
    sizes = {
        given.name: _BLOCK_ROWS if given.shape[0] == BATCH else int(given.shape[0])
        for given in graph.inputs
        if given.shape
    }
    count = max((ceil(len(feeds[name]) / size) for name, size in sizes.items()), default=1)
    return [{name: _block(v, sizes.get(name), number) for name, v in feeds.items()} for number in range(count)]


def _block(values: np.ndarray, size: int | None, number: int) -> np.ndarray:
    """Rows of one block; all of what has no more rows than that."""
    return values if size is None or len(values) <= size else values[number * size : (number + 1) * size]
