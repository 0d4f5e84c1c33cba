"""The functions that become Fourier series: where they are fitted and what stands outside.

A series of period T > high - low is fitted by regularised least squares on [low, high]; the
freedom between the interval and the period makes the error fall geometrically with J.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np


@dataclass(frozen=True)
class Function:
    """One elementwise function.

    Args:
        low, high: the interval that is fitted.
        below, above: the values that stand for the function outside it.
        period, terms: T and J of the series.
    """

    value: Callable[[np.ndarray], np.ndarray]
    low: float
    high: float
    below: float
    above: float
    period: float
    terms: int


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


FUNCTIONS = {
    "sigmoid": Function(_sigmoid, -10.0, 10.0, 0.0, 1.0, 28.0, 14),
    "tanh": Function(np.tanh, -5.5, 5.5, -1.0, 1.0, 15.5, 15),
    "exp": Function(np.exp, -14.0, 0.125, 0.0, 1.0, 21.0, 16),
}


def reciprocal(most: int) -> Function:
    """1 / x on [1, most], most at least 2."""
    span = float(most - 1) + 0.25
    terms = 16 if most <= 10 else 28
    return Function(lambda x: 1.0 / x, 0.875, most + 0.125, 1.0, 1.0 / most, 1.4 * span, terms)


@dataclass(frozen=True)
class Series:
    """constant + sum_j cosines[j-1] cos(2 pi j x / T) + sines[j-1] sin(2 pi j x / T), and its error."""

    constant: float
    cosines: np.ndarray
    sines: np.ndarray
    error: float

    @property
    def weight(self) -> float:
        """Root of the sum of all squared coefficients: how roundings of the waves add up."""
        return float(np.sqrt(np.square(self.cosines).sum() + np.square(self.sines).sum()))


@cache
def fit(function: Function) -> Series:
    """The series, fitted on 4,001 points with singular values below 1e-9 cut off."""
    x = np.linspace(function.low, function.high, 4001)
    angles = 2 * np.pi / function.period * np.outer(x, np.arange(1, function.terms + 1))
    basis = np.concatenate([np.ones((x.size, 1)), np.cos(angles), np.sin(angles)], axis=1)
    target = function.value(x)
    coefficients, *_ = np.linalg.lstsq(basis, target, rcond=1e-9)
    error = float(np.abs(basis @ coefficients - target).max())
    cosines, sines = np.split(coefficients[1:], 2)
    return Series(float(coefficients[0]), cosines, sines, error)
