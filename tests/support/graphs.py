"""Small ONNX models made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def save_model(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    shape: Sequence[int | str | None] = ("batch", 4),
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
    element: int = TensorProto.FLOAT,
    metadata: dict[str, str] | None = None,
    ml: int = 3,
) -> Path:
    """One input `x` of that shape; outputs as onnx infers them; checked by nobody."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", element, list(shape))],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ml)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    try:
        model = onnx.shape_inference.infer_shapes(model)
    except onnx.shape_inference.InferenceError:
        pass  # the model is meant to be wrong
    for output in model.graph.output:
        if not output.type.tensor_type.HasField("shape"):
            output.CopyFrom(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, [None, None]))
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def node(
    operator: str, inputs: Sequence[str], outputs: Sequence[str], name: str = "", **attributes: object
) -> onnx.NodeProto:
    """A node, named after its operator unless told."""
    domain = str(attributes.pop("domain", ""))
    return helper.make_node(
        operator, list(inputs), list(outputs), name=name or operator.lower(), domain=domain, **attributes
    )


def ml_model(
    folder: Path,
    operator: str,
    outputs: dict[str, int],
    shape: Sequence[int | str] = ("batch", 4),
    element: int = TensorProto.FLOAT,
    ml: int = 3,
    constants: dict[str, np.ndarray] | None = None,
    **attributes: object,
) -> Path:
    """One node of ai.onnx.ml on the input `x`; outputs with their types: matrices, or a vector named `label`."""
    reads = ["x", *(constants or {})]
    if operator == "ArrayFeatureExtractor":
        reads = list(attributes.pop("order", reads))  # type: ignore[call-overload]
    made = helper.make_node(operator, reads, list(outputs), name=operator.lower(), domain="ai.onnx.ml", **attributes)
    graph = helper.make_graph(
        [made],
        "test",
        [helper.make_tensor_value_info("x", element, list(shape))],
        [helper.make_tensor_value_info(name, kind, [None] * (1 + (name != "label"))) for name, kind in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", ml)]
    path = folder / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())
    return path
