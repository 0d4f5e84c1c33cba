"""Constant folding, with the batch dimension left symbolic in shape vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx

from mpc.compiler.graph.writer import FIX_BATCH
from mpc.compiler.operators import qonnx
from mpc.compiler.operators.context import Context
from mpc.compiler.operators.joined import seen
from mpc.compiler.operators.sizes import Rows, Size, many, times
from mpc.wires import BATCH


def fold(state: Context, node: onnx.NodeProto) -> bool:
    """Compute a node whose inputs are all public; False if one of them is secret."""
    if node.op_type == "Shape" and node.input[0] in state.shapes:
        shape = _sizes(seen(state, node.input[0]))
        bounds = {a.name: a.i for a in node.attribute}
        state.constants[node.output[0]] = _narrowed(shape[bounds.get("start", 0) : bounds.get("end", len(shape))])
        return True
    if node.op_type == "Size" and BATCH not in state.shapes.get(node.input[0], (BATCH,)):
        state.constants[node.output[0]] = np.array(prod(map(int, state.shapes[node.input[0]])))
        return True
    if (
        node.op_type in _APART
        or node.domain in qonnx.DOMAINS
        or any(name and not state.is_constant(name) for name in node.input)
    ):
        return False
    values = [state.constants[name] if name else None for name in node.input]
    if any(value is not None and _open(value) for value in values):
        if node.op_type in _WITH_BATCH:
            return False
        results = _fold_shape_vector(state, node, values)
    else:
        computed = {"DequantizeLinear": _dequantized, "GatherElements": _gathered}.get(node.op_type, _evaluate)
        results = computed(state, node, values)
    for name, value in zip(node.output, results, strict=False):
        if name:
            state.constants[name] = value
    return True


def _open(value: np.ndarray) -> bool:
    """Is the batch, or a multiple of it, among the entries of a shape vector?"""
    return value.dtype == object and any(isinstance(entry, Rows) for entry in value.reshape(-1).tolist())


def _sizes(shape: Sequence[Size]) -> np.ndarray:
    return np.array(shape, dtype=object)


def _narrowed(values: np.ndarray) -> np.ndarray:
    """int64, if the batch is not among them."""
    return values if _open(values) else values.astype(np.int64)


_APART = ("If", "Loop", "Scan", "SequenceEmpty", "SequenceConstruct", "SplitToSequence")
"""Operators that have subgraphs, or write sequences: their handlers, as QONNX's, compute what is public too."""
_WITH_BATCH = ("Expand", "ConstantOfShape", "Tile")
"""Constants that have a row for each of the batch: their handlers make values of them."""


def _evaluate(state: Context, node: onnx.NodeProto, values: list[Any]) -> list[np.ndarray]:
    """onnx's own reference implementation, on this one node."""
    from onnx.reference import ReferenceEvaluator  # most models have nothing to compute

    names = [name for name in dict.fromkeys(node.input) if name]
    graph = onnx.helper.make_graph(
        [node],
        "fold",
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in names],
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in node.output if name],
    )
    opsets = [onnx.helper.make_opsetid("" if domain == "ai.onnx" else domain, v) for domain, v in state.opsets.items()]
    model = onnx.helper.make_model(graph, opset_imports=opsets)
    kinds = {value.dtype for value in values if value is not None and value.dtype.kind == "i"}
    if len(kinds) > 1:  # sizes are 64 bits wide here, whatever the model cast them to
        values = [v.astype(np.int64) if v is not None and v.dtype.kind == "i" else v for v in values]
    try:
        evaluator = ReferenceEvaluator(model)
        results = evaluator.run(None, {name: value for name, value in zip(node.input, values, strict=True) if name})
    except Exception as error:  # whatever onnx's reference raises on a malformed node is a refusal
        raise state.origin.refuse(
            f"its constant value cannot be computed: {error}",
            remedy=(
                "compute it when the model is exported and store the result as an initializer "
                "(onnxruntime's offline optimisation, onnxsim)"
            ),
        ) from None
    return [np.asarray(value) for value in results]


def _dequantized(state: Context, node: onnx.NodeProto, values: list[Any]) -> list[np.ndarray]:
    """(x - zero point) scale, both one number, one a slice or a block; onnx's reference has it for late opsets only."""
    x, scale, zero = (*values, None)[:3]
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    if block := next((a.i for a in node.attribute if a.name == "block_size"), 0):
        return [_of_blocks(state, x, scale, zero, axis, block)]
    sizes = [-1 if place == axis % max(1, x.ndim) else 1 for place in range(x.ndim)]
    if scale.size == 1:
        sizes = []
    elif scale.ndim != 1 or scale.size != x.shape[axis]:
        raise state.origin.refuse(
            f"scales of shape {scale.shape} for weights of shape {x.shape}",
            remedy=f"give one scale, or one for each of the {x.shape[axis % x.ndim]} slices of axis {axis}"
            if x.ndim
            else "give one scale",
        )
    wide = x.astype(np.float64) - (0 if zero is None else zero.astype(np.float64).reshape(sizes))
    return [(wide * scale.astype(np.float64).reshape(sizes)).astype(scale.dtype)]


def _of_blocks(
    state: Context, x: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, axis: int, block: int
) -> np.ndarray:
    """Return what numbers stand for that have a scale for so many along an axis."""
    blocks = [-(-size // block) if place == axis % max(1, x.ndim) else size for place, size in enumerate(x.shape)]
    if [*scale.shape] != blocks or (zero is not None and zero.shape != scale.shape):
        raise state.origin.refuse(
            f"scales of shape {scale.shape} for weights of shape {x.shape} in blocks of {block}",
            attribute="block_size",
            remedy=f"give scales, and zero points, of shape {tuple(blocks)}",
        )

    def spread(values: np.ndarray) -> np.ndarray:
        found = np.repeat(values.astype(np.float64), block, axis)
        return found.take(range(x.shape[axis]), axis)

    wide = x.astype(np.float64) - (0 if zero is None else spread(zero))
    return np.asarray((wide * spread(scale)).astype(scale.dtype))


def _gathered(state: Context, node: onnx.NodeProto, values: list[Any]) -> list[np.ndarray]:
    """Take elements along an axis; onnx's reference does so for few places only."""
    data, indices = values
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    fits = indices.ndim == data.ndim and -data.ndim <= axis < data.ndim
    pairs = zip(indices.shape, data.shape, strict=True) if fits else ()
    if not fits or any(n > size for i, (n, size) in enumerate(pairs) if i != axis % data.ndim):
        raise state.origin.refuse(
            f"indices of shape {indices.shape} into data of shape {data.shape}",
            remedy="give it indices with as many axes as the data, no longer than these but along its axis",
        )
    size = data.shape[axis]
    if indices.size and (indices.min() < -size or indices.max() >= size):
        raise state.origin.refuse(
            f"an index outside the {size} elements of axis {axis}", remedy=f"give indices from {-size} to {size - 1}"
        )
    places: list[np.ndarray] = list(np.indices(indices.shape))
    places[axis] = indices % size
    return [data[tuple(places)]]


def _fold_shape_vector(state: Context, node: onnx.NodeProto, values: list[Any]) -> list[np.ndarray]:
    if node.op_type == "Split" and values[0].ndim == 1:
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        return [_narrowed(part) for part in _parts(values, given, len(node.output))]
    handler = _SHAPE_VECTOR.get(node.op_type)
    if handler is None:
        raise state.origin.refuse("it computes with the batch size", remedy=FIX_BATCH)
    settings = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Mul" and sum(_open(value) for value in values) > 1:
        raise state.origin.refuse("it multiplies the batch size with itself", remedy=FIX_BATCH)
    try:
        found = np.asarray(handler(values, settings))
    except ValueError:
        raise state.origin.refuse("it computes with the batch size", remedy=FIX_BATCH) from None
    return [found if found.dtype == bool else _narrowed(found.astype(object))]


def _axes(values: list[Any], settings: dict[str, Any]) -> tuple[int, ...]:
    axes = settings.get("axes", values[1] if len(values) > 1 else None)
    return tuple(int(a) for a in np.atleast_1d(axes)) if axes is not None else ()


def _slice(values: list[Any], settings: dict[str, Any]) -> np.ndarray:
    starts: Any = settings.get("starts", values[1] if len(values) > 1 else [0])
    ends: Any = settings.get("ends", values[2] if len(values) > 2 else [len(values[0])])
    steps: Any = values[4] if len(values) > 4 and values[4] is not None else [1]
    chosen: np.ndarray = values[0][slice(*(int(np.atleast_1d(part)[0]) for part in (starts, ends, steps)))]
    return chosen


def _parts(values: list[Any], settings: dict[str, Any], count: int) -> list[np.ndarray]:
    """Split a shape vector."""
    sizes: Any = settings.get("split", values[1] if len(values) > 1 else None)
    part = -(-len(values[0]) // count)
    ends = np.cumsum(np.atleast_1d(sizes).astype(int)) if sizes is not None else part * np.arange(1, count + 1)
    return np.split(values[0], ends[: count - 1])


def _multiplied(values: list[Any], settings: dict[str, Any]) -> np.ndarray:
    """Multiply a size with numbers, as in batch heads."""
    return np.frompyfunc(lambda a, b: times([_entry(a), _entry(b)]), 2, 1)(values[0], values[1])


def _divided(values: list[Any], settings: dict[str, Any]) -> np.ndarray:
    def divide(size: Any, by: Any) -> Size:
        number, divisor = many(_entry(size)), _entry(by)
        if isinstance(divisor, Rows) or number % divisor:
            raise ValueError
        return Rows(number // divisor) if isinstance(size, Rows) else number // divisor

    return np.frompyfunc(divide, 2, 1)(values[0], values[1])


def _equal(values: list[Any], settings: dict[str, Any]) -> np.ndarray:
    """The batch is no -1, which stands for a size to be kept; whether it is 3 nobody knows."""

    def equal(a: Any, b: Any) -> bool:
        if isinstance(a, Rows) != isinstance(b, Rows) and many(_entry(a if isinstance(b, Rows) else b)) > 0:
            raise ValueError
        return bool(a == b)

    return np.asarray(np.frompyfunc(equal, 2, 1)(values[0], values[1])).astype(bool)


def _entry(size: Any) -> Size:
    return size if isinstance(size, Rows) else int(size)


def _reshaped(values: list[Any], settings: dict[str, Any]) -> np.ndarray:
    return np.reshape(values[0], [int(size) for size in values[1]])


_SHAPE_VECTOR: dict[str, Callable[[list[Any], dict[str, Any]], np.ndarray]] = {
    "Gather": lambda values, settings: np.asarray(values[0].take(values[1].astype(np.int64)), dtype=object),
    "Concat": lambda values, settings: np.concatenate([np.atleast_1d(v).astype(object) for v in values]),
    "Unsqueeze": lambda values, settings: np.expand_dims(values[0], _axes(values, settings)),
    "Squeeze": lambda values, settings: np.squeeze(values[0], _axes(values, settings) or None),
    "Slice": _slice,
    "Cast": lambda values, settings: values[0],
    "Identity": lambda values, settings: values[0],
    "Shape": lambda values, settings: np.array(values[0].shape),
    "Reshape": _reshaped,
    "Mul": _multiplied,
    "Div": _divided,
    "Equal": _equal,
    "Where": lambda values, settings: np.where(values[0].astype(bool), *(v.astype(object) for v in values[1:])),
}
