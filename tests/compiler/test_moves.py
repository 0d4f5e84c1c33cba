"""What gives a value another shape: what the compiler knew of the value before is true of it behind, or forgotten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees

SQUARE, FLAT, ROW, WIDE = ("batch", 4, 4), ("batch", 4), ("batch", 1, 4), (1, 2, 8)
ENDS = {"low": np.float32(0), "high": np.float32(255)}
COLUMN = {"sizes": np.array([0, 4, 1])}
CLIP = node("Clip", ["x", "low", "high"], ["held"])
WEIGHT = {"w": (np.arange(48, dtype=np.float32).reshape(16, 3) % 7) - 3}
ONE, TWO = {"at": np.array([1])}, {"at": np.array([2])}


def _agrees(
    folder: Path,
    shape: tuple[int | str, ...],
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    ends: tuple[float, float] = (-1, 1),
    tolerance: float = 1e-3,
) -> None:
    numbers = np.random.default_rng(3).uniform(*ends, (3 if shape[0] == "batch" else 1, *map(int, shape[1:])))
    path = save_model(folder, nodes, constants, shape)
    assert_agrees(path, {"x": numbers.astype(np.float32)}, {"x": ends}, tolerance)


@pytest.mark.parametrize("between", [[], ["Clip"], ["Expand"]], ids=["", "clip", "expand"])
@pytest.mark.parametrize("norm", ["ReduceL1", "ReduceL2"])
def test_a_norm_over_another_axis(tmp_path: Path, norm: str, between: list[str]) -> None:
    """Moved to where the norms of the rows would stand, the norms of the columns stay those of the columns."""
    further = {
        "Clip": node("Clip", ["n", "least"], ["n2"]),
        "Expand": node("Expand", ["n", "whole"], ["n2"]),
    }
    nodes = [
        node(norm, ["x"], ["l"], axes=[1], keepdims=1),
        node("Reshape", ["l", "sizes"], ["n"]),
        *(further[each] for each in between),
        node("Div", ["x", "n2" if between else "n"], ["y"]),
    ]
    least = {"least": np.float32(1e-12), "whole": np.array([1, 4, 4])}
    _agrees(tmp_path, SQUARE, nodes, COLUMN | least, tolerance=0.01)


@pytest.mark.parametrize("operator", ["Floor", "Ceil"])
def test_what_was_clipped_is_rounded_in_its_new_shape(tmp_path: Path, operator: str) -> None:
    nodes = [CLIP, node("Unsqueeze", ["held", "at"], ["moved"]), node(operator, ["moved"], ["y"])]
    _agrees(tmp_path, FLAT, nodes, ENDS | ONE, (-9, 300), 1.0)


def test_what_was_clipped_is_summed_in_its_new_shape(tmp_path: Path) -> None:
    nodes = [
        CLIP,
        node("Reshape", ["held", "sizes"], ["moved"]),
        node("Floor", ["moved"], ["whole"]),
        node("ReduceSum", ["whole", "at"], ["y"], keepdims=0),
    ]
    _agrees(tmp_path, ("batch", 2, 8), nodes, ENDS | TWO | {"sizes": np.array([0, 8, 2])}, (0, 255), 1.0)


def test_what_was_clipped_is_multiplied_in_its_new_shape(tmp_path: Path) -> None:
    nodes = [
        CLIP,
        node("Flatten", ["held"], ["moved"]),
        node("Floor", ["moved"], ["whole"]),
        node("Gemm", ["whole", "w"], ["y"]),
    ]
    _agrees(tmp_path, SQUARE, nodes, ENDS | WEIGHT, (0, 255), 3.0)


def test_what_was_clipped_is_cast_in_its_new_shape(tmp_path: Path) -> None:
    nodes = [
        CLIP,
        node("Unsqueeze", ["held", "at"], ["moved"]),
        node("Cast", ["moved"], ["whole"], to=TensorProto.UINT8),
        node("Cast", ["whole"], ["image"], "image", to=TensorProto.FLOAT),
        node("Conv", ["image", "kernel"], ["y"]),
    ]
    _agrees(tmp_path, SQUARE, nodes, ENDS | ONE | {"kernel": np.ones((1, 1, 2, 2), np.float32)}, (0, 255), 1.0)


@pytest.mark.parametrize("operator", ["Floor", "Ceil"])
def test_the_ends_of_what_was_clipped_stay_exact_in_its_new_shape(tmp_path: Path, operator: str) -> None:
    """A clip leaves what it holds a little beside its ends, so what rounds it has to know of it behind moves too."""
    nodes = [
        node("MatMul", ["x", "mixed"], ["product"]),
        node("Clip", ["product", "low", "high"], ["held"]),
        node("Reshape", ["held", "sizes"], ["moved"]),
        node("Unsqueeze", ["moved", "at"], ["again"]),
        node(operator, ["again"], ["y"]),
    ]
    beyond = {
        "mixed": np.full((4, 4), 1 / 3, np.float32) if operator == "Floor" else np.full((4, 4), -1 / 3, np.float32)
    }
    _agrees(tmp_path, FLAT, nodes, ENDS | TWO | COLUMN | beyond, (300, 400), 0.0)


def test_what_is_quantised_as_it_comes_has_its_new_shape(tmp_path: Path) -> None:
    quantised = node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"])
    flat = node("Flatten", ["q"], ["moved"])
    _agrees(
        tmp_path,
        WIDE,
        [quantised, flat, node("DequantizeLinear", ["moved", "scale", "zero"], ["y"])],
        {},
        tolerance=0.01,
    )


def test_what_is_quantised_as_it_comes_is_multiplied_in_its_new_shape(tmp_path: Path) -> None:
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        node("Flatten", ["q"], ["moved"]),
        node("MatMulInteger", ["moved", "whole", "zero"], ["product"]),
        node("Cast", ["product"], ["real"], to=TensorProto.FLOAT),
        node("Reshape", ["scale", "one"], ["unit"]),
        node("Mul", ["real", "unit"], ["y"]),
    ]
    constants = {"whole": WEIGHT["w"].astype(np.int8), "one": np.array([1])}
    _agrees(tmp_path, WIDE, nodes, constants, tolerance=0.1)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_marks_are_summed_over_an_axis_that_was_put_in(tmp_path: Path, factor: float) -> None:
    nodes = [
        node("Greater", ["x", "nothing"], ["mask"]),
        node("Cast", ["mask"], ["marks"], to=TensorProto.FLOAT),
        node("Mul", ["marks", "factor"], ["more"]),
        node("Unsqueeze", ["more", "at"], ["moved"]),
        node("ReduceSum", ["moved", "at"], ["y"], keepdims=1),
    ]
    constants = {"nothing": np.float32(0), "factor": np.float32(factor)}
    _agrees(tmp_path, FLAT, nodes, constants | TWO)


@pytest.mark.parametrize("sizes", [(0, 5, 1), (0, 1, 5)], ids=str)
def test_an_average_over_places_of_which_one_side_was_moved(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    """The sums of the columns over the numbers of the marks of the columns, or, moved, of others."""
    nodes = [
        node("Greater", ["x", "nothing"], ["mask"]),
        node("Cast", ["mask"], ["marks"], to=TensorProto.FLOAT),
        node("Mul", ["x", "marks"], ["kept"]),
        node("ReduceSum", ["kept", "at"], ["total"], keepdims=1),
        node("ReduceSum", ["marks", "at"], ["number"], "count", keepdims=1),
        node("Clip", ["number", "least"], ["most"]),
        node("Reshape", ["most", "sizes"], ["moved"]),
        node("Div", ["total", "moved"], ["y"]),
    ]
    constants = {"nothing": np.float32(0), "least": np.float32(1), "sizes": np.array(sizes)}
    _agrees(tmp_path, ("batch", 5, 5), nodes, constants | ONE)


@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("least", [0.0, 1e-2])
def test_a_row_over_the_sizes_of_its_column(tmp_path: Path, least: float, root: bool) -> None:
    """Neither one and a sign, nor within -1 and 1: each number is divided by the sizes of the others."""
    nodes = [
        *([node("Mul", ["x", "x"], ["s"]), node("Sqrt", ["s"], ["a"])] if root else [node("Abs", ["x"], ["a"])]),
        node("Reshape", ["a", "sizes"], ["b"]),
        *([node("Add", ["b", "least"], ["d"])] if least else []),
        node("Div", ["x", "d" if least else "b"], ["y"]),
    ]
    _agrees(tmp_path, ROW, nodes, COLUMN | {"least": np.float32(least)}, tolerance=0.2)


@pytest.mark.parametrize("sizes", [(0, 2, 8), (0, 8, 2), (0, 1, 4, 4)], ids=str)
def test_shares_are_summed_along_their_own_axis_alone(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    nodes = [
        node("Softmax", ["x"], ["p"], axis=-1),
        node("Reshape", ["p", "sizes"], ["moved"]),
        node("ReduceSum", ["moved", "last"], ["total"], keepdims=1),
        node("Div", ["moved", "total"], ["y"]),
    ]
    _agrees(tmp_path, SQUARE, nodes, {"sizes": np.array(sizes), "last": np.array([-1])}, (-3, 3))
