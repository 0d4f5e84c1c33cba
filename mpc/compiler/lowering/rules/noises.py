"""Noise behind sums over rows: whichever of the kinds that may be has less variance, as the parties will prove it.

Laplace noise follows from D1 and costs no delta to speak of; Gaussian noise from D2, which of d elements grows with
the root of d only, and costs delta and twice its variance, of two halves.  So a few elements have Laplace noise and
long vectors Gaussian.  The table of a Gaussian ends at 1024 units: a sum that needs more is rounded first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from mpc import gaussian as table
from mpc.compiler.graph.attributes import Noise
from mpc.compiler.graph.graph import Node, static
from mpc.compiler.lowering.builder import Lowering
from mpc.compiler.lowering.emitted import Value
from mpc.compiler.lowering.intervals import Interval
from mpc.errors import PlanError
from mpc.gates.draw import Draw
from mpc.gates.linear import Combine
from mpc.plan.plan import Plan
from mpc.privacy import gaussian, law
from mpc.privacy.guarantee import hidden
from mpc.privacy.sensitivity import root
from mpc.privacy.states import Moved
from mpc.wires import Masking, Wire

_MOST_SHIFT = 48


@dataclass(frozen=True)
class _Choice:
    """A kind of noise that fits.

    Args:
        variance: of an element's noise, in units of the sum.
        most: the largest noise, in units of what it is added to.
        shift: bits that are rounded off the sum before.
        gate, settings: what is emitted.
    """

    variance: Fraction
    most: int
    shift: int
    gate: str
    settings: dict[str, object]


def noise(state: Lowering, node: Node) -> Value:
    """Return the sum and its noise, opened."""
    total, wanted = state.values[node.reads[0]], node.of(Noise)
    elements = int(np.prod(static(node.shape), dtype=int))
    try:
        moved = _moved(state, total, wanted.epsilon)
        choice = _chosen(wanted, moved, elements)
    except PlanError as refused:
        raise node.origin.refuse(refused.what, remedy=refused.remedy or "ask for a plain sum over rows") from None
    if choice.shift:
        total = _rounded(state, total, choice.shift)
    shape, unit = static(node.shape), 1 << 2 * choice.shift
    spread = Interval.between(-float(choice.most), float(choice.most), shape)
    variance = np.full(shape, float(choice.variance / unit))
    spread = replace(spread, given_mean=np.zeros(shape), given_variance=variance)
    name, least = f"{len(state.gates)}.{choice.gate}", choice.most.bit_length()
    state.gate(choice.gate, out=name, epsilon=wanted.epsilon, **choice.settings)
    drawn = state.wire(name, node.shape, total.scale, spread, Masking.UNOPENED, least_bits=least)
    noised = state.combine([total, drawn], [1, 1], node.shape, total.scale)
    return _opened(state, noised)


def _opened(state: Lowering, x: Value) -> Value:
    name = f"{len(state.gates)}.open"
    state.gate("open", x=x.wire.name, out=name)
    state.wires[name] = x.wire.model_copy(update={"name": name, "masking": Masking.DRAWN})
    return Value(state.wires[name], x.interval)


def _rounded(state: Lowering, total: Value, shift: int) -> Value:
    """Return a sum in larger units, not opened."""
    if total.wire.masking is Masking.UNOPENED:
        total = _opened(state, total)
    name, scale = f"{len(state.gates)}.truncate", total.scale / (1 << shift)
    state.gate("truncate", x=total.wire.name, out=name, shift=shift)
    return state.wire(name, total.shape, scale, total.interval.truncated(shift), Masking.UNOPENED)


def _chosen(wanted: Noise, moved: Moved, elements: int) -> _Choice:
    """The kind of less variance; of equals the one without delta.

    Raises:
        PlanError: none fits.
    """
    found, refusals = list[_Choice](), list[PlanError]()
    for may, make in ((wanted.laplace, _laplace), (wanted.delta is not None, _gaussian)):
        try:
            found += [make(wanted, moved, elements)] if may else []
        except PlanError as refused:
            refusals.append(refused)
    if not found:
        raise refusals[0]
    return min(found, key=lambda choice: choice.variance)


def _laplace(wanted: Noise, moved: Moved, elements: int) -> _Choice:
    levels = law.thresholds(wanted.epsilon, moved.first)
    return _Choice(law.variance(levels), (1 << len(levels)) - 1, 0, "draw", {"thresholds": levels})


def _gaussian(wanted: Noise, moved: Moved, elements: int) -> _Choice:
    """On the finest units for which the table reaches far enough."""
    many, most = wanted.steps, (wanted.delta or Fraction(0)) * wanted.steps
    for shift in range(_MOST_SHIFT):
        coarse = moved.rounded(shift, elements)
        far = coarse.second if many == 1 else coarse.second * root(many * wanted.part) / wanted.part
        sigma = gaussian.smallest(wanted.epsilon * many / wanted.part, most, far, elements * many)
        if sigma is not None:
            reach = 2 * table.reach(sigma)
            return _Choice(2 * sigma**2 * (1 << 2 * shift), reach, shift, "gaussian", {"sigma": sigma})
        if moved.second < 1 << shift:
            break  # what is left is what rounding itself may change
    raise PlanError(
        f"no Gaussian noise of up to {table.MOST_SIGMA} units hides {elements:,} elements at an epsilon of "
        f"{float(wanted.epsilon):g} and a delta of {float(most):.2g}",
        cause="rounding may change each element by a unit, and so many of them are as much as the noise",
        remedy="ask for fewer elements at once, or with a larger epsilon or delta, or with Laplace noise",
    )


def _moved(state: Lowering, total: Value, epsilon: Fraction) -> Moved:
    """Return what the parties will prove, of the plan so far with some noise on this sum."""
    wire = total.wire
    drawn = Wire(name="noise", shape=wire.shape, scale=wire.scale, bits=1, masking=Masking.UNOPENED)
    noised = drawn.model_copy(update={"name": "noised", "bits": wire.bits})
    draw = Draw(name="draw", out="noise", thresholds=(1,), epsilon=epsilon)
    combine = Combine(name="combine", xs=(wire.name, "noise"), factors=(1, 1), out="noised")
    plan = Plan.model_construct(
        inputs=(), outputs=(), wires=(*state.wires.values(), drawn, noised), gates=(*state.gates, draw, combine)
    )
    return hidden(plan, state.protected)["draw"]
