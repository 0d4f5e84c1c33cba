"""One rule an operator: which gates a graph node becomes, at which scales."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from mpc import fixedpoint
from mpc.compiler import functions
from mpc.compiler.graph import Graph, Node, Origin
from mpc.compiler.lower import FRACTION_BITS, Lowering, Roles, Value, log2, static
from mpc.compiler.plan import Plan
from mpc.compiler.ranges import Interval, joined
from mpc.compiler.verify import verify
from mpc.wires import Masking

_WEIGHT_BITS = 32
_LEAST_WEIGHT_BITS = 8
_LEAST_EXPONENT = -30
_EXACT_BITS = 8
"""Few: constants like 1 and 0.5 cost no precision, and a plan does not tell the last bit of real weights."""
_LINEAR_BITS = 57
_FINEST_SCALE = 48
_BEFORE_SERIES_BITS = 52
_FACTOR_BITS = 18
_MOST_CLASSES = 20
_LARGEST_MAXIMUM = 128

Rule = Callable[[Lowering, Node], Value]


@dataclass
class Lowered:
    """A plan, and what stays with the model's owner.

    Args:
        weights: int64 integers of each weight wire.
        origins: the model's node for each gate.
        errors: output -> expected (RMS) error in the model's units.
    """

    plan: Plan
    weights: dict[str, np.ndarray] = field(repr=False)
    origins: dict[str, Origin]
    errors: dict[str, float]


def lower(graph: Graph, roles: Roles) -> Lowered:
    """The plan of a graph whose inputs all have ranges."""
    state = Lowering(graph, roles)
    inputs = tuple(state.enter(given) for given in graph.inputs)
    for node in graph.nodes:
        state.origin = node.origin
        state.values[node.writes] = _RULES[node.op](state, node)
    left = [state.leave(index) for index in range(len(graph.outputs))]
    outputs = tuple(out for out, _ in left)
    plan = Plan(inputs=inputs, outputs=outputs, wires=tuple(state.wires), gates=tuple(state.gates))
    verify(plan)
    errors = {out.name: error for out, error in left}
    return Lowered(plan, state.weights, state.origins, errors)


def _affine(state: Lowering, node: Node) -> Value:
    x, weight, bias = state.values[node.reads[0]], node.attributes["weight"], node.attributes["bias"]
    most = _BEFORE_SERIES_BITS if _feeds_series(state, node.writes) else _LINEAR_BITS
    exponent, exact = _weight_exponent(x, weight, bias, most)
    wanted = max(_LEAST_WEIGHT_BITS - _magnitude(weight), _LEAST_EXPONENT)
    if exponent < wanted and not exact and log2(x.scale) > FRACTION_BITS:
        x = state.shorten(x)
        exponent, exact = _weight_exponent(x, weight, bias, most)
    if exponent < wanted and not exact:
        reach = _real_interval(x, weight, bias).bound / float(x.scale)
        raise node.origin.refuse(
            f"its result can reach {reach:.3g}, too large to keep {_LEAST_WEIGHT_BITS} bits of its weights",
            remedy="declare a smaller input range (--range NAME=LOW:HIGH), or scale the model's weights down",
        )
    unit = Fraction(2) ** exponent
    scale = x.scale * unit
    integers = fixedpoint.encode(weight, unit, "a weight")
    settings = {"x": x.wire.name, "weight": state.secret(integers, unit)}
    offset = None
    if bias is not None and bias.any():
        offset = fixedpoint.encode(bias, scale, "a bias")
        settings["bias"] = state.secret(offset, scale)
    interval = x.interval.affine(integers, offset, rounded=not exact)
    holders, masking = state.recipients(node.writes), state.masking(node.writes)
    return state.add("affine", node.shape, scale, interval, masking=masking, holders=holders, **settings)


def _feeds_series(state: Lowering, value: str) -> bool:
    return any(
        node.op in ("function", "softmax") or _passes_on(node) and _feeds_series(state, node.writes)
        for node in state.graph.readers(value)
    )


def _passes_on(node: Node) -> bool:
    return node.op in ("reshape", "transpose", "concat", "sum")


def _real_interval(x: Value, weight: np.ndarray, bias: np.ndarray | None) -> Interval:
    """The result in units of x's scale, for real weights."""
    return x.interval.affine(weight, None if bias is None else bias * float(x.scale), rounded=False)


def _weight_exponent(x: Value, weight: np.ndarray, bias: np.ndarray | None, most: int) -> tuple[int, bool]:
    """(fractional bits of the weights, are they exact then): as many as are useful and the bound allows."""
    room = most - math.frexp(max(1.0, _real_interval(x, weight, bias).bound))[1]
    wanted = min(_WEIGHT_BITS - _magnitude(weight), room, _FINEST_SCALE - log2(x.scale))
    for exact in range(min(wanted, _EXACT_BITS) + 1):
        if not np.any(np.ldexp(weight, exact) % 1):
            return exact, True
    return wanted, False


def _magnitude(weight: np.ndarray) -> int:
    return math.frexp(float(np.abs(weight).max(initial=0.0)) or 1.0)[1]


def _relu(state: Lowering, node: Node) -> Value:
    x = state.values[node.reads[0]]
    shift = max(0, log2(x.scale) - FRACTION_BITS)
    interval = x.interval.truncated(shift).rectified()
    holders = state.recipients(node.writes)
    return state.add("relu", node.shape, x.scale / (1 << shift), interval, holders=holders, x=x.wire.name, shift=shift)


def _function(state: Lowering, node: Node) -> Value:
    holders = state.recipients(node.writes)
    function = functions.FUNCTIONS[node.attributes["name"]]
    return state.series(state.values[node.reads[0]], function, holders, 40 if holders else 34)


def _reshape(state: Lowering, node: Node) -> Value:
    x = state.values[node.reads[0]]
    interval = x.interval.reshaped(static(x.shape), static(node.shape))
    return state.add("reshape", node.shape, x.scale, interval, masking=Masking.INHERITED, x=x.wire.name)


def _transpose(state: Lowering, node: Node) -> Value:
    x, axes = state.values[node.reads[0]], node.attributes["axes"]
    interval = x.interval.transposed(static(x.shape), axes)
    return state.add("reshape", node.shape, x.scale, interval, masking=Masking.INHERITED, x=x.wire.name, axes=axes)


def _common_scale(node: Node, xs: list[Value]) -> tuple[Fraction, list[int]]:
    """The largest scale, and what each operand is multiplied with to have it."""
    scale = max(x.scale for x in xs)
    factors = [scale / x.scale for x in xs]
    if any(factor.denominator != 1 for factor in factors):
        raise node.origin.refuse("its operands' scales have no common multiple")
    return scale, [int(factor) for factor in factors]


def _sum(state: Lowering, node: Node) -> Value:
    """A public linear combination; factors that are no integers take some fractional bits of the scale."""
    xs, wanted = [state.values[name] for name in node.reads], node.attributes["factors"]
    exact = all(float(factor).is_integer() for factor in wanted)
    if not exact:
        xs = [state.shorten(x, _FACTOR_BITS) for x in xs]
    scale, aligned = _common_scale(node, xs)
    unit = 1 if exact else 1 << _FACTOR_BITS
    factors = [round(factor * unit) * align for factor, align in zip(wanted, aligned, strict=True)]
    terms = [(x, factor) for x, factor in zip(xs, factors, strict=True) if factor]
    return state.combine([x for x, _ in terms], [factor for _, factor in terms], node.shape, scale * unit)


def _multiply(state: Lowering, node: Node) -> Value:
    """Two secrets; each keeps as many fractional bits as the product's bound allows, 20 at most."""
    x, y = (state.shorten(state.values[name], 20) for name in node.reads)
    room = _LINEAR_BITS - x.wire.bits - y.wire.bits
    if room < 0:
        x, y = (state.shorten(v, 20 + room // 2) for v in (x, y))
    if not state.knows_mask(x) or not state.knows_mask(y):
        x, y = (v if state.knows_mask(v) else state.truncate(v, 0) for v in (x, y))
    ends = np.stack([a * b for a in (x.interval.low, x.interval.high) for b in (y.interval.low, y.interval.high)])
    sizes = [np.maximum(np.abs(v.interval.low), np.abs(v.interval.high)) for v in (x, y)]
    error = np.hypot(x.interval.error * sizes[1], y.interval.error * sizes[0])
    return state.add(
        "multiply",
        node.shape,
        x.scale * y.scale,
        Interval(ends.min(axis=0), ends.max(axis=0), error),
        masking=state.masking(node.writes),
        holders=state.recipients(node.writes),
        x=x.wire.name,
        y=y.wire.name,
    )


def _concat(state: Lowering, node: Node) -> Value:
    xs = [state.values[name] for name in node.reads]
    scale, factors = _common_scale(node, xs)
    aligned = [x if f == 1 else state.combine([x], [f], x.shape, scale) for x, f in zip(xs, factors, strict=True)]
    interval = joined([x.interval for x in aligned], [static(x.shape) for x in aligned])
    names = tuple(x.wire.name for x in aligned)
    return state.add("concat", node.shape, scale, interval, masking=Masking.INHERITED, xs=names)


def _argmax(state: Lowering, node: Node) -> Value:
    return _maximum(state, node.reads[0], node.attributes["last"])["index"]


def _maximum(state: Lowering, name: str, last: bool) -> dict[str, Value]:
    """The maximum gate of a value, once for all that read it: of value and index, what is needed."""
    key = (name, last)
    if key in state.maxima:
        return state.maxima[key]
    x = state.values[name]
    columns = x.shape[-1]
    if not isinstance(columns, int) or not 2 <= columns <= _LARGEST_MAXIMUM:
        raise state.origin.refuse(f"a maximum over {columns} elements; 2 to {_LARGEST_MAXIMUM} are possible")
    indices = [n for n in state.graph.readers(name) if n.op == "argmax" and n.attributes["last"] == last]
    shift = max(0, log2(x.scale) - FRACTION_BITS)
    shape, stem = (*x.shape[:-1], 1), f"{len(state.gates)}.maximum"
    found: dict[str, Value] = {}
    if not last and any(n.op == "softmax" for n in state.graph.readers(name)):
        top = x.interval.widest().truncated(shift)
        found["value"] = state.wire(f"{stem}.value", shape, x.scale / (1 << shift), top)
    if indices:
        interval = Interval.between(0, columns - 1, static(shape))
        holders = next((who for n in indices if (who := state.recipients(n.writes))), ())
        found["index"] = state.wire(f"{stem}.index", shape, Fraction(1), interval, holders=holders)
    written = {what: value.wire.name for what, value in found.items()}
    state.gate("maximum", x=x.wire.name, shift=shift, last=last, **written)
    state.maxima[key] = found
    return found


def _softmax(state: Lowering, node: Node) -> Value:
    """exp(x - max x), summed, its reciprocal, the products."""
    name, columns = node.reads[0], node.shape[-1]
    x = state.values[name]
    if not isinstance(columns, int) or not 2 <= columns <= _MOST_CLASSES:
        raise node.origin.refuse(f"a softmax over {columns} elements; 2 to {_MOST_CLASSES} are possible yet")
    top = _maximum(state, name, last=False)["value"]
    shift = int(x.scale / top.scale)
    below = state.combine([x, top], [1, -shift], node.shape, x.scale)
    low = np.minimum(below.interval.low, 0)
    nonpositive = Interval(low, np.full_like(low, 2.0 * shift), x.interval.error)  # x <= max x, up to rounding
    powers = state.series(Value(below.wire, nonpositive), functions.FUNCTIONS["exp"], (), 34)
    total_shape = (*node.shape[:-1], 1)
    unit = float(powers.scale)
    error = float(powers.interval.error.max()) * math.sqrt(columns)
    between = Interval.between(0.99 * unit, (columns + 0.01) * unit, static(total_shape), error)
    total = state.add("total", total_shape, powers.scale, between, masking=Masking.INHERITED, x=powers.wire.name)
    inverse = state.series(total, functions.reciprocal(columns), (), 34)
    short = state.truncate(powers, 14)
    scale = short.scale * inverse.scale
    relative = math.hypot(*(float(v.interval.error.max()) / float(v.scale) for v in (short, inverse)))
    one = float(scale)
    return state.add(
        "multiply",
        node.shape,
        scale,
        Interval.between(-0.02 * one, 1.02 * one, low.shape, relative * one),
        masking=state.masking(node.writes),
        holders=state.recipients(node.writes),
        x=short.wire.name,
        y=inverse.wire.name,
    )


_RULES: dict[str, Rule] = {
    "affine": _affine,
    "relu": _relu,
    "function": _function,
    "sum": _sum,
    "multiply": _multiply,
    "reshape": _reshape,
    "transpose": _transpose,
    "concat": _concat,
    "argmax": _argmax,
    "softmax": _softmax,
}
