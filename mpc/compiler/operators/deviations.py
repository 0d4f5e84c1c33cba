"""Normalisations that a model spells out: x over the root of mean x^2 + epsilon, node by node.

Facts follow the chain: `Square` of x, `Mean` of that, `Above` epsilon, and `OverRoot` or `Root` of such a value.
Where x meets that, the product is at most the root of the number of elements, which no interval can see; and one
over a root is one function.
"""

from __future__ import annotations

import math

import numpy as np

from mpc.compiler.graph.graph import Shape
from mpc.compiler.operators.context import Context
from mpc.compiler.operators.facts import Above, Length, Mean, More, OnePlusExp, OverRoot, Root, Square, SquaredLength

LEAST_NORM = 2.0**-12
"""Norms count as that if they are smaller: nothing is divided by zero."""
_EPSILON = 1e-12
"""Stands for the epsilon of a normalisation that has none: PyTorch's exporter takes one as small as this for 0."""
_LITTLE = 1 / 64
"""Take a constant for what keeps a divisor from 0 only up to this."""


def variance(state: Context, left: str, right: str, out: str) -> bool:
    """Compute mean (x - mean x)^2 where a model subtracts the mean's square: bounds show that it is not negative."""
    square, average = state.facts.get(right), state.facts.get(left)
    if not isinstance(square, Square) or not isinstance(average, Mean) or not isinstance(average.of, Square):
        return False
    x, mean = average.of.of, square.of
    if state.facts.get(mean) != Mean(average.axes, x) or state.shapes[left] != state.shapes[right]:
        return False
    if state.shapes[mean] != _kept(state, x, average.axes):
        return False
    apart = state.sum((x, mean), (1.0, -1.0))
    state.mean(state.multiply(apart, apart), average.axes, out)
    return True


def shifted(state: Context, x: str, by: np.ndarray, out: str) -> bool:
    """Return mean x^2 + epsilon, which is epsilon at least; False if it is something else."""
    fact = state.facts.get(x)
    if by.size != 1 or by.ndim > len(state.shapes.get(x, ())) or not 0 < by.flat[0] < math.inf:
        return False
    if not isinstance(fact, Mean) or not isinstance(fact.of, Square):
        return False
    if state.splits and not state.told:  # a plan has it, which parties see
        return False
    epsilon = float(by.flat[0])
    state.sum((x,), (1.0,), out, epsilon, known=(epsilon, math.inf))
    state.facts[out] = Above(epsilon, fact)
    return True


def note_more(state: Context, x: str, by: np.ndarray, out: str) -> None:
    """Note that a value is x and a little more."""
    if by.size == 1 and by.ndim <= len(state.shapes[x]) and 0 < by.flat[0] <= _LITTLE and out not in state.facts:
        state.facts[out] = More(x)


def length_of(state: Context, x: str) -> Length | None:
    """Return what a norm is of, also one that is the root of a sum of squares; None of other values."""
    match state.facts.get(x):
        case Length() as length:
            return length
        case Root(of) if isinstance(total := state.facts.get(of), SquaredLength):
            return Length(total.of, total.axes, "L2") if state.shapes[of] == state.shapes[x] else None
    return None


def inverse_root(state: Context, y: str, out: str | None = None) -> str:
    """Return one over the root of y."""
    fact = state.facts.get(y)
    known = (0.0, fact.epsilon**-0.5) if isinstance(fact, Above) else None
    name = state.function("rsqrt", y, out, known=known)
    state.facts[name] = OverRoot(y)
    return name


def inverse(state: Context, x: str, out: str | None = None) -> str:
    """Return 1 / x; that of 1 + exp(y) is the logistic function of -y, that of a root one function."""
    match state.facts.get(x):
        case OnePlusExp(of) if state.shapes[of] == state.shapes[x]:
            return state.function("sigmoid", state.scale(of, -1.0), out)
        case Root(of) if state.shapes[of] == state.shapes[x]:
            return inverse_root(state, of, out)
    return state.function("reciprocal", x, out)


def scaled(state: Context, x: str, over: str, out: str) -> bool:
    """Return x times one over the root of its own mean square, also without epsilon; False if it is another product."""
    root = state.facts.get(over)
    above = state.facts.get(root.of) if isinstance(root, OverRoot) else None
    mean = above.of if isinstance(above, Above) else above
    if not isinstance(root, OverRoot) or not isinstance(mean, Mean) or mean.of != Square(x):
        return False
    if state.shapes[over] != _kept(state, x, mean.axes):
        return False
    if mean is above:  # then 0 / 0, which is no number, is 0
        square = root.of if state.shapes[root.of] == state.shapes[over] else state.reshape(root.of, state.shapes[over])
        more = state.sum((square,), (1.0,), constant=_EPSILON, known=(_EPSILON, math.inf))
        over = state.function("rsqrt", more, known=(0.0, _EPSILON**-0.5))
    most = math.sqrt(state.count(x, mean.axes))
    state.multiply(x, over, out, known=(-most, most))
    return True


def _kept(state: Context, x: str, axes: tuple[int, ...]) -> Shape:
    """The shape of a mean over axes that stay with size 1: one that reads x element by element."""
    return tuple(1 if axis in axes else size for axis, size in enumerate(state.shapes[x]))
