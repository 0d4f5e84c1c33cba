"""Functions of numpy that are not universal ones, row by row: choices, columns side by side, sums within a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mpc.errors import UsageError
from parties.client.questions import levels
from parties.client.questions.expression import (
    REAL,
    ROWS,
    TRUTH,
    WHOLE,
    Node,
    apply,
    broadcast,
    cast,
    elementwise,
    kind_of,
    public,
    sized,
    widened,
)
from parties.client.questions.reasons import refusal
from parties.client.questions.ufuncs import call, truth


def where(condition: Any, x: Any, y: Any) -> Node:
    """Choose row by row; of public numbers Python's take the other's type, as in numpy."""
    chosen = truth(as_node(condition))
    dtype = _common(x, y)
    sides = [cast(as_node(each), dtype) for each in (x, y)]
    if dtype == TRUTH:
        return cast(where(chosen, *(cast(each, WHOLE) for each in sides)), TRUTH)
    return apply("Where", dtype, broadcast(chosen.shape, *(each.shape for each in sides)), chosen, *sides)


def clip(x: Node, low: Any, high: Any) -> Node:
    """Cut to an interval; public ends are one operator, others a maximum and a minimum."""
    ends = [end for end in (low, high) if end is not None]
    dtype = _common(*[x, *ends])
    if any(isinstance(end, Node) or np.ndim(end) for end in ends) or dtype == TRUTH:
        found = x if low is None else call(np.maximum, (x, low))
        return found if high is None else call(np.minimum, (found, high))
    if not ends:
        raise UsageError("clip without an end", remedy="np.clip(x, low, high)")
    if None not in (low, high) and low > high:
        raise UsageError(f"clip to {low}:{high}", remedy="the lower end comes first")
    last = [] if high is None else [cast(public(high), dtype)]
    if low is None:
        return elementwise("Min", dtype, cast(x, dtype), *last)
    return elementwise("Clip", dtype, cast(x, dtype), cast(public(low), dtype), *last)


def stack(arrays: Sequence[Any], axis: int = 0) -> Node:
    """Put values of a row side by side along a new axis, which is not the first."""
    nodes = [as_node(each) for each in arrays]
    shape = broadcast(*(each.shape for each in nodes))
    place = _axis(axis, len(shape) + 1)
    grown = [sized(widened(x, shape), (*shape[:place], 1, *shape[place:])) for x in nodes]
    return _joined(grown, place)


def concatenate(arrays: Sequence[Any], axis: int = 0) -> Node:
    """Join values of a row along an axis of theirs, which is not the first."""
    nodes = [as_node(each) for each in arrays]
    place = _axis(axis, max(len(each.shape) for each in nodes))
    return _joined(nodes, place)


def isin(x: Node, values: Any) -> Node:
    """Tell of each row whether its value is one of these."""
    wanted = np.unique(np.asarray(values)).tolist()
    found = [call(np.equal, (x, each)) for each in wanted]
    if not found:
        raise UsageError("isin of no values", remedy="np.isin(x, [1, 2])")
    every = found[0]
    for each in found[1:]:
        every = elementwise("Or", TRUTH, every, each)
    return replace(every, bits=_sum_of_bits(x, wanted, found))


def _sum_of_bits(x: Node, wanted: Sequence[Any], found: Sequence[Node]) -> Node:
    """Return 1 where one of several conditions holds, of which at most one does; 0 elsewhere."""
    if (bits := levels.among(x, [int(each) for each in wanted if each == int(each)])) is not None:
        return bits
    total = cast(found[0], WHOLE)
    for each in found[1:]:
        total = elementwise("Add", WHOLE, total, cast(each, WHOLE))
    return total


def reduced(name: str, x: Node, axis: Any, keepdims: bool) -> Node:
    """Reduce the axes of a row: `name` is sum, mean, max, min, all or any.

    Raises:
        UsageError: an axis is that of the rows.
    """
    axes = [_axis(each, len(x.shape)) for each in (axis if isinstance(axis, tuple) else (axis,))]
    shape = tuple(1 if place in axes else size for place, size in enumerate(x.shape))
    final = shape if keepdims else tuple(size for place, size in enumerate(x.shape) if place not in axes)
    if name in ("all", "any"):
        counted = reduced("sum", truth(x), axis, keepdims)
        most = int(np.prod([x.shape[place] for place in axes]))
        return call(np.greater_equal, (counted, most if name == "all" else 1))
    value = cast(x, REAL if name == "mean" else WHOLE if x.dtype == TRUTH else x.dtype)
    op = {"sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin"}[name]
    found = apply(op, value.dtype, final, value, public(np.array(axes)), keepdims=int(keepdims))
    return cast(found, x.dtype) if name in ("max", "min") else found


def ranked(op: str, x: Node, axis: Any, keepdims: bool) -> Node:
    """Return at which place of an axis of a row the largest or smallest value is, the first of equals."""
    place = _axis(axis, len(x.shape))
    shape = (*x.shape[:place], *([1] if keepdims else []), *x.shape[place + 1 :])
    numbers = cast(x, WHOLE) if x.dtype == TRUTH else x
    return apply(op, WHOLE, shape, numbers, axis=place, keepdims=int(keepdims))


def product(x: Node, axis: Any) -> Node:
    """Return the products along an axis of a row, of at most 16 values."""
    place = _axis(axis, len(x.shape))
    if x.shape[place] > _MOST_FACTORS:
        raise UsageError(f"a product of {x.shape[place]} values of a row", remedy=f"{_MOST_FACTORS} at most")
    numbers = cast(x, WHOLE) if x.dtype == TRUTH else x
    key = (slice(None),) * place
    found = [part(numbers, (*key, each)) for each in range(x.shape[place])]
    while len(found) > 1:
        pairs = [call(np.multiply, found[each : each + 2]) for each in range(0, len(found) - 1, 2)]
        found = pairs + (found[-1:] if len(found) % 2 else [])
    return found[0]


_MOST_FACTORS = 16


def transposed(x: Node, axes: Sequence[int]) -> Node:
    """Return the axes of each row in another order; the rows' is the first before and after.

    Raises:
        UsageError: it would not be.
    """
    rank = len(x.shape)
    order = [int(each) % rank for each in axes]
    if sorted(order) != list(range(rank)) or order[0]:
        raise UsageError(
            f"axes {tuple(axes)} of values of {rank} axes", remedy="rows stay the first axis: x.transpose(0, 2, 1)"
        )
    if order == [*range(rank)]:
        return x
    return apply("Transpose", x.dtype, tuple(x.shape[each] for each in order), x, perm=order)


def part(x: Node, key: Any) -> Node:
    """Take places of a row, or give it axes of one: x[:, 0], x[:, 1:3], x[:, None].

    Raises:
        UsageError: rows would be chosen.
    """
    keys = list(key) if isinstance(key, tuple) else [key]
    if any(each is Ellipsis for each in keys):
        [at, *more] = [place for place, each in enumerate(keys) if each is Ellipsis]
        left = len(x.shape) - sum(each is not None for each in keys) + 1
        keys[at : at + 1] = [slice(None)] * max(0, left if not more else 0)
    if not keys or not (isinstance(keys[0], slice) and keys[0] == slice(None)):
        raise UsageError("rows are not chosen: how many there would be, is private", remedy="np.where(condition, x, 0)")
    found, place = x, 1
    for each in keys[1:]:
        if each is None:
            found = sized(found, (*found.shape[:place], 1, *found.shape[place:]))
            place += 1
            continue
        if place >= len(found.shape):
            raise UsageError("there are more indices than axes", remedy="x[:, 0] of a matrix")
        picked = np.arange(found.shape[place])[each]
        shape = (*found.shape[:place], *picked.shape, *found.shape[place + 1 :])
        if 0 in shape or picked.ndim > 1:
            raise UsageError("nothing, or a table of places, is taken", remedy="x[:, 0], x[:, 1:3], x[:, [0, 2]]")
        found = apply("Gather", found.dtype, shape, found, public(picked), axis=place)
        place += picked.ndim
    return found


def as_node(value: Any) -> Node:
    """Return a value as it is, or a public array as one."""
    return value if isinstance(value, Node) else public(value)


def filled(x: Node, value: Any, dtype: Any) -> Node:
    """Return one public value a row."""
    kept = x.dtype if dtype is None else kind_of(dtype)
    nothing = elementwise("Mul", WHOLE, cast(x, WHOLE) if x.dtype == TRUTH else x, cast(public(0), x.dtype))
    return cast(elementwise("Add", nothing.dtype, nothing, cast(public(value), nothing.dtype)), kept)


def _joined(nodes: Sequence[Node], place: int) -> Node:
    dtype = kind_of(np.result_type(*(each.dtype for each in nodes)))
    first = nodes[0].shape
    outer = {(*each.shape[:place], *each.shape[place + 1 :]) for each in nodes}
    if len(outer) != 1 or first[:1] != (ROWS,):
        raise UsageError("what is joined has other sizes beside this axis", remedy="give columns of equal shape")
    shape = (*first[:place], sum(each.shape[place] for each in nodes), *first[place + 1 :])
    if dtype == TRUTH:
        return cast(_joined([cast(each, WHOLE) for each in nodes], place), TRUTH)
    return apply("Concat", dtype, shape, *(cast(each, dtype) for each in nodes), axis=place)


def _axis(axis: Any, rank: int) -> int:
    if isinstance(axis, bool) or not isinstance(axis, int | np.integer) or not -rank <= axis < rank:
        raise UsageError(f"there is no axis {axis}", remedy=f"there are {rank}, and the first is the rows'")
    place = int(axis) % rank
    if place == 0:
        raise refusal("joining or reducing rows like this", "it is no sum over rows")
    return place


def _common(*values: Any) -> np.dtype[Any]:
    """Return numpy's type for these together: a Python number's is weak."""
    known = [
        each.dtype if isinstance(each, Node) else each if type(each) in (int, float) else public(each).dtype
        for each in values
    ]
    return kind_of(np.result_type(*known))
