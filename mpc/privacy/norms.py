"""Rows in a ball: what a party finds of rows whose norm was compared, and what can be done with them.

Of elements v of a row that are known to lie in an interval the gates

    n = sum_j v_j^2        b = [n >= t]        u = (1 - b) v

give a u with |u|^2 <= t - 1 whatever the data are: n has room in its declared bound, so the comparison is right.  Where
it is made of rounded values, some below t may count as above; none at t or above counts as below.  So u lies in a ball
of the squared radius t - 1, and so does u times a number of [-h, h], of the squared radius (t - 1) h^2.

A linear map M of a ball moves by at most 2 |M| r when a row is replaced, where |M| is its operator norm, of which the
root of (largest sum of sizes in a row) (largest sum of sizes in a column) is a bound; output i by at most 2 |M_i| r.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt

import numpy as np

from mpc.gates.base import Gate, count
from mpc.gates.linear import Combine, Total
from mpc.gates.moves import Reshape
from mpc.gates.multiply import Multiply
from mpc.gates.step import Step
from mpc.privacy.forms import Matrix
from mpc.privacy.intervals import Interval
from mpc.wires import Wires


@dataclass(frozen=True)
class Ball:
    """The elements of a wire whose rows, each for itself, have a Euclidean norm of at most the root of `squared`."""

    squared: int
    sources: frozenset[str]


@dataclass(frozen=True)
class Squares:
    """The squares of a value's elements, in their places."""

    of: object


@dataclass(frozen=True)
class Norm:
    """The sum of all squares of a row's elements."""

    of: object


@dataclass(frozen=True)
class Beyond:
    """A bit that is 1 wherever the squared norm is `level` or more, and perhaps elsewhere."""

    of: object
    level: int


@dataclass(frozen=True)
class Inside:
    """A bit that is 0 wherever the squared norm is `level` or more, and perhaps elsewhere."""

    of: object
    level: int


Trait = Squares | Norm | Beyond | Inside
"""Say of a wire what it tells of another value's rows; values are compared as objects, however many wires hold one."""


def trait(gate: Gate, known: Mapping[str, tuple[object, Trait | None]], wires: Wires, fits: bool) -> Trait | None:
    """Return what a gate's result says of a value's rows.

    Args:
        known: of each operand with rows, (the value itself, what it says).
        wires: bound to one row.
        fits: what a comparison reads lies within its declared bound, whatever the data are.
    """
    if isinstance(gate, Multiply):
        same = gate.y is not None and gate.x in known and gate.y in known and known[gate.x][0] is known[gate.y][0]
        return Squares(known[gate.x][0]) if same and wires[gate.x].sizes == wires[gate.out].sizes else None
    read = known.get(gate.reads[0], (None, None))[1] if len(gate.reads) == 1 else None
    if isinstance(gate, Total) and isinstance(read, Squares) and count(wires[gate.out]) == 1:
        return Norm(read.of)
    if isinstance(gate, Step) and isinstance(read, Norm) and len(gate.levels) == 1 and fits:
        return Beyond(read.of, gate.levels[0])
    if isinstance(gate, Reshape) and isinstance(read, Norm | Beyond | Inside):
        return read
    if isinstance(gate, Combine) and isinstance(read, Beyond) and (gate.factors, gate.constant) == ((-1,), 1):
        return Inside(read.of, read.level)
    return None


def square_interval(trait: Trait | None, x: Interval | None, size: int) -> Interval | None:
    """Return where squares of elements in an interval lie, or the sum of `size` of them."""
    if x is None or not isinstance(trait, Squares | Norm):
        return None
    if isinstance(trait, Norm):
        return x[0] * size, x[1] * size
    low, high = x
    least = 0 if low <= 0 <= high else min(low * low, high * high)
    return least, max(low * low, high * high)


def chosen(value: object, by: Trait | None, sources: frozenset[str]) -> Ball | None:
    """Return the ball of a value times a bit that says whether its rows are inside; None if it is another bit."""
    return Ball(max(by.level - 1, 0), sources) if isinstance(by, Inside) and by.of is value else None


def scaled(ball: Ball, matrix: Matrix, by: Interval, sources: frozenset[str]) -> Ball:
    """Return the ball of a linear map of a ball's elements, times one number a row that lies in an interval."""
    return Ball(_operator(matrix) * ball.squared * max(abs(end) for end in by) ** 2, sources)


def moves(matrix: Matrix, ball: Ball) -> tuple[int, int, dict[int, int]]:
    """Return (D1, D2 squared, how far each output that is touched can move) of a linear map of a ball."""
    squares: dict[int, int] = {}
    for row, value in zip(matrix.rows.tolist(), matrix.values.tolist(), strict=True):
        squares[row] = squares.get(row, 0) + value * value
    widths = {row: _ceil_root(4 * square * ball.squared) for row, square in squares.items()}
    return sum(widths.values()), 4 * _operator(matrix) * ball.squared, widths


def _operator(matrix: Matrix) -> int:
    """A bound on the square of the operator norm."""
    sizes = np.abs(matrix.values).astype(object)
    if not sizes.size:
        return 0
    largest = []
    for places in (matrix.rows, matrix.columns):
        sums: dict[int, int] = {}
        for place, size in zip(places.tolist(), sizes.tolist(), strict=True):
            sums[place] = sums.get(place, 0) + size
        largest.append(max(sums.values()))
    return largest[0] * largest[1]


def _ceil_root(square: int) -> int:
    found = isqrt(square)
    return found + (found * found < square)
