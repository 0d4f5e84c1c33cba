"""Say what is known of x - max x, and of its powers, where the maximum is rounded.

A maximum of long wires is found in coarse steps, since no comparison has room for all of their bits.  Then x - max x
may be positive by two steps, as the maximum is rounded and so is what was compared, or negative by as much where x is
largest; and what follows from it has room for that.
"""

from __future__ import annotations

import math
from dataclasses import replace

from mpc.compiler.graph.attributes import Ends, Function
from mpc.compiler.graph.graph import MOVES, Node
from mpc.compiler.lowering.builder import Lowering
from mpc.compiler.lowering.emitted import SMALLER

_FINE = 2.0**-10
"""A step that is no larger is counted with other roundings."""
_STEPS = 2
_COARSEST = 4.0
"""Take powers of no more: their series is fitted a little further only (`mpc.compiler.functions`)."""


def with_step(state: Lowering, node: Node) -> Node:
    """Return a node whose known ends have room for the steps that a maximum is found in.

    Raises:
        ModelError: the step is so coarse that powers of x - max x say nothing.
    """
    known = node.attributes.known
    if known is None:
        return node
    ends = known
    if node.op == "sum":
        ends = known[0], known[1] + _step(state, node)
    elif node.op == "function" and node.of(Function).name == "exp_negative":
        ends = known[0], known[1] * math.exp(_required(state, node))
    elif node.op == "total":
        ends = _scaled(known, _of_powers(state, node.reads[0]))
    elif node.op == "function" and node.of(Function).name == "reciprocal":
        total = state.graph.writers.get(node.reads[0])
        ends = _scaled(known, _of_powers(state, total.reads[0]) if total is not None and total.op == "total" else 0.0)
    return node if ends == known else replace(node, attributes=replace(node.attributes, known=ends))


def _scaled(known: Ends, step: float) -> Ends:
    return known[0] * math.exp(-step), known[1] * math.exp(step)


def _required(state: Lowering, node: Node) -> float:
    """Return the step in the argument of a power, which is refused if it is too coarse."""
    step = _of_argument(state, node)
    if step > _COARSEST:
        raise state.origin.refuse(
            f"the maximum that its argument is compared with is found in steps of {step:.2g}", remedy=SMALLER
        )
    return step


def _of_powers(state: Lowering, name: str) -> float:
    """Return the step in the argument of powers, which may have been moved; 0 of other values."""
    power = _moved(state, name)
    if power is None or power.op != "function" or power.of(Function).name != "exp_negative":
        return 0.0
    return _of_argument(state, power)


def _of_argument(state: Lowering, power: Node) -> float:
    rest = _moved(state, power.reads[0])
    return _step(state, rest) if rest is not None and rest.op == "sum" else 0.0


def _step(state: Lowering, node: Node) -> float:
    """Return the step of a maximum that is subtracted from finer values."""
    if len(node.reads) != 2:
        return 0.0
    top = _moved(state, node.reads[1])
    if top is None or top.op != "maximum":
        return 0.0
    step = 1 / float(state.values[node.reads[1]].scale)
    return _STEPS * step if step > max(_FINE, 1 / float(state.values[node.reads[0]].scale)) else 0.0


def _moved(state: Lowering, name: str) -> Node | None:
    """Return what writes a value, before its elements were moved about."""
    node = state.graph.writers.get(name)
    while node is not None and node.op in MOVES:
        node = state.graph.writers.get(node.reads[0])
    return node
