"""Rows to develop with: those that an owner publishes, or mock rows that are made from a schema alone.

They have the columns of a dataset as numpy arrays, so that code which is written for them runs on the dataset.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from math import prod
from typing import Any, NoReturn, overload

import numpy as np

from mpc.errors import InputError, UsageError
from mpc.fixedpoint import decode as decoded
from mpc.prg import Seed, expand_words
from mpc.text import shown
from parties.agreed.columns import Column
from parties.client.tables.integers import stand_in

MOCK_ROWS = 100
_SHOWN = 10
_RARELY = 8
"""A mock row in so many misses a value, where values may be missing."""


class Sample(Mapping[str, np.ndarray]):
    """Rows of a dataset that anybody may see; columns by name, several names give a matrix.

    Numbers are float64, whole numbers and categories int64, truths bool: a category is its place among `labels`.

    Args:
        name: the dataset's.
        columns: their descriptions.
        integers: what the object would hold, by column.
        mock: they are made from the schema, and nothing of the data is in them.
    """

    def __init__(self, name: str, columns: Sequence[Column], integers: Mapping[str, np.ndarray], mock: bool) -> None:
        self.name, self.columns, self.mock = name, tuple(columns), mock
        self._values = {column.name: decode(column, integers[column.name]) for column in columns}

    @overload
    def __getitem__(self, name: str) -> np.ndarray: ...

    @overload
    def __getitem__(self, name: list[str]) -> np.ndarray: ...

    def __getitem__(self, name: str | list[str]) -> np.ndarray:
        if isinstance(name, list):
            return np.stack([np.asarray(self[each], dtype=np.float64) for each in name], axis=-1)
        if name not in self._values:
            raise no_column(self.name, name, self.columns)
        return self._values[name]

    def __array__(self, *arguments: Any, **options: Any) -> NoReturn:
        """Refuse to be one array: pandas would take the names of columns for rows.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "a sample is no single array",
            remedy="pandas.DataFrame(dict(sample)) has its columns; sample[['age', 'bmi']] is a matrix",
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self._values.values())))

    def labels(self, column: str) -> tuple[str, ...]:
        """Give a column's categories, in the order of their numbers."""
        return labels_of(self.name, self.columns, column)

    def code(self, column: str, label: str) -> int:
        """Give the number that stands for a category."""
        return code_of(self.name, self.columns, column, label)

    def records(self) -> list[dict[str, Any]]:
        """List the rows as people read them: labels for categories, None where a value is missing."""
        listed = {column.name: self._told(column) for column in self.columns if column.type != "missing"}
        return [dict(zip(listed, row, strict=True)) for row in zip(*listed.values(), strict=True)]

    def _told(self, column: Column) -> list[Any]:
        values: list[Any] = self[column.name].tolist()
        if column.type == "category":
            values = [column.categories[value] for value in values]
        mark = next((each.name for each in self.columns if each.missing_of == column.name), None)
        gone = self[mark].tolist() if mark else [0] * len(values)
        return [None if missing else value for value, missing in zip(values, gone, strict=True)]

    def __repr__(self) -> str:
        kind = "mock rows, made from the schema alone" if self.mock else "rows that the owner published"
        lines = [f"{shown(self.name)}: {self.rows} {kind}"]
        for row in self.records()[:_SHOWN]:
            lines.append(", ".join(f"{shown(key)}={_short(value)}" for key, value in row.items()))
        return "\n".join(lines + (["..."] if self.rows > _SHOWN else []))

    def _repr_html_(self) -> str:
        rows = self.records()[:_SHOWN]
        head = "".join(f"<th>{html.escape(shown(key))}</th>" for key in rows[0])
        cells = ("".join(f"<td>{html.escape(_short(value))}</td>" for value in row.values()) for row in rows)
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        title = html.escape(repr(self).split("\n")[0])
        return f"<table><caption>{title}</caption><tr>{head}</tr>{body}</table>"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = "missing" if value is None else shown(str(value))
    return text if len(text) <= 40 else f"{text[:37]}..."


def decode(column: Column, integers: np.ndarray) -> np.ndarray:
    """Turn what an object holds into numbers: float64, int64 where the scale is 1, bool for truths."""
    if column.type == "boolean":
        return integers.astype(np.bool_)
    if column.scale == 1 and column.type != "number":
        return integers
    return np.asarray(decoded(integers, column.scale))


def mock_rows(name: str, object_id: bytes, columns: Sequence[Column], rows: int = MOCK_ROWS) -> Sample:
    """Make rows from a schema: uniform in each column's range, the same ones for the same object.

    Args:
        object_id: seeds them, by the project's own generator; nobody else's randomness is in them.
    """
    seed = Seed(object_id).derive("mock-rows")
    drawn = {column.name: _draw(seed.derive(column.name), column, rows) for column in columns}
    for column in columns:
        if column.missing_of is not None:
            whose = next(each for each in columns if each.name == column.missing_of)
            drawn[whose.name][drawn[column.name] == 1] = stand_in(whose)
    return Sample(name, columns, drawn, mock=True)


def _draw(seed: Seed, column: Column, rows: int) -> np.ndarray:
    words = expand_words(seed, (rows, *column.shape), 64)
    if column.type == "missing":
        return np.asarray(words % np.uint64(_RARELY) == 0, dtype=np.int64)
    least, most = column.ends
    return (words % np.uint64(most - least + 1)).astype(np.int64) + least


def sample_size(columns: Sequence[Column], rows: int) -> int:
    """Count the numbers of so many rows."""
    return rows * sum(prod(column.shape) for column in columns)


def labels_of(name: str, columns: Sequence[Column], column: str) -> tuple[str, ...]:
    """Give a column's categories.

    Raises:
        InputError: there is no such column, or it has none.
    """
    found = next((each for each in columns if each.name == column), None)
    if found is None:
        raise no_column(name, column, columns)
    if found.type != "category":
        raise InputError(f"column {shown(column)!r} of {shown(name)} has no categories")
    return found.categories


def code_of(name: str, columns: Sequence[Column], column: str, label: str) -> int:
    """Give the number of a category; `InputError` if the column has none of that name."""
    labels = labels_of(name, columns, column)
    if str(label) not in labels:
        raise InputError(
            f"column {shown(column)!r} of {shown(name)} has no category {shown(str(label)[:80])!r}",
            remedy=f"it has {', '.join(map(shown, labels))[:400]}",
        )
    return labels.index(str(label))


def no_column(name: str, column: object, columns: Sequence[Column]) -> InputError:
    """Make the error for a column that a dataset does not have."""
    return InputError(
        f"{shown(name)} has no column {shown(str(column)[:80])!r}",
        remedy=f"it has {', '.join(shown(each.name) for each in columns)[:400]}",
    )


def unit_of(column: Column) -> str:
    """Describe a column's range and unit for people."""
    if column.type == "category":
        return ", ".join(map(shown, column.categories))[:120]
    return f"{_end(column.low)} to {_end(column.high)} {shown(column.unit)}".rstrip()


def _end(value: Fraction) -> str:
    return f"{float(value):g}"
