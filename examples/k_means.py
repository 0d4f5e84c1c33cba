"""K-means on flowers that nobody sees: they enter once, and both they and the centres go from run to run masked.

Needs `pip install scikit-learn`.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_iris

from parties import Cluster, State

STEPS, CENTRES = 6, 3


def model(flowers: int, columns: int) -> onnx.ModelProto:
    """One step of Lloyd's algorithm: every flower joins the nearest centre, every centre moves to their mean."""
    node = helper.make_node
    nodes = [
        node("Transpose", ["c"], ["across"]),
        node("MatMul", ["x", "across"], ["products"]),
        node("Mul", ["products", "two"], ["twice"]),
        node("Mul", ["c", "c"], ["squares"]),
        node("ReduceSum", ["squares", "last"], ["sizes"], keepdims=0),
        node("Sub", ["sizes", "twice"], ["far"]),  # the square distance less |x|^2, which all centres have
        node("ArgMin", ["far"], ["nearest"], axis=1, keepdims=0),
        node("OneHot", ["nearest", "centres", "bits"], ["member"], axis=-1),
        node("Transpose", ["member"], ["members"]),
        node("MatMul", ["members", "x"], ["sums"]),
        node("ReduceSum", ["members", "last"], ["count"], keepdims=1),
        node("Max", ["count", "one"], ["some"]),
        node("Div", ["sums", "some"], ["mean"]),
        node("Clip", ["mean", "low", "high"], ["c_out"]),
        node("Identity", ["x"], ["x_out"]),
    ]
    constants = {
        "two": np.float32(2),
        "last": np.array([1]),
        "centres": np.array(CENTRES),
        "bits": np.array([0, 1], np.float32),
        "one": np.float32(1),
        "low": np.float32(-1),
        "high": np.float32(1),
    }
    sizes = {"x": [flowers, columns], "c": [CENTRES, columns]}
    graph = helper.make_graph(
        nodes,
        "k-means",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items()],
        [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, size) for name, size in sizes.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def step(x: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The same step in the clear."""
    nearest = np.square(x[:, None] - c).sum(axis=2).argmin(axis=1)
    return np.stack([x[nearest == k].mean(axis=0) for k in range(CENTRES)])


def main() -> None:
    flowers = load_iris().data
    low, high = flowers.min(axis=0), flowers.max(axis=0)
    x = 2 * (flowers - low) / (high - low) - 1
    start = x[[10, 60, 110]]

    # The centres are told after each step, the flowers never: of both the next run reads what this one leaves.
    state = {"c_out": State("c", start=start, public=True), "x_out": State("x", start=x)}
    with Cluster.local(parties=2) as cluster:
        session = cluster.session(model(*x.shape), (-1, 1), recipients={"c_out": "coordinator"}, state=state)
        centres = start
        for number in range(1, STEPS + 1):
            [found] = session.run(["c_out"])
            centres = step(x, centres)
            print(f"step {number}: off by {np.abs(found - centres).max():.1e} of the step in the clear")
        report = session.last_run
    close = np.abs(found - centres).max() < 1e-3
    print(f"{report.rounds} rounds and {report.sent_bytes:,} bytes a step; within 1e-3 at the end: {close}")


if __name__ == "__main__":
    main()
