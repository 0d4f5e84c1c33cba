"""Import loops whose number of steps is known: each step becomes nodes of its own, as if the model had them one by one.

A loop that ends when something about the data holds would tell that by how long it takes; it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpc.compiler.operators import distances
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.registry import handles

MOST_STEPS = 4096


@handles("Loop")
def loop(state: Context, node: ModelNode, settings: Settings) -> None:
    """Unroll a loop: as many steps as it is told, or until a condition that is known does not hold."""
    most, going = _known(state, node, 0, "the number of its steps"), _known(state, node, 1, "its condition")
    body = settings["body"]
    takes, gives = state.body(body).inputs, state.body(body).outputs
    current = list(node.input[2:])
    outputs: list[list[str]] = [[] for _ in gives[1 + len(current) :]]
    step = 0
    while (most is None or step < most) and (going is None or bool(going)):
        _require_few(state, step)
        bound = {takes[0]: _constant(state, np.array(step)), takes[1]: _constant(state, np.array(True))}
        found = state.repeat(body, {**bound, **dict(zip(takes[2:], current, strict=True))})
        if not state.is_constant(found[0]):
            raise state.origin.refuse(
                "whether it goes on depends on the input: its number of steps would tell of that",
                remedy="export it with a number of steps that is known, as a loop over range(n) is",
            )
        going = state.constants[found[0]].reshape(())
        current = list(found[1 : 1 + len(current)])
        for collected, name in zip(outputs, found[1 + len(current) :], strict=True):
            collected.append(name)
        step += 1
    _write(state, node, current, outputs, [0] * len(outputs))


def _known(state: Context, node: ModelNode, place: int, what: str) -> np.ndarray | None:
    if len(node.input) <= place or not node.input[place]:
        return None
    return state.constant(node.input[place], what).reshape(())


def _require_few(state: Context, step: int) -> None:
    if step >= MOST_STEPS:
        raise state.origin.refuse(
            f"more than {MOST_STEPS} steps", remedy="run the model on shorter sequences, one after another"
        )


def _constant(state: Context, value: np.ndarray) -> str:
    name = state.fresh()
    state.constants[name] = value
    return name


@handles("Scan")
def scan(state: Context, node: ModelNode, settings: Settings) -> None:
    """Unroll a scan along axes of known size; one that finds distances to constant points is a product."""
    if distances.scanned(state, node, settings):
        return
    body, number = settings["body"], int(settings["num_scan_inputs"])
    takes = state.body(body).inputs
    if state.opset < 9 or len(takes) != len(node.input):
        raise state.origin.refuse("a scan of opset 8", remedy="export the model with opset 9 or later")
    current = list(node.input[: len(takes) - number])
    scanned = node.input[len(takes) - number :]
    axes = [
        _axis(state, name, axis)
        for name, axis in zip(scanned, _listed(settings, "scan_input_axes", number), strict=True)
    ]
    sizes = {_size(state, name, axis) for name, axis in zip(scanned, axes, strict=True)}
    if len(sizes) != 1:
        raise state.origin.refuse(f"sequences of {sorted(sizes)} steps", remedy="give sequences of one length")
    [steps] = sizes
    _require_few(state, steps - 1)
    backwards = _listed(settings, "scan_input_directions", number)
    outputs: list[list[str]] = [[] for _ in node.output[len(current) :]]
    for step in range(steps):
        parts = [
            _part(state, name, axis, steps - 1 - step if back else step)
            for name, axis, back in zip(scanned, axes, backwards, strict=True)
        ]
        found = state.repeat(body, dict(zip(takes, [*current, *parts], strict=True)))
        current = list(found[: len(current)])
        for collected, name in zip(outputs, found[len(current) :], strict=False):
            collected.append(name)
    for collected, back in zip(outputs, _listed(settings, "scan_output_directions", len(outputs)), strict=True):
        if back:
            collected.reverse()
    _write(state, node, current, outputs, _listed(settings, "scan_output_axes", len(outputs)))


def _listed(settings: Settings, name: str, number: int) -> list[int]:
    return list(settings.get(name, [0] * number))


def _axis(state: Context, name: str, axis: int) -> int:
    shape = state.constants[name].shape if state.is_constant(name) else state.shapes[name]
    return state.axis(axis, shape)


def _size(state: Context, name: str, axis: int) -> int:
    if state.is_constant(name):
        return int(state.constants[name].shape[axis])
    return state.size(state.shapes[name], axis, "a scan")


def _part(state: Context, name: str, axis: int, index: int) -> str:
    """One step of a sequence, without its axis."""
    if state.is_constant(name):
        return _constant(state, np.asarray(state.constants[name].take(index, axis=axis)))
    shape = state.shapes[name]
    return state.reshape(state.take(name, axis, [index]), (*shape[:axis], *shape[axis + 1 :]))


def _write(
    state: Context, node: ModelNode, current: Sequence[str], outputs: Sequence[Sequence[str]], axes: Sequence[int]
) -> None:
    """Write the last states, and what was collected step by step along a new axis each, unless nothing reads it."""
    for name, value in zip(node.output, current, strict=False):
        if name:
            state.alias(name, value)
    for place, (parts, axis) in enumerate(zip(outputs, axes, strict=False), len(current)):
        if state.unused(node, place):
            continue
        name = node.output[place]
        if not parts:
            raise state.origin.refuse("no step at all, so an output is empty", remedy="leave the loop out of the model")
        if all(map(state.is_constant, parts)):
            state.constants[name] = np.stack([state.constants[part] for part in parts], axis)
            continue
        rows = []
        for part in map(state.value, parts):
            shape = state.shapes[part]
            place = axis % (len(shape) + 1)
            rows.append(state.reshape(part, (*shape[:place], 1, *shape[place:])))
        state.concat(rows, place, name)
