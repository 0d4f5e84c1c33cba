"""Quotients of a value by what is at least a part of it: x / (sum x + c), x / max |x|, a / (0.7 a + c).

One over a small divisor is large, and no interval sees that x is small, too.  So x is brought to the octave of the
divisor: with s a power of two and u = s (sum x + c) in [1, 2) it is (s x) (1 / u), and s x is bounded as u is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mpc.compiler.graph.attributes import Function, Maximum, Sum, Take, Total, Weighted
from mpc.compiler.graph.graph import Node, static
from mpc.compiler.lowering.builder import LINEAR_BITS, Lowering
from mpc.compiler.lowering.emitted import Value
from mpc.compiler.lowering.intervals import Interval
from mpc.compiler.lowering.rules.pooled import moved, rounded_off
from mpc.compiler.lowering.rules.together import divided
from mpc.compiler.lowering.scales import log2

_FRACTION = 24
_WORSE = 64.0
"""A product with the inverse may be so many times as large as the quotient, and keeps enough digits."""
_OCTAVE = 2.3
"""No divisor is larger in its octave, whatever its comparison has rounded off."""
_DIGITS = 2.0**-12
"""Bounds what x is off by in the least octave, beside the largest quotient."""
_BETWEEN = frozenset({"scale", "relu", "reshape", "take"})
"""May stand between a sum and the inverse of what is hardly more, or keeps it from zero."""
_SURE = 2.0**-10
"""A value is not negative if it is so by roundings alone, which are no more beside its bound."""
_UNITS = 8
"""Bounds by how many of its units a maximum may be less than what it is the maximum of."""


@dataclass(frozen=True)
class _Part:
    """How large x can be beside its divisor: no more than `most` times it, and a little, in the model's units."""

    most: float
    little: float = 0.0


def ratio(state: Lowering, node: Node) -> Value | None:
    """Return the quotient, if its divisor is at least a part of x, its inverse was found by octaves, and a product
    with that would have too few digits; else None.
    """
    for place in (0, 1):
        name, over, moves = node.reads[place], node.reads[1 - place], list[Node]()
        while (move := state.graph.writers.get(over)) is not None and move.op == "take":
            moves.insert(0, move)
            [over] = move.reads
        if move is None or move.op != "function" or move.of(Function).name != "reciprocal":
            continue
        inverse = state.values[over]
        if inverse.wire.name in state.inverses and state.values[name].shape == node.shape:
            part = _part(state, name, move, moves)
            if part is None:
                return None
            part = replace(part, little=part.little + rounded_off(state.values[move.reads[0]]) * part.most)
            return _brought(state, node, name, inverse, moves, part)
    return None


def least(state: Lowering, node: Node) -> float | None:
    """Return a unit of the maxima that a node inverts more than nothing of, if such quotients alone read the inverse:
    what is less has no digits, however little is added to it.
    """
    names, found = [node.writes], list[float]()
    while names:
        name = names.pop()
        for reader in state.graph.readers(name):
            if reader.op == "take":
                names.append(reader.writes)
                continue
            others = [read for read in reader.reads if read != name]
            part = _part(state, others[0], node, []) if reader.op == "multiply" and len(others) == 1 else None
            if part is None or not part.little:
                return None
            found.append(part.little / _UNITS)
    return max(found, default=None) if not state.graph.is_output(node.writes) else None


def _brought(state: Lowering, node: Node, name: str, inverse: Value, moves: list[Node], part: _Part) -> Value | None:
    x, (power, octave) = state.values[name], state.inverses[inverse.wire.name]
    beside = part.little * octave.reals[1]
    most = _OCTAVE * part.most + beside
    size = (part.most + beside) * max(1 + 1 / 32, *(abs(end) for end in power.reals))
    if x.interval.bound * inverse.interval.bound < _WORSE * size * float(x.scale * inverse.scale):
        return None
    fraction = LINEAR_BITS - log2(octave.scale) - math.frexp(most)[1]
    if log2(x.scale) > fraction and math.ldexp(octave.reals[1], -fraction) > _DIGITS * most:
        return None
    x = state.shorten(x, fraction)
    octave, power = (moved(state, moves, each) for each in (octave, power))
    low = 0.0 if x.interval.least >= 0 and power.interval.least >= 0 else -1.0
    error = _error(x, inverse, part)
    brought = _product(state, node, (x, octave), (low * most, most), error)
    room = LINEAR_BITS - math.frexp(_OCTAVE * size)[1]
    brought = state.shorten(state.plain(brought), min(_FRACTION, room // 2))
    found = _product(
        state, node, (brought, state.shorten(power, room - log2(brought.scale))), (low * size, size), error
    )
    norms, unit = divided(state, node), octave.reals[1] / float(x.scale) + 2 / float(brought.scale)
    return replace(found, norms=norms and norms.rounded(_OCTAVE * unit))


def _error(x: Value, inverse: Value, part: _Part) -> float:
    """Return what the quotient is off by where the divisor is of the usual size, in the model's units."""
    typical = float(inverse.interval.typical.max())
    own = x.interval.worst_error / float(x.scale) * typical / float(inverse.scale)
    return math.hypot(inverse.interval.worst_error / typical * part.most, own)


def _product(
    state: Lowering, node: Node, factors: tuple[Value, Value], ends: tuple[float, float], error: float
) -> Value:
    x, y = factors
    scale = x.scale * y.scale
    unit = float(scale)
    interval = Interval.between(ends[0] * unit, ends[1] * unit, static(node.shape), error * unit)
    return state.add("multiply", node.shape, scale, interval, x=x.wire.name, y=y.wire.name)


def _part(state: Lowering, x: str, function: Node, moves: list[Node]) -> _Part | None:
    """Return how large x can be beside the divisor that a function inverts; None if nothing is known of it."""
    writers, name, weight, more, little = state.graph.writers, function.reads[0], 1.0, 0.0, 0.0
    shape, moves = [*state.values[name].shape], [*moves]
    while name != x and (found := writers.get(name)) is not None and found.op in _BETWEEN:
        if found.op == "scale":
            factor, bias = found.of(Weighted).weight, found.of(Weighted).bias
            if factor.size != 1 or (bias is not None and bias.size != 1) or factor.flat[0] <= 0:
                return None
            more += weight * (0.0 if bias is None else float(bias.flat[0]))
            weight *= float(factor.flat[0])
        elif found.op == "relu":
            little += _UNITS * weight / float(state.values[found.writes].scale)
        elif found.op == "take":
            if found.shape != tuple(shape):
                return None  # laid out anew behind it
            moves.append(found)
            shape[found.of(Take).axis] = 1
        [name] = found.reads
    if more < 0 or state.values[name].shape != tuple(shape):
        return None
    found = writers.get(name)
    if not moves and (own := _less(state, name, x)) is not None:
        return _Part(1 / weight, (own + little) / weight)
    if found is None or found.op not in ("total", "maximum") or not _repeats(found, state.values[x], moves):
        return None
    above, rectified = writers.get(x), found.op == "maximum" and found.of(Maximum).rectify
    if rectified and above is not None and above.op == "relu" and above.reads == found.reads:
        own = 0.0
    else:
        own = _less(state, found.reads[0], x)
    if own is None:
        return None
    if found.op == "maximum":
        unit = _UNITS / float(state.values[name].scale)
        return _Part(1 / weight, (own + unit + little) / weight) if found.of(Maximum).hidden is None else None
    taken = found.of(Total)
    number = math.prod(int(state.values[x].shape[axis]) for axis in taken.axes)
    return _Part(taken.divisor / weight, (number * own + little) * taken.divisor / weight)


def _less(state: Lowering, name: str, x: str) -> float | None:
    """Return by how much, in the model's units, a value may be less than |x|, and less than 0; None if it is not x, or
    |x| as 2 relu(x) - x.
    """
    found, value = state.graph.writers.get(name), state.values[name]
    unit = 1 / float(value.scale)
    if name == x:
        return (
            max(-value.interval.least, 0.0) * 2 * unit
            if value.interval.least >= -_SURE * value.interval.bound
            else None
        )
    if found is None or found.op != "sum" or found.of(Sum).constant or state.roles.security == "active":
        return None  # comparisons of checked runs may leave bits out
    factors = dict.fromkeys(found.reads, 0.0)
    for read, factor in zip(found.reads, found.of(Sum).factors, strict=True):
        factors[read] += factor
    positive = [
        read for read in factors if read != x and (above := state.graph.writers.get(read)) and above.reads == (x,)
    ]
    if factors == {x: 1.0}:
        return _less(state, x, x)
    if len(positive) != 1 or factors != {positive[0]: 2.0, x: -1.0} or state.graph.writers[positive[0]].op != "relu":
        return None
    return _UNITS * max(unit, 1 / float(state.values[positive[0]].scale))


def _repeats(found: Node, x: Value, moves: list[Node]) -> bool:
    """Is a sum, or a maximum, over axes of x repeated along these axes alone?"""
    if len(found.shape) != len(x.shape):
        return False
    axes = found.of(Total).axes if found.op == "total" else (len(x.shape) - 1,)
    sizes = zip(found.shape, x.shape, strict=True)
    kept = all(own == 1 if axis in axes else own == size for axis, (own, size) in enumerate(sizes))
    return kept and all(move.of(Take).axis in axes and not any(move.of(Take).indices) for move in moves)
