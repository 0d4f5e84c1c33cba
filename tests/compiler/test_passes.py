"""Passes change a graph's form, never its function; and they leave nothing to do twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpc.compiler.compile import compile_model
from mpc.compiler.graph.passes import run_passes
from mpc.compiler.onnx.load import load_model
from mpc.compiler.onnx.protos import attributes
from mpc.compiler.onnx.walk import import_model
from mpc.plan.cost import plan_cost
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees

RNG = np.random.default_rng(2)
VECTOR = RNG.uniform(0.5, 2, 4).astype(np.float32)
SQUARE, WIDE = RNG.standard_normal((4, 4)).astype(np.float32), RNG.standard_normal((4, 64)).astype(np.float32)
X = {"x": RNG.standard_normal((6, 4)).astype(np.float32)}


def _kinds(path: Path) -> list[str]:
    return [gate.kind for gate in compile_model(path).plan.online]


def test_scalings_and_biases_fold_into_one_product(tmp_path: Path) -> None:
    nodes = [
        node("Sub", ["x", "v"], ["a"]),
        node("Div", ["a", "v"], ["b"]),
        node("MatMul", ["b", "w"], ["c"]),
        node("Add", ["c", "v"], ["d"]),
        node("Mul", ["two", "d"], ["e"]),
        node("Neg", ["e"], ["y"]),
    ]
    path = save_model(tmp_path, nodes, {"v": VECTOR, "w": SQUARE, "two": np.float32(2)})
    assert _kinds(path) == ["input", "matmul"]
    assert_agrees(path, X)


def test_products_that_would_grow_stay_apart(tmp_path: Path) -> None:
    thin = [node("MatMul", ["x", "w"], ["a"]), node("MatMul", ["a", "u"], ["y"], name="second")]
    constants = {"w": WIDE[:, :1], "u": WIDE[:1]}
    path = save_model(tmp_path, thin, constants)
    assert _kinds(path).count("matmul") == 2
    assert_agrees(path, X)


def test_a_value_with_two_readers_is_not_folded_away(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Add", ["a", "v"], ["y"]), node("Relu", ["a"], ["z"])]
    path = save_model(tmp_path, nodes, {"v": VECTOR, "w": SQUARE}, outputs=("y", "z"))
    assert_agrees(path, X)


@pytest.mark.parametrize("order", [["n", "z"], ["z", "n"]])
def test_a_value_times_its_negative_is_a_square(order: list[str], tmp_path: Path) -> None:
    """exp(-z z / 8): without knowing that it is no larger than 1, there would be no room for it."""
    nodes = [
        node("Sub", ["x", "v"], ["m"]),
        node("Div", ["m", "w"], ["z"]),
        node("Neg", ["z"], ["n"]),
        node("Mul", order, ["q"]),
        node("Div", ["q", "e"], ["d"], "eighth"),
        node("Exp", ["d"], ["y"]),
    ]
    constants = {"v": VECTOR, "w": np.array([0.5, 1, 2, 3], np.float32), "e": np.float32(8)}
    made = assert_agrees(save_model(tmp_path, nodes, constants), X, {"x": (-8, 8)}, tolerance=1e-4)
    assert made.errors["y"] < 2e-5


@pytest.mark.parametrize("operator", ["Add", "Mul", "Sub", "Div"])
@pytest.mark.parametrize("shape", [(3, 1, 4), (1, 1, 4), (1, 4)])
def test_constants_that_only_repeat_a_value(tmp_path: Path, operator: str, shape: tuple[int, ...]) -> None:
    """Zeros and ones: nothing is added or multiplied, and yet the result is larger."""
    constants = {"k": np.full(shape, operator in ("Mul", "Div"), np.float32)}
    rows = [node("ReduceMean", ["x"], ["m"], axes=[1]), node(operator, ["m", "k"], ["y"])]
    assert_agrees(save_model(tmp_path, rows, constants, shape=(2, 4)), {"x": X["x"][:2]})
    if len(shape) == 2:
        assert_agrees(save_model(tmp_path, rows, constants), X)


def test_a_scaling_alone_is_an_elementwise_product_with_a_weight(tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("Mul", ["x", "v"], ["y"])], {"v": VECTOR})
    assert _kinds(path) == ["input", "multiply"]
    assert_agrees(path, X)


@pytest.mark.parametrize("factor", [2.0, -0.125, 1 / 3, 2**-0.5])
def test_a_simple_factor_is_public_and_free(tmp_path: Path, factor: float) -> None:
    path = save_model(tmp_path, [node("Mul", ["x", "k"], ["y"])], {"k": np.float32(factor)})
    assert _kinds(path) == ["input", "combine", "truncate"]  # a fresh mask for who receives it
    assert_agrees(path, X)


def test_a_trained_factor_is_no_simple_one_and_stays_secret(tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("Mul", ["x", "k"], ["y"])], {"k": np.float32(1.2345678)})
    assert _kinds(path) == ["input", "multiply"]
    assert_agrees(path, X)


def test_an_addend_is_stored_secret_and_free(tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("Add", ["x", "v"], ["h"]), node("Relu", ["h"], ["y"])], {"v": VECTOR})
    assert _kinds(path) == ["input", "combine", "relu"]
    assert_agrees(path, X)


IMAGE = {"x": RNG.standard_normal((3, 2, 8, 8)).astype(np.float32)}
FILTERS = {
    "w": RNG.standard_normal((4, 2, 3, 3)).astype(np.float32),
    "v": RNG.standard_normal((3, 4, 3, 3)).astype(np.float32),
    "g": RNG.uniform(-2, 2, 4).astype(np.float32),
    "m": RNG.standard_normal(4).astype(np.float32),
    "s": RNG.uniform(0.5, 2, 4).astype(np.float32),
}


def test_batch_norms_fold_into_the_convolution_before_and_the_one_behind(tmp_path: Path) -> None:
    """Also into a padded one: what the shift adds differs at the border, and so does the folded bias."""
    norm = ["g", "m", "m", "s"]
    nodes = [
        node("Conv", ["x", "w"], ["a"], name="first"),
        node("BatchNormalization", ["a", *norm], ["b"], name="norm1"),
        node("Relu", ["b"], ["c"]),
        node("BatchNormalization", ["c", *norm], ["d"], name="norm2"),
        node("Conv", ["d", "v"], ["y"], pads=[1, 1, 1, 1], name="second"),
    ]
    path = save_model(tmp_path, nodes, FILTERS, shape=("batch", 2, 8, 8))
    assert _kinds(path) == ["input", "convolution", "relu", "convolution"]
    assert_agrees(path, IMAGE, {"x": (-4.0, 4.0)})


@pytest.mark.parametrize("order", ["before", "behind"])
def test_a_relu_and_a_pooling_are_one_gate(tmp_path: Path, order: str) -> None:
    relu, pool = "Relu", "MaxPool"
    first, second = (relu, pool) if order == "before" else (pool, relu)
    nodes = [node("Conv", ["x", "w"], ["a"])]
    for operator, given, out in ((first, "a", "b"), (second, "b", "c")):
        window = {"kernel_shape": [2, 2], "strides": [2, 2]} if operator == pool else {}
        nodes.append(node(operator, [given], [out], **window))
    nodes.append(node("Conv", ["c", "v"], ["y"], name="second"))
    path = save_model(tmp_path, nodes, FILTERS, shape=("batch", 2, 8, 8))
    kinds = _kinds(path)
    assert kinds.count("maximum") == 1 and "relu" not in kinds
    assert_agrees(path, IMAGE, {"x": (-4.0, 4.0)})


def test_two_poolings_are_both_fused(tmp_path: Path) -> None:
    window = {"kernel_shape": [2, 2], "strides": [1, 1]}
    nodes = [
        node("MaxPool", ["x"], ["a"], name="p1", **window),
        node("Relu", ["a"], ["b"], name="r1"),
        node("Conv", ["b", "w"], ["c"]),
        node("MaxPool", ["c"], ["d"], name="p2", **window),
        node("Relu", ["d"], ["y"], name="r2"),
    ]
    path = save_model(tmp_path, nodes, FILTERS, shape=("batch", 2, 8, 8))
    assert [g.rectify for g in compile_model(path).plan.gates if g.kind == "maximum"] == [True, True]
    assert_agrees(path, IMAGE, {"x": (-4.0, 4.0)})


def test_a_relu_that_somebody_else_reads_is_not_fused_away(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["a"]), node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2]), node("Neg", ["a"], ["c"])]
    path = save_model(tmp_path, nodes, FILTERS, shape=("batch", 2, 8, 8), outputs=("b", "c"))
    assert_agrees(path, IMAGE, {"x": (-4.0, 4.0)})


def test_independent_gates_share_rounds(tmp_path: Path) -> None:
    nodes = [
        node("Relu", ["x"], ["a"], name="r"),
        node("Sigmoid", ["x"], ["b"]),
        node("Concat", ["a", "b"], ["y"], axis=1),
    ]
    both = plan_cost(compile_model(save_model(tmp_path, nodes), {"x": (-4.0, 4.0)}).plan).rounds
    alone = plan_cost(compile_model(save_model(tmp_path, nodes[:1], outputs=("a",)), {"x": (-4.0, 4.0)}).plan).rounds
    assert both == alone + 1  # the fresh mask of what is revealed


def test_dead_nodes_and_empty_reshapes_go(tmp_path: Path) -> None:
    nodes = [
        node("Identity", ["x"], ["a"]),
        node("Floor", ["k"], ["constant"]),
        node("Relu", ["a"], ["unused"]),
        node("Relu", ["a"], ["b"], name="used"),
        node("Flatten", ["b"], ["y"]),
    ]
    path = save_model(tmp_path, nodes, {"k": VECTOR})
    assert _kinds(path) == ["input", "relu"]
    assert_agrees(path, X)


def test_reshape_by_the_shape_of_the_input(tmp_path: Path) -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"], axis=0),
        node("Unsqueeze", ["n", "axes"], ["n1"]),
        node("Concat", ["n1", "rest"], ["target"], axis=0),
        node("Reshape", ["x", "target"], ["flat"]),
        node("MatMul", ["flat", "w"], ["y"]),
    ]
    constants = {
        "zero": np.int64(0),
        "axes": np.array([0], np.int64),
        "rest": np.array([4], np.int64),
        "w": SQUARE,
    }
    path = save_model(tmp_path, nodes, constants, shape=("batch", 1, 2, 2))
    x = {"x": RNG.standard_normal((3, 1, 2, 2)).astype(np.float32)}
    assert_agrees(path, x)


@pytest.mark.parametrize("shape", [(1, 4), (3, 4)])
def test_fixed_batch(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = save_model(tmp_path, [node("MatMul", ["x", "w"], ["y"])], {"w": SQUARE}, shape=shape)
    assert_agrees(path, {"x": RNG.standard_normal(shape).astype(np.float32)})


def test_passes_are_idempotent(tmp_path: Path) -> None:
    nodes = [node("Sub", ["x", "v"], ["a"]), node("MatMul", ["a", "w"], ["b"]), node("Flatten", ["b"], ["y"])]
    path = save_model(tmp_path, nodes, {"v": VECTOR, "w": SQUARE})
    once = run_passes(import_model(load_model(path)))
    twice = run_passes(once)
    assert [(n.op, n.reads, n.writes) for n in once.nodes] == [(n.op, n.reads, n.writes) for n in twice.nodes]
    assert once.outputs == twice.outputs


def test_weights_are_not_in_the_plan(tmp_path: Path) -> None:
    """Two models that differ in their weights, not in the power of two that bounds them, have one plan."""
    plans = []
    for gain in (1.0, 1.000001):
        path = save_model(tmp_path, [node("MatMul", ["x", "w"], ["y"], name="layer")], {"w": np.float32(gain) * SQUARE})
        plans.append(compile_model(path, {"x": (-1.0, 1.0)}).plan.canonical)
    assert plans[0].decode() == plans[1].decode()
    assert b"layer" not in plans[0].lower()


ENDS = {
    "a quotient": [node("Sqrt", ["a"], ["s"]), node("Div", ["c", "s"], ["n"])],
    "an inverse": [node("Sqrt", ["a"], ["s"]), node("Reciprocal", ["s"], ["r"]), node("Mul", ["r", "c"], ["n"])],
    "a power": [node("Pow", ["a", "minus"], ["r"], name="root"), node("Mul", ["c", "r"], ["n"])],
}


@pytest.mark.parametrize("name", ENDS)
def test_a_normalisation_that_is_spelt_out_is_known_to_be_small(tmp_path: Path, name: str) -> None:
    """Twice, with a layer between: by intervals alone the second one has no bound.  One function each."""
    once = [
        node("ReduceMean", ["h"], ["m"], axes=[-1]),
        node("Sub", ["h", "m"], ["c"]),
        node("Pow", ["c", "two"], ["q"]),
        node("ReduceMean", ["q"], ["v"], axes=[-1], name="spread"),
        node("Add", ["v", "e"], ["a"]),
        *ENDS[name],
    ]
    twice = []
    for turn in (1, 2):
        twice.append(node("Gemm", [f"n{turn - 1}" if turn > 1 else "x", "w"], [f"h{turn}"], name=f"layer{turn}"))
        for one in once:
            names = [
                [v if v in ("two", "e", "minus") else f"{v}{turn}" for v in side] for side in (one.input, one.output)
            ]
            twice.append(node(one.op_type, *names, name=f"{one.name}{turn}", **attributes(one)))
    constants = {"w": SQUARE * 3, "two": np.float32(2), "e": np.float32(1e-5), "minus": np.float32(-0.5)}
    path = save_model(tmp_path, twice, constants, outputs=("n2",))
    compiled = assert_agrees(path, X)
    assert [gate.kind for gate in compiled.plan.gates].count("fourier") == 2
