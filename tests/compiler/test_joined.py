"""The batch joined with other axes, as exporters write attention: taken apart again, or refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from mpc.compiler.compile import compile_model
from mpc.errors import ModelError
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees

RNG = np.random.default_rng(9)
SHAPE = ("batch", 2, 3, 4)
X = {"x": RNG.uniform(-2, 2, (5, 2, 3, 4)).astype(np.float32)}
BACK = np.array([-1, 2, 3, 4])


def _reshape(source: str, out: str, *sizes: int) -> tuple[onnx.NodeProto, dict[str, np.ndarray]]:
    return node("Reshape", [source, f"{out}.shape"], [out], name=out), {f"{out}.shape": np.array(sizes)}


def _model(tmp_path: Path, inner: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> Path:
    """(batch, 2, 3, 4) to j of (2 batch, 3, 4), the inner nodes to k, and back."""
    there, first = _reshape("x", "j", -1, 3, 4)
    back, last = _reshape("k", "y", *BACK.tolist())
    return save_model(tmp_path, [there, *inner, back], {**first, **last, **constants}, SHAPE)


INNER: dict[str, list[onnx.NodeProto]] = {
    "an activation": [node("Sigmoid", ["j"], ["k"])],
    "a row": [node("Mul", ["j", "row"], ["k"])],
    "a mask": [node("Add", ["mask", "j"], ["k"])],
    "a mask of three axes": [node("Where", ["three", "j", "row"], ["k"])],
    "itself": [node("Tanh", ["j"], ["t"]), node("Sub", ["j", "t"], ["k"])],
    "a softmax": [node("Softmax", ["j"], ["k"], axis=-1)],
    "another softmax": [node("Softmax", ["j"], ["k"], axis=1)],
    "a normalisation": [node("LayerNormalization", ["j", "row"], ["k"], axis=2)],
    "a product": [node("MatMul", ["j", "square"], ["k"])],
    "attention": [
        node("Transpose", ["j"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["j", "t"], ["s"], name="scores"),
        node("Softmax", ["s"], ["p"]),
        node("MatMul", ["p", "j"], ["k"], name="chosen"),
    ],
    "a tour": [
        node("Transpose", ["j"], ["t"], perm=[2, 0, 1]),
        node("Relu", ["t"], ["r"]),
        node("Transpose", ["r"], ["k"], perm=[1, 2, 0], name="home"),
    ],
}


@pytest.mark.parametrize("name", INNER)
def test_what_leaves_the_joined_axis_in_peace(name: str, tmp_path: Path) -> None:
    constants = {
        "row": RNG.standard_normal(4).astype(np.float32),
        "mask": RNG.standard_normal((3, 4)).astype(np.float32),
        "three": RNG.integers(0, 2, (1, 3, 4)).astype(bool),
        "square": RNG.standard_normal((4, 4)).astype(np.float32),
    }
    assert_agrees(_model(tmp_path, INNER[name], constants), X)


@pytest.mark.parametrize("sizes", [(-1, 4), (-1, 2), (-1, 12, 2), (-1, 1, 4), (-1,), (-1, 2, 6)])
def test_rows_of_a_batch_and_more(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    there, first = _reshape("x", "j", *sizes)
    back, last = _reshape("k", "y", -1, 4, 6)
    path = save_model(tmp_path, [there, node("Relu", ["j"], ["k"]), back], {**first, **last}, SHAPE)
    assert_agrees(path, X)


@pytest.mark.parametrize("sizes", [(3, -1, 4), (3, -1, 2), (-1, 8), (3, -1), (-1, 4)])
def test_a_batch_between_other_axes(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    there, first = _reshape("t", "j", *sizes)
    back, last = _reshape("k", "b", 3, -1, 2, 4)
    nodes = [node("Transpose", ["x"], ["t"], perm=[2, 0, 1, 3]), there, node("Neg", ["j"], ["k"]), back]
    nodes.append(node("Transpose", ["b"], ["y"], perm=[1, 2, 0, 3], name="home"))
    assert_agrees(save_model(tmp_path, nodes, {**first, **last}, SHAPE), X)


def test_a_number_of_rows_that_the_model_computes(tmp_path: Path) -> None:
    """2 batch from the batch, and the batch from that."""
    nodes = [
        node("Shape", ["x"], ["n"], start=0, end=1),
        node("Mul", ["n", "two"], ["rows"]),
        node("Concat", ["rows", "rest"], ["to"], axis=0),
        node("Reshape", ["x", "to"], ["j"], name="there"),
        node("Relu", ["j"], ["k"]),
        node("Shape", ["k"], ["m"], start=0, end=1, name="again"),
        node("Div", ["m", "two"], ["less"]),
        node("Concat", ["less", "whole"], ["from"], axis=0, name="sizes"),
        node("Reshape", ["k", "from"], ["y"], name="back"),
    ]
    constants = {"two": np.array([2]), "rest": np.array([3, 4]), "whole": BACK[1:]}
    assert_agrees(save_model(tmp_path, nodes, constants, SHAPE), X)


def test_a_row_for_each_of_the_batch_as_expand_is_exported(tmp_path: Path) -> None:
    """Where -1 stands for the size that is there already."""
    nodes = [
        node("Shape", ["x"], ["n"], start=0, end=1),
        node("Concat", ["n", "keep"], ["wanted"], axis=0),
        node("Reshape", ["wanted", "flat"], ["sizes"]),
        node("Equal", ["sizes", "none"], ["kept"]),
        node("Where", ["kept", "ones", "sizes"], ["to"]),
        node("Expand", ["token", "to"], ["rows"]),
        node("Concat", ["rows", "x"], ["y"], axis=1, name="joined"),
    ]
    constants = {"keep": np.array([-1, -1]), "flat": np.array([-1]), "none": np.full(3, -1), "ones": np.ones(3, int)}
    constants["token"] = RNG.standard_normal((1, 1, 4)).astype(np.float32)
    assert_agrees(save_model(tmp_path, nodes, constants, ("batch", 3, 4)), {"x": X["x"][:, 0]})


REFUSED: dict[str, tuple[list[onnx.NodeProto], str]] = {
    "a sum over the joined axis": ([node("ReduceSum", ["j"], ["k"], axes=[0])], "joins the batch"),
    "a softmax over it": ([node("Softmax", ["j"], ["k"], axis=0)], "joins the batch"),
    "rows that differ": ([node("Add", ["j", "rows"], ["k"])], "joins the batch"),
    "a product over it": (
        [node("Transpose", ["j"], ["t"], perm=[1, 2, 0]), node("MatMul", ["t", "j"], ["k"])],
        "joins the batch",
    ),
    "sizes that do not fit": ([_reshape("j", "k", 7, -1)[0]], "does not reshape"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_is_refused_by_name(name: str, tmp_path: Path) -> None:
    nodes, words = REFUSED[name]
    constants = {"rows": np.ones((10, 3, 4), np.float32), "k.shape": np.array([7, -1])}
    opset = 11
    there, first = _reshape("x", "j", -1, 3, 4)
    path = save_model(tmp_path, [there, *nodes, node("Relu", ["k"], ["y"])], {**first, **constants}, SHAPE, opset=opset)
    with pytest.raises(ModelError, match=words) as caught:
        compile_model(path)
    assert "--shape" in " ".join(caught.value.lines())


def test_an_output_of_joined_rows_is_refused(tmp_path: Path) -> None:
    there, first = _reshape("x", "y", -1, 3, 4)
    with pytest.raises(ModelError, match=r"2\*batch"):
        compile_model(save_model(tmp_path, [there], first, SHAPE))


def test_whether_the_batch_is_some_number_is_not_decided(tmp_path: Path) -> None:
    nodes = [
        node("Shape", ["x"], ["n"], start=0, end=1),
        node("Equal", ["n", "three"], ["c"]),
        node("Where", ["c", "x", "three"], ["y"]),
    ]
    with pytest.raises(ModelError, match="computes with the batch size"):
        compile_model(save_model(tmp_path, nodes, {"three": np.array([3.0], np.float32)}))


MASKS: dict[str, list[onnx.NodeProto]] = {
    "filled": [node("Where", ["on", "scores", "lowest"], ["masked"])],
    "filled, by a mask of its own": [
        node("Where", ["on", "zero", "lowest"], ["m"], name="mask"),
        node("Unsqueeze", ["m", "two"], ["u"]),
        node("Squeeze", ["u", "two"], ["s"]),
        node("Add", ["scores", "s"], ["masked"]),
    ],
    "multiplied": [
        node("Sub", ["one", "x2"], ["off"]),
        node("Mul", ["off", "lowest"], ["m"]),
        node("Add", ["m", "scores"], ["sum"]),
        node("Div", ["sum", "four"], ["masked"]),
    ],
}


LARGE = float(np.finfo(np.float32).min)


@pytest.mark.parametrize(
    ("name", "lowest"),
    # zero times infinity is not a number
    [(name, lowest) for name in MASKS for lowest in (-np.inf, LARGE) if (name, lowest) != ("multiplied", -np.inf)],
)
def test_a_secret_mask_of_attention(name: str, lowest: float, tmp_path: Path) -> None:
    """Minus infinity is a large number where a softmax is all that sees it."""
    nodes = [
        node("Mul", ["x", "four"], ["scores"], name="scaled"),
        node("Abs", ["x"], ["size"]),
        node("Greater", ["size", "one"], ["on"]),
        node("Cast", ["on"], ["x2"], to=onnx.TensorProto.FLOAT),
        *MASKS[name],
        node("Softmax", ["masked"], ["y"]),
    ]
    constants = {"lowest": np.float32(lowest), "zero": np.zeros((1, 1), np.float32), "one": np.float32(0.5)}
    constants |= {"two": np.array([2]), "four": np.float32(4)}
    if name == "multiplied":
        constants["one"] = np.float32(1.0)
    path = save_model(tmp_path, nodes, constants)
    x = RNG.uniform(1.2, 2, (6, 4)) * np.where(RNG.random((6, 4)) < 0.5, 0.1, 1.0)
    x[:, 0] = 1.5  # something is left of every row
    assert_agrees(path, {"x": x.astype(np.float32)}, {"x": (-2.0, 2.0)})


def test_minus_infinity_that_anybody_else_sees_is_refused(tmp_path: Path) -> None:
    nodes = [node("Greater", ["x", "zero"], ["on"]), node("Where", ["on", "x", "lowest"], ["y"])]
    with pytest.raises(ModelError, match="infinite"):
        compile_model(save_model(tmp_path, nodes, {"zero": np.float32(0), "lowest": np.float32(-np.inf)}))


def test_softplus_and_the_line_beyond_it_are_one_function(tmp_path: Path) -> None:
    """As dynamo exports it: its argument, where that is large."""
    nodes = [
        node("Softplus", ["x"], ["s"]),
        node("Greater", ["x", "twenty"], ["beyond"]),
        node("Where", ["beyond", "x", "s"], ["y"]),
    ]
    path = save_model(tmp_path, nodes, {"twenty": np.float32(20)})
    x = np.array([[-30, -2, 0, 1], [11, 19, 21, 30]], np.float32)
    compiled = assert_agrees(path, {"x": x})
    assert "step" not in {gate.kind for gate in compiled.plan.gates}
