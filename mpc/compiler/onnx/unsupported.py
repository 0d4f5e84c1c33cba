"""Operators that nothing here computes: all of a model's at once, before what another range or shape would mend."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import onnx

from mpc.compiler.graph.graph import Origin
from mpc.compiler.operators.registry import HANDLERS
from mpc.errors import ModelError

_LAID_OUT = "com.microsoft.nchwc"
"""Operators on blocks of channels, which onnxruntime puts in place of others for the processor that it runs on."""
_LESS = (
    "take the model as it was before onnxruntime optimised it, or let it optimise less: graph_optimization_level "
    "ORT_ENABLE_BASIC or ORT_ENABLE_EXTENDED in place of ORT_ENABLE_ALL"
)
_OF_SHAPES = ("Shape", "Size")
"""What they write is public, whatever they read."""


def named(node: onnx.NodeProto, index: int) -> Origin:
    """Name a node of a graph as messages do; one without a name is called by its operator and place."""
    return Origin(node.name or f"{node.op_type}_{index}", node.op_type)


def is_supported(node: onnx.NodeProto) -> bool:
    """Tell whether a node that reads secret values has a handler."""
    return (node.domain or "ai.onnx", node.op_type) in HANDLERS


def unsupported(nodes: Iterable[tuple[int, onnx.NodeProto]], secret: Collection[str]) -> list[Origin]:
    """List the nodes that depend on secret values and have no handler, in their order.

    Args:
        nodes: each with its place in its graph, in an order in which values are written before they are read.
        secret: names of the inputs.
    """
    found, touched = [], set(secret)
    for index, node in nodes:
        if node.op_type in _OF_SHAPES or touched.isdisjoint(_reads(node)):
            continue
        touched.update(filter(None, node.output))
        if not is_supported(node):
            found.append(named(node, index))
    return found


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    yield from filter(None, node.input)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                yield from _reads(inner)
            yield from (out.name for out in attribute.g.output)


def refusal(found: list[Origin], besides: ModelError | None = None, nodes: Iterable[onnx.NodeProto] = ()) -> ModelError:
    """Make the error that names all of these nodes' operators.

    Args:
        besides: what else of the model was refused, which is told after them.
        nodes: the model's.
    """
    kinds: dict[str, list[str]] = {}
    for origin in found:
        kinds.setdefault(origin.operator, []).append(origin.node)
    first, *others = kinds.items()
    problem = "this operator is not supported"
    if others:
        problem += ", and neither are " + ", ".join(f"{operator} ({_listed(nodes)})" for operator, nodes in others)
    remedy = (
        f"replace {'them' if others else 'it'}, or compute {'them' if others else 'it'} outside the model; "
        "'mpc inspect --operators' lists what is supported"
    )
    if any(node.domain == _LAID_OUT for node in nodes):
        problem, remedy = f"{problem}: onnxruntime has laid it out for one processor", _LESS
    if besides is not None:
        problem, remedy = f"{problem}; besides, {besides.what}", f"{remedy}; and {besides.remedy}"
    return Origin(first[1][0], first[0]).refuse(problem, remedy=remedy)


def _listed(nodes: list[str]) -> str:
    more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
    return f"node {nodes[0]!r}{more}"
