"""Count the memory that sessions and runs may take, before any of it is taken."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import accumulate
from math import ceil, prod

from mpc import field as fp
from mpc.convolution import BLOCK_BYTES, FEW_FILTERS, POINT_BYTES, TILE, tiles
from mpc.encoding import field_size
from mpc.entry import EntryId
from mpc.errors import PlanError
from mpc.gates.bilinear import Bilinear
from mpc.gates.convolution import Convolution
from mpc.plan.checking import check_windows, dealt_tags, gate_weights
from mpc.plan.cost import session_dealt, stored_bytes
from mpc.plan.holding import holdings
from mpc.plan.lasting import Readers
from mpc.plan.once import once
from mpc.plan.plan import MOST_RUNS_KEPT, Plan
from mpc.plan.segments import segments, spans
from parties.config.models import Limits

_PER_PLAN_BYTE = 40
"""A plan's bytes, what they are parsed into, and what that remembers: `MOST_BOUND` plans bound to batches."""
_PER_RUN_PLAN_BYTE = 24
"""A plan's bytes again for each run's plan that the plan of a program keeps, with what that one remembers."""
_PER_STORED_BYTE = 4
"""Bytes of memory for each byte of stored weight: masked, mask share and share (24 for 8), and a copy: masked again,
turned, for products with few rows, or while it is made."""
_PER_TILED_BYTE = 15
"""A filter also at 64 points, twice: 2 * 512 bytes for the 72 of the smallest that are."""
_WINDOW_BYTES = 8 << 20
"""Tags of bits are made and read where they lie, by windows of some thousand comparisons."""
_PER_LIVE_ELEMENT = 24
"""An element of a wire that is still read: public, as it came, and its mask."""
_PER_MASK_ELEMENT = 8
"""An element of a plain mask, which the provider has."""
_PER_ACTIVE_ELEMENT = 40
"""An element that a gate reads or writes now, besides: what is opened and received of it, its limbs in a product."""
_PER_CHECKED_ELEMENT = 16
"""An element of a run that is checked: as it was opened, and the tag of its mask; or its own, if it is not opened."""
_PER_WHOLE_ELEMENT = 24
"""The same where few filters are multiplied with whole elements."""
_PER_PATCH_ELEMENT = 128
"""An element of what lies under a window, or of the product with it: itself and its limbs, of both."""


def parsed_memory(size: int) -> int:
    """Return the bytes that a plan takes whose canonical bytes are so many."""
    return size * _PER_PLAN_BYTE


def plan_memory(plan: Plan, limits: Limits) -> int:
    """Return the bytes that a session is granted for plan, weights and state; raise PlanError if that is over the
    limit.
    """
    laid_out = {gate.layout: gate for gate in plan.online if isinstance(gate, Bilinear) and gate.weight}
    carried = sum(field_size(plan.wire[state.in_].sizes) for state in plan.states)
    kept = stored_bytes(plan) + session_dealt(plan) + (1 + plan.is_checked) * carried
    needed = parsed_memory(len(plan.canonical)) + kept * _PER_STORED_BYTE
    if plan.program is not None:
        needed += len(plan.canonical) * MOST_RUNS_KEPT * _PER_RUN_PLAN_BYTE
    largest, limbs = plan.bind(min(limits.max_batch, plan.most_rows)), [0]
    for gate in laid_out.values():
        shape = plan.wire[gate.second].sizes
        if isinstance(gate, Convolution) and _tiles(gate, largest):
            needed += field_size(shape) * _PER_TILED_BYTE
        limbs.append(fp.limb_bytes(shape))
    needed += min(2 * sum(limbs), fp.KEPT_BYTES + min(max(limbs), fp.LIMB_BYTES))
    return _within(needed, limits, "the plan's weights and states need")


def run_memory(plan: Plan, batch: int, limits: Limits) -> int:
    """Return the bytes that one run is granted; raise PlanError if the batch or its memory is over the limit."""
    _require_batch(batch, limits)
    return _within(needed_memory(plan, batch, limits.max_window_bytes), limits, "this run needs")


def deal_memory(plan: Plan, batch: int, limits: Limits) -> int:
    """Return the bytes that the provider is granted to deal one run; raise PlanError if the batch or its memory is over
    the limit.
    """
    _require_batch(batch, limits)
    return _within(needed_to_deal(plan, batch, limits.max_window_bytes), limits, "dealing this run needs")


@once
def needed_to_deal(plan: Plan, batch: int, window: int) -> int:
    """Return the bytes that dealing one run takes, at most: what is being sent or waits for that, one gate, and plain
    masks that gates still read.  What was sent is gone, also of a run that parties hold whole until it is checked.

    Args:
        window: bytes of corrections that wait to be sent, before dealing is held back; a gate's wait if it has more.
    """
    bound = plan.bind(batch)
    tags, dealt = dealt_tags(bound, EntryId(1)), [0]
    for gate in bound.online:
        values = (*gate.correlations(bound.wire), *tags.get(gate.name, ()))
        dealt.append(sum(value.size for value in values if value.dependent))
    waiting = min(sum(dealt), max(window, *dealt))
    used = max((each.used for each in gate_weights(bound).values()), default=0)
    return waiting + used + _mask_memory(bound) + _most_patches(bound) + plan.is_checked * _WINDOW_BYTES


def _mask_memory(bound: Plan) -> int:
    """Count the bytes of a run's plain masks at the gate with most of them, and of what that gate reads and writes."""
    readers, live, most = Readers(bound.online, {state.out for state in bound.states}), dict[str, int](), 0
    for gate in bound.online:
        live |= {name: prod(bound.wire[name].sizes) for name in gate.writes}
        active = sum(live.get(name, 0) for name in {*gate.reads, *gate.writes})
        most = max(most, sum(live.values()) * _PER_MASK_ELEMENT + active * _PER_ACTIVE_ELEMENT)
        for name in readers.over(gate):
            live.pop(name, None)
    return most


@once
def needed_memory(plan: Plan, batch: int, window: int | None = None) -> int:
    """Return the bytes that one run takes, at most.

    Args:
        window: bytes of correlations that are held at a time; all of them if it is None.
    """
    bound = plan.bind(batch)
    window = prepared_ahead(bound, window)
    needed = _correlation_memory(bound, window) + _wire_memory(bound) + plan.is_checked * _WINDOW_BYTES
    return needed + _most_patches(bound)


def prepared_ahead(bound: Plan, window: int | None) -> int | None:
    """Return the bytes of correlations that a party prepares of a bound plan's run before inputs exist; None if all.

    Of a checked run of one window all is held until its check, so nothing is saved by preparing it late.

    Args:
        window: that the parties have agreed on.
    """
    return None if bound.is_checked and len(check_windows(bound)) == 1 else window


def _correlation_memory(bound: Plan, window: int | None) -> int:
    """Count the bytes that correlations take at the step with most of them: those that the window has room for, or of
    the segments whose gates are being evaluated, or have yet to be checked, and the segment that is being made.
    """
    parts, weights = segments(bound, EntryId(1)), gate_weights(bound)
    made = [sum(weights[gate.name].used for gate in part.gates) for part in parts]
    if window is None or sum(part.held for part in parts) <= window:
        return sum(made)
    waiting = [sum(weights[gate.name].waiting for gate in part.gates) for part in parts]
    changes = Counter[int]()  # to what is evaluated at a step, from what is at the step before
    for size, (first, last) in zip(waiting, spans(bound, parts), strict=True):
        changes[first] += size
        changes[last + 1] -= size
    busiest = max(accumulate(changes[step] for step in sorted(changes)))
    dearest = max(Fraction(size, part.held) for size, part in zip(waiting, parts, strict=True) if part.held)
    return min(sum(made), max(ceil(window * dearest), busiest) + max(made))


def _wire_memory(bound: Plan) -> int:
    """Count the bytes of a run's wires at the step with most of them; those of a window stay until it is checked."""
    steps = holdings(bound)
    if not bound.is_checked:
        return max(step.live * _PER_LIVE_ELEMENT + step.active * _PER_ACTIVE_ELEMENT for step in steps)
    live, busiest = max(step.live for step in steps), max(step.active for step in steps)
    return live * (_PER_LIVE_ELEMENT + _PER_CHECKED_ELEMENT) + busiest * _PER_ACTIVE_ELEMENT


def _tiles(gate: Convolution, bound: Plan) -> tuple[int, int] | None:
    return tiles(bound.wire[gate.x].sizes, bound.wire[gate.second].sizes, gate.windows)


def _most_patches(bound: Plan) -> int:
    return max((_patches(gate, bound) for gate in bound.online if isinstance(gate, Convolution)), default=0)


def _patches(gate: Convolution, bound: Plan) -> int:
    """Count the bytes that a convolution makes of its input, a few windows or tiles at a time (`mpc.convolution`)."""
    (images, filters, *positions), (_, *each) = bound.wire[gate.out].sizes, bound.wire[gate.second].sizes
    few = filters // gate.windows.groups <= FEW_FILTERS
    window = max(prod(each) * gate.windows.groups, filters) * (_PER_WHOLE_ELEMENT if few else _PER_PATCH_ELEMENT)
    if counts := _tiles(gate, bound):
        tile = 2 * TILE * TILE * max(filters, each[0]) * 8
        return min(tile * images * prod(counts), max(tile * prod(counts), 2 * POINT_BYTES))
    return min(window * images * prod(positions), max(window, 3 * BLOCK_BYTES))


def _require_batch(batch: int, limits: Limits) -> None:
    if not 1 <= batch <= limits.max_batch:
        raise PlanError(
            f"a batch of {batch}; 1 to {limits.max_batch} are accepted",
            remedy="split the data, or raise limits.max_batch",
        )


def _within(needed: int, limits: Limits, what: str) -> int:
    if needed > limits.memory:
        raise PlanError(
            f"{what} {needed >> 20} MiB of memory, over the limit of {limits.memory >> 20}",
            remedy="use a smaller batch, or raise limits.max_memory_bytes",
        )
    return needed
