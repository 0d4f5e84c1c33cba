"""Casts to integer types, beside onnxruntime: what the standard defines is right, and nothing else compiles."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from mpc.compiler.compile import compile_model
from mpc.errors import ModelError
from tests.support.graphs import ml_model, node, save_model
from tests.support.models import assert_agrees

KINDS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
ENDS = {kind: (float(np.iinfo(kind).min), float(np.iinfo(kind).max)) for kind in KINDS}
MOST = 2.0**34
"""What a cast of an int64 that stays exact in float32 is tried with, where the type has more."""


def code(kind: str) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind)))


def cast(reads: str, writes: str, kind: str) -> onnx.NodeProto:
    return node("Cast", [reads], [writes], f"to-{writes}", to=code(kind))


def whole(folder: Path, kind: str) -> Path:
    """Whole numbers in floating point, cast and read again."""
    nodes = [cast("x", "f", "float32"), cast("f", "i", kind), cast("i", "y", "float32")]
    return save_model(folder, nodes, {}, ("batch", 4), element=TensorProto.INT64)


def cut(folder: Path, kind: str, compared: float) -> Path:
    """Reals, cast, of which one number is looked for."""
    nodes = [cast("x", "i", kind), node("Equal", ["i", "k"], ["e"]), cast("e", "y", "float32")]
    return save_model(folder, nodes, {"k": np.array(compared, kind)}, ("batch", 4))


@pytest.mark.parametrize("kind", KINDS)
def test_whole_numbers_up_to_the_ends_of_a_type(kind: str, tmp_path: Path) -> None:
    low, high = max(ENDS[kind][0], -MOST), min(ENDS[kind][1], MOST)
    x = np.array([[low, high, (low + high) // 3, 0 if low < 0 else 1]]).astype(np.float32).clip(low, high)
    exact = x.astype(np.int64).clip(int(low), int(high))
    exact -= exact % 256 if high > 2**24 else 0
    assert_agrees(whole(tmp_path, kind), {"x": exact}, {"x": (low, high)}, 0.5)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if ENDS[kind][1] < MOST or ENDS[kind][0] == 0])
def test_whole_numbers_beyond_the_ends_are_refused(kind: str, tmp_path: Path) -> None:
    low, high = ENDS[kind]
    beyond = [(low - 1, low + 9)] + ([(high - 9, high + 1)] if high < MOST else [])
    for declared in beyond:
        with pytest.raises(ModelError, match=f"{kind} wraps around there") as caught:
            compile_model(whole(tmp_path, kind), {"x": declared})
        assert "smaller range" in (caught.value.remedy or "")


@pytest.mark.parametrize("kind", KINDS)
def test_reals_are_cut_towards_zero(kind: str, tmp_path: Path) -> None:
    """Less than a unit beyond an end is inside: it is cut to that end."""
    low, high = max(ENDS[kind][0], -1000.0), min(ENDS[kind][1], 1000.0)
    for compared in (low, 0.0, 5.0, high):
        x = np.array([[low - 0.75, compared + 0.75, compared, high + 0.75]], np.float32)
        path = cut(tmp_path, kind, compared)
        assert_agrees(path, {"x": x}, {"x": (low - 0.75, high + 0.75)}, 1e-6)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "int64"])
def test_reals_that_reach_beyond_a_type_are_refused(kind: str, tmp_path: Path) -> None:
    """onnxruntime gives 44 for 300.5 as a uint8 on one machine and 255 on another."""
    low, high = ENDS[kind]
    beyond = [(low - 1, low + 9)] + ([(high - 9, high + 1)] if high < MOST else [])
    for declared in beyond:
        with pytest.raises(ModelError, match=f"a cast to {kind} is undefined there") as caught:
            compile_model(cut(tmp_path, kind, 5), {"x": declared})
        assert "wider type" in (caught.value.remedy or "")


@pytest.mark.parametrize("kind", KINDS)
def test_reals_are_cut_towards_zero_before_they_are_computed_with(kind: str, tmp_path: Path) -> None:
    low, high = max(ENDS[kind][0], -1000.0), min(ENDS[kind][1], 1000.0)
    x = np.array([[low - 0.75, high + 0.75, low + 0.5, high], [0.999, -0.625, 5.0, low]], np.float32)
    path = save_model(tmp_path, [cast("x", "i", kind), cast("i", "y", "float32")])
    assert_agrees(path, {"x": x}, {"x": (low - 0.75, high + 0.75)}, 0)
    with pytest.raises(ModelError, match="undefined there") if high < 1000 else nullcontext():
        compile_model(path, {"x": (low, high + 1)})


def test_cut_reals_are_compared_with_several_numbers(tmp_path: Path) -> None:
    nodes = [cast("x", "i", "int64"), node("Equal", ["i", "k"], ["e"]), cast("e", "y", "float32")]
    path = save_model(tmp_path, nodes, {"k": np.array([0, -2, 3, 3])})
    x = np.array([[-0.75, -2.0, 3.5, 4.0], [0.99, -1.5, 2.99, 3.0]], np.float32)
    assert_agrees(path, {"x": x}, {"x": (-8, 8)}, 0)


def test_truth_of_reals_and_of_whole_numbers(tmp_path: Path) -> None:
    for element, scale in ((TensorProto.FLOAT, 0.25), (TensorProto.INT64, 1)):
        path = save_model(tmp_path, [cast("x", "b", "bool"), cast("b", "y", "float32")], element=element)
        x = (np.array([[0, 1, -1, 3], [-0.0, 1000, 0, -1000]]) * scale).astype(np.float32)
        x = x if element == TensorProto.FLOAT else x.astype(np.int64)
        assert_agrees(path, {"x": x}, {"x": (-1000, 1000)}, 1e-6)


@pytest.mark.parametrize("kind", [*KINDS, "bool", "float32"])
def test_labels_are_cast_as_integers_are_and_wrap_around(kind: str, tmp_path: Path) -> None:
    """They are public: -7 is 249 as a uint8, and 300 is 44."""
    settings = {"coefficients": np.eye(4).reshape(-1).tolist(), "intercepts": [0.0] * 4, "post_transform": "NONE"}
    path = ml_model(
        tmp_path, "LinearClassifier", {"label": TensorProto.INT64, "scores": TensorProto.FLOAT},
        classlabels_ints=[0, 300, -7, 2**40], **settings,
    )  # fmt: skip
    model = onnx.load(path)
    model.graph.node.append(cast("label", "y", kind))
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info("y", code(kind), None))
    onnx.save(model, path)
    assert_agrees(path, {"x": np.eye(4, dtype=np.float32)}, {"x": (-1, 1)}, 0.0)
