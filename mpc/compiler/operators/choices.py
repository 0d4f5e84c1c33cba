"""Import what an index or a condition chooses: rows of a table, one-hot vectors, branches.

Public indices are moves.  A secret one is compared with every place that it can mean.
"""

from __future__ import annotations

from math import prod

import numpy as np

from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.facts import Truncated
from mpc.compiler.operators.masks import cut_off
from mpc.compiler.operators.picked import gather_columns, gather_rows, places, repeated_elements, rows_at
from mpc.compiler.operators.places import hot_of
from mpc.compiler.operators.registry import handles


@handles("If")
def branch(state: Context, node: ModelNode, settings: Settings) -> None:
    """Put the nodes of the branch that a public condition takes in the place of this node."""
    [condition] = state.numbers(node.input[0], "its condition").reshape(-1)
    state.inline(settings["then_branch" if condition else "else_branch"], node.output)


@handles("Gather")
def gather(state: Context, node: ModelNode, settings: Settings) -> None:
    """Take slices at public indices; or rows of a table, or of data, at secret ones."""
    if not state.is_constant(node.input[1]):
        _rows(state, node, settings)
        return
    indices = state.constant(node.input[1], "its index").astype(np.int64)
    shape = state.secret(node.input[0])
    axis = state.axis(settings.get("axis", 0), shape)
    size = state.size(shape, axis, "an index")
    if indices.size and (indices.min() < -size or indices.max() >= size):
        raise state.origin.refuse(
            f"an index outside the {size} elements of axis {axis}", remedy=f"give indices from {-size} to {size - 1}"
        )
    taken = state.take(node.input[0], axis, (indices.reshape(-1) % size).tolist())
    state.reshape(taken, (*shape[:axis], *indices.shape, *shape[axis + 1 :]), node.output[0])


def _rows(state: Context, node: ModelNode, settings: Settings) -> None:
    """Look up rows of a table, as an embedding does: the one-hot index times the table; or rows of secret data."""
    data, index = node.input[:2]
    wanted = state.secret(index)
    if not state.is_constant(data):
        axis = state.axis(settings.get("axis", 0), state.secret(data))
        gather_rows(state, data, axis, index, node.output[0])
        return
    [table] = cut_off(state, [state.numbers(data, "the table")], node.output[0], zero=False)
    if not np.isfinite(table).all():
        raise state.origin.refuse(
            "the table that its index reads holds infinities or NaN",
            remedy="write a large number in their place, -1e4 for minus infinity say, which does where the result is "
            "only compared or goes into a Softmax",
        )
    axis = state.axis(settings.get("axis", 0), table.shape)
    first = np.moveaxis(table, axis, 0)
    columns = first.reshape(len(first), -1)
    if (entered := hot_of(state, index)) is not None:  # no row behind the last that can be entered is read
        columns = columns[: state.size(state.shapes[entered], -1, "an index")]
    ends = min(0.0, float(columns.min())), max(0.0, float(columns.max()))
    chosen = state.affine(places(state, index, len(columns)), columns, known=ends)
    if not np.any(table % 1):
        state.integral.add(chosen)
    rest, rank = first.shape[1:], len(wanted)
    found = state.reshape(chosen, (*wanted, *rest))
    order = [rank + i for i in range(axis)] + list(range(rank)) + [rank + i for i in range(axis, len(rest))]
    state.transpose(found, order, node.output[0])


@handles("OneHot")
def one_hot_vectors(state: Context, node: ModelNode, settings: Settings) -> None:
    [depth], values = state.integers(node.input[1], "the depth"), state.constant(node.input[2], "the values")
    off, on = (float(value) for value in values.reshape(-1))
    index = node.input[0]
    state.secret(index)
    if index not in state.integral:  # reals are cut to whole numbers, towards zero
        index = state.reshape(index, state.shapes[index])
        state.facts[index] = Truncated()
    hot = state.scale(places(state, index, depth), on - off, off)
    rank = len(state.shapes[hot])
    axis = state.axis(settings.get("axis", -1), state.shapes[hot])
    order = [*range(axis), rank - 1, *range(axis, rank - 1)]
    state.transpose(hot, order, node.output[0])


@handles("GatherElements")
def gather_elements(state: Context, node: ModelNode, settings: Settings) -> None:
    """Take elements at public indices, as rows of the flat array; of secret ones see `_gather_secretly`."""
    if not state.is_constant(node.input[1]):
        _gather_secretly(state, node, settings)
        return
    indices = state.constant(node.input[1], "its index").astype(np.int64)
    shape = state.secret(node.input[0])
    axis = state.axis(settings.get("axis", 0), shape)
    sizes = tuple(state.size(shape, place, "an index") for place in range(len(shape)))
    places: list[np.ndarray] = list(np.indices(indices.shape))
    places[axis] = indices % sizes[axis]
    flat = np.ravel_multi_index(tuple(places), sizes)
    taken = state.take(state.reshape(node.input[0], (prod(sizes),)), 0, flat.reshape(-1).tolist())
    state.reshape(taken, indices.shape, node.output[0])


def _gather_secretly(state: Context, node: ModelNode, settings: Settings) -> None:
    """Choose from each row along the axis, of as many rows as there are indices for."""
    x, index = state.value(node.input[0]), node.input[1]
    shape, wanted = state.shapes[x], state.secret(index)
    axis = state.axis(settings.get("axis", 0), shape)
    if repeated_elements(state, x, axis, index, node.output[0]):
        return
    for place, (own, size) in enumerate(zip(shape, wanted, strict=True)):
        if place != axis and own != size:
            x = state.take(x, place, range(state.size(wanted, place, "an index")))
    (moved, back), (chosen, _) = state.last(x, [axis]), state.last(index, [axis])
    lead = state.shapes[moved][:-1]
    size = state.size(shape, axis, "an index")
    found = rows_at(state, state.reshape(moved, (*lead, size)), lead, [chosen])
    state.transpose(found, back, node.output[0])


@handles("GatherND")
def gather_nd(state: Context, node: ModelNode, settings: Settings) -> None:
    """Take slices at indices into the first axes, which may be secret."""
    if not state.is_constant(node.input[1]):
        data = state.value(node.input[0])
        gather_columns(state, data, node.input[1], int(settings.get("batch_dims", 0)), node.output[0])
        return
    indices = state.constant(node.input[1], "its index").astype(np.int64)
    shape = state.secret(node.input[0])
    if count := int(settings.get("batch_dims", 0)):
        indices = _with_own(state, indices, tuple(state.size(shape, place, "an index") for place in range(count)))
    depth = indices.shape[-1]
    sizes = tuple(state.size(shape, place, "an index") for place in range(depth))
    flat = np.ravel_multi_index(tuple(np.moveaxis(indices % np.array(sizes), -1, 0)), sizes)
    rows = state.reshape(node.input[0], (prod(sizes), *shape[depth:]))
    taken = state.take(rows, 0, flat.reshape(-1).tolist())
    state.reshape(taken, (*indices.shape[:-1], *shape[depth:]), node.output[0])


def _with_own(state: Context, indices: np.ndarray, lead: tuple[int, ...]) -> np.ndarray:
    """Put before indices the places along the first axes, which the data and they have alike."""
    count = len(lead)
    if indices.shape[:-1][:count] != lead:
        raise state.origin.refuse(
            f"indices of shape {indices.shape}, and data whose first axes are {lead}",
            attribute="batch_dims",
            remedy="give both the same first axes, as many as batch_dims says",
        )
    own = np.moveaxis(np.indices(lead), 0, -1).reshape(*lead, *[1] * (indices.ndim - 1 - count), count)
    return np.concatenate([np.broadcast_to(own, (*indices.shape[:-1], count)), indices], axis=-1)
