"""Building a graph: one method an operator, which knows the shape of its result.

Importers of models write with it.  Whatever does not fit is refused in the name of the node
that is being imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from mpc.compiler.graph.attributes import (
    Affine,
    Array,
    Attributes,
    Chosen,
    Concat,
    Constant,
    Ends,
    Filters,
    Function,
    Link,
    Maximum,
    RowsSum,
    Scatter,
    Select,
    Sliding,
    Step,
    Sum,
    Take,
    Total,
    Transpose,
    Weighted,
    Whole,
)
from mpc.compiler.graph.graph import Shape
from mpc.compiler.graph.hidden import Hidden
from mpc.compiler.graph.writer import FIX_BATCH, MAX_INDICES, Writer
from mpc.windows import Windows
from mpc.wires import BATCH, broadcast

MOST_TERMS = 64
"""Operands of one gate that adds up."""
_MOST_JOINED = 1024
_ALL_PAIRS = (
    "export it with a fixed batch (without dynamic_axes, dynamic_shapes), or give each input its rows: --shape "
    "INPUT=2,..., in Python shapes={...}; rows that are entered together then meet, as images and texts do in CLIP"
)


class Emitter(Writer):
    """Writes one operator a method, which knows the shape of its result."""

    # -- arithmetic

    def sum(
        self,
        reads: Sequence[str],
        factors: Sequence[float],
        out: str | None = None,
        constant: float = 0.0,
        known: Ends | None = None,
        fills: Array | None = None,
    ) -> str:
        """Add factors[i] reads[i] and a constant, all public but what is read.  Of very many, make a sum of sums."""
        if len(reads) > MOST_TERMS:
            parts = range(0, len(reads), MOST_TERMS)
            sums = [self.sum(reads[i : i + MOST_TERMS], factors[i : i + MOST_TERMS]) for i in parts]
            return self.sum(sums, [1.0] * len(sums), out, constant, known, fills)
        taken = Sum(factors=tuple(factors), constant=constant, fills=fills, known=known)
        name = self.emit("sum", tuple(reads), out, self.joint(*reads), taken)
        if self.integral.issuperset(reads) and all(float(f).is_integer() for f in (*factors, constant)):
            self.integral.add(name)
        return name

    def scale(self, x: str, weight: np.ndarray | float, bias: np.ndarray | float = 0.0, out: str | None = None) -> str:
        """Return x weight + bias, elementwise, with secret constants that broadcast; an array is a bias even if it is
        0.
        """
        added = isinstance(bias, np.ndarray) or bias != 0.0
        weight, bias = np.asarray(weight, dtype=np.float64), np.asarray(bias, dtype=np.float64)
        self.require_finite(weight, bias)
        shape = broadcast(self.shapes[x], weight.shape, bias.shape)
        if shape is None:
            raise self.origin.refuse(
                f"constants of shapes {weight.shape}, {bias.shape} beside {self.shapes[x]}",
                remedy="give the constants shapes that broadcast to the value's: sizes that are equal or 1",
            )
        if shape.count(BATCH) != self.shapes[x].count(BATCH):
            raise self.origin.refuse("a constant that differs from row to row of the batch", remedy=FIX_BATCH)
        if weight.any():
            name = self.emit("scale", (x,), out, shape, Weighted(weight=weight, bias=bias if added else None))
        else:
            name = self.emit("constant", (), out, shape, Constant(weight=bias))
        if (x in self.integral or not weight.any()) and not np.any(weight % 1) and not np.any(bias % 1):
            self.integral.add(name)
        return name

    def multiply(self, x: str, y: str, out: str | None = None, known: Ends | None = None) -> str:
        return self.emit("multiply", (x, y), out, self.joint(x, y), Attributes(known=known))

    def matmul(self, x: str, y: str, out: str | None = None) -> str:
        """Multiply two secrets, with numpy's rules for stacks; both have two axes at least."""
        left, right = self.shapes[x], self.shapes[y]
        return self.emit("matmul", (x, y), out, self._product(left, right))

    def choose(self, hot: str, rows: str, out: str | None = None) -> str:
        """Return the rows (.., n, r) that zeros with at most a one (.., m, n) choose, zeros where there is no one."""
        shape = self._product(self.shapes[hot], self.shapes[rows])
        name = self.emit("matmul", (hot, rows), out, shape, Chosen())
        if rows in self.integral:
            self.integral.add(name)
        return name

    def affine(
        self,
        x: str,
        weight: np.ndarray,
        bias: np.ndarray | None = None,
        out: str | None = None,
        known: Ends | None = None,
        signs: bool = False,
        marks: int = 0,
    ) -> str:
        """Return x weight + bias, a secret weight; signs and marks are as in `Affine`."""
        self.require_finite(weight, bias)
        shape = self.shapes[x]
        product = self._product(shape, weight.shape)
        if bias is not None and broadcast(product, bias.shape) != product:
            raise self.origin.refuse(
                f"a bias of shape {bias.shape} does not broadcast to {product}",
                remedy="give it one entry a column of the product, or one for all",
            )
        taken = Affine(weight=weight, bias=bias, signs=signs, marks=marks, known=known)
        return self.emit("matmul", (x,), out, product, taken)

    def _product(self, left: Shape, right: Shape) -> Shape:
        stacked = broadcast(left[:-2], right[:-2])
        if len(right) < 2 or not left or left[-1] != right[-2] or stacked is None:
            raise self.origin.refuse(
                f"shapes {left} and {right} do not multiply",
                remedy=(
                    "put a Transpose or a Reshape before it: the last size of the left has to be the "
                    "last but one of the right, as numpy.matmul has it"
                ),
            )
        if left[-1] == BATCH or right[-1] == BATCH:
            raise self.origin.refuse("a product of each row of the batch with all others", remedy=_ALL_PAIRS)
        if len(left) == 1:
            return right[-1:]
        return (*stacked, left[-2], right[-1])

    def convolve(
        self, x: str, weight: np.ndarray, bias: np.ndarray | None, windows: Windows, out: str | None = None
    ) -> str:
        """Convolve with secret filters (o, c / groups, *kernel)."""
        self.require_finite(weight, bias)
        shape = self._convolved(x, weight.shape, windows)
        return self.emit("conv", (x,), out, shape, Filters(weight=weight, bias=bias, windows=windows))

    def convolve_secrets(self, x: str, filters: str, windows: Windows, out: str | None = None) -> str:
        shape = self._convolved(x, self.shapes[filters], windows)
        return self.emit("conv", (x, filters), out, shape, Sliding(windows=windows))

    def _convolved(self, x: str, filters: Shape, windows: Windows) -> Shape:
        shape = self.shapes[x]
        sizes = tuple(self.size(shape, axis, "a convolution") for axis in range(2, len(shape)))
        positions = windows.positions(sizes)
        if min(positions) < 1:
            raise self.origin.refuse(
                f"its kernel {windows.kernel} is larger than its input {shape}",
                remedy=(
                    "give a larger input (--shape NAME=SIZES, if the model leaves its size open), more "
                    "padding, or a smaller kernel"
                ),
            )
        fits = shape[1] == int(filters[1]) * windows.groups and int(filters[0]) % windows.groups == 0
        if not fits or BATCH in filters:
            raise self.origin.refuse(
                f"filters {filters} in {windows.groups} groups do not fit an input {shape}",
                remedy=(
                    f"give filters of shape (outputs, {shape[1]} / groups, *kernel), with a number of "
                    "groups that divides both"
                ),
            )
        return (shape[0], filters[0], *positions)

    def total(
        self, x: str, axes: Sequence[int], out: str | None = None, divisor: int = 1, known: Ends | None = None
    ) -> str:
        """Return the sum over axes, which stay with size 1, divided by an integer."""
        shape = self.shapes[x]
        if not axes:
            return self.reshape(x, shape, out)
        for axis in axes:
            self.size(shape, axis, "a reduction")
        kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
        return self.emit("total", (x,), out, kept, Total(axes=tuple(sorted(axes)), divisor=divisor, known=known))

    def rows_sum(self, x: str) -> str:
        """Return the sum over the rows; noise comes behind it, or it is refused."""
        return self.emit("rows_sum", (x,), None, self.shapes[x][1:], RowsSum())

    def count(self, x: str, axes: Sequence[int]) -> int:
        """Count the elements that a reduction joins."""
        return prod(self.size(self.shapes[x], axis, "a reduction") for axis in axes)

    def mean(self, x: str, axes: Sequence[int], out: str | None = None, known: Ends | None = None) -> str:
        """Return the mean over axes, which stay with size 1."""
        return self.total(x, axes, out, self.count(x, axes), known)

    # -- moves

    def reshape(self, x: str, shape: Shape, out: str | None = None) -> str:
        if not self.reshapes(x, shape):
            raise self.origin.refuse(
                f"{self.shapes[x]} does not reshape to {shape} for every batch size", remedy=FIX_BATCH
            )
        return self.emit("reshape", (x,), out, shape)

    def transpose(self, x: str, axes: Sequence[int], out: str | None = None) -> str:
        shape = self.shapes[x]
        return self.emit("transpose", (x,), out, tuple(shape[a] for a in axes), Transpose(axes=tuple(axes)))

    def take(self, x: str, axis: int, indices: Sequence[int], out: str | None = None) -> str:
        """Take slices along an axis, in this order; -1 is a slice of zeros."""
        shape = self.shapes[x]
        self.size(shape, axis, "an index")
        chosen = tuple(map(int, indices))
        if len(chosen) > MAX_INDICES:
            raise self.origin.refuse(
                f"{len(chosen)} indices along one axis; {MAX_INDICES} are possible",
                remedy=f"take at most {MAX_INDICES:,} at a time, and join the parts with Concat",
            )
        kept = (*shape[:axis], len(chosen), *shape[axis + 1 :])
        return self.emit("take", (x,), out, kept, Take(axis=axis, indices=chosen))

    def scatter(self, x: str, axis: int, indices: Sequence[int], size: int) -> str:
        """Add each slice along an axis to one of `size`, as its index says; -1 drops it: the adjoint of a take."""
        shape, places = self.shapes[x], tuple(map(int, indices))
        whole = (*shape[:axis], size, *shape[axis + 1 :])
        return self.emit("scatter", (x,), None, whole, Scatter(axis=axis, indices=places, size=size))

    def concat(self, reads: Sequence[str], axis: int, out: str | None = None) -> str:
        if len(reads) > _MOST_JOINED:
            parts = range(0, len(reads), _MOST_JOINED)
            return self.concat([self.concat(reads[i : i + _MOST_JOINED], axis) for i in parts], axis, out)
        shapes = [self.shapes[name] for name in reads]
        if len({s[:axis] + s[axis + 1 :] for s in shapes}) != 1 or len({len(s) for s in shapes}) != 1:
            raise self.origin.refuse(
                f"shapes {', '.join(map(str, shapes))} do not join along axis {axis}",
                remedy="give them sizes that differ along that axis only (Reshape, Expand or Slice before it)",
            )
        total = sum(self.size(shape, axis, "joining") for shape in shapes)
        whole = (*shapes[0][:axis], total, *shapes[0][axis + 1 :])
        return self.emit("concat", tuple(reads), out, whole, Concat(axis=axis))

    def expand(self, x: str, shape: Shape, out: str | None = None) -> str:
        """Return x repeated to a shape that it broadcasts to."""
        own = self.shapes[x]
        if broadcast(own, shape) != shape:
            raise self.origin.refuse(
                f"{own} does not expand to {shape}",
                remedy=(
                    "expand to a shape that ends in its own sizes, where a size of 1 may become any "
                    "other (Unsqueeze or Reshape before it)"
                ),
            )
        if len(own) < len(shape):
            x = self.reshape(x, (1,) * (len(shape) - len(own)) + own)
        for axis, (before, after) in enumerate(zip(self.shapes[x], shape, strict=True)):
            if before != after:
                x = self.take(x, axis, [0] * self.size(shape, axis, "repeating"))
        return self.reshape(x, shape, out)

    def last(self, x: str, axes: Sequence[int]) -> tuple[str, tuple[int, ...]]:
        """Return (x with these axes moved to the end, the permutation that moves them back)."""
        rank = len(self.shapes[x])
        order = [a for a in range(rank) if a not in axes] + list(axes)
        back = tuple(int(a) for a in np.argsort(order))
        return (x if order == list(range(rank)) else self.transpose(x, order)), back

    # -- comparisons and functions

    def relu(self, x: str, out: str | None = None) -> str:
        return self.emit("relu", (x,), out, self.shapes[x])

    def to_whole(
        self, x: str, how: str, out: str | None = None, ceiling: int | None = None, offset: Array | None = None
    ) -> str:
        """Round to whole numbers, held to 0 .. ceiling if there is one; as in `Whole`."""
        name = self.emit("whole", (x,), out, self.shapes[x], Whole(how=how, ceiling=ceiling, offset=offset))
        self.integral.add(name)
        return name

    def select(self, g: str, x: str, among: bool = False, rectify: bool = True, ceiling: float | None = None) -> str:
        """Return what of g a ReLU of x, or a maximum along its last axis, lets through; as in `Select`."""
        return self.emit("select", (g, x), None, self.shapes[x], Select(among=among, rectify=rectify, ceiling=ceiling))

    def step(self, x: str, level: float = 0.0, out: str | None = None) -> str:
        """Return [x >= level], the level public."""
        return self.reshape(self.steps(x, (level,)), self.shapes[x], out)

    def steps(self, x: str, levels: tuple[float, ...], bits: int | None = None, reach: float | None = None) -> str:
        """Compute [x >= level] for each level, on one more axis; see `Step`."""
        taken = Step(levels=levels, bits=bits, reach=reach)
        name = self.emit("step", (x,), None, (*self.shapes[x], len(levels)), taken)
        self.integral.add(name)
        return name

    def function(
        self,
        name: str,
        x: str,
        out: str | None = None,
        known: Ends | None = None,
        hidden: Hidden | None = None,
        floor: float | None = None,
        positive: bool = False,
        **parameters: float,
    ) -> str:
        """Apply a key of `functions.FUNCTIONS` with its parameters, elementwise; see `Function`."""
        taken = Function(name=name, parameters=parameters, known=known, hidden=hidden, floor=floor, positive=positive)
        return self.emit("function", (x,), out, self.shapes[x], taken)

    def link(self, name: str, x: str, fraction: int, period: float, terms: int, reach: float, wall: float) -> str:
        """Apply a function as one series over a period; see `Link`."""
        taken = Link(name=name, fraction=fraction, period=period, terms=terms, reach=reach, wall=wall)
        return self.emit("link", (x,), None, self.shapes[x], taken)

    def maximum(self, x: str, out: str | None = None, hidden: Hidden | None = None, cut: float | None = None) -> str:
        """Find the largest over the last axis, which stays with size 1, of what is not hidden; see `Maximum`."""
        shape = self.shapes[x]
        if self.size(shape, -1, "a maximum") == 1:
            self.alone.add(x)
            return self.reshape(x, shape, out)
        return self.emit("maximum", (x,), out, (*shape[:-1], 1), Maximum(hidden=hidden, cut=cut))
