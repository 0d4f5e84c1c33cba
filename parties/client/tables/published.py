"""Rows that an owner publishes, as a dataset's sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpc.errors import InputError, UsageError
from parties.agreed.columns import Column
from parties.agreed.objects import MOST_SAMPLED
from parties.client.tables.stated import Stated
from parties.client.tables.table import read_more

MOCK = "mock"
"""In place of rows: nothing is published, and samples are made from the schema."""


def published_rows(given: Any, columns: Sequence[Column]) -> Mapping[str, tuple[int, ...]]:
    """Return the integers of the rows that are published, by column; none if that is what is said.

    Args:
        given: a table that has the dataset's columns; None or "mock" for none.

    Raises:
        UsageError, InputError: they are no such table.
    """
    if given is None or (isinstance(given, str) and given == MOCK):
        return {}
    if isinstance(given, int | np.integer):
        raise UsageError(
            "a sample is a table of rows that you publish",
            cause="a number would publish rows that you have not looked at",
            remedy="sample=table.head(5) if anybody may see these rows; None for mock rows",
        )
    try:
        rows = read_more(given, columns, Stated())
    except InputError as error:
        raise InputError(f"the sample: {error.what}", cause=error.cause, remedy=error.remedy) from None
    if rows.rows > MOST_SAMPLED:
        raise InputError(f"the sample has {rows.rows:,} rows", remedy=f"publish at most {MOST_SAMPLED:,} numbers")
    [block] = rows.blocks()
    return {name: tuple(values.reshape(-1).tolist()) for name, values in block.items()}
