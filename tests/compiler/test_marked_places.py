"""Rows at the first or last place that a secret mask marks, as sequence classifiers take the end of a text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from mpc.compiler.compile import compile_model
from mpc.errors import ModelError
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees

RNG = np.random.default_rng(8)
TABLE = RNG.uniform(-2, 2, (6, 3)).astype(np.float32)
PICKED = [
    node("Gather", ["table", "x"], ["data"], name="data"),
    node("Equal", ["x", "end"], ["mask"], name="mask"),
    node("NonZero", ["mask"], ["places"]),
    node("Transpose", ["places"], ["pairs"], name="pairs", perm=[1, 0]),
    node("GatherND", ["data", "pairs"], ["found"], name="found"),
]
BY_ROW = [
    node("Shape", ["x"], ["sizes"]),
    node("Gather", ["sizes", "first"], ["many"], name="many", axis=0),
    node("Concat", ["many", "rest"], ["target"], name="target", axis=0),
    node("Reshape", ["found", "target"], ["rows"], name="rows"),
]
ENDS = {"last": np.array(-1), "the first": np.array(0), "the last, an axis": np.array([-1])}


def made(folder: Path, nodes: list[onnx.NodeProto], index: np.ndarray, rows: str | int = "batch") -> Path:
    constants = {
        "table": TABLE, "end": np.array(2), "first": np.array([0]), "rest": np.array([-1, 3]), "index": index,
    }  # fmt: skip
    return save_model(folder, nodes, constants, (rows, 5), element=TensorProto.INT64)


@pytest.mark.parametrize("rows", ["batch", 3])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("places", [[4, 0, 2], [[1, 3], [0, 4], [2, 3]]])
def test_one_marked_place_of_each_row_is_chosen(places: list[int], end: str, rows: str | int, tmp_path: Path) -> None:
    """Each row has one mark, or two, where NonZero finds them all."""
    x = RNG.choice([0, 1, 3, 4, 5], (3, 5))
    x[np.arange(3)[:, None], np.array(places).reshape(3, -1)] = 2
    table = made(tmp_path, [*PICKED, *BY_ROW, node("Gather", ["rows", "index"], ["y"], axis=1)], ENDS[end], rows)
    assert_agrees(table, {"x": x}, tolerance=1e-4)


@pytest.mark.parametrize(
    "last", [node("ReduceMean", ["rows"], ["y"], axes=[1]), node("Gather", ["rows", "index"], ["y"], axis=1)]
)
def test_what_says_how_many_are_marked_is_refused(last: onnx.NodeProto, tmp_path: Path) -> None:
    path = made(tmp_path, [*PICKED, *BY_ROW, last], np.array(-2))
    with pytest.raises(ModelError, match="how many places a mask marks is secret"):
        compile_model(path)
