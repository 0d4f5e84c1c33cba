"""Passes change a graph's form, never its function; and they leave nothing to do twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpc.compiler.compile import compile_model
from mpc.compiler.onnx_import import import_model, load_model
from mpc.compiler.passes import run_passes
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
    assert _kinds(path) == ["input", "affine"]
    assert_agrees(path, X)


def test_products_that_would_grow_stay_apart(tmp_path: Path) -> None:
    thin = [node("MatMul", ["x", "w"], ["a"]), node("MatMul", ["a", "u"], ["y"], name="second")]
    constants = {"w": WIDE[:, :1], "u": WIDE[:1]}
    path = save_model(tmp_path, thin, constants)
    assert _kinds(path).count("affine") == 2
    assert_agrees(path, X)


def test_a_value_with_two_readers_is_not_folded_away(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Add", ["a", "v"], ["y"]), node("Relu", ["a"], ["z"])]
    path = save_model(tmp_path, nodes, {"v": VECTOR, "w": SQUARE}, outputs=("y", "z"))
    assert_agrees(path, X)


def test_a_scaling_alone_is_a_diagonal_product(tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("Mul", ["x", "v"], ["y"])], {"v": VECTOR})
    assert _kinds(path) == ["input", "affine"]
    assert_agrees(path, X)


def test_dead_nodes_and_empty_reshapes_go(tmp_path: Path) -> None:
    nodes = [
        node("Identity", ["x"], ["a"]),
        node("Cosh", ["k"], ["constant"]),
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
        path = save_model(tmp_path, [node("MatMul", ["x", "w"], ["y"])], {"w": np.float32(gain) * SQUARE})
        plans.append(compile_model(path, {"x": (-1.0, 1.0)}).plan.canonical)
    assert plans[0].decode() == plans[1].decode()
    assert b"matmul" not in plans[0].lower()
