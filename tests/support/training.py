"""Models that train, made by hand, and training them in the clear: on integers as parties do, and on real numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mpc.compiler.graph.evaluate import evaluate
from mpc.compiler.training.train import Training
from mpc.field import P
from mpc.fixedpoint import encode
from mpc.interpret import reference

Arrays = dict[str, np.ndarray]


def model(
    nodes: Sequence[onnx.NodeProto], weights: Arrays, shape: Sequence[int | str], columns: Sequence[int | str]
) -> onnx.ModelProto:
    """A model with the input "x" and the output that its last node writes."""
    graph = helper.make_graph(
        list(nodes),
        "trained",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, list(columns))],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def perceptron(sizes: Sequence[int], activation: str = "Relu", last: str = "", seed: int = 1) -> onnx.ModelProto:
    """Full layers fc0, fc1, .. with weights w0, b0, .. as PyTorch's begin, an activation between and one behind."""
    rng, weights, nodes, h = np.random.default_rng(seed), {}, [], "x"
    for i, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False)):
        limit = inputs**-0.5
        weights[f"w{i}"] = rng.uniform(-limit, limit, (inputs, outputs))
        weights[f"b{i}"] = rng.uniform(-limit, limit, outputs)
        nodes.append(helper.make_node("Gemm", [h, f"w{i}", f"b{i}"], [f"z{i}"], name=f"fc{i}"))
        h, kind = f"z{i}", activation if i < len(sizes) - 2 else last
        if kind:
            nodes.append(helper.make_node(kind, [h], [f"h{i}"], name=f"{kind}{i}"))
            h = f"h{i}"
    return model(nodes, weights, ["batch", sizes[0]], ["batch", sizes[-1]])


def integers(training: Training, feeds: Arrays) -> Arrays:
    """What owners of a step's inputs enter, by wire."""
    wires = {given.name: training.plan.wire[given.wire] for given in training.plan.inputs}
    return {wires[name].name: encode(values, wires[name].scale) for name, values in feeds.items()}


def on_integers(training: Training, feeds: Iterator[Arrays], seed: int = 1) -> Iterator[Arrays]:
    """Train as parties do, with coins of our own; yield the weights after each step."""
    rng, plan = np.random.default_rng(seed), training.plan.bind(1)
    states = reference.first_states(plan, training.weights)
    for one in feeds:
        given = {**training.weights, **states, **integers(training, one)}
        values = reference.evaluate(plan, given, lambda name, shape: rng.integers(0, P, shape, dtype=np.uint64))
        states = reference.next_states(plan, values)
        yield training.parameters(states)


def on_reals(training: Training, feeds: Iterator[Arrays]) -> Iterator[Arrays]:
    """Train the step's graph on real numbers; yield the weights after each step."""
    graph, states = training.step.graph, training.step.states
    shapes = {given.name: given.shape for given in graph.inputs}
    kept = {s.name: np.zeros(shapes[s.name]) if s.values is None else s.values.astype(np.float64) for s in states}
    for one in feeds:
        values = {node.writes: value for node, value in evaluate(graph, {**kept, **one})}
        kept = {out.name: values[out.value] for out in graph.outputs}
        yield {s.name: kept[s.name] for s in states if not s.velocity}


def batches(x: np.ndarray, y: np.ndarray, size: int, epochs: int = 1, seed: int = 1) -> Iterator[Arrays]:
    """Batches of permutations of the rows; a short last one is left out."""
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x) - size + 1, size):
            rows = order[start : start + size]
            yield {"x": x[rows], "target": y[rows]}
