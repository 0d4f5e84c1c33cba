"""Copies of a loop's body, one for each of its steps: every value of a step has a name of its own."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from mpc.compiler.onnx.naming import defined, rename
from mpc.compiler.onnx.protos import TYPES


def step_of(body: onnx.GraphProto, bound: Mapping[str, str], suffix: str) -> onnx.GraphProto:
    """Return a copy of a body whose inputs are these values, and whose own values' names end in a suffix."""
    copy = onnx.GraphProto()
    copy.CopyFrom(body)

    def own(graph: onnx.GraphProto) -> dict[str, str]:
        return {name: name + suffix for name in defined(graph) if graph is not copy or name not in bound}

    rename(copy, bound, own)
    return copy


def types_of(graph: onnx.GraphProto) -> dict[str, str]:
    """Return the types of a graph's values as far as it says them, numpy names."""
    values = (*graph.input, *graph.value_info, *graph.output)
    found = {value.name: TYPES.get(value.type.tensor_type.elem_type, "") for value in values}
    found.update((tensor.name, TYPES.get(tensor.data_type, "")) for tensor in graph.initializer)
    return {name: kind for name, kind in found.items() if kind}
