"""Rows of secret data at secret places, as a text model takes the token that ends a text.

A place is a row of zeros with at most a one, which chooses exactly.  Exporters write x[arange(batch), index] with
columns of indices (GatherND), or as a place among all rows of the batch, row * size + index (Gather).  In both the row
itself is public, and no row is compared with another one's places.
"""

from __future__ import annotations

from math import prod

import numpy as np

from mpc.compiler.graph.attributes import Concat, Constant, Fit, Take, Weighted
from mpc.compiler.graph.graph import MOVES, Node, Shape, static
from mpc.compiler.graph.writer import FIX_BATCH
from mpc.compiler.operators.context import Context
from mpc.compiler.operators.facts import Natural, Place, Truncated
from mpc.compiler.operators.labels import one_hot
from mpc.compiler.operators.places import hot_of
from mpc.wires import BATCH

Column = np.ndarray | str
"""Public indices into an axis, or a secret value that holds them."""
_BESIDE = "it would be a place of another row of the batch"
_WITHIN = f"hold it to its row (Clip, in torch clamp(min=0)); or {FIX_BATCH}"


def places(state: Context, index: str, size: int) -> str:
    """Return zeros on one more axis, of this size, with 1 at the place that an index tells.

    A negative index counts from the end, one outside is nowhere.
    """
    if index not in state.integral and not isinstance(state.facts.get(index), Truncated):
        raise state.origin.refuse(
            "its indices are no whole numbers", remedy="cast them, or make the input one of int64"
        )
    if (entered := hot_of(state, index)) is not None:
        axis, width = len(state.shapes[entered]) - 1, state.size(state.shapes[entered], -1, "an index")
        ones = [*range(min(width, size)), *[-1] * (size - width)]
        return entered if width == size else state.take(entered, axis, ones)
    if _is_natural(state, index):
        return one_hot(state, index, range(size))
    both = one_hot(state, index, range(-size, size))
    axis = len(state.shapes[both]) - 1
    halves = [state.take(both, axis, range(start, start + size)) for start in (0, size)]
    return state.sum(halves, (1.0, 1.0), known=(0.0, 1.0))


def _is_natural(state: Context, index: str) -> bool:
    """Is a value, or what it is moved from, known not to be negative?"""
    if isinstance(state.facts.get(index), Place | Natural):
        return True
    node = _writer(state, index)
    return node is not None and node.op in MOVES and all(_is_natural(state, name) for name in node.reads)


def rows_at(state: Context, data: str, lead: Shape, columns: list[str], out: str | None = None) -> str:
    """Choose from (*lead, n1, .., *rest) by secret places (*lead, *more) of n1 and so on; (*lead, *more, *rest)."""
    ahead, more = len(lead), state.shapes[columns[0]][len(lead) :]
    number = prod(static(more))
    for place, column in enumerate(columns):
        shape = state.shapes[data]
        kept = (*lead, *([number] if place else []))
        size, rest = state.size(shape, len(kept), "an index"), shape[len(kept) + 1 :]
        if BATCH in rest:
            raise state.origin.refuse("places of what has rows of the batch behind it", remedy=FIX_BATCH)
        hot = places(state, column, size)
        hot = state.reshape(hot, (*kept, *([1] if place else [number]), size))
        chosen = state.choose(hot, state.reshape(data, (*kept, size, prod(static(rest)))))
        data = state.reshape(chosen, (*lead, number, *rest))
    return state.reshape(data, (*lead, *more, *state.shapes[data][ahead + 1 :]), out)


def gather_rows(state: Context, data: str, axis: int, index: str, out: str) -> None:
    """Choose slices along an axis at secret places, the same for all that is before and behind the axis."""
    shape, wanted = state.shapes[data], state.shapes[index]
    if BATCH in wanted and BATCH in shape:
        raise state.origin.refuse(
            "places and data both have the rows of the batch, and every row would be chosen from by every place",
            remedy=f"write it with GatherND or GatherElements, which pair them; or {FIX_BATCH}",
        )
    size = state.size(shape, axis, "an index")
    blocks = _blocks(state, index, size) if axis == 0 else None
    if blocks is not None:
        own, inner, each = blocks
        number, rest = len(own), shape[1:]
        taken = state.take(state.reshape(data, (size // each, each, *rest)), 0, own.tolist())
        found = rows_at(state, taken, (number,), [state.reshape(inner, (number,))])
        state.reshape(found, (*wanted, *rest), out)
        return
    if wanted[:1] != (BATCH,) and BATCH in wanted:
        raise state.origin.refuse("places of which the first axis is not the batch", remedy=FIX_BATCH)
    many, number = (wanted[:1], prod(static(wanted[1:]))) if BATCH in wanted else ((), prod(static(wanted)))
    hot = state.reshape(places(state, index, size), (*many, number, size))
    batch = [place for place, length in enumerate(shape) if length == BATCH]
    others = [place for place in range(len(shape)) if place != axis and place not in batch]
    kept, rest = tuple(shape[place] for place in batch), tuple(shape[place] for place in others)
    flat = state.reshape(state.transpose(data, (*batch, axis, *others)), (*kept, size, prod(static(rest))))
    found = state.reshape(state.choose(hot, flat), (*kept, *wanted, *rest))
    first = len(kept) + len(wanted)
    now = {**{place: at for at, place in enumerate(batch)}, **{place: first + at for at, place in enumerate(others)}}
    order = [now[place] for place in sorted(now)]
    state.transpose(found, [*order[:axis], *range(len(kept), first), *order[axis:]], out)


def gather_columns(state: Context, data: str, index: str, batch: int, out: str) -> None:
    """Choose by columns of indices, on the last axis of `index`, of which some may be public; GatherND with secrets.

    Args:
        batch: so many first axes are those of both.
    """
    shape, wanted = state.shapes[data], state.shapes[index]
    lead, more = wanted[:batch], wanted[batch:-1]
    if shape[:batch] != lead or BATCH in more:
        raise state.origin.refuse("columns of indices whose rows are not those of the data", remedy=FIX_BATCH)
    _chosen_by(state, data, lead, more, _split(state, index), out)


def paired_with_rows(state: Context, data: str, shape: Shape, columns: tuple[Column, ...], out: str) -> bool:
    """Choose within each row of the open batch by columns of indices (batch, ..) behind the row's own."""
    _chosen_by(state, data, (BATCH,), shape[1:-1], columns, out)
    return True


def beside_rows(state: Context, data: str, secret: str, rows: int, out: str) -> bool:
    """Choose within each row of the open batch at a secret place, which the model has among all rows' places.

    Args:
        rows: how many places come before the next row's.
    """
    view, shape = state.joined.get(data), state.shapes[data]
    if shape[0] != BATCH or view is None or (view.first, view.more) != (0, 1) or shape[1] != rows:
        return False
    taken = Fit(ends=(0.0, rows - 1.0), outside=_BESIDE, remedy=_WITHIN)
    own = state.emit("fit", (secret,), None, state.shapes[secret], taken)
    state.integral.add(own)
    state.facts[own] = Natural()
    rows_at(state, data, (BATCH,), [own], out)
    return True


def repeated_elements(state: Context, data: str, axis: int, index: str, out: str) -> bool:
    """Choose whole slices where one place is repeated for all that is behind the axis; False if it is another index."""
    shape, wanted = state.shapes[data], state.shapes[index]
    if axis == len(shape) - 1 or shape[:axis] != wanted[:axis] or shape[axis + 1 :] != wanted[axis + 1 :]:
        return False
    once = (*wanted[: axis + 1], *[1] * (len(shape) - axis - 1))
    node = _writer(state, index)
    while node is not None and state.shapes[node.writes] != once:
        spread = isinstance(node.attributes, Take) and not any(node.attributes.indices)
        node = _writer(state, node.reads[0]) if spread or node.op == "reshape" else None
        if node is not None and prod(static(state.shapes[node.writes])) < prod(static(once)):
            return False
    if node is None:
        return False
    place = state.reshape(node.writes, wanted[: axis + 1])
    rows_at(state, data, shape[:axis], [place], out)
    return True


def _chosen_by(state: Context, data: str, lead: Shape, more: Shape, columns: tuple[Column, ...], out: str) -> None:
    """Choose first by the public columns, which are moves, then by the secret ones."""
    ahead, number, shape = len(lead), prod(static(more)), state.shapes[data]
    known = [place for place, column in enumerate(columns) if not isinstance(column, str)]
    secret = [place for place in range(len(columns)) if place not in known]
    order = [*range(ahead), *(ahead + place for place in (*known, *secret)), *range(ahead + len(columns), len(shape))]
    moved, names = state.transpose(data, order), [column for column in columns if isinstance(column, str)]
    if not known:
        rows_at(state, moved, lead, [state.reshape(name, (*lead, *more)) for name in names], out)
        return
    sizes = tuple(state.size(shape, ahead + place, "an index") for place in known)
    flat = np.zeros(number, np.int64)
    for place, size in zip(known, sizes, strict=True):
        flat = flat * size + np.broadcast_to(columns[place], static(more)).reshape(-1) % size
    rest = state.shapes[moved][ahead + len(known) :]
    taken = state.take(state.reshape(moved, (*lead, prod(sizes), *rest)), ahead, flat.tolist())
    places = [state.reshape(name, (*lead, number)) for name in names]
    found = rows_at(state, taken, (*lead, number), places)
    state.reshape(found, (*lead, *more, *state.shapes[found][ahead + 1 :]), out)


def _split(state: Context, index: str) -> tuple[Column, ...]:
    """Take columns apart: constants that were joined with secrets are public."""
    axis, node = len(state.shapes[index]) - 1, _writer(state, index)
    if node is not None and isinstance(node.attributes, Concat) and node.attributes.axis == axis:
        return tuple(column for part in node.reads for column in _split(state, part))
    shape = state.shapes[index]
    if node is not None and isinstance(node.attributes, Constant) and BATCH not in shape:
        numbers = np.broadcast_to(node.attributes.weight, static(shape)).astype(np.int64)
        return tuple(np.moveaxis(numbers, -1, 0))
    return tuple(state.take(index, axis, [place]) for place in range(state.size(shape, axis, "an index")))


def _blocks(state: Context, index: str, size: int) -> tuple[np.ndarray, str, int] | None:
    """Read an index as (block, place in it, size of each block) if it is a public multiple of the size plus a place."""
    node = _writer(state, index)
    while node is not None and node.op == "fit":
        node = _writer(state, node.reads[0])
    taken = node.attributes if node is not None else None
    if (
        node is None
        or not isinstance(taken, Weighted)
        or node.op != "scale"
        or taken.bias is None
        or BATCH in node.shape
    ):
        return None
    offsets = np.broadcast_to(taken.bias, static(node.shape)).reshape(-1).astype(np.int64)
    each = int(np.gcd.reduce(np.append(offsets, size)))
    reach = _reach(state, node.reads[0])
    if (taken.weight != 1).any() or state.shapes[node.reads[0]] != node.shape or not 0 < reach <= each < size:
        return None
    if offsets.min() < 0 or offsets.max() >= size:
        return None
    return offsets // each, node.reads[0], each


def _reach(state: Context, index: str) -> int:
    """Return how many elements a place was found among; 0 if that is not known."""
    node = _writer(state, index)
    while node is not None and isinstance(state.facts.get(index), Place | None) and node.op in ("reshape", "fit"):
        node = _writer(state, node.reads[0])
    return int(state.shapes[node.reads[0]][-1]) if node is not None and node.op == "argmax" else 0


def _writer(state: Context, name: str) -> Node | None:
    return next((node for node in reversed(state.nodes) if node.writes == name), None)
