"""Sequences of tensors, as exporters write Python's lists: inserted, read, cut and joined at public places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mpc.compiler.compile import compile_model
from mpc.errors import ModelError
from tests.support.graphs import node, save_model
from tests.support.models import assert_agrees

X = {"x": np.random.default_rng(8).uniform(-1, 1, (5, 3, 4)).astype(np.float32)}
RANGE = {"x": (-1.0, 1.0)}
TYPED = helper.make_tensor_value_info
CONSTANTS = {
    "one": np.array(1), "two": np.array(2), "last": np.array(-1), "axes": np.array([-1]), "sizes": np.array([1, 3]),
    "c": np.full((5, 3, 4), 0.25, np.float32),
}  # fmt: skip

WAYS: dict[str, list[onnx.NodeProto]] = {
    "put in front, taken away and counted": [
        node("SequenceConstruct", ["x", "c"], ["s"]),
        node("SequenceInsert", ["s", "x", "last"], ["t"]),
        node("SequenceInsert", ["t", "c"], ["u"], "again"),
        node("SequenceErase", ["u", "one"], ["v"]),
        node("Identity", ["v"], ["w"]),
        node("SequenceLength", ["w"], ["n"]),
        node("Cast", ["n"], ["number"], to=TensorProto.FLOAT),
        node("SequenceAt", ["w", "last"], ["a"]),
        node("ConcatFromSequence", ["w"], ["b"], axis=-1, new_axis=1),
        node("ReduceSum", ["b", "axes"], ["d"]),
        node("Mul", ["d", "number"], ["e"]),
        node("Unsqueeze", ["a", "axes"], ["f"]),
        node("Add", ["e", "f"], ["y"]),
    ],
    "cut by sizes": [
        node("SplitToSequence", ["x", "sizes"], ["s"], axis=2),
        node("SequenceInsert", ["s", "x", "one"], ["t"]),
        node("ConcatFromSequence", ["t"], ["y"], axis=2),
    ],
    "cut by one size, the last part shorter": [
        node("SplitToSequence", ["x", "two"], ["s"], axis=1),
        node("SequenceAt", ["s", "last"], ["y"]),
    ],
    "cut one by one": [
        node("SplitToSequence", ["x"], ["s"], axis=1, keepdims=0),
        node("ConcatFromSequence", ["s"], ["y"], axis=1),
    ],
    "cut one by one, as unbind does": [
        node("SplitToSequence", ["x", "one"], ["s"], axis=1, keepdims=0),
        node("ConcatFromSequence", ["s"], ["y"], axis=2, new_axis=1),
    ],
    "of constants": [
        node("SplitToSequence", ["c", "one"], ["s"], axis=0, keepdims=0),
        node("ConcatFromSequence", ["s"], ["d"], axis=0, new_axis=1),
        node("Mul", ["x", "d"], ["y"]),
    ],
}


@pytest.mark.parametrize("way", WAYS)
def test_sequences(way: str, tmp_path: Path) -> None:
    read = {name for each in WAYS[way] for name in each.input}
    path = save_model(tmp_path, WAYS[way], {k: v for k, v in CONSTANTS.items() if k in read}, (5, 3, 4))
    assert_agrees(path, X, RANGE, 1e-5)


def test_a_loop_collects_a_sequence(tmp_path: Path) -> None:
    """As a list to which each step appends is exported."""
    listed = [helper.make_tensor_sequence_value_info(name, TensorProto.FLOAT, None) for name in ("s", "t")]
    body = helper.make_graph(
        [
            node("Gather", ["x", "i"], ["step"], axis=1),
            node("Tanh", ["step"], ["h"]),
            node("SequenceInsert", ["s", "h"], ["t"]),
            node("Identity", ["going"], ["on"]),
        ],
        "body",
        [TYPED("i", TensorProto.INT64, []), TYPED("going", TensorProto.BOOL, []), listed[0]],
        [TYPED("on", TensorProto.BOOL, []), listed[1]],
    )
    nodes = [
        node("SequenceEmpty", [], ["none"]),
        node("Loop", ["steps", "yes", "none"], ["all"], body=body),
        node("ConcatFromSequence", ["all"], ["y"], axis=1, new_axis=1),
    ]
    path = save_model(tmp_path, nodes, {"steps": np.array(3), "yes": np.array(True)}, ("batch", 3, 4))
    assert_agrees(path, X, RANGE, 1e-4)


REFUSED = {
    "a place that it has not": ([node("SequenceAt", ["s", "two"], ["y"])], "the place 2 of 2", "give a place"),
    "no sequence": ([node("SequenceAt", ["x", "two"], ["y"])], "'x' is no sequence", "tensors"),
    "another operator": ([node("Relu", ["s"], ["y"])], "it reads 's', a sequence", "SequenceAt"),
    "nothing": (
        [node("SequenceEmpty", [], ["t"]), node("ConcatFromSequence", ["t"], ["z"], axis=0), node("Add", "xz", "y")],
        "a sequence of nothing", "leave",
    ),
    "an output": (
        [node("SequenceConstruct", ["x"], ["y"], "second")], "output 'y' is a sequence", "ConcatFromSequence",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str, tmp_path: Path) -> None:
    nodes, problem, remedy = REFUSED[name]
    whole = [node("SequenceConstruct", ["x", "x"], ["s"]), *nodes]
    with pytest.raises(ModelError, match=problem) as caught:
        compile_model(save_model(tmp_path, whole, {"two": np.array(2)}, (5, 3, 4)), RANGE)
    assert remedy in str(caught.value.remedy)
