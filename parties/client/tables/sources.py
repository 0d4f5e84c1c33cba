"""Tables in memory as columns of numpy arrays: what they are, and pieces of their rows.

A source says of each column what it holds, by its type and not by its values, and gives its rows piece by piece.
"""

from __future__ import annotations

import datetime
import decimal
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from numbers import Real
from typing import Any

import numpy as np

from mpc.errors import InputError, UsageError
from mpc.stored import BLOCK_ROWS
from mpc.text import shown

_KINDS = {
    "f": "number",
    "i": "integer",
    "u": "integer",
    "b": "boolean",
    "U": "text",
    "S": "text",
    "M": "time",
    "m": "time",
}

_MOST_NUMBERS = 1 << 22
"""Numbers of a column that are turned into integers at once."""


@dataclass(frozen=True)
class Found:
    """A kind of column.

    Args:
        kind: "number", "integer", "boolean", "text", "cells" (text that may be anything), "array" (of numbers, a row
            each), "time" or "other".
        shape: of one row of an array.
        whole: an array of integers.
    """

    kind: str
    shape: tuple[int, ...] = ()
    whole: bool = False


@dataclass(frozen=True)
class Cells:
    """Some rows of a column.

    Args:
        values: (rows, *shape); numbers, or objects that are texts.
        missing: 0/1 by row where a value is missing; NaN and None are missing too.
    """

    values: np.ndarray = field(repr=False)
    missing: np.ndarray | None = field(default=None, repr=False)


class Source(ABC):
    """A table that can be gone through, more than once.

    Args:
        where: what it is, for errors.
        found: its columns, in order.
        aside: names of what is beside its columns and is not put: levels of an index.
    """

    where: str
    found: Mapping[str, Found]
    aside: tuple[str, ...] = ()

    @abstractmethod
    def pieces(self, names: Sequence[str]) -> Iterator[dict[str, Cells]]:
        """Give these columns, some rows at a time."""


class Arrays(Source):
    """Columns that are numpy arrays, or lists, of one length."""

    def __init__(self, columns: Mapping[str, Any], where: str = "the table") -> None:
        self.where = where
        self._columns = {name: _as_array(name, values) for name, values in columns.items()}
        if len({len(values) for values in self._columns.values()}) > 1:
            lengths = ", ".join(f"{shown(name)} {len(values):,}" for name, values in self._columns.items())
            raise InputError(f"columns of {where} have different numbers of rows", cause=lengths[:400])
        self.found = {name: found_in(values) for name, values in self._columns.items()}

    def pieces(self, names: Sequence[str]) -> Iterator[dict[str, Cells]]:
        rows = len(next(iter(self._columns.values()), ()))
        step = rows_at_once(self.found[name] for name in names)
        for start in range(0, rows, step):
            part = slice(start, start + step)
            yield {name: cells_of(name, self._columns[name][part], self.found[name]) for name in names}


def rows_at_once(columns: Iterable[Found]) -> int:
    """Choose how many rows a piece has: a block's, or fewer where a row is an image."""
    widest = max((prod(found.shape) for found in columns), default=1)
    return max(1, min(BLOCK_ROWS, _MOST_NUMBERS // widest))


def from_numpy(table: np.ndarray, names: Sequence[str] | None, where: str = "the table") -> Arrays:
    """Take a structured array by its fields, a 2-D one by its columns, any other as one column of arrays.

    Args:
        names: of the columns, if the array has none.

    Raises:
        UsageError: there are more or fewer names than columns.
    """
    if table.dtype.names:
        return Arrays({name: table[name] for name in table.dtype.names}, where)
    if not table.ndim:
        raise InputError(f"{where} is one number and no table", remedy="give rows of columns")
    columns = [*table.T] if table.ndim == 2 else [table]
    given = list(names) if names is not None else [f"x{number}" for number in range(len(columns))]
    if len(given) != len(columns):
        raise UsageError(
            f"{where} has {len(columns)} columns, and columns= names {len(given)}",
            remedy="name each column, in their order: columns=['age', 'bmi']",
        )
    return Arrays(dict(zip(given, columns, strict=True)), where)


def from_rows(rows: Sequence[Mapping[Any, Any]]) -> Arrays:
    """Take a list of mappings, one a row; what one lacks is missing."""
    names: dict[str, None] = {}
    for row in rows:
        if not isinstance(row, Mapping):
            raise UsageError("a list of rows has a dict for each row", remedy="[{'age': 40, 'bmi': 23.5}, ...]")
        names.update(dict.fromkeys(row))
    return Arrays({name: _objects([row.get(name) for row in rows]) for name in names})


def found_in(values: np.ndarray) -> Found:
    """Say what an array holds; of objects, what their types are."""
    if values.dtype.kind != "O":
        kind = _KINDS.get(values.dtype.kind, "other")
        if values.ndim == 1:
            return Found(kind)
        numbers = kind in ("number", "integer", "boolean")
        return Found("array" if numbers else "other", values.shape[1:], kind != "number")
    if values.ndim > 1:
        return Found("other")
    there = [each for each in values if not is_nothing(each)]
    if any(isinstance(each, list | tuple | np.ndarray) for each in there):
        return _found_in_rows(there)
    return Found(_kind_of({type(each) for each in there}))


def _found_in_rows(rows: Sequence[Any]) -> Found:
    kinds = {_row(each).dtype.kind for each in rows}
    shape = _row(rows[0]).shape
    return Found("array", shape, not kinds & {"f"}) if kinds <= {*"fiub"} and shape else Found("other")


def _row(value: Any) -> np.ndarray:
    """Read a row that is an array, or lists; None in it is NaN.  An array of nothing if it is none of numbers."""
    try:
        found = np.asarray(value)
        if found.dtype == object and any(each is None for each in found.flat):
            found = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        return np.array(None)
    return found


def _kind_of(types: set[type]) -> str:
    """Say what Python's types stand for."""
    if all(issubclass(each, bool | np.bool_) for each in types):
        return "boolean" if types else "number"
    if any(issubclass(each, bool | np.bool_) for each in types):
        return "other"
    if all(issubclass(each, int | np.integer) for each in types):
        return "integer"
    if all(issubclass(each, Real | decimal.Decimal) for each in types):
        return "number"
    if all(issubclass(each, str | int | np.integer) for each in types):
        return "text"
    times = datetime.date | datetime.time | datetime.timedelta | np.datetime64 | np.timedelta64
    return "time" if all(issubclass(each, times) for each in types) else "other"


def is_nothing(value: Any) -> bool:
    """Tell whether an object stands for a missing value: None, NaN, or what pandas has for it."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating | decimal.Decimal) and value != value


def cells_of(name: str, values: np.ndarray, found: Found) -> Cells:
    """Give an array's values in a numpy type of its kind, and which of them are missing.

    Raises:
        InputError: rows are arrays of different shapes, bytes are no text, or an integer has more than 64 bits.
    """
    if values.dtype.kind != "O":
        return Cells(_texts(name, values) if found.kind == "text" else values)
    gone = np.fromiter(map(is_nothing, values), dtype=bool, count=len(values))
    if found.kind in ("text", "cells"):
        return Cells(values, gone)
    if found.kind == "array":
        return Cells(_stack(name, values, gone, found), gone)
    kind = {"number": np.float64, "integer": np.int64, "boolean": np.bool_}[found.kind]
    whole: np.ndarray = np.zeros(len(values), dtype=kind)
    try:
        whole[~gone] = values[~gone].astype(kind)
    except OverflowError:
        raise long_number(name) from None
    return Cells(whole, gone)


def unreadable(name: str) -> InputError:
    """Make the error for a column of a type that no object holds."""
    return InputError(
        f"column {shown(name)!r} holds what is neither numbers nor texts",
        remedy="turn it into numbers, or leave it out",
    )


def long_number(name: str) -> InputError:
    """Make the error for an integer that has too many bits."""
    return InputError(f"column {shown(name)!r} holds a number of more than 64 bits", remedy="leave the column out")


def _texts(name: str, values: np.ndarray) -> np.ndarray:
    try:
        return values.astype(np.str_ if values.dtype.kind == "S" else object).astype(object)
    except UnicodeDecodeError:
        raise InputError(
            f"column {shown(name)!r} holds bytes that are no ASCII text",
            remedy="decode them: numpy.char.decode(t, 'utf-8')",
        ) from None


def _stack(name: str, values: np.ndarray, gone: np.ndarray, found: Found) -> np.ndarray:
    whole: np.ndarray = np.zeros((len(values), *found.shape), dtype=np.int64 if found.whole else np.float64)
    for row in np.flatnonzero(~gone):
        part = _row(values[row])
        if part.shape != found.shape:
            raise uneven(name, found.shape)
        whole[row] = part
    return whole


def uneven(name: str, shape: tuple[int, ...]) -> InputError:
    """Make the error for a column whose rows are arrays of different shapes."""
    return InputError(
        f"column {shown(name)!r} does not have an array of one shape and type in each row",
        cause=f"the first has the shape {shape}",
        remedy="pad or cut the arrays to one shape",
    )


def _as_array(name: Any, values: Any) -> np.ndarray:
    if not isinstance(name, str):
        raise UsageError(f"columns are by name, and {type(name).__name__} is none", remedy="{'age': [40, 41]}")
    if isinstance(values, np.ma.MaskedArray):
        values = _objects(values.tolist()) if values.ndim == 1 else values.filled(np.nan)
    if isinstance(values, np.ndarray) and values.ndim:
        return values
    if isinstance(values, list | tuple):
        return _objects(list(values))
    found = np.asarray(values)  # a column of pandas, polars, torch
    if not found.ndim:
        raise InputError(f"column {shown(name)!r} is no list of values", remedy="{'age': [40, 41]}")
    return found


def _objects(values: list[Any]) -> np.ndarray:
    """Keep Python's objects as they are: numpy would turn None and texts into other things."""
    whole = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        whole[row] = value
    return whole
