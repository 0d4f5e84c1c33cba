"""Public places of rows in an open batch, by which exporters of masks choose from each row its own elements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from mpc.compiler.compile import compile_model
from mpc.errors import ModelError
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees

RNG = np.random.default_rng(4)
X = {"x": RNG.uniform(-2, 2, (5, 4)).astype(np.float32)}
RANGE = {"x": (-2.0, 2.0)}
ROWS = [
    node("Shape", ["x"], ["sizes"]),
    node("Gather", ["sizes", "zero"], ["n"], name="count"),
    node("Range", ["zero", "n", "one"], ["rows"], name="rows"),
]
CONSTANTS: dict[str, np.ndarray] = {
    "zero": np.array(0), "one": np.array(1), "four": np.array(4), "axis": np.array([1]), "back": np.array([0]),
    "last": np.array([2]), "places": np.array([[3, 1, 1]]),
}  # fmt: skip


def made(
    folder: Path, *nodes: onnx.NodeProto, shape: Any = ("batch", 4), element: int = TensorProto.FLOAT, **constants: Any
) -> Path:
    numbers = {**CONSTANTS, **{k: np.asarray(v) for k, v in constants.items()}}
    return save_model(folder, [*ROWS, *nodes], numbers, shape, element=element)


def test_elements_by_the_place_of_their_row_and_a_column(tmp_path: Path) -> None:
    """As the newer exporter writes a mask: GatherND of (row, column), which are expanded and joined."""
    path = made(
        tmp_path,
        node("Unsqueeze", ["rows", "axis"], ["r"], name="r"),
        node("Max", ["r", "places"], ["m"]),
        node("Shape", ["m"], ["both"], name="both"),
        node("Expand", ["r", "both"], ["re"], name="re"),
        node("Expand", ["places", "both"], ["pe"], name="pe"),
        node("Unsqueeze", ["re", "last"], ["ru"], name="ru"),
        node("Unsqueeze", ["pe", "last"], ["pu"], name="pu"),
        node("Concat", ["ru", "pu"], ["i"], axis=-1),
        node("GatherND", ["x", "i"], ["y"]),
    )
    assert assert_agrees(path, X, RANGE).plan.outputs[0].shape == ("batch", 3)


def test_elements_of_the_flat_batch(tmp_path: Path) -> None:
    """As the older exporter writes a mask: row times length plus column, of all rows' elements in one axis."""
    path = made(
        tmp_path,
        node("Unsqueeze", ["rows", "axis"], ["r"], name="r"),
        node("Mul", ["r", "four"], ["rm"]),
        node("Add", ["places", "rm"], ["i"]),
        node("Flatten", ["x"], ["f"], axis=2),
        node("Gather", ["f", "i"], ["g"], axis=0, name="g"),
        node("Squeeze", ["g", "last"], ["y"]),
    )
    assert_agrees(path, X, RANGE)


def test_rows_in_their_order_are_the_rows(tmp_path: Path) -> None:
    path = made(
        tmp_path, node("Cast", ["rows"], ["c"], to=TensorProto.INT32), node("Gather", ["x", "c"], ["y"], name="g")
    )
    assert_agrees(path, X, RANGE)


def test_a_constant_for_each_row_reads_a_table_without_comparing(tmp_path: Path) -> None:
    """As the token types that no caller gives: zeros for each row, which index a table."""
    table = RNG.standard_normal((3, 4)).astype(np.float32)
    path = made(
        tmp_path,
        node("Unsqueeze", ["n", "back"], ["nu"], name="nu"),
        node("Concat", ["nu", "axis"], ["shape"], axis=0),
        node("Expand", ["two", "shape"], ["types"], name="types"),
        node("Gather", ["table", "types"], ["g"], name="g"),
        node("Squeeze", ["g", "axis"], ["s"]),
        node("Add", ["x", "s"], ["y"]),
        table=table,
        two=np.array([[2]]),
    )
    plan = assert_agrees(path, X, RANGE).plan
    assert {gate.kind for gate in plan.gates} <= {"input", "combine", "reshape", "take", "truncate"}


U = node("Unsqueeze", ["f", "axis"], ["u"], name="u")
NOT_OWN = {
    "another row": [node("Add", ["rows", "one"], ["i"]), node("Gather", ["x", "i"], ["y"], name="g")],
    "beyond": [node("Mul", ["rows", "four"], ["i"]), node("Gather", ["x", "i"], ["y"], name="g")],
    "squared": [node("Mul", ["rows", "rows"], ["i"]), node("Gather", ["x", "i"], ["y"], name="g")],
    "added": [node("Cast", ["rows"], ["f"], to=TensorProto.FLOAT), U, node("Add", ["x", "u"], ["y"])],
    "compared": [
        node("Greater", ["rows", "one"], ["b"]), node("Cast", ["b"], ["f"], to=1), U, node("Mul", ["x", "u"], ["y"]),
    ],
}  # fmt: skip


@pytest.mark.parametrize("nodes", NOT_OWN.values(), ids=NOT_OWN)
def test_what_is_not_the_rows_own_is_refused(tmp_path: Path, nodes: list[onnx.NodeProto]) -> None:
    with pytest.raises(ModelError, match="computes with the (place of a row in the batch|batch size)") as refused:
        compile_model(made(tmp_path, *nodes), RANGE)
    assert "--shape INPUT=1" in str(refused.value)
    fixed = compile_model(made(tmp_path, *nodes), RANGE, shapes={"x": (2, 4)}) if len(nodes) > 2 else None
    assert fixed is None or fixed.plan.outputs  # the remedy works


def test_no_number_is_missing_or_infinite(tmp_path: Path) -> None:
    """As attention asks: a softmax has no NaN here, so the zero for it is never chosen, and nothing is compared."""
    nodes = [
        node("Softmax", ["x"], ["s"], axis=-1),
        node("IsNaN", ["s"], ["n"]),
        node("IsInf", ["s"], ["i"]),
        node("Where", ["n", "none", "s"], ["w"], name="w"),
        node("Where", ["i", "none", "w"], ["y"], name="y"),
    ]
    path = save_model(tmp_path, nodes, {"none": np.array(0, np.float32)})
    plain = save_model(tmp_path, [node("Softmax", ["x"], ["y"], axis=-1)])
    rounds = len(compile_model(plain, RANGE).plan.gates)
    path = save_model(tmp_path, nodes, {"none": np.array(0, np.float32)})
    assert len(assert_agrees(path, X, RANGE).plan.gates) == rounds


@pytest.mark.parametrize("operator", ["IsNaN", "IsInf"])
def test_missing_numbers_of_an_input_are_asked_of_an_imputer(tmp_path: Path, operator: str) -> None:
    nodes = [
        node("Reshape", ["x", "shape"], ["r"]), node(operator, ["r"], ["n"]), node("Where", ["n", "none", "r"], ["y"]),
    ]  # fmt: skip
    path = save_model(tmp_path, nodes, {"none": np.array(0, np.float32), "shape": np.array([0, 2, 2])})
    with pytest.raises(ModelError, match="looks for (missing|infinite) numbers of an input.*Imputer"):
        compile_model(path)


def test_constants_are_gathered_element_by_element(tmp_path: Path) -> None:
    """onnx's own reference does so for few places only: a table of 512 positions is the default of many exports."""
    data = RNG.standard_normal((1, 512)).astype(np.float32)
    nodes = [node("GatherElements", ["d", "i"], ["g"], axis=1), node("Add", ["x", "g"], ["y"])]
    places = np.array([[500, 3, -1, 0]])
    assert_agrees(save_model(tmp_path, nodes, {"d": data, "i": places}), X, RANGE)
    with pytest.raises(ModelError, match="an index outside the 512 elements of axis 1"):
        compile_model(save_model(tmp_path, nodes, {"d": data, "i": places + 500}))
    with pytest.raises(ModelError, match=r"indices of shape \(2, 4\) into data of shape \(1, 512\)"):
        compile_model(save_model(tmp_path, nodes, {"d": data, "i": np.repeat(places, 2, 0)}))


def test_places_of_which_some_are_taken(tmp_path: Path) -> None:
    """As MarkupLM is exported: three numbers a row of the batch, one of which is read in a table."""
    one = numpy_helper.from_array(np.ones(1, np.int64))
    path = made(
        tmp_path,
        node("Unsqueeze", ["n", "back"], ["many"], name="many"),
        node("Concat", ["many", "width"], ["both"], name="both", axis=0),
        node("ConstantOfShape", ["both"], ["ones"], name="ones", value=one),
        node("Mul", ["ones", "four"], ["p"], name="p"),
        node("Gather", ["p", "zero"], ["column"], name="column", axis=1),
        node("Gather", ["table", "column"], ["t"], name="t"),
        node("Add", ["x", "t"], ["y"]),
        width=[3],
        table=RNG.uniform(-1, 1, (5, 4)).astype(np.float32),
    )
    assert_agrees(path, X, RANGE)


def test_one_number_is_written_into_each_row(tmp_path: Path) -> None:
    """As BART moves its tokens by one place, and begins with a token of its own: of the batch, that is repeated."""
    path = made(
        tmp_path,
        node("Unsqueeze", ["n", "back"], ["many"], name="many"),
        node("Expand", ["four", "many"], ["fours"], name="fours"),
        node("Identity", ["fours"], ["token"], name="token"),
        node("Expand", ["one", "many"], ["columns"], name="columns"),
        node("Unsqueeze", ["rows", "axis"], ["r"], name="r"),
        node("Unsqueeze", ["columns", "axis"], ["c"], name="c"),
        node("Concat", ["r", "c"], ["i"], name="i", axis=-1),
        node("Reshape", ["token", "many"], ["t"], name="t"),
        node("ScatterND", ["x", "i", "t"], ["y"]),
        element=TensorProto.INT64,
    )
    assert_agrees(path, {"x": RNG.integers(-2, 3, (5, 4))}, RANGE)


EDGES = {"from": np.array([[[0], [2], [3], [1], [1]]]), "to": np.array([[[1], [1], [0], [3], [-2]]])}


@pytest.mark.parametrize("reduction", ["add", "none", "max"])
def test_messages_along_the_edges_of_a_graph_that_all_rows_share(tmp_path: Path, reduction: str) -> None:
    """As PyTorch Geometric exports layers on (batch, nodes, features): a constant index, repeated for each row."""
    path = made(
        tmp_path,
        node("Unsqueeze", ["n", "back"], ["many"], name="many"),
        node("Concat", ["many", "rest"], ["sizes_of_messages"], name="rest", axis=0),
        node("Expand", ["from", "sizes_of_messages"], ["f"], name="f"),
        node("Expand", ["to", "sizes_of_messages"], ["t"], name="t"),
        node("GatherElements", ["x", "f"], ["messages"], name="g", axis=1),
        node("Mul", ["x", "half"], ["kept"], name="kept"),
        node("ScatterElements", ["kept", "t", "messages"], ["y"], name="s", axis=1, reduction=reduction),
        shape=("batch", 4, 2),
        half=np.float32(0.5),
        rest=[5, 2],
        **EDGES,
    )
    assert_agrees(path, {"x": RNG.uniform(-2, 2, (3, 4, 2)).astype(np.float32)}, RANGE)


def test_elements_are_not_written_into_other_rows(tmp_path: Path) -> None:
    path = made(
        tmp_path,
        node("Unsqueeze", ["n", "back"], ["many"], name="many"),
        node("Concat", ["many", "axis"], ["column"], name="column", axis=0),
        node("Expand", ["zero", "column"], ["i"], name="i"),
        node("ScatterElements", ["x", "i", "x"], ["y"], name="s", axis=0, reduction="add"),
    )
    with pytest.raises(ModelError, match="batch"):
        compile_model(path, RANGE)
