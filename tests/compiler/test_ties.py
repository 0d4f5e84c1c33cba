"""Of equal numbers the first is taken, as onnxruntime does, wherever they come from and whatever is rounded off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from mpc.compiler.compile import compile_model
from mpc.errors import InputError
from tests.support.graphs import node, save_model
from tests.support.models import encrypted, plaintext

COLUMNS = 6
RNG = np.random.default_rng(11)
TIED = RNG.choice(np.array([-1.37, 0.21, 1.9004], np.float32), (40, COLUMNS))
RANGE = {"x": (-2.0, 2.0)}
SAME = RNG.normal(size=(COLUMNS, 1)).astype(np.float32).repeat(7, axis=1) * [1, 1, 1, -1, -1, 1, 1]


def _indices(path: Path, data: np.ndarray, ranges: dict[str, tuple[float, float]] | None = None) -> list[np.ndarray]:
    """The answers of both, the same."""
    compiled = compile_model(path, ranges or RANGE)
    ours, theirs = encrypted(compiled, {"x": data}), plaintext(path, {"x": data})
    for mine, right in zip(ours, theirs, strict=True):
        if right.dtype.kind == "i":
            assert np.array_equal(mine, right)
        else:
            np.testing.assert_allclose(mine, right, atol=2e-4)
    return ours


def _typed(path: Path, *integers: str) -> Path:
    """Places are int64, which onnx infers not for all operators."""
    model = onnx.load(path)
    for out in model.graph.output:
        if out.name in integers:
            out.type.tensor_type.elem_type = TensorProto.INT64
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("operator", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("before", ["nothing", "product", "softmax", "log softmax", "relu", "maximum"])
def test_the_place_of_equals(tmp_path: Path, operator: str, last: int, before: str) -> None:
    """Behind a product of 50 bits, series and comparisons, which round each element for itself."""
    steps = {
        "nothing": [],
        "product": [node("MatMul", ["x", "w"], ["h"])],
        "softmax": [node("Softmax", ["x"], ["h"], axis=1)],
        "log softmax": [node("MatMul", ["x", "w"], ["s"]), node("LogSoftmax", ["s"], ["h"], axis=1)],
        "relu": [node("Relu", ["x"], ["h"])],
        "maximum": [node("MatMul", ["x", "w"], ["h"]), node("ReduceMax", ["h"], ["top"], axes=[1])],
    }[before]
    place = node(operator, ["h" if steps else "x"], ["y"], axis=1, keepdims=0, select_last_index=last)
    outputs = ("y", "top") if before == "maximum" else ("y",)
    path = save_model(tmp_path, [*steps, place], {"w": SAME.astype(np.float32)}, ("batch", COLUMNS), outputs)
    _indices(path, TIED)


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("before", ["nothing", "product", "softmax"])
def test_a_ranking_of_equals(tmp_path: Path, largest: int, before: str) -> None:
    steps = {
        "nothing": [],
        "product": [node("MatMul", ["x", "w"], ["h"])],
        "softmax": [node("Softmax", ["x"], ["h"], axis=1)],
    }[before]
    top = node("TopK", ["h" if steps else "x", "k"], ["v", "y"], largest=largest, axis=1)
    constants = {"k": np.array([4]), "w": SAME.astype(np.float32)}
    path = save_model(tmp_path, [*steps, top], constants, ("batch", COLUMNS), ("v", "y"))
    _indices(_typed(path, "y"), TIED)


RISING = ("Sigmoid", "Tanh", "Softplus", "Exp", "Atan", "Softsign", "Elu", "Selu")


@pytest.mark.parametrize("operator", RISING)
def test_equals_behind_a_function_that_rises(operator: str, tmp_path: Path) -> None:
    """Each was rounded by itself, so that any of them came first."""
    nodes = [node(operator, ["x"], ["h"]), node("ArgMax", ["h"], ["y"], axis=1, keepdims=0)]
    nodes.append(node("TopK", ["h", "k"], ["v", "z"], axis=1))
    path = save_model(tmp_path, nodes, {"k": np.array([4])}, ("batch", COLUMNS), ("y", "z"))
    _indices(_typed(path, "y", "z"), TIED)
    assert not compile_model(path, RANGE).messages


@pytest.mark.parametrize("operator", ["Gelu", "Mish"])
@pytest.mark.parametrize("place", ["ArgMax", "TopK"])
def test_equals_behind_another_function_are_told(operator: str, place: str, tmp_path: Path) -> None:
    nodes = [node(operator, ["x"], ["h"])]
    ranked = node("TopK", ["h", "k"], ["v", "y"], name="TopK", axis=1)
    nodes += [node("ArgMax", ["h"], ["y"], name="ArgMax", axis=1) if place == "ArgMax" else ranked]
    path = _typed(save_model(tmp_path, nodes, {"k": np.array([4])}, ("batch", COLUMNS), opset=20), "y")
    assert any(place in text and "any may come first" in text for text in compile_model(path, RANGE).messages)


def test_hardmax_of_equals(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Hardmax", ["h"], ["y"], axis=1)]
    _indices(save_model(tmp_path, nodes, {"w": SAME.astype(np.float32)}, ("batch", COLUMNS)), TIED)


def test_reals_that_are_equal(tmp_path: Path) -> None:
    """Two products of the same numbers, each at a scale of its own."""
    nodes = [
        node("Mul", ["x", "x"], ["a"], "first"),
        node("Pow", ["x", "two"], ["b"]),
        node("Equal", ["a", "b"], ["e"]),
        node("Cast", ["e"], ["y"], to=TensorProto.FLOAT),
    ]
    [found] = _indices(save_model(tmp_path, nodes, {"two": np.float32(2)}, ("batch", COLUMNS)), TIED)
    assert found.all()


# ------------------------------------------------------------------- tables


def _embedding(folder: Path, rows: int, *, computed: bool = False) -> Path:
    table = np.arange(3 * rows, dtype=np.float32).reshape(rows, 3) / 8
    steps = [node("Add", ["x", "one"], ["i"])] if computed else [node("Identity", ["x"], ["i"])]
    nodes = [*steps, node("Gather", ["table", "i"], ["y"])]
    return save_model(folder, nodes, {"table": table, "one": np.int64(1)}, ("batch", 2), element=TensorProto.INT64)


def test_an_input_that_only_indexes_has_the_range_of_its_table(tmp_path: Path) -> None:
    """Negative places count from the end, as in onnxruntime; where it raises, the owner's own client does."""
    path = _embedding(tmp_path, 40)
    compiled = compile_model(path)
    [given] = compiled.plan.inputs
    assert (given.low, given.high) == ((-40,), (39,))
    assert not compiled.undeclared
    data = np.array([[0, 39], [-1, -40], [7, 12]])
    [found] = encrypted(compiled, {"x": data})
    np.testing.assert_allclose(found, plaintext(path, {"x": data})[0], atol=1e-4)
    for outside in (40, -41):
        with pytest.raises(InputError, match="outside the plan's range"):
            encrypted(compiled, {"x": np.array([[0, outside]])})


def test_a_declared_range_is_cut_to_the_table(tmp_path: Path) -> None:
    [given] = compile_model(_embedding(tmp_path, 5), {"x": (0.0, 1000.0)}).plan.inputs
    assert (given.low, given.high) == ((0,), (4,))


def test_an_index_that_is_computed_keeps_the_inputs_range(tmp_path: Path) -> None:
    compiled = compile_model(_embedding(tmp_path, 5, computed=True), {"x": (0.0, 9.0)})
    [given] = compiled.plan.inputs
    assert given.high == (9,)
    [found] = encrypted(compiled, {"x": np.array([[0, 3], [4, 8]])})
    assert (found[1] == 0).all()  # no row of the table: zeros, see THREATS.md
