"""Quotients of a value by itself and a little more: x / (x + c) is 1 - c / (x + c) where c has digits.

One over a small divisor is large, and what x is rounded by counts as many times as much: c does not.  But c / (x + c)
is right only where its inverse is, even of x = 0: where c is few units of what is inverted, or less than one, that
counts as more than c, and 1 less the part would be far from 0 where the quotient is 0.  There x is multiplied.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mpc.compiler.graph.attributes import Function, Weighted
from mpc.compiler.graph.graph import Node
from mpc.compiler.lowering import normalise
from mpc.compiler.lowering.builder import Lowering
from mpc.compiler.lowering.emitted import Value
from mpc.compiler.lowering.rules import constants

_LITTLE = 1 / 64
"""Take a constant for what keeps a divisor from 0 only up to this, or up to such a part of what x can be."""
_DIGITS = 4
"""Bits that what is added has at least in what is inverted, where it is off by a unit: so is the quotient at 0, by one
in 2^4 at most, and what is expected of it says it.  To multiply is no better there, and far worse of what is larger."""


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
        if _has_digits(state.values[more.writes], by):
            taken = Weighted(weight=np.asarray(-by), bias=np.asarray(1.0))
            return constants.scale(state, replace(node, op="scale", reads=(over,), attributes=taken))
    return None


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
    unit = float((1 << normalise.shortened_by(divisor)) / divisor.scale)
    return by >= unit * (1 << _DIGITS) and divisor.reals[0] >= by / 2
