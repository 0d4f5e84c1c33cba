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
    "a part": [
        node("Slice", ["j", "one", "far", "two"], ["t"]),
        node("Slice", ["j", "zero", "one", "two"], ["u"], name="first"),
        node("Concat", ["t", "u"], ["k"], axis=2),
    ],
    "nothing beside all, as a roll by 0 is exported": [
        node("Slice", ["j", "zero", "far", "two"], ["t"]),
        node("Slice", ["j", "zero", "zero", "two"], ["u"], name="nothing"),
        node("Concat", ["t", "u"], ["k"], axis=2),
    ],
    "parts": [
        node("Split", ["j", "sizes"], ["t", "u"], axis=1),
        node("Concat", ["u", "t"], ["k"], axis=-2),
    ],
    "one": [
        node("Gather", ["j", "index"], ["t"], axis=1),
        node("Unsqueeze", ["t", "one"], ["u"]),
        node("Add", ["u", "j"], ["k"]),
    ],
    "one before it": [
        node("Transpose", ["j"], ["t"], perm=[1, 0, 2]),
        node("Gather", ["t", "index"], ["g"], axis=0),
        node("Unsqueeze", ["g", "zero"], ["u"]),
        node("Squeeze", ["u", "zero"], ["s"]),
        node("Unsqueeze", ["s", "zero"], ["v"], name="again"),
        node("Concat", ["v", "v", "t"], ["c"], axis=0),
        node("Slice", ["c", "one", "four", "zero"], ["d"]),
        node("Transpose", ["d"], ["k"], perm=[1, 0, 2], name="home"),
    ],
    "a mean": [
        node("ReduceMean", ["j"], ["t"], axes=[1], keepdims=0),
        node("Unsqueeze", ["t", "one"], ["u"]),
        node("Sub", ["j", "u"], ["k"]),
    ],
    "rows of length one": [
        node("ReduceL2", ["j"], ["n"], axes=[-1], keepdims=1),
        node("Clip", ["n", "little"], ["c"]),
        node("Shape", ["j"], ["shape"]),
        node("Expand", ["c", "shape"], ["e"]),
        node("Div", ["j", "e"], ["k"]),
    ],
    "a batch-norm": [node("BatchNormalization", ["j", "three_of", "three_of", "three_of", "three_more"], ["k"])],
    "a stack of matrices": [node("Einsum", ["j", "stack"], ["k"], equation="bic,ikc->bik")],
    "another stack of matrices": [
        node("Transpose", ["j"], ["t"], perm=[1, 0, 2]),
        node("MatMul", ["t", "stack"], ["m"]),
        node("Transpose", ["m"], ["k"], perm=[1, 0, 2], name="home"),
    ],
}


@pytest.mark.parametrize("name", INNER)
def test_what_leaves_the_joined_axis_in_peace(name: str, tmp_path: Path) -> None:
    constants = {
        "row": RNG.standard_normal(4).astype(np.float32),
        "mask": RNG.standard_normal((3, 4)).astype(np.float32),
        "three": RNG.integers(0, 2, (1, 3, 4)).astype(bool),
        "square": RNG.standard_normal((4, 4)).astype(np.float32),
        "stack": RNG.standard_normal((3, 4, 4)).astype(np.float32),
        "three_of": RNG.standard_normal(3).astype(np.float32),
        "three_more": np.array([1.0, 2.0, 3.0], np.float32),
        "little": np.float32(1e-12),
        "index": np.int64(1),
        "sizes": np.array([1, 2]),
        "far": np.array([(1 << 63) - 1]),
        **{number: np.array([i]) for i, number in enumerate(("zero", "one", "two"))},
        "four": np.array([4]),
    }
    read = {each for inner in INNER[name] for each in inner.input}
    assert_agrees(_model(tmp_path, INNER[name], {key: constants[key] for key in read & constants.keys()}), X)


def test_several_images_a_row(tmp_path: Path) -> None:
    """TimeSformer, TNT and MViT convolve what has been joined with the batch."""
    there, first = _reshape("x", "j", -1, 1, 3, 4)
    back, last = _reshape("k", "y", -1, 2, 5, 2, 4)
    settings = {"kernel_shape": [2, 3], "pads": [0, 1, 0, 1], "strides": [1, 1]}
    constants = {**first, **last, "w": RNG.standard_normal((5, 1, 2, 3)).astype(np.float32)}
    path = save_model(tmp_path, [there, node("Conv", ["j", "w"], ["k"], **settings), back], constants, SHAPE)
    assert_agrees(path, X)


def test_rows_of_a_table_for_joined_places(tmp_path: Path) -> None:
    """M2M100 looks up the places of all rows as one list."""
    ids = RNG.integers(0, 6, (3, 4))
    there, first = _reshape("x", "j", -1)
    back, last = _reshape("k", "y", -1, 4, 2)
    constants = {**first, **last, "table": RNG.standard_normal((6, 2)).astype(np.float32)}
    nodes = [there, node("Gather", ["table", "j"], ["k"], axis=0), back]
    path = save_model(tmp_path, nodes, constants, ("batch", 4), element=onnx.TensorProto.INT64)
    assert_agrees(path, {"x": ids}, {"x": (0, 5)})


@pytest.mark.parametrize("equation", ["bhtc,tkc->bhtk", "tkc,bhtc->bhtk", "bhtc,hkc->bkht"])
def test_stacks_beside_an_open_batch(equation: str, tmp_path: Path) -> None:
    """MViT, SAM and ViTDet look up their relative places so."""
    weight = RNG.standard_normal((2 if "hk" in equation else 3, 5, 4)).astype(np.float32)
    reads = ["x", "w"] if equation.startswith("b") else ["w", "x"]
    path = save_model(tmp_path, [node("Einsum", reads, ["y"], equation=equation)], {"w": weight}, SHAPE)
    assert_agrees(path, X)


def test_sizes_that_are_split(tmp_path: Path) -> None:
    """onnxruntime's optimiser splits a shape, the batch's size among the rest."""
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Split", ["shape", "ones"], ["b", "h", "r", "c"], axis=0),
        node("Concat", ["b", "r", "h", "c"], ["turned"], axis=0),
        node("Reshape", ["x", "turned"], ["y"]),
    ]
    assert_agrees(save_model(tmp_path, nodes, {"ones": np.array([1, 1, 1, 1])}, SHAPE), X)


def test_a_constant_for_each_row(tmp_path: Path) -> None:
    """XCiT has the places of patches repeated by a Tile."""
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Slice", ["shape", "zero", "one"], ["rows"]),
        node("Concat", ["rows", "ones"], ["repeats"], axis=0),
        node("Tile", ["places", "repeats"], ["tiled"]),
        node("Concat", ["x", "tiled"], ["y"], axis=1, name="joined"),
    ]
    constants = {
        "zero": np.array([0]), "one": np.array([1]), "ones": np.array([1, 1, 2]),
        "places": RNG.standard_normal((1, 1, 3, 2)).astype(np.float32),
    }  # fmt: skip
    assert_agrees(save_model(tmp_path, nodes, constants, SHAPE), X)


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
