"""Passes over the graph, each small and named; `PASSES` is their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace

import numpy as np

from mpc.compiler.graph.attributes import Attributes, Maximum, Transpose, Weighted
from mpc.compiler.graph.filling import join_filled
from mpc.compiler.graph.gated import join_gated
from mpc.compiler.graph.graph import MOVES, Graph, Node, Shape
from mpc.compiler.graph.merging import merge
from mpc.compiler.graph.quanta import lift_scales, part_scales
from mpc.compiler.graph.rewriting import Rewriting


def drop_empty_moves(graph: Graph) -> Graph:
    """Drop reshapes to the shape that is there, and transpositions of nothing."""
    shapes = {given.name: given.shape for given in graph.inputs} | {n.writes: n.shape for n in graph.nodes}
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.nodes:
        node = _renamed(node, renamed)
        if node.reads and _is_empty(node, shapes[node.reads[0]]):
            renamed[node.writes] = node.reads[0]
        else:
            kept.append(node)
    outputs = [replace(out, value=renamed.get(out.value, out.value)) for out in graph.outputs]
    return Graph(graph.inputs, kept, outputs)


def _is_empty(node: Node, before: Shape) -> bool:
    if node.shape != before:
        return False
    if isinstance(node.attributes, Transpose):
        return node.attributes.axes == tuple(range(len(node.attributes.axes)))
    return node.op == "reshape"


def _renamed(node: Node, renamed: dict[str, str]) -> Node:
    return replace(node, reads=tuple(renamed.get(name, name) for name in node.reads))


def join_reshapes(graph: Graph) -> Graph:
    """Let a reshape of a reshape read the first one's input."""
    writers = {node.writes: node for node in graph.nodes}
    nodes = []
    for node in graph.nodes:
        before = writers.get(node.reads[0]) if node.op == "reshape" else None
        if before is not None and before.op == "reshape":
            node = replace(node, reads=before.reads)
        writers[node.writes] = node
        nodes.append(node)
    return Graph(graph.inputs, nodes, graph.outputs)


def sink_output_reshapes(graph: Graph) -> Graph:
    """Leave to the recipient a reshape that only an output reads."""
    outputs = []
    for out in graph.outputs:
        while (node := graph.writers.get(out.value)) is not None and node.op == "reshape":
            out = replace(out, value=node.reads[0])
        outputs.append(out)
    return Graph(graph.inputs, graph.nodes, outputs)


def join_squares(graph: Graph) -> Graph:
    """Write -x x, as in exp(-x x / 2), as a square that is negated: of a square it is known that it is not negative."""
    writers = {node.writes: node for node in graph.nodes}
    nodes: list[Node] = []
    for node in graph.nodes:
        x = _negated(writers, node) if node.op == "multiply" else None
        if x is None:
            nodes.append(node)
            continue
        square = f"{node.writes}.square"
        nodes.append(replace(node, reads=(x, x), writes=square, attributes=Attributes()))
        negative = Weighted(weight=np.asarray(-1.0), bias=None, known=node.attributes.known)
        nodes.append(replace(node, op="scale", reads=(square,), attributes=negative))
    return Graph(graph.inputs, nodes, graph.outputs)


def _negated(writers: Mapping[str, Node], node: Node) -> str | None:
    """Return x of a product of x and -x, in whichever order."""
    for first, second in (node.reads, node.reads[::-1]):
        scale = writers.get(first)
        if scale is not None and scale.op == "scale" and scale.reads[0] == second and scale.shape == node.shape:
            if np.all(scale.of(Weighted).weight == -1.0) and scale.of(Weighted).bias is None:
                return second
    return None


def drop_dead_nodes(graph: Graph) -> Graph:
    """Drop the nodes that no output depends on."""
    needed = {out.value for out in graph.outputs}
    kept = []
    for node in reversed(graph.nodes):
        if node.writes in needed:
            kept.append(node)
            needed.update(node.reads)
    return Graph(graph.inputs, kept[::-1], graph.outputs)


def fold_linear(graph: Graph) -> Graph:
    """Fold scalings, batch-norms and biases into the linear layer before or after them."""
    shapes = {given.name: given.shape for given in graph.inputs} | {n.writes: n.shape for n in graph.nodes}
    rewritten = Rewriting(graph)
    node = rewritten.first
    while node is not None:
        following = rewritten.sole_reader(node.writes)
        merged = merge(node, following, shapes[node.reads[0]]) if following is not None and node.reads else None
        if merged is None:
            node = rewritten.behind(node)
            continue
        rewritten.replace(merged)
        before = rewritten.before(node)
        rewritten.drop(node)
        node = rewritten.first if before is None else before
    return rewritten.graph


def scale_in_readers(graph: Graph) -> Graph:
    """Let layers read what was scaled, as the gain of a normalisation does, with the scaling in their own weights.

    Others may read the scaled value all the same; a layer does not wait for it then.
    """
    shapes = {given.name: given.shape for given in graph.inputs} | {n.writes: n.shape for n in graph.nodes}
    writers = {node.writes: node for node in graph.nodes}
    nodes = []
    for node in graph.nodes:
        before = writers.get(node.reads[0]) if node.op == "matmul" and len(node.reads) == 1 else None
        above = writers.get(before.reads[0]) if before is not None and before.op == "scale" else None
        merged = None
        if before is not None and above is not None and above.op == "multiply":
            merged = merge(before, node, shapes[before.reads[0]])
        nodes.append(node if merged is None else merged)
    return Graph(graph.inputs, nodes, graph.outputs)


def share_steps(graph: Graph) -> Graph:
    """Compute equal nodes that read equal values once."""
    seen: dict[object, str] = {}
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.nodes:
        node = _renamed(node, renamed)
        key = _key(node)
        if key is not None and key in seen and not graph.is_output(node.writes):
            renamed[node.writes] = seen[key]
            continue
        if key is not None:
            seen.setdefault(key, node.writes)
        kept.append(node)
    return Graph(graph.inputs, kept, graph.outputs)


def _key(node: Node) -> object:
    values: list[object] = [node.op, node.reads, node.shape]
    for value in (getattr(node.attributes, each.name) for each in fields(node.attributes)):
        if isinstance(value, np.ndarray):
            return None
        values.append(tuple(sorted(value.items())) if isinstance(value, dict) else value)
    return tuple(values)


def fuse_pooling(graph: Graph) -> Graph:
    """Make a ReLU before or behind a maximum, with only moves between them, part of it.

    max(relu(x)) = relu(max(x)) = max(0, x): what is compared anyway decides the sign as well.
    """
    rewritten = Rewriting(graph)
    for name in [node.writes for node in graph.nodes if node.op == "maximum"]:
        node = rewritten.nodes[name]
        found = _chain(node, rewritten.next) or _chain(node, rewritten.previous)
        if found is not None:
            rewritten.replace(replace(node, attributes=replace(node.of(Maximum), rectify=True)))
            rewritten.bypass(found)
    return rewritten.graph


def _chain(node: Node, neighbour: Callable[[Node], Node | None]) -> Node | None:
    """The ReLU that only moves of one value separate from a maximum."""
    current = neighbour(node)
    while current is not None and current.op in MOVES - {"concat"}:
        current = neighbour(current)
    return current if current is not None and current.op == "relu" else None


PASSES = (
    drop_empty_moves,
    join_reshapes,
    sink_output_reshapes,
    join_squares,
    join_gated,
    drop_dead_nodes,
    part_scales,
    lift_scales,
    fold_linear,
    scale_in_readers,
    drop_dead_nodes,
    join_filled,
    drop_empty_moves,
    share_steps,
    fuse_pooling,
    sink_output_reshapes,
    drop_dead_nodes,
)
"""In this order, after shapes and constants (`the import`), before scales and bounds (`lowering`)."""


def run_passes(graph: Graph) -> Graph:
    """Run all passes, in their order."""
    for each in PASSES:
        graph = each(graph)
    return graph
