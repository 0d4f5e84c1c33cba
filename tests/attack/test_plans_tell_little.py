"""What a plan, which everybody sees, tells of secret weights: powers of two, and ends of intervals on a coarse grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from mpc.compiler.compile import compile_model
from mpc.compiler.lowering.intervals import widened
from tests.support.graphs import ml_model, node, save_model

Weights = dict[str, np.ndarray]
Builder = Callable[[Path, Weights], Path]
RANGES = {"x": (-2.0, 2.0)}


def normal(seed: int, **shapes: tuple[int, ...]) -> Weights:
    """Secret weights of these shapes."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}


# ------------------------------------------------------------------ models, as functions of their secret weights


def regression(folder: Path, w: Weights) -> Path:
    """A logistic regression as skl2onnx writes it."""
    return ml_model(
        folder,
        "LinearClassifier",
        {"label": TensorProto.INT64, "scores": TensorProto.FLOAT},
        coefficients=np.concatenate([-w["w"], w["w"]]).tolist(),
        intercepts=[-float(w["b"][0]), float(w["b"][0])],
        classlabels_ints=[0, 1],
        post_transform="LOGISTIC",
    )


def perceptron(activation: str) -> Builder:
    """Two layers with a function between them, and a softmax of what comes out."""

    def build(folder: Path, w: Weights) -> Path:
        nodes = [
            node("Gemm", ["x", "w", "b"], ["h"]),
            node(activation, ["h"], ["a"]),
            node("Gemm", ["a", "v", "c"], ["s"], "second"),
            node("Softmax", ["s"], ["y"]),
        ]
        return save_model(folder, nodes, w, opset=20)

    return build


def convolutional(folder: Path, w: Weights) -> Path:
    """A convolution with batch-norm, a sigmoid, a pool, a layer."""
    variance = {"variance": np.exp(w["spread"])}
    nodes = [
        node("Conv", ["x", "f", "b"], ["c"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c", "gain", "shift", "mean", "variance"], ["n"]),
        node("Sigmoid", ["n"], ["a"]),
        node("GlobalAveragePool", ["a"], ["p"]),
        node("Flatten", ["p"], ["q"]),
        node("Gemm", ["q", "v", "d"], ["s"]),
        node("Tanh", ["s"], ["y"]),
    ]
    return save_model(folder, nodes, {k: v for k, v in w.items() if k != "spread"} | variance, ("batch", 2, 5, 5))


def attention(folder: Path, w: Weights) -> Path:
    """One head: softmax(q k^T / 2) v, and a layer-norm with gain and shift."""
    nodes = [node("MatMul", ["x", f"w{name}"], [name], f"to_{name}") for name in "qkv"]
    nodes += [
        node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["raw"], "scores"),
        node("Mul", ["raw", "half"], ["scaled"]),
        node("Softmax", ["scaled"], ["p"]),
        node("MatMul", ["p", "v"], ["o"], "weighed"),
        node("LayerNormalization", ["o", "gain", "shift"], ["y"]),
    ]
    return save_model(folder, nodes, w | {"half": np.array(0.5, dtype=np.float32)}, ("batch", 3, 4))


def normalisation(operator: str, **settings: object) -> Builder:
    """A linear layer, its results normalised, another function behind."""

    def build(folder: Path, w: Weights) -> Path:
        gains = ["gain", "shift"] if operator in ("LayerNormalization", "InstanceNormalization") else []
        gains = ["gain"] if operator == "RMSNormalization" else gains
        nodes = [
            node("MatMul", ["x", "w"], ["h"]),
            node("Add", ["h", "b"], ["g"]),
            node(operator, ["g", *gains], ["n"], **settings),
            node("Exp" if operator != "Log" else "Tanh", ["n"], ["y"]),
        ]
        shape = ("batch", 3, 4) if operator == "InstanceNormalization" else ("batch", 4)
        return save_model(folder, nodes, {"w": w["w"], "b": w["b"]} | {g: w[g] for g in gains}, shape, opset=23)

    return build


def division(folder: Path, w: Weights) -> Path:
    """A reciprocal, a root and a logarithm of results of secret layers, far from 0 and near to it."""
    nodes = [
        node("Gemm", ["x", "w", "b"], ["h"]),
        node("Mul", ["h", "h"], ["s"]),
        node("Add", ["s", "c"], ["t"]),
        node("Reciprocal", ["t"], ["r"]),
        node("Sqrt", ["t"], ["q"]),
        node("Log", ["t"], ["l"]),
        node("Add", ["r", "q"], ["u"], "one"),
        node("Add", ["u", "l"], ["y"], "two"),
    ]
    return save_model(folder, nodes, w | {"c": np.abs(w["c"]) + 1})


def scaler(folder: Path, w: Weights) -> Path:
    """Standardised features, then a regression with a function: nodes of the model, which compilation merges."""
    nodes = [
        node("Sub", ["x", "mean"], ["c"]),
        node("Div", ["c", "spread"], ["n"]),
        node("Gemm", ["n", "w", "b"], ["h"]),
        node("Softplus", ["h"], ["y"]),
    ]
    return save_model(folder, nodes, w | {"spread": np.abs(w["spread"]) + 0.3})


def forest(folder: Path, w: Weights) -> Path:
    """Two trees of three decisions: thresholds and leaves are secret, which features as well."""
    count = 7
    ids = [i for _ in range(2) for i in range(count)]
    inner = ["BRANCH_LEQ"] * 3 + ["LEAF"] * 4
    values = [float(v) for tree in w["thresholds"] for v in (*tree, 0, 0, 0, 0)]
    return ml_model(
        folder,
        "TreeEnsembleRegressor",
        {"y": TensorProto.FLOAT},
        nodes_treeids=[0] * count + [1] * count,
        nodes_nodeids=ids,
        nodes_modes=inner * 2,
        nodes_featureids=[0, 1, 2, 0, 0, 0, 0, 3, 1, 0, 0, 0, 0, 0],
        nodes_values=values,
        nodes_truenodeids=[1, 3, 5, 0, 0, 0, 0] * 2,
        nodes_falsenodeids=[2, 4, 6, 0, 0, 0, 0] * 2,
        target_treeids=[0] * 4 + [1] * 4,
        target_nodeids=[3, 4, 5, 6] * 2,
        target_ids=[0] * 8,
        target_weights=[float(v) for v in w["leaves"].reshape(-1)],
        n_targets=1,
    )


TWO_LAYERS = {"w": (4, 6), "b": (6,), "v": (6, 3), "c": (3,)}
GAINS = {"w": (4, 4), "b": (4,), "gain": (4,), "shift": (4,)}
MODELS: dict[str, tuple[Builder, Weights]] = {
    "regression": (regression, normal(1, w=(4,), b=(1,))),
    **{
        f"perceptron, {name}": (perceptron(name), normal(2 + i, **TWO_LAYERS))
        for i, name in enumerate(("Sigmoid", "Tanh", "Gelu", "Softplus", "Relu", "Erf"))
    },
    "convolutional": (
        convolutional,
        normal(9, f=(3, 2, 3, 3), b=(3,), gain=(3,), shift=(3,), mean=(3,), spread=(3,), v=(3, 2), d=(2,)),
    ),
    "attention": (attention, normal(10, wq=(4, 4), wk=(4, 4), wv=(4, 4), gain=(4,), shift=(4,))),
    "layer norm": (normalisation("LayerNormalization"), normal(11, **GAINS)),
    "RMS norm": (normalisation("RMSNormalization"), normal(12, w=(4, 4), b=(4,), gain=(4,))),
    "norm of one": (normalisation("LpNormalization"), normal(13, w=(4, 4), b=(4,))),
    "instance norm": (
        normalisation("InstanceNormalization"),
        normal(14, w=(4, 4), b=(4,), gain=(3,), shift=(3,)),
    ),
    "division": (division, normal(15, w=(4, 3), b=(3,), c=(3,))),
    "scaler": (scaler, normal(16, mean=(4,), spread=(4,), w=(4, 2), b=(2,))),
    "forest": (forest, normal(17, thresholds=(2, 3), leaves=(2, 4))),
}


def plan(name: str, weights: Weights, folder: Path) -> bytes:
    """The canonical bytes of the plan that everybody sees."""
    return compile_model(MODELS[name][0](folder, weights), RANGES).plan.canonical


# ------------------------------------------------------------------ what must not show


@pytest.mark.parametrize("name", MODELS)
def test_security_36_a_plan_does_not_follow_a_weight(name: str, tmp_path: Path) -> None:
    """Each secret tensor in turn by 1e-6 in all its elements: no model is at an edge of the grid."""
    weights, rng = MODELS[name][1], np.random.default_rng(36)
    before = plan(name, weights, tmp_path)
    for tensor, values in weights.items():
        moved = values + 1e-6 * rng.choice([-1.0, 1.0], values.shape).astype(np.float32)
        assert (moved != values).all()
        assert plan(name, {**weights, tensor: moved}, tmp_path) == before, f"{tensor} shows in the plan"


SAMPLE = ("regression", "perceptron, Sigmoid", "layer norm", "forest")
"""The others are swept where all tests run."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in SAMPLE else pytest.mark.slow) for name in MODELS]
)
def test_security_36_a_plan_tells_few_things_apart(name: str, tmp_path: Path) -> None:
    """Each tensor over an eighth of its power of two in 24 steps: ends of intervals pass a few edges, no more."""
    weights = MODELS[name][1]
    for tensor, values in weights.items():
        octave = math.ldexp(1.0, math.frexp(float(np.abs(values).max()))[1] - 1)
        grown = [values * np.float32(1 + step / 24 * octave / 8 / np.abs(values).max()) for step in range(24)]
        plans = {plan(name, {**weights, tensor: moved}, tmp_path) for moved in grown}
        assert len(plans) <= 4, f"{tensor} shows in the plan: {len(plans)} of 24 are told apart"


@pytest.mark.parametrize("name", ["regression", "perceptron, Sigmoid", "perceptron, Gelu"])
def test_security_36_inside_a_cell_nothing_shows(name: str, tmp_path: Path) -> None:
    """Results from -1.13 .. -1 to 2.25 .. 2.5: wherever weights and bias put these two ends, there is one plan."""
    weights = MODELS[name][1]
    signs = np.sign(weights["w"])

    def moved(below: float, above: float) -> bytes:
        low, high = -1 - below / 8, 2.25 + above / 4
        size = (high - low) / 2 / 2 / len(signs)
        bias = np.full(weights["b"].shape, (high + low) / 2)
        inside = {"w": (signs * size).astype(np.float32), "b": bias.astype(np.float32)}
        return plan(name, {**weights, **inside}, tmp_path)

    places = (0.06, 0.41, 0.93)
    assert len({moved(below, above) for below in places for above in places}) == 1
    assert moved(0.51, 0.51) != moved(1.51, 0.51) != moved(1.51, 1.51)  # another cell shows


@pytest.mark.parametrize("name", MODELS)
def test_security_36_a_bias_of_zeros_does_not_show(name: str, tmp_path: Path) -> None:
    """Zeros against what is small and not zero, for every tensor that is added."""
    weights = MODELS[name][1]
    for tensor in {"b", "c", "d", "shift", "mean"} & weights.keys() - ({"c"} if name == "division" else set()):
        zeros, small = np.zeros_like(weights[tensor]), np.full_like(weights[tensor], 1e-3)
        plans = {plan(name, {**weights, tensor: values}, tmp_path) for values in (zeros, small)}
        assert len(plans) == 1, f"whether {tensor} is zero shows in the plan"


@pytest.mark.parametrize(("little", "reach"), [(1e-7, 1e3), (1e-6, 1e5), (1e-5, 1e6)])
def test_security_36_what_keeps_a_divisor_from_zero_does_not_show(little: float, reach: float, tmp_path: Path) -> None:
    """A larger constant stood for it, and their difference was public: the plan told it to three digits."""
    layers = normal(18, w=(4, 3))
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["r"])]
    nodes += [node("Add", ["r", "c"], ["more"]), node("Div", ["r", "more"], ["y"])]
    plans = set()
    for factor in (1.0, 1.07, 1.3, 1.45):  # within one power of two
        path = save_model(tmp_path, nodes, layers | {"c": np.float32(little * factor)})
        compiled = compile_model(path, (-reach, reach))
        assert any("instead, which has digits" in note for note in compiled.notes)
        plans.add(compiled.plan.canonical)
    assert len(plans) == 1


@pytest.mark.parametrize(
    ("low", "high", "wider"),
    [
        (0.0, 1.0, (0.0, 1.0)),
        (0.51, 1.01, (0.5, 1.125)),
        (-1.01, -0.51, (-1.125, -0.5)),
        (1e-9, 17.0, (math.ldexp(8, -33), 18.0)),
        (-math.inf, 15.9, (-math.inf, 16.0)),
    ],
)
def test_security_36_intervals_are_widened_by_little(low: float, high: float, wider: tuple[float, float]) -> None:
    assert widened(low, high) == wider
    assert widened(*wider) == wider


def test_security_36_models_have_what_the_tests_move(tmp_path: Path) -> None:
    """A weight that no plan reads would stay unseen: all are stored, or merged with one that is."""
    for name, (build, weights) in MODELS.items():
        compiled = compile_model(build(tmp_path, weights), RANGES)
        assert compiled.weights, name
        for tensor, values in weights.items():
            changed = compile_model(build(tmp_path, {**weights, tensor: values * np.float32(1.01)}), RANGES)
            same = all(np.array_equal(changed.weights[key], stored) for key, stored in compiled.weights.items())
            assert not same, f"{name}: {tensor} is no weight"
