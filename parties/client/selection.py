"""Columns of a dataset, by name: what questions are about.  They have no values here and refuse to become numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

from mpc.errors import PrivateDataError
from mpc.text import shown
from parties.agreed.objects import Column, Manifest


class Selection:
    """Some columns of a dataset.

    Args:
        manifest: the dataset's.
        names: of the columns.
        matrix: several columns side by side, even if it is one; else a single column.
    """

    def __init__(self, manifest: Manifest, names: tuple[str, ...], matrix: bool) -> None:
        self.manifest, self.names, self.matrix = manifest, names, matrix

    @property
    def columns(self) -> tuple[Column, ...]:
        """Descriptions of the columns."""
        return tuple(self.manifest.column(name) for name in self.names)

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, and sizes of one row; both are public."""
        inner = self.columns[0].shape
        return (self.manifest.rows, len(self.names), *inner) if self.matrix else (self.manifest.rows, *inner)

    def refuse(self, what: str) -> NoReturn:
        """Refuse to give values.

        Raises:
            PrivateDataError: saying whose they are and what one may do.
        """
        name, owner = self.manifest.name, self.manifest.owner
        raise PrivateDataError(
            f"{what} would need the values of {', '.join(map(shown, self.names))} in {name}, which nobody may see",
            cause=f"they are {owner}'s, and only what {owner} has granted is computed from them",
            remedy=f"ask {owner} which questions it answers; cluster.dataset({name!r}).sample() has rows to develop on",
        )

    def __len__(self) -> int:
        return self.manifest.rows

    def __float__(self) -> float:
        self.refuse("float()")

    def __int__(self) -> int:
        self.refuse("int()")

    def __index__(self) -> int:
        self.refuse("an index")

    def __complex__(self) -> complex:
        self.refuse("complex()")

    def __bool__(self) -> bool:
        self.refuse("a condition")

    def __iter__(self) -> Iterator[Any]:
        self.refuse("going through rows")

    def __contains__(self, value: object) -> bool:
        self.refuse("'in'")

    def __getitem__(self, key: object) -> NoReturn:
        self.refuse("choosing rows")

    def __array__(self, *arguments: Any, **options: Any) -> NoReturn:
        self.refuse("a numpy array")

    def __format__(self, form: str) -> str:
        return repr(self) if not form else self.refuse("printing numbers")

    def __repr__(self) -> str:
        names = ", ".join(map(shown, self.names))
        return f"<{names} of {self.manifest.name}: {self.manifest.rows:,} rows, private>"
