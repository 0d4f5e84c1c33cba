"""Normalisations train by their gains and shifts; statistics of a batch normalisation stay as the file has them."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from mpc.compiler.training.optimisers import SGD
from mpc.compiler.training.train import Training, compile_training
from mpc.compiler.training.trained import compile_prediction
from mpc.gates.matmul import Matmul
from mpc.gates.multiply import Multiply
from mpc.plan.cost import plan_cost
from tests.support.training import Arrays, batches, integers, model, on_integers, on_reals
from tests.support.worlds import Trial

BATCH, RATE = 8, 1 / 16
RANGES = {"x": (0, 1), "target": (0, 1)}


def norm(**attributes: Any) -> onnx.NodeProto:
    return helper.make_node("BatchNormalization", ["a", "gain", "shift", "mean", "var"], ["n"], name="bn", **attributes)


def weights(channels: int, **more: np.ndarray) -> Arrays:
    rng = np.random.default_rng(channels)
    mean, shift = rng.standard_normal((2, channels)) / 8
    return {
        "gain": rng.uniform(0.5, 1.5, channels),
        "shift": shift,
        "mean": mean,
        "var": rng.uniform(0.3, 1, channels),
        **more,
    }


def of(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape) / np.prod(shape[1:]) ** 0.5


def full() -> tuple[onnx.ModelProto, tuple[int, ...]]:
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="fc0"),
        norm(epsilon=0.125),
        helper.make_node("Relu", ["n"], ["h"], name="relu"),
        helper.make_node("MatMul", ["h", "w1"], ["y"], name="fc1"),
    ]
    return model(nodes, weights(5, w0=of(1, 6, 5), w1=of(2, 5, 3)), ["batch", 6], ["batch", 3]), (6,)


def convolutional() -> tuple[onnx.ModelProto, tuple[int, ...]]:
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["a"], name="conv"),
        norm(),
        helper.make_node("Relu", ["n"], ["h"], name="relu"),
        helper.make_node("Flatten", ["h"], ["f"], name="flat"),
        helper.make_node("MatMul", ["f", "w"], ["y"], name="fc"),
    ]
    return model(nodes, weights(2, k=of(3, 2, 1, 3, 3), w=of(4, 32, 3)), ["batch", 1, 6, 6], ["batch", 3]), (1, 6, 6)


def rows(shape: tuple[int, ...], number: int = 48) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    return rng.random((number, *shape)), np.eye(3)[rng.integers(0, 3, number)]


@pytest.mark.parametrize("network", [full, convolutional])
def test_gain_and_shift_of_a_batch_normalisation_train(network: Any) -> None:
    """Parties = reference bit for bit, and steps are those of real numbers, weights before it included."""
    made, shape = network()
    training = compile_training(made, "mse", SGD(RATE), BATCH, RANGES)
    feeds = list(islice(batches(*rows(shape), BATCH), 4))
    trial = Trial(training.plan, training.weights, 2)
    for one in feeds[:2]:
        trial.run(integers(training, one), 1)
    *_, found = on_integers(training, iter(feeds))
    *_, wanted = on_reals(training, iter(feeds))
    assert {"gain", "shift"} < wanted.keys()
    for state in training.step.states:
        way = np.linalg.norm(wanted[state.name] - state.values)
        assert way > 1e-2, state.name  # else the tolerance would be larger than what is measured
        assert np.linalg.norm(found[state.name] - wanted[state.name]) < 0.05 * way, state.name


@pytest.mark.parametrize("momentum", [0.5, 0.875, 0.9])
def test_with_momentum_a_layer_with_a_bias_before_a_gain_trains(momentum: float) -> None:
    """The bias's gradient has no more digits than the matrix's, though the gain multiplies both on their way."""
    nodes = [
        helper.make_node("Gemm", ["x", "w0", "b0"], ["a"], name="fc0"),
        norm(),
        helper.make_node("Relu", ["n"], ["h"], name="relu"),
        helper.make_node("Gemm", ["h", "w1", "b1"], ["y"], name="fc1"),
    ]
    own = weights(5, w0=of(1, 6, 5), b0=of(2, 5), w1=of(3, 5, 3), b1=np.zeros(3))
    made = model(nodes, own, ["batch", 6], ["batch", 3])
    training = compile_training(made, "mse", SGD(RATE, momentum=momentum), BATCH, RANGES)
    told = any("the momentum is 0.900391, the nearest to 0.9" in note for note in training.notes)
    assert told == (momentum == 0.9)
    scales = {state.name: training.plan.wire[state.in_].scale for state in training.plan.states}
    assert scales["b0.velocity"] <= scales["w0.velocity"]
    x, target = rows((6,))
    feeds = list(islice(batches(np.rint(x * 256) / 256, target, BATCH), 4))
    trial = Trial(training.plan, training.weights, 2)
    for one in feeds[:2]:
        trial.run(integers(training, one), 1)
    *_, found = on_integers(training, iter(feeds))
    *_, wanted = on_reals(training, iter(feeds))
    for state in training.step.states:
        if not state.velocity:
            way = np.linalg.norm(wanted[state.name] - state.values)
            assert way > 0.1, state.name
            assert np.linalg.norm(found[state.name] - wanted[state.name]) < 0.02 * way, state.name


def test_a_step_is_that_of_the_formula() -> None:
    """Of a full network, by hand: y = relu(gain (x w0 - mean) / sqrt(var + epsilon) + shift) w1."""
    made, shape = full()
    w = weights(5, w0=of(1, 6, 5), w1=of(2, 5, 3))
    x, target = (part[:BATCH] for part in rows(shape))
    training = compile_training(made, "mse", SGD(RATE), BATCH, RANGES)
    [found] = on_reals(training, iter([{"x": x, "target": target}]))
    inverse = 1 / np.sqrt(w["var"] + 0.125)
    normal = (x @ w["w0"] - w["mean"]) * inverse
    n = normal * w["gain"] + w["shift"]
    h = np.maximum(n, 0)
    g = (h @ w["w1"] - target) / BATCH
    back = (g @ w["w1"].T) * (n > 0)
    gradients = {
        "w1": h.T @ g, "shift": back.sum(0), "gain": (back * normal).sum(0), "w0": x.T @ (back * w["gain"] * inverse),
    }  # fmt: skip
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        np.testing.assert_allclose(found[name], w[name] - RATE * gradient, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("outputs", "batch"), [(3, 8), (1, 32)])
def test_a_step_of_one_vs_all_moves_each_weight_as_the_formula_does(outputs: int, batch: int) -> None:
    """Where no ReLU reads what rounding could take across zero: there one row more or less would count."""
    errors = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        own = weights(5, w0=of(seed, 6, 5), b0=of(seed + 1, 5) / 4, w1=of(seed + 2, 5, outputs))
        own["b1"] = of(seed + 3, outputs) / 4
        own = {name: values.astype(np.float32).astype(np.float64) for name, values in own.items()}
        nodes = [
            helper.make_node("Gemm", ["x", "w0", "b0"], ["a"], name="fc0"),
            norm(),
            helper.make_node("Relu", ["n"], ["h"], name="relu"),
            helper.make_node("Gemm", ["h", "w1", "b1"], ["y"], name="fc1"),
        ]
        x = np.rint(rng.random((batch, 6)) * 256) / 256
        target = np.eye(3)[rng.integers(0, 3, batch)] if outputs > 1 else rng.integers(0, 2, (batch, 1)).astype(float)
        inverse = 1 / np.sqrt(own["var"] + 1e-5)
        normal = (x @ own["w0"] + own["b0"] - own["mean"]) * inverse
        n = normal * own["gain"] + own["shift"]
        if np.abs(n).min() < 1 / 256 or not (n > 0).any():
            continue
        h = np.maximum(n, 0)
        g = (1 / (1 + np.exp(-(h @ own["w1"] + own["b1"]))) - target) / batch
        back = (g @ own["w1"].T) * (n > 0)
        before = back * own["gain"] * inverse
        gradients = {
            "w1": h.T @ g, "b1": g.sum(0), "shift": back.sum(0), "gain": (back * normal).sum(0), "w0": x.T @ before,
            "b0": before.sum(0),
        }  # fmt: skip
        made = model(nodes, own, ["batch", 6], ["batch", outputs])
        training = compile_training(made, "one_vs_all", SGD(RATE), batch, RANGES)
        [found] = on_integers(training, iter([{"x": x, "target": target}]))
        for name, gradient in gradients.items():
            move = -training.learning_rate * gradient
            errors.append(np.linalg.norm(found[name] - own[name] - move) / np.linalg.norm(move))
    assert len(errors) >= 12  # of two networks at least
    assert np.median(errors) < 0.006 and max(errors) < 0.03


def test_a_gain_s_gradient_is_summed_before_it_is_opened() -> None:
    """One opening a channel, however many rows and places there are."""
    made, _ = convolutional()
    training = compile_training(made, "mse", SGD(RATE), BATCH, RANGES)
    products = [gate for gate in training.plan.gates if isinstance(gate, Matmul)]
    assert (2, 1, 1) in {training.plan.wire[gate.out].sizes for gate in products}
    multiplied = [gate for gate in training.plan.gates if isinstance(gate, Multiply)]
    assert len(multiplied) == 4  # by the statistics and by the gain, forwards and back


def notes(training: Training) -> list[str]:
    return [note for note in training.notes if "stay as they are" in note]


def test_a_frozen_normalisation_is_one_scaling_and_what_stays_is_named() -> None:
    made, _ = convolutional()
    whole, frozen, half = (
        compile_training(made, "mse", SGD(RATE), BATCH, RANGES, frozen=names)
        for names in ((), ("gain", "shift"), ("gain",))
    )
    assert {state.name for state in frozen.plan.states} == {"k", "w"}
    assert {state.name for state in half.plan.states} == {"k", "w", "shift"}
    assert plan_cost(frozen.plan).rounds < plan_cost(whole.plan).rounds
    for each in (whole, frozen, half):
        [note] = notes(each)
        assert note.startswith("mean and variance of 'bn' (BatchNormalization) stay as they are")


def test_a_model_with_a_trained_normalisation_runs() -> None:
    training = compile_training(convolutional()[0], "mse", SGD(RATE), BATCH, RANGES, keep=True)
    plan = compile_prediction(training, "me").plan
    assert {state.name for state in plan.states} == {*training.keeps}


def layered(hidden: int, epsilon: float) -> tuple[onnx.ModelProto, Arrays]:
    """A network that normalises each row behind its first layer, and its weights."""
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="fc0"),
        helper.make_node("LayerNormalization", ["a", "gain", "shift"], ["n"], name="ln", epsilon=epsilon),
        helper.make_node("Relu", ["n"], ["h"], name="relu"),
        helper.make_node("MatMul", ["h", "w1"], ["y"], name="fc1"),
    ]
    own = {name: values for name, values in weights(hidden).items() if name in ("gain", "shift")}
    own |= {"w0": of(1, 6, hidden), "w1": of(2, hidden, 3)}
    own = {name: values.astype(np.float32).astype(np.float64) for name, values in own.items()}
    return model(nodes, own, ["batch", 6], ["batch", 3]), own


def loss_of(own: Arrays, x: np.ndarray, y: np.ndarray, epsilon: float) -> float:
    """Half the mean squared error of the `layered` network."""
    a = x @ own["w0"]
    a = a - a.mean(axis=1, keepdims=True)
    n = a / np.sqrt(np.square(a).mean(axis=1, keepdims=True) + epsilon) * own["gain"] + own["shift"]
    return float(np.square(np.maximum(n, 0) @ own["w1"] - y).sum() / 2 / len(x))


def slopes(own: Arrays, name: str, *given: Any) -> np.ndarray:
    """Derivatives of `loss_of` by a weight, by differences."""
    found = np.zeros(own[name].shape)
    for place in np.ndindex(found.shape):
        ends = []
        for way in (1e-6, -1e-6):
            moved = own[name].copy()
            moved[place] += way
            ends.append(loss_of({**own, name: moved}, *given))
        found[place] = (ends[0] - ends[1]) / 2e-6
    return found


@pytest.mark.parametrize(("hidden", "momentum", "epsilon"), [(5, 0.0, 1e-5), (12, 0.875, 1e-5), (12, 0.5, 0.1)])
def test_a_normalisation_over_each_row_trains_with_bounds_that_are_proved(
    hidden: int, momentum: float, epsilon: float
) -> None:
    """Parties = reference bit for bit, and what a step moves is what the loss's slopes say."""
    made, own = layered(hidden, epsilon)
    training = compile_training(made, "mse", SGD(RATE, momentum), 32, RANGES)
    x, y = rows((6,), 64)
    feeds = list(islice(batches(np.rint(x * 256) / 256, y, 32), 2))
    trial = Trial(training.plan, training.weights, 2)
    for one in feeds:
        trial.run(integers(training, one), 1)
    [found] = on_integers(training, iter(feeds[:1]))
    for name, values in own.items():
        move = -training.learning_rate * slopes(own, name, feeds[0]["x"], feeds[0]["target"], epsilon)
        assert np.linalg.norm(found[name] - values - move) < 0.05 * np.linalg.norm(move), name


def test_of_a_normalisation_over_each_row_bounds_may_rest_on_samples() -> None:
    """A mean over five leaves a fifth in the scale of a gradient, and so another one in each guess of a weight's."""
    made, own = layered(5, 0.1)
    x, y = rows((6,))
    training = compile_training(made, "mse", SGD(0.1), 16, RANGES, samples={"x": x, "target": y})
    assert {state.name for state in training.plan.states} == {*own}
    feeds = list(islice(batches(np.rint(x * 256) / 256, y, 16), 2))
    trial = Trial(training.plan, training.weights, 2)
    for one in feeds:
        trial.run(integers(training, one), 1)
    assert max(training.expected_errors.values()) < 0.1


@pytest.mark.parametrize("stored", [True, False])
def test_what_stands_in_for_gain_and_shift_of_a_group_normalisation_stays(stored: bool) -> None:
    """PyTorch writes a GroupNorm as an InstanceNormalization by ones and zeros, behind which gain and shift stand."""
    dummies = {"ones": np.ones(2), "zeros": np.zeros(2)}
    shapes = {"groups": [0, 2, -1], "back": [-1, 6]}
    values = {name: np.array(sizes, np.int64) for name, sizes in shapes.items()}
    values |= {} if stored else {name: each.astype(np.float32) for name, each in dummies.items()}
    nodes = [
        *(
            helper.make_node("Constant", [], [name], value=numpy_helper.from_array(each))
            for name, each in values.items()
        ),
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="fc0"),
        helper.make_node("Reshape", ["a", "groups"], ["g"], name="to"),
        helper.make_node("InstanceNormalization", ["g", "ones", "zeros"], ["n"], name="in", epsilon=0.125),
        helper.make_node("Reshape", ["n", "back"], ["r"], name="from"),
        helper.make_node("Mul", ["r", "gain"], ["m"], name="mul"),
        helper.make_node("Add", ["m", "shift"], ["s"], name="add"),
        helper.make_node("Relu", ["s"], ["h"], name="relu"),
        helper.make_node("MatMul", ["h", "w1"], ["y"], name="fc1"),
    ]
    own = {"w0": of(1, 6, 6), "w1": of(2, 6, 3), "gain": of(3, 6), "shift": of(4, 6)} | (dummies if stored else {})
    made = model(nodes, own, ["batch", 6], ["batch", 3])
    x, y = rows((6,))
    training = compile_training(made, "mse", SGD(RATE), BATCH, RANGES, samples={"x": x, "target": y})
    assert {state.name for state in training.plan.states} == {"w0", "w1"}
    told = " ".join(notes(training))
    assert all(f"'{name}'" in told for name in ("ones", "zeros", "gain", "shift"))
