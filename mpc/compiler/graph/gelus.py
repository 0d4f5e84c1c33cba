"""Find GELU where a model spells it out: x / 2 (1 + erf(x / sqrt 2)), or with tanh, node by node.

As one function it is a series with a line beside it; spelt out it is a series, a product, and truncations for both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mpc.compiler.graph.attributes import Function, Sum, Weighted
from mpc.compiler.graph.graph import Graph, Node

_CLOSE = 1e-5
"""How much constants may be off, beside their size: a model has them as float32, rounded in several ways."""
_CUBIC = 0.044715
Writers = Mapping[str, Node]
Line = tuple[str, float, float]
"""A value, and the numbers that it is multiplied with and to which that is added."""


def join_gelu(graph: Graph) -> Graph:
    """Write GELU as one function, times what is left over as a factor."""
    writers = {node.writes: node for node in graph.nodes}
    nodes: list[Node] = []
    for node in graph.nodes:
        found = _gelu(writers, node)
        nodes += [node] if found is None else _written(node, *found)
    return Graph(graph.inputs, nodes, graph.outputs)


def _written(node: Node, name: str, x: str, factor: float) -> list[Node]:
    inner = node.writes if factor == 1.0 else f"{node.writes}.gelu"
    gelu = replace(node, op="function", reads=(x,), writes=inner, attributes=Function(name=name))
    if factor == 1.0:
        return [gelu]
    scaled = replace(node, op="scale", reads=(inner,), attributes=Weighted(weight=np.asarray(factor), bias=None))
    return [gelu, scaled]


def _gelu(writers: Writers, node: Node) -> tuple[str, str, float] | None:
    """(name, x, factor), if the product is x times half of one plus erf or tanh, times a factor."""
    if node.op != "multiply" or node.reads[0] == node.reads[1]:
        return None
    for first, second in (node.reads, node.reads[::-1]):
        bend, times, more = _line(writers, second)
        x, outer, offset = _line(writers, first)
        function = writers.get(bend)
        if function is None or function.op != "function" or offset != 0.0 or not _close(times, more):
            continue
        name = _name(writers, function, x)
        if name is not None and function.shape == node.shape:
            factor = 2 * times * outer
            return name, x, 1.0 if _close(factor, 1.0) else factor
    return None


def _name(writers: Writers, function: Node, x: str) -> str | None:
    inner, times, more = _line(writers, function.reads[0])
    if more != 0.0:
        return None
    name = function.of(Function).name
    if name == "erf" and inner == x and _close(times, math.sqrt(0.5)):
        return "gelu"
    if name == "tanh" and _close(times, math.sqrt(2 / math.pi)) and _is_cubic(writers, inner, x):
        return "gelu_tanh"
    return None


def _is_cubic(writers: Writers, name: str, x: str) -> bool:
    """Is it x + 0.044715 x^3?"""
    node = writers.get(name)
    if node is None or node.op != "sum" or len(node.reads) != 2 or node.of(Sum).constant:
        return False
    parts = [(*_line(writers, read), factor) for read, factor in zip(node.reads, node.of(Sum).factors, strict=True)]
    parts.sort(key=lambda part: part[0] != x)
    (first, one, zero, left), (cube, times, more, right) = parts
    if first != x or zero != 0.0 or more != 0.0 or not _close(one * left, 1.0) or not _close(times * right, _CUBIC):
        return False
    return sorted(_factors(writers, cube, 2)) == [x, x, x]


def _factors(writers: Writers, name: str, depth: int) -> list[str]:
    node = writers.get(name)
    if depth == 0 or node is None or node.op != "multiply":
        return [name]
    return [each for read in node.reads for each in _factors(writers, read, depth - 1)]


def _line(writers: Writers, name: str) -> Line:
    """Find which value another is a multiple of, plus a number, for as far as numbers are single ones."""
    times, more = 1.0, 0.0
    while (node := writers.get(name)) is not None and node.op == "scale":
        taken = node.of(Weighted)
        bias = np.zeros(()) if taken.bias is None else taken.bias
        if taken.weight.size != 1 or bias.size != 1 or node.attributes.known is not None:
            break
        more += times * float(bias.reshape(-1)[0])
        times *= float(taken.weight.reshape(-1)[0])
        name = node.reads[0]
    return name, times, more


def _close(found: float, wanted: float) -> bool:
    return abs(found - wanted) <= _CLOSE * abs(wanted)
