"""Every refusal of the compiler says what to change, and what it says works.

The first tests read the code: no refusal is without a remedy.  The others take remedies at their word: a model is
refused, what the remedy says is done, and the mended model compiles and agrees with onnxruntime.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.utils
import pytest
from onnx import TensorProto
from sklearn.cluster import KMeans
from sklearn.neighbors import KNeighborsClassifier

import mpc
from mpc.compiler.compile import compile_model
from mpc.errors import PlanError
from tests.support.graphs import ml_model, node, save_model
from tests.support.models import encrypted, plaintext

RNG = np.random.default_rng(25)
DATA = RNG.uniform(0.5, 2, (3, 4)).astype(np.float32)
RANGE = (0.5, 2.0)
PICTURES = RNG.uniform(0.5, 2, (2, 4, 4, 4)).astype(np.float32)
SQUARES = ("batch", 4, 4, 4)
WHOLE = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], np.int64)
ONE = np.array([1.0], np.float32)


# ------------------------------------------------------------------------------- no refusal without a remedy


PACKAGE = Path(mpc.__file__).parent
SOURCES = [*sorted((PACKAGE / "compiler").rglob("*.py")), PACKAGE / "comparison.py", PACKAGE / "text.py"]
REFUSALS = {"refuse", "ModelError", "PlanError", "InputError", "UsageError"}
EMPTY = {"", "None"}


def _refusals(source: Path) -> Iterator[tuple[str, ast.Call]]:
    for call in ast.walk(ast.parse(source.read_text())):
        if isinstance(call, ast.Call):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if name in REFUSALS:
                yield f"{source.name}:{call.lineno}", call


def test_no_refusal_is_without_a_remedy() -> None:
    found = [refusal for source in SOURCES for refusal in _refusals(source)]
    remedies = {
        place: next((ast.unparse(k.value).strip("'\"") for k in call.keywords if k.arg == "remedy"), "")
        for place, call in found
    }
    assert len(remedies) > 200
    assert [place for place, remedy in remedies.items() if remedy in EMPTY] == []


# ------------------------------------------------------------------------------- remedies that are taken


Make = Callable[[Path], Path]


def made(*nodes: onnx.NodeProto, shape: Any = ("batch", 4), **constants: Any) -> Make:
    """A model of these nodes; settings of `save_model` begin with an underscore."""
    settings = {name[1:]: constants.pop(name) for name in [*constants] if name.startswith("_")}
    values = {name: np.asarray(value) for name, value in constants.items()}
    return lambda folder: save_model(folder, list(nodes), values, shape, **settings)


def of_scikit(operator: str, outputs: dict[str, int] | None = None, **settings: Any) -> Make:
    """A model of one operator of ai.onnx.ml."""
    return lambda folder: ml_model(folder, operator, outputs or {"y": TensorProto.FLOAT}, **settings)


@dataclass
class Case:
    """A model that is refused, what its remedy says, and what came of doing that.

    Args:
        advice: words of the remedy; the mended call does what they say.
        call: what the refused call is given; `then` is what the mended one is given instead.
    """

    refused: Make
    advice: str
    mended: Make
    data: np.ndarray = field(default_factory=lambda: DATA)
    call: dict[str, Any] = field(default_factory=dict)
    then: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 2e-3


X = {"x": RANGE}
ADD = node("Add", ["x", "c"], ["y"])
RELU = node("Relu", ["x"], ["y"])
EXP = made(node("Exp", ["x"], ["y"]))
PRODUCT = node("MatMul", ["x", "w"], ["y"])
W = np.eye(4, 3, dtype=np.float32)
TURNED = [node("Transpose", ["x"], ["t"], perm=[1, 0]), node("MatMul", ["t", "x"], ["y"])]
FLAT = made(node("Reshape", ["x", "s"], ["f"]), node("ReduceSum", ["f"], ["y"], keepdims=1), s=[1, -1])
CHOSEN = node("ArgMax", ["x"], ["i"], axis=1, keepdims=1)
COLUMNS = ("batch", 300)
MANY = RNG.permutation(600).reshape(2, 300).astype(np.float32) / 300
TREE = {
    "nodes_treeids": [0, 0, 0],
    "nodes_nodeids": [0, 1, 2],
    "nodes_featureids": [1, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_values": [1.0, 0.0, 0.0],
    "nodes_truenodeids": [1, 0, 0],
    "nodes_falsenodeids": [2, 0, 0],
    "target_treeids": [0, 0],
    "target_nodeids": [1, 2],
    "target_ids": [0, 0],
    "target_weights": [1.0, 3.0],
    "n_targets": 1,
}


def layers(number: int, *before: onnx.NodeProto, **constants: Any) -> Make:
    """So many products with large weights, behind a node that writes h0 if one is given."""
    names = ["h0" if before else "x", *(f"h{i}" for i in range(1, number)), "y"]
    made_of = [*before]
    for i, (read, written) in enumerate(zip(names, names[1:], strict=False)):
        made_of.append(node("MatMul", [read, "w"], [f"p{i}"], f"product{i}"))
        made_of.append(node("Relu", [f"p{i}"], [written], f"relu{i}"))
    return made(*made_of, w=np.full((4, 4), 500, np.float32), **constants)


def tree(**changes: Any) -> Make:
    return of_scikit("TreeEnsembleRegressor", **{**TREE, **changes})


def machine(**changes: Any) -> Make:
    """Without the attributes that are None."""
    plain: dict[str, Any] = {
        "n_supports": 2,
        "support_vectors": [1.0, 0.0, 1.0, 0.5, 0.0, 1.0, 0.5, 1.0],
        "coefficients": [0.5, -0.25],
        "rho": [0.1],
        "kernel_type": "RBF",
        "kernel_params": [0.5, 0.0, 2.0],
    }
    settings = {name: value for name, value in {**plain, **changes}.items() if value is not None}
    return of_scikit("SVMRegressor", **settings)


def linear(**changes: Any) -> Make:
    plain: dict[str, Any] = {"coefficients": [1.0, 2.0, 3.0, 4.0], "intercepts": [1.0], "targets": 1}
    return of_scikit("LinearRegressor", **{**plain, **changes})


def classifier(**changes: Any) -> Make:
    plain: dict[str, Any] = {
        "coefficients": [1.0, 2.0, -3.0, 4.0, -1.0, 0.0, 2.0, 1.0, 0.0, 1.0, 0.5, -1.0],
        "intercepts": [1.0, 0.0, 0.5],
        "classlabels_ints": [0, 1, 2],
        "post_transform": "SOFTMAX",
    }
    outputs = {"label": TensorProto.INT64, "scores": TensorProto.FLOAT}
    return of_scikit("LinearClassifier", outputs, **{**plain, **changes})


def pooled(**changes: Any) -> Make:
    return made(node("MaxPool", ["x"], ["y"], **{"kernel_shape": [2, 2], **changes}), shape=SQUARES)


def conv(filters: tuple[int, ...], **settings: Any) -> Make:
    return made(node("Conv", ["x", "w"], ["y"], **settings), shape=SQUARES, w=np.ones(filters, np.float32))


def resized(**settings: Any) -> Make:
    scales = np.array([1, 1, 2, 2], np.float32)
    return made(node("Resize", ["x", "", "s"], ["y"], **settings), shape=SQUARES, s=scales, _opset=18)


def padded(value: float, **settings: Any) -> Make:
    return made(node("Pad", ["x", "p", "v"], ["y"], **settings), p=[0, 1, 0, 1], v=np.float32(value))


def normalised(gain: int, groups: int) -> Make:
    parameters = {name: np.full(gain, 0.5, np.float32) for name in ("g", "b")}
    made_of = node("GroupNormalization", ["x", "g", "b"], ["y"], num_groups=groups)
    return made(made_of, shape=SQUARES, _opset=21, **parameters)


def neighbours(points: int) -> Make:
    """The 3 nearest of random points, or of so many centres of them."""

    def make(folder: Path) -> Path:
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import FloatTensorType

        rng = np.random.default_rng(7)
        x, y = rng.uniform(0.5, 2, (300, 4)).astype(np.float32), np.repeat([0, 1], 150)
        x[y == 1] += 1
        if points < len(x):
            centres = [KMeans(points // 2, n_init=1, random_state=0).fit(x[y == c]).cluster_centers_ for c in (0, 1)]
            x, y = np.concatenate(centres).astype(np.float32), np.repeat([0, 1], points // 2)
        model = to_onnx(
            KNeighborsClassifier(3).fit(x, y),
            initial_types=[("x", FloatTensorType([None, 4]))],
            options={"zipmap": False},
            target_opset={"": 17, "ai.onnx.ml": 3},
        )
        path = folder / "neighbours.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return make


def ended(make: Make, at: str) -> Make:
    """The model up to this value."""

    def end(folder: Path) -> Path:
        path = folder / "ended.onnx"
        onnx.utils.extract_model(str(make(folder)), str(path), ["x"], [at])
        return path

    return end


RANKED = [
    node("Mul", ["x", "c"], ["scores"]),
    node("TopK", ["scores", "k"], ["y", "i"], axis=1),
]
WEIGHTS = np.linspace(1, 2, 300).astype(np.float32)
CASES: dict[str, Case] = {
    # shapes
    "a product of sizes that do not fit": Case(made(PRODUCT, w=W.T), "Transpose", made(PRODUCT, w=W)),
    "a product with a scalar": Case(
        made(PRODUCT, w=np.float32(2)), "use Mul", made(node("Mul", ["x", "w"], ["y"]), w=np.float32(2))
    ),
    "sizes that do not broadcast": Case(made(ADD, c=np.ones(3, np.float32)), "equal or 1", made(ADD, c=ONE)),
    "an axis that is not there": Case(
        made(node("Softmax", ["x"], ["y"], axis=2)), "from -2 to 1", made(node("Softmax", ["x"], ["y"], axis=1))
    ),
    "rows times rows": Case(made(*TURNED), "--shape", made(*TURNED), then={"shapes": {"x": (3, 4)}}),
    "rows that are joined": Case(FLAT, "--shape", FLAT, then={"shapes": {"x": (3, 4)}}),
    "an open size": Case(
        made(RELU, shape=("batch", "wide")),
        "--shape x=batch,32",
        made(RELU, shape=("batch", "wide")),
        then={"shapes": {"x": (None, 4)}},
    ),
    "parts that do not join": Case(
        made(node("Reshape", ["x", "s"], ["r"]), node("Concat", ["x", "r"], ["y"], axis=1), s=[-1, 2, 2]),
        "Reshape",
        made(node("Reshape", ["x", "s"], ["r"]), node("Concat", ["x", "r"], ["y"], axis=1), s=[-1, 4]),
    ),
    "an expansion that does not fit": Case(
        made(node("Expand", ["x", "s"], ["y"]), s=[1, 8]),
        "a size of 1",
        made(node("Unsqueeze", ["x", "a"], ["u"]), node("Expand", ["u", "s"], ["y"]), s=[1, 2, 4], a=[1]),
    ),
    "an axis that is no permutation's": Case(
        made(node("Transpose", ["x"], ["y"], perm=[0, 0])),
        "from 0 to 1 once",
        made(node("Transpose", ["x"], ["y"], perm=[0, 1])),
    ),
    "a split of another sum": Case(
        made(node("Split", ["x", "s"], ["y", "z"], axis=1), s=[1, 2]),
        "whose sum is 4",
        made(node("Split", ["x", "s"], ["y", "z"], axis=1), s=[1, 3]),
    ),
    "an axis that is squeezed": Case(
        made(node("Squeeze", ["x", "a"], ["y"]), a=[1]),
        "Gather",
        made(node("Gather", ["x", "a"], ["y"], axis=1), a=np.int64(1)),
    ),
    "an empty slice": Case(
        made(node("Slice", ["x", "s", "e", "a"], ["y"]), s=[2], e=[2], a=[1]),
        "one element or more",
        made(node("Slice", ["x", "s", "e", "a"], ["y"]), s=[2], e=[3], a=[1]),
    ),
    "depth without space": Case(
        made(node("DepthToSpace", ["x"], ["y"], blocksize=2)),
        "Reshape",
        made(node("Reshape", ["x", "s"], ["r"]), node("DepthToSpace", ["r"], ["y"], blocksize=2), s=[-1, 4, 1, 1]),
    ),
    # convolutions, pooling, resizing
    "a kernel larger than its input": Case(
        conv((1, 4, 5, 5)), "more padding", conv((1, 4, 5, 5), pads=[1] * 4), PICTURES, tolerance=0.01
    ),
    "filters of other channels": Case(conv((2, 3, 1, 1)), "(outputs, 4 / groups", conv((2, 4, 1, 1)), PICTURES),
    "paddings of other axes": Case(pooled(pads=[0, 1]), "4 paddings", pooled(pads=[0, 1, 0, 1]), PICTURES),
    "a window of nothing but padding": Case(
        pooled(kernel_shape=[1, 1], pads=[1] * 4), "smaller than the kernel", pooled(kernel_shape=[1, 1]), PICTURES
    ),
    "places of maxima": Case(
        made(node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2]), shape=SQUARES, _outputs=("y", "i")),
        "return_indices=False",
        pooled(),
        PICTURES,
    ),
    "a norm of order 3": Case(
        made(node("LpPool", ["x"], ["y"], kernel_shape=[2, 2], p=3), shape=SQUARES),
        "p=2",
        made(node("LpPool", ["x"], ["y"], kernel_shape=[2, 2], p=2), shape=SQUARES),
        PICTURES,
    ),
    "a cubic resize": Case(resized(mode="cubic"), "mode=linear", resized(mode="linear"), PICTURES),
    "a smoothed resize": Case(
        resized(mode="linear", antialias=1), "antialias=0", resized(mode="linear", antialias=0), PICTURES
    ),
    "padding by minus infinity": Case(padded(-np.inf), "just below the data", padded(0.25)),
    "padding of an unknown mode": Case(padded(0, mode="mirror"), "reflect", padded(0, mode="reflect")),
    # training
    "dropout in training": Case(
        made(node("Dropout", ["x", "r", "t"], ["y"]), r=np.float32(0.5), t=np.array(True)),
        "model.eval()",
        made(node("Dropout", ["x", "r", "t"], ["y"]), r=np.float32(0.5), t=np.array(False)),
    ),
    "a gain for each group": Case(normalised(2, 2), "one entry a channel", normalised(4, 2), PICTURES),
    "groups that do not divide": Case(normalised(4, 3), "divides", normalised(4, 2), PICTURES),
    # arithmetic
    "an infinite weight": Case(made(ADD, c=np.float32(-np.inf)), "-1e4", made(ADD, c=np.float32(-1e4))),
    "a constant beyond all scales": Case(made(ADD, c=np.float32(3e38)), "nearer to zero", made(ADD, c=np.float32(1e4))),
    "exponents that differ": Case(
        made(node("Pow", ["x", "e"], ["y"]), e=np.array([[[2], [3]]], np.float32), shape=("batch", 2, 4)),
        "Split",
        made(
            node("Split", ["x", "s"], ["a", "b"], axis=1),
            node("Pow", ["a", "two"], ["c"], "first"),
            node("Pow", ["b", "three"], ["d"], "second"),
            node("Concat", ["c", "d"], ["y"], axis=1),
            s=[1, 1],
            two=np.float32(2),
            three=np.float32(3),
            shape=("batch", 2, 4),
        ),
        np.stack([DATA, DATA[::-1]], 1),
    ),
    "a long power": Case(
        made(node("Pow", ["x", "e"], ["y"]), e=np.float32(17)),
        "multiply several",
        made(node("Pow", ["x", "e"], ["p"]), node("Mul", ["p", "x"], ["y"]), e=np.float32(16)),
        np.minimum(DATA, 1),
        call={"ranges": {"x": (0.5, 1.0)}},
        then={"ranges": {"x": (0.5, 1.0)}},
    ),
    "a power of a negative number": Case(
        made(node("Pow", ["c", "x"], ["y"]), c=np.float32(-2)),
        "positive base",
        made(node("Pow", ["c", "x"], ["y"]), c=np.float32(2)),
    ),
    "a logarithm near zero, by a range": Case(
        made(node("Log", ["x"], ["y"])),
        "--range",
        made(node("Log", ["x"], ["y"])),
        call={"ranges": {"x": (-1, 2)}},
        then={"ranges": X},
    ),
    "a logarithm near zero, by a Clip": Case(
        made(node("Log", ["x"], ["y"])),
        "Clip",
        made(node("Clip", ["x", "c"], ["p"]), node("Log", ["p"], ["y"]), c=np.float32(0.25)),
        call={"ranges": {"x": (-1, 2)}},
    ),
    "a large exponential, by a range": Case(EXP, "--range", EXP, call={"ranges": {"x": (-32, 32)}}, then={"ranges": X}),
    "a large exponential, by a Clip": Case(
        EXP,
        "Clip to at most 20",
        made(node("Clip", ["x", "", "c"], ["p"]), node("Exp", ["p"], ["y"]), c=np.float32(4)),
        call={"ranges": {"x": (-32, 32)}},
        tolerance=0.02,
    ),
    "a large result, by a range": Case(
        layers(4), "--range", layers(4), call={"ranges": {"x": (0, 1e4)}}, then={"ranges": X}
    ),
    "a large result, by samples": Case(
        layers(4),
        "--calibrate",
        layers(4),
        call={"ranges": {"x": (0, 1e4)}},
        then={"ranges": {}, "samples": {"x": DATA}},
    ),
    "a large result, by a division": Case(
        layers(6), "divide by a constant", layers(6, node("Div", ["x", "c"], ["h0"]), c=np.float32(1e5))
    ),
    "a product of many": Case(
        made(node("ReduceProd", ["x"], ["y"], axes=[1]), shape=("batch", 100)),
        "groups of at most 64",
        made(
            node("Reshape", ["x", "s"], ["r"]),
            node("ReduceProd", ["r"], ["p"], "inner", axes=[2], keepdims=0),
            node("ReduceProd", ["p"], ["y"], "outer", axes=[1]),
            shape=("batch", 100),
            s=[-1, 10, 10],
        ),
        RNG.uniform(0.95, 1.0, (2, 100)).astype(np.float32),
        {"ranges": {"x": (0.95, 1.0)}},
        {"ranges": {"x": (0.95, 1.0)}},
    ),
    "a long running sum": Case(
        made(node("CumSum", ["x", "a"], ["y"]), shape=("batch", 600), a=np.int64(1)),
        "triangle of ones",
        made(PRODUCT, shape=("batch", 600), w=np.triu(np.ones((600, 600), np.float32))),
        RNG.uniform(0.5, 2, (2, 600)).astype(np.float32),
        tolerance=0.05,
    ),
    # integers
    "a division of integers by what is entered": Case(
        made(node("Div", ["x", "x"], ["y"]), _element=TensorProto.INT64),
        "divide by a constant",
        made(node("Div", ["x", "c"], ["y"]), _element=TensorProto.INT64, c=np.int64(2)),
        WHOLE,
        {"ranges": {"x": (1, 3)}},
        {"ranges": {"x": (0, 3)}},
    ),
    "a remainder of reals": Case(
        made(node("Mod", ["x", "c"], ["y"]), c=np.float32(1)),
        "fmod=1",
        made(node("Mod", ["x", "c"], ["y"], fmod=1), c=np.float32(1)),
    ),
    "a remainder of a division by zero": Case(
        made(node("Mod", ["x", "c"], ["y"]), _element=TensorProto.INT64, c=np.int64(0)),
        "not zero",
        made(node("Mod", ["x", "c"], ["y"]), _element=TensorProto.INT64, c=np.int64(2)),
        WHOLE,
        {"ranges": {"x": (0, 3)}},
        {"ranges": {"x": (0, 3)}},
    ),
    "integers that wrap around": Case(
        made(node("Mul", ["x", "x"], ["y"]), _element=TensorProto.UINT8),
        "wider type",
        made(node("Cast", ["x"], ["w"], to=7), node("Mul", ["w", "w"], ["y"]), _element=TensorProto.UINT8),
        WHOLE.astype(np.uint8),
        {"ranges": {}},
        {"ranges": {}},
    ),
    # places
    "an index outside": Case(
        made(node("Gather", ["x", "i"], ["y"], axis=1), i=[4]),
        "from -4 to 3",
        made(node("Gather", ["x", "i"], ["y"], axis=1), i=[3]),
    ),
    "secret places in secret data": Case(
        made(CHOSEN, node("Gather", ["x", "i"], ["y"], axis=1)),
        "GatherElements",
        made(CHOSEN, node("GatherElements", ["x", "i"], ["y"], axis=1)),
    ),
    "leading axes of an index": Case(
        made(node("GatherND", ["x", "i"], ["y"], batch_dims=1), shape=(3, 4), i=[[1], [1]]),
        "the same first axes",
        made(node("GatherND", ["x", "i"], ["y"], batch_dims=1), shape=(3, 4), i=[[1], [1], [1]]),
    ),
    "each row with each other": Case(
        made(node("Transpose", ["x"], ["t"], perm=[1, 0]), node("MatMul", ["x", "t"], ["y"]), shape=("batch", 4)),
        "a fixed batch",
        made(node("Transpose", ["x"], ["t"], perm=[1, 0]), node("MatMul", ["x", "t"], ["y"]), shape=(3, 4)),
    ),
    "three operands of an Einsum": Case(
        made(node("Einsum", ["x", "a", "b"], ["y"], equation="ij,jk,kl->il"), a=W, b=W.T),
        "two operands",
        made(
            node("Einsum", ["x", "a"], ["h"], "first", equation="ij,jk->ik"),
            node("Einsum", ["h", "b"], ["y"], "second", equation="ik,kl->il"),
            a=W,
            b=W.T,
        ),
    ),
    "a diagonal of an Einsum": Case(
        made(node("Einsum", ["x"], ["y"], equation="bii->bi"), shape=("batch", 4, 4)),
        "ReduceSum",
        made(
            node("Mul", ["x", "c"], ["d"]),
            node("ReduceSum", ["d", "a"], ["y"], keepdims=0),
            shape=("batch", 4, 4),
            c=np.eye(4, dtype=np.float32),
            a=[2],
        ),
        PICTURES[0],
    ),
    # rankings
    "a ranking of 300, by what is ranked": Case(
        made(*RANKED, shape=COLUMNS, c=WEIGHTS, k=[2], _outputs=("y",)),
        "onnx.utils.extract_model",
        ended(made(*RANKED, shape=COLUMNS, c=WEIGHTS, k=[2], _outputs=("y",)), "scores"),
        MANY,
        {"ranges": {"x": (0, 2)}},
        {"ranges": {"x": (0, 2)}},
    ),
    "the first of 300": Case(
        made(*RANKED, shape=COLUMNS, c=WEIGHTS, k=[1], _outputs=("i",)),
        "ArgMax",
        made(node("ArgMax", ["x"], ["y"], axis=1), shape=COLUMNS),
        MANY,
        {"ranges": {"x": (0, 2)}},
        {"ranges": {"x": (0, 2)}},
    ),
    "a ranking of one": Case(
        made(node("TopK", ["x", "k"], ["t", "i"]), node("Relu", ["t"], ["y"]), shape=("batch", 1), k=[1]),
        "leave it out",
        made(RELU, shape=("batch", 1)),
        DATA[:, :1],
    ),
    "neighbours among 300 points": Case(neighbours(300), "KMeans", neighbours(24)),
    # scikit-learn
    "coefficients of other features": Case(linear(coefficients=[1.0] * 5), "one coefficient", linear()),
    "intercepts of other targets": Case(linear(intercepts=[1.0, 2.0]), "1 intercepts", linear(intercepts=[2.0])),
    "an unknown transform": Case(
        classifier(post_transform="PROBIT"), "compute the other", classifier(post_transform="NONE"), tolerance=0.01
    ),
    "classes without names": Case(
        classifier(classlabels_ints=[0, 1]), "one class label", classifier(classlabels_ints=[0, 1, 2])
    ),
    "a scaler of other columns": Case(
        of_scikit("Scaler", offset=[0.5, 0.5], scale=[2.0]),
        "one number for all",
        of_scikit("Scaler", offset=[0.5], scale=[2.0]),
    ),
    "an unknown norm": Case(of_scikit("Normalizer", norm="L3"), "L2", of_scikit("Normalizer", norm="L2")),
    "categories that are text": Case(
        of_scikit("OneHotEncoder", shape=("batch", 1), cats_strings=["a", "b"]),
        "cats_int64s",
        of_scikit("OneHotEncoder", shape=("batch", 1), cats_int64s=[0, 1], zeros=1),
        np.array([[0.0], [1.0], [1.0]], np.float32),
        then={"ranges": {"x": (0, 1)}},
    ),
    "keys that are text": Case(
        of_scikit("LabelEncoder", keys_strings=["a", "b"], values_floats=[1.0, 2.0]),
        "keys_int64s",
        of_scikit(
            "LabelEncoder", element=TensorProto.INT64, keys_int64s=[0, 1], values_floats=[1.0, 2.0], default_float=0.0
        ),
        WHOLE,
        then={"ranges": {"x": (0, 3)}},
    ),
    "the least of trees": Case(tree(aggregate_function="MIN"), "SUM", tree(aggregate_function="SUM")),
    "base values of other targets": Case(tree(base_values=[1.0, 2.0]), "1 base values", tree(base_values=[1.0])),
    "an unknown comparison": Case(
        tree(nodes_modes=["BRANCH_MEMBER", "LEAF", "LEAF"]),
        "BRANCH_LEQ",
        tree(nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"]),
    ),
    "a threshold that is no number": Case(
        tree(nodes_values=[np.nan, 0.0, 0.0]), "without NaN", tree(nodes_values=[1.5, 0.0, 0.0])
    ),
    "a leaf with two values": Case(
        tree(target_treeids=[0, 0, 0], target_nodeids=[1, 2, 2], target_ids=[0, 0, 0], target_weights=[1.0, 1.0, 2.0]),
        "their sum",
        tree(target_weights=[1.0, 3.0]),
    ),
    "a feature that is not entered": Case(
        tree(nodes_featureids=[7, 0, 0]),
        "all features",
        tree(shape=("batch", 8), nodes_featureids=[7, 0, 0]),
        np.hstack([DATA, DATA]),
    ),
    "a tree that decides nothing": Case(
        tree(
            nodes_treeids=[0],
            nodes_nodeids=[0],
            nodes_featureids=[0],
            nodes_modes=["LEAF"],
            nodes_values=[0.0],
            nodes_truenodeids=[0],
            nodes_falsenodeids=[0],
            target_treeids=[0],
            target_nodeids=[0],
            target_ids=[0],
            target_weights=[1.0],
        ),
        "until a tree splits",
        tree(),
    ),
    "an unknown kernel": Case(machine(kernel_type="CHI2"), "RBF", machine(kernel_type="RBF")),
    "a kernel of a broken degree": Case(
        machine(kernel_type="POLY", kernel_params=[0.5, 0.0, 2.5]),
        "whole degree",
        machine(kernel_type="POLY", kernel_params=[0.5, 0.0, 2.0]),
    ),
    "a gamma below zero": Case(
        machine(kernel_params=[-1.0, 0.0, 2.0]), "above 0", machine(kernel_params=[1.0, 0.0, 2.0])
    ),
    "offsets of other scores": Case(machine(rho=None), "one for a regression", machine(rho=[0.1])),
    # names, ranges, inputs and outputs
    "an unknown operator": Case(
        made(node("Relu", ["x"], ["h"]), node("Det", ["h"], ["y"]), shape=("batch", 4, 4)),
        "compute it outside the model",
        made(node("Relu", ["x"], ["h"]), shape=("batch", 4, 4), _outputs=("h",)),
        PICTURES[0],
    ),
    "a range of nothing": Case(
        made(RELU), "name one of these inputs", made(RELU), call={"ranges": {"z": RANGE}}, then={"ranges": X}
    ),
    "a range of other columns": Case(
        made(RELU),
        "4 of them",
        made(RELU),
        call={"ranges": {"x": ((0.0, 0.0), (2.0, 2.0))}},
        then={"ranges": {"x": ((0.0,) * 4, (2.0,) * 4)}},
    ),
    "an empty range": Case(
        made(RELU), "LOW not above HIGH", made(RELU), call={"ranges": {"x": (2, 0)}}, then={"ranges": {"x": (0, 2)}}
    ),
    "text as input": Case(made(RELU, _element=TensorProto.STRING), "OrdinalEncoder", made(RELU)),
    "an empty input": Case(made(RELU, shape=("batch", 0)), "1 or more", made(RELU, shape=("batch", 4))),
    "an output that is known": Case(
        made(RELU, node("Neg", ["c"], ["z"]), _outputs=("y", "z"), c=ONE), "off the outputs", made(RELU)
    ),
    "an output of nothing": Case(made(RELU, _outputs=("y", "z")), "off the outputs", made(RELU)),
    "nodes in a circle": Case(
        made(node("Add", ["x", "b"], ["a"], "one"), node("Relu", ["a"], ["b"], "two"), _outputs=("b",)),
        "in a circle",
        made(node("Add", ["x", "x"], ["a"], "one"), node("Relu", ["a"], ["b"], "two"), _outputs=("b",)),
    ),
    "a long name": Case(
        made(node("Relu", ["x"], ["y" * 300]), _outputs=("y" * 300,)),
        "names have up to 200",
        made(node("Relu", ["x"], ["y" * 200]), _outputs=("y" * 200,)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_remedy_works(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    first, second = tmp_path / "refused", tmp_path / "mended"
    first.mkdir()
    second.mkdir()
    with pytest.raises(PlanError) as caught:
        compile_model(case.refused(first), **{"ranges": X, **case.call})
    assert case.advice in (caught.value.remedy or ""), caught.value.lines()
    path = case.mended(second)
    compiled = compile_model(path, **{"ranges": X, **case.call, **case.then})
    feeds = {onnx.load(path).graph.input[0].name: case.data}
    for ours, theirs in zip(encrypted(compiled, feeds), plaintext(path, feeds), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        assert np.abs(ours.astype(np.float64) - theirs).max() <= case.tolerance * max(1.0, np.abs(theirs).max())
