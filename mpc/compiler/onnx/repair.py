"""Models that onnxruntime runs and onnx's checker refuses, made into what the checker takes; the meaning stays.

Nodes in no order, no name of the graph, outputs without a type or shape, initialisers that an old format wants among
the inputs, names that several branches use each for themselves, and an operator of onnxruntime's in ONNX's own domain.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import onnx
import onnx.shape_inference
from onnx import TensorProto

from mpc.compiler.onnx.naming import branches, defined, rename

_ASTRAY = "SimplifiedLayerNormalization"
"""An operator that onnxruntime's optimiser writes, and has in ONNX's domain, which does not know it."""
_INITIALISERS_ALONE = 4
"""The first version of the format in which an initialiser need not be an input."""


def repair(model: onnx.ModelProto) -> None:
    """Change a model in place; what cannot be repaired is left for the checker to refuse."""
    graph = model.graph
    graph.name = graph.name or "model"
    if model.ir_version < _INITIALISERS_ALONE:
        if not model.opset_import:
            model.opset_import.add(domain="", version=1)
        model.ir_version = _INITIALISERS_ALONE
    taken = set(defined(graph))

    def own(branch: onnx.GraphProto) -> dict[str, str]:
        """Give values of a branch names that nothing else in the model has."""
        names = {name: _free(name, taken) for name in dict.fromkeys(defined(branch))}
        taken.update(names.values())
        return names

    for node in graph.node:
        if node.op_type == _ASTRAY and not node.domain:
            node.domain = "com.microsoft"
        for branch in branches(node):
            rename(branch, {}, own)
    if any(node.op_type == _ASTRAY for node in graph.node) and not any(
        each.domain == "com.microsoft" for each in model.opset_import
    ):
        model.opset_import.add(domain="com.microsoft", version=1)
    _sort(graph, set())
    _type_outputs(model)


def checkable(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model as the checker wants it: shapes that are not said have no axes, and nobody else reads them."""
    if all(value.type.tensor_type.HasField("shape") for value in _ends(model) if _is_tensor(value)):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in _ends(copy):
        if _is_tensor(value):
            value.type.tensor_type.shape.SetInParent()
    return copy


def _ends(model: onnx.ModelProto) -> Iterator[onnx.ValueInfoProto]:
    yield from model.graph.input
    yield from model.graph.output


def _is_tensor(value: onnx.ValueInfoProto) -> bool:
    return value.type.WhichOneof("value") == "tensor_type"


# ------------------------------------------------------------------- order


def _sort(graph: onnx.GraphProto, outside: set[str]) -> None:
    """Writers before readers, else as they are."""
    written = {name: place for place, node in enumerate(graph.node) for name in node.output if name}
    known = outside | set(defined(graph))
    waits = [
        {written[name] for name in _reads(node) if name in written} - {place} for place, node in enumerate(graph.node)
    ]
    readers: dict[int, list[int]] = {}
    for place, before in enumerate(waits):
        for other in before:
            readers.setdefault(other, []).append(place)
    left = [len(before) for before in waits]
    ready = [place for place, count in enumerate(left) if not count]
    order = []
    while ready:
        order.append(heapq.heappop(ready))
        for place in readers.get(order[-1], ()):
            left[place] -= 1
            if not left[place]:
                heapq.heappush(ready, place)
    if len(order) == len(left) and order != sorted(order):
        nodes = [graph.node[place] for place in order]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)
    for node in graph.node:
        for branch in branches(node):
            _sort(branch, known)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, and those that its branches read and do not define themselves."""
    yield from (name for name in node.input if name)
    for branch in branches(node):
        own = set(defined(branch))
        yield from (name for inner in branch.node for name in _reads(inner) if name not in own)
        yield from (out.name for out in branch.output if out.name not in own)


# ------------------------------------------------------------------- names


def _free(name: str, taken: set[str]) -> str:
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}.{number}"
    return found


# ------------------------------------------------------------------- types


def _type_outputs(model: onnx.ModelProto) -> None:
    """Outputs that do not say their type have the one that onnx infers."""
    missing = [out for out in model.graph.output if not _typed(out)]
    if not missing:
        return
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # whatever onnx raises on a model that it cannot infer: then the type stays unknown
        return
    known = {value.name: value for value in (*inferred.output, *inferred.value_info) if _typed(value)}
    for out in missing:
        if out.name in known:
            out.type.CopyFrom(known[out.name].type)
        elif not out.type.WhichOneof("value"):
            out.type.tensor_type.elem_type = TensorProto.FLOAT


def _typed(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.WhichOneof("value")
    return kind is not None and (kind != "tensor_type" or value.type.tensor_type.elem_type != TensorProto.UNDEFINED)
