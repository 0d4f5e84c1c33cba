"""Averages by weights that are reals: a sum of values times weights over the sum of the weights, or a little more.

No interval sees that it is no larger than the values.  What is found here, the lowering computes so that it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from mpc.compiler.graph.attributes import Take, Total, Weighted
from mpc.compiler.graph.graph import Node
from mpc.compiler.operators.averages import placed, repeats, reshaped
from mpc.compiler.operators.context import Context
from mpc.compiler.operators.facts import Axes

_Writers = Mapping[str, Node]


def is_average(state: Context, left: str, right: str) -> bool:
    """Is this quotient of sums an average by weights, and is each divided by the sum of its own?"""
    if state.is_constant(left) or (state.splits and not state.told):  # a plan shows which it is
        return False
    writers = {node.writes: node for node in state.nodes}
    below = _sum(state, writers, right, True)
    above = _sum(state, writers, left, False)
    if below is None or above is None:
        return False
    weights, places = placed(state, writers, below[0].reads[0])
    product = writers.get(above[0].reads[0])
    if product is None or product.op != "multiply" or product.reads[0] == product.reads[1]:
        return False
    of_product = [found[1] for read in product.reads if (found := placed(state, writers, read))[0] == weights]
    if len(of_product) != 1:
        return False
    wide: Axes = (None,) * (len(product.shape) - len(of_product[0])) + of_product[0]
    summed = [{each[axis] for axis in node.of(Total).axes} for each, (node, _) in ((places, below), (wide, above))]
    if summed[0] != summed[1] or None in summed[0]:
        return False
    own, other = (_left(state, *found, each) for found, each in ((below, places), (above, wide)))
    if len(own) > len(other) or {*own} | {None} != {*other} | {None}:
        return False
    return all(axis in (None, at) for axis, at in zip(own, other[len(other) - len(own) :], strict=True))


def _sum(state: Context, writers: _Writers, name: str, divides: bool) -> tuple[Node, list[Node]] | None:
    """Return the sum that a value is, and the moves from there, first to last; a divisor may be a little more, and
    kept from zero.
    """
    moves, added, held = list[Node](), 0.0, False
    while (node := writers.get(name)) is not None and node.op != "total":
        if node.op == "scale" and divides:
            weight, bias = node.of(Weighted).weight, node.of(Weighted).bias
            if (weight != 1.0).any() or (bias is not None and bias.size != 1):
                return None
            added += 0.0 if bias is None else float(bias.flat[0])
        elif node.op == "relu" and divides and not held:
            held = True
        elif repeats(state, node) and (divides or node.op == "reshape"):
            moves.insert(0, node)
        else:
            return None
        [name] = node.reads
    return (node, moves) if node is not None and added >= 0 and node.of(Total).divisor == 1 else None


def _left(state: Context, total: Node, moves: list[Node], places: Axes) -> Axes:
    """Return which axes of weights those of a value are that is a sum, moved."""
    axes: Axes = tuple(None if axis in total.of(Total).axes else place for axis, place in enumerate(places))
    for node in moves:
        if node.op == "take":
            axes = tuple(None if axis == node.of(Take).axis else place for axis, place in enumerate(axes))
        else:
            axes = reshaped(state, node, axes)
    return axes
