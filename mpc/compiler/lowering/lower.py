"""One rule an operator: which gates a graph node becomes, at which scales."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from mpc.compiler.graph.attributes import Constant, Function, Weighted
from mpc.compiler.graph.graph import MOVES, Graph, GraphInput, Node, Origin
from mpc.compiler.lowering import approximate, ends, masked, states
from mpc.compiler.lowering.builder import Lowering
from mpc.compiler.lowering.checked import with_fewest_tags
from mpc.compiler.lowering.emitted import SMALLER, Value
from mpc.compiler.lowering.known import known_interval
from mpc.compiler.lowering.rounds import with_fewer_rounds
from mpc.compiler.lowering.rules import (
    combinations,
    comparisons,
    constants,
    gradients,
    maps,
    noises,
    norms,
    pooled,
    products,
    quotients,
    ratios,
    rounding,
    sums,
)
from mpc.compiler.lowering.rules.together import contracted, with_room
from mpc.compiler.lowering.rules.tops import with_step
from mpc.compiler.lowering.settling import Settling
from mpc.compiler.roles import Roles
from mpc.errors import InputError, ModelError
from mpc.plan.plan import Plan
from mpc.plan.verify import verify
from mpc.privacy.facts import Guarantee, StoredFacts
from mpc.privacy.guarantee import guarantee

Rule = Callable[[Lowering, Node], Value]

_FAR = 1e10
_NEARER = "a number that is nearer to zero and does the same (in a mask, -1e4 does for minus infinity)"
_HIDES = 1e4
"""Whole numbers that are multiplied with so much may be a mask."""


@dataclass
class Lowered:
    """A plan, and what stays with the model's owner.

    Args:
        weights: int64 integers of each weight wire.
        origins: the model's node for each gate.
        rough: output -> the sum of its roundings as if they were independent, in the model's units.
        notes: what the owner should know.
        graph: that it was made of.
        wires: graph value -> the wire that holds it; not all are left in the plan.
        guarantee: what every party will prove of its noise, if there is any.
        proved: all bounds are; else some rest on samples.
        reach: how large values are that a maximum is taken of where a mask hides some, in the model's units; None if
            there are none.
    """

    plan: Plan
    weights: dict[str, np.ndarray] = field(repr=False)
    origins: dict[str, Origin]
    rough: dict[str, float]
    notes: list[str]
    graph: Graph = field(repr=False)
    wires: dict[str, str] = field(repr=False)
    guarantee: Guarantee | None = None
    proved: bool = True
    reach: float | None = None


def lower(graph: Graph, roles: Roles, protected: Mapping[str, StoredFacts] = MappingProxyType({})) -> Lowered:
    """Return the plan of a graph whose inputs all have ranges.

    Args:
        protected: of inputs with rows, what noise has to protect.
    """
    state = Lowering(graph, roles)
    inputs = ends.enter_all(state)
    state.protected = {state.values[name].wire.name: facts for name, facts in protected.items()}
    settling = Settling(graph, state)
    for number, node in enumerate(graph.nodes):
        state.origin, state.told = node.origin, roles.public_weights or _is_told(node)
        if node.op in _GROWING:
            state.values.update({name: state.plain(state.values[name]) for name in node.reads})
        try:
            node = with_step(state, with_room(state, node))
            value = RULES[node.op](state, node)
        except InputError as error:  # a constant that its scale has no room for
            masks = _declaring(graph, node)
            raise node.origin.refuse(error.what, remedy=f"replace it by {_NEARER}{masks and f'; or {masks}'}") from None
        except ModelError as error:
            made_of = [node, *(graph.writers[name] for name in node.reads if name in graph.writers)]
            if not (error.remedy or "").startswith(SMALLER):
                raise
            masks, remedy = _declaring(graph, node), error.remedy
            if any(map(_is_far, made_of)):
                remedy = f"replace a constant beyond {_FAR:g}, here or before it, by {_NEARER}"
            raise error.with_(remedy=f"{remedy}; or {masks}" if masks else remedy) from None
        state.values[node.writes] = value if node.op in _OF_ROWS else with_known(value, node)
        settling.follow(number, node.writes)
    left = [ends.leave(state, out) for out in graph.outputs if ends.is_told(state, out)]
    for out in graph.outputs:
        if out.carried:
            states.carry(state, out)
    state.drop_unread()
    state.choose_openings()
    state.choose_masks()
    outputs = tuple(out for out, _ in left)
    if roles.security == "active":
        state.gates = with_fewest_tags(state.gates, state.wires)
    state.gates = with_fewer_rounds(state.gates, state.wires, roles.link, roles.security)
    wires, gates = tuple(state.wires.values()), tuple(state.gates)
    plan = Plan(
        inputs=inputs,
        outputs=outputs,
        wires=wires,
        gates=gates,
        states=tuple(state.states),
        security=roles.security,
    )
    verify(plan)
    rough = {out.name: error for out, error in left}
    names = {name: value.wire.name for name, value in state.values.items()}
    proved = guarantee(plan, state.protected) if any(node.op in _OF_ROWS for node in graph.nodes) else None
    return Lowered(
        plan, state.weights, state.origins, rough, state.notes.told(), graph, names, proved, reach=state.reach
    )


def _declaring(graph: Graph, node: Node) -> str:
    """Word what to declare of inputs that may be masks, by which a node's value is as large as it is; empty if none."""
    inputs = {given.name: given for given in graph.inputs if not given.dtype.startswith("float") and given.declared}
    found, left, seen = dict[str, None](), [(node.writes, False)], set[tuple[str, bool]]()
    while left:
        name, far = left.pop()
        if far and name in inputs and _is_beyond_bits(inputs[name]):
            found[name] = None
        if (name, far) in seen or (writer := graph.writers.get(name)) is None:
            continue
        seen.add((name, far))
        taken = writer.attributes
        hides = isinstance(taken, Weighted) and writer.op == "scale" and bool((np.abs(taken.weight) >= _HIDES).any())
        far = hides or (far and writer.op in ("fit", "scale", "sum", *MOVES) and len(writer.reads) == 1)
        left += [(read, far) for read in writer.reads]
    if not found:
        return ""
    options = ", ".join(f"--range {name}=0:1" for name in found)
    them = " and ".join(repr(name) for name in found)
    return f"if {them} {'is a mask' if len(found) == 1 else 'are masks'}, declare zeros and ones ({options})"


def _is_beyond_bits(given: GraphInput) -> bool:
    low, high = given.declared or (0.0, 1.0)
    return bool(np.min(low) < 0 or np.max(high) > 1)


def _is_far(node: Node) -> bool:
    """Is a constant of a node so large that no smaller range of inputs helps?"""
    taken = node.attributes
    if not isinstance(taken, Weighted | Constant):
        return False
    bias = getattr(taken, "bias", None)
    return any(each is not None and bool((np.abs(each) > _FAR).any()) for each in (taken.weight, bias))


def _is_told(node: Node) -> bool:
    """May the parties be told the weights of a node?"""
    return isinstance(node.attributes, Weighted | Constant) and node.attributes.public


def with_known(value: Value, node: Node) -> Value:
    """Return a value within the ends that are known of its node's."""
    return replace(value, interval=known_interval(value.interval, value.scale, node))


def _function(state: Lowering, node: Node) -> Value:
    x, taken = state.values[node.reads[0]], node.of(Function)
    finest = state.graph.is_output(node.writes)
    if taken.hidden is not None and (hidden := state.skipped.get(taken.hidden)) is not None:
        return masked.powers(
            state, x, hidden, lambda each: approximate.apply(state, each, taken.name, taken.parameters, finest)
        )
    floor = taken.floor
    if taken.positive and floor is not None and x.reals[0] < -floor:
        floor = None  # what is below it may be far below, where a series means nothing
    if taken.name == "reciprocal" and (more := quotients.raised(state, node)) is not None:
        x = more
    elif taken.name == "reciprocal" and (weights := pooled.unclipped(state, node)) is not None:
        x = weights
    if floor is not None and any(reader.attributes.known is None for reader in state.graph.readers(node.writes)):
        floor = max(floor, x.coarse[1] * _LEAST_PART)  # else the product that reads it has no digits left
    if taken.name == "reciprocal" and floor is None and x.reals[0] > 0:
        floor = ratios.least(state, node)
    found = approximate.apply(state, x, taken.name, taken.parameters, finest, floor)
    return replace(found, norms=contracted(x, taken.name))


def _multiply(state: Lowering, node: Node) -> Value:
    return (
        masked.shares(state, node, products.product)
        or norms.by_row(state, node)
        or sums.by_category(state, node)
        or quotients.by_more(state, node)
        or products.product(state, node)
    )


_GROWING = frozenset({"matmul", "conv", "multiply", "scale", "sum", "total", "weigh", "concat"})
"""What can make the odd part of a scale longer; see `scales`."""
_LEAST_PART = 2.0**-24
"""Count a divisor as at least this part of the largest, where nothing bounds the quotient."""
_OF_ROWS = frozenset({"rows_sum", "noise"})
"""How large these are hangs on the number of rows, so samples of other rows say nothing."""
RULES: dict[str, Rule] = {
    "matmul": products.affine,
    "conv": products.affine,
    "scale": constants.scale,
    "constant": constants.constant,
    "multiply": _multiply,
    "sum": combinations.sum_,
    "total": maps.total,
    "weigh": maps.weigh,
    "reshape": maps.reshape,
    "transpose": maps.transpose,
    "concat": maps.concat,
    "take": maps.take,
    "columns": maps.columns,
    "round": maps.round_,
    "lowest": maps.lowest,
    "fit": maps.fit,
    "held": norms.held,
    "whole": rounding.whole,
    "rows_sum": sums.rows_sum,
    "noise": noises.noise,
    "relu": gradients.relu,
    "select": gradients.select,
    "scatter": gradients.scatter,
    "link": gradients.link,
    "step": comparisons.step,
    "onehot": gradients.one_hot,
    "maximum": gradients.maximum,
    "argmax": comparisons.argmax,
    "function": _function,
}
