"""Sizes as shape vectors hold them while a model is imported: numbers, or multiples of the open batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from mpc.compiler.graph.graph import Shape
from mpc.wires import BATCH, Dimension


@dataclass(frozen=True)
class Rows:
    """The size of an axis that has `times` elements for each row of the batch."""

    times: int = 1

    def __repr__(self) -> str:
        return BATCH if self.times == 1 else f"{self.times}*{BATCH}"


Size = int | Rows


@dataclass(frozen=True)
class Joined:
    """How a model sees a value: the axis `first` and the `more` behind it are one.  The batch is among them."""

    first: int
    more: int

    def places(self, rank: int) -> list[list[int]]:
        """List, for each axis that the model sees, the axes that it stands for."""
        last = self.first + self.more
        axes = [[axis] for axis in range(rank)]
        return [*axes[: self.first], list(range(self.first, last + 1)), *axes[last + 1 :]]


def times(sizes: Sequence[Size]) -> Size:
    """Multiply sizes; at most one of them is a multiple of the batch."""
    number = prod(map(many, sizes))
    return Rows(number) if any(isinstance(size, Rows) for size in sizes) else number


def many(size: Size) -> int:
    """Return how many elements for each row of the batch, or just the number."""
    return size.times if isinstance(size, Rows) else size


def size_of(dimension: Dimension) -> Size:
    """Return a dimension of a shape as a shape vector has it."""
    return dimension if isinstance(dimension, int) else Rows()


def sizes_of(shape: Shape) -> tuple[Size, ...]:
    """Return a shape as a vector."""
    return tuple(map(size_of, shape))
