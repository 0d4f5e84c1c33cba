"""Compile what is done with weights that a training has kept at the parties: the model, or a look at the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mpc.compiler.from_graph import compile_graph
from mpc.compiler.graph.attributes import Rectified
from mpc.compiler.graph.graph import Carried, Graph, GraphInput, GraphOutput, Node
from mpc.compiler.lowering.lower import Lowered
from mpc.compiler.roles import Roles
from mpc.compiler.training.calibrate import bounded_by
from mpc.compiler.training.train import Training
from mpc.errors import UsageError
from mpc.plan.link import Link


def compile_prediction(training: Training, owner: str, link: Link | None = None) -> Lowered:
    """Compile the model that a training leaves, for any number of rows; its weights are read where they lie.

    A ReLU's results are cut to the ceiling that they had in the training, and bounds that rested on samples still do.

    Args:
        owner: whose the kept weights are, who enters the inputs and receives the outputs.
        link: what lies between the processes, if it is declared.

    Raises:
        ModelError: a bound does not fit.
    """
    if training.forward is None:
        raise UsageError("this training has no model", remedy="make it with compile_training(...)")
    graph = training.forward.graph
    nodes = [bounded_by(_cut(node, training.precision.ceiling), training.step.rests) for node in graph.nodes]
    inputs, carried = _weights(training, owner)
    return compile_graph(
        Graph([*graph.inputs, *inputs], nodes, [*graph.outputs, *carried]),
        Roles(owner, owner, (owner,), security=training.plan.security, link=link),
    )


def compile_telling(training: Training, owner: str) -> Lowered:
    """Compile what tells the owner of kept weights what they are; its outputs have the names that they are kept by."""
    inputs, carried = _weights(training, owner)
    readers: dict[str, tuple[str, ...]] = {out.name: (owner,) for out in carried}
    roles = Roles(owner, owner, (owner,), readers=readers, security=training.plan.security)
    return compile_graph(Graph(inputs, [], carried), roles)


def _weights(training: Training, owner: str) -> tuple[list[GraphInput], list[GraphOutput]]:
    """Both ends of each weight, which runs hand on as it is: it is masked once a session, whatever many runs read."""
    wires: Mapping[str, str] = {state.name: state.in_ for state in training.plan.states}
    inputs, outputs, most = [], [], training.precision.weights
    for name, kept in training.keeps.items():
        wire = training.plan.wire[wires[name]]
        inputs.append(
            GraphInput(name, wire.sizes, "float64", (-most, most), state=Carried(wire.scale, stored_by=owner))
        )
        outputs.append(GraphOutput(kept, name, wire.sizes, "float64", carried=name))
    return inputs, outputs


def _cut(node: Node, ceiling: float | None) -> Node:
    if node.op != "relu" or ceiling is None:
        return node
    return replace(node, attributes=Rectified(ceiling=ceiling, known=node.attributes.known))
