"""Write at public places: what a model puts into parts of a value is moves, and sums where places meet."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np

from mpc.compiler.graph.graph import Shape, static
from mpc.compiler.graph.writer import FIX_BATCH
from mpc.compiler.operators.calling import call
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.registry import handles
from mpc.wires import BATCH

_TOGETHER = {"mul": "Mul", "min": "Min", "max": "Max"}
"""Puts an update together with what is there: an attribute's value -> the operator that does so."""
_FILLS = {"min": 1.0, "max": -1.0}
"""The sign of what every number is beyond."""
_BOUNDLESS = 1e30
"""No value reaches this."""


@handles("ScatterND")
def scatter_nd(state: Context, node: ModelNode, settings: Settings) -> None:
    """Write slices at public indices into the first axes."""
    data, indices = node.input[0], _places(state, node)
    shape, depth = shape_of(state, data), indices.shape[-1]
    sizes = tuple(_size(state, shape, place) for place in range(depth))
    flat = flat_places(state, indices.reshape(-1, depth), sizes)
    write(state, node, (), (prod(sizes), *shape[depth:]), flat, settings)


@handles("ScatterElements")
def scatter_elements(state: Context, node: ModelNode, settings: Settings) -> None:
    """Write elements at public indices along an axis."""
    indices, shape = _places(state, node), shape_of(state, node.input[0])
    axis = state.axis(settings.get("axis", 0), shape)
    sizes = tuple(_size(state, shape, place) for place in range(len(shape)))
    into: list[np.ndarray] = list(np.indices(indices.shape))
    into[axis] = indices
    flat = flat_places(state, np.stack(into, -1).reshape(-1, len(sizes)), sizes)
    write(state, node, (), (prod(sizes),), flat, settings)


def flat_places(state: Context, places: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """Return rows of indices into axes of these sizes as places of one axis.

    Raises:
        ModelError: an index is outside of its axis.
    """
    limits = np.array(sizes)
    if (places < -limits).any() or (places >= limits).any():
        raise state.origin.refuse(
            f"an index outside of axes of {sizes} elements", remedy="write within them, as onnxruntime asks too"
        )
    return np.ravel_multi_index(tuple((places % limits).T), sizes)


def write(state: Context, node: ModelNode, lead: Shape, rows: Shape, flat: np.ndarray, settings: Settings) -> None:
    """Write the node's updates into its data, both seen as (*lead, rows, ..).

    Args:
        rows: how many there are, and the shape of one.
        flat: of which row each update is; of several in one place the last one counts, unless they are added,
            multiplied or compared.
    """
    data, updates = node.input[0], node.input[2]
    how = settings.get("reduction", b"none").decode()
    size, shape, ahead = int(rows[0]), shape_of(state, data), len(lead)
    given = _seen(state, updates, (*lead, len(flat), *rows[1:]))
    if how in _TOGETHER:
        unseen = _unseen(state, data, static(rows), flat, how)
        if unseen.size:
            numbers = state.constants[data].reshape(static(rows)).astype(np.float64)
            numbers[unseen] = 0
            there = state.stored(numbers, rows)
        else:
            there = _seen(state, data, (*lead, *rows))
        state.reshape(_together(state, _TOGETHER[how], there, given, flat, ahead, unseen), shape, node.output[0])
        return
    if how == "add":
        added = state.scatter(given, ahead, flat.tolist(), size)
        state.sum([_seen(state, data, shape), state.reshape(added, shape)], (1.0, 1.0), node.output[0])
        return
    source = np.full(size, -1, np.int64)
    source[flat] = np.arange(len(flat))
    kept = np.flatnonzero(source < 0)
    parts = [given]
    if kept.size and state.is_constant(data):
        source[kept] = len(flat) + np.arange(len(kept))
        parts.append(state.stored(state.numbers(data, "its data").reshape(static(rows))[kept], (len(kept), *rows[1:])))
    elif kept.size:
        source[kept] = len(flat) + kept
        parts.append(_seen(state, data, (*lead, *rows)))
    joined = state.concat(parts, ahead) if len(parts) > 1 else given
    state.reshape(state.take(joined, ahead, source.tolist()), shape, node.output[0])


def _unseen(state: Context, data: str, rows: tuple[int, ...], flat: np.ndarray, how: str) -> np.ndarray:
    """Return the rows of constant data, to be written, that no update can fail to exceed: exporters fill them so."""
    if how not in _FILLS or not state.is_constant(data) or not flat.size:
        return np.zeros(0, np.int64)
    numbers = state.constants[data].reshape(rows[0], -1) * _FILLS[how]
    found: np.ndarray = np.intersect1d(flat, np.flatnonzero((numbers >= _BOUNDLESS).all(axis=1)))
    return found


def _together(
    state: Context, operator: str, data: str, given: str, flat: np.ndarray, ahead: int, unseen: np.ndarray
) -> str:
    """Return data where each update is put together with what is there; of several in one place one after the other.

    Args:
        unseen: rows in whose place the first update comes as it is.
    """
    times = np.array([int((flat[:place] == row).sum()) for place, row in enumerate(flat)])
    for turn in range(int(times.max(initial=-1)) + 1):
        [now] = np.nonzero(times == turn)
        alone = np.isin(flat[now], unseen) & (turn == 0)
        first, rest = now[alone], now[~alone]
        parts = [state.take(given, ahead, first.tolist())] if first.size else []
        if rest.size:
            there, new = state.take(data, ahead, flat[rest].tolist()), state.take(given, ahead, rest.tolist())
            parts.append(call(state, operator, (there, new)))
        source = np.arange(int(state.shapes[data][ahead])) + len(now)
        source[flat[[*first, *rest]]] = np.arange(len(now))
        data = state.take(state.concat((*parts, data), ahead), ahead, source.tolist())
    return data


def _places(state: Context, node: ModelNode) -> np.ndarray:
    return state.constant(node.input[1], "its index").astype(np.int64)


def shape_of(state: Context, name: str) -> Shape:
    """Return the shape of a secret, or of a constant."""
    return tuple(state.constants[name].shape) if state.is_constant(name) else state.secret(name)


def _size(state: Context, shape: Shape, axis: int) -> int:
    if shape[axis] == BATCH:
        raise state.origin.refuse("it writes into rows of the batch", remedy=FIX_BATCH)
    return int(shape[axis])


def _seen(state: Context, name: str, shape: Shape) -> str:
    return state.reshape(state.value(name), shape)


@handles("TensorScatter")
def tensor_scatter(state: Context, node: ModelNode, settings: Settings) -> None:
    """Write rows into a cache from a public place on, which may differ from batch to batch if there are so many."""
    data, update, *given = (*node.input, "")[:3]
    shape = shape_of(state, data)
    axis = state.axis(settings.get("axis", -2), shape)
    order = [0, axis, *(place for place in range(1, len(shape)) if place != axis)]
    cache, rows = (state.transpose(state.value(name), order) for name in (data, update))
    size, number = (state.size(state.shapes[name], 1, "a cache") for name in (cache, rows))
    firsts = state.constant(given[0], "its places").reshape(-1) if given[0] else np.zeros(1, np.int64)
    if len({*firsts.tolist()}) == 1:
        flat, firsts = _from(state, firsts[:1], size, number, settings), firsts[:1]
        lead: Shape = (state.shapes[cache][0],)
        length = size
    else:
        many = state.size(state.shapes[cache], 0, "its places")
        flat = (_from(state, firsts, size, number, settings) + size * np.arange(many)[:, None]).reshape(-1)
        lead, length = (), many * size
        cache = state.reshape(cache, (length, *state.shapes[cache][2:]))
        rows = state.reshape(rows, (many * number, *state.shapes[rows][2:]))
    source = np.arange(length) + flat.size
    source[flat.reshape(-1)] = np.arange(flat.size)
    found = state.take(state.concat((rows, cache), len(lead)), len(lead), source.tolist())
    found = state.reshape(found, tuple(shape[place] for place in order))
    state.transpose(found, np.argsort(order).tolist(), node.output[0])


def _from(state: Context, firsts: np.ndarray, size: int, number: int, settings: Settings) -> np.ndarray:
    """Return so many places from each first one on."""
    places = firsts.astype(np.int64)[:, None] + np.arange(number)
    if settings.get("mode", b"linear") == b"circular":
        places = places % size
    if (places < 0).any() or (places >= size).any() or number > size:
        raise state.origin.refuse(f"{number} rows from there on in a cache of {size}", remedy="write within it")
    return places


@handles("Col2Im")
def col2im(state: Context, node: ModelNode, settings: Settings) -> None:
    """Add up blocks where they overlap, as the adjoint of taking them does."""
    x, shape = node.input[0], state.secret(node.input[0])
    image, block = (state.integers(node.input[place], "a size") for place in (1, 2))
    rank = len(image)
    steps, spread = (settings.get(name) or [1] * rank for name in ("strides", "dilations"))
    pads = settings.get("pads") or [0] * (2 * rank)
    counts = [
        (image[i] + pads[i] + pads[i + rank] - spread[i] * (block[i] - 1) - 1) // steps[i] + 1 for i in range(rank)
    ]
    within, at = (np.array(list(product(*map(range, sizes)))) for sizes in (block, counts))
    places = within[:, None] * np.array(spread) + at * np.array(steps) - np.array(pads[:rank])
    inside = ((places >= 0) & (places < np.array(image))).all(-1)
    flat = np.where(inside, np.ravel_multi_index(tuple(np.moveaxis(places, -1, 0)), tuple(image), mode="clip"), -1)
    number = prod(block) * prod(counts)
    channels = prod(static(shape[1:])) // number
    parts = state.reshape(x, (shape[0], channels, number))
    found = state.scatter(parts, 2, flat.reshape(-1).tolist(), prod(image))
    state.reshape(found, (shape[0], channels, *image), node.output[0])
