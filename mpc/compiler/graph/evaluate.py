"""The graph on real numbers, in the clear: what its owner computes on samples, to see how large values get."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from mpc.compiler import functions
from mpc.compiler.graph.attributes import (
    ArgMax,
    Attributes,
    Columns,
    Concat,
    Constant,
    Filters,
    Function,
    Held,
    Lowest,
    Maximum,
    OneHot,
    Rectified,
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
from mpc.compiler.graph.graph import Graph, Node, static
from mpc.wires import BATCH

Reals = np.ndarray
Decide = Callable[[Node, Reals, Callable[[Reals], Reals]], Reals]
_LEAST = 2.0**-20
_LEAST_STEP = 2.0**-12
"""Half a step of what counts leave is more; where none is left a model means nothing, and nothing is expected of it."""
DECISIONS = frozenset({"step", "argmax", "whole"})
"""Operators whose results jump."""


def evaluate(
    graph: Graph, feeds: Mapping[str, np.ndarray], decide: Decide | None = None, *, exact: bool = False
) -> Iterator[tuple[Node, Reals]]:
    """Yield every node with its value, in order; a value is let go once nothing reads it any more.

    Args:
        feeds: every input; all have as many rows where the batch is open.
        decide, exact: see `follow`.
    """
    values, rows = entered(graph, feeds)
    return follow(graph.nodes, values, rows, decide, exact=exact)


def entered(graph: Graph, feeds: Mapping[str, np.ndarray]) -> tuple[dict[str, Reals], int]:
    """Return the inputs in the units in which they enter, and how many rows there are."""
    rows = next((feeds[g.name].shape[g.shape.index(BATCH)] for g in graph.inputs if BATCH in g.shape), 1)
    values = {
        given.name: (np.asarray(feeds[given.name], np.float64) - given.offset) * given.factor for given in graph.inputs
    }
    return values, rows


def follow(
    nodes: Sequence[Node], values: dict[str, Reals], rows: int, decide: Decide | None = None, *, exact: bool = False
) -> Iterator[tuple[Node, Reals]]:
    """Yield every one of some nodes with its value, in order.

    Args:
        values: all that they read and do not write, in their own units; each is let go after its last use.
        rows: the size of the batch.
        decide: what takes a node that compares, its operand and a function of the operand, and gives its value.
        exact: inverses, roots and logarithms are taken of numbers below 2^-20, too; else these count as that, so that
            none of their results is far larger than plans have them.
    """
    last = {name: number for number, node in enumerate(nodes) for name in node.reads}
    for number, node in enumerate(nodes):
        shape = tuple(rows if size == BATCH else int(size) for size in node.shape)
        known = {"exact": exact} if node.op == "function" else {}
        operator = partial(OPERATORS[node.op], node.attributes, shape, **known)
        operands = [values[name] for name in node.reads]
        if decide is not None and node.op in DECISIONS:
            value = decide(node, operands[0], operator)
        else:
            value = operator(*operands)
        values[node.writes] = value
        yield node, value
        for name in set(node.reads):
            if last[name] == number:
                del values[name]


def move(node: Node, values: Sequence[Reals]) -> Reals:
    """Compute what a move makes of arrays of the `static` shapes of what it reads."""
    return OPERATORS[node.op](node.attributes, static(node.shape), *values)


Sizes = tuple[int, ...]


def _matmul(taken: Attributes, shape: Sizes, x: Reals, *y: Reals) -> Reals:
    return _with_bias(x @ taken.weight, taken) if isinstance(taken, Weighted) else x @ y[0]


def _conv(taken: Filters | Sliding, shape: Sizes, x: Reals, *y: Reals) -> Reals:
    convolve = taken.windows.convolve
    return _with_bias(convolve(x, taken.weight), taken) if isinstance(taken, Filters) else convolve(x, y[0])


def _scale(taken: Weighted, shape: Sizes, x: Reals) -> Reals:
    return np.broadcast_to(_with_bias(x * taken.weight, taken), shape)


def _with_bias(product: Reals, taken: Weighted) -> Reals:
    return product if taken.bias is None else product + taken.bias


def _columns(taken: Columns, shape: Sizes, x: Reals) -> Reals:
    return np.broadcast_to(x * taken.weight + taken.bias, shape)


def _constant(taken: Constant, shape: Sizes) -> Reals:
    return np.broadcast_to(taken.weight, shape)


def _multiply(taken: Attributes, shape: Sizes, x: Reals, y: Reals) -> Reals:
    return np.broadcast_to(x * y, shape)


def _sum(taken: Sum, shape: Sizes, *xs: Reals) -> Reals:
    total = sum(factor * x for factor, x in zip(taken.factors, xs, strict=True))
    return np.broadcast_to(np.asarray(total + taken.constant), shape)


def _total(taken: Total, shape: Sizes, x: Reals) -> Reals:
    return x.sum(axis=taken.axes, keepdims=True) / taken.divisor


def _weigh(taken: Weigh, shape: Sizes, x: Reals) -> Reals:
    return x * np.array(taken.factors).reshape(-1, *[1] * (x.ndim - taken.axis - 1))


def _reshape(taken: Attributes, shape: Sizes, x: Reals) -> Reals:
    return x.reshape(shape)


def _transpose(taken: Transpose, shape: Sizes, x: Reals) -> Reals:
    return x.transpose(taken.axes)


def _held(taken: Held, shape: Sizes, x: Reals) -> Reals:
    return np.where(np.linalg.norm(x, axis=-1, keepdims=True) > taken.norm, 0.0, x)


def _rows_sum(taken: RowsSum, shape: Sizes, x: Reals) -> Reals:
    return np.asarray(x.sum(axis=0))


def _concat(taken: Concat, shape: Sizes, *xs: Reals) -> Reals:
    return np.concatenate(xs, axis=taken.axis)


def _take(taken: Take, shape: Sizes, x: Reals) -> Reals:
    indices = np.array(taken.indices)
    found = x.take(indices, axis=taken.axis)
    found[(slice(None),) * taken.axis + (indices < 0,)] = 0
    return found


def _scatter(taken: Scatter, shape: Sizes, x: Reals) -> Reals:
    found, indices = np.zeros(shape), np.array(taken.indices)
    kept = indices >= 0
    np.add.at(np.moveaxis(found, taken.axis, 0), indices[kept], np.moveaxis(x, taken.axis, 0)[kept])
    return found


def _itself(taken: Attributes, shape: Sizes, x: Reals) -> Reals:
    return x


_WHOLE = {"floor": np.floor, "nearest": np.rint, "zero": np.trunc}


def _whole(taken: Whole, shape: Sizes, x: Reals) -> Reals:
    found = _WHOLE[taken.how](x)
    if taken.offset is not None:
        found = found + taken.offset
    return np.broadcast_to(found if taken.ceiling is None else np.clip(found, 0, taken.ceiling), shape)


def _lowest(taken: Lowest, shape: Sizes, x: Reals) -> Reals:
    return np.where(taken.where, x.min(), x)


def _relu(taken: Attributes, shape: Sizes, x: Reals) -> Reals:
    ceiling = taken.ceiling if isinstance(taken, Rectified) else None
    return np.clip(x, 0, ceiling)


def _select(taken: Select, shape: Sizes, g: Reals, x: Reals) -> Reals:
    if taken.among:
        passes = np.arange(x.shape[-1]) == x.argmax(axis=-1)[..., None]
        passes &= (x >= 0) | (not taken.rectify)
    else:
        passes = (x >= 0) & (x < (np.inf if taken.ceiling is None else taken.ceiling))
    return np.where(passes, g, 0.0)


def _step(taken: Step, shape: Sizes, x: Reals) -> Reals:
    return (x[..., None] >= np.array(taken.levels)).astype(np.float64)


def _one_hot(taken: OneHot, shape: Sizes, x: Reals) -> Reals:
    return (x[..., None] == np.arange(taken.size)).astype(np.float64)


def _function(taken: Function, shape: Sizes, x: Reals, *, exact: bool = False) -> Reals:
    function = functions.FUNCTIONS[taken.name](**taken.parameters)
    if taken.hidden is not None:
        return taken.hidden.shared(function.value(taken.hidden.without(x)))
    if function.domain != 0:
        return function.value(x)
    if not exact:
        return function.value(np.maximum(x, _LEAST))
    if taken.floor is not None and taken.floor > _LEAST_STEP:
        return function.value(np.where(x > 0, x, np.nan))
    of_zero = 0.0 if taken.name == "sqrt" or taken.parameters.get("exponent", -1.0) > 0 else _LEAST
    return function.value(np.where(x > 0, x, of_zero))


def _maximum(taken: Maximum, shape: Sizes, x: Reals) -> Reals:
    top = (x if taken.hidden is None else taken.hidden.without(x)).max(axis=-1, keepdims=True)
    return np.maximum(top, 0) if taken.rectify else top


def _argmax(taken: ArgMax, shape: Sizes, x: Reals) -> Reals:
    place = x.shape[-1] - 1 - x[..., ::-1].argmax(axis=-1) if taken.last else x.argmax(axis=-1)
    return place[..., None].astype(np.float64)


OPERATORS: dict[str, Callable[..., Reals]] = {
    "matmul": _matmul,
    "conv": _conv,
    "scale": _scale,
    "multiply": _multiply,
    "sum": _sum,
    "total": _total,
    "weigh": _weigh,
    "reshape": _reshape,
    "transpose": _transpose,
    "concat": _concat,
    "take": _take,
    "scatter": _scatter,
    "columns": _columns,
    "constant": _constant,
    "round": _itself,
    "lowest": _lowest,
    "fit": _itself,
    "whole": _whole,
    "relu": _relu,
    "select": _select,
    "held": _held,
    "rows_sum": _rows_sum,
    "noise": _itself,
    "step": _step,
    "onehot": _one_hot,
    "function": _function,
    "link": _function,
    "maximum": _maximum,
    "argmax": _argmax,
}
