"""Multiply with one public factor, add constants, and have a constant as a value."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np

from mpc import fixedpoint
from mpc.compiler.graph.attributes import Constant, Weighted
from mpc.compiler.graph.graph import Node, Shape, simple_factor, static
from mpc.compiler.lowering.builder import LINEAR_BITS, Lowering
from mpc.compiler.lowering.emitted import Value
from mpc.compiler.lowering.intervals import Interval
from mpc.compiler.lowering.rules.products import (
    EXACT_BITS,
    FACTOR_FRACTION,
    affine,
    fraction_bits,
    magnitude_of,
    spread_of,
)
from mpc.compiler.lowering.rules.together import scaled_norms
from mpc.compiler.lowering.scales import log2
from mpc.wires import broadcast

_BITS, _FINEST = 12, 40
"""Bits that a lone constant has of its own, and fractional bits that it has at most for that."""


def scale(state: Lowering, node: Node) -> Value:
    """Multiply and add secret constants; a lone simple factor, like 2 or 1/8, is public and multiplies nothing."""
    x, weight, bias = state.values[node.reads[0]], node.of(Weighted).weight, node.of(Weighted).bias
    factor = simple_factor(weight)
    if factor is None:
        product = broadcast(x.shape, weight.shape)
        if bias is None or product is None or product == node.shape:
            return affine(state, node)
        small = replace(node, shape=product, attributes=replace(node.of(Weighted), bias=None, known=None, usual=None))
        x, weight, factor = affine(state, small), np.ones(()), Fraction(1)  # it is the bias that repeats the product
    if factor == 0:
        raise node.origin.refuse("it multiplies with zero", remedy="leave it out of the model: its result is zero")
    if broadcast(x.shape, () if bias is None else bias.shape) != node.shape:  # it is the weight that repeats x
        x = _repeated(state, x, node.shape)
    largest = 0.0 if bias is None else float(np.abs(bias).max(initial=0.0)) * float(x.scale / abs(factor))
    if math.isfinite(largest) and (over := math.frexp(largest)[1] - LINEAR_BITS) > 0:  # x is finer than it can be
        x = state.shorten(x, log2(x.scale) - over)
    scale = x.scale / abs(factor)
    norms = scaled_norms(x, weight, bias) if x.shape == node.shape else None
    if bias is None:
        plain = x.norms and x.norms.plain and x.shape == node.shape
        norms = x.norms.times(float(factor)) if x.norms and plain else norms
        found = state.combine([x], [1 if factor > 0 else -1], node.shape, scale)
        return replace(found, norms=norms)
    spread = spread_of(bias, scale)
    if spread and bias.size == 1:  # a little that is added to whole numbers may be all there is
        lacking = _BITS - math.frexp(float(np.abs(bias).max()) * float(scale))[1]
        spread = max(spread, min(lacking, _FINEST - log2(scale), LINEAR_BITS - 1 - x.wire.bits))
    scale *= 1 << spread
    offset = fixedpoint.encode(bias, scale, "a constant")
    sign = (1 << spread) if factor > 0 else -(1 << spread)
    interval = x.interval.times(sign).plus(Interval.exactly(offset))
    stored = state.stored(offset, scale)
    found = state.add("combine", node.shape, scale, interval, xs=(x.wire.name,), factors=(sign,), stored=stored)
    return replace(found, norms=norms)


def _repeated(state: Lowering, x: Value, shape: Shape) -> Value:
    """x in a shape that it broadcasts to."""
    if len(x.shape) < len(shape):
        x = state.reshape(x, (1,) * (len(shape) - len(x.shape)) + x.shape)
    for axis, (before, after) in enumerate(zip(x.shape, shape, strict=True)):
        if before != after:
            x = state.take(x, axis, (0,) * int(after))
    return x


def constant(state: Lowering, node: Node) -> Value:
    """Return a weight as a value, the same for every row; its mask is that of the weight."""
    weight = node.of(Constant).weight
    exact = fraction_bits(weight, EXACT_BITS - 1)
    exponent = FACTOR_FRACTION if exact is None else exact
    scale = Fraction(2) ** min(exponent, 50 - magnitude_of(weight))
    integers = fixedpoint.encode(weight, scale, "a constant")
    interval = Interval.exactly(integers).broadcast_to(static(node.shape))
    return state.add("combine", node.shape, scale, interval, xs=(), factors=(), stored=state.stored(integers, scale))
