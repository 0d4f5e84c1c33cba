"""A range of one value is a constant, everywhere a range is declared: alone, by column, in a model's metadata."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mpc.compiler.compile import compile_model
from mpc.compiler.onnx.declared import parse_range
from tests.support.estimators import Case, converted
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees, encrypted, plaintext
from tests.support.parties_commands import mpc_here

W = np.array([[0.5, -1.25, 2.0], [1.5, 0.75, -0.3], [-2.0, 0.1, 0.7], [0.2, 1.1, -0.9]], dtype=np.float32)
ROWS = np.array([[0.0, 1.5, -3.0, 2.5], [0.0, -2.0, -3.0, 2.5]], dtype=np.float32)
RANGE = ((0.0, -2.0, -3.0, 2.5), (0.0, 2.0, -3.0, 2.5))
"""Of four columns three are constant."""


@pytest.mark.parametrize(
    "nodes",
    [
        [node("MatMul", ["x", "w"], ["y"])],
        [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["y"])],
        [node("MatMul", ["x", "w"], ["h"]), node("Sigmoid", ["h"], ["y"])],
        [node("MatMul", ["x", "w"], ["h"]), node("Softmax", ["h"], ["y"])],
        [node("Relu", ["x"], ["y"])],
        [node("Exp", ["x"], ["y"])],
        [node("Mul", ["x", "x"], ["y"])],
        [node("ReduceMax", ["x"], ["y"], axes=[1])],
        [node("ArgMax", ["x"], ["y"], axis=1)],
        [node("Concat", ["x", "x"], ["y"], axis=1)],
    ],
    ids=lambda nodes: "-".join(one.op_type for one in nodes),
)
@pytest.mark.parametrize("declared", ["columns", "zeros", "one value"])
def test_constants_are_computed_with_as_others_are(nodes: list, declared: str, tmp_path: Path) -> None:
    rows, ranges = {
        "columns": (ROWS, RANGE),
        "zeros": (np.zeros((2, 4), dtype=np.float32), (0.0, 0.0)),
        "one value": (np.full((2, 4), -1.75, dtype=np.float32), (-1.75, -1.75)),
    }[declared]
    path = save_model(tmp_path, nodes, {"w": W} if "w" in nodes[0].input else {})
    assert_agrees(path, {"x": rows}, {"x": ranges})


@pytest.mark.parametrize("operator", ["Reciprocal", "Log", "Sqrt"])
@pytest.mark.parametrize("value", [0.3, 1.0, 8.0, 700.0])
def test_functions_of_a_positive_constant(operator: str, value: float, tmp_path: Path) -> None:
    path = save_model(tmp_path, [node(operator, ["x"], ["y"])])
    assert_agrees(path, {"x": np.full((1, 4), value, dtype=np.float32)}, {"x": (value, value)})


def test_a_model_declares_a_constant_column(tmp_path: Path) -> None:
    text = "0:0,-2:2,-3:-3,2.5:2.5"
    assert parse_range(text) == RANGE
    path = save_model(tmp_path, [node("MatMul", ["x", "w"], ["y"])], {"w": W}, metadata={"mpc.range.x": text})
    assert_agrees(path, {"x": ROWS})


def test_whole_numbers_of_one_value(tmp_path: Path) -> None:
    nodes = [node("Cast", ["x"], ["f"], to=1), node("MatMul", ["f", "w"], ["y"])]
    path = save_model(tmp_path, nodes, {"w": W}, element=7)
    assert_agrees(path, {"x": np.full((2, 4), 3, dtype=np.int64)}, {"x": (3, 3)})


ESTIMATORS = {
    "regression": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=60)),
    "perceptron": lambda: MLPClassifier((12,), activation="tanh", max_iter=20, random_state=0),
    "forest": lambda: RandomForestClassifier(5, max_depth=5, random_state=0),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_digits_whose_corners_are_always_zero(name: str, tmp_path: Path) -> None:
    """Each pixel has the range of its column, as somebody would declare it: many columns have one value."""
    data = load_digits(return_X_y=True)
    low, high = data[0].min(axis=0), data[0].max(axis=0)
    assert (low == high).any()
    path, rows = converted(Case(ESTIMATORS[name], data, zipmap=False), tmp_path)
    compiled = compile_model(path, {"X": (tuple(low.tolist()), tuple(high.tolist()))})
    (labels, scores), (expected, probabilities) = encrypted(compiled, {"X": rows}), plaintext(path, {"X": rows})
    assert (labels == expected).all()
    assert np.abs(scores - probabilities).max() < 1e-3


def test_the_command_line_takes_it(tmp_path: Path) -> None:
    save_model(tmp_path, [node("MatMul", ["x", "w"], ["y"])], {"w": W})
    done = mpc_here("inspect", "model.onnx", "--range", "x=0:0,-2:2,-3:-3,2.5:2.5", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    every = mpc_here("inspect", "model.onnx", "--range", "0:0", folder=tmp_path)
    assert every.returncode == 0, every.stderr
    backwards = mpc_here("inspect", "model.onnx", "--range", "1:0", folder=tmp_path)
    assert backwards.returncode != 0 and "LOW not above HIGH" in backwards.stderr
