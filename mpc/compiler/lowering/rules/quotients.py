"""Quotients of a value by itself and a little more: x / (x + c) is 1 - c / (x + c) where c has digits.

One over a small divisor is large, and what x is rounded by counts as many times as much: c does not.  But c / (x + c)
is right only where its inverse is, even of x = 0: where c is few units of what is inverted, or less than one, that
counts as more than c, and 1 less the part would be far from 0 where the quotient is 0.  There a larger c is taken, if
nothing else reads the inverse; else x is multiplied.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mpc.compiler.graph.attributes import Function, Weighted
from mpc.compiler.graph.graph import Node
from mpc.compiler.lowering import normalise
from mpc.compiler.lowering.builder import Lowering
from mpc.compiler.lowering.emitted import SMALLER, Value
from mpc.compiler.lowering.rules import constants

_LITTLE = 1 / 64
"""Take a constant for what keeps a divisor from 0 only up to this, or up to such a part of what x can be."""
_ENOUGH = 16
"""Units that what is added has at least in what is inverted, where it is off by one: so is the quotient at 0, by one
in 16 at most, and what is expected of it says it.  To multiply is no better there, and far worse of what is larger."""


def by_more(state: Lowering, node: Node) -> Value | None:
    """Return 1 - c / (x + c), if that is what this product is, and x + c is never below c; else None."""
    for name, over in (node.reads, node.reads[::-1]):
        inverse = state.graph.writers.get(over)
        if inverse is None or inverse.op != "function" or inverse.of(Function).name != "reciprocal":
            continue
        more = state.graph.writers.get(inverse.reads[0])
        by = _added(more, name)
        if (
            more is None
            or by is None
            or not _is_little(state.values[name], by)
            or not node.shape == more.shape == state.values[name].shape
        ):
            continue
        by = state.raised.get(over, by)
        if over in state.raised or _has_digits(state.values[more.writes], by):
            taken = Weighted(weight=np.asarray(-by), bias=np.asarray(1.0))
            return constants.scale(state, replace(node, op="scale", reads=(over,), attributes=taken))
    return None


def raised(state: Lowering, node: Node) -> Value | None:
    """Return x + c with a larger c, if x / (x + c) is all that one over it is for, and c has too few digits.

    Then c / (x + c) is right where x is not small, and where it is, the quotient is between 0 and 1, as it should be.
    One over little more than nothing is so large that a product with it has no digits at all.
    """
    divisor, more = state.values[node.reads[0]], state.graph.writers.get(node.reads[0])
    name = more.reads[0] if more is not None and more.op == "scale" else ""
    by = _added(more, name)
    readers = [*state.graph.readers(node.writes)]
    if by is None or not readers or state.graph.is_output(node.writes):
        return None
    alone = all(
        reader.op == "multiply" and {*reader.reads} == {name, node.writes} and reader.shape == node.shape
        for reader in readers
    )
    x = state.values[name]
    if not alone or x.shape != divisor.shape or not _is_little(x, by) or _has_digits(divisor, by):
        return None
    factor = divisor.scale / x.scale
    if divisor.reals[0] < 0 or factor.denominator != 1:
        return None
    more_by = _ENOUGH * _unit(divisor)
    state.raised[node.writes] = more_by
    state.note(
        f"x / (x + {by:.3g}) is computed with {more_by:.2g} instead, which has digits: it is another one for x that is "
        f"hardly larger ({SMALLER})"
    )
    # c is secret, and a plan says what is added: so x is added to, and not what holds c already.
    return state.combine([x], [factor.numerator], x.shape, divisor.scale, round(more_by * float(divisor.scale)))


def _added(more: Node | None, name: str) -> float | None:
    """Return what is added to a value; None if that is no positive constant."""
    if more is None or more.op != "scale" or more.reads != (name,):
        return None
    weight, bias = more.of(Weighted).weight, more.of(Weighted).bias
    if bias is None or bias.size != 1 or weight.size != 1 or weight.flat[0] != 1.0:
        return None
    by = float(bias.flat[0])
    return by if by > 0 else None


def _is_little(x: Value, by: float) -> bool:
    """Tell whether what is added keeps a divisor from 0, or x can be so much larger that digits of it are lost."""
    return by <= max(_LITTLE, _LITTLE * x.reals[1])


def _has_digits(divisor: Value, by: float) -> bool:
    """Tell whether the divisor is proved to be about what is added at least, and that has digits in its units."""
    return by >= _ENOUGH * _unit(divisor) and divisor.reals[0] >= by / 2


def _unit(divisor: Value) -> float:
    """Return a unit of what is inverted, in the model's units."""
    return float((1 << normalise.shortened_by(divisor)) / divisor.scale)
