"""The ends of a plan: inputs as wires of their own scale, and outputs with who receives them."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from mpc.compiler.graph.attributes import Columns, Weighted
from mpc.compiler.graph.graph import MOVES, GraphInput, GraphOutput, Node, Origin, Range, static
from mpc.compiler.lowering import states
from mpc.compiler.lowering.builder import Lowering
from mpc.compiler.lowering.intervals import ROUNDING, Interval
from mpc.compiler.lowering.known import product_of
from mpc.compiler.lowering.scales import log2
from mpc.errors import ModelError
from mpc.fixedpoint import beyond
from mpc.plan.ends import Missing, PlanInput, PlanOutput
from mpc.wires import Lifetime

INPUT_FRACTION = 28
_UNIT_FRACTION = 34
"""Fractional bits of an input whose columns have units, in parts of what they can be."""
_COMPARED_FRACTION = 44
_LONGEST_COMPARED = 56
_FEWEST_STEPS = 256
"""Steps of a column's range, which is no constant, that are too few to tell its numbers apart."""
INDISTINCT = "missing"
_APART = 2.0
"""Units between what stands for missing numbers and the thresholds beside it."""
_MARKED_BITS = 2
"""By which a comparison reaches further where numbers may be missing."""
_WHOLE_BITS = 54
"""Bits that hold columns of very different size in one unit."""
_LEAST_UNIT_FRACTION = 16
_LONGEST_INPUT = 44
_PRODUCT_BITS = 52
_FINEST_PRODUCT = 48


def enter_all(state: Lowering) -> tuple[PlanInput, ...]:
    """Enter the inputs, each with the marks of its missing numbers; return those that somebody enters."""
    for given in state.graph.inputs:
        if given.state is not None:
            states.enter(state, given)
    entered = {given.name: enter(state, given) for given in state.graph.inputs if given.state is None}
    missing = {
        given.marks: Missing(wire=entered[given.name].wire, columns=given.columns)
        for given in state.graph.inputs
        if given.marks
    } | {
        given.name: Missing(beyond=given.beyond, columns=given.columns) for given in state.graph.inputs if given.beyond
    }
    return tuple(
        entered[given.name].model_copy(update={"missing": missing.get(given.name)})
        for given in state.graph.inputs
        if given.name in entered and not given.marks
    )


def enter(state: Lowering, given: GraphInput) -> PlanInput:
    """Return the wire of an input, in its units; integers are exact."""
    shape = static(given.shape)
    low, high = (np.broadcast_to(end, shape) for end in _entered(given))
    scale = given.stored or (Fraction(1) if given.whole else _input_scale(state, given, low, high))
    rounding = np.where(given.exact, 0.0, 0.0 if scale == 1 else ROUNDING)
    _require_apart(given, scale)
    _note_unresolved(state, given, scale)
    interval = Interval(
        np.rint(low * float(scale)), np.rint(high * float(scale)), np.array(np.broadcast_to(rounding, shape))
    )
    state.origin = Origin(given.name, "input")
    holders = state.roles.holders(given.of)
    lifetime = Lifetime.RUN if given.stored is None else Lifetime.STORED
    value = state.add("input", given.shape, scale, interval, holders=holders, lifetime=lifetime)
    state.values[given.name] = value
    units = {name: _as_fractions(end) for name, end in (("offset", given.offset), ("factor", given.factor))}
    entered = {"wire": value.wire.name, "dtype": given.dtype, "places": given.places or None}
    return PlanInput(name=given.name, **entered, **fractions(given.range), **units)


def _input_scale(state: Lowering, given: GraphInput, low: np.ndarray, high: np.ndarray) -> Fraction:
    size = np.maximum(np.abs(low), np.abs(high))
    most = _exponent(size)
    if compared := _compared_with(state, given.name):
        beside = {other.name: other for other in state.graph.inputs if other.name in compared}
        marked = any(other.marks in compared for other in state.graph.inputs)
        return _compared_scale(max(_exponent(np.abs(_entered(other))) for other in beside.values()), marked)
    finest = _UNIT_FRACTION if given.encoded else INPUT_FRACTION
    fraction = min(finest, _balanced_fraction(state, given.name, size), _whole_fraction(state, given))
    return Fraction(2) ** min(fraction, _LONGEST_INPUT - most)


def _exponent(size: np.ndarray) -> int:
    return math.frexp(float(size.max()))[1]


def _compared_scale(most: int, marked: bool) -> Fraction:
    """The scale of inputs that are smaller than 2^most."""
    return Fraction(2) ** min(_COMPARED_FRACTION, _LONGEST_COMPARED - (_MARKED_BITS if marked else 0) - most)


def _compared_with(state: Lowering, name: str) -> set[str]:
    """Find the inputs that comparisons read beside an input, and itself; none if anything else reads it.

    Moves, and joining with inputs or with marks of missing numbers, are on the way.
    """
    graph = state.graph
    inputs = {given.name: given.marks for given in graph.inputs}
    writers = graph.writers
    found, waiting, seen = {name}, [name], {name}
    while waiting:
        value = waiting.pop()
        readers = list(graph.readers(value))
        if graph.is_output(value) or not readers:
            return set()
        for reader in readers:
            if reader.op in MOVES:
                roots = _roots(writers, reader)
                if not roots <= inputs.keys():
                    return set()
                found |= {root for root in roots if not inputs[root]}
                waiting += {reader.writes} - seen
                seen.add(reader.writes)
            elif not reader.only_signs:
                return set()
    return found


def _roots(writers: dict[str, Node], node: Node) -> set[str]:
    """The values that only moves are between and what a node writes."""
    found, waiting, seen = set[str](), [node], {node.writes}
    while waiting:
        for name in waiting.pop().reads:
            before = writers.get(name)
            if before is None or before.op not in MOVES:
                found.add(name)
            elif name not in seen:
                seen.add(name)
                waiting.append(before)
    return found


def _require_apart(given: GraphInput, scale: Fraction) -> None:
    """Check that what stands for missing numbers is another integer than the end of the range and than what is between.

    Raises:
        ModelError: it is not; its attribute is `INDISTINCT`, its node the input, which needs marks.
    """
    if not given.beyond:
        return
    stand_in, between = beyond(*given.range, given.dtype, given.beyond)
    apart = np.broadcast_to(np.abs(stand_in - between) * given.factor, static(given.shape)[-1:])
    if (apart[[*given.columns]] * float(scale) < _APART).any():
        raise ModelError(
            f"input {given.name!r} has too narrow a range for a number beyond it that stands for missing ones",
            node=given.name,
            attribute=INDISTINCT,
            remedy=f"declare a wider one: --range {given.name}=LOW:HIGH, in Python "
            f"ranges={{{given.name!r}: (low, high)}}",
        )


def _note_unresolved(state: Lowering, given: GraphInput, scale: Fraction) -> None:
    """Tell of a column of reals whose whole range is but a few steps of fixed point."""
    if given.whole or given.marks or given.stored is not None:
        return
    low, high = (np.asarray(end, dtype=np.float64) for end in given.range)
    widths = np.atleast_1d((high - low) * given.factor * float(scale))
    few = np.flatnonzero((widths > 0) & (widths < _FEWEST_STEPS))
    if few.size:
        state.notes.add(
            f"the range of input {given.name!r} is so narrow in column {few[0]} (the first is column 0) that fixed "
            f"point has {widths[few[0]]:.1g} steps in it: what depends on it is hardly right; multiply it by a "
            "constant before it enters, and train or convert the model with that"
        )


def _whole_fraction(state: Lowering, given: GraphInput) -> int:
    """Fractional bits that leave an input room to be read in the model's own units, if somebody does that."""
    least = 0
    for node in state.graph.readers(given.name):
        if isinstance(taken := node.attributes, Columns):
            size = np.max(np.abs(taken.bias)) + np.max(taken.weight)
            spread = math.frexp(float(size))[1] - log2(Fraction(float(taken.weight.min())))
            least = max(least, spread)
    return max(_LEAST_UNIT_FRACTION, _WHOLE_BITS - least) if least else _LONGEST_INPUT


def _balanced_fraction(state: Lowering, name: str, size: np.ndarray) -> int:
    """Fractional bits of an input that leave its first layer's weights as many as do them equally good.

    With T bits for both, the roundings |w| 2^-f of the inputs and |x| 2^-(T-f) of the weights are equal.
    """
    reader = state.graph.sole_reader(name)
    if reader is None or not isinstance(reader.attributes, Weighted):
        return INPUT_FRACTION
    product, weight = product_of(reader), np.abs(reader.attributes.weight)
    if reader.op == "scale" and weight.size == 1:
        return INPUT_FRACTION
    ones = np.ones_like(weight)
    known = max(map(abs, reader.attributes.known or (math.inf,)))
    reach = min(float(product(size, weight).max()), known)
    gain = math.sqrt(float(product(np.ones_like(size), np.square(weight)).max()))
    spread = math.sqrt(float(product(np.square(size), ones).max()))
    room = min(_PRODUCT_BITS - math.log2(max(1.0, reach)), _FINEST_PRODUCT)
    if spread == 0:  # zeros, of which no digit is lost
        return INPUT_FRACTION
    return max(4, round((room + math.log2(max(gain / spread, 2.0**-40))) / 2))


def is_told(state: Lowering, out: GraphOutput) -> bool:
    """Does anybody receive an output, or keep it?  What the next run reads is for those alone that are named for it."""
    return not out.carried or bool(state.roles.readers.get(out.name)) or out.name in state.roles.keeps


def leave(state: Lowering, out: GraphOutput) -> tuple[PlanOutput, float]:
    """Reveal an output; tell roughly what it is off by, of labels and whole numbers the part that differs."""
    value, holders = state.values[out.value], state.roles.recipients_of(out.name)
    wire = state.wires[value.wire.name]
    writer = next(gate for gate in state.gates if wire.name in gate.writes)
    keep = out.name in state.roles.keeps
    shared = wire.held and (keep or wire.kept or wire.holders != holders)
    if writer.is_linear(state.wires) or writer.kind == "input" or shared:
        state.origin = Origin(out.name, "output")
        wire = state.truncate(value, 0).wire
    state.wires[wire.name] = wire.model_copy(update={"holders": holders, "kept": keep})
    error = float(np.minimum(value.interval.error, value.interval.typical).max()) / float(value.scale)
    if value.scale == 1 and not out.dtype.startswith("float"):
        error = min(1.0, float(value.interval.worst_error) ** 2)
    reading = {"shape": out.shape, "dtype": out.dtype, "labels": out.labels, "keys": out.keys, "keep": keep}
    return PlanOutput(name=out.name, wire=wire.name, **reading), error


def fractions(declared: Range) -> dict[str, tuple[Fraction, ...]]:
    """Return a declared range as a plan has it."""
    return {side: _as_fractions(end) for side, end in zip(("low", "high"), declared, strict=True)}


def _as_fractions(values: np.ndarray | float | tuple[float, ...]) -> tuple[Fraction, ...]:
    return tuple(map(Fraction, np.atleast_1d(values).tolist()))


def _entered(given: GraphInput) -> tuple[np.ndarray, np.ndarray]:
    """The ends of what enters in its units; those of a narrow type round, perhaps outwards."""
    ends = []
    for end, outer in zip(given.span, (np.minimum, np.maximum), strict=True):
        exact = np.asarray(end, dtype=np.float64)
        typed = exact.astype(given.dtype).astype(np.float64) if given.dtype.startswith("float") else exact
        ends.append((outer(exact, typed) - given.offset) * given.factor)
    return ends[0], ends[1]
