"""From a step's graph to its plan: states at the scale of their own gradients, so that updates are exact and free.

Activations have few fractional bits, gradients of one row as well; G = h^T dz has the bits of both, and a weight has L
more (lr / B = k 2^-L).  Then W - k G is a public linear map of integers.  G's scale follows from what is rounded before
it, not from the weights' own scale; so a guess is lowered, G's scales are read off, and the step is lowered with these.
Where a weight, its velocity or its move would be too long for a wire, G loses its last digits, in a round more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from mpc import fixedpoint
from mpc.compiler.graph.attributes import Round
from mpc.compiler.graph.graph import Graph, GraphInput, Node, Origin, static
from mpc.compiler.lowering.builder import LINEAR_BITS, Lowering
from mpc.compiler.lowering.checked import with_fewest_tags
from mpc.compiler.lowering.emitted import Value
from mpc.compiler.lowering.ends import enter, fractions, leave
from mpc.compiler.lowering.intervals import ROUNDING, Interval
from mpc.compiler.lowering.lower import RULES, Rule, with_known
from mpc.compiler.lowering.rounds import with_fewer_rounds
from mpc.compiler.lowering.rules import gradients, products
from mpc.compiler.lowering.rules.gradients import FEWEST_BITS, SMALLER_STEP
from mpc.compiler.lowering.rules.together import with_room
from mpc.compiler.lowering.rules.tops import with_step
from mpc.compiler.lowering.scales import log2
from mpc.compiler.roles import Roles
from mpc.compiler.training.at_rest import first_program
from mpc.compiler.training.normalised import normalises
from mpc.compiler.training.precision import Precision, loss_bits
from mpc.compiler.training.step import State, Step
from mpc.errors import InputError, ModelError
from mpc.plan.ends import PlanInput, PlanState
from mpc.plan.plan import Plan
from mpc.plan.program import Program
from mpc.plan.verify import verify
from mpc.wires import MAX_BITS, Lifetime, Masking

_MOST_TRIES = 12
_ROUNDED = 1 + 1 / 64
_SPARE = 1.05
"""Room that a sum has beside the largest that is known of it, and terms are not (`maps`)."""


def _multiply(state: Lowering, node: Node) -> Value:
    """Multiply values as they are, but for what normalises: no weight moves by that, and its factors need digits."""
    return (products.product if normalises(node, state.graph.writers) else gradients.product)(state, node)


_TRAINING: dict[str, Rule] = {
    **RULES,
    "matmul": gradients.product,
    "conv": gradients.product,
    "multiply": _multiply,
} | {
    "round": gradients.round_,
    "sum": gradients.sum_,
    "scale": gradients.scale,
}
_EVENLY = {**_TRAINING, "round": gradients.round_evenly}
"""Allow the same where a gradient would have another odd part in each try: means over five divide it by five."""


@dataclass(frozen=True)
class Form:
    """The scale of a state, and the largest size that it can have, as a real number."""

    scale: Fraction
    most: float


@dataclass(frozen=True)
class LoweredStep:
    """A step's plan, and what stays with the model's owner.

    Args:
        weights: int64 integers that the states begin with, by weight wire.
        notes: what the owner should know.
    """

    plan: Plan
    weights: dict[str, np.ndarray] = field(repr=False)
    notes: list[str]


def lower_step(step: Step, roles: Roles, precision: Precision, keeps: Mapping[str, str] | None = None) -> LoweredStep:
    """Return the plan of a step.

    Args:
        keeps: state -> the output that its next value is kept as; None keeps nothing.

    Raises:
        ModelError: a bound does not fit, or no scale of the weights fits their gradients.
    """
    try:
        return _settled(step, roles, precision, keeps or {}, _TRAINING)
    except ModelError as error:
        try:
            return _settled(step, roles, precision, keeps or {}, _EVENLY)
        except ModelError:
            raise error from None


def _settled(
    step: Step, roles: Roles, precision: Precision, keeps: Mapping[str, str], rules: Mapping[str, Rule]
) -> LoweredStep:
    """Lower a step again and again, until states have the forms that their gradients ask for."""
    first = precision.activations + precision.gradients
    given = {
        state.name: Form(Fraction(2) ** (first + state.finer), 1.0 if state.velocity else precision.weights)
        for state in step.states
    }
    drops: dict[str, int] = {}
    seen = list[tuple[dict[str, Form], dict[str, int]]]()
    while (given, drops) not in seen and len(seen) < _MOST_TRIES:
        seen.append((given, drops))
        work = _Work(step, roles, precision, given, keeps, rules, drops)
        inputs, wanted = work.emit(), work.forms()
        over = work.over(wanted)
        if wanted == given and not over:
            return work.finish(inputs)
        drops = {name: drops.get(name, 0) + over.get(name, 0) for name in {*drops, *over}}
        given = {
            state.name: replace(wanted[state.name], scale=wanted[state.name].scale / 2 ** over.get(state.of, 0))
            for state in step.states
        }
    raise ModelError(
        "no scale of the weights fits their gradients",
        cause="a weight's gradient is computed from what the weight itself multiplied, and nothing between is rounded",
        remedy="use another learning rate, leave weights as they are (frozen=[...]), or put an activation between "
        "the layers",
    )


class _Work:
    """One lowering of a step, with the states' forms as they are guessed."""

    def __init__(
        self,
        step: Step,
        roles: Roles,
        precision: Precision,
        forms: Mapping[str, Form],
        keeps: Mapping[str, str],
        rules: Mapping[str, Rule],
        drops: Mapping[str, int],
    ) -> None:
        self.rules = rules
        self.step, self.precision, self.given, self.keeps = step, precision, forms, keeps
        roles = replace(roles, keeps=frozenset(keeps.values()))
        self.graph = _with_fewer_digits(_with_velocities(step, forms), drops)
        self.state = Lowering(self.graph, roles)
        self.init: dict[str, str] = {}

    def emit(self) -> tuple[PlanInput, ...]:
        states = {state.name: state for state in self.step.states}
        inputs = [self._enter(given) for given in self.graph.inputs if given.name not in states]
        for name, state in states.items():
            self._read(name, state)
        for node in self.graph.nodes:
            self.state.origin = node.origin
            try:
                known = with_step(self.state, with_room(self.state, node))
                self.state.values[node.writes] = with_known(self.rules[node.op](self.state, known), known)
            except InputError as error:
                raise node.origin.refuse(error.what, remedy="replace it by a number that is nearer to zero") from None
        return tuple(inputs)

    def finish(self, inputs: tuple[PlanInput, ...]) -> LoweredStep:
        plan = self._plan(inputs)
        weights = {wire: self.state.weights[wire] for wire in self.state.weights if wire in plan.wire}
        return LoweredStep(plan, weights, self.state.notes.told())

    def forms(self) -> dict[str, Form]:
        """Return the forms that the gradients ask for."""
        found = {}
        for state in self.step.states:
            gradient = self.state.values[self._gradient(state)]
            scale = gradient.scale * 2**state.finer
            most = self.precision.weights
            if state.velocity:  # V = mu V + G stays below the largest G, as often as 1 - mu is in one
                most = (gradient.interval.bound + 2) / float(gradient.scale) / (1 - self.step.momentum)
            found[state.name] = Form(scale, most)
        return found

    def over(self, forms: Mapping[str, Form]) -> dict[str, int]:
        """Return by how many bits the gradient of each weight is too long for its states to have these forms.

        Raises:
            ModelError: a gradient would have hardly a digit left.
        """
        found: dict[str, int] = {}
        more = (self.step.rate.factor - 1).bit_length()
        for state in self.step.states:
            form, gradient = forms[state.name], self.state.values[self._gradient(state)]
            most = form.most * float(form.scale)
            if state.velocity:
                over = max(math.frexp(most)[1] - LINEAR_BITS, math.frexp(most * _ROUNDED + 2)[1] + more - MAX_BITS)
            else:
                over = math.frexp(_SPARE * most)[1] - LINEAR_BITS
                if self._velocity_of(state.name) is None:
                    over = max(over, gradient.wire.bits + more - MAX_BITS)
            if over <= 0:
                continue
            found[state.of] = over = max(over, found.get(state.of, 0))
            if (left := log2(gradient.scale) - over) < FEWEST_BITS:
                reach = gradient.interval.bound / float(gradient.scale)
                raise ModelError(
                    f"the gradient of {state.of!r} can reach {reach:.3g}, which leaves {left} fractional bits of it",
                    remedy=f"{SMALLER_STEP}, or use a smaller learning rate",
                )
        return found

    def _gradient(self, state: State) -> str:
        """The value of the gradient, whatever passes have made of its name."""
        writers = {node.writes: node for node in self.graph.nodes}
        out = next(out for out in self.graph.outputs if out.name == state.name)
        node = writers[out.value]
        if not state.velocity and state.finer and (inner := self._velocity_of(state.name)) is not None:
            node = writers[inner]
        return node.reads[1]

    def _velocity_of(self, name: str) -> str | None:
        return next((out.value for out in self.graph.outputs if out.name == f"{name}.velocity"), None)

    def _enter(self, given: GraphInput) -> PlanInput:
        """Enter data, with the fractional bits that activations have; targets with those of p - y."""
        state, is_target = self.state, given.name == self.step.target
        if given.stored is not None:
            return enter(state, given)
        bits = loss_bits(self.precision) if is_target else self.precision.activations
        scale = Fraction(1) if given.whole else Fraction(2) ** bits
        low, high = (np.broadcast_to(np.asarray(end, np.float64), static(given.shape)) for end in given.range)
        rounding = np.full(static(given.shape), 0.0 if given.whole else ROUNDING)
        interval = Interval(np.floor(low * float(scale)), np.ceil(high * float(scale)), rounding)
        state.origin = Origin(given.name, "input")
        holders = (state.roles.owner(given.name),)
        value = state.add("input", given.shape, scale, interval, holders=holders, lifetime=Lifetime.RUN)
        state.values[given.name] = value
        return PlanInput(name=given.name, wire=value.wire.name, dtype=given.dtype, **fractions(given.range))

    def _read(self, name: str, state: State) -> None:
        """Read a state, which nobody enters; the first run reads a weight of its owner's."""
        form, work = self.given[name], self.state
        work.origin = Origin(name, "state")
        shape = next(given.shape for given in self.graph.inputs if given.name == name)
        limit = form.most * float(form.scale)
        interval = Interval.between(-limit, limit, static(shape))
        wire = f"{len(work.gates)}.input"
        work.gate("input", out=wire, lifetime=Lifetime.STATE)
        value = work.wire(wire, shape, form.scale, interval, Masking.DRAWN)
        work.values[name] = value
        if state.values is not None:
            self.init[name] = self._begin(name, state.values, value)

    def _program(self) -> Program | None:
        rows = [int(given.shape[0]) for given in self.graph.inputs if given.stored is not None]
        return first_program(rows[0], self.keeps) if rows else None

    def _begin(self, name: str, values: np.ndarray, read: Value) -> str:
        most = float(np.abs(values).max(initial=0.0))
        if most > self.precision.weights:
            raise ModelError(
                f"the weight {name!r} begins at {most:.3g}, and weights are declared to stay within "
                f"{self.precision.weights:g}",
                remedy="scale the layer down, freeze it (--frozen, in Python frozen=[...]), or declare more, in "
                "Python alone: cluster.trainer(..., precision=Precision(weights=...))",
            )
        init = self.state.stored(fixedpoint.encode(values, read.scale, "a weight"), read.scale)
        self.state.wires[init] = self.state.wires[init].model_copy(update={"bits": read.wire.bits})
        return init

    def _plan(self, inputs: tuple[PlanInput, ...]) -> Plan:
        work = self.state
        states = {state.name for state in self.step.states}
        for out in (out for out in self.graph.outputs if out.name in states):
            written, read = work.values[out.value].wire.name, work.values[out.name].wire
            work.wires[written] = work.wires[written].model_copy(update={"bits": read.bits})
            work.states.append(PlanState(name=out.name, in_=read.name, out=written, init=self.init.get(out.name)))
        left = [replace(out, name=self.keeps.get(out.name, out.name)) for out in self.graph.outputs]
        told = {*self.keeps.values(), *(out.name for out in self.graph.outputs if out.name not in states)}
        outputs = [leave(work, out)[0] for out in left if out.name in told]
        kept = {out: name for name, out in self.keeps.items()}
        for each in outputs:  # what is kept is read as the state that it is
            if each.keep:
                bits = work.values[kept[each.name]].wire.bits
                work.wires[each.wire] = work.wires[each.wire].model_copy(update={"bits": bits})
        work.drop_unread()
        work.choose_openings()
        work.choose_masks()
        if work.roles.security == "active":
            work.gates = with_fewest_tags(work.gates, work.wires)
        work.gates = with_fewer_rounds(work.gates, work.wires, work.roles.link, work.roles.security)
        plan = Plan(
            inputs=inputs,
            outputs=tuple(outputs),
            wires=tuple(work.wires.values()),
            gates=tuple(work.gates),
            states=tuple(work.states),
            program=self._program(),
            security=work.roles.security,
        )
        verify(plan)
        return plan


def _with_fewer_digits(graph: Graph, drops: Mapping[str, int]) -> Graph:
    """Return the graph with gradients that lose so many of their last digits, by the weight that they move."""
    if not drops:
        return graph
    written = {out.name: out.value for out in graph.outputs}
    moved = {written.get(f"{name}.velocity", written[name]): (name, drop) for name, drop in drops.items()}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.writes in moved:
            name, drop = moved[node.writes]
            first, gradient, *rest = node.reads
            fewer = replace(node, op="round", reads=(gradient,), writes=f"{name}/fewer", attributes=Round(drop=drop))
            nodes.append(fewer)
            node = replace(node, reads=(first, fewer.writes, *rest))
        nodes.append(node)
    return Graph(graph.inputs, nodes, graph.outputs)


def _with_velocities(step: Step, forms: Mapping[str, Form]) -> Graph:
    """Tell the nodes that write velocities how large these are."""
    known = {
        next(out.value for out in step.graph.outputs if out.name == state.name): forms[state.name].most
        for state in step.states
        if state.velocity
    }
    nodes = [
        replace(node, attributes=replace(node.attributes, known=(-known[node.writes], known[node.writes])))
        if node.writes in known
        else node
        for node in step.graph.nodes
    ]
    return Graph(step.graph.inputs, nodes, step.graph.outputs)
