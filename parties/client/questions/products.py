"""Products of columns over rows: X.T @ X and X.T @ y are one vector of sums, each of a product of two numbers of a row.

Each number is divided by the largest that its column's range allows, which is public, so that all products are about as
large and one noise fits them.  The vector has one epsilon; what follows is computed in public.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from mpc.errors import UsageError
from parties.client.questions import functions
from parties.client.questions.aggregates import Deviations, Question, Sums, named
from parties.client.questions.expression import REAL, Node, cast, elementwise, public
from parties.client.questions.levels import ends_of
from parties.client.questions.private import Private
from parties.client.questions.reasons import REASONS, no_attribute, refusal
from parties.client.questions.values import Values

MOST_PRODUCTS = 2144
"""As many as covariances of 64 values need."""
_REMEDY = "X.T @ X, X.T @ y, np.cov(X.T) and np.corrcoef(X.T) are questions; rows are the first axis elsewhere"


class Transposed(Private):
    """Columns with the rows' axis last, for products that sum over it: X.T @ X, X.T @ y."""

    def __init__(self, whole: Values) -> None:
        self.whole, self.manifest = whole, whole.manifest

    @property
    def read(self) -> tuple[str, ...]:
        """Names of the columns that the values are made of."""
        return self.whole.read

    @property
    def T(self) -> Values:
        """Values with the rows first, as they were."""
        return self.whole

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of one row, and rows."""
        return self.whole.shape[::-1]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.whole.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers."""
        return self.whole.dtype

    def dot(self, other: Any) -> Question:
        """Return the question for the sums over rows of products with other columns."""
        return _multiplied(self, other)

    def cov(self, ddof: int = 1) -> Question:
        """Return the question for the covariances of these columns."""
        from parties.client.questions.moments import covariance

        return covariance([self.whole], ddof)

    def corr(self) -> Question:
        """Return the question for the correlations of these columns."""
        from parties.client.questions.moments import correlation

        return correlation([self.whole])

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if ufunc is np.matmul and method == "__call__" and not options:
            return _multiplied(*inputs)
        raise UsageError(f"np.{ufunc.__name__} of columns with the rows' axis last", remedy=_REMEDY)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        from parties.client.questions.names import OF_TRANSPOSED

        known = OF_TRANSPOSED.get(function)
        if known is None:
            raise refusal(f"np.{function.__name__}", REASONS.get(function.__name__, _REMEDY))
        return known(*arguments, **options)

    def __getitem__(self, key: object) -> NoReturn:
        raise UsageError("places of columns with the rows' axis last", remedy="X[:, 0] takes a column of X")

    def __getattr__(self, name: str) -> NoReturn:
        raise no_attribute("columns with the rows' axis last", name, remedy=_REMEDY)

    def __repr__(self) -> str:
        return f"<{repr(self.whole).strip('<>').removesuffix(', private')}, rows last, private>"


def _multiplied(left: Any, right: Any) -> Question:
    if not isinstance(left, Transposed) or not isinstance(right, Values):
        pairs = isinstance(left, Values) and isinstance(right, Transposed)
        raise UsageError(
            "this product is not summed over rows",
            cause="X @ X.T is of every pair of rows, and no row meets another" if pairs else None,
            remedy="X.T @ X, X.T @ y of columns; X @ w of a public w is of each row",
        )
    return products(left.whole, right)


def products(x: Values, y: Values) -> Question:
    """Return the question for x.T @ y: for each two numbers of a row the sum over rows of their product.

    Args:
        x, y: (rows,) or (rows, k) each; an axis of one number a row is none of the answer.

    Raises:
        UsageError: they are rows of two datasets, no lists of numbers, or too many.
    """
    x.operands((x, y))
    left, right = x.variables, y.variables
    alike = [_key(node) for node in left] == [_key(node) for node in right]
    pairs = [(i, j) for i in range(len(left)) for j in range(i if alike else 0, len(right))]
    if len(pairs) > MOST_PRODUCTS:
        raise UsageError(f"{len(pairs):,} products of two numbers of a row", remedy=f"{MOST_PRODUCTS:,} at most")
    sizes = [_size(node) for node in left], [_size(node) for node in right]
    columns = [_divided(*each) for each in zip((*left, *right), (*sizes[0], *sizes[1]), strict=True)]
    each = [elementwise("Mul", REAL, columns[i], columns[len(left) + j]) for i, j in pairs]
    form = tuple(len(nodes) for nodes, of in ((left, x), (right, y)) if of.ndim > 1)

    def laid(values: Any) -> Any:
        found = np.zeros((len(left), len(right)))
        for (i, j), value in zip(pairs, np.broadcast_to(values, len(pairs)), strict=True):
            found[i, j] = value
            if alike:
                found[j, i] = value
        return (found * np.outer(*sizes)).reshape(form)[()]

    def finish(values: Sums, deviations: Deviations, rows: int) -> tuple[Any, Any]:
        return laid(values["products"]), laid(deviations["products"])

    def exactly(rows: np.ndarray) -> Any:
        return (rows[:, : len(left)].T @ rows[:, len(left) :]).reshape(form)[()]

    whole = functions.stack([cast(node, REAL) for node in (*left, *right)], 1)
    text = f"products of {named(x)} with {named(y)}"
    return Question(x, text, {"products": functions.stack(each, 1)}, finish, exact=(whole, exactly))


def _key(node: Node) -> object:
    """Tell values apart: a column is written anew wherever it is read."""
    return node.column or id(node)


def _size(node: Node) -> float:
    """Return the largest size that a value may have by its column's range; 1 if that is not known."""
    low, high = ends_of(node) or (-1.0, 1.0)
    return max(abs(low), abs(high)) or 1.0


def _divided(node: Node, size: float) -> Node:
    x = cast(node, REAL)
    return x if size == 1 else elementwise("Mul", REAL, x, public(1 / size))
