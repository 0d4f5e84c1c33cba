"""From the graph to a plan: wires with scales, proved bounds and masks, and the gates that write them.

`Lowering` keeps what has been emitted and offers the building blocks; `rules` has one rule an
operator.  A wire's public bound is only the power of two above the largest its columns reach.
A graph whose bounds do not fit is refused, naming the node, the bound and what to do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from mpc import tables
from mpc.compiler import functions
from mpc.compiler.graph import Graph, GraphInput, Origin, Shape
from mpc.compiler.plan import PlanInput, PlanOutput
from mpc.compiler.ranges import ROUNDING, Interval
from mpc.gates import GATES
from mpc.gates.base import Gate
from mpc.gates.fourier import Clamp
from mpc.wires import BATCH, MAX_BITS, Masking, Wire

FRACTION_BITS = 16
"""Fractional bits of what leaves a truncation."""
_INPUT_FRACTION = 28
_LONGEST_INPUT = 44
_SERIES_BITS = 52
"""Bound of a series' input: room for the period's factor and the clamp's margin below 59."""
_CLAMP_STEP = 0.01
_SERIES_SCALE_BITS = 44


@dataclass(frozen=True)
class Roles:
    """Who enters the model, who enters the data, who receives the result: certificate names."""

    model_owner: str = "coordinator"
    data_owner: str = "coordinator"
    recipients: tuple[str, ...] = ("coordinator",)


@dataclass(frozen=True)
class Value:
    """A wire while compiling."""

    wire: Wire
    interval: Interval

    @property
    def scale(self) -> Fraction:
        return self.wire.scale

    @property
    def shape(self) -> Shape:
        return self.wire.shape


@dataclass
class Lowering:
    """What has been emitted so far.

    Args:
        values: graph value -> wire.
        weights: weight wire -> int64 integers, the owner's secret.
        origins: gate -> the model's node.
        origin: the node that is being lowered.
    """

    graph: Graph
    roles: Roles
    wires: list[Wire] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    origins: dict[str, Origin] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    maxima: dict[tuple[str, bool], dict[str, Value]] = field(default_factory=dict)
    origin: Origin = Origin("", "input")

    # -- wires and gates

    def bits(self, bound: float, scale: Fraction) -> int:
        """The proved power of two, with room for a truncation's rounding; a refusal if there is none."""
        least = 8 + max(0, log2(scale) - FRACTION_BITS)
        bits = max(least, math.frexp(bound * (1 + 1 / 64) + 2)[1])
        if bits > MAX_BITS:
            raise self.origin.refuse(
                f"its result can reach {bound / float(scale):.3g}, which needs {bits} bits where {MAX_BITS} fit",
                remedy="declare a smaller input range (--range NAME=LOW:HIGH), or scale the model's weights down",
            )
        return bits

    def wire(
        self,
        name: str,
        shape: Shape,
        scale: Fraction,
        interval: Interval,
        masking: Masking = Masking.DRAWN,
        holders: tuple[str, ...] = (),
    ) -> Value:
        """Append a wire with its bound."""
        bits = self.bits(interval.bound, scale)
        wire = Wire(name=name, shape=shape, scale=scale, bits=bits, masking=masking, holders=holders)
        self.wires.append(wire)
        return Value(wire, interval)

    def gate(self, kind: str, **settings: object) -> None:
        """Append a gate."""
        self.gates.append(GATES[kind](name=f"{len(self.gates)}.{kind}", **settings))
        self.origins[self.gates[-1].name] = self.origin

    def add(
        self,
        kind: str,
        shape: Shape,
        scale: Fraction,
        interval: Interval,
        *,
        masking: Masking = Masking.DRAWN,
        holders: tuple[str, ...] = (),
        **settings: object,
    ) -> Value:
        """Append a gate and the one wire it writes."""
        value = self.wire(f"{len(self.gates)}.{kind}", shape, scale, interval, masking, holders)
        self.gate(kind, out=value.wire.name, **settings)
        return value

    def secret(self, values: np.ndarray, scale: Fraction) -> str:
        """A weight wire: the model's owner enters it once a session; its name."""
        owner = (self.roles.model_owner,)
        value = self.add("input", values.shape, scale, Interval.exactly(values), holders=owner, lifetime="session")
        self.weights[value.wire.name] = values
        return value.wire.name

    def recipients(self, value: str) -> tuple[str, ...]:
        """Who receives a graph value."""
        return self.roles.recipients if self.graph.is_output(value) else ()

    def masking(self, value: str) -> Masking:
        """Derived (nothing dealt) unless the parties need shares of this value's mask."""
        return Masking.DRAWN if self._needs_mask(value) else Masking.DERIVED

    def _needs_mask(self, value: str) -> bool:
        if self.graph.is_output(value):
            return True
        readers = list(self.graph.readers(value))
        if any(node.op in ("affine", "multiply") for node in readers):
            return True
        return any(
            node.op in ("reshape", "transpose", "concat", "sum") and self._needs_mask(node.writes) for node in readers
        )

    def knows_mask(self, value: Value) -> bool:
        """Do the parties hold shares of this wire's mask?"""
        if value.wire.masking is not Masking.INHERITED:
            return value.wire.masking is Masking.DRAWN
        writer = next(gate for gate in self.gates if value.wire.name in gate.writes)
        wires = {wire.name: wire for wire in self.wires}
        return all(self.knows_mask(Value(wires[name], value.interval)) for name in writer.reads)

    # -- the ends

    def enter(self, given: GraphInput) -> PlanInput:
        """The wire of an input."""
        low, high = (np.broadcast_to(np.asarray(end, dtype=np.float64), static(given.shape)) for end in given.range)
        size = np.maximum(np.abs(low), np.abs(high))
        most = math.frexp(float(size.max()))[1]
        fraction = min(_INPUT_FRACTION, self._balanced_fraction(given.name, size))
        scale = Fraction(2) ** min(fraction, _LONGEST_INPUT - most)
        interval = Interval(np.rint(low * float(scale)), np.rint(high * float(scale)), np.full(low.shape, ROUNDING))
        self.origin = Origin(given.name, "input")
        value = self.add("input", given.shape, scale, interval, holders=(self.roles.data_owner,))
        self.values[given.name] = value
        ends = {
            side: tuple(map(Fraction, np.atleast_1d(end).tolist()))
            for side, end in zip(("low", "high"), given.range, strict=True)
        }
        return PlanInput(name=given.name, wire=value.wire.name, dtype=given.dtype, **ends)

    def _balanced_fraction(self, name: str, size: np.ndarray) -> int:
        """Fractional bits of an input that leave its first layer's weights as many as do them equally good.

        With T bits for both, the roundings |w| 2^-f of the inputs and |x| 2^-(T-f) of the weights are equal.
        """
        reader = self.graph.sole_reader(name)
        if reader is None or reader.op != "affine":
            return _INPUT_FRACTION
        weight = np.abs(reader.attributes["weight"])
        room = _SERIES_BITS - math.log2(max(1.0, float((size @ weight).max())))
        ratio = np.sqrt(np.square(weight).sum(axis=0).max()) / np.sqrt(np.square(size).sum())
        return max(4, round((room + math.log2(max(ratio, 2.0**-40))) / 2))

    def leave(self, index: int) -> tuple[PlanOutput, float]:
        """What recipients get, and its expected error in the model's units."""
        out = self.graph.outputs[index]
        value = self.values[out.value]
        entered = any(gate.kind == "input" and value.wire.name in gate.writes for gate in self.gates)
        if entered or value.wire.holders != self.roles.recipients:
            self.origin = Origin(out.name, "output")
            value = self.truncate(value, 0, self.roles.recipients)
            self.values[out.value] = value
        error = float(value.interval.error.max()) / float(value.scale)
        reading = {"shape": out.shape, "dtype": out.dtype, "labels": out.labels, "keys": out.keys}
        return PlanOutput(name=out.name, wire=value.wire.name, **reading), error

    # -- building blocks

    def truncate(self, x: Value, shift: int, holders: tuple[str, ...] = ()) -> Value:
        """Fewer fractional bits; with 0, only a fresh mask."""
        scale = x.scale / (1 << shift)
        return self.add(
            "truncate", x.shape, scale, x.interval.truncated(shift), holders=holders, x=x.wire.name, shift=shift
        )

    def shorten(self, x: Value, fraction: int = FRACTION_BITS) -> Value:
        """x with about `fraction` fractional bits, if it has more."""
        shift = log2(x.scale) - fraction
        return self.truncate(x, shift) if shift > 0 else x

    def combine(self, xs: list[Value], factors: list[int], shape: Shape, scale: Fraction) -> Value:
        """A public linear combination."""
        terms = [x.interval.times(factor) for x, factor in zip(xs, factors, strict=True)]
        total = terms[0]
        for term in terms[1:]:
            total = total.plus(term)
        names = tuple(x.wire.name for x in xs)
        inherited = Masking.INHERITED
        return self.add("combine", shape, scale, total, masking=inherited, xs=names, factors=tuple(factors))

    def series(self, x: Value, function: functions.Function, holders: tuple[str, ...], bits: int) -> Value:
        """A function by its Fourier series, clamped where the interval reaches outside."""
        if x.wire.bits > _SERIES_BITS or log2(x.scale) > _SERIES_SCALE_BITS:
            x = self.shorten(x, 30)
        factor, window = _period(x.scale, function.period)
        if factor > 1:
            x = self.combine([x], [factor], x.shape, x.scale * factor)
        series = functions.fit(replace(function, period=float((1 << window) / x.scale)))
        inside = x.interval.low.min() >= function.low * x.scale and x.interval.high.max() <= function.high * x.scale
        unit, half = float(1 << bits), bits // 2
        values = function.value(np.linspace(function.low, function.high, 4001))
        low, high = min(values.min(), function.below) - 0.01, max(values.max(), function.above) + 0.01
        slope = float(np.abs(np.diff(values)).max()) * 4000 / (function.high - function.low)
        own = math.hypot(series.error, series.weight * ROUNDING * 2.0**-half)
        error = math.hypot(own, slope * float(x.interval.error.max()) / float(x.scale))
        return self.add(
            "fourier",
            x.shape,
            Fraction(1 << bits),
            Interval.between(low * unit, high * unit, x.interval.low.shape, error * unit),
            holders=holders,
            x=x.wire.name,
            window=window,
            constant=round(series.constant * unit),
            cosines=_integers(series.cosines, half),
            sines=_integers(series.sines, half),
            dealt_bits=bits - half,
            table=tables.sincos_digest(),
            clamp=None if inside else _clamp(function, x, unit),
        )


def static(shape: Shape) -> tuple[int, ...]:
    """The shape of an interval: the batch dimension has size 1, since rows share their bounds."""
    return tuple(1 if d == BATCH else int(d) for d in shape)


def log2(scale: Fraction) -> int:
    """floor(log2(scale))."""
    return math.frexp(float(scale))[1] - 1


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
    shift = max(0, log2(x.scale * Fraction(_CLAMP_STEP)))
    margin = 2 << shift
    limit = (1 << x.wire.bits) - 1
    low = max(-limit, math.ceil(function.low * x.scale) + margin)
    high = min(limit, math.floor(function.high * x.scale) - margin)
    return Clamp(
        low=low, high=high, below=round(function.below * unit), above=round(function.above * unit), shift=shift
    )
