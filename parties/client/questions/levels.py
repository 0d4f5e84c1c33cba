"""Round down as numpy does, by public levels: how many of them a value reaches, where its range has few.

A column's range is its owner's word, so the whole numbers in it are public: floor(x) is the lowest of them and how many
more x reaches.  All levels are looked up in one comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mpc.errors import UsageError
from parties.client.questions.expression import REAL, TRUTH, WHOLE, Node, apply, cast, elementwise, public, sized, walk

MOST_LEVELS = 64
"""Levels that one comparison looks up."""
_EXACT_WIDTH = 1 << 13
"""Ranges of whole numbers that are told apart where noise protects a comparison: it is made on 16 bits."""
Ends = tuple[float, float]


def ends_of(x: Node) -> Ends | None:
    """Return where each value lies, as far as columns' ranges say it; None if nothing is known."""
    known: dict[int, Ends | None] = {}
    for node in walk(x):
        reads = [known[id(each)] for each in node.reads]
        known[id(node)] = _ends(node, reads)
    return known[id(x)]


def _ends(node: Node, reads: list[Ends | None]) -> Ends | None:
    if node.value is not None:
        return (float(node.value.min()), float(node.value.max())) if node.value.size else None
    if node.column is not None:
        return node.ends
    if node.dtype == TRUTH:
        return (0.0, 1.0)
    if node.op == "ReduceSum" and reads[0] is not None:
        count = int(np.prod(node.reads[0].shape, dtype=object)) // int(np.prod(node.shape, dtype=object))
        return (reads[0][0] * count, reads[0][1] * count)
    rule = _RULES.get(node.op)
    if rule is None:
        return None
    given = [each for each in reads[: rule.reads] if each is not None]
    return None if len(given) < min(rule.reads, len(reads)) else rule.ends(*given)


class _Rule:
    def __init__(self, ends: Callable[..., Ends], reads: int = 1 << 16) -> None:
        self.ends, self.reads = ends, reads


def _corners(of: Callable[[float, float], float]) -> Callable[[Ends, Ends], Ends]:
    def ends(x: Ends, y: Ends) -> Ends:
        every = [of(a, b) for a in x for b in y]
        return min(every), max(every)

    return ends


def _union(*given: Ends) -> Ends:
    return min(low for low, _ in given), max(high for _, high in given)


_RULES: dict[str, _Rule] = {
    "Add": _Rule(_corners(lambda a, b: a + b)),
    "Sub": _Rule(_corners(lambda a, b: a - b)),
    "Mul": _Rule(_corners(lambda a, b: a * b)),
    "Neg": _Rule(lambda x: (-x[1], -x[0])),
    "Max": _Rule(lambda x, y: (max(x[0], y[0]), max(x[1], y[1]))),
    "Min": _Rule(lambda x, y: (min(x[0], y[0]), min(x[1], y[1]))),
    "Clip": _Rule(lambda x, low, high=(np.inf, np.inf): (max(x[0], low[0]), max(low[0], min(x[1], high[1])))),
    "Abs": _Rule(lambda x: (max(0.0, x[0], -x[1]), max(abs(x[0]), abs(x[1])))),
    "Cast": _Rule(lambda x: x),
    "ReduceMax": _Rule(lambda x: x, 1),
    "ReduceMean": _Rule(lambda x: x, 1),
    "ReduceMin": _Rule(lambda x: x, 1),
    "Gather": _Rule(lambda x: x, 1),
    "Reshape": _Rule(lambda x: x, 1),
    "Concat": _Rule(_union),
    "Where": _Rule(lambda _, x, y: _union(x, y)),
}


def reached(x: Node, levels: np.ndarray, op: str = "GreaterOrEqual") -> Node:
    """Return how many of the public levels each value reaches, or is above ("Greater").

    Raises:
        UsageError: there are more levels than one comparison looks up, or none.
    """
    if levels.ndim != 1 or not 1 <= levels.size <= MOST_LEVELS:
        raise UsageError(
            f"{levels.size} levels of one comparison", remedy=f"1 to {MOST_LEVELS}: fewer bins, or np.clip before"
        )
    dtype = REAL if REAL in (x.dtype, levels.dtype) else WHOLE
    laid = cast(sized(x, (*x.shape, 1)), dtype)
    bits = elementwise(op, TRUTH, laid, cast(public(levels), dtype))
    axes = public(np.array([len(x.shape)]))
    return apply("ReduceSum", WHOLE, x.shape, cast(bits, WHOLE), axes, keepdims=0)


def among(x: Node, values: Sequence[int]) -> Node | None:
    """Return 1 where a whole number is one of these, else 0; None where one comparison does not tell it exactly.

    The bits of its levels fall, so what a row changes is at most one however many values there are.
    """
    ends = ends_of(x) if x.dtype == WHOLE else None
    if ends is None or ends[1] - ends[0] > _EXACT_WIDTH:
        return None
    inside = sorted({value for value in values if ends[0] <= value <= ends[1]})
    starts = [value for value in inside if value - 1 not in inside]
    behind = [value + 1 for value in inside if value + 1 not in inside]
    if not 1 <= 2 * len(starts) <= MOST_LEVELS:
        return None
    levels = np.array([level for pair in zip(starts, behind, strict=True) for level in pair]) - 0.5
    laid = cast(sized(x, (*x.shape, 1)), REAL)
    bits = cast(elementwise("GreaterOrEqual", TRUTH, laid, public(levels)), WHOLE)
    rank, count = len(x.shape), len(starts)
    sides = public(np.arange(0, 2 * count, 2)), public(np.arange(1, 2 * count, 2))
    low, high = (apply("Gather", WHOLE, (*x.shape, count), bits, places, axis=rank) for places in sides)
    inner = elementwise("Sub", WHOLE, low, high)
    return apply("ReduceSum", WHOLE, x.shape, inner, public(np.array([rank])), keepdims=0)


def floor_divide(x: Node, y: Node) -> Node:
    """Return x // y for one public y."""
    by = _one_number(y)
    if by < 0:
        return floor_divide(elementwise("Neg", x.dtype, x), public(-by))
    low, count = _whole_numbers(x, by)
    if not count:
        return elementwise("Add", x.dtype, elementwise("Mul", x.dtype, x, _like(x, 0)), _like(x, low))
    levels = (np.arange(low + 1, low + 1 + count) * by).astype(x.dtype)
    return cast(elementwise("Add", WHOLE, reached(x, levels), public(low)), x.dtype)


def remainder(x: Node, y: Node) -> Node:
    """Return x % y for one public y; the result has the sign of y."""
    below = elementwise("Mul", x.dtype, floor_divide(x, y), y)
    return elementwise("Sub", x.dtype, x, below)


def floor(x: Node) -> Node:
    """Return the largest whole numbers that values reach; of x / 10 by levels of x, which are exact."""
    if x.dtype != REAL:
        return x
    if x.op == "Mul" and x.reads[1].value is not None and x.reads[1].value.size == 1 and x.reads[1].value.item() > 0:
        return floor_divide(x.reads[0], public(1 / x.reads[1].value))
    return floor_divide(x, public(1.0))


def ceil(x: Node) -> Node:
    """Return the smallest whole numbers that are no less."""
    return x if x.dtype != REAL else _negative(floor(_negative(x)))


def trunc(x: Node) -> Node:
    """Return values without what is behind the point."""
    if x.dtype != REAL:
        return x
    above, below = (floor(elementwise("Max", REAL, each, public(0.0))) for each in (x, _negative(x)))
    return elementwise("Sub", REAL, above, below)


def _negative(x: Node) -> Node:
    return elementwise("Neg", x.dtype, x)


def _like(x: Node, value: float) -> Node:
    return cast(public(value), x.dtype)


def _one_number(y: Node) -> Any:
    if y.value is None or y.value.size != 1 or not y.value.reshape(()):
        raise UsageError("a column is divided and rounded down by one public number", remedy="x // 10, x % 10")
    return y.value.reshape(())[()]


def _whole_numbers(x: Node, by: Any) -> tuple[int, int]:
    """(the lowest quotient, how many more there can be).

    Raises:
        UsageError: the range is not known, or has too many.
    """
    ends = ends_of(x)
    if ends is None:
        raise UsageError(
            "rounding down what has no declared range",
            cause="it is done by public levels, and follows from the ranges of columns and of + - * clip and where",
            remedy="np.clip(x, low, high) before it, or x.histogram(edges)",
        )
    low, high = (int(np.floor(end / by)) for end in ends)
    if high - low > MOST_LEVELS:
        raise UsageError(
            f"rounding down to {high - low + 1:,} whole numbers",
            cause=f"it is done by public levels, of which one comparison looks up {MOST_LEVELS}",
            remedy="np.clip(x, low, high) before it, a larger divisor, or x.histogram(edges)",
        )
    return low, high - low
