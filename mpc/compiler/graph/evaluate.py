"""The graph on real numbers, in the clear: what its owner computes on samples, to see how large values get."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from mpc.compiler import functions
from mpc.compiler.graph.graph import Graph, Node, static
from mpc.wires import BATCH

Reals = np.ndarray
Decide = Callable[[Node, Reals, Callable[[Reals], Reals]], Reals]
DECISIONS = frozenset({"step", "argmax"})
"""Operators whose results jump."""


def evaluate(
    graph: Graph, feeds: Mapping[str, np.ndarray], decide: Decide | None = None
) -> Iterator[tuple[Node, Reals]]:
    """Every node with its value, in order; a value is let go once nothing reads it any more.

    Args:
        feeds: every input; all have as many rows where the batch is open.
        decide: see `follow`.
    """
    values, rows = entered(graph, feeds)
    return follow(graph.nodes, values, rows, decide)


def entered(graph: Graph, feeds: Mapping[str, np.ndarray]) -> tuple[dict[str, Reals], int]:
    """The inputs in the units in which they enter, and how many rows there are."""
    rows = next((feeds[g.name].shape[g.shape.index(BATCH)] for g in graph.inputs if BATCH in g.shape), 1)
    values = {
        given.name: (np.asarray(feeds[given.name], np.float64) - given.offset) * given.factor for given in graph.inputs
    }
    return values, rows


def follow(
    nodes: Sequence[Node], values: dict[str, Reals], rows: int, decide: Decide | None = None
) -> Iterator[tuple[Node, Reals]]:
    """Every one of some nodes with its value, in order.

    Args:
        values: all that they read and do not write, in their own units; each is let go after its last use.
        rows: the size of the batch.
        decide: what takes a node that compares, its operand and a function of the operand, and gives its value.
    """
    last = {name: number for number, node in enumerate(nodes) for name in node.reads}
    for number, node in enumerate(nodes):
        shape = tuple(rows if size == BATCH else int(size) for size in node.shape)
        operator = partial(_OPERATORS[node.op], node.attributes, shape)
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
    return _OPERATORS[node.op](node.attributes, static(node.shape), *values)


Attributes = dict[str, Any]


def _matmul(node: Attributes, shape: tuple[int, ...], x: Reals, *y: Reals) -> Reals:
    return x @ y[0] if y else _with_bias(x @ node["weight"], node)


def _conv(node: Attributes, shape: tuple[int, ...], x: Reals, *y: Reals) -> Reals:
    convolve = node["windows"].convolve
    found: Reals = convolve(x, y[0]) if y else _with_bias(convolve(x, node["weight"]), node)
    return found


def _with_bias(product: Reals, node: Attributes) -> Reals:
    return product if node["bias"] is None else product + node["bias"]


def _sum(node: Attributes, shape: tuple[int, ...], *xs: Reals) -> Reals:
    total = sum(factor * x for factor, x in zip(node["factors"], xs, strict=True))
    return np.broadcast_to(np.asarray(total + node.get("constant", 0.0)), shape)


def _take(node: Attributes, shape: tuple[int, ...], x: Reals) -> Reals:
    indices = np.array(node["indices"])
    taken = x.take(indices, axis=node["axis"])
    taken[(slice(None),) * node["axis"] + (indices < 0,)] = 0
    return taken


def _weigh(node: Attributes, shape: tuple[int, ...], x: Reals) -> Reals:
    return x * np.array(node["factors"]).reshape(-1, *[1] * (x.ndim - node["axis"] - 1))


def _function(node: Attributes, shape: tuple[int, ...], x: Reals) -> Reals:
    function = functions.FUNCTIONS[node["name"]](**node["parameters"])
    return function.value(np.maximum(x, 2.0**-20) if function.domain == 0 else x)


def _maximum(node: Attributes, shape: tuple[int, ...], x: Reals) -> Reals:
    top = x.max(axis=-1, keepdims=True)
    return np.maximum(top, 0) if node.get("rectify") else top


def _argmax(node: Attributes, shape: tuple[int, ...], x: Reals) -> Reals:
    place = x.shape[-1] - 1 - x[..., ::-1].argmax(axis=-1) if node["last"] else x.argmax(axis=-1)
    return place[..., None].astype(np.float64)


_OPERATORS: dict[str, Callable[..., Reals]] = {
    "matmul": _matmul,
    "conv": _conv,
    "scale": lambda node, shape, x: np.broadcast_to(_with_bias(x * node["weight"], node), shape),
    "multiply": lambda node, shape, x, y: np.broadcast_to(x * y, shape),
    "sum": _sum,
    "total": lambda node, shape, x: x.sum(axis=node["axes"], keepdims=True) / node.get("divisor", 1),
    "weigh": _weigh,
    "reshape": lambda node, shape, x: x.reshape(shape),
    "transpose": lambda node, shape, x: x.transpose(node["axes"]),
    "concat": lambda node, shape, *xs: np.concatenate(xs, axis=node["axis"]),
    "take": _take,
    "columns": lambda node, shape, x: np.broadcast_to(x * node["weight"] + node["bias"], shape),
    "constant": lambda node, shape: np.broadcast_to(node["weight"], shape),
    "round": lambda node, shape, x: x,
    "lowest": lambda node, shape, x: np.where(node["where"], x.min(), x),
    "fit": lambda node, shape, x: x,
    "relu": lambda node, shape, x: np.maximum(x, 0),
    "step": lambda node, shape, x: (x[..., None] >= np.array(node["levels"])).astype(np.float64),
    "function": _function,
    "maximum": _maximum,
    "argmax": _argmax,
}
