"""Functions of numpy by what pointers make of them; universal functions are in `ufuncs`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from mpc.errors import UsageError
from parties.client.questions import functions, levels, summaries
from parties.client.questions.categories import code
from parties.client.questions.expression import Node
from parties.client.questions.pointer import Pointer
from parties.client.questions.products import Transposed
from parties.client.questions.reasons import REASONS, WITHIN, refusal
from parties.client.questions.summaries import first


def _where(condition: Any, *sides: Any) -> Pointer:
    if len(sides) != 2:
        raise refusal("np.where without values", "which rows fulfil a condition is private")
    pointer = first(condition, *sides)
    return pointer.like(functions.where(*pointer.operands((condition, *sides))))


def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Pointer:
    low, high = (min if a_min is None else a_min), (max if a_max is None else a_max)
    pointer = first(a, low, high)
    x, low, high = pointer.operands((a, low, high))
    return pointer.like(functions.clip(functions.as_node(x), low, high))


def _of_lists(build: Callable[..., Node], axis: int = 0) -> Callable[..., Pointer]:
    def given(arrays: Any, axis: int = axis) -> Pointer:
        pointer = first(arrays)
        return pointer.like(build(pointer.operands(list(arrays)), axis))

    return given


def _columns(arrays: Any) -> Pointer:
    pointer = first(arrays)
    nodes = [functions.as_node(each) for each in pointer.operands(list(arrays))]
    matrices = [functions.part(x, (slice(None), None)) if len(x.shape) == 1 else x for x in nodes]
    return pointer.like(functions.concatenate(matrices, 1))


def _among(pointer: Pointer, axis: Any) -> tuple[Any, ...]:
    """Return a key of places along an axis of a row."""
    if not isinstance(axis, int) or axis % pointer.ndim == 0:
        raise UsageError("rows stay as they are, and where they are", remedy="an axis of a row: axis=1")
    return (slice(None),) * (axis % pointer.ndim)


def _taken(places: Callable[..., Any]) -> Callable[..., Pointer]:
    """Make a function that takes other places along an axis of a row: `places` of how many there are."""

    def given(a: Any, *arguments: Any, axis: Any = None, **options: Any) -> Pointer:
        pointer = first(a)
        before = _among(pointer, axis)
        return pointer[(*before, places(pointer.shape[len(before)], *arguments, **options))]

    return given


def _tiled(A: Any, reps: Any) -> Pointer:
    pointer = first(A)
    if np.ndim(reps) != 1 or len(reps) != pointer.ndim or reps[0] != 1:
        raise UsageError("rows are not repeated", remedy="np.tile(x, (1, 3)) of a matrix")
    for axis, times in enumerate(reps):
        if times != 1:
            pointer = pointer[(*(slice(None),) * axis, np.tile(np.arange(pointer.shape[axis]), times))]
    return pointer


def _digitize(x: Any, bins: Any, right: bool = False) -> Pointer:
    edges = np.asarray(bins)
    if edges.ndim != 1 or not edges.size or not (np.diff(edges) > 0).all():
        raise UsageError("bins have rising public edges", remedy="np.digitize(x, [18, 40, 65])")
    pointer = first(x)
    return pointer.like(levels.reached(pointer.node, edges, "Greater" if right else "GreaterOrEqual"))


def _searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None) -> Pointer:
    if isinstance(a, Pointer) or sorter is not None:
        raise refusal("np.searchsorted among private values", REASONS["sort"])
    return _digitize(v, a, right=side == "left")


def _interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None) -> Pointer:
    places, heights = np.asarray(xp, float), np.asarray(fp, float)
    if places.ndim != 1 or places.shape != heights.shape or len(places) < 2 or not (np.diff(places) > 0).all():
        raise UsageError("straight lines between rising public points", remedy="np.interp(x, [0, 50, 100], [0, 1, 0])")
    if (left, right, period) != (None, None, None):
        raise refusal("an option of interp: left, right, period")
    slopes = np.diff(heights) / np.diff(places)
    run = np.clip(first(x)[..., None], places[:-1], places[1:]) - places[:-1]
    return (run * slopes).sum(axis=-1) + heights[0]  # type: ignore[no-any-return]


def _select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    if len(condlist) != len(choicelist) or not len(condlist):
        raise UsageError("np.select has as many choices as conditions", remedy="np.select([x < 18, x < 65], [0, 1], 2)")
    kinds = [each.dtype if isinstance(each, Pointer) else np.asarray(each).dtype for each in (*choicelist, default)]
    kind, found = np.result_type(*kinds), default
    for condition, choice in zip(condlist[::-1], choicelist[::-1], strict=True):
        found = _where(condition, choice, found)
    return found.astype(kind)


def _choose(a: Any, choices: Any) -> Any:
    pointer = first(a)
    return _select([pointer == place for place in range(len(choices))], choices, choices[0])


def _polyval(p: Any, x: Any) -> Pointer:
    leading, *rest = np.asarray(p)
    found = _filled(leading)(first(x), np.result_type(leading, x.dtype))
    for place, each in enumerate(rest):
        found = (found * x if place else x * leading) + each
    return found


def _isclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    return np.abs(a - b) <= atol + rtol * np.abs(b)


def _complete(method: Callable[..., Any], named: str) -> Callable[..., Any]:
    """Make a function of numpy that leaves missing values out: of columns that have none it is the plain one."""

    def given(a: Any, *arguments: Any, **options: Any) -> Any:
        pointer = first(a)
        pointer.require_complete(f"np.nan{named}")
        return method(pointer, *arguments, **options)

    return given


def _filled_in(x: Any) -> Pointer:
    first(x).require_complete("np.nan_to_num")
    return first(x)


def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    if ord not in (None, 2) or not isinstance(axis, int):
        raise refusal("this norm", "the length of each row is: np.linalg.norm(x, axis=1)")
    return np.sqrt(np.square(first(x)).sum(axis=axis, keepdims=keepdims))


def _inner(a: Any, b: Any) -> Any:
    return np.matmul(a, b)


def _outer(a: Any, b: Any) -> Any:
    if isinstance(b, Pointer) or not isinstance(a, Pointer) or a.ndim != 1:
        raise refusal("np.outer of rows with rows", "no row meets another")
    return a[:, None] * np.ravel(b)


def _transpose(a: Any, axes: Any = None) -> Pointer | Transposed:
    return first(a).transpose(*(() if axes is None else axes))


def _within(name: str) -> Callable[..., NoReturn]:
    """Make a function that refuses what would be asked of rows, or within each row."""

    def given(a: Any, *arguments: Any, axis: Any = None, **options: Any) -> NoReturn:
        raise refusal(f"np.{name}", REASONS[name] if axis in (None, 0) else WITHIN[name])

    return given


def _isin(element: Any, test_elements: Any) -> Pointer:
    pointer = first(element)
    values = [code(pointer, each) if isinstance(each, str) else each for each in np.asarray(test_elements).tolist()]
    return pointer.like(functions.isin(pointer.node, values))


def _filled(value: Any) -> Callable[..., Pointer]:
    return lambda a, dtype=None: a.like(functions.filled(a.node, value, dtype))


def _method(method: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a, *arguments, **options: method(first(a), *arguments, **options)


def _refused(name: str) -> NoReturn:
    raise refusal(f"np.{name}", REASONS[name])


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.where: _where,
    np.clip: _clip,
    np.stack: _of_lists(functions.stack),
    np.concatenate: _of_lists(functions.concatenate),
    np.hstack: _columns,
    np.column_stack: _columns,
    np.isin: _isin,
    np.dot: np.matmul,
    np.inner: _inner,
    np.vdot: _inner,
    np.outer: _outer,
    np.select: _select,
    np.choose: _choose,
    np.digitize: _digitize,
    np.searchsorted: _searchsorted,
    np.interp: _interp,
    np.polyval: _polyval,
    np.isclose: _isclose,
    np.average: summaries.average,
    np.linalg.norm: _norm,
    np.argmax: _method(Pointer.argmax),
    np.argmin: _method(Pointer.argmin),
    np.ptp: _method(Pointer.ptp),
    np.prod: _method(Pointer.prod),
    np.transpose: _transpose,
    np.swapaxes: _method(Pointer.swapaxes),
    np.flip: _taken(lambda count: np.arange(count)[::-1]),
    np.roll: _taken(lambda count, shift: np.roll(np.arange(count), shift)),
    np.repeat: _taken(lambda count, repeats: np.repeat(np.arange(count), repeats)),
    np.take: _taken(lambda count, indices: np.arange(count)[indices]),
    np.tile: _tiled,
    np.copy: lambda a, *_, **__: a,
    np.size: lambda a, axis=None: a.size if axis is None else a.shape[axis],
    np.empty_like: _filled(0),
    np.sort: _within("sort"),
    np.argsort: _within("argsort"),
    np.median: _within("median"),
    np.round: lambda *_, **__: _refused("round"),
    np.full_like: lambda a, fill_value, dtype=None: _filled(fill_value)(a, dtype),
    np.zeros_like: _filled(0),
    np.ones_like: _filled(1),
    np.nan_to_num: lambda x, *_, **__: _filled_in(x),
    np.astype: _method(Pointer.astype),
    np.reshape: _method(Pointer.reshape),
    np.expand_dims: lambda a, axis: a[(slice(None),) * (axis % (a.ndim + 1)) + (None,)],
    np.shape: lambda a: a.shape,
    np.ndim: lambda a: a.ndim,
    np.sum: _method(Pointer.sum),
    np.mean: _method(Pointer.mean),
    np.var: _method(Pointer.var),
    np.std: _method(Pointer.std),
    np.cov: summaries.cov,
    np.corrcoef: summaries.corrcoef,
    np.bincount: summaries.bincount,
    np.count_nonzero: lambda a: a.astype(bool).count(),
    np.histogram: summaries.histogram,
    np.quantile: summaries.quantile,
    np.percentile: summaries.percentile,
    np.max: _method(Pointer.max),
    np.min: _method(Pointer.min),
    np.all: _method(Pointer.all),
    np.any: _method(Pointer.any),
    **{getattr(np, f"nan{name}"): _complete(getattr(Pointer, name), name) for name in ("sum", "mean", "var", "std")},
    np.nanquantile: _complete(summaries.quantile, "quantile"),
    np.nanpercentile: _complete(summaries.percentile, "percentile"),
}
OF_TRANSPOSED: dict[Any, Callable[..., Any]] = {
    np.dot: np.matmul,
    np.transpose: lambda a: a.T,
    np.shape: lambda a: a.shape,
    np.ndim: lambda a: a.ndim,
    np.cov: summaries.of_transposed("cov"),
    np.corrcoef: summaries.of_transposed("corrcoef"),
}
"""Functions of columns with the rows' axis last."""
