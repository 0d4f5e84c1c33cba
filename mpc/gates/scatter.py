"""Scatter: slices along an axis, each added to the one that its index names; the adjoint of a take.

    out[.., j, ..] = sum over i with indices[i] = j of x[.., i, ..]

Free, as every public linear map is (linear.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from mpc.gates.base import Name
from mpc.gates.linear import Arithmetic, LinearMap
from mpc.gates.moves import Axis
from mpc.wires import Wires


class Scatter(LinearMap):
    """out = x with the slices that share an index added up, `size` of them; those of index -1 are left out.

    Shapes: equal but for that axis                 Scale: unchanged
    """

    kind: ClassVar[str] = "scatter"
    x: Name
    axis: Axis
    indices: tuple[Annotated[int, Field(ge=-1, lt=1 << 26)], ...] = Field(min_length=1, max_length=1 << 20)

    def check(self, wires: Wires) -> None:
        super().check(wires)
        x, out = wires[self.x], wires[self.out]
        if x.shape[self.axis : self.axis + 1] != (len(self.indices),):
            raise self.refuse(f"{len(self.indices)} indices for axis {self.axis} of {x.shape}")
        size = out.shape[self.axis] if len(out.shape) == len(x.shape) else None
        if not isinstance(size, int) or max(self.indices) >= size:
            raise self.refuse(f"the indices do not fit axis {self.axis} of {out.shape}")
        if out.shape != (*x.shape[: self.axis], size, *x.shape[self.axis + 1 :]):
            raise self.refuse(f"the output has shape {out.shape}")
        if x.scale != out.scale:
            raise self.refuse("the output's scale is not the input's")

    def apply(self, values: Sequence[np.ndarray], shape: tuple[int, ...], over: Arithmetic) -> np.ndarray:
        indices = np.array(self.indices)
        order = np.argsort(indices, kind="stable")
        order = order[indices[order] >= 0]
        places, sums = indices[order], np.moveaxis(values[0], self.axis, 0)[order]
        while (alike := places[1:] == places[:-1]).any():  # neighbours are added: in log2 of the most of one index
            firsts = (np.arange(len(places)) - np.searchsorted(places, places)) % 2 == 0
            pairs = np.flatnonzero(firsts[:-1] & alike)
            sums[pairs] = over.add(sums[pairs], sums[pairs + 1])
            places, sums = places[firsts], sums[firsts]
        found = np.zeros((shape[self.axis], *sums.shape[1:]), dtype=sums.dtype)
        found[places] = sums
        return np.ascontiguousarray(np.moveaxis(found, 0, self.axis))
