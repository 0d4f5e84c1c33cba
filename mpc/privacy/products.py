"""Products of a pattern with bounded values, as a sum by category has them: few patterns, each with its intervals.

The value that a row is compared for is in one place among L levels, so what follows linearly from the bits alone is one
of L + 1 vectors.  Times values that are known to lie in [low, high] that is a box for each pattern, and a linear map of
a box lies in a box.  Replacing a row goes from one box to another, or stays in one:

    |change of output i| <= max(high_s(i) - low_t(i), high_t(i) - low_s(i))         for patterns s and t

One-hot bits times values of [0, W] change two outputs by W each, however many categories there are: D1 = 2 W.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpc.privacy.forms import Matrix
from mpc.privacy.intervals import Interval


@dataclass(frozen=True, eq=False)
class Products:
    """The elements of a product's wire.

    Args:
        low, high: of each element in each pattern, (patterns, elements), Python's integers.
        sources: the stored wires that it depends on, row by row.
    """

    low: np.ndarray
    high: np.ndarray
    sources: frozenset[str]

    @property
    def interval(self) -> Interval:
        """Return where all elements are."""
        return int(self.low.min()), int(self.high.max())


def patterns(matrix: Matrix, size: int, levels: int) -> np.ndarray:
    """Return the vectors that falling bits 1 .. 1 0 .. 0 give: (levels + 1, size), Python's integers.

    Args:
        matrix: from the bits of one group of levels to `size` elements.
    """
    dense = np.zeros((levels + 1, size), dtype=object)
    dense[matrix.columns + 1, matrix.rows] = matrix.values.astype(object)
    return np.cumsum(dense, axis=0)


def multiplied(patterns: np.ndarray, by: Interval, sources: frozenset[str]) -> Products:
    """Return the products of patterns, an element each, with values in an interval."""
    ends = [patterns * end for end in by]
    return Products(np.minimum(*ends), np.maximum(*ends), sources)


def moves(matrix: Matrix, atoms: Products) -> tuple[int, int, dict[int, int]]:
    """Return (D1, D2 squared, how far each output that is touched can move) of a linear map of products."""
    outputs, starts = np.unique(matrix.rows, return_index=True)  # a matrix is ordered by rows
    values = matrix.values.astype(object)
    ends = [atoms.low[:, matrix.columns] * values, atoms.high[:, matrix.columns] * values]
    low, high = (np.add.reduceat(end(*ends), starts, axis=1) for end in (np.minimum, np.maximum))
    first = second = 0
    for pattern in range(low.shape[0]):
        apart = np.maximum(high[pattern:] - low[pattern], high[pattern] - low[pattern:])
        first = max(first, int(apart.sum(axis=1).max()))
        second = max(second, int((apart * apart).sum(axis=1).max()))
    widths = high.max(axis=0) - low.min(axis=0)
    return first, second, dict(zip(outputs.tolist(), widths.tolist(), strict=True))


def work(matrix: Matrix, atoms: Products) -> int:
    """Return roughly how many numbers of whole arrays `moves` could go through in the time that it takes."""
    many = atoms.low.shape[0]
    return _SLOW * many * (matrix.values.size + many * int(np.unique(matrix.rows).size))


_SLOW = 32
"""Python's integers are so many times slower than machine words."""
