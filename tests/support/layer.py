"""One small model with secret weights, compiled, and a run of it whose answer is checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import helper

from mpc.compiler.compile import Compiled, compile_model
from parties import Session
from tests.support.graphs import save_model

X = np.array([[0.5, -0.25, 1.0]], np.float32)
WEIGHT = np.array([[0.5, -1.0], [0.25, 1.5], [0.75, 0.5]], np.float32)


def compile_layer(folder: Path) -> Compiled:
    """Compile a layer with a ReLU behind it."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["d"]), helper.make_node("Relu", ["d"], ["y"])]
    return compile_model(save_model(folder, nodes, {"w": WEIGHT}, ("batch", 3)), (-1.0, 1.0))


def run(session: Session) -> None:
    """Run it on one row, and require the right answer."""
    [y] = session.run(None, {"x": X})
    assert np.abs(y - np.maximum(X @ WEIGHT, 0)).max() < 1e-3
