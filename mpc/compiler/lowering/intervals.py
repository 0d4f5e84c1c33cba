"""Intervals: the compiler proves where a value can lie, and estimates roughly how far off it is.

All in units of the wire that will hold it, element by element; the batch axis, whose rows share
their bounds, has size 1.  Intervals are those of the integers that will really be used.  The
error is a root mean square, adding up roundings as if they were independent, and so are mean
and variance, as if inputs were uniform in their range: they decide nothing about correctness,
only which of several plans is taken.  What is reported is measured: see `rehearsal`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

ROUNDING = 12**-0.5
"""RMS error, in units, of rounding to the nearest."""
_TRUNCATION = 6**-0.5
"""The same of floor or floor + 1, unbiased."""

_MEAN_OFF = 0.8
"""The mean size of a normal error, as a part of its root mean square."""
_FAR = 1e3
"""Deviations from which on a normal value is certainly on one side."""
_LOGISTIC = 1.702
"""The logistic function of so many deviations is close to the normal distribution function."""

Product = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""A bilinear map over the reals: a matrix product, a convolution, an elementwise product."""


@dataclass(frozen=True)
class Interval:
    """low <= x <= high, with a rough error, a mean and a variance; arrays of one shape.

    Without mean and variance, those of the uniform distribution.
    """

    low: np.ndarray
    high: np.ndarray
    error: np.ndarray
    given_mean: np.ndarray | None = None
    given_variance: np.ndarray | None = None

    @classmethod
    def exactly(cls, values: np.ndarray, error: float = 0.0) -> Interval:
        """Return the interval of known integers, as weights are to their owner."""
        return cls(values, values, np.full(values.shape, error))

    @classmethod
    def between(cls, low: float, high: float, shape: tuple[int, ...], error: float = 0.0) -> Interval:
        """Return one interval for all elements."""
        return cls(np.full(shape, float(low)), np.full(shape, float(high)), np.full(shape, float(error)))

    @property
    def mean(self) -> np.ndarray:
        return (self.low + self.high) / 2 if self.given_mean is None else self.given_mean

    @property
    def variance(self) -> np.ndarray:
        return np.square(self.high - self.low) / 12 if self.given_variance is None else self.given_variance

    @property
    def typical(self) -> np.ndarray:
        """The root mean square of each element."""
        return np.sqrt(np.square(self.mean) + self.variance)

    @property
    def size(self) -> np.ndarray:
        """The largest size of each element."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    @property
    def bound(self) -> float:
        """The largest size that any element can have."""
        return bound_of(self.low, self.high)

    @property
    def least(self) -> float:
        """Below every element."""
        return float(self.low.min())

    @property
    def most(self) -> float:
        """Above every element."""
        return float(self.high.max())

    @property
    def worst_error(self) -> float:
        """The largest rough error of any element."""
        return float(self.error.max(initial=0.0))

    def overall(self) -> Interval:
        """Return what holds for all elements alike, which takes no memory; what is usual of each is left out."""
        shape = self.low.shape
        ends = np.array([self.least, self.most, self.worst_error]) if self.low.size else np.zeros(3)
        return Interval(*(np.broadcast_to(end, shape) for end in ends))

    def map(self, move: Callable[[np.ndarray], np.ndarray]) -> Interval:
        """Move the elements elsewhere."""
        return Interval(*(move(array) for array in self.arrays))

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        return self.low, self.high, self.error, self.mean, self.variance

    def where(self, here: np.ndarray, other: Interval) -> Interval:
        """Return this interval where `here` is true, and the other one elsewhere."""
        return Interval(*(np.where(here, *both) for both in zip(self.arrays, other.arrays, strict=True)))

    def broadcast_to(self, shape: tuple[int, ...]) -> Interval:
        return self.map(lambda array: np.broadcast_to(array, shape))

    def times(self, factor: int | np.ndarray) -> Interval:
        """Return the interval of factor x."""
        factor = np.asarray(factor, dtype=np.float64)
        ends = self.low * factor, self.high * factor
        low, high = np.minimum(*ends), np.maximum(*ends)
        return Interval(low, high, self.error * np.abs(factor), self.mean * factor, self.variance * np.square(factor))

    def plus(self, other: Interval) -> Interval:
        """Return the interval of x + y."""
        error = np.hypot(self.error, other.error)
        mean, variance = self.mean + other.mean, self.variance + other.variance
        return Interval(self.low + other.low, self.high + other.high, error, mean, variance)

    def product(self, other: Interval, square: bool = False) -> Interval:
        """Return x y elementwise; `square` says that both are one value."""
        ends = np.stack([a * b for a in (self.low, self.high) for b in (other.low, other.high)])
        error = np.hypot(self.error * other.typical, other.error * self.typical) * (2**0.5 if square else 1.0)
        low = np.maximum(ends.min(axis=0), 0) if square else ends.min(axis=0)
        if square:
            return Interval(low, ends.max(axis=0), error, np.square(self.typical), 2 * np.square(self.variance))
        variance = np.square(self.typical * other.typical) - np.square(self.mean * other.mean)
        return Interval(low, ends.max(axis=0), error, self.mean * other.mean, np.maximum(variance, 0))

    def bilinear(self, other: Interval, product: Product) -> Interval:
        """Return any bilinear map of two values, by the sizes of their elements."""
        size = product(self.size.astype(np.float64), other.size.astype(np.float64))
        mine, theirs = np.square(self.typical), np.square(other.typical)
        error = np.sqrt(product(mine, np.square(other.error)) + product(np.square(self.error), theirs))
        return Interval(-size, size, error, np.zeros_like(size), product(mine, theirs))

    def linear(self, product: Product, weight: np.ndarray, bias: np.ndarray | None, rounded: bool) -> Interval:
        """Return product(x, weight) + bias; `rounded`: the weights are integers rounded from something finer."""
        real = weight.astype(np.float64, copy=False)
        low, high = self.ends(product, real, bias)
        squares = np.square(real)
        shift = 0.0 if bias is None else bias.astype(np.float64)
        off = product(np.square(self.error), squares)
        if rounded:
            off = off + product(np.square(self.typical), np.full_like(real, ROUNDING**2))
        mean, variance = product(self.mean, real) + shift, product(self.variance, squares)
        return Interval(*np.broadcast_arrays(low, high, np.sqrt(off), mean, variance))

    def ends(self, product: Product, weight: np.ndarray, bias: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return (low, high) of product(x, weight) + bias."""
        real = weight.astype(np.float64, copy=False)
        positive, negative = np.maximum(real, 0), np.minimum(real, 0)
        shift = 0.0 if bias is None else bias.astype(np.float64, copy=False)
        low = product(self.low, positive) + product(self.high, negative) + shift
        return low, product(self.high, positive) + product(self.low, negative) + shift

    def truncated(self, shift: int) -> Interval:
        """Return x / 2^shift, floor or floor + 1."""
        unit = 2.0**shift
        error = np.hypot(self.error / unit, _TRUNCATION if shift else 0.0)
        low, high = np.floor(self.low / unit), np.floor(self.high / unit) + 1
        return Interval(low, high, error, self.mean / unit, self.variance / unit**2)

    def rectified(self) -> Interval:
        """Return max(0, x); mean and variance as if x were normal."""
        deviation = np.sqrt(self.variance) + 1e-30
        z = np.clip(self.mean / deviation, -_FAR, _FAR)
        above = 1 / (1 + np.exp(-np.clip(_LOGISTIC * z, -60, 60)))
        density = np.exp(-np.square(z) / 2) / np.sqrt(2 * np.pi)
        mean = self.mean * above + deviation * density
        square = (np.square(self.mean) + self.variance) * above + self.mean * deviation * density
        variance = np.maximum(square - np.square(mean), 0)
        return Interval(np.maximum(self.low, 0), np.maximum(self.high, 0), self.error, np.maximum(mean, 0), variance)

    def within(self, low: float | np.ndarray, high: float | np.ndarray) -> Interval:
        """Cut the interval to numbers, two or two an element, that bound the values for other reasons.

        Values turn out smaller than they were taken to be, and so is what they are off by.
        """
        found = self.cut(low, high)
        smaller = np.minimum(found.typical, self.typical) / np.maximum(self.typical, 1e-150)
        kept = np.where(self.typical < found.typical, 1.0, smaller)  # what was always 0 may be known to be more
        return Interval(found.low, found.high, self.error * kept, found.mean, found.variance)

    def cut(self, low: float | np.ndarray, high: float | np.ndarray) -> Interval:
        """Cut the interval to such numbers where the values are known to be as small; what they are off by stays."""
        kept_low, kept_high = np.clip(self.low, low, high), np.clip(self.high, low, high)
        kept_high = np.maximum(kept_low, kept_high)
        mean = np.clip(self.mean, kept_low, kept_high)
        variance = np.minimum(self.variance, np.square(kept_high - kept_low) / 4)
        return Interval(kept_low, kept_high, np.broadcast_to(self.error, mean.shape), mean, variance)

    def within_norms(self, norms: np.ndarray, axis: int) -> Interval:
        """Cut the interval to the Euclidean norms of the vectors along an axis, with room for roundings.

        Elements are taken to be of about one size; what they are off by stays.
        """
        found = self.cut(-norms - 1, norms + 1)
        usual = np.square(norms) / self.low.shape[axis]
        return Interval(found.low, found.high, found.error, found.mean, np.minimum(found.variance, usual))

    def off_by(self, least: np.ndarray) -> Interval:
        """Raise the error to this at least: an error of x passes through a linear map, however small the result."""
        error = np.maximum(self.error, np.broadcast_to(least, self.error.shape))
        return Interval(self.low, self.high, error, self.mean, self.variance)

    def chance_above(self, level: float) -> np.ndarray:
        """Return how likely x >= level is."""
        if self.given_variance is None:
            return np.clip((self.high - level) / np.maximum(self.high - self.low, 1e-300), 0.0, 1.0)
        deviation = np.sqrt(self.given_variance) + 1e-30
        return np.asarray(1 / (1 + np.exp(-np.clip(_LOGISTIC * (self.mean - level) / deviation, -60, 60))))

    def chance_misjudged(self, level: float, blur: float, whole: bool) -> np.ndarray:
        """Return how likely it is that rounding puts x on the wrong side of a level.

        Args:
            blur: units below the level in which a comparison may err by itself, less and less.
            whole: x holds whole numbers, that are off by one or right.
        """
        if self.given_variance is None:
            there = (self.low <= level) & (level <= self.high)
            density = there / np.maximum(self.high - self.low, 1.0)
        else:
            deviation = np.sqrt(self.given_variance) + 1e-30
            density = np.exp(-np.square((self.mean - level) / deviation) / 2) / (deviation * np.sqrt(2 * np.pi))
        if whole:
            return np.minimum(np.square(self.error), 1.0) * np.minimum(2 * density, 1.0)
        return np.minimum(density * (_MEAN_OFF * self.error + blur / 2), 1.0)

    def chance_outranked(self, blur: float) -> np.ndarray:
        """Return how likely rounding changes which element along the last axis is the largest; that axis keeps size 1.

        The largest two are taken to be as far apart as so many draws from all of them together would be.
        """
        number = self.low.shape[-1]
        spread = np.sqrt(self.variance.mean(axis=-1, keepdims=True) + self.mean.var(axis=-1, keepdims=True))
        off = _MEAN_OFF * np.sqrt(2 * np.square(self.error).mean(axis=-1, keepdims=True)) + blur / 2
        density = 1 / (2 * np.sqrt(np.pi) * np.maximum(spread, 1.0))
        return np.asarray(np.minimum((number - 1) * density * off, 1.0))

    def greatest(self) -> Interval:
        """Return the interval of the maximum along the last axis, which stays with size 1."""
        return self.map(lambda array: array.max(axis=-1, keepdims=True))

    def summed(self, axes: tuple[int, ...]) -> Interval:
        """Return the sum over axes, which stay with size 1."""

        def total(array: np.ndarray) -> np.ndarray:
            return array.sum(axis=axes, keepdims=True)

        error = np.sqrt(total(np.square(self.error)))
        return Interval(total(self.low), total(self.high), error, total(self.mean), total(self.variance))


_GRID_BITS = 3
"""An end of an interval that a plan tells of is a multiple of an eighth of its power of two."""


def widened(low: float, high: float) -> tuple[float, float]:
    """Return an interval around low..high whose ends say no more than four bits and an exponent of them.

    What a plan holds beside powers of two - coefficients of a series, where it is clamped - follows from such ends: a
    weight that changes by less than an eighth of its power of two mostly leaves them as they are.
    """
    return -_outwards(-low), _outwards(high)


def _outwards(end: float) -> float:
    """The least multiple at or above it of an eighth of its power of two."""
    if end == 0.0 or math.isinf(end):
        return end
    step = math.ldexp(1.0, math.frexp(end)[1] - 1 - _GRID_BITS)
    return math.ceil(end / step) * step


def bound_of(*arrays: np.ndarray) -> float:
    """Return the largest size of any element."""
    return float(np.max([0.0, *(end for array in arrays if array.size for end in (array.max(), -array.min()))]))


def joined(intervals: list[Interval], axis: int) -> Interval:
    """Put intervals side by side along an axis, all broadcast to their full shapes before."""
    return Interval(*(np.concatenate(parts, axis=axis) for parts in zip(*(i.arrays for i in intervals), strict=True)))
