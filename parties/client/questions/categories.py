"""Labels of categories in the place of their numbers, where a column is compared with one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpc.errors import InputError, UsageError
from mpc.text import shown
from parties.client.questions.values import Values


def coded(ufunc: np.ufunc, inputs: Sequence[Any]) -> list[Any]:
    """Put a category's number in the place of its label, where a column is compared with one.

    Raises:
        InputError: the column has no such category.
        UsageError: it has none at all, or this is no comparison.
    """
    found = list(inputs)
    for place, each in enumerate(inputs):
        if isinstance(each, str):
            other = inputs[1 - place] if len(inputs) == 2 else None
            if ufunc not in (np.equal, np.not_equal) or not isinstance(other, Values):
                raise UsageError("a text among numbers", remedy="categories compare with their labels by == and !=")
            found[place] = code(other, each)
    return found


def code(pointer: Values, label: str) -> int:
    """Give the number of a label of a column of categories."""
    categories = categories_of(pointer)
    if label not in categories:
        raise InputError(
            f"column {shown(pointer.read[0])!r} has no category {shown(label[:80])!r}",
            remedy=f"it has {', '.join(map(shown, categories))[:400]}",
        )
    return categories.index(label)


def categories_of(pointer: Values) -> tuple[str, ...]:
    """Give the categories of a column as it is.

    Raises:
        UsageError: this is no such column.
    """
    name = pointer.node.column
    found = () if name is None else pointer.manifest.column(name).categories
    if not found:
        raise UsageError("this is no column of categories", remedy="ds.describe() shows which columns have them")
    return found
