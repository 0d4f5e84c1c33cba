"""Digits of the series in a step's loss: as many as cost next to nothing.

A series rounds each of its terms, and what that leaves of p - y is most of what a step is off by.  More fractional bits
are no bytes, since a field element is opened and dealt in any case, but weights have the scale of their gradients, so
they are bits of every weight; where these have no room, operands are shortened, which costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mpc.compiler.graph.attributes import Link
from mpc.compiler.graph.graph import Graph
from mpc.compiler.training.lowering import LoweredStep
from mpc.compiler.training.precision import LOSS_BITS, Precision, loss_bits
from mpc.compiler.training.step import Step
from mpc.errors import ModelError
from mpc.plan.cost import plan_cost

_FINER = (20, 18, 16)
"""Fractional bits that are tried, the most first: with 20 the series' fit is what p is off by."""
_MORE, _FEW_BYTES = 1 / 128, 256
"""The part that is hardly a byte more, and what is few bytes of a step however small it is."""


def series_bits(step: Step, precision: Precision, lowered: Callable[[Step], LoweredStep]) -> int:
    """Return the fractional bits that the series of a step are to have.

    They follow from what is public, and from no more than moves weights: pass the step that tells nothing, since all
    steps of a training have states of the same scales.

    Args:
        lowered: makes the plan of a step.
    """
    if precision.loss is not None or not any(node.op == "link" for node in step.graph.nodes):
        return loss_bits(precision)
    try:
        usual = plan_cost(lowered(step).plan)
    except ModelError:  # which is said in full when the step itself is lowered
        return LOSS_BITS
    for bits in _FINER:
        try:
            cost = plan_cost(lowered(with_series_of(step, bits)).plan)
        except ModelError:
            continue
        if (
            cost.rounds <= usual.rounds
            and _hardly_more(cost.sent, usual.sent)
            and _hardly_more(cost.dealt, usual.dealt)
        ):
            return bits
    return LOSS_BITS


def _hardly_more(found: int, usual: int) -> bool:
    return found <= usual * (1 + _MORE) + _FEW_BYTES


def with_series_of(step: Step, bits: int) -> Step:
    """Return a step whose series have results of so many fractional bits."""
    nodes = [
        replace(node, attributes=replace(node.of(Link), fraction=bits)) if node.op == "link" else node
        for node in step.graph.nodes
    ]
    return replace(step, graph=Graph(step.graph.inputs, nodes, step.graph.outputs))
