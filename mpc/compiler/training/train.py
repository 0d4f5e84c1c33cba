"""The front door of training: a model in, the plan of one step and the weights that it begins with out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from mpc.compiler.arguments import as_ranges, as_shapes
from mpc.compiler.compile import DEFAULT_RANGE, Ranges
from mpc.compiler.graph.calibrate import MARGIN
from mpc.compiler.graph.gated import join_gated
from mpc.compiler.graph.graph import Graph, Range
from mpc.compiler.graph.passes import drop_dead_nodes, drop_empty_moves, fuse_pooling, join_reshapes, share_steps
from mpc.compiler.graph.stored import StoredInput
from mpc.compiler.onnx.layouts import Layout, layouts_read, told_otherwise
from mpc.compiler.onnx.load import Source, load_model
from mpc.compiler.onnx.protos import constants_read, parameters_read, stand_ins_read, statistics_read
from mpc.compiler.onnx.signature import Shapes, input_types
from mpc.compiler.onnx.untied import Model, told_apart, untied
from mpc.compiler.onnx.walk import import_model
from mpc.compiler.roles import Roles
from mpc.compiler.training.at_rest import at_rest
from mpc.compiler.training.calibrate import STEPS, Calibration
from mpc.compiler.training.digits import series_bits, with_series_of
from mpc.compiler.training.errors import expected_errors
from mpc.compiler.training.losses import LOSS
from mpc.compiler.training.lowering import LoweredStep, lower_step
from mpc.compiler.training.optimisers import SGD, Rate, decay_beside
from mpc.compiler.training.parameters import Freed, bound_to, equal_notes, freed, normalised
from mpc.compiler.training.precision import Precision
from mpc.compiler.training.ranges import BEYOND, range_checked
from mpc.compiler.training.step import Step, write_step
from mpc.errors import InputError, ModelError, UsageError
from mpc.fixedpoint import decode
from mpc.gates.linear import Combine
from mpc.plan.plan import Plan
from mpc.plan.verify import verify
from mpc.wires import MAX_BATCH, MAX_BITS

_FACTOR_BITS = 20
_LONGEST_NAME = 200
_CALIBRATED = (
    f"bounds rest on {STEPS} steps over the samples, with a margin of {MARGIN:g}: data much unlike them, and weights "
    "that go much further, can give wrong numbers, and "
)
_PASSES = (drop_empty_moves, join_reshapes, join_gated, drop_dead_nodes, share_steps, drop_empty_moves)


@dataclass(frozen=True)
class Training:
    """A model that trains, as the plan of one step.

    Args:
        plan: bound to `batch` rows; its states are the weights, and velocities with momentum.
        weights: int64 integers of each weight wire: what the states begin with, the model owner's secret.
        step: the graph that was compiled, over real numbers.
        rate: lr / batch as the plan has it.
        notes: what the model's owner should know.
        forward: the model with open rows, of which the weights that train are inputs.
        keeps: state that is a weight -> the output that it is kept as.
        loss: its name.
        precision: what was kept of each value; with samples no ReLU has a ceiling.
        moves: state that is a velocity -> likewise, of a training that is to go on from there.
        samples: what bounds rest on, if they do.
        layouts: weight -> how the model's file has it.
    """

    plan: Plan
    weights: dict[str, np.ndarray] = field(repr=False)
    step: Step = field(repr=False)
    batch: int
    rate: Rate
    notes: tuple[str, ...] = ()
    forward: Freed | None = field(default=None, repr=False)
    keeps: dict[str, str] = field(default_factory=dict)
    loss: str = "one_vs_all"
    precision: Precision = Precision()
    moves: dict[str, str] = field(default_factory=dict)
    samples: Calibration | None = field(default=None, repr=False, compare=False)
    layouts: dict[str, Layout] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def expected_errors(self) -> dict[str, float]:
        """Return by how much a step's move of each weight is expected to be off, as a part of it: see `errors`.

        It is found by some steps in the clear, on the samples or on rows that are drawn, when it is asked first.
        """
        return expected_errors(self.plan, self.weights, self.step, self.samples)

    @property
    def learning_rate(self) -> float:
        """The learning rate that the plan has: a multiple of a power of two, near what was asked for."""
        return self.rate.of(self.batch)

    def at(self, factor: int) -> Training:
        """Return the step with another learning rate: factor 2^-L / batch, with the L of this one.

        Its states have the same forms, so a session's schedule may take one plan after another.  Weights decay by as
        much more or less, as near as the plan of this step can say it.

        Raises:
            UsageError: the factor is not positive, or has more than 20 bits, or so long a step does not fit into the
                field; or no decay of this plan's is near.
        """
        if type(factor) is not int or not 1 <= factor < 1 << _FACTOR_BITS:
            raise UsageError(
                f"a learning rate of {factor} 2^-{self.rate.shift} for each row", remedy="give a factor from 1 on"
            )
        out = {state.out for state in self.plan.states if not self._is_velocity(state.name)}
        decay = () if self.step.decay is None else (-decay_beside(self.step.rate, self.step.decay, factor),)
        gates = tuple(
            gate.model_copy(update={"factors": (1, -factor, *decay)})
            if isinstance(gate, Combine) and gate.out in out
            else gate
            for gate in self.plan.gates
        )
        parts = {name: getattr(self.plan, name) for name in Plan.model_fields}
        plan = Plan(**parts | {"gates": gates})
        verify(plan)
        made = replace(self, plan=plan, rate=Rate(factor, self.rate.shift))
        made.require_room()
        return made

    def require_room(self) -> None:
        """Require that a step fits into the field, which the plan's rules do not see; `UsageError`."""
        out = {state.out for state in self.plan.states if not self._is_velocity(state.name)}
        moved = [gate for gate in self.plan.gates if isinstance(gate, Combine) and gate.out in out]
        more = (self.rate.factor - 1).bit_length()
        if any(self.plan.wire[gate.xs[1]].bits + more > MAX_BITS for gate in moved):
            raise UsageError(
                f"a factor of {self.rate.factor}: so long a step does not fit into the field",
                remedy="give a smaller factor, or compile a step of a smaller rate: SGD(lr=...)",
            )

    def _is_velocity(self, name: str) -> bool:
        return any(state.name == name and state.velocity for state in self.step.states)

    def in_file(self, name: str, values: np.ndarray) -> np.ndarray:
        """Return a weight in the shape and order that the model's file has it in, of what layers read."""
        return self.layouts[name].in_file(values) if name in self.layouts else values

    def parameters(self, states: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the weights as layers read them, as real numbers by the model's names, of the states' by wire."""
        found = {state.name: states[state.in_] for state in self.plan.states if state.init is not None}
        wires = {state.name: self.plan.wire[state.in_] for state in self.plan.states}
        return {name: decode(values, wires[name].scale) for name, values in found.items()}


def compile_training(
    model: Source,
    loss: str = "one_vs_all",
    optimizer: SGD | None = None,
    batch: int = 128,
    ranges: Ranges | Range | None = None,
    roles: Roles | None = None,
    shapes: Shapes | Sequence[int | str | None] | None = None,
    frozen: Collection[str] = (),
    precision: Precision | None = None,
    target: str = "target",
    samples: Mapping[str, np.ndarray] | Calibration | None = None,
    keep: bool = False,
    checkpoints: bool = False,
    stored: Mapping[str, StoredInput] | None = None,
    tells: Collection[str] = (),
) -> Training:
    """Compile one step of training of an ONNX model, which begins with the model's weights.

    Args:
        model: a path, the file's bytes, an open file, or an `onnx.ModelProto`.
        loss: "one_vs_all" (a sigmoid and binary cross entropy an output, summed), "cross_entropy" (softmax) or "mse"
            (half the squared error, summed over outputs), each the mean over the batch's rows.
        optimizer: SGD(0.1) if not given.
        batch: rows of a step.
        ranges: (low, high) of the model's inputs, as `compile_model` has them; of targets too, for "mse".
        frozen: names of weights that stay as they are, as the model calls them.
        target: the name of the targets as an input; of the last sums' shape, so one-hot for classes.
        samples: rows of the inputs and targets that may become known, for a model too deep for bounds that are proved:
            see `calibrate`.  Then no ReLU has a ceiling, and one behind a maximum is part of it.  A `Calibration` of
            them remembers what it found, for whoever compiles the training again.
        keep: the weights are outputs too, kept at the parties in the runs that a program says: "weight.0", ...
        checkpoints: so are the velocities, "velocity.0", ..., for another session to go on: `resumed.goes_on`.
        stored: inputs, and targets, whose rows lie at the parties: the plan has a program, which says which rows a step
            reads (`Plan.with_program`).
        tells: further outputs, for the runs that a program says: "loss", sum (p - y)^2 over the batch and outputs;
            "beyond", 1 if the range check has found a value beyond what its bound takes for granted.

    Raises:
        ModelError: a node has no derivative, or a bound does not fit.
        UsageError, InputError: an argument has a form that says nothing.
    """
    batch, frozen = _check(batch, frozen, optimizer, precision, target)
    loaded, copies = untied(load_model(model))
    types = input_types(loaded)
    known, sizes = as_ranges(ranges, {**types, target: ""}), as_shapes(shapes, [*types])
    if unknown := set(tells) - {LOSS, BEYOND}:
        raise UsageError(f"a step does not tell {min(unknown)!r}", remedy=f"it tells {LOSS!r} and {BEYOND!r}")
    precision, optimizer, roles = precision or Precision(), optimizer or SGD(0.1), roles or Roles()
    if samples is not None:
        precision = replace(precision, ceiling=None)
    targets, lying = known.pop(target, None), dict(stored or {})
    lying_targets = lying.pop(target, None)
    known = {**{name: each.range for name, each in lying.items()}, **known}
    names, stand_ins = constants_read(loaded.graph), stand_ins_read(loaded.graph)

    def imported(of: Model) -> Graph:
        graph = import_model(of, known, sizes, dict.fromkeys(types, DEFAULT_RANGE), skips=False)
        return _prepared(normalised(graph, statistics_read(of.graph), names, frozen), precision)

    whole = imported(loaded)
    graph = bound_to(at_rest(whole, lying, precision) if lying else whole, batch)
    _require_rows(graph, batch)
    released = freed(graph, names, frozen, stand_ins)
    if shared := [name for name, readers in released.readers.items() if len(readers) > 1]:
        freed(imported(told_apart(loaded, shared)), names, frozen, stand_ins)  # refuses what is read in two forms

    def written(tells: Collection[str]) -> Step:
        step = write_step(released, loss, optimizer, batch, precision, target, lying_targets, tells)
        return replace(step, graph=_with_target_range(step, targets))

    calibration = samples if samples is None or isinstance(samples, Calibration) else Calibration(samples)

    def bounded(tells: Collection[str]) -> Step:
        step = written(tells)
        return step if calibration is None else calibration.bounded(step, lambda: written({*tells, LOSS}))

    bits = series_bits(bounded(()), precision, lambda each: lower_step(each, roles, precision))
    step = with_series_of(bounded(tells), bits)
    if BEYOND in tells:
        step = range_checked(step, precision)
    weights = [state.name for state in step.states if not state.velocity]
    keeps = {name: f"weight.{number}" for number, name in enumerate(weights)} if keep else {}
    moving = [state.name for state in step.states if state.velocity]
    moves = {name: f"velocity.{number}" for number, name in enumerate(moving)} if checkpoints else {}
    found = lower_step(step, roles, precision, {**keeps, **moves})
    seen = "only runs with the range check say so" if BEYOND in tells else "no run says so"
    notes = _notes(found, step, optimizer, loss, precision, released, seen)
    layouts = layouts_read(loaded.graph, released.values)
    notes += told_otherwise(loaded.graph, {*weights} - {*layouts})
    notes += _left(parameters_read(loaded.graph), released, frozen) + equal_notes(copies, released)
    notes = notes if samples is None else (*notes, _CALIBRATED + seen)
    forward = freed(whole, names, {*frozen, *released.values} - {*weights}, stand_ins)
    made = Training(
        found.plan, found.weights, step, batch, step.rate, notes, forward, keeps, loss, precision, moves, calibration,
        layouts,
    )  # fmt: skip
    made.require_room()
    return made


def _check(
    batch: object, frozen: object, optimizer: object, precision: object, target: object
) -> tuple[int, frozenset[str]]:
    """Return the batch and the frozen names as they are meant; refuse arguments of other types."""
    if isinstance(batch, bool) or not isinstance(batch, int | np.integer) or not 1 <= batch <= MAX_BATCH:
        raise UsageError("a batch is a number of rows", remedy="batch=128")
    if not isinstance(optimizer, SGD | None) or not isinstance(precision, Precision | None):
        raise UsageError("an optimizer is an SGD, and a precision a Precision", remedy="optimizer=SGD(0.1)")
    if isinstance(frozen, str) or not isinstance(frozen, Collection):
        raise UsageError("frozen weights are several names", remedy="frozen=['fc1.weight']")
    if not isinstance(target, str) or not 1 <= len(target) <= _LONGEST_NAME:
        raise UsageError(f"the targets' name is no text of 1 to {_LONGEST_NAME} characters", remedy="target='labels'")
    return int(batch), frozenset(frozen)


def _require_rows(graph: Graph, batch: int) -> None:
    """Refuse a model whose rows are not the batch's: a step divides by their number."""
    shapes = {end.name: end.shape for end in graph.inputs} | {end.name: end.shape for end in graph.outputs}
    for name, shape in shapes.items():
        if shape[:1] != (batch,):
            raise ModelError(
                f"{name!r} has the shape {shape}, and a step reads {batch} rows",
                remedy="export the model with an open first axis, or give its number of rows: batch=...",
            )


def _prepared(graph: Graph, precision: Precision) -> Graph:
    """Return the forward graph after the passes that leave weights as they are."""
    for given in graph.inputs:
        if given.marks or given.beyond or given.encoded:
            raise InputError(
                f"input {given.marks or given.name!r} may miss numbers, which a model that trains does not take",
                remedy="fill them in before they are entered, and leave the Imputer out of the model",
            )
    graph.inputs = [replace(given, declared=given.declared or DEFAULT_RANGE) for given in graph.inputs]
    for each in _PASSES:
        graph = each(graph)
    return fuse_pooling(graph) if precision.ceiling is None else graph


def _with_target_range(step: Step, targets: Range | None) -> Graph:
    inputs = [
        replace(given, declared=given.declared or targets or DEFAULT_RANGE) if given.name == step.target else given
        for given in step.graph.inputs
    ]
    return Graph(inputs, step.graph.nodes, step.graph.outputs)


def _notes(
    found: LoweredStep, step: Step, optimizer: SGD, loss: str, precision: Precision, released: Freed, seen: str
) -> tuple[str, ...]:
    """Say what was assumed, and what differs from what was asked for.

    Args:
        seen: who says so where it was assumed wrongly.
    """
    batch = next(int(given.shape[0]) for given in step.graph.inputs if given.name == step.target)
    notes = [
        *found.notes,
        f"weights are declared to stay within {precision.weights:g}: {seen} if one does not "
        "(in Python, cluster.trainer(..., precision=Precision(weights=...)) declares another range)",
    ]
    rate = step.rate.of(batch)
    if rate != optimizer.lr:
        notes.append(f"the learning rate is {rate:.6g}, the nearest to {optimizer.lr:g} that is exact in fixed point")
    if step.momentum != optimizer.momentum:
        notes.append(
            f"the momentum is {step.momentum:.6g}, the nearest to {optimizer.momentum:g} that is exact in fixed point"
        )
    if loss == "one_vs_all":
        notes.append(
            f"an output beyond -{precision.logits:g} to {precision.logits:g} would give a wrong sigmoid, and {seen} "
            "(in Python, cluster.trainer(..., precision=Precision(logits=...)) declares another range)"
        )
    unmoved = sorted(set(released.values) - {state.name for state in step.states})
    if unmoved:
        notes.append(f"the loss does not depend on {', '.join(unmoved)}, which stay as they are")
    return tuple(notes)


def _left(read: Mapping[str, tuple[str, tuple[str, ...]]], released: Freed, frozen: Collection[str]) -> tuple[str, ...]:
    """Name the parameters that stay as they are although nobody has said so: those of no layer that trains."""
    found = []
    for node, (operator, names) in read.items():
        left = [name for name in names if name not in released.values and name not in frozen]
        statistics = operator == "BatchNormalization"
        if left:
            which = ", ".join(map(repr, left))
            also = ", and its mean and variance too," if statistics else ""
            found.append(
                f"{which} of {node!r} ({operator}){also} stay as they are: what trains are weights and biases of "
                "linear layers and convolutions, and gains and shifts of normalisations"
            )
        elif statistics:
            found.append(
                f"mean and variance of {node!r} ({operator}) stay as they are: a step computes none of its batch"
            )
    return tuple(found)
