"""Lower what compares: signs, steps, maxima."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np

from mpc.compiler.graph.attributes import ArgMax, Function, Maximum, Step, Sum, Weighted
from mpc.compiler.graph.graph import MOVES, Node, static
from mpc.compiler.lowering import checked, masked
from mpc.compiler.lowering.builder import Lowering
from mpc.compiler.lowering.emitted import FRACTION_BITS, Value
from mpc.compiler.lowering.intervals import Interval
from mpc.compiler.lowering.rules.sums import bounded
from mpc.compiler.lowering.rules.together import contracted
from mpc.compiler.lowering.scales import log2
from mpc.compiler.lowering.tournaments import MOST_CANDIDATES, levels
from mpc.wires import MAX_BITS, Masking

_STEP_FRACTION = 20
_LARGEST_ARGMAX = 128
_REACH_BITS = 55
_EXACT_BITS = 48
_FINE_FRACTION = 26
"""Fractional bits of what is compared with zero, and then an argument that is steep there."""
_STEEP = frozenset({"log", "reciprocal", "rsqrt", "sqrt", "power"})
_LITTLE = 1 / 64
"""No argument is steep where so much has been added to it."""
_LEVEL_BITS = 2
"""A difference to a level has so many more, with room for its rounding."""
_PLACE_BITS = 36
"""Of the comparisons that find a place: what is closer than one unit of so many counts as equal, and the first wins."""
_DIVISOR_BITS = 24
"""Sets how many bits of a maximum are compared that something is divided by: small rows have digits, too."""
_SURE_BITS = 24
"""Whole numbers of so few bits leave a ReLU as they are, but for a chance of 2^-36; a wire has room for one unit."""


def relu(state: Lowering, node: Node) -> Value:
    x = state.values[node.reads[0]]
    if _decides_places(state, node):
        shift = max(0, x.wire.bits - _EXACT_BITS)
    elif _meets_a_pole(state, node):
        x, shift = _shifted(state, x, max(0, log2(x.scale) - _FINE_FRACTION, x.wire.bits - _EXACT_BITS))
    else:
        x, shift = _rounded(state, x)
    sure = shift == 0 and x.wire.bits <= _SURE_BITS
    dropped, rounded = checked.coarse(state, node, x, shift), x.interval if sure else x.interval.truncated(shift)
    interval = checked.misjudged(rounded.rectified(), rounded, dropped)
    scale, name = x.scale / (1 << shift), x.wire.name
    found = state.add("relu", node.shape, scale, interval, x=name, shift=shift, coarse=dropped)
    return replace(found, norms=contracted(x, "relu"))


def _decides_places(state: Lowering, node: Node) -> bool:
    """Do only searches for a place read it?  Rounding would tell equal values apart."""
    readers = list(state.graph.readers(node.writes))
    if not readers or state.graph.is_output(node.writes):
        return False
    return all(one.op == "argmax" or (_passes_on(one) and _decides_places(state, one)) for one in readers)


def _meets_a_pole(state: Lowering, node: Node) -> bool:
    """Is it an argument of a logarithm, an inverse or a root, but for moves and a little that is added?

    What is near zero counts as much there as what is large.
    """
    return any(
        one.of(Function).name in _STEEP
        if isinstance(one.attributes, Function)
        else _adds_little(one) and _meets_a_pole(state, one)
        for one in state.graph.readers(node.writes)
    )


def _adds_little(node: Node) -> bool:
    if isinstance(node.attributes, Sum):
        return node.attributes.constant < _LITTLE
    if node.op == "scale":
        bias = node.of(Weighted).bias
        return bias is None or float(bias.min(initial=np.inf)) < _LITTLE
    return node.op in MOVES or node.op == "total"


def _passes_on(node: Node) -> bool:
    """Is every element of what it reads what it was, or its opposite?"""
    if node.op == "scale":
        return bool((np.abs(node.of(Weighted).weight) == 1).all())
    return node.op in MOVES


def _rounded(state: Lowering, x: Value) -> tuple[Value, int]:
    """Return the value to compare, and the shift; see `Lowering.rounding`."""
    return _shifted(state, x, state.rounding(x))


def _shifted(state: Lowering, x: Value, shift: int) -> tuple[Value, int]:
    return state.evened(x, shift) if shift else (x, 0)


def step(state: Lowering, node: Node) -> Value:
    """Compare with every level: exactly, while the comparison has room for all bits."""
    x, taken = state.values[node.reads[0]], node.of(Step)
    if taken.held is not None:
        x = bounded(state, x, taken.held, Masking.DRAWN)
    if taken.reach is not None:
        x = _reaching(state, x, taken.reach)
    if x.wire.bits + _LEVEL_BITS > MAX_BITS:  # its difference to a level needs room, too
        x = state.shorten(x, log2(x.scale) - (x.wire.bits + _LEVEL_BITS - MAX_BITS))
    limit, lower = (1 << x.wire.bits) - 1, int(taken.held is not None)
    levels = tuple(max(-limit, min(limit, math.ceil(Fraction(level) * x.scale) - lower)) for level in taken.levels)
    spare = _LEVEL_BITS if any(levels) else 1
    fraction = _STEP_FRACTION if taken.fraction is None else taken.fraction
    shift = max(0, min(log2(x.scale) - fraction, x.wire.bits - 8), x.wire.bits + spare - 48)
    if taken.bits is not None:
        shift = max(0, x.wire.bits + spare - taken.bits)
    interval = _bits(x, node, levels, shift)
    return state.add("step", node.shape, Fraction(1), interval, x=x.wire.name, levels=levels, shift=shift)


def _reaching(state: Lowering, x: Value, reach: float) -> Value:
    """Return x on a wire with room for all that it may be, as far as a comparison has any."""
    most = min(reach * float(x.scale), 2.0**_REACH_BITS)
    if most <= x.interval.bound:
        return x
    return state.add("combine", x.shape, x.scale, Interval.between(-most, most, ()), xs=(x.wire.name,), factors=(1,))


def _bits(x: Value, node: Node, levels: tuple[int, ...], shift: int) -> Interval:
    """The results of comparisons.

    Decisions, which a model's answer hangs on, are wrong as often as rounding changes sides.  Other comparisons choose
    between values that are about equal there (|x|, min, max, a clip), so that does not matter.
    """
    shape = static(node.shape)
    counted = x.scale == 1 and x.interval.worst_error > 0
    if node.of(Step).bits is None and not counted:
        return Interval.between(0, 1, shape)
    blur = float(1 << shift) if shift else 0.0
    chances: list[np.ndarray] = [x.interval.chance_above(level - 0.5 * counted) for level in levels]
    wrong = [x.interval.chance_misjudged(level - 0.5 * counted, blur, counted) for level in levels]
    mean, error = np.stack(chances, axis=-1), np.sqrt(np.stack(wrong, axis=-1))
    return Interval(np.zeros(shape), np.ones(shape), error, mean, mean * (1 - mean)).broadcast_to(shape)


def maximum(state: Lowering, node: Node) -> Value:
    """Compare all pairs of a few candidates at once; of more, a tournament of such groups, and wherever that suits."""
    rectify, x, hidden = node.of(Maximum).rectify, state.values[node.reads[0]], node.of(Maximum).hidden
    skipped = None if hidden is None else masked.skips(state, x, hidden)
    if (cut := node.of(Maximum).cut) is not None:
        masked.note_cut(state, x, skipped, cut)
    if node.of(Maximum).floored:
        state.reaches(x)
    if skipped is not None:
        return masked.greatest(state, x, skipped, lambda each: greatest(state, node, each, False))
    twin = _twin(state, node, "argmax")
    if twin is not None and not rectify and int(x.shape[-1]) <= MOST_CANDIDATES:
        return _both(state, node, twin)[0]
    shift = _left_out(state, node, x)
    dropped, tagged = checked.coarse(state, node, x, shift, 1), state.roles.security == "active"
    for groups in levels(x, shift, dropped, rectify, tagged):
        x = _grouped(state, x, groups)
        x = state.reshape(greatest(state, node, x, False), x.shape[:-1])
    return greatest(state, node, x, rectify)


def _left_out(state: Lowering, node: Node, x: Value) -> int:
    """Return how many bits a maximum is found without: fewer if something is divided by it."""
    shift = state.rounding(x, 1)
    return min(shift, max(0, x.wire.bits - _DIVISOR_BITS)) if _meets_a_pole(state, node) else shift


def _grouped(state: Lowering, x: Value, groups: int) -> Value:
    """(.., n) to (.., groups, size), the last group filled up with its last candidate."""
    n = int(x.shape[-1])
    size = -(-n // groups)
    if n < groups * size:
        x = state.take(x, len(x.shape) - 1, tuple(min(i, n - 1) for i in range(groups * size)))
    return state.reshape(x, (*x.shape[:-1], groups, size))


def greatest(state: Lowering, node: Node, x: Value, rectify: bool) -> Value:
    """Return the largest along the last axis by one gate; a maximum of the graph is made of such ones."""
    x, shift = _shifted(state, x, _left_out(state, node, x))
    dropped, rounded = checked.coarse(state, node, x, shift, 1), x.interval.truncated(shift)
    top = rounded.greatest()
    top = checked.misjudged(top.rectified() if rectify else top, rounded, dropped, int(x.shape[-1]) - 1 + rectify)
    value = state.wire(_next(state, "value"), (*x.shape[:-1], 1), x.scale / (1 << shift), top)
    direct = state.roles.security == "active" and checked.is_direct(int(x.shape[-1]), rectify)
    settings = {"shift": shift, "rectify": rectify, "coarse": dropped, "direct": direct}
    state.gate("maximum", x=x.wire.name, value=value.wire.name, **settings)
    return value


def argmax(state: Lowering, node: Node) -> Value:
    x, taken = state.values[node.reads[0]], node.of(ArgMax)
    columns = int(x.shape[-1])
    if taken.floored:
        state.reaches(x)
    if columns > _LARGEST_ARGMAX:
        raise state.origin.refuse(
            f"the place of a maximum among {columns} elements; at most {_LARGEST_ARGMAX} are possible",
            remedy=(f"find the largest of groups of at most {_LARGEST_ARGMAX} first, then of the groups' maxima"),
        )
    twin = _twin(state, node, "maximum") if taken.bits is None else None
    if twin is not None and columns <= MOST_CANDIDATES:
        return _both(state, twin, node)[1]
    shift = _place_shift(x) if taken.bits is None else max(0, x.wire.bits + 1 - taken.bits)
    index = state.wire(_next(state, "index"), (*x.shape[:-1], 1), Fraction(1), _places(x, shift))
    state.gate("maximum", x=x.wire.name, index=index.wire.name, shift=shift, last=taken.last)
    return index


def _place_shift(x: Value) -> int:
    """Return how many bits are left out where a place is found: none of what is compared elsewhere, however wide."""
    return max(0, min(x.wire.bits + 1 - _PLACE_BITS, max(log2(x.scale) - FRACTION_BITS, x.wire.bits + 1 - _EXACT_BITS)))


def _next(state: Lowering, what: str) -> str:
    return f"{len(state.gates)}.maximum.{what}"


def _places(x: Value, shift: int) -> Interval:
    """A place among the elements; it is another one as often as rounding changes which is the largest."""
    found = Interval.between(0, int(x.shape[-1]) - 1, static((*x.shape[:-1], 1)))
    return found.off_by(np.sqrt(x.interval.chance_outranked(float(1 << shift) if shift else 0.0)))


def _twin(state: Lowering, node: Node, op: str) -> Node | None:
    """The other kind of maximum of the same value, if one gate can give both."""
    fits = [n for n in state.graph.readers(node.reads[0]) if n.op == op and _is_usual(n)]
    return fits[0] if fits and not (isinstance(node.attributes, ArgMax) and node.attributes.last) else None


def _is_usual(node: Node) -> bool:
    """Is it a maximum that one gate finds beside its place, or such a place?"""
    taken = node.attributes
    if isinstance(taken, ArgMax):
        return not taken.last and not taken.bits
    return not node.of(Maximum).rectify


def _both(state: Lowering, maximum: Node, argmax: Node) -> tuple[Value, Value]:
    """One gate for the value and the place of a maximum."""
    key = ("both", maximum.reads[0])
    if (*key, "value") not in state.memo:
        x = state.values[maximum.reads[0]]
        shift, shape = _place_shift(x), (*x.shape[:-1], 1)
        x, shift = state.evened(x, shift) if shift else (x, 0)
        top = x.interval.greatest().truncated(shift)
        value = state.wire(_next(state, "value"), shape, x.scale / (1 << shift), top)
        index = state.wire(_next(state, "index"), shape, Fraction(1), _places(x, shift))
        state.gate("maximum", x=x.wire.name, value=value.wire.name, index=index.wire.name, shift=shift)
        state.memo[(*key, "value")], state.memo[(*key, "index")] = value, index
    return state.memo[(*key, "value")], state.memo[(*key, "index")]
