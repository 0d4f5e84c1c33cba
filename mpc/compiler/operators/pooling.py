"""Pooling: windows are slices, taken axis by axis; then a maximum or a sum over each."""

from __future__ import annotations

from math import prod

from mpc.compiler.graph.attributes import Weigh
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.elementwise import magnitude
from mpc.compiler.operators.layers import extents, padding, spatial
from mpc.compiler.operators.registry import handles

Places = list[list[int]]
"""For each window along one axis, the elements that it covers; -1 where it covers padding."""


@handles("MaxPool")
def max_pool(state: Context, node: ModelNode, settings: Settings) -> None:
    if not state.unused(node, 1):
        raise state.origin.refuse(
            "the places of the maxima as an output are not supported",
            remedy="export the pooling without indices (return_indices=False); for the places use ArgMax",
        )
    places = _places(state, node, settings)
    # A window's padding takes the place of nothing: an element of the window stands in for it.
    filled = [[[i if i >= 0 else max(window) for i in window] for window in axis] for axis in places]
    windows = _windows(state, state.value(node.input[0]), filled)
    shape = state.shapes[windows]
    state.reshape(state.maximum(windows), shape[:-1], node.output[0])


@handles("AveragePool")
def average_pool(state: Context, node: ModelNode, settings: Settings) -> None:
    """Sum each window, times one over its size: public, axis by axis."""
    places = _places(state, node, settings)
    with_padding = bool(settings.get("count_include_pad", 0))
    windows = _windows(state, state.value(node.input[0]), places)
    shape = state.shapes[windows]
    counts = [_counts(state, node, settings, axis, with_padding) for axis in range(len(places))]
    full = [max(count) for count in counts]
    current = state.total(windows, (len(shape) - 1,), divisor=prod(full))
    current = state.reshape(current, shape[:-1])
    for axis, (count, most) in enumerate(zip(counts, full, strict=True), 2):
        if min(count) != most:
            weighed = tuple(most / n for n in count)
            current = state.emit("weigh", (current,), None, state.shapes[current], Weigh(axis=axis, factors=weighed))
    state.reshape(current, shape[:-1], node.output[0])


@handles("LpPool")
def lp_pool(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute the norm of each window."""
    p, x = int(settings.get("p", 2)), state.value(node.input[0])
    if p not in (1, 2):
        raise state.origin.refuse(
            f"the norm of order {p}; 1 and 2 are possible",
            attribute="p",
            remedy="use p=1 or p=2; or AveragePool of Pow, times the kernel's size, and Pow again",
        )
    powers = state.multiply(x, x) if p == 2 else magnitude(state, x)
    windows = _windows(state, powers, _places(state, node, settings))
    shape = state.shapes[windows]
    total = state.reshape(state.total(windows, (len(shape) - 1,)), shape[:-1])
    if p == 2:
        state.function("sqrt", total, node.output[0])
    else:
        state.reshape(total, shape[:-1], node.output[0])


@handles("GlobalAveragePool", "GlobalMaxPool")
def global_pool(state: Context, node: ModelNode, settings: Settings) -> None:
    x = state.value(node.input[0])
    shape = state.shapes[x]
    sizes = spatial(state, shape)
    kept = (*shape[:2], *[1] * len(sizes))
    if node.op_type == "GlobalAveragePool":
        state.total(x, range(2, len(shape)), node.output[0], divisor=prod(sizes))
    else:
        flat = state.reshape(x, (*shape[:2], prod(sizes)))
        state.reshape(state.maximum(flat), kept, node.output[0])


def _places(state: Context, node: ModelNode, settings: Settings) -> list[Places]:
    return [
        [[i if 0 <= i < size else -1 for i in window] for window in axis]
        for axis, size in zip(_covered(state, node, settings), spatial(state, state.secret(node.input[0])), strict=True)
    ]


def _covered(state: Context, node: ModelNode, settings: Settings) -> list[Places]:
    """For each axis and window the positions that it covers, before the input's first and behind its last too."""
    sizes = spatial(state, state.secret(node.input[0]))
    kernel = list(settings["kernel_shape"])
    strides = list(settings.get("strides", [1] * len(sizes)))
    dilations = list(settings.get("dilations", [1] * len(sizes)))
    if not len(kernel) == len(strides) == len(dilations) == len(sizes):
        raise state.origin.refuse(
            f"a kernel of {len(kernel)} axes for {len(sizes)}",
            attribute="kernel_shape",
            remedy=f"give kernel_shape, strides and dilations {len(sizes)} entries each",
        )
    reach = extents(kernel, dilations)
    pads = padding(state, settings, sizes, reach, strides)
    covered = []
    for axis, (size, (before, after)) in enumerate(zip(sizes, pads, strict=True)):
        free = size + before + after - reach[axis]
        count = free // strides[axis] + 1
        if settings.get("ceil_mode", 0) and free % strides[axis] and count * strides[axis] < size + before:
            count += 1  # one more window, if it starts inside the input or the padding before it
        windows = [
            [start * strides[axis] - before + step * dilations[axis] for step in range(kernel[axis])]
            for start in range(count)
        ]
        if count < 1 or any(not any(0 <= i < size for i in window) for window in windows):
            raise state.origin.refuse(
                f"a window of axis {axis + 2} covers nothing but padding",
                attribute="pads",
                remedy=("use paddings smaller than the kernel, a smaller stride, or ceil_mode=0; or a larger input"),
            )
        covered.append(windows)
    return covered


def _counts(state: Context, node: ModelNode, settings: Settings, axis: int, with_padding: bool) -> list[int]:
    """Count the elements of each window along an axis, those of the padding too if they count."""
    sizes = spatial(state, state.secret(node.input[0]))
    kernel = list(settings["kernel_shape"])
    dilations = list(settings.get("dilations", [1] * len(sizes)))
    strides = list(settings.get("strides", [1] * len(sizes)))
    before, after = padding(state, settings, sizes, extents(kernel, dilations), strides)[axis]
    low, high = (-before, sizes[axis] + after) if with_padding else (0, sizes[axis])
    return [sum(low <= i < high for i in window) for window in _covered(state, node, settings)[axis]]


def _windows(state: Context, x: str, places: list[Places]) -> str:
    """(n, c, *sizes) to (n, c, *windows, elements of a window)."""
    n, c = state.shapes[x][:2]
    current = x
    for axis, windows in enumerate(places, 2):
        flat = [i for window in windows for i in window]
        if flat != list(range(len(flat))) or len(flat) != state.shapes[current][axis]:
            current = state.take(current, axis, flat)
    counts, kernel = [len(axis) for axis in places], [len(axis[0]) for axis in places]
    split = [size for pair in zip(counts, kernel, strict=True) for size in pair]
    axes = len(places)
    order = [0, 1, *range(2, 2 + 2 * axes, 2), *range(3, 3 + 2 * axes, 2)]
    moved = state.transpose(state.reshape(current, (n, c, *split)), order)
    return state.reshape(moved, (n, c, *counts, prod(kernel)))
