"""Hold what attributes of the compiler's graph may be, by the types that their fields are annotated with."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from mpc.compiler.functions import FUNCTIONS
from mpc.compiler.graph.hidden import Hidden
from mpc.windows import Windows

Holds = Callable[[Any], bool]
"""Is this a value that an attribute may have?"""


def _array(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.float64


def _fraction(value: Any) -> bool:
    return isinstance(value, Fraction) and value > 0


def _mask(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == bool


def _hidden(value: Any) -> bool:
    return isinstance(value, Hidden)


def _number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _truth(value: Any) -> bool:
    return isinstance(value, bool)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _numbers(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_number, value))


def _wholes(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_whole, value))


def _ends(value: Any) -> bool:
    return _numbers(value) and len(value) == 2 and value[0] <= value[1]


def _moments(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2


def _windows(value: Any) -> bool:
    return isinstance(value, Windows)


def _function(value: Any) -> bool:
    return value in FUNCTIONS


def _parameters(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) and _number(entry) for name, entry in value.items())


HOLDS: dict[str, Holds] = {
    "Array": _array,
    "Ends": _ends,
    "Fraction": _fraction,
    "Hidden": _hidden,
    "Mask": _mask,
    "Moments": _moments,
    "Name": _function,
    "Numbers": _numbers,
    "Parameters": _parameters,
    "Wholes": _wholes,
    "Windows": _windows,
    "bool": _truth,
    "float": _number,
    "int": _whole,
    "str": _text,
}
"""Holds a field's value to its type, beyond what mypy sees; None passes where the type says so."""
