"""Sums over rows, and their noise: what a party proves of a plan (`mpc.privacy`) is what decides the gates here.

Elements that are bits of comparisons, or made of such, are summed as they are.  Anything else is bounded first: brought
to units in which the interval that is proved for it fills [0, 2^width - 2], and lifted back by a public constant behind
the bound.  Noise is what the proof asks for.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from mpc.compiler.graph.attributes import Noise, RowsSum
from mpc.compiler.graph.graph import Node, static
from mpc.compiler.lowering.builder import LINEAR_BITS, Lowering, Value
from mpc.compiler.lowering.intervals import Interval
from mpc.errors import PlanError
from mpc.gates.draw import Draw
from mpc.gates.linear import Combine
from mpc.plan.plan import Plan
from mpc.privacy import law
from mpc.privacy.forms import LINEAR
from mpc.privacy.guarantee import sensitivities
from mpc.wires import MAX_BITS, Lifetime, Masking, Wire

_FINE_FACTOR = 256
"""With a factor of so much an interval fills its bits to a part in 256."""
_FIELD_BITS = 61


def rows_sum(state: Lowering, node: Node) -> Value:
    """Return the sum over the rows of what is bounded, whatever the data are."""
    x, taken = state.values[node.reads[0]], node.of(RowsSum)
    if not _is_hard(state, x.wire.name):
        x = bounded(state, x, taken.width)
    bits = (taken.most * ((1 << x.wire.bits) - 1)).bit_length()
    if bits > MAX_BITS:
        raise node.origin.refuse(
            f"the sum of {taken.most:,} rows needs {bits} bits where {MAX_BITS} fit",
            remedy="allow fewer rows, or a smaller width",
        )
    one = x.interval.map(lambda array: array.reshape(static(node.shape)))
    low, high = np.minimum(one.low, one.low * taken.most), np.maximum(one.high, one.high * taken.most)
    interval = Interval(low, high, one.error)
    return state.add("rows", node.shape, x.scale, interval, bits, x=x.wire.name, most=taken.most)


def noise(state: Lowering, node: Node) -> Value:
    """Return the sum and its noise, opened."""
    total, epsilon = state.values[node.reads[0]], node.of(Noise).epsilon
    try:
        sensitivity = _sensitivity(state, total, epsilon)
        levels = law.thresholds(epsilon, sensitivity)
    except PlanError as refused:
        raise node.origin.refuse(refused.what, remedy=refused.remedy or "ask for a plain sum over rows") from None
    most, shape = float((1 << len(levels)) - 1), static(node.shape)
    spread = Interval.between(-most, most, shape)
    variance = np.full(shape, float(law.variance(levels)))
    spread = replace(spread, given_mean=np.zeros(shape), given_variance=variance)
    name = f"{len(state.gates)}.draw"
    state.gate("draw", out=name, thresholds=levels, epsilon=epsilon)
    drawn = state.wire(name, node.shape, total.scale, spread, Masking.UNOPENED, least_bits=len(levels))
    noised = state.combine([total, drawn], [1, 1], node.shape, total.scale)
    name = f"{len(state.gates)}.open"
    state.gate("open", x=noised.wire.name, out=name)
    state.wires[name] = noised.wire.model_copy(update={"name": name, "masking": Masking.DRAWN})
    return Value(state.wires[name], noised.interval)


def _sensitivity(state: Lowering, total: Value, epsilon: Fraction) -> int:
    """Return what the parties will prove, of the plan so far with some noise on this sum."""
    wire = total.wire
    drawn = Wire(name="noise", shape=wire.shape, scale=wire.scale, bits=1, masking=Masking.UNOPENED)
    noised = drawn.model_copy(update={"name": "noised", "bits": wire.bits})
    draw = Draw(name="draw", out="noise", thresholds=(1,), epsilon=epsilon)
    combine = Combine(name="combine", xs=(wire.name, "noise"), factors=(1, 1), out="noised")
    plan = Plan.model_construct(
        inputs=(), outputs=(), wires=(*state.wires.values(), drawn, noised), gates=(*state.gates, draw, combine)
    )
    return sensitivities(plan, state.protected)["draw"]


def _is_hard(state: Lowering, name: str) -> bool:
    """Is it a public linear map of bits of comparisons and bounded values alone, and of weights?"""
    writers = {out: gate for gate in state.gates for out in gate.writes}
    todo, seen = [name], {name}
    while todo:
        gate = writers[todo.pop()]
        if gate.kind in ("bound", "step") or getattr(gate, "lifetime", None) is Lifetime.SESSION:
            continue
        if gate.kind not in LINEAR:
            return False
        todo += [each for each in gate.reads if each not in seen]
        seen.update(gate.reads)
    return True


def bounded(state: Lowering, x: Value, width: int, masking: Masking = Masking.UNOPENED) -> Value:
    """Return x in units in which its interval fills so many bits, held to them."""
    key = ("bounded", x.wire.name, width, masking)
    if key in state.memo:
        return state.memo[key]
    low, high = (end * float(x.scale) for end in x.coarse)
    least = int(np.floor(low))
    span, top = max(1, int(np.ceil(high)) - least), (1 << width) - 2
    shift = 0
    while (factor := (top << shift) // span) < _FINE_FACTOR and width + shift < _FIELD_BITS:
        if factor and x.wire.bits + ((top << shift + 1) // span).bit_length() > LINEAR_BITS:
            break
        shift += 1
    lift = (least * factor) >> shift
    raised = x
    if factor != 1 or lift:
        raised = state.combine([x], [factor], x.shape, x.scale * factor, -(lift << shift))
    interval = raised.interval.truncated(shift).within(0, top + 1)
    name = f"{len(state.gates)}.bound"
    state.gate("bound", x=raised.wire.name, out=name, width=width, shift=shift)
    scale = raised.scale / (1 << shift)
    found = state.wire(name, x.shape, scale, interval, masking, least_bits=width)
    if lift:
        found = state.combine([found], [1], x.shape, scale, lift)
    state.memo[key] = found
    return found
