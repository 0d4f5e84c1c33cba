"""Places of scores on which no share of a softmax falls, whatever the data are, since a model's mask hides them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

FAR = 104.0
"""e to the power of minus so much is zero as float32, in which models are run elsewhere."""

APART = 2.0**-6
"""The part of what stands for hidden numbers by which others that stand for nearer ones are nearer."""
ABSORBING = -1e4
"""Beside it float32 keeps three digits behind the point, and beside numbers below it soon none."""


@dataclass(frozen=True)
class Cut:
    """Numbers of a mask that a secret chooses or multiplies, and that were brought closer to zero.

    Args:
        limit: how far apart scores may be, masks included, before some make up for what was lost.
        least: the least number that the model has.
        replaces: whether they stand in the place of scores, and are not added to them.
    """

    limit: float
    least: float
    replaces: bool = False


@dataclass(frozen=True)
class Floor:
    """The number that stands for what masks hide from maxima, less than all values beside it.

    Args:
        number: stands for the farthest of them, and is less than zero; 0 until it is known how small others are.
        fills: the sizes of the model's numbers, ascending: what stands for them has their order.
    """

    number: float = 0.0
    fills: tuple[float, ...] = ()

    @property
    def is_known(self) -> bool:
        """Tell whether it is known how small others are."""
        return self.number < 0

    def part(self, values: np.ndarray) -> np.ndarray:
        """Return the part of the number that stands for each of these."""
        count = max(1, len(self.fills))
        return 1 - APART * (count - 1 - np.searchsorted(self.fills, np.abs(values)).clip(0, count - 1)) / count


@dataclass(frozen=True, eq=False)
class Hidden:
    """Places along the last axis of a value that are as good as minus infinity.

    Args:
        where: bool, of the axes from `lead` on; along the axes before it all are alike.  A row that it hides whole has
            equal shares, as of equal scores.
        sure: which of them are minus infinity, of the same shape: nothing has to be proved of the value, which may
            hold anything there.  Elsewhere it holds a number that lies so far below all others only if the others'
            bounds show it, and this is found out later.
        below: by how much a model's scores are lower than the value, of the same shape, in the model's units: minus
            infinity where that is sure, and less than zero where a mask is cut off.
    """

    where: np.ndarray = field(repr=False)
    lead: int
    sure: np.ndarray = field(repr=False)
    below: np.ndarray = field(repr=False)

    @property
    def certain(self) -> bool:
        """Tell whether nothing at all has to be proved."""
        return bool((self.sure == self.where).all())

    def parts(self) -> tuple[Hidden, Hidden, Hidden]:
        """Return what may be hidden: all of it, what is cut off, and what is hidden whatever bounds show."""
        cut = Hidden(self.where & (self.below < 0), self.lead, self.sure, self.below)
        return self, cut, Hidden(self.sure, self.lead, self.sure, self.below)

    @cached_property
    def kept(self) -> np.ndarray:
        """The rows' places that are not hidden: shape (rows, places of a row), bool."""
        return ~self.where.reshape(-1, self.where.shape[-1])

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """How many places are kept, of each row that is not hidden whole."""
        counts = self.kept.sum(axis=-1)
        return tuple(counts[counts > 0].tolist())

    @cached_property
    def empty(self) -> np.ndarray:
        """Tell whether each row is hidden whole: shape (rows,), bool."""
        return ~np.asarray(self.kept.any(axis=-1))

    @property
    def most(self) -> int:
        """The largest number of shares that a row has."""
        return max(self.where.shape[-1] if self.empty.any() else 1, *self.lengths)

    def rows_empty(self) -> np.ndarray:
        """Tell whether each row is hidden whole, as a mask that broadcasts to the value."""
        return self.empty.reshape(*self.where.shape[:-1], 1)

    def without(self, x: np.ndarray) -> np.ndarray:
        """Return scores as the model has them, and zeros in rows that are hidden whole."""
        return np.where(self.rows_empty(), 0.0, x + self.below)

    def shared(self, powers: np.ndarray) -> np.ndarray:
        """Return powers with zeros where scores are minus infinity, and ones in rows that are hidden whole."""
        return np.where(self.rows_empty(), 1.0, np.where(self.sure, 0.0, powers))
