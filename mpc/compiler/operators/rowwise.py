"""Public whole numbers that differ from row to row of the open batch, as exporters of attention masks write them.

Such a value is fixed + step * row: places of rows (`Range` up to the batch), moved, scaled and joined with constants.
Beside a secret place within each row it chooses of that row alone; see `picked`.
What it chooses of a secret value that has those rows are moves within each row.  Of what nobody but a Shape reads only
the shape is known.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from mpc.compiler.graph.graph import Shape, static
from mpc.compiler.graph.writer import FIX_BATCH
from mpc.compiler.operators import marked_places
from mpc.compiler.operators.context import Context, ModelNode
from mpc.compiler.operators.picked import Column
from mpc.compiler.operators.rowwise_choices import (
    gather,
    gather_elements,
    gather_nd,
    scatter_elements,
    scatter_nd,
    stored,
)
from mpc.compiler.operators.rowwise_values import Beside, Marked, Paired, Rowwise, Values
from mpc.compiler.operators.sizes import Rows, sizes_of
from mpc.wires import BATCH, broadcast


def note(state: Context, found: Values, node: ModelNode) -> bool:
    """Note what a node writes, if it is such a value or chosen by one; False if it is for the other handlers.

    Raises:
        ModelError: it computes with such a value what nothing here does.
    """
    if node.op_type == "Range":
        return _range(state, found, node)
    if node.op_type in ("Expand", "ConstantOfShape") and node.input[0] not in found:
        return _constant(state, found, node)
    if node.op_type == "NonZero":
        return marked_places.begin(state, found, node)
    if found.keys().isdisjoint(node.input):
        return False
    if any(isinstance(found.get(name), Marked) for name in node.input):
        marked_places.follow(state, found, node)
        return True
    handler = _HANDLERS.get(node.op_type)
    try:
        if handler is not None and handler(state, found, node):
            return True
    except (ValueError, IndexError, KeyError):  # shapes that do not fit, or numbers that nobody knows
        pass
    if any(name in found and name not in state.shapes for name in node.input):
        raise state.origin.refuse("it computes with the place of a row in the batch", remedy=FIX_BATCH)
    return False


def write(state: Context, found: Values, name: str) -> None:
    """Write such a value as a constant for whoever else reads it.

    Raises:
        ModelError: it differs from row to row, or nobody knows its numbers.
    """
    value = found[name]
    if type(value) is not Rowwise or value.fixed is None or value.step is None or value.step.any():
        raise state.origin.refuse("it computes with the place of a row in the batch", remedy=FIX_BATCH)
    stored(state, name, value.fixed, value.shape)


def _range(state: Context, found: Values, node: ModelNode) -> bool:
    if not all(name in state.constants for name in node.input[:3]):
        return False
    start, limit, delta = (state.constants[name].reshape(-1).tolist()[0] for name in node.input[:3])
    if limit != Rows() or isinstance(start, Rows) or isinstance(delta, Rows) or (start, delta) != (0, 1):
        return False
    found[node.output[0]] = Rowwise((BATCH,), np.zeros(1, np.int64), np.ones(1, np.int64))
    return True


def _constant(state: Context, found: Values, node: ModelNode) -> bool:
    """A constant of whole numbers repeated for each row, which is a value of the graph too."""
    target = state.constants.get(node.input[-1])
    value = state.constants.get(node.input[0]) if node.op_type == "Expand" else None
    if node.op_type == "ConstantOfShape" and "value" in node.settings:
        value = state.array(node.settings["value"])
    if target is None or value is None or value.dtype.kind not in "iub":
        return False
    sizes = tuple(BATCH if size == Rows() else size for size in target.reshape(-1).tolist())
    if sizes.count(BATCH) != 1 or any(isinstance(size, Rows) for size in sizes):
        return False
    shape = broadcast(value.shape, sizes) if node.op_type == "Expand" else sizes
    if shape is None or shape.count(BATCH) != 1 or 0 in shape:
        return False
    numbers = np.broadcast_to(
        value.astype(np.int64).reshape(value.shape if value.ndim <= len(shape) else ()), static(shape)
    )
    found[node.output[0]] = Rowwise(shape, numbers, np.zeros_like(numbers))
    return False


# ---------------------------------------------------------------------- moves


def _shape(state: Context, found: Values, node: ModelNode) -> bool:
    sizes = sizes_of(found[node.input[0]].shape)
    start, end = node.settings.get("start", 0), node.settings.get("end", len(sizes))
    state.constants[node.output[0]] = np.array(sizes[start:end], dtype=object)
    return True


def _same(state: Context, found: Values, node: ModelNode) -> bool:
    kept = node.op_type == "Identity" or state.type_named(node.settings["to"]).startswith(("int", "uint"))
    found[node.output[0]] = found[node.input[0]] if kept else Rowwise(found[node.input[0]].shape, None, None)
    return True


def _axes(state: Context, node: ModelNode) -> list[int]:
    given = node.settings.get("axes")
    return given if given is not None else state.integers(node.input[1], "the axes")


def _unsqueeze(state: Context, found: Values, node: ModelNode) -> bool:
    value, axes = found[node.input[0]], _axes(state, node)
    rank = len(value.shape) + len(axes)
    places = {axis % rank for axis in axes}
    rest = iter(value.shape)
    shape = tuple(1 if axis in places else next(rest) for axis in range(rank))
    found[node.output[0]] = _reshaped(value, shape)
    return True


def _squeeze(state: Context, found: Values, node: ModelNode) -> bool:
    value = found[node.input[0]]
    axes = {axis % len(value.shape) for axis in _axes(state, node)}
    shape = tuple(size for axis, size in enumerate(value.shape) if axis not in axes)
    found[node.output[0]] = _reshaped(value, shape)
    return True


def _reshaped(value: Rowwise, shape: Shape) -> Rowwise:
    """With the batch's rows in their places, which whoever asks has looked at."""
    if value.fixed is None:
        return Rowwise(shape, None, None)
    return value.moved(shape, lambda part: part.reshape(static(shape)))


def _reshape(state: Context, found: Values, node: ModelNode) -> bool:
    value = found[node.input[0]]
    target = [BATCH if size == Rows() else int(size) for size in state.constants[node.input[1]].reshape(-1).tolist()]
    if BATCH not in target:
        if -1 not in target:
            return False
        target[target.index(-1)] = BATCH
    whole = prod(size for size in value.shape if isinstance(size, int))
    sizes = [size for size in target if isinstance(size, int)]
    if -1 in sizes:
        target[target.index(-1)] = whole // -prod(sizes)
    shape = tuple(target)
    ahead = [prod(size for size in each[: each.index(BATCH)] if isinstance(size, int)) for each in (value.shape, shape)]
    if shape.count(BATCH) != 1 or ahead[0] != ahead[1]:
        return False
    found[node.output[0]] = _reshaped(value, shape)
    return True


def _expand(state: Context, found: Values, node: ModelNode) -> bool:
    value = found[node.input[0]]
    target = tuple(
        BATCH if size == Rows() else int(size) for size in state.constants[node.input[1]].reshape(-1).tolist()
    )
    shape = broadcast(value.shape, target)
    if shape is None or shape.count(BATCH) != 1:
        return False
    if value.fixed is None:
        found[node.output[0]] = Rowwise(shape, None, None)
    else:
        found[node.output[0]] = value.moved(shape, lambda part: np.broadcast_to(part, static(shape)))
    return value.shape == shape or node.input[0] not in state.shapes


def _concat(state: Context, found: Values, node: ModelNode) -> bool:
    if any(name in state.shapes and name not in found for name in node.input):
        return _paired(state, found, node)
    values = [_read(state, found, name) for name in node.input]
    shapes, axis = [value.shape for value in values if BATCH in value.shape], int(node.settings["axis"])
    rank = len(shapes[0])
    axis %= rank
    others = {shape[:axis] + shape[axis + 1 :] for shape in shapes}
    if len(others) != 1 or len(shapes) != len(values) or axis == shapes[0].index(BATCH):
        return False
    parts = [value.both for value in values]
    fixed, step = (np.concatenate([part[i] for part in parts], axis) for i in (0, 1))
    found[node.output[0]] = Rowwise((*shapes[0][:axis], fixed.shape[axis], *shapes[0][axis + 1 :]), fixed, step)
    return True


def _paired(state: Context, found: Values, node: ModelNode) -> bool:
    """Columns of indices, each of one place: the row itself, and behind it secret or public ones."""
    shapes = [found[name].shape if name in found else state.shapes[name] for name in node.input]
    [shape] = set(shapes)
    if shape[0] != BATCH or shape[-1] != 1 or int(node.settings["axis"]) not in (-1, len(shape) - 1):
        return False
    columns: list[Column] = []
    for name in node.input:
        if name not in found:
            columns.append(name)
            continue
        fixed, step = found[name].both
        if (fixed.any() or (step != 1).any()) if not columns else step.any():
            return False
        columns.append(fixed[0, ..., 0])
    if isinstance(columns[0], str):
        return False
    found[node.output[0]] = Paired((*shape[:-1], len(columns)), None, None, tuple(columns[1:]))
    return True


# ------------------------------------------------------------------ arithmetic


def _read(state: Context, found: Values, name: str) -> Rowwise:
    """A value, or a constant, which is the same for every row."""
    if name in found:
        return found[name]
    value = state.constants.get(name)
    if value is None or value.dtype == object or value.dtype.kind not in "iub":
        raise ValueError("no whole numbers")
    return Rowwise(value.shape, value.astype(np.int64), np.zeros(value.shape, np.int64))


def _beside(state: Context, found: Values, node: ModelNode) -> bool:
    """A secret place within each row of the batch, beside where the row begins."""
    [public] = [name for name in node.input if name in found]
    [secret] = [name for name in node.input if name in state.shapes]
    (fixed, step), shape = found[public].both, found[public].shape
    if node.op_type != "Add" or secret not in state.integral or state.shapes[secret] != shape:
        return False
    if shape[0] != BATCH or fixed.any() or step.min() != step.max() or step.min() < 1:
        return False
    found[node.output[0]] = Beside(shape, None, None, secret, int(step.min()))
    return True


def _arithmetic(state: Context, found: Values, node: ModelNode) -> bool:
    if any(name in state.shapes and name not in found for name in node.input):
        return _beside(state, found, node)
    left, right = (_read(state, found, name) for name in node.input[:2])
    shape = broadcast(left.shape, right.shape)
    if shape is None or shape.count(BATCH) != 1:
        return False
    if node.op_type not in ("Add", "Sub", "Mul") or left.fixed is None or right.fixed is None:
        found[node.output[0]] = Rowwise(shape, None, None)
        return True
    (a, da), (b, db) = left.both, right.both
    if node.op_type == "Mul":
        if da.any() and db.any():
            return False
        fixed, step = a * b, da * b + a * db
    else:
        sign = 1 if node.op_type == "Add" else -1
        fixed, step = a + sign * b, da + sign * db
    found[node.output[0]] = Rowwise(shape, *(np.broadcast_to(part, static(shape)) for part in (fixed, step)))
    return True


_HANDLERS: dict[str, Callable[[Context, Values, ModelNode], bool]] = {
    "Shape": _shape, "Identity": _same, "Cast": _same, "Unsqueeze": _unsqueeze, "Squeeze": _squeeze,
    "Reshape": _reshape, "Expand": _expand, "Concat": _concat, "Gather": gather, "GatherND": gather_nd,
    "GatherElements": gather_elements, "ScatterElements": scatter_elements, "ScatterND": scatter_nd,
    **dict.fromkeys(("Add", "Sub", "Mul", "Max", "Min"), _arithmetic),
}  # fmt: skip
