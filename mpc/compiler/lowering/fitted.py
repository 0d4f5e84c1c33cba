"""Evaluate a fitted series on a wire: with which digits, and clamped where its argument reaches outside."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from mpc import tables
from mpc.compiler.functions import Function
from mpc.compiler.lowering.builder import SERIES_SCALE_BITS, Lowering
from mpc.compiler.lowering.emitted import SMALLER, Value
from mpc.compiler.lowering.intervals import ROUNDING, Interval
from mpc.compiler.lowering.scales import log2
from mpc.compiler.series import Series, integers, turns
from mpc.errors import ModelError
from mpc.gates.fourier import Clamp

_ROUGHEST = 1e-2
"""Let rounded coefficients be off by so much, beside the largest result; 1 at least."""
_CLAMP_STEP = 0.01
_CLAMP_RISE = 2e-5
"""Bounds what a function rises by in a step at a clamped end, beside its largest value; 1 at least."""
SERIES_BITS = 52
"""Bound of a series' argument: room for the period's factor and the clamp's margin below 59."""
_CLAMPED_BITS = 57
"""Bound of one that is clamped, with the factor."""
SMALL_VALUES = 2.0**-5
"""A function that is never larger has its coefficients rounded beside its size, and is held to a part of that."""
FINEST_RESULT = 64
"""Fractional bits of small values, beyond which a wire has no room for its truncation."""


def small_error(series: Series, function: Function, inside: tuple[float, float], finest: bool) -> float:
    """Return what a series of small values is off by once its coefficients are integers; 0 of one that is not small."""
    if series.reach >= SMALL_VALUES:
        return 0.0
    half, bits = _digits(series, bits_of(finest))
    return _rounded_error(series, function, inside, half) + series.weight * ROUNDING * 2.0 ** (half - bits)


def _rounded_error(series: Series, function: Function, inside: tuple[float, float], half: int) -> float:
    """Return the largest error, on the interval, of the series whose coefficients have so many fractional bits."""
    x = np.linspace(*inside, 257)
    angles = 2 * np.pi / series.period * np.outer(x, np.arange(1, series.cosines.size + 1))
    cosines, sines = (np.ldexp(np.rint(np.ldexp(each, half)), -half) for each in (series.cosines, series.sines))
    found = series.constant + np.cos(angles) @ cosines + np.sin(angles) @ sines
    return float(np.abs(found - function.value(x)).max())


def bits_of(finest: bool) -> int:
    """Return fractional bits of a result of the usual size."""
    return 40 if finest else 34


def _digits(series: Series, bits: int) -> tuple[int, int]:
    """Return fractional bits of the coefficients and of the result, which has `bits` unless its values are small.

    Small values have smaller coefficients, and these as many more bits: else rounding would leave nothing of them.
    """
    reach, largest = series.reach, max(float(np.abs(series.cosines).max()), float(np.abs(series.sines).max()))
    more = min(FINEST_RESULT - bits, -math.frexp(reach)[1]) if 0 < reach < SMALL_VALUES else 0
    bits = min(bits, 57 - max(0, math.frexp(max(reach, 1.0))[1]))
    half = min(bits // 2, 30 - math.frexp(max(math.ldexp(largest, more), 1.0))[1])
    return half + more, min(bits, half + tables.UNIT_BITS) + more


def evaluate(
    state: Lowering,
    x: Value,
    function: Function,
    series: Series,
    inside: tuple[float, float],
    bits: int,
    outside: bool = False,
    turn: tuple[int, int] | None = None,
) -> Value:
    """Evaluate the series on x, clamped where x reaches outside.

    Args:
        outside: x can leave the fitted interval where nothing is clamped: there the series means nothing, but stays
            between its own ends.
        turn: (factor, window) of x for a period that `fit` has not chosen.
    """
    x = readable(state, x) if turn is None else x
    factor, window = turns(x.scale, series.period) if turn is None else turn
    if factor > 1:
        x = state.combine([x], [factor], x.shape, x.scale * factor)
    low, high = x.coarse
    beyond = low < inside[0] == function.low, high > inside[1] == function.high
    values = function.value(np.linspace(*inside, 257))
    least, most = float(values.min()) - 4 * series.error, float(values.max()) + 4 * series.error
    if beyond[1]:
        least, most = min(least, function.above), max(most, function.above)
    if outside:
        least, most = min(least, series.ends[0]), max(most, series.ends[1])
    half, bits = _digits(series, bits)
    rounded = series.weight * ROUNDING * 2.0**-half
    if any(beyond) and x.wire.bits > _CLAMPED_BITS:
        raise too_wide(state, low, high)
    if bits <= half or rounded > _ROUGHEST * max(1.0, float(np.abs(values).max())):
        raise too_large(state, low, high)
    unit = float(1 << bits)
    width = inside[1] - inside[0]
    slope = float(np.abs(np.diff(values)).max()) * 256 / width if width else 0.0  # of an argument that is a point
    own = math.hypot(series.error, series.weight * ROUNDING * 2.0 ** -min(half, bits - half))
    if series.weight < SMALL_VALUES and turn is None:  # what rounds small coefficients counts beside them
        own = max(own, _rounded_error(series, function, inside, half))
    error = math.hypot(own, slope * x.interval.worst_error / float(x.scale))
    slack = 8 * own
    return state.add(
        "fourier",
        x.shape,
        Fraction(1 << bits),
        Interval.between((least - slack) * unit, (most + slack) * unit, x.interval.low.shape, error * unit),
        x=x.wire.name,
        window=window,
        constant=round(series.constant * unit),
        cosines=integers(series.cosines, half),
        sines=integers(series.sines, half),
        dealt_bits=bits - half,
        table=tables.sincos_digest(),
        clamp=_clamp(x, inside, beyond, function, unit) if any(beyond) else None,
    )


def too_wide(state: Lowering, low: float, high: float) -> ModelError:
    return state.origin.refuse(
        f"its argument lies in {low:.3g}:{high:.3g}, too wide an interval to approximate it on",
        remedy=f"{SMALLER}, or put a Clip before it",
    )


def too_large(state: Lowering, low: float, high: float) -> ModelError:
    return state.origin.refuse(
        f"its argument lies in {low:.3g}:{high:.3g}, where its result is too large for fixed point",
        remedy=f"{SMALLER}, or put a Clip before it",
    )


def readable(state: Lowering, x: Value) -> Value:
    """Return x on a wire that has room for what makes a period of it."""
    if x.wire.bits > SERIES_BITS or log2(x.scale) > SERIES_SCALE_BITS:
        return state.shorten(x, min(30, SERIES_BITS - 1 - x.wire.bits + log2(x.scale)))
    return x


def _clamp_step(inside: tuple[float, float], ends: tuple[float | None, float | None], function: Function) -> float:
    """Return how far inside the interval an argument may count as its end: less where the function is steep there.

    Args:
        ends: the constants beyond the interval; None where no argument lies.
    """
    step = _CLAMP_STEP * (inside[1] - inside[0]) / 20
    values = function.value(np.array([inside[0] + step, inside[1] - step])).tolist()
    rise = max(abs(end - value) for end, value in zip(ends, values, strict=True) if end is not None)
    return step * min(1.0, _CLAMP_RISE * max(1.0, *map(abs, values)) / max(rise, _CLAMP_RISE / 8))


def _clamp(x: Value, inside: tuple[float, float], beyond: tuple[bool, bool], function: Function, unit: float) -> Clamp:
    """Return levels just inside the fitted interval; none where x is never beyond it.

    Comparisons are no finer than they need be.
    """
    ends = function.below if beyond[0] else None, function.above if beyond[1] else None
    step = _clamp_step(inside, ends, function)
    shift = max(0, log2(x.scale * Fraction(step)), x.wire.bits + 2 - 48)
    margin = 2 << shift
    limit = (1 << x.wire.bits) - 1
    low = max(-limit, math.ceil(inside[0] * x.scale) + margin) if beyond[0] else None
    high = min(limit, math.floor(inside[1] * x.scale) - margin) if beyond[1] else None
    below, above = (0 if end is None else round(end * unit) for end in ends)
    return Clamp(low=low, high=high, below=below, above=above, shift=shift)
