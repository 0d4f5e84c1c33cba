"""Reductions, softmax, and the places of the largest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.elementwise import between, magnitude
from mpc.compiler.operators.facts import Mean, Ordered, Place, Square, Top
from mpc.compiler.operators.labels import one_hot
from mpc.compiler.operators.registry import handles

_MOST_RANKED = 256
_MOST_PLACES = 128
_GROUP = 16
_MOST_FACTORS = 64
_MOST_SUMMED = 512
_RANKED_FRACTION = 28
"""Fractional bits of what is ranked: as many as an input has at most."""
_RANKED_BITS = 48


# ------------------------------------------------------------------- reductions


@handles(
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceProd",
)
def reduce(state: Context, node: ModelNode, settings: Settings) -> None:
    x = state.value(node.input[0])
    axes = _reduced(state, node, settings, x)
    if axes is None:
        state.alias(node.output[0], x)
        return
    kept = _REDUCTIONS[node.op_type](state, x, axes)
    shape = state.shapes[x]
    keep = settings.get("keepdims", 1)
    final = [1 if axis in axes else size for axis, size in enumerate(shape) if keep or axis not in axes]
    state.reshape(kept, tuple(final), node.output[0])
    if node.op_type in ("ReduceMax", "ReduceLogSumExp") and axes == [len(shape) - 1]:
        state.facts[node.output[0]] = Top(x)
    if node.op_type == "ReduceMean":
        fact = state.facts.get(x)
        of = fact if isinstance(fact, Square) and state.shapes[fact.of] == shape else x
        state.facts[node.output[0]] = Mean(tuple(axes), of)


def _reduced(state: Context, node: ModelNode, settings: Settings, x: str) -> list[int] | None:
    """The axes, sorted; None if nothing is to be done."""
    given = state.optional(node, 1, "the axes")
    axes = settings.get("axes") if given is None else given.reshape(-1).tolist()
    if not axes:
        if settings.get("noop_with_empty_axes", 0) and node.op_type in ("ReduceSum", "ReduceMean", "ReduceMax"):
            return None
        if settings.get("noop_with_empty_axes", 0):
            raise state.origin.refuse(
                "no axes to reduce",
                attribute="noop_with_empty_axes",
                remedy=f"leave {node.op_type} out, or name its axes",
            )
        axes = range(len(state.shapes[x]))
    return sorted({state.axis(int(axis), state.shapes[x]) for axis in axes})


def _sum(state: Context, x: str, axes: Sequence[int]) -> str:
    return state.total(x, axes)


def _mean(state: Context, x: str, axes: Sequence[int]) -> str:
    return state.mean(x, axes)


def _sum_of_squares(state: Context, x: str, axes: Sequence[int]) -> str:
    return state.total(state.multiply(x, x), axes)


def _norm(state: Context, x: str, axes: Sequence[int]) -> str:
    return state.function("sqrt", _sum_of_squares(state, x, axes))


def _sum_of_sizes(state: Context, x: str, axes: Sequence[int]) -> str:
    return state.total(magnitude(state, x), axes)


def _log_of_sum(state: Context, x: str, axes: Sequence[int]) -> str:
    return state.function("log", state.total(x, axes))


def _log_sum_exp(state: Context, x: str, axes: Sequence[int]) -> str:
    """max x + log sum exp(x - max x)"""
    top = _maximum(state, x, axes)
    powers = state.function("exp_negative", below(state, x, top), known=(0.0, 1.0))
    total = state.total(powers, axes, known=(1.0, float(state.count(x, axes))))
    return state.sum((top, state.function("log", total)), (1.0, 1.0))


def _maximum(state: Context, x: str, axes: Sequence[int], sign: float = 1.0) -> str:
    """Over several axes at once; they stay with size 1."""
    shape = state.shapes[x]
    moved, back = state.last(x, axes)
    lead = state.shapes[moved][: len(shape) - len(axes)]
    flat = state.reshape(moved, (*lead, state.count(x, axes)))
    top = state.maximum(flat if sign > 0 else state.scale(flat, -1.0))
    top = top if sign > 0 else state.scale(top, -1.0)
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return state.reshape(top, kept)


def _minimum(state: Context, x: str, axes: Sequence[int]) -> str:
    return _maximum(state, x, axes, -1.0)


def _product(state: Context, x: str, axes: Sequence[int]) -> str:
    """Halves times each other, in as few rounds as possible."""
    shape, number = state.shapes[x], state.count(x, axes)
    if number > _MOST_FACTORS:
        raise state.origin.refuse(
            f"a product of {number} factors; {_MOST_FACTORS} are possible",
            remedy=(
                f"multiply groups of at most {_MOST_FACTORS} factors (a Reshape and a ReduceProd), "
                "then their products; or, of positive numbers, use Exp of a ReduceSum of Log"
            ),
        )
    moved, _ = state.last(x, axes)
    lead = state.shapes[moved][: len(shape) - len(axes)]
    flat, axis = state.reshape(moved, (*lead, number)), len(lead)
    while number > 1:
        half = number // 2
        sides = [state.take(flat, axis, range(start, start + half)) for start in (0, half)]
        rest = [state.take(flat, axis, [number - 1])] if number % 2 else []
        together = state.multiply(*sides)
        flat, number = state.concat([together, *rest], axis) if rest else together, half + len(rest)
    return state.reshape(flat, tuple(1 if axis in axes else size for axis, size in enumerate(shape)))


_REDUCTIONS = {
    "ReduceProd": _product,
    "ReduceSum": _sum,
    "ReduceMean": _mean,
    "ReduceMax": _maximum,
    "ReduceMin": _minimum,
    "ReduceL1": _sum_of_sizes,
    "ReduceL2": _norm,
    "ReduceSumSquare": _sum_of_squares,
    "ReduceLogSum": _log_of_sum,
    "ReduceLogSumExp": _log_sum_exp,
}


# ------------------------------------------------------------------- softmax


@handles("Softmax", "LogSoftmax")
def softmax(state: Context, node: ModelNode, settings: Settings) -> None:
    """Before opset 13 the axes from `axis` on are one."""
    x = state.value(node.input[0])
    shape = state.shapes[x]
    axis = state.axis(settings.get("axis", -1 if state.opset >= 13 else 1), shape)
    axes = [axis] if state.opset >= 13 else list(range(axis, len(shape)))
    if node.op_type == "Softmax":
        softmax_of(state, x, axes, node.output[0])
        return
    rest = below(state, x, _maximum(state, x, axes))
    powers = state.function("exp_negative", rest, known=(0.0, 1.0))
    total = state.total(powers, axes, known=(1.0, float(state.count(x, axes))))
    state.sum((rest, state.function("log", total)), (1.0, -1.0), node.output[0])
    state.facts[node.output[0]] = Ordered(x, tuple(axes), shares=False)


def softmax_of(state: Context, x: str, axes: Sequence[int], out: str | None = None) -> str:
    """exp(x - max x) times one over its sum, which lies between 1 and the number of elements."""
    number = float(state.count(x, axes))
    if number == 1:
        raise state.origin.refuse("a softmax over one element is 1", remedy="leave it out: its result is always 1")
    powers = state.function("exp_negative", below(state, x, _maximum(state, x, axes)), known=(0.0, 1.0))
    total = state.total(powers, axes, known=(1.0, number))
    inverse = state.function("reciprocal", total, known=(1.0 / number, 1.0))
    name = state.multiply(powers, inverse, out, known=(0.0, 1.0))
    state.facts[name] = Ordered(x, tuple(axes), shares=True)
    return name


def below(state: Context, x: str, top: str) -> str:
    """x - max x, which is not positive."""
    return state.sum((x, top), (1.0, -1.0), known=(-np.inf, 0.0))


# ------------------------------------------------------------------- places


@handles("ArgMax", "ArgMin")
def argmax(state: Context, node: ModelNode, settings: Settings) -> None:
    x = state.value(node.input[0])
    shape = state.shapes[x]
    axis = state.axis(settings.get("axis", 0), shape)
    x = compared(state, x, axis)
    moved, back = state.last(x if node.op_type == "ArgMax" else state.scale(x, -1.0), [axis])
    place = argmax_of(state, moved, bool(settings.get("select_last_index", 0)))
    if settings.get("keepdims", 1):
        place = place if back == tuple(range(len(shape))) else state.transpose(place, back)
        state.reshape(place, state.shapes[place], node.output[0])
    else:
        state.reshape(place, state.shapes[place][:-1], node.output[0])
    state.facts[node.output[0]] = Place()


def compared(state: Context, x: str, axis: int) -> str:
    """What to compare instead of x along an axis: behind a softmax its argument, whose equals are equal for certain."""
    match state.facts.get(x):
        case Ordered(of, axes) if axis in axes and state.shapes[of] == state.shapes[x]:
            return compared(state, of, axis)
    return x


def argmax_of(state: Context, x: str, last: bool = False) -> str:
    """Along the last axis, which stays with size 1."""
    shape = state.shapes[x]
    if state.size(shape, -1, "a maximum") == 1:
        raise state.origin.refuse("the largest of one element", remedy="leave it out: its result is always 0")
    number = int(shape[-1])
    if number > _MOST_PLACES:
        return _place_of_many(state, x, number, last=last)
    name = state.emit("argmax", (x,), None, (*shape[:-1], 1), last=last)
    state.integral.add(name)
    state.facts[name] = Place()
    return name


def _place_of_many(state: Context, x: str, number: int, *, last: bool) -> str:
    """The place within the group of the largest maximum, which a one-hot place of that group chooses."""
    lead, axis = state.shapes[x][:-1], len(state.shapes[x]) - 1
    groups = -(-number // _GROUP)
    order = [min(i, number - 1) for i in range(groups * _GROUP)]  # the last one again is never the first of equals
    order = [number - 1 - i for i in order] if last else order
    grouped = state.reshape(state.take(x, axis, order), (*lead, groups, _GROUP))
    local = state.reshape(argmax_of(state, grouped), (*lead, groups))
    top = state.reshape(state.maximum(grouped), (*lead, groups))
    apart = state.emit("round", (top,), None, state.shapes[top], fraction=_RANKED_FRACTION, apart=-1, always=True)
    group = argmax_of(state, apart)
    hot = state.reshape(one_hot(state, group, range(groups)), (*lead, groups))
    chosen = state.total(state.multiply(hot, local), (axis,), known=(0.0, float(_GROUP - 1)))
    place = state.sum((group, chosen), (float(_GROUP), 1.0))
    place = state.sum((place,), (-1.0,), None, float(number - 1)) if last else place
    state.integral.add(place)
    state.facts[place] = Place()
    return place


def _ranked_instead(k: int, n: int) -> str:
    """What helps where k of n cannot be ranked."""
    if n == 1:
        return "leave it out: of one element it changes nothing"
    if not 1 <= k <= n:
        return f"ask for 1 to {n}"
    fewer = (
        f"rank at most {_MOST_RANKED}: for nearest neighbours, fit the model to so many prototypes of the training "
        "points (KMeans centres of each class)"
    )
    alone = "take the place with ArgMax or ArgMin, which has no such limit; or " if k == 1 else ""
    return (
        f"{alone}{fewer}; or end the model before the ranking (onnx.utils.extract_model) and rank what is revealed, "
        "which shows every distance or score to its reader"
    )


@handles("TopK")
def top_k(state: Context, node: ModelNode, settings: Settings) -> None:
    """Every pair is compared once; an element's rank is how many beat it, the first of equals winning.

    One-hot places of ranks 0 .. k - 1 are differences of steps of the ranks.
    """
    given = state.optional(node, 1, "k")
    k = int(settings["k"] if given is None else given.reshape(-1)[0])
    sign = 1.0 if settings.get("largest", 1) else -1.0
    x = state.value(node.input[0])
    axis = state.axis(settings.get("axis", -1), state.shapes[x])
    moved, back = state.last(x, [axis])
    keys, _ = state.last(compared(state, x, axis), [axis])
    n = state.size(state.shapes[moved], -1, "a ranking")
    if not 1 <= k <= n or n > _MOST_RANKED or n == 1:
        raise state.origin.refuse(
            f"the {k} largest of {n}; 2 to {_MOST_RANKED} elements can be ranked", remedy=_ranked_instead(k, n)
        )
    rounded = state.emit("round", (moved,), None, state.shapes[moved])
    chosen = _one_hot(state, _ranks(state, _apart(state, keys, sign), n, sign), n, k)
    lead = state.shapes[moved][:-1]
    row = state.reshape(rounded, (*lead, 1, n))
    values = state.reshape(state.matmul(row, chosen), (*lead, k))
    weighed = state.emit("weigh", (chosen,), None, (*lead, n, k), axis=len(lead), factors=tuple(map(float, range(n))))
    state.integral.add(weighed)
    places = state.reshape(state.total(weighed, (len(lead),)), (*lead, k))
    for name, found in zip(node.output, (values, places), strict=False):
        if name:
            state.transpose(found, back, name)


def _apart(state: Context, x: str, sign: float) -> str:
    """What is ranked: x, rounded, and each element worse than the one before it by as much as rounding can change."""
    return state.emit("round", (x,), None, state.shapes[x], fraction=_RANKED_FRACTION, apart=-int(sign))


def _ranks(state: Context, x: str, n: int, sign: float) -> str:
    """(.., n): by how many each element is beaten."""
    first, second = np.triu_indices(n, 1)
    lead, axis = state.shapes[x][:-1], len(state.shapes[x]) - 1
    sides = [state.take(x, axis, part.tolist()) for part in (first, second)]
    apart = state.sum(sides, (sign, -sign))
    wins = state.reshape(state.steps(apart, (0.0,), bits=_RANKED_BITS), state.shapes[apart])  # does the first win?
    number = np.zeros((n, n), dtype=np.int64)
    number[first, second] = number[second, first] = np.arange(len(first))
    others = ~np.eye(n, dtype=bool)
    taken = state.take(wins, axis, number[others].tolist())
    # against a later element, a win counts - 1 and one is added; against an earlier one, its win counts
    signs = tuple(-1.0 if j > i else 1.0 for i in range(n) for j in range(n) if i != j)
    signed = state.emit("weigh", (taken,), None, state.shapes[taken], axis=axis, factors=signs)
    state.integral.add(signed)
    beaten = state.total(state.reshape(signed, (*lead, n, n - 1)), (axis + 1,))
    return state.scale(state.reshape(beaten, (*lead, n)), 1.0, np.arange(n - 1, -1, -1, dtype=np.float64))


def _one_hot(state: Context, ranks: str, n: int, k: int) -> str:
    """(.., n, k): is element i of rank r?"""
    levels = tuple(float(r) for r in range(1, k + 1))
    beyond = state.steps(ranks, levels)  # [rank >= 1] .. [rank >= k]
    axis = len(state.shapes[beyond]) - 1
    before = state.take(beyond, axis, [-1, *range(k - 1)])  # [rank >= 0] is 1: zero here, one below
    ones = np.zeros(k)
    ones[0] = 1.0
    return state.scale(state.sum((before, beyond), (1.0, -1.0)), 1.0, ones)


# ------------------------------------------------------------------- sums along an axis


@handles("CumSum")
def cumulative_sum(state: Context, node: ModelNode, settings: Settings) -> None:
    """Each element is the sum of the slices up to it: public, and so free."""
    x = state.value(node.input[0])
    axis = state.axis(state.integers(node.input[1], "the axis")[0], state.shapes[x])
    number = state.size(state.shapes[x], axis, "a running sum")
    if number > _MOST_SUMMED:
        raise state.origin.refuse(
            f"a running sum of {number} elements; {_MOST_SUMMED} are possible",
            remedy=(
                f"sum parts of at most {_MOST_SUMMED} elements (Split, CumSum), and Add the total "
                "of all parts before each; or MatMul with a triangle of ones"
            ),
        )
    skip, backwards = int(settings.get("exclusive", 0)), bool(settings.get("reverse", 0))
    shape = state.shapes[x]
    rows = []
    for i in range(number):
        taken = range(i + skip, number) if backwards else range(0, i + 1 - skip)
        rows += [*taken, *[-1] * (number - len(taken))]
    windows = state.take(x, axis, rows)
    split = state.reshape(windows, (*shape[:axis], number, number, *shape[axis + 1 :]))
    state.reshape(state.total(split, (axis + 1,)), shape, node.output[0])


@handles("Hardmax")
def hardmax(state: Context, node: ModelNode, settings: Settings) -> None:
    """One where the place of the maximum is, the first of equals; before opset 13 the axes from `axis` on are one."""
    x = state.value(node.input[0])
    shape = state.shapes[x]
    axis = state.axis(settings.get("axis", -1 if state.opset >= 13 else 1), shape)
    axes = [axis] if state.opset >= 13 else list(range(axis, len(shape)))
    moved, back = state.last(x, axes)
    lead, number = state.shapes[moved][: len(shape) - len(axes)], state.count(x, axes)
    place = argmax_of(state, state.reshape(moved, (*lead, number)))
    apart = state.scale(place, 1.0, -np.arange(number, dtype=np.float64))
    chosen = state.reshape(between(state, apart, (0.0, 1.0)), state.shapes[moved])
    state.transpose(chosen, back, node.output[0])
