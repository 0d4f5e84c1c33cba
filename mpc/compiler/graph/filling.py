"""Let what reads numbers put in for missing ones, x + marks fill, read x and the marks themselves: in no round more.

The importer of an Imputer leaves at its sum what x is where marks are 1: `fills`.  See `operators.missing`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mpc.compiler.graph.attributes import Affine, Concat, Sum, Weighted
from mpc.compiler.graph.graph import Graph, Node, simple_factor, static


def join_filled(graph: Graph) -> Graph:
    """Take the filling into the weights of linear layers and comparisons of filled numbers, and past scalings."""
    for name in [node.writes for node in graph.nodes if _fills(node) is not None]:
        found = _Filled.of(graph, name)
        while found is not None and (scaled := found.sole_scale()) is not None:
            graph = found.pass_on(scaled)
            found = _Filled.of(graph, scaled.writes)
        graph = graph if found is None else found.join()
    return graph


class _Filled:
    """A sum x + marks fill in its graph."""

    def __init__(self, graph: Graph, total: Node, fills: np.ndarray, scale: Node) -> None:
        self._graph, self._total, self._fills, self._scale = graph, total, fills, scale
        self._x, [self._marks] = total.reads[0], scale.reads

    @classmethod
    def of(cls, graph: Graph, name: str) -> _Filled | None:
        writers = graph.writers
        total, fills = writers[name], _fills(writers[name])
        scale = writers.get(total.reads[1])
        return (
            cls(graph, total, fills, scale) if fills is not None and scale is not None and scale.op == "scale" else None
        )

    def sole_scale(self) -> Node | None:
        """The scaling that alone reads it, unless that is free or repeats it."""
        reader = self._graph.sole_reader(self._total.writes)
        if reader is None or reader.op != "scale" or reader.shape != self._total.shape:
            return None
        if reader.attributes.known is not None or simple_factor(reader.of(Weighted).weight) is not None:
            return None
        return reader

    def pass_on(self, reader: Node) -> Graph:
        """The graph in which x and the filling are scaled, and then added."""
        total, weight, bias = self._total, reader.of(Weighted).weight, reader.of(Weighted).bias
        x = replace(reader, reads=(self._x,), writes=f"{reader.writes}/there")
        public = self._scale.of(Weighted).public and reader.of(Weighted).public
        fill = Weighted(weight=self._scale.of(Weighted).weight * weight, bias=None, public=public)
        filling = replace(self._scale, writes=f"{reader.writes}/filling", attributes=fill)
        fills = self._fills * weight + (0.0 if bias is None else bias)
        attributes = replace(total.of(Sum), fills=np.broadcast_to(fills, static(total.shape)))
        added = replace(total, reads=(x.writes, filling.writes), writes=reader.writes, attributes=attributes)
        return self._with({reader.writes: [x, filling, added], total.writes: []}, self._scale)

    def join(self) -> Graph:
        """The graph in which layers read x and the marks side by side, if only layers read the sum."""
        total, readers = self._total, list(self._graph.readers(self._total.writes))
        fill = np.broadcast_to(self._scale.of(Weighted).weight, static(total.shape))
        layers = all(isinstance(r.attributes, Affine) and r.attributes.weight.ndim == 2 for r in readers)
        if self._graph.is_output(total.writes) or not layers or len(total.shape) != 2 or not readers:
            return self._graph
        fills = self._fills
        if (fill != fill[0]).any() or (fills != fills[0]).any():  # rows that the model fixes, each filled differently
            return self._graph
        features = fill.shape[1]
        shape, name = (total.shape[0], 2 * features), f"{total.writes}/beside"
        beside = Node("concat", (self._x, self._marks), name, shape, total.origin, Concat(axis=1))
        told = self._scale.of(Weighted).public
        changed = {reader.writes: [_reading(reader, name, fill[0], fills[0], told=told)] for reader in readers}
        return self._with({**changed, total.writes: [beside]}, self._scale)

    def _with(self, changed: dict[str, list[Node]], without: Node) -> Graph:
        nodes = [new for node in self._graph.nodes if node is not without for new in changed.get(node.writes, [node])]
        return Graph(self._graph.inputs, nodes, self._graph.outputs)


def _fills(node: Node) -> np.ndarray | None:
    return node.attributes.fills if isinstance(node.attributes, Sum) else None


def _reading(layer: Node, name: str, fill: np.ndarray, entered: np.ndarray, *, told: bool) -> Node:
    """A layer of filled numbers as one of x and its marks; comparisons of one feature each know how they end there.

    Args:
        told: the parties may be told what is put in.
    """
    taken = layer.of(Affine)
    weight, bias = taken.weight, 0.0 if taken.bias is None else taken.bias
    joined = np.concatenate([weight, fill[:, None] * weight])
    found = replace(taken, weight=joined, public=taken.public and told)
    if taken.signs and (np.count_nonzero(weight, axis=0) <= 1).all():
        ends = np.where((fill + entered) @ weight + bias >= 0, 1.0, -1.0)
        found = replace(found, weight=np.concatenate([weight, (weight != 0) * ends]), marks=len(fill))
    return replace(layer, reads=(name,), attributes=found)
