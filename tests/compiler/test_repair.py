"""Models that onnxruntime runs, though onnx's checker refuses them: read, with onnxruntime's answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpc.compiler.compile import compile_model
from mpc.compiler.onnx.load import load_model
from mpc.compiler.onnx.repair import repair
from mpc.errors import ModelError
from tests.support.models import assert_agrees

X = np.random.Generator(np.random.PCG64(0)).uniform(-1, 1, (5, 3)).astype(np.float32)
WEIGHT = np.random.Generator(np.random.PCG64(1)).uniform(-1, 1, (3, 2)).astype(np.float32)
VALUE = helper.make_tensor_value_info


def good() -> onnx.ModelProto:
    """x [batch, 3] -> MatMul -> Relu -> Add -> y [batch, 2]."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "second"),
        helper.make_node("Add", ["b", "c"], ["y"], "third"),
    ]
    constants = [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(np.float32([0.5, -1.5]), "c")]
    ends = VALUE("x", TensorProto.FLOAT, ["batch", 3]), VALUE("y", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "graph", [ends[0]], [ends[1]], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def backwards(model: onnx.ModelProto) -> None:
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(model.graph.node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def without_a_shape(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.ClearField("shape")


def without_a_type(model: onnx.ModelProto) -> None:
    model.graph.output[0].ClearField("type")


def without_a_name(model: onnx.ModelProto) -> None:
    model.graph.name = ""


def old_format(model: onnx.ModelProto) -> None:
    model.ir_version = 3
    model.opset_import[0].version = 8


def whole_numbers_without_a_type(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("ArgMax", ["y"], ["place"], "place", axis=1, keepdims=0))
    model.graph.output.append(onnx.ValueInfoProto(name="place"))


def everything(model: onnx.ModelProto) -> None:
    backwards(model)
    without_a_type(model)
    without_a_name(model)
    old_format(model)


@pytest.mark.parametrize(
    "break_",
    [
        backwards, without_a_shape, without_a_type, without_a_name, old_format, whole_numbers_without_a_type,
        everything,
    ],
)  # fmt: skip
def test_the_checker_refuses_it_and_it_runs(break_: Callable[[onnx.ModelProto], None], tmp_path: Path) -> None:
    model = good()
    break_(model)
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(model)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert_agrees(path, {"x": X}, {"x": (-1.0, 1.0)})


def branches(same: bool) -> onnx.ModelProto:
    """Two Ifs with public conditions, whose branches use names of their own, nested ones too."""

    def branch(scale: float, inner: bool = False, mark: str = "") -> onnx.GraphProto:
        k, t = f"k{mark}", f"t{mark}"
        nodes = [helper.make_node("Constant", [], [k], value=numpy_helper.from_array(np.float32(scale)))]
        if inner:
            deeper = [branch(scale + 1, mark="i"), branch(scale + 2, mark="i")]
            nodes.append(helper.make_node("If", ["yes"], ["m"], then_branch=deeper[0], else_branch=deeper[1]))
            nodes.append(helper.make_node("Mul", ["m", k], [t]))
        else:
            nodes.append(helper.make_node("Mul", ["x", k], [t]))
        return helper.make_graph(nodes, "branch", [], [VALUE(t, TensorProto.FLOAT, None)])

    nodes = [
        helper.make_node("If", ["yes"], ["a"], then_branch=branch(2.0), else_branch=branch(3.0)),
        helper.make_node("If", ["no"], ["b"], then_branch=branch(5.0), else_branch=branch(7.0, inner=True)),
        helper.make_node("Add", ["a", "b"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(np.array(True), "yes"),
        numpy_helper.from_array(np.array(same), "no"),
    ]  # fmt: skip
    ends = VALUE("x", TensorProto.FLOAT, ["batch", 3]), VALUE("y", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "graph", [ends[0]], [ends[1]], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("same", [False, True])
def test_branches_may_use_the_same_names(same: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(branches(same).SerializeToString())
    assert_agrees(path, {"x": X}, {"x": (-1.0, 1.0)}, tolerance=3e-3)


def test_an_order_inside_a_branch(tmp_path: Path) -> None:
    model = branches(False)
    inner = model.graph.node[1].attribute[1].g
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(inner.node)]
    del inner.node[:]
    inner.node.extend(nodes)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert len(compile_model(path, {"x": (-1.0, 1.0)}).plan.gates) == len(
        compile_model(branches(False), {"x": (-1.0, 1.0)}).plan.gates
    )


def test_an_order_that_is_right_is_kept() -> None:
    model = good()
    before = model.SerializeToString()
    repair(model)
    assert model.SerializeToString() == before


def test_the_callers_own_model_is_not_changed() -> None:
    model = good()
    everything(model)
    before = model.SerializeToString()
    load_model(model)
    assert model.SerializeToString() == before


def test_a_cycle_is_still_refused() -> None:
    model = good()
    model.graph.node[0].input[0] = "b"
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        load_model(model)


def test_an_input_without_a_shape_is_given_one(tmp_path: Path) -> None:
    model = good()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ModelError, match="has no shape") as caught:
        compile_model(model)
    assert "--shape x=" in str(caught.value.remedy)
    compiled = compile_model(model, shapes={"x": (None, 3)})
    assert compiled.plan.wire[compiled.plan.inputs[0].wire].shape == ("batch", 3)


def test_names_of_categories_are_refused_with_a_way_out() -> None:
    model = good()
    model.graph.input.append(VALUE("colour", TensorProto.STRING, ["batch", 1]))
    with pytest.raises(ModelError, match="string") as caught:
        compile_model(model)
    assert "OrdinalEncoder" in str(caught.value.remedy)
