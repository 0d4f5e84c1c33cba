"""Values that nobody may see refuse to become numbers, and say whose they are and what is asked instead."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NoReturn, Self

import numpy as np

from mpc.errors import PrivateDataError, UsageError
from mpc.text import shown
from parties.agreed.objects import Manifest
from parties.client.questions.reasons import REASONS, no_attribute, refusal

_BOTH = "& | ~ stand for and, or, not: (x > 3) & (x < 9); np.where(condition, x, 0) for if"
_SUMS = "sums over rows are questions: x.sum(), x.mean(), (x > 3).count(), x.quantile(0.9)"


class Private(np.lib.mixins.NDArrayOperatorsMixin, ABC):
    """Base of what stands for values of a dataset's rows."""

    manifest: Manifest

    @property
    @abstractmethod
    def read(self) -> tuple[str, ...]:
        """Names of the columns that the values are made of."""

    def refuse(self, what: str, instead: str = "") -> NoReturn:
        """Refuse to give values.

        Args:
            instead: what may be written in its place.

        Raises:
            PrivateDataError: saying whose they are and what one may do.
        """
        name, owner = self.manifest.name, self.manifest.owner
        asked = f"ask {owner} which questions it answers; cluster.dataset({name!r}).sample() has rows to develop on"
        raise PrivateDataError(
            f"{what} would need the values of {', '.join(map(shown, self.read))} in {name}, which nobody may see",
            cause=f"they are {owner}'s, and only what {owner} has granted is computed from them",
            remedy=f"{instead}; {asked}" if instead else asked,
        )

    def require_complete(self, what: str) -> None:
        """Refuse what depends on where values are missing, of columns in which some may be.

        Raises:
            UsageError: names the columns that mark them.
        """
        marks = [each.name for each in self.manifest.columns if each.missing_of and each.missing_of in self.read]
        if marks:
            name = shown(marks[0])
            raise UsageError(
                f"{what} of {', '.join(map(shown, self.read))}, of which values may be missing",
                cause=f"a missing value is marked in the column {name}, and a number of the range stands for it",
                remedy=f"ds[{name!r}] == 1 says where; np.where(ds[{name!r}] == 1, 0, x).sum() leaves them out",
            )

    def round(self, decimals: int = 0) -> NoReturn:
        """Refuse: rounding to the nearest is not computed."""
        raise refusal("rounding", REASONS["round"])

    def __round__(self, digits: int | None = None) -> NoReturn:
        self.round()

    def __getattr__(self, name: str) -> NoReturn:
        raise no_attribute("a column", name)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self  # nothing of it ever changes

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise UsageError(
            "columns of a dataset cannot be pickled, or sent to another process",
            cause="they stand for values at the parties, and belong to a connection to these",
            remedy="connect there, Cluster.connect(path).dataset(name), or send the answer: .get(epsilon=0.5).value",
        )

    def __len__(self) -> int:
        return self.manifest.rows

    def __float__(self) -> float:
        self.refuse("float()", _SUMS)

    def __int__(self) -> int:
        self.refuse("int()")

    def __index__(self) -> int:
        self.refuse("an index")

    def __complex__(self) -> complex:
        self.refuse("complex()")

    def __bool__(self) -> bool:
        self.refuse("a condition", _BOTH)

    def __iter__(self) -> Iterator[Any]:
        self.refuse("going through rows", _SUMS)

    def __contains__(self, value: object) -> bool:
        self.refuse("'in'", "np.isin(x, values) tells of each row, and (x == value).count() asks how many")

    def __array__(self, *arguments: Any, **options: Any) -> NoReturn:
        self.refuse("a numpy array", "np.stack([a, b], axis=1) lays columns side by side")

    def __format__(self, form: str) -> str:
        return repr(self) if not form else self.refuse("printing numbers")

    def __repr__(self) -> str:
        names = ", ".join(map(shown, self.read))
        return f"<values of {names} of {self.manifest.name}: {self.manifest.rows:,} rows, private>"
