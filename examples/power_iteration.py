"""The first principal component of a table that nobody sees, by power iteration: only the last vector is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from parties import Cluster, State

HERE = Path(__file__).resolve().parent
STEPS = 12


def model(rows: int, columns: int) -> onnx.ModelProto:
    """One step: v becomes x' x v, of length 1.  What is told is v times `show`, which is 0 until the last step."""
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "v"], ["along"]),
        node("Transpose", ["x"], ["across"]),
        node("MatMul", ["across", "along"], ["longer"]),
        node("LpNormalization", ["longer"], ["unit"], axis=0, p=2),
        node("Clip", ["unit", "low", "high"], ["v_out"]),
        node("Identity", ["x"], ["x_out"]),
        node("Mul", ["v_out", "show"], ["told"]),
    ]
    sizes = {"x": [rows, columns], "v": [columns, 1]}
    graph = helper.make_graph(
        nodes,
        "power iteration",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in {**sizes, "show": [1]}.items()],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, size)
            for name, size in {"told": [columns, 1], "x_out": [rows, columns], "v_out": [columns, 1]}.items()
        ],
        [numpy_helper.from_array(np.float32(end), name) for name, end in (("low", -1), ("high", 1))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main() -> None:
    table = np.load(HERE / "breast_cancer_test.npz")["x"][:, :10]
    x = np.clip(table / 4, -1, 1)
    rows, columns = x.shape
    start = np.full((columns, 1), columns**-0.5)

    state = {"v_out": State("v", start=start, public=True), "x_out": State("x", start=x)}
    ranges = {"x": (-1, 1), "v": (-1, 1), "show": (0, 1)}
    with Cluster.local(parties=2) as cluster, cluster.session(model(rows, columns), ranges, state=state) as session:
        for number in range(1, STEPS + 1):
            [told] = session.run(None, {"show": np.array([number == STEPS], np.float32)})
            if number < STEPS:
                assert np.abs(told).max() < 1e-3, "nothing is told before the last step"
        report = session.last_run

    first = np.linalg.svd(x, full_matrices=False)[2][0]
    likeness = abs(float(told[:, 0] @ first)) / np.linalg.norm(told)
    print(f"{STEPS} steps of {report.rounds} rounds and {report.sent_bytes:,} bytes each")
    print(f"cosine of the angle to the first principal component: {likeness:.4f}")


if __name__ == "__main__":
    main()
