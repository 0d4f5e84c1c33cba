"""Import sequences of tensors, as exporters write Python's lists: their length is public, and so are their places.

A sequence is a name for names of values: nothing is computed of it until it is joined, or one of it is read.
"""

from __future__ import annotations

import numpy as np

from mpc.compiler.operators.calling import call
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.registry import handles

READERS = frozenset(
    {"ConcatFromSequence", "Identity", "If", "Loop"}
    | {f"Sequence{name}" for name in ("At", "Construct", "Erase", "Insert", "Length")}
)
"""Operators that may read a sequence."""


def parts_of(state: Context, name: str) -> tuple[str, ...]:
    """Return the names of a sequence's values."""
    if name not in state.sequences:
        raise state.origin.refuse(
            f"{name!r} is no sequence that the model makes",
            remedy="export the model with tensors in the place of sequences that it is given",
        )
    return state.sequences[name]


@handles("SequenceEmpty")
def empty(state: Context, node: ModelNode, settings: Settings) -> None:
    state.sequences[node.output[0]] = ()


@handles("SequenceConstruct")
def construct(state: Context, node: ModelNode, settings: Settings) -> None:
    state.sequences[node.output[0]] = node.input


@handles("SequenceInsert")
def insert(state: Context, node: ModelNode, settings: Settings) -> None:
    """Put a value at a place, or behind all others."""
    parts = parts_of(state, node.input[0])
    place = _place(state, node, 2, len(parts), len(parts), last=1)
    state.sequences[node.output[0]] = (*parts[:place], node.input[1], *parts[place:])


@handles("SequenceErase")
def erase(state: Context, node: ModelNode, settings: Settings) -> None:
    """Take the value at a place away, or the last."""
    parts = parts_of(state, node.input[0])
    place = _place(state, node, 1, len(parts) - 1, len(parts))
    state.sequences[node.output[0]] = (*parts[:place], *parts[place + 1 :])


@handles("SequenceAt")
def at(state: Context, node: ModelNode, settings: Settings) -> None:
    parts = parts_of(state, node.input[0])
    state.alias(node.output[0], parts[_place(state, node, 1, 0, len(parts))])


@handles("SequenceLength")
def length(state: Context, node: ModelNode, settings: Settings) -> None:
    state.constants[node.output[0]] = np.array(len(parts_of(state, node.input[0])))


def _place(state: Context, node: ModelNode, operand: int, usual: int, places: int, last: int = 0) -> int:
    """Return a public place, counted from the end if it is negative.

    Args:
        last: 1 if the place behind all others is one too.
    """
    place = usual
    if len(node.input) > operand and node.input[operand]:
        [place] = state.integers(node.input[operand], "a place in a sequence")
    if not -places <= place < places + last:
        raise state.origin.refuse(f"the place {place} of {places} in a sequence", remedy="give a place that it has")
    return place + places if place < 0 else place


@handles("ConcatFromSequence")
def concat(state: Context, node: ModelNode, settings: Settings) -> None:
    """Join all values along an axis that they have, or along a new one."""
    parts, axis = parts_of(state, node.input[0]), int(settings["axis"])
    if not parts:
        raise state.origin.refuse("a sequence of nothing", remedy="leave what reads it out of the model")
    if settings.get("new_axis", 0):
        parts = tuple(_with_axis(state, part, axis) for part in parts)
    if all(map(state.is_constant, parts)):
        state.constants[node.output[0]] = np.concatenate([state.constants[part] for part in parts], axis)
    else:
        call(state, "Concat", parts, node.output[0], settings={"axis": axis})


def _with_axis(state: Context, part: str, axis: int) -> str:
    name = state.fresh()
    if state.is_constant(part):
        state.constants[name] = np.expand_dims(state.constants[part], axis)
        return name
    shape = state.secret(part)
    place = axis % (len(shape) + 1)
    return state.reshape(part, (*shape[:place], 1, *shape[place:]), name)


@handles("SplitToSequence")
def split(state: Context, node: ModelNode, settings: Settings) -> None:
    """Cut a value along an axis into parts of given sizes, of one size, or of size 1."""
    x = node.input[0]
    known = state.constants.get(x)
    shape = state.secret(x) if known is None else known.shape
    axis = state.axis(settings.get("axis", 0), shape)
    whole = state.size(shape, axis, "a sequence")
    given = state.constant(node.input[1], "its sizes") if len(node.input) > 1 and node.input[1] else None
    one = 1 if given is None else int(given.flat[0])
    if given is not None and given.ndim:
        sizes = [int(size) for size in given]
    elif one < 1:
        raise state.origin.refuse(f"parts of size {one}", remedy="give a size of 1 or more")
    else:
        sizes = [min(one, whole - start) for start in range(0, whole, one)]
    if sum(sizes) != whole or min(sizes) < 1:
        raise state.origin.refuse(f"parts of sizes {sizes} of {whole}", remedy="give sizes that add up to the axis")
    ends, parts = np.cumsum(sizes).tolist(), list[str]()
    each = given is None or (not given.ndim and one == 1)  # as onnxruntime has it, and PyTorch's unbind needs it
    alone = each and not settings.get("keepdims", 1)
    for end, size in zip(ends, sizes, strict=True):
        if known is not None:
            part = state.fresh()
            values = known.take(range(end - size, end), axis)
            state.constants[part] = values.squeeze(axis) if alone else values
        else:
            part = state.take(x, axis, range(end - size, end))
            part = state.reshape(part, (*shape[:axis], *shape[axis + 1 :])) if alone else part
        parts.append(part)
    state.sequences[node.output[0]] = tuple(parts)
