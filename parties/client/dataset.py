"""A dataset as its analyst sees it: what its owner says of it, and columns that stand for values nobody may see."""

from __future__ import annotations

from typing import Any, NoReturn, overload

import numpy as np

from mpc.errors import UsageError
from mpc.text import shown
from parties.agreed.objects import Manifest
from parties.client.at_rest.listing import Description
from parties.client.channels import Parties
from parties.client.consent import remaining
from parties.client.questions.reasons import no_attribute
from parties.client.selection import Selection
from parties.client.tables.samples import MOCK_ROWS, Sample, code_of, labels_of, mock_rows, no_column


class Dataset:
    """A table at the parties, by what its owner says of it.

    `ds["age"]` and `ds[["age", "bmi"]]` stand for columns, to compute with; `ds.sample()` has rows that one may see.
    """

    def __init__(self, manifest: Manifest, parties: Parties | None = None) -> None:
        self.manifest, self._parties = manifest, parties

    @property
    def name(self) -> str:
        """OWNER/NAME."""
        return self.manifest.name

    @property
    def owner(self) -> str:
        """Name of the client that put the dataset."""
        return self.manifest.owner

    @property
    def rows(self) -> int:
        """Number of rows, which is public."""
        return self.manifest.rows

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its columns."""
        return tuple(column.name for column in self.manifest.columns)

    def describe(self) -> Description:
        """Return all that its owner says of it: columns, units, ranges, rows, terms; and what is left of its budget."""
        left = None if self._parties is None else remaining.told(self._parties, self.manifest)
        return Description(self.manifest, *(left or ()))

    def sample(self, rows: int = MOCK_ROWS) -> Sample:
        """Return rows that its owner published, or mock rows from the schema alone, to develop on."""
        given: object = rows
        if isinstance(given, bool) or not isinstance(given, int | np.integer) or not 1 <= given <= 1 << 20:
            raise UsageError("a sample has 1 to 2^20 rows", remedy="ds.sample(100)")
        whole = self.manifest
        if not whole.sample:
            return mock_rows(whole.name, whole.id, whole.columns, int(rows))
        return Sample(
            whole.name,
            whole.columns,
            {
                column.name: np.array(whole.sample[column.name], np.int64).reshape(-1, *column.shape)[:rows]
                for column in whole.columns
            },
            mock=False,
        )

    def labels(self, column: str) -> tuple[str, ...]:
        """Give a column's categories, in the order of their codes."""
        return labels_of(self.name, self.manifest.columns, column)

    def code(self, column: str, label: str) -> int:
        """Give the number that stands for a category: `ds["sex"] == ds.code("sex", "f")`."""
        return code_of(self.name, self.manifest.columns, column, label)

    @overload
    def __getitem__(self, name: str) -> Selection: ...

    @overload
    def __getitem__(self, name: list[str]) -> Selection: ...

    def __getitem__(self, name: str | list[str]) -> Selection:
        """Select a column, or several as a matrix; `InputError` if there is none of that name."""
        given: list[Any] = [*name] if isinstance(name, list) else [name]
        if not given:
            raise UsageError("no columns are named", remedy=f"dataset[[{self.columns[0]!r}]]")
        if not all(isinstance(each, str) for each in given):
            raise UsageError(
                "a dataset's columns are chosen, by name, and not its rows",
                remedy="ds['age'], a list ds[['age', 'bmi']]; np.where(ds['age'] > 60, ds['bmi'], 0) leaves rows out",
            )
        names: list[str] = given
        for each in names:
            if each not in self.columns:
                raise no_column(self.name, each, self.manifest.columns)
        return Selection(self.manifest, tuple(names), isinstance(name, list), self._parties)

    def __getattr__(self, name: str) -> NoReturn:
        raise no_attribute("a dataset", name, self.columns if "manifest" in vars(self) else ())

    def __array__(self, *arguments: Any, **options: Any) -> NoReturn:
        self[self.columns[0]].refuse("a numpy array")  # columns of different shapes have no matrix

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Any:
        return iter(self.columns)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}: {self.rows:,} rows; {', '.join(map(shown, self.columns[:20]))})"

    def _repr_html_(self) -> str:
        return self.describe()._repr_html_()
