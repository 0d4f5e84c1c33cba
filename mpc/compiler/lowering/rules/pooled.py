"""Averages by weights, sum w y / sum w, where weights are entered as reals and may all be small: masks of 0:1, say.

One over a small sum is large, and no interval sees that the other sum is small, too.  So the sum of products, of which
weights keep all their digits, is brought to the octave of the sum of weights: with s a power of two and u = s sum w in
[1, 2) it is (s sum w y) (1 / u), and s sum w y is no larger than u times the largest y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mpc.compiler.graph.attributes import Averaged, Take, Total, Weighted
from mpc.compiler.graph.graph import Graph, Node, static
from mpc.compiler.lowering.builder import LINEAR_BITS, Lowering
from mpc.compiler.lowering.emitted import Value
from mpc.compiler.lowering.intervals import Interval
from mpc.compiler.lowering.normalise import shortened_by
from mpc.compiler.lowering.scales import log2
from mpc.wires import BATCH

_FRACTION = 24
_GOOD_FRACTION, _LEAST_FRACTION = 18, 14
"""Fractional bits that values below `_LARGE` have that are averaged; with fewer it is no better than to multiply by an
inverse.  Larger ones need fewer.
"""
_LARGE = 2.0**8
_BESIDE = 1 / 2
"""Bounds what roundings of weights add up to in the least octave, where some of their bits are given to values."""
_FLOOR = 2.0**-16
"""Leaves out what keeps a divisor from zero and is no more: one over less counts as one over about that."""
_OCTAVE = 2.3
"""No sum of weights is larger in its octave, whatever its comparison has rounded off."""
_DIGITS = 2.0**-12
"""Bounds what a sum of products is off by in the least octave, beside the largest value."""


def unclipped(state: Lowering, node: Node) -> Value | None:
    """Return the sum of weights of which a node finds the inverse, without what keeps it from zero; None if the
    inverse has other readers than averages, or it may be negative.
    """
    if not _is_for_averages(state.graph, node.writes):
        return None
    name, ops, added = node.reads[0], list[str](), list[float]()
    while (found := state.graph.writers.get(name)) is not None and found.op in ("scale", "relu"):
        ops.append(found.op)
        if found.op == "scale" and (bias := found.of(Weighted).bias) is not None:
            added.append(float(bias.flat[0]))
        [name] = found.reads
    x = state.values[name]
    held = ops == ["scale", "relu", "scale"] and sum(added) == 0 and max(map(abs, added)) <= _FLOOR
    return x if held and x.interval.least >= 0 else None


def _is_for_averages(graph: Graph, name: str) -> bool:
    """Do averages alone read a value, on its way repeated?"""
    readers = [*graph.readers(name)]
    return (
        bool(readers)
        and not graph.is_output(name)
        and all(
            isinstance(reader.attributes, Averaged)
            or (reader.op in ("reshape", "take") and _is_for_averages(graph, reader.writes))
            for reader in readers
        )
    )


@dataclass(frozen=True)
class _Average:
    """An average that was found in the graph.

    Args:
        product: the node of which `total` is the sum.
        moves: from the inverse to what is multiplied, first to last.
        coarse: by how much the sum of weights may be more than what is inverted, by rounding, in the model's units.
    """

    weights: Value
    values: Value
    product: Node
    total: Node
    inverse: Value
    moves: list[Node]
    coarse: float

    @property
    def number(self) -> int:
        return math.prod(int(self.product.shape[axis]) for axis in self.total.of(Total).axes)

    @property
    def largest(self) -> float:
        """The largest that a value can be, in the model's units; so can the average."""
        return self.values.interval.bound / float(self.values.scale)


def average(state: Lowering, node: Node) -> Value | None:
    """Return the average, if its inverse was found by octaves and there is room for its digits; else None."""
    found = _found(state, node)
    if found is None or found.inverse.wire.name not in state.inverses:
        return None
    power, octave = state.inverses[found.inverse.wire.name]
    largest = found.largest
    most = found.number * largest * found.weights.interval.bound / float(found.weights.scale)
    room = LINEAR_BITS - math.frexp(most)[1]
    spare = math.frexp(max(largest / _LARGE, 0.5))[1]
    needed = math.frexp(found.number * octave.reals[1] / _BESIDE)[1]
    weights = state.shorten(found.weights, max(needed, room - _GOOD_FRACTION + spare))
    beside = 0.0 if weights is found.weights else found.number * octave.reals[1] / float(weights.scale)
    beside += octave.reals[1] * found.coarse
    fraction = min(_FRACTION, room - log2(weights.scale))
    brought_fraction = LINEAR_BITS - log2(octave.scale) - math.frexp((_OCTAVE + beside) * largest)[1]
    lost = math.ldexp(octave.reals[1], -brought_fraction)
    if fraction < _LEAST_FRACTION - spare or lost > _DIGITS * largest:
        return None
    error = _error(found)
    values = state.shorten(found.values, fraction)
    each = _bounded(state, (weights, values), found.product, most / found.number, error / math.sqrt(found.number))
    axes, kept, unit = found.total.of(Total).axes, found.total.shape, float(each.scale)
    interval = _within(found.total, most * unit, error * unit)
    total = state.reshape(state.add("total", kept, each.scale, interval, x=each.wire.name, axes=axes), node.shape)
    octave, power = (moved(state, found.moves, part) for part in (octave, power))
    most = (_OCTAVE + beside) * largest
    brought = _bounded(state, (state.shorten(total, brought_fraction), octave), node, most, error)
    size = largest * max(1 + 1 / 64, *(abs(end) for end in power.reals)) * (1 + beside)
    room = LINEAR_BITS - math.frexp(_OCTAVE * size)[1]
    brought = state.shorten(brought, min(_FRACTION, room // 2))
    return _bounded(state, (brought, state.shorten(power, room - log2(brought.scale))), node, size, error)


def _found(state: Lowering, node: Node) -> _Average | None:
    writers, moves, name = state.graph.writers, list[Node](), node.reads[1]
    while (move := writers.get(name)) is not None and move.op in ("reshape", "take"):
        moves.insert(0, move)
        [name] = move.reads
    above, function = _behind(state.graph, node.reads[0], "reshape"), writers.get(name)
    if above is None or above.op != "total" or function is None or function.op != "function":
        return None
    below = _behind(state.graph, function.reads[0], "reshape", "take", "scale", "relu")
    product = writers.get(above.reads[0])
    if below is None or below.op != "total" or product is None or product.op != "multiply":
        return None
    root = _root(state.graph, below.reads[0])
    sides = [[read for read in product.reads if (_root(state.graph, read) == root) == own] for own in (True, False)]
    if [len(side) for side in sides] != [1, 1] or above.of(Total).divisor != 1 or below.of(Total).divisor != 1:
        return None
    [weights], [values] = ([state.values[read] for read in side] for side in sides)
    if weights.interval.least < 0 or BATCH in [product.shape[axis] for axis in above.of(Total).axes]:
        return None
    coarse = max(rounded_off(state.values[each]) for each in (function.reads[0], below.writes))
    return _Average(weights, values, product, above, state.values[name], moves, coarse)


def rounded_off(x: Value) -> float:
    """Return by how much an argument may be more than what its octave is found of, in the model's units."""
    over = shortened_by(x)
    return float((2 << over) / x.scale) if over else 0.0


def _behind(graph: Graph, name: str, *through: str) -> Node | None:
    """Return the first node that is none of these, from a value backwards."""
    while (found := graph.writers.get(name)) is not None and found.op in through:
        name = found.reads[0]
    return found


def _root(graph: Graph, name: str) -> str:
    """Return the value that a value is, moved or repeated."""
    while (found := graph.writers.get(name)) is not None and found.op in ("reshape", "take"):
        [name] = found.reads
    return name


def moved(state: Lowering, moves: list[Node], x: Value) -> Value:
    """Return another value, moved as these nodes do."""
    for move in moves:
        if move.op == "take":
            x = state.take(x, move.of(Take).axis, move.of(Take).indices)
        else:
            x = state.reshape(x, move.shape)
    return x


def _error(found: _Average) -> float:
    """Return what the average is off by, in the model's units: as its inverse is, and its values are."""
    typical = float(found.inverse.interval.typical.max())
    own = found.values.interval.worst_error / float(found.values.scale)
    return math.hypot(found.inverse.interval.worst_error / typical * found.largest, own)


def _bounded(state: Lowering, factors: tuple[Value, Value], node: Node, most: float, error: float) -> Value:
    """Return a product of a node's shape, which is no larger for reasons that intervals do not see."""
    x, y = factors
    scale = x.scale * y.scale
    interval = _within(node, most * float(scale), error * float(scale))
    return state.add("multiply", node.shape, scale, interval, x=x.wire.name, y=y.wire.name)


def _within(node: Node, most: float, error: float) -> Interval:
    return Interval.between(-most, most, static(node.shape), error)
