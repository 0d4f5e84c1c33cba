"""Averages over marked places, as sentences are embedded: bounds do not grow with one over a tiny constant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from mpc.compiler.compile import Compiled
from tests.support.graphs import node
from tests.support.models import assert_agrees

TOKENS, WIDTH, ROWS = 6, 5, 20
UNSQUEEZE = [node("Unsqueeze", ["mask", "two"], ["on"]), node("Cast", ["on"], ["marks"], to=TensorProto.FLOAT)]
EXPANDED = [
    node("Unsqueeze", ["mask", "two"], ["on"]),
    node("Expand", ["on", "sizes"], ["wide"]),
    node("Cast", ["wide"], ["marks"], to=TensorProto.FLOAT),
]
FOUND = [
    node("Equal", ["mask", "nothing"], ["off"]),
    node("Not", ["off"], ["there"]),
    node("Unsqueeze", ["there", "two"], ["on"]),
    node("Cast", ["on"], ["marks"], to=TensorProto.FLOAT),
]
WHOLE = [node("Cast", ["mask"], ["flat"], to=TensorProto.FLOAT)]
TOTAL = [node("Mul", ["x", "marks"], ["kept"]), node("ReduceSum", ["kept", "one"], ["total"], keepdims=0)]
NUMBER = [node("ReduceSum", ["marks", "one"], ["number"], keepdims=0)]
FLAT_NUMBER = [*WHOLE, node("ReduceSum", ["flat", "one"], ["number"], keepdims=1)]
CLIP = [node("Clip", ["number", "least"], ["clipped"])]
DIV = [node("Div", ["total", "clipped"], ["average"])]
UNIT = [node("ReduceL2", ["average"], ["length"], axes=[-1]), node("Div", ["average", "length"], ["y"])]
FIXED, OPEN = 3, "batch"


def save(folder: Path, nodes: list[NodeProto], rows: int | str, least: float) -> Path:
    constants = {
        "one": np.array([1]),
        "two": np.array([2]),
        "nothing": np.array(0),
        "sizes": np.array([1, 1, WIDTH]),
        "least": np.float32(least),
    }
    read = {name for each in nodes for name in each.input}
    for each in nodes:
        each.name = each.output[0]
    graph = helper.make_graph(
        nodes,
        "test",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, TOKENS, WIDTH]),
            helper.make_tensor_value_info("mask", TensorProto.INT64, [rows, TOKENS]),
        ],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, [rows, WIDTH])],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in read],
    )
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def feeds(rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    mask = (np.arange(TOKENS) < rng.integers(1, TOKENS + 1, (rows, 1))).astype(np.int64)
    return {"x": rng.uniform(-4, 4, (rows, TOKENS, WIDTH)).astype(np.float32), "mask": mask}


def agrees(path: Path, given: dict[str, np.ndarray], low: int = 0) -> Compiled:
    return assert_agrees(path, given, {"x": (-4, 4), "mask": (low, 1)}, tolerance=1e-3)


@pytest.mark.parametrize("rows", [OPEN, FIXED])
@pytest.mark.parametrize(
    ("marks", "number"),
    [(UNSQUEEZE, NUMBER), (UNSQUEEZE, FLAT_NUMBER), (EXPANDED, NUMBER), (EXPANDED, FLAT_NUMBER), (FOUND, NUMBER)],
)
def test_an_average_over_marked_places_can_be_normalised(
    marks: list[NodeProto], number: list[NodeProto], rows: int | str, tmp_path: Path
) -> None:
    """Off by 0.6 it was, of values up to 1: an average could be 10^5 times its values."""
    model = save(tmp_path, [*marks, *TOTAL, *number, *CLIP, *DIV, *UNIT], rows, 1e-9)
    compiled = agrees(model, feeds(FIXED if rows == FIXED else ROWS))
    assert not any("hardly a digit" in text for text in compiled.messages)


def test_of_no_marks_an_average_is_zero(tmp_path: Path) -> None:
    given = feeds(ROWS)
    given["mask"][::2] = 0
    agrees(save(tmp_path, [*UNSQUEEZE, *TOTAL, *NUMBER, *CLIP, *DIV], OPEN, 1e-9), given)


def test_marks_below_zero_are_no_such_marks(tmp_path: Path) -> None:
    """Of one and minus one the number is 0, and the sum is not."""
    given = feeds(ROWS)
    given["mask"][:, 0], given["mask"][:, 1:] = 1, 0
    given["mask"][::2, 1] = -1
    given["x"] /= 64
    model = save(tmp_path, [*UNSQUEEZE, *TOTAL, *NUMBER, *CLIP, *DIV], OPEN, 0.25)
    assert_agrees(model, given, {"x": (-1, 1), "mask": (-1, 1)}, tolerance=1e-3)


def test_another_sum_by_the_number_of_marks_is_as_the_model_has_it(tmp_path: Path) -> None:
    given = feeds(ROWS)
    given["mask"][::2] = 0
    nodes = [*UNSQUEEZE, node("ReduceSum", ["x", "one"], ["total"], keepdims=0), *NUMBER, *CLIP, *DIV]
    agrees(save(tmp_path, nodes, OPEN, 0.5), given)
