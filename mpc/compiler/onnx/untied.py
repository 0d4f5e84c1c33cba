"""Weights that only begin equal, which an exporter has stored once: in training each is one of its own."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import numpy_helper

from mpc.compiler.onnx.protos import array_of, names_of

Model = onnx.ModelProto


def untied(model: Model) -> tuple[Model, dict[str, str]]:
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
    found, taken = Model(), {*names_of(model.graph)}
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


_APART = 2.0**-7
"""By which the last number of a tensor is moved; the first one stays."""


def told_apart(model: Model, names: Collection[str]) -> Model:
    """Return the model with these tensors moved a little, each number otherwise: a turned one is another one then.

    A matrix of zeros, or a symmetric one, is equal to its transpose, so that its values do not show how it is read.
    """
    found = Model()
    found.CopyFrom(model)
    for tensor in found.graph.initializer:
        if tensor.name in names:
            values = array_of(tensor)
            moved = np.linspace(0, _APART, values.size).reshape(values.shape)
            tensor.CopyFrom(numpy_helper.from_array((values + moved).astype(values.dtype), tensor.name))
    return found
