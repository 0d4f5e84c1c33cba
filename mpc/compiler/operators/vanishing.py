"""Masks before functions that are 0 far below all numbers: their argument is 0 there, and so is what they are times a
mask of zeros and ones.
"""

from __future__ import annotations

import numpy as np

from mpc.compiler.operators.context import Context, ModelNode
from mpc.compiler.operators.facts import Vanishing
from mpc.compiler.operators.maxima import FAR, hiding_factor, mask_factor, note_mask

VANISHING = frozenset({"Exp", "Sigmoid"})
"""Functions that are 0 of minus infinity."""
_NOTHING = -1e3
"""e to the power of this and less is 0 in every floating-point type."""


def only_vanishes(state: Context, out: str, fill: np.ndarray) -> bool:
    """Do only functions read a value, perhaps when others were added, that are 0 where a mask puts such numbers in it?

    Numbers that a wire has room for are asked for exponentials alone.
    """
    if not state.readers.get(out) or out in state.revealed or not fill.size:
        return False
    if (fill <= _NOTHING).all() and state.only_feeds(out, {"Exp"}):
        return True
    return all(_is_none_of(state, reader, out, fill) for reader in state.readers[out])


def _is_none_of(state: Context, reader: ModelNode, name: str, fill: np.ndarray) -> bool:
    """Is what a node makes of the value 0 where a mask puts such a number in it?"""
    if reader.op_type in VANISHING:
        return bool((fill <= -FAR).all())
    if reader.op_type not in ("Add", "Sub") or [*reader.input].count(name) > 1:
        return False
    turned, found = reader.op_type == "Sub" and reader.input[1] == name, reader.output[0]
    left = -fill if turned else fill
    return bool((left <= -FAR).all()) and only_vanishes(state, found, left)


def masked(state: Context, x: str, factor: np.ndarray, out: str) -> str:
    """Write x times a factor, nearer to zero if x is a mask by which it hides what it is added to."""
    if not _put_out(state, x, factor, out):
        state.scale(state.value(x), hiding_factor(state, x, factor, out), 0.0, out)
    return out


def _put_out(state: Context, x: str, factor: np.ndarray, out: str) -> bool:
    """Put 0 where a mask x times a factor is far below what it is added to, if nothing but such functions reads it."""
    if (state.splits and not state.told) or (one := mask_factor(state, x, factor)) is None:
        return False
    unit, fill = one
    if not only_vanishes(state, out, fill):
        return False
    note_mask(state, x, factor)
    state.scale(state.value(x), 0.0, 0.0, out)
    state.facts[out] = Vanishing(state.scale(state.value(x), -1.0 / unit, 1.0))
    return True


def carried(state: Context, node: ModelNode) -> None:
    """Note that a sum stands for what is far below all numbers where an operand does; see `only_vanishes`."""
    facts = [state.facts.get(name) for name in node.input]
    masks = [fact.kept for fact in facts if isinstance(fact, Vanishing)]
    if masks:
        state.facts[node.output[0]] = Vanishing(masks[0] if len(masks) == 1 else state.multiply(masks[0], masks[1]))


def apply(state: Context, name: str, x: str, out: str) -> bool:
    """Write such a function of x; False, and nothing, if no mask has put anything in x."""
    if not isinstance(fact := state.facts.get(x), Vanishing):
        return False
    state.multiply(state.function(name, x), fact.kept, out)
    return True
