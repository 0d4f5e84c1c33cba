"""One handler an operator: what an ONNX node becomes in the compiler's graph.

A handler reads and defines values through the `Importer`; whatever it cannot do it refuses,
naming the attribute.  Adding an operator is adding a function here.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto

from mpc.compiler.graph import Shape
from mpc.wires import BATCH

if TYPE_CHECKING:
    from mpc.compiler.onnx_import import Importer

Settings = dict[str, Any]
Handler = Callable[["Importer", onnx.NodeProto, Settings], None]
HANDLERS: dict[tuple[str, str], Handler] = {}
_FLOATS = {TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64", TensorProto.FLOAT16: "float16"}
_INTEGERS = {TensorProto.INT64: "int64", TensorProto.INT32: "int32"}


def handles(*operators: str, domain: str = "ai.onnx") -> Callable[[Handler], Handler]:
    """Register a handler for these operators."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update({(domain, operator): handler for operator in operators})
        return handler

    return register


def supported() -> list[str]:
    """All operators that have a handler, sorted."""
    return sorted(f"{domain}.{name}" if domain != "ai.onnx" else name for domain, name in HANDLERS)


# ------------------------------------------------------------------- linear algebra


@handles("Gemm")
def gemm(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    if settings.get("transA", 0):
        raise state.origin.refuse("a transposed input is not supported", attribute="transA")
    weight = state.constant(node.input[1], "its weight").astype(np.float64)
    weight = (weight.T if settings.get("transB", 0) else weight) * settings.get("alpha", 1.0)
    bias = None
    if len(node.input) > 2 and node.input[2]:
        given = state.constant(node.input[2], "its bias").astype(np.float64) * settings.get("beta", 1.0)
        bias = _per_column(state, given, weight.shape[1])
    affine(state, node.input[0], node.output[0], weight, bias)


@handles("MatMul")
def matmul(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    weight = state.constant(node.input[1], "its right operand").astype(np.float64)
    if weight.ndim == 1:
        raise state.origin.refuse("a vector as right operand is not supported", remedy="make it a (n, 1) matrix")
    if weight.ndim != 2:
        raise state.origin.refuse(f"a weight with {weight.ndim} dimensions is not supported")
    affine(state, node.input[0], node.output[0], weight, None)


def affine(state: Importer, x: str, out: str | None, weight: np.ndarray, bias: np.ndarray | None) -> str:
    shape = state.secret(x)
    if not shape or shape[-1] != weight.shape[0]:
        raise state.origin.refuse(f"shapes {shape} and {weight.shape} do not multiply")
    _require_finite(state, weight, bias)
    return state.emit("affine", (x,), out, (*shape[:-1], weight.shape[1]), weight=weight, bias=bias)


def _per_column(state: Importer, value: np.ndarray, columns: int) -> np.ndarray:
    """A bias that is the same for every row, as (columns,)."""
    if value.size != 1 and (value.shape[-1] != columns or value.size != columns):
        raise state.origin.refuse(f"an addend of shape {value.shape} differs from row to row")
    return np.broadcast_to(value.reshape(-1), (columns,)).copy()


def _require_finite(state: Importer, *arrays: np.ndarray | None) -> None:
    if any(array is not None and not np.isfinite(array).all() for array in arrays):
        raise state.origin.refuse("a weight is infinite or not a number")


# -------------------------------------------------------- arithmetic with constants


@handles("Add", "Sub", "Mul", "Div")
def arithmetic(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    left, right = node.input[:2]
    if not state.is_constant(left) and not state.is_constant(right):
        _of_two_secrets(state, node)
        return
    x, constant_first = (right, True) if state.is_constant(left) else (left, False)
    constant = state.constant(left if constant_first else right, "an operand").astype(np.float64)
    if node.op_type == "Add":
        weight, bias = np.ones(()), constant
    elif node.op_type == "Sub":
        weight, bias = (-np.ones(()), constant) if constant_first else (np.ones(()), -constant)
    elif node.op_type == "Mul":
        weight, bias = constant, np.zeros(())
    else:
        if constant_first:
            raise state.origin.refuse("dividing by a value that depends on the input is not supported yet")
        with np.errstate(divide="ignore"):
            weight, bias = 1.0 / constant, np.zeros(())
    scale(state, x, node.output[0], weight, bias)


def _of_two_secrets(state: Importer, node: onnx.NodeProto) -> None:
    """Both operands depend on the input: sums are free, a product is a gate."""
    x, y = node.input[:2]
    shapes = state.secret(x), state.secret(y)
    if node.op_type == "Div":
        raise state.origin.refuse("dividing by a value that depends on the input is not supported yet")
    if len(shapes[0]) != len(shapes[1]) or shapes[0][:-1] != shapes[1][:-1] or not shapes[0]:
        raise state.origin.refuse(f"operands of shapes {shapes[0]} and {shapes[1]} are not supported yet")
    if shapes[0][-1] == 1 and shapes[1][-1] != 1 and node.op_type != "Sub":
        x, y, shapes = y, x, shapes[::-1]
    if shapes[1][-1] not in (1, shapes[0][-1]):
        raise state.origin.refuse(f"operands of shapes {shapes[0]} and {shapes[1]} are not supported yet")
    if node.op_type == "Mul":
        state.emit("multiply", (x, y), node.output[0], shapes[0])
    else:
        sign = -1.0 if node.op_type == "Sub" else 1.0
        state.emit("sum", (x, y), node.output[0], shapes[0], factors=(1.0, sign))


@handles("Neg")
def negate(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    scale(state, node.input[0], node.output[0], -np.ones(()), np.zeros(()))


@handles("BatchNormalization")
def batch_normalization(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    if settings.get("training_mode", 0):
        raise state.origin.refuse("training mode is not supported", attribute="training_mode")
    if len(state.secret(node.input[0])) != 2:
        raise state.origin.refuse("only (batch, features) inputs are supported yet")
    gain, shift, mean, variance = (state.constant(name, "a parameter").astype(np.float64) for name in node.input[1:5])
    weight = gain / np.sqrt(variance + settings.get("epsilon", 1e-5))
    scale(state, node.input[0], node.output[0], weight, shift - mean * weight)


def scale(state: Importer, x: str, out: str, weight: np.ndarray, bias: np.ndarray) -> None:
    """x weight + bias, constants that vary along the last axis at most."""
    shape = state.secret(x)
    weight, bias = (_last_axis(state, value, shape) for value in (weight, bias))
    _require_finite(state, weight, bias)
    columns = max(weight.size, bias.size)
    weight, bias = (np.broadcast_to(value, (columns,)).copy() for value in (weight, bias))
    if shape[-1] == 1 and columns > 1:
        state.emit("affine", (x,), out, (*shape[:-1], columns), weight=weight[None, :], bias=bias)
        return
    if columns == 1 and isinstance(shape[-1], int):
        weight, bias = (np.broadcast_to(value, (shape[-1],)).copy() for value in (weight, bias))
    state.emit("scale", (x,), out, shape, weight=weight, bias=bias)


def _last_axis(state: Importer, value: np.ndarray, shape: Shape) -> np.ndarray:
    if not shape or shape[-1] == BATCH:
        raise state.origin.refuse(f"a value of shape {shape} has no feature axis")
    fits = value.size == 1 or (value.shape[-1] == value.size and (value.size == shape[-1] or shape[-1] == 1))
    if not fits or value.ndim > len(shape):
        raise state.origin.refuse(f"a constant of shape {value.shape} beside {shape} is not supported yet")
    return value.reshape(-1)


# ------------------------------------------------------------------- non-linear


@handles("Relu")
def relu(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    state.emit("relu", (node.input[0],), node.output[0], state.secret(node.input[0]))


@handles("LeakyRelu")
def leaky_relu(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    """a x + (1 - a) relu(x)"""
    slope, shape = float(settings.get("alpha", 0.01)), state.secret(node.input[0])
    positive = state.emit("relu", (node.input[0],), None, shape)
    state.emit("sum", (node.input[0], positive), node.output[0], shape, factors=(slope, 1.0 - slope))


@handles("Clip")
def clip(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    """From above: relu(x) - relu(x - most)."""
    bounds = [settings.get("min"), settings.get("max")]
    for position, name in enumerate(node.input[1:3]):
        if name:
            bounds[position] = float(state.constant(name, "a bound"))
    least, most = bounds
    if least != 0:
        raise state.origin.refuse("only a clip at zero from below is supported yet", attribute="min")
    if most is None or most > 1e30:
        relu(state, node, settings)
        return
    shape = state.secret(node.input[0])
    columns = np.ones(int(shape[-1])) if shape and shape[-1] != BATCH else np.ones(1)
    beyond = state.emit("scale", (node.input[0],), None, shape, weight=columns, bias=-most * columns)
    both = [state.emit("relu", (name,), None, shape) for name in (node.input[0], beyond)]
    state.emit("sum", tuple(both), node.output[0], shape, factors=(1.0, -1.0))


@handles("Sigmoid", "Tanh")
def function(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    shape = state.secret(node.input[0])
    state.emit("function", (node.input[0],), node.output[0], shape, name=node.op_type.lower())


@handles("Softmax")
def softmax(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    shape = state.secret(node.input[0])
    axis = settings.get("axis", -1 if state.opsets.get("ai.onnx", 0) >= 13 else 1)
    if axis % len(shape) != len(shape) - 1:
        raise state.origin.refuse("only the last axis is supported yet", attribute="axis")
    softmax_of(state, node.input[0], node.output[0])


def softmax_of(state: Importer, x: str, out: str) -> None:
    state.emit("softmax", (x,), out, state.secret(x))
    state.facts[out] = "probabilities"


@handles("ArgMax")
def argmax(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    shape = state.secret(node.input[0])
    if settings.get("axis", 0) % len(shape) != len(shape) - 1:
        raise state.origin.refuse("only the last axis is supported yet", attribute="axis")
    kept = (*shape[:-1], 1) if settings.get("keepdims", 1) else shape[:-1]
    last = bool(settings.get("select_last_index", 0))
    index = state.emit("argmax", (node.input[0],), None, (*shape[:-1], 1), last=last)
    state.emit("reshape", (index,), node.output[0], kept)
    state.facts[node.output[0]] = "index"


# --------------------------------------------------------------------- shapes


@handles("Identity", "Dropout")
def identity(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    if len(node.input) > 2 and node.input[2] and bool(state.constant(node.input[2], "training_mode")):
        raise state.origin.refuse("training mode is not supported", attribute="training_mode")
    if node.input[0] in state.decoded:
        redecode(state, node.output[0], node.input[0])
        return
    state.alias(node.output[0], node.input[0])


@handles("Cast")
def cast(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    target, source = settings["to"], node.input[0]
    if source in state.decoded:
        dtype = {**_FLOATS, **_INTEGERS, TensorProto.STRING: "string"}.get(target)
        if dtype is None:
            raise state.origin.refuse("labels do not become that type", attribute="to")
        redecode(state, node.output[0], source, dtype=dtype)
        return
    if target not in _FLOATS and not (target in _INTEGERS and state.facts.get(source) == "index"):
        raise state.origin.refuse("only casts to floating point are supported yet", attribute="to")
    state.alias(node.output[0], source)


@handles("Flatten")
def flatten(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    shape = state.secret(node.input[0])
    axis = settings.get("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    state.emit("reshape", (node.input[0],), node.output[0], (_merge(shape[:axis]), _merge(shape[axis:])))
    _carry(state, node)


def _merge(shape: Shape) -> Any:
    sizes = [d for d in shape if isinstance(d, int)]
    if len(sizes) == len(shape):
        return prod(sizes)
    return BATCH if prod(sizes) == 1 and len(shape) - len(sizes) == 1 else "batch times features"


@handles("Reshape")
def reshape(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    source = node.input[0]
    decoded = source in state.decoded
    shape = state.shapes[source] if decoded else state.secret(source)
    target = list(state.constant(node.input[1], "the new shape"))
    if not settings.get("allowzero", 0):
        target = [shape[axis] if size == 0 else size for axis, size in enumerate(target)]
    target = [size if size == BATCH else int(size) for size in target]
    sizes, wanted = [d for d in shape if d != BATCH], [d for d in target if d not in (BATCH, -1)]
    batch_missing = BATCH in shape and BATCH not in target
    if -1 in target:
        target[target.index(-1)] = BATCH if batch_missing else prod(sizes) // max(1, prod(wanted))
    final = tuple(target)
    if final.count(BATCH) != shape.count(BATCH) or prod(d for d in final if d != BATCH) != prod(sizes):
        raise state.origin.refuse(
            f"{shape} does not reshape to {final} for every batch size",
            remedy="export with a dynamic batch dimension, or a fixed one everywhere",
        )
    _reshaped(state, node, final)


@handles("Squeeze", "Unsqueeze")
def squeeze(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    shape = list(state.shapes[node.input[0]])
    axes: list[int] | None = settings.get("axes")
    if len(node.input) > 1 and node.input[1]:
        axes = state.constant(node.input[1], "the axes").tolist()
    if node.op_type == "Squeeze":
        chosen = range(len(shape)) if axes is None else [a % len(shape) for a in axes]
        final = tuple(d for axis, d in enumerate(shape) if axis not in chosen or (axes is None and d != 1))
    else:
        axes = axes or []
        rank = len(shape) + len(axes)
        places = {a % rank for a in axes}
        rest = iter(shape)
        final = tuple(1 if axis in places else next(rest) for axis in range(rank))
    if prod(d for d in final if d != BATCH) != prod(d for d in shape if d != BATCH) or final.count(
        BATCH
    ) != shape.count(BATCH):
        raise state.origin.refuse("an axis of more than one element cannot be squeezed", attribute="axes")
    _reshaped(state, node, final)


def _reshaped(state: Importer, node: onnx.NodeProto, final: Shape) -> None:
    if node.input[0] in state.decoded:
        redecode(state, node.output[0], node.input[0], shape=final)
        return
    state.emit("reshape", (node.input[0],), node.output[0], final)
    _carry(state, node)


def _carry(state: Importer, node: onnx.NodeProto) -> None:
    if state.facts.get(node.input[0]) == "index":
        state.facts[node.output[0]] = "index"


@handles("Transpose")
def transpose(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    shape = state.secret(node.input[0])
    axes = tuple(settings.get("perm", reversed(range(len(shape)))))
    if BATCH in shape and axes[0] != 0:
        raise state.origin.refuse("the batch has to stay the first axis", attribute="perm")
    final = tuple(shape[a] for a in axes)
    state.emit("transpose", (node.input[0],), node.output[0], final, axes=axes)


@handles("Concat")
def concat(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    if any(state.is_constant(name) for name in node.input):
        raise state.origin.refuse("joining constants with values that depend on the input is not supported yet")
    shapes = [state.secret(name) for name in node.input]
    rank = len(shapes[0])
    if settings["axis"] % rank != rank - 1 or len({shape[:-1] for shape in shapes}) != 1:
        raise state.origin.refuse("only the last axis is supported yet", attribute="axis")
    columns = sum(int(shape[-1]) for shape in shapes)
    state.emit("concat", tuple(node.input), node.output[0], (*shapes[0][:-1], columns))


def redecode(state: Importer, name: str, source: str, **changes: Any) -> None:
    """The same reading with another type or shape."""
    read = state.decoded[source]
    reading: dict[str, Any] = {"dtype": read.dtype, "labels": read.labels, "keys": read.keys, "shape": read.shape}
    state.decode(name, read.value, **{**reading, **changes})
