"""Functions of numpy that are sums over rows, or follow from such: means, quantiles, histograms, covariances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mpc.errors import UsageError
from parties.client.questions import functions
from parties.client.questions.aggregates import mean_of, named, numbers_of
from parties.client.questions.levels import ends_of
from parties.client.questions.moments import correlation
from parties.client.questions.pointer import Pointer
from parties.client.questions.products import Transposed
from parties.client.questions.reasons import refusal


def first(*values: Any) -> Pointer:
    """Return the first pointer among arguments and lists of them."""
    for each in values:
        if isinstance(each, Pointer):
            return each
        if isinstance(each, list | tuple):
            for one in each:
                if isinstance(one, Pointer):
                    return one
    raise UsageError("no column is among these", remedy="give columns of a dataset")


def average(a: Any, axis: Any = None, weights: Any = None) -> Any:
    """Return means: with a column as weights a question of two sums, with public ones those of each row."""
    if weights is None:
        return first(a).mean(axis)
    pointer = first(a)
    if isinstance(weights, Pointer):
        if pointer.ndim != 1 or weights.ndim != 1 or axis not in (None, 0, -1):
            raise refusal("this weighted average", "np.average(x, weights=w) is, of one number and one weight a row")
        x, w = (functions.as_node(each) for each in pointer.operands((pointer, weights)))
        [times] = pointer.operands((pointer * weights,))
        text = f"mean of {named(pointer)} with weights"
        return mean_of(pointer, numbers_of(times), numbers_of(w), text, np.finfo(float).tiny)
    factors = np.asarray(weights, float)
    if pointer.ndim != 2 or axis not in (1, -1) or factors.shape != pointer.shape[1:] or not factors.sum():
        raise refusal(
            "this weighted average", "weights are a column, np.average(x, weights=w), or one for each place, axis=1"
        )
    return pointer @ (factors / factors.sum())


def histogram(a: Any, bins: Any = 10, range: Any = None, density: Any = None, weights: Any = None) -> Any:
    """Return the question for how many rows lie between each two edges, and these."""
    if density or weights is not None:
        raise refusal(
            "a histogram with weights or density",
            "w.group_by(np.digitize(x, edges)).sum() has weights; a density is its answer / (its sum * np.diff(edges))",
        )
    if np.ndim(bins) == 0:
        if range is None:
            raise UsageError("a histogram's edges are public", remedy="np.histogram(x, bins=8, range=(0, 80))")
        bins = np.linspace(range[0], range[1], int(bins) + 1)
    return first(a).histogram(bins), np.asarray(bins)


def quantile(a: Any, q: Any, axis: Any = None, *, method: str = "linear", keepdims: bool = False) -> Any:
    """Return the question for quantiles."""
    if axis not in (None, 0, -1) or method != "linear" or keepdims:
        raise refusal("this quantile", "np.quantile(x, q) is, over rows, by straight lines between public edges")
    return first(a).quantile(q)


def percentile(a: Any, q: Any, axis: Any = None, *, method: str = "linear", keepdims: bool = False) -> Any:
    """Return the question for quantiles by percents."""
    return quantile(a, np.asarray(q) / 100, axis, method=method, keepdims=keepdims)


def bincount(x: Any, weights: Any = None, minlength: int = 0) -> Any:
    """Return the question for how many rows have each whole number from 0 on, or for sums of weights by it."""
    counts, ends = first(x).value_counts(), ends_of(first(x).node)
    if ends is None or ends[0] or minlength > ends[1] + 1:
        raise refusal("this bincount", "x.value_counts() and x.histogram(edges) are; its range begins at 0")
    return counts if weights is None else first(weights).group_by(x).sum()


def cov(m: Any, y: Any = None, rowvar: Any = None, bias: bool = False, ddof: Any = None) -> Any:
    """Return the question for covariances: columns are the variables, since rows are people."""
    _require_columns(m, rowvar, "cov")
    return first(m).cov(y, int(not bias) if ddof is None else ddof)


def corrcoef(x: Any, y: Any = None, rowvar: Any = None) -> Any:
    """Return the question for correlations of columns."""
    _require_columns(x, rowvar, "corrcoef")
    return correlation([first(x)] if y is None else [first(x), first(y)])


def _require_columns(m: Any, rowvar: Any, name: str) -> None:
    if rowvar and first(m).ndim > 1:
        raise refusal(f"np.{name} of rows", "it would tell of each two rows: say rowvar=False for the columns")


def of_transposed(name: str) -> Callable[..., Any]:
    """Return a function of X.T, whose rows numpy takes for the variables unless it is told otherwise."""

    def given(m: Transposed, *arguments: Any, rowvar: bool = True, **options: Any) -> Any:
        if not rowvar or arguments or options.keys() - {"ddof"}:
            raise refusal(f"np.{name} like this", f"np.{name}(X.T) and np.{name}(X, rowvar=False) are of columns")
        return m.cov(**options) if name == "cov" else m.corr(**options)

    return given
