"""Weights that only begin equal, which an exporter has stored once: in training each is one of its own."""

from __future__ import annotations

import onnx

from mpc.compiler.onnx.protos import names_of


def untied(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Return the model with each Identity of a stored tensor as a tensor of its own, and these with what they copy.

    PyTorch's exporter that traces stores equal tensors once, and has an Identity write the others: gains of two new
    normalisations say, or a gain and a variance that are both ones.  A parameter that two layers share has one name
    there, and no Identity.  The model itself is not changed.  Each node keeps its place, by which messages number those
    without a name.  What a model gives out stays as it is.
    """
    roots = {tensor.name: tensor.name for tensor in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    places, copies = [], dict[str, str]()
    for place, node in enumerate(model.graph.node):
        if node.op_type != "Identity" or node.domain not in ("", "ai.onnx") or node.input[0] not in roots:
            continue
        if node.output[0] not in outputs:
            places.append(place)
            copies[node.output[0]] = roots[node.output[0]] = roots[node.input[0]]
    if not places:
        return model, {}
    found, taken = onnx.ModelProto(), {*names_of(model.graph)}
    found.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for place in places:
        node = found.graph.node[place]
        name = node.output[0]
        found.graph.initializer.add().CopyFrom(stored[copies[name]])
        found.graph.initializer[-1].name = name
        unread = f"{name}/unread"
        while unread in taken:
            unread += "'"
        taken.add(unread)
        node.input[0], node.output[0] = copies[name], unread
    return found, copies
