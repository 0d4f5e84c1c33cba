"""Thresholds that everybody may know: a value that is compared with many of them is compared once.

A step gate has public levels, and a person's row changes few of its bits: sums of bins cost as little as one.  Secret
thresholds are added to copies of the value instead, each of which is compared by itself.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mpc.compiler.graph.attributes import Step, Take, Weighted
from mpc.compiler.graph.graph import Graph, Node, Shape

HELD = 16
"""Bits of what is compared with many levels, where noise protects it: bits that fall cost a sum least."""
_MOST_LEVELS = 64


def join_levels(graph: Graph, noised: bool) -> Graph:
    """Return the graph of a model whose constants are public, with thresholds of one value as levels of one step.

    Args:
        noised: its sums over rows get noise.
    """
    held = HELD if noised else None
    shapes = {given.name: given.shape for given in graph.inputs} | {node.writes: node.shape for node in graph.nodes}
    writers = {node.writes: node for node in graph.nodes}
    taken, nodes = {*shapes}, list[Node]()
    for node in graph.nodes:
        before = writers.get(node.reads[0]) if node.op == "step" else None
        apart = None if before is None else _thresholds(before, shapes)
        if before is None or apart is None:
            nodes.append(node)
        else:
            nodes += _joined(node, before.reads[0], shapes, apart, taken, held)
    return Graph(graph.inputs, nodes, graph.outputs)


def _thresholds(node: Node, shapes: dict[str, Shape]) -> np.ndarray | None:
    """Return t of the values x - t, if x is one number, and they differ along the last axis alone."""
    if node.op != "scale":
        return None
    weight, bias = node.of(Weighted).weight, node.of(Weighted).bias
    own, count = shapes[node.reads[0]], node.shape[-1:]
    if bias is None or (weight != 1).any() or bias.size in (0, 1) or count != (bias.size,) or bias.shape[-1:] != count:
        return None
    return -bias.reshape(-1) if own == (*node.shape[:-1], 1) else None


def _joined(
    node: Node, x: str, shapes: dict[str, Shape], thresholds: np.ndarray, taken: set[str], held: int | None
) -> list[Node]:
    """One step with all levels, of which each place takes its own."""
    wanted = thresholds[:, None] + np.array(node.of(Step).levels)
    levels, places = np.unique(wanted, return_inverse=True)
    outer, count = shapes[x][:-1], len(levels)
    if count > _MOST_LEVELS:
        return [node]
    steps, flat, picked = (_free(f"{node.writes}/{part}", taken) for part in ("levels", "flat", "taken"))
    indices = tuple(int(place) for place in places.reshape(-1))
    return [
        replace(
            node,
            reads=(x,),
            writes=steps,
            shape=(*outer, 1, count),
            attributes=replace(node.of(Step), levels=tuple(levels.tolist()), held=held),
        ),
        Node("reshape", (steps,), flat, (*outer, count), node.origin),
        Node("take", (flat,), picked, (*outer, len(indices)), node.origin, Take(axis=len(outer), indices=indices)),
        Node("reshape", (picked,), node.writes, node.shape, node.origin),
    ]


def _free(name: str, taken: set[str]) -> str:
    found = next(each for n in range(len(taken) + 1) if (each := f"{name}{n or ''}") not in taken)
    taken.add(found)
    return found
