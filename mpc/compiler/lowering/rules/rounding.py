"""Lower what rounds to whole numbers, exactly, and what is held between two ends behind it.

A truncation gives y, the floor or one more, by a public coin.  What is left over, d = x - y, is small, and a comparison
of d with a public level on a few bits tells which of both it was: the floor is y - 1 + [d >= 0].  To round halves to
even, x is taken apart in twos: d is then between -2 and 2, and of the four levels half a unit apart those below an odd
number are just above the half, the others at it.  That is a round for y, and a comparison's.

What is held to 0 .. C, as 8-bit numbers are, costs one round more.  With t the truncation of x - 1/2, which the rounded
number exceeds by g = 0 or 1, a ReLU of t with the ceiling C leaves its bit, by which g is chosen:

    result = min(C, max(0, t)) + [0 <= t < C] g

Both read the coin of one wire, so their t is one number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from mpc.compiler.graph.attributes import Whole
from mpc.compiler.graph.graph import Node
from mpc.compiler.lowering.builder import LINEAR_BITS, Lowering
from mpc.compiler.lowering.emitted import Value
from mpc.compiler.lowering.intervals import Interval
from mpc.compiler.lowering.scales import is_even, log2
from mpc.gates.linear import Combine
from mpc.wires import MAX_BITS, Masking

_FINEST = 40
"""Fractional bits that are looked at; what has more is shortened first."""
_COMPARED_FRACTION = 20
"""Fractional bits that are compared of what is off by more than its last bit anyway."""
_BLUR = 2.0**-_COMPARED_FRACTION
"""Units that a value lies below a step at most, and counts as beyond it."""
_LONGEST_COMPARISON = 48
_LEFT_OVER_BITS = 4
"""Bits at most that what is left of a value without its whole units has more than a unit."""
_EXACT = 0.35
"""Units by which a value is off at most that is what it is taken for: an input, say, or a whole number."""
_EVENING_BITS = 20
"""Bits that are left at least for a factor that makes a scale a power of two."""
_MOST_DIRECT = 2
"""A value that can reach no more levels is compared with them, and nothing is truncated."""
_KEEPING = frozenset(
    {"input", "combine", "total", "weigh", "reshape", "transpose", "take", "concat", "relu", "maximum", "truncate"}
)
"""Kinds of gates of which halves come out exact, if halves come in and enough fractional bits are left."""
_SIMPLE = 64
"""A factor of a combination is none of a ratio of scales, say, if it is larger, but for a power of two."""
_FLIPPED = 0.8
"""The mean size of a normal error, as a part of its root mean square."""
_REALS = {"floor": np.floor, "nearest": np.rint, "zero": np.trunc}


def whole(state: Lowering, node: Node) -> Value:
    """Round to whole numbers, and hold them to 0 and a ceiling if there is one, an offset added before."""
    x, taken = state.values[node.reads[0]], node.of(Whole)
    low, high = _ends(x, taken.how)
    halves = False
    if x.scale != 1:
        x, halves = _prepared(state, x, taken.how)
    if taken.ceiling is None:
        found = x if x.scale == 1 else _rounded(state, x, halves)
        return replace(found, interval=found.interval.within(low, high))
    offset = taken.offset
    low, high = (np.clip(end if offset is None else end + offset, 0, taken.ceiling) for end in (low, high))
    if x.scale == 1:
        found = _clipped(state, _shifted(state, x, offset), taken.ceiling)
    elif _leaves(x, halves, offset, taken.ceiling):
        found = _held(state, x, halves, offset, taken.ceiling)
    else:
        found = _shifted(state, _rounded(state, x, halves), offset)
    return replace(found, interval=found.interval.within(low, high))


def _ends(x: Value, how: str) -> tuple[np.ndarray, np.ndarray]:
    """Return where the rounded value lies: what is just before a step may count as beyond it."""
    blur, unit = 0.0 if _is_exact(x) or x.scale == 1 else _BLUR, float(x.scale)
    low, high = x.interval.low / unit, x.interval.high / unit + blur
    return _REALS[how](low - blur if how == "zero" else low), _REALS[how](high)


def _shifted(state: Lowering, x: Value, offset: np.ndarray | None) -> Value:
    """Return x plus whole numbers, which are secret."""
    if offset is None:
        return x
    integers = offset.astype(np.int64)
    interval, stored = x.interval.plus(Interval.exactly(offset)), state.stored(integers, x.scale)
    return state.add("combine", x.shape, x.scale, interval, xs=(x.wire.name,), factors=(1,), stored=stored)


def _prepared(state: Lowering, x: Value, how: str) -> tuple[Value, bool]:
    """Return a value at a scale that is a whole number, and whether it is to be rounded with halves to even.

    If not, the result is its floor.
    """
    if log2(x.scale) > _FINEST:
        x = state.shorten(x, _FINEST)
    digits = x.wire.bits + x.scale.denominator.bit_length()
    if not is_even(x.scale) and digits + _EVENING_BITS >= MAX_BITS:
        x = state.plain(state.shorten(x, _COMPARED_FRACTION))
    if x.wire.bits + x.scale.denominator.bit_length() > LINEAR_BITS:
        x = state.plain(x)
    if x.scale.denominator > 1:
        x = state.combine([x], [x.scale.denominator], x.shape, x.scale * x.scale.denominator)
    unit = x.scale.numerator
    if how == "zero":
        return _below(state, x), False
    if how == "floor" or unit == 1:
        return x, False
    if unit % 2 == 0 and (_is_exact(x) or _keeps_halves(state, x)):
        return x, True
    return state.combine([x], [1], x.shape, x.scale, unit // 2), False  # only by chance is it just half a unit off


def _is_exact(x: Value) -> bool:
    return x.interval.worst_error < _EXACT


def _keeps_halves(state: Lowering, x: Value) -> bool:
    """Is it made of inputs and whole numbers by what leaves halves as they are, as sums and means of them?"""
    seen, left = set[str](), [x.wire.name]
    while left:
        gate = state.writers[name := left.pop()]
        if state.wires[name].scale == 1:
            continue
        if gate.kind not in _KEEPING and state.exact.isdisjoint(gate.writes):
            return False
        if isinstance(gate, Combine) and any(k and abs(k) // (k & -k) > _SIMPLE for k in gate.factors):
            return False
        left += [name for name in gate.reads if name not in seen]
        seen.update(gate.reads)
    return True


def _leaves(x: Value, halves: bool, offset: np.ndarray | None, ceiling: int) -> bool:
    """Can the rounded value, with its offset, lie outside 0 .. ceiling?  What is just before a step may be beyond."""
    unit = float(x.scale)
    low, high = _of_reals(x.interval.low / unit, halves), _of_reals(x.interval.high / unit + _BLUR, halves)
    if offset is not None:
        low, high = low + offset, high + offset
    return bool(low.min() < 0 or high.max() >= ceiling + 1)


def _below(state: Lowering, x: Value) -> Value:
    """Return a value whose floor is x cut towards zero: less than one more, where x is negative.

    A floor may count what is just below a step as above it.  So a negative x is raised by so much less: what is just
    below 0 stays below 1, and what is -1, but for a rounding, counts as -1.
    """
    (low, high), unit = x.coarse, x.scale.numerator
    if low >= 0:
        return x
    # where bits are dropped, a level above 0 has nothing below 0 count as above; a level that is not 0 takes a bit
    shift = x.wire.bits + 2 - _LONGEST_COMPARISON if x.wire.bits >= _LONGEST_COMPARISON else 0
    level = (1 << shift) if shift else 0
    blur = max(_blur(x), log2(x.scale) + _LEFT_OVER_BITS + 2 - _LONGEST_COMPARISON)
    up = max(0, unit - (1 << blur) - (level if high > 0 else 0))
    if high <= 0:
        return state.combine([x], [1], x.shape, x.scale, up)
    between = Interval.between(0, 1, ())
    bit = state.add("step", (*x.shape, 1), Fraction(1), between, x=x.wire.name, levels=(level,), shift=shift)
    found = state.combine([x, state.reshape(bit, x.shape)], [1, -up], x.shape, x.scale, up)
    return replace(found, interval=replace(found.interval, error=x.interval.error))


# ------------------------------------------------------------------- to whole numbers


def _level(number: int, unit: int, shift: int, halves: bool) -> int:
    """Return from which argument on, in parts of a unit, the result is this number.

    Where a half belongs to the even number below, that is so much above it that a comparison that drops bits does not
    count it in.
    """
    if not halves:
        return number * unit
    return number * unit - unit // 2 + ((1 << shift) if number % 2 else 0)


def _rounded(state: Lowering, x: Value, halves: bool) -> Value:
    """Return the floor, or x rounded with halves to even."""
    first, last = (int(_of_reals(np.asarray(end), halves)) for end in x.coarse)
    if last - first <= _MOST_DIRECT:
        numbers = range(first + 1, max(first + 1, last) + 1)
        return _opened(state, x, halves, [_climbed(state, x, x, numbers, halves)], [1], first)
    y, off = _periods(state, x, halves)
    reach = off * (1 + halves)
    climbed = _climbed(state, x, _left_over(state, x, y, halves, off), range(1 - reach, reach + halves), halves)
    return _opened(state, x, halves, [y, climbed], [1 + halves, 1], -reach)


def _of_reals(x: np.ndarray, halves: bool) -> np.ndarray:
    return np.asarray(np.rint(x) if halves else np.floor(x))


def _periods(state: Lowering, x: Value, halves: bool) -> tuple[Value, int]:
    """Return how many units, or pairs of them, x has: a number that is off by less than the second result."""
    even, _ = state.evened(state.roomy(x), 0)
    if not is_even(even.scale):
        raise state.origin.refuse(
            f"what it rounds can be {x.interval.bound / float(x.scale):.3g}, and {x.scale} steps make a whole number: "
            "too many digits",
            remedy="declare a smaller input range (--range NAME=LOW:HIGH), or divide by a power of two before it",
        )
    shift = log2(even.scale) + halves
    if even.wire.bits <= shift:
        name = even.wire.name
        even = state.add("combine", even.shape, even.scale, even.interval, shift + 1, xs=(name,), factors=(1,))
    scale, interval = Fraction(1, 1 + halves), even.interval.truncated(shift)
    y = state.add("truncate", x.shape, scale, interval, x=even.wire.name, shift=shift)
    return y, 1 if even.scale == x.scale else 2


def _left_over(state: Lowering, x: Value, y: Value, halves: bool, off: int) -> Value:
    """Return what is left of x without its periods."""
    period = x.scale.numerator << halves
    interval = replace(Interval.between(-off * period, off * period, x.interval.low.shape), error=x.interval.error)
    xs, factors = (x.wire.name, y.wire.name), (1, -period)
    return state.add("combine", x.shape, x.scale, interval, xs=xs, factors=factors)


def _blur(x: Value) -> int:
    """Return how many bits of x are not compared, since they say nothing."""
    return 0 if _is_exact(x) else max(0, log2(x.scale) - _COMPARED_FRACTION)


def _climbed(state: Lowering, x: Value, d: Value, numbers: Sequence[int], halves: bool) -> Value:
    """Return how many of the levels from which on these numbers are the result d has reached; it is not opened.

    As many bits are compared as x, of which d is left over, has that say something.
    """
    unit = x.scale.numerator
    shift = max(_blur(x), d.wire.bits + 2 - _LONGEST_COMPARISON)
    limit = (1 << d.wire.bits) - 1
    levels = tuple(max(-limit, min(limit, _level(number, unit, shift, halves))) for number in numbers)
    shape, between = (*d.shape, len(levels)), Interval.between(0, 1, ())
    bits = state.add("step", shape, Fraction(1), between, x=d.wire.name, levels=levels, shift=shift)
    unopened = bits.wire.model_copy(update={"masking": Masking.UNOPENED})
    bits, state.wires[unopened.name] = replace(bits, wire=unopened), unopened
    if len(levels) > 1:
        axis, interval = len(d.shape), bits.interval.summed((len(d.shape),))
        bits = state.add("total", (*d.shape, 1), Fraction(1), interval, x=unopened.name, axes=(axis,))
    return state.reshape(bits, d.shape)


def _opened(state: Lowering, x: Value, halves: bool, terms: list[Value], factors: list[int], constant: int) -> Value:
    """Return a public linear combination that is x rounded, opened."""
    interval = _interval(x, halves)
    names = tuple(term.wire.name for term in terms)
    settings: dict[str, Any] = {"xs": names, "factors": tuple(factors), "constant": constant}
    found = state.add("combine", x.shape, Fraction(1), interval, **settings)
    return state.add("open", x.shape, Fraction(1), interval, found.wire.bits, x=found.wire.name)


def _interval(x: Value, halves: bool) -> Interval:
    """Return where the rounded value lies; it is off by one as often as x is off across a step."""
    unit, given = float(x.scale), x.interval
    low, high = (_of_reals(end / unit, halves) for end in (given.low, given.high))
    error = np.sqrt(np.minimum(_FLIPPED * given.error / unit, 1.0)) if not _is_exact(x) else np.zeros_like(low)
    return Interval(low, high, error, given.mean / unit, given.variance / unit**2 + 1 / 12)


# ------------------------------------------------------------------- held between ends


def _clipped(state: Lowering, x: Value, ceiling: int) -> Value:
    """Return whole numbers held to 0 .. ceiling."""
    if not _leaves(x, False, None, ceiling):
        return x
    x, settings = _with_room(state, x, 0, ceiling, x.interval.most > ceiling)
    interval = x.interval.rectified().within(0, ceiling)
    return state.add("relu", x.shape, Fraction(1), interval, x=x.wire.name, shift=0, **settings)


def _bits_beside(bound: float, units: int) -> int:
    """Return on how many bits a ReLU is computed of what reaches a bound, beside so many units that it rounds off."""
    return math.frexp(bound * (1 + 1 / 64) + 2 + units)[1]


def _with_room(state: Lowering, x: Value, shift: int, ceiling: int, capped: bool) -> tuple[Value, dict[str, Any]]:
    """Return a value on a wire with room for what a ReLU rounds off, and the setting of its ceiling if it has one."""
    least = _bits_beside(x.interval.bound, (2 + (ceiling if capped else 0)) << shift)
    if least > x.wire.bits:
        x = state.add("combine", x.shape, x.scale, x.interval, least, xs=(x.wire.name,), factors=(1,))
    return x, {"ceiling": ceiling} if capped else {}


def _held(state: Lowering, x: Value, halves: bool, offset: np.ndarray | None, ceiling: int) -> Value:
    """Return the floor of x, or x rounded with halves to even, plus an offset, held to 0 .. ceiling."""
    spare = max(0, _held_bits(x, offset, ceiling) - x.wire.bits)
    if not is_even(x.scale):
        nearest = state.combine([x], [1], x.shape, x.scale, x.scale.numerator // 2) if halves else x
        x, halves = state.evened(nearest, 0, spare)[0], False
    if not is_even(x.scale) or x.wire.bits + spare > MAX_BITS:
        return _clipped(state, _shifted(state, _rounded(state, x, halves), offset), ceiling)
    unit, shift = x.scale.numerator, log2(x.scale)
    z = state.combine([x], [1], x.shape, x.scale, -unit // 2 if halves else -unit)
    z = _shifted(state, z, None if offset is None else offset * unit)
    capped = z.interval.most + unit * _BLUR >= ceiling << shift
    z, settings = _with_room(state, z, shift, ceiling, capped)
    truncated = z.interval.truncated(shift)
    t = state.add("truncate", x.shape, Fraction(1), truncated, x=z.wire.name, shift=shift)
    g = _beyond(state, x, z, t, halves, offset)
    bit = state.flipped(f"{len(state.gates)}.bit", x.shape)
    name, interval = f"{len(state.gates)}.relu", truncated.rectified().within(0, ceiling)
    state.wire(name, x.shape, Fraction(1), interval)
    state.wires[bit.name] = state.wires.pop(bit.name)  # wires are in the order in which gates write them
    state.gate("relu", x=z.wire.name, out=name, shift=shift, bit=bit.name, **settings)
    chosen = state.add("select", x.shape, Fraction(1), g.interval, x=g.wire.name, bit=bit.name, shift=0)
    found = _interval(x, halves).plus(Interval.exactly(np.zeros(()) if offset is None else offset)).within(0, ceiling)
    return state.add("combine", x.shape, Fraction(1), found, xs=(name, chosen.wire.name), factors=(1, 1))


def _held_bits(x: Value, offset: np.ndarray | None, ceiling: int) -> int:
    """Return the bits that x takes while it is held to 0 .. ceiling, beside an offset, which lies there too."""
    units = 4 + (1 if offset is None else 2) * ceiling
    return _bits_beside(x.interval.bound, math.ceil(units * float(x.scale)))


def _beyond(state: Lowering, x: Value, z: Value, t: Value, halves: bool, offset: np.ndarray | None) -> Value:
    """Return by how much the result exceeds t before it is held, 0 or 1; opened."""
    between = Interval.between(0, 1, x.interval.low.shape)
    constant, stored = 0, dict[str, Any]()
    if halves:
        y, off = _periods(state, x, halves)
        climbed = _climbed(state, x, _left_over(state, x, y, halves, off), range(-1, 3), halves)
        terms, factors, constant = [y, climbed, t], [2, 1, -1], -2
        stored = {} if offset is None else {"stored": state.stored(offset.astype(np.int64), Fraction(1))}
    else:
        terms, factors = [_climbed(state, z, _left_over(state, z, t, False, 1), (0,), False)], [1]
    names = tuple(term.wire.name for term in terms)
    settings: dict[str, Any] = {"xs": names, "factors": tuple(factors), "constant": constant, **stored}
    found = state.add("combine", x.shape, Fraction(1), between, **settings)
    return state.add("open", x.shape, Fraction(1), between, found.wire.bits, x=found.wire.name)
