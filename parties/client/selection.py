"""Columns of a dataset, by name: what questions are about.  They have no values here and refuse to become numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpc.errors import UsageError
from mpc.text import shown
from parties.agreed.objects import Column, Manifest
from parties.client.questions import expression, functions
from parties.client.questions.expression import REAL, Node
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
    """

    def __init__(
        self, manifest: Manifest, names: tuple[str, ...], matrix: bool, parties: Parties | None = None
    ) -> None:
        self.names, self.matrix = names, matrix
        described = [manifest.column(name) for name in names]
        columns = [expression.column(each.name, _is_whole(each), each.shape) for each in described]
        super().__init__(manifest, _side_by_side(columns) if matrix else columns[0], parties)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Descriptions of the columns."""
        return tuple(self.manifest.column(name) for name in self.names)

    def __repr__(self) -> str:
        names = ", ".join(map(shown, self.names))
        return f"<{names} of {self.manifest.name}: {self.manifest.rows:,} rows, private>"


def _is_whole(column: Column) -> bool:
    return column.scale == 1 and column.type != "number"


def _side_by_side(columns: list[Node]) -> Node:
    """Return columns as a matrix of reals, as samples have them."""
    if len({each.shape for each in columns}) > 1:
        raise UsageError("these columns have rows of different shapes", remedy="select them one by one")
    return functions.stack([expression.cast(each, REAL) for each in columns], 1)
