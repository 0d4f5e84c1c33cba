"""Read what callers say of a model's inputs - ranges, shapes, samples, data - in every form that has one meaning.

All else is refused with the form that is right: a wrong argument never ends in an error of Python's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpc.compiler.graph.graph import Range
from mpc.compiler.onnx.declared import ends_of, parse_range
from mpc.errors import InputError, UsageError

_KINDS = {"f": "fiub", "i": "iub", "u": "iub", "b": "b"}
"""Kinds of a type, and of numbers in lists that become that type without a loss that matters."""


def as_ranges(given: Any, types: Mapping[str, str]) -> dict[str, Range]:
    """Return ranges by input name, of a mapping, or of one pair (low, high) for all inputs.

    A pair for all says of an input of integers no more than its type does.

    Args:
        types: numpy type of each input; empty if it has none.

    Raises:
        UsageError: it is neither; an end is no number and no sequence of numbers.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {_name(name, "ranges"): _range(pair) for name, pair in given.items()}
    pair = _range(given)
    return {name: _within(pair, *ends_of(dtype)) for name, dtype in types.items()}


def _within(pair: Range, least: float, most: float) -> Range:
    """The part of a range that lies between two ends; all of it if there is none."""
    low, high = np.maximum(pair[0], least), np.minimum(pair[1], most)
    return pair if (low > high).any() else (low.tolist(), high.tolist())


def _range(given: Any) -> Range:
    if isinstance(given, str):
        return parse_range(given)
    try:
        ends = [np.asarray(end) for end in given]
        low, high = (end.astype(np.float64) for end in ends if end.dtype.kind in "fiub")
    except Exception:  # whatever an object of the caller's does when it is gone through
        raise _no_range(given) from None
    if len(ends) != 2 or low.ndim > 1 or high.ndim > 1:
        raise _no_range(given)
    return low.tolist(), high.tolist()


def _no_range(given: Any) -> UsageError:
    return UsageError(
        f"a range cannot be of type {type(given).__name__} like this",
        remedy="ranges=(-4, 4) for all inputs, or ranges={'x': (-4, 4), 'y': ([0, 0], [1, 255])}, each end a number or "
        "one a column",
    )


def as_shapes(given: Any, names: Sequence[str]) -> dict[str, tuple[int | str | None, ...]]:
    """Return shapes by input name, of a mapping, or of one shape if there is one input.

    Raises:
        UsageError: it is neither; a size is no positive whole number, "batch" or None.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        given = {_only(names, "shapes", "{'x': (None, 3, 32, 32)}"): given}
    return {_name(name, "shapes"): _shape(sizes) for name, sizes in given.items()}


def _shape(given: Any) -> tuple[int | str | None, ...]:
    found: list[int | str | None] = []
    for size in given if isinstance(given, Sequence) and not isinstance(given, str | bytes) else [-1]:
        whole = isinstance(size, int | np.integer) and not isinstance(size, bool) and size > 0
        if not whole and size is not None and not (isinstance(size, str) and size == "batch"):
            raise UsageError(
                "a shape is a sequence of whole numbers, None for the batch",
                remedy="shapes={'x': (None, 3, 32, 32)}",
            )
        found.append(int(size) if whole else size)
    return tuple(found)


def as_arrays(given: Any, types: Mapping[str, str], what: str, form: str) -> dict[str, np.ndarray]:
    """Return arrays by input name, of a mapping, or of one array if there is one input.

    Args:
        types: numpy type of each input that may be given without its name, or has a type at all.
        what: the argument's name.
        form: how it is written.

    Raises:
        UsageError: it is neither.
        InputError: something in it holds no numbers.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        name = _only([*types], what, form)
        alone = isinstance(given, list | tuple) and len(given) == 1 and isinstance(given[0], np.ndarray)
        given = {name: given[0] if alone else given}
    return {_name(name, what): as_array(value, types.get(name), name) for name, value in given.items()}


def as_samples(given: Any, types: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Return samples by input name, of a mapping, or of one array if there is one input.

    Raises:
        UsageError, InputError: as `as_arrays`; or one has no rows or no numbers.
    """
    found = as_arrays(given, types, "samples", "{'x': array}")
    for name, values in found.items():
        if values.dtype.kind not in "fiub" or not values.size or not values.ndim:
            raise InputError(
                f"the samples of input {name!r} are no rows of numbers", remedy="give numpy arrays of rows"
            )
    return found


def as_array(value: Any, dtype: str | None, name: str) -> np.ndarray:
    """Return an array as it is; numbers in lists in the type that the model has, if that changes none of them.

    None, or what pandas has for it, is a missing number: NaN.

    Raises:
        InputError: it holds no numbers, or rows of different lengths.
    """
    if isinstance(value, np.ndarray):
        return value
    try:
        found = np.asarray(value)
    except Exception:  # rows of different lengths; or an object of the caller's that has its own idea of an array
        found = np.array(None)
    found = _with_holes(found)
    if found.dtype.kind not in "fiub":
        raise InputError(
            f"input {name!r} is no array of numbers",
            cause="it has text in it, rows of different lengths, or is an object that numpy does not know",
            remedy="give a numpy array: numpy.array(rows, dtype=numpy.float32)",
        )
    return found if not dtype or hasattr(value, "dtype") else in_type(found, dtype)


def in_type(found: np.ndarray, dtype: str) -> np.ndarray:
    """Cast numbers to the type that the model has, if that changes none of them but by a float's rounding.

    Others stay as they are: another type is refused where all types are.
    """
    wanted = np.dtype(dtype)
    if found.dtype.kind not in _KINDS[wanted.kind]:
        return found
    with np.errstate(over="ignore", invalid="ignore"):
        cast = found.astype(wanted)
    same = np.isinf(cast) == np.isinf(found) if wanted.kind == "f" else cast == found
    return cast if same.all() else found


def _with_holes(found: np.ndarray) -> np.ndarray:
    """Objects that are numbers or stand for missing ones, as float64; other arrays as they are."""
    if found.dtype != object or not found.ndim:
        return found
    entries = [np.nan if each is None or type(each).__name__ == "NAType" else each for each in found.flat]
    if any(isinstance(each, bool) or not isinstance(each, int | float | np.number) for each in entries):
        return found
    return np.array(entries, dtype=np.float64).reshape(found.shape)


def _only(names: Sequence[str], what: str, form: str) -> str:
    if len(names) != 1:
        listed = f": {', '.join(names)}" if names else ""
        raise UsageError(f"{what} without names, and there are {len(names)} inputs{listed}", remedy=f"{what}={form}")
    return names[0]


def _name(name: Any, what: str) -> str:
    if not isinstance(name, str):
        raise UsageError(f"{what} are by name, and {type(name).__name__} is none", remedy=f"{what}={{'x': ...}}")
    return name
