"""Values that differ from row to row of the open batch, public whole numbers all; see `rowwise`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mpc.compiler.graph.graph import Shape
from mpc.compiler.operators.picked import Column
from mpc.wires import BATCH


@dataclass(frozen=True)
class Rowwise:
    """fixed + step * row.

    Args:
        shape: with the batch as one of its axes.
        fixed, step: whole numbers of the `static` shape; None of what is not known.
    """

    shape: Shape
    fixed: np.ndarray | None
    step: np.ndarray | None

    @property
    def axis(self) -> int:
        """Return the axis of the batch."""
        return self.shape.index(BATCH)

    @property
    def both(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what is known; `ValueError` if nothing is."""
        if self.fixed is None or self.step is None:
            raise ValueError("nothing but its shape is known")
        return self.fixed, self.step

    def moved(self, shape: Shape, how: Callable[[np.ndarray], np.ndarray]) -> Rowwise:
        """Return the value whose numbers are moved so."""
        return Rowwise(shape, *(how(part) for part in self.both))


@dataclass(frozen=True)
class Beside(Rowwise):
    """row * rows + secret: a secret place within each row, as one among all rows' places.

    Args:
        secret: a value of this shape.
        rows: how many places each row has.
    """

    secret: str
    rows: int


@dataclass(frozen=True)
class Paired(Rowwise):
    """Indices into several axes, on a last axis, of which the first is the row.

    Args:
        columns: the others: secret values, or public numbers that are the same for every row.
    """

    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Marked(Rowwise):
    """The places that a secret mask marks, or what they choose; see `marked_places`.

    Args:
        shape: the mask's.
        stage: what was made of them so far.
        data: what they choose from.
    """

    mask: str
    stage: str
    data: str = ""

    def next(self, stage: str, data: str = "") -> Marked:
        """Return what one more node has made of them."""
        return replace(self, stage=stage, data=data or self.data)


Values = dict[str, Rowwise]
