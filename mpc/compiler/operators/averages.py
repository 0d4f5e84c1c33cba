"""Averages over marked places, as sentences are embedded: a sum of values times marks over the number of marks.

A model keeps that number from zero by a tiny constant, so that one over it could be 10^9, and the average as many times
its values.  But marks are whole numbers of zero or more: the number is 1 at least, or 0 beside a sum that is 0 too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from mpc.compiler.graph.attributes import Take
from mpc.compiler.graph.graph import Node, Shape, static
from mpc.compiler.operators.context import Context
from mpc.compiler.operators.facts import Axes, Marked, MarkedTotal, Marks, Natural


def note_marked(state: Context, left: str, right: str, out: str) -> None:
    """Note that a product is a value where marks are."""
    for name in (left, right):
        found = _marks(state, name)
        if found is not None and out not in state.facts and len(state.shapes[name]) == len(state.shapes[out]):
            state.facts[out] = Marked(*found)


def note_total(state: Context, x: str, axes: Sequence[int], out: str, keep: bool) -> None:
    """Note that a sum is one of marks, or of a value where they are."""
    fact, found = state.facts.get(x), _marks(state, x)
    if found is None and isinstance(fact, Marked):
        found = fact.by, fact.axes
    if found is None:
        return
    by, places = found
    summed = tuple(places[axis] for axis in axes)
    if None in summed or not summed:
        return
    left = tuple(None if axis in axes else place for axis, place in enumerate(places) if keep or axis not in axes)
    number = prod(static(state.shapes[x])[axis] for axis in axes)
    total = MarkedTotal(by, summed, left)
    state.facts[out] = total if isinstance(fact, Marked) else Marks(total, out, number)


def divided(state: Context, left: str, right: str, out: str) -> bool:
    """Compute an average over marked places, which is 0 where there are none; False if it is another quotient."""
    total, marks = state.facts.get(left), state.facts.get(right)
    if not isinstance(total, MarkedTotal) or not isinstance(marks, Marks) or not _alike(total, marks.total):
        return False
    number = state.scale(state.relu(state.scale(marks.number, 1.0, -1.0)), 1.0, 1.0)
    inverse = state.function("reciprocal", number, known=(1.0 / marks.most, 1.0))
    if state.shapes[inverse] != state.shapes[right]:
        inverse = state.expand(inverse, state.shapes[right])
    state.multiply(left, inverse, out)
    return True


def _alike(total: MarkedTotal, marks: MarkedTotal) -> bool:
    """Are they sums by the same marks over the same places, and is each sum divided by the number of its own?"""
    if (total.by, total.summed) != (marks.by, marks.summed) or len(marks.axes) > len(total.axes):
        return False
    beside = total.axes[len(total.axes) - len(marks.axes) :]
    return all(own in (None, other) for own, other in zip(marks.axes, beside, strict=True)) and (
        {*total.axes} - {None} == {*marks.axes} - {None}
    )


def _marks(state: Context, name: str) -> tuple[str, Axes] | None:
    """Return (whole numbers, none below zero, the axis of theirs that each axis is) of a value that has them, be it on
    more axes, or repeated along some.
    """
    if name not in state.shapes or state.value(name) not in state.integral:
        return None
    writers = {node.writes: node for node in state.nodes}
    base = state.value(name)
    found = _are_marks(state, base)
    while not found and (node := writers.get(base)) is not None and repeats(state, node):
        base = node.reads[0]
        found = _are_marks(state, base)
    return placed(state, writers, state.value(name)) if found else None


def placed(state: Context, writers: Mapping[str, Node], name: str) -> tuple[str, Axes]:
    """Return the value that another one is, be it on more axes or repeated, and which of its axes each is."""
    base, chain = name, list[Node]()
    while (node := writers.get(base)) is not None and repeats(state, node):
        chain.append(node)
        base = node.reads[0]
    axes: Axes = tuple(axis if size != 1 else None for axis, size in enumerate(state.shapes[base]))
    for node in reversed(chain):
        if node.op == "reshape":
            axes = reshaped(state, node, axes)
    return base, axes


def reshaped(state: Context, node: Node, axes: Axes) -> Axes:
    """Return the axes behind a reshape that puts some of size 1 in, or leaves them out."""
    left = [axis for axis, size in zip(axes, state.shapes[node.reads[0]], strict=True) if size != 1]
    return tuple(left.pop(0) if size != 1 else None for size in state.shapes[node.writes])


def _are_marks(state: Context, name: str) -> bool:
    """Are these whole numbers of zero or more?  Truth values are zeros and ones."""
    return isinstance(state.facts.get(name), Natural) or state.inferred(name) == "bool"


def repeats(state: Context, node: Node) -> bool:
    """Does a node put axes of size 1 in or leave them out, or repeat elements along one?"""
    if node.op == "take":
        return not any(node.of(Take).indices) and state.shapes[node.reads[0]][node.of(Take).axis] == 1
    return node.op == "reshape" and _long(state.shapes[node.writes]) == _long(state.shapes[node.reads[0]])


def _long(shape: Shape) -> list[int | str]:
    return [size for size in shape if size != 1]
