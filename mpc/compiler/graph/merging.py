"""Two linear nodes as one: what `passes.fold_linear` can merge, and when it is worth it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mpc.compiler.graph.graph import Node, Shape
from mpc.wires import BATCH

Attributes = dict[str, Any]


def merge(first: Node, second: Node, shape: Shape) -> Node | None:
    """second(first(x)) as one node, if both are linear and it is not larger than the two.

    Args:
        shape: of x.
    """
    handler = _MERGES.get((first.op, second.op))
    if handler is None or len(first.reads) > 1 or len(second.reads) > 1 or "known" in second.attributes:
        return None
    found = _arrays(handler(first, second, shape))
    if found is None:
        return None
    op = first.op if second.op == "scale" else second.op
    if second.attributes.get("signs"):
        found["signs"] = True
    return replace(second, op=op, reads=first.reads, attributes=found)


def absorbed(first: Attributes, second: Node, shape: Shape) -> Attributes | None:
    """What changes of a linear node if it reads x, of this shape, where it read x weight + bias; None if it cannot."""
    scaling = Node("scale", (), "", shape, second.origin, first)
    found = _arrays(_MERGES["scale", second.op](scaling, second, shape))
    if found is not None and second.op == "matmul" and found["bias"].shape[:-1].count(1) == found["bias"].ndim - 1:
        found["bias"] = found["bias"].reshape(-1)
    return found


def _arrays(found: Attributes | None) -> Attributes | None:
    """Numbers that numpy made of arrays without axes are such arrays again."""
    if found is None:
        return None
    return {name: np.asarray(value) if isinstance(value, np.generic) else value for name, value in found.items()}


def _scale_scale(first: Node, second: Node, shape: Shape) -> Attributes | None:
    a, b = first.attributes, second.attributes
    return {"weight": a["weight"] * b["weight"], "bias": _sum(_times(a["bias"], b["weight"]), b["bias"])}


def _matmul_scale(first: Node, second: Node, shape: Shape) -> Attributes | None:
    a, b = first.attributes, second.attributes
    if not _varies_only(b["weight"], -1) or first.shape != second.shape:
        return None
    columns = b["weight"].reshape(-1)
    return {"weight": a["weight"] * columns, "bias": _sum(_times(a["bias"], b["weight"]), b["bias"])}


def _conv_scale(first: Node, second: Node, shape: Shape) -> Attributes | None:
    a, b = first.attributes, second.attributes
    rank = len(first.shape)
    if not _varies_only(b["weight"], 1 - rank) or first.shape != second.shape:
        return None
    filters = b["weight"].reshape(-1, *[1] * (rank - 1))
    return {**a, "weight": a["weight"] * filters, "bias": _sum(_times(a["bias"], b["weight"]), b["bias"])}


def _scale_matmul(first: Node, second: Node, shape: Shape) -> Attributes | None:
    a, b = first.attributes, second.attributes
    if not _varies_only(a["weight"], -1) or first.shape != shape:
        return None
    weight = a["weight"].reshape(-1, 1) * b["weight"]
    if a["bias"] is None:
        return {"weight": weight, "bias": b["bias"]}
    offset = np.broadcast_to(a["bias"], (*a["bias"].shape[:-1], weight.shape[-2])) @ b["weight"]
    return {"weight": weight, "bias": _sum(offset, b["bias"])}


def _scale_conv(first: Node, second: Node, shape: Shape) -> Attributes | None:
    a, b = first.attributes, second.attributes
    rank, windows = len(shape), b["windows"]
    if not _varies_only(a["weight"], 1 - rank) or first.shape != shape:
        return None
    channels = int(shape[1])
    per_channel = np.broadcast_to(a["weight"].reshape(-1), (channels,)).reshape(windows.groups, -1)
    grouped = b["weight"].reshape(windows.groups, -1, *b["weight"].shape[1:])
    weight = grouped * per_channel.reshape(windows.groups, 1, -1, *[1] * (rank - 2))
    found = {"weight": weight.reshape(b["weight"].shape), "bias": b["bias"], "windows": windows}
    if a["bias"] is None:
        return found
    sizes = tuple(1 if d == BATCH else int(d) for d in shape)
    if a["bias"].ndim == rank and a["bias"].shape[0] > 1:
        return None
    offset = windows.convolve(np.broadcast_to(a["bias"], (1, *sizes[1:])), b["weight"])
    if not np.any(windows.pads) and all(size == 1 for size in a["bias"].shape[2 - rank :]):  # equal everywhere
        offset = offset.reshape(*offset.shape[:2], -1)[..., :1].reshape(*offset.shape[:2], *[1] * (rank - 2))
    return {**found, "bias": _sum(offset, b["bias"])}


def _matmul_matmul(first: Node, second: Node, shape: Shape) -> Attributes | None:
    a, b = first.attributes, second.attributes
    if a["weight"].ndim != 2 or b["weight"].ndim != 2 or (a["bias"] is not None and a["bias"].shape[-1:] == (1,)):
        return None
    if a["weight"].shape[0] * b["weight"].shape[1] > a["weight"].size + b["weight"].size:
        return None
    bias = None if a["bias"] is None else a["bias"] @ b["weight"]
    return {"weight": a["weight"] @ b["weight"], "bias": _sum(bias, b["bias"])}


Bias = np.ndarray | None
"""None where a model has none: one that is all zeros counts as any other, since plans show which are there."""


def _sum(left: Bias, right: Bias) -> Bias:
    return left if right is None else right if left is None else left + right


def _times(bias: Bias, factors: np.ndarray) -> Bias:
    return None if bias is None else bias * factors


def _varies_only(values: np.ndarray, axis: int) -> bool:
    """Is an array that broadcasts constant along all axes but one, counted from the end?"""
    return values.size == 1 or (values.ndim >= -axis and values.shape[axis] == values.size)


_MERGES = {
    ("scale", "scale"): _scale_scale,
    ("matmul", "scale"): _matmul_scale,
    ("conv", "scale"): _conv_scale,
    ("scale", "matmul"): _scale_matmul,
    ("scale", "conv"): _scale_conv,
    ("matmul", "matmul"): _matmul_matmul,
}
