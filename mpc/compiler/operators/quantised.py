"""Import quantised models: numbers of 8 bits with scales and zero points, as onnxruntime's quantiser writes them.

A value is quantised by a rounding and held between its type's ends; scales join the linear layers beside it.  What
onnxruntime computes on 8-bit numbers is imported as what those stand for: operands are read as reals, the operator is
that of reals, and its result is quantised.
"""

from __future__ import annotations

import numpy as np

from mpc.compiler.graph.attributes import Rectified
from mpc.compiler.graph.writer import INTEGERS
from mpc.compiler.operators.calling import call
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.facts import Quantised, Unit
from mpc.compiler.operators.registry import handles
from mpc.wires import BATCH

MICROSOFT = "com.microsoft"
_SHORT_BITS, _FLOAT32 = 10, 2.0**-25
"""Bits of a number that is short, and by what part of themselves numbers differ at most that are one to float32."""
_LEVELS = 255
"""Steps of a range that is quantised as it comes."""


def along(state: Context, values: np.ndarray, rank: int, axis: int) -> np.ndarray:
    """Return scales or zero points, one number or one a slice, shaped to be broadcast."""
    if values.size == 1:
        return values.reshape(())
    if values.ndim != 1:
        raise state.origin.refuse(
            f"scales of shape {values.shape}",
            attribute="block_size",
            remedy="quantise by one scale, or by one for each slice along an axis",
        )
    return values.reshape([-1 if place == axis % rank else 1 for place in range(rank)])


def _given(node: ModelNode, place: int) -> str:
    return node.input[place] if len(node.input) > place else ""


# ------------------------------------------------------------------- there and back


@handles("QuantizeLinear")
@handles("QuantizeLinear", domain=MICROSOFT)
def quantize_linear(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute round(x / scale) + zero point, held to the ends of the zero point's type."""
    kind = "uint8"
    if zero := _given(node, 2):
        kind = str(state.constant(zero, "its zero point").dtype)
    elif settings.get("output_dtype"):
        kind = state.type_named(settings["output_dtype"])
    quantise(state, state.value(node.input[0]), node.input[1], zero, kind, node.output[0], settings.get("axis", 1))


def quantise(state: Context, x: str, scale: str, zero: str, kind: str, out: str | None, axis: int = 1) -> str:
    """Return x as whole numbers of a type.

    Args:
        scale, zero: names of constants; empty: a zero point of 0.
    """
    if kind not in INTEGERS or kind in ("int64", "uint64"):
        raise state.origin.refuse(f"a value that is quantised to {kind or 'that type'}", remedy="use int8 or uint8")
    (low, high), rank = INTEGERS[kind], len(state.shapes[x])
    unit = along(state, state.numbers(scale, "its scale"), rank, axis)
    offset = along(state, state.numbers(zero, "its zero point"), rank, axis) if zero else np.zeros(())
    if not (unit > 0).all():
        raise state.origin.refuse("a scale that is not positive", remedy="calibrate the model again")
    if state.rounds:
        shifted = offset - low
        held = state.to_whole(state.scale(x, _inverse(unit)), "nearest", None, high - low, np.asarray(shifted))
    else:
        between = state.scale(x, _inverse(unit), np.asarray(offset - low))
        held = state.emit("relu", (between,), None, state.shapes[x], Rectified(ceiling=float(high - low)))
    return state.scale(held, 1.0, float(low), out) if low else state.reshape(held, state.shapes[x], out)


def _inverse(scale: np.ndarray) -> np.ndarray:
    """Return one over scales, as short as float32 does not tell it from that.

    Scales are often a range over 255, whose ends lie half between two numbers: to float32 they do still, and half goes
    to the even one, where one over the scale of 32 bits would be a little beside.
    """
    inverse = 1.0 / scale
    step = np.exp2(np.floor(np.log2(inverse)) - _SHORT_BITS)
    short = np.rint(inverse / step) * step
    return np.where(np.abs(short - inverse) <= _FLOAT32 * inverse, short, inverse)


@handles("DequantizeLinear")
@handles("DequantizeLinear", domain=MICROSOFT)
def dequantize_linear(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute (x - zero point) scale."""
    dequantise(state, node.input[0], node.input[1], _given(node, 2), node.output[0], settings.get("axis", 1))


def dequantise(state: Context, x: str, scale: str, zero: str, out: str | None = None, axis: int = 1) -> str:
    """Return what whole numbers stand for; constants stay constants."""
    if state.is_constant(x):
        values = state.numbers(x, "its value")
        offset = along(state, state.numbers(zero, "its zero point"), values.ndim, axis) if zero else 0.0
        name = state.fresh() if out is None else out
        state.constants[name] = (values - offset) * along(state, state.numbers(scale, "its scale"), values.ndim, axis)
        return name
    if zero and not (state.is_constant(zero) and state.is_constant(scale)):
        return call(state, "Mul", (_less(state, x, zero, axis), scale), out)
    rank = len(state.shapes[x])
    unit = along(state, state.numbers(scale, "its scale"), rank, axis)
    if not zero:
        return state.scale(state.value(x), unit, 0.0, out)
    offset = along(state, state.numbers(zero, "its zero point"), rank, axis)
    return state.scale(state.value(x), unit, np.asarray(-offset * unit), out)


@handles("DynamicQuantizeLinear")
def dynamic_quantize_linear(state: Context, node: ModelNode, settings: Settings) -> None:
    quantise_as_it_comes(state, state.value(node.input[0]), (*node.output, "", "")[:3])


def quantise_as_it_comes(state: Context, x: str, outputs: tuple[str, ...]) -> None:
    """Quantise each row by its own least and largest value, or zero if that is beyond them, as uint8.

    Where a batch is open, onnxruntime has one range for all of its rows; here rows are independent.

    Args:
        outputs: names of what x becomes, of its scale and of its zero point; empty if nobody reads it.
    """
    y, scale, zero = outputs
    if not state.rounds:
        state.alias(y, x)
        state.constants.update({name: np.array(value, np.float32) for name, value in ((scale, 1), (zero, 0)) if name})
        return
    shape = state.shapes[x]
    rows = shape[:1] if shape[:1] == (BATCH,) else ()
    flat = state.reshape(x, (*rows, state.merged(shape[len(rows) :])))
    above, below = (state.relu(state.maximum(each)) for each in (flat, state.scale(flat, -1.0)))
    span = state.sum((above, below), (1.0, 1.0), known=(0.0, np.inf))
    over, most = state.sum((state.function("reciprocal", span),), (float(_LEVELS),)), float(_LEVELS)
    ones = (*rows, *[1] * (len(shape) - len(rows)))
    nearest = state.to_whole(state.multiply(x, state.reshape(over, ones), known=(-most, most)), "nearest")
    point = state.to_whole(state.multiply(below, over, known=(0.0, most)), "nearest")
    if scale:
        whole = state.reshape(span, ones if rows else ())
        state.facts[state.sum((whole,), (1.0 / _LEVELS,), scale)] = Unit(whole, np.asarray(1.0 / _LEVELS))
    zero = state.reshape(point, ones if rows else (), zero or None)
    beside = state.sum((nearest, zero), (1.0, 1.0), None, known=(-1.0, most + 1))  # each is rounded by itself
    if y in state.revealed:  # who computes with it needs no type's ends
        state.emit("relu", (beside,), y, shape, Rectified(ceiling=most))
    else:
        state.reshape(beside, shape, y)
    state.integral.add(y)
    state.facts[y] = Quantised(nearest, zero)


# ------------------------------------------------------------------- products of whole numbers


def _less(state: Context, x: str, zero: str, axis: int) -> str:
    """Return x minus its zero point, one number or one a slice; of what is quantised as it comes that is known."""
    if not zero:
        return x
    match state.facts.get(x):
        case Quantised(of, point) if point == zero:
            return of
    if state.is_constant(zero):
        offset = state.numbers(zero, "its zero point")
        if state.is_constant(x):
            values, name = state.numbers(x, "an operand"), state.fresh()
            state.constants[name] = values - along(state, offset, values.ndim, axis)
            return name
        return state.scale(x, 1.0, np.asarray(-along(state, offset, len(state.shapes[x]), axis)))
    return state.sum((state.value(x), state.value(zero)), (1.0, -1.0))


@handles("MatMulInteger")
def matmul_integer(state: Context, node: ModelNode, settings: Settings) -> None:
    left, right = _less(state, node.input[0], _given(node, 2), -2), _less(state, node.input[1], _given(node, 3), -1)
    call(state, "MatMul", (left, right), node.output[0])
    state.integral.add(node.output[0])


@handles("ConvInteger")
def conv_integer(state: Context, node: ModelNode, settings: Settings) -> None:
    x, w = _less(state, node.input[0], _given(node, 2), 1), _less(state, node.input[1], _given(node, 3), 0)
    call(state, "Conv", (x, w), node.output[0], settings=settings)
    state.integral.add(node.output[0])


@handles("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(state: Context, node: ModelNode, settings: Settings) -> None:
    """Multiply A and B with scales of both, zero points and a bias."""
    a, b, a_scale, b_scale = node.input[:4]
    left = dequantise(state, a, a_scale, _given(node, 4), axis=-2)
    right = dequantise(state, b, b_scale, _given(node, 5), axis=-1)
    _product(state, left, right, _given(node, 6), node.output[0])


@handles("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(state: Context, node: ModelNode, settings: Settings) -> None:
    """Quantise A as it comes, and multiply it with B."""
    a, b, b_scale = node.input[:3]
    parts = tuple(state.fresh() for _ in range(3))
    quantise_as_it_comes(state, state.value(a), parts)
    left = dequantise(state, parts[0], parts[1], parts[2])
    _product(state, left, dequantise(state, b, b_scale, _given(node, 3), axis=-1), _given(node, 4), node.output[0])


def _product(state: Context, left: str, right: str, bias: str, out: str) -> None:
    if not bias:
        call(state, "MatMul", (left, right), out)
        return
    call(state, "Add", (call(state, "MatMul", (left, right)), bias), out)
