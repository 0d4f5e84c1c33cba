"""Import recurrent layers: each step of a sequence becomes nodes of its own, whose gates share their rounds.

What a step reads of the sequence is multiplied for all steps at once.  Two directions are independent, so they run side
by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mpc.compiler.graph.attributes import Constant
from mpc.compiler.graph.graph import Shape
from mpc.compiler.operators.cells import BOUNDED, STEPS, Layer, State, Weights, layers_of, named
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.registry import handles


@handles("LSTM", "GRU", "RNN")
def recurrent(state: Context, node: ModelNode, settings: Settings) -> None:
    """Unroll a layer over its sequence, whose length has to be known."""
    given = [*node.input, *[""] * (8 - len(node.input))]
    w, r = (state.numbers(given[place], "its weights") for place in (1, 2))
    hidden, directions = int(r.shape[-1]), int(w.shape[0])
    biases = np.zeros((directions, 2 * w.shape[1]))
    if given[3]:
        biases = state.numbers(given[3], "its bias")
    peepholes = [None] * directions
    if node.op_type == "LSTM" and given[7]:
        peepholes = list(state.numbers(given[7], "its peepholes").reshape(directions, 3, hidden))
    halves = np.split(biases, 2, axis=1)
    weights = [
        Weights(x=w[i].T, h=r[i].T, x_bias=halves[0][i], h_bias=halves[1][i], peepholes=peepholes[i])
        for i in range(directions)
    ]
    unroll(state, node, settings, weights, given[4], given[5 : 7 if node.op_type == "LSTM" else 6])


def unroll(
    state: Context,
    node: ModelNode,
    settings: Settings,
    weights: Sequence[Weights],
    lengths: str,
    initial: Sequence[str],
) -> None:
    """Write the outputs of a layer.

    Args:
        node: its operator, the sequence as its first input, and its outputs.
        weights: of each direction.
        lengths: name of the lengths of sequences, constant; initial: of hidden and cell state; empty if left out.
    """
    kind = node.op_type.removeprefix("DynamicQuantize")
    layers = list(layers_of(state, kind, settings, weights))
    x, batch_first = state.value(node.input[0]), bool(settings.get("layout", 0))
    if len(state.shapes[x]) != 3:
        raise state.origin.refuse(
            f"a sequence of shape {state.shapes[x]}",
            remedy="give steps, rows and features, three axes (Unsqueeze before it)",
        )
    if batch_first:
        x = state.transpose(x, (1, 0, 2))
    starts = [_initial(state, name, len(layers), batch_first) for name in initial]
    if not any(name for start in starts for name in start) and BOUNDED.keys() >= {*named(settings, kind)}:
        layers = [replace(layer, within_one=True) for layer in layers]
    found = [
        _by_lengths(state, kind, layer, x, _lengths(state, lengths, x), tuple(start[i] for start in starts))
        for i, layer in enumerate(layers)
    ]
    outputs = _outputs(state, found, batch_first)
    for name, value in zip(node.output, outputs, strict=False):
        if name:
            state.alias(name, value)


def _initial(state: Context, name: str, directions: int, batch_first: bool) -> list[str | None]:
    """The state of each direction before its first step, (rows, hidden); None for zeros."""
    if not name or _is_zero(state, name):
        return [None] * directions
    value = state.value(name)
    if batch_first:
        value = state.transpose(value, (1, 0, 2))
    shape = state.shapes[value]
    if len(shape) != 3 or shape[0] != directions:
        raise state.origin.refuse(
            f"an initial state of shape {shape}",
            remedy=f"give {directions} directions, rows and hidden size, three axes",
        )
    return [state.reshape(state.take(value, 0, [i]), shape[1:]) for i in range(directions)]


def _is_zero(state: Context, name: str) -> bool:
    """Is it made of zeros, as exporters write a state that nobody gives?"""
    if state.is_constant(name):
        return not np.any(state.constants[name])
    written = {node.writes: node for node in state.nodes if node.op in ("constant", "reshape", "transpose", "take")}
    while name in written and written[name].reads:
        [name] = written[name].reads
    return name in written and not written[name].of(Constant).weight.any()


# ------------------------------------------------------------------- sequences


def _lengths(state: Context, name: str, x: str) -> list[int]:
    """The length of each row's sequence; one number if all are as long."""
    steps = state.size(state.shapes[x], 0, "the steps of a sequence lie")
    if not name:
        return [steps]
    found = state.integers(name, "the lengths of sequences")
    rows = state.shapes[x][1]
    if len(set(found)) == 1:
        found = found[:1]
    elif len(found) != rows:
        raise state.origin.refuse(
            f"{len(found)} lengths for {rows} rows",
            remedy="give one for each row, and fix how many rows there are (--shape)",
        )
    if not all(0 <= length <= steps for length in found):
        raise state.origin.refuse(
            f"lengths {found} of sequences of {steps} steps", remedy=f"give lengths from 0 to {steps}"
        )
    return found


Sequences = tuple[str, tuple[str, ...]]
"""All hidden states (steps, rows, hidden), and the last state."""


def _by_lengths(state: Context, kind: str, layer: Layer, x: str, lengths: list[int], start: State) -> Sequences:
    """Rows of one length together; what comes behind the end of a sequence is zero, all of one of no steps."""
    if not any(lengths):
        every = state.take(x, 2, [-1] * layer.weights.hidden)
        last = state.reshape(state.take(every, 0, [0]), state.shapes[every][1:])
        return every, (last,) * len(start)
    if len(lengths) == 1:
        return _sequence(state, kind, layer, x, lengths[0], start)
    parts, order = [], list[int]()
    for length in sorted(set(lengths) - {0}):
        rows = [row for row, own in enumerate(lengths) if own == length]
        chosen = tuple(None if name is None else state.take(name, 0, rows) for name in start)
        parts.append(_sequence(state, kind, layer, state.take(x, 1, rows), length, chosen))
        order += rows
    back = [order.index(row) if row in order else -1 for row in range(len(lengths))]
    every = state.take(state.concat([part[0] for part in parts], 1), 1, back)
    ends = (state.take(state.concat([part[1][i] for part in parts], 0), 0, back) for i in range(len(start)))
    return every, tuple(ends)


def _sequence(state: Context, kind: str, layer: Layer, x: str, length: int, start: State) -> Sequences:
    own, steps = layer.weights, int(state.shapes[x][0])
    bias = own.x_bias + _early_bias(kind, layer)
    read = state.affine(state.take(x, 0, range(length)), own.x, bias)
    rows: Shape = (state.shapes[x][1], own.x.shape[1])
    states: dict[int, tuple[str, ...]] = {}
    current = start
    for step in reversed(range(length)) if layer.backwards else range(length):
        states[step] = current = STEPS[kind](state, layer, state.reshape(state.take(read, 0, [step]), rows), current)
    hidden = [state.reshape(states[step][0], (1, *state.shapes[states[step][0]])) for step in range(length)]
    every = state.concat(hidden, 0)
    if length < steps:
        every = state.take(every, 0, [*range(length), *[-1] * (steps - length)])
    return every, tuple(name for name in current if name is not None)


def _early_bias(kind: str, layer: Layer) -> np.ndarray:
    """The biases of the hidden state that are simply added: all but that of a GRU that multiplies it."""
    bias, hidden = layer.weights.h_bias.copy(), layer.weights.hidden
    if kind == "GRU" and layer.linear_before_reset:
        bias[2 * hidden :] = 0.0
    return bias


def _outputs(state: Context, found: Sequence[Sequences], batch_first: bool) -> list[str]:
    """All hidden states with an axis for directions, and the last states."""
    every = []
    for each, _ in found:
        steps, *rest = state.shapes[each]
        every.append(state.reshape(each, (steps, 1, *rest)))
    joined = state.concat(every, 1)
    outputs = [state.transpose(joined, (2, 0, 1, 3)) if batch_first else joined]
    for parts in zip(*(last for _, last in found), strict=True):
        last = state.concat([state.reshape(part, (1, *state.shapes[part])) for part in parts], 0)
        outputs.append(state.transpose(last, (1, 0, 2)) if batch_first else last)
    return outputs
