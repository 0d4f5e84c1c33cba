"""Weights that trained are told as the model's file has them, however layers read them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from mpc.compiler.graph.evaluate import follow
from mpc.compiler.training.train import compile_training
from tests.support.training import model, on_reals

Made = tuple[list[onnx.NodeProto], dict[str, np.ndarray], tuple[int, ...]]
ROWS = 4


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.5, 0.5, shape).astype(np.float32)


def transposed(group: int) -> Made:
    return (
        [
            helper.make_node("ConvTranspose", ["x", "w", "c"], ["h"], name="up", group=group, strides=[2, 2]),
            helper.make_node("Flatten", ["h"], ["f"], name="flat"),
            helper.make_node("Gemm", ["f", "m", "b"], ["z"], name="fc", transB=1, alpha=0.5, beta=2.0),
        ],
        {"w": numbers(2, 2 // group, 2, 3), "c": numbers(2), "m": numbers(3, 40), "b": numbers(3)},
        (2, 2, 2),
    )


def one_axis() -> Made:
    """A convolution over one axis, and a square matrix that a Transpose turns before it is read."""
    return (
        [
            helper.make_node("Conv", ["x", "w", "c"], ["h"], name="conv"),
            helper.make_node("Flatten", ["h"], ["f"], name="flat"),
            helper.make_node("Transpose", ["m"], ["mt"], name="turn", perm=[1, 0]),
            helper.make_node("MatMul", ["f", "mt"], ["p"], name="fc"),
            helper.make_node("Add", ["p", "b"], ["z"], name="plus"),
        ],
        {"w": numbers(3, 2, 3), "c": numbers(3), "m": numbers(6, 6), "b": numbers(6)},
        (2, 4),
    )


def recurrent() -> Made:
    """A layer that stays as it is, and one behind it that trains."""
    return (
        [
            helper.make_node("Transpose", ["x"], ["t"], name="steps", perm=[1, 0, 2]),
            helper.make_node("RNN", ["t", "w", "r", "c"], ["", "h"], name="rnn", hidden_size=3),
            helper.make_node("Flatten", ["h"], ["f"], name="last", axis=2),
            helper.make_node("Gemm", ["f", "m"], ["z"], name="fc", transB=1),
        ],
        {"w": numbers(1, 3, 4), "r": numbers(1, 3, 3), "c": numbers(1, 6), "m": numbers(3, 3)},
        (2, 4),
    )


@pytest.mark.parametrize(
    ("made", "frozen"),
    [(transposed(1), []), (transposed(2), []), (one_axis(), []), (recurrent(), ["w", "r", "c"])],
    ids=["transposed", "groups", "one axis", "behind a recurrent one"],
)
def test_what_is_told_is_what_the_file_wants(made: Made, frozen: list[str]) -> None:
    """Put into the file in place of its own, weights that have moved give what the trained model gives."""
    nodes, weights, shape = made
    outputs = len(weights["m"])
    file = model(nodes, weights, ["rows", *shape], ["rows", outputs])
    feeds = {"x": np.random.default_rng(2).random((ROWS, *shape)), "target": np.eye(outputs)[np.arange(ROWS) % outputs]}
    training = compile_training(file, batch=ROWS, ranges={"x": (0, 1)}, samples=feeds, frozen=frozen)
    *_, moved = on_reals(training, iter([feeds] * 3))
    told = {name: training.in_file(name, values) for name, values in moved.items()}
    assert {name: values.shape for name, values in told.items()} == {name: weights[name].shape for name in moved}
    assert moved and all(np.abs(told[name] - weights[name]).max() > 1e-3 for name in moved)

    graph = training.forward.graph if training.forward is not None else None
    assert graph is not None
    values = {node.writes: value for node, value in follow(graph.nodes, {"x": feeds["x"], **moved}, ROWS)}
    filled = model(nodes, weights | told, ["rows", *shape], ["rows", outputs]).SerializeToString()
    session = onnxruntime.InferenceSession(filled, providers=["CPUExecutionProvider"])
    [wanted] = session.run(None, {"x": feeds["x"].astype(np.float32)})
    np.testing.assert_allclose(values[graph.outputs[0].value], wanted, atol=1e-5)


def test_a_weight_that_is_told_otherwise_is_noted() -> None:
    """A layer reads what is computed of it, in a way that no layout knows."""
    nodes = [
        helper.make_node("Abs", ["m"], ["a"], name="size"),
        helper.make_node("Gemm", ["x", "a"], ["z"], name="fc", transB=1),
    ]
    training = compile_training(model(nodes, {"m": numbers(3, 4)}, ["rows", 4], ["rows", 3]), batch=ROWS)
    assert [note for note in training.notes if note.startswith("'m': told as layers read them")]
