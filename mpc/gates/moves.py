"""Moving elements about: free, as every public linear map is (linear.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from mpc.gates.base import Gate, Name
from mpc.gates.linear import Arithmetic, LinearMap
from mpc.wires import BATCH, Wires

_WORD, _PAIR = 8, np.dtype(np.complex128)  # of which numpy copies all bits as they are
Axis = Annotated[int, Field(ge=0, le=32)]


class Reshape(LinearMap):
    """out has x's elements, its axes first put in the order `axes` if given.

    Shapes: x: S, out: any of as many elements      Scale: unchanged
    """

    kind: ClassVar[str] = "reshape"
    x: Name
    axes: tuple[Axis, ...] | None = None

    def check(self, wires: Wires) -> None:
        super().check(wires)
        x, out = wires[self.x], wires[self.out]
        if self.axes is not None and sorted(self.axes) != list(range(len(x.shape))):
            raise self.refuse("the axes are not a permutation of the input's")
        if _elements(x.shape) != _elements(out.shape):
            raise self.refuse(f"{x.shape} does not reshape to {out.shape}")
        _require_same(self, wires, self.x)

    def apply(self, values: Sequence[np.ndarray], shape: tuple[int, ...], over: Arithmetic) -> np.ndarray:
        (x,) = values
        return (np.ascontiguousarray(x) if self.axes is None else _in_order(x, self.axes)).reshape(shape)


class Concat(LinearMap):
    """out = xs, one after another along `axis`.

    Shapes: equal but for that axis                 Scale: one for all
    """

    kind: ClassVar[str] = "concat"
    operands: ClassVar[tuple[str, ...]] = ("xs",)
    xs: tuple[Name, ...] = Field(min_length=1, max_length=1024)
    axis: Axis

    def check(self, wires: Wires) -> None:
        super().check(wires)
        shape, sizes = wires[self.out].shape, dict[str, int]()
        if self.axis >= len(shape):
            raise self.refuse(f"{shape} has no axis {self.axis}")
        for name in dict.fromkeys(self.xs):
            _require_same(self, wires, name, bound=False)
            own = wires[name].shape
            rest = own[: self.axis] + own[self.axis + 1 :]
            if len(own) != len(shape) or rest != shape[: self.axis] + shape[self.axis + 1 :]:
                raise self.refuse("the operands do not join to the output's shape")
            if own[self.axis] == BATCH:
                raise self.refuse("the operands do not join to the output's shape")
            sizes[name] = int(own[self.axis])
        if sum(map(sizes.__getitem__, self.xs)) != shape[self.axis]:
            raise self.refuse("the operands do not join to the output's shape")

    def apply(self, values: Sequence[np.ndarray], shape: tuple[int, ...], over: Arithmetic) -> np.ndarray:
        return np.concatenate(values, axis=self.axis)


class Take(LinearMap):
    """out[.., i, ..] = x[.., indices[i], ..] along `axis`, or 0 where the index is -1.

    Slices, paddings, repetitions and windows are all of this kind.

    Shapes: equal but for that axis                 Scale: unchanged
    """

    kind: ClassVar[str] = "take"
    x: Name
    axis: Axis
    indices: tuple[Annotated[int, Field(ge=-1, lt=1 << 26)], ...] = Field(min_length=1, max_length=1 << 20)

    def check(self, wires: Wires) -> None:
        super().check(wires)
        x, out = wires[self.x].shape, wires[self.out].shape
        size = x[self.axis] if self.axis < len(x) else None
        if not isinstance(size, int) or max(self.indices) >= size:
            raise self.refuse(f"the indices do not fit axis {self.axis} of {x}")
        if out != (*x[: self.axis], len(self.indices), *x[self.axis + 1 :]):
            raise self.refuse(f"the output has shape {out}")
        _require_same(self, wires, self.x)

    def apply(self, values: Sequence[np.ndarray], shape: tuple[int, ...], over: Arithmetic) -> np.ndarray:
        indices = np.array(self.indices)
        taken = values[0].take(indices, axis=self.axis)
        if (indices < 0).any():
            taken[(slice(None),) * self.axis + (indices < 0,)] = 0
        return taken


def _in_order(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Return a copy with the axes in another order.  Where the last one stays and is even, two elements are copied as
    one: of the windows of a pooling there are two in a row, and numpy takes as long for each row as for three elements.
    """
    last = x.ndim - 1
    if axes and axes[-1] == last and x.shape[last] % 2 == 0 and x.itemsize == _WORD and x.flags.c_contiguous:
        return np.ascontiguousarray(x.view(_PAIR).transpose(axes)).view(x.dtype)
    return np.ascontiguousarray(x.transpose(axes))


def _require_same(gate: Gate, wires: Wires, name: str, bound: bool = True) -> None:
    (out,) = gate.writes
    x, moved = wires[name], wires[out]
    if x.scale != moved.scale or x.bits > moved.bits or (bound and x.bits != moved.bits):
        raise gate.refuse("the output differs from the input in more than its shape")


def _elements(shape: tuple[object, ...]) -> tuple[int, int]:
    """(batch dimensions, product of the others)."""
    total = 1
    for size in shape:
        total *= size if isinstance(size, int) else 1
    return sum(size == BATCH for size in shape), total
