"""Find where the elements of a wire lie whatever the data are: known of bounded values and maps of them."""

from __future__ import annotations

from mpc.gates.base import count
from mpc.gates.linear import Combine, LinearMap, Total, Weigh
from mpc.gates.moves import Concat, Reshape, Take
from mpc.wires import Wires

Interval = tuple[int, int]
"""The ends, both possible, of every element of a wire."""


def interval(gate: LinearMap, given: list[Interval | None], wires: Wires) -> Interval | None:
    """Return where every element of a linear map's result lies; None if that is not known of each operand."""
    known = [each for each in given if each is not None]
    if len(known) < len(given):
        return None
    if isinstance(gate, Combine):
        ends = [_scaled(each, factor) for each, factor in zip(known, gate.factors, strict=True)]
        return sum(low for low, _ in ends) + gate.constant, sum(high for _, high in ends) + gate.constant
    if isinstance(gate, Weigh):
        return _union([_scaled(known[0], factor) for factor in {min(gate.factors), max(gate.factors)}])
    if isinstance(gate, Total):
        return _scaled(known[0], count(wires[gate.x]) // count(wires[gate.out]))
    if isinstance(gate, Take):
        return _union([known[0], (0, 0)] if min(gate.indices) < 0 else known)
    return _union(known) if isinstance(gate, Concat | Reshape) else None


def of_rows(row: Interval, most: int) -> Interval:
    """Return where the sum over 1 to `most` rows lies."""
    return min(row[0], row[0] * most), max(row[1], row[1] * most)


def _scaled(interval: Interval, factor: int) -> Interval:
    low, high = sorted(end * factor for end in interval)
    return low, high


def _union(intervals: list[Interval]) -> Interval:
    return min(low for low, _ in intervals), max(high for _, high in intervals)
