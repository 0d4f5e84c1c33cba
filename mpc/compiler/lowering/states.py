"""The two ends of state: what a run reads of the one before it, and what it leaves for the next one.

Both ends have one scale and one bound.  The bound is the declared range and a little more, for roundings; what is
left has to stay inside, whatever else the model reads.  So it holds in every run, if it does in the first.
"""

from __future__ import annotations

import numpy as np

from mpc.compiler.graph.graph import Carried, GraphInput, GraphOutput, Origin, static
from mpc.compiler.lowering.builder import Lowering
from mpc.compiler.lowering.emitted import Value
from mpc.compiler.lowering.intervals import ROUNDING, Interval
from mpc.compiler.lowering.scales import even, is_even, log2
from mpc.plan.ends import PlanState
from mpc.wires import Lifetime, Masking

_SLACK = 2.0**-7
"""The part of its range by which state may go beyond it."""
_UNITS = 16.0
"""Units that it may go beyond it besides, as a Clip of whole numbers is proved to."""


def enter(state: Lowering, given: GraphInput) -> None:
    """Append the wire of an input that the run before has written."""
    if given.state is None:
        raise ValueError(f"input {given.name} is no state")
    scale, shape = given.state.scale, static(given.shape)
    low, high = (np.broadcast_to(np.asarray(end, np.float64), shape) * float(scale) for end in given.range)
    beyond = max(np.abs(low).max(), np.abs(high).max()) * _SLACK + _UNITS
    interval = Interval(
        np.floor(low - beyond), np.ceil(high + beyond), np.full(shape, 0.0 if given.whole else ROUNDING)
    )
    state.origin = Origin(given.name, "input")
    value = state.add("input", given.shape, scale, interval, lifetime=Lifetime.STATE)
    state.values[given.name] = value


def carry(state: Lowering, out: GraphOutput) -> None:
    """Have the next run read an output.

    Raises:
        ModelError: it can be larger than what is read, or cannot be brought to its scale.
    """
    given = next(given for given in state.graph.inputs if given.name == out.carried)
    read = state.values[out.carried]
    state.origin = Origin(out.name, "output")
    value = _scaled(state, state.values[out.value], read)
    if value.shape != read.shape:
        value = state.reshape(value, read.shape)
    _require_within(state, value, read, out)
    if state.wires[value.wire.name].masking is Masking.UNOPENED:
        value = state.truncate(value, 0)
    if (value.wire.bits, value.scale) != (read.wire.bits, read.scale):
        least, name = read.wire.bits, value.wire.name
        value = state.add("combine", read.shape, read.scale, value.interval, least, xs=(name,), factors=(1,))
    init = None if given.state is None else _begun(state, given.state, read)
    state.states.append(PlanState(name=given.name, in_=read.wire.name, out=value.wire.name, init=init))


def _begun(state: Lowering, carried: Carried, read: Value) -> str | None:
    """The weight that the first run reads; None for zeros."""
    if carried.start is not None:
        return state.stored(carried.start, read.scale, carried.public, read.wire.bits)
    if not carried.stored_by:
        return None
    name, holders = f"{len(state.gates)}.input", (carried.stored_by,)
    state.gate("input", out=name, lifetime=Lifetime.STORED_WEIGHT)
    state.wires[name] = read.wire.model_copy(update={"name": name, "holders": holders})
    return name


def _scaled(state: Lowering, value: Value, read: Value) -> Value:
    """The value at the scale of what reads it: rounded, or times a public integer, which is exact."""
    if value.scale == read.scale:
        return value
    x, shift = value, log2(even(value.scale) / read.scale)
    if not is_even(value.scale / read.scale):
        x, shift = state.evened(value, shift)
    if shift > 0:
        x = state.truncate(x, shift)
    elif shift < 0:
        x = state.combine([x], [1 << -shift], x.shape, x.scale * (1 << -shift))
    if x.scale != read.scale:
        raise state.origin.refuse(
            f"it has {float(value.scale):.6g} units in 1, which no rounding makes {float(read.scale):.6g}",
            remedy="multiply it by a constant that is no power of two elsewhere in the model",
        )
    return x


def _require_within(state: Lowering, value: Value, read: Value, out: GraphOutput) -> None:
    inside = (value.interval.low >= read.interval.low) & (value.interval.high <= read.interval.high)
    if inside.all():
        return
    (low, high), (least, most) = value.reals, read.reals
    raise state.origin.refuse(
        f"it can be {low:.4g} to {high:.4g}, and the next run reads {least:.4g} to {most:.4g} as {out.carried!r}",
        remedy=f"bound it in the model (Clip), or declare a range of {out.carried!r} that the model keeps "
        f"(--range {out.carried}=LOW:HIGH, in Python ranges={{{out.carried!r}: (low, high)}})",
    )
