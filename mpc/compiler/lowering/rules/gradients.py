"""Lower what training adds: values of few fractional bits, products that round nothing, bits that are read again."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from mpc import tables
from mpc.compiler.graph.attributes import Link, Maximum, OneHot, Rectified, Round, Scatter, Select, Sliding, Weighted
from mpc.compiler.graph.evaluate import move
from mpc.compiler.graph.graph import Node, static
from mpc.compiler.lowering.builder import LINEAR_BITS, Lowering
from mpc.compiler.lowering.emitted import Value
from mpc.compiler.lowering.intervals import ROUNDING, Interval
from mpc.compiler.lowering.known import product_of
from mpc.compiler.lowering.rules import combinations, comparisons, constants, maps, products
from mpc.compiler.lowering.scales import is_even, log2
from mpc.compiler.lowering.tournaments import MOST_CANDIDATES
from mpc.compiler.series import period_above, turns, wide
from mpc.gates.onehot import MOST_CLASSES
from mpc.wires import MAX_BITS, Masking

_FINE = 12
"""Bits that the coefficients of a link have for turning only."""
_FEWER_DEALT_BITS, _FEWEST_DEALT_BITS = 2, 4
"""By how much dealt waves have fewer bits than half of a result's, so that coefficients have more: these are rounded
term by term whatever their size, where a wave's rounding counts by its coefficient, of which most are small."""
_SLACK = 6
"""Fractional bits that a value may have beyond those it is to have before a round is spent on them."""
_EXACT_BITS = 48
FEWEST_BITS = 6
"""Fractional bits that a value of training keeps, whatever its bound."""
_ENOUGH_BITS = 16
"""Fractional bits of an operand beyond which nobody misses one."""
SMALLER_STEP = (
    "give samples that bounds may rest on (--calibrate, in Python samples=(x, y)), declare smaller ranges (--range, in "
    "Python also cluster.trainer(..., precision=Precision(weights=..., ceiling=...))), or train fewer layers (--frozen)"
)
_FINEST_FACTOR = 1 << 9
"""The largest denominator of a momentum, which a velocity is multiplied with exactly."""
_GATES = {"matmul": "matmul", "conv": "convolution", "multiply": "multiply"}


def product(state: Lowering, node: Node) -> Value:
    """Multiply two values as they are: weights that train are read with all of their bits, and nothing is rounded.

    Only where the result would be too large are operands shortened, as in `products`.
    """
    if isinstance(node.attributes, Weighted):
        return products.affine(state, node)
    x, y = (state.values[name] for name in node.reads)
    over_reals, square, scale = product_of(node), node.reads[0] == node.reads[1], x.scale * y.scale
    for _ in range(3):
        interval = products.product_interval(x, y, node, over_reals, square)
        over = math.frexp(max(1.0, interval.bound))[1] + 1 - LINEAR_BITS
        if over <= 0:
            break
        x, y = _shorter(state, x, y, over)
        _require_digits(state, interval.bound / float(scale), x, y)
    else:
        interval = products.product_interval(x, y, node, over_reals, square)
    settings: dict[str, Any] = {"x": x.wire.name, "y": y.wire.name}
    if isinstance(node.attributes, Sliding):
        settings["windows"] = node.attributes.windows
    return state.add(_GATES[node.op], node.shape, x.scale * y.scale, interval, **settings)


def _shorter(state: Lowering, x: Value, y: Value, over: int) -> tuple[Value, Value]:
    """Return both with fewer fractional bits, so many together: first the one that has more, then both alike.

    What is proved of their sizes says little of these: it grows with each layer, and the values do not.
    """
    bits = [log2(x.scale), log2(y.scale)]
    for _ in range(over):
        bits[bits[0] <= bits[1]] -= 1
    return state.shorten(x, bits[0]), state.shorten(y, bits[1])


def _require_digits(state: Lowering, reach: float, x: Value, y: Value) -> None:
    """Refuse a product whose operands would lose their digits to a bound; tell of one that costs some."""
    left = min(log2(x.scale), log2(y.scale))
    if left < FEWEST_BITS:
        raise state.origin.refuse(
            f"its result can reach {reach:.3g}, which leaves {left} fractional bits of what it multiplies",
            remedy=SMALLER_STEP,
        )
    if left < _ENOUGH_BITS:
        state.note(
            f"its result can reach {reach:.3g}: it reads its operands with {left} fractional bits or more, a round"
        )


def round_(state: Lowering, node: Node) -> Value:
    """Return a value with its fractional bits, if it has many more: fewer are no harm, and a few more cost no round."""
    x, fraction = state.values[node.reads[0]], node.of(Round).fraction
    if (drop := node.of(Round).drop) >= x.wire.bits:
        raise node.origin.refuse(
            f"a part of 2^-{drop} of it is less than its last digit", remedy="use a larger weight decay, or none"
        )
    if drop:
        return state.truncate(x, drop)
    if fraction is None:
        return maps.round_(state, node)
    return x if log2(x.scale) <= fraction + _SLACK else state.shorten(x, fraction)


def round_evenly(state: Lowering, node: Node) -> Value:
    """Return what `round_` does, at a power of two as its scale, which costs a truncation where it was none."""
    x = round_(state, node)
    return x if is_even(x.scale) else state.truncate(*state.evened(state.roomy(x), 0))


def relu(state: Lowering, node: Node) -> Value:
    """Return max(0, x), with the fractional bits and up to the ceiling that the node names; its bit if one reads it."""
    if not isinstance(node.attributes, Rectified):
        return comparisons.relu(state, node)
    taken, x = node.attributes, state.values[node.reads[0]]
    if taken.fraction is None and taken.ceiling is not None and 0 <= x.reals[0] and x.reals[1] <= taken.ceiling:
        return x  # no training: there each has its digits
    x, shift = _shortened(state, x, taken.fraction, 0)
    scale = x.scale / (1 << shift)
    interval = x.interval.truncated(shift).rectified()
    settings: dict[str, Any] = {}
    if taken.ceiling is not None and interval.most > (ceiling := math.floor(taken.ceiling * scale)):
        interval, settings["ceiling"] = interval.within(0, ceiling), ceiling
        x = _with_room(state, x, (ceiling + 2) << shift)
    if _is_chosen_by(state, node.reads[0], among=False):
        settings["bit"] = _bit(state, node.reads[0], False, x)
    return _written(state, "relu", node, scale, interval, settings, x=x.wire.name, shift=shift)


def maximum(state: Lowering, node: Node) -> Value:
    """Find the largest of each row, and which it is if a derivative asks."""
    x = state.values[node.reads[0]]
    if not _is_chosen_by(state, node.reads[0], among=True):
        return comparisons.maximum(state, node)
    if int(x.shape[-1]) > MOST_CANDIDATES:
        raise node.origin.refuse(
            f"the derivative of a maximum of {x.shape[-1]} values is not known; at most {MOST_CANDIDATES} are possible",
            remedy="pool by smaller windows, one after another, or by averages",
        )
    rectify = node.of(Maximum).rectify
    x, shift = _shortened(state, x, node.of(Maximum).fraction, 1)
    top = x.interval.greatest().truncated(shift)
    settings = {"bit": _bit(state, node.reads[0], True, x)}
    name = f"{len(state.gates)}.maximum.value"
    interval = top.rectified() if rectify else top
    value = state.wire(name, node.shape, x.scale / (1 << shift), interval)
    _gate_then_bit(state, "maximum", settings, x=x.wire.name, value=name, shift=shift, rectify=rectify)
    return value


def select(state: Lowering, node: Node) -> Value:
    """Choose by the bit that the forward gate has left, and shorten to the fractional bits that gradients have."""
    g, taken = state.values[node.reads[0]], node.of(Select)
    bit = state.memo.get(("bit", node.reads[1], taken.among))
    if bit is None:
        raise node.origin.refuse(
            "its derivative chooses by a comparison that the model does not make",
            remedy="leave the layer in the model that is trained",
        )
    g, shift = _shortened(state, g, taken.fraction, 0)
    found = g.interval.truncated(shift)
    interval = replace(found, low=np.minimum(found.low, 0), high=np.maximum(found.high, 0))
    interval = interval.broadcast_to(static(node.shape))
    return state.add(
        "select", node.shape, g.scale / (1 << shift), interval, x=g.wire.name, bit=bit.wire.name, shift=shift
    )


def scatter(state: Lowering, node: Node) -> Value:
    """Add slices up where their indices say."""
    x, taken = state.values[node.reads[0]], node.of(Scatter)
    low, high, squares = (move(node, [part]) for part in (x.interval.low, x.interval.high, np.square(x.interval.error)))
    mean, variance = (move(node, [part]) for part in (x.interval.mean, x.interval.variance))
    interval = Interval(low, high, np.sqrt(squares), mean, variance)
    return state.add("scatter", node.shape, x.scale, interval, x=x.wire.name, axis=taken.axis, indices=taken.indices)


def one_hot(state: Lowering, node: Node) -> Value:
    """Return the bits of which number an input is; of few numbers, since each row is dealt a table of all of them."""
    x, size = state.values[node.reads[0]], node.of(OneHot).size
    if size > MOST_CLASSES:
        raise node.origin.refuse(
            f"targets of {size} classes in one column; {MOST_CLASSES} are possible",
            remedy="put the targets as an array of one number a class",
        )
    return state.add(
        "onehot", node.shape, Fraction(1), Interval.between(0, 1, static(node.shape)), x=x.wire.name, number=size
    )


def scale(state: Lowering, node: Node) -> Value:
    """Multiply by constants; to divide what lies at the parties by the end of its range is to read it in other units.

    The plan tells that end anyway, so no constant of the model's is told that hangs on anything else.  Where layers
    follow one another the units of each would pass on to the next one's, and grow.
    """
    taken, x = node.of(Weighted), state.values[node.reads[0]]
    most = _largest_at_rest(state, node.reads[0])
    bare = taken.weight.size == 1 and (taken.bias is None or not taken.bias.any())
    if most and bare and (not most & (most - 1) or not any(n.op in ("select", "function") for n in state.graph.nodes)):
        if np.float32(taken.weight.flat[0]) == np.float32(1 / most):
            return state.rescaled(x, x.scale * most)
    return constants.scale(state, node)


def _largest_at_rest(state: Lowering, name: str) -> int:
    """The larger end of the range of an input that lies at the parties, if it is a whole number; else 0."""
    writers = state.graph.writers
    while name in writers and writers[name].op == "round":
        name = writers[name].reads[0]
    found = [given for given in state.graph.inputs if given.name == name and given.stored is not None]
    most = float(np.max(np.abs(found[0].range))) if found else 0.0
    return int(most) if most == int(most) else 0


def sum_(state: Lowering, node: Node) -> Value:
    """Add up; of a series less one-hot targets the difference is opened, and neither of them."""
    writers = state.graph.writers
    written = [writers[name].op for name in node.reads if name in writers]
    if sorted(written) == ["link", "onehot"] and all(state.graph.sole_reader(name) is node for name in node.reads):
        for name in node.reads:
            value = state.values[name]
            wire = state.wires[value.wire.name] = value.wire.model_copy(update={"masking": Masking.UNOPENED})
            state.values[name] = replace(value, wire=wire)
        found = combinations.sum_(state, node)
        return state.add("open", node.shape, found.scale, found.interval, found.wire.bits, x=found.wire.name)
    return combinations.sum_(state, node, FEWEST_BITS, _FINEST_FACTOR)


def link(state: Lowering, node: Node) -> Value:
    """Evaluate a function as one series over its whole period, with the bits that its result is to have."""
    x, taken = state.values[node.reads[0]], node.of(Link)
    if not is_even(x.scale):
        x, _ = state.evened(x, 0)
    if not is_even(x.scale):  # there was no room: the series has another period
        taken = replace(taken, period=period_above(taken.period, x.scale))
    factor, window = turns(x.scale, taken.period)
    if x.wire.bits + factor.bit_length() > MAX_BITS or window > tables.MOST_WINDOW:
        x = state.shorten(x, log2(x.scale) - max(x.wire.bits + factor.bit_length() - MAX_BITS, window - 56))
        factor, window = turns(x.scale, taken.period)
    if factor > 1:
        x = state.combine([x], [factor], x.shape, x.scale * factor)
    parameters = tuple(sorted(taken.parameters.items()))
    series = wide(taken.name, parameters, taken.period, taken.terms, taken.reach, taken.wall)
    dealt = max(_FEWEST_DEALT_BITS, (taken.fraction + 1) // 2 - _FEWER_DEALT_BITS)
    half = taken.fraction - dealt
    unit, most = float(1 << taken.fraction), 2 * taken.terms * 2.0 ** -(half + 1) + series.reach * 2.0**-dealt
    low, high = series.ends
    error = math.hypot(series.error, math.sqrt(2 * taken.terms) * ROUNDING * 2.0**-half)
    interval = Interval.between((low - most) * unit, (high + most) * unit, static(node.shape), error * unit)
    return state.add(
        "fourier",
        node.shape,
        Fraction(1 << taken.fraction),
        interval,
        x=x.wire.name,
        window=window,
        constant=round(series.constant * unit),
        cosines=tuple(int(v) for v in np.rint(np.ldexp(series.cosines, half + _FINE))),
        sines=tuple(int(v) for v in np.rint(np.ldexp(series.sines, half + _FINE))),
        dealt_bits=dealt,
        table=tables.sincos_digest(),
        fine=_FINE,
    )


def _shortened(state: Lowering, x: Value, fraction: int | None, extra: int) -> tuple[Value, int]:
    """Return x and the shift that leaves so many fractional bits, and no more than can be compared."""
    if fraction is None:
        shift = state.rounding(x, extra)
    else:
        shift = min(max(0, log2(x.scale) - fraction, x.wire.bits + extra - _EXACT_BITS), x.wire.bits - 1)
    return x, shift


def _with_room(state: Lowering, x: Value, units: int) -> Value:
    """Return x on a wire of whose bound so many units are left over."""
    least = math.frexp(x.interval.bound * (1 + 1 / 64) + 2 + units)[1]
    if least <= x.wire.bits:
        return x
    return state.add("combine", x.shape, x.scale, x.interval, least, xs=(x.wire.name,), factors=(1,))


def _is_chosen_by(state: Lowering, name: str, among: bool) -> bool:
    return any(
        node.reads[1] == name and node.of(Select).among == among for node in state.graph.nodes if node.op == "select"
    )


def _bit(state: Lowering, name: str, among: bool, x: Value) -> str:
    """Name the wire of a comparison's bits, one of each element of x, and keep it for the selections behind."""
    found = f"{len(state.gates)}.bit"
    state.memo["bit", name, among] = Value(state.flipped(found, x.shape), Interval.between(0, 1, x.interval.low.shape))
    return found


def _written(
    state: Lowering, kind: str, node: Node, scale: Fraction, interval: Interval, bit: dict[str, Any], **settings: Any
) -> Value:
    name = f"{len(state.gates)}.{kind}"
    value = state.wire(name, node.shape, scale, interval)
    _gate_then_bit(state, kind, bit, out=name, **settings)
    return value


def _gate_then_bit(state: Lowering, kind: str, bit: dict[str, Any], **settings: Any) -> None:
    """Append a gate; the wire of its bits comes behind that of its result, as the gate writes them."""
    if "bit" in bit:
        state.wires[bit["bit"]] = state.wires.pop(bit["bit"])
    state.gate(kind, **settings, **bit)
