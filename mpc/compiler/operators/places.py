"""Whole numbers that say where something stands, and that a client enters as zeros with a one among them.

An input that the model indexes constant tables with enters so: to look a row up is then one product, and the number
itself, for whoever computes with it, a public sum.  All other indices are compared with every place that they can mean.
"""

from __future__ import annotations

import numpy as np

from mpc.compiler.graph.attributes import Concat, Constant, Take, Transpose, Weigh
from mpc.compiler.graph.graph import MOVES, Node, static
from mpc.compiler.operators.context import Context
from mpc.compiler.operators.facts import Natural


def enter_places(state: Context, entered: str, size: int) -> str:
    """Return the number that an input tells which enters as zeros and a one, for whoever computes with it.

    Args:
        entered: the input, whose last axis has this size.
    """
    shape = state.shapes[entered]
    state.integral.add(entered)
    factors = tuple(map(float, range(size)))
    weighed = state.emit("weigh", (entered,), None, shape, Weigh(axis=len(shape) - 1, factors=factors))
    state.integral.add(weighed)
    number = state.reshape(state.total(weighed, (len(shape) - 1,), known=(0.0, size - 1.0)), shape[:-1])
    state.integral.add(number)
    state.facts[number] = Natural()
    state.hot[number] = entered
    return number


def hot_of(state: Context, index: str) -> str | None:
    """Return the zeros and ones as which an index, or what it is moved from, was entered; None if it was not."""
    if index not in state.hot:
        node = next((node for node in reversed(state.nodes) if node.writes == index), None)
        if node is None or not (node.op in MOVES or node.op == "fit"):
            return None
        parts = [hot_of(state, name) for name in node.reads]
        if isinstance(node.attributes, Concat):
            parts = _with_constants(state, node, parts)
        found = _moved(state, node, [part for part in parts if part is not None])
        if None in parts or found is None:
            return None
        state.hot[index] = found
    return state.hot[index]


def _with_constants(state: Context, node: Node, parts: list[str | None]) -> list[str | None]:
    """Write constants as zeros and ones too, where they are joined with a place that was entered so."""
    width = next((int(state.shapes[part][-1]) for part in parts if part is not None), 0)
    found = list(parts)
    for place, (name, part) in enumerate(zip(node.reads, parts, strict=True)):
        numbers = public(state, name) if width and part is None else None
        if numbers is not None and not np.any(numbers % 1) and -width <= numbers.min() and numbers.max() < width:
            hot = np.eye(width)[numbers.astype(np.int64) % width]
            found[place] = state.stored(hot, (*state.shapes[name], width))
    return found


def public(state: Context, name: str) -> np.ndarray | None:
    """Return the constant that a value is, moved or not."""
    node = next((node for node in reversed(state.nodes) if node.writes == name), None)
    if node is None or isinstance(node.attributes, Constant):
        return None if node is None else np.broadcast_to(node.of(Constant).weight, static(node.shape))
    numbers = public(state, node.reads[0]) if node.op in ("reshape", "transpose") else None
    if numbers is None:
        return None
    if isinstance(node.attributes, Transpose):
        return numbers.transpose(node.attributes.axes)
    return numbers.reshape(static(node.shape))


def _moved(state: Context, node: Node, parts: list[str]) -> str | None:
    """Move rows of zeros and ones as a node moves the numbers that they tell."""
    taken, widths = node.attributes, {state.shapes[part][-1] for part in parts}
    if len(widths) != 1:
        return None
    [width] = widths
    if isinstance(taken, Transpose):
        return state.transpose(parts[0], (*taken.axes, len(taken.axes)))
    if isinstance(taken, Take):
        return None if -1 in taken.indices else state.take(parts[0], taken.axis, taken.indices)
    if isinstance(taken, Concat):
        return state.concat(parts, taken.axis)
    return parts[0] if node.op == "fit" else state.reshape(parts[0], (*node.shape, width))
