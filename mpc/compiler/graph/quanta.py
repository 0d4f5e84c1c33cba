"""Scales of quantised values, brought next to the linear layers that take them in for nothing.

A value is divided by a scale just before it is rounded, and multiplied by one just behind.  What a ReLU, a maximum, a
sum or a move does with a value it does with a positive multiple of it: so divisions go up through these.  Where one
meets the multiplication by the scale that it divides by, whole numbers are left, and nothing is rounded again.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mpc.compiler.graph.attributes import Attributes, Constant, Sum, Weighted
from mpc.compiler.graph.graph import MOVES, Graph, Node

_DEQUANTISING = frozenset({"DequantizeLinear", "Quant", "IntQuant"})
_LAYERS = frozenset({"scale", "matmul", "conv"})
_SAME = 2.0**-40
"""A number that is so near to a whole one is that: a scale over itself."""


def part_scales(graph: Graph) -> Graph:
    """Give each reader of a dequantised value a multiplication of its own, which joins a linear layer behind it."""
    taken = {given.name for given in graph.inputs} | {node.writes for node in graph.nodes}
    nodes: list[Node] = []
    copies: dict[str, list[str]] = {}
    for node in graph.nodes:
        readers = sum(name == node.writes for other in graph.nodes for name in other.reads)
        if node.op == "scale" and node.origin.operator in _DEQUANTISING and readers > 1:
            names = [f"{node.writes}/{number}" for number in range(1, readers)]
            if taken.isdisjoint(names) and not graph.is_output(node.writes):
                taken.update(names)
                copies[node.writes] = [node.writes, *names]
                nodes += [replace(node, writes=name) for name in copies[node.writes]]
                continue
        reads = tuple(copies[name].pop() if name in copies else name for name in node.reads)
        nodes.append(replace(node, reads=reads))
    return Graph(graph.inputs, nodes, graph.outputs)


def lift_scales(graph: Graph) -> Graph:
    """Divide before what stands between a linear layer and a rounding, instead of behind it."""
    for name in [node.reads[0] for node in graph.nodes if node.op == "whole"]:
        graph = _Lift(graph).of(name)
    return graph


class _Lift:
    """One division on its way up."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._writers = {node.writes: node for node in graph.nodes}
        self._changed: dict[str, Node] = {}
        self._splits = any(_is_told(node) for node in graph.nodes)
        self._told = False

    def of(self, name: str) -> Graph:
        """Return the graph without the division that writes a value, if layers above take it in."""
        division = self._writers.get(name)
        if division is None or division.op != "scale" or self._graph.sole_reader(name) is None:
            return self._graph
        taken = division.of(Weighted)
        if taken.weight.size != 1 or taken.bias is not None or float(taken.weight.flat[0]) <= 0:
            return self._graph
        self._told = taken.public
        first = division.reads[0]
        above = self._writers.get(first)
        if above is None or above.shape != division.shape or not self._lift(first, float(taken.weight.flat[0])):
            return self._graph
        nodes = [self._changed.get(node.writes, node) for node in self._graph.nodes if node is not division]
        readers = [replace(node, reads=tuple(first if read == name else read for read in node.reads)) for node in nodes]
        return Graph(self._graph.inputs, readers, self._graph.outputs)

    def _lift(self, name: str, factor: float) -> bool:
        """Change what writes a value so that it writes a multiple; tell whether that costs nothing."""
        node = self._writers.get(name)
        if node is None or self._graph.sole_reader(name) is None:
            return False
        scaled: Attributes = node.attributes
        if self._tells(node):
            return False
        if node.op in _LAYERS and isinstance(scaled, Weighted):
            bias = None if scaled.bias is None else _whole(scaled.bias * factor)
            scaled = replace(scaled, weight=_whole(scaled.weight * factor), bias=bias)
        elif not self._passes(node) or not all(self._lift(read, factor) for read in node.reads):
            return False
        elif isinstance(scaled, Sum):
            scaled = replace(scaled, constant=scaled.constant * factor)
        known = scaled.known
        scaled = scaled if known is None else replace(scaled, known=(known[0] * factor, known[1] * factor))
        self._changed[name] = replace(node, attributes=scaled)
        return True

    def _tells(self, node: Node) -> bool:
        """Would a node say what it is divided by, where that is not told?"""
        if self._told:
            return False
        plain = isinstance(node.attributes, Sum) and node.attributes.constant != 0  # which stands in the plan
        return plain or (self._splits and _is_told(node))

    @staticmethod
    def _passes(node: Node) -> bool:
        """Is its result on a multiple of what it reads that multiple of its result?"""
        if node.op == "relu":
            return not hasattr(node.attributes, "ceiling")
        if isinstance(node.attributes, Sum):
            return node.attributes.fills is None
        return node.op in MOVES or node.op in ("maximum", "total")


def _is_told(node: Node) -> bool:
    return isinstance(node.attributes, Weighted | Constant) and node.attributes.public


def _whole(values: np.ndarray) -> np.ndarray:
    """Numbers that were whole but for their last bits are that again."""
    near = np.rint(values)
    return np.asarray(np.where(np.abs(values - near) <= _SAME * np.maximum(np.abs(values), 1.0), near, values))
