"""Models with their weights in a file beside them, wherever a model may have a tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 3
FILE = "w.bin"


def write_weights(folder: Path, value: float) -> None:
    """Write the weights' file: SIZE by SIZE times one value."""
    (folder / FILE).write_bytes(np.full((SIZE, SIZE), value, np.float32).tobytes())


def beside(kind: str, location: str = FILE) -> onnx.ModelProto:
    """Make y = x w, where w is in another file, by the place that it has in the model; see `KINDS`."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[SIZE, SIZE], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    return KINDS[kind](weight)


def _product(read: str, written: str) -> onnx.NodeProto:
    return helper.make_node("MatMul", [read, "w"], [written])


def _constant(weight: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["w"], value=weight)


def _model(
    nodes: list[onnx.NodeProto],
    stored: list[TensorProto] | None = None,
    functions: list[onnx.FunctionProto] | None = None,
) -> onnx.ModelProto:
    [x], [y] = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", SIZE])] for name in "xy")
    graph = helper.make_graph(nodes, "beside", [x], [y], stored or [])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, functions=functions or [], opset_imports=opsets, ir_version=8)


def _branch(nodes: list[onnx.NodeProto], written: str, stored: list[TensorProto] | None = None) -> onnx.GraphProto:
    out = helper.make_tensor_value_info(written, TensorProto.FLOAT, None)
    return helper.make_graph(nodes, f"to_{written}", [], [out], stored or [])


def _if(nodes: list[onnx.NodeProto], read: str, written: str, stored: list[TensorProto]) -> onnx.NodeProto:
    """A branch that is taken, and one that is not."""
    branches = {
        "then_branch": _branch(nodes, read, stored),
        "else_branch": _branch([helper.make_node("Neg", ["x"], [f"{read}_else"])], f"{read}_else"),
    }
    return helper.make_node("If", ["yes"], [written], **branches)


def _yes() -> TensorProto:
    return numpy_helper.from_array(np.array(True), "yes")


def _in_branch(weight: TensorProto) -> onnx.ModelProto:
    return _model([_if([_product("x", "inner")], "inner", "y", [weight])], [_yes()])


def _in_branch_of_branch(weight: TensorProto) -> onnx.ModelProto:
    inner = _if([_constant(weight), _product("x", "innermost")], "innermost", "inner", [])
    return _model([_if([inner], "inner", "y", [])], [_yes()])


def _in_loop(weight: TensorProto) -> onnx.ModelProto:
    values = [("i", TensorProto.INT64, []), ("on", TensorProto.BOOL, []), ("h", TensorProto.FLOAT, ["batch", SIZE])]
    given = [helper.make_tensor_value_info(*each) for each in values]
    outs = [helper.make_tensor_value_info(f"{name}_next", kind, shape) for name, kind, shape in values[1:]]
    nodes = [helper.make_node("Identity", ["on"], ["on_next"]), _product("h", "h_next")]
    body = helper.make_graph(nodes, "body", given, outs, [weight])
    once = numpy_helper.from_array(np.array(1), "once")
    return _model([helper.make_node("Loop", ["once", "yes", "x"], ["y"], body=body)], [once, _yes()])


def _in_function(weight: TensorProto) -> onnx.ModelProto:
    nodes = [_constant(weight), _product("a", "b")]
    function = helper.make_function("own", "Product", ["a"], ["b"], nodes, [helper.make_opsetid("", 17)])
    return _model([helper.make_node("Product", ["x"], ["y"], domain="own")], functions=[function])


KINDS = {
    "initialiser": lambda weight: _model([_product("x", "y")], [weight]),
    "constant": lambda weight: _model([_constant(weight), _product("x", "y")]),
    "branch": _in_branch,
    "branch of a branch": _in_branch_of_branch,
    "loop": _in_loop,
    "function": _in_function,
}
