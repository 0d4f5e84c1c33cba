"""scikit-learn's transformers (ai.onnx.ml), as skl2onnx writes them."""

from __future__ import annotations

import numpy as np

from mpc.compiler.graph.attributes import Weighted
from mpc.compiler.graph.graph import HALF_STEP, Shape
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.deviations import LEAST_NORM
from mpc.compiler.operators.elementwise import magnitude
from mpc.compiler.operators.facts import Ordered, Probabilities
from mpc.compiler.operators.labels import ML
from mpc.compiler.operators.logic import between, negation
from mpc.compiler.operators.missing import marks_of, must_mark, unscaled_columns
from mpc.compiler.operators.quotients import by_norm
from mpc.compiler.operators.registry import handles

_MOST_FILLED = 2.0**40
"""A number to put in is larger before a scaling that takes almost all of it away: then it is put in behind."""


@handles("Scaler", domain=ML)
def scaler(state: Context, node: ModelNode, settings: Settings) -> None:
    weight = np.array(settings.get("scale") or [1.0], dtype=np.float64)
    offset = np.array(settings.get("offset") or [0.0], dtype=np.float64)
    x = state.value(node.input[0])
    _require_columns(state, state.shapes[x], weight, "scale")
    _require_columns(state, state.shapes[x], offset, "offset")
    state.scale(x, weight, -offset * weight, node.output[0])


def _require_columns(state: Context, shape: Shape, values: np.ndarray, attribute: str) -> None:
    if values.size not in (1, shape[-1]):
        raise state.origin.refuse(
            f"{values.size} numbers for {shape[-1]} columns",
            attribute=attribute,
            remedy=f"give one number for all columns, or one for each of the {shape[-1]}",
        )


@handles("Normalizer", domain=ML)
def normalizer(state: Context, node: ModelNode, settings: Settings) -> None:
    norm, x = settings.get("norm", b"MAX").decode(), state.value(node.input[0])
    if norm == "L1" and _are_shares(state, x):
        state.alias(node.output[0], x)
    elif norm in ("L1", "L2"):
        by_norm(state, x, (len(state.shapes[x]) - 1,), norm, node.output[0])
    elif norm == "MAX":
        _by_maximum(state, x, node.output[0])
    else:
        raise state.origin.refuse(f"the norm {norm}", attribute="norm", remedy="use MAX, L1 or L2")


def _are_shares(state: Context, x: str) -> bool:
    """Are the numbers of a row not negative, and their sum one?"""
    match state.facts.get(x):
        case Probabilities():
            return True
        case Ordered(of, axes, shares=True):
            return state.shapes[of] == state.shapes[x] and axes == (len(state.shapes[x]) - 1,)
    return False


def _by_maximum(state: Context, x: str, out: str) -> None:
    """x over the largest of its row, with its sign: that one may be negative."""
    top = state.maximum(x)
    sign = state.sum((state.step(top),), (2.0,), None, -1.0)
    inverse = state.function("reciprocal", magnitude(state, top), floor=LEAST_NORM)
    state.multiply(x, state.multiply(sign, inverse), out)


@handles("Binarizer", domain=ML)
def binarizer(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute [x > t], the opposite of t >= x."""
    threshold = float(settings.get("threshold", 0.0))
    left = state.scale(state.value(node.input[0]), -1.0, threshold)
    negation(state, state.step(left), node.output[0])


@handles("Imputer", domain=ML)
def imputer(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute x + [x = replaced] (imputed - x); of NaN, x + missing (imputed - what is entered in place of it)."""
    whole = bool(settings.get("imputed_value_int64s"))
    kind = (
        ("imputed_value_int64s", "replaced_value_int64") if whole else ("imputed_value_floats", "replaced_value_float")
    )
    imputed = np.array(settings.get(kind[0], ()), dtype=np.float64)
    replaced = float(settings.get(kind[1], 0))
    x, out = state.value(node.input[0]), node.output[0]
    _require_columns(state, state.shapes[x], imputed, kind[0])
    state.require_finite(imputed)
    if np.isnan(replaced):
        _fill(state, x, imputed, out)
        return
    if np.isinf(replaced):  # no value is
        state.alias(out, x)
        return
    apart = state.scale(x, 1.0, -replaced)
    levels = (0.0, 1.0) if apart in state.integral else (-HALF_STEP, HALF_STEP)
    missing = between(state, apart, levels)
    filled = state.sum((x, state.multiply(missing, state.scale(x, -1.0, imputed))), (1.0, 1.0), out)
    if x in state.integral and not np.any(imputed % 1):
        state.integral.add(filled)


def _fill(state: Context, x: str, imputed: np.ndarray, out: str) -> None:
    """x with numbers in place of missing ones; what scales x is done to the filled numbers, if these stay small."""
    if marks_of(state, x) is None:
        state.alias(out, x)
        return
    must_mark(state, x)
    value, weight, bias = unscaled_columns(state, x)
    imputed = np.broadcast_to(imputed, weight.shape)
    if value == x or np.abs((imputed - bias) / weight).max() > _MOST_FILLED:
        _filled(state, x, imputed, out)
    else:
        state.scale(_filled(state, value, (imputed - bias) / weight, None), weight, bias, out)


def _filled(state: Context, x: str, imputed: np.ndarray, out: str | None) -> str:
    missing, entered = marks_of(state, x) or ("", np.zeros(()))
    filling = state.emit("scale", (missing,), None, state.shapes[x], Weighted(weight=imputed - entered, bias=None))
    filled = state.sum((x, filling), (1.0, 1.0), out, fills=entered)
    state.aware.add(filled)
    return filled


@handles("FeatureVectorizer", domain=ML)
def feature_vectorizer(state: Context, node: ModelNode, settings: Settings) -> None:
    """Put columns side by side."""
    parts = []
    for name in node.input:
        shape = state.secret(name)
        parts.append(state.reshape(name, (*shape, 1)) if len(shape) == 1 else name)
    sizes = [state.size(state.shapes[part], -1, "a column") for part in parts]
    declared = list(settings.get("inputdimensions", sizes))
    if declared != sizes or any(len(state.shapes[part]) != 2 for part in parts):
        raise state.origin.refuse(
            f"inputs of {sizes} columns for {declared}",
            attribute="inputdimensions",
            remedy="let inputdimensions say how many columns each input has, in their order",
        )
    state.concat(parts, 1, node.output[0])
