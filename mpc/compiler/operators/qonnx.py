"""Import QONNX, as Brevitas and QKeras export networks of few bits: a node quantises a value, and says at once what the
whole number stands for.
"""

from __future__ import annotations

import numpy as np

from mpc.compiler.graph.attributes import Rectified
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.registry import handles

DOMAINS = ("qonnx.custom_op.general", "finn.custom_op.general", "onnx.brevitas")
"""Domains that the operators are in, today and before."""
_MOST_BITS = 16
_CONSTANTS = ((1, "its scale"), (2, "its zero point"))
_ROUNDINGS = {"ROUND": np.rint, "HALF_EVEN": np.rint, "FLOOR": np.floor, "CEIL": np.ceil}


@handles("Quant", "IntQuant", domain=DOMAINS[0])
@handles("Quant", "IntQuant", domain=DOMAINS[1])
@handles("Quant", "IntQuant", domain=DOMAINS[2])
def quant(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute (round(x / scale + zero point), held to so many bits, - zero point) scale.

    A plan tells the number of bits and how it is rounded, and whether all zero points are 0.
    """
    unit, zero = (_one_if_alone(state.numbers(node.input[place], what)) for place, what in _CONSTANTS)
    bits, rounding = state.numbers(node.input[3], "its bit width"), _rounding(settings)
    if rounding not in _ROUNDINGS:
        raise state.origin.refuse(
            f"it rounds {rounding}", attribute="rounding_mode", remedy=f"use one of {', '.join(_ROUNDINGS)}"
        )
    if bits.size != 1 or bits.flat[0] not in range(1, _MOST_BITS + 1):
        raise state.origin.refuse("its bit width is not one of 1 to 16", remedy="quantise to 2 to 16 bits")
    if not (unit > 0).all():
        raise state.origin.refuse("a scale that is not positive", remedy="train or calibrate the model again")
    signed, narrow = bool(settings.get("signed", 1)), bool(settings.get("narrow", 0))
    if signed and bits.flat[0] == 1:
        _bipolar(state, node, unit, zero)
        return
    low, high = _ends(int(bits.flat[0]), signed, narrow)
    name, out = node.input[0], node.output[0]
    if state.is_constant(name):
        whole = _ROUNDINGS[rounding](np.clip(state.numbers(name, "its value") / unit + zero, low, high))
        state.constants[out] = ((whole - zero) * unit).astype(np.float32)
        return
    _quantised(state, state.value(name), unit, zero, (low, high), rounding, out)


def _rounding(settings: Settings) -> str:
    return str(settings.get("rounding_mode", b"ROUND").decode(errors="replace")).upper()


def _quantised(
    state: Context, x: str, unit: np.ndarray, zero: np.ndarray, ends: tuple[int, int], rounding: str, out: str
) -> None:
    """Write what a secret stands for; to round up, its negative is rounded down."""
    (low, high), up = ends, rounding == "CEIL"
    sign, first = (-1.0, -high) if up else (1.0, low)
    bias = np.asarray(sign * zero) if zero.any() else 0.0
    if state.rounds:
        how = "nearest" if _ROUNDINGS[rounding] is np.rint else "floor"
        offset = np.asarray(float(-first)) if first else None
        held = state.to_whole(state.scale(x, sign / unit, bias), how, None, high - low, offset)
    else:
        between = state.scale(x, sign / unit, np.asarray(sign * zero - first))
        held = state.emit("relu", (between,), None, state.shapes[x], Rectified(ceiling=float(high - low)))
    beside = np.asarray((sign * first - zero) * unit) if first or zero.any() else 0.0
    state.scale(held, sign * unit, beside, out)


def _one_if_alone(values: np.ndarray) -> np.ndarray:
    return values.reshape(()) if values.size == 1 else values


def _ends(bits: int, signed: bool, narrow: bool) -> tuple[int, int]:
    """The least and the largest whole number of so many bits; a narrow range has one number fewer."""
    if signed:
        return int(narrow) - (1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1 - int(narrow)


@handles("BipolarQuant", domain=DOMAINS[0])
@handles("BipolarQuant", domain=DOMAINS[1])
@handles("BipolarQuant", domain=DOMAINS[2])
def bipolar_quant(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute the scale where x is 0 or more, and minus the scale elsewhere."""
    _bipolar(state, node, _one_if_alone(state.numbers(node.input[1], "its scale")), np.zeros(()))


def _bipolar(state: Context, node: ModelNode, unit: np.ndarray, zero: np.ndarray) -> None:
    """(1 - zero point) scale where x / scale + zero point is 0 or more, (-1 - zero point) scale elsewhere."""
    name, out = node.input[0], node.output[0]
    if state.is_constant(name):
        above = state.numbers(name, "its value") / unit + zero >= 0
        state.constants[out] = ((np.where(above, 1.0, -1.0) - zero) * unit).astype(np.float32)
        return
    x = state.value(name)
    x = state.scale(x, 1.0, np.asarray(zero * unit)) if zero.any() else x
    state.scale(state.step(x), 2 * unit, np.asarray((-1 - zero) * unit), out)
