"""Import the operators that onnxruntime has of 8-bit numbers: each is that of reals between what its operands stand for
and what its result is quantised to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mpc.compiler.operators.calling import call
from mpc.compiler.operators.cells import Weights
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.quantised import MICROSOFT, along, dequantise, quantise
from mpc.compiler.operators.recurrent import unroll
from mpc.compiler.operators.registry import handles

_UNARY = {
    "QLinearLeakyRelu": "LeakyRelu",
    "QLinearSigmoid": "Sigmoid",
    "QLinearSoftmax": "Softmax",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
    "QLinearAveragePool": "AveragePool",
    "QLinearReduceMean": "ReduceMean",
}
_OWN = frozenset({"channels_last", "opset"})
"""Attributes that the operator of reals has not."""


def _kind(state: Context, zero: str) -> str:
    """The type of what is quantised: that of its zero point."""
    return str(state.constant(zero, "its zero point").dtype) if zero else "uint8"


def _quantised(state: Context, x: str, scale: str, zero: str, out: str) -> None:
    quantise(state, x, scale, zero, _kind(state, zero), out)


def _real(state: Context, names: Sequence[str], axis: int = 1) -> str:
    """Return what a value, with its scale and zero point, stands for."""
    x, scale, zero = names
    return dequantise(state, x, scale, zero, None, axis)


def _triples(names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """(value, scale, zero point), again and again."""
    yield from zip(names[::3], names[1::3], names[2::3], strict=True)


@handles("QLinearMatMul")
@handles("QLinearMatMul", domain=MICROSOFT)
def matmul(state: Context, node: ModelNode, settings: Settings) -> None:
    left, right = node.input[:3], node.input[3:6]
    product = call(state, "MatMul", (_real(state, left, -2), _real(state, right, -1)))
    _quantised(state, product, node.input[6], node.input[7], node.output[0])


@handles("QLinearConv")
@handles("QLinearConv", domain=MICROSOFT)
def convolution(state: Context, node: ModelNode, settings: Settings) -> None:
    """Convolve; the bias has the scales of input and filters together."""
    _require_channels_first(state, settings)
    x, w = node.input[:3], node.input[3:6]
    reads = [_real(state, x), _real(state, w, 0)]
    if bias := _bias(state, node.input[8:9], x[1], w[1]):
        reads.append(bias)
    found = call(state, "Conv", tuple(reads), settings=_of_reals(settings))
    _quantised(state, found, node.input[6], node.input[7], node.output[0])


def _bias(state: Context, names: Sequence[str], x_scale: str, w_scale: str, factor: float = 1.0) -> str:
    """The name of a bias of 32 bits as reals; empty if there is none."""
    if not names or not names[0]:
        return ""
    units = state.numbers(x_scale, "a scale").reshape(-1) * state.numbers(w_scale, "a scale").reshape(-1) * factor
    name = state.fresh()
    state.constants[name] = state.numbers(names[0], "its bias") * (units if units.size > 1 else units[0])
    return name


@handles("QGemm", domain=MICROSOFT)
def gemm(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute alpha A B + C; without a scale of the result that is real."""
    given = [*node.input, *[""] * (9 - len(node.input))]
    a, b = given[:3], given[3:6]
    sides = (0 if settings.get("transA") else -2, 0 if settings.get("transB") else -1)
    reads = [_real(state, part, side) for part, side in zip((a, b), sides, strict=True)]
    if bias := _bias(state, given[6:7], a[1], b[1], float(settings.get("alpha", 1.0))):
        reads.append(bias)
    if not given[7]:
        call(state, "Gemm", tuple(reads), node.output[0], settings=settings)
        return
    _quantised(state, call(state, "Gemm", tuple(reads), settings=settings), given[7], given[8], node.output[0])


@handles("QLinearAdd", "QLinearMul", domain=MICROSOFT)
def of_two(state: Context, node: ModelNode, settings: Settings) -> None:
    left, right = (_real(state, part) for part in _triples(node.input[:6]))
    found = call(state, node.op_type.removeprefix("QLinear"), (left, right))
    _quantised(state, found, node.input[6], node.input[7], node.output[0])


@handles(*_UNARY, domain=MICROSOFT)
def of_one(state: Context, node: ModelNode, settings: Settings) -> None:
    _require_channels_first(state, settings)
    found = call(state, _UNARY[node.op_type], (_real(state, node.input[:3]),), settings=_of_reals(settings))
    _quantised(state, found, node.input[3], node.input[4], node.output[0])


@handles("QLinearConcat", domain=MICROSOFT)
def concat(state: Context, node: ModelNode, settings: Settings) -> None:
    parts = tuple(_real(state, part) for part in _triples(node.input[2:]))
    _quantised(state, call(state, "Concat", parts, settings=settings), node.input[0], node.input[1], node.output[0])


@handles("QLinearWhere", domain=MICROSOFT)
def where(state: Context, node: ModelNode, settings: Settings) -> None:
    x, y = (_real(state, part) for part in _triples(node.input[1:7]))
    found = call(state, "Where", (node.input[0], x, y))
    _quantised(state, found, node.input[7], node.input[8], node.output[0])


def _of_reals(settings: Settings) -> Settings:
    return {name: value for name, value in settings.items() if name not in _OWN}


def _require_channels_first(state: Context, settings: Settings) -> None:
    if settings.get("channels_last"):
        raise state.origin.refuse(
            "channels as the last axis",
            attribute="channels_last",
            remedy="quantise the model without onnxruntime's optimisations for one machine",
        )


@handles("DynamicQuantizeLSTM", domain=MICROSOFT)
def lstm(state: Context, node: ModelNode, settings: Settings) -> None:
    """Unroll an LSTM whose weights are quantised; what it reads and its state stay reals, which onnxruntime rounds."""
    given = [*node.input, *[""] * (12 - len(node.input))]
    w, r = (_weights(state, *names) for names in ((given[1], *given[8:10]), (given[2], *given[10:12])))
    directions, hidden = len(w), r.shape[1]
    biases = state.numbers(given[3], "its bias") if given[3] else np.zeros((directions, 8 * hidden))
    halves = np.split(biases, 2, axis=1)
    peepholes = state.numbers(given[7], "its peepholes").reshape(directions, 3, hidden) if given[7] else None
    weights = [
        Weights(w[i], r[i], halves[0][i], halves[1][i], None if peepholes is None else peepholes[i])
        for i in range(directions)
    ]
    unroll(state, node, settings, weights, given[4], given[5:7])


def _weights(state: Context, name: str, scale: str, zero: str) -> np.ndarray:
    """(directions, inputs, gates), each direction with a scale of its own, or one a column."""
    values = state.numbers(name, "its weights")
    parts = []
    for place, own in enumerate(values):
        unit, offset = (
            along(state, state.numbers(each, "its scale").reshape(len(values), -1)[place], own.ndim, -1)
            for each in (scale, zero)
        )
        parts.append((own - offset) * unit)
    return np.stack(parts)
