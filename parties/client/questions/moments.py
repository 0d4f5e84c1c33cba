"""Covariances: one vector of sums over rows, of the values and of their products two by two.

Each value is brought to [-1, 1] by its column's range, which is public, so that all k (k + 3) / 2 elements are about as
large and one noise fits them.  The vector has one epsilon; what follows is computed in public.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpc.errors import UsageError
from parties.client.questions import functions
from parties.client.questions.aggregates import Deviations, Question, Sums
from parties.client.questions.expression import REAL, ROWS, Node, cast, elementwise, public
from parties.client.questions.levels import ends_of
from parties.client.questions.values import Values

MOST_VARIABLES = 64


def covariance(pointers: Sequence[Values], ddof: int) -> Question:
    """Return the question for the covariances of all these values with each other, as `numpy.cov` has them.

    Raises:
        UsageError: these are not one number a row each, too many, or not rows enough.
    """
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
    ends = [_ends(node) for node in variables]
    units = [_to_unit(node, *each) for node, each in zip(variables, ends, strict=True)]
    pairs = [(i, j) for i in range(len(units)) for j in range(i, len(units))]
    products = [elementwise("Mul", REAL, units[i], units[j]) for i, j in pairs]
    sums: Mapping[str, Node] = {"moments": functions.stack([*units, *products], 1)}
    halves = np.array([(high - low) / 2 for low, high in ends])

    def finish(values: Sums, deviations: Deviations, rows: int) -> tuple[Any, Any]:
        means = values["moments"][: len(units)] / rows
        seconds, squares = (np.zeros((len(units), len(units))) for _ in range(2))
        for (i, j), value in zip(pairs, values["moments"][len(units) :], strict=True):
            seconds[i, j] = seconds[j, i] = value / rows
            both = 4 * means[i] ** 2 if i == j else means[i] ** 2 + means[j] ** 2
            squares[i, j] = squares[j, i] = 1 + both
        scale = np.outer(halves, halves) * rows / (rows - ddof)
        found = (seconds - np.outer(means, means)) * scale
        spread = np.sqrt(squares) * deviations["moments"] / rows * scale
        return (found, spread) if len(units) > 1 else (found[0, 0], spread[0, 0])

    names = ", ".join(node.column or "a value" for node in variables)
    exact = functions.stack([cast(node, REAL) for node in variables], 1), lambda rows: np.cov(rows.T, ddof=ddof)
    return Question(first, f"covariances of {names} of {first.manifest.name}", sums, finish, exact=exact)


def _ends(node: Node) -> tuple[float, float]:
    """Where the values lie by the columns' ranges; -1 to 1 if that is not known."""
    low, high = ends_of(node) or (-1.0, 1.0)
    return (low, high) if high > low else (low - 1, low + 1)


def _to_unit(node: Node, low: float, high: float) -> Node:
    x, middle, half = cast(node, REAL), (low + high) / 2, (high - low) / 2
    centred = elementwise("Sub", REAL, x, public(middle)) if middle else x
    return elementwise("Mul", REAL, centred, public(1 / half)) if half != 1 else centred
