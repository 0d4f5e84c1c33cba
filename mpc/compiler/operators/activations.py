"""Activation functions."""

from __future__ import annotations

import numpy as np

from mpc.compiler.functions import LINEAR_FROM
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.elementwise import clipped, magnitude, shifted
from mpc.compiler.operators.facts import Ordered, Softplus
from mpc.compiler.operators.registry import handles

_HARD_SWISH = (-1.0, 7.0)
"""Where the difference of both its ReLUs lies, with room for roundings of very wide ones."""


@handles("Relu")
def relu(state: Context, node: ModelNode, settings: Settings) -> None:
    state.relu(state.value(node.input[0]), node.output[0])


@handles("LeakyRelu")
def leaky_relu(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute a x + (1 - a) relu(x)"""
    slope, x = float(settings.get("alpha", 0.01)), state.value(node.input[0])
    state.sum((x, state.relu(x)), (slope, 1.0 - slope), node.output[0])


@handles("PRelu")
def p_relu(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute relu(x) - slope relu(-x), and relu(-x) = relu(x) - x"""
    x = state.value(node.input[0])
    positive = state.relu(x)
    negative = state.sum((positive, x), (1.0, -1.0))
    if state.is_constant(node.input[1]):
        slope, shape = state.numbers(node.input[1], "the slope"), state.shapes[x]
        if slope.ndim == 1 < len(shape) and slope.size == shape[1] and slope.size not in (1, shape[-1]):
            slope = slope.reshape(-1, *[1] * (len(shape) - 2))  # one a channel, as before opset 7
        scaled = state.scale(negative, -slope)
    else:
        scaled = state.scale(state.multiply(negative, state.value(node.input[1])), -1.0)
    state.sum((positive, scaled), (1.0, 1.0), node.output[0])


@handles("ThresholdedRelu")
def thresholded_relu(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute x where x > alpha, else 0: relu(x - alpha) + alpha [x > alpha]"""
    alpha, x = float(settings.get("alpha", 1.0)), state.value(node.input[0])
    below = state.step(state.scale(x, -1.0, alpha))
    state.sum((state.relu(shifted(state, x, -alpha)), below), (1.0, -alpha), node.output[0], alpha)


@handles("Elu", "Selu", "Celu")
def elu(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute gamma (relu(x) + alpha (exp(min(x, 0) / width) - 1))"""
    alpha, gamma = settings.get("alpha", 1.0), 1.0
    if node.op_type == "Selu":
        alpha, gamma = (
            settings.get("alpha", 1.67326319217681884765625),
            settings.get("gamma", 1.05070102214813232421875),
        )
    x = state.value(node.input[0])
    positive = state.relu(x)
    width = float(alpha) if node.op_type == "Celu" else 1.0
    below = state.sum((x, positive), (1.0 / width, -1.0 / width), known=(-np.inf, 0.0))
    low = state.function("exp_negative", below)
    factor = float(alpha) * float(gamma)
    state.sum((positive, low), (float(gamma), factor), node.output[0], -factor)
    if float(gamma) > 0 and float(alpha) > 0:
        _note_rising(state, x, node.output[0])


@handles("HardSigmoid")
def hard_sigmoid(state: Context, node: ModelNode, settings: Settings) -> None:
    x = state.value(node.input[0])
    line = state.sum((x,), (float(settings.get("alpha", 0.2)),), None, float(settings.get("beta", 0.5)))
    clipped(state, line, 0.0, 1.0, node.output[0])


@handles("HardSwish")
def hard_swish(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute t (t - 3) / 6 + relu(x - 3), where t = relu(x + 3) - relu(x - 3) is clip(x + 3, 0, 6).

    That is x clip(x / 6 + 1 / 2, 0, 1), but no rounding is multiplied by x, however large that is.
    """
    x = state.value(node.input[0])
    above = state.relu(shifted(state, x, -3.0))
    t = state.sum((state.relu(shifted(state, x, 3.0)), above), (1.0, -1.0), known=_HARD_SWISH)
    curve = state.multiply(t, shifted(state, t, -3.0))
    state.sum((curve, above), (1.0 / 6.0, 1.0), node.output[0])


@handles("Softplus")
def softplus(state: Context, node: ModelNode, settings: Settings) -> None:
    x = state.value(node.input[0])
    bend = state.function("softplus", x)
    state.sum((bend, state.relu(shifted(state, x, -LINEAR_FROM))), (1.0, 1.0), node.output[0])
    state.facts[node.output[0]] = Softplus(node.input[0])


@handles("Gelu")
def gelu(state: Context, node: ModelNode, settings: Settings) -> None:
    name = "gelu_tanh" if settings.get("approximate", b"none") == b"tanh" else "gelu"
    state.function(name, state.value(node.input[0]), out=node.output[0])


@handles("Swish")
def swish(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute x sigmoid(alpha x): SiLU of alpha x, divided by alpha"""
    x, alpha = state.value(node.input[0]), float(settings.get("alpha", 1.0))
    if alpha <= 0.0:
        state.multiply(x, state.function("sigmoid", state.sum((x,), (alpha,))), node.output[0])
    elif alpha == 1.0:
        state.function("silu", x, out=node.output[0])
    else:
        state.sum((state.function("silu", state.sum((x,), (alpha,))),), (1.0 / alpha,), node.output[0])


@handles("Mish")
def mish(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute x tanh(softplus(x))"""
    x = state.value(node.input[0])
    state.function("mish", x, out=node.output[0])


@handles("Softsign")
def softsign(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute x / (1 + |x|)"""
    x = state.value(node.input[0])
    size = state.sum((magnitude(state, x),), (1.0,), None, 1.0, known=(1.0, np.inf))
    state.multiply(x, state.function("reciprocal", size), node.output[0], known=(-1.0, 1.0))
    _note_rising(state, x, node.output[0])


def _note_rising(state: Context, x: str, out: str) -> None:
    """Note that a result rises with its argument, so that all of its numbers are in the order of these."""
    if x not in state.below:
        state.facts[out] = Ordered(x, tuple(range(len(state.shapes[x]))), shares=False)


@handles("Shrink")
def shrink(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute x + bias below -lambd, x - bias above lambd, else 0.

    Above: relu(x - lambd) + (lambd - bias) [x > lambd]; below its mirror image.
    """
    bias, edge = float(settings.get("bias", 0.0)), float(settings.get("lambd", 0.5))
    x = state.value(node.input[0])
    sides = []
    for sign in (1.0, -1.0):
        side = state.scale(x, sign)
        within = state.step(state.scale(side, -1.0, edge))  # 1 where it is not beyond
        sides.append(
            state.sum((state.relu(shifted(state, side, -edge)), within), (1.0, bias - edge), None, edge - bias)
        )
    state.sum(sides, (1.0, -1.0), node.output[0])
