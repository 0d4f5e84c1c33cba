"""Constants that no value reaches: infinities, and what converters write in their place, as the largest float32.

What is decided by them is decided without a look at any value, whatever ranges are declared, and so without a gate.
Which constants are such stands in the plan then, as which thresholds of trees are.  What masks put in the place of
values may be as large: where a condition chose it, the condition says what a comparison finds; else that is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np

from mpc.compiler.graph.graph import Node, Shape
from mpc.compiler.operators.context import BOUNDLESS, Context
from mpc.compiler.operators.facts import Chosen
from mpc.wires import broadcast

Compute = Callable[[str, np.ndarray], str]


def within(values: np.ndarray) -> np.ndarray:
    """Tell whether constants are numbers that a value can be compared with."""
    return np.asarray(np.abs(values) < BOUNDLESS)


def note_choice(state: Context, out: str, condition: str, first: str, second: str) -> None:
    """Note that a value holds constants that no value reaches, by a condition, if it does."""

    def far(name: str) -> bool:
        if state.is_constant(name):
            return _is_far(state.constants[name])
        return isinstance(state.facts.get(name), Chosen)

    if far(first) or far(second):
        state.facts[out] = Chosen(condition, first, second)


def decided(state: Context, x: str, compared: Callable[[np.ndarray], np.ndarray], shape: Shape) -> str:
    """Compare x with constants that no value reaches.

    Args:
        compared: the comparison, of x with the constants.
        shape: of what is found.

    Raises:
        ModelError: x holds such constants itself, and not where a condition chose them.
    """
    found = _decided(state, x, compared)
    if isinstance(found, np.ndarray):
        return state.stored(found, shape)
    return found if state.shapes[found] == shape else state.expand(found, shape)


def _decided(state: Context, x: str, compared: Callable[[np.ndarray], np.ndarray]) -> str | np.ndarray:
    if state.is_constant(x):
        return compared(state.numbers(x, "an operand")).astype(np.float64)
    match state.facts.get(x):
        case Chosen(condition, first, second):
            one, other = (_decided(state, each, compared) for each in (first, second))
            if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
                if state.is_constant(condition):
                    return np.where(state.constants[condition].astype(bool), one, other)
                return state.scale(state.value(condition), one - other, other)
            one, other = (_as_value(state, each) for each in (one, other))
            apart = state.multiply(state.sum((one, other), (1.0, -1.0)), state.value(condition))
            return state.sum((apart, other), (1.0, 1.0), known=(0.0, 1.0))
    refuse_far(state, x)
    return compared(np.zeros(())).astype(np.float64)


def refuse_far(state: Context, x: str) -> None:
    """Refuse to compare a value with constants that no value reaches if it may hold such itself."""
    if _holds_far(state, x):
        raise state.origin.refuse(
            f"it compares numbers of {BOUNDLESS:g} and more, or infinities, with a value that may hold such numbers",
            remedy="compare the condition of the Where by which they were put there; or put -1e9 in their place, and "
            "compare with half of it",
        )


def _as_value(state: Context, found: str | np.ndarray) -> str:
    return state.stored(found, found.shape) if isinstance(found, np.ndarray) else found


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


def _is_far(values: float | np.ndarray) -> bool:
    values = np.asarray(values)
    return values.dtype.kind == "f" and values.size > 0 and not max(-values.min(), values.max()) < BOUNDLESS


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
