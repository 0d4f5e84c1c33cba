"""Fourier series of functions of one variable.

A series of period T > high - low is fitted by regularised least squares on [low, high]; the
freedom between the interval and the period makes the error fall geometrically with J.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, cached_property, wraps
from typing import TypeVar, cast

import numpy as np

from mpc.compiler.functions import FUNCTIONS, Parameters
from mpc.compiler.threads import on_one_thread


@dataclass(frozen=True)
class Series:
    """constant + sum_j cosines[j-1] cos(2 pi j x / T) + sines[j-1] sin(2 pi j x / T), and its error.

    Args:
        wave_error: what roundings of its coefficients and waves, as integers, are off by.
    """

    period: float
    constant: float
    cosines: np.ndarray
    sines: np.ndarray
    error: float
    wave_error: float = 2.0**-18

    @property
    def whole_error(self) -> float:
        """The error of the series and, since they are integers, of its coefficients and waves."""
        return self.error + self.weight * self.wave_error

    @property
    def weight(self) -> float:
        """Root of the sum of all squared coefficients: how roundings of the waves add up."""
        return float(np.sqrt(np.square(self.cosines).sum() + np.square(self.sines).sum()))

    @property
    def reach(self) -> float:
        """No value of the series is larger."""
        return abs(self.constant) + float(np.abs(self.cosines).sum() + np.abs(self.sines).sum())

    @cached_property
    def ends(self) -> tuple[float, float]:
        """Between what it stays over its whole period: so many points of it, and as far as it can turn between them."""
        terms = np.arange(1, self.cosines.size + 1)
        angles = 2 * np.pi / _PERIOD_POINTS * np.outer(np.arange(_PERIOD_POINTS), terms)
        values = self.constant + np.cos(angles) @ self.cosines + np.sin(angles) @ self.sines
        bend = float((np.square(terms) * np.hypot(self.cosines, self.sines)).sum())
        beyond = bend * (2 * np.pi / _PERIOD_POINTS) ** 2 / 8
        return float(values.min()) - beyond, float(values.max()) + beyond


_CUTS = (1e-6, 1e-5, 1e-4)
"""Singular values to cut off: a larger cut fits less and has smaller coefficients."""
_DEEPER_CUTS = (1e-8, 1e-7)
"""Where a fit has emphasis, it may have larger coefficients: they are integers of more bits."""
_POINTS = 513
_WALL_WEIGHT = 0.01
_PERIOD_POINTS = 8192
_TERMS = (6, 8, 10, 12, 14, 16, 20, 24, 28, 32)
_PERIODS = (1.2, 1.4, 1.7)


Fit = TypeVar("Fit", bound=Callable[..., Series])


def _on_one_thread(fit: Fit) -> Fit:
    """Have matrix products take one thread meanwhile: hundreds of tiny ones would wait for one another."""

    @wraps(fit)
    def alone(*given: object, **named: object) -> Series:
        with on_one_thread():
            return fit(*given, **named)

    return cast(Fit, alone)


@cache
@_on_one_thread
def fit(
    name: str,
    parameters: Parameters,
    low: float,
    high: float,
    tolerance: float,
    unit: float,
    wave_error: float = 2.0**-18,
) -> Series:
    """Return the series with the fewest terms whose error is within the tolerance, else the best one.

    Args:
        unit: 2^n units of a wire are one period, so periods are made multiples of it by a factor
            below two: T in the result is unit 2^n k, k small.
        wave_error: what roundings of coefficients and waves are off by; if that is less than usual, a function's
            emphasis counts.
    """
    function = FUNCTIONS[name](**dict(parameters))
    x = np.linspace(low, high, _POINTS)
    target = function.value(x)
    emphasis = function.emphasis if wave_error < Series.wave_error else None
    best: list[Series] = []
    for terms in _TERMS:
        periods = sorted({_period(ratio * (high - low), unit) for ratio in _PERIODS})
        weight = None if emphasis is None else emphasis(x)
        found = [series for period in periods for series in fitted(x, target, period, terms, weight)]
        found = [replace(series, wave_error=wave_error) for series in found]
        best.append(min(found, key=lambda series: series.whole_error))
        if best[-1].whole_error <= tolerance:
            return best[-1]
    least = min(series.whole_error for series in best)
    return next(series for series in best if series.whole_error <= 1.3 * least)


def at_whole_numbers(function: Callable[[np.ndarray], np.ndarray], low: int, high: int, period: int) -> Series:
    """Return the series that is exact on low, low + 1, ... high, and means nothing between them.

    Args:
        period: even, and larger than high - low.  Where it is larger by more than one, values go back on a line.
    """
    x = np.arange(low, low + period)
    values = function(np.minimum(x, high).astype(np.float64))
    back = np.maximum(x - high, 0) / (low + period - high)
    angles = 2 * np.pi / period * np.outer(np.arange(1, period // 2 + 1), x)
    target = values + back * (values[0] - values)
    parts = 2 / period * np.stack([np.cos(angles), np.sin(angles)]) @ target
    parts[:, -1] *= (0.5, 0.0)  # the fastest cosine is 1 or -1 at whole numbers, and its sine 0
    constant = _without_last_bits(float(target.mean()), np.abs(parts).max())
    return Series(float(period), constant, parts[0], parts[1], 0.0)


@cache
@_on_one_thread
def wide(name: str, parameters: Parameters, period: float, terms: int, reach: float, wall: float = 0.0) -> Series:
    """Return the series of so many terms that fits on -reach .. reach and stays in bounds over the whole period.

    Of fits with smaller and smaller coefficients the best one that is nowhere further beyond the function's values than
    it is off on the interval.

    Args:
        wall: instead of that, how far above its values it climbs from `reach` to half a period, and falls below them
            towards minus that.
    """
    value = FUNCTIONS[name](**dict(parameters)).value
    if wall:
        return _walled(value, period, terms, reach, wall)
    x = np.linspace(-reach, reach, 4 * _POINTS)
    target = value(x)
    found = list(fitted(x, target, period, terms))
    low, high = float(target.min()), float(target.max())
    calm = [s for s in found if s.ends[0] >= low - 2 * s.error and s.ends[1] <= high + 2 * s.error]
    return min(calm or found, key=lambda series: series.error if calm else series.reach)


def _walled(value: Callable[[np.ndarray], np.ndarray], period: float, terms: int, reach: float, wall: float) -> Series:
    """Fit a function on -reach .. reach, and a ramp from there up to the turn at half a period, with less weight."""
    x = np.linspace(-period / 2, period / 2, 8 * _POINTS, endpoint=False)
    size, last = np.abs(x), period / 2 - period / terms  # no series of so many terms turns faster
    target = value(x) + np.sign(x) * wall * np.clip((size - reach) / (last - reach), 0, None)
    weight = np.sqrt(np.where(size <= reach, 1.0, np.where(size <= last, _WALL_WEIGHT, 0.0)))
    angles = 2 * np.pi / period * np.outer(x, np.arange(1, terms + 1))
    basis = np.concatenate([np.ones((x.size, 1)), np.cos(angles), np.sin(angles)], axis=1)
    coefficients, *_ = np.linalg.lstsq(basis * weight[:, None], target * weight, rcond=min(_CUTS))
    coefficients[0] = _without_last_bits(coefficients[0], np.abs(coefficients).max())
    error = float(np.abs(basis @ coefficients - value(x))[size <= reach].max())
    cosines, sines = np.split(coefficients[1:], 2)
    return Series(period, float(coefficients[0]), cosines, sines, error)


def turns(scale: Fraction, period: float) -> tuple[int, int]:
    """Return (factor, window) with factor period scale = 2^window, for a period that `fit` or `wide` has chosen."""
    for factor in range(1, 64):
        window = math.log2(factor * period * float(scale))
        if abs(window - round(window)) < 1e-9:
            while round(window) < 24:
                factor, window = factor * 2, window + 1
            return factor, round(window)
    raise ValueError(f"no small multiple of the period {period} is a power of two units")


def integers(values: np.ndarray, bits: int) -> tuple[int, ...]:
    """Return coefficients with so many fractional bits."""
    return tuple(int(v) for v in np.rint(np.ldexp(values, bits)))


def period_above(wanted: float, scale: Fraction = Fraction(1)) -> float:
    """Return the least period that is not below the wanted one and that wires of a scale can have, or of powers of two
    times it.
    """
    return _period(wanted, float(Fraction(2) ** (math.frexp(float(scale))[1] - 1) / scale))


def fitted(
    x: np.ndarray, target: np.ndarray, period: float, terms: int, weight: np.ndarray | None = None
) -> Iterator[Series]:
    """Yield fits by least squares, with small singular values cut off: one series a cut.

    The basis itself is decomposed, not its squares: those would leave a direction that is just kept four digits, and
    the last bits of sums, which differ from one processor to the next, would show in the coefficients.

    Args:
        weight: the error counts where it is largest beside them, and more cuts are tried; None: everywhere alike.
    """
    angles = 2 * np.pi / period * np.outer(x, np.arange(1, terms + 1))
    basis = np.concatenate([np.ones((x.size, 1)), np.cos(angles), np.sin(angles)], axis=1)
    each = np.ones(x.size) if weight is None else weight
    left, sizes, right = np.linalg.svd(basis * each[:, None], full_matrices=False)
    along = left.T @ (target * each)
    for cut in _CUTS if weight is None else (*_DEEPER_CUTS, *_CUTS):
        kept = sizes > cut * sizes[0]
        coefficients = right[kept].T @ (along[kept] / sizes[kept])
        coefficients[0] = _without_last_bits(coefficients[0], np.abs(coefficients).max())
        error = float((np.abs(basis @ coefficients - target) * each).max())
        cosines, sines = np.split(coefficients[1:], 2)
        yield Series(period, float(coefficients[0]), cosines, sines, error)


def _without_last_bits(constant: float, largest: float) -> float:
    """Round a constant as coefficients are rounded, but for eight bits: gates hold it with all the digits of a wire."""
    return float(np.ldexp(np.rint(np.ldexp(constant, bits := 27 - math.frexp(largest)[1])), -bits))


def _period(wanted: float, unit: float) -> float:
    """The least period above the wanted one that a wire can have: unit 2^n / k, k odd and below 32."""
    candidates = (unit * 2.0 ** math.ceil(math.log2(wanted * k / unit)) / k for k in range(1, 32, 2))
    return min(candidates)
