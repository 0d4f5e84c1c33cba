"""Say why some names of numpy and of pandas are not computed of private rows, and what is asked instead."""

from __future__ import annotations

from collections.abc import Collection

from mpc.errors import UsageError

_ROUNDED = "rounding to the nearest needs a comparison for each half: np.floor(x + 0.5), where the range is small"
_MASKED = "rows are not chosen, since how many there would be is private: np.where(condition, x, 0)"
_ROWS_MEET = "it mixes rows, and is no sum over them"
_LOOP = "numpy's functions and operators act on all rows at once: np.where for if, & | ~ for and, or, not"
_ASKED = "an answer is asked for: x.mean().get(epsilon=0.5).value; ds.sample() has rows to look at"
_DESCRIBED = "x.mean(), x.std(), x.quantile([0.25, 0.5, 0.75]) are questions, and ds.describe() says what is public"
_EXAMPLE = "np.where(x > 3, x, 0).mean(), see docs/data.md"
_APART = "rows of two datasets are not of the same people in the same order: ask about each, and combine the answers"
_OPERATORS = "operators are: a + b, a > 3, a == 1"
_ORDERED = "an order of rows is no sum over them: x.quantile(q) or x.histogram(edges)"
_REGRESSION = "np.linalg.solve(a, b) with the answers a of X.T @ X and b of X.T @ y"

REASONS: dict[str, str] = {
    "fmod": "np.remainder(x, 10), x % 10, is, of a small range",
    "tan": "np.sin(x) / np.cos(x), where the cosine stays away from zero",
    "cbrt": "x ** (1 / 3), where x is above zero",
    "logaddexp": "np.log(np.exp(a) + np.exp(b)), where their ranges are small",
    "rint": _ROUNDED,
    "round": _ROUNDED,
    "around": _ROUNDED,
    "max": "the largest value is one person's, and no sum over rows: x.quantile(0.99) is answered with noise",
    "min": "the smallest value is one person's, and no sum over rows: x.quantile(0.01) is answered with noise",
    "ptp": "the largest and the smallest value are single persons': x.quantile([0.01, 0.99]) is answered with noise",
    "nanmax": "the largest value is one person's, and no sum over rows: x.quantile(0.99) is answered with noise",
    "nanmin": "the smallest value is one person's, and no sum over rows: x.quantile(0.01) is answered with noise",
    "all": "it is no sum over rows: count the rows, (x > 3).count()",
    "any": "it is no sum over rows: count the rows, (x > 3).count()",
    "allclose": "it is no sum over rows: np.isclose(x, y).count()",
    "array_equal": "it is no sum over rows: (x == y).count()",
    "median": "an exact median is one person's value, and no sum over rows: x.quantile(0.5) is answered with noise",
    "nanmedian": "an exact median is one person's value, and no sum over rows: x.quantile(0.5) is answered with noise",
    "sort": "an order of rows is no sum over them: x.quantile(q) or x.histogram(edges)",
    "argsort": "an order of rows is no sum over them",
    "unique": "which values occur is no sum over rows: x.value_counts(), x.histogram(edges)",
    "cumsum": _ROWS_MEET,
    "diff": _ROWS_MEET,
    "convolve": _ROWS_MEET,
    "vstack": "it lays columns below each other: np.stack([a, b], axis=1) lays them side by side",
    "ravel": "rows stay the first axis: x.reshape(-1, 16)",
    "argmax": "which row it is, is one person's",
    "argmin": "which row it is, is one person's",
    "prod": "a product over rows is no sum over them: np.log(x).sum(), of what is above zero",
    "histogram2d": "a.group_by([np.digitize(a, edges), np.digitize(b, edges)]).count()",
    "einsum": "X.T @ Y is, of columns; x @ w and x.sum(axis=1) are, of a public w",
    "tensordot": "x.reshape(-1, 16) @ w.reshape(16) is, of a public w",
    "piecewise": "np.where and np.select are",
    "apply_along_axis": _LOOP,
    "savez": _ASKED,
    "values": _ASKED,
    "to_numpy": _ASKED,
    "tolist": _ASKED,
    "to_list": _ASKED,
    "item": _ASKED,
    "head": _ASKED,
    "iloc": _MASKED,
    "loc": _MASKED,
    "query": _MASKED,
    "nonzero": _MASKED,
    "describe": _DESCRIBED,
    "info": _DESCRIBED,
    "groupby": "x.group_by(ds['sex']).mean()",
    "apply": _LOOP,
    "map": _LOOP,
    "fillna": "np.where(ds['bmi.missing'] == 1, 25, ds['bmi'])",
    "dropna": "np.where(ds['bmi.missing'] == 1, 0, ds['bmi']).sum(), and (ds['bmi.missing'] == 0).count()",
    "isna": "missing values are marked in a column of their own: ds['bmi.missing'] == 1",
    "isnull": "missing values are marked in a column of their own: ds['bmi.missing'] == 1",
    "notna": "missing values are marked in a column of their own: ds['bmi.missing'] == 0",
    **dict.fromkeys(("corr", "corrwith"), "np.corrcoef(ds[['age', 'bmi']]), x.corr(y)"),
    **dict.fromkeys(("lstsq", "solve", "inv", "pinv", "polyfit"), _REGRESSION),
    **dict.fromkeys(("eig", "eigh", "svd", "qr"), "np.linalg.eigh of an answer to np.cov(X) or X.T @ X"),
    **dict.fromkeys(("extract", "compress", "argwhere", "flatnonzero", "filter", "drop"), _MASKED),
    **dict.fromkeys(("gradient", "trapezoid", "ediff1d", "shift", "rolling", "expanding", "pct_change"), _ROWS_MEET),
    **dict.fromkeys(("add", "sub", "mul", "div", "pow", "mod", "gt", "ge", "lt", "le", "eq", "ne"), _OPERATORS),
    **dict.fromkeys(("agg", "aggregate", "transform"), "each by its name: x.mean(), x.group_by(c).std()"),
    **dict.fromkeys(("nunique", "mode"), "which values occur is no sum over rows: x.value_counts()"),
    **dict.fromkeys(("rank", "sort_values", "nlargest", "nsmallest", "idxmax", "idxmin"), _ORDERED),
    **dict.fromkeys(("crosstab", "pivot", "pivot_table"), "x.group_by([ds['sex'], age > 60]).count()"),
    **dict.fromkeys(("skew", "kurt", "kurtosis"), "((x - m) ** 3).mean() with an answered mean m"),
    "sem": "x.std() is, and its answer divided by len(x) ** 0.5",
    "assign": "ds['bmi'] * 2 is a column already: nothing is written into a dataset",
    "to_pandas": _ASKED,
    "to_frame": _ASKED,
    "flatten": "rows stay the first axis: x.reshape(-1, 16)",
    "dot": "x[['a', 'b']] @ w of a public w; the sum of products of two columns is (x * y).sum()",
    "merge": _APART,
    "join": _APART,
    "fill": "nothing is written into a dataset",
}
"""Reasons by the name of a function or method."""
_SORTED = "sorting within a row needs many comparisons: np.max, np.min and np.argmax of a row are computed"
WITHIN: dict[str, str] = dict.fromkeys(("sort", "argsort", "median"), _SORTED)
"""Reasons for what is asked within each row."""


def refusal(name: str, reason: str | None = None) -> UsageError:
    """Make the error for what is not computed of private rows."""
    return UsageError(
        f"{name} is not computed of private columns",
        cause=reason,
        remedy="arithmetic, comparisons, where, clip, stack, sqrt, exp, log and sums over rows are: see docs/data.md",
    )


class NoSuchName(UsageError, AttributeError):
    """An attribute that numpy's arrays or pandas' columns have, and private ones do not."""


def no_attribute(
    what: str, name: str, columns: Collection[str] = (), remedy: str = "numpy's names on columns are: " + _EXAMPLE
) -> AttributeError:
    """Make the error for an attribute; names with an underscore are asked for by programs, and just not there."""
    if name.startswith("_"):
        return AttributeError(f"{what} has no attribute {name!r}")
    if name in columns:
        return NoSuchName(f"{what} has no attribute {name!r}", remedy=f"its columns are items: ds[{name!r}]")
    return NoSuchName(
        f"{what} has no {name!r}",
        cause=REASONS.get(name),
        remedy=remedy,
    )
