"""Tell of which values it is known that they are zeros and ones, as masks are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mpc.compiler.graph.attributes import Ends, Sum, Weighted
from mpc.compiler.graph.graph import MOVES, Node
from mpc.compiler.operators.context import Context

_DEEPEST = 24
"""So many nodes behind each other are looked at."""


def is_bit(state: Context, x: str) -> bool:
    """Does the model say of a value that it is zeros and ones, by its type or its declared range?"""
    return x in state.bits or state.inferred(x) == "bool"


def are_bits(state: Context, writers: Mapping[str, Node], x: str) -> bool:
    """Are whole numbers zeros and ones, as the model says or as follows from what they are made of?"""
    ends = _ends(state, writers, x, _DEEPEST, {})
    return x in state.integral and ends is not None and ends[0] >= 0 and ends[1] <= 1


def _ends(
    state: Context, writers: Mapping[str, Node], x: str, depth: int, found: dict[str, Ends | None]
) -> Ends | None:
    """Return numbers between which a value is that is made of zeros and ones; None of others."""
    if is_bit(state, x):
        return 0.0, 1.0
    if x not in found:
        node = writers.get(x)
        found[x] = None
        if node is not None and depth:
            parts = () if node.op == "step" else node.reads
            read = [_ends(state, writers, part, depth - 1, found) for part in parts]
            known = [each for each in read if each is not None]
            found[x] = _made(node, known) if len(known) == len(read) else None
            if (ends := node.attributes.known) is not None:
                low, high = found[x] or ends
                found[x] = max(low, ends[0]), min(high, ends[1])
    return found[x]


def _made(node: Node, read: list[Ends]) -> Ends | None:
    """Return the ends of what a node makes of values that have ends."""
    taken = node.attributes
    if node.op == "step":
        return 0.0, 1.0
    if node.op == "fit":
        return read[0]
    if node.op in MOVES:  # some put zeros in
        return min(0.0, *(low for low, _ in read)), max(0.0, *(high for _, high in read))
    if node.op == "multiply" and len(read) == 2:
        corners = [a * b for a in read[0] for b in read[1]]
        return min(corners), max(corners)
    if isinstance(taken, Sum) and taken.fills is None:
        ends = [sorted((factor * low, factor * high)) for factor, (low, high) in zip(taken.factors, read, strict=True)]
        return taken.constant + sum(low for low, _ in ends), taken.constant + sum(high for _, high in ends)
    if isinstance(taken, Weighted) and node.op == "scale":
        [(low, high)] = read
        bias = np.zeros(()) if taken.bias is None else np.asarray(taken.bias)
        made = [taken.weight * end + bias for end in (low, high)]
        return float(np.minimum(*made).min()), float(np.maximum(*made).max())
    return None
