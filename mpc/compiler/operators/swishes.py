"""Compute a hard swish, x clip(x + 3, 0, 6) / 6, also where a model spells it out: no rounding is multiplied by x then.

Facts follow the chain: `Raised` by 3, `Gate` of that, which may be multiplied with a constant before it meets x.
"""

from __future__ import annotations

import numpy as np

from mpc.compiler.operators.context import Context
from mpc.compiler.operators.facts import Gate, Raised

_OFFSET, _CEILING = 3.0, 6.0
_ENDS = (0.0, _CEILING)
_ROOM = 1.0
"""How far the difference of both its ReLUs may be beyond them: those of very wide values are rounded."""
_CLOSE = 1e-6
"""How much a sixth may be off, as a float32."""


def hard_swish(state: Context, x: str, factor: float, out: str) -> None:
    """Compute x clip(x + 3, 0, 6) times a factor: that of t (t - 3) + 6 relu(x - 3), where t is what is clipped."""
    above = state.relu(state.scale(x, 1.0, -_OFFSET))
    t = state.sum((state.relu(state.scale(x, 1.0, _OFFSET)), above), (1.0, -1.0), known=(-_ROOM, _CEILING + _ROOM))
    curve = state.multiply(t, state.scale(t, 1.0, -_OFFSET))
    state.sum((curve, above), (factor, _CEILING * factor), out)


def met(state: Context, x: str, gate: str, out: str) -> bool:
    """Compute x times its gate; False if it is another product."""
    match state.facts.get(gate):
        case Gate(of, factor) if of == x and state.shapes[gate] == state.shapes[x]:
            hard_swish(state, x, factor, out)
            return True
    return False


def note_raised(state: Context, x: str, by: np.ndarray, out: str) -> None:
    """Note that a value is x + 3."""
    if by.size == 1 and by.flat[0] == _OFFSET and out not in state.facts and _may_tell(state):
        state.facts[out] = Raised(x)


def note_clipped(state: Context, x: str, low: float | None, high: float | None, out: str) -> None:
    """Note that a value is a gate, if x is a raised one and these are the ends."""
    fact = state.facts.get(x)
    if isinstance(fact, Raised) and (low, high) == _ENDS and _may_tell(state):
        state.facts[out] = Gate(fact.of, 1.0)


def note_hard_sigmoid(state: Context, x: str, alpha: float, beta: float, out: str) -> None:
    """Note that clip(alpha x + beta, 0, 1) is a gate."""
    if abs(alpha * _CEILING - 1) < _CLOSE and beta == _OFFSET / _CEILING:
        state.facts[out] = Gate(x, 1 / _CEILING)


def note_scaled(state: Context, x: str, factors: np.ndarray, out: str) -> None:
    """Note that a multiple of a gate is one."""
    fact = state.facts.get(x)
    if isinstance(fact, Gate) and factors.size == 1 and _may_tell(state):
        state.facts[out] = Gate(fact.of, fact.factor * float(factors.flat[0]))


def _may_tell(state: Context) -> bool:
    """May a plan follow from constants that were read?"""
    return not state.splits or state.told
