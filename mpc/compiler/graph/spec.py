"""The law of the compiler's graph, as data: of each operator what it reads, its attributes, and how its shape follows.

Tests hold the graph to it after the import and after every pass; so a new pass, or a new operator, finds out here
what it broke.  `check` is not called while a model is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from mpc.compiler.functions import FUNCTIONS
from mpc.compiler.graph.graph import Graph, Node, Shape, static
from mpc.windows import Windows
from mpc.wires import BATCH, broadcast

Holds = Callable[[Any], bool]
"""Is this a value that an attribute may have?"""
Law = Callable[[Node, list[Shape]], Shape | None]
"""(node, shapes of what it reads) -> the shape that it writes, or None if they do not fit."""


def _array(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.float64


def _bias(value: Any) -> bool:
    return value is None or _array(value)


def _mask(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == bool


def _number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _truth(value: Any) -> bool:
    return isinstance(value, bool)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _numbers(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_number, value))


def _wholes(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_whole, value))


def _ends(value: Any) -> bool:
    return _numbers(value) and len(value) == 2 and value[0] <= value[1]


def _moments(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2


def _windows(value: Any) -> bool:
    return isinstance(value, Windows)


def _function(value: Any) -> bool:
    return value in FUNCTIONS


def _parameters(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) and _number(entry) for name, entry in value.items())


# ------------------------------------------------------------------- how shapes follow


def _alike(node: Node, reads: list[Shape]) -> Shape | None:
    return reads[0]


def _broadcast(node: Node, reads: list[Shape]) -> Shape | None:
    constants = [node.attributes[name].shape for name in ("weight", "bias") if node.attributes.get(name) is not None]
    return broadcast(*reads, *constants)


def _constant(node: Node, reads: list[Shape]) -> Shape | None:
    weight = node.attributes["weight"].shape
    return node.shape if broadcast(weight, static(node.shape)) == static(node.shape) else None


def _product(node: Node, reads: list[Shape]) -> Shape | None:
    left, right = _operands(node, reads)
    if len(right) < 2 or not left or left[-1] != right[-2]:
        return None
    stacked = broadcast(left[:-2], right[:-2])
    found = right[-1:] if len(left) == 1 else None if stacked is None else (*stacked, left[-2], right[-1])
    return _biased(node, found)


def _operands(node: Node, reads: list[Shape]) -> tuple[Shape, Shape]:
    return reads[0], node.attributes["weight"].shape if len(reads) == 1 else reads[1]


def _convolved(node: Node, reads: list[Shape]) -> Shape | None:
    x, filters = _operands(node, reads)
    windows: Windows = node.attributes["windows"]
    sizes = tuple(int(size) for size in x[2:] if size != BATCH)
    if len(sizes) != len(x) - 2 or filters[2:] != windows.kernel or x[1] != int(filters[1]) * windows.groups:
        return None
    return _biased(node, (x[0], filters[0], *windows.positions(sizes)))


def _biased(node: Node, product: Shape | None) -> Shape | None:
    bias = node.attributes.get("bias")
    return product if product is None or bias is None or broadcast(product, bias.shape) == product else None


def _summed(node: Node, reads: list[Shape]) -> Shape | None:
    fits = len(node.attributes["factors"]) == len(reads)
    return broadcast(*reads) if fits else None


def _totalled(node: Node, reads: list[Shape]) -> Shape | None:
    axes = node.attributes["axes"]
    if any(not 0 <= axis < len(reads[0]) or reads[0][axis] == BATCH for axis in axes):
        return None
    return tuple(1 if axis in axes else size for axis, size in enumerate(reads[0]))


def _weighed(node: Node, reads: list[Shape]) -> Shape | None:
    axis, factors = node.attributes["axis"], node.attributes["factors"]
    return reads[0] if reads[0][axis : axis + 1] == (len(factors),) else None


def _reshaped(node: Node, reads: list[Shape]) -> Shape | None:
    elements, batches = zip(*((prod(static(s)), s.count(BATCH)) for s in (reads[0], node.shape)), strict=True)
    return node.shape if elements[0] == elements[1] and batches[0] == batches[1] else None


def _transposed(node: Node, reads: list[Shape]) -> Shape | None:
    axes = node.attributes["axes"]
    return tuple(reads[0][axis] for axis in axes) if sorted(axes) == list(range(len(reads[0]))) else None


def _joined(node: Node, reads: list[Shape]) -> Shape | None:
    axis = node.attributes["axis"]
    if len({shape[:axis] + shape[axis + 1 :] for shape in reads}) != 1 or any(s[axis] == BATCH for s in reads):
        return None
    return (*reads[0][:axis], sum(int(shape[axis]) for shape in reads), *reads[0][axis + 1 :])


def _taken(node: Node, reads: list[Shape]) -> Shape | None:
    axis, indices, [x] = node.attributes["axis"], node.attributes["indices"], reads
    if x[axis] == BATCH or not indices or min(indices) < -1 or max(indices) >= int(x[axis]):
        return None
    return (*x[:axis], len(indices), *x[axis + 1 :])


def _stepped(node: Node, reads: list[Shape]) -> Shape | None:
    return (*reads[0], len(node.attributes["levels"]))


def _one_a_row(node: Node, reads: list[Shape]) -> Shape | None:
    return (*reads[0][:-1], 1) if reads[0] and reads[0][-1] != BATCH else None


def _masked(node: Node, reads: list[Shape]) -> Shape | None:
    where = node.attributes["where"].shape
    return reads[0] if broadcast(where, static(node.shape)) == static(node.shape) else None


# ------------------------------------------------------------------- the operators


@dataclass(frozen=True)
class Form:
    """One way to write an operator.

    Args:
        reads: the fewest and the most values that it reads.
        shape: how its shape follows.
        has: attributes that it has; may: those that it may have, besides `known` and `usual`.
    """

    reads: tuple[int, int]
    shape: Law
    has: Mapping[str, Holds] = field(default_factory=dict)
    may: Mapping[str, Holds] = field(default_factory=dict)


_MANY = 1 << 20
_WEIGHED: dict[str, Holds] = {"weight": _array, "bias": _bias}

SPEC: dict[str, tuple[Form, ...]] = {
    # x y; or x weight + bias, a secret weight (.., k, n).  signs: only whether each column is negative matters, it may
    # be multiplied.  marks: the last so many rows, for marks (0 or 1) of missing numbers: a positive weight makes the
    # column not negative where one is missing, a negative weight makes it negative
    "matmul": (Form((2, 2), _product), Form((1, 1), _product, _WEIGHED, {"signs": _truth, "marks": _whole})),
    # x with filters; or with a secret weight (o, c / groups, *kernel), + bias
    "conv": (
        Form((2, 2), _convolved, {"windows": _windows}),
        Form((1, 1), _convolved, {**_WEIGHED, "windows": _windows}),
    ),
    # x weight + bias, elementwise, secret
    "scale": (Form((1, 1), _broadcast, _WEIGHED),),
    # x y, elementwise
    "multiply": (Form((2, 2), _broadcast),),
    # sum_i factors[i] x_i + constant, public.  fills, of its `static` shape: the second operand puts numbers in where
    # the first, a missing number, is that
    "sum": (Form((1, _MANY), _summed, {"factors": _numbers, "constant": _number}, {"fills": _array}),),
    # the sum over axes, which stay with size 1, divided by an integer
    "total": (Form((1, 1), _totalled, {"axes": _wholes}, {"divisor": _whole}),),
    # each slice along an axis times its public factor
    "weigh": (Form((1, 1), _weighed, {"axis": _whole, "factors": _numbers}),),
    "reshape": (Form((1, 1), _reshaped),),
    "transpose": (Form((1, 1), _transposed, {"axes": _wholes}),),
    "concat": (Form((1, _MANY), _joined, {"axis": _whole}),),
    # slices along an axis; -1 stands for zeros
    "take": (Form((1, 1), _taken, {"axis": _whole, "indices": _wholes}),),
    # a secret weight, the same for every row
    "constant": (Form((0, 0), _constant, {"weight": _array}),),
    # x weight + bias, public: weight, powers of two, and bias vary along one axis at most
    "columns": (Form((1, 1), _broadcast, {"weight": _array, "bias": _array}),),
    # to `fraction` fractional bits, about 16 if not given, if there are more.  apart: then element i of the last axis
    # counts i times as many units more, if anything was rounded off, or `always`
    "round": (Form((1, 1), _alike, {}, {"fraction": _whole, "apart": _whole, "always": _truth}),),
    # x itself, refused where it can be more than half a unit beyond the ends; outside says why
    "fit": (Form((1, 1), _alike, {"ends": _ends, "outside": _text}),),
    # where this is true the least number that x can be, elsewhere x, which is zero there
    "lowest": (Form((1, 1), _masked, {"where": _mask}),),
    "relu": (Form((1, 1), _alike),),
    # [x >= level], one more axis.  Compared on so many bits at most, else on about `fraction` (20) fractional ones
    "step": (Form((1, 1), _stepped, {"levels": _numbers}, {"bits": _whole, "fraction": _whole}),),
    # a key of `functions.FUNCTIONS`, elementwise
    "function": (Form((1, 1), _alike, {"name": _function, "parameters": _parameters}),),
    # over the last axis, which stays with size 1; rectify: and zero
    "maximum": (Form((1, 1), _one_a_row, {}, {"rectify": _truth}),),
    # along the last axis.  last: ties go to the last index; bits: as of a step
    "argmax": (Form((1, 1), _one_a_row, {"last": _truth}, {"bits": _whole}),),
}
_ANY: dict[str, Holds] = {"known": _ends, "usual": _moments}
"""known: what the values are between, for reasons that intervals do not see; usual: (mean, variance), arrays of the
node's `static` shape, on samples."""


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
    for name in form.has:
        if name not in node.attributes:
            return f"it has no {name}"
    allowed = {**_ANY, **form.may, **form.has}
    for name, value in node.attributes.items():
        if name not in allowed:
            return f"it has a {name}"
        if not allowed[name](value):
            return f"its {name} is of another kind ({type(value).__name__})"
    found = form.shape(node, reads)
    return "" if found == node.shape else f"its shape is {node.shape}, and {found} follows"
