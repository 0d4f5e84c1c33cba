"""Find the constant tables that an input indexes: each of its columns may have a table of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mpc.compiler.graph.graph import Shape
from mpc.compiler.operators.context import Context, ModelNode
from mpc.wires import BATCH

_PASSING = frozenset(
    {
        "Cast",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators that only move what they read first, at public places."""
_JOINING = ("Concat", "ScatterElements", "ScatterND")
"""Operators that put what they read beside other such numbers."""


@dataclass(frozen=True)
class Table:
    """A constant table that an input indexes.

    Args:
        rows: how many it has.
        columns: those of the input's last axis that may be places in it.
    """

    rows: int
    columns: frozenset[int]


def tables_of(state: Context, name: str) -> tuple[list[Table], bool]:
    """Return the constant tables that an input is an index of; whether it is nothing else."""
    shape = tuple(1 if size == BATCH else int(size) for size in state.shapes[name])
    columns = np.broadcast_to(np.arange(width_of(state.shapes[name])), shape) if shape else np.zeros((), np.int64)
    return _follow(state, name, columns, placed=True)


def width_of(shape: Shape) -> int:
    """Return how many columns an input has: the size of its last axis, if that is not the batch."""
    return int(shape[-1]) if shape and shape[-1] != BATCH else 1


def limits(tables: Iterable[Table], width: int) -> np.ndarray:
    """Return how many rows the shortest table of each column has; one number if that is the same for all."""
    least = np.full(width, np.inf)
    for table in tables:
        columns = [*table.columns]
        least[columns] = np.minimum(least[columns], table.rows)
    least[np.isinf(least)] = least[np.isfinite(least)].max()
    found: np.ndarray = least if len({*least.tolist()}) > 1 else least[0]
    return found


def _follow(state: Context, name: str, columns: np.ndarray, *, placed: bool) -> tuple[list[Table], bool]:
    """Find the tables that a value is an index of.

    Args:
        columns: of which column of the input each of its elements is.
        placed: they are in their places; else they are those that may be among the elements.
    """
    found: list[Table] = []
    only = name not in state.revealed
    for reader in state.readers.get(name, []):
        if (read := _table(reader, name)) and reader.input.count(name) == 1:
            table, axis = state.known(read), reader.settings.get("axis", 0)
            there = table is not None and table.ndim > axis >= -table.ndim
            if table is not None and there:
                found.append(Table(table.shape[axis], frozenset(columns.reshape(-1).tolist())))
            only = only and there
        elif reader.op_type in _PASSING and name not in reader.input[1:] or reader.op_type in _JOINING:
            moved = _moved(state, reader, columns) if placed else None
            for place, out in enumerate(reader.output):
                if out:
                    there = moved is not None and place < len(moved) and moved[place].size > 0
                    after = moved[place] if moved is not None and there else columns
                    tables, alone = _follow(state, out, after, placed=there)
                    found, only = found + tables, only and alone
        elif reader.op_type not in ("Shape", "Size"):
            only = False
    return found, only


def _moved(state: Context, node: ModelNode, x: np.ndarray) -> list[np.ndarray] | None:
    """Move an array as a node does; None if nobody knows how before the batch's size is known."""
    settings = node.settings

    def known(place: int, attribute: str) -> list[int] | None:
        given = node.input[place] if place < len(node.input) else ""
        values = state.known(given) if given else None
        if given and values is None:
            raise ValueError("it is not known yet")
        listed = settings.get(attribute) if values is None else values.reshape(-1).tolist()
        return None if listed is None else [int(each) for each in listed]

    try:
        if node.op_type in ("Cast", "Identity"):
            return [x]
        if node.op_type == "Transpose":
            return [x.transpose(settings.get("perm"))]
        if node.op_type == "Gather":
            index = state.known(node.input[1])
            return None if index is None else [x.take(index.astype(np.int64), settings.get("axis", 0))]
        if node.op_type == "Squeeze":
            axes = known(1, "axes")
            return None if axes is None else [x.squeeze(tuple(axes))]
        if node.op_type == "Unsqueeze":
            return [np.expand_dims(x, tuple(known(1, "axes") or ()))]
        if node.op_type == "Slice":
            return [_sliced(x, known(1, "starts"), known(2, "ends"), known(3, "axes"), known(4, "steps"))]
        if node.op_type == "Split":
            axis, sizes = settings.get("axis", 0), known(1, "split")
            return None if sizes is None else np.split(x, np.cumsum(sizes)[:-1].tolist(), axis)
        if node.op_type == "Reshape" and (target := known(1, "shape")) and not settings.get("allowzero", 0):
            return [x.reshape([size or x.shape[axis] for axis, size in enumerate(target)])]
    except (ValueError, IndexError, TypeError):  # it does not fit one row, or depends on the batch
        pass
    return None


def _sliced(
    x: np.ndarray, starts: list[int] | None, ends: list[int] | None, axes: list[int] | None, steps: list[int] | None
) -> np.ndarray:
    if starts is None or ends is None:
        raise ValueError("a part without ends")
    places = range(len(starts)) if axes is None else axes
    cut = [slice(None)] * x.ndim
    for place, start, end, step in zip(places, starts, ends, steps or [1] * len(starts), strict=True):
        cut[place] = slice(start, end if step > 0 or end >= -x.shape[place] else None, step)
    return x[tuple(cut)]


def _table(reader: ModelNode, name: str) -> str:
    """Return the value of which a node reads rows at the places that a value has; empty if it does not."""
    given = dict(enumerate(reader.input))
    tables = {"Gather": {1: 0}, "EmbedLayerNormalization": {0: 2, 1: 4, 8: 3}}.get(reader.op_type, {})
    return next((given.get(table, "") for place, table in tables.items() if given.get(place) == name), "")
