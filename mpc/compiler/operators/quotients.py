"""Divide a value by itself, by its size, or by little more than its size: no inverse has digits for that near zero.

One over a small divisor is large, and whatever its operand is rounded by counts as many times as much.  So the first
are computed as what they are: one and a sign.  What is divided by little more than itself, bounds decide: see
`lowering.rules.quotients`.
"""

from __future__ import annotations

import numpy as np

from mpc.compiler.graph.attributes import Averaged
from mpc.compiler.operators import averages, counted, deviations, weighted
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.elementwise import magnitude, product
from mpc.compiler.operators.facts import Magnitude, More, Repeated, Root, Square
from mpc.compiler.operators.registry import handles
from mpc.compiler.operators.rounding import divides_integers, divisors_of, quotient
from mpc.wires import broadcast


@handles("Div")
def divide(state: Context, node: ModelNode, settings: Settings) -> None:
    left, right = node.input[0], _once(state, *node.input[:2])
    if divides_integers(state, left, right):
        if not state.is_constant(right):
            raise state.origin.refuse(
                "a division of integers by a divisor that depends on the input",
                remedy="divide by a constant, or cast to floating point before dividing",
            )
        quotient(state, left, divisors_of(state, right), True, node.output[0])
        return
    if state.is_constant(right):
        with np.errstate(divide="ignore"):
            _shrunk(state, state.value(left), 1.0 / state.numbers(right, "the divisor"), node.output[0])
        return
    if not state.is_constant(left) and _by_itself(state, left, right, node.output[0]):
        return
    dividend, divisor = state.constants.get(left), state.value(right)
    if dividend is not None and dividend.size == 1 and dividend.ndim <= len(state.shapes[divisor]) and dividend == 1:
        deviations.inverse(state, divisor, node.output[0])  # and what is known of it
        return
    length = deviations.length_of(state, right)
    if length is not None and length.of == left and _repeats_nothing(state, left, divisor):
        by_norm(state, left, length.axes, length.norm, node.output[0])
        return
    if averages.divided(state, left, right, node.output[0]):
        return
    over = counted.inverse(state, divisor) or deviations.inverse(state, divisor)
    if _by_more(state, left, right, over, node.output[0]):
        return
    if weighted.is_average(state, left, right):
        state.emit("multiply", (left, over), node.output[0], state.joint(left, over), Averaged())
        return
    if not deviations.scaled(state, left, over, node.output[0]):
        product(state, left, over, node.output[0])


def _once(state: Context, left: str, right: str) -> str:
    """Return a divisor before it was repeated, if the dividend has that shape: one inverse is found for all of it."""
    match state.facts.get(right):
        case Repeated(of) if left in state.shapes and state.shapes[left] == state.shapes[right]:
            return of
    return right


def _repeats_nothing(state: Context, left: str, divisor: str) -> bool:
    """Has a quotient the shape of what is divided?"""
    return broadcast(state.shapes[left], state.shapes[divisor]) == state.shapes[left]


def by_norm(state: Context, x: str, axes: tuple[int, ...], norm: str, out: str) -> None:
    """Compute x over its L1 or L2 norm over axes."""
    if norm == "L2":
        square = state.total(state.multiply(x, x), axes)
        inverse = state.function("rsqrt", square, floor=deviations.LEAST_NORM**2)
    else:
        total = state.total(magnitude(state, x), axes)
        inverse = state.function("reciprocal", total, floor=deviations.LEAST_NORM)
    state.multiply(x, inverse, out, known=(-1.0, 1.0))


def _shrunk(state: Context, x: str, factors: np.ndarray, out: str) -> None:
    """x factors.  Squares over the variances of their columns are squares of what is about equally large."""
    fact = state.facts.get(x)
    if (
        isinstance(fact, Square)
        and state.shapes[fact.of] == state.shapes[x]
        and factors.size > 1
        and (factors > 0).all()
    ):
        root = state.scale(fact.of, np.sqrt(factors))
        state.multiply(root, root, out)
    else:
        state.scale(x, factors, 0.0, out)


def _by_itself(state: Context, left: str, right: str, out: str) -> bool:
    """Compute x / x, x / |x| and |x| / x; False if it is another quotient."""
    if left == right:
        state.alias(out, state.stored(np.ones(()), state.shapes[left]))
    elif _size_of(state, right) == left or _size_of(state, left) == right:
        x = left if _size_of(state, right) == left else right
        bit = state.step(x, 0.0)
        state.integral.add(state.sum((bit,), (2.0,), out, -1.0))
    else:
        return False
    state.note("0 / 0, which is no number, counts as 1 there")
    return True


def _size_of(state: Context, name: str) -> str | None:
    """Return x of |x|, also as the root of its square."""
    match state.facts.get(name):
        case Magnitude(of) if state.shapes[of] == state.shapes[name]:
            return of
        case Root(of) if isinstance(square := state.facts.get(of), Square):
            return square.of if state.shapes[square.of] == state.shapes[name] else None
    return None


def _by_more(state: Context, left: str, right: str, over: str, out: str) -> bool:
    """Compute x / (|x| + c) of a small c, which is no further from 0 than 1; False if it is another quotient.

    Args:
        over: one over the divisor.
    """
    match state.facts.get(right):
        case More(of) if _size_of(state, of) == left and state.shapes[left] == state.shapes[right]:
            state.multiply(left, over, out, known=(-1.0, 1.0))
            return True
    return False
