"""Values of rows as an ONNX model: an input for each column, and an output for each value or its sum over the rows."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import TensorProto, helper, numpy_helper

from parties.client.questions.expression import REAL, ROWS, TRUTH, WHOLE, Node, columns, walk

_TYPES = {REAL: TensorProto.DOUBLE, WHOLE: TensorProto.INT64, TRUTH: TensorProto.BOOL}
_OPSET, _IR = 18, 8


def write(ends: Mapping[str, Node], summed: bool) -> onnx.ModelProto:
    """Write a model whose inputs are columns by their names.

    Args:
        ends: output -> a value with rows.
        summed: its sum over the rows is the output, else its rows.
    """
    given = columns(*ends.values())
    names: dict[int, str] = {id(node): name for name, node in given.items()}
    nodes, constants = [], []
    taken = {*given, *ends}
    for node in walk(*ends.values()):
        if node.column is not None:
            names[id(node)] = node.column
            continue
        name = names[id(node)] = _free(f"{node.op.lower() or 'public'}{len(names)}", taken)
        if node.value is not None:
            constants.append(numpy_helper.from_array(node.value, name))
            continue
        attributes = dict(node.attributes)
        if node.op == "Cast":
            attributes["to"] = _TYPES[node.dtype]
        nodes.append(helper.make_node(node.op, [names[id(each)] for each in node.reads], [name], name, **attributes))
    outputs = []
    for name, node in ends.items():
        shape = node.shape[1:] if summed else node.shape
        if summed:
            axis = _free(f"{name}.rows", taken)
            constants.append(helper.make_tensor(axis, TensorProto.INT64, [1], [0]))
            nodes.append(helper.make_node("ReduceSum", [names[id(node)], axis], [name], f"sum.{name}", keepdims=0))
        else:
            nodes.append(helper.make_node("Identity", [names[id(node)]], [name], f"rows.{name}"))
        outputs.append(helper.make_tensor_value_info(name, _TYPES[node.dtype], _shape(shape)))
    inputs = [helper.make_tensor_value_info(n, _TYPES[x.dtype], _shape(x.shape)) for n, x in given.items()]
    graph = helper.make_graph(nodes, "question", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = _IR
    return model


def _shape(shape: tuple[int, ...]) -> list[int | str]:
    return ["N" if size == ROWS else size for size in shape]


def _free(name: str, taken: set[str]) -> str:
    """Return a name that nothing has yet, and take it."""
    found = next(each for n in range(len(taken) + 1) if (each := f"{name}{'.' * n}") not in taken)
    taken.add(found)
    return found
