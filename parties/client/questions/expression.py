"""Builds what is computed of a row, by names of numpy, as a graph of ONNX operators with numpy's types; runs nothing.

Rows are an open axis, the first one.  It occurs once in a shape, as `ROWS`, so what would pair rows with each other is
refused where it is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpc.errors import UsageError

ROWS = 1_000_003
"""Stands for the number of rows in shapes: a prime that no other axis has."""
Shape = tuple[int, ...]
REAL, WHOLE, TRUTH = np.dtype(np.float64), np.dtype(np.int64), np.dtype(np.bool_)


@dataclass(frozen=True, eq=False)
class Node:
    """A value: an operator of ONNX on others, a column, or a public array.

    Args:
        op: of ONNX; "" for a column or a public array.
        dtype: float64, int64 or bool, as numpy has it.
        shape: with `ROWS` in front if there is a value a row.
        value: of a public array.
        column: of the dataset.
        ends: of a column's range, as its owner has said.
        bits: of a truth value, the number 0 or 1 that sums take in its place: less noise hides it.
    """

    op: str
    reads: tuple[Node, ...]
    dtype: np.dtype[Any]
    shape: Shape
    attributes: Mapping[str, Any] = field(default_factory=dict)
    value: np.ndarray | None = None
    column: str | None = None
    ends: tuple[float, float] | None = None
    bits: Node | None = None

    @property
    def has_rows(self) -> bool:
        """Is there a value a row?"""
        return self.shape[:1] == (ROWS,)


def column(name: str, dtype: np.dtype[Any], shape: Shape, ends: tuple[float, float]) -> Node:
    """Return a column of numbers, whole numbers or truth values; `shape` is a row's, `ends` those of its range."""
    return Node("", (), dtype, (ROWS, *shape), column=name, ends=ends)


def public(value: Any) -> Node:
    """Return a public array as a value.

    Raises:
        UsageError: it is no array of numbers.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise UsageError(
            f"{array.dtype} among numbers of a dataset", remedy="give numbers; categories compare with their labels"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UsageError("a public number here is infinite or NaN", remedy="data has a range: leave the bound out")
    kept = array.astype(kind_of(array.dtype))
    return Node("", (), kept.dtype, array.shape, value=kept)


def kind_of(dtype: Any) -> np.dtype[Any]:
    """Return float64, int64 or bool, whichever holds a type's numbers.

    Raises:
        UsageError: none does.
    """
    kinds = {"b": TRUTH, "i": WHOLE, "u": WHOLE, "f": REAL}
    found = kinds.get(np.dtype(dtype).kind)
    if found is None:
        raise UsageError(f"no column becomes {np.dtype(dtype)}", remedy="astype(float), astype(int) or astype(bool)")
    return found


def apply(op: str, dtype: np.dtype[Any], shape: Shape, *reads: Node, **attributes: Any) -> Node:
    """Return an operator's result, whose shape the caller knows."""
    return Node(op, reads, dtype, shape, attributes)


def elementwise(op: str, dtype: np.dtype[Any], *reads: Node, **attributes: Any) -> Node:
    """Return an operator of each element."""
    return apply(op, dtype, broadcast(*(each.shape for each in reads)), *reads, **attributes)


def broadcast(*shapes: Shape) -> Shape:
    """Return the shape that these have together.

    Raises:
        UsageError: there is none, or it would pair rows.
    """
    try:
        found = np.broadcast_shapes(*shapes)
    except ValueError:
        found = None
    if found is None or found.count(ROWS) > (found[:1] == (ROWS,)):
        told = " and ".join(str(shape).replace(str(ROWS), "rows") for shape in shapes)
        raise UsageError(
            f"shapes {told} do not fit row by row",
            cause="each row is computed by itself: no row meets another, and no public array has a value a row",
            remedy="columns side by side are np.stack([a, b], axis=1); x[:, None] gives x an axis of one",
        )
    return found


def cast(x: Node, dtype: np.dtype[Any]) -> Node:
    """Return x as another type."""
    if x.dtype == dtype:
        return x
    if x.value is not None:
        return public(x.value.astype(dtype))
    if x.bits is not None:
        return cast(x.bits, dtype)
    return apply("Cast", dtype, x.shape, x)


def sized(x: Node, shape: Shape) -> Node:
    """Return x with another shape of each row.

    Raises:
        UsageError: it has another number of elements.
    """
    if np.prod(x.shape, dtype=int) != np.prod(shape, dtype=int) or (x.has_rows and shape[:1] != (ROWS,)):
        raise UsageError(f"a row of {x.shape[1:]} does not become {shape[1:]}", remedy="rows stay the first axis")
    if x.value is not None:
        return public(x.value.reshape(shape))
    target = public(np.array([-1 if size == ROWS else size for size in shape]))
    return apply("Reshape", x.dtype, shape, x, target)


def widened(x: Node, shape: Shape) -> Node:
    """Return x repeated to a shape that it broadcasts to."""
    if x.shape == shape:
        return x
    if x.value is not None and shape[:1] != (ROWS,):
        return public(np.broadcast_to(x.value, shape))
    if not x.has_rows:
        raise UsageError("a public array has no rows", remedy="compute with columns")
    ones = public(np.ones(shape[1:], dtype=x.dtype if x.dtype != TRUTH else WHOLE))
    if x.dtype == TRUTH:
        return cast(elementwise("Mul", WHOLE, cast(x, WHOLE), ones), TRUTH)
    return elementwise("Mul", x.dtype, x, ones)


def walk(*ends: Node) -> Iterator[Node]:
    """Go through all that these read, each once, what is read before what reads it."""
    seen: set[int] = set()
    todo: list[tuple[Node, bool]] = [(end, False) for end in reversed(ends)]
    while todo:
        node, done = todo.pop()
        if done:
            yield node
        elif id(node) not in seen:
            seen.add(id(node))
            todo.append((node, True))
            todo.extend((each, False) for each in reversed(node.reads))


def columns(*ends: Node) -> dict[str, Node]:
    """Return the columns that values are made of, in the order in which they are read."""
    return {node.column: node for node in walk(*ends) if node.column is not None}
