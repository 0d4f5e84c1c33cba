"""Resize: public linear maps, axis by axis: nearest neighbours are slices, linear ones sums of two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mpc.compiler.graph.attributes import Weigh
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.registry import handles
from mpc.compiler.operators.sizes import Rows
from mpc.wires import BATCH

_TIE = 1e-6
"""How close to halfway between two elements a place counts as halfway, as onnxruntime has it."""


def _halfway(v: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(v - np.floor(v) - 0.5) < _TIE)


_ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda v: np.where(_halfway(v), np.floor(v), np.floor(v + 0.5)),
    "round_prefer_ceil": lambda v: np.where(_halfway(v), np.ceil(v), np.floor(v + 0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}


@handles("Resize", "Upsample")
def resize(state: Context, node: ModelNode, settings: Settings) -> None:
    mode = settings.get("mode", b"nearest").decode()
    if mode not in ("nearest", "linear"):
        raise state.origin.refuse(
            f"the mode {mode}; nearest and linear are possible",
            attribute="mode",
            remedy="export it with mode=nearest or mode=linear (in torch interpolate(mode='bilinear'))",
        )
    if settings.get("antialias", 0):
        raise state.origin.refuse(
            "a smoothed resize is not supported",
            attribute="antialias",
            remedy="export it with antialias=0; an AveragePool before it smooths as well",
        )
    policy = settings.get("keep_aspect_ratio_policy", b"stretch")
    if policy != b"stretch":
        raise state.origin.refuse(
            f"the policy {policy.decode()}",
            attribute="keep_aspect_ratio_policy",
            remedy="use keep_aspect_ratio_policy=stretch, with the sizes that the result should have",
        )
    shape = state.secret(node.input[0])
    axes = [state.axis(a, shape) for a in settings.get("axes", range(len(shape)))]
    scales, sizes = _wanted(state, node, settings)
    current = node.input[0]
    for place, axis in enumerate(axes):
        if (sizes and sizes[place] == shape[axis]) or (not sizes and scales[place] == 1.0):
            continue
        before = state.size(shape, axis, "resizing")
        after = sizes[place] if sizes else int(np.float32(before) * np.float32(scales[place]))
        if after == before:  # whatever the scale, nothing moves
            continue
        factor = np.float32(after) / np.float32(before) if sizes else np.float32(scales[place])
        places = _places(state, settings, before, after, factor)
        if mode == "nearest":
            current = state.take(current, axis, _nearest(state, settings, places, before, bool(factor < 1)))
        else:
            current = _linear(state, current, axis, places, before)
    state.reshape(current, state.shapes[current], node.output[0])


def _wanted(state: Context, node: ModelNode, settings: Settings) -> tuple[list[float], list[Any]]:
    """(scales, sizes); one of them is empty."""
    if "scales" in settings:
        return list(settings["scales"]), []
    scales = state.optional(node, 1 if len(node.input) == 2 else 2, "the scales")
    if scales is not None and scales.size:
        return [float(s) for s in scales], []
    sizes = state.optional(node, 3, "the sizes")
    if sizes is None:
        raise state.origin.refuse(
            "it has neither scales nor sizes", remedy="give one constant of the two, one entry an axis"
        )
    return [], [BATCH if entry == Rows() else state.whole(entry, "the sizes") for entry in sizes.reshape(-1).tolist()]


def _places(state: Context, settings: Settings, before: int, after: int, factor: np.float32) -> np.ndarray:
    """Where on the input's axis each element of the result lies, in onnxruntime's precision: a last digit decides."""
    default = b"half_pixel" if state.opset >= 11 else b"asymmetric"
    mode = settings.get("coordinate_transformation_mode", default).decode()
    handler = _COORDINATES.get(mode)
    if handler is None or (mode == "tf_half_pixel_for_nn" and settings.get("mode", b"nearest") != b"nearest"):
        known = ", ".join(_COORDINATES)
        raise state.origin.refuse(
            f"the coordinates {mode}",
            attribute="coordinate_transformation_mode",
            remedy=f"export it with one of {known} (the last for the mode nearest only)",
        )
    return handler(np.arange(after, dtype=np.float32), factor, np.float32(after), np.float32(before))


def _half_pixel(x: np.ndarray, scale: np.float32, after: np.float32, before: np.float32) -> np.ndarray:
    return (x + _HALF) / scale - _HALF


def _symmetric(x: np.ndarray, scale: np.float32, after: np.float32, before: np.float32) -> np.ndarray:
    """Half pixels around the middle: the middle in single precision, the rest in double."""
    offset = before / np.float32(2) * (np.float32(1) - after / (scale * before))
    return (np.float64(offset) + (x.astype(np.float64) + 0.5) / np.float64(scale) - 0.5).astype(np.float32)


def _pytorch(x: np.ndarray, scale: np.float32, after: np.float32, before: np.float32) -> np.ndarray:
    return _half_pixel(x, scale, after, before) if after > 1 else np.zeros_like(x)


def _asymmetric(x: np.ndarray, scale: np.float32, after: np.float32, before: np.float32) -> np.ndarray:
    return x / scale


def _corners(x: np.ndarray, scale: np.float32, after: np.float32, before: np.float32) -> np.ndarray:
    return x * (before - np.float32(1)) / (after - np.float32(1)) if after > 1 else np.zeros_like(x)


def _pixels(x: np.ndarray, scale: np.float32, after: np.float32, before: np.float32) -> np.ndarray:
    return (x + _HALF) / scale


_HALF = np.float32(0.5)
_COORDINATES: dict[str, Callable[[np.ndarray, np.float32, np.float32, np.float32], np.ndarray]] = {
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _symmetric,
    "pytorch_half_pixel": _pytorch,
    "asymmetric": _asymmetric,
    "align_corners": _corners,
    "tf_half_pixel_for_nn": _pixels,
}


def _nearest(state: Context, settings: Settings, places: np.ndarray, before: int, shrinks: bool) -> list[int]:
    """Which element each place is nearest to; before opset 11 the one ahead of it if the axis shrinks."""
    default = b"round_prefer_floor" if state.opset >= 11 else b"ceil" if shrinks else b"floor"
    rounding = settings.get("nearest_mode", default).decode()
    if rounding not in _ROUNDINGS:
        raise state.origin.refuse(
            f"the rounding {rounding}", attribute="nearest_mode", remedy=f"use one of {', '.join(_ROUNDINGS)}"
        )
    rounded = _ROUNDINGS[rounding](places.astype(np.float64))
    chosen: list[int] = np.clip(rounded, 0, before - 1).astype(int).tolist()
    return chosen


def _linear(state: Context, x: str, axis: int, places: np.ndarray, before: int) -> str:
    """Between two neighbours, each with its public weight."""
    inside = np.clip(places, 0, before - 1)
    low = np.floor(inside).astype(int)
    share = inside - low
    parts = []
    for indices, weights in ((low, 1 - share), (np.minimum(low + 1, before - 1), share)):
        taken = state.take(x, axis, indices.tolist())
        factors = tuple(weights.tolist())
        parts.append(state.emit("weigh", (taken,), None, state.shapes[taken], Weigh(axis=axis, factors=factors)))
    return state.sum(parts, (1.0, 1.0))
