"""A function's series has the digits that its fit tells, and none that only the processor's order of sums decides.

Two machines that compile a model then get one plan, whose digest one operator allows and another compares.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from mpc.compiler import series as fits
from mpc.compiler.functions import FUNCTIONS
from mpc.compiler.series import Series

SHAKEN = 2.0**-52
"""By so much, relatively, does the last bit of a function's value differ between two mathematical libraries."""
ERROR_FUNCTION = FUNCTIONS["erf"]().value
NAMES = ("sigmoid", "tanh", "gelu", "softplus", "erf", "exp_negative", "atan", "sigmoid_slope")


def series_of(name: str, weighted: bool, rng: np.random.Generator | None) -> list[Series]:
    """Fits of a function, its values shaken in their last bits."""
    function = FUNCTIONS[name]()
    low, high = max(function.low, -8.0), min(function.high, 8.0)
    x = np.linspace(low, high, 513)
    target = function.value(x)
    weight = None
    if weighted:
        weight = function.emphasis(x) if function.emphasis is not None else 1 / (0.1 + np.abs(target))
    if rng is not None:
        target = target * (1 + SHAKEN * rng.choice([-1.0, 1.0], target.shape))
    return [series for terms in (8, 16, 28) for series in fits.fitted(x, target, 1.4 * (high - low), terms, weight)]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_last_bits_of_values_do_not_show_in_coefficients(name: str, weighted: bool) -> None:
    rng = np.random.default_rng(7)
    plain = series_of(name, weighted, None)
    shaken = series_of(name, weighted, rng)
    assert len(plain) == len(shaken) > 3
    for one, other in zip(plain, shaken, strict=True):
        largest = np.abs([one.constant, *one.cosines, *one.sines]).max()
        assert np.abs(one.cosines - other.cosines).max() < 2.0**-27 * largest
        assert np.abs(one.sines - other.sines).max() < 2.0**-27 * largest
        assert abs(one.constant - other.constant) <= 2.0 ** (np.frexp(largest)[1] - 27)  # of the last digit it has


def test_an_error_function_of_many_numbers_is_that_of_each() -> None:
    x = np.concatenate([np.linspace(-7, 7, 1 << 14), [0.0, 5.99, -6.0, 1e9, np.inf, -np.inf, np.nan]])
    apart = ERROR_FUNCTION(x) - np.array([math.erf(each) for each in x.tolist()])
    assert np.abs(apart[:-1]).max() < 2.0**-51 and np.isnan(apart[-1])
