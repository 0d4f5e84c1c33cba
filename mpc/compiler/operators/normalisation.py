"""Normalisation: batch-norm is linear; the others divide by what they compute."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mpc.compiler.graph.writer import EXPORT_TRAINED
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.joined import seen
from mpc.compiler.operators.quotients import by_norm
from mpc.compiler.operators.registry import handles


@handles("BatchNormalization")
def batch_normalization(state: Context, node: ModelNode, settings: Settings) -> None:
    if settings.get("training_mode", 0):
        raise state.origin.refuse("training mode is not supported", attribute="training_mode", remedy=EXPORT_TRAINED)
    if not settings.get("spatial", 1):
        raise state.origin.refuse(
            "statistics for each position are not supported",
            attribute="spatial",
            remedy=("use spatial=1; for statistics of each position Flatten before it, so that each is a channel"),
        )
    if not all(state.unused(node, position) for position in range(1, len(node.output))):
        raise state.origin.refuse("running statistics as outputs are not supported", remedy=EXPORT_TRAINED)
    state.secret(node.input[0])
    rank = len(seen(state, node.input[0]))
    gain, shift, mean, variance = (
        state.numbers(name, "a parameter").reshape(-1, *[1] * max(0, rank - 2)) for name in node.input[1:5]
    )
    weight = gain / np.sqrt(variance + settings.get("epsilon", 1e-5))
    state.scale(node.input[0], weight, shift - mean * weight, node.output[0])


@handles("LayerNormalization")
def layer_normalization(state: Context, node: ModelNode, settings: Settings) -> None:
    x = state.value(node.input[0])
    rank = len(state.shapes[x])
    axes = range(state.axis(settings.get("axis", -1), state.shapes[x]), rank)
    normal, mean, inverse = standardised(state, x, axes, settings.get("epsilon", 1e-5))
    for position, found in ((1, mean), (2, inverse)):
        if not state.unused(node, position):
            state.alias(node.output[position], found)
    _with_gain(state, node, normal, 0)


@handles("InstanceNormalization")
def instance_normalization(state: Context, node: ModelNode, settings: Settings) -> None:
    x = state.value(node.input[0])
    rank = len(state.shapes[x])
    normal, *_ = standardised(state, x, range(2, rank), settings.get("epsilon", 1e-5))
    _with_gain(state, node, normal, rank - 2)


@handles("GroupNormalization")
def group_normalization(state: Context, node: ModelNode, settings: Settings) -> None:
    x = state.value(node.input[0])
    n, channels, *sizes = state.shapes[x]
    groups = int(settings["num_groups"])
    if not isinstance(channels, int) or channels % groups:
        raise state.origin.refuse(
            f"{channels} channels in {groups} groups",
            attribute="num_groups",
            remedy=("use a number of groups that divides the number of channels, which has to be fixed (--shape)"),
        )
    split = state.reshape(x, (n, groups, channels // groups, *sizes))
    normal, *_ = standardised(state, split, range(2, len(sizes) + 3), settings.get("epsilon", 1e-5))
    parameters = state.constants.get(node.input[1])
    if parameters is None or parameters.size != channels:
        raise state.origin.refuse(
            "a gain for each group, not each channel, is not supported",
            remedy=(
                "repeat each group's gain and bias for its channels: constants with one entry a channel, as of opset 21"
            ),
        )
    _with_gain(state, node, state.reshape(normal, state.shapes[x]), len(sizes))


@handles("RMSNormalization")
def rms_normalization(state: Context, node: ModelNode, settings: Settings) -> None:
    x = state.value(node.input[0])
    axes = range(state.axis(settings.get("axis", -1), state.shapes[x]), len(state.shapes[x]))
    _with_gain(state, node, _divided(state, x, axes, settings.get("epsilon", 1e-5))[0], 0)


@handles("MeanVarianceNormalization")
def mean_variance_normalization(state: Context, node: ModelNode, settings: Settings) -> None:
    x = state.value(node.input[0])
    normal, *_ = standardised(state, x, list(settings.get("axes", [0, 2, 3])), 1e-9)
    state.reshape(normal, state.shapes[normal], node.output[0])


def standardised(state: Context, x: str, axes: Sequence[int], epsilon: float) -> tuple[str, str, str]:
    """Return ((x - mean) / deviation, the mean, one over the deviation sqrt(variance + epsilon))"""
    mean = state.mean(x, axes)
    normal, inverse = _divided(state, state.sum((x, mean), (1.0, -1.0)), axes, epsilon)
    return normal, mean, inverse


def _divided(state: Context, x: str, axes: Sequence[int], epsilon: float) -> tuple[str, str]:
    """(x over d, one over d), d = sqrt(mean x^2 + epsilon); the first is at most the root of the number of elements."""
    number = state.count(x, axes)
    square = state.mean(state.multiply(x, x), axes)
    shifted = state.sum((square,), (1.0,), None, epsilon, known=(epsilon, np.inf))
    inverse = state.function("rsqrt", shifted, known=(0.0, epsilon**-0.5))
    return state.multiply(x, inverse, known=(-math.sqrt(number), math.sqrt(number))), inverse


def _with_gain(state: Context, node: ModelNode, x: str, trailing: int) -> None:
    """Gain and shift, the second and third inputs, with axes of size 1 behind them."""
    gain = state.numbers(node.input[1], "its gain")
    gain = gain.reshape(*gain.shape, *[1] * trailing)
    shift: np.ndarray | float = 0.0
    if len(node.input) > 2 and node.input[2]:
        given = state.numbers(node.input[2], "its shift")
        shift = given.reshape(*given.shape, *[1] * trailing)
    state.scale(x, gain, shift, node.output[0])


@handles("LpNormalization")
def lp_normalization(state: Context, node: ModelNode, settings: Settings) -> None:
    x = state.value(node.input[0])
    axis = state.axis(settings.get("axis", -1), state.shapes[x])
    by_norm(state, x, (axis,), "L1" if settings.get("p", 2) == 1 else "L2", node.output[0])


@handles("LRN")
def local_response(state: Context, node: ModelNode, settings: Settings) -> None:
    """Divide x by a power of bias + alpha / size times the sum of squares of the channels around."""
    x, size = state.value(node.input[0]), int(settings["size"])
    channels = state.size(state.shapes[x], 1, "a window of channels")
    square = state.multiply(x, x)
    before = (size - 1) // 2
    shifts = range(-before, size - before)
    around = [
        state.take(square, 1, [c + shift if 0 <= c + shift < channels else -1 for c in range(channels)])
        for shift in shifts
    ]
    alpha, bias = float(settings.get("alpha", 1e-4)) / size, float(settings.get("bias", 1.0))
    base = state.sum(around, [alpha] * size, None, bias, known=(bias, np.inf))
    factor = state.function("power", base, exponent=-float(settings.get("beta", 0.75)))
    state.multiply(x, factor, node.output[0])
