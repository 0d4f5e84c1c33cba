"""Public linear maps: free, since a mask moves with its wire.

If x^ = x + a then L(x)^ = L(x^) has the mask L(a): every reading of these gates applies the
same map, once to integers, once to masks, once to public values and shares.  No round, no
byte.  The mask is inherited, and known to the parties if all masks it is made of are.  Of wires
that are not opened the same map is applied to shares of x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from mpc import field as fp
from mpc.gates.base import Evaluation, Gate, Name
from mpc.gates.readings import ClearReading, DealReading, PartyReading
from mpc.shares import Share
from mpc.wires import Masking, Wires, broadcast

MAX_FACTOR = 1 << 58
Factor = Annotated[int, Field(gt=-MAX_FACTOR, lt=MAX_FACTOR)]


@dataclass(frozen=True)
class Arithmetic:
    """The operations that a linear map needs, over Z or over F_p."""

    add: Callable[[np.ndarray, np.ndarray], np.ndarray]
    scale: Callable[[np.ndarray, int], np.ndarray]
    weigh: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """Elementwise, by public int64 that broadcast."""
    total: Callable[[np.ndarray], np.ndarray]
    """The sum over the first axis."""


INTEGERS = Arithmetic(np.add, lambda a, k: a * np.int64(k), np.multiply, lambda a: a.sum(axis=0))
FIELD = Arithmetic(fp.add, fp.scale, lambda a, k: fp.mul(a, fp.from_signed(k)), fp.total)


class LinearMap(Gate):
    """Base of the free gates; a subclass says what it `apply`s."""

    out: Name

    def apply(self, values: Sequence[np.ndarray], shape: tuple[int, ...], over: Arithmetic) -> np.ndarray:
        """Return the map, of the values of `reads`, to an array of the output's shape."""
        raise NotImplementedError

    @property
    def offset(self) -> int:
        """A public constant that is added to the map; no mask knows of it."""
        return 0

    def is_linear(self, wires: Wires) -> bool:
        return True

    def check(self, wires: Wires) -> None:
        if wires[self.out].masking is not self.inherited(wires) or wires[self.out].held:
            raise self.refuse("the output's mask is inherited, and nobody's")

    def reference(self, run: ClearReading) -> None:
        values = [run.value(name) for name in self.reads]
        run.set(self.out, self.apply(values, run.shape(self.out), INTEGERS) + np.int64(self.offset))

    def deal(self, run: DealReading) -> None:
        if self._is_unopened(run.wires):
            return
        masks = [run.mask(name) for name in self.reads]
        run.derive_mask(self.out, self.apply(masks, run.shape(self.out), FIELD))

    def prepare(self, run: PartyReading) -> None:
        if not self._is_unopened(run.wires) and all(run.has_mask(name) for name in self.reads):
            shares = [run.mask_share(name).values for name in self.reads]
            run.set_mask(self.out, Share(self.apply(shares, run.shape(self.out), FIELD)))

    def evaluate(self, run: PartyReading, kept: None) -> Evaluation:
        if self._is_unopened(run.wires):
            shape = run.shape(self.out)
            share = Share(self.apply([run.share(name).values for name in self.reads], shape, FIELD))
            offset = np.broadcast_to(fp.from_int(self.offset), shape)
            run.set_share(self.out, share + run.lane.const(offset) if self.offset else share)
            return
        public = self.apply([run.public(name) for name in self.reads], run.shape(self.out), FIELD)
        run.set(self.out, fp.add_int(public, self.offset) if self.offset else public)
        yield from ()

    def _is_unopened(self, wires: Wires) -> bool:
        return wires[self.out].masking is Masking.UNOPENED


class Combine(LinearMap):
    """out = sum_i factors[i] xs[i] + stored + constant, each broadcast to the output.

    Shapes: xs[i], stored: broadcast to out         Scale: out = xs[i] / factors[i]'s unit, as declared
    `stored` is a weight, an addend that need not be public; `constant` is public.
    """

    kind: ClassVar[str] = "combine"
    operands: ClassVar[tuple[str, ...]] = ("xs", "stored")
    xs: tuple[Name, ...] = Field(max_length=64)
    factors: tuple[Factor, ...]
    stored: Name | None = None
    constant: Factor = 0

    @property
    def weights(self) -> tuple[str, ...]:
        return self._named(("stored",))

    @property
    def offset(self) -> int:
        return self.constant

    def check(self, wires: Wires) -> None:
        super().check(wires)
        if len(self.factors) != len(self.xs) or 0 in self.factors:
            raise self.refuse("one factor an operand, and none of them zero")
        shape = wires[self.out].shape
        if not self.reads:
            raise self.refuse("it combines nothing")
        alone = () if self.xs else (shape,)  # a stored value may be the same for every row
        if broadcast(*(wires[name].shape for name in self.reads), *alone) != shape:
            raise self.refuse(f"the operands do not broadcast to {shape}")
        if self.stored is not None and wires[self.stored].scale != wires[self.out].scale:
            raise self.refuse("the stored addend does not have the output's scale")

    def apply(self, values: Sequence[np.ndarray], shape: tuple[int, ...], over: Arithmetic) -> np.ndarray:
        factors = self.factors if self.stored is None else (*self.factors, 1)
        terms = [v if k == 1 else over.scale(v, k) for v, k in zip(values, factors, strict=True)]
        total = terms[0]
        for term in terms[1:]:
            total = over.add(total, term)
        return np.array(np.broadcast_to(total, shape))


class Weigh(LinearMap):
    """out = x with its slices along `axis` multiplied by the public `factors`, one a slice.

    Shapes: x, out: S                               Scale: any, as declared
    """

    kind: ClassVar[str] = "weigh"
    x: Name
    axis: int = Field(ge=0, le=32)
    factors: tuple[Factor, ...] = Field(min_length=1, max_length=1 << 16)

    def check(self, wires: Wires) -> None:
        super().check(wires)
        shape = wires[self.x].shape
        if wires[self.out].shape != shape or shape[self.axis : self.axis + 1] != (len(self.factors),):
            raise self.refuse(f"{len(self.factors)} factors for axis {self.axis} of {shape}")

    def apply(self, values: Sequence[np.ndarray], shape: tuple[int, ...], over: Arithmetic) -> np.ndarray:
        factors = np.array(self.factors, dtype=np.int64)
        return over.weigh(values[0], factors.reshape(-1, *[1] * (len(shape) - self.axis - 1)))


class Total(LinearMap):
    """out = the sum over some axes of x, which stay with size 1.

    Shapes: x: S, out: S with 1 for the axes        Scale: any, as declared (a mean is a sum at another scale)
    """

    kind: ClassVar[str] = "total"
    x: Name
    axes: tuple[Annotated[int, Field(ge=0, le=32)], ...] = Field(min_length=1)

    def check(self, wires: Wires) -> None:
        super().check(wires)
        x, out = wires[self.x].shape, wires[self.out].shape
        if tuple(sorted(set(self.axes))) != self.axes or self.axes[-1] >= len(x):
            raise self.refuse(f"the axes {self.axes} are not axes of {x} in order")
        if any(not isinstance(x[axis], int) for axis in self.axes):
            raise self.refuse("a sum over the batch")
        if out != tuple(1 if axis in self.axes else size for axis, size in enumerate(x)):
            raise self.refuse(f"the output has shape {out}")

    def apply(self, values: Sequence[np.ndarray], shape: tuple[int, ...], over: Arithmetic) -> np.ndarray:
        rest = [axis for axis in range(len(shape)) if axis not in self.axes]
        rows = values[0].transpose(*self.axes, *rest)
        rows = rows.reshape(-1, *(values[0].shape[axis] for axis in rest))
        return over.total(np.ascontiguousarray(rows)).reshape(shape)
