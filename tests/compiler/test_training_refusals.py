"""What a training cannot be made of is refused before anything runs, with a remedy; and weights are what they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from mpc.compiler.onnx.metadata import columns_of
from mpc.compiler.training.optimisers import SGD
from mpc.compiler.training.precision import Precision
from mpc.compiler.training.train import Training, compile_training
from mpc.errors import InputError, ModelError, MpcError, UsageError
from mpc.plan.cost import plan_cost
from tests.support.training import integers, model, on_integers, on_reals, perceptron
from tests.support.worlds import Trial

Arrays = dict[str, np.ndarray]
RNG = np.random.default_rng(4)
X, Y = RNG.random((16, 6)), np.eye(3)[RNG.integers(0, 3, 16)]


def weight(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape) / 4


def matmul(x: str, w: str, out: str, name: str = "") -> Any:
    return helper.make_node("MatMul", [x, w], [out], name=name)


def trained(
    nodes: list[Any], weights: Arrays, shape: Any = ("batch", 6), out: Any = ("batch", 3), **how: Any
) -> Training:
    return compile_training(model(nodes, weights, shape, out), **{"batch": 4, "ranges": {"x": (0, 1)}, **how})


@pytest.mark.parametrize(
    "wrong",
    [
        {"activations": -3}, {"activations": 2.5}, {"gradients": 70}, {"loss": 1}, {"loss": True},
        {"weights": 0}, {"weights": float("nan")}, {"weights": float("inf")}, {"weights": "8"},
        {"ceiling": 0}, {"ceiling": float("nan")}, {"ceiling": float("inf")},
        {"logits": 0}, {"logits": float("nan")}, {"logits": 1e6}, {"logits": None},
    ],
)  # fmt: skip
def test_a_precision_that_no_step_can_have_is_refused_where_it_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"a precision with {next(iter(wrong))}=") as caught:
        Precision(**wrong)
    assert next(iter(wrong)) in str(caught.value.remedy)


@pytest.mark.parametrize("wrong", [("a",), (True,), (None,), (0.1, [1]), (0.1, None), (0.1, 0.5, None)])
def test_rates_that_are_no_numbers_are_refused(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(UsageError, match="is no number"):
        SGD(*wrong)


def test_rates_may_be_numbers_of_numpy() -> None:
    assert SGD(np.float32(0.5), np.float64(0.5)).rate(np.int64(4).item()) == SGD(0.5, 0.5).rate(4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch": 2.5}, {"batch": "4"}, {"batch": True}, {"batch": None}, {"optimizer": 0.1}, {"precision": 3},
        {"frozen": "w0"}, {"frozen": None}, {"target": ""}, {"target": None}, {"target": "a" * 300},
        {"target": "b0.velocity", "optimizer": SGD(0.5, 0.5)}, {"target": "z0"},
    ],
)  # fmt: skip
def test_arguments_of_other_types_are_refused(wrong: dict[str, Any]) -> None:
    how: dict[str, Any] = {"batch": 4, "ranges": {"x": (0, 1)}, **wrong}
    with pytest.raises(UsageError) as caught:
        compile_training(perceptron((6, 5, 3)), **how)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "wrong",
    [
        5, {"x": X, "target": Y, "w0": np.zeros((8, 6, 5))}, {"x": X, "target": Y, "q": X},
        {"x": np.where(X == X.max(), np.nan, X), "target": Y}, {"x": np.where(X == X.max(), np.inf, X), "target": Y},
        {"x": X.astype(str), "target": Y}, {"x": [[1.0], [1.0, 2.0]], "target": Y}, {"x": 1.0, "target": Y},
    ],
)  # fmt: skip
def test_samples_that_are_no_rows_of_numbers_bound_nothing(wrong: Any) -> None:
    """NaN above all: no bound is a maximum that NaN was left out of."""
    with pytest.raises(InputError, match="samples"):
        compile_training(perceptron((6, 5, 3)), batch=4, ranges={"x": (0, 1)}, samples=wrong)


def test_samples_over_which_training_diverges_bound_nothing() -> None:
    with pytest.raises(InputError, match="diverge"):
        compile_training(
            perceptron((6, 5, 3)), "mse", SGD(1e6), 4, {"x": (0, 100), "target": (0, 1)}, samples={"x": X, "target": Y}
        )


def test_a_step_has_as_many_rows_as_its_rate_is_for() -> None:
    """A model of eight rows in a step of four would move its weights twice as far."""
    for shape, out in (((8, 6), (8, 3)), ((6,), (3,))):
        with pytest.raises(ModelError, match="a step reads 4 rows"):
            trained([matmul("x", "w", "y")], {"w": weight(6, 3)}, shape, out)
    assert trained([matmul("x", "w", "y")], {"w": weight(6, 3)}, (8, 6), (8, 3), batch=8).batch == 8


def test_a_softmax_is_over_several_classes_along_the_last_axis() -> None:
    with pytest.raises(ModelError, match="one number a row"):
        trained([matmul("x", "w", "y")], {"w": weight(6)}, out=("batch",), loss="cross_entropy")
    nodes = [matmul("x", "w", "z"), helper.make_node("Softmax", ["z"], ["y"], axis=1, name="over")]
    with pytest.raises(ModelError, match="node 'over' .Softmax.: it is over another axis"):
        trained(nodes, {"w": weight(6, 3)}, ("batch", 5, 6), ("batch", 5, 3), loss="cross_entropy")


def test_a_weight_that_two_layers_read_trains_once() -> None:
    """Its gradient is the sum of both layers'; in two forms it is refused."""
    nodes = [matmul("x", "w", "h"), matmul("h", "w", "y")]
    training = trained(nodes, {"w": weight(6, 6)}, out=("batch", 6), loss="mse", optimizer=SGD(0.25))
    [state] = training.plan.states
    assert state.name == "w"
    w = weight(6, 6).astype(np.float32)
    rows, targets = X[:4], np.random.default_rng(1).random((4, 6))
    error = rows @ w @ w - targets
    gradient = (rows.T @ error @ w.T + (rows @ w).T @ error) / 4
    [found] = on_reals(training, iter([{"x": rows, "target": targets}]))
    np.testing.assert_allclose(found["w"], w - 0.25 * gradient, atol=1e-6)
    Trial(training.plan, training.weights, 2).run(integers(training, {"x": rows, "target": targets}), 1)
    turned = [matmul("x", "w", "h"), helper.make_node("Transpose", ["w"], ["v"]), matmul("h", "v", "y", "back")]
    for each in (weight(6, 6), np.zeros((6, 6)), np.eye(6)):  # the last two are equal to their transposes
        with pytest.raises(ModelError, match="node 'back' .MatMul.: it reads the weight 'w'"):
            trained(turned, {"w": each}, out=("batch", 6))


def test_names_are_the_weights_own_however_a_layer_reads_them() -> None:
    turned = [
        helper.make_node("Transpose", ["w"], ["v"]),
        helper.make_node("Gemm", ["x", "v", "b"], ["y"], name="fc"),
    ]
    weights = {"w": weight(3, 6), "b": weight(3)}
    assert {state.name for state in trained(turned, weights).plan.states} == {"w", "b"}
    assert {state.name for state in trained(turned, weights, frozen=["w"]).plan.states} == {"b"}
    alike = [matmul("x", "w", "h", "fc"), helper.make_node("Relu", ["h"], ["r"]), matmul("r", "v", "y", "fc")]
    states = trained(alike, {"w": weight(6, 5), "v": weight(5, 3)}).plan.states
    assert [state.name for state in states] == ["fc.weight", "fc.weight'"]
    long = "w" * 300
    with pytest.raises(ModelError, match="a weight has a name of 300 characters"):
        trained([matmul("x", long, "y")], {long: weight(6, 3)})


def test_digits_of_a_gradient_that_no_wire_has_room_for_are_left_out() -> None:
    """They cost bytes, at most a round, and next to nothing of what a step moves."""
    fine, few = Precision(activations=16, gradients=12, loss=24), Precision(activations=12, gradients=12, loss=20)
    ranges = {"x": (0, 1), "target": (0, 1)}
    long, short = (
        compile_training(perceptron((6, 5, 3)), "mse", SGD(1 / 112, 0.5), 8, ranges, precision=each)
        for each in (fine, few)
    )
    assert 0 <= plan_cost(long.plan).rounds - plan_cost(short.plan).rounds <= 1
    assert plan_cost(long.plan).sent > plan_cost(short.plan).sent
    feeds = [{"x": np.rint(X[:8] * 256) / 256, "target": Y[:8]}]
    Trial(long.plan, long.weights, 2).run(integers(long, feeds[0]), 1)
    [found], [wanted] = on_integers(long, iter(feeds)), on_reals(long, iter(feeds))
    for state in long.step.states:
        if not state.velocity:
            move = wanted[state.name] - state.values
            assert np.linalg.norm(found[state.name] - wanted[state.name]) < 0.02 * np.linalg.norm(move), state.name


def test_what_a_clip_adds_behind_a_layer_is_no_bias_of_it() -> None:
    nodes = [matmul("x", "w", "h"), helper.make_node("Clip", ["h", "low", "high"], ["y"])]
    weights = {"w": weight(6, 3), "low": np.array(0.0), "high": np.array(6.0)}
    assert [state.name for state in trained(nodes, weights).plan.states] == ["w"]


@pytest.mark.parametrize("factor", [0, -1, 1 << 20, 2.5, True, "2"])
def test_another_rate_is_a_whole_factor(factor: Any) -> None:
    training = compile_training(perceptron((6, 3)), batch=4, optimizer=SGD(0.5), ranges={"x": (0, 1)})
    assert training.at(3).learning_rate == 1.5 and plan_cost(training.at(3).plan) == plan_cost(training.plan)
    with pytest.raises(MpcError, match="a learning rate of"):
        training.at(factor)


def test_metadata_that_is_lists_in_lists_names_no_columns() -> None:
    """Python's reader of JSON gives up on them in a way of its own."""
    deep = perceptron((6, 3))
    helper.set_model_props(deep, {"feature_names": "[" * 100_000})
    assert columns_of(deep) == {}
    helper.set_model_props(deep, {"mpc.columns.x": "[" * 100_000})
    with pytest.raises(ModelError, match="no list of names"):
        columns_of(deep)


# ------------------------------------------------------------------ what would be wrong without a word

NORMALISED = [
    matmul("x", "w0", "a"),
    helper.make_node("BatchNormalization", ["a", "gain", "shift", "mean", "variance"], ["n"], name="bn"),
    helper.make_node("Relu", ["n"], ["h"]),
    matmul("h", "w1", "y"),
]
PARAMETERS = {
    "w0": weight(6, 5), "w1": weight(5, 3), "gain": 1 + weight(5), "shift": weight(5), "mean": weight(5),
    "variance": np.ones(5),
}  # fmt: skip


def left(training: Training) -> list[str]:
    return [note for note in training.notes if "stay as they are" in note]


def test_parameters_that_do_not_train_are_named_with_their_layer() -> None:
    training = trained(NORMALISED, PARAMETERS)
    assert {state.name for state in training.step.states} == {"w0", "w1", "gain", "shift"}
    [note] = left(training)
    assert note.startswith("mean and variance of 'bn' (BatchNormalization) stay")
    made = [helper.make_node("Abs", ["deviation"], ["variance"]), *NORMALISED]
    computed = {"deviation" if name == "variance" else name: values for name, values in PARAMETERS.items()}
    training = trained(made, computed)
    assert {state.name for state in training.step.states} == {"w0", "w1"}
    [note] = left(training)
    assert note.startswith("'gain', 'shift' of 'bn' (BatchNormalization), and its mean and variance too, stay")
    slopes = [matmul("x", "w0", "a"), helper.make_node("PRelu", ["a", "slope"], ["h"]), matmul("h", "w1", "y")]
    [note] = left(trained(slopes, {"w0": weight(6, 5), "w1": weight(5, 3), "slope": np.full(1, 0.25)}))
    assert note.startswith("'slope' of 'PRelu_1' (PRelu) stay")
    factors = [matmul("x", "w0", "a"), helper.make_node("Mul", ["a", "by"], ["y"], name="scaled")]
    [note] = left(trained(factors, {"w0": weight(6, 3), "by": weight(3)}))
    assert note.startswith("'by' of 'scaled' (Mul) stay")
    constant = helper.make_node("Constant", [], ["by"], value=numpy_helper.from_array(weight(3), "by"))
    [note] = left(trained([constant, *factors], {"w0": weight(6, 3)}))
    assert note.startswith("'by' of 'scaled' (Mul) stay")


@pytest.mark.parametrize(("operator", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers_are_trained_behind_and_not_in_part(operator: str, gates: int) -> None:
    """Of one step only a bias trained, and several were refused as layers that read one weight in two forms."""
    layer = helper.make_node(operator, ["t", "w", "r", "b"], ["", "h"], name="layer", hidden_size=2)
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]), layer]
    nodes += [helper.make_node("Reshape", ["h", "rows"], ["s"]), matmul("s", "v", "z")]
    weights = {"w": weight(1, 2 * gates, 5), "r": weight(1, 2 * gates, 2), "b": weight(1, 4 * gates), "v": weight(2, 3)}
    weights["rows"] = np.array([-1, 2])
    steps = {"weights": weights, "shape": ("batch", 3, 5), "loss": "mse"}
    with pytest.raises(ModelError, match="weights of recurrent layers do not train") as caught:
        trained(nodes, **steps)
    assert "keep b, r, w as they are" in str(caught.value.remedy)
    assert [state.name for state in trained(nodes, **steps, frozen=["w", "r", "b"]).plan.states] == ["v"]


def test_of_weights_that_train_or_are_frozen_nothing_is_said() -> None:
    assert not left(compile_training(perceptron((6, 5, 3)), batch=4, ranges={"x": (0, 1)}))
    assert not left(compile_training(perceptron((6, 5, 3)), batch=4, ranges={"x": (0, 1)}, frozen=["w0", "b0"]))
    turned = [
        helper.make_node("Transpose", ["w0"], ["t"]),
        matmul("x", "t", "a"),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    clipped = [*turned[:2], helper.make_node("Clip", ["a", "low", "high"], ["y"])]
    assert not left(trained(turned, {"w0": weight(3, 6)}))
    assert not left(trained(clipped, {"w0": weight(3, 6), "low": np.zeros(()), "high": np.ones(())}))


def shaped(activation: str, *behind: Any, **more: np.ndarray) -> tuple[list[Any], Arrays]:
    nodes = [matmul("x", "w0", "a"), helper.make_node(activation, ["a"], ["p"], name="last"), *behind]
    return nodes, {"w0": weight(6, 3), **more}


@pytest.mark.parametrize(("activation", "loss"), [("Softmax", "cross_entropy"), ("Sigmoid", "one_vs_all")])
def test_a_last_activation_is_known_behind_a_reshape(activation: str, loss: str) -> None:
    """It trains as the model without the reshape does, on targets of the output's shape."""
    moved = shaped(activation, helper.make_node("Unsqueeze", ["p", "axes"], ["y"]), axes=np.array([2]))
    nodes, weights = moved[0], {name: values for name, values in moved[1].items() if name != "axes"}
    whole = model(nodes, weights, ("batch", 6), ("batch", 3, 1))
    whole.graph.initializer.append(numpy_helper.from_array(np.array([2]), "axes"))
    behind = compile_training(whole, loss, SGD(0.5), 4, {"x": (0, 1)})
    plain = compile_training(
        model(shaped(activation)[0], weights, ("batch", 6), ("batch", 3)), loss, SGD(0.5), 4, {"x": (0, 1)}
    )
    [one] = on_reals(behind, iter([{"x": X[:4], "target": Y[:4, :, None]}]))
    [other] = on_reals(plain, iter([{"x": X[:4], "target": Y[:4]}]))
    np.testing.assert_allclose(one["w0"], other["w0"])
    assert plan_cost(behind.plan).rounds == plan_cost(plain.plan).rounds
    with pytest.raises(ModelError, match="brings an activation of its own"):
        compile_training(whole, {"cross_entropy": "one_vs_all", "one_vs_all": "cross_entropy"}[loss], batch=4)


def test_an_activation_behind_which_more_than_a_reshape_stands_is_refused() -> None:
    for move in (
        helper.make_node("Transpose", ["p"], ["y"], perm=[1, 0], name="moved"),
        helper.make_node("Gather", ["p", "which"], ["y"], axis=1, name="moved"),
    ):
        nodes, weights = shaped("Softmax", move)
        out = (3, 3) if move.op_type == "Transpose" else ("batch", 2)
        made = model(nodes, weights, (3, 6) if move.op_type == "Transpose" else ("batch", 6), out)
        made.graph.initializer.append(numpy_helper.from_array(np.array([2, 0]), "which"))
        with pytest.raises(ModelError, match=r"moved.*behind the model's last activation \(Softmax\)"):
            compile_training(made, "cross_entropy", batch=3, ranges={"x": (0, 1)})


def test_a_rate_that_does_not_fit_into_the_field_is_refused() -> None:
    training = compile_training(perceptron((6, 3)), batch=4, ranges={"x": (0, 1)})
    assert training.at(2 * training.rate.factor).learning_rate == 2 * training.learning_rate
    fine = Precision(activations=16, loss=24)
    training = compile_training(perceptron((6, 3)), batch=4, ranges={"x": (0, 1)}, precision=fine)
    assert training.at(2 * training.rate.factor).rate.factor == 2 * training.rate.factor
    for rate in (18, 21):  # of which the second leaves gradients fewer digits
        large = compile_training(perceptron((6, 3)), "one_vs_all", SGD(1 << rate), 4, {"x": (0, 1)}, precision=fine)
        assert large.at(large.rate.factor).plan.digest == large.plan.digest
    with pytest.raises(ModelError, match=r"the gradient of 'w0' can reach .* fractional bits of it") as caught:
        compile_training(perceptron((6, 3)), "one_vs_all", SGD(1 << 54), 4, {"x": (0, 1)}, precision=fine)
    assert "a smaller learning rate" in str(caught.value.remedy)
    with pytest.raises(UsageError, match="does not fit into the field"):
        training.at((1 << 20) - 1)
