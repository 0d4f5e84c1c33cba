"""Names of a graph's values, those of its branches too: which there are, and others in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import onnx


def branches(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs inside a node."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def defined(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the names that a graph gives to values of its own."""
    yield from (value.name for value in graph.input)
    yield from (tensor.name for tensor in graph.initializer)
    yield from (name for node in graph.node for name in node.output if name)


def rename(
    graph: onnx.GraphProto, outer: Mapping[str, str], own: Callable[[onnx.GraphProto], Mapping[str, str]]
) -> None:
    """Give values of a graph, and of all branches inside it, other names, wherever they are read.

    Args:
        outer: new names of values around the graph.
        own: called for each graph, the outer ones first: new names of values of its own.
    """
    names = {**outer, **own(graph)}
    values: list[onnx.ValueInfoProto | onnx.TensorProto] = [*graph.input, *graph.output, *graph.value_info]
    for value in (*values, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for fields in (node.input, node.output):
            for place, name in enumerate(fields):
                fields[place] = names.get(name, name)
        for branch in branches(node):
            rename(branch, names, own)
