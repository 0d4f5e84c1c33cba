"""Import what rounds: to whole numbers, down, up or to the nearest, and what is left over."""

from __future__ import annotations

import numpy as np

from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.elementwise import clipped
from mpc.compiler.operators.facts import Clipped
from mpc.compiler.operators.registry import handles


@handles("Floor", "Ceil", "Round")
def round_off(state: Context, node: ModelNode, settings: Settings) -> None:
    """Round down, up, or to the nearest whole number, halves to the even one."""
    x, out = state.value(node.input[0]), node.output[0]
    if x in state.integral:
        state.alias(out, x)
    else:
        rounded(state, x, {"Floor": "floor", "Ceil": "up", "Round": "nearest"}[node.op_type], out)


def rounded(state: Context, x: str, how: str, out: str | None = None) -> str:
    """Return reals rounded as `Whole` has it, or "up"; what is held between whole numbers is held behind that.

    A clip leaves what it holds a little beside its ends, perhaps below the number that it is cut to; the nearest one is
    that all the same.
    """
    match state.facts.get(x):
        case Clipped(of, low, high, told) if how != "nearest":
            inner = rounded(state, of, "floor" if how == "zero" and low is not None and low >= 0 else how)
            before, state.told = state.told, told
            found = clipped(state, inner, low, high, out)
            state.told = before
            state.integral.add(found)
            return found
    if how != "up":
        return state.to_whole(x, how, out)
    return state.scale(state.to_whole(state.scale(x, -1.0), "floor"), -1.0, 0.0, out)


@handles("Mod")
def modulo(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute a - b q, of the quotient q rounded down; with fmod towards zero, as C does."""
    x, divisors = node.input[0], divisors_of(state, node.input[1])
    towards_zero = bool(settings.get("fmod", 0))
    if not towards_zero and state.holds_reals(node.output[0]):
        raise state.origin.refuse("reals without fmod", attribute="fmod", remedy="export the node with fmod=1")
    x = state.value(x)
    whole = state.sum(
        (x, state.scale(quotient(state, x, divisors, towards_zero), divisors)), (1.0, -1.0), node.output[0]
    )
    if x in state.integral and not np.any(divisors % 1):
        state.integral.add(whole)


def divides_integers(state: Context, *operands: str) -> bool:
    """Tell whether both operands have an integer type; a constant says so, wherever the node stands."""
    known = [state.constants[name] for name in operands if state.is_constant(name)]
    if known:
        return known[0].dtype.kind in "iubO"
    return operands[0] in state.integral and not state.holds_reals(operands[0])


def divisors_of(state: Context, name: str) -> np.ndarray:
    """Return constants that something is divided by."""
    values = state.numbers(name, "the divisor")
    if not values.all():
        raise state.origin.refuse("a division by zero", remedy="give a divisor that is not zero anywhere")
    return values


def quotient(state: Context, x: str, divisors: np.ndarray, towards_zero: bool, out: str | None = None) -> str:
    """Return x over constants as a whole number, rounded down or towards zero.

    Of whole numbers half a one is added first: no quotient of theirs is then near to where the next one begins, and
    sizes up to 2^30 are divided without a mistake.
    """
    if x not in state.integral or np.any(divisors % 1):
        return state.to_whole(state.scale(x, 1.0 / divisors), "zero" if towards_zero else "floor", out)
    size, sign = np.abs(divisors), np.sign(divisors)
    if not towards_zero:
        return state.to_whole(state.scale(x, 1.0 / divisors, 0.5 / size), "floor", out)
    negative = state.sum((state.step(x),), (-1.0,), None, 1.0, known=(0.0, 1.0))
    raised = state.sum((x, state.scale(negative, size - 1.0)), (1.0, 1.0)) if (size > 1).any() else x
    found = state.to_whole(state.scale(raised, 1.0 / size, 0.5 / size), "floor", out if (sign > 0).all() else None)
    return found if (sign > 0).all() else state.scale(found, sign, 0.0, out)
