"""Nodes of a graph as they are written: fresh names, shapes that fit, and a refusal of what does not.

A refusal is in the name of the model's node that is being imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import prod

import numpy as np

from mpc.compiler.graph.attributes import Attributes, Constant, Total, Weighted
from mpc.compiler.graph.graph import MOVES, Node, Origin, Shape
from mpc.compiler.graph.notes import Notes
from mpc.wires import BATCH, Dimension, broadcast

FIX_BATCH = "fix the batch size: --shape INPUT=1,..., in Python shapes={...}, or export the model with it"
EXPORT_TRAINED = (
    "export the model for inference (in torch model.eval() before torch.onnx.export), and without that output"
)
MAX_ELEMENTS = 1 << 26
MAX_INDICES = 1 << 20
INTEGERS = {
    f"{sign}int{bits}": (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for bits in (8, 16, 32, 64)
    for sign in ("", "u")
}
"""The least and the largest number of each integer type."""
_NONE = Attributes()
_KEEP_INTEGERS = MOVES | {"relu", "maximum", "multiply", "total", "round", "fit", "rows_sum", "scatter"}


class Writer:
    """The nodes of a graph so far, and what is known of every value.

    Args:
        shapes: of every value that depends on an input.
        integral: those that hold integers.
        origin: the node of the model that is being imported.
        told: the parties may be told its constants.
        notes: what the model's owner should know of its operators.
        alone: values of which the largest of one is asked, which is nothing to be found.
    """

    def __init__(self) -> None:
        self.shapes: dict[str, Shape] = {}
        self.integral: set[str] = set()
        self.nodes: list[Node] = []
        self.origin = Origin("", "")
        self.told = False
        self.notes = Notes()
        self.alone: set[str] = set()
        self._fresh = 0
        self._reserved: set[str] = set()

    def reserve(self, names: Iterable[str]) -> None:
        """Keep names that the model has: `fresh` gives none of them."""
        self._reserved.update(names)

    def note(self, text: str) -> None:
        """Note something that the model's owner should know about the node that is being imported."""
        self.notes.of(self.origin, text)

    def fresh(self) -> str:
        """Return a name that no value has, whatever the model calls its values and nodes."""
        while True:
            self._fresh += 1
            name = f"{self.origin.node}/{self._fresh}"
            if name not in self._reserved:
                return name

    def emit(
        self, op: str, reads: tuple[str, ...], writes: str | None, shape: Shape, attributes: Attributes = _NONE
    ) -> str:
        """Add a node; returns the name it writes."""
        if prod(d for d in shape if isinstance(d, int)) > MAX_ELEMENTS:
            raise self.origin.refuse(
                f"its result of shape {shape} is too large",
                remedy=(
                    f"split it: {MAX_ELEMENTS:,} elements a row are possible; export the model for "
                    "smaller inputs, or with fewer channels or features"
                ),
            )
        if any(size == 0 for size in shape):
            raise self.origin.refuse(
                f"its result of shape {shape} is empty",
                remedy=(
                    "leave it out of the model, or choose sizes, a slice or a kernel that leave one element or more"
                ),
            )
        if writes is None:
            writes = self.fresh()
        self.shapes[writes] = shape
        divided = isinstance(attributes, Total) and attributes.divisor != 1
        if op in _KEEP_INTEGERS and not divided and self.integral.issuperset(reads):
            self.integral.add(writes)
        if self.told and isinstance(attributes, Weighted | Constant):
            attributes = replace(attributes, public=True)
        self.nodes.append(Node(op, reads, writes, shape, self.origin, attributes))
        return writes

    def joint(self, *names: str) -> Shape:
        """Return the shape that these values broadcast to."""
        shapes = [self.shapes[name] for name in names]
        shape = broadcast(*shapes)
        if shape is None:
            raise self.origin.refuse(
                f"its operands' shapes {', '.join(map(str, shapes))} do not broadcast",
                remedy=(
                    "give its operands shapes whose sizes are equal or 1 (Unsqueeze, Reshape or "
                    "Transpose before it); where an input leaves a size open, --shape NAME=SIZES fixes "
                    "it"
                ),
            )
        return shape

    def axis(self, axis: int, shape: Shape) -> int:
        """Return an axis counted from the front; a refusal if there is no such axis."""
        if not -len(shape) <= axis < len(shape):
            raise self.origin.refuse(
                f"axis {axis} of a value of shape {shape}",
                attribute="axis",
                remedy=f"give an axis from {-len(shape)} to {len(shape) - 1}"
                if shape
                else "leave it out: a scalar has no axes",
            )
        return axis % len(shape)

    def size(self, shape: Shape, axis: int, what: str) -> int:
        """Return the size of an axis that must not be the batch."""
        size = shape[axis]
        if not isinstance(size, int):
            raise self.origin.refuse(
                f"{what} along the batch, whose rows are independent here",
                remedy=FIX_BATCH,
            )
        return size

    def merged(self, shape: Shape) -> Dimension:
        """Join several axes to one; the batch stays alone."""
        sizes = [d for d in shape if isinstance(d, int)]
        if len(sizes) == len(shape):
            return prod(sizes)
        if prod(sizes) == 1 and len(shape) - len(sizes) == 1:
            return BATCH
        raise self.origin.refuse("it joins the batch with another axis", remedy=FIX_BATCH)

    def reshapes(self, x: str, shape: Shape) -> bool:
        """Are these the same elements for every batch size, the batch's rows in their places?"""
        before = self.shapes[x]
        if before.count(BATCH) != shape.count(BATCH) or _elements(before) != _elements(shape):
            return False
        return BATCH not in shape or _elements(before[: before.index(BATCH)]) == _elements(shape[: shape.index(BATCH)])

    def require_finite(self, *arrays: np.ndarray | None) -> None:
        if any(array is not None and not np.isfinite(array).all() for array in arrays):
            raise self.origin.refuse(
                "a weight is infinite or not a number",
                remedy=(
                    "replace it by a finite number (in a mask, -1e4 does for minus infinity), or train "
                    "the model anew on data without NaN and infinity"
                ),
            )


def _elements(shape: Shape) -> int:
    return prod(d for d in shape if isinstance(d, int))
