"""The law of the compiler's graph, as data: what each operator reads, its attributes, and how its shape follows.

What an attribute means stands in `attributes`.  Tests hold the graph to the law after the import and after every
pass; so a new pass, or a new operator, finds out here what it broke.  `check` is not called while a model is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from math import prod

from mpc.compiler.graph.attributes import (
    Affine,
    ArgMax,
    Attributes,
    Averaged,
    Chosen,
    Columns,
    Concat,
    Constant,
    Filters,
    Fit,
    Function,
    Held,
    Link,
    Lowest,
    Maximum,
    Noise,
    OneHot,
    Rectified,
    Round,
    RowsSum,
    Scatter,
    Select,
    Sliding,
    Step,
    Sum,
    Take,
    Total,
    Transpose,
    Weigh,
    Weighted,
    Whole,
)  # fmt: skip
from mpc.compiler.graph.entries import HOLDS
from mpc.compiler.graph.graph import Graph, Node, Shape, static
from mpc.wires import BATCH, broadcast

Law = Callable[[Node, list[Shape]], Shape | None]
"""(node, shapes of what it reads) -> the shape that it writes, or None if they do not fit."""


# ------------------------------------------------------------------- how shapes follow


def _alike(node: Node, reads: list[Shape]) -> Shape | None:
    return reads[0]


def _broadcast(node: Node, reads: list[Shape]) -> Shape | None:
    taken = node.attributes
    held = (taken.weight, taken.bias) if isinstance(taken, Weighted | Columns) else ()
    constants = [each.shape for each in held if each is not None]
    return broadcast(*reads, *constants)


def _constant(node: Node, reads: list[Shape]) -> Shape | None:
    weight = node.of(Constant).weight.shape
    return node.shape if broadcast(weight, static(node.shape)) == static(node.shape) else None


def _product(node: Node, reads: list[Shape]) -> Shape | None:
    left, right = _operands(node, reads)
    if len(right) < 2 or not left or left[-1] != right[-2]:
        return None
    stacked = broadcast(left[:-2], right[:-2])
    found = right[-1:] if len(left) == 1 else None if stacked is None else (*stacked, left[-2], right[-1])
    return _biased(node, found)


def _operands(node: Node, reads: list[Shape]) -> tuple[Shape, Shape]:
    return reads[0], node.attributes.weight.shape if isinstance(node.attributes, Weighted) else reads[1]


def _convolved(node: Node, reads: list[Shape]) -> Shape | None:
    x, filters = _operands(node, reads)
    windows = (node.of(Filters) if len(reads) == 1 else node.of(Sliding)).windows
    sizes = tuple(int(size) for size in x[2:] if size != BATCH)
    if len(sizes) != len(x) - 2 or filters[2:] != windows.kernel or x[1] != int(filters[1]) * windows.groups:
        return None
    return _biased(node, (x[0], filters[0], *windows.positions(sizes)))


def _biased(node: Node, product: Shape | None) -> Shape | None:
    bias = node.attributes.bias if isinstance(node.attributes, Weighted) else None
    return product if product is None or bias is None or broadcast(product, bias.shape) == product else None


def _summed(node: Node, reads: list[Shape]) -> Shape | None:
    fits = len(node.of(Sum).factors) == len(reads)
    return broadcast(*reads) if fits else None


def _totalled(node: Node, reads: list[Shape]) -> Shape | None:
    axes = node.of(Total).axes
    if any(not 0 <= axis < len(reads[0]) or reads[0][axis] == BATCH for axis in axes):
        return None
    return tuple(1 if axis in axes else size for axis, size in enumerate(reads[0]))


def _weighed(node: Node, reads: list[Shape]) -> Shape | None:
    axis, factors = node.of(Weigh).axis, node.of(Weigh).factors
    return reads[0] if reads[0][axis : axis + 1] == (len(factors),) else None


def _reshaped(node: Node, reads: list[Shape]) -> Shape | None:
    elements, batches = zip(*((prod(static(s)), s.count(BATCH)) for s in (reads[0], node.shape)), strict=True)
    return node.shape if elements[0] == elements[1] and batches[0] == batches[1] else None


def _transposed(node: Node, reads: list[Shape]) -> Shape | None:
    axes = node.of(Transpose).axes
    return tuple(reads[0][axis] for axis in axes) if sorted(axes) == list(range(len(reads[0]))) else None


def _joined(node: Node, reads: list[Shape]) -> Shape | None:
    axis = node.of(Concat).axis
    if len({shape[:axis] + shape[axis + 1 :] for shape in reads}) != 1 or any(s[axis] == BATCH for s in reads):
        return None
    return (*reads[0][:axis], sum(int(shape[axis]) for shape in reads), *reads[0][axis + 1 :])


def _taken(node: Node, reads: list[Shape]) -> Shape | None:
    axis, indices, [x] = node.of(Take).axis, node.of(Take).indices, reads
    if x[axis] == BATCH or not indices or min(indices) < -1 or max(indices) >= int(x[axis]):
        return None
    return (*x[:axis], len(indices), *x[axis + 1 :])


def _scattered(node: Node, reads: list[Shape]) -> Shape | None:
    taken, [x] = node.of(Scatter), reads
    if x[taken.axis] != len(taken.indices) or min(taken.indices) < -1 or max(taken.indices) >= taken.size:
        return None
    return (*x[: taken.axis], taken.size, *x[taken.axis + 1 :])


def _selected(node: Node, reads: list[Shape]) -> Shape | None:
    g, x = reads
    return x if g == ((*x[:-1], 1) if node.of(Select).among else x) else None


def _stepped(node: Node, reads: list[Shape]) -> Shape | None:
    return (*reads[0], len(node.of(Step).levels))


def _one_hot(node: Node, reads: list[Shape]) -> Shape | None:
    return (*reads[0], node.of(OneHot).size)


def _one_a_row(node: Node, reads: list[Shape]) -> Shape | None:
    return (*reads[0][:-1], 1) if reads[0] and reads[0][-1] != BATCH else None


def _held(node: Node, reads: list[Shape]) -> Shape | None:
    return reads[0] if len(reads[0]) == 2 and reads[0][0] == BATCH else None


def _rows_summed(node: Node, reads: list[Shape]) -> Shape | None:
    return reads[0][1:] if reads[0][:1] == (BATCH,) else None


def _masked(node: Node, reads: list[Shape]) -> Shape | None:
    where = node.of(Lowest).where.shape
    return reads[0] if broadcast(where, static(node.shape)) == static(node.shape) else None


# ------------------------------------------------------------------- the operators


@dataclass(frozen=True)
class Form:
    """One way to write an operator.

    Args:
        reads: the fewest and the most values that it reads.
        shape: how its shape follows.
        has: the record of its attributes.
    """

    reads: tuple[int, int]
    shape: Law
    has: type[Attributes] = Attributes


_MANY = 1 << 20

SPEC: dict[str, tuple[Form, ...]] = {
    "matmul": (Form((2, 2), _product), Form((2, 2), _product, Chosen), Form((1, 1), _product, Affine)),
    "conv": (Form((2, 2), _convolved, Sliding), Form((1, 1), _convolved, Filters)),
    "scale": (Form((1, 1), _broadcast, Weighted),),
    # x y, elementwise
    "multiply": (Form((2, 2), _broadcast), Form((2, 2), _broadcast, Averaged)),
    "sum": (Form((1, _MANY), _summed, Sum),),
    "total": (Form((1, 1), _totalled, Total),),
    "weigh": (Form((1, 1), _weighed, Weigh),),
    "reshape": (Form((1, 1), _reshaped),),
    "transpose": (Form((1, 1), _transposed, Transpose),),
    "concat": (Form((1, _MANY), _joined, Concat),),
    "take": (Form((1, 1), _taken, Take),),
    "scatter": (Form((1, 1), _scattered, Scatter),),
    "constant": (Form((0, 0), _constant, Constant),),
    "columns": (Form((1, 1), _broadcast, Columns),),
    "round": (Form((1, 1), _alike, Round),),
    "fit": (Form((1, 1), _alike, Fit),),
    "whole": (Form((1, 1), _alike, Whole),),
    "lowest": (Form((1, 1), _masked, Lowest),),
    "relu": (Form((1, 1), _alike), Form((1, 1), _alike, Rectified)),
    # g and x, at which it is the adjoint
    "select": (Form((2, 2), _selected, Select),),
    "held": (Form((1, 1), _held, Held),),
    "rows_sum": (Form((1, 1), _rows_summed, RowsSum),),
    "noise": (Form((1, 1), _alike, Noise),),
    "step": (Form((1, 1), _stepped, Step),),
    "onehot": (Form((1, 1), _one_hot, OneHot),),
    "function": (Form((1, 1), _alike, Function),),
    "link": (Form((1, 1), _alike, Link),),
    "maximum": (Form((1, 1), _one_a_row, Maximum),),
    "argmax": (Form((1, 1), _one_a_row, ArgMax),),
}


def check(graph: Graph) -> None:
    """Hold a graph to the law.

    Raises:
        ValueError: naming the node and what is wrong with it.
    """
    shapes: dict[str, Shape] = {}
    for given in graph.inputs:
        _define(shapes, given.name, given.shape)
    for node in graph.nodes:
        unknown = [name for name in node.reads if name not in shapes]
        if unknown:
            raise ValueError(f"{node.op} {node.writes!r} reads {unknown[0]!r}, which nothing before it writes")
        problems = [_problem(node, form, [shapes[name] for name in node.reads]) for form in SPEC.get(node.op, ())]
        if not problems or all(problems):
            raise ValueError(f"{node.op} {node.writes!r}: {'; or '.join(filter(None, problems)) or 'no such operator'}")
        _define(shapes, node.writes, node.shape)
    for out in graph.outputs:
        if out.value not in shapes:
            raise ValueError(f"output {out.name!r} is {out.value!r}, which nothing writes")


def _define(shapes: dict[str, Shape], name: str, shape: Shape) -> None:
    if name in shapes:
        raise ValueError(f"{name!r} is written twice")
    shapes[name] = shape


def _problem(node: Node, form: Form, reads: list[Shape]) -> str:
    """Say what keeps a node from being of this form; empty if nothing does."""
    if not form.reads[0] <= len(reads) <= form.reads[1]:
        return f"it reads {len(reads)} values"
    if type(node.attributes) is not form.has:
        return f"its attributes are {type(node.attributes).__name__}, not {form.has.__name__}"
    for each in fields(form.has):
        value, (kind, *none) = getattr(node.attributes, each.name), str(each.type).split(" | ")
        if not ((none and value is None) or HOLDS[kind](value)):
            return f"its {each.name} is of another kind ({type(value).__name__})"
    found = form.shape(node, reads)
    return "" if found == node.shape else f"its shape is {node.shape}, and {found} follows"
