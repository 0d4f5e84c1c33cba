"""Arithmetic, comparisons and logic, element by element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpc.compiler.graph.emitter import MOST_TERMS
from mpc.compiler.graph.graph import HALF_STEP
from mpc.compiler.operators import deviations
from mpc.compiler.operators.boundless import BOUNDLESS, piecewise, within
from mpc.compiler.operators.context import Context, ModelNode, Settings
from mpc.compiler.operators.facts import Beyond, Exp, OnePlusExp, Root, Softplus, Square, Top, Truncated
from mpc.compiler.operators.registry import handles

LINEAR_FROM = 11.0
"""Beyond this softplus(x) is x."""
_LONGEST_POWER = 16
_MASKED = -1e4
"""What stands for minus infinity in scores that only a softmax reads."""


# ------------------------------------------------------------------- arithmetic


@handles("Add")
def add(state: Context, node: ModelNode, settings: Settings) -> None:
    left, right = node.input[:2]
    if state.is_constant(left):
        left, right = right, left
    if state.is_constant(right):
        bias, fact = masking(state, state.numbers(right, "an operand"), node.output[0]), state.facts.get(left)
        if deviations.shifted(state, left, bias, node.output[0]):
            return
        state.scale(state.value(left), 1.0, bias, node.output[0])
        if isinstance(fact, Exp) and bias.size == 1 and bias.flat[0] == 1.0:
            state.facts[node.output[0]] = OnePlusExp(fact.of)
    else:
        state.sum((state.value(left), state.value(right)), (1.0, 1.0), node.output[0])


def masking(state: Context, values: np.ndarray, out: str) -> np.ndarray:
    """Constants; the minus infinities of an attention mask, and what is as good, become large numbers."""
    if (values < _MASKED).any() and state.only_scores(out):
        return np.maximum(values, _MASKED)
    return values


@handles("Sub")
def subtract(state: Context, node: ModelNode, settings: Settings) -> None:
    """x - max x and x - log sum exp x are not positive; mean x^2 - (mean x)^2 is the mean of squares."""
    left, right = node.input[:2]
    if deviations.variance(state, left, right, node.output[0]):
        return
    beside = state.facts.get(right) == Top(left) and state.shapes[right] == (*state.shapes[left][:-1], 1)
    known = {"known": (-np.inf, 0.0)} if beside else {}
    difference(state, left, right, node.output[0], **known)


def difference(state: Context, left: str, right: str, out: str | None = None, **known: Any) -> str:
    """left - right, either of them constant."""
    if state.is_constant(right):
        return state.scale(state.value(left), 1.0, -state.numbers(right, "an operand"), out)
    if state.is_constant(left):
        return state.scale(state.value(right), -1.0, state.numbers(left, "an operand"), out)
    return state.sum((state.value(left), state.value(right)), (1.0, -1.0), out, **known)


@handles("Mul")
def multiply(state: Context, node: ModelNode, settings: Settings) -> None:
    left, right = node.input[:2]
    if deviations.scaled(state, left, right, node.output[0]) or deviations.scaled(state, right, left, node.output[0]):
        return
    product(state, left, right, node.output[0])
    if left == right:
        state.facts[node.output[0]] = Square(left)


def product(state: Context, left: str, right: str, out: str | None = None) -> str:
    """left right, either of them constant."""
    if state.is_constant(left):
        left, right = right, left
    if state.is_constant(right):
        weight = state.numbers(right, "an operand")
        return state.scale(state.value(left), weight if out is None else masking(state, weight, out), 0.0, out)
    state.secret(left), state.secret(right)
    return state.multiply(left, right, out)


@handles("Div")
def divide(state: Context, node: ModelNode, settings: Settings) -> None:
    left, right = node.input[:2]
    dividend = state.constants[left] if state.is_constant(left) else None
    whole = left in state.integral and not state.holds_reals(left)
    if whole or (dividend is not None and dividend.dtype.kind in "iub"):
        raise state.origin.refuse("a division of integers rounds", remedy="cast to floating point before dividing")
    if state.is_constant(right):
        with np.errstate(divide="ignore"):
            _shrunk(state, state.value(left), 1.0 / state.numbers(right, "the divisor"), node.output[0])
        return
    over = inverse(state, state.value(right))
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


def inverse(state: Context, x: str, out: str | None = None) -> str:
    """1 / x; that of 1 + exp(y) is the logistic function of -y, that of a root one function."""
    match state.facts.get(x):
        case OnePlusExp(of) if state.shapes[of] == state.shapes[x]:
            return state.function("sigmoid", state.scale(of, -1.0), out)
        case Root(of) if state.shapes[of] == state.shapes[x]:
            return deviations.inverse_root(state, of, out)
    return state.function("reciprocal", x, out)


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


def magnitude(state: Context, x: str, out: str | None = None) -> str:
    """|x| = 2 relu(x) - x"""
    return state.sum((state.relu(x), x), (2.0, -1.0), out, known=(0.0, np.inf))


@handles("Sign")
def sign(state: Context, node: ModelNode, settings: Settings) -> None:
    """[x >= a step] + [x > - a step] - 1"""
    x = state.value(node.input[0])
    bits = state.steps(x, (1.0, 0.0) if x in state.integral else (HALF_STEP, -HALF_STEP))
    total = state.total(bits, (len(state.shapes[bits]) - 1,))
    state.sum((state.reshape(total, state.shapes[x]),), (1.0,), node.output[0], -1.0)


@handles("Max", "Min")
def extreme_of_many(state: Context, node: ModelNode, settings: Settings) -> None:
    """Secret operands are compared all at once, constants with the result, one by one."""
    largest = node.op_type == "Max"
    values = [name for name in node.input if not state.is_constant(name)]
    current = values[0]
    if len(values) == 2:
        current = _extreme(state, values[0], values[1], largest)
    elif len(values) > 2:
        current = _of_many(state, values, largest)
    for name in node.input:
        if state.is_constant(name):
            current = _extreme(state, current, name, largest)
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
                f"one of its constants is {'' if largest else 'minus '}infinity or no number, and so is its result",
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
    """low + relu(x - low) - relu(x - high)"""
    bounds = [settings.get("min"), settings.get("max")]
    for position in (1, 2):
        given = state.optional(node, position, "a bound")
        if given is not None:
            bounds[position - 1] = float(given.reshape(-1)[0])
    low, high = (None if b is None or abs(b) > 1e30 else float(b) for b in bounds)
    x, out = state.value(node.input[0]), node.output[0]
    if low is not None and high is not None and low > high:
        low = high
    clipped(state, x, low, high, out)


def clipped(state: Context, x: str, low: float | None, high: float | None, out: str | None = None) -> str:
    """x cut to an interval; the bounds are constants of the model, secret."""
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


def shifted(state: Context, x: str, by: float) -> str:
    """x + by"""
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
    if (exponents != exponent).any():
        raise state.origin.refuse(
            "exponents that differ from element to element",
            remedy="Split the value, raise each part with its own Pow, and join the parts with Concat",
        )
    shape = state.joint(x, state.stored(np.zeros(exponents.shape), exponents.shape)) if exponents.size > 1 else None
    if shape is not None:
        x = state.expand(x, shape)
    _power(state, x, exponent, node.output[0])
    if exponent == 2.0:
        state.facts[node.output[0]] = Square(x)


def _power(state: Context, x: str, exponent: float, out: str) -> None:
    named: dict[float, str] = {-1.0: "reciprocal", 0.5: "sqrt"}
    if exponent == 1.0:
        state.reshape(x, state.shapes[x], out)
    elif exponent == -0.5:
        deviations.inverse_root(state, x, out)
    elif exponent in named:
        state.function(named[exponent], x, out, **({"known": (0.0, np.inf)} if exponent > 0 else {}))
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
    """By squaring, from the top bit down."""
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
        inverse(state, x, out)
        return
    known = {"known": (0.0, np.inf)} if node.op_type == "Sqrt" else {}
    state.function(node.op_type.lower(), x, out, **known)
    if node.op_type in ("Exp", "Sqrt"):
        state.facts[out] = Exp(x) if node.op_type == "Exp" else Root(x)


# ------------------------------------------------------------------- comparisons, logic


_COMPARISONS = {
    "GreaterOrEqual": np.greater_equal,
    "LessOrEqual": np.less_equal,
    "Greater": np.greater,
    "Less": np.less,
}


@handles("GreaterOrEqual", "LessOrEqual", "Greater", "Less")
def compare(state: Context, node: ModelNode, settings: Settings) -> None:
    """[x >= y] is a step of x - y; x > y is the opposite of y >= x.  Infinite constants decide it themselves."""
    left, right = node.input[:2]
    constant = left if state.is_constant(left) else right if state.is_constant(right) else None
    if constant is not None and not within(levels := state.numbers(constant, "a level")).all():
        _compare_with(state, node, levels, first=constant == left)
        return
    if node.op_type in ("Greater", "LessOrEqual"):
        left, right = right, left
    opposite = node.op_type in ("Greater", "Less")
    bit = state.step(difference(state, left, right), 0.0, None if opposite else node.output[0])
    if opposite:
        negation(state, bit, node.output[0])
    if node.op_type == "Greater" and state.is_constant(left) and (state.numbers(left, "a level") >= LINEAR_FROM).all():
        state.facts[node.output[0]] = Beyond(right)


def _compare_with(state: Context, node: ModelNode, levels: np.ndarray, *, first: bool) -> None:
    """A value with constants of which some are infinite or no number; `first`: they are the left operand."""
    compared = _COMPARISONS[node.op_type]
    known = compared(levels, 0.0) if first else compared(0.0, levels)
    from_level = first == (node.op_type in ("GreaterOrEqual", "Less"))  # is it level - x that is at least 0, or below?

    def bits(x: str, values: np.ndarray) -> str:
        apart = state.scale(x, -1.0, values) if from_level else state.scale(x, 1.0, -values)
        bit = state.step(apart, 0.0)
        return negation(state, bit) if node.op_type in ("Greater", "Less") else bit

    value = state.value(node.input[1] if first else node.input[0])
    state.alias(node.output[0], piecewise(state, value, levels, bits, known))


@handles("Equal")
def equal(state: Context, node: ModelNode, settings: Settings) -> None:
    """[d >= 0] - [d >= 1] of whole numbers; of reals, within half a step."""
    left, right = node.input[:2]
    if any(isinstance(state.facts.get(name), Truncated) for name in (left, right)):
        _equal_after_cut(state, left, right, node.output[0])
        return
    d = difference(state, left, right)
    levels = (0.0, 1.0) if d in state.integral else (-HALF_STEP, HALF_STEP)
    between(state, d, levels, node.output[0])


def _equal_after_cut(state: Context, left: str, right: str, out: str) -> None:
    """x, cut to a whole number towards zero, against a constant."""
    if state.is_constant(left):
        left, right = right, left
    numbers = state.numbers(right, "the other operand").reshape(-1)
    if (numbers != numbers[0]).any():
        raise state.origin.refuse(
            "a cast of reals, compared with several numbers",
            remedy=("compare with one number at a time (an Equal for each, and Or), or make the input one of int64"),
        )
    between(state, left, cut_window(float(numbers[0])), out)


def cut_window(value: float) -> tuple[float, float]:
    """The reals low <= x < high that are cut to this whole number, towards zero."""
    low = value if value > 0 else value - 1 + HALF_STEP
    return low, (value + 1 if value >= 0 else value + HALF_STEP)


def between(state: Context, x: str, levels: tuple[float, float], out: str | None = None) -> str:
    """[levels[0] <= x < levels[1]]"""
    bits = state.steps(x, levels)
    axis = len(state.shapes[bits]) - 1
    ends = [state.reshape(state.take(bits, axis, [i]), state.shapes[x]) for i in (0, 1)]
    return state.sum(ends, (1.0, -1.0), out, known=(0.0, 1.0))


@handles("Not")
def logical_not(state: Context, node: ModelNode, settings: Settings) -> None:
    negation(state, state.value(node.input[0]), node.output[0])


def negation(state: Context, bit: str, out: str | None = None) -> str:
    """1 - bit"""
    return state.sum((bit,), (-1.0,), out, 1.0, known=(0.0, 1.0))


@handles("And")
def logical_and(state: Context, node: ModelNode, settings: Settings) -> None:
    left, right = node.input[:2]
    product(state, left, right, node.output[0])


@handles("Or", "Xor")
def logical_or(state: Context, node: ModelNode, settings: Settings) -> None:
    """a + b - a b;  a + b - 2 a b"""
    x, y = (state.value(name) for name in node.input[:2])
    both = state.multiply(x, y)
    state.sum((x, y, both), (1.0, 1.0, -1.0 if node.op_type == "Or" else -2.0), node.output[0])


@handles("Where")
def where(state: Context, node: ModelNode, settings: Settings) -> None:
    """y + condition (x - y)"""
    condition, x, y = node.input[:3]
    out = node.output[0]
    if state.is_constant(condition):
        _chosen_publicly(state, node, state.constant(condition, "the condition").astype(bool))
        return
    if state.is_constant(x) and state.is_constant(y):
        values = [masking(state, state.numbers(name, "a branch"), out) for name in (x, y)]
        state.scale(state.value(condition), values[0] - values[1], values[1], out)
        return
    alike = state.shapes.get(x) == state.shapes.get(y) == state.shapes[condition]
    if alike and state.facts.get(y) == Softplus(x) and state.facts.get(condition) == Beyond(x):
        state.alias(out, y)  # which is x there
        return
    x, y = (_masked(state, name, out) if state.is_constant(name) else name for name in (x, y))
    apart = difference(state, x, y)
    state.sum((state.multiply(apart, state.value(condition)), state.value(y)), (1.0, 1.0), out)


def _masked(state: Context, name: str, out: str) -> str:
    """A constant branch under a name of its own; see `masking`."""
    masked = state.fresh()
    state.constants[masked] = masking(state, state.numbers(name, "a branch"), out)
    return masked


def _chosen_publicly(state: Context, node: ModelNode, condition: np.ndarray) -> None:
    """A constant condition: each branch times zeros and ones, which stay the owner's secret."""
    if condition.all() or not condition.any():
        chosen = node.input[1 if condition.all() else 2]
        others = [np.broadcast_shapes(condition.shape)]
        if others[0] in ((), (1,)) and not state.is_constant(chosen):
            state.alias(node.output[0], chosen)
            return
    parts: list[tuple[str, np.ndarray]] = []
    bias: np.ndarray | float = 0.0
    for name, mask in zip(node.input[1:3], (condition, ~condition), strict=True):
        if state.is_constant(name):
            value = state.numbers(name, "a branch")
            value = masking(state, value, node.output[0])
            bias = bias + np.where(mask, value, 0.0)
        else:
            parts.append((name, mask.astype(np.float64)))
    scaled = [state.scale(state.value(name), mask, bias if i == 0 else 0.0) for i, (name, mask) in enumerate(parts)]
    _joined(state, scaled, node.output[0])


def _joined(state: Context, names: Sequence[str], out: str) -> None:
    if len(names) == 1:
        state.reshape(names[0], state.shapes[names[0]], out)
    else:
        state.sum(names, [1.0] * len(names), out)
