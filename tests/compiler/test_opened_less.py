"""Values that a plan does not open: products whose sum is wanted, what is truncated twice, a spelt out GELU's parts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto

from mpc.compiler.compile import Compiled, compile_model
from mpc.gates.base import Gate
from mpc.gates.fourier import Fourier
from mpc.gates.matmul import Matmul
from mpc.gates.multiply import Multiply
from mpc.gates.pieces import Pieces
from mpc.gates.truncate import Truncate
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees

RNG = np.random.default_rng(77)
ONE, HALF = np.float32(1.0), np.float32(0.5)


def kinds(found: Compiled, *of: type[Gate]) -> list[Gate]:
    return [gate for gate in found.plan.gates if isinstance(gate, of)]


@pytest.mark.parametrize("name", ["ReduceSumSquare", "ReduceL2"])
def test_of_a_sum_of_squares_no_square_is_opened(name: str, tmp_path: Path) -> None:
    path = save_model(tmp_path, [node(name, ["x"], ["y"], axes=[1, 2], keepdims=0)], shape=("batch", 3, 5))
    x = RNG.uniform(-3, 3, (4, 3, 5)).astype(np.float32)
    found = assert_agrees(path, {"x": x}, {"x": (-3.0, 3.0)}, tolerance=2e-3)
    wire = found.plan.bind(1).wire
    assert [wire[gate.out].sizes for gate in kinds(found, Matmul)] == [(1, 1, 1)]
    assert not any(wire[gate.out].sizes == (1, 3, 5) for gate in kinds(found, Multiply))


def test_a_normalisation_opens_one_sum_of_squares_a_row(tmp_path: Path) -> None:
    gain, shift = RNG.uniform(0.5, 2, (2, 16)).astype(np.float32)
    nodes = [node("LayerNormalization", ["x", "g", "s"], ["y"], axis=-1)]
    path = save_model(tmp_path, nodes, {"g": gain, "s": shift}, shape=("batch", 6, 16))
    x = RNG.normal(0, 1, (3, 6, 16)).clip(-4, 4).astype(np.float32)
    found = assert_agrees(path, {"x": x}, {"x": (-4.0, 4.0)}, tolerance=1e-3)
    wire = found.plan.bind(1).wire
    assert [wire[gate.out].sizes for gate in kinds(found, Matmul)] == [(1, 6, 1, 1)]


def test_gains_are_in_the_weights_of_the_layers_behind(tmp_path: Path) -> None:
    """Of a normalisation that two layers read nothing is multiplied by its gain; beside them another may read it."""
    gain, shift = RNG.uniform(0.5, 2, (2, 16)).astype(np.float32)
    weights = {name: RNG.normal(0, 0.25, (16, 8)).astype(np.float32) for name in "ab"}
    nodes = [
        node("LayerNormalization", ["x", "g", "s"], ["n"], axis=-1),
        node("MatMul", ["n", "a"], ["left"], name="left"),
        node("MatMul", ["n", "b"], ["right"], name="right"),
        node("Mul", ["left", "right"], ["y"]),
    ]
    path = save_model(tmp_path, nodes, {"g": gain, "s": shift, **weights}, shape=("batch", 4, 16))
    x = RNG.normal(0, 1, (3, 4, 16)).clip(-4, 4).astype(np.float32)
    found = assert_agrees(path, {"x": x}, {"x": (-4.0, 4.0)}, tolerance=5e-3)
    assert not any(gate.weight for gate in kinds(found, Multiply))
    assert sum(bool(gate.weight) for gate in kinds(found, Matmul)) == 2
    nodes[3:] = [node("Add", ["left", "right"], ["sum"]), node("MatMul", ["n", "c"], ["own"], name="own")]
    nodes += [node("Add", ["sum", "own"], ["all"], name="all"), node("Concat", ["all", "n"], ["y"], axis=-1)]
    weights["c"] = RNG.normal(0, 0.25, (16, 8)).astype(np.float32)
    path = save_model(tmp_path, nodes, {"g": gain, "s": shift, **weights}, shape=("batch", 4, 16))
    found = assert_agrees(path, {"x": x}, {"x": (-4.0, 4.0)}, tolerance=5e-3)
    assert sum(bool(gate.weight) for gate in kinds(found, Multiply)) == 1


def test_no_value_is_truncated_twice_one_after_the_other(tmp_path: Path) -> None:
    weights = {name: RNG.normal(0, 0.5, (64, 64)).astype(np.float32) for name in "qk"}
    nodes = [node("MatMul", ["x", name], [f"x{name}"], name=name) for name in "qk"]
    nodes += [node("Transpose", ["xk"], ["t"], perm=[0, 2, 1]), node("MatMul", ["xq", "t"], ["y"], name="scores")]
    path = save_model(tmp_path, nodes, weights, shape=("batch", 6, 64))
    x = RNG.uniform(-200, 200, (2, 6, 64)).astype(np.float32)
    found = assert_agrees(path, {"x": x}, {"x": (-200.0, 200.0)}, tolerance=500.0)  # of 4e7
    truncated = {gate.out: gate.x for gate in kinds(found, Truncate)}
    assert truncated and not set(truncated.values()) & set(truncated)


def by_erf(order: str) -> list[NodeProto]:
    """GELU as exporters spell it out."""
    root = [node("Div", ["x", "r"], ["s"]), node("Erf", ["s"], ["e"]), node("Add", ["e", "one"], ["a"])]
    if order == "half last":
        return [*root, node("Mul", ["x", "a"], ["m"], name="m"), node("Mul", ["m", "half"], ["h"], name="h")]
    if order == "half first":
        return [node("Mul", ["x", "half"], ["m"], name="m"), *root, node("Mul", ["m", "a"], ["h"], name="h")]
    return [*root, node("Mul", ["half", "a"], ["m"], name="m"), node("Mul", ["m", "x"], ["h"], name="h")]


def by_tanh() -> list[NodeProto]:
    return [
        node("Mul", ["x", "x"], ["x2"], name="x2"),
        node("Mul", ["x2", "x"], ["x3"], name="x3"),
        node("Mul", ["x3", "cubic"], ["c"], name="c"),
        node("Add", ["x", "c"], ["q"], name="q"),
        node("Mul", ["q", "slope"], ["s"], name="s"),
        node("Tanh", ["s"], ["e"]),
        node("Add", ["e", "one"], ["a"], name="a"),
        node("Mul", ["x", "half"], ["m"], name="m"),
        node("Mul", ["m", "a"], ["h"], name="h"),
    ]


SPELT = {order: by_erf(order) for order in ("half last", "half first", "half within")} | {"tanh": by_tanh()}
CONSTANTS = {
    "r": np.float32(math.sqrt(2)),
    "one": ONE,
    "half": HALF,
    "cubic": np.float32(0.044715),
    "slope": np.float32(math.sqrt(2 / math.pi)),
}


@pytest.mark.parametrize("spelling", SPELT)
def test_gelu_is_found_where_it_is_spelt_out(spelling: str, tmp_path: Path) -> None:
    weight = RNG.normal(0, 0.5, (5, 4)).astype(np.float32)
    nodes = [*SPELT[spelling], node("MatMul", ["h", "w"], ["y"], name="y")]
    used = {name: value for name, value in CONSTANTS.items() if any(name in each.input for each in nodes)}
    path = save_model(tmp_path, nodes, {"w": weight, **used}, shape=("batch", 5))
    x = RNG.uniform(-12, 12, (30, 5)).astype(np.float32)
    found = assert_agrees(path, {"x": x}, {"x": (-12.0, 12.0)}, tolerance=1e-3)
    assert len(kinds(found, Pieces)) == len(kinds(found, Fourier)) == 1
    assert not kinds(found, Multiply)


@pytest.mark.parametrize("constant", ["r", "one", "cubic", "slope"])
def test_what_only_looks_like_gelu_is_none(constant: str, tmp_path: Path) -> None:
    nodes = SPELT["tanh" if constant in ("cubic", "slope") else "half last"]
    used = {name: value for name, value in CONSTANTS.items() if any(name in each.input for each in nodes)}
    used[constant] = used[constant] * np.float32(1.1)
    path = save_model(tmp_path, [*nodes, node("Identity", ["h"], ["y"])], used, shape=("batch", 5))
    found = compile_model(path, {"x": (-4.0, 4.0)})
    assert not kinds(found, Pieces) and kinds(found, Multiply)
