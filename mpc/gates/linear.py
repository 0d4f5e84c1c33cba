"""Public linear maps: free, since a mask moves with its wire.

If x^ = x + a then L(x)^ = L(x^) has the mask L(a): every reading of these gates applies the
same map, once to integers, once to masks, once to public values and shares.  No round, no
byte.  The mask is inherited, and known to the parties if all masks it is made of are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field

from mpc import field as fp
from mpc.errors import PlanError
from mpc.gates.base import Evaluation, Gate, Name, Wires
from mpc.shares import Share
from mpc.wires import BATCH, Masking, Wire

if TYPE_CHECKING:
    from mpc.interpret.dealer import Dealer
    from mpc.interpret.party import Party
    from mpc.interpret.reference import Reference


@dataclass(frozen=True)
class Arithmetic:
    """The three operations that a linear map needs, over Z or over F_p."""

    add: Callable[[np.ndarray, np.ndarray], np.ndarray]
    scale: Callable[[np.ndarray, int], np.ndarray]
    total: Callable[[np.ndarray], np.ndarray]
    """The sum over the first axis."""


INTEGERS = Arithmetic(np.add, lambda a, k: a * np.int64(k), lambda a: a.sum(axis=0))
FIELD = Arithmetic(fp.add, fp.scale, fp.total)


class LinearMap(Gate):
    """Base of the free gates; a subclass says what it `apply`s."""

    out: Name

    def apply(self, values: Sequence[np.ndarray], shape: tuple[int, ...], over: Arithmetic) -> np.ndarray:
        """The map, of the values of `reads`, to an array of the output's shape."""
        raise NotImplementedError

    def check(self, wires: Wires) -> None:
        if wires[self.out].masking is not Masking.INHERITED or wires[self.out].holders:
            raise self.refuse("the output's mask is inherited, and nobody's")

    def reference(self, run: Reference) -> None:
        values = [run.value(name) for name in self.reads]
        run.set(self.out, self.apply(values, run.shape(self.out), INTEGERS))

    def deal(self, run: Dealer) -> None:
        masks = [run.mask(name) for name in self.reads]
        run.derive_mask(self.out, self.apply(masks, run.shape(self.out), FIELD))

    def prepare(self, run: Party) -> None:
        if all(run.has_mask(name) for name in self.reads):
            shares = [run.mask_share(name).values for name in self.reads]
            run.set_mask(self.out, Share(self.apply(shares, run.shape(self.out), FIELD)))

    def evaluate(self, run: Party) -> Evaluation:
        public = [run.public(name) for name in self.reads]
        run.set(self.out, self.apply(public, run.shape(self.out), FIELD))
        yield from ()


class Reshape(LinearMap):
    """out has x's elements, its axes first put in the order `axes` if given.

    Shapes: x: S, out: any of as many elements      Scale: unchanged
    """

    kind: ClassVar[str] = "reshape"
    x: Name
    axes: tuple[Annotated[int, Field(ge=0, le=32)], ...] | None = None

    def check(self, wires: Wires) -> None:
        super().check(wires)
        x, out = wires[self.x], wires[self.out]
        if self.axes is not None and sorted(self.axes) != list(range(len(x.shape))):
            raise self.refuse("the axes are not a permutation of the input's")
        if _elements(x.shape) != _elements(out.shape):
            raise self.refuse(f"{x.shape} does not reshape to {out.shape}")
        if (x.scale, x.bits) != (out.scale, out.bits):
            raise self.refuse("the output differs from the input in more than its shape")

    def apply(self, values: Sequence[np.ndarray], shape: tuple[int, ...], over: Arithmetic) -> np.ndarray:
        (x,) = values
        return np.ascontiguousarray(x if self.axes is None else x.transpose(self.axes)).reshape(shape)


class Combine(LinearMap):
    """out = sum_i factors[i] xs[i], each broadcast along its last axis.

    Shapes: xs[i]: S or (..., 1), out: S            Scale: out = xs[i] / factors[i]'s unit, as declared
    """

    kind: ClassVar[str] = "combine"
    operands: ClassVar[tuple[str, ...]] = ("xs",)
    xs: tuple[Name, ...] = Field(min_length=1, max_length=64)
    factors: tuple[Annotated[int, Field(gt=-(1 << 58), lt=1 << 58)], ...]

    def check(self, wires: Wires) -> None:
        super().check(wires)
        if len(self.factors) != len(self.xs) or 0 in self.factors:
            raise self.refuse("one factor an operand, and none of them zero")
        shape = wires[self.out].shape
        for name in self.xs:
            if wires[name].shape != shape and (not shape or wires[name].shape != (*shape[:-1], 1)):
                raise self.refuse(f"{wires[name].shape} does not broadcast to {shape}")

    def apply(self, values: Sequence[np.ndarray], shape: tuple[int, ...], over: Arithmetic) -> np.ndarray:
        terms = [over.scale(value, factor) for value, factor in zip(values, self.factors, strict=True)]
        total = np.ascontiguousarray(np.broadcast_to(terms[0], shape))
        for term in terms[1:]:
            total = over.add(total, term)
        return total


class Total(LinearMap):
    """out = the sum over x's last axis, which stays with size 1.

    Shapes: x: (..., n), out: (..., 1)              Scale: unchanged
    """

    kind: ClassVar[str] = "total"
    x: Name

    def check(self, wires: Wires) -> None:
        super().check(wires)
        x, out = wires[self.x], wires[self.out]
        if not x.shape or out.shape != (*x.shape[:-1], 1) or x.scale != out.scale:
            raise self.refuse("the output is not the input's last axis, summed")

    def apply(self, values: Sequence[np.ndarray], shape: tuple[int, ...], over: Arithmetic) -> np.ndarray:
        return over.total(np.ascontiguousarray(np.moveaxis(values[0], -1, 0))).reshape(shape)


class Concat(LinearMap):
    """out = xs, one after another along the last axis.

    Shapes: xs[i]: (..., n_i), out: (..., sum n_i)  Scale: one for all
    """

    kind: ClassVar[str] = "concat"
    operands: ClassVar[tuple[str, ...]] = ("xs",)
    xs: tuple[Name, ...] = Field(min_length=1, max_length=256)

    def check(self, wires: Wires) -> None:
        super().check(wires)
        out = wires[self.out]
        columns = [_columns(wires[name]) for name in self.xs]
        if any(wires[name].scale != out.scale or wires[name].bits > out.bits for name in self.xs):
            raise self.refuse("the operands' scales differ, or a bound exceeds the output's")
        if any((*wires[name].shape[:-1], sum(columns)) != out.shape for name in self.xs):
            raise self.refuse("the operands do not join to the output's shape")

    def apply(self, values: Sequence[np.ndarray], shape: tuple[int, ...], over: Arithmetic) -> np.ndarray:
        return np.concatenate(values, axis=-1)


def _columns(wire: Wire) -> int:
    if not wire.shape or not isinstance(wire.shape[-1], int):
        raise PlanError(f"wire {wire.name} has no last axis of fixed size")
    return wire.shape[-1]


def _elements(shape: tuple[object, ...]) -> tuple[int, int]:
    """(batch dimensions, product of the others)."""
    total = 1
    for size in shape:
        total *= size if isinstance(size, int) else 1
    return sum(size == BATCH for size in shape), total
