"""A value under another name, or as another type has it."""

from __future__ import annotations

import numpy as np

from mpc.compiler.graph.attributes import Fit
from mpc.compiler.graph.graph import HALF_STEP
from mpc.compiler.graph.writer import EXPORT_TRAINED, INTEGERS
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.facts import Clipped, Never, Truncated
from mpc.compiler.operators.registry import handles
from mpc.compiler.operators.rounding import rounded

_CUTTING = {"Equal", "LabelEncoder", "OneHotEncoder", "OneHot", "Gather"}
"""They can ask which whole number a real is cut to, so that nothing rounds it before."""
_INSIDE = 2.0**-20
"""By which a real stays away from where the next whole number begins."""


@handles("Identity", "Dropout", labels=True)
def identity(state: Context, node: ModelNode, settings: Settings) -> None:
    training = state.optional(node, 2, "training_mode")
    if training is not None and bool(training):
        raise state.origin.refuse("training mode is not supported", attribute="training_mode", remedy=EXPORT_TRAINED)
    if not state.unused(node, 1):
        raise state.origin.refuse("its mask as an output is not supported", remedy=EXPORT_TRAINED)
    if node.input[0] in state.decoded:
        state.redecode(node.output[0], node.input[0])
        return
    x = node.input[0]
    state.alias(node.output[0], x if x in state.sequences else state.value(x))


@handles("Cast", "CastLike", labels=True)
def cast(state: Context, node: ModelNode, settings: Settings) -> None:
    """Cast: reals stay as they are; what holds whole numbers becomes an integer or a truth value."""
    source, out = node.input[0], node.output[0]
    target = state.type_of(node.input[1]) if node.op_type == "CastLike" else state.type_named(settings["to"])
    if state.is_constant(source):
        state.constants[out] = state.numbers(source, "its value").astype(target or None)
        return
    if source in state.decoded:
        if not target:
            raise state.origin.refuse(
                "labels do not become that type",
                attribute="to",
                remedy="cast them to int64, float32 or string, or leave the cast out",
            )
        labels = state.decoded[source].labels
        state.redecode(out, source, dtype=target, labels=labels and _cast_labels(labels, target))
        return
    x = state.value(source)
    if target == "bool":
        _nonzero(state, x, out)
        if state.facts.get(x) == Never():
            state.facts[out] = Never()
    elif target.startswith("float") or (target and x in state.integral):
        state.alias(out, x)
    elif target not in INTEGERS:
        raise state.origin.refuse(
            f"a cast to {target or 'that type'}",
            attribute="to",
            remedy="cast to float32, to an integer type of 8 to 64 bits, or to bool; or leave the cast out",
        )
    elif state.only_feeds(out, _CUTTING) and all(reader.input[0] != out for reader in _tables(state, out)):
        state.alias(out, _within(state, x, target))
        state.facts[out] = Truncated()
    elif isinstance(state.facts.get(x), Clipped):
        state.alias(out, _within(state, rounded(state, x, "zero"), target))
    else:
        state.to_whole(_within(state, x, target), "zero", out)


def _tables(state: Context, name: str) -> list[ModelNode]:
    return [reader for reader in state.readers.get(name, []) if reader.op_type == "Gather"]


def _within(state: Context, x: str, target: str) -> str:
    """Return reals that are cut to whole numbers of a type; beyond its ends the standard defines nothing."""
    if target == "int64":  # no wire reaches its ends
        return x
    low, high = INTEGERS[target]
    ends = low - 0.5 + _INSIDE, high + 0.5 - _INSIDE  # what is less than a unit beyond an end is cut to it
    limits = Fit(ends=ends, outside=f"a cast to {target} is undefined there")
    return state.emit("fit", (x,), None, state.shapes[x], limits)


def _cast_labels(labels: tuple[int | str, ...], target: str) -> tuple[int | str, ...]:
    """Labels as an integer type has them, which wraps around; others are cast as they are read."""
    if target not in INTEGERS or any(isinstance(label, str) for label in labels):
        return labels
    return tuple(np.array(labels, dtype=np.int64).astype(target).tolist())


def _nonzero(state: Context, x: str, out: str) -> None:
    """[x >= a step] + [x < - a step], half of one for reals"""
    bits = state.steps(x, (1.0, 0.0) if x in state.integral else (HALF_STEP, -HALF_STEP))
    axis = len(state.shapes[bits]) - 1
    ends = [state.reshape(state.take(bits, axis, [i]), state.shapes[x]) for i in (0, 1)]
    state.sum(ends, (1.0, -1.0), out, 1.0, known=(0.0, 1.0))
