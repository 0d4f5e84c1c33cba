"""What the compiler proves about a value: where it can lie, and how far off it is expected to be.

All in units of the wire that will hold it, column by column; an axis that the rows of a batch
share has size 1.  Intervals are those of the integers that will really be used.  The expected
error is a root mean square, adding up roundings as if they were independent: it decides
nothing about correctness, and is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ROUNDING = 12**-0.5
"""RMS error, in units, of rounding to the nearest."""
_TRUNCATION = 6**-0.5
"""The same of floor or floor + 1, unbiased."""
_TYPICAL = 0.5
"""Typical size of a value beside the largest it can have."""


@dataclass(frozen=True)
class Interval:
    """low <= x <= high, with an expected error; three arrays of one shape."""

    low: np.ndarray
    high: np.ndarray
    error: np.ndarray

    @classmethod
    def exactly(cls, values: np.ndarray, error: float = 0.0) -> Interval:
        """Known integers, as weights are to their owner."""
        return cls(values, values, np.full(values.shape, error))

    @classmethod
    def between(cls, low: float, high: float, shape: tuple[int, ...], error: float = 0.0) -> Interval:
        """One interval for all columns."""
        return cls(np.full(shape, float(low)), np.full(shape, float(high)), np.full(shape, float(error)))

    @property
    def bound(self) -> float:
        """The largest size that any column can have."""
        return float(np.maximum(np.abs(self.low), np.abs(self.high)).max(initial=0.0))

    def times(self, factor: int) -> Interval:
        """factor x."""
        low, high = (self.low, self.high) if factor > 0 else (self.high, self.low)
        return Interval(low * factor, high * factor, self.error * abs(factor))

    def plus(self, other: Interval) -> Interval:
        """x + y."""
        return Interval(self.low + other.low, self.high + other.high, np.hypot(self.error, other.error))

    def truncated(self, shift: int) -> Interval:
        """x / 2^shift, floor or floor + 1."""
        unit = 2.0**shift
        error = np.hypot(self.error / unit, _TRUNCATION if shift else 0.0)
        return Interval(np.floor(self.low / unit), np.floor(self.high / unit) + 1, error)

    def rectified(self) -> Interval:
        """max(0, x)."""
        return Interval(np.maximum(self.low, 0), np.maximum(self.high, 0), self.error)

    def affine(self, weight: np.ndarray, bias: np.ndarray | None, rounded: bool) -> Interval:
        """x weight + bias; `rounded` says that the weights are integers rounded from something finer."""
        positive, negative = np.maximum(weight, 0).astype(np.float64), np.minimum(weight, 0).astype(np.float64)
        shift = 0.0 if bias is None else bias.astype(np.float64)
        low = self.low @ positive + self.high @ negative + shift
        high = self.high @ positive + self.low @ negative + shift
        size = np.maximum(np.abs(self.low), np.abs(self.high)) * _TYPICAL
        inherited = np.square(self.error) @ np.square(weight.astype(np.float64))
        own = np.square(size).sum(axis=-1, keepdims=True) * (ROUNDING**2 if rounded else 0.0)
        return Interval(low, high, np.sqrt(inherited + own))

    def widest(self) -> Interval:
        """One column that covers them all along the last axis."""
        return Interval(
            self.low.min(axis=-1, keepdims=True),
            self.high.max(axis=-1, keepdims=True),
            self.error.max(axis=-1, keepdims=True),
        )

    def reshaped(self, before: tuple[int, ...], after: tuple[int, ...]) -> Interval:
        """The same columns in another shape."""
        return Interval(*(np.broadcast_to(a, before).reshape(after) for a in self._arrays))

    def transposed(self, before: tuple[int, ...], axes: tuple[int, ...]) -> Interval:
        """The same columns in another order."""
        return Interval(*(np.broadcast_to(a, before).transpose(axes) for a in self._arrays))

    @property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.low, self.high, self.error


def joined(intervals: Sequence[Interval], shapes: Sequence[tuple[int, ...]]) -> Interval:
    """One after another along the last axis."""
    columns = [
        [np.broadcast_to(array, shape) for array in (i.low, i.high, i.error)]
        for i, shape in zip(intervals, shapes, strict=True)
    ]
    return Interval(*(np.concatenate(parts, axis=-1) for parts in zip(*columns, strict=True)))
