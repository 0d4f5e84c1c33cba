"""Steps rehearsed in the clear: what they move each weight by, beside what real numbers would move it by.

Roundings that cancel, a gradient that is small beside its rows' own, a ReLU that reads what rounding takes across zero:
no sum of bounds says what they come to.  So the step's plan computes on integers, its graph computes on reals from the
same weights on the same rows, and what their moves differ by is the error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod

import numpy as np

from mpc.compiler.graph.evaluate import evaluate
from mpc.compiler.graph.graph import GraphInput, static
from mpc.compiler.rehearsal.clear import computed, integers
from mpc.compiler.rehearsal.drawing import Draws, Feeds, spread_run
from mpc.compiler.training.calibrate import Calibration
from mpc.compiler.training.step import Step
from mpc.fixedpoint import decode
from mpc.plan.plan import Plan

MUCH = 0.05
"""The part of a step's move from which on its error is said."""
_MOST_STEPS = 8
_ELEMENTS = 1 << 22
"""Elements of all wires that a rehearsal takes about, if one step does not need more."""
_CLASSES = (0.0, 1.0)
_MOST_NAMED = 4


def expected_errors(
    plan: Plan, weights: Mapping[str, np.ndarray], step: Step, samples: Calibration | None
) -> dict[str, float]:
    """Return by how much a step's move of each weight is expected to be off, as a part of that move.

    Root mean squares over a weight's elements and over steps, each of which begins at the model's weights: over the
    samples, or over rows that are drawn from the declared ranges, with targets drawn likewise.  Always the same ones.

    Args:
        weights: int64 integers of each weight wire.
    """
    moving = {state.name: state for state in step.states if not state.velocity}
    wires, draws = {state.name: state for state in plan.states}, Draws()
    begun = _begun(plan, weights, step)
    plan = _moving_alone(plan)
    off, size = dict.fromkeys(moving, 0.0), dict.fromkeys(moving, 0.0)
    for feeds in _feeds(plan, step, samples, draws):
        feeds = {**feeds, **begun}
        clear = computed(plan, weights, integers(step.graph, plan, feeds), (), draws, [s.out for s in plan.states])
        values = {node.writes: value for node, value in evaluate(step.graph, feeds)}
        for name, after in step.states_of(values).items():
            if name in moving:
                move = after - feeds[name]
                off[name] += float(np.square(clear.reals(wires[name].out) - after).sum())
                size[name] += float(np.square(move).sum())
    return {name: (off[name] / size[name]) ** 0.5 for name in moving if size[name] > 0}


def notes_of(errors: Mapping[str, float]) -> tuple[str, ...]:
    """Return a note that names the weights whose moves are off by much; none if there are no such weights."""
    much = sorted(((error, name) for name, error in errors.items() if error >= MUCH), reverse=True)
    if not much:
        return ()
    named = ", ".join(f"{name!r} {error:.0%}" for error, name in much[:_MOST_NAMED])
    more = f" and {len(much) - _MOST_NAMED} more" if len(much) > _MOST_NAMED else ""
    return (
        f"a step's moves of weights are expected to be off by a part of them: {named}{more} (from the weights that the "
        "model begins with). It is noise, another one in each step, of roundings and of ReLUs that read a number near "
        "zero; larger batches have less, and cluster.trainer(..., precision=Precision(activations=12, "
        "gradients=14)) in Python keeps more digits",
    )


def _begun(plan: Plan, weights: Mapping[str, np.ndarray], step: Step) -> Feeds:
    """Return what states begin with, as the plan's integers have it."""
    shapes = {given.name: static(given.shape) for given in step.graph.inputs}
    found = {}
    for state in plan.states:
        if state.init is None:
            found[state.name] = np.zeros(shapes[state.name])
        else:
            found[state.name] = decode(weights[state.init], plan.wire[state.in_].scale)
    return found


def _moving_alone(plan: Plan) -> Plan:
    """Return the plan without what states do not hang on: no range check, nothing told."""
    needed, gates = {state.out for state in plan.states}, []
    for gate in reversed(plan.gates):
        if needed.intersection(gate.writes):
            gates.append(gate)
            needed.update(gate.reads)
    parts = {name: getattr(plan, name) for name in Plan.model_fields}
    return Plan(**parts | {"gates": tuple(reversed(gates)), "outputs": (), "program": None})


def _feeds(plan: Plan, step: Step, samples: Calibration | None, draws: Draws) -> Iterator[Feeds]:
    """Rows and targets of each step that is rehearsed."""
    held = sum(prod(plan.wire[name].sizes) for gate in plan.gates for name in gate.writes)
    number = int(np.clip(_ELEMENTS // max(1, held), 1, _MOST_STEPS))
    states = {state.name for state in step.states}
    data = [given for given in step.graph.inputs if given.name not in states]
    for turn in range(number):
        if samples is not None:
            yield samples.feeds(step, turn)
        else:
            yield {**spread_run(data, draws), **_classes(data, step.target, draws)}


def _classes(data: Sequence[GraphInput], target: str, draws: Draws) -> Feeds:
    """Targets that say which class each row is of, if they are no numbers, and no column at the parties."""
    [given] = [given for given in data if given.name == target]
    shape = static(given.shape)
    if given.whole or len(shape) != 2 or tuple(np.ravel(given.range)) != _CLASSES:
        return {}
    if shape[1] == 1:
        return {target: np.rint(draws.uniform(shape))}
    drawn = draws.uniform(shape)
    return {target: (drawn == drawn.max(axis=1, keepdims=True)).astype(np.float64)}
