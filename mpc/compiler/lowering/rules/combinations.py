"""Public linear combinations of values: what brings them to one scale, and what is known of the two sides of a clip."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np

from mpc.compiler.graph.attributes import Maximum, Sum, Weighted
from mpc.compiler.graph.graph import Node
from mpc.compiler.lowering.builder import LINEAR_BITS, Lowering
from mpc.compiler.lowering.emitted import FRACTION_BITS, Value
from mpc.compiler.lowering.rules.together import norms_of_sum
from mpc.compiler.lowering.scales import even, log2
from mpc.gates.relu import Relu

_FACTOR_BITS = 18
_FINEST_FACTOR = 26
_COARSEST_FACTOR = 12
"""Bits of factors that are no integers: as usual; of sums that have no room for these, rather than none at all."""
_COARSER = 3
"""Fractional bits fewer that operands of such sums are tried with, again and again."""
_SIMPLE = 64
_ROUNDINGS = 6
"""Units of an operand: the two sides of a clip are rounded apart, each where it is added to, shortened and compared."""
_CONSTANT_FRACTION, _FINEST_SUM = FRACTION_BITS + 4, 40
"""Fractional bits that a constant gives to a sum that has fewer, and those that it has at most then."""
_FEWEST_UNITS = 1 << 12
"""A constant of fewer units is off by more than a ten-thousandth of itself, and so is what a logarithm makes of it."""


def sum_(state: Lowering, node: Node, coarsest: int = _FACTOR_BITS, simple: int = _SIMPLE) -> Value:
    """Return a public linear combination; what are no integers take some fractional bits of the scale.

    Args:
        coarsest: fractional bits that operands are left with at least, where the sum has no room for more.
        simple: the largest denominator of factors that are taken as they are.
    """
    xs, wanted = [state.values[name] for name in node.reads], node.of(Sum).factors
    pairs = [(x, Fraction(factor)) for x, factor in zip(xs, wanted, strict=True) if factor]
    if not pairs:
        raise node.origin.refuse(
            "all its factors are zero", remedy="leave it out of the model: its result is a constant"
        )
    scale, factors = to_one_scale(state, pairs, node, coarsest, simple)
    spread = _spread(node.of(Sum).constant, scale, factors)
    scale, factors = scale * (1 << spread), [(x, k << spread, off) for x, k, off in factors]
    constant = round(Fraction(node.of(Sum).constant) * scale)
    norms = norms_of_sum(state, node)
    whole, unread = [k for _, k, _ in factors], _unread(state, node)
    found = state.combine([x for x, _, _ in factors], whole, node.shape, scale, constant, node, norms, unread)
    if _is_size(state, node):  # what ends in a ReLU is rounded by one unit or two
        least = -_ROUNDINGS * max(abs(k) for k in whole)
        found = replace(found, interval=found.interval.cut(least, math.inf))
    bends = _bends(state, node)
    if bends is None:
        off = sum(np.square(float(k) * off * x.interval.typical) for x, k, off in factors)
        return replace(found, interval=found.interval.off_by(np.hypot(found.interval.error, np.sqrt(off))))
    error = found.interval.error
    if bends[0] is not None:  # what the value is off by passes once, whichever side of it is seen
        error = np.minimum(error, np.maximum(*(x.interval.error * abs(k) for x, k, _ in factors)))
    sides = [x for x, k, _ in factors if k < 0 or bends[0] is not None]
    roundings = 0 if scale == 1 and all(_is_whole(state, x) for x in sides) else _ROUNDINGS
    room = sum(abs(k) * (roundings + off * x.interval.bound) for x, k, off in factors)
    low, high = (end * float(scale) for end in _clipped(bends, next(x for x, k, _ in factors if k > 0)))
    return Value(found.wire, replace(found.interval.within(low - room, high + room), error=error))


def _spread(constant: float, scale: Fraction, factors: list[tuple[Value, int, float]]) -> int:
    """Return fractional bits that a sum lacks to hold a constant, as far as there is room: little may be all there is.

    Whole numbers have none, and an epsilon that is added to them makes them positive.
    """
    whole = Fraction(constant) * scale
    if whole.denominator == 1 or (scale != 1 and abs(whole) >= _FEWEST_UNITS):
        return 0
    wanted = max(_CONSTANT_FRACTION - log2(scale), math.frexp(_FEWEST_UNITS)[1] - math.frexp(abs(float(whole)))[1])
    reach = sum(x.interval.bound * abs(k) for x, k, _ in factors) + abs(float(whole))
    return max(0, min(wanted, _FINEST_SUM - log2(scale), LINEAR_BITS - 1 - math.frexp(max(1.0, reach))[1]))


def _unread(state: Lowering, node: Node) -> np.ndarray | None:
    """Return where scores are hidden that the largest of the others is subtracted from: they can be above it."""
    tops = (state.graph.writers.get(name) for name in node.reads)
    masks = (top.attributes.hidden for top in tops if top is not None and isinstance(top.attributes, Maximum))
    skipped = [state.skipped[hidden].where for hidden in masks if hidden is not None and hidden in state.skipped]
    return skipped[0] if skipped else None


def _is_size(state: Lowering, node: Node) -> bool:
    """Is it 2 relu(x) - x, the size of x?"""
    taken = node.of(Sum)
    if taken.factors != (2.0, -1.0) or taken.constant:
        return False
    above = state.graph.writers.get(node.reads[0])
    return above is not None and above.op == "relu" and above.reads[0] == node.reads[1]


def _bends(state: Lowering, node: Node) -> tuple[np.ndarray | None, np.ndarray] | None:
    """(-low, -high) of relu(x - low) - relu(x - high), (None, -high) of x - relu(x - high); None of another sum."""
    taken = node.of(Sum)
    if sorted(taken.factors) != [-1.0, 1.0] or taken.constant:
        return None
    order = node.reads if taken.factors[0] > 0 else node.reads[::-1]
    first, second = (_bend(state.graph.writers, name) for name in order)
    if second is None:
        return None
    x = next((name for name in first or () if name in second), None)
    if first is not None and x is not None:
        return first[x], second[x]
    return (None, second[order[0]]) if order[0] in second else None


def _is_whole(state: Lowering, x: Value) -> bool:
    """Is it a side of whole numbers that nothing rounds?"""
    gate = state.writers[x.wire.name]
    return x.scale == 1 and isinstance(gate, Relu) and gate.shift == 0 and gate.coarse == 0


def _bend(writers: dict[str, Node], name: str) -> dict[str, np.ndarray] | None:
    """Return b by x, the nearest first, if the value is relu(x + b): what is added to x may be x + b of another x."""
    bend = writers.get(name)
    if bend is None or bend.op != "relu":
        return None
    x, bias = bend.reads[0], np.zeros(1)
    found = {x: bias}
    while (above := writers.get(x)) is not None and above.op == "scale" and (above.of(Weighted).weight == 1).all():
        added = above.of(Weighted).bias
        x, bias = above.reads[0], bias if added is None else bias + added
        found[x] = bias
    return found


def _clipped(bends: tuple[np.ndarray | None, np.ndarray], x: Value) -> tuple[float, float]:
    """Between what such a difference lies, of which the first operand is x, but for roundings."""
    first, second = bends
    if first is None:  # the smaller one of x and -second
        least = np.minimum(x.interval.low / float(x.scale), -second)
        return float(least.min()), float(np.max(-second))
    return float(np.minimum(first - second, 0).min()), float(np.maximum(first - second, 0).max())


def to_one_scale(
    state: Lowering,
    pairs: list[tuple[Value, Fraction]],
    node: Node,
    coarsest: int = _FACTOR_BITS,
    simple: int = _SIMPLE,
) -> tuple[Fraction, list[tuple[Value, int, float]]]:
    """Return one scale for all, and integers to multiply each with, and what each is off by, beside its size.

    Small integers are exact.  Where there are none, the scale is a power of two.
    """
    for fraction in (None, *range(_FACTOR_BITS, coarsest - 1, -_COARSER)):
        if fraction is not None:
            pairs = [(state.shorten(x, fraction), factor) for x, factor in pairs]
        scale = max(x.scale for x, _ in pairs)
        exact = [factor * scale / x.scale for x, factor in pairs]
        common = math.lcm(*(f.denominator for f in exact))
        unit = Fraction(common) if common <= simple else Fraction(1 << _FACTOR_BITS)
        if common > simple:
            scale, exact = even(scale), [f * even(scale) / scale for f in exact]
            whole = sum(x.interval.bound * float(abs(f)) for (x, _), f in zip(pairs, exact, strict=True))
            room = LINEAR_BITS - 1 - math.frexp(max(1.0, whole))[1]
            least = _FACTOR_BITS if fraction is None else _COARSEST_FACTOR
            unit = Fraction(1 << max(least, min(_FINEST_FACTOR, room)))
        reach = sum(x.interval.bound * float(abs(f) * unit) for (x, _), f in zip(pairs, exact, strict=True))
        if isinstance(taken := node.attributes, Sum):
            if taken.known is not None:  # terms may wrap, if their sum does not
                reach = min(reach, max(map(abs, taken.known)) * 1.05 * float(scale * unit))
            norms = norms_of_sum(state, node)
            if norms is not None:
                reach = min(reach, float(norms.euclidean.max()) * 1.05 * float(scale * unit))
            reach = max(reach, abs(taken.constant) * float(scale * unit))
        if reach < 2.0**LINEAR_BITS:
            break
    factors = [(x, round(f * unit), f * unit) for (x, _), f in zip(pairs, exact, strict=True)]
    return scale * unit, [(x, k, abs(float(wanted / k) - 1)) for x, k, wanted in factors if k]
