"""Distances to constant points: CDist, and the Scan over training rows that skl2onnx writes for it.

Squared ones are |x|^2 - 2 x v + |v|^2, one product for all points.
"""

from __future__ import annotations

import numpy as np

from mpc.compiler.operators.context import Body, Context, ModelNode, Settings
from mpc.compiler.operators.elementwise import magnitude
from mpc.compiler.operators.linear import table
from mpc.compiler.operators.registry import handles

_SQUARED = ("Sub", "ReduceSumSquare")
_ABSOLUTE = ("Sub", "Abs", "ReduceSum")


def squared(state: Context, x: str, points: np.ndarray) -> str:
    """Return squared distances, (rows, points)."""
    square = state.total(state.multiply(x, x), (1,))
    crossed = state.affine(x, -2.0 * points.T, np.square(points).sum(axis=1))
    return state.sum((crossed, square), (1.0, 1.0), known=(0.0, np.inf))


def absolute(state: Context, x: str, points: np.ndarray) -> str:
    """Return distances (rows, points), sums of absolute differences."""
    rows, features = state.shapes[x]
    number = len(points)
    each = state.take(state.reshape(x, (rows, 1, features)), 1, [0] * number)
    total = state.total(magnitude(state, state.scale(each, 1.0, -points)), (2,))
    return state.reshape(total, (rows, number))


def _points(state: Context, name: str, features: int) -> np.ndarray:
    points = state.numbers(name, "the other points")
    if points.ndim != 2 or points.shape[1] != features:
        raise state.origin.refuse(
            f"points of shape {points.shape} for {features} features",
            remedy=f"give a matrix of points, {features} numbers a row",
        )
    state.require_finite(points)
    return points


@handles("CDist", domain="com.microsoft")
def c_dist(state: Context, node: ModelNode, settings: Settings) -> None:
    metric = settings.get("metric", b"sqeuclidean").decode()
    if metric not in ("sqeuclidean", "euclidean"):
        raise state.origin.refuse(
            f"the metric {metric}",
            attribute="metric",
            remedy=(
                "use the metric euclidean or sqeuclidean, or compute the distance with Sub, Abs or Mul, and ReduceSum"
            ),
        )
    x, features = table(state, node.input[0])
    distances = squared(state, x, _points(state, node.input[1], features))
    if metric == "euclidean":
        state.function("sqrt", distances, node.output[0])
    else:
        state.reshape(distances, state.shapes[distances], node.output[0])


def scanned(state: Context, node: ModelNode, settings: Settings) -> bool:
    """Write what a scan over constant rows finds, each of which is compared with the one state, the input.

    False, and nothing is written, if it is another scan.
    """
    kind = _kind(state.body(settings["body"])) if len(node.input) == 2 and state.is_constant(node.input[1]) else None
    if kind is None or settings.get("num_scan_inputs") != 1 or not state.unused(node, 0):
        return False
    x, features = table(state, node.input[0])
    points = _points(state, node.input[1], features)
    distances = squared(state, x, points) if kind == _SQUARED else absolute(state, x, points)
    state.transpose(distances, (1, 0), node.output[1])
    return True


def _along_rows(node: ModelNode, constants: dict[str, list[int]]) -> bool:
    """Does a node add up over the features, if it adds up at all?"""
    if not node.op_type.startswith("Reduce"):
        return True
    axes = node.settings.get("axes", constants.get(node.input[-1]))
    return axes in ([1], [-1]) and node.settings.get("keepdims") == 0


def _kind(body: Body) -> tuple[str, ...] | None:
    """Which distance a body computes between its state and a row; it passes the state on."""
    chain = list(body.inputs)
    constants = {name: values.tolist() for name, values in body.constants.items()}
    found: list[str] = []
    current = ""
    for node in body.nodes:
        reads = [name for name in node.input if name not in constants]
        if node.op_type == "Identity" and reads == chain[:1] and node.output[0] == body.outputs[0]:
            continue
        if node.op_type == "Identity" and reads == [current]:
            current = node.output[0]
        elif reads == (chain if not found else [current]) and _along_rows(node, constants):
            found.append(node.op_type)
            current = node.output[0]
        else:
            return None
    kinds = [kind for kind in (_SQUARED, _ABSOLUTE) if tuple(found) == kind]
    return kinds[0] if kinds and len(body.outputs) == 2 and current == body.outputs[1] else None
