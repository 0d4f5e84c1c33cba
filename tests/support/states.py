"""Models that hand something on from run to run, and what they compute in the clear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.graph.states import State
from mpc.compiler.roles import Roles

ROWS, FEATURES = 8, 3
RATE = 1 / 32
RANGES = {"x": (-1.0, 1.0), "y": (-7.0, 7.0), "w": (-4.0, 4.0)}


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    constants: Mapping[str, np.ndarray | float] | None = None,
) -> onnx.ModelProto:
    """A model of float32, with several inputs."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def descent() -> onnx.ModelProto:
    """One step of least squares: w_out = clip(w - RATE x' (x w - y)), and the mean square error before it."""
    node = helper.make_node
    return model(
        [
            node("MatMul", ["x", "w"], ["p"]),
            node("Sub", ["p", "y"], ["d"]),
            node("Transpose", ["x"], ["t"]),
            node("MatMul", ["t", "d"], ["g"]),
            node("Mul", ["g", "rate"], ["u"]),
            node("Sub", ["w", "u"], ["v"]),
            node("Clip", ["v", "low", "high"], ["w_out"]),
            node("Mul", ["d", "d"], ["s"]),
            node("ReduceMean", ["s"], ["loss"], axes=[0], keepdims=0),
        ],
        {"x": [ROWS, FEATURES], "y": [ROWS, 1], "w": [FEATURES, 1]},
        {"loss": [1], "w_out": [FEATURES, 1]},
        {"rate": RATE, "low": -4.0, "high": 4.0},
    )


def data(number: int) -> dict[str, np.ndarray]:
    """Rows of one run: y = x (1, -2, 3)' and a little more."""
    rng = np.random.default_rng(number)
    x = rng.uniform(-1, 1, (ROWS, FEATURES)).astype(np.float32)
    y = x @ np.array([[1.0], [-2.0], [3.0]]) + rng.normal(0, 0.01, (ROWS, 1))
    return {"x": x, "y": y.astype(np.float32)}


def stepped(w: np.ndarray, feeds: Mapping[str, np.ndarray]) -> tuple[np.ndarray, float]:
    """The next w, and the error with this one, on reals."""
    x, d = feeds["x"].astype(np.float64), feeds["x"].astype(np.float64) @ w - feeds["y"]
    return np.clip(w - RATE * x.T @ d, -4, 4), float(np.square(d).mean())


def compiled(
    roles: Roles | None = None, start: np.ndarray | None = None, *, public: bool = False, outputs: bool = True
) -> Compiled:
    """The step as a plan with its state."""
    return _compiled(
        roles or Roles(), None if start is None else (start.tobytes(), start.dtype.str, start.shape), public, outputs
    )


@cache
def _compiled(roles: Roles, start: tuple[bytes, str, tuple[int, ...]] | None, public: bool, outputs: bool) -> Compiled:
    made = descent()
    if not outputs:
        del made.graph.output[0]
    first = None if start is None else np.frombuffer(start[0], np.dtype(start[1])).reshape(start[2])
    return compile_model(made, RANGES, roles, states={"w_out": State("w", first, public)})
