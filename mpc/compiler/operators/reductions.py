"""Reductions and softmax; the places of the largest are in `ranking`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpc.compiler.graph.attributes import Constant
from mpc.compiler.graph.hidden import Hidden
from mpc.compiler.graph.writer import FIX_BATCH
from mpc.compiler.operators import averages
from mpc.compiler.operators.absorbed import note_shares
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.elementwise import magnitude
from mpc.compiler.operators.facts import Length, Mean, Ordered, Square, SquaredLength, Top
from mpc.compiler.operators.known_sums import constant_sum, total_of
from mpc.compiler.operators.masks import cut_of, hidden_of
from mpc.compiler.operators.registry import handles
from mpc.wires import BATCH

_ROWS = (
    "ReduceSum over the first axis is computed with noise that hides each row: --epsilon 0.5, in Python "
    f"epsilon={{'y': 0.5}}, and a mean is that sum by the number of rows; or {FIX_BATCH}"
)
_MOST_FACTORS = 64
_MOST_SUMMED = 512


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
        state.alone.add(x)
        state.alias(node.output[0], x)
        return
    shape, keep = state.shapes[x], bool(settings.get("keepdims", 1))
    if node.op_type == "ReduceSum" and constant_sum(state, x, axes, node.output[0], keep):
        return
    if node.op_type == "ReduceSum" and state.sums_rows and axes[0] == 0 and shape[0] == BATCH:
        kept = state.rows_sum(state.total(x, axes[1:]))
    elif axes[0] == 0 and shape[0] == BATCH:
        raise state.origin.refuse(
            f"{node.op_type} over the rows of a run, which may be of different people", remedy=_ROWS
        )
    else:
        kept = _REDUCTIONS[node.op_type](state, x, axes)
    final = [1 if axis in axes else size for axis, size in enumerate(shape) if keep or axis not in axes]
    state.reshape(kept, tuple(final), node.output[0])
    if node.op_type == "ReduceSum":
        averages.note_total(state, x, axes, node.output[0], keep)
    if node.op_type in ("ReduceL1", "ReduceL2") and keep:
        state.facts[node.output[0]] = Length(x, tuple(axes), node.op_type.removeprefix("Reduce"))
    square = x if node.op_type == "ReduceSumSquare" else _rooted(state, x) if node.op_type == "ReduceSum" else None
    if square is not None and keep and node.output[0] not in state.facts:
        state.facts[node.output[0]] = SquaredLength(square, tuple(axes))
    if node.op_type in ("ReduceMax", "ReduceLogSumExp") and axes == [len(shape) - 1]:
        state.facts[node.output[0]] = Top(x)
    if node.op_type == "ReduceMean":
        of = _rooted(state, x)
        state.facts[node.output[0]] = Mean(tuple(axes), x if of is None else Square(of))


def _rooted(state: Context, x: str) -> str | None:
    """Return of what a value is the square."""
    fact = state.facts.get(x)
    return fact.of if isinstance(fact, Square) and state.shapes[fact.of] == state.shapes[x] else None


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


def _mean(state: Context, x: str, axes: Sequence[int]) -> str:
    return state.mean(x, axes)


def _sum_of_squares(state: Context, x: str, axes: Sequence[int]) -> str:
    return state.total(state.multiply(x, x), axes)


def _norm(state: Context, x: str, axes: Sequence[int]) -> str:
    return state.function("sqrt", _sum_of_squares(state, x, axes))


def _sum_of_sizes(state: Context, x: str, axes: Sequence[int]) -> str:
    return state.total(magnitude(state, x), axes)


def _log_of_sum(state: Context, x: str, axes: Sequence[int]) -> str:
    return state.function("log", total_of(state, x, axes))


def _log_sum_exp(state: Context, x: str, axes: Sequence[int]) -> str:
    """max x + log sum exp(x - max x)"""
    top = _maximum(state, x, axes)
    number = float(state.count(x, axes))
    powers = state.function("exp_negative", below(state, x, top), known=(0.0, 1.0), terms=number)
    total = state.total(powers, axes, known=(1.0, number))
    return state.sum((top, state.function("log", total)), (1.0, 1.0))


def _maximum(
    state: Context,
    x: str,
    axes: Sequence[int],
    sign: float = 1.0,
    hidden: Hidden | None = None,
    cut: float | None = None,
) -> str:
    """Over several axes at once; they stay with size 1."""
    shape = state.shapes[x]
    moved, back = state.last(x, axes)
    lead = state.shapes[moved][: len(shape) - len(axes)]
    flat = state.reshape(moved, (*lead, state.count(x, axes)))
    top = state.maximum(flat if sign > 0 else state.scale(flat, -1.0), None, hidden, cut)
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
        first, second = (state.take(flat, axis, range(start, start + half)) for start in (0, half))
        rest = [state.take(flat, axis, [number - 1])] if number % 2 else []
        together = state.multiply(first, second)
        flat, number = state.concat([together, *rest], axis) if rest else together, half + len(rest)
    return state.reshape(flat, tuple(1 if axis in axes else size for axis, size in enumerate(shape)))


_REDUCTIONS = {
    "ReduceProd": _product,
    "ReduceSum": total_of,
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
    """Compute a softmax; before opset 13 the axes from `axis` on are one."""
    x = state.value(node.input[0])
    shape = state.shapes[x]
    axis = state.axis(settings.get("axis", -1 if state.opset >= 13 else 1), shape)
    axes = [axis] if state.opset >= 13 else list(range(axis, len(shape)))
    if node.op_type == "Softmax":
        softmax_of(state, x, axes, node.output[0])
        return
    note_shares(state, x, public=True)
    rest, number = below(state, x, _maximum(state, x, axes)), float(state.count(x, axes))
    powers = state.function("exp_negative", rest, known=(0.0, 1.0), terms=number)
    total = state.total(powers, axes, known=(1.0, number))
    state.sum((rest, state.function("log", total)), (1.0, -1.0), node.output[0])
    state.facts[node.output[0]] = Ordered(x, tuple(axes), shares=False)


def softmax_of(state: Context, x: str, axes: Sequence[int], out: str | None = None) -> str:
    """Return exp(x - max x) times one over its sum, which lies between 1 and the number of elements.

    What the model's constants hide is no part of it; see `masks`.
    """
    number = float(state.count(x, axes))
    if number == 1:
        state.note("a softmax over one element is 1, whatever that is")
        return state.emit("constant", (), out, state.shapes[x], Constant(weight=np.ones(())))
    note_shares(state, x)
    found = hidden_of(state, x) if [*axes] == [len(state.shapes[x]) - 1] else None
    seen, hidden = found or (x, None)
    if hidden is not None and hidden.certain:
        number = float(max(2, hidden.most))
    rest = below(state, seen, _maximum(state, seen, axes, hidden=hidden, cut=cut_of(state, x)))
    powers = state.function("exp_negative", rest, known=(0.0, 1.0), hidden=hidden, terms=number)
    total = state.total(powers, axes, known=(1.0, number))
    inverse = state.function("reciprocal", total, known=(1.0 / number, 1.0))
    name = state.multiply(powers, inverse, out, known=(0.0, 1.0))
    state.facts[name] = Ordered(x, tuple(axes), shares=True)
    return name


def below(state: Context, x: str, top: str) -> str:
    """Return x - max x, which is not positive."""
    return state.sum((x, top), (1.0, -1.0), known=(-np.inf, 0.0))


# ------------------------------------------------------------------- places


# ------------------------------------------------------------------- sums along an axis


@handles("CumSum")
def cumulative_sum(state: Context, node: ModelNode, settings: Settings) -> None:
    """Sum the slices up to each element: public, and so free."""
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
