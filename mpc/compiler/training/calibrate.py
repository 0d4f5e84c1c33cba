"""Bounds of a deep step from rows that its owner may show: the step is run in the clear, on real numbers.

What is proved from declared ranges grows with every layer, forwards and again backwards; after a few convolutions no
field has room for it, and nothing ever is so large.  What was seen, times a margin, is a bound that rests on samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil, log2

import numpy as np

from mpc.compiler.graph.calibrate import MARGIN
from mpc.compiler.graph.evaluate import evaluate
from mpc.compiler.graph.graph import Graph, GraphInput, Node, static
from mpc.compiler.training.step import Step
from mpc.errors import InputError

STEPS = 32
"""Steps that are run, over the samples again and again."""
_BOUNDED = frozenset({"matmul", "conv", "multiply", "scale", "sum", "total"})
_SMALLEST = 2.0**-10
_LARGEST = 2.0**60


def calibrated(step: Step, samples: Mapping[str, np.ndarray]) -> Step:
    """Return the step whose sums and products are known to stay within `MARGIN` times what they are on samples.

    Each bound is the next power of two: the plan shows it, and should say no more of the samples than that.

    Args:
        samples: rows of every input of the step, targets too, one batch or more; of several all that are whole.

    Raises:
        InputError: an input has no samples, or they are fewer than a batch, of another shape, or no finite numbers; a
            name is none of an input; or steps over them end in no numbers.
    """
    data = _entered(step)
    samples = _as_numbers(data, samples)
    samples = {**samples, step.target: _one_hot(samples.get(step.target), step)}
    rows = _rows(data, samples)
    batch = int(data[0].shape[0])
    seen: dict[str, float] = {}
    shapes = {given.name: static(given.shape) for given in step.graph.inputs}
    states = {
        state.name: np.zeros(shapes[state.name]) if state.values is None else np.asarray(state.values, np.float64)
        for state in step.states
    }
    for number in range(STEPS):
        start = number % (rows // batch) * batch
        feeds = {given.name: samples[given.name][start : start + batch] for given in data}
        values = {}
        with np.errstate(over="ignore", invalid="ignore"):  # exp of a sum far below zero; what diverges is refused
            for node, value in evaluate(step.graph, {**states, **feeds}):
                values[node.writes] = value
                if node.op in _BOUNDED:
                    seen[node.writes] = _most(value, seen.get(node.writes, 0.0))
        states = step.states_of(values)
    own = {state.name for state in step.states}  # which have bounds of their own
    after = {out.value for out in step.graph.outputs if out.name in own}
    bounds = {name: _bound(most) for name, most in seen.items() if name not in after}
    nodes = [bounded_by(node, bounds) for node in step.graph.nodes]
    return replace(step, graph=Graph(step.graph.inputs, nodes, step.graph.outputs), rests=bounds)


def _entered(step: Step) -> list[GraphInput]:
    """Return the inputs that are no states."""
    states = {state.name for state in step.states}
    return [given for given in step.graph.inputs if given.name not in states]


def _as_numbers(data: list[GraphInput], samples: object) -> dict[str, np.ndarray]:
    """Return samples as arrays of finite reals."""
    names = [given.name for given in data]
    if not isinstance(samples, Mapping) or not {*samples} <= {*names}:
        raise InputError(
            "samples are not given by the names of inputs", remedy=f"its inputs are {', '.join(names)}: samples={{..}}"
        )
    found = {}
    for name, values in samples.items():
        try:
            found[name] = np.asarray(values)
        except ValueError:  # rows of different lengths
            found[name] = np.asarray(None)
        if not found[name].ndim or found[name].dtype.kind not in "fiub" or not np.isfinite(found[name]).all():
            raise InputError(
                f"samples of {name!r} are no finite numbers", remedy="give arrays of numbers, without NaN and infinity"
            )
    return found


def _one_hot(targets: np.ndarray | None, step: Step) -> np.ndarray:
    """Return targets in the outputs' shape, of numbers of classes too."""
    [given] = [given for given in step.graph.inputs if given.name == step.target]
    if targets is None:
        raise InputError("there are no samples of the targets", remedy="samples={'x': .., 'target': ..}")
    if targets.ndim != 1 or len(given.shape) != 2:
        return targets
    outputs = int(given.shape[1])
    if outputs == 1:
        return targets[:, None]
    if targets.min(initial=0) < 0 or targets.max(initial=0) >= outputs or (targets != np.floor(targets)).any():
        raise InputError(
            f"samples of the targets are no numbers of classes, 0 to {outputs - 1}",
            remedy=f"give whole numbers from 0 to {outputs - 1}, or a column for each class",
        )
    return np.eye(outputs)[targets.astype(np.int64)]


def _most(value: np.ndarray, before: float) -> float:
    most = float(np.abs(value).max(initial=before))
    if not most < _LARGEST:
        raise InputError(
            f"steps over the samples diverge: numbers grow beyond {_LARGEST:g}",
            remedy="use a smaller learning rate, or samples scaled as the rows are that will be entered",
        )
    return most


def _rows(data: list[GraphInput], samples: Mapping[str, np.ndarray]) -> int:
    """Count the rows of samples, which all inputs have as many of."""
    counts = set()
    for given in data:
        values = samples.get(given.name)
        if values is None or values.shape[1:] != tuple(given.shape[1:]) or len(values) < int(given.shape[0]):
            raise InputError(
                f"no samples of input {given.name!r} that make a batch of shape {given.shape}",
                remedy="give rows of each input and of the targets, a batch or more: samples={'x': .., 'target': ..}",
            )
        counts.add(len(values))
    if len(counts) > 1:
        raise InputError("the samples have different numbers of rows", remedy="give as many rows of each input")
    return counts.pop()


def _bound(most: float) -> float:
    return 2.0 ** ceil(log2(max(MARGIN * most, _SMALLEST)))


def bounded_by(node: Node, bounds: Mapping[str, float]) -> Node:
    """Return a node whose value is known to stay within its bound, if there is one of its name."""
    if node.writes not in bounds:
        return node
    most = bounds[node.writes]
    low, high = node.attributes.known or (-np.inf, np.inf)
    return replace(node, attributes=replace(node.attributes, known=(max(low, -most), min(high, most))))
