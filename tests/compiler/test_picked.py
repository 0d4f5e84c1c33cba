"""Rows of secret data at secret places: the token that ends a text, the last one that is no padding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpc.compiler.compile import compile_model
from mpc.errors import ModelError
from mpc.plan.cost import plan_cost
from tests.support.graphs import node
from tests.support.models import assert_agrees

RNG = np.random.default_rng(14)
TOKENS, WIDTH = 5, 3
TABLE = RNG.standard_normal((9, WIDTH)).astype(np.float32)
LEAST_OF_ALL = {"x": (-2.0, 2.0), "mask": (0.0, 1.0)}
CONSTANTS = {
    "zero": np.array(0), "one": np.array(1), "tokens": np.array(TOKENS), "last": np.array([-1]), "end": np.array(8),
    "table": TABLE, "batch_at": np.array(0), "places": np.arange(TOKENS), "behind": np.array([1]), "none": np.array(0),
    "wide": np.array([1, 1, WIDTH]), "rows": np.arange(3), "starts": np.arange(3) * TOKENS,
}  # fmt: skip
INDEX = {
    "largest id": [node("ArgMax", ["ids"], ["i"], axis=-1, keepdims=0)],
    "first end": [
        node("Equal", ["ids", "end"], ["e"]),
        node("Cast", ["e"], ["c"], to=TensorProto.INT32),
        node("ArgMax", ["c"], ["i"], axis=-1, keepdims=0),
    ],
    "last that is no padding": [
        node("Equal", ["ids", "none"], ["e"]),
        node("Not", ["e"], ["n"]),
        node("Cast", ["n"], ["c"], to=TensorProto.INT64),
        node("Mul", ["places", "c"], ["m"]),
        node("ArgMax", ["m"], ["i"], axis=-1, keepdims=0),
    ],
    "count of a mask": [
        node("ReduceSum", ["mask", "last"], ["s"], keepdims=0),
        node("Sub", ["s", "one"], ["i"]),
    ],
}
"""How a place comes from token ids that are entered, or from a mask: (batch,)."""
ARANGE = [
    node("Shape", ["x"], ["sizes"]),
    node("Gather", ["sizes", "batch_at"], ["batch_size"], name="size"),
    node("Range", ["zero", "batch_size", "one"], ["r"]),
]
PICK = {
    "columns": [
        *ARANGE,
        node("Unsqueeze", ["r", "last"], ["r1"], name="r1"),
        node("Unsqueeze", ["i", "last"], ["i1"], name="i1"),
        node("Concat", ["r1", "i1"], ["k"], axis=-1),
        node("GatherND", ["h", "k"], ["y"]),
    ],
    "among all rows": [
        *ARANGE,
        node("Mul", ["r", "tokens"], ["b"], name="b"),
        node("Add", ["i", "b"], ["k"], name="k"),
        node("Flatten", ["h"], ["f"], axis=2),
        node("Gather", ["f", "k"], ["y"], name="pick"),
    ],
    "repeated": [
        node("Unsqueeze", ["i", "behind"], ["i1"], name="i1"),
        node("Unsqueeze", ["i1", "last"], ["i2"], name="i2"),
        node("Expand", ["i2", "wide"], ["k"]),
        node("GatherElements", ["h", "k"], ["e3"], axis=1, name="pick"),
        node("Squeeze", ["e3", "behind"], ["y"]),
    ],
    "own axis": [
        node("Unsqueeze", ["i", "last"], ["k"], name="i1"),
        node("GatherND", ["h", "k"], ["y"], batch_dims=1),
    ],
}
"""How exporters write h[arange(batch), i]; a Flatten of the batch is what the older one makes of open sizes."""


def picking(folder: Path, index: str, pick: str, batch: int | str = "batch") -> Path:
    """A model of token ids, data and a mask, whose data are h = x + table[ids]."""
    begins = [node("Gather", ["table", "ids"], ["g"], name="embed"), node("Add", ["g", "x"], ["h"], name="h")]
    given = [
        ("ids", TensorProto.INT64, [batch, TOKENS]),
        ("x", TensorProto.FLOAT, [batch, TOKENS, WIDTH]),
        ("mask", TensorProto.INT64, [batch, TOKENS]),
    ]
    ends = [*begins, *INDEX[index], *PICK[pick]]
    if index != "count of a mask":
        given.pop()
    return saved(folder, ends, given, [batch, WIDTH])


def saved(folder: Path, nodes: Sequence[onnx.NodeProto], given: Sequence[Any], shape: Sequence[int | str]) -> Path:
    inputs = [helper.make_tensor_value_info(*one) for one in given]
    read = {name for one in nodes for name in one.input}
    constants = [numpy_helper.from_array(value, name) for name, value in CONSTANTS.items() if name in read]
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)]
    graph = helper.make_graph(list(nodes), "picks", inputs, out, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(onnx.shape_inference.infer_shapes(model), folder / "picks.onnx")
    return folder / "picks.onnx"


def feeds(index: str) -> dict[str, np.ndarray]:
    ids = RNG.integers(1, 8, (3, TOKENS))
    ids[0, 2], ids[1, 4], ids[2, 0] = 8, 8, 8
    if index == "last that is no padding":
        ids[0, 3:], ids[2, 1:] = 0, 0
    mask = np.arange(TOKENS) < np.array([[2], [5], [0]])
    given = {"ids": ids, "x": RNG.uniform(-2, 2, (3, TOKENS, WIDTH)).astype(np.float32), "mask": mask.astype(np.int64)}
    return given if index == "count of a mask" else {name: given[name] for name in ("ids", "x")}


COSTS = {
    "largest id": (8, 252),
    "first end": (8, 252),
    "last that is no padding": (9, 292),
    "count of a mask": (4, 277),
}
"""Rounds and bytes of one row, whichever way its place is written."""
SENT_BY_THREE = {"largest id": 689, "first end": 689, "last that is no padding": 809, "count of a mask": 766}


@pytest.mark.parametrize("pick", PICK)
@pytest.mark.parametrize("index", INDEX)
def test_each_row_reads_at_its_own_secret_place(tmp_path: Path, index: str, pick: str) -> None:
    path, given = picking(tmp_path, index, pick), feeds(index)
    ranges = {name: LEAST_OF_ALL[name] for name in ("x", "mask") if name in given}
    if (index, pick) == ("count of a mask", "among all rows"):
        with pytest.raises(ModelError, match="a place of another row") as refused:
            compile_model(path, ranges)
        assert "--shape" in str(refused.value.remedy)
        return
    compiled = assert_agrees(path, given, ranges, 1e-5)
    cost = plan_cost(compiled.plan, 1)
    assert (cost.rounds, cost.sent) == COSTS[index]


@pytest.mark.parametrize("pick", PICK)
@pytest.mark.parametrize("index", INDEX)
def test_a_fixed_batch_compares_no_row_with_places_of_another(tmp_path: Path, index: str, pick: str) -> None:
    """But where a count may be one less than none: among all rows' places that is another row's, as in onnxruntime."""
    path, given = picking(tmp_path, index, pick, 3), feeds(index)
    ranges = {name: LEAST_OF_ALL[name] for name in ("x", "mask") if name in given}
    compiled = assert_agrees(path, given, ranges, 1e-5)
    unknown = (index, pick) == ("count of a mask", "among all rows")
    assert plan_cost(compiled.plan, 1).sent == (1313 if unknown else SENT_BY_THREE[index])


@pytest.mark.parametrize("place", [0, 3, -1])
def test_a_public_place_is_a_move(tmp_path: Path, place: int) -> None:
    nodes = [node("Gather", ["x", "at"], ["y"], axis=1)]
    CONSTANTS["at"] = np.array(place)
    path = saved(tmp_path, nodes, [("x", TensorProto.FLOAT, ["batch", TOKENS, WIDTH])], ["batch", WIDTH])
    x = RNG.uniform(-2, 2, (3, TOKENS, WIDTH)).astype(np.float32)
    compiled = assert_agrees(path, {"x": x}, {"x": (-2.0, 2.0)}, 1e-6)
    assert [gate.kind for gate in compiled.plan.gates if gate.kind in ("matmul", "step", "multiply")] == []
    assert plan_cost(compiled.plan, 1).rounds == 1  # its mask is opened for the recipient
