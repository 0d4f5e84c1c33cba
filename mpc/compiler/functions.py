"""The functions of one variable that the compiler knows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

Parameters = tuple[tuple[str, float], ...]
_MANY = 1 << 14
"""Numbers of which an error function is computed at once, rather than one after another."""
_ERF_END, _ERF_GRID, _ERF_ORDERS = 6, 32, 9
_FEW_TERMS = 256
"""Numbers to be summed of which none counts that is less than e to the power of minus 13."""
LINEAR_FROM = 11.0
"""Above it softplus is its argument."""


@dataclass(frozen=True)
class Function:
    """One elementwise function, its parameters filled in.

    Args:
        low, high: beyond them it is constant, to within the error of a series; infinite where
            it is not.
        domain: it exists above this number only.
        vanishes: the constant below `low` is 0.
        lined: above `high` it is its argument, not a constant.
        emphasis: how many times nearer to the value a series should be there; None: everywhere alike.
        over: the constant above `high`, if it is another than the value there.
        below, above: the constants.
    """

    value: Callable[[np.ndarray], np.ndarray]
    low: float = -math.inf
    high: float = math.inf
    domain: float = -math.inf
    vanishes: bool = False
    lined: bool = False
    emphasis: Callable[[np.ndarray], np.ndarray] | None = None
    over: float | None = None

    @property
    def below(self) -> float:
        return float(self.value(np.array(self.low)))

    @property
    def above(self) -> float:
        return float(self.value(np.array(self.high))) if self.over is None else self.over


def _erf(x: np.ndarray) -> np.ndarray:
    return _many_erf(x) if np.size(x) >= _MANY else np.vectorize(math.erf, otypes=[np.float64])(x)


@cache
def _erf_series() -> np.ndarray:
    """Return Taylor's coefficients of the error function about each point of a grid, (order, points)."""
    points = np.arange(-_ERF_END * _ERF_GRID, _ERF_END * _ERF_GRID + 1) / _ERF_GRID
    rises = [2 / math.sqrt(math.pi) * np.exp(-np.square(points))]  # of the derivative, for which g' = -2 x g
    rises.append(-2 * points * rises[0])
    for order in range(1, _ERF_ORDERS - 2):
        rises.append(-2 * (points * rises[order] + rises[order - 1]) / (order + 1))
    whole = np.array([math.erf(point) for point in points.tolist()])
    return np.stack([whole, *(rise / (order + 1) for order, rise in enumerate(rises))])


def _many_erf(x: np.ndarray) -> np.ndarray:
    """Return the error function of many numbers, to some units of float64's last place."""
    x = np.clip(x, -_ERF_END, _ERF_END)  # beyond, it is one
    nearest = np.rint(x * _ERF_GRID)
    beside, places = x - nearest / _ERF_GRID, np.nan_to_num(nearest).astype(np.int64) + _ERF_END * _ERF_GRID
    series = _erf_series()
    total = series[-1][places]
    for coefficients in series[-2::-1]:
        total = total * beside + coefficients[places]
    return total


def _sigmoid() -> Function:
    return Function(_logistic, -11.0, 11.0)


def _whole_softplus(x: np.ndarray) -> np.ndarray:
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def _logistic(x: np.ndarray) -> np.ndarray:
    return np.exp(np.minimum(x, 0)) / (1.0 + np.exp(-np.abs(x)))


def _softplus() -> Function:
    """softplus(x) - max(0, x - 11): constant beyond, so that a ReLU makes up for it."""
    edge = LINEAR_FROM
    return Function(lambda x: _whole_softplus(x) - np.maximum(x - edge, 0), -edge, edge)


def _silu() -> Function:
    """Return x times the logistic function of x."""
    return Function(lambda x: x * _logistic(x), -13.0, 13.0, vanishes=True, lined=True)


def _mish() -> Function:
    """Return x tanh(log(1 + exp x))."""
    return Function(lambda x: x * np.tanh(_whole_softplus(x)), -13.0, 7.0, vanishes=True, lined=True)


def _gelu() -> Function:
    return Function(lambda x: x * 0.5 * (1 + _erf(x / math.sqrt(2))), -5.0, 5.0, vanishes=True, lined=True)


def _gelu_tanh() -> Function:
    """Return x / 2 (1 + tanh(..)), the approximation of GELU by tanh."""

    def value(x: np.ndarray) -> np.ndarray:
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        return x * 0.5 * (1 + np.tanh(inner))

    return Function(value, -5.0, 5.0, vanishes=True, lined=True)


def _sigmoid_slope() -> Function:
    return Function(lambda x: 0.25 / np.square(np.cosh(np.clip(x, -80.0, 80.0) / 2)), -11.0, 11.0)


def _softplus_slope() -> Function:
    """Return the slope of what `softplus` is: the logistic function less the step at 11."""
    return Function(lambda x: _logistic(x) - (x > LINEAR_FROM), -LINEAR_FROM, LINEAR_FROM, over=0.0)


def _gelu_slope() -> Function:
    def value(x: np.ndarray) -> np.ndarray:
        density = np.exp(-np.square(x) / 2) / math.sqrt(2 * math.pi)
        return 0.5 * (1 + _erf(x / math.sqrt(2))) + x * density

    return Function(value, -5.0, 5.0)


def _gelu_tanh_slope() -> Function:
    def value(x: np.ndarray) -> np.ndarray:
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        rise = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
        return 0.5 * (1 + np.tanh(inner)) + 0.5 * x * rise / np.square(np.cosh(np.clip(inner, -300.0, 300.0)))

    return Function(value, -5.0, 5.0)


def _silu_slope() -> Function:
    return Function(lambda x: _logistic(x) * (1.0 + x * _logistic(-x)), -14.0, 14.0)


def _mish_slope() -> Function:
    def value(x: np.ndarray) -> np.ndarray:
        bend = np.tanh(_whole_softplus(x))
        return bend + x * _logistic(x) * (1.0 - np.square(bend))

    return Function(value, -14.0, 8.0)


def _exp_negative(terms: float = 1.0) -> Function:
    """exp(x) of what is not positive: of many that are far below zero, whose sum counts, each is off by little.

    Args:
        terms: how many are summed.  The more there are, the less counts as nothing: together it is 6e-4 at most.
    """
    return Function(
        lambda x: np.exp(np.minimum(x, 4.25)),
        low=-13.0 - max(0.0, math.log(terms / _FEW_TERMS)),
        vanishes=True,
        emphasis=lambda x: np.where(x < -5.0, 10.0, 1.0),
    )


def _power(exponent: float) -> Function:
    return Function(lambda x: np.power(x, exponent), domain=0.0)


FUNCTIONS: dict[str, Callable[..., Function]] = {
    "sigmoid": _sigmoid,
    "tanh": lambda: Function(np.tanh, -6.0, 6.0),
    "erf": lambda: Function(_erf, -3.6, 3.6),
    "exp": lambda: Function(np.exp),
    "exp_negative": _exp_negative,
    "softplus": _softplus,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": _silu,
    "mish": _mish,
    "log": lambda: Function(np.log, domain=0.0),
    "sqrt": lambda: Function(np.sqrt, domain=0.0),
    "reciprocal": lambda: Function(lambda x: 1.0 / x, domain=0.0),
    "rsqrt": lambda: Function(lambda x: 1.0 / np.sqrt(x), domain=0.0),
    "power": _power,
    "sigmoid_slope": _sigmoid_slope,
    "tanh_slope": lambda: Function(lambda x: 1.0 / np.square(np.cosh(x)), -6.0, 6.0),
    "erf_slope": lambda: Function(lambda x: 2 / math.sqrt(math.pi) * np.exp(-np.square(x)), -3.6, 3.6),
    "softplus_slope": _softplus_slope,
    "gelu_slope": _gelu_slope,
    "gelu_tanh_slope": _gelu_tanh_slope,
    "silu_slope": _silu_slope,
    "mish_slope": _mish_slope,
    "atan_slope": lambda: Function(lambda x: 1.0 / (1.0 + np.square(x))),
    "asinh_slope": lambda: Function(lambda x: 1.0 / np.sqrt(1.0 + np.square(x))),
    "atan": lambda: Function(np.arctan),
    "asinh": lambda: Function(np.arcsinh),
    "sinh": lambda: Function(np.sinh),
    "cosh": lambda: Function(np.cosh),
    "sin": lambda: Function(np.sin),
    "cos": lambda: Function(np.cos),
}
"""By name; the arguments are a graph node's parameters."""
