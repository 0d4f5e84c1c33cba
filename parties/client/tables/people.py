"""Check how many rows are one person's, from the column that names the person, which need not be put."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from mpc.errors import InputError
from mpc.text import shown
from parties.client.tables.integers import texts_of
from parties.client.tables.sources import Cells


class People:
    """Counts rows by person.

    It keeps 8 bytes a row, a digest of what names the person: of a million people two have equal digests with a chance
    of 2^-25, and then a table is refused that need not be.
    """

    def __init__(self, column: str, most: int) -> None:
        self._column, self._most = column, most
        self._keys: list[np.ndarray] = []
        self._unnamed = 0

    def add(self, cells: Cells) -> None:
        """Count some rows."""
        named = [each for each in texts_of(cells, {}) if each is not None]
        self._unnamed += len(cells.values) - len(named)
        self._keys.append(np.fromiter(map(_key, named), dtype=np.uint64, count=len(named)))

    def check(self) -> None:
        """Refuse a table in which a person has more rows than its owner said.

        Raises:
            InputError: saying how many people have, and not who.
        """
        name = shown(self._column)
        if self._unnamed:
            raise InputError(
                f"{self._unnamed:,} rows do not say whose they are: column {name!r} is empty there",
                remedy="leave these rows out, or give each a person",
            )
        _, counts = np.unique(np.concatenate([*self._keys, np.empty(0, np.uint64)]), return_counts=True)
        over = int(np.count_nonzero(counts > self._most))
        if over:
            raise InputError(
                f"{over:,} {'people have' if over > 1 else 'person has'} more than rows_per_person={self._most} rows",
                cause=f"counted by column {name!r}; the noise of answers would not cover them",
                remedy="say how many rows one person may have at most (rows_per_person=, --rows-per-person), or leave "
                "rows out",
            )


def _key(person: Any) -> int:
    if isinstance(person, float) and person.is_integer():
        person = int(person)
    return int.from_bytes(hashlib.blake2b(str(person).encode(), digest_size=8).digest(), "big")
