"""Intervals as nodes of the graph know them: cut to what is known of a node's values, and as large as on samples."""

from __future__ import annotations

from fractions import Fraction
from functools import partial

import numpy as np

from mpc.compiler.graph.attributes import Ends, Filters, Moments, Sliding
from mpc.compiler.graph.graph import Node
from mpc.compiler.lowering.intervals import Interval, Product
from mpc.windows import Windows


def product_of(node: Node) -> Product:
    """Return the bilinear map of a matmul, conv, scale or multiply, over numbers in the clear."""
    if node.op == "matmul":
        return _multiplied
    if isinstance(node.attributes, Sliding):
        return partial(_slid, node.attributes.windows)
    if isinstance(node.attributes, Filters):
        return node.attributes.windows.convolve
    return np.multiply


def _multiplied(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Multiply the bounds of two matrices; of rows of the first that are all alike, and columns of the second, one."""
    if x.ndim < 2 or y.ndim < 2:
        return np.matmul(x, y)
    row = x[..., :1, :] if _alike(x, -2) else x
    column = y[..., :1] if _alike(y, -1) else y
    found = np.matmul(row, column)
    return np.broadcast_to(found, (*found.shape[:-2], x.shape[-2], y.shape[-1]))


def _slid(windows: Windows, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Convolve the bounds of two values; those of a batch, which all rows share, once.

    Forwards rows are the first axis; in the gradient of filters they are channels, and all alike in both.
    """
    if len(x) > 1 and _alike(x, 0):
        one = windows.convolve(x[:1], weight)
        return np.broadcast_to(one, (len(x), *one.shape[1:]))
    if windows.groups == 1 and _alike(x, 1) and _alike(weight, 1):
        return x.shape[1] * windows.convolve(x[:, :1], weight[:, :1])
    return windows.convolve(x, weight)


def _alike(values: np.ndarray, axis: int) -> bool:
    """Are all parts of an array along an axis equal to the first?"""
    first = values.take([0], axis)  # of weights the last one differs, and nearly always
    return bool((values.take([-1], axis) == first).all() and (values == first).all())


def known_interval(interval: Interval, scale: Fraction, node: Node) -> Interval:
    """Cut to what the node knows of its values, with room for roundings."""
    found = _cut(interval, scale, node.attributes.known)
    usual = node.attributes.usual
    return found if usual is None else _usually(found, interval.error, scale, usual)


def known_bound(low: np.ndarray, high: np.ndarray, scale: Fraction, node: Node) -> float:
    """Return the bound of `known_interval`, of which it needs to know the ends only."""
    zeros = np.zeros(low.shape)
    return _cut(Interval(low, high, zeros, zeros, zeros), scale, node.attributes.known).bound


def _usually(interval: Interval, error: np.ndarray, scale: Fraction, usual: Moments) -> Interval:
    """As large as it is on samples: then no error is smaller because values turn out to be."""
    mean, variance = (
        np.broadcast_to(part, interval.low.shape) * float(scale) ** power for power, part in enumerate(usual, 1)
    )
    mean = np.clip(mean, interval.low, interval.high)
    return Interval(interval.low, interval.high, np.broadcast_to(error, mean.shape), mean, variance)


def _cut(interval: Interval, scale: Fraction, known: Ends | None) -> Interval:
    if known is None:
        return interval
    low, high = known
    unit = float(scale)
    low = low * 0.98 if low > 0 else low * 1.02 - 2.0**-10
    high = high * 1.02 + 2.0**-10 if high >= 0 else high * 0.98
    if scale == 1:
        return interval.within(np.ceil(low), np.floor(high))
    return interval.within(low * unit, high * unit)
