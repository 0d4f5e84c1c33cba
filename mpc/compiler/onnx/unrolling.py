"""Copies of a loop's body, one for each of its steps: every value of a step has a name of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import onnx

from mpc.compiler.onnx.protos import TYPES


def step_of(body: onnx.GraphProto, bound: Mapping[str, str], suffix: str) -> onnx.GraphProto:
    """Return a copy of a body whose inputs are these values, and whose own values' names end in a suffix."""
    copy = onnx.GraphProto()
    copy.CopyFrom(body)
    _rename(copy, dict(bound), suffix, bound.keys())
    return copy


def _rename(graph: onnx.GraphProto, outer: Mapping[str, str], suffix: str, given: Collection[str]) -> None:
    own = {name: name + suffix for name in _defined(graph) if name not in given}
    names = {**outer, **own}
    values: list[onnx.ValueInfoProto | onnx.TensorProto] = [*graph.input, *graph.output, *graph.value_info]
    for value in (*values, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for fields in (node.input, node.output):
            for place, name in enumerate(fields):
                fields[place] = names.get(name, name)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _rename(attribute.g, names, suffix, ())


def _defined(graph: onnx.GraphProto) -> Iterator[str]:
    """Names that a graph gives to values of its own."""
    yield from (value.name for value in graph.input)
    yield from (tensor.name for tensor in graph.initializer)
    yield from (name for node in graph.node for name in node.output if name)


def types_of(graph: onnx.GraphProto) -> dict[str, str]:
    """Return the types of a graph's values as far as it says them, numpy names."""
    values = (*graph.input, *graph.value_info, *graph.output)
    found = {value.name: TYPES.get(value.type.tensor_type.elem_type, "") for value in values}
    found.update((tensor.name, TYPES.get(tensor.data_type, "")) for tensor in graph.initializer)
    return {name: kind for name, kind in found.items() if kind}
