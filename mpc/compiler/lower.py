"""From the graph to a plan: scales, proved bounds, masks, gates.

Bounds are intervals, column by column, propagated through the integers that will really be
used; a wire's public bound is only the power of two above the largest.  A graph whose bounds
do not fit is refused, naming the node, the bound and what to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from mpc import fixedpoint, tables
from mpc.compiler import functions
from mpc.compiler.graph import Graph, GraphInput, Node, Origin, Shape
from mpc.compiler.plan import Plan, PlanInput, PlanOutput
from mpc.compiler.verify import verify
from mpc.gates import GATES, Gate
from mpc.gates.fourier import Clamp
from mpc.wires import BATCH, MAX_BITS, Masking, Wire

FRACTION_BITS = 16
"""Fractional bits of what leaves a truncation."""
_LINEAR_BITS = 52
"""Bound of a linear layer's result: room for a period's factor and a clamp's margin below 59."""
_MOST_SERIES_BITS = 44
_WEIGHT_BITS = 20
_INPUT_BITS = 28
_LEAST_WEIGHT_BITS = 10
_CLAMP_STEP = 0.01
_MOST_CLASSES = 20


@dataclass(frozen=True)
class Roles:
    """Who enters the model, who enters the data, who receives the result: certificate names."""

    model_owner: str = "coordinator"
    data_owner: str = "coordinator"
    recipients: tuple[str, ...] = ("coordinator",)


@dataclass(frozen=True)
class Value:
    """A wire while compiling: its interval, column by column, in units of its scale."""

    wire: Wire
    low: np.ndarray
    high: np.ndarray

    @property
    def scale(self) -> Fraction:
        return self.wire.scale

    @property
    def bound(self) -> float:
        return float(max(np.abs(self.low).max(), np.abs(self.high).max()))


@dataclass
class Lowered:
    """A plan, and what stays with the model's owner.

    Args:
        weights: int64 integers of each weight wire.
        origins: the model's node for each gate.
    """

    plan: Plan
    weights: dict[str, np.ndarray] = field(repr=False)
    origins: dict[str, Origin]


class Lowering:
    """One pass over the graph; `run` gives the plan."""

    def __init__(self, graph: Graph, roles: Roles) -> None:
        self.graph, self.roles = graph, roles
        self.wires: list[Wire] = []
        self.gates: list[Gate] = []
        self.weights: dict[str, np.ndarray] = {}
        self.origins: dict[str, Origin] = {}
        self.values: dict[str, Value] = {}
        self.maxima: dict[str, dict[str, Value]] = {}
        self.origin = Origin("", "input")

    def run(self) -> Lowered:
        inputs = [self._input(given) for given in self.graph.inputs]
        for node in self.graph.nodes:
            self.origin = node.origin
            self.values[node.writes] = _RULES[node.op](self, node)
        outputs = [self._output(index) for index in range(len(self.graph.outputs))]
        plan = Plan(inputs=tuple(inputs), outputs=tuple(outputs), wires=tuple(self.wires), gates=tuple(self.gates))
        verify(plan)
        return Lowered(plan, self.weights, self.origins)

    # -- wires and gates

    def bits(self, bound: float, scale: Fraction) -> int:
        """The proved power of two, with room for a truncation's rounding; a refusal if there is none."""
        least = 8 + max(0, _log2(scale) - FRACTION_BITS)
        bits = max(least, math.frexp(bound * (1 + 1 / 64) + 2)[1])
        if bits > MAX_BITS:
            raise self.origin.refuse(
                f"its result can reach {bound / float(scale):.3g}, which needs {bits} bits where {MAX_BITS} fit",
                remedy="declare a smaller input range (--range NAME=LOW:HIGH), or scale the model's weights down",
            )
        return bits

    def add(
        self,
        kind: str,
        shape: Shape,
        scale: Fraction,
        low: np.ndarray,
        high: np.ndarray,
        *,
        masking: Masking = Masking.DRAWN,
        holders: tuple[str, ...] = (),
        out: str = "out",
        bits: int | None = None,
        **settings: object,
    ) -> Value:
        """Append a gate and the wire it writes."""
        bound = float(max(np.abs(low).max(), np.abs(high).max()))
        number = len(self.gates)
        wire = Wire(
            name=f"{number}.{kind}",
            shape=shape,
            scale=scale,
            bits=bits or self.bits(bound, scale),
            masking=masking,
            holders=holders,
        )
        gate = GATES[kind](name=f"{number}.{kind}", **{out: wire.name}, **settings)
        self.wires.append(wire)
        self.gates.append(gate)
        self.origins[gate.name] = self.origin
        return Value(wire, low, high)

    def secret(self, values: np.ndarray, shape: Shape, scale: Fraction) -> Value:
        """A weight wire: the model's owner enters it once a session."""
        value = self.add(
            "input", shape, scale, values, values, holders=(self.roles.model_owner,), lifetime="session"
        )
        self.weights[value.wire.name] = values
        return value

    def recipients(self, value: str) -> tuple[str, ...]:
        return self.roles.recipients if self.graph.is_output(value) else ()

    def masking(self, value: str) -> Masking:
        """Derived (nothing dealt) unless the parties need shares of this value's mask."""
        return Masking.DRAWN if self._needs_mask(value) else Masking.DERIVED

    def _needs_mask(self, value: str) -> bool:
        if self.graph.is_output(value):
            return True
        readers = list(self.graph.readers(value))
        if any(node.op == "affine" for node in readers):
            return True
        return any(node.op in ("reshape", "transpose", "concat") and self._needs_mask(node.writes) for node in readers)

    # -- the ends

    def _input(self, given: GraphInput) -> PlanInput:
        low, high = (float(given.low or 0.0), float(given.high or 0.0))
        scale = Fraction(2) ** _clip(_INPUT_BITS - math.frexp(max(-low, high))[1], 8, 22)
        size = _static(given.shape)
        integers = [np.full(size, np.rint(end * float(scale))) for end in (low, high)]
        self.origin = Origin(given.name, "input")
        value = self.add("input", given.shape, scale, *integers, holders=(self.roles.data_owner,))
        self.values[given.name] = value
        ends = {"low": Fraction(low), "high": Fraction(high)}
        return PlanInput(name=given.name, wire=value.wire.name, dtype=given.dtype, **ends)

    def _output(self, index: int) -> PlanOutput:
        out = self.graph.outputs[index]
        value = self.values[out.value]
        if not value.wire.holders or value.wire.holders != self.roles.recipients:
            self.origin = Origin(out.name, "output")
            value = self.truncate(value, 0, self.roles.recipients)
            self.values[out.value] = value
        return PlanOutput(
            name=out.name, wire=value.wire.name, shape=out.shape, dtype=out.dtype, labels=out.labels, keys=out.keys
        )

    # -- building blocks

    def truncate(self, x: Value, shift: int, holders: tuple[str, ...] = ()) -> Value:
        """Fewer fractional bits; with 0, only a fresh mask."""
        low, high = np.floor(x.low / 2**shift), np.floor(x.high / 2**shift) + 1
        scale = x.scale / (1 << shift)
        return self.add("truncate", x.wire.shape, scale, low, high, holders=holders, x=x.wire.name, shift=shift)

    def shorten(self, x: Value, fraction: int = FRACTION_BITS) -> Value:
        """x with about `fraction` fractional bits, if it has more."""
        shift = _log2(x.scale) - fraction
        return self.truncate(x, shift) if shift > 0 else x

    def combine(self, xs: list[Value], factors: list[int], shape: Shape, scale: Fraction) -> Value:
        ends = [(min(f * a, f * b), max(f * a, f * b)) if np.isscalar(a) else _scaled(a, b, f)
                for (a, b), f in zip([(x.low, x.high) for x in xs], factors, strict=True)]
        low, high = (sum(end[side] for end in ends) for side in (0, 1))
        names = tuple(x.wire.name for x in xs)
        return self.add(
            "combine", shape, scale, low, high, masking=Masking.INHERITED, xs=names, factors=tuple(factors)
        )

    def series(self, x: Value, function: functions.Function, holders: tuple[str, ...], bits: int) -> Value:
        """A function by its Fourier series, clamped where the interval reaches outside."""
        if x.wire.bits > _LINEAR_BITS or _log2(x.scale) > _MOST_SERIES_BITS:
            x = self.shorten(x, 30)
        factor, window = _period(x.scale, function.period)
        if factor > 1:
            x = self.combine([x], [factor], x.wire.shape, x.scale * factor)
        period = float((1 << window) / x.scale)
        series = functions.fit(replace(function, period=period))
        half = bits // 2
        unit = float(1 << bits)
        inside = float(x.low.min()) >= function.low * x.scale and float(x.high.max()) <= function.high * x.scale
        clamp = None if inside else _clamp(function, x, unit)
        values = function.value(np.linspace(function.low, function.high, 4001))
        ends = [float(values.min()) - 0.01, float(values.max()) + 0.01]
        ends = [min(ends[0], function.below), max(ends[1], function.above)]
        size = np.ones_like(x.low)
        return self.add(
            "fourier",
            x.wire.shape,
            Fraction(1 << bits),
            size * ends[0] * unit,
            size * ends[1] * unit,
            holders=holders,
            x=x.wire.name,
            window=window,
            constant=round(series.constant * unit),
            cosines=_integers(series.cosines, half),
            sines=_integers(series.sines, half),
            dealt_bits=bits - half,
            table=tables.sincos_digest(),
            clamp=clamp,
        )

    def maximum(self, name: str, x: Value, last: bool = False) -> dict[str, Value]:
        """The maximum gate of a value, once for all that read it: what of value and index is needed."""
        readers = {node.op for node in self.graph.readers(name) if not node.attributes.get("last", False) or last}
        wanted = [what for what, op in (("value", "softmax"), ("index", "argmax")) if op in readers]
        key = f"{name}/{last}"
        if key not in self.maxima:
            self.maxima[key] = self._maximum(name, x, wanted if not last else ["index"], last)
        return self.maxima[key]

    def _maximum(self, name: str, x: Value, wanted: list[str], last: bool) -> dict[str, Value]:
        columns = x.wire.shape[-1]
        if not isinstance(columns, int) or not 2 <= columns <= 128:
            raise self.origin.refuse(f"a maximum over {columns} elements; 2 to 128 are possible")
        shift = max(0, _log2(x.scale) - FRACTION_BITS)
        shape = (*x.wire.shape[:-1], 1)
        size = np.ones((*x.low.shape[:-1], 1))
        number = len(self.gates)
        settings: dict[str, object] = {"x": x.wire.name, "shift": shift, "last": last}
        found: dict[str, Value] = {}
        for what in wanted:
            if what == "value":
                ends = [np.floor(size * end / 2**shift) + up for end, up in ((x.low.min(), 0), (x.high.max(), 1))]
                scale, holders = x.scale / (1 << shift), ()
            else:
                ends, scale = [size * 0, size * (columns - 1)], Fraction(1)
                holders = self._index_holders(name, last)
            wire = Wire(
                name=f"{number}.maximum.{what}",
                shape=shape,
                scale=scale,
                bits=self.bits(float(max(abs(ends[0]).max(), abs(ends[1]).max())), scale),
                holders=holders,
            )
            settings[what] = wire.name
            self.wires.append(wire)
            found[what] = Value(wire, *ends)
        self.gates.append(GATES["maximum"](name=f"{number}.maximum", **settings))
        self.origins[self.gates[-1].name] = self.origin
        return found

    def _index_holders(self, name: str, last: bool) -> tuple[str, ...]:
        indices = [n for n in self.graph.readers(name) if n.op == "argmax" and n.attributes["last"] == last]
        return next((self.recipients(n.writes) for n in indices if self.graph.is_output(n.writes)), ())


# ----------------------------------------------------------------- one rule an operator


def _affine(state: Lowering, node: Node) -> Value:
    x, weight, bias = state.values[node.reads[0]], node.attributes["weight"], node.attributes["bias"]
    exponent = _weight_exponent(state, x, weight, bias)
    if exponent < _LEAST_WEIGHT_BITS - _magnitude(weight) and _log2(x.scale) > FRACTION_BITS:
        x = state.shorten(x)
        exponent = _weight_exponent(state, x, weight, bias)
    if exponent < _LEAST_WEIGHT_BITS - _magnitude(weight) - 4:
        low, high = _interval(x.low, x.high, weight, bias, float(x.scale))
        bound = float(max(np.abs(low).max(), np.abs(high).max())) / float(x.scale)
        raise node.origin.refuse(
            f"its result can reach {bound:.3g}, too large to keep {_LEAST_WEIGHT_BITS} bits of its weights",
            remedy="declare a smaller input range (--range NAME=LOW:HIGH), or scale the model's weights down",
        )
    scale = x.scale * Fraction(2) ** exponent
    integers = fixedpoint.encode(weight, Fraction(2) ** exponent, "a weight")
    settings = {"x": x.wire.name, "weight": state.secret(integers, weight.shape, scale / x.scale).wire.name}
    offset = None
    if bias is not None and bias.any():
        offset = fixedpoint.encode(bias, scale, "a bias")
        settings["bias"] = state.secret(offset, bias.shape, scale).wire.name
    low, high = _interval(x.low, x.high, integers, offset, 1.0)
    holders, masking = state.recipients(node.writes), state.masking(node.writes)
    return state.add("affine", node.shape, scale, low, high, masking=masking, holders=holders, **settings)


def _interval(
    low: np.ndarray, high: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, bias_unit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Exact interval arithmetic of x weight + bias, column by column (floats round by 1/64 at most, see `bits`)."""
    positive, negative = np.maximum(weight, 0).astype(np.float64), np.minimum(weight, 0).astype(np.float64)
    shift = 0.0 if bias is None else bias * bias_unit
    return low @ positive + high @ negative + shift, high @ positive + low @ negative + shift


def _weight_exponent(state: Lowering, x: Value, weight: np.ndarray, bias: np.ndarray | None) -> int:
    """Fractional bits of the weights: enough for 20 significant ones, fewer if exact or if the bound asks for it."""
    low, high = _interval(x.low, x.high, weight, bias, float(x.scale))
    bound = float(max(np.abs(low).max(), np.abs(high).max(), 1.0))
    wanted = min(_WEIGHT_BITS - _magnitude(weight), _LINEAR_BITS - math.frexp(bound)[1])
    for exact in range(0, wanted):
        if not np.any(np.ldexp(weight, exact) % 1):
            return exact
    return max(wanted, -30)


def _magnitude(weight: np.ndarray) -> int:
    return math.frexp(float(np.abs(weight).max(initial=0.0)) or 1.0)[1]


def _relu(state: Lowering, node: Node) -> Value:
    x = state.values[node.reads[0]]
    shift = max(0, _log2(x.scale) - FRACTION_BITS)
    low, high = (np.maximum(np.floor(end / 2**shift) + up, 0) for end, up in ((x.low, 0), (x.high, 1)))
    holders = state.recipients(node.writes)
    scale = x.scale / (1 << shift)
    return state.add("relu", node.shape, scale, low, high, holders=holders, x=x.wire.name, shift=shift)


def _function(state: Lowering, node: Node) -> Value:
    holders = state.recipients(node.writes)
    function = functions.FUNCTIONS[node.attributes["name"]]
    return state.series(state.values[node.reads[0]], function, holders, 40 if holders else 34)


def _reshape(state: Lowering, node: Node) -> Value:
    x = state.values[node.reads[0]]
    shape = _static(node.shape)
    low, high = (np.broadcast_to(end, _static(x.wire.shape)).reshape(shape) for end in (x.low, x.high))
    return state.add(
        "reshape", node.shape, x.scale, low, high, masking=Masking.INHERITED, bits=x.wire.bits, x=x.wire.name
    )


def _transpose(state: Lowering, node: Node) -> Value:
    x, axes = state.values[node.reads[0]], node.attributes["axes"]
    low, high = (np.broadcast_to(end, _static(x.wire.shape)).transpose(axes) for end in (x.low, x.high))
    return state.add(
        "reshape", node.shape, x.scale, low, high, masking=Masking.INHERITED, bits=x.wire.bits, x=x.wire.name, axes=axes
    )


def _concat(state: Lowering, node: Node) -> Value:
    xs = [state.values[name] for name in node.reads]
    scale = max(x.scale for x in xs)
    aligned = []
    for x in xs:
        factor = scale / x.scale
        if factor.denominator != 1:
            raise node.origin.refuse("its operands' scales have no common multiple")
        same = factor == 1
        aligned.append(x if same else state.combine([x], [int(factor)], x.wire.shape, scale))
    low, high = (
        np.concatenate([np.broadcast_to(getattr(x, side), _static(x.wire.shape)) for x in aligned], axis=-1)
        for side in ("low", "high")
    )
    names = tuple(x.wire.name for x in aligned)
    return state.add("concat", node.shape, scale, low, high, masking=Masking.INHERITED, xs=names)


def _argmax(state: Lowering, node: Node) -> Value:
    name = node.reads[0]
    return state.maximum(name, state.values[name], node.attributes["last"])["index"]


def _softmax(state: Lowering, node: Node) -> Value:
    """exp(x - max x), summed, its reciprocal, the products."""
    name, columns = node.reads[0], node.shape[-1]
    x = state.values[name]
    if not isinstance(columns, int) or not 2 <= columns <= _MOST_CLASSES:
        raise node.origin.refuse(f"a softmax over {columns} elements; 2 to {_MOST_CLASSES} are possible yet")
    top = state.maximum(name, x)["value"]
    shift = int(x.scale / top.scale)
    below = state.combine([x, top], [1, -shift], node.shape, x.scale)
    low = np.minimum(below.low, 0)
    below = Value(below.wire, low, np.full_like(low, 2.0 * shift))  # x - max <= 0 up to rounding
    powers = state.series(below, functions.FUNCTIONS["exp"], (), 34)
    total_shape = (*node.shape[:-1], 1)
    ends = [np.full((*low.shape[:-1], 1), end * float(powers.scale)) for end in (0.99, columns + 0.01)]
    total = state.add("total", total_shape, powers.scale, *ends, masking=Masking.INHERITED, x=powers.wire.name)
    inverse = state.series(total, functions.reciprocal(columns), (), 34)
    short = state.truncate(powers, 14)
    scale = short.scale * inverse.scale
    unit = np.ones_like(low) * float(scale)
    return state.add(
        "multiply",
        node.shape,
        scale,
        unit * -0.02,
        unit * 1.02,
        masking=state.masking(node.writes),
        holders=state.recipients(node.writes),
        x=short.wire.name,
        y=inverse.wire.name,
    )


_RULES: dict[str, Callable[[Lowering, Node], Value]] = {
    "affine": _affine,
    "relu": _relu,
    "function": _function,
    "reshape": _reshape,
    "transpose": _transpose,
    "concat": _concat,
    "argmax": _argmax,
    "softmax": _softmax,
}


# --------------------------------------------------------------------------- helpers


def _static(shape: Shape) -> tuple[int, ...]:
    """The shape of an interval: the batch dimension has size 1, since rows share their bounds."""
    return tuple(1 if d == BATCH else int(d) for d in shape)


def _log2(scale: Fraction) -> int:
    """floor(log2(scale))."""
    exponent = math.frexp(float(scale))[1] - 1
    return exponent


def _clip(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))


def _scaled(low: np.ndarray, high: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    return (low * factor, high * factor) if factor > 0 else (high * factor, low * factor)


def _integers(values: np.ndarray, bits: int) -> tuple[int, ...]:
    return tuple(int(v) for v in np.rint(np.ldexp(values, bits)))


def _period(scale: Fraction, period: float) -> tuple[int, int]:
    """(factor, window): factor scale period' = 2^window with period' just above the wanted one."""
    candidates = []
    for factor in range(1, 32):
        units = float(scale) * factor
        window = max(24, math.ceil(math.log2(units * period)))
        candidates.append(((1 << window) / units, factor, window))
    _, factor, window = min(candidates)
    return factor, window


def _clamp(function: functions.Function, x: Value, unit: float) -> Clamp:
    """Levels just inside the fitted interval, and comparisons no finer than they need be."""
    shift = max(0, _log2(x.scale * Fraction(_CLAMP_STEP)))
    margin = 2 << shift
    limit = (1 << x.wire.bits) - 1
    low = max(-limit, math.ceil(function.low * x.scale) + margin)
    high = min(limit, math.floor(function.high * x.scale) - margin)
    return Clamp(low=low, high=high, below=round(function.below * unit), above=round(function.above * unit), shift=shift)


def lower(graph: Graph, roles: Roles) -> Lowered:
    """The plan of a graph whose inputs all have ranges."""
    return Lowering(graph, roles).run()
