"""Integers of narrow types: the answer is onnxruntime's, which wraps around, or bounds show that nothing does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mpc.compiler.compile import compile_model
from mpc.compiler.graph.writer import INTEGERS
from mpc.errors import ModelError
from tests.support.graphs import node, save_model
from tests.support.models import encrypted, plaintext

TYPES = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8, "int32": TensorProto.INT32, "int64": TensorProto.INT64}


def _model(folder: Path, nodes: list[onnx.NodeProto], kind: str, **constants: object) -> Path:
    given = {name: np.array(value, "int64" if name == "axes" else kind) for name, value in constants.items()}
    last = node("Cast", [nodes[-1].output[0]], ["y"], "last", to=TensorProto.FLOAT)
    return save_model(folder, [*nodes, last], given, ("batch", 3), element=TYPES[kind])


CASES: dict[str, tuple[list[onnx.NodeProto], str, dict[str, object]]] = {
    "a sum": ([node("Add", ["x", "k"], ["h"])], "uint8", {"k": 100}),
    "a difference": ([node("Sub", ["x", "k"], ["h"])], "uint8", {"k": 100}),
    "a product": ([node("Mul", ["x", "x"], ["h"])], "int8", {}),
    "a negative": ([node("Neg", ["x"], ["h"])], "int8", {}),
    "a size": ([node("Abs", ["x"], ["h"])], "int8", {}),
    "many": ([node("ReduceSum", ["x", "axes"], ["h"], keepdims=1)], "int32", {"axes": [1]}),
    "a cast": ([node("Cast", ["x"], ["h"], to=TensorProto.UINT8)], "int32", {}),
    "there and back": (
        [
            node("Cast", ["x"], ["g"], "down", to=TensorProto.INT8),
            node("Cast", ["g"], ["h"], "up", to=TensorProto.INT32),
        ],
        "int32",
        {},
    ),
}  # fmt: skip
SMALL = {"a sum": (0, 155), "a difference": (100, 255), "a product": (-11, 11), "a negative": (-127, 127)}
SMALL |= {"a size": (-127, 127), "many": (-1000, 1000), "a cast": (0, 255), "there and back": (-128, 127)}
LARGE = {"many": (-(2**31), 2**31 - 1)}


@pytest.mark.parametrize("name", sorted(CASES))
def test_what_may_wrap_around_is_refused_and_what_cannot_is_right(tmp_path: Path, name: str) -> None:
    nodes, kind, constants = CASES[name]
    path = _model(tmp_path, nodes, kind, **constants)
    wide = {"x": tuple(map(float, LARGE.get(name, (-1000, 1000))))} if kind == "int32" else {}
    with pytest.raises(ModelError, match="wraps around") as caught:
        compile_model(path, wide)
    assert caught.value.remedy is not None and "wider type" in caught.value.remedy
    low, high = SMALL[name]
    data = np.array([[low, high, (low + high) // 2], [high, low, low + 1]], dtype=kind)
    [found] = encrypted(compile_model(path, {"x": (float(low), float(high))}), {"x": data})
    np.testing.assert_allclose(found, plaintext(path, {"x": data})[0], atol=1e-4)


def test_the_remedy_helps(tmp_path: Path) -> None:
    """uint8 200 + 100 is 44 there; in a wider type it is 300 for both."""
    wide = [
        node("Cast", ["x"], ["w"], "widen", to=TensorProto.INT64),
        node("Add", ["w", "k"], ["h"]),
        node("Cast", ["h"], ["y"], "last", to=TensorProto.FLOAT),
    ]
    path = save_model(tmp_path, wide, {"k": np.int64(100)}, ("batch", 3), element=TensorProto.UINT8)
    data = np.array([[200, 0, 255]], dtype=np.uint8)
    [found] = encrypted(compile_model(path), {"x": data})
    np.testing.assert_allclose(found, [[300, 100, 355]], atol=1e-4)
    np.testing.assert_allclose(found, plaintext(path, {"x": data})[0], atol=1e-4)


@pytest.mark.parametrize("kind", [*INTEGERS, "bool"])
@pytest.mark.parametrize("shape", [(1,), ("batch", 4)])
def test_a_range_beyond_an_inputs_type_is_refused(kind: str, shape: tuple[int | str, ...], tmp_path: Path) -> None:
    """A uint8 that is always 300 was the constant 44."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    nodes = [node("Cast", ["x"], ["a"], to=TensorProto.FLOAT), node("Add", ["a", "w"], ["y"])]
    path = save_model(tmp_path, nodes, {"w": np.ones(1, np.float32)}, shape, element=element)
    least, most = INTEGERS.get(kind, (0, 1))
    below, beyond = float(min(least - 1, least * 2)), float(max(most + 1, most * 2))
    for ends in ((beyond, beyond), (below, below), (0.0, beyond), (below, 0.0), (below, beyond)):
        with pytest.raises(ModelError, match=rf"goes beyond {kind}, which ends at {least} and {most}") as caught:
            compile_model(path, {"x": ends})
        assert caught.value.remedy


def test_a_pair_for_all_inputs_says_no_more_than_their_types(tmp_path: Path) -> None:
    path = save_model(tmp_path, [node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)], element=TensorProto.UINT8)
    [given] = compile_model(path, (-4, 300)).plan.inputs
    assert (given.low, given.high) == ((0,), (255,))
    with pytest.raises(ModelError, match="goes beyond uint8"):
        compile_model(path, (300, 400))
