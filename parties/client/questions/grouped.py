"""Sums over rows by categories of a column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from mpc.errors import UsageError
from parties.client.questions.aggregates import Finish, Question, between, named, ratio, scaled
from parties.client.questions.categories import categories_of
from parties.client.questions.expression import ROWS, TRUTH, WHOLE, Node, cast, elementwise, sized
from parties.client.questions.reasons import no_attribute
from parties.client.questions.values import Values


@dataclass(frozen=True)
class Grouped:
    """Values by categories of a column: `.sum()`, `.mean()` and `.count()` are questions, an element a category."""

    pointer: Values
    category: Values

    def sum(self) -> Question:
        """Return the question for the sum in each category."""
        return self._question("sum", {"sum": self._parts()}, scaled(1.0))

    def count(self) -> Question:
        """Return the question for the rows of each category."""
        return self._question("count", {"count": self._places()}, scaled(1.0))

    def mean(self) -> Question:
        """Return the question for the mean in each category; NaN where the noised count is below one."""
        sums = {"sum": self._parts(), "count": self._places()}
        return self._question("mean", sums, ratio)

    def __getattr__(self, name: str) -> NoReturn:
        raise no_attribute("a grouping", name, remedy="sum(), mean() and count() are: (x * x).group_by(c).mean() too")

    def _places(self) -> Node:
        """Which category a row is of: 1 or 0 for each."""
        [codes] = self.pointer.operands((self.category,))
        return between(codes, np.arange(len(categories_of(self.category)) + 1) - 0.5)

    def _parts(self) -> Node:
        x = self.pointer.node
        if x.shape != (ROWS,):
            raise UsageError("groups are of one number a row", remedy="x[:, 0].group_by(category)")
        numbers = cast(x, WHOLE) if x.dtype == TRUTH else x
        return elementwise("Mul", numbers.dtype, cast(self._places(), numbers.dtype), sized(numbers, (ROWS, 1)))

    def _question(self, kind: str, sums: Mapping[str, Node], finish: Finish) -> Question:
        labels = categories_of(self.category)
        text = f"{kind} of {named(self.pointer)} by {self.category.node.column}"
        return Question(self.pointer, text, sums, finish, labels)
