"""Passes over the graph, each small and named; `PASSES` is their order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mpc.compiler.graph import Graph, Node


def drop_empty_reshapes(graph: Graph) -> Graph:
    """A reshape to the same shape is the value itself."""
    shapes = {given.name: given.shape for given in graph.inputs} | {n.writes: n.shape for n in graph.nodes}
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.nodes:
        node = replace(node, reads=tuple(renamed.get(name, name) for name in node.reads))
        if node.op == "reshape" and node.shape == shapes[node.reads[0]]:
            renamed[node.writes] = node.reads[0]
        else:
            kept.append(node)
    outputs = [replace(out, value=renamed.get(out.value, out.value)) for out in graph.outputs]
    return Graph(graph.inputs, kept, outputs)


def sink_output_reshapes(graph: Graph) -> Graph:
    """A reshape that only an output reads happens at the recipient."""
    writers = {node.writes: node for node in graph.nodes}
    outputs = []
    for out in graph.outputs:
        while (node := writers.get(out.value)) is not None and node.op == "reshape":
            out = replace(out, value=node.reads[0])
        outputs.append(out)
    return Graph(graph.inputs, graph.nodes, outputs)


def drop_dead_nodes(graph: Graph) -> Graph:
    """What no output depends on is not computed."""
    needed = {out.value for out in graph.outputs}
    kept = []
    for node in reversed(graph.nodes):
        if node.writes in needed:
            kept.append(node)
            needed.update(node.reads)
    return Graph(graph.inputs, kept[::-1], graph.outputs)


def fold_linear(graph: Graph) -> Graph:
    """Scalings and bias additions become part of the affine node before or after them."""
    nodes = list(graph.nodes)
    changed = True
    while changed:
        changed = False
        for index, node in enumerate(nodes):
            following = Graph(graph.inputs, nodes, graph.outputs).sole_reader(node.writes)
            merged = _merge(node, following) if following is not None else None
            if merged is not None and following is not None:
                nodes[nodes.index(following)] = merged
                del nodes[index]
                changed = True
                break
    return Graph(graph.inputs, nodes, graph.outputs)


def _merge(first: Node, second: Node) -> Node | None:
    """second(first(x)) as one node, if both are linear and it is not larger than the two."""
    a, b = first.attributes, second.attributes
    if first.op == "scale" and second.op == "scale":
        linear = {"weight": a["weight"] * b["weight"], "bias": a["bias"] * b["weight"] + b["bias"]}
        return replace(second, reads=first.reads, attributes=linear)
    if first.op == "affine" and second.op == "scale":
        linear = {"weight": a["weight"] * b["weight"], "bias": _or_zero(a) * b["weight"] + b["bias"]}
        return replace(second, op="affine", reads=first.reads, attributes=linear)
    if first.op == "scale" and second.op == "affine":
        linear = {"weight": a["weight"][:, None] * b["weight"], "bias": a["bias"] @ b["weight"] + _or_zero(b)}
        return replace(second, reads=first.reads, attributes=linear)
    if first.op == "affine" and second.op == "affine":
        product_size = a["weight"].shape[0] * b["weight"].shape[1]
        if product_size > a["weight"].size + b["weight"].size:
            return None
        linear = {"weight": a["weight"] @ b["weight"], "bias": _or_zero(a) @ b["weight"] + _or_zero(b)}
        return replace(second, reads=first.reads, attributes=linear)
    return None


def _or_zero(attributes: dict) -> np.ndarray:
    bias = attributes["bias"]
    return np.zeros(attributes["weight"].shape[1]) if bias is None else bias


def scalings_to_affine(graph: Graph) -> Graph:
    """A scaling that nothing took up becomes a diagonal matrix."""
    nodes = [
        replace(
            node,
            op="affine",
            attributes={"weight": np.diag(node.attributes["weight"]), "bias": node.attributes["bias"]},
        )
        if node.op == "scale"
        else node
        for node in graph.nodes
    ]
    return Graph(graph.inputs, nodes, graph.outputs)


PASSES = (
    drop_empty_reshapes,
    sink_output_reshapes,
    drop_dead_nodes,
    fold_linear,
    scalings_to_affine,
)
"""In this order, before scales and bounds are assigned (`lower`)."""


def run_passes(graph: Graph) -> Graph:
    """All of them."""
    for each in PASSES:
        graph = each(graph)
    return graph
