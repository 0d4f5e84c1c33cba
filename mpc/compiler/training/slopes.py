"""Derivatives of functions of one variable: each as functions of the argument x, or of the value y that is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mpc.compiler.graph.attributes import Function
from mpc.compiler.graph.graph import Node
from mpc.compiler.training.tape import Tape

Slope = Callable[[Tape, str, str, Mapping[str, float]], str]
"""(tape, x, y = f(x), parameters) -> f'(x)."""


def function(tape: Tape, node: Node, g: str) -> str:
    """Write g f'(x): the slope, and one product."""
    taken, x = node.of(Function), node.reads[0]
    slope = SLOPES.get(taken.name)
    if slope is None:
        raise node.origin.refuse(
            f"no derivative of the function {taken.name!r} is known, and weights that train lie before it",
            remedy=f"use one of {', '.join(sorted(SLOPES))} in its place, or keep the layers before it as they are "
            "(frozen=[...])",
        )
    return tape.multiply(tape.short(g), tape.short(slope(tape, x, node.writes, taken.parameters)))


def _of(name: str, factor: float = 1.0) -> Slope:
    """The slope is another function of x, times a number."""
    return lambda tape, x, y, parameters: tape.times(tape.function(name, x), factor)


def _of_power(exponent: float, factor: float) -> Slope:
    """The slope is a power of x, times a number."""
    return lambda tape, x, y, parameters: tape.times(tape.function("power", x, exponent=exponent), factor)


def _value(tape: Tape, x: str, y: str, parameters: Mapping[str, float]) -> str:
    return y


def _power(tape: Tape, x: str, y: str, parameters: Mapping[str, float]) -> str:
    exponent = parameters["exponent"]
    return tape.times(tape.function("power", x, exponent=exponent - 1.0), exponent)


SLOPES: dict[str, Slope] = {
    "sigmoid": _of("sigmoid_slope"),
    "tanh": _of("tanh_slope"),
    "erf": _of("erf_slope"),
    "exp": _value,
    "exp_negative": _value,
    "softplus": _of("softplus_slope"),
    "gelu": _of("gelu_slope"),
    "gelu_tanh": _of("gelu_tanh_slope"),
    "silu": _of("silu_slope"),
    "mish": _of("mish_slope"),
    "log": _of("reciprocal"),
    "sqrt": _of("rsqrt", 0.5),
    "reciprocal": _of_power(-2.0, -1.0),
    "rsqrt": _of_power(-1.5, -0.5),
    "power": _power,
    "atan": _of("atan_slope"),
    "asinh": _of("asinh_slope"),
    "sinh": _of("cosh"),
    "cosh": _of("sinh"),
    "sin": _of("cos"),
    "cos": _of("sin", -1.0),
}
