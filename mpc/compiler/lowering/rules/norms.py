"""Rows of a norm that is held, whatever the data are: the ground on which a gradient is summed without a clip.

Each element is bounded; then the sum of the squares is exact, and is compared once with the square of the norm.  A row
that is longer is multiplied by zero, so that every row lies in a ball (`mpc.privacy.norms` proves it from the gates).
What such rows are multiplied by, one number a row, is bounded before the sum over rows: their product lies in a ball
too, and noise for it grows with the norm, not with the root of the number of columns.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

from mpc.compiler.graph.attributes import Held
from mpc.compiler.graph.graph import Node, static
from mpc.compiler.lowering.builder import Lowering
from mpc.compiler.lowering.emitted import Value
from mpc.compiler.lowering.intervals import Interval
from mpc.compiler.lowering.rules.sums import bounded, sums_behind
from mpc.wires import Masking


def held(state: Lowering, node: Node) -> Value:
    """Return x where its row's norm is no more than is allowed, and zeros where it is."""
    x, taken = state.values[node.reads[0]], node.of(Held)
    reach = taken.norm * float(x.scale)
    x = bounded(state, replace(x, interval=x.interval.within(-reach, reach)), taken.width, Masking.DRAWN)
    columns = static(x.shape)[-1]
    most = math.ceil((taken.norm * float(x.scale) + math.sqrt(columns)) ** 2)  # an element is rounded by less than one
    row, name = (*x.shape[:-1], 1), x.wire.name
    square = x.interval.product(x.interval, True)
    squares = state.add("multiply", x.shape, x.scale * x.scale, square, x=name, y=name)
    total = square.map(lambda array: array.sum(axis=-1, keepdims=True))
    room = 2 * taken.width + columns.bit_length()  # whatever bounded elements are, not those that are expected
    norm = state.add("total", row, squares.scale, total, room, x=squares.wire.name, axes=(len(row) - 1,))
    shape, bits = (*row, 1), Interval.between(0, 1, (1,) * (len(row) + 1))
    beyond = state.add("step", shape, Fraction(1), bits, x=norm.wire.name, levels=(most + 1,), shift=0)
    inside = state.combine([state.reshape(beyond, row)], [-1], row, Fraction(1), 1)
    kept = state.add("multiply", x.shape, x.scale, x.interval, x=name, y=inside.wire.name)
    state.balls.add(kept.wire.name)
    state.hard.add(kept.wire.name)
    return kept


def by_row(state: Lowering, node: Node) -> Value | None:
    """Return the product of held rows with a number each, if only sums over rows read it: the number is bounded before;
    None if this is no such product."""
    readers = sums_behind(state, node.writes)
    if not readers or len(node.reads) != 2:
        return None
    values = [state.values[name] for name in node.reads]
    for rows, number in (values, values[::-1]):
        if rows.wire.name in state.balls and static(number.shape)[1:] == (1,) and rows.shape == node.shape:
            kept = bounded(state, number, max(readers), Masking.DRAWN)
            interval = rows.interval.product(kept.interval, False)
            scale, x, y = rows.scale * kept.scale, rows.wire.name, kept.wire.name
            product = state.add("multiply", node.shape, scale, interval, x=x, y=y)
            state.hard.add(product.wire.name)
            return product
    return None
