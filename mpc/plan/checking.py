"""Divide a checked run into windows, each with a check of its own, and say what its check and its tags add to a run.

A window ends behind a step; its gates are those that are over by then.  They are checked before the next step is
exchanged, and what they were dealt is let go of: so what a party holds of a run is bounded, however large the run is.
Everybody computes the windows from the plan and the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mpc.encoding import field_size
from mpc.entry import EntryId
from mpc.gates.base import NO_GATE, Correlation, Gate
from mpc.plan.once import once
from mpc.plan.plan import Plan
from mpc.plan.schedule import Schedule, schedule
from mpc.plan.tagging import gate_tags, tagged_masks
from mpc.prg import SEED_BYTES
from mpc.transcript import DIGEST_BYTES

ZERO, ZERO_WORD = "zero", "zero word"
"""Shares of nothing, one a window, under which a check's sums are told."""
SUMS_BYTES = 2 * field_size((1,))
"""One sum of field elements, one of words."""
CHECK_SIZES = (2 * DIGEST_BYTES, SEED_BYTES, DIGEST_BYTES, SUMS_BYTES + SEED_BYTES + DIGEST_BYTES)
"""Bytes of one party to each peer in the exchanges that check a window, one after another."""
WINDOW_BYTES = 256 << 20
"""Bytes of correlations and tags, expanded, behind which a large run is checked, and goes on; each check is four rounds
more.

Of a plan that says how large its segments are, those of eight.
"""
WHOLE_BYTES = 3 << 30
"""Bytes of memory that a run's correlations and tags may need for it to be one window, unless its plan says how large
its segments are."""
WAITING_BYTES, USED_BYTES = 2, 4
"""Bytes of memory for each byte that is dealt: as it arrived and as it was expanded; and folded, used beside temporary
arrays of its size.

Tags of field elements are used one gate at a time, and those of bits stay as they are dealt, and are read in parts.
"""
_SEGMENTS = 8


@dataclass(frozen=True)
class CheckWindow:
    """One window of a run.

    Args:
        stop: steps of the run that come before its check.
        gates: those that are over by then, and were not before the check of the window before; in plan order.
    """

    stop: int
    gates: tuple[Gate, ...]


@once
def check_windows(plan: Plan) -> tuple[CheckWindow, ...]:
    """Return the windows of a run of a bound plan, one at least; the last one ends with the run.

    A run whose correlations and tags need no more than `WHOLE_BYTES` has one, and so the rounds of one check.
    """
    found, needed = schedule(plan.online, plan.wire), tagged_masks(plan)
    over = {gate.name: found.starts[gate.name] + len(gate.openings(plan.wire)) for gate in plan.online}
    if not plan.segment_bytes and sum(each.used for each in gate_weights(plan).values()) <= WHOLE_BYTES:
        return (CheckWindow(len(found.steps), plan.online),)
    most = _SEGMENTS * plan.segment_bytes if plan.segment_bytes else WINDOW_BYTES
    stops, held, latest, end = set[int](), 0, 0, len(found.steps)
    for gate in sorted(plan.online, key=lambda gate: found.starts[gate.name]):
        values = (*gate.correlations(plan.wire), *gate_tags(gate, plan.wire, needed))
        held += sum(value.size for value in values)
        latest = max(latest, over[gate.name])
        if held >= most and latest:
            stops.add(latest)
            held = 0
    ends = [*sorted(stop for stop in stops if stop < end), end]
    parts: dict[int, list[Gate]] = {stop: [] for stop in ends}
    for gate in plan.online:
        parts[next(stop for stop in ends if over[gate.name] <= stop)].append(gate)
    return tuple(CheckWindow(stop, tuple(gates)) for stop, gates in parts.items())


def last_used(plan: Plan, found: Schedule) -> dict[str, int]:
    """Return the step of a bound plan's run up to which what each gate reads, and was dealt, stays: until the gate is
    over, or its window is checked.

    found: its schedule.
    """
    if plan.is_checked:
        return {gate.name: window.stop for window in check_windows(plan) for gate in window.gates}
    return {gate.name: found.starts[gate.name] + len(gate.openings(plan.wire)) for gate in plan.online}


def with_checks(plan: Plan, sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the bytes of each payload of a run with its checks.

    Args:
        plan: bound.
        sizes: of its steps.
    """
    found, start = list[int](), 0
    for window in check_windows(plan):
        found += [*sizes[start : window.stop], *CHECK_SIZES]
        start = window.stop
    return tuple(found)


def step_of(plan: Plan, exchange: int) -> int | None:
    """Return the number of the step that an exchange of a checked run is; None if it is one of a check's."""
    checks = len(CHECK_SIZES)
    for before, window in enumerate(check_windows(plan)):
        step = exchange - before * checks
        if step < window.stop:
            return step
        if step < window.stop + checks:
            return None
    raise IndexError(f"a run of {len(check_windows(plan))} windows has no exchange {exchange}")


def closing(plan: Plan) -> tuple[Correlation, Correlation]:
    """Return what is dealt for the checks of a bound plan's run."""
    shape = (len(check_windows(plan)),)
    return Correlation(ZERO, shape, dependent=True), Correlation(ZERO_WORD, shape, width=64, dependent=True)


def entry_tags(plan: Plan, entry: EntryId) -> dict[str, tuple[Correlation, ...]]:
    """Return all tags that the bundle of an entry has: of the weights, or of a run of a bound plan.

    Those of a run begin with what its checks need.
    """
    needed = tagged_masks(plan)
    gates = plan.weights if entry.is_weights else plan.online
    found = {gate.name: gate_tags(gate, plan.wire, needed) for gate in gates}
    return found if entry.is_weights else found | {NO_GATE: closing(plan)}


def dealt_tags(plan: Plan, entry: EntryId) -> dict[str, tuple[Correlation, ...]]:
    """Return the tags that are dealt with an entry of a plan: none, unless its runs are checked; see `entry_tags`."""
    return entry_tags(plan, entry) if plan.is_checked else {}


@dataclass(frozen=True)
class Weight:
    """Counts the bytes of memory of what a gate is dealt, with its tags: while it waits, and while it is used."""

    waiting: int
    used: int


@once
def gate_weights(plan: Plan) -> dict[str, Weight]:
    """Return what each gate of a bound plan's run weighs, by its name."""
    needed = tagged_masks(plan) if plan.is_checked else frozenset[str]()
    found = dict[str, Weight]()
    for gate in plan.online:
        values = sum(spec.size for spec in gate.correlations(plan.wire))
        tags = gate_tags(gate, plan.wire, needed) if plan.is_checked else ()
        beside = sum(spec.size * (1 if spec.width else WAITING_BYTES) for spec in tags)
        found[gate.name] = Weight(WAITING_BYTES * values + beside, USED_BYTES * values + beside)
    return found


def tag_bytes(plan: Plan, entry: EntryId) -> int:
    """Count the bytes of tags that are dealt with an entry of a bound plan whose runs are checked."""
    return sum(spec.size for specs in entry_tags(plan, entry).values() for spec in specs)
