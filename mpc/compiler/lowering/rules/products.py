"""Products, with weights or of two secrets: how many bits each side keeps."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from mpc import fixedpoint
from mpc.compiler.graph.attributes import Affine, Averaged, Chosen, Filters, Sliding, Total, Weighted
from mpc.compiler.graph.graph import Node, simple_factor, static
from mpc.compiler.lowering.builder import LINEAR_BITS, SERIES_SCALE_BITS, Lowering
from mpc.compiler.lowering.emitted import FRACTION_BITS, SMALLER, Value
from mpc.compiler.lowering.intervals import Interval, Product
from mpc.compiler.lowering.known import known_bound, known_interval, product_of
from mpc.compiler.lowering.norms import Norms
from mpc.compiler.lowering.rules import factors
from mpc.compiler.lowering.rules.means import share, weighted_mean
from mpc.compiler.lowering.rules.pooled import average
from mpc.compiler.lowering.rules.ratios import ratio
from mpc.compiler.lowering.rules.together import (
    affine_norms,
    divided,
    loosened,
    product_norms,
    scaled_norms,
    squares,
    within_rows,
)
from mpc.compiler.lowering.scales import even, log2
from mpc.compiler.lowering.signs import levelled

_WEIGHT_BITS = 32
_LEAST_WEIGHT_BITS = 8
_GOOD_WEIGHT_BITS = 15
_LEAST_EXPONENT = -30
EXACT_BITS = 8
"""Few: constants like 1 and 0.5 cost no precision, and a plan does not tell the last bit of real weights."""
_PART = 1 << 12
"""Elements of a weight that are looked at together."""
_FINEST_SCALE = 48
_BEFORE_SERIES_BITS = 52
FACTOR_FRACTION = 20
_KNOWN_PRODUCT_BITS = 50
_SMALL_FACTOR = 2.0**-5
"""A factor that is always smaller, but never far smaller than its largest, keeps as many more fractional bits."""
_NARROW = 64
_FAR_MORE = 8
"""An operand that has so many times more elements than the other is shortened last: each is opened for it."""
_GATES = {"matmul": "matmul", "conv": "convolution", "scale": "multiply", "multiply": "multiply"}


def affine(state: Lowering, node: Node) -> Value:
    """Return a product with a weight: as many bits for weights and data as the bound of the result allows."""
    taken = node.attributes
    if not isinstance(taken, Weighted):
        return product(state, node)
    x, weight, bias = state.values[node.reads[0]], taken.weight, taken.bias
    if isinstance(taken, Affine) and taken.signs:
        weight, bias = levelled(x, weight, np.zeros(()) if bias is None else bias, taken.marks)
    most = _BEFORE_SERIES_BITS if _feeds_series(state, node.writes) else LINEAR_BITS
    exponent, exact = _weight_exponent(x, node, weight, bias, most)
    good = _GOOD_WEIGHT_BITS - magnitude_of(weight)
    if exponent < good and not exact and log2(x.scale) > FACTOR_FRACTION:  # x has bits to spare
        fraction = log2(x.scale) - (good - exponent)
        fraction = min(fraction, _equal_digits(x, weight, log2(x.scale) + exponent))
        x = state.shorten(x, max(FACTOR_FRACTION, fraction), least=FACTOR_FRACTION)
        exponent, exact = _weight_exponent(x, node, weight, bias, most)
    wanted = max(_LEAST_WEIGHT_BITS - magnitude_of(weight), _LEAST_EXPONENT)
    if exponent < wanted and not exact:
        fraction = min(FRACTION_BITS, log2(x.scale) - (wanted - exponent))
        x = state.shorten(x, max(fraction, 6))
        exponent, exact = _weight_exponent(x, node, weight, bias, most)
    if exponent < wanted and not exact:
        reach = _reach(x, node, weight, bias) / float(x.scale)
        raise node.origin.refuse(
            f"its result can reach {reach:.3g}, too large to keep {_LEAST_WEIGHT_BITS} bits of its weights",
            remedy=f"{SMALLER}, or divide by a constant before it",
        )
    unit = Fraction(2) ** exponent
    if not exact:  # weights are rounded anyway: they take in what the scale of x is more than a power of two
        unit *= even(x.scale) / x.scale
    scale = x.scale * unit
    integers = fixedpoint.encode(weight, unit, "a weight")
    off = 0.0 if exact else 0.5 / float(unit)
    settings: dict[str, Any] = {"x": x.wire.name, "weight": state.stored(integers, unit)}
    offset = None
    if bias is not None:
        offset = fixedpoint.encode(bias, scale, "a bias")
        settings["bias"] = state.stored(offset, scale)
    if isinstance(taken, Filters):
        settings["windows"] = taken.windows
    interval = x.interval.linear(product_of(node), integers, offset, rounded=not exact)
    passed = np.sqrt(product_of(node)(np.square(x.interval.error), np.square(integers.astype(np.float64))))
    if node.op == "matmul":
        interval = within_rows(interval, x, integers, offset)
    interval = known_interval(interval.broadcast_to(static(node.shape)), scale, node).off_by(passed)
    found = state.add(_GATES[node.op], node.shape, scale, interval, **settings)
    if exact:
        state.exact.add(found.wire.name)
    norms = _norms(node, x, weight, bias, off)
    return replace(found, norms=norms and norms.rounded(1 / float(scale)))


def _norms(node: Node, x: Value, weight: np.ndarray, bias: np.ndarray | None, off: float) -> Norms | None:
    if node.op == "matmul":
        return affine_norms(x, weight, bias, off)
    return scaled_norms(x, np.abs(weight) + off, bias) if node.op == "scale" and x.shape == node.shape else None


def _equal_digits(x: Value, weight: np.ndarray, together: int) -> int:
    """Fractional bits of x that leave as many of `together` to weights as do the two equally good."""
    size = math.frexp(max(map(abs, x.reals)))[1]
    return (together + magnitude_of(weight) - size) // 2


def _scaled(bias: np.ndarray | None, scale: Fraction) -> np.ndarray | None:
    return None if bias is None else bias * float(scale)


def _feeds_series(state: Lowering, value: str) -> bool:
    return any(
        node.op == "function" or _passes_on(node) and _feeds_series(state, node.writes)
        for node in state.graph.readers(value)
    )


def _passes_on(node: Node) -> bool:
    if node.op == "scale":
        return simple_factor(node.of(Weighted).weight) is not None
    return node.op in ("reshape", "transpose", "concat", "sum", "take")


def _reach(x: Value, node: Node, weight: np.ndarray, bias: np.ndarray | None) -> float:
    """How large the result can be, in units of x's scale, for real weights."""
    low, high = x.interval.ends(product_of(node), weight, _scaled(bias, x.scale))
    if node.op == "matmul" and x.norms is not None:
        zeros = np.zeros(low.shape)
        cut = within_rows(Interval(low, high, zeros, zeros, zeros), x, weight, _scaled(bias, x.scale))
        low, high = cut.low, cut.high
    return known_bound(low, high, x.scale, node)


def _weight_exponent(x: Value, node: Node, weight: np.ndarray, bias: np.ndarray | None, most: int) -> tuple[int, bool]:
    """(fractional bits of the weights, are they exact then): as many as are useful and the bound allows."""
    room = most - math.frexp(max(1.0, _reach(x, node, weight, bias)))[1]
    finest = _FINEST_SCALE if most == LINEAR_BITS else SERIES_SCALE_BITS
    wanted = min(_WEIGHT_BITS - magnitude_of(weight), room, finest - log2(x.scale))
    exact = fraction_bits(weight, min(wanted, EXACT_BITS))
    if exact is None:
        return wanted, False
    return max(exact, min(wanted, spread_of(bias, x.scale * (1 << exact)) + exact)), True


def fraction_bits(weight: np.ndarray, most: int) -> int | None:
    """Return the fewest fractional bits that all of a weight have; None if that is more than `most`.

    Nearly every weight is none, and the first part of it tells.
    """
    found, flat = 0, weight.reshape(-1)
    for start in range(0, flat.size, _PART):
        part = flat[start : start + _PART]
        while found <= most and np.any(np.ldexp(part, found) % 1):
            found += 1
        if found > most:
            return None
    return found if found <= most else None


def spread_of(offset: np.ndarray | None, scale: Fraction) -> int:
    """Return the fractional bits that a wire lacks to hold an offset: whole numbers, as of whole weights, have none.

    Zeros count as whole beside whole numbers only: a plan does not tell that a bias is zero.
    """
    whole = offset is None or not np.any(offset * float(scale) % 1)
    if offset is None or (whole and (scale == 1 or offset.any())):
        return 0
    return max(0, FRACTION_BITS + 4 - log2(scale))


def magnitude_of(weight: np.ndarray) -> int:
    """Return the exponent of the power of two above the largest element."""
    return math.frexp(float(max(weight.max(initial=0.0), -weight.min(initial=0.0))) or 1.0)[1]


def product(state: Lowering, node: Node) -> Value:
    """Multiply two secrets; each keeps as many fractional bits as the product's bound allows, about 20 at most."""
    if isinstance(node.attributes, Chosen):
        return _chosen(state, node)
    square = node.reads[0] == node.reads[1]
    found = (weighted_mean(state, node) or share(state, node)) if node.op == "multiply" else None
    if isinstance(node.attributes, Averaged):
        found = found or average(state, node)
    if found is None and node.op == "multiply" and not square:
        found = ratio(state, node)
    if found is not None:
        return found
    left, right = (state.values[name] for name in node.reads)
    over_reals = product_of(node)
    known = divided(state, node) if node.op == "multiply" and not square else None
    fraction = _factor_fraction(node)
    scores = node.op == "matmul" and _feeds_series(state, node.writes)
    most = _BEFORE_SERIES_BITS - 1 if scores else LINEAR_BITS
    x, y = (_shortened(state, value, fraction + _more(value)) for value in (left, right))
    if not square:
        x, y = _one_shortened(state, node, (left, x), (right, y), most)
    if node.op == "multiply" and not square:
        (x, y), node = factors.as_fine(state, node, (left, right), (x, y), most - _headroom(state, node))
    for _ in range(3):
        interval = product_interval(x, y, node, over_reals, square)
        norms = squares(x, y) if square else None
        over = _bits_of_sums(state, node, interval, float(x.scale * y.scale), norms) - most
        if over <= 0:
            break
        x, y = balanced(state, x, y, over)
    settings: dict[str, Any] = {"x": x.wire.name, "y": y.wire.name}
    if isinstance(node.attributes, Sliding):
        settings["windows"] = node.attributes.windows
    interval = product_interval(x, y, node, over_reals, square)
    scale = x.scale * y.scale
    found = state.add("multiply" if node.op == "multiply" else _GATES[node.op], node.shape, scale, interval, **settings)
    if node.op == "matmul":
        return replace(found, norms=product_norms(x, y)[1])
    return replace(found, norms=squares(x, y) if square else known and loosened(known, (left, x), (right, y)))


def _chosen(state: Lowering, node: Node) -> Value:
    """Choose rows, which keep all digits that a wire holds: what is chosen is no larger than they are."""
    hot, rows = (state.values[name] for name in node.reads)
    over = math.frexp(max(1.0, rows.interval.bound * float(hot.scale)))[1] - LINEAR_BITS
    if over > 0:
        rows = state.shorten(rows, log2(rows.scale) - over)
    unit, held = float(hot.scale), rows.interval
    low = np.minimum(held.low.min(axis=-2, keepdims=True), 0.0) * unit
    high = np.maximum(held.high.max(axis=-2, keepdims=True), 0.0) * unit
    error, size = (part.max(axis=-2, keepdims=True) * unit for part in (held.error, held.typical))
    mean = held.mean.mean(axis=-2, keepdims=True) * unit
    interval = Interval(*np.broadcast_arrays(low, high, error, np.clip(mean, low, high), np.square(size)))
    scale = hot.scale * rows.scale
    interval = interval.broadcast_to(static(node.shape))
    found = state.add("matmul", node.shape, scale, interval, x=hot.wire.name, y=rows.wire.name)
    ones = np.ones((*static(hot.shape)[:-1], 1))
    one = Norms(len(hot.shape) - 1, int(hot.shape[-1]), ones, absolute=ones)
    return replace(found, norms=product_norms(replace(hot, norms=one), rows)[1])


def _one_shortened(
    state: Lowering, node: Node, left: tuple[Value, Value], right: tuple[Value, Value], most: int
) -> tuple[Value, Value]:
    """Return the operands, of which one that has far more elements stays as it is, if the product has room for it.

    Args:
        left, right: each as it is, and shortened.
    """
    (whole, x), (_, y) = left, right
    sizes = [math.prod(static(value.shape)) for value in (x, y)]
    if sizes[0] * _FAR_MORE <= sizes[1]:
        second, first = _one_shortened(state, node, right, left, most)
        return first, second
    if sizes[0] < _FAR_MORE * sizes[1] or node.op != "multiply":
        return x, y
    bound = product_interval(whole, y, node, product_of(node), False).bound
    fits = math.frexp(max(1.0, bound))[1] + 1 + _headroom(state, node) <= most
    return (whole if fits and log2(whole.scale * y.scale) <= _FINEST_SCALE else x), y


def balanced(state: Lowering, x: Value, y: Value, over: int) -> tuple[Value, Value]:
    """Return both with fewer bits, so many together: a unit times the other's largest value is about equal then."""
    sizes = [v.interval.bound / float(v.scale) for v in (x, y)]
    ahead = log2(x.scale) - log2(y.scale) + round(math.log2(max(sizes[0], 2.0**-60) / max(sizes[1], 2.0**-60)))
    first = min(over, max(0, -(-(over + ahead) // 2)))
    found = []
    for v, part in ((x, first), (y, over - first)):
        least = 4 - max(0, math.frexp(v.interval.bound / float(v.scale))[1] - _LEAST_WEIGHT_BITS)
        found.append(state.shorten(v, max(least, log2(v.scale) - part)))
    return found[0], found[1]


def _headroom(state: Lowering, node: Node) -> int:
    """Bits by which sums that read a value are larger."""
    sums = [reader for reader in state.graph.readers(node.writes) if reader.op == "total"]
    joined = [math.prod(int(node.shape[axis]) for axis in reader.of(Total).axes) for reader in sums]
    return max((number.bit_length() for number in joined), default=0)


def _bits_of_sums(state: Lowering, node: Node, interval: Interval, scale: float, norms: Norms | None) -> int:
    """Return bits of a product at some scale, and of sums that read it."""
    readers = state.graph.readers(node.writes)
    alone = bool(readers) and all(reader.op == "total" for reader in readers)
    if alone and norms is not None and norms.absolute is not None:
        if all(reader.of(Total).axes == (norms.axis,) for reader in readers):
            return math.frexp(max(1.0, interval.bound, float(norms.absolute.max()) * scale))[1] + 1
    return math.frexp(max(1.0, interval.bound))[1] + 1 + _headroom(state, node)


def _factor_fraction(node: Node) -> int:
    """Return the fractional bits of each factor: more, if the product is known to be small, as x over its norm is."""
    size = max(map(abs, node.attributes.known or (math.inf,)))
    return FACTOR_FRACTION if size == math.inf else max(FACTOR_FRACTION, _KNOWN_PRODUCT_BITS // 2 - _log2_ceil(size))


def _more(x: Value) -> int:
    """Return how many more fractional bits a factor keeps since it is small, as one over large numbers is."""
    low, high = x.reals
    least, most = (low, high) if low > 0 else (-high, -low)
    if not (least > 0 and most < _SMALL_FACTOR and most < _NARROW * least):
        return 0
    return min(-math.frexp(most)[1], _KNOWN_PRODUCT_BITS - FACTOR_FRACTION)


def _log2_ceil(size: float) -> int:
    return max(0, math.ceil(math.log2(max(size, 1.0))))


def _shortened(state: Lowering, x: Value, fraction: int) -> Value:
    return state.shorten(x, fraction) if log2(x.scale) > fraction + 4 else x


def _none_below(interval: Interval, x: Interval, y: Interval) -> Interval:
    """Cut to zero what is a sum of products of which no factor is below zero, as weights of linear attention are."""
    if x.low.ndim < 2 or y.low.ndim < 2:
        return interval
    rows, columns = np.asarray((x.low >= 0).all(axis=-1)), np.asarray((y.low >= 0).all(axis=-2))
    if not (rows.any() and columns.any()):
        return interval
    return replace(interval, low=np.where(rows[..., :, None] & columns[..., None, :], 0.0, interval.low))


def product_interval(x: Value, y: Value, node: Node, product: Product, square: bool) -> Interval:
    if node.op == "multiply":
        interval = x.interval.product(y.interval, square)
    else:
        interval = x.interval.bilinear(y.interval, product)
        if node.op == "matmul":
            most, _ = product_norms(x, y)
            if most is not None:
                reach = most * float(x.scale * y.scale) + 1
                interval = interval.cut(-reach, reach)
            interval = _none_below(interval, x.interval, y.interval)
    return known_interval(interval.broadcast_to(static(node.shape)), x.scale * y.scale, node)
