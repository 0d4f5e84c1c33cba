"""Public linear maps, which are free: what matters is that operands have one scale."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from mpc import fixedpoint
from mpc.compiler.graph.attributes import (
    Columns,
    Concat,
    Fit,
    Lowest,
    Round,
    Take,
    Total,
    Transpose,
    Weigh,
)
from mpc.compiler.graph.graph import Node, Shape, static
from mpc.compiler.lowering.builder import LINEAR_BITS, Lowering
from mpc.compiler.lowering.emitted import FRACTION_BITS, Value
from mpc.compiler.lowering.intervals import Interval, joined
from mpc.compiler.lowering.known import known_interval
from mpc.compiler.lowering.norms import reshaped
from mpc.compiler.lowering.rules.combinations import to_one_scale
from mpc.compiler.lowering.rules.together import total_of
from mpc.compiler.lowering.scales import even, log2
from mpc.gates.multiply import Multiply
from mpc.wires import MAX_BITS

_MOST_INNER = 1 << 16
"""Products of one sum."""
_ROUNDED_BITS = 44
"""What is rounded to be compared may have so many: a difference has room for a comparison on all of its bits."""


def total(state: Lowering, node: Node) -> Value:
    x, axes, divisor = state.values[node.reads[0]], node.of(Total).axes, node.of(Total).divisor
    total = known_interval(_summed(x, axes), x.scale * divisor, node)
    over = math.frexp(max(1.0, total.bound))[1] + 1 - LINEAR_BITS
    if over > 0:
        x = state.shorten(x, log2(x.scale) - over)
    scale = x.scale * divisor
    interval = known_interval(_summed(x, axes), scale, node)
    inner = _inner_product(state, node)
    if inner is not None and over <= 0:
        return _as_inner_product(state, node, inner, scale, interval)
    return state.add("total", node.shape, scale, interval, x=x.wire.name, axes=axes)


def _summed(x: Value, axes: tuple[int, ...]) -> Interval:
    """Return the interval of the sums of x, in units of x."""
    found = x.interval.summed(axes)
    if x.norms is None or x.norms.plain or axes != (x.norms.axis,):
        return found
    most = total_of(x) * float(x.scale) + 1
    return found.cut(-most, most)


def _inner_product(state: Lowering, node: Node) -> tuple[Value, Value] | None:
    """Return x and y, if the sum is one of x y over the last axes, and nobody else reads the products."""
    x, axes = state.values[node.reads[0]], node.of(Total).axes
    rank, size = len(x.shape), math.prod(static(tuple(x.shape[axis] for axis in axes)))
    gate = state.writers.get(x.wire.name)
    trailing = axes == tuple(range(rank - len(axes), rank)) and rank > len(axes)
    if not isinstance(gate, Multiply) or gate.y is None or not trailing or not 1 < size <= _MOST_INNER:
        return None
    if state.graph.sole_reader(node.reads[0]) is not node:
        return None
    first, second = state.wires[gate.x], state.wires[gate.y]
    if not first.shape == second.shape == x.shape:
        return None
    return Value(first, x.interval), Value(second, x.interval)


def _as_inner_product(
    state: Lowering, node: Node, pair: tuple[Value, Value], scale: Fraction, interval: Interval
) -> Value:
    """Multiply rows with columns: each sum is opened, and no product is.  What multiplied them is left behind."""
    lead = pair[0].shape[: -len(node.of(Total).axes)]
    size = math.prod(static(pair[0].shape[len(lead) :]))
    shapes: tuple[Shape, Shape] = (*lead, 1, size), (*lead, size, 1)
    names = []
    for each, shape in zip(pair, shapes, strict=True):
        name = f"{len(state.gates)}.reshape"
        gate = state.gate("reshape", x=each.wire.name, out=name)
        wire = each.wire.model_copy(
            update={"name": name, "shape": shape, "masking": gate.inherited(state.wires), "holders": ()}
        )
        state.wires[name] = wire
        names.append(name)
    product = pair[0].scale * pair[1].scale
    sums = state.add("matmul", (*lead, 1, 1), product, _reshaped(interval, (*lead, 1, 1)), x=names[0], y=names[1])
    kept = state.reshape(sums, node.shape)
    return state.combine([Value(kept.wire, interval)], [1], node.shape, scale)


def _reshaped(interval: Interval, shape: Shape) -> Interval:
    return interval.map(lambda array: array.reshape(static(shape)))


def weigh(state: Lowering, node: Node) -> Value:
    x, axis = state.values[node.reads[0]], node.of(Weigh).axis
    wanted = [Fraction(f).limit_denominator(1 << 16) for f in node.of(Weigh).factors]
    unit = _unit(wanted, x)
    x = _with_room(state, node, x, unit)
    unit = _unit(wanted, x)
    factors = [round(f * unit) for f in wanted]
    along = np.array(factors, dtype=np.float64).reshape(-1, *[1] * (len(node.shape) - axis - 1))
    return state.add(
        "weigh", node.shape, x.scale * unit, x.interval.times(along), x=x.wire.name, axis=axis, factors=tuple(factors)
    )


def _unit(factors: list[Fraction], x: Value) -> Fraction:
    """Return by what factors are multiplied to be whole."""
    common = math.lcm(*(f.denominator for f in factors))
    if common > 1 << 12:  # rounded, and the scale then a power of two
        return Fraction(1 << 14) * even(x.scale) / x.scale
    return Fraction(common)


def _with_room(state: Lowering, node: Node, x: Value, factor: Fraction) -> Value:
    """Return x shortened, if so many times as much has no room; then for as large a factor along another axis too, and
    before it was taken from a value that has fewer elements.
    """
    bits = _bits_of(x.interval.bound, factor)
    if bits <= MAX_BITS:
        return x
    over = bits - LINEAR_BITS + log2(factor)
    writer = state.graph.writers.get(node.reads[0])
    if writer is None or writer.op != "take":
        return state.shorten(x, log2(x.scale) - over)
    source, taken = state.values[writer.reads[0]], writer.of(Take)
    return state.take(state.shorten(source, log2(source.scale) - over), taken.axis, taken.indices)


def columns(state: Lowering, node: Node) -> Value:
    """Return x weight + bias, column by column: integers times powers of two, read at the scale of the smallest."""
    x, weight, bias = state.values[node.reads[0]], node.of(Columns).weight, node.of(Columns).bias
    if not node.shape:  # one number has no column
        weight, bias = weight.reshape(()), bias.reshape(())
    sign, least = (1 if weight.min() > 0 else -1), float(np.abs(weight).min())
    factors = [round(each) for each in (weight / least).reshape(-1).tolist()]
    unit = Fraction(least)
    widest = x.wire.bits + log2(Fraction(max(map(abs, factors))))
    if any(
        given.name == node.reads[0] and (given.stored or given.state) for given in state.graph.inputs
    ):  # at no scale of our choice
        widest = math.frexp(x.interval.times(weight / least).bound)[1] + 1
    reach = max(widest, _bits_of(float(np.abs(bias).max()), x.scale / unit))
    if reach > LINEAR_BITS:
        x = state.shorten(x, log2(x.scale) - (reach - LINEAR_BITS))
    scale, interval = x.scale / unit, x.interval
    if len(factors) > 1:
        axis, interval = int(np.argmax(weight.shape)), interval.times(weight / least)
        x = state.add("weigh", x.shape, scale, interval, x=x.wire.name, axis=axis, factors=tuple(factors))
        sign = 1
    settings: dict[str, Any] = {"xs": (x.wire.name,), "factors": (sign,)}
    interval = interval.times(sign)
    if bias.any():
        offset = fixedpoint.encode(bias, scale, "an offset")
        interval = interval.plus(Interval.exactly(offset)).broadcast_to(static(node.shape))
        settings["stored"] = state.stored(offset, scale)
    return state.add("combine", node.shape, scale, interval, **settings)


def _bits_of(size: float, scale: Fraction) -> int:
    return math.frexp(size * float(scale))[1] + 1


def reshape(state: Lowering, node: Node) -> Value:
    x = state.values[node.reads[0]]
    return replace(state.reshape(x, node.shape), norms=reshaped(x.norms, static(x.shape), static(node.shape)))


def transpose(state: Lowering, node: Node) -> Value:
    x, axes = state.values[node.reads[0]], node.of(Transpose).axes

    def how(array: np.ndarray) -> np.ndarray:
        return array.transpose(axes)

    norms = x.norms and x.norms.moved(how, axes.index(x.norms.axis))
    return replace(state.move("reshape", x, node.shape, how, axes=axes), norms=norms)


def take(state: Lowering, node: Node) -> Value:
    x, taken = state.values[node.reads[0]], node.of(Take)
    return replace(state.take(x, taken.axis, taken.indices), norms=x.norms and x.norms.taken(taken.axis, taken.indices))


def concat(state: Lowering, node: Node) -> Value:
    pairs = [(state.values[name], Fraction(1)) for name in node.reads]
    scale, factors = to_one_scale(state, pairs, node)
    aligned = [x if k == 1 and x.scale == scale else state.combine([x], [k], x.shape, scale) for x, k, _ in factors]
    axis = node.of(Concat).axis
    interval = joined([x.interval for x in aligned], axis)
    names, widest = tuple(x.wire.name for x in aligned), max(x.wire.bits for x in aligned)
    return state.add("concat", node.shape, scale, interval, least_bits=widest, xs=names, axis=axis)


def round_(state: Lowering, node: Node) -> Value:
    x, taken = state.values[node.reads[0]], node.of(Round)
    fraction = FRACTION_BITS if taken.fraction is None else taken.fraction
    if taken.floored:
        state.reaches(x)
    rounded = state.shorten(x, max(min(fraction, _ROUNDED_BITS - x.wire.bits + log2(x.scale)), FRACTION_BITS))
    if not taken.apart or (rounded is x and not taken.always):
        return rounded
    offset = taken.apart * np.arange(int(node.shape[-1]), dtype=np.int64)
    interval = rounded.interval.plus(Interval.exactly(offset))
    stored = state.stored(offset, rounded.scale)
    xs = (rounded.wire.name,)
    return state.add("combine", node.shape, rounded.scale, interval, xs=xs, factors=(1,), stored=stored)


def fit(state: Lowering, node: Node) -> Value:
    """Return the value itself, refused where its bounds leave its integer type."""
    x, (low, high) = state.values[node.reads[0]], node.of(Fit).ends
    least, most = x.reals
    if least < low - 0.5 or most > high + 0.5:
        raise node.origin.refuse(
            f"its result can lie between {least:.6g} and {most:.6g}, and {node.of(Fit).outside}",
            remedy=node.of(Fit).remedy,
        )
    return x


def lowest(state: Lowering, node: Node) -> Value:
    """Return x plus, where it is padding, its least number: no bound is larger for it."""
    x = state.values[node.reads[0]]
    where = np.broadcast_to(node.of(Lowest).where, static(node.shape))
    least = np.floor(x.interval.least)
    offset = np.where(where, least, 0.0).astype(np.int64)
    kept = x.interval.broadcast_to(static(node.shape))
    filled = kept.map(lambda array: np.where(where, 0.0, array)).plus(Interval.exactly(offset))
    stored, xs = state.stored(offset, x.scale), (x.wire.name,)
    return state.add("combine", node.shape, x.scale, filled, xs=xs, factors=(1,), stored=stored)
