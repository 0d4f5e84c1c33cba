"""Find GELU, SiLU and Mish where a model spells them out, node by node: a value times a function of it, from 0 to 1.

As one function it is a series with a line beside it.  Spelt out it is a series, a product, and truncations for both;
and far below 0, where the function is nothing, the product has the series' error times that value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mpc.compiler.functions import LINEAR_FROM
from mpc.compiler.graph.attributes import Function, Sum, Weighted
from mpc.compiler.graph.graph import Graph, Node

_CLOSE = 1e-5
"""How much constants may be off, beside their size: a model has them as float32, rounded in several ways."""
_CUBIC = 0.044715
_SLOPES = (1.0, 1.702)
"""List what SiLU multiplies its argument with, and a GELU that is made of it; other numbers are weights, untold."""
Writers = Mapping[str, Node]
Line = tuple[str, float, float]
"""A value, and the numbers that it is multiplied with and to which that is added."""


@dataclass(frozen=True)
class _Gated:
    """A product that is outer name(inner x).

    Args:
        name: a key of `functions.FUNCTIONS`.
    """

    name: str
    x: str
    inner: float
    outer: float


def join_gated(graph: Graph) -> Graph:
    """Write each of them as one function, times what is left over as a factor."""
    writers = {node.writes: node for node in graph.nodes}
    nodes: list[Node] = []
    for node in graph.nodes:
        found = _gated(writers, node)
        nodes += [node] if found is None else _written(node, found)
    return Graph(graph.inputs, nodes, graph.outputs)


def _written(node: Node, found: _Gated) -> list[Node]:
    nodes, x = [], found.x
    if found.inner != 1.0:
        argument = f"{node.writes}.argument"
        nodes.append(replace(node, op="scale", reads=(x,), writes=argument, attributes=_times(found.inner)))
        x = argument
    value = node.writes if found.outer == 1.0 else f"{node.writes}.gated"
    nodes.append(replace(node, op="function", reads=(x,), writes=value, attributes=Function(name=found.name)))
    if found.outer != 1.0:
        nodes.append(replace(node, op="scale", reads=(value,), attributes=_times(found.outer)))
    return nodes


def _times(factor: float) -> Weighted:
    return Weighted(weight=np.asarray(factor), bias=None)


def _gated(writers: Writers, node: Node) -> _Gated | None:
    """Find x in a product of it with a function of it; None if it is another product."""
    if node.op != "multiply" or node.reads[0] == node.reads[1]:
        return None
    for first, second in (node.reads, node.reads[::-1]):
        bend, times, more = _line(writers, second)
        x, outer, offset = _line(writers, first)
        function = writers.get(bend)
        if function is None or function.op != "function" or function.shape != node.shape or offset != 0.0:
            continue
        found = _gelu(writers, function, x) if _close(times, more) else _from_zero(writers, function, x, more)
        if found is not None:
            name, inner, half = found
            factor = times * outer / (half * inner)
            return _Gated(name, x, inner, 1.0 if _close(factor, 1.0) else factor)
    return None


def _from_zero(writers: Writers, function: Node, x: str, more: float) -> tuple[str, float, float] | None:
    """(name, what its argument is multiplied with, 1), if a function that is 0 far below is that of SiLU or Mish."""
    of, times, offset = _line(writers, function.reads[0])
    if more != 0.0 or offset != 0.0:
        return None
    name = function.of(Function).name
    slope = next((each for each in _SLOPES if _close(times, each)), None)
    if name == "sigmoid" and of == x and slope is not None:
        return "silu", slope, 1.0
    if name == "tanh" and _close(times, 1.0) and _is_softplus(writers, of, x):
        return "mish", 1.0, 1.0
    return None


def _is_softplus(writers: Writers, name: str, x: str) -> bool:
    """Is it log(1 + exp x): the function of that name, and the line that is missing in it above `LINEAR_FROM`?"""
    node = writers.get(name)
    if node is None or node.op != "sum" or len(node.reads) != 2:
        return False
    taken = node.of(Sum)
    bend, line = (writers.get(read) for read in node.reads)
    if taken.constant or taken.factors != (1.0, 1.0) or bend is None or line is None:
        return False
    is_bend = bend.op == "function" and bend.of(Function).name == "softplus" and bend.reads == (x,)
    return is_bend and line.op == "relu" and _line(writers, line.reads[0]) == (x, 1.0, -LINEAR_FROM)


def _gelu(writers: Writers, function: Node, x: str) -> tuple[str, float, float] | None:
    """(name, 1, 1/2), if one plus erf or tanh is twice what GELU multiplies its argument with."""
    name = _name_of_gelu(writers, function, x)
    return None if name is None else (name, 1.0, 0.5)


def _name_of_gelu(writers: Writers, function: Node, x: str) -> str | None:
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
