"""Products that normalise: rows times one over the root of their own mean square."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mpc.compiler.graph.attributes import Function, Sum, Total
from mpc.compiler.graph.graph import Node, Shape


def normalised_over(node: Node, writers: Mapping[str, Node], shape: Shape) -> tuple[int, ...] | None:
    """Return the axes of c / sqrt(mean c^2 + epsilon), if a node multiplies c with that; None of other products.

    Args:
        writers: of all values before the node that are no inputs.
        shape: that of c.
    """
    root = writers.get(node.reads[1])
    if root is None or not _is_root(root):
        return None
    mean = writers.get(root.reads[0])
    if mean is not None and mean.op == "sum" and mean.of(Sum).factors == (1.0,):
        mean = writers.get(mean.reads[0])
    if mean is None or mean.op != "total":
        return None
    square, axes = writers.get(mean.reads[0]), mean.of(Total).axes
    if square is None or square.op != "multiply" or square.reads != (node.reads[0], node.reads[0]):
        return None
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    number = math.prod(int(shape[axis]) for axis in axes)
    return axes if mean.of(Total).divisor == number and root.shape == kept else None


def normalises(node: Node, writers: Mapping[str, Node]) -> bool:
    """Tell whether a product of two values is a square, or of rows and one over a root of theirs.

    Its operands are as large or small as rows are, so they keep the digits that the product has room for.
    """
    first, second = node.reads
    return first == second or any(name in writers and _is_root(writers[name]) for name in (first, second))


def _is_root(node: Node) -> bool:
    return node.op == "function" and node.of(Function).name == "rsqrt"
