"""Networks of full layers, as ONNX: what estimators train."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mpc.prg import Seed, expand_words

_OPSET, _IR = 17, 8


def network(sizes: Sequence[int], seed: int) -> onnx.ModelProto:
    """Write full layers with a ReLU between, from the input "x" to the last sums "z".

    One layer begins with zeros.  More begin with uniform weights within the root of 6 / inputs (He et al. 2015, Delving
    deep into rectifiers), which a public seed decides, and without biases.

    Args:
        sizes: columns of x, of each hidden layer, and of z.
    """
    nodes, constants, h, last = [], [], "x", len(sizes) - 2
    for i, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False)):
        weight = _uniform(seed, i, (inputs, outputs)) * np.sqrt(6 / inputs) if last else np.zeros((inputs, outputs))
        constants.append(numpy_helper.from_array(weight.astype(np.float32), f"w{i}"))
        constants.append(numpy_helper.from_array(np.zeros(outputs, np.float32), f"b{i}"))
        written = "z" if i == last else f"z{i}"
        nodes.append(helper.make_node("Gemm", [h, f"w{i}", f"b{i}"], [written], name=f"layer{i}"))
        if i < last:
            h = f"h{i}"
            nodes.append(helper.make_node("Relu", [written], [h], name=f"relu{i}"))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])
        for name, size in (("x", sizes[0]), ("z", sizes[-1]))
    ]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = _IR
    return model


def _uniform(seed: int, layer: int, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform numbers within -1 and 1."""
    words = expand_words(Seed(seed.to_bytes(32, "big")).derive("weights", layer), shape, 64)
    return words.astype(np.float64) / 2.0**63 - 1.0
