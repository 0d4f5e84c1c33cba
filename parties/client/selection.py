"""Columns of a dataset, by name: what questions are about.  They have no values here and refuse to become numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from mpc.errors import UsageError
from mpc.text import shown
from parties.agreed.columns import Column
from parties.agreed.objects import Manifest
from parties.client.questions import expression, functions
from parties.client.questions.expression import REAL, TRUTH, WHOLE, Node
from parties.client.questions.pointer import Pointer

if TYPE_CHECKING:
    from parties.client.channels import Parties


class Selection(Pointer):
    """Some columns of a dataset.

    Args:
        manifest: the dataset's.
        names: of the columns.
        matrix: several columns side by side, even if it is one; else a single column.
        parties: where a question about them is asked.
        every: they are all columns of the dataset, since none was named.
    """

    def __init__(
        self,
        manifest: Manifest,
        names: tuple[str, ...],
        matrix: bool,
        parties: Parties | None = None,
        every: bool = False,
    ) -> None:
        self.names, self.matrix, self.every = names, matrix, every
        described = [manifest.column(name) for name in names]
        columns = [_node(each) for each in described]
        super().__init__(manifest, _side_by_side(columns) if matrix else columns[0], parties)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Descriptions of the columns."""
        return tuple(self.manifest.column(name) for name in self.names)

    @property
    def variables(self) -> list[Node]:
        """List the numbers of a row: the columns themselves, whose ranges are known."""
        if any(each.shape for each in self.columns):
            return super().variables
        return [_node(each) for each in self.columns]

    @property
    def bound_rows(self) -> range:
        """Numbers of the rows that a session reads."""
        return range(self.manifest.rows)

    def take(self, names: tuple[str, ...]) -> Selection:
        """Return other columns of the dataset, of these rows."""
        return Selection(self.manifest, names, True, self.parties)

    def __getitem__(self, key: object) -> Pointer:
        """Take places of a row, x[:, 0]; or neighbouring rows, x[5:9], for a session to read."""
        if isinstance(key, slice) and any(each is not None for each in (key.start, key.stop, key.step)):
            return self.neighbours(key)
        return super().__getitem__(key)

    def neighbours(self, key: slice) -> SomeRows:
        """Return neighbouring rows, for a session to read; `UsageError` if these are none."""
        return SomeRows(self, self._neighbours(key))

    def _neighbours(self, key: slice) -> range:
        chosen = range(self.manifest.rows)[key] if _is_public(key) else range(0)
        if not chosen or chosen.step != 1:
            raise UsageError(
                f"these are no neighbouring rows of the {self.manifest.rows:,} of {self.manifest.name}",
                remedy="x[5:9] takes four of them",
            )
        return chosen

    def __repr__(self) -> str:
        names = ", ".join(map(shown, self.names))
        return f"<{names} of {self.manifest.name}: {len(self.bound_rows):,} rows, private>"


class SomeRows(Selection):
    """Neighbouring rows of some columns, for a model to read: `data={"x": ds[["age"]][5:9]}`.

    Questions go through all rows, so these take part in none.
    """

    def __init__(self, whole: Selection, rows: range) -> None:
        self.names, self.matrix, self.every = whole.names, whole.matrix, whole.every
        self.manifest, self.parties, self._whole, self._rows = whole.manifest, whole.parties, whole, rows

    @property
    def bound_rows(self) -> range:
        """Numbers of the rows that a session reads."""
        return self._rows

    def take(self, names: tuple[str, ...]) -> Selection:
        """Return other columns of the dataset, of these rows."""
        return SomeRows(self._whole.take(names), self._rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, and sizes of one row."""
        return (len(self._rows), *self._whole.shape[1:])

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def node(self) -> NoReturn:  # type: ignore[override]  # what questions are made of, and these are in none
        """Refuse to be part of a question."""
        raise UsageError(
            f"a question about some rows of {self.manifest.name}",
            cause="questions go through all rows, and which rows a session reads is for models",
            remedy="np.where(condition, x, 0) counts those that fulfil a condition",
        )

    def _neighbours(self, key: slice) -> range:
        raise UsageError("rows of rows", remedy="choose them at once: x[5:9]")


def _is_public(key: slice) -> bool:
    return all(each is None or isinstance(each, int) for each in (key.start, key.stop, key.step))


def _node(column: Column) -> Node:
    ends = float(column.low), float(column.high)
    return expression.column(column.name, _dtype(column), column.shape, ends)


def _dtype(column: Column) -> np.dtype[Any]:
    if column.type == "boolean":
        return TRUTH
    return WHOLE if column.scale == 1 and column.type != "number" else REAL


def _side_by_side(columns: list[Node]) -> Node:
    """Return columns as a matrix of reals, as samples have them."""
    if len({each.shape for each in columns}) > 1:
        raise UsageError("these columns have rows of different shapes", remedy="select them one by one")
    return functions.stack([expression.cast(each, REAL) for each in columns], 1)
