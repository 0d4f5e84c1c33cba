"""Constants that no value reaches: infinities, and what converters write in their place, as the largest float32.

What is decided by them is decided without a look at any value, whatever ranges are declared, and so without a gate.
Which constants are such stands in the plan then, as which thresholds of trees are.  What masks put in the place of
values may be as large: where a condition chose it, the condition says what a comparison with a constant finds, behind
moves too, and of numbers from 1e10 on; else that is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np

from mpc.compiler.graph.attributes import Take
from mpc.compiler.graph.graph import MOVES, Node, Shape
from mpc.compiler.operators.context import BOUNDLESS, Context, ModelNode
from mpc.compiler.operators.facts import Chosen
from mpc.wires import broadcast

Compute = Callable[[str, np.ndarray], str]
Constants = Callable[[np.ndarray], np.ndarray]
Found = str | np.ndarray
Elsewhere = Callable[[str], Found]
COMPARISONS = {
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
}
_CHOSEN = 1e10
"""Numbers of this size that a condition chooses leave no digits to what stands beside them."""
_LARGEST = float(np.finfo(np.float32).max)
_MOVING = ("Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def within(values: np.ndarray) -> np.ndarray:
    """Tell whether constants are numbers that a value can be compared with."""
    return np.asarray(np.abs(values) < BOUNDLESS)


def note_choice(state: Context, out: str, condition: str, first: str, second: str) -> None:
    """Note that a value holds constants that are far from all others, by a condition, if it does."""

    def far(name: str) -> bool:
        if state.is_constant(name):
            return _is_far(state.constants[name], _CHOSEN)
        return isinstance(state.facts.get(name), Chosen)

    if far(first) or far(second):
        state.facts[out] = Chosen(condition, first, second)


def decided(state: Context, x: str, compared: Constants, shape: Shape) -> str:
    """Compare x with constants that no value reaches.

    Args:
        compared: the comparison, of x with the constants.
        shape: of what is found.

    Raises:
        ModelError: x holds such constants itself, and not where a condition chose them.
    """

    def elsewhere(name: str) -> np.ndarray:
        refuse_far(state, name)
        return compared(np.zeros(())).astype(np.float64)

    found = _found(state, x, compared, elsewhere, moved=compared(np.zeros(())).size == 1)
    return _of_shape(state, elsewhere(x) if found is None else found, shape)


def by_choice(state: Context, x: str, compared: Constants, elsewhere: Elsewhere) -> str | None:
    """Compare x with one constant where a condition chose far numbers, moved perhaps; None of another x.

    What it chose is found by the condition then: no wire has to hold it beside other numbers.

    Args:
        compared: the comparison, of constants with the constant.
        elsewhere: writes it, of another value.
    """
    found = _found(state, x, compared, elsewhere, moved=True)
    return None if found is None else _of_shape(state, found, state.shapes[x])


def _of_shape(state: Context, found: Found, shape: Shape) -> str:
    if isinstance(found, np.ndarray):
        return state.stored(found, shape)
    return found if state.shapes[found] == shape else state.expand(found, shape)


def _found(state: Context, x: str, compared: Constants, elsewhere: Elsewhere, *, moved: bool) -> Found | None:
    match state.facts.get(x):
        case Chosen(condition, first, second):
            one, other = (_side(state, each, compared, elsewhere, moved=moved) for each in (first, second))
            return _chosen(state, condition, one, other)
    node = {node.writes: node for node in state.nodes}.get(x) if moved else None
    if node is None or node.op not in MOVES or len(node.reads) != 1:
        return None
    if isinstance(node.attributes, Take) and min(node.attributes.indices) < 0:  # zeros come in
        return None
    found = _found(state, node.reads[0], compared, elsewhere, moved=True)
    if found is None:
        return None
    whole = _of_shape(state, found, state.shapes[node.reads[0]])
    name = state.emit(node.op, (whole,), None, node.shape, node.attributes)
    state.integral.add(name)
    return name


def _side(state: Context, x: str, compared: Constants, elsewhere: Elsewhere, *, moved: bool) -> Found:
    if state.is_constant(x):
        return compared(state.numbers(x, "an operand")).astype(np.float64)
    found = _found(state, x, compared, elsewhere, moved=moved)
    return elsewhere(x) if found is None else found


def _chosen(state: Context, condition: str, one: Found, other: Found) -> Found:
    """Return one where a condition is true, else the other."""
    if state.is_constant(condition):
        where = state.constants[condition].astype(bool)
        if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
            return np.where(where, one, other)
        sides = [_where_told(state, one, where), _where_told(state, other, ~where)]
        return state.sum(sides, (1.0, 1.0), known=(0.0, 1.0))
    bit = state.value(condition)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return state.scale(bit, one - other, other)
    if isinstance(other, np.ndarray):
        one, other, bit = other, str(one), state.sum((bit,), (-1.0,), None, 1.0, known=(0.0, 1.0))
    apart = state.scale(other, -1.0, one) if isinstance(one, np.ndarray) else state.sum((one, other), (1.0, -1.0))
    return state.sum((state.multiply(apart, bit), other), (1.0, 1.0), known=(0.0, 1.0))


def _where_told(state: Context, found: Found, where: np.ndarray) -> str:
    if isinstance(found, np.ndarray):
        values = found * where
        return state.stored(values, values.shape)
    return state.scale(found, where.astype(np.float64))


def finite(state: Context, out: str, name: str) -> str:
    """Return a branch that a condition chooses, without infinities if only comparisons read them: these ask it."""
    if not state.is_constant(name) or not isinstance(state.facts.get(out), Chosen) or not _only_compared(state, out):
        return name
    values, found = state.numbers(name, "a branch"), state.fresh()
    state.constants[found] = np.where(np.isinf(values), np.copysign(_LARGEST, values), values)
    return found


def _only_compared(state: Context, name: str) -> bool:
    """Do only comparisons with a constant read a value, on its way moved or chosen once more?"""
    readers = state.readers.get(name, [])
    return bool(readers) and name not in state.revealed and all(_compares(state, reader, name) for reader in readers)


def _compares(state: Context, reader: ModelNode, name: str) -> bool:
    if reader.op_type in COMPARISONS:
        others = [state.known(other) for other in reader.input if other != name]
        return len(others) == 1 and others[0] is not None and others[0].size == 1
    moved = reader.op_type in _MOVING and reader.input[0] == name
    chosen = reader.op_type == "Where" and reader.input[0] != name
    return (moved or chosen) and _only_compared(state, reader.output[0])


def refuse_far(state: Context, x: str) -> None:
    """Refuse to compare a value with constants that no value reaches if it may hold such itself."""
    if _holds_far(state, x):
        raise state.origin.refuse(
            f"it compares numbers of {BOUNDLESS:g} and more, or infinities, with a value that may hold such numbers",
            remedy="compare the condition of the Where by which they were put there; or put -1e9 in their place, and "
            "compare with half of it",
        )


def _holds_far(state: Context, x: str) -> bool:
    """Is anything that x is made of as large as what no value reaches?"""
    writers, left, seen = {node.writes: node for node in state.nodes}, [x], {x}
    while left:
        node = writers.get(left.pop())
        if node is None:
            continue
        if _has_far(node):
            return True
        left += [read for read in node.reads if read not in seen]
        seen.update(node.reads)
    return False


def _has_far(node: Node) -> bool:
    held = [getattr(node.attributes, field.name) for field in fields(node.attributes)]
    return any(_is_far(each) for each in held if isinstance(each, float | np.ndarray))


def _is_far(values: float | np.ndarray, least: float = BOUNDLESS) -> bool:
    values = np.asarray(values)
    return values.dtype.kind == "f" and values.size > 0 and not max(-values.min(), values.max()) < least


def piecewise(state: Context, x: str, values: np.ndarray, compute: Compute, elsewhere: np.ndarray | None) -> str:
    """Apply `compute` to x and constants where these are numbers; elsewhere take what is given, or x itself."""
    shape = broadcast(state.shapes[x], values.shape)
    inside = within(values)
    if shape is None or inside.all():
        return compute(x, values)
    whole = x if state.shapes[x] == shape else state.expand(x, shape)
    if not inside.any():
        return whole if elsewhere is None else state.stored(np.asarray(elsewhere, np.float64), shape)
    if inside.ndim and inside.size == inside.shape[-1] == shape[-1]:  # columns: they are taken apart, for nothing
        return _by_columns(state, whole, values.reshape(-1), compute, elsewhere)
    found = state.scale(compute(whole, np.where(inside, values, 0.0)), inside.astype(np.float64))
    if elsewhere is not None:
        return state.scale(found, 1.0, np.where(inside, 0.0, elsewhere))
    return state.sum((found, state.scale(whole, (~inside).astype(np.float64))), (1.0, 1.0))


def _by_columns(state: Context, x: str, values: np.ndarray, compute: Compute, elsewhere: np.ndarray | None) -> str:
    axis, inside = len(state.shapes[x]) - 1, within(values)
    some, others = np.flatnonzero(inside), np.flatnonzero(~inside)
    found = compute(state.take(x, axis, some.tolist()), values[some])
    places = np.full(len(values), -1)
    places[some] = np.arange(len(some))
    if elsewhere is not None:
        known = np.where(inside, 0.0, np.asarray(elsewhere, np.float64).reshape(-1))
        return state.scale(state.take(found, axis, places.tolist()), 1.0, known)
    places[others] = len(some) + np.arange(len(others))
    return state.take(state.concat((found, state.take(x, axis, others.tolist())), axis), axis, places.tolist())
