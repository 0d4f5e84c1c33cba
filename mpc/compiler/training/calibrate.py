"""Bounds of a deep step from rows that its owner may show: the step is run in the clear, on real numbers.

What is proved from declared ranges grows with every layer, forwards and again backwards; after a few convolutions no
field has room for it, and nothing ever is so large.  What was seen, times a margin, is a bound that rests on samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from math import ceil, log2
from typing import Any

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


class Calibration:
    """Rows that bounds rest on, and the bounds that steps over them gave.

    A training is compiled several times, each time for what else is told and kept.  What moves its weights is the same,
    and runs over the samples once.

    Args:
        samples: rows of every input of the step, targets too, one batch or more; of several all that are whole.
    """

    def __init__(self, samples: object) -> None:
        self._samples = samples
        self._ran: list[tuple[Step, dict[str, float]]] = []

    def bounded(self, step: Step, telling: Callable[[], Step]) -> Step:
        """Return the step whose sums and products are known to stay within `MARGIN` times what they are on samples.

        Each bound is the next power of two: the plan shows it, and should say no more of the samples than that.

        Args:
            telling: writes the step with all that it could tell besides: it runs in place of this one.

        Raises:
            InputError: an input has no samples, or they are fewer than a batch, of another shape, or no finite numbers;
                a name is none of an input; or steps over them end in no numbers.
        """
        found = self._found(step)
        if found is None:
            more = telling()
            self._run(more if _is_part(step, more) else step)
            found = self._found(step) or {}
        bounds = {node.writes: found[node.writes] for node in step.graph.nodes if node.writes in found}
        nodes = [bounded_by(node, bounds) for node in step.graph.nodes]
        return replace(step, graph=Graph(step.graph.inputs, nodes, step.graph.outputs), rests=bounds)

    def feeds(self, step: Step, turn: int) -> dict[str, np.ndarray]:
        """Return the rows of a step and their targets: the batches follow one another, again and again."""
        return _batch(*_read(step, self._samples), turn)

    def _found(self, step: Step) -> dict[str, float] | None:
        return next((bounds for ran, bounds in self._ran if _is_part(step, ran)), None)

    def _run(self, step: Step) -> None:
        self._ran.append((step, _bounds(step, self._samples)))


def _is_part(step: Step, other: Step) -> bool:
    """Does another step compute all that a step does, from the same numbers, and move states alike?"""
    states = {state.name for state in step.states}
    theirs = {node.writes: node for node in other.graph.nodes}
    moved, moved_theirs = (
        {out.name: out.value for out in each.graph.outputs if out.name in states} for each in (step, other)
    )
    return (
        step.target == other.target
        and moved == moved_theirs
        and _alike(step.states, other.states)
        and _alike(step.graph.inputs, other.graph.inputs)
        and all(_alike(node, theirs.get(node.writes)) for node in step.graph.nodes)
    )


def _alike(one: Any, other: Any) -> bool:
    """Compare records, field by field, with the arrays in them."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one is other or np.array_equal(one, other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    if is_dataclass(one):
        return one is other or all(_alike(getattr(one, each.name), getattr(other, each.name)) for each in fields(one))
    return one == other


def _bounds(step: Step, samples: object) -> dict[str, float]:
    """Run steps over samples; return the bound of each sum and product that no state has a bound of its own for."""
    data, rows = _read(step, samples)
    seen: dict[str, float] = {}
    shapes = {given.name: static(given.shape) for given in step.graph.inputs}
    states = {
        state.name: np.zeros(shapes[state.name]) if state.values is None else np.asarray(state.values, np.float64)
        for state in step.states
    }
    for turn in range(STEPS):
        feeds = _batch(data, rows, turn)
        values = {}
        with np.errstate(over="ignore", invalid="ignore"):  # exp of a sum far below zero; what diverges is refused
            for node, value in evaluate(step.graph, {**states, **feeds}):
                values[node.writes] = value
                if node.op in _BOUNDED:
                    seen[node.writes] = _most(value, seen.get(node.writes, 0.0))
        states = step.states_of(values)
    own = {state.name for state in step.states}  # which have bounds of their own
    after = {out.value for out in step.graph.outputs if out.name in own}
    return {name: _bound(most) for name, most in seen.items() if name not in after}


def _read(step: Step, samples: object) -> tuple[list[GraphInput], dict[str, np.ndarray]]:
    """Return the inputs that are no states, and all rows of each."""
    data = _entered(step)
    rows = _as_numbers(data, samples)
    rows = {**rows, step.target: _one_hot(rows.get(step.target), step)}
    _require_rows(data, rows)
    return data, rows


def _batch(data: list[GraphInput], rows: Mapping[str, np.ndarray], turn: int) -> dict[str, np.ndarray]:
    batch = int(data[0].shape[0])
    start = turn % (len(rows[data[0].name]) // batch) * batch
    return {given.name: rows[given.name][start : start + batch] for given in data}


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


def _require_rows(data: list[GraphInput], samples: Mapping[str, np.ndarray]) -> None:
    """Require samples of each input, as many of each."""
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


def _bound(most: float) -> float:
    return 2.0 ** ceil(log2(max(MARGIN * most, _SMALLEST)))


def bounded_by(node: Node, bounds: Mapping[str, float]) -> Node:
    """Return a node whose value is known to stay within its bound, if there is one of its name."""
    if node.writes not in bounds:
        return node
    most = bounds[node.writes]
    low, high = node.attributes.known or (-np.inf, np.inf)
    return replace(node, attributes=replace(node.attributes, known=(max(low, -most), min(high, most))))
