"""Sums over all rows, which are questions, and sums, means and maxima within each row: numpy has one name for both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from mpc.errors import UsageError
from parties.client.questions import functions
from parties.client.questions.expression import TRUTH, WHOLE, cast
from parties.client.questions.reasons import REASONS, refusal
from parties.client.questions.values import Values

if TYPE_CHECKING:
    from mpc.plan.link import Link
    from parties.client.questions.aggregates import Question
    from parties.client.questions.asking import Answer
    from parties.client.questions.grouped import Grouped
    from parties.client.questions.pointer import Pointer


class OverRows(Values):
    """Values of rows, as sums over rows and reductions within rows are made of them."""

    def sum(self, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        """Return the question for the sum over rows; with an axis that is not theirs, sums within each row."""
        return self._summary("sum", axis, keepdims, options)

    def mean(self, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        """Return the question for the mean over rows, or means within each row."""
        return self._summary("mean", axis, keepdims, options)

    def var(self, axis: Any = None, dtype: Any = None, out: None = None, ddof: int = 0, keepdims: bool = False) -> Any:
        """Return the question for the variance over rows, or variances within each row."""
        axis = self._plain_axis("var", axis, dtype, out, keepdims)
        return self._question("var", axis, ddof=ddof) if _is_of_rows(axis) else self._spread(axis, ddof)

    def std(self, axis: Any = None, dtype: Any = None, out: None = None, ddof: int = 0, keepdims: bool = False) -> Any:
        """Return the question for the standard deviation over rows, or those within each row."""
        axis = self._plain_axis("std", axis, dtype, out, keepdims)
        return self._question("std", axis, ddof=ddof) if _is_of_rows(axis) else np.sqrt(self._spread(axis, ddof))

    def cov(self, other: OverRows | None = None, ddof: int = 1) -> Question:
        """Return the question for the covariances of the numbers of a row with each other, over rows."""
        from parties.client.questions.moments import covariance

        return covariance([self] if other is None else [self, other], ddof)

    def corr(self, other: OverRows | None = None) -> Question:
        """Return the question for the correlation with other values, or of the numbers of a row with each other."""
        from parties.client.questions.moments import correlation

        return correlation([self] if other is None else [self, other], other is not None)

    def value_counts(self, normalize: bool = False) -> Question:
        """Return the question for how many rows have each category, or each of a few whole numbers, in their order."""
        from parties.client.questions.grouped import counted

        return counted(self, normalize)

    def count(self) -> Question:
        """Return the question for how many rows fulfil a condition."""
        return self._question("count", None)

    def histogram(self, edges: Any) -> Question:
        """Return the question for how many rows lie between each two edges, as `numpy.histogram` counts them."""
        return self._question("histogram", None, edges=edges)

    def quantile(self, q: Any = 0.5, edges: Any = None) -> Question:
        """Return the question for quantiles: a histogram at public edges, and straight lines between them.

        Args:
            edges: 32 steps through the range of a column, unless said.
        """
        return self._question("quantile", None, q=q, edges=edges)

    def group_by(self, category: Values | list[Values]) -> Grouped:
        """Return the values by groups: `.sum()`, `.mean()`, `.count()`, `.var()`, `.std()` of each.

        Args:
            category: a column of categories, a condition, whole numbers of a small range, or a list of these.
        """
        from parties.client.questions.grouped import Grouped, groups_of

        self.operands((self, *(category if isinstance(category, list | tuple) else [category])))
        return Grouped(self, groups_of(category))

    groupby = group_by

    def max(self, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        """Return the largest value of each row; that over rows is refused."""
        return self._within("max", axis, keepdims)

    def min(self, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        """Return the smallest value of each row; that over rows is refused."""
        return self._within("min", axis, keepdims)

    def all(self, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        """Tell of each row whether all its values are true; that over rows is refused."""
        return self._within("all", axis, keepdims)

    def any(self, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        """Tell of each row whether any of its values is true; that over rows is refused."""
        return self._within("any", axis, keepdims)

    def argmax(self, axis: Any = None, out: None = None, *, keepdims: bool = False) -> Pointer:
        """Return at which place of each row the largest value is; which row has it is refused."""
        return self._ranked("argmax", "ArgMax", axis, keepdims)

    def argmin(self, axis: Any = None, out: None = None, *, keepdims: bool = False) -> Pointer:
        """Return at which place of each row the smallest value is; which row has it is refused."""
        return self._ranked("argmin", "ArgMin", axis, keepdims)

    def ptp(self, axis: Any = None, out: None = None, keepdims: bool = False) -> Pointer:
        """Return how far apart the largest and the smallest value of each row are; over rows it is refused."""
        axis = self._axis(axis)
        if axis in (None, 0):
            raise refusal("np.ptp over rows", REASONS["ptp"])
        return self.max(axis, keepdims) - self.min(axis, keepdims)  # type: ignore[no-any-return]

    def prod(self, axis: Any = None, dtype: None = None, out: None = None) -> Pointer:
        """Return the product of each row's values; over rows it is refused."""
        axis = self._axis(axis)
        if axis in (None, 0):
            raise refusal("a product over rows", REASONS["prod"])
        return self.like(functions.product(self.node, axis))

    def median(self) -> NoReturn:
        """Refuse: an exact median is one person's value."""
        raise refusal("the median", REASONS["median"])

    def get(self, epsilon: Any = None, wait: float = 0.0, link: Link | str | None = None) -> Answer:
        """Return the values themselves, to whom all of them belong; link: as a question's.

        Raises:
            PrivateDataError: to everybody else.
        """
        from parties.client.questions.asking import rows_of

        return rows_of(self, epsilon, wait, link)

    def _question(self, kind: str, axis: Any, **said: Any) -> Question:
        from parties.client.questions.aggregates import ask

        if axis not in (None, 0) or (axis is None and self.ndim > 1 and kind not in ("histogram", "quantile", "count")):
            raise UsageError(
                f"{kind} over axis {axis} of values of shape {self.shape}",
                remedy=f"{kind}(axis=0) is over rows, for each place of a row apart; x[:, 0] takes one",
            )
        return ask(self, kind, **said)

    def _summary(self, kind: str, axis: Any, keepdims: bool, options: dict[str, Any]) -> Any:
        axis = self._axis(axis)
        if (where := options.pop("where", True)) is not True:
            return self._where(kind, axis, keepdims, where, options)
        kind_given = options.pop("dtype", None)
        if any(value is not None for value in options.values()):
            raise refusal(f"an option of {kind}: {', '.join(options)}")
        if kind_given is not None:
            return self.astype(kind_given)._summary(kind, axis, keepdims, {})
        if keepdims and _is_of_rows(axis):
            raise refusal(f"{kind} over rows with keepdims", "the answer has no axis of rows")
        if axis is None and self.ndim > 1:
            within = tuple(range(1, self.ndim))
            whole = self.like(functions.reduced(kind, self.node, within, False))
            return whole._question(kind, None)
        if axis in (None, 0):
            return self._question(kind, axis)
        return self.like(functions.reduced(kind, self.node, axis, keepdims))

    def _where(self, kind: str, axis: Any, keepdims: bool, where: Any, options: dict[str, Any]) -> Question:
        """Ask for the sum or the mean of those rows that fulfil a condition; how many these are is private."""
        from parties.client.questions.aggregates import mean_of, named

        if not isinstance(where, Values) or where.node.dtype != TRUTH or not (_is_of_rows(axis) and self.ndim == 1):
            raise refusal(f"{kind} with where=", "x.mean(where=age > 60) is, of one number a row and a condition")
        if keepdims or any(value is not None for value in options.values()):
            raise refusal(f"an option of {kind} with where=")
        x, condition = self.operands((self, where))
        chosen = functions.where(condition, x, 0)
        if kind == "sum":
            return self.like(chosen)._question("sum", None)
        text = f"mean of {named(self)} where a condition holds"
        return mean_of(self, cast(chosen, WHOLE) if x.dtype == TRUTH else chosen, cast(condition, WHOLE), text, 1.0)

    def _plain_axis(self, kind: str, axis: Any, dtype: Any, out: Any, keepdims: bool) -> Any:
        if dtype is not None or out is not None or keepdims:
            raise refusal(f"an option of {kind}: dtype, out or keepdims")
        return self._axis(axis)

    def _axis(self, axis: Any) -> Any:
        """Return the axis counted from the front where it is the rows', as -1 is of one number a row."""
        one = axis[0] if isinstance(axis, tuple) and len(axis) == 1 else axis
        return 0 if isinstance(one, int | np.integer) and one in (0, -self.ndim) else axis

    def _spread(self, axis: Any, ddof: int) -> Pointer:
        apart = self - self.mean(axis, keepdims=True)
        total = (apart * apart).sum(axis=axis)
        count = self.size // max(1, total.size)
        if not 0 <= ddof < count:
            raise UsageError(f"ddof={ddof} with {count} values", remedy="ddof=0, or ddof=1")
        return total / (count - ddof)  # type: ignore[no-any-return]

    def _ranked(self, kind: str, op: str, axis: Any, keepdims: bool) -> Pointer:
        axis = self._axis(axis)
        if _is_of_rows(axis):
            raise refusal(f"{kind} over rows", REASONS[kind])
        return self.like(functions.ranked(op, self.node, axis, keepdims))

    def _within(self, kind: str, axis: Any, keepdims: bool) -> Pointer:
        axis = self._axis(axis)
        if axis in (None, 0):
            raise refusal(f"{kind} over rows", REASONS[kind])
        return self.like(functions.reduced(kind, self.node, axis, keepdims))


def _is_of_rows(axis: Any) -> bool:
    return axis is None or (isinstance(axis, int | np.integer) and axis == 0)
