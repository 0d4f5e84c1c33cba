"""Weights that an exporter stores once, as they begin equal, train each by itself: as PyTorch's own do."""

from __future__ import annotations

from itertools import islice

import numpy as np
import onnx
import pytest
from onnx import helper

from mpc.compiler.onnx.load import Loaded, load_model
from mpc.compiler.training.optimisers import SGD
from mpc.compiler.training.train import Training, compile_training
from tests.support.training import Arrays, batches, model, on_integers, on_reals

BATCH, RATE, STEPS, WIDE = 32, 1 / 4, 5, 4
RANGES = {"x": (0, 1), "target": (0, 1)}


def same(name: str, of: str) -> onnx.NodeProto:
    return helper.make_node("Identity", [of], [name])


def drawn(seed: int, *shape: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal(shape) / shape[0] ** 0.5
    return values.astype(np.float32).astype(np.float64)


def network(normal: bool) -> tuple[onnx.ModelProto, Arrays]:
    """Two layers with a new batch normalisation between them or none, stored as torch's tracing exporter does.

    Returns:
        The model, and the weights that train.
    """
    stored = {"w0": drawn(1, 6, WIDE), "w1": drawn(2, WIDE, WIDE), "b0": np.zeros(WIDE)}
    nodes = [same("b1", "b0"), helper.make_node("Gemm", ["x", "w0", "b0"], ["a"], name="fc0")]
    own = {**stored, "b1": np.zeros(WIDE)}
    if normal:
        stored["gain"] = np.ones(WIDE)
        own |= {"gain": np.ones(WIDE), "shift": np.zeros(WIDE)}
        nodes += [same("shift", "b1"), same("mean", "shift"), same("var", "gain")]
        parts = ["gain", "shift", "mean", "var"]
        nodes.append(helper.make_node("BatchNormalization", ["a", *parts], ["n"], name="bn", epsilon=0.125))
    nodes += [
        helper.make_node("Sigmoid", [nodes[-1].output[0]], ["h"], name="sigmoid"),
        helper.make_node("Gemm", ["h", "w1", "b1"], ["y"], name="fc1"),
    ]
    return model(nodes, stored, ["batch", 6], ["batch", WIDE]), own


def descended(own: Arrays, feeds: list[Arrays], normal: bool) -> Arrays:
    """Weights after a step of SGD on half the mean squared error for each feed, by hand in float64."""
    w = dict(own)
    inverse = 1 / np.sqrt(1 + 0.125) if normal else 1.0
    for feed in feeds:
        x, y = feed["x"], feed["target"]
        z = (x @ w["w0"] + w["b0"]) * inverse
        gain, shift = (w["gain"], w["shift"]) if normal else (1.0, 0.0)
        h = 1 / (1 + np.exp(-(z * gain + shift)))
        g = (h @ w["w1"] + w["b1"] - y) / len(x)
        back = (g @ w["w1"].T) * h * (1 - h)
        before = back * gain * inverse
        moves = {"w1": h.T @ g, "b1": g.sum(0), "w0": x.T @ before, "b0": before.sum(0)}
        if normal:
            moves |= {"gain": (back * z).sum(0), "shift": back.sum(0)}
        w = {name: values - RATE * moves[name] for name, values in w.items()}
    return w


def feeds() -> list[Arrays]:
    rng = np.random.default_rng(5)
    x = np.rint(rng.random((BATCH * STEPS, 6)) * 256) / 256
    target = (x[:, :WIDE] > 0.5).astype(np.float64)
    return list(islice(batches(x, target, BATCH), STEPS))


def trained(made: onnx.ModelProto, **settings: object) -> Training:
    return compile_training(made, "mse", SGD(RATE), BATCH, RANGES, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("normal", [False, True], ids=["zero biases", "new batch normalisation"])
def test_weights_that_begin_equal_move_as_those_of_float64_do(normal: bool) -> None:
    made, own = network(normal)
    training, wanted = trained(made), descended(own, feeds(), normal)
    *_, real = on_reals(training, iter(feeds()))
    *_, whole = on_integers(training, iter(feeds()))
    assert {state.name for state in training.plan.states} == real.keys() == own.keys()
    for name, values in wanted.items():
        way = np.linalg.norm(values - own[name])
        assert np.linalg.norm(real[name] - values) < 1e-2 * way, name
        assert np.linalg.norm(whole[name] - values) < 0.1 * way, name


def test_notes_say_what_trains_by_itself_and_that_statistics_stay() -> None:
    notes = trained(network(True)[0]).notes
    [copies] = [note for note in notes if "each by itself" in note]
    assert "'b1' (as 'b0')" in copies and "'shift' (as 'b0')" in copies and "var" not in copies
    [left] = [note for note in notes if "stay as they are" in note]
    assert left.startswith("mean and variance of 'bn' (BatchNormalization) stay as they are")
    assert not any("one weight of" in note for note in notes)


def test_a_frozen_weight_leaves_those_that_begin_equal_to_train() -> None:
    made, own = network(True)
    first, copy = trained(made, frozen=["b0"]), trained(made, frozen=["shift", "gain"])
    assert {state.name for state in first.plan.states} == own.keys() - {"b0"}
    assert {state.name for state in copy.plan.states} == own.keys() - {"shift", "gain"}


def test_a_weight_that_layers_share_by_name_trains_once_and_is_noted() -> None:
    made, own = network(False)
    made.graph.node[-1].input[2] = "b0"
    training = trained(made)
    assert {state.name for state in training.plan.states} == own.keys() - {"b1"}
    [note] = [note for note in training.notes if "one weight of" in note]
    assert note.startswith("'b0' is one weight of 'fc0', 'fc1'")


def test_the_model_that_was_given_is_not_changed_and_nodes_keep_their_numbers() -> None:
    made, _ = network(True)
    for node in made.graph.node:
        node.ClearField("name")
    loaded = Loaded(load_model(made))
    before = loaded.model.SerializeToString()
    training = compile_training(loaded, "mse", SGD(RATE), BATCH, RANGES)
    assert loaded.model.SerializeToString() == before
    place = next(i for i, node in enumerate(made.graph.node) if node.op_type == "BatchNormalization")
    assert any(f"'BatchNormalization_{place}'" in note for note in training.notes)
