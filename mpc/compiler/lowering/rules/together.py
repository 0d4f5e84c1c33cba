"""Norms that follow from operators: each says what is known of the elements along an axis together."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np

from mpc.compiler.graph.attributes import Function, Sum, Total
from mpc.compiler.graph.graph import Node, static
from mpc.compiler.lowering.builder import Lowering
from mpc.compiler.lowering.emitted import Value
from mpc.compiler.lowering.intervals import Interval
from mpc.compiler.lowering.normalise import shortened_by
from mpc.compiler.lowering.norms import Image, Norms, by_elements

_ROOM = 1.02
"""By how much one over a root or a sum may be too large, beside it; series and octaves are far more precise."""
CONTRACTING = frozenset({"gelu", "gelu_tanh", "silu", "mish", "tanh"})
"""Functions whose result is no further from zero than their argument."""
_SERIES_OFF = 2.0**-10
"""Bounds what each of them may be off by."""
_UNITS = 2
"""Bounds what a value that is rounded may be off by, in its own units."""


def norms_of(x: Value, axis: int) -> Norms:
    """Return what is known of the vectors along an axis."""
    found = by_elements(x.interval, x.scale, axis)
    if x.norms is None or x.norms.axis != axis:
        return found
    return replace(x.norms, most=np.minimum(x.norms.most, found.most))


def total_of(x: Value) -> np.ndarray:
    """Return the largest size of the sum over the axis of x's norms."""
    norms = x.norms
    if norms is None:
        raise ValueError("nothing is known of its elements together")
    root = math.sqrt(norms.number)
    return norms.euclidean * root if norms.absolute is None else np.minimum(norms.absolute, norms.euclidean * root)


def norms_of_sum(state: Lowering, node: Node) -> Norms | None:
    """Return norms of a sum of which one operand at least has some that intervals do not know; else None."""
    xs, taken = [state.values[name] for name in node.reads], node.of(Sum)
    axis = next((x.norms.axis for x in xs if x.norms is not None and not x.norms.plain and _fits(x, node)), None)
    if axis is None:
        return None
    centred = _centred(state, node)
    if centred is not None:  # no row is longer, but what it loses elsewhere a part of it may gain, and so may sizes
        whole = norms_of(xs[centred], axis).times(taken.factors[centred])
        return replace(whole.moved(lambda norms: norms), absolute=None)
    parts = [_within(x, node, axis).times(factor) for x, factor in zip(xs, taken.factors, strict=True) if factor]
    total = parts[0]
    for part in parts[1:]:
        total = total.plus(part)
    return total.longer(abs(taken.constant) * math.sqrt(total.number))


def _fits(x: Value, node: Node) -> bool:
    return x.norms is not None and x.shape == node.shape


def _within(x: Value, node: Node, axis: int) -> Norms:
    """Return norms of an operand as a sum reads it."""
    return norms_of(x if _fits(x, node) else Value(x.wire, x.interval.broadcast_to(static(node.shape))), axis)


def _centred(state: Lowering, node: Node) -> int | None:
    """Return the place of x in x - mean x, times a number, over the axis of its norms: that is no longer than x."""
    factors = node.of(Sum).factors
    if len(factors) != 2 or factors[0] != -factors[1] or node.of(Sum).constant:
        return None
    for place in (0, 1):
        x, mean = state.values[node.reads[place]], state.graph.writers.get(node.reads[1 - place])
        if mean is None or mean.op != "total" or mean.reads[0] != node.reads[place] or x.norms is None:
            continue
        if mean.of(Total).axes == (x.norms.axis,) and mean.of(Total).divisor == x.norms.number:
            return place
    return None


def divided(state: Lowering, node: Node) -> Norms | None:
    """Return what is known of a product of two values elementwise: x over its deviation, x over the sum of its
    elements, or x times numbers that are bounded; None of others.
    """
    for place in (0, 1):
        x, over = node.reads[place], state.graph.writers.get(node.reads[1 - place])
        if over is not None and over.op == "function" and state.values[x].shape == node.shape:
            name = over.of(Function).name
            found = _by_deviation(state, x, over) if name == "rsqrt" else None
            found = _by_norm(state, x, over) if over.of(Function).floor is not None else found
            found = _by_sum(state, x, over) if name == "reciprocal" and found is None else found
            if found is not None:
                return found
    xs = [state.values[name] for name in node.reads]
    for rows, numbers in (xs, xs[::-1]):
        if rows.norms is not None and not rows.norms.plain and rows.shape == node.shape:
            return replace(rows.norms.times(numbers.interval.bound / float(numbers.scale)), absolute=None)
    return None


def loosened(norms: Norms, *factors: tuple[Value, Value]) -> Norms:
    """Return norms of a product elementwise whose factors have been rounded, each given as it was and as it is."""
    (_, x), (_, y) = factors
    units = [0.0 if before is after else 1 / float(after.scale) for before, after in factors]
    sizes = [each.interval.bound / float(each.scale) for each in (x, y)]
    return norms.rounded(units[0] * sizes[1] + units[1] * sizes[0] + 1 / float(x.scale * y.scale))


def squares(x: Value, y: Value) -> Norms | None:
    """Return norms of x^2, whose elements' sum is the square of a norm of x; of the two, each may have been rounded."""
    if x.norms is None or y.norms is None or x.norms.plain:
        return None
    axis = x.norms.axis
    most = norms_of(x, axis).euclidean * norms_of(y, axis).euclidean
    return Norms(axis, x.norms.number, most, absolute=most)


def _by_deviation(state: Lowering, name: str, over: Node) -> Norms | None:
    """Return norms of x / sqrt(mean x^2 + epsilon): the root of the number of elements."""
    x, found = state.values[name], _room_of_deviation(state, name, over)
    if found is None or found[0] != (len(x.shape) - 1,):
        return None
    number = static(x.shape)[-1]
    most = _ROOM * found[1] * math.sqrt(number)
    return Norms(found[0][0], number, np.full((*static(x.shape)[:-1], 1), most))


def _room_of_deviation(state: Lowering, name: str, over: Node) -> tuple[tuple[int, ...], float] | None:
    """Return (axes, how many times longer than the root of their number) of x / sqrt(mean x^2 + epsilon), over axes.

    The squares are those of a rounded x, and their mean is rounded too: an x about as large as epsilon may be longer
    than they say.  With u what an element is off by, and d what the mean and epsilon are, no mean square q makes
    q / ((sqrt q - u)^2 + epsilon - d) larger than 1 + u^2 / (epsilon - d).  Where epsilon is a unit or less, the root's
    inverse, at most r, holds it: q r^2 grows with q and q / ((sqrt q - u)^2 - d) falls, and they meet where sqrt q is
    u + sqrt(d + 1 / r^2).
    """
    above = state.graph.writers.get(over.reads[0])
    if above is None or above.op != "sum" or above.of(Sum).factors != (1.0,) or above.of(Sum).constant <= 0:
        return None
    mean = state.graph.writers.get(above.reads[0])
    square = mean and mean.op == "total" and state.graph.writers.get(mean.reads[0])
    if not mean or not square or square.op != "multiply" or square.reads != (name, name):
        return None
    shape, axes = static(state.values[name].shape), mean.of(Total).axes
    if mean.of(Total).divisor != math.prod(shape[axis] for axis in axes):
        return None
    epsilon, scale = above.of(Sum).constant, float(state.values[mean.reads[0]].scale)
    unit = _UNITS / math.sqrt(scale)  # of x as it is squared: its scale is the root of the squares'
    off = _UNITS / scale + _UNITS / float(state.values[above.reads[0]].scale) + _off(state, over)
    most = state.values[over.writes].interval.bound / float(state.values[over.writes].scale)
    found = (unit + math.sqrt(off + most**-2)) * most
    return axes, found if 2 * off > epsilon else min(found, math.sqrt(1 + unit**2 / (epsilon - off)))


def with_room(state: Lowering, node: Node) -> Node:
    """Return a node whose known ends have room for what the argument of a root is off by.

    What is known of one over a root, and of x over its deviation, is so for real numbers: where epsilon is a few units
    of the argument only, its roundings make them larger.  Where they could be half of it, nothing is known of the root.
    """
    known, room = node.attributes.known, 1.0
    if known is None:
        return node
    if node.op == "function" and node.of(Function).name == "rsqrt" and math.isfinite(known[1]):
        part = _off(state, node) * known[1] ** 2
        room = math.inf if 2 * part > 1 else 1 / math.sqrt(1 - part)
    elif node.op == "multiply":
        for place in (0, 1):
            over = state.graph.writers.get(node.reads[1 - place])
            if over is not None and over.op == "function" and over.of(Function).floor is not None:
                room = _room_of_norm(state, over)
            elif over is not None and over.op == "function" and over.of(Function).name == "rsqrt":
                found = _room_of_deviation(state, node.reads[place], over)
                room = room if found is None else found[1]
    if room == 1.0:
        return node
    ends = None if math.isinf(room) else (min(known[0], known[0] * room), known[1] * room)
    return replace(node, attributes=replace(node.attributes, known=ends))


def _room_of_norm(state: Lowering, over: Node) -> float:
    """Return how large an element over its row's norm can be, where norms below a floor count as that.

    A norm is a sum of sizes, or the root of one of squares, and each of them is rounded before.  So a row may be longer
    than the norm that is found says, and one over that, by a series, is between its own ends below the floor.
    """
    floor, total = over.of(Function).floor or 0.0, state.graph.writers[over.reads[0]]
    axes, parts = total.of(Total).axes, state.values[total.reads[0]]
    number = math.prod(static(parts.shape)[axis] for axis in axes)
    off = number * _UNITS / float(state.values[total.writes].scale) + _off(state, over)
    each = number * _UNITS / float(_scale_of_sizes(state, total))
    most = state.values[over.writes].interval.bound / float(state.values[over.writes].scale)
    if over.of(Function).name == "rsqrt":
        return max(1.0, (math.sqrt(floor + off) + math.sqrt(number) * _UNITS / math.sqrt(parts.scale)) * most)
    return max(1.0, (floor + off + each) * most)


def _scale_of_sizes(state: Lowering, total: Node) -> Fraction:
    """Return the scale of what was rounded to add up sizes: |x| = 2 relu(x) - x, of a rounded x."""
    sizes = state.graph.writers.get(total.reads[0])
    return min(state.values[name].scale for name in (total.reads[0], *(sizes.reads if sizes else ())))


def _off(state: Lowering, over: Node) -> float:
    """Return what the argument of a power is off by, in the model's units: it is rounded, and rounded once more."""
    x = state.values[over.reads[0]]
    return _UNITS / float(x.scale) + _UNITS / float(x.scale) * 2.0 ** shortened_by(x)


def _by_norm(state: Lowering, name: str, over: Node) -> Norms | None:
    """Return norms of x over its own Euclidean norm, which below a floor counts as that."""
    x, total = state.values[name], state.graph.writers.get(over.reads[0])
    axis = len(x.shape) - 1
    square = None if total is None or total.op != "total" else state.graph.writers.get(total.reads[0])
    if total is None or square is None or square.op != "multiply" or square.reads != (name, name):
        return None
    if over.of(Function).name != "rsqrt" or total.of(Total).axes != (axis,) or total.of(Total).divisor != 1:
        return None
    most = np.full((*static(x.shape)[:-1], 1), _ROOM * _room_of_norm(state, over))
    return Norms(axis, static(x.shape)[-1], most)


def _by_sum(state: Lowering, name: str, over: Node) -> Norms | None:
    """Return norms of x over the sum of its elements, of which none is negative but by errors."""
    total = state.graph.writers.get(over.reads[0])
    x = state.values[name]
    axes = (len(x.shape) - 1,)
    if total is None or total.op != "total" or total.reads[0] != name or total.of(Total).axes != axes:
        return None
    least, negative = state.values[over.reads[0]].reals[0] - _off(state, over), max(0.0, -x.reals[0])
    number = static(x.shape)[-1]
    if least <= 0 or total.of(Total).divisor != 1 or 2 * number * negative > least:
        return None
    rounded = 1 + (2 * number * negative + _off(state, over)) / least
    most = np.full((*static(x.shape)[:-1], 1), _ROOM * rounded)
    return Norms(axes[0], number, most, absolute=most)


def product_norms(x: Value, y: Value) -> tuple[np.ndarray | None, Norms | None]:
    """Return (the largest size of each element, norms of the rows) of a matmul of two secrets; None of what is unknown.

    Both in the model's units.
    """
    if x.norms is None and y.norms is None:
        return None, None
    rows, columns = len(x.shape) - 1, len(y.shape) - 2
    mine = norms_of(x, rows)
    most = mine.euclidean * norms_of(y, columns).euclidean
    if mine.absolute is None:
        return most, None
    sizes = y.interval.size.max(axis=-2, keepdims=True) / float(y.scale)
    along = norms_of(y, len(y.shape) - 1)

    def weighted(norms: np.ndarray) -> np.ndarray:
        return mine.absolute * norms.max(axis=-2, keepdims=True)

    norms = Norms(rows, along.number, weighted(along.most), lambda: weighted(along.euclidean))
    return np.minimum(most, mine.absolute * sizes), norms


def affine_norms(x: Value, weight: np.ndarray, bias: np.ndarray | None, off: float) -> Norms | None:
    """Return norms of the rows x weight + bias, of a weight (k, n).

    Args:
        off: how far each number of the weight that is used can be from it.
    """
    if weight.ndim != 2 or len(x.shape) < 2 or (bias is not None and bias.ndim > 1):
        return None
    axis = len(x.shape) - 1
    of = norms_of(x, axis)
    image = Image(of, weight, bias, off * math.sqrt(weight.size))
    shape = (*static(x.shape)[:-1], 1)
    return Norms(axis, weight.shape[1], np.full(shape, np.inf), image=image, plain=of.plain)


def scaled_norms(x: Value, weight: np.ndarray, bias: np.ndarray | None) -> Norms | None:
    """Return norms of x weight + bias elementwise."""
    if x.norms is None or x.norms.plain:
        return None
    number = x.norms.number
    shift = 0.0 if bias is None else float(np.abs(bias).max(initial=0.0)) * math.sqrt(number)
    if bias is not None and bias.ndim == 1 and x.norms.axis == len(x.shape) - 1 and bias.size == number:
        shift = float(np.linalg.norm(bias))
    return x.norms.times(float(np.abs(weight).max(initial=0.0))).longer(shift)


def within_rows(interval: Interval, x: Value, weight: np.ndarray, offset: np.ndarray | None) -> Interval:
    """Cut x weight + bias, in units of the result, to what norms of x's rows allow; weight and offset in its units."""
    if x.norms is None or x.norms.plain or weight.ndim != 2 or x.norms.axis != len(x.shape) - 1:
        return interval
    real = weight.astype(np.float64, copy=False)
    columns = np.sqrt(np.einsum("ij,ij->j", real, real))
    shift = 0.0 if offset is None else offset.astype(np.float64)
    reach = x.norms.euclidean * float(x.scale) * columns
    return interval.cut(shift - reach - 1, shift + reach + 1)


def contracted(x: Value, name: str) -> Norms | None:
    """Return norms of a function of x, or its ReLU, that makes nothing larger."""
    if x.norms is None or name not in (*CONTRACTING, "relu"):
        return None
    return replace(x.norms.rounded(_SERIES_OFF), image=None)
