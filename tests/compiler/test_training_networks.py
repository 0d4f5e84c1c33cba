"""Training of convolutions, pooling and smooth activations, of tables, and with what optimisers add."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LinearRegression, LogisticRegression

from mpc.compiler.graph.attributes import Function, Sliding
from mpc.compiler.graph.evaluate import evaluate
from mpc.compiler.graph.graph import Graph, Node, Origin
from mpc.compiler.lowering.known import product_of
from mpc.compiler.training import calibrate
from mpc.compiler.training.calibrate import Calibration
from mpc.compiler.training.optimisers import SGD, Rate
from mpc.compiler.training.precision import Precision
from mpc.compiler.training.train import Training, compile_training
from mpc.errors import InputError, ModelError, UsageError
from mpc.gates.linear import Combine
from mpc.plan.cost import plan_cost
from mpc.windows import Windows
from tests.support.training import batches, integers, model, on_integers, on_reals, perceptron
from tests.support.worlds import Trial

Arrays = dict[str, np.ndarray]
CLASSES = 3


def convolutional(pool: str, stride: int = 1, seed: int = 1) -> onnx.ModelProto:
    """Two convolutions, the first one pooled, and a full layer on 8 x 8 images."""
    rng, nodes, weights, h, size = np.random.default_rng(seed), [], {}, "x", 8
    for i, (inputs, outputs) in enumerate(((1, 2), (2, 3))):
        weights[f"k{i}"] = rng.uniform(-1, 1, (outputs, inputs, 3, 3)) / (9 * inputs) ** 0.5
        weights[f"c{i}"] = rng.uniform(-0.1, 0.1, outputs)
        layer = {"kernel_shape": [3, 3], "strides": [stride] * 2, "pads": [0, 0, 1, 1] if stride > 1 else [0] * 4}
        nodes.append(helper.make_node("Conv", [h, f"k{i}", f"c{i}"], [f"v{i}"], name=f"conv{i}", **layer))
        h, size = f"v{i}", (size - 3 + (1 if stride > 1 else 0)) // stride + 1
        if pool and not i:
            nodes.append(helper.make_node(pool, [h], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]))
            h, size = "p", size // 2
        nodes.append(helper.make_node("Relu", [h], [f"r{i}"], name=f"relu{i}"))
        h = f"r{i}"
    features = 3 * size * size
    weights["w"] = rng.uniform(-1, 1, (features, CLASSES)) / features**0.5
    weights["b"] = np.zeros(CLASSES)
    nodes.append(helper.make_node("Flatten", [h], ["flat"], name="flat"))
    nodes.append(helper.make_node("Gemm", ["flat", "w", "b"], ["z"], name="fc"))
    return model(nodes, weights, ["batch", 1, 8, 8], ["batch", CLASSES])


def images(rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    return rng.random((rows, 1, 8, 8)), np.eye(CLASSES)[rng.integers(0, CLASSES, rows)]


def moved_alike(training: Training, feeds: list[Arrays], off: float) -> None:
    """Weights of integers and of real numbers have gone about as far, in about one direction."""
    *_, wanted = on_reals(training, iter(feeds))
    *_, found = on_integers(training, iter(feeds))
    for state in training.step.states:
        if not state.velocity:
            way = wanted[state.name] - state.values
            assert np.linalg.norm(way) > 4e-3, state.name  # else the tolerance would be larger than what is measured
            assert np.linalg.norm(found[state.name] - wanted[state.name]) < off * np.linalg.norm(way) + 1e-3, state.name


@pytest.mark.parametrize(("pool", "stride"), [("", 2), ("AveragePool", 1), ("MaxPool", 1)])
def test_convolutions_and_pooling_train(pool: str, stride: int) -> None:
    """Parties = reference bit for bit, and steps are those of real numbers."""
    loss = "mse"  # exact but for roundings
    ranges = {"x": (0, 1), "target": (0, 1)}
    training = compile_training(convolutional(pool, stride), loss, SGD(1 / 16), 4, ranges)
    feeds = list(islice(batches(*images(12), 4), 3))
    trial = Trial(training.plan, training.weights, 2)
    for one in feeds[:2]:
        trial.run(integers(training, one), 1)
    moved_alike(training, feeds, 0.1)


def spelt_out(x: str, out: str) -> list[onnx.NodeProto]:
    """x (1 + erf(x / sqrt 2)) / 2, as exporters write a GELU."""
    return [
        helper.make_node("Div", [x, "root"], [f"{out}.of"]),
        helper.make_node("Erf", [f"{out}.of"], [f"{out}.erf"]),
        helper.make_node("Add", [f"{out}.erf", "one"], [f"{out}.twice"]),
        helper.make_node("Mul", [x, f"{out}.twice"], [f"{out}.more"]),
        helper.make_node("Mul", [f"{out}.more", "half"], [out]),
    ]


def test_a_gelu_that_is_spelt_out_trains_as_one_function() -> None:
    """Two of them in a row fit: the slope of one is at most 1.13, where its parts grow with their argument."""
    rng = np.random.default_rng(3)
    weights = {
        f"w{i}": rng.standard_normal(sizes) / sizes[0] ** 0.5 for i, sizes in enumerate([(6, 8), (8, 7), (7, 3)])
    }
    constants = {"root": np.array(2**0.5), "one": np.array(1.0), "half": np.array(0.5)}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="fc0"),
        *spelt_out("a", "b"),
        helper.make_node("MatMul", ["b", "w1"], ["c"], name="fc1"),
        *spelt_out("c", "d"),
        helper.make_node("MatMul", ["d", "w2"], ["y"], name="fc2"),
    ]
    made = model(nodes, {**weights, **constants}, ["batch", 6], ["batch", 3])
    training = compile_training(made, "cross_entropy", SGD(0.125), 16, {"x": (0, 1)})
    functions = [node.of(Function).name for node in training.step.graph.nodes if node.op == "function"]
    assert functions.count("gelu") == functions.count("gelu_slope") == 2 and "erf" not in functions
    x, y = np.rint(rng.random((32, 6)) * 256) / 256, np.eye(3)[rng.integers(0, 3, 32)]
    feeds = list(islice(batches(x, y, 16), 2))
    Trial(training.plan, training.weights, 2).run(integers(training, feeds[0]), 1)
    moved_alike(training, feeds, 0.05)


def test_bounds_of_a_deep_step_leave_gradients_their_digits() -> None:
    """Of a squared error with three hidden layers gradients could reach 1e9, and are below 1."""
    rng, ranges = np.random.default_rng(5), {"x": (0, 1), "target": (-1, 1)}
    deep = compile_training(perceptron((8, 16, 16, 16, 3)), "mse", SGD(0.25), 32, ranges)
    assert max(deep.expected_errors.values()) < 0.2
    training = compile_training(perceptron((8, 6, 6, 3), ""), "mse", SGD(0.25, 0.5), 32, ranges)
    feeds = [
        {"x": np.rint(rng.random((32, 8)) * 256) / 256, "target": np.rint(rng.uniform(-1, 1, (32, 3)) * 256) / 256}
        for _ in range(2)
    ]
    Trial(training.plan, training.weights, 2).run(integers(training, feeds[0]), 1)
    moved_alike(training, feeds, 0.05)


def test_pooling_by_a_maximum_goes_back_without_a_comparison() -> None:
    """The step compares as often as the model does: its derivatives choose by bits that are open."""
    training = compile_training(convolutional("MaxPool"), batch=4, ranges={"x": (0, 1)})
    kinds = [gate.kind for gate in training.plan.gates]
    assert (kinds.count("maximum"), kinds.count("relu"), kinds.count("select"), kinds.count("step")) == (1, 2, 3, 0)


def test_bounds_may_rest_on_samples_where_none_can_be_proved() -> None:
    """A pooling's ReLU is then part of it, and nothing has a ceiling; a note says what the bounds rest on."""
    x, y = images(12)
    samples, ranges = {"x": x, "target": y}, {"x": (0, 1)}
    proved = compile_training(convolutional("MaxPool"), batch=4, optimizer=SGD(0.0625), ranges=ranges)
    found = compile_training(convolutional("MaxPool"), batch=4, optimizer=SGD(0.0625), ranges=ranges, samples=samples)
    assert plan_cost(found.plan).rounds == plan_cost(proved.plan).rounds - 4  # the ReLU, and its selection
    assert plan_cost(found.plan).dealt < plan_cost(proved.plan).dealt
    assert any("bounds rest on 32 steps over the samples" in note for note in found.notes)
    assert not any("bounds rest on" in note for note in proved.notes)
    trial = Trial(found.plan, found.weights, 2)
    for one in islice(batches(x, y, 4), 2):
        trial.run(integers(found, one), 1)
    for wrong in ({"x": x}, {"x": x[:3], "target": y[:3]}, {"x": x[:, :, :5], "target": y}):
        with pytest.raises(InputError, match="no samples of (input|the targets)"):
            compile_training(convolutional("MaxPool"), batch=4, ranges=ranges, samples=wrong)
    with pytest.raises(InputError, match="different numbers of rows"):
        compile_training(convolutional("MaxPool"), batch=4, ranges=ranges, samples={"x": x, "target": y[:8]})


def test_steps_over_samples_run_once_for_all_that_is_told_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans are those of samples that nobody remembers; another step, at another rate or from other weights, runs."""
    runs: list[Graph] = []

    def counted(graph: Graph, feeds: Arrays) -> Iterator[tuple[Node, np.ndarray]]:
        runs.append(graph)
        return evaluate(graph, feeds)

    monkeypatch.setattr(calibrate, "evaluate", counted)
    monkeypatch.setattr(calibrate, "STEPS", 1)
    x, y = images(12)
    samples = {"x": x, "target": y}
    remembered = Calibration(samples)

    def compiled(rows: object, rate: float = 0.0625, seed: int = 1, **asked: Any) -> bytes:
        network, ranges = convolutional("MaxPool", seed=seed), {"x": (0, 1)}
        return compile_training(network, batch=4, optimizer=SGD(rate), ranges=ranges, samples=rows, **asked).plan.digest

    wanted: tuple[dict[str, Any], ...] = ({}, {"keep": True}, {"tells": ("beyond",)}, {"tells": ("loss", "beyond")})
    found = [compiled(remembered, **asked) for asked in wanted]
    assert len(runs) == 1
    assert found == [compiled(samples, **asked) for asked in wanted]
    assert len(runs) == 5
    for number, other in enumerate(({"rate": 0.5}, {"seed": 2}), 6):
        compiled(remembered, **other)
        compiled(remembered, **other, tells=("loss",))
        assert len(runs) == number


@pytest.mark.parametrize("alike", [0, 1, None])
def test_bounds_that_rows_share_are_those_of_each(alike: int | None) -> None:
    """Whether rows are rows or, in the gradient of filters, channels."""
    rng, windows = (
        np.random.default_rng(1),
        Windows(kernel=(2, 2), strides=(1, 1), dilations=(2, 2), pads=((0, 1),) * 2),
    )
    x, weight = rng.random((4, 3, 5, 5)), rng.random((2, 3, 2, 2))
    if alike == 0:
        x = np.broadcast_to(x[:1], x.shape)
    if alike == 1:
        x, weight = np.broadcast_to(x[:, :1], x.shape), np.broadcast_to(weight[:, :1], weight.shape)
    node = Node("conv", ("x", "y"), "z", (4, 2, 4, 4), Origin("z", "Conv"), Sliding(windows=windows))
    np.testing.assert_allclose(product_of(node)(x, weight), windows.convolve(x, weight), rtol=1e-12)


@pytest.mark.parametrize("alike", ["neither", "rows", "columns", "both"])
@pytest.mark.parametrize(
    "shapes", [((4, 5), (5, 3)), ((2, 4, 5), (5, 3)), ((4, 5), (2, 5, 3)), ((1, 5), (5, 1)), ((5,), (5, 3))]
)
def test_bounds_that_rows_or_columns_share_are_those_of_each(alike: str, shapes: Any) -> None:
    rng = np.random.default_rng(1)
    x, y = (rng.random(shape) for shape in shapes)
    if alike in ("rows", "both"):
        x = np.broadcast_to(x[..., :1, :], x.shape) if x.ndim > 1 else x
    if alike in ("columns", "both"):
        y = np.broadcast_to(y[..., :1], y.shape)
    node = Node("matmul", ("x", "y"), "z", np.matmul(x, y).shape, Origin("z", "MatMul"))
    found = product_of(node)(x, y)
    assert found.shape == node.shape
    np.testing.assert_allclose(found, np.matmul(x, y), rtol=1e-12)


@pytest.mark.parametrize("activation", ["Tanh", "Sigmoid"])
def test_smooth_activations_train(activation: str) -> None:
    x, y = np.random.default_rng(5).random((48, 6)), np.eye(3)[np.random.default_rng(6).integers(0, 3, 48)]
    ranges = {"x": (0, 1), "target": (0, 1)}
    training = compile_training(perceptron((6, 5, 3), activation), "mse", SGD(0.25), 16, ranges)
    feeds = list(batches(x, y, 16))
    Trial(training.plan, training.weights, 2).run(integers(training, feeds[0]), 1)
    moved_alike(training, feeds, 0.1)


def test_what_has_no_derivative_is_refused_by_name_with_a_remedy() -> None:
    weights = {"w": np.ones((4, 4)), "v": np.ones((4, 2))}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("Sign", ["h"], ["s"], name="hard"),
        helper.make_node("MatMul", ["s", "v"], ["z"], name="last"),
    ]
    hard = model(nodes, weights, ["batch", 4], ["batch", 2])
    with pytest.raises(ModelError, match="node 'hard' .Sign.: the derivative of 'step' is zero") as caught:
        compile_training(hard, batch=4, ranges={"x": (0, 1)})
    assert "frozen=" in str(caught.value.remedy)
    training = compile_training(hard, batch=4, ranges={"x": (0, 1)}, frozen=["w"])
    assert [state.name for state in training.plan.states] == ["v"]


def test_weight_decay_takes_a_part_of_the_weights_off_in_no_round_more() -> None:
    x, y = np.random.default_rng(7).random((64, 6)), np.eye(3)[np.random.default_rng(8).integers(0, 3, 64)]
    ranges = {"x": (0, 1), "target": (0, 1)}
    plain, decayed = (
        compile_training(perceptron((6, 3)), "mse", SGD(0.25, 0.5, decay), 16, ranges) for decay in (0.0, 0.25)
    )
    costs = [plan_cost(training.plan) for training in (plain, decayed)]
    assert costs[0].rounds == costs[1].rounds and costs[1].sent - costs[0].sent == 8 * 21
    feeds = list(batches(x, y, 16))
    Trial(decayed.plan, decayed.weights, 2).run(integers(decayed, feeds[0]), 1)
    moved_alike(decayed, feeds, 0.05)
    ends = [list(on_reals(training, iter(feeds)))[-1]["w0"] for training in (plain, decayed)]
    assert np.linalg.norm(ends[1]) < 0.95 * np.linalg.norm(ends[0])
    for wrong in (-0.1, 10.0):
        with pytest.raises(UsageError, match="a weight decay of"):
            SGD(0.1, weight_decay=wrong)
    with pytest.raises(ModelError, match="is less than its last digit"):
        compile_training(perceptron((6, 3)), "mse", SGD(0.25, weight_decay=1e-12), 16, ranges)


def test_a_schedule_takes_one_plan_after_another() -> None:
    """A step at another rate differs in one factor of each update, and hands its states on."""
    training = compile_training(perceptron((6, 3)), "mse", SGD(0.5, 0.5), 16, {"x": (0, 1), "target": (0, 1)})
    slower = training.at(3)
    assert slower.learning_rate == 3 * training.learning_rate and slower.plan.digest != training.plan.digest
    assert slower.plan.states == training.plan.states and slower.plan.wires == training.plan.wires
    changed = [(one, other) for one, other in zip(training.plan.gates, slower.plan.gates, strict=True) if one != other]
    assert len(changed) == 2
    for one, other in changed:
        assert isinstance(one, Combine) and isinstance(other, Combine)
        assert one.factors == (1, -1) and other.factors == (1, -3)
    for wrong in (0, -1, 1 << 20):
        with pytest.raises(UsageError):
            training.at(wrong)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_schedule_takes_its_decay_along(momentum: float) -> None:
    """W loses lr weight_decay W in a step at every rate, or the rate is refused: never the decay of another rate."""
    ranges = {"x": (0, 1), "target": (0, 1)}
    training = compile_training(perceptron((6, 3)), "mse", SGD(0.75, momentum, 0.03125), 16, ranges)
    assert training.rate.factor == 3 and training.step.decay == Rate(3, 7)
    rows = {"x": np.zeros((16, 6)), "target": np.full((16, 3), 0.5)}  # no gradient but the biases'
    begun = training.parameters(
        {state.in_: training.weights[state.init] for state in training.plan.states if state.init}
    )
    for factor in (1, 2, 3, 12, 17):
        at = training.at(factor)
        assert at.learning_rate == factor * 0.25 and training.at(2).at(factor).plan == at.plan
        [found] = on_integers(at, iter([rows]))
        np.testing.assert_allclose(found["w0"], begun["w0"] * (1 - at.learning_rate / 32), atol=2**-10)
    assert training.at(3).plan == training.plan
    with pytest.raises(UsageError, match="a factor of 64 beside a weight decay of 3"):
        training.at(64)
    uneven = compile_training(perceptron((6, 3)), "mse", SGD(0.75, momentum, 1 / 96), 16, ranges)
    assert uneven.step.decay == Rate(1, 7)
    assert uneven.at(6).plan.gates != uneven.plan.gates
    for factor in (1, 2, 4):
        with pytest.raises(UsageError, match="weight decay of 1 2.-7, which belongs to 3"):
            uneven.at(factor)


def scaled(x: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and deviation 1, cut at 4."""
    return np.clip((x - x.mean(axis=0)) / x.std(axis=0), -4, 4)


def test_breast_cancer_is_classified_as_scikit_learn_does() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x, rows = scaled(x), np.random.default_rng(9).permutation(len(y))
    train, test = rows[169:], rows[:169]
    training = compile_training(perceptron((30, 1)), batch=32, optimizer=SGD(0.5), ranges={"x": (-4, 4)})
    *_, weights = on_integers(training, batches(x[train], y[train, None].astype(float), 32, epochs=6))
    found = ((x[test] @ weights["w0"] + weights["b0"])[:, 0] > 0) == y[test]
    theirs = LogisticRegression(max_iter=1000).fit(x[train], y[train]).score(x[test], y[test])
    assert found.mean() > theirs - 0.02


def test_diabetes_is_fitted_as_scikit_learn_does() -> None:
    x, y = load_diabetes(return_X_y=True)
    x, y = scaled(x), (y - y.mean()) / (4 * y.std())
    ranges = {"x": (-4, 4), "target": (-1, 1)}
    training = compile_training(perceptron((10, 1)), "mse", SGD(0.0625), 34, ranges, precision=Precision(loss=16))
    *_, weights = on_integers(training, batches(x, y[:, None], 34, epochs=30))
    rest = y - (x @ weights["w0"] + weights["b0"])[:, 0]
    theirs = LinearRegression().fit(x, y).score(x, y)
    assert 1 - rest.var() / y.var() > theirs - 0.01
