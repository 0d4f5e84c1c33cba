"""Is a plan well-formed?  Asked by its compiler, and again by every party and the provider."""

from __future__ import annotations

from itertools import pairwise

from mpc import text
from mpc.errors import PlanError
from mpc.gates.base import COMPILE_ANEW
from mpc.gates.input import Input
from mpc.gates.linear import MAX_FACTOR, Combine
from mpc.plan.ends import PlanInput, PlanOutput
from mpc.plan.masking import shared_masks
from mpc.plan.plan import MAX_GATES, Plan
from mpc.plan.program import Program
from mpc.wires import BATCH, Masking, Wire

MAX_ELEMENTS = 1 << 28
MAX_SCALE_BITS = 256
"""Of a scale's numerator and denominator: both are read as floating-point numbers too."""
MAX_READS = 1 << 16
"""Wires that all gates of a plan read, each counted as often as it is named: three for each of the most gates.  At 128
tokens BERT-base reads 1,853 and GPT-2 small 2,112; at 224 x 224 ResNet-50 reads 255."""


def verify(plan: Plan) -> None:
    """Check that names are unique, every wire is written once before it is read, every gate's own check holds,
    masks are known where a gate needs them, and only outputs have recipients.

    Bounds are not proved again: no one but the model's owner could, and a wrong one makes an answer wrong,
    never visible.

    Raises:
        PlanError: naming the gate or wire.
    """
    require_few(len(plan.gates), sum(len(gate.reads) for gate in plan.gates))
    if len(plan.wire) != len(plan.wires):
        raise PlanError("two wires of the plan have one name", remedy=COMPILE_ANEW)
    if len({gate.name for gate in plan.gates}) != len(plan.gates):
        raise PlanError("two gates of the plan have one name", remedy=COMPILE_ANEW)
    for wire in plan.wires:
        if wire.scale <= 0:
            raise PlanError("a wire's scale is not positive", remedy=COMPILE_ANEW)
        if max(wire.scale.numerator.bit_length(), wire.scale.denominator.bit_length()) > MAX_SCALE_BITS:
            raise PlanError(
                f"the scale of the wire {wire.name!r} has more than {MAX_SCALE_BITS} bits", remedy=COMPILE_ANEW
            )
    for ends in (plan.inputs, plan.outputs):
        if len({end.name for end in ends}) != len(ends):
            raise PlanError("two inputs or two outputs of the plan have one name", remedy=COMPILE_ANEW)
    _check_names(plan)
    for wire in plan.wires:
        if _count(wire.shape)[0] > MAX_ELEMENTS:
            raise PlanError(
                f"the wire {wire.name!r} has more than 2^28 elements a row",
                remedy=f"compute it in parts, or for fewer channels or features: {MAX_ELEMENTS:,} are possible",
            )
    known = _check_flow(plan)
    _check_ends(plan)
    _check_states(plan, known)
    _check_rows(plan)
    _check_late(plan)
    if plan.program is not None:
        _check_program(plan, plan.program)


def require_few(gates: int, reads: int) -> None:
    """Require that a plan has no more gates, and that these read no more wires, than any may; `PlanError`."""
    for what, number, most in (("gates", gates, MAX_GATES), ("reads of wires by its gates", reads, MAX_READS)):
        if number > most:
            raise PlanError(
                f"the plan has {number:,} {what}, where {most:,} are possible",
                remedy="compute it in parts, or join fewer values at once",
            )


def _check_names(plan: Plan) -> None:
    """Hold the names that people are shown before they agree to what can be read as what it is."""
    names = [("the input", given.name) for given in plan.inputs]
    names += [("the output", out.name) for out in plan.outputs]
    names += [("the state", state.name) for state in plan.states]
    names += [("the wire", wire.name) for wire in plan.wires]
    names += [("the gate", gate.name) for gate in plan.gates]
    for what, name in names:
        text.check_name(name, what)
    ends = [*(given.name for given in plan.inputs), *(out.name for out in plan.outputs)]
    text.check_distinct(ends, "the input or output")
    for out in plan.outputs:
        for label in (*(out.labels or ()), *(out.keys or ())):
            fault = text.label_fault(label) if isinstance(label, str) else None
            if fault is not None:
                raise PlanError(
                    f"the label {text.shown(str(label)[:80])!r} of output {out.name!r} is refused",
                    cause=fault,
                    remedy="rename that class before the model is trained or converted",
                )
    for holder in {holder for wire in plan.wires for holder in wire.holders}:
        text.check_process(holder)


def _check_flow(plan: Plan) -> dict[str, bool]:
    """Check each gate where it stands; return for each wire whether the parties hold shares of it, or of its mask."""
    stored = {gate.out for gate in plan.weights}
    written: dict[str, bool] = {}
    for gate in plan.gates:
        reads = dict.fromkeys(gate.reads)  # each once, however often it is named
        for name in (*reads, *gate.awaits, *gate.writes):
            if name not in plan.wire:
                raise PlanError(
                    f"gate {gate.name} names the wire {name!r}, which the plan does not define", remedy=COMPILE_ANEW
                )
        for name in (*reads, *gate.awaits):
            if name not in written:
                raise PlanError(f"gate {gate.name} reads the wire {name!r} before it is written", remedy=COMPILE_ANEW)
        for name in reads:
            if (name in gate.weights) != (name in stored):
                raise PlanError(
                    f"gate {gate.name}: {name!r} is a weight where data belongs, or the reverse", remedy=COMPILE_ANEW
                )
        for name in reads:
            if (name in gate.chooses_by) != (plan.wire[name].masking is Masking.FLIPPED):
                raise PlanError(
                    f"gate {gate.name}: {name!r} is an opened bit where a number belongs, or the reverse",
                    remedy=COMPILE_ANEW,
                )
        gate.check(plan.wire)
        known = all(written[name] for name in reads)
        unopened = any(plan.wire[name].masking is Masking.UNOPENED for name in reads)
        if unopened and not gate.takes_shares(plan.wire):
            raise PlanError(f"gate {gate.name} reads a wire that is not opened", remedy=COMPILE_ANEW)
        if gate.needs_masks(plan.wire) and not known:
            raise PlanError(f"gate {gate.name} multiplies a wire whose mask is derived", remedy=COMPILE_ANEW)
        if unopened and not known:
            raise PlanError(
                f"gate {gate.name} joins a wire that is not opened with one whose mask is derived", remedy=COMPILE_ANEW
            )
        for name in gate.writes:
            if name in written:
                raise PlanError(f"the wire {name!r} is written twice", remedy=COMPILE_ANEW)
            masking = plan.wire[name].masking
            written[name] = known if masking is Masking.INHERITED else masking is not Masking.DERIVED
    if list(written) != [wire.name for wire in plan.wires]:
        raise PlanError("the plan's wires are not in the order in which its gates write them", remedy=COMPILE_ANEW)
    return written


def _check_ends(plan: Plan) -> None:
    inputs = [gate for gate in plan.online if isinstance(gate, Input)]
    entered = {gate.out for gate in inputs if not gate.is_state}
    stored = {gate.out for gate in (*plan.weights, *inputs) if gate.is_weight or gate.is_state}
    declared = [wire for given in plan.inputs for wire in given.wires]
    if sorted(declared) != sorted(entered):
        raise PlanError("the plan's inputs are not the wires that its input gates write", remedy=COMPILE_ANEW)
    for given in plan.inputs:
        columns, numbers = {len(given.low), len(given.high)}, given.of_numbers(plan.wire[given.wire].shape)
        if len(columns) != 1 or not columns <= {1, *numbers[-1:]}:
            raise PlanError(f"input {given.name!r}: the declared range does not fit its columns", remedy=COMPILE_ANEW)
        if any(low > high for low, high in zip(given.low, given.high, strict=True)):
            raise PlanError(f"input {given.name!r}: the declared range is empty", remedy=COMPILE_ANEW)
        _check_units(plan, given)
        _check_missing(plan, given)
        _check_places(plan, given)
        _check_band(plan, given)
    if not plan.outputs and not plan.states:
        raise PlanError("the plan has neither outputs nor states: nothing comes of it", remedy=COMPILE_ANEW)
    released = {out.wire for out in plan.outputs}
    for out in plan.outputs:
        wire = plan.wire.get(out.wire)
        if wire is None or not wire.held or wire.masking is not Masking.DRAWN:
            raise PlanError(f"output {out.name!r} has no recipient who could unmask it", remedy=COMPILE_ANEW)
        if out.keep != wire.kept:
            raise PlanError(f"output {out.name!r} is kept, and its wire is not, or the reverse", remedy=COMPILE_ANEW)
        if out.keep and not _keeps_rows(out, wire):
            raise PlanError(f"output {out.name!r} is kept: its rows are its first axis alone", remedy=COMPILE_ANEW)
        if out.wire in entered | stored:
            raise PlanError(f"output {out.name!r} is an input, unchanged: nothing is computed", remedy=COMPILE_ANEW)
        if _count(out.shape) != _count(wire.shape):
            raise PlanError(f"output {out.name!r} has another size than its wire", remedy=COMPILE_ANEW)
    for wire in plan.wires:
        if wire.kept and [out.wire for out in plan.outputs].count(wire.name) != 1:
            raise PlanError(f"the wire {wire.name!r} is kept, and not the wire of one output", remedy=COMPILE_ANEW)
        if wire.holders and wire.name not in released | entered | stored:
            raise PlanError(f"the wire {wire.name!r} has holders but is neither input nor output", remedy=COMPILE_ANEW)


def _keeps_rows(out: PlanOutput, wire: Wire) -> bool:
    """Do a kept output and its wire have rows in the same place, as an object has them, or neither of them any?"""
    return (
        all(BATCH not in shape[1:] for shape in (out.shape, wire.shape))
        and out.shape[:1] == wire.shape[:1]
        or (BATCH not in (*out.shape, *wire.shape))
    )


def _check_states(plan: Plan, known: dict[str, bool]) -> None:
    """Check that each state is read by an input of its own, and written by what can be read there."""
    read = [gate.out for gate in plan.online if isinstance(gate, Input) and gate.is_state]
    if sorted(state.in_ for state in plan.states) != sorted(read):
        raise PlanError("the plan's states are not the wires that its inputs of state write", remedy=COMPILE_ANEW)
    names = [*(given.name for given in plan.inputs), *(state.name for state in plan.states)]
    if len({*names}) != len(names):
        raise PlanError("two states of the plan, or a state and an input, have one name", remedy=COMPILE_ANEW)
    text.check_distinct(names, "the state")
    weights = {gate.out for gate in plan.weights}
    for state in plan.states:
        if state.out not in known or state.out in weights:
            raise PlanError(f"state {state.name!r}: the next run reads what no run writes", remedy=COMPILE_ANEW)
        if not known[state.out] or plan.wire[state.out].masking in (Masking.UNOPENED, Masking.FLIPPED):
            raise PlanError(
                f"state {state.name!r}: the next run reads a wire that is not opened, or whose mask is derived, so no "
                "party would hold a share of it",
                remedy=COMPILE_ANEW,
            )
        if state.init is not None and state.init not in weights:
            raise PlanError(f"state {state.name!r} begins with what is no weight", remedy=COMPILE_ANEW)
        for name in (state.out, state.init or state.out):
            if _form(plan.wire[name]) != _form(plan.wire[state.in_]):
                raise PlanError(
                    f"state {state.name!r}: {name!r} has another shape, scale or bound than what reads it",
                    remedy=COMPILE_ANEW,
                )


def _check_rows(plan: Plan) -> None:
    """Check that stored data have as many rows as a run has, or as the program says."""
    rows = BATCH if plan.program is None or plan.program.rows is None else plan.program.rows
    for gate in plan.stored:
        if not gate.is_weight and plan.wire[gate.out].shape[0] != rows:
            raise PlanError(
                f"gate {gate.name} reads {plan.wire[gate.out].shape[0]} rows of stored data, where a run has {rows}",
                cause="the rows of stored data are its first axis; their number is open, or a program's",
                remedy=COMPILE_ANEW,
            )


def _check_late(plan: Plan) -> None:
    """Check that nobody needs a share of the mask of what is read late: it would be held from the beginning."""
    late = {name for gate in plan.online if gate.awaits for name in gate.writes}
    used = sorted(late & shared_masks(plan.online, plan.wire, plan.carried)) if late else []
    if used:
        raise PlanError(
            f"the wire {used[0]!r} is read late, and its mask is used",
            cause="what is read late is moved, added up and compared, and not multiplied or handed on",
            remedy=COMPILE_ANEW,
        )


def _check_program(plan: Plan, program: Program) -> None:
    if not plan.states:
        raise PlanError("the plan has a program and no states: its runs are all alike", remedy=COMPILE_ANEW)
    if (program.rows is None) != (program.seed is None):
        raise PlanError("a program that reads rows shuffles them by a seed, and no other has one", remedy=COMPILE_ANEW)
    if program.rows is not None and all(gate.is_weight for gate in plan.stored):
        raise PlanError("the program says which rows a run reads, and the plan reads none", remedy=COMPILE_ANEW)
    if plan.kept and program.keeps_in(tuple(out.name for out in plan.kept)) is None:
        raise PlanError(
            "what a plan with a program keeps is told in one run, once: then it is whole", remedy=COMPILE_ANEW
        )
    if any(BATCH in plan.wire[out.wire].shape for out in plan.kept):
        raise PlanError("what a plan with a program keeps has no rows", remedy=COMPILE_ANEW)
    told = [each.output for each in program.told]
    if len({*told}) != len(told) or not {*told} <= {out.name for out in plan.outputs}:
        raise PlanError("the program tells what is no output, or one in two ways", remedy=COMPILE_ANEW)
    if any(each.last is not None and each.last < each.first for each in program.told):
        raise PlanError("the program tells an output in no run: its last run is before its first", remedy=COMPILE_ANEW)
    if (program.after is None) != (program.previous is None):
        raise PlanError("a program that goes on behind other steps names the plan of these", remedy=COMPILE_ANEW)
    stored = {gate.out for gate in plan.stored if gate.is_weight}
    if program.previous is not None and any(state.init not in stored for state in plan.states):
        raise PlanError("a program that goes on begins with states that were kept", remedy=COMPILE_ANEW)
    firsts = [rate.first for rate in program.rates]
    if firsts and (firsts[0] != 1 or any(one >= two for one, two in pairwise(firsts))):
        raise PlanError("the program's rates do not begin with run 1, each after the one before", remedy=COMPILE_ANEW)
    if bool(program.rates) != bool(program.paced) or len({*program.paced}) != len(program.paced):
        raise PlanError("the program has rates for no sum, or for one twice", remedy=COMPILE_ANEW)
    gates = {gate.name: gate for gate in plan.gates}
    for paced in program.paced:
        gate = gates.get(paced.gate)
        if not isinstance(gate, Combine) or paced.operand >= len(gate.factors):
            raise PlanError(f"the program has a rate for {paced.gate!r}, which is no such sum", remedy=COMPILE_ANEW)
        sizes = [abs(rate.k * gate.factors[paced.operand]) for rate in program.rates]
        if not all(0 < size < MAX_FACTOR for size in sizes):
            raise PlanError(f"a rate makes a factor of {paced.gate!r} zero, or too large", remedy=COMPILE_ANEW)


def _form(wire: Wire) -> tuple[object, ...]:
    return wire.shape, wire.scale, wire.bits


def _check_units(plan: Plan, given: PlanInput) -> None:
    columns = plan.wire[given.wire].shape[-1:]
    for values in (given.offset, given.factor):
        if len(values) != 1 and (len(values),) != columns:
            raise PlanError(f"input {given.name!r}: its units do not fit its columns", remedy=COMPILE_ANEW)
    if any(factor <= 0 for factor in given.factor):
        raise PlanError(f"input {given.name!r}: a unit is not positive", remedy=COMPILE_ANEW)


def _check_missing(plan: Plan, given: PlanInput) -> None:
    if given.missing is None:
        return
    if (given.missing.wire is None) == (given.missing.beyond is None):
        raise PlanError(f"input {given.name!r}: missing numbers enter in one way", remedy=COMPILE_ANEW)
    wire, columns = plan.wire[given.wire], given.missing.columns
    marks = wire if given.missing.wire is None else plan.wire[given.missing.wire]
    fits = marks.shape == wire.shape and marks.holders == wire.holders and (marks is wire or marks.scale == 1)
    if not fits or not wire.shape:
        raise PlanError(f"input {given.name!r}: the marks of missing numbers do not fit it", remedy=COMPILE_ANEW)
    size = wire.shape[-1]
    if list(columns) != sorted({*columns}) or columns[0] < 0 or not isinstance(size, int) or columns[-1] >= size:
        raise PlanError(f"input {given.name!r}: it has no such columns as may miss numbers", remedy=COMPILE_ANEW)
    if not given.dtype.startswith("float"):
        raise PlanError(f"input {given.name!r}: a number of type {given.dtype} cannot be missing", remedy=COMPILE_ANEW)


def _check_places(plan: Plan, given: PlanInput) -> None:
    """Places are whole numbers, which their owner enters for the run, as zeros and a one on the wire's last axis."""
    if given.places is None:
        return
    wire, plain = plan.wire[given.wire], not any(given.offset) and all(each == 1 for each in given.factor)
    fits = wire.shape[-1:] == (given.places,) and wire.scale == 1 and plain
    if not fits or given.missing is not None or given.dtype.startswith(("float", "string")):
        raise PlanError(f"input {given.name!r}: places do not enter in its form", remedy=COMPILE_ANEW)
    if min(given.low) < -given.places or max(given.high) >= given.places:
        raise PlanError(f"input {given.name!r}: its range has places that are not there", remedy=COMPILE_ANEW)
    if given not in plan.entered_inputs:
        raise PlanError(f"input {given.name!r}: places are entered, and never lie at the parties", remedy=COMPILE_ANEW)


def _check_band(plan: Plan, given: PlanInput) -> None:
    """A band is of rows of plain numbers that lie at the parties, whose elements are counted."""
    wire = plan.wire[given.wire]
    if given.first is None:
        return
    rows = len(wire.shape) == 2 and wire.shape[0] == BATCH
    if given.missing is not None or given in plan.entered_inputs or not rows:
        raise PlanError(f"input {given.name!r}: it is no band of rows at the parties", remedy=COMPILE_ANEW)


def _count(shape: tuple[object, ...]) -> tuple[int, int]:
    total = 1
    for size in shape:
        total *= size if isinstance(size, int) else 1
    return total, sum(size == BATCH for size in shape)
