"""One step of training as a graph over real numbers: forward, p - y, gradients, updates.

Its inputs are the model's, the targets and the states; each state's next value is an output of its name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from mpc.compiler.graph.attributes import Maximum, Rectified, Round, Select
from mpc.compiler.graph.graph import Graph, GraphInput, GraphOutput, Node
from mpc.compiler.graph.passes import drop_dead_nodes, drop_empty_moves, join_reshapes, share_steps
from mpc.compiler.graph.stored import StoredInput
from mpc.compiler.training.at_rest import targets_at_rest, targets_entered, targets_read
from mpc.compiler.training.backward import differentiate
from mpc.compiler.training.losses import LOSS, last_sums, loss_named, squares
from mpc.compiler.training.normalised import normalises
from mpc.compiler.training.optimisers import SGD, Rate
from mpc.compiler.training.parameters import Freed
from mpc.compiler.training.precision import Precision, loss_bits
from mpc.compiler.training.tape import Tape
from mpc.errors import ModelError, UsageError

_PRODUCTS = frozenset({"matmul", "conv", "multiply"})
_LONGEST_NAME = 190
_PASSES = (drop_empty_moves, join_reshapes, share_steps, drop_empty_moves, drop_dead_nodes)


@dataclass(frozen=True)
class State:
    """A value that a step reads and writes anew.

    Args:
        name: the input of the step's graph that it is, and the output that is its next value.
        gradient: whose scale it has, times 2^finer.
        velocity: it is one; else a weight.
        values: what it begins with; None for zeros.
    """

    name: str
    gradient: str
    finer: int
    velocity: bool
    values: np.ndarray | None = field(default=None, repr=False)

    @property
    def of(self) -> str:
        """The weight that moves: itself, unless it is a velocity."""
        return self.name.removesuffix(".velocity") if self.velocity else self.name


@dataclass(frozen=True)
class Step:
    """A step's graph, what of it are states, and by how much these move.

    Args:
        rate: lr / batch.
        decay: of weights, lr weight_decay; None without.
        rests: values whose bounds rest on samples, and these bounds.
        momentum: what of a velocity is left after a step.
    """

    graph: Graph
    states: tuple[State, ...]
    target: str
    rate: Rate
    decay: Rate | None = None
    rests: Mapping[str, float] = field(default_factory=dict, repr=False)
    momentum: float = 0.0

    def states_of(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the next value of each state, of the values of all nodes."""
        names = {state.name for state in self.states}
        return {out.name: values[out.value] for out in self.graph.outputs if out.name in names}


def write_step(
    freed: Freed,
    loss: str,
    optimizer: SGD,
    batch: int,
    precision: Precision,
    target: str,
    stored: StoredInput | None = None,
    tells: Collection[str] = (),
) -> Step:
    """Write the step of a graph whose weights are inputs and whose dimensions are numbers.

    Args:
        target: the name that its targets get as an input.
        stored: the targets, if they lie at the parties.
        tells: "loss" adds that as an output.

    Raises:
        ModelError: an operator on the way to a weight has no derivative; the model does not end as the loss needs it.
        UsageError: an input of the model has the targets' name.
        InputError: targets that lie at the parties are none for this loss.
    """
    _check_names(freed, optimizer, target)
    head, forward = loss_named(loss), _with_precision(freed, precision)
    z = last_sums(forward, head)
    tape = Tape(forward, loss_bits(precision))
    tape.origin = replace(tape.origin, node="loss", operator=loss)
    for given in freed.graph.inputs:
        tape.shapes[given.name] = given.shape
    tape.shapes |= {name: values.shape for name, values in freed.values.items()}
    if stored is not None:
        entered = targets_at_rest(tape, target, stored, tape.shapes[z], head.targets)
    else:
        entered = targets_entered(tape, target, freed.graph.outputs[0].shape, tape.shapes[z], head.targets)
    tape.shapes[target] = entered.shape
    seed = head.head(tape, z, targets_read(tape, target), precision)
    gradients = differentiate(tape, {z: seed}, [*freed.values])
    rate = optimizer.rate(batch)
    states, outputs, inputs = [], [], list(freed.graph.inputs)
    inputs.append(entered)
    for name, gradient in gradients.items():
        tape.origin = replace(tape.origin, node=name, operator="SGD")
        for state, value in _updated(tape, name, gradient, freed.values[name], optimizer, rate, precision):
            inputs.append(GraphInput(state.name, freed.values[name].shape, "float64"))
            outputs.append(GraphOutput(state.name, value, freed.values[name].shape, "float64"))
            states.append(state)
    if LOSS in tells:
        outputs.append(squares(tape, seed))
    graph = Graph(inputs, [_with_gradient_bits(node, precision) for node in tape.nodes], outputs)
    for each in _PASSES:
        graph = each(graph)
    return Step(graph, tuple(states), target, rate, optimizer.decay, momentum=optimizer.kept.of(1))


def _check_names(freed: Freed, optimizer: SGD, target: str) -> None:
    """Refuse names that a step cannot have, or would have twice."""
    taken = {given.name for given in freed.graph.inputs} | {node.writes for node in freed.graph.nodes}
    for name in freed.values:
        if len(name) > _LONGEST_NAME:
            raise ModelError(
                f"a weight has a name of {len(name)} characters, {name[:20]!r}...",
                remedy=f"rename it: names of weights that train have up to {_LONGEST_NAME}",
            )
    states = [name for each in freed.values for name in ([each, f"{each}.velocity"] if optimizer.halvings else [each])]
    if target in taken.union(states):
        raise UsageError(f"the targets are called {target!r}, and so is another input", remedy="target='labels'")
    if len({*states}) < len(states) or not taken.isdisjoint(states):
        raise ModelError("two values of a step have one name", remedy="rename weights whose names end in '.velocity'")


def _updated(
    tape: Tape, name: str, gradient: str, values: np.ndarray, optimizer: SGD, rate: Rate, precision: Precision
) -> list[tuple[State, str]]:
    """Each state of a weight, and its next value.

    W := W - k 2^-L U exactly, with U = mu V + G; the state is U, of which V is the rounded form: it is made beside the
    next step's first products, and takes no round of its own.
    """
    found: list[tuple[State, str]] = []
    m, step = optimizer.halvings, gradient
    if m:
        velocity = f"{name}.velocity"
        tape.shapes[velocity] = tape.shapes[name]
        rounded = tape.emit("round", (velocity,), None, tape.shapes[name], Round(drop=m))
        step = tape.sum((rounded, gradient), (optimizer.kept.of(1), 1.0), known=(-1.0, 1.0))
        found.append((State(velocity, gradient, m, True), step))
    reads, factors, decay = [name, step], [1.0, -rate.factor / 2.0**rate.shift], optimizer.decay
    if decay is not None:
        reads.append(tape.emit("round", (name,), None, tape.shapes[name], Round(drop=decay.shift)))
        factors.append(-decay.factor / 2.0**decay.shift)
    after = tape.sum(reads, factors, known=(-precision.weights, precision.weights))
    found.append((State(name, gradient, m + rate.shift, False, values), after))
    return found


def _with_precision(freed: Freed, precision: Precision) -> Graph:
    """Give what layers hand on few fractional bits, and what is multiplied no more than that."""
    nodes: list[Node] = []
    short: dict[str, str] = {}
    written = {node.writes: node for node in freed.graph.nodes}
    for node in freed.graph.nodes:
        if node.op in _PRODUCTS and len(node.reads) == 2 and not (node.op == "multiply" and normalises(node, written)):
            for name in [name for name in node.reads if name in written and name not in short]:
                short[name] = f"{name}/short"
                shape = next(one.shape for one in nodes if one.writes == name)
                bits = Round(fraction=precision.activations)
                nodes.append(Node("round", (name,), short[name], shape, node.origin, bits))
            node = replace(node, reads=tuple(short.get(name, name) for name in node.reads))
        nodes.append(_with_activation_bits(node, precision))
    return Graph(freed.graph.inputs, nodes, freed.graph.outputs)


def _with_activation_bits(node: Node, precision: Precision) -> Node:
    if node.op == "relu":
        bits = Rectified(ceiling=precision.ceiling, fraction=precision.activations, known=node.attributes.known)
        return replace(node, attributes=bits)
    if node.op == "maximum":
        return replace(node, attributes=replace(node.of(Maximum), fraction=precision.activations))
    return node


def _with_gradient_bits(node: Node, precision: Precision) -> Node:
    if node.op != "select":
        return node
    return replace(node, attributes=replace(node.of(Select), fraction=precision.gradients))
