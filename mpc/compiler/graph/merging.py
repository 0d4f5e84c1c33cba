"""Two linear nodes as one: what `passes.fold_linear` can merge, and when it is worth it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mpc.compiler.graph.attributes import Affine, Filters, Weighted
from mpc.compiler.graph.graph import Node, Shape
from mpc.wires import BATCH

Handler = Callable[[Node, Node, Shape], Weighted | None]


def merge(first: Node, second: Node, shape: Shape) -> Node | None:
    """Return second(first(x)) as one node, if both are linear and it is not larger than the two.

    Args:
        shape: of x.
    """
    handler = _MERGES.get((first.op, second.op))
    if handler is None or len(first.reads) > 1 or len(second.reads) > 1 or second.attributes.known is not None:
        return None
    public = first.of(Weighted).public
    if public is not second.of(Weighted).public:  # what is made of a secret and a public weight is secret
        return None
    found = handler(first, second, shape)
    if found is None:
        return None
    op = first.op if second.op == "scale" else second.op
    if second.only_signs and isinstance(found, Affine):
        found = replace(found, signs=True)
    return replace(second, op=op, reads=first.reads, attributes=replace(_arrays(found), public=public))


def absorbed(first: Weighted, second: Node, shape: Shape) -> Weighted | None:
    """Return the attributes of a linear node that reads x, of this shape, where it read x weight + bias; None if it
    cannot.
    """
    scaling = Node("scale", (), "", shape, second.origin, first)
    found = _MERGES["scale", second.op](scaling, second, shape)
    if found is None:
        return None
    found = _arrays(found)
    weight, bias = found.weight, found.bias
    if second.op == "matmul" and bias is not None and bias.shape[:-1].count(1) == bias.ndim - 1:
        bias = bias.reshape(-1)
    return replace(second.of(Weighted), weight=weight, bias=bias)


def _arrays(found: Weighted) -> Weighted:
    """Numbers that numpy made of arrays without axes are such arrays again."""
    bias = None if found.bias is None else np.asarray(found.bias)
    return replace(found, weight=np.asarray(found.weight), bias=bias)


def _scale_scale(first: Node, second: Node, shape: Shape) -> Weighted | None:
    a, b = first.of(Weighted), second.of(Weighted)
    return Weighted(weight=a.weight * b.weight, bias=_sum(_times(a.bias, b.weight), b.bias))


def _matmul_scale(first: Node, second: Node, shape: Shape) -> Weighted | None:
    a, b = first.of(Affine), second.of(Weighted)
    if not _varies_only(b.weight, -1) or first.shape != second.shape:
        return None
    columns = b.weight.reshape(-1)
    return Affine(weight=a.weight * columns, bias=_sum(_times(a.bias, b.weight), b.bias))


def _conv_scale(first: Node, second: Node, shape: Shape) -> Weighted | None:
    a, b = first.of(Filters), second.of(Weighted)
    rank = len(first.shape)
    if not _varies_only(b.weight, 1 - rank) or first.shape != second.shape:
        return None
    filters = b.weight.reshape(-1, *[1] * (rank - 1))
    return replace(a, weight=a.weight * filters, bias=_sum(_times(a.bias, b.weight), b.bias))


def _scale_matmul(first: Node, second: Node, shape: Shape) -> Weighted | None:
    a, b = first.of(Weighted), second.of(Affine)
    if not _varies_only(a.weight, -1) or first.shape != shape:
        return None
    weight = a.weight.reshape(-1, 1) * b.weight
    if a.bias is None:
        return Affine(weight=weight, bias=b.bias)
    offset = np.broadcast_to(a.bias, (*a.bias.shape[:-1], weight.shape[-2])) @ b.weight
    return Affine(weight=weight, bias=_sum(offset, b.bias))


def _scale_conv(first: Node, second: Node, shape: Shape) -> Weighted | None:
    a, b = first.of(Weighted), second.of(Filters)
    rank, windows = len(shape), b.windows
    if not _varies_only(a.weight, 1 - rank) or first.shape != shape:
        return None
    channels = int(shape[1])
    per_channel = np.broadcast_to(a.weight.reshape(-1), (channels,)).reshape(windows.groups, -1)
    grouped = b.weight.reshape(windows.groups, -1, *b.weight.shape[1:])
    weight = grouped * per_channel.reshape(windows.groups, 1, -1, *[1] * (rank - 2))
    found = Filters(weight=weight.reshape(b.weight.shape), bias=b.bias, windows=windows)
    if a.bias is None:
        return found
    sizes = tuple(1 if d == BATCH else int(d) for d in shape)
    if a.bias.ndim == rank and a.bias.shape[0] > 1:
        return None
    offset = windows.convolve(np.broadcast_to(a.bias, (1, *sizes[1:])), b.weight)
    if not np.any(windows.pads) and all(size == 1 for size in a.bias.shape[2 - rank :]):  # equal everywhere
        offset = offset.reshape(*offset.shape[:2], -1)[..., :1].reshape(*offset.shape[:2], *[1] * (rank - 2))
    return replace(found, bias=_sum(offset, b.bias))


def _matmul_matmul(first: Node, second: Node, shape: Shape) -> Weighted | None:
    a, b = first.of(Affine), second.of(Affine)
    if a.weight.ndim != 2 or b.weight.ndim != 2 or (a.bias is not None and a.bias.shape[-1:] in ((), (1,))):
        return None
    if a.weight.shape[0] * b.weight.shape[1] > a.weight.size + b.weight.size:
        return None
    bias = None if a.bias is None else a.bias @ b.weight
    return Affine(weight=a.weight @ b.weight, bias=_sum(bias, b.bias))


Bias = np.ndarray | None
"""None where a model has none: one that is all zeros counts as any other, since plans show which are there."""


def _sum(left: Bias, right: Bias) -> Bias:
    return left if right is None else right if left is None else left + right


def _times(bias: Bias, factors: np.ndarray) -> Bias:
    return None if bias is None else bias * factors


def _varies_only(values: np.ndarray, axis: int) -> bool:
    """Is an array that broadcasts constant along all axes but one, counted from the end?"""
    return values.size == 1 or (values.ndim >= -axis and values.shape[axis] == values.size)


_MERGES: dict[tuple[str, str], Handler] = {
    ("scale", "scale"): _scale_scale,
    ("matmul", "scale"): _matmul_scale,
    ("conv", "scale"): _conv_scale,
    ("scale", "matmul"): _scale_matmul,
    ("scale", "conv"): _scale_conv,
    ("matmul", "matmul"): _matmul_matmul,
}
