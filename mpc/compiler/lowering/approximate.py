"""Functions of one variable on a proved interval: by one series, clamped, or after normalisation.

Which of them follows from where the argument can lie.  What no series reaches to `TOLERANCE` is
refused, naming the interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mpc import tables
from mpc.compiler.functions import FUNCTIONS, Function, Parameters
from mpc.compiler.lowering import normalise, piecewise
from mpc.compiler.lowering.builder import Lowering
from mpc.compiler.lowering.emitted import SMALLER, Value
from mpc.compiler.lowering.fitted import (
    FINEST_RESULT,
    SERIES_BITS,
    SMALL_VALUES,
    bits_of,
    evaluate,
    readable,
    small_error,
    too_large,
    too_wide,
)
from mpc.compiler.lowering.scales import log2
from mpc.compiler.series import Series, at_whole_numbers, fit

TOLERANCE = 2e-5
"""What a series may be off by, beside the largest value of the function; 1 at least."""
_PIECES_TOLERANCE = 8e-6
"""Bound what a series is off by that is one of several pieces: its coefficients and waves have more bits."""
_ACCEPTABLE = 1e-3
_LARGEST_RESULT = 2.0**57
_FLOOR = 2.0**-16
"""Stands for a divisor that is smaller, beside its largest value; 1 at most."""
_GOOD_UNITS = 16
"""An argument of fewer units is off by more than a few percent of itself."""
_SLACK = 2.0**-8
"""What a sum of positive numbers can be below 0 by the errors of series, beside its largest value."""
_EXPONENT_REACH = 14.0
_SMALL_EXPONENT = 3.0
_ROOT_FRACTION = 20
_WAVES = {"sin": (0.0, 1.0), "cos": (1.0, 0.0)}
"""Name what is in a function of cosine and sine."""
_PHASE = 2.0**-18
"""Let an argument of a wave be out of phase by so much, in radians."""
_FINEST_WAVE, _COARSEST_WAVE = 30, 16
"""Fractional bits of a long argument that is shortened for that."""
_DEEPEST_WHOLE = 24
"""Bits of a coarse argument, whole numbers say, that has room for fractional bits."""
_MOST_COUNTED = 64
"""The largest whole number of which an inverse is found by a series that is exact at whole numbers."""
_LEAST_PERIOD = 4
_WHOLE_WINDOW = 30
"""Bits of a period of that series, in units of its argument."""
_WHOLE_BITS = 44
"""Fractional bits of its result."""
_INVERSE_BITS = 44
"""Fractional bits of an inverse, or of one over a root: a sum of many values may be multiplied by it."""


def apply(
    state: Lowering, x: Value, name: str, parameters: Mapping[str, float], finest: bool, floor: float | None = None
) -> Value:
    """Return f(x).

    Args:
        finest: it is revealed as it is, and nothing multiplies it.
        floor: what an argument counts as that is smaller; see `Function`.
    """
    settings: Parameters = tuple(sorted(parameters.items()))
    function = FUNCTIONS[name](**parameters)
    if name == "reciprocal" and x.scale == 1 and 1 <= x.coarse[0] and x.coarse[1] <= _MOST_COUNTED:
        return _of_whole_numbers(state, x, function)
    if log2(x.scale) < _ROOT_FRACTION and x.wire.bits <= _DEEPEST_WHOLE:  # whole numbers, say: digits cost nothing
        spread = 1 << (_ROOT_FRACTION - log2(x.scale))
        x = state.combine([x], [spread], x.shape, x.scale * spread)
    low, high = x.coarse
    bottom, least, held, far = low, x.reals[0], "", False
    if floor is not None and low < floor < high / 2:
        far = low < -high  # where no series of what is above the floor has room; octaves have
        x, held = _floored(x, floor)
        low, high = x.coarse
    if name == "reciprocal" and high < 0:
        opposite = state.combine([x], [-1], x.shape, x.scale)
        found = apply(state, opposite, name, parameters, finest)
        return state.combine([found], [-1], x.shape, found.scale)
    if name == "sqrt" and low < 0 < high:
        state.note(f"bounds alone do not show that the argument of {name} is not negative; below 0 it counts as 0")
        x = state.shorten(x, log2(x.scale) - normalise.shortened_by(x))  # what is below 0 needs room in it, too
        x = replace(x, interval=x.interval.within(0.0, math.inf))
        low = 0.0
    if low <= function.domain:
        positive = normalise.rises_from_zero(name, settings)
        least_kept = max(_FLOOR * min(1.0, high), 16 / float(x.scale))
        if low >= -max(4 / float(x.scale), _SLACK * high) and high > 4 * least_kept and not positive:
            x, held = _floored(x, least_kept)
        elif not positive or low < -1e-3 * max(1.0, high):
            raise state.origin.refuse(
                f"its argument can be {low:.3g}, and it is defined above {function.domain:g} only",
                remedy=(
                    "declare a range that keeps it away from there (--range NAME=LOW:HIGH), or keep it "
                    "away in the model: a Clip or Max before it, with a least value above "
                    f"{function.domain:g}"
                ),
            )
    if name == "exp" and high > 20:
        raise state.origin.refuse(
            f"its argument can reach {high:.3g}, and its result e to that power",
            remedy=f"{SMALLER}, or put a Clip to at most 20 before it",
        )
    if name == "exp" and high > _SMALL_EXPONENT and high - low > 2 * _SMALL_EXPONENT:
        return _squared(state, x)
    turn = _turned(x) if name in _WAVES else None
    if turn is not None and turn.fraction is None:
        return _wave(state, x, name, function, turn, finest)
    if piecewise.has_pieces(function, low, high) and (function.lined or not finest):
        x = readable(state, x)
        tolerance = _PIECES_TOLERANCE * max(1.0, function.high if function.lined else 1.0)
        _note_ends(state, name, held)
        return piecewise.apply(state, x, name, settings, function, tolerance)
    if name == "exp":
        function = Function(function.value, low=high - _EXPONENT_REACH)
    series, inside = _series(state, x, name, settings, function)
    off = max(series.whole_error, small_error(series, function, inside, finest))
    scaled = off / _unit_of_error(name, function, inside)
    if (scaled > TOLERANCE or far) and normalise.possible(name) and not normalise.in_one_octave(x):
        inner = FUNCTIONS[name](**parameters)
        _note_ends(state, name, held, None if normalise.rises_from_zero(name, settings) else x)

        def on_octave(u: Value, series: Series, bits: int, outside: bool) -> Value:
            return evaluate(state, u, inner, series, normalise.INSIDE, bits, outside)

        return normalise.apply(state, x, name, settings, on_octave, bottom, least)
    if scaled > TOLERANCE and turn is not None:
        return _wave(state, x, name, function, turn, finest)
    if scaled > _ACCEPTABLE:
        raise too_wide(state, low, high)
    _note_ends(state, name, held)
    outside = least < inside[0] != function.low  # it counts as more than it can be
    bits = _inverse_bits(series) if name in ("reciprocal", "rsqrt") else bits_of(finest)
    return evaluate(state, x, function, series, inside, bits, outside)


def _inverse_bits(series: Series) -> int:
    """Return fractional bits of an inverse: fewer if its values are so small that more than these need the digits."""
    return max(bits_of(False), min(_INVERSE_BITS, FINEST_RESULT + math.frexp(series.reach)[1]))


@dataclass(frozen=True)
class _Turn:
    """An integer factor that makes a turn of an argument so many units, a power of two.

    Args:
        fraction: fractional bits of the argument, which takes a truncation; None if it stays as it is.
    """

    factor: int
    window: int
    fraction: int | None


def _turned(x: Value) -> _Turn | None:
    """Find one that puts no argument out of phase by more than `_PHASE`; None if there is no room."""
    reach = max(map(abs, x.coarse))
    for fraction in (None, *range(min(log2(x.scale) - 1, _FINEST_WAVE), _COARSEST_WAVE - 1, -1)):
        shift = 0 if fraction is None else log2(x.scale) - fraction
        turn, bits = 2 * math.pi * float(x.scale / (1 << shift)), x.wire.bits - shift
        for window in range(tables.ANGLE_BITS, tables.MOST_WINDOW + 1):
            factor = round(2.0**window / turn)
            if bits + factor.bit_length() > SERIES_BITS + 5:
                break
            if factor and abs(factor * turn / 2.0**window - 1) * reach <= _PHASE:
                return _Turn(factor, window, fraction)
    return None


def _wave(state: Lowering, x: Value, name: str, function: Function, turn: _Turn, finest: bool) -> Value:
    """Return a sine or cosine: a series of itself alone, however many turns its argument's interval has."""
    if turn.fraction is not None:
        x = state.shorten(x, turn.fraction)
    cosine, sine = _WAVES[name]
    series = Series(2 * math.pi, 0.0, np.array([cosine]), np.array([sine]), _PHASE)
    return evaluate(state, x, function, series, x.coarse, bits_of(finest), True, (turn.factor, turn.window))


def _of_whole_numbers(state: Lowering, x: Value, function: Function) -> Value:
    """Return f(x) of few whole numbers, as counts are: by a series of as many values, which needs to fit nothing else.

    A sum of so many values is multiplied by the inverse of a count, and with it what the inverse is off by.
    """
    low, high = math.floor(x.coarse[0]), math.ceil(x.coarse[1])
    period = max(_LEAST_PERIOD, 1 << (high - low).bit_length())
    series = at_whole_numbers(function.value, low, high, period)
    turn = (1 << _WHOLE_WINDOW) // period, _WHOLE_WINDOW
    return evaluate(state, x, function, series, (float(low), float(high)), _WHOLE_BITS, turn=turn)


def _squared(state: Lowering, x: Value) -> Value:
    """exp(x) = exp(x / 2)^2: a series is as far off everywhere as at its largest value, a square is not."""
    low, high = x.reals
    root = state.shorten(apply(state, state.rescaled(x, x.scale * 2), "exp", {}, False), _ROOT_FRACTION)
    unit = float(root.scale) ** 2
    square = root.interval.product(root.interval, square=True)
    slack = 0.01 * math.exp(high)
    interval = square.within((math.exp(low) - slack) * unit, (math.exp(high) + slack) * unit)
    return state.add("multiply", x.shape, root.scale**2, interval, x=root.wire.name, y=root.wire.name)


def _floored(x: Value, floor: float) -> tuple[Value, str]:
    """Return an argument of which what is smaller than a floor counts as the floor, and what is to be said of it.

    It may be 0, where the function is infinite.
    """
    least = max(floor, _resolution(x))
    can, rest = "0", ""
    if x.reals[0] < -4 / float(x.scale):
        can, rest = f"0, or {x.reals[0]:.2g} as far as bounds tell", ", and so each negative number,"
    said = f"can be {can}; what is below {least:.2g}{rest} counts as about that"
    return replace(x, interval=x.interval.within(floor * float(x.scale), math.inf)), said


def _resolution(x: Value) -> float:
    """Return a unit of the argument that is compared with octaves, in the model's units."""
    return float((1 << normalise.shortened_by(x)) / x.scale)


def _note_ends(state: Lowering, name: str, held: str, x: Value | None = None) -> None:
    """Note that a small argument counts as more than it is, or keeps few of its digits, where that shows.

    Args:
        held: what is to be said of small arguments that count as a floor; empty if none do.
        x: what is compared with octaves, and may be too small for that; None: nothing is.
    """
    unit, least = (0.0, 1.0) if x is None else (_resolution(x), x.reals[0])
    few = f"below {_GOOD_UNITS * unit:.2g} it keeps few of its digits"
    if least >= 0.99 * _GOOD_UNITS * unit:
        if held:
            state.note(f"the argument of {name} {held}")
    elif held:
        state.note(f"the argument of {name} {held}, and {few} (a smaller input range keeps more)")
    else:
        state.note(
            f"the argument of {name} can be {least:.2g}; {few}, and what is below {unit:.2g} counts as about that (a "
            "smaller input range keeps more)"
        )


def _series(
    state: Lowering, x: Value, name: str, settings: Parameters, function: Function
) -> tuple[Series, tuple[float, float]]:
    """The series, and the interval that it holds on: what the argument's and the function's have in common."""
    low, high = x.coarse
    margin = 4 / float(x.scale)
    first, last = max(low - margin, function.low), min(high + margin, function.high)
    if first <= function.domain:
        first = min(0.5 * max(low, 0.0) + 1e-9 * last, last / 2)
    if low >= function.high or high <= function.low:  # constant on all of it: some interval beside, and clamped
        first, last = (last - 1.0, last) if low >= function.high else (first, first + 1.0)
    if last - first < 64 / float(x.scale):
        first, last = first - 32 / float(x.scale), last + 32 / float(x.scale)
        first = first if first > function.domain else function.domain + (last - function.domain) / 1024
    with np.errstate(over="ignore"):
        largest = np.abs(function.value(np.array([first, (first + last) / 2, last])))
    if not (largest < _LARGEST_RESULT).all():
        raise too_large(state, low, high)
    tolerance = TOLERANCE * _unit_of_error(name, function, (first, last))
    return fit(name, settings, first, last, tolerance, float(1 / x.scale)), (first, last)


def _unit_of_error(name: str, function: Function, inside: tuple[float, float]) -> float:
    """Return the unit of an error: the least value of a power, which scales other values; else the largest, or 1.

    What scales other values and is small everywhere is measured by its largest value, too.
    """
    sizes = np.abs(function.value(np.linspace(*inside, 257)))
    if name in ("reciprocal", "rsqrt"):
        return 4 * float(sizes.min())
    largest = float(sizes.max())
    if name in ("exp", "sqrt", "power") and 0 < largest < SMALL_VALUES:
        return largest
    return 0.1 if name == "exp_negative" else max(1.0, largest)
