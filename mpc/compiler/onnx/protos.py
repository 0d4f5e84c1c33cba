"""Read a model's messages into Python: types, tensors, nodes and the names that they read."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from mpc.compiler.operators.context import ModelNode
from mpc.errors import ModelError

TYPES: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT16: "float16",
    TensorProto.INT64: "int64",
    TensorProto.INT32: "int32",
    TensorProto.INT16: "int16",
    TensorProto.INT8: "int8",
    TensorProto.UINT16: "uint16",
    TensorProto.UINT8: "uint8",
    TensorProto.UINT32: "uint32",
    TensorProto.UINT64: "uint64",
    TensorProto.BOOL: "bool",
    TensorProto.STRING: "string",
}
"""Numpy names of the types that a model may have."""


def type_name(code: int) -> str:
    """Name a type as ONNX does, for messages."""
    return TensorProto.DataType.Name(code).lower() if code in TensorProto.DataType.values() else "unknown"


def model_node(node: onnx.NodeProto) -> ModelNode:
    """Make what handlers see of a node."""
    return ModelNode(node.op_type, tuple(node.input), tuple(node.output), node.domain, lambda: attributes(node))


def reads_of(graph: onnx.GraphProto) -> Iterator[tuple[ModelNode, str]]:
    """List (node, value that it reads), those inside branches too; what a branch gives out, its node reads."""
    for node in graph.node:
        reader = model_node(node)
        yield from ((reader, name) for name in reader.input)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from reads_of(attribute.g)
                yield from ((reader, out.name) for out in attribute.g.output)


def constants_read(graph: onnx.GraphProto) -> dict[str, tuple[str, ...]]:
    """Map each node, as messages name it, to the names of the constants that it reads.

    What is made of constants, by a Transpose say, has the name of the first of them.  Of nodes with one name none has
    any.
    """
    roots = {tensor.name: tensor.name for tensor in graph.initializer}
    found: dict[str, tuple[str, ...]] = {}
    for index, node in enumerate(graph.node):
        read = tuple(roots[name] for name in node.input if name in roots)
        if node.op_type == "Constant":
            roots[node.output[0]] = node.output[0]
        elif read and all(name in roots for name in node.input if name):
            roots.update(dict.fromkeys(node.output, read[0]))
        name = node.name or f"{node.op_type}_{index}"
        found[name] = () if name in found else read
    return found


def statistics_read(graph: onnx.GraphProto) -> dict[str, tuple[np.ndarray, ...]]:
    """Map each batch normalisation, as messages name it, to its gain, shift, mean and one over its deviation.

    Each has one number a channel.  Left out are those whose numbers are computed.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer}
    found: dict[str, tuple[np.ndarray, ...]] = {}
    for index, node in enumerate(graph.node):
        read = [stored[name] for name in node.input[1:5] if name in stored]
        if node.op_type == "BatchNormalization" and len(read) == 4:
            gain, shift, mean, variance = (numpy_helper.to_array(each).astype(np.float64) for each in read)
            epsilon = next((each.f for each in node.attribute if each.name == "epsilon"), 1e-5)
            name = node.name or f"{node.op_type}_{index}"
            found[name] = gain, shift, mean, 1 / np.sqrt(variance + epsilon)
    return found


_STATISTICS = {"BatchNormalization": (3, 4)}
"""Operands that are no parameters, though they are stored as these are."""
_LEARNT = frozenset(
    {"BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization", "PRelu"}
)
"""Operators all of whose constants are parameters; of others one number alone is taken for a setting."""
_SET = frozenset({"Resize", "Upsample"})
"""Operators whose constants are settings."""
_REAL = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)


def parameters_read(graph: onnx.GraphProto) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Map each node, as messages name it, to its operator and the parameters that it reads, as `constants_read` names.

    Parameters are stored or constant real numbers that training might change: no statistics, and no settings.
    """
    sizes = {tensor.name: prod(tensor.dims) for tensor in graph.initializer if tensor.data_type in _REAL}
    roots = {tensor.name: tensor.name for tensor in graph.initializer}
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for index, node in enumerate(graph.node):
        if node.op_type == "Constant":
            name = node.output[0]
            for stored in (each.t for each in node.attribute if each.name == "value" and each.t.data_type in _REAL):
                roots[name], sizes[name] = name, prod(stored.dims)
            continue
        read = {place: roots[name] for place, name in enumerate(node.input) if name in roots}
        if read and len(read) == sum(map(bool, node.input)):  # made of constants, it is one
            roots.update(dict.fromkeys(node.output, next(iter(read.values()))))
            continue
        besides = _STATISTICS.get(node.op_type, ())
        least = 1 if node.op_type in _LEARNT else 2
        names = [name for place, name in read.items() if place not in besides and sizes.get(name, 0) >= least]
        if names and node.op_type not in _SET:
            found[node.name or f"{node.op_type}_{index}"] = node.op_type, tuple(names)
    return found


def stand_ins_read(graph: onnx.GraphProto) -> frozenset[str]:
    """Name gains and shifts of normalisations that exporters put where an operator wants some, and that are no weights.

    These are the values of Constant nodes; and an InstanceNormalization's ones and zeros, if its result is reshaped and
    multiplied, as PyTorch writes a GroupNorm: gain and shift are then what that multiplies by and adds.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer}
    constants = {node.output[0] for node in graph.node if node.op_type == "Constant"}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: set[str] = set()
    for node in graph.node:
        if node.op_type not in _LEARNT - {"PRelu"}:
            continue
        found.update(constants.intersection(node.input[1:3]))
        shaped = [each.output[0] for each in readers.get(node.output[0], []) if each.op_type == "Reshape"]
        scaled = any(each.op_type == "Mul" for name in shaped for each in readers.get(name, []))
        if node.op_type == "InstanceNormalization" and scaled:
            plain = [
                name
                for name, value in zip(node.input[1:3], (1, 0), strict=False)
                if name in stored and bool((numpy_helper.to_array(stored[name]) == value).all())
            ]
            found.update(plain)
    return frozenset(found)


def names_of(graph: onnx.GraphProto) -> Iterator[str]:
    """List the names of all values of a model, those inside branches too."""
    yield from (value.name for value in (*graph.input, *graph.output))
    yield from (tensor.name for tensor in graph.initializer)
    for node in graph.node:
        yield from (*node.input, *node.output)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from names_of(attribute.g)


def array_of(tensor: onnx.TensorProto) -> np.ndarray:
    """Read a tensor.

    Raises:
        ModelError: its bytes are not of its type and shape.
    """
    try:
        return np.array(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise ModelError(
            f"weight {tensor.name!r} cannot be read: {str(error)[:200]}",
            remedy="save the model anew with onnx.save, its weights as float32 or int64",
        ) from None


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Read a node's attributes as Python values."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
