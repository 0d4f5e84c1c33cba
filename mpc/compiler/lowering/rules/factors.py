"""Say how fine two factors are of which one is large and the other small, as x and one over its deviation are.

What one unit of either changes the product by is a unit times the other's largest value.  Where that is much beside
what is known of the product, the smaller factor keeps more bits and the larger one fewer.
"""

from __future__ import annotations

import math
from dataclasses import replace

from mpc.compiler.graph.graph import Node
from mpc.compiler.lowering.builder import Lowering
from mpc.compiler.lowering.emitted import Value
from mpc.compiler.lowering.scales import log2

_PART = 1 / 64
"""The part of what is known of a product that roundings of its factors may be, and still count with others."""

Pair = tuple[Value, Value]


def as_fine(state: Lowering, node: Node, whole: Pair, short: Pair, bits: int) -> tuple[Pair, Node]:
    """Return the factors, and a node whose known ends have room for what they are off by.

    Args:
        whole, short: both factors as they are, and as they were shortened.
        bits: how many the product may have.
    """
    known = node.attributes.known
    size = max(map(abs, known or (math.inf,)))
    if known is None or not 0 < size < math.inf or _off(whole, short) <= _PART * size:
        return short, node
    fraction = bits - 2 - max(0, math.ceil(math.log2(size)))
    sizes = [max(each.interval.bound, 1.0) / float(each.scale) for each in whole]
    first = (fraction - round(math.log2(sizes[0] / sizes[1]))) // 2
    first = min(log2(whole[0].scale), max(first, fraction - log2(whole[1].scale)))
    short = state.shorten(whole[0], first), state.shorten(whole[1], fraction - first)
    off = _off(whole, short)
    if off > _PART * size:
        node = replace(node, attributes=replace(node.attributes, known=(known[0] - off, known[1] + off)))
    return short, node


def _off(whole: Pair, short: Pair) -> float:
    """Return how much the roundings of two factors change their product by at most, in the model's units."""
    units = [0.0 if before is after else 1 / float(after.scale) for before, after in zip(whole, short, strict=True)]
    sizes = [each.interval.bound / float(each.scale) for each in short]
    return units[0] * sizes[1] + units[1] * sizes[0]
