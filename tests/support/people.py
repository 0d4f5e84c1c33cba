"""Several people with one model: alice coordinates, others own inputs and receive outputs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.effort import patient

PATIENCE = patient(60.0)
RANGES = {"x1": (-4.0, 4.0), "x2": (-4.0, 4.0)}
_WEIGHT = np.array([[0.5, -1.0, 0.625], [0.25, 1.5, -0.75]], dtype=np.float32)


def shared_model(path: Path) -> Path:
    """x1, x2 [batch, 3] -> Add -> Gemm -> Relu -> y [batch, 2]; and their product, times 1/2, -> p [batch, 3]."""
    nodes = [
        helper.make_node("Add", ["x1", "x2"], ["s"], "sum"),
        helper.make_node("Gemm", ["s", "w", "b"], ["g"], "gemm", transB=1),
        helper.make_node("Relu", ["g"], ["y"], "relu"),
        helper.make_node("Mul", ["x1", "x2"], ["m"], "product"),
        helper.make_node("Mul", ["m", "half"], ["p"], "halved"),
    ]
    constants = {"w": _WEIGHT, "b": np.array([0.1, -0.2], np.float32), "half": np.array(0.5, np.float32)}
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "shared",
        [value(name, TensorProto.FLOAT, ["batch", 3]) for name in RANGES],
        [value("y", TensorProto.FLOAT, ["batch", 2]), value("p", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(constant, name) for name, constant in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)
    return path


def shared_answers(x1: np.ndarray, x2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(y, p) in the clear."""
    return np.maximum((x1 + x2) @ _WEIGHT.T + np.array([0.1, -0.2]), 0), x1 * x2 / 2


class Together:
    """Calls that wait for each other, each in a thread of its own.

    Args:
        outcomes: name -> what the call returned, or the error that it raised.
    """

    def __init__(self, **calls: Callable[[], Any]) -> None:
        self.outcomes: dict[str, Any] = {}
        self._threads = [threading.Thread(target=self._one, args=call, daemon=True) for call in calls.items()]
        for thread in self._threads:
            thread.start()

    def _one(self, name: str, call: Callable[[], Any]) -> None:
        try:
            self.outcomes[name] = call()
        except Exception as error:
            self.outcomes[name] = error

    def wait(self, seconds: float = PATIENCE) -> dict[str, Any]:
        for thread in self._threads:
            thread.join(seconds)
            assert not thread.is_alive(), "a call still waits"
        return self.outcomes
