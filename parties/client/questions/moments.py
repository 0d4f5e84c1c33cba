"""Covariances and correlations: one vector of sums over rows, of the values and of their products two by two.

Each value is brought to [-1, 1] by its column's range, which is public, so that all k (k + 3) / 2 elements are about as
large and one noise fits them.  The vector has one epsilon; what follows is computed in public.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpc.errors import UsageError
from parties.client.questions import functions
from parties.client.questions.aggregates import Deviations, Question, Sums
from parties.client.questions.expression import REAL, ROWS, Node, cast, elementwise, public
from parties.client.questions.levels import ends_of
from parties.client.questions.values import Values

MOST_VARIABLES = 64


@dataclass(frozen=True, eq=False)
class _Moments:
    """Values, and what their covariances follow from.

    Args:
        variables: one number a row each.
        ends: where each of them lies.
        pairs: places of two values whose product is summed, in order.
    """

    first: Values
    variables: list[Node]
    ends: list[tuple[float, float]]
    pairs: list[tuple[int, int]]

    @property
    def names(self) -> str:
        """Names of the values, for people."""
        return ", ".join(node.column or "a value" for node in self.variables)

    @property
    def sums(self) -> Mapping[str, Node]:
        """The vector of sums."""
        units = [_to_unit(node, *each) for node, each in zip(self.variables, self.ends, strict=True)]
        products = [elementwise("Mul", REAL, units[i], units[j]) for i, j in self.pairs]
        return {"moments": functions.stack([*units, *products], 1)}

    def covariances(self, values: Sums, deviations: Deviations, rows: int, ddof: int) -> tuple[Any, Any]:
        """Return (the covariances, standard deviations of their noise), (k, k) each."""
        count = len(self.variables)
        means = values["moments"][:count] / rows
        seconds, squares = np.zeros((2, count, count))
        for (i, j), value in zip(self.pairs, values["moments"][count:], strict=True):
            seconds[i, j] = seconds[j, i] = value / rows
            both = 4 * means[i] ** 2 if i == j else means[i] ** 2 + means[j] ** 2
            squares[i, j] = squares[j, i] = 1 + both
        halves = np.array([(high - low) / 2 for low, high in self.ends])
        scale = np.outer(halves, halves) * rows / (rows - ddof)
        found = (seconds - np.outer(means, means)) * scale
        return found, deviations["moments"] * np.sqrt(squares) / rows * scale

    def question(self, text: str, finish: Any, exact: Callable[[np.ndarray], Any]) -> Question:
        """Return the question whose answer `finish` reads off the sums, and `exact` off rows of values."""
        rows = functions.stack([cast(node, REAL) for node in self.variables], 1)
        return Question(self.first, text, self.sums, finish, exact=(rows, exact))


def covariance(pointers: Sequence[Values], ddof: int) -> Question:
    """Return the question for the covariances of all these values with each other, as `numpy.cov` has them.

    Raises:
        UsageError: these are not one number a row each, too many, or not rows enough.
    """
    moments = _moments(pointers, ddof)

    def finish(values: Sums, deviations: Deviations, rows: int) -> tuple[Any, Any]:
        found, spread = moments.covariances(values, deviations, rows, ddof)
        return (found, spread) if len(found) > 1 else (found[0, 0], spread[0, 0])

    text = f"covariances of {moments.names} of {moments.first.manifest.name}"
    return moments.question(text, finish, lambda rows: np.cov(rows.T, ddof=ddof))


def correlation(pointers: Sequence[Values], one: bool = False) -> Question:
    """Return the question for the correlations of these values, as `numpy.corrcoef` has them.

    Each is NaN where noise leaves a variance that is not above zero.

    Args:
        one: two values have one number, as pandas has it.

    Raises:
        UsageError: as `covariance`.
    """
    moments = _moments(pointers, 0)
    if len(moments.variables) < 2 or (one and len(moments.variables) != 2):
        raise UsageError("a correlation is of two values", remedy="np.corrcoef(x, y), np.corrcoef(ds[['age', 'bmi']])")

    def finish(values: Sums, deviations: Deviations, rows: int) -> tuple[Any, Any]:
        found, spread = moments.covariances(values, deviations, rows, 0)
        variances = np.where(np.diag(found) > 0, np.diag(found), np.nan)
        roots = np.sqrt(np.outer(variances, variances))
        ratios = np.clip(found / roots, -1, 1)
        parts = (np.diag(spread) / variances) ** 2
        errors = np.sqrt((spread / roots) ** 2 + ratios**2 / 4 * np.add.outer(parts, parts))
        np.fill_diagonal(ratios, 1.0)
        np.fill_diagonal(errors, 0.0)
        return (ratios[0, 1], errors[0, 1]) if one else (ratios, errors)

    def exact(rows: np.ndarray) -> Any:
        found = np.corrcoef(rows.T)
        return found[0, 1] if one else found

    return moments.question(f"correlations of {moments.names} of {moments.first.manifest.name}", finish, exact)


def _moments(pointers: Sequence[Values], ddof: int) -> _Moments:
    first = pointers[0]
    first.operands(pointers)
    rows = first.manifest.rows
    variables = [node for pointer in pointers for node in pointer.variables]
    if not 0 <= ddof < rows:
        raise UsageError(f"ddof={ddof} with {rows} rows", remedy="ddof=1, or ddof=0")
    if len(variables) > MOST_VARIABLES or any(node.shape != (ROWS,) for node in variables):
        raise UsageError(
            f"covariances are of up to {MOST_VARIABLES} values, one number a row each",
            remedy="np.cov(ds[['age', 'bmi']], rowvar=False)",
        )
    pairs = [(i, j) for i in range(len(variables)) for j in range(i, len(variables))]
    return _Moments(first, variables, [_ends(node) for node in variables], pairs)


def _ends(node: Node) -> tuple[float, float]:
    """Where the values lie by the columns' ranges; -1 to 1 if that is not known."""
    low, high = ends_of(node) or (-1.0, 1.0)
    return (low, high) if high > low else (low - 1, low + 1)


def _to_unit(node: Node, low: float, high: float) -> Node:
    x, middle, half = cast(node, REAL), (low + high) / 2, (high - low) / 2
    centred = elementwise("Sub", REAL, x, public(middle)) if middle else x
    return elementwise("Mul", REAL, centred, public(1 / half)) if half != 1 else centred
