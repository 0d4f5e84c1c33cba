"""Constants that no value reaches: infinities, and what converters write in their place, as the largest float32.

What is decided by them is decided without a look at any value, whatever ranges are declared, and so without a gate.
Which constants are such stands in the plan then, as which thresholds of trees are.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mpc.compiler.operators.context import BOUNDLESS, Context
from mpc.wires import broadcast

Compute = Callable[[str, np.ndarray], str]


def within(values: np.ndarray) -> np.ndarray:
    """Tell whether constants are numbers that a value can be compared with."""
    return np.asarray(np.abs(values) < BOUNDLESS)


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
