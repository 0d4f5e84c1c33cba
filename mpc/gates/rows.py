"""Rows: the sum over the batch, the one public linear map that takes the batch axis away.

    out = sum_i x[i]          i over the rows of the run, whose number is public

Free, as every public linear map is (linear.py).  Everything else in a plan stays within a row, or says so in its
shape; so whoever looks for where rows of different people meet finds these gates (`mpc.privacy`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from mpc.gates.base import Name
from mpc.gates.linear import Arithmetic, LinearMap
from mpc.wires import BATCH, MAX_BATCH, Wires


class Rows(LinearMap):
    """out = the sum of x over the rows.

    A plan has to hold for every number of rows: `most` bounds it, the output's bits cover as many rows, and no process
    binds the plan to a larger batch.

    Shapes: x: (batch, ...), out: (...)             Scale: any, as declared (a mean is a sum at another scale)
    """

    kind: ClassVar[str] = "rows"
    x: Name
    most: int = Field(ge=1, le=MAX_BATCH)

    @property
    def most_rows(self) -> int:
        return self.most

    def check(self, wires: Wires) -> None:
        super().check(wires)
        x, out = wires[self.x], wires[self.out]
        if x.shape[:1] != (BATCH,) or BATCH in x.shape[1:]:
            raise self.refuse("its input has the batch as its first axis, and nowhere else")
        if out.shape != x.shape[1:]:
            raise self.refuse(f"the output has shape {out.shape}")
        if self.most * ((1 << x.bits) - 1) >= 1 << out.bits:
            raise self.refuse(f"{self.most} rows of {x.bits} bits do not fit {out.bits} bits")

    def apply(self, values: Sequence[np.ndarray], shape: tuple[int, ...], over: Arithmetic) -> np.ndarray:
        return np.asarray(over.total(values[0])).reshape(shape)
