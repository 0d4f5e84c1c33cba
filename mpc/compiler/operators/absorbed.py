"""Far numbers that masks add to others: float32, in which models are run elsewhere, loses these beside them.

Here they keep their order and their differences, so places among them, and shares, are others than a model's.  A note
says so: of a secret mask always, since it may hide all of a row, and of a public one where it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mpc.compiler.graph.attributes import Constant, Sum, Weighted
from mpc.compiler.graph.graph import MOVES, Node, static
from mpc.compiler.graph.hidden import ABSORBING
from mpc.compiler.operators.context import LEAST_MASK, Context
from mpc.compiler.operators.masks import DEEPEST, LEAST_FACTOR, added_constants
from mpc.compiler.operators.maxima import root_of, unit_of

_FAR = -ABSORBING
"""Beside numbers of this size float32 keeps at most ten bits behind the point."""
_MAY_COUNT = -LEAST_FACTOR
"""Reals that are multiplied with so much count as a mask."""
_ABOUT = 1e-3
"""A constant is about a number if it differs by no larger part of it."""
_WAYS = ("maximum", "multiply", "relu", "scale", "sum", *MOVES)


def note_places(state: Context, x: str, axis: int, k: int, sign: float) -> None:
    """Say so if the first k places of x along an axis may be among numbers that a mask is added to.

    Args:
        sign: 1.0 if the largest come first.
    """
    if fill := secretly_added(state, x):
        state.note(
            f"numbers that a mask adds {fill:.3g} to keep their order here, and lose it beside that in float32: their "
            "places are others than the model's, as where it hides all of a row, or leaves fewer numbers than are "
            "ranked: do not use these ranks"
        )
    if (added := _publicly_added(state, x)) is None:
        return
    rows = np.moveaxis(sign * np.broadcast_to(added, static(state.shapes[x])), axis, -1)
    rows = np.unique(rows.reshape(-1, rows.shape[-1]), axis=0)
    far = [level for row in rows if (level := _first_far(row, k))]
    if far and bool((np.abs(rows) < -LEAST_MASK).any() or (rows < LEAST_FACTOR).all()):
        state.note(
            f"a mask that is the model's own adds {sign * max(far, key=abs):.3g} to numbers that are among the {k} "
            "first: they keep their order here, and lose it beside that in float32: do not use these ranks"
        )


def note_shares(state: Context, x: str, *, public: bool = False) -> None:
    """Say so if shares of a row that a secret mask hides whole are others, and `masks.cut_of` does not.

    Args:
        public: say so of a public mask too, which hides rows whole.
    """
    fill = secretly_added(state, x)
    if public and not fill and (added := _publicly_added(state, x)) is not None:
        fill = min(0.0, float(np.broadcast_to(added, static(state.shapes[x])).max(axis=-1).min()))
        fill = fill if fill <= ABSORBING else 0.0
    if fill and not any(node.writes in state.cut for node, _ in _behind(state, x)):
        state.note(
            "where masks hide all scores of a row, as those of a query whose keys are all padding or come later, its "
            f"shares are others than the model's, which in float32 loses scores beside {fill:.3g}: do not use such "
            "rows, or put one finite number in place of all hidden scores"
        )


def _first_far(row: np.ndarray, k: int) -> float:
    """Return a far number that is added to several of the numbers of which some are among the k first; else 0."""
    levels, counts = np.unique(-row, return_counts=True)
    before = np.cumsum(counts) - counts
    found = levels[(counts > 1) & (before < k) & (np.abs(levels) >= _FAR)]
    return -float(found[0]) if found.size else 0.0


def note_difference(state: Context, left: str, right: str) -> None:
    """Say so if two values are subtracted from or compared with each other that a secret mask adds one number to, or
    one with a constant that is about what the mask adds.
    """
    if state.is_constant(left):
        left, right = right, left
    if state.is_constant(left):
        return
    if state.is_constant(right):
        fill = _about(state, left, state.numbers(right, "an operand").reshape(-1))
    else:
        fill = secretly_added(state, left)
        fill = fill if fill and fill * secretly_added(state, right) > 0 else 0.0
    if fill:
        state.note(
            f"numbers that a mask adds {fill:.3g} to are subtracted from or compared with each other, or with that "
            "number: float32 loses what is kept here beside it, so results are others than the model's where the mask "
            "hides, as in rows that it hides whole: do not use these"
        )


def _about(state: Context, x: str, levels: np.ndarray) -> float:
    """Return a number that a mask adds to what x is made of, and that one of these is about; else 0."""
    levels = levels[np.abs(levels) >= _FAR * (1 - _ABOUT)]
    if not levels.size:
        return 0.0
    fills, public = np.array([secretly_added(state, x)]), _publicly_added(state, x)
    fills = fills if public is None else np.append(fills, public)
    near = np.abs(np.subtract.outer(levels, fills)) <= _ABOUT * np.abs(fills)
    found = fills[(near & (np.abs(fills) >= _FAR)).any(axis=0)]
    return float(found[0]) if found.size else 0.0


def _publicly_added(state: Context, x: str) -> np.ndarray | None:
    """Return the constants that a value is a sum of, if far ones are among them."""
    added = added_constants(state, {node.writes: node for node in state.nodes}, x, DEEPEST, {})
    return added if added is not None and _adds_far(state, x) else None


def secretly_added(state: Context, x: str) -> float:
    """Return the farthest number that a secret mask adds to what x is made of, in the model; 0.0 if none does."""
    for node in state.nodes[state.looked_at :]:
        taken = node.attributes
        state.has_far = state.has_far or (isinstance(taken, Weighted) and node.op == "scale" and _has_far(taken))
    state.looked_at = len(state.nodes)
    if not state.has_far:
        return 0.0
    return max((float(fill) for fill in _fills(state, x)), key=abs, default=0.0)


@dataclass(frozen=True)
class _Way:
    """How a value reaches another one.

    Args:
        factor: what it is multiplied with.
        beside: whether anything is added to it.
        chosen: whether a secret chooses it.
        apart: whether what is added behind it was taken away before, as by a Where that puts a number in its place.
    """

    factor: float = 1.0
    beside: bool = False
    chosen: bool = False
    apart: bool = False


def _fills(state: Context, x: str) -> Iterator[float]:
    for node, way in _behind(state, x):
        if not way.beside or node.op != "scale" or node.writes in state.floored:
            continue
        if (cut := state.cut.get(node.writes)) is not None:
            yield cut.least
        elif (fill := _fill_of(state, node, way)) is not None:
            yield way.factor * fill


def _fill_of(state: Context, node: Node, way: _Way) -> float | None:
    """Return the far number that a mask is where it hides, or that is added where a secret says so; else None."""
    [mask], weight = node.reads, node.of(Weighted).weight
    bias = np.zeros(()) if (found := node.of(Weighted).bias) is None else np.asarray(found)
    if way.chosen and weight.size and bias.size and (np.abs(bias) >= _FAR).all() and weight.all():
        return float(bias.flat[0]) * float(np.sign(way.factor))
    least = _FAR if mask in state.integral or _is_part(state, mask) else _MAY_COUNT
    if not weight.size or np.abs(weight).max() < least or (unit := unit_of(state, mask)) is None:
        return None
    ends = np.concatenate([bias.reshape(-1), (bias + unit * weight).reshape(-1)])
    return float(ends[np.abs(ends).argmax()])


def _is_part(state: Context, x: str) -> bool:
    """Is what a value is made of an input of reals between 0 and 1?"""
    within = state.enterable.get(root_of(state, x))
    return within is not None and bool(np.min(within[0]) >= 0 and np.max(within[1]) <= 1)


def _behind(state: Context, x: str) -> Iterator[tuple[Node, _Way]]:
    """Yield the nodes that x is made of, and how what they write reaches it."""
    writers, seen = {node.writes: node for node in state.nodes}, set[tuple[str, bool, bool, bool]]()
    left = [(x, _Way())]
    while left:
        name, way = left.pop()
        node, key = writers.get(name), (name, way.beside, way.chosen, way.apart)
        if node is None or key in seen or node.op not in (*_WAYS, "constant"):
            continue
        seen.add(key)
        read = writers.get(node.reads[0]) if node.op == "scale" else None
        puts = read is not None and read.op == "multiply" and node.of(Weighted).bias is not None
        if node.op == "relu" or puts or _ends_maximum(writers, node):
            way = replace(way, chosen=False)  # what it adds is taken away again
        way = replace(way, apart=puts or (way.apart and node.op == "multiply"))
        yield node, way
        factors = [1.0] * len(node.reads)
        if node.op == "scale":
            weight = node.of(Weighted).weight
            factors = [float(weight.flat[0]) if weight.size and (weight == weight.flat[0]).all() else 1.0]
        elif node.op == "sum":
            factors = list(node.of(Sum).factors)
            way = replace(way, beside=way.beside or len(node.reads) > 1)
        elif node.op == "multiply":
            way = replace(way, chosen=not way.apart and any(read in state.integral for read in node.reads))
        left += [(read, replace(way, factor=way.factor * each)) for read, each in zip(node.reads, factors, strict=True)]


def _ends_maximum(writers: dict[str, Node], node: Node) -> bool:
    """Is a node the end of a maximum with a number, relu(x - c) + c?"""
    inner = writers.get(node.reads[0]) if node.op == "scale" else None
    first = writers.get(inner.reads[0]) if inner is not None and inner.op == "relu" else None
    if first is None or first.op != "scale":
        return False
    taken, added = first.of(Weighted).bias, node.of(Weighted).bias
    return taken is not None and added is not None and np.array_equal(-taken, added)


def _adds_far(state: Context, x: str) -> bool:
    """Is anything so far away added to what x is made of?  What is put in the place of numbers makes them equal."""
    for node, _ in _behind(state, x):
        if isinstance(node.attributes, Constant) and _is_far(node.attributes.weight):
            return True
        if node.op == "scale" and (bias := node.of(Weighted).bias) is not None:
            weight, bias = np.broadcast_arrays(node.of(Weighted).weight, bias)
            if _is_far(bias[weight != 0]):
                return True
    return False


def _has_far(taken: Weighted) -> bool:
    return any(each is not None and _is_far(np.asarray(each)) for each in (taken.weight, taken.bias))


def _is_far(values: np.ndarray) -> bool:
    return bool((np.abs(values) >= _FAR).any())
