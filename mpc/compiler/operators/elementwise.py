"""Arithmetic and functions, element by element; comparisons and choices are in `logic`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpc.compiler.graph.attributes import Ends
from mpc.compiler.graph.emitter import MOST_TERMS
from mpc.compiler.graph.graph import HALF_STEP
from mpc.compiler.operators import averages, deviations, known_sums, vanishing
from mpc.compiler.operators.absorbed import note_difference, note_shares
from mpc.compiler.operators.boundless import piecewise, within
from mpc.compiler.operators.context import BOUNDLESS, LEAST_LEVEL, Context, ModelNode, Settings
from mpc.compiler.operators.facts import (
    Beneath,
    Clipped,
    Exp,
    Length,
    Magnitude,
    Marks,
    OnePlusExp,
    Root,
    Square,
    Unit,
)
from mpc.compiler.operators.masks import MASKED, hide
from mpc.compiler.operators.registry import handles

_LONGEST_POWER = 16


# ------------------------------------------------------------------- arithmetic


@handles("Add")
def add(state: Context, node: ModelNode, settings: Settings) -> None:
    left, right = node.input[:2]
    if state.is_constant(left):
        left, right = right, left
    if state.is_constant(right):
        added, fact = state.numbers(right, "an operand"), state.facts.get(left)
        bias = masking(state, added, node.output[0])
        hide(state, node.output[0], added)
        if deviations.shifted(state, left, bias, node.output[0]):
            return
        state.scale(state.value(left), 1.0, bias, node.output[0])
        if isinstance(fact, Exp) and bias.size == 1 and bias.flat[0] == 1.0:
            state.facts[node.output[0]] = OnePlusExp(fact.of)
        deviations.note_more(state, left, bias, node.output[0])
    else:
        state.sum((state.value(left), state.value(right)), (1.0, 1.0), node.output[0])
    vanishing.carried(state, node)


def masking(state: Context, values: np.ndarray, out: str) -> np.ndarray:
    """Add an attention mask: its minus infinities, and what is as good, become large numbers."""
    if (values < MASKED).any() and state.only_scores(out):
        return np.maximum(values, MASKED)
    return values


@handles("Sub")
def subtract(state: Context, node: ModelNode, settings: Settings) -> None:
    """Subtract; x - max x and x - log sum exp x are not positive, mean x^2 - (mean x)^2 is the mean of squares."""
    left, right = node.input[:2]
    if not deviations.variance(state, left, right, node.output[0]):
        beside = known_sums.is_top(state, right, left)
        if beside and state.only_feeds(node.output[0], {"Exp"}):  # a softmax, spelt out
            note_shares(state, left)
        elif not state.is_constant(left) and not state.is_constant(right):
            note_difference(state, left, right)
        difference(state, left, right, node.output[0], (-np.inf, 0.0) if beside else None)
        if beside:
            state.facts[node.output[0]] = Beneath()
        vanishing.carried(state, node)


def difference(state: Context, left: str, right: str, out: str | None = None, known: Ends | None = None) -> str:
    """Return left - right, either of them constant."""
    if state.is_constant(right):
        return state.scale(state.value(left), 1.0, -state.numbers(right, "an operand"), out)
    if state.is_constant(left):
        return state.scale(state.value(right), -1.0, state.numbers(left, "an operand"), out)
    return state.sum((state.value(left), state.value(right)), (1.0, -1.0), out, known=known)


@handles("Mul")
def multiply(state: Context, node: ModelNode, settings: Settings) -> None:
    left, right = node.input[:2]
    if deviations.scaled(state, left, right, node.output[0]) or deviations.scaled(state, right, left, node.output[0]):
        return
    if in_units(state, left, right, node.output[0]) or in_units(state, right, left, node.output[0]):
        return
    product(state, left, right, node.output[0])
    if left == right:
        state.facts[node.output[0]] = Square(left)
    else:
        averages.note_marked(state, left, right, node.output[0])


def in_units(state: Context, x: str, unit: str, out: str | None) -> bool:
    """Multiply with a part of a value: first with the part, then with the value, which has more digits.

    False, and nothing is written, if it is no such part.
    """
    match state.facts.get(unit):
        case Unit(of, factor, told) if state.is_constant(x):
            weight = state.numbers(x, "an operand")
            name = state.scale(unit, weight, 0.0, out)
            state.facts[name] = Unit(of, factor * weight, told and state.told)
            return True
        case Unit(of, factor, told):
            state.told = state.told and told
            state.multiply(state.scale(state.value(x), factor), of, out)
            return True
    return False


def product(state: Context, left: str, right: str, out: str | None = None) -> str:
    """Return left right, either of them constant."""
    if state.is_constant(left):
        left, right = right, left
    if state.is_constant(right):
        weight = state.numbers(right, "an operand")
        return state.scale(state.value(left), weight) if out is None else vanishing.masked(state, left, weight, out)
    state.secret(left), state.secret(right)
    return state.multiply(left, right, out)


@handles("Neg")
def negate(state: Context, node: ModelNode, settings: Settings) -> None:
    state.scale(state.value(node.input[0]), -1.0, 0.0, node.output[0])


@handles("Sum", "Mean")
def sum_of_many(state: Context, node: ModelNode, settings: Settings) -> None:
    values = [state.value(name) for name in node.input]
    factor = 1.0 / len(values) if node.op_type == "Mean" else 1.0
    if node.op_type == "Mean" and len(values) > MOST_TERMS:
        state.sum((state.sum(values, [1.0] * len(values)),), (factor,), node.output[0])
        return
    state.sum(values, [factor] * len(values), node.output[0])


@handles("Abs")
def absolute(state: Context, node: ModelNode, settings: Settings) -> None:
    x = state.value(node.input[0])
    magnitude(state, state.opposite_fits(node.output[0], x), node.output[0])
    state.facts[node.output[0]] = Magnitude(node.input[0])


def magnitude(state: Context, x: str, out: str | None = None) -> str:
    """Return |x| = 2 relu(x) - x"""
    return state.sum((state.relu(x), x), (2.0, -1.0), out, known=(0.0, np.inf))


@handles("Sign")
def sign(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute [x >= a step] + [x > - a step] - 1"""
    x = state.value(node.input[0])
    bits = state.steps(x, (1.0, 0.0) if x in state.integral else (HALF_STEP, -HALF_STEP))
    total = state.total(bits, (len(state.shapes[bits]) - 1,))
    state.sum((state.reshape(total, state.shapes[x]),), (1.0,), node.output[0], -1.0)


@handles("Max", "Min")
def extreme_of_many(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compare secret operands all at once, constants with the result, one by one."""
    largest = node.op_type == "Max"
    values = [name for name in node.input if not state.is_constant(name)]
    current = values[0]
    if len(values) == 2:
        current = _extreme(state, values[0], values[1], largest)
    elif len(values) > 2:
        current = _of_many(state, values, largest)
    for name in node.input:
        if state.is_constant(name):
            end = state.numbers(name, "an operand")
            if end.size == 1 and largest and end.flat[0] <= LEAST_LEVEL and state.only_scores(node.output[0]):
                continue  # what is less has no share either
            if end.size == 1 and ((end <= -BOUNDLESS) if largest else (end >= BOUNDLESS)).all():
                continue  # no value is beyond it
            before, current = current, _extreme(state, current, name, largest)
            if end.size == 1 and within(end).all():
                ends = (float(end.flat[0]), None) if largest else (None, float(end.flat[0]))
                _note_ends(state, current, state.value(before), *ends)
    state.alias(node.output[0], current)


def _of_many(state: Context, values: Sequence[str], largest: bool) -> str:
    names = [state.value(name) for name in values]
    shape = state.joint(*names)
    columns = [state.reshape(state.expand(name, shape), (*shape, 1)) for name in names]
    joined = state.concat(columns, len(shape))
    top = state.maximum(joined if largest else state.scale(joined, -1.0))
    return state.reshape(top if largest else state.scale(top, -1.0), shape)


def _extreme(state: Context, left: str, right: str, largest: bool) -> str:
    """max(a, b) = b + relu(a - b),  min(a, b) = a - relu(a - b); with an infinite constant it is the other operand."""
    if state.is_constant(left):
        left, right = right, left
    if state.is_constant(right) and not within(values := state.numbers(right, "an operand")).all():
        if ((values >= BOUNDLESS) if largest else (values <= -BOUNDLESS)).any() or np.isnan(values).any():
            raise state.origin.refuse(
                f"one of its constants is {'' if largest else 'minus '}infinity, as large as that, or no number, "
                "and so is its result",
                remedy="replace that constant by a number that its result may be, or leave the node out",
            )
        return piecewise(state, state.value(left), values, lambda x, v: _with_constant(state, x, v, largest), None)
    above = state.relu(difference(state, left, right))
    if not largest:
        return state.sum((state.value(left), above), (1.0, -1.0))
    if state.is_constant(right):
        return state.scale(above, 1.0, state.numbers(right, "an operand"))
    return state.sum((state.value(right), above), (1.0, 1.0))


def _with_constant(state: Context, x: str, values: np.ndarray, largest: bool) -> str:
    above = state.relu(state.scale(x, 1.0, -values))
    return state.scale(above, 1.0, values) if largest else state.sum((x, above), (1.0, -1.0))


@handles("Clip")
def clip(state: Context, node: ModelNode, settings: Settings) -> None:
    """Compute low + relu(x - low) - relu(x - high)"""
    bounds = [settings.get("min"), settings.get("max")]
    for position in (1, 2):
        given = state.optional(node, position, "a bound")
        if given is not None:
            bounds[position - 1] = float(given.reshape(-1)[0])
    low, high = (None if b is None or abs(b) > 1e30 else float(b) for b in bounds)
    x, out = state.value(node.input[0]), node.output[0]
    if low is None and high is None:
        state.alias(out, x)
        return
    if low is not None and high is not None and low > high:
        low = high
    clipped(state, x, low, high, out)
    _note_ends(state, out, x, low, high)
    fact = deviations.length_of(state, x) or state.facts.get(x)
    if high is not None or low is None or (state.splits and not state.told):  # a plan shows which it is
        return
    if (isinstance(fact, Length) and low <= deviations.LEAST_NORM) or (isinstance(fact, Marks) and low <= 1):
        state.facts[out] = fact


def clipped(state: Context, x: str, low: float | None, high: float | None, out: str | None = None) -> str:
    """Return x cut to an interval; the bounds are constants of the model, secret."""
    if low is None and high is None:
        return state.reshape(x, state.shapes[x], out)
    if low is None:
        return state.sum((x, state.relu(shifted(state, x, -float(high or 0.0)))), (1.0, -1.0), out)
    above = state.relu(shifted(state, x, -low))
    if high is not None:
        above = state.sum((above, state.relu(shifted(state, x, -high))), (1.0, -1.0))
    if not low:
        return state.reshape(above, state.shapes[x], out)
    return state.scale(above, 1.0, low, out)


def _note_ends(state: Context, name: str, x: str, low: float | None, high: float | None) -> None:
    """Note between which whole numbers a real is held: what rounds it rounds the real first, since ends are blurred."""
    ends = [end for end in (low, high) if end is not None]
    if ends and x not in state.integral and state.shapes[name] == state.shapes[x] and not any(end % 1 for end in ends):
        state.facts[name] = Clipped(x, low, high, state.told)


def shifted(state: Context, x: str, by: float) -> str:
    """Return x + by"""
    return state.scale(x, 1.0, by) if by else x


@handles("Pow")
def power(state: Context, node: ModelNode, settings: Settings) -> None:
    if state.is_constant(node.input[0]) and not state.is_constant(node.input[1]):
        base = state.numbers(node.input[0], "the base")
        if (base <= 0).any():
            raise state.origin.refuse(
                "a secret power of what is not positive",
                remedy=(
                    "use a positive base; of a negative base take the absolute value, and the sign "
                    "from the exponent's parity outside the model"
                ),
            )
        state.function("exp", state.scale(state.value(node.input[1]), np.log(base)), node.output[0])
        return
    exponents = state.numbers(node.input[1], "the exponent")
    exponent, x = float(exponents.flat[0]), state.value(node.input[0])
    shape = state.joint(x, state.stored(np.zeros(exponents.shape), exponents.shape)) if exponents.size > 1 else None
    if shape is not None:
        x = state.expand(x, shape)
    if (exponents != exponent).any():
        _powers(state, x, exponents, node.output[0])
        return
    _power(state, x, exponent, node.output[0])
    if exponent == 2.0:
        state.facts[node.output[0]] = Square(x)
    elif exponent == 0.5:
        state.facts[node.output[0]] = Root(x)


def _powers(state: Context, x: str, exponents: np.ndarray, out: str) -> None:
    """Raise each column to a power of its own; those of one power together."""
    columns = exponents.reshape(-1)
    if exponents.shape[-1] != columns.size:
        raise state.origin.refuse(
            "exponents that differ from row to row",
            remedy="Split the value, raise each part with its own Pow, and join the parts with Concat",
        )
    parts, order, axis = list[str](), list[int](), len(state.shapes[x]) - 1
    for exponent in dict.fromkeys(columns.tolist()):
        alike = np.flatnonzero(columns == exponent).tolist()
        part, order = state.fresh(), [*order, *alike]
        _power(state, state.take(x, axis, alike), exponent, part)
        parts.append(part)
    state.take(state.concat(parts, axis), axis, np.argsort(order).tolist(), out)


def _power(state: Context, x: str, exponent: float, out: str) -> None:
    named: dict[float, str] = {-1.0: "reciprocal", 0.5: "sqrt"}
    if exponent == 1.0:
        state.reshape(x, state.shapes[x], out)
    elif exponent == -0.5:
        deviations.inverse_root(state, x, out)
    elif exponent in named:
        state.function(named[exponent], x, out, (0.0, np.inf) if exponent > 0 else None)
    elif exponent.is_integer() and 1 < abs(exponent) <= _LONGEST_POWER:
        if exponent < 0:
            x = state.function("reciprocal", x)
        whole_power(state, x, int(abs(exponent)), out)
    elif exponent.is_integer():
        raise state.origin.refuse(
            f"the power {exponent:g}; 1 to {_LONGEST_POWER} and their negatives are possible",
            remedy=f"multiply several powers up to {_LONGEST_POWER}; x^0 is the constant 1",
        )
    else:
        state.function("power", x, out, exponent=exponent)


def whole_power(state: Context, x: str, exponent: int, out: str | None = None) -> str:
    """Compute a whole power by squaring, from the top bit down."""
    digits, current = bin(exponent)[3:], x
    for position, digit in enumerate(digits):
        last = position == len(digits) - 1
        current = state.multiply(current, current, out if last and digit == "0" else None)
        if digit == "1":
            current = state.multiply(current, x, out if last else None)
    return current


@handles("Sqrt", "Reciprocal", "Exp", "Log", "Erf", "Sin", "Cos", "Sinh", "Cosh", "Asinh", "Atan", "Tanh", "Sigmoid")
def function(state: Context, node: ModelNode, settings: Settings) -> None:
    x, out = state.value(node.input[0]), node.output[0]
    if node.op_type == "Reciprocal":
        deviations.inverse(state, x, out)
        return
    if node.op_type in vanishing.VANISHING and vanishing.apply(state, node.op_type.lower(), x, out):
        return
    if node.op_type == "Exp" and known_sums.powers(state, x, out):
        return
    state.function(node.op_type.lower(), x, out, (0.0, np.inf) if node.op_type == "Sqrt" else None)
    if node.op_type in ("Exp", "Sqrt"):
        state.facts[out] = Exp(x) if node.op_type == "Exp" else Root(x)
