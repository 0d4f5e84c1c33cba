"""Carry facts over what gives a value another shape and leaves its elements in order: Reshape, Flatten and the like.

A fact may name axes, or another value, and both are of the old shape.  Such a fact is translated or left behind; one
that is left behind costs digits, and one that is carried as it is would make the answer another one.
"""

from __future__ import annotations

from dataclasses import replace

from mpc.compiler.graph.graph import Shape
from mpc.compiler.operators import facts
from mpc.compiler.operators.context import Context
from mpc.compiler.operators.facts import Axes, Fact

_OF_ELEMENTS = (facts.Place, facts.Always, facts.Never, facts.Natural, facts.Truncated)
"""Hold for each element by itself, and name nothing."""
_OF_A_SHAPE = (facts.Mean, facts.Above, facts.OverRoot, facts.Top)
"""Whoever reads one of these asks first whether the value has the shape that the fact speaks of."""


def carry(state: Context, name: str, of: str) -> None:
    """Note what is known of a value of another one, which has the same elements in the same order."""
    fact = state.facts.get(of)
    if fact is not None and (found := _moved(state, fact, state.shapes[of], state.shapes[name])) is not None:
        state.facts[name] = found


def _moved(state: Context, fact: Fact, before: Shape, shape: Shape) -> Fact | None:
    """Return what a fact says of the value in another shape; None if that cannot be said."""
    rows_stay = before[-1:] == shape[-1:]
    match fact:
        case _ if before == shape or isinstance(fact, _OF_ELEMENTS + _OF_A_SHAPE):
            return fact
        case facts.Probabilities() if rows_stay:
            return fact
        case facts.Ordered(axes=axes) if rows_stay and axes == (len(before) - 1,):
            return replace(fact, axes=(len(shape) - 1,))
        case facts.Clipped(of) | facts.Quantised(of) if state.shapes[of] == before:
            return replace(fact, of=_reshaped(state, of, shape))
        case facts.Unit(of, factor) if state.shapes[of] == before and factor.size == 1:
            return replace(fact, of=_reshaped(state, of, shape), factor=factor.reshape(()))
        case facts.Marked(axes=axes) | facts.MarkedTotal(axes=axes):
            places = _axes(axes, before, shape)
            return None if places is None else replace(fact, axes=places)
        case facts.Marks(total, number) if state.shapes[number] == before:
            places = _axes(total.axes, before, shape)
            if places is not None:
                return replace(fact, total=replace(total, axes=places), number=state.reshape(number, shape))
    return None


def _reshaped(state: Context, x: str, shape: Shape) -> str:
    """Return x in a shape, and note what is known of that."""
    name = state.reshape(x, shape)
    carry(state, name, x)
    return name


def _axes(axes: Axes, before: Shape, shape: Shape) -> Axes | None:
    """Return the axes of marks behind a move that puts some of size 1 in, or leaves them out; None behind others."""
    if len(axes) != len(before) or _long(before) != _long(shape):
        return None
    left = iter([axis for axis, size in zip(axes, before, strict=True) if size != 1])
    return tuple(next(left) if size != 1 else None for size in shape)


def _long(shape: Shape) -> list[int | str]:
    return [size for size in shape if size != 1]
