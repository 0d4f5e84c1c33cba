"""Sums over rows by groups: categories, a condition, whole numbers of a small range, or several of these together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from mpc.errors import UsageError
from parties.client.questions.aggregates import (
    Deviations,
    Finish,
    Question,
    Sums,
    between,
    named,
    ratio,
    rooted,
    scaled,
)
from parties.client.questions.categories import categories_of
from parties.client.questions.expression import REAL, ROWS, TRUTH, WHOLE, Node, cast, elementwise, public, sized
from parties.client.questions.functions import stack
from parties.client.questions.levels import MOST_LEVELS, ends_of
from parties.client.questions.reasons import no_attribute
from parties.client.questions.values import Values

_GROUPS = "x.group_by(ds['sex']), x.group_by(age > 60), x.group_by(age // 10), x.group_by([ds['sex'], age > 60])"


@dataclass(frozen=True)
class Groups:
    """Groups of rows, which are public by name.

    Args:
        places: 1 where a row is of a group, else 0; a number for each.
        labels: of the groups.
        text: what they are groups of.
    """

    places: Node
    labels: tuple[str, ...]
    text: str


def groups_of(given: Any) -> Groups:
    """Return the groups that a column, a condition, or several of them make of the rows.

    Raises:
        UsageError: they are not few and public.
    """
    several = list(given) if isinstance(given, list | tuple) else [given]
    if not several or not all(isinstance(each, Values) for each in several):
        raise UsageError("groups are by a column of categories, or by a condition", remedy=_GROUPS)
    found = [_numbered(each) for each in several]
    text = " and ".join(text for _, _, text in found)
    if len(found) == 1 and several[0].node.dtype == TRUTH:
        [(codes, labels, _)] = found
        return Groups(stack([elementwise("Sub", WHOLE, public(1), codes), codes], 1), labels, text)
    codes, labels, _ = found[0]
    for other, more, _ in found[1:]:
        codes = elementwise("Add", WHOLE, elementwise("Mul", WHOLE, codes, public(len(more))), other)
        labels = tuple(f"{one}, {two}" for one in labels for two in more)
    if len(labels) > MOST_LEVELS:
        raise UsageError(f"{len(labels)} groups", remedy=f"{MOST_LEVELS} at most: larger steps, age // 20")
    return Groups(between(codes, np.arange(len(labels) + 1) - 0.5), labels, text)


def _numbered(values: Values) -> tuple[Node, tuple[str, ...], str]:
    """Return (whole numbers from 0 on, what each of them is, what they are of)."""
    node = values.node
    if node.shape != (ROWS,):
        raise UsageError("groups are by one value a row", remedy="x.group_by(y[:, 0] > 3)")
    text = node.column or named(values)
    if node.dtype == TRUTH:
        return cast(node, WHOLE), ("False", "True"), text
    ends = ends_of(node) if node.dtype == WHOLE else None
    if node.column is not None and values.manifest.column(node.column).categories:
        return node, categories_of(values), text
    if ends is None:
        raise UsageError(f"groups by {text}, which are no categories and no few whole numbers", remedy=_GROUPS)
    low, high = (int(end) for end in ends)
    if high - low >= MOST_LEVELS:
        raise UsageError(
            f"groups by {high - low + 1:,} whole numbers",
            remedy=f"{MOST_LEVELS} at most: x.group_by(age // 10), or np.clip before it",
        )
    shifted = elementwise("Sub", WHOLE, node, public(low)) if low else node
    return shifted, tuple(str(each) for each in range(low, high + 1)), text


@dataclass(frozen=True)
class Grouped:
    """Values by groups: `.sum()`, `.mean()`, `.count()`, `.var()` and `.std()` are questions, an element a group."""

    pointer: Values
    groups: Groups

    def sum(self) -> Question:
        """Return the question for the sum in each group."""
        return self._question("sum", {"sum": self._parts(self._numbers)}, scaled(1.0))

    def count(self) -> Question:
        """Return the question for the rows of each group."""
        return self._question("count", {"count": self.groups.places}, scaled(1.0))

    def size(self) -> Question:
        """Return the question for the rows of each group."""
        return self.count()

    def mean(self) -> Question:
        """Return the question for the mean in each group; NaN where the noised count is below one."""
        sums = {"sum": self._parts(self._numbers), "count": self.groups.places}
        return self._question("mean", sums, ratio(1.0))

    def var(self, ddof: int = 0) -> Question:
        """Return the question for the variance in each group; NaN where the noised count is not above `ddof`."""
        return self._spread("var", ddof, root=False)

    def std(self, ddof: int = 0) -> Question:
        """Return the question for the standard deviation in each group."""
        return self._spread("std", ddof, root=True)

    def __getattr__(self, name: str) -> NoReturn:
        raise no_attribute(
            "a grouping", name, remedy="sum(), mean(), count(), var() and std() are: (x * x).group_by(c).mean() too"
        )

    @property
    def _numbers(self) -> Node:
        x = self.pointer.node
        if x.shape != (ROWS,):
            raise UsageError("groups are of one number a row", remedy="x[:, 0].group_by(category)")
        return cast(x, WHOLE) if x.dtype == TRUTH else x

    def _parts(self, x: Node) -> Node:
        """Return each value in the place of its group, and 0 in the others."""
        return elementwise("Mul", x.dtype, cast(self.groups.places, x.dtype), sized(x, (ROWS, 1)))

    def _spread(self, kind: str, ddof: int, root: bool) -> Question:
        if ddof not in (0, 1):
            raise UsageError(f"ddof={ddof}", remedy="ddof=0, or ddof=1")
        x, ends = cast(self._numbers, REAL), ends_of(self._numbers)
        middle = 0.0 if ends is None else (ends[0] + ends[1]) / 2
        apart = elementwise("Sub", REAL, x, public(middle)) if middle else x
        sums = {
            "sum": self._parts(apart),
            "squares": self._parts(elementwise("Mul", REAL, apart, apart)),
            "count": self.groups.places,
        }
        return self._question(kind, sums, _spread(ddof, root))

    def _question(self, kind: str, sums: Mapping[str, Node], finish: Finish) -> Question:
        text = f"{kind} of {named(self.pointer)} by {self.groups.text}"
        return Question(self.pointer, text, sums, finish, self.groups.labels)


def _spread(ddof: int, root: bool) -> Finish:
    def finish(values: Sums, deviations: Deviations, rows: int) -> tuple[Any, Any]:
        count = np.where(values["count"] >= 1 + ddof, values["count"], np.nan)
        mean, second = values["sum"] / count, values["squares"] / count
        factor = count / (count - ddof)
        found = np.maximum(second - mean**2, 0.0) * factor
        moved = deviations["squares"] ** 2 + (2 * mean * deviations["sum"]) ** 2
        moved = moved + ((2 * mean**2 - second) * deviations["count"]) ** 2
        spread = np.sqrt(moved) / count * factor
        return rooted(found, spread) if root else (found, spread)

    return finish


def counted(values: Values, normalize: bool = False) -> Question:
    """Return the question for how many rows have each value, or which share of them has."""
    question = Grouped(values, groups_of(values)).count()
    if not normalize:
        return question
    finish = scaled(1 / values.manifest.rows)
    return Question(values, f"shares of {named(values)}", question.sums, finish, question.labels)
