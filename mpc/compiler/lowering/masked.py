"""Softmaxes of which public constants hide a part: what is left of each row is gathered, and all gates work on that.

Moves are free.  Rows of different lengths stand one behind the other, on one axis: a level of their tournament is one
gather into groups, a row's sum is linear in what is spread back among zeros, and a row's inverse is gathered once for
each of its shares.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mpc.compiler.graph.attributes import Function
from mpc.compiler.graph.graph import MOVES, Node, Shape, static
from mpc.compiler.graph.hidden import FAR, Hidden
from mpc.compiler.lowering.builder import Lowering
from mpc.compiler.lowering.emitted import SMALLER, Value
from mpc.compiler.lowering.intervals import Interval
from mpc.compiler.lowering.rules.together import divided
from mpc.compiler.lowering.tournaments import of_rows

_LOST = -1e5
"""Beside numbers below it float32 keeps less than two digits behind the point."""
_FACTOR_FRACTION = 20
"""Fractional bits that a share has as a factor of a product."""


def skips(state: Lowering, x: Value, hidden: Hidden) -> Hidden | None:
    """Return what takes no part in a softmax over x, and remember it; None if that is nothing.

    Minus infinity never does.  Of numbers all, or those that are cut off, or nothing: a plan tells of the bounds
    whether they suffice, and not which of them do.
    """
    low, high = (np.broadcast_to(end / float(x.scale), static(x.shape)) for end in (x.interval.low, x.interval.high))
    found = next(part for part in hidden.parts() if part.certain or _far_below(part, low, high))
    if not _as_good(found, low, high):
        state.note(
            "constants below -10000 that are added to its scores count as -10000, and bounds do not show that this "
            f"changes no share: add constants nearer to zero, or {SMALLER}"
        )
    top = found.below.max(axis=-1)
    if (np.isfinite(top) & (top < _LOST)).any():
        state.note(
            f"constants of {top[np.isfinite(top)].min():.3g} or so are added to all scores of a row: here its shares "
            "follow the scores, where a model that is run in float32 loses them beside such a number and gives equal "
            "shares: add the least float32 there if they are to be equal"
        )
    if not found.where.any():
        return None
    state.skipped[hidden] = found
    return found


def note_cut(state: Lowering, x: Value, skipped: Hidden | None, cut: float) -> None:
    """Note that scores may make up for a mask that a secret chooses, unless bounds show that none does.

    Args:
        skipped: what takes no part.
        cut: how far apart scores may be, those that are hidden included.
    """
    low, high = (np.broadcast_to(end / float(x.scale), static(x.shape)) for end in (x.interval.low, x.interval.high))
    if skipped is not None:
        low, high = np.where(skipped.where, np.inf, low), np.where(skipped.where, -np.inf, high)
    if (high.max(axis=-1) - low.min(axis=-1) > cut - FAR).any():
        state.note(
            "where a secret hides scores by numbers below -10000, these are brought closer to zero, and bounds do not "
            f"show that this changes no share: {SMALLER}"
        )


def _far_below(hidden: Hidden, low: np.ndarray, high: np.ndarray) -> bool:
    """Do scores between `low` and `high` lie far below others of their row where that has to be proved?"""
    top = np.where(hidden.where, -np.inf, low + hidden.below).max(axis=-1)
    return bool((np.where(hidden.where, high + hidden.below, -np.inf).max(axis=-1) + FAR <= top).all())


def _as_good(skipped: Hidden, low: np.ndarray, high: np.ndarray) -> bool:
    """Have scores that stand for less no share as they are?  Nothing matters that all scores of a row lack."""
    below = np.broadcast_to(np.where(skipped.where, -np.inf, skipped.below), low.shape)
    least = np.isneginf(below) & skipped.where
    lost = ~least & (below < below.max(axis=-1, keepdims=True))
    top = np.where(lost | least, -np.inf, low).max(axis=-1)
    return bool((np.where(lost, high, -np.inf).max(axis=-1) + FAR <= top).all())


def greatest(state: Lowering, x: Value, hidden: Hidden, one: Callable[[Value], Value]) -> Value:
    """Return the largest of each row, which keeps size 1, of what is not hidden; zero of rows that are hidden whole.

    Args:
        one: appends a gate for the largest of each row of equal lengths.
    """
    shape = (*x.shape[:-1], 1)
    x = _gathered(state, x, hidden, np.flatnonzero(hidden.kept))
    lengths, axis = np.array(hidden.lengths), hidden.lead
    shift, windows = state.rounding(x, 1), math.prod(static(x.shape[:axis]))
    tagged = state.roles.security == "active"
    for size in of_rows(hidden.lengths, x, windows, shift, 0, tagged):
        groups = -(-lengths // size)
        starts, rows = np.cumsum(lengths) - lengths, np.repeat(np.arange(len(lengths)), groups * size)
        places = np.arange(len(rows)) - np.repeat(np.cumsum(groups * size) - groups * size, groups * size)
        candidates = starts[rows] + np.minimum(places, lengths[rows] - 1)
        x = state.reshape(_taken(state, x, axis, candidates), (*x.shape[:axis], len(candidates) // size, size))
        x, lengths = state.reshape(one(x), x.shape[:-1]), groups
    if hidden.empty.any():
        x = _taken(state, x, axis, np.where(hidden.empty, -1, np.cumsum(~hidden.empty) - 1))
    return state.reshape(x, shape)


def powers(state: Lowering, x: Value, hidden: Hidden, function: Callable[[Value], Value]) -> Value:
    """Return a function of what is not hidden, exact zeros elsewhere, and ones in rows that are hidden whole."""
    found = function(_gathered(state, x, hidden, np.flatnonzero(hidden.kept)))
    spread = _spread(state, found, hidden, hidden.kept, x.shape)
    if not hidden.empty.any():
        return spread
    one = round(spread.scale)
    ones = np.where(np.broadcast_to(hidden.rows_empty(), hidden.where.shape), one, 0).astype(np.int64)
    interval = spread.interval.plus(Interval.exactly(ones))
    stored, xs = state.stored(ones, spread.scale, public=True), (spread.wire.name,)
    return state.add("combine", x.shape, spread.scale, interval, xs=xs, factors=(1,), stored=stored)


def shares(state: Lowering, node: Node, product: Callable[[Lowering, Node], Value]) -> Value | None:
    """Return powers over the sum of their row, with exact zeros where they are hidden; None of another product.

    Args:
        product: multiplies what two names of the graph stand for.
    """
    writer = state.graph.writers.get(node.reads[0])
    named = writer.attributes.hidden if writer is not None and isinstance(writer.attributes, Function) else None
    hidden = None if named is None else state.skipped.get(named)
    left, right = (state.values[name] for name in node.reads)
    if hidden is None or right.shape != (*left.shape[:-1], 1):
        return None
    used = hidden.kept | hidden.empty[:, None]
    rows, names = np.nonzero(used)[0], tuple(f"{node.writes}.{side}" for side in ("shown", "over"))
    lead = right.shape[: hidden.lead]
    inverse = state.reshape(right, (*lead, len(used)))
    parts = _gathered(state, left, hidden, np.flatnonzero(used)), _taken(state, inverse, hidden.lead, rows)
    flat = replace(node, reads=names, shape=parts[0].shape)
    state.values.update(zip(names, parts, strict=True))
    found = product(state, flat)
    for name in names:
        del state.values[name]
    short = state.shorten(found, _FACTOR_FRACTION) if _only_multiplied(state, node) else found
    spread, known = _spread(state, short, hidden, used, node.shape), divided(state, node)
    return replace(spread, norms=known and known.rounded(_off(state, found, parts) + 1 / float(short.scale)))


def _off(state: Lowering, product: Value, factors: tuple[Value, Value]) -> float:
    """Return by how much a product is off since its gate reads its factors rounded."""
    x, y = (state.wires[name] for name in state.writers[product.wire.name].reads)
    sizes = [each.interval.bound / float(each.scale) + 1 / 64 for each in factors]
    return sizes[1] / float(x.scale) + sizes[0] / float(y.scale)


def _only_multiplied(state: Lowering, node: Node) -> bool:
    """Do only products with another matrix read it?"""
    readers = list(state.graph.readers(node.writes))
    if not readers or state.graph.is_output(node.writes):
        return False
    return all(
        (one.op == "matmul" and len(one.reads) == 2) or (one.op in MOVES and _only_multiplied(state, one))
        for one in readers
    )


def _gathered(state: Lowering, x: Value, hidden: Hidden, places: np.ndarray) -> Value:
    """Return elements of x, all rows on one axis, on a wire with room for them alone."""
    flat = state.reshape(x, (*x.shape[: hidden.lead], hidden.where.size))
    found = _taken(state, flat, hidden.lead, places)
    if state.bits(found.interval.bound, found.scale) >= found.wire.bits:
        return found
    return state.combine([found], [1], found.shape, found.scale)


def _spread(state: Lowering, x: Value, hidden: Hidden, where: np.ndarray, shape: Shape) -> Value:
    """Put the elements of x, in order, where a mask is true, and zeros elsewhere."""
    inside = where.reshape(-1)
    places = np.where(inside, np.cumsum(inside) - 1, -1)
    return state.reshape(_taken(state, x, hidden.lead, places), shape)


def _taken(state: Lowering, x: Value, axis: int, places: np.ndarray) -> Value:
    if np.array_equal(places, np.arange(int(x.shape[axis]))):
        return x
    return state.take(x, axis, tuple(places.tolist()))
