"""Import divisions: by constants, of whole numbers, and by what depends on the input."""

from __future__ import annotations

import numpy as np

from mpc.compiler.operators import deviations
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.elementwise import product
from mpc.compiler.operators.facts import Square
from mpc.compiler.operators.registry import handles
from mpc.compiler.operators.rounding import divides_integers, divisors_of, quotient


@handles("Div")
def divide(state: Context, node: ModelNode, settings: Settings) -> None:
    left, right = node.input[:2]
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
    dividend, divisor = state.constants.get(left), state.value(right)
    if dividend is not None and dividend.size == 1 and dividend.ndim <= len(state.shapes[divisor]) and dividend == 1:
        deviations.inverse(state, divisor, node.output[0])  # and what is known of it
        return
    over = deviations.inverse(state, divisor)
    if not deviations.scaled(state, left, over, node.output[0]):
        product(state, left, over, node.output[0])


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
