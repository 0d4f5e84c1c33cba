"""Functions of numpy by what pointers make of them; universal functions are in `ufuncs`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from mpc.errors import UsageError
from parties.client.questions import functions
from parties.client.questions.expression import Node
from parties.client.questions.pointer import Pointer, code
from parties.client.questions.ufuncs import REASONS, refusal


def _first(*values: Any) -> Pointer:
    """The first pointer among arguments and lists of them."""
    for each in values:
        if isinstance(each, Pointer):
            return each
        if isinstance(each, list | tuple):
            for one in each:
                if isinstance(one, Pointer):
                    return one
    raise UsageError("no column is among these", remedy="give columns of a dataset")


def _where(condition: Any, *sides: Any) -> Pointer:
    if len(sides) != 2:
        raise refusal("np.where without values", "which rows fulfil a condition is private")
    pointer = _first(condition, *sides)
    return pointer.like(functions.where(*pointer.operands((condition, *sides))))


def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Pointer:
    low, high = (min if a_min is None else a_min), (max if a_max is None else a_max)
    pointer = _first(a, low, high)
    x, low, high = pointer.operands((a, low, high))
    return pointer.like(functions.clip(functions.as_node(x), low, high))


def _of_lists(build: Callable[..., Node], axis: int = 0) -> Callable[..., Pointer]:
    def given(arrays: Any, axis: int = axis) -> Pointer:
        pointer = _first(arrays)
        return pointer.like(build(pointer.operands(list(arrays)), axis))

    return given


def _columns(arrays: Any) -> Pointer:
    pointer = _first(arrays)
    nodes = [functions.as_node(each) for each in pointer.operands(list(arrays))]
    matrices = [functions.part(x, (slice(None), None)) if len(x.shape) == 1 else x for x in nodes]
    return pointer.like(functions.concatenate(matrices, 1))


def _isin(element: Any, test_elements: Any) -> Pointer:
    pointer = _first(element)
    values = [code(pointer, each) if isinstance(each, str) else each for each in np.asarray(test_elements).tolist()]
    return pointer.like(functions.isin(pointer.node, values))


def _filled(value: Any) -> Callable[..., Pointer]:
    return lambda a, dtype=None: a.like(functions.filled(a.node, value, dtype))


def _method(method: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a, *arguments, **options: method(_first(a), *arguments, **options)


def _histogram(a: Any, bins: Any = 10, range: Any = None) -> Any:
    if np.ndim(bins) == 0:
        if range is None:
            raise UsageError("a histogram's edges are public", remedy="np.histogram(x, bins=8, range=(0, 80))")
        bins = np.linspace(range[0], range[1], int(bins) + 1)
    return _first(a).histogram(bins), np.asarray(bins)


def _percentile(a: Any, q: Any) -> Any:
    return _first(a).quantile(np.asarray(q) / 100)


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
    np.round: lambda *_, **__: _refused("round"),
    np.full_like: lambda a, fill_value, dtype=None: _filled(fill_value)(a, dtype),
    np.zeros_like: _filled(0),
    np.ones_like: _filled(1),
    np.nan_to_num: lambda x, *_, **__: _first(x),
    np.astype: _method(Pointer.astype),
    np.reshape: _method(Pointer.reshape),
    np.expand_dims: lambda a, axis: a[(slice(None),) * (axis % (a.ndim + 1)) + (None,)],
    np.shape: lambda a: a.shape,
    np.ndim: lambda a: a.ndim,
    np.sum: _method(Pointer.sum),
    np.mean: _method(Pointer.mean),
    np.var: _method(Pointer.var),
    np.std: _method(Pointer.std),
    np.count_nonzero: lambda a: a.astype(bool).count(),
    np.histogram: _histogram,
    np.quantile: _method(Pointer.quantile),
    np.percentile: _percentile,
    np.max: _method(Pointer.max),
    np.min: _method(Pointer.min),
    np.all: _method(Pointer.all),
    np.any: _method(Pointer.any),
}
