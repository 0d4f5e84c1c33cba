"""Resize: public linear maps, axis by axis: nearest neighbours are slices, linear ones sums of two."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.compiler.operators.registry import Settings, handles
from mpc.compiler.sizes import Rows
from mpc.wires import BATCH

if TYPE_CHECKING:
    import onnx

    from mpc.compiler.onnx_import import Importer

_ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda v: np.ceil(v - 0.5),
    "round_prefer_ceil": lambda v: np.floor(v + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@handles("Resize", "Upsample")
def resize(state: Importer, node: onnx.NodeProto, settings: Settings) -> None:
    mode = settings.get("mode", b"nearest").decode()
    if mode not in ("nearest", "linear"):
        raise state.origin.refuse(f"the mode {mode}; nearest and linear are possible", attribute="mode")
    if settings.get("antialias", 0):
        raise state.origin.refuse("a smoothed resize is not supported", attribute="antialias")
    policy = settings.get("keep_aspect_ratio_policy", b"stretch")
    if policy != b"stretch":
        raise state.origin.refuse(f"the policy {policy.decode()}", attribute="keep_aspect_ratio_policy")
    shape = state.secret(node.input[0])
    axes = [state.axis(a, shape) for a in settings.get("axes", range(len(shape)))]
    scales, sizes = _wanted(state, node, settings)
    current = node.input[0]
    for place, axis in enumerate(axes):
        if (sizes and sizes[place] == shape[axis]) or (not sizes and scales[place] == 1.0):
            continue
        before = state.size(shape, axis, "resizing")
        after = sizes[place] if sizes else int(before * scales[place])
        factor = after / before if sizes else scales[place]
        places = _places(state, settings, before, after, factor)
        if mode == "nearest":
            current = state.take(current, axis, _nearest(state, settings, places, before))
        else:
            current = _linear(state, current, axis, places, before)
    state.reshape(current, state.shapes[current], node.output[0])


def _wanted(state: Importer, node: onnx.NodeProto, settings: Settings) -> tuple[list[float], list[Any]]:
    """(scales, sizes); one of them is empty."""
    if "scales" in settings:
        return list(settings["scales"]), []
    scales = state.optional(node, 1 if len(node.input) == 2 else 2, "the scales")
    if scales is not None and scales.size:
        return [float(s) for s in scales], []
    sizes = state.optional(node, 3, "the sizes")
    if sizes is None:
        raise state.origin.refuse("it has neither scales nor sizes")
    return [], [BATCH if entry == Rows() else state.whole(entry, "the sizes") for entry in sizes.reshape(-1).tolist()]


def _places(state: Importer, settings: Settings, before: int, after: int, factor: float) -> np.ndarray:
    """Where on the input's axis each element of the result lies."""
    default = b"half_pixel" if state.opset >= 11 else b"asymmetric"
    mode = settings.get("coordinate_transformation_mode", default).decode()
    x = np.arange(after, dtype=np.float64)
    length = factor * before
    half = (x + 0.5) / factor - 0.5
    places = {
        "half_pixel": half,
        "half_pixel_symmetric": before / 2 * (1 - after / length) + half,
        "pytorch_half_pixel": half if after > 1 else np.zeros_like(x),
        "asymmetric": x / factor,
        "align_corners": x * (before - 1) / (length - 1) if length > 1 else np.zeros_like(x),
    }
    if mode not in places:
        raise state.origin.refuse(f"the coordinates {mode}", attribute="coordinate_transformation_mode")
    return places[mode]


def _nearest(state: Importer, settings: Settings, places: np.ndarray, before: int) -> list[int]:
    """Which element each place is nearest to."""
    default = b"round_prefer_floor" if state.opset >= 11 else b"floor"
    rounding = settings.get("nearest_mode", default).decode()
    if rounding not in _ROUNDINGS:
        raise state.origin.refuse(f"the rounding {rounding}", attribute="nearest_mode")
    chosen: list[int] = np.clip(_ROUNDINGS[rounding](places), 0, before - 1).astype(int).tolist()
    return chosen


def _linear(state: Importer, x: str, axis: int, places: np.ndarray, before: int) -> str:
    """Between two neighbours, each with its public weight."""
    inside = np.clip(places, 0, before - 1)
    low = np.floor(inside).astype(int)
    share = inside - low
    parts = []
    for indices, weights in ((low, 1 - share), (np.minimum(low + 1, before - 1), share)):
        taken = state.take(x, axis, indices.tolist())
        factors = tuple(weights.tolist())
        parts.append(state.emit("weigh", (taken,), None, state.shapes[taken], axis=axis, factors=factors))
    return state.sum(parts, (1.0, 1.0))
