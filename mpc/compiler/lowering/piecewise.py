"""Functions of pieces: nothing below a level, a series up to another one, and the argument itself from there on.

The series is evaluated on the whole wire, and opened in the round in which the levels are compared.  Outside its
interval it only repeats itself, and is not chosen.  What is chosen is rounded in that moment: no truncation follows,
and nothing is dealt for a series but its waves (`mpc.gates.pieces`).
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np

from mpc import tables
from mpc.compiler.functions import Function, Parameters
from mpc.compiler.lowering.builder import COMPARED_BITS, Lowering
from mpc.compiler.lowering.emitted import Value
from mpc.compiler.lowering.intervals import ROUNDING, Interval
from mpc.compiler.lowering.scales import is_even, log2
from mpc.compiler.series import Series, fit, integers, turns

FRACTION = 20
"""Fractional bits of the result: as many as a factor of a product keeps."""
_HALF = 24
"""Fractional bits of a series' coefficients: what they are rounded by is common to all that a sum is made of."""
_WAVES = 20
"""Fractional bits of its waves, which are rounded for each element apart."""
_LARGEST_HALF = 30
_REACH_BITS = 57
_STEP = 0.25
"""How much below a level a value may count as above it; twice that, if a comparison opens a byte less for it."""
_MARGIN = 1 / 32
_MOST_COMPARED = 48


def has_pieces(function: Function, low: float, high: float) -> bool:
    """Do values of this interval leave the one that it is fitted on, to where it is nothing, or its argument?  Some of
    them are not below it."""
    above = high > function.high
    return function.vanishes and high > function.low and (low < function.low or above) and (function.lined or not above)


def apply(state: Lowering, x: Value, name: str, parameters: Parameters, function: Function, tolerance: float) -> Value:
    """Return f(x) of an argument that a series can read; `tolerance` is what the series may be off by."""
    high, shift = x.coarse[1], _shift(x)
    lined = function.lined and high > function.high
    step = float(Fraction(1 << shift) / x.scale)
    first, last = function.low - step - _MARGIN, (function.high if lined else high) + _MARGIN
    series = fit(name, parameters, first, last, tolerance, float(1 / x.scale), 2.0 ** (-1 - _WAVES))
    ends = (function.low, function.high) if lined else (function.low,)
    limit = (1 << x.wire.bits) - 1  # what never lies below is above the least that there is
    levels = [max(-limit, math.floor(end * x.scale)) for end in ends]
    bits = _between(state, x, levels, shift)
    fitted = _series(state, x, series)
    pieces = [(fitted, log2(fitted.scale) - FRACTION)]
    if lined:
        pieces.append(_line(state, x))
    off = max(_off(x), _off(pieces[-1][0])) if lined else _off(x)
    values = function.value(np.linspace(first, last, 257))
    slope = float(np.abs(np.diff(values)).max()) * 256 / (last - first)
    return state.add(
        "pieces",
        x.shape,
        Fraction(1 << FRACTION),
        _interval(x, values, lined, fitted.interval.worst_error / float(fitted.scale), slope * off),
        xs=tuple(value.wire.name for value, _ in pieces),
        shifts=tuple(drop for _, drop in pieces),
        bits=bits,
    )


def _off(x: Value) -> float:
    return x.interval.worst_error / float(x.scale)


def _shift(x: Value) -> int:
    """Return how many bits of the argument are not compared."""
    shift = log2(x.scale * Fraction(_STEP))
    if x.wire.bits + 2 - shift == COMPARED_BITS + 1:
        shift += 1
    return max(0, shift, x.wire.bits + 2 - _MOST_COMPARED)


def _between(state: Lowering, x: Value, levels: list[int], shift: int) -> tuple[str, ...]:
    names = tuple(f"{len(state.gates)}.bit{place}" for place in range(len(levels)))
    for name in names:
        state.flipped(name, x.shape)
    state.gate("between", x=x.wire.name, bits=names, levels=tuple(levels), shift=shift)
    return names


def _series(state: Lowering, x: Value, series: Series) -> Value:
    """Evaluate a series on the whole wire, where it lies between its own least and largest value."""
    factor, window = turns(x.scale, series.period)
    if factor > 1:
        x = state.combine([x], [factor], x.shape, x.scale * factor)
    largest = max(float(np.abs(series.cosines).max()), float(np.abs(series.sines).max()))
    half = min(_HALF, _LARGEST_HALF - math.frexp(max(largest, 1.0))[1])
    dealt = min(_WAVES, _REACH_BITS - math.frexp(max(series.reach, 1.0))[1] - half)
    unit = float(1 << (half + dealt))
    off = math.hypot(series.error, series.weight * ROUNDING * 2.0 ** -min(half, dealt))
    low, high = series.ends
    interval = Interval.between((low - 8 * off) * unit, (high + 8 * off) * unit, x.interval.low.shape, off * unit)
    return state.add(
        "fourier",
        x.shape,
        Fraction(1 << (half + dealt)),
        interval,
        x=x.wire.name,
        window=window,
        constant=round(series.constant * unit),
        cosines=integers(series.cosines, half),
        sines=integers(series.sines, half),
        dealt_bits=dealt,
        table=tables.sincos_digest(),
    )


def _line(state: Lowering, x: Value) -> tuple[Value, int]:
    """Return the argument and the shift that brings it to the scale of the result.

    If a factor that is no power of two is in its scale, another integer takes it in: of a short argument, since the
    gate adds up what has one scale, and an argument as long as a product has no room for that integer.
    """
    more = FRACTION + 1 - log2(x.scale)
    if more > 0:
        x = state.combine([x], [1 << more], x.shape, x.scale * (1 << more))
    x, shift = state.evened(x, log2(x.scale) - FRACTION)
    if not is_even(x.scale):
        x = state.roomy(x, 1)  # a bound that is rounded up can take one bit more
        x, shift = state.evened(x, log2(x.scale) - FRACTION)
    return x, shift


def _interval(x: Value, values: np.ndarray, lined: bool, own: float, passed: float) -> Interval:
    """Return where the result lies, in its units: element by element where it is a line.

    What its argument is off by widens nothing: the interval of the argument is that of the integers themselves.

    Args:
        own: what the series is off by.
        passed: the argument's own error, as it shows in the result.
    """
    unit = float(1 << FRACTION)
    least, most = (min(0.0, float(values.min())) - 8 * own) * unit - 1, (float(values.max()) + 8 * own) * unit
    shape = x.interval.low.shape
    if lined:
        found = x.interval.times(np.array(unit / float(x.scale))).rectified()
        found = replace(found, low=np.full(shape, least), high=np.maximum(found.high, most) + 1)
    else:
        found = Interval.between(least, most + 1, shape)
    return replace(found, error=np.minimum(math.hypot(own, passed) * unit, found.high - found.low))
