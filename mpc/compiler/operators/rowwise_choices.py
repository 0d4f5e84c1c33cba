"""Choose elements of each row of the batch by whole numbers that differ from row to row; see `rowwise`."""

from __future__ import annotations

from math import prod

import numpy as np

from mpc.compiler.graph.attributes import Constant
from mpc.compiler.graph.graph import Shape, static
from mpc.compiler.graph.writer import FIX_BATCH
from mpc.compiler.operators.context import Context, ModelNode
from mpc.compiler.operators.picked import beside_rows, paired_with_rows
from mpc.compiler.operators.rowwise_values import Beside, Paired, Rowwise, Values
from mpc.compiler.operators.scattered import flat_places, write
from mpc.wires import BATCH


def gather(state: Context, found: Values, node: ModelNode) -> bool:
    """Read rows of a constant table at places that are the same for every row; or of each row its own elements.

    Of such places themselves some are taken, along any axis but the batch.
    """
    data, index = node.input[:2]
    axis = int(node.settings.get("axis", 0))
    if index not in found:
        return _some_places(state, found, node, axis)
    value = found[index]
    if isinstance(value, Beside):
        return axis == 0 and beside_rows(state, data, value.secret, value.rows, node.output[0])
    fixed, step = value.both
    if state.is_constant(data):
        table = state.numbers(data, "the table")
        if step.any() or axis % table.ndim:
            return False
        stored(state, node.output[0], table[fixed], (*value.shape, *table.shape[1:]))
        return True
    shape, view = state.secret(data), state.joined.get(data)
    if shape[0] != BATCH or axis or (view is not None and (view.first, view.more) != (0, 1)):
        return False
    rows = data if view is not None else state.reshape(data, (BATCH, 1, *shape[1:]))
    _of_each_row(state, node, value, (rows, int(state.shapes[rows][1])), fixed, step)
    return True


def _some_places(state: Context, found: Values, node: ModelNode, axis: int) -> bool:
    value, chosen = found[node.input[0]], state.constant(node.input[1], "its index").astype(np.int64)
    axis %= len(value.shape)
    if axis == value.axis:
        return False
    shape: Shape = (*value.shape[:axis], *chosen.shape, *value.shape[axis + 1 :])
    found[node.output[0]] = value.moved(shape, lambda part: part.take(chosen, axis))
    return True


def _of_each_row(
    state: Context, node: ModelNode, value: Rowwise, rows: tuple[str, int], fixed: np.ndarray, step: np.ndarray
) -> None:
    """Take elements along the second axis of (batch, size, ..), whose places count as one axis with the batch."""
    data, size = rows
    if (step != size).any() or fixed.min() < 0 or fixed.max() >= size or prod(static(value.shape[: value.axis])) != 1:
        raise ValueError("an element of another row")
    taken = state.take(data, 1, fixed.reshape(-1).tolist())
    state.reshape(taken, (*value.shape, *state.shapes[data][2:]), node.output[0])


def gather_nd(state: Context, found: Values, node: ModelNode) -> bool:
    """Read each row's own elements, at places that are the same for every row."""
    data, index = node.input[:2]
    if index not in found or state.is_constant(data) or data in state.joined or node.settings.get("batch_dims", 0):
        return False
    value, shape = found[index], state.secret(data)
    if isinstance(value, Paired):
        return shape[0] == BATCH and paired_with_rows(state, data, value.shape, value.columns, node.output[0])
    fixed, step = value.both
    depth = fixed.shape[-1]
    if shape[0] != BATCH or fixed[..., 0].any() or (step[..., 0] != 1).any() or step[..., 1:].any():
        return False
    sizes = tuple(state.size(shape, axis, "an index") for axis in range(1, depth))
    size = prod(sizes)
    places = np.moveaxis(fixed[..., 1:] % np.array(sizes, np.int64), -1, 0)
    flat = np.ravel_multi_index(tuple(places), sizes) if depth > 1 else fixed[..., 0]
    rows = state.reshape(data, (BATCH, size, *shape[depth:]))
    inner = Rowwise(value.shape[:-1], flat, step[..., 0])
    _of_each_row(state, node, inner, (rows, size), flat, step[..., 0] * size)
    return True


def scatter_nd(state: Context, found: Values, node: ModelNode) -> bool:
    """Write into each row of the batch, at places that are the same for every row."""
    data, index = node.input[:2]
    if index not in found or data not in state.shapes or data in state.joined:
        return False
    value, shape = found[index], state.shapes[data]
    fixed, step = value.both
    depth = fixed.shape[-1]
    if shape[0] != BATCH or value.axis or fixed[..., 0].any() or (step[..., 0] != 1).any() or step[..., 1:].any():
        return False
    sizes = tuple(state.size(shape, axis, "an index") for axis in range(1, depth))
    if (updates := found.get(node.input[2])) is not None and node.input[2] not in state.shapes:
        numbers, steps = updates.both
        if steps.any():
            return False
        stored(state, node.input[2], numbers, updates.shape)
    flat = flat_places(state, fixed[..., 1:].reshape(-1, depth - 1), sizes)
    write(state, node, (BATCH,), (prod(sizes), *shape[depth:]), flat, node.settings)
    return True


def gather_elements(state: Context, found: Values, node: ModelNode) -> bool:
    """Read elements of each row of the batch, at places that are the same for every row."""
    data, index = node.input[:2]
    if index not in found or data not in state.shapes or data in state.joined:
        return False
    chosen, flat, size = _elements(state, node, found[index])
    taken = state.take(state.reshape(data, (BATCH, size)), 1, flat.tolist())
    state.reshape(taken, chosen, node.output[0])
    return True


def scatter_elements(state: Context, found: Values, node: ModelNode) -> bool:
    """Write elements into each row of the batch, at places that are the same for every row, as sums over edges do.

    Raises:
        ModelError: they differ from row to row.
    """
    data, index, update = node.input[:3]
    if index not in found or data not in state.shapes or data in state.joined or update not in state.shapes:
        return False
    try:
        chosen, flat, size = _elements(state, node, found[index])
    except ValueError:
        raise state.origin.refuse("its places differ from row to row of the batch", remedy=FIX_BATCH) from None
    if state.shapes[update] != chosen:
        return False
    write(state, node, (BATCH,), (size,), flat, node.settings)
    return True


def _elements(state: Context, node: ModelNode, value: Rowwise) -> tuple[Shape, np.ndarray, int]:
    """Return an index's shape, the place of each of its elements in a row seen as one axis, and that axis's size.

    Raises:
        ValueError: places differ from row to row, or are rows themselves.
    """
    (fixed, step), shape = value.both, state.shapes[node.input[0]]
    axis = state.axis(int(node.settings.get("axis", 0)), shape)
    if shape[0] != BATCH or value.axis or not axis or step.any():
        raise ValueError("places that differ from row to row")
    sizes = tuple(state.size(shape, place, "an index") for place in range(1, len(shape)))
    into: list[np.ndarray] = list(np.indices(fixed.shape[1:]))
    into[axis - 1] = fixed[0]
    flat = flat_places(state, np.stack(into, -1).reshape(-1, len(sizes)), sizes)
    return value.shape, flat, prod(sizes)


def stored(state: Context, out: str, numbers: np.ndarray, shape: Shape) -> None:
    """Write a constant with as many rows as the batch has."""
    state.require_finite(numbers)
    state.emit("constant", (), out, shape, Constant(weight=numbers.astype(np.float64)))
    if not np.any(numbers % 1):
        state.integral.add(out)
