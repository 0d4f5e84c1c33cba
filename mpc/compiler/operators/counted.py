"""Divide by what counts leave: 1 - n / 8, or 1 - n / m, of whole numbers n and m.

A language model of proteins divides what it embeds by the share of tokens that are not masked.  Bounds show of such a
divisor only that it can be 0, and one over it would keep digits for numbers as near to 0 as fixed point has.  But what
is not 0 is a whole step away from it: an eighth in the first case; and the second is (m - n) / m.
"""

from __future__ import annotations

import math

from mpc.compiler.graph.attributes import Function, Sum, Weighted
from mpc.compiler.graph.graph import MOVES, Node
from mpc.compiler.operators.context import Context

_NEAR = 1e-4
"""A float32's quotient of two constants is a whole number if it is so near to one."""


def inverse(state: Context, x: str) -> str | None:
    """Return 1 / x of what counts leave, where 0 counts as a part of a step; None of other values.

    What may be negative as far as bounds tell is refused as that of other values is, but of m - n of two counts, whose
    bounds do not know of each other: there each negative number counts as a part of a step too, and a note says so.

    Of the step a plan, which parties see, has the power of two alone.
    """
    if state.splits and not state.told:  # a plan has the step, which parties see
        return None
    weight, bias, name, moved = 1.0, 0.0, x, False
    while name not in state.integral and (node := _writer(state, name)) is not None:
        if (affine := _affine(node)) is not None:
            bias, weight = bias + weight * affine[1], weight * affine[0]
        elif node.op == "multiply" and not moved and abs(weight) == abs(bias) == 1:  # a plan has these factors
            return _of_quotient(state, node, (weight, bias), x)
        elif node.op not in MOVES:
            return None
        else:
            moved = moved or node.op != "reshape"
        name = node.reads[0]
    if name not in state.integral or _whole(weight) or not _whole(bias / weight):
        return None
    floor = 2.0 ** math.floor(math.log2(abs(weight) / 2))
    return state.function("reciprocal", x, floor=floor, positive=True)


def _affine(node: Node) -> tuple[float, float] | None:
    """Return the one factor, not 0, and the one number to be added of a node that has no others."""
    if node.op == "scale":
        taken = node.of(Weighted)
        added = 0.0 if taken.bias is None else taken.bias
        if taken.weight.size == 1 and taken.weight.any() and getattr(added, "size", 1) == 1:
            return float(taken.weight.flat[0]), float(added if isinstance(added, float) else added.flat[0])
    elif node.op == "sum" and len(node.reads) == 1 and node.of(Sum).factors[0] and node.of(Sum).fills is None:
        return float(node.of(Sum).factors[0]), float(node.of(Sum).constant)
    return None


def _writer(state: Context, name: str) -> Node | None:
    """Return the node that writes a value; None of inputs.  Divisors have been written lately."""
    return next((node for node in reversed(state.nodes) if node.writes == name), None)


def _of_quotient(state: Context, product: Node, outer: tuple[float, float], x: str) -> str | None:
    """Return one over weight n / m + bias: m / (weight n + bias m)."""
    for n, over in (product.reads, product.reads[::-1]):
        node = _writer(state, over)
        if node is None or node.op != "function" or node.of(Function).name != "reciprocal" or n not in state.integral:
            continue
        m, (weight, bias) = node.reads[0], outer
        if m not in state.integral or state.shapes[m] != state.shapes[n]:
            return None
        left = state.sum((n, m), (round(weight), round(bias)))
        found = state.multiply(state.value(m), state.function("reciprocal", left, floor=0.5))
        return state.reshape(found, state.shapes[x])
    return None


def _whole(number: float) -> bool:
    return abs(number - round(number)) <= _NEAR * abs(number)
