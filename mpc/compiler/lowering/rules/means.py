"""Weighted means, sum w y / sum w: where weights span many octaves, both sums do, and share them.

A product of the one with the inverse of the other would leave digits to neither.  So weights are brought to the
octave of their sum before: with s a power of two and u = s sum w in [1, 2), the mean is (sum (s w) y) (1 / u), and
no s w is above 2, which no interval can see.  Shares of a sum, w / sum w, are found alike; so are quotients by a mean
of n numbers, of which none is above n: their weights are up to 2 n in the octave of the mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from mpc.compiler.graph.attributes import Total
from mpc.compiler.graph.graph import Node, Shape, static
from mpc.compiler.lowering.builder import LINEAR_BITS, Lowering
from mpc.compiler.lowering.emitted import Value
from mpc.compiler.lowering.intervals import Interval
from mpc.compiler.lowering.rules.together import divided
from mpc.compiler.lowering.scales import log2

_FRACTION = 24
_SLACK = 1 / 64
"""By how much roundings of weights may change their sum, beside it."""
_OCTAVE = 2.04 * (1 + _SLACK)
"""No weight is larger in the octave of the sum."""


def share(state: Lowering, node: Node) -> Value | None:
    """Return w / sum w, if that is what this product is and an inverse was found by octaves; else None."""
    weights, inverse = (state.values[name] for name in node.reads)
    if inverse.wire.name not in state.inverses or weights.interval.least < 0:
        return None
    writers = state.graph.writers
    below = writers.get(writers[node.reads[1]].reads[0])
    if below is None or below.op != "total" or below.reads[0] != node.reads[0] or below.shape != inverse.shape:
        return None
    power, octave = state.inverses[inverse.wire.name]
    divisor = below.of(Total).divisor
    room = LINEAR_BITS - 3 - (divisor - 1).bit_length()
    weights = state.shorten(weights, room - log2(octave.scale))
    most = _OCTAVE * divisor + 2 * octave.reals[1] / float(weights.scale)
    if most > 2 * _OCTAVE * divisor:
        return None
    error = _relative(weights, weights, inverse, 1) * divisor
    fraction = min(_FRACTION, room // 2)
    brought = state.shorten(_bounded(state, weights, octave, node.shape, (0.0, most), error), fraction)
    power = state.shorten(power, room - log2(brought.scale))
    found = _bounded(state, brought, power, node.shape, (0.0, most), error)
    norms, unit = divided(state, node), octave.reals[1] / float(weights.scale) + 2 / float(brought.scale)
    return replace(found, norms=norms and norms.rounded(_OCTAVE * unit))


@dataclass(frozen=True)
class _Mean:
    """A weighted mean that was found in the graph.

    Args:
        total: the node that adds up the products of weights and values.
        least: the least sum of the weights, in the model's units.
    """

    weights: Value
    values: Value
    product: Node
    total: Node
    least: float

    @property
    def size(self) -> float:
        """The largest that the mean can be, in the model's units."""
        return (1 + _SLACK) * self.values.interval.bound / float(self.values.scale)

    @property
    def divisor(self) -> int:
        """The number that divides both sums; no weight is above so many times their mean."""
        return self.total.of(Total).divisor

    @property
    def number(self) -> int:
        return math.prod(int(self.product.shape[axis]) for axis in self.total.of(Total).axes)


def weighted_mean(state: Lowering, node: Node) -> Value | None:
    """Return the mean, if that is what this product is and an inverse was found by octaves; else None."""
    inverse = state.values[node.reads[1]]
    if inverse.wire.name not in state.inverses:
        return None
    power, octave = state.inverses[inverse.wire.name]
    mean = _found(state, node)
    if mean is None:
        return None
    weights = state.shorten(mean.weights, LINEAR_BITS - 3 - (mean.divisor - 1).bit_length() - log2(octave.scale))
    if mean.number / float(weights.scale) > _SLACK / 4 * mean.least * mean.divisor:
        return None
    kept = mean.total.shape
    octave = state.reshape(octave, kept)
    brought = _bounded(state, weights, octave, mean.product.shape, (0.0, _OCTAVE * mean.divisor), 0.0)
    room = LINEAR_BITS - math.frexp(_OCTAVE * mean.divisor * mean.size)[1] - mean.number.bit_length()
    values = state.shorten(mean.values, min(_FRACTION, room // 2))
    brought = state.shorten(brought, min(_FRACTION, room - log2(values.scale)))
    most = _OCTAVE * mean.size
    error = _error(mean, weights, brought, values, inverse)
    largest = most * mean.divisor
    each = _bounded(state, brought, values, mean.product.shape, (-largest, largest), error / math.sqrt(mean.number))
    axes, scale = mean.total.of(Total).axes, each.scale * mean.divisor
    total = state.add("total", kept, scale, _within(scale, kept, most, error), x=each.wire.name, axes=axes)
    total = state.shorten(state.reshape(total, node.shape), min(_FRACTION, room // 2))
    power = state.shorten(power, room - log2(total.scale))
    return _bounded(state, total, power, node.shape, (-mean.size, mean.size), error)


def _found(state: Lowering, node: Node) -> _Mean | None:
    """Find the mean, if the node is sum w y times 1 / sum w, where no w is negative."""
    writers = state.graph.writers

    def behind(name: str) -> Node | None:
        while (found := writers.get(name)) is not None and found.op == "reshape":
            name = found.reads[0]
        return found

    above, function = behind(node.reads[0]), writers[node.reads[1]]
    below = behind(function.reads[0])
    shapes = {state.values[name].shape for name in node.reads}
    if above is None or below is None or not above.op == below.op == "total" or len(shapes) > 1:
        return None
    product, weight = behind(above.reads[0]), below.reads[0]
    if product is None or product.op != "multiply" or product.reads.count(weight) != 1:
        return None
    weights, [values] = state.values[weight], [state.values[name] for name in product.reads if name != weight]
    alike = _alike(above.of(Total), below.of(Total)) and above.shape == below.shape
    least = state.values[below.writes].reals[0]
    if not alike or weights.shape != product.shape or weights.interval.least < 0 or least <= 0:
        return None
    return _Mean(weights, values, product, above, least)


def _alike(above: Total, below: Total) -> bool:
    """Are both sums over equal axes, divided alike and known alike?"""
    if (above.axes, above.divisor, above.known) != (below.axes, below.divisor, below.known):
        return False
    moments = zip(above.usual or (), below.usual or (), strict=False)
    return (above.usual is None) == (below.usual is None) and all(np.array_equal(a, b) for a, b in moments)


def _error(mean: _Mean, weights: Value, brought: Value, values: Value, inverse: Value) -> float:
    """In the model's units: of weights and inverse beside the size of the mean, and of the values."""
    relative = _relative(weights, brought, inverse, mean.number)
    return math.hypot(relative * mean.size, values.interval.worst_error / float(values.scale))


def _relative(weights: Value, brought: Value, inverse: Value, number: int) -> float:
    """Return the relative error of a weighted mean over `number` weights, in the octave of their sum (unitless)."""
    typical = float(inverse.interval.typical.max())
    beside = typical / float(inverse.scale) * weights.interval.worst_error / float(weights.scale)
    rounding = 1 / float(brought.scale)
    return math.hypot(math.sqrt(number) * max(beside, rounding), inverse.interval.worst_error / typical)


def _bounded(state: Lowering, x: Value, y: Value, shape: Shape, ends: tuple[float, float], error: float) -> Value:
    """x y, which lies there for reasons that intervals do not see."""
    scale = x.scale * y.scale
    unit = float(scale)
    interval = Interval.between(ends[0] * unit, ends[1] * unit, static(shape), error * unit)
    return state.add("multiply", shape, scale, interval, x=x.wire.name, y=y.wire.name)


def _within(scale: Fraction, shape: Shape, most: float, error: float) -> Interval:
    """Return the interval, in units of a scale, of a sum of products whose weights' sum is bounded."""
    unit = float(scale)
    return Interval.between(-most * unit, most * unit, static(shape), error * unit)
