"""Divide what is dealt for an entry into segments, which are dealt, signed, prepared and let go of one after another.

Everybody computes them, from the plan and the batch alone, and nobody is told: gates in the order in which they start,
cut where what a party holds of them would grow beyond a size.  A plan that needs less has one segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mpc.entry import WEIGHTS, EntryId
from mpc.gates.base import NO_GATE, Correlation, Gate
from mpc.plan.checking import dealt_tags, last_used
from mpc.plan.cost import plan_schedule
from mpc.plan.once import once
from mpc.plan.plan import Plan
from mpc.plan.schedule import schedule
from mpc.wires import Wires

SEGMENT_BYTES = 32 << 20
"""Bytes of correlations, expanded, that a segment has at most, unless it is a single gate's or the plan says another
size.

Each costs a signature and a message; a whole layer of a large model has a dozen of them.
"""


@dataclass(frozen=True)
class Segment:
    """One part of what is dealt for an entry.

    Args:
        gates: in the order in which they are dealt.
        start, stop: which bytes are its own, of all corrections of the entry in a row.
        held: bytes that a party holds of it, expanded.
    """

    gates: tuple[Gate, ...]
    start: int
    stop: int
    held: int

    @property
    def dealt(self) -> int:
        """Bytes of corrections."""
        return self.stop - self.start


def segments(plan: Plan, entry: EntryId) -> tuple[Segment, ...]:
    """Return the segments of an entry of a bound plan, one at least; those of all its runs are alike."""
    return _segments(plan, entry.is_weights)


@once
def _segments(plan: Plan, weights: bool) -> tuple[Segment, ...]:
    entry = WEIGHTS if weights else WEIGHTS.following
    tags = dealt_tags(plan, entry)
    most = plan.segment_bytes or SEGMENT_BYTES
    found: list[Segment] = []
    gates: list[Gate] = []
    first = tags.get(NO_GATE, ())
    start, stop, held = 0, _dealt(first), sum(value.size for value in first)
    gates_dealt = plan.dealt(entry)
    for gate in gates_dealt if entry.is_weights else in_turn(gates_dealt, plan.wire):
        values = (*gate.correlations(plan.wire), *tags.get(gate.name, ()))
        more = sum(value.size for value in values)
        if gates and more and held + more > most:
            found.append(Segment(tuple(gates), start, stop, held))
            gates, start, held = [], stop, 0
        gates.append(gate)
        held += more
        stop += _dealt(values)
    return (*found, Segment(tuple(gates), start, stop, held))


def spans(plan: Plan, parts: Sequence[Segment]) -> list[tuple[int, int]]:
    """Return the first and the last step at which gates of each segment of a bound plan's run are evaluated, or
    checked."""
    found = plan_schedule(plan)
    starts, last = found.starts, last_used(plan, found)
    return [
        (min(starts[gate.name] for gate in part.gates), max(last[gate.name] for gate in part.gates)) for part in parts
    ]


def in_turn(gates: Sequence[Gate], wires: Wires) -> tuple[Gate, ...]:
    """Return a run's gates in the order in which they start, one in which they can be dealt and prepared."""
    starts = schedule(gates, wires).starts
    return tuple(sorted(gates, key=lambda gate: starts[gate.name]))


def _dealt(values: tuple[Correlation, ...]) -> int:
    return sum(value.size for value in values if value.dependent)
