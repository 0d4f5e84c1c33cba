"""Ranges and bounds from samples, for inputs whose range nobody knows and for models too deep to be bounded.

Intervals grow with every layer; after a dozen of them what can be proved is often far beyond
what ever happens.  On samples the owner sees how large each value gets, and may take that, times
a margin, as its bound.  Such a bound is no proof: data unlike the samples may exceed it, and then
the answer is wrong (never visible to anybody: masks stay uniform).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mpc.compiler.evaluate import evaluate
from mpc.compiler.graph import Graph, Range
from mpc.wires import BATCH

MARGIN = 4.0
_BLOCK_ROWS = 32
_BOUNDED = frozenset({"matmul", "conv", "scale", "multiply", "sum", "total"})

Feeds = Mapping[str, np.ndarray]


def ranges_around(feeds: Feeds, columns: bool = False) -> dict[str, Range]:
    """A power of two around the data of each input.

    Parties see them in the plan, and so a little of the data: its size, to a factor of two.

    Args:
        feeds: samples of every input.
        columns: one range for each column of the last axis.
    """
    return {name: _around(np.abs(values), columns and values.ndim > 1) for name, values in feeds.items()}


def _around(sizes: np.ndarray, columns: bool) -> Range:
    """-2^e : 2^e, 2^-10 at least."""
    most = sizes.reshape(-1, sizes.shape[-1]).max(axis=0) if columns else sizes.max()
    ends = np.exp2(np.ceil(np.log2(np.maximum(most.astype(np.float64), 2.0**-10))))
    if ends.ndim == 0:
        return -float(ends), float(ends)
    return tuple((-ends).tolist()), tuple(ends.tolist())


def bounded_by(graph: Graph, feeds: Feeds) -> Graph:
    """The graph whose sums and products are known to stay within `MARGIN` times what they are on the samples."""
    largest: dict[str, float] = {}
    for block in _blocks(graph, feeds):
        for node, value in evaluate(graph, block):
            if node.op in _BOUNDED:
                size = float(np.abs(value).max(initial=0.0))
                largest[node.writes] = max(size, largest.get(node.writes, 0.0))
    nodes = []
    for node in graph.nodes:
        if node.op in _BOUNDED:
            most = max(MARGIN * largest[node.writes], 2.0**-10)
            low, high = node.attributes.get("known", (-np.inf, np.inf))
            known = (max(low, -most), min(high, most))
            node = replace(node, attributes={**node.attributes, "known": known})
        nodes.append(node)
    return Graph(graph.inputs, nodes, graph.outputs)


def _blocks(graph: Graph, feeds: Feeds) -> list[dict[str, np.ndarray]]:
    """A few rows at a time, so that memory stays bounded."""
    batched = {given.name for given in graph.inputs if BATCH in given.shape}
    rows = max((len(feeds[name]) for name in batched), default=1)
    return [
        {name: v[start : start + _BLOCK_ROWS] if name in batched else v for name, v in feeds.items()}
        for start in range(0, rows, _BLOCK_ROWS)
    ]
