"""Comparisons, truth values, and choosing by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mpc.compiler.functions import LINEAR_FROM
from mpc.compiler.graph.attributes import Constant
from mpc.compiler.graph.graph import HALF_STEP, MOVES
from mpc.compiler.operators.absorbed import note_difference
from mpc.compiler.operators.boundless import (
    COMPARISONS,
    by_choice,
    decided,
    finite,
    note_choice,
    piecewise,
    refuse_far,
    within,
)
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.elementwise import difference, masking, product
from mpc.compiler.operators.facts import Always, Beyond, Never, Softplus, Truncated, Vanishing
from mpc.compiler.operators.masks import cut_off, hide, note_fill
from mpc.compiler.operators.maxima import floored
from mpc.compiler.operators.places import hot_of
from mpc.compiler.operators.registry import handles
from mpc.compiler.operators.vanishing import only_vanishes
from mpc.wires import broadcast


@handles("GreaterOrEqual", "LessOrEqual", "Greater", "Less")
def compare(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute [x >= y], a step of x - y; x > y is the opposite of y >= x.  Infinite constants decide it themselves."""
    left, right = node.input[:2]
    if _compare_with_constant(state, node):
        return
    _compared(state, node.op_type, left, right, node.output[0])
    if (
        node.op_type == "Greater"
        and state.is_constant(right)
        and (state.numbers(right, "a level") >= LINEAR_FROM).all()
    ):
        state.facts[node.output[0]] = Beyond(left)


def _compared(state: Context, operator: str, left: str, right: str, out: str | None = None) -> str:
    note_difference(state, left, right)
    if operator == "Equal":
        return _equal(state, left, right, out)
    if operator in ("Greater", "LessOrEqual"):
        left, right = right, left
    opposite = operator in ("Greater", "Less")
    bit = state.step(difference(state, left, right), 0.0, None if opposite else out)
    return negation(state, bit, out) if opposite else bit


def _compare_with_constant(state: Context, node: ModelNode) -> bool:
    """Compare with a constant that is infinite, or as good, or with what a condition put there; else False."""
    left, right = node.input[:2]
    constant = left if state.is_constant(left) else right if state.is_constant(right) else None
    if constant is None or state.constants[constant].dtype.kind not in "fiu":
        return False
    levels, first = state.numbers(constant, "a level"), constant == left
    if not within(levels).all():
        _compare_with(state, node, levels, first=first)
        return True
    value = right if first else left
    if levels.size != 1 or levels.ndim > len(state.secret(value)):
        return False
    compared = COMPARISONS[node.op_type]

    def found(values: np.ndarray) -> np.ndarray:
        return np.asarray(compared(levels, values) if first else compared(values, levels))

    def elsewhere(x: str) -> str:
        return _compared(state, node.op_type, *((constant, x) if first else (x, constant)))

    bit = by_choice(state, value, found, elsewhere)
    if bit is not None:
        state.alias(node.output[0], bit)
    return bit is not None


def _compare_with(state: Context, node: ModelNode, levels: np.ndarray, *, first: bool) -> None:
    """A value with constants of which some are infinite or no number; `first`: they are the left operand."""
    compared = COMPARISONS[node.op_type]

    def found(values: np.ndarray) -> np.ndarray:
        return np.asarray(compared(levels, values) if first else compared(values, levels))

    value = node.input[1] if first else node.input[0]
    if not within(levels).any() and (shape := broadcast(state.secret(value), levels.shape)) is not None:
        state.alias(node.output[0], decided(state, value, found, shape))
        return
    refuse_far(state, value)
    from_level = first == (node.op_type in ("GreaterOrEqual", "Less"))  # is it level - x that is at least 0, or below?

    def bits(x: str, values: np.ndarray) -> str:
        apart = state.scale(x, -1.0, values) if from_level else state.scale(x, 1.0, -values)
        if node.op_type == "Equal":
            return between(state, apart, (0.0, 1.0) if apart in state.integral else (-HALF_STEP, HALF_STEP))
        bit = state.step(apart, 0.0)
        return negation(state, bit) if node.op_type in ("Greater", "Less") else bit

    state.alias(node.output[0], piecewise(state, value, levels, bits, found(np.zeros(()))))


@handles("Equal")
def equal(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute [d >= 0] - [d >= 1] of whole numbers; of reals, within half a step."""
    left, right = node.input[:2]
    if any(isinstance(state.facts.get(name), Truncated) for name in (left, right)):
        if state.is_constant(left):
            left, right = right, left
        if state.is_constant(right) and len({*state.numbers(right, "the other operand").flat}) == 1:
            between(state, left, cut_window(float(state.constants[right].flat[0])), node.output[0])
            return
        left, right = (_cut(state, name) for name in (left, right))
    elif _compare_with_constant(state, node):
        return
    if not _equal_to_place(state, left, right, node.output[0]):
        _compared(state, "Equal", left, right, node.output[0])


def _equal(state: Context, left: str, right: str, out: str | None = None) -> str:
    d = difference(state, left, right)
    levels = (0.0, 1.0) if d in state.integral else (-HALF_STEP, HALF_STEP)
    if d not in state.integral:
        _note_tiny(state, left, right)
    return between(state, d, levels, out)


def _note_tiny(state: Context, *names: str) -> None:
    """Say so if zero counts as equal to a constant that is another number."""
    for name in names:
        if state.is_constant(name):
            sizes = np.abs(state.numbers(name, "the other operand"))
            if (tiny := sizes[(sizes > 0) & (sizes < HALF_STEP)]).size:
                state.note(
                    f"reals count as equal if they differ by less than {HALF_STEP:.2g}, so 0 counts as equal to "
                    f"{tiny[0]:.3g}: compare with 0, or with a range of numbers (Less, Greater)"
                )


def _equal_to_place(state: Context, left: str, right: str, out: str) -> bool:
    """Whether a number is a certain place that it was entered as: one of its zeros and ones says that already."""
    if state.is_constant(left):
        left, right = right, left
    value = state.constants.get(right)
    if value is None or value.size != 1 or value.dtype.kind not in "iu" or value.ndim > len(state.shapes[left]):
        return False
    entered, place = hot_of(state, left), int(value.reshape(-1)[0])
    if entered is None:
        return False
    there = 0 <= place < state.size(state.shapes[entered], -1, "a place")
    bit = state.take(entered, len(state.shapes[entered]) - 1, [place if there else -1])
    if not there:  # a place that is compared with anything is entered from 0 on
        state.facts[out] = Never()
    state.reshape(bit, state.shapes[left], out)
    state.integral.add(out)
    return True


def _cut(state: Context, name: str) -> str:
    """A value as whole numbers, if it stands for reals that are cut to them."""
    return state.to_whole(name, "zero") if isinstance(state.facts.get(name), Truncated) else name


def cut_window(value: float) -> tuple[float, float]:
    """Return the reals low <= x < high that are cut to this whole number, towards zero."""
    low = value if value > 0 else value - 1 + HALF_STEP
    return low, (value + 1 if value >= 0 else value + HALF_STEP)


def between(state: Context, x: str, levels: tuple[float, float], out: str | None = None) -> str:
    """Return [levels[0] <= x < levels[1]]"""
    bits = state.steps(x, levels)
    axis = len(state.shapes[bits]) - 1
    ends = [state.reshape(state.take(bits, axis, [i]), state.shapes[x]) for i in (0, 1)]
    return state.sum(ends, (1.0, -1.0), out, known=(0.0, 1.0))


@handles("IsNaN", "IsInf")
def is_no_number(state: Context, node: ModelNode, settings: Settings) -> None:
    """Tell that no number is missing or infinite: fixed point has none, and clients enter none that this reads."""
    x = node.input[0]
    shape = state.secret(x)
    if moved_from(state, x) in state.enterable:
        raise state.origin.refuse(
            f"it looks for {'missing' if node.op_type == 'IsNaN' else 'infinite'} numbers of an input",
            remedy="put missing ones in with an Imputer (ai.onnx.ml), or leave that step out and enter numbers only",
        )
    state.emit("constant", (), node.output[0], shape, Constant(weight=np.zeros(())))
    state.integral.add(node.output[0])
    state.facts[node.output[0]] = Never()


def moved_from(state: Context, x: str) -> str:
    """Return the value that only moves are between and this one."""
    writers = {node.writes: node for node in state.nodes}
    while x in writers and writers[x].op in MOVES and len(writers[x].reads) == 1:
        x = writers[x].reads[0]
    return x


@handles("Not")
def logical_not(state: Context, node: ModelNode, settings: Settings) -> None:
    negation(state, state.value(node.input[0]), node.output[0])
    if state.facts.get(node.input[0]) == Never():
        state.facts[node.output[0]] = Always()


def negation(state: Context, bit: str, out: str | None = None) -> str:
    """Return 1 - bit"""
    return state.sum((bit,), (-1.0,), out, 1.0, known=(0.0, 1.0))


@handles("And")
def logical_and(state: Context, node: ModelNode, settings: Settings) -> None:
    left, right = node.input[:2]
    product(state, left, right, node.output[0])


@handles("Or", "Xor")
def logical_or(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute a + b - a b;  a + b - 2 a b"""
    x, y = (state.value(name) for name in node.input[:2])
    both = state.multiply(x, y)
    state.sum((x, y, both), (1.0, 1.0, -1.0 if node.op_type == "Or" else -2.0), node.output[0])


@handles("Where")
def where(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute y + condition (x - y), with the constant as y if one of both is: so it is no wider than both."""
    condition, x, y = node.input[:3]
    out = node.output[0]
    if _vanishing(state, node):
        return
    note_choice(state, out, condition, x, y)
    x, y = finite(state, out, x), finite(state, out, y)
    if state.is_constant(condition):
        _chosen_publicly(
            state, replace(node, input=(condition, x, y)), state.constant(condition, "the condition").astype(bool)
        )
        return
    if (fact := state.facts.get(condition)) in (Always(), Never()):
        shape = state.joint(*(name for name in (condition, x, y) if not state.is_constant(name)))
        value = state.value(x if fact == Always() else y)
        state.alias(out, value if state.shapes[value] == shape else state.expand(value, shape))
        return
    if state.is_constant(x) and state.is_constant(y):
        values = cut_off(state, [state.numbers(name, "a branch") for name in (x, y)], out, zero=False)
        first, second = (floored(state, values[i], out) if not values[1 - i].any() else values[i] for i in (0, 1))
        state.scale(state.value(condition), first - second, second, out)
        return
    alike = state.shapes.get(x) == state.shapes.get(y) == state.shapes[condition]
    if alike and state.facts.get(y) == Softplus(x) and state.facts.get(condition) == Beyond(x):
        state.alias(out, y)  # which is x there
        return
    x, y = (_masked(state, name, out) if state.is_constant(name) else name for name in (x, y))
    chosen = state.value(condition)
    if state.is_constant(x) and not state.below:  # else what constants hide of y would not be found
        x, y, chosen = y, x, negation(state, chosen)
    found = state.multiply(difference(state, x, y), chosen)
    if state.is_constant(y):
        state.scale(found, 1.0, state.numbers(y, "a branch"), out)
    else:
        state.sum((found, state.value(y)), (1.0, 1.0), out)


def _vanishing(state: Context, node: ModelNode) -> bool:
    """Put 0 where a mask puts a number whose exponential is 0, if nothing else reads it; False for other choices."""
    condition, *branches = node.input[:3]
    out = node.output[0]
    constant = [each for each in branches if state.is_constant(each) and state.constants[each].dtype.kind in "fiu"]
    hidden = [each for each in constant if only_vanishes(state, out, state.constants[each])]
    if len(hidden) != 1:
        return False
    if state.splits and not state.told:  # a plan shows which it is
        return False
    [x] = [each for each in branches if each != hidden[0]]
    fill = state.constants[hidden[0]]
    if state.is_constant(x):
        if state.constants[x].any() or state.is_constant(condition) or fill.size > 1:
            return False
    elif fill.size > 1 or fill.ndim > len(state.secret(x)):
        return False
    keeps = hidden[0] == branches[1]
    if state.is_constant(condition):
        mask = state.constant(condition, "the condition").astype(bool) == keeps
        kept = state.stored(mask.astype(np.float64), mask.shape)
    else:
        kept = state.value(condition) if keeps else negation(state, state.value(condition))
    if state.is_constant(x):
        state.scale(kept, 0.0, 0.0, out)
    else:
        state.multiply(state.value(x), kept, out)
    state.facts[out] = Vanishing(kept)
    return True


def _masked(state: Context, name: str, out: str) -> str:
    """A constant branch under a name of its own; see `cut_off` and `floored`."""
    values = state.numbers(name, "a branch")
    note_fill(state, out, values)
    masked = state.fresh()
    [state.constants[masked]] = cut_off(state, [floored(state, values, out)], out, replaces=True)
    return masked


def _chosen_publicly(state: Context, node: ModelNode, condition: np.ndarray) -> None:
    """A constant condition: each branch times zeros and ones, which stay the owner's secret."""
    if condition.all() or not condition.any():
        chosen = node.input[1 if condition.all() else 2]
        others = [np.broadcast_shapes(condition.shape)]
        if others[0] in ((), (1,)) and not state.is_constant(chosen):
            state.alias(node.output[0], chosen)
            return
    parts: list[tuple[str, np.ndarray]] = []
    bias: np.ndarray | float = 0.0
    for name, mask in zip(node.input[1:3], (condition, ~condition), strict=True):
        if state.is_constant(name):
            value = state.numbers(name, "a branch")
            hide(state, node.output[0], value, mask)
            note_fill(state, node.output[0], value, mask)
            value = masking(state, floored(state, value, node.output[0]), node.output[0])
            bias = bias + np.where(mask, value, 0.0)
        else:
            parts.append((name, mask.astype(np.float64)))
    scaled = [state.scale(state.value(name), mask, bias if i == 0 else 0.0) for i, (name, mask) in enumerate(parts)]
    _joined(state, scaled, node.output[0])


def _joined(state: Context, names: Sequence[str], out: str) -> None:
    if len(names) == 1:
        state.reshape(names[0], state.shapes[names[0]], out)
    else:
        state.sum(names, [1.0] * len(names), out)
