"""Ranges that somebody declares for an input: as text, in a model's metadata, checked against a shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.compiler.graph.graph import End, Range, Shape
from mpc.compiler.graph.writer import INTEGERS, MAX_ELEMENTS, MAX_INDICES
from mpc.errors import ModelError
from mpc.wires import BATCH

if TYPE_CHECKING:
    import onnx

_SOME_SIZE = 32
"""Stands in an example of a shape where nothing is known."""
_SIZES = ("Shape", "Size")
_SHAPED = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Operators that give what they read first another shape or type."""


def declared_ranges(model: onnx.ModelProto) -> dict[str, Range]:
    """Read the input ranges that the model itself declares: metadata `mpc.range.NAME` = `LOW:HIGH`."""
    found = {}
    for entry in model.metadata_props:
        if entry.key.startswith("mpc.range."):
            found[entry.key.removeprefix("mpc.range.")] = parse_range(entry.value)
    return found


def parse_range(text: str) -> Range:
    """Return `LOW:HIGH`, or `LOW:HIGH,LOW:HIGH,...`, one for each column of the last axis.

    Raises:
        ModelError: not pairs of numbers.
    """
    try:
        pairs = [tuple(map(float, part.split(":"))) for part in text.split(",")]
    except ValueError:
        pairs = []
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ModelError(f"{text[:80]!r} is not a range", remedy="write it as LOW:HIGH, for example -4:4")
    low, high = zip(*pairs, strict=True)
    return (low[0], high[0]) if len(pairs) == 1 else (low, high)


def check_range(name: str, shape: Shape, dtype: str, declared: Range) -> Range:
    """Return a range that fits an input's columns and type; one value, as of a column that never changes, is a range.

    Raises:
        ModelError: not finite, the low end above the high one, an end that the input's type has no number for, or
            another number of columns than the input has.
    """
    low, high = (np.asarray(end, dtype=np.float64) for end in declared)
    if low.shape != high.shape or low.ndim > 1 or (low.ndim == 1 and low.shape[0] != shape[-1]):
        raise ModelError(
            f"input {name!r}: its range has {low.size} columns, its shape is {shape}",
            remedy=f"declare one range for all columns, LOW:HIGH, or one a column, {shape[-1]} of them"
            if shape
            else "declare one range, LOW:HIGH",
        )
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
        raise ModelError(
            f"input {name!r}: its range is empty or not finite", remedy="declare LOW:HIGH, LOW not above HIGH"
        )
    least, most = ends_of(dtype)
    beyond = low.size and (floor(low.min()) < least or ceil(high.max()) > most)  # whole: a float has no 2^63 - 1
    if beyond:
        raise ModelError(
            f"input {name!r}: its range {low.min():g}:{high.max():g} goes beyond {dtype}, which ends at {least} and "
            f"{most}",
            remedy=f"declare a range within {least}:{most}, or export the model with a wider type for this input",
        )
    if low.ndim == 0:
        return float(low), float(high)
    return tuple(low.tolist()), tuple(high.tolist())


def ends_of(dtype: str) -> tuple[float, float]:
    """Return the least and the largest number of an integer type or of truth values; infinity of others."""
    return (0, 1) if dtype == "bool" else INTEGERS.get(dtype, (-np.inf, np.inf))


def check_sizes(name: str, fixed: Sequence[int], given: Sequence[int | str | None]) -> None:
    """Refuse a shape that contradicts what the model itself says of an input.

    Args:
        fixed: the model's sizes; 0 where it leaves one open.
        given: the caller's sizes; None or "batch" for the batch.

    Raises:
        ModelError: another number of dimensions, or another size than a fixed one.
    """
    wanted = tuple(BATCH if size is None else size for size in given)
    fits = len(fixed) == len(wanted) and all(mine in (0, size) for mine, size in zip(fixed, wanted, strict=True))
    if fits:
        return
    own = ",".join(str(size) if size > 0 else "batch" if axis == 0 else "?" for axis, size in enumerate(fixed))
    raise ModelError(
        f"input {name!r} cannot have the shape {','.join(map(str, wanted)) or '()'}",
        cause=f"the model has {len(fixed)} dimensions for it, {own or 'none'}; only what it leaves open can be chosen",
        remedy=f"leave the shape of {name!r} out, give one that fits, or export the model with open dimensions",
    )


def example_shape(fixed: Sequence[int], given: Sequence[int | str | None] | None = None) -> tuple[str, str] | None:
    """Make up a shape that a caller could give, as --shape and as Python have it; None if only the batch is open.

    Args:
        fixed: the model's sizes; 0 where it leaves one open.
        given: the caller's own, of as many dimensions; a size that neither says is made up.
    """
    chosen = [None] * len(fixed) if given is None else [None if size == BATCH else size for size in given]
    sizes = [mine if mine > 0 else theirs for mine, theirs in zip(fixed, chosen, strict=True)]
    if None not in sizes[1:]:
        return None
    shown = [size if size is not None or not axis else _SOME_SIZE for axis, size in enumerate(sizes)]
    return ",".join(BATCH if size is None else str(size) for size in shown), repr(tuple(shown))


def own_sizes(model: onnx.ModelProto, arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[int | None, ...]]:
    """Return sizes by input name that arrays give to what a model leaves open; the number of rows stays open.

    What the model fixes is the model's, and an array of another number of dimensions gives nothing: data that do not
    fit are refused where they are entered.
    """
    found: dict[str, tuple[int | None, ...]] = {}
    for value in model.graph.input:
        array, tensor = arrays.get(value.name), value.type.tensor_type
        if array is None:
            continue
        sizes = (None, *array.shape[1:])[: array.ndim]
        if not tensor.HasField("shape"):
            found[value.name] = sizes
        elif len(tensor.shape.dim) == array.ndim:
            pairs = zip(tensor.shape.dim, sizes, strict=True)
            found[value.name] = tuple(d.dim_value if d.dim_value > 0 else size for d, size in pairs)
    return found


def misfits(model: onnx.ModelProto, arrays: Mapping[str, np.ndarray]) -> set[str]:
    """Return inputs that a table of another number of columns than the model fixes is given for: it says nothing of
    ranges.
    """
    found = set()
    for value in model.graph.input:
        array, sizes = arrays.get(value.name), value.type.tensor_type.shape.dim
        if array is not None and len(sizes) == array.ndim == 2 and sizes[1].dim_value not in (0, array.shape[1]):
            found.add(value.name)
    return found


def indexing(model: onnx.ModelProto, arrays: Mapping[str, np.ndarray] | None = None) -> set[str]:
    """Return inputs that index tables of the model's weights, as token ids do: their range follows from the tables.

    They do nothing else; or they are whole numbers that enter as places in the shortest table, whatever else reads
    them: `ids != 0`, say.  Of these an array is needed, for its size, and one with a number below zero is none.
    """
    from mpc.compiler.onnx.protos import TYPES  # who has a model has imported onnx; others need none

    tables = {table.name: tuple(table.dims) for table in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in dict.fromkeys(node.input):
            readers.setdefault(name, []).append(node)

    def rows_read(name: str) -> tuple[list[int], bool]:
        found: list[int] = []
        only = True
        for node in readers.get(name, []):
            if node.op_type == "Gather" and node.input[0] in tables and node.input[1] == name:
                dims, axis = tables[node.input[0]], next((a.i for a in node.attribute if a.name == "axis"), 0)
                found += [dims[axis]] if -len(dims) <= axis < len(dims) else []
            elif node.op_type in _SHAPED and name not in node.input[1:]:
                rows, alone = rows_read(node.output[0])
                found, only = found + rows, only and alone
            elif node.op_type not in _SIZES:
                only = False
        return found, only

    def enters(value: onnx.ValueInfoProto, rows: Sequence[int]) -> bool:
        values = (arrays or {}).get(value.name)
        whole = TYPES.get(value.type.tensor_type.elem_type) in INTEGERS
        if values is None or not whole or value.name in told or values.dtype.kind not in "iu" or not values.size:
            return False
        least = min(rows)
        return least <= MAX_INDICES and least * values[:1].size <= MAX_ELEMENTS and values.min() >= 0

    told = {value.name for value in model.graph.output}
    found = set()
    for value in model.graph.input:
        rows, only = rows_read(value.name)
        if rows and (only or enters(value, rows)):
            found.add(value.name)
    return found


def within_table(declared: Range | None, rows: np.ndarray, *, alike: bool) -> Range:
    """Return the range of an input that only indexes tables: their places, negative ones counting from the end.

    Args:
        rows: how many the shortest table has, of each column if its columns have tables of their own.
        alike: all tables have as many.  Else negative numbers, which mean another place in each, have to be declared.
    """
    low, high = (-rows if alike else np.zeros(()), rows - 1.0) if declared is None else declared
    ends = np.maximum(low, -rows), np.minimum(high, rows - 1.0)
    return declared or plain(*ends) if (ends[0] > ends[1]).any() else plain(*ends)


def plain(low: Any, high: Any) -> Range:
    """Return a range as numbers, one for each end, or one a column if columns differ."""
    least, most = np.broadcast_arrays(np.asarray(low, np.float64), np.asarray(high, np.float64))
    if all(len({*end.reshape(-1).tolist()}) == 1 for end in (least, most)):
        return float(least.reshape(-1)[0]), float(most.reshape(-1)[0])
    return _plain(least), _plain(most)


def _plain(end: np.ndarray) -> End:
    return float(end) if end.ndim == 0 else tuple(end.tolist())
