"""The plan: an ordered list of gates over named wires, and the one encoding that is hashed.

A plan is public.  It holds shapes, scales, bounds, who enters what and who receives what; no
weight and no datum, but which weights all parties know.  Its canonical bytes are JSON with sorted
keys and no spaces; `parse_plan` is the only way in from outside.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from mpc import encoding
from mpc.entry import EntryId
from mpc.errors import PlanError
from mpc.gates.base import Gate, to_dict
from mpc.gates.input import Input
from mpc.gates.linear import Combine
from mpc.plan.ends import PlanInput, PlanOutput, PlanState
from mpc.plan.program import Program
from mpc.wires import MAX_BATCH, Frozen, Lifetime, PlanWires, Wire

VERSION: Literal[2] = 2
FIELD: Literal["2^61-1"] = "2^61-1"
Kept = TypeVar("Kept")
Security = Literal["passive", "active"]
"""Against what parties do: those that follow the plan and look at what they hold, or any that deviate."""
MAX_GATES = 20_000
MOST_RUNS_KEPT = 4
"""Plans of single runs that the plan of a program keeps: those in flight, which tell something or nothing."""
MOST_BOUND = 3
"""Plans bound to a batch that a plan keeps; runs of a session have one or two batches."""
_MOST_REMEMBERED = 8
"""Other things that a plan remembers of itself; each is small beside a plan."""


class Plan(Frozen):
    """A plan, as the module says.

    Args:
        wires: in the order in which `gates` write them.
        security: "active" if each run is checked before anything of it is revealed; parties, provider and clients then
            do so, or do nothing.
        segment_bytes: of correlations that are dealt, prepared and held as one (`plan.segments`); None for the usual.
    """

    version: Literal[2] = VERSION
    field: Literal["2^61-1"] = FIELD
    inputs: Annotated[tuple[PlanInput, ...], Field(max_length=256)]
    outputs: Annotated[tuple[PlanOutput, ...], Field(max_length=256)]
    wires: Annotated[tuple[Wire, ...], Field(max_length=20_000)]
    gates: Annotated[tuple[Gate, ...], Field(max_length=MAX_GATES)]
    states: Annotated[tuple[PlanState, ...], Field(max_length=1024)] = ()
    program: Program | None = None
    security: Security = "passive"
    segment_bytes: Annotated[int, Field(gt=0)] | None = None

    @property
    def is_checked(self) -> bool:
        """Is each run checked before anything of it is revealed?"""
        return self.security == "active"

    @cached_property
    def wire(self) -> dict[str, Wire]:
        """Wires by name."""
        return PlanWires(self.wires)

    @cached_property
    def canonical(self) -> bytes:
        """The bytes that parties agree on."""
        content = self.model_dump(mode="json", exclude={"gates", "states", "program", "security", "segment_bytes"})
        for entry in content["inputs"]:
            for key in ("missing", "places", "first"):  # a plan without such inputs has the bytes that it had before
                if entry[key] is None:
                    del entry[key]
        for entries, key in ((content["outputs"], "keep"), (content["wires"], "kept")):
            for entry in entries:
                if not entry[key]:  # a plan that keeps nothing has the bytes that it had before anything could be kept
                    del entry[key]
        content["gates"] = [to_dict(gate) for gate in self.gates]
        if self.states:
            content["states"] = [
                state.model_dump(mode="json", by_alias=True, exclude_none=True) for state in self.states
            ]
        if self.program is not None:
            content["program"] = self.program.model_dump(mode="json", exclude_none=True)
        if self.is_checked:
            content["security"] = self.security
        if self.segment_bytes is not None:
            content["segment_bytes"] = self.segment_bytes
        return _dump(content)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over the canonical bytes, 32 bytes."""
        return digest_of(self.canonical)

    @cached_property
    def weights(self) -> tuple[Input, ...]:
        """The inputs of which all runs of a session read one value."""
        return tuple(gate for gate in self.gates if isinstance(gate, Input) and gate.is_weight)

    @cached_property
    def stored(self) -> tuple[Input, ...]:
        """The inputs that lie at the parties before a session begins: data with rows, and weights."""
        return tuple(gate for gate in self.gates if isinstance(gate, Input) and gate.is_stored)

    @cached_property
    def bands(self) -> dict[str, int]:
        """The first place of each wire that has some neighbouring elements of stored rows, and not all of them."""
        return {given.wire: given.first for given in self.inputs if given.first is not None}

    @cached_property
    def public_weights(self) -> tuple[Input, ...]:
        """Those of them that all parties and the provider know: what is dealt hangs on them.

        A public weight that only begins a state is none: no mask follows from it, and the provider is not told.
        """
        read = {name for gate in self.gates for name in gate.reads}
        return tuple(gate for gate in self.weights if gate.is_public(self.wire) and gate.out in read)

    @cached_property
    def online(self) -> tuple[Gate, ...]:
        """The gates of a run: all but the weights."""
        return tuple(g for g in self.gates if not (isinstance(g, Input) and g.is_weight))

    def dealt(self, entry: EntryId) -> tuple[Gate, ...]:
        """Return the gates that the bundle of an entry is dealt for; for stored weights nothing but tags are."""
        if entry.is_weights:
            return self.weights if self.is_checked else self.entered_once
        return self.online

    @cached_property
    def entered(self) -> tuple[Input, ...]:
        """The inputs that an owner enters for every run."""
        return tuple(gate for gate in self.online if isinstance(gate, Input) and gate.is_entered)

    @cached_property
    def entered_inputs(self) -> tuple[PlanInput, ...]:
        """The model's inputs that an owner enters for every run."""
        stored = {gate.out for gate in self.stored}
        return tuple(given for given in self.inputs if given.wire not in stored)

    @cached_property
    def entered_once(self) -> tuple[Input, ...]:
        """The weights that an owner enters when a session is open."""
        return tuple(gate for gate in self.weights if not gate.is_stored)

    def entered_in(self, entry: EntryId) -> tuple[Input, ...]:
        """Return the gates of what owners enter at one time; what is stored is among none."""
        return self.entered_once if entry.is_weights else self.entered

    @cached_property
    def owners(self) -> frozenset[str]:
        """Names of those that enter something into a session; owners of what is stored need not be there."""
        return frozenset(name for g in (*self.entered_once, *self.entered) for name in self.wire[g.out].holders)

    @cached_property
    def stored_by(self) -> frozenset[str]:
        """Names of the owners whose stored data or weights it reads."""
        return frozenset(name for gate in self.stored for name in self.wire[gate.out].holders)

    @cached_property
    def recipients(self) -> frozenset[str]:
        """Names of those that receive something."""
        return frozenset(name for out in self.outputs for name in self.wire[out.wire].holders)

    @cached_property
    def kept(self) -> tuple[PlanOutput, ...]:
        """The outputs that stay at the parties."""
        return tuple(out for out in self.outputs if out.keep)

    @cached_property
    def carried(self) -> frozenset[str]:
        """Wires that the next run reads: parties keep them, and their shares of the masks."""
        return frozenset(state.out for state in self.states)

    @cached_property
    def most_rows(self) -> int:
        """The largest batch: 2^20, or what a sum over rows is declared for."""
        return min((gate.most_rows for gate in self.gates), default=MAX_BATCH)

    def with_stored_weights(self) -> Plan:
        """Return the plan whose secret weights are found at the parties, where their owner has put them."""
        secret = {gate.name for gate in self.weights if not gate.is_public(self.wire)}
        update = {"lifetime": Lifetime.STORED_WEIGHT}
        gates = tuple(gate.model_copy(update=update) if gate.name in secret else gate for gate in self.gates)
        return self._with(gates=gates)

    def with_program(self, program: Program) -> Plan:
        """Return the plan whose runs are those of a program."""
        return self._with(program=program)

    def with_security(self, security: Security) -> Plan:
        """Return the plan whose runs are checked, or are not."""
        return self._with(security=security)

    def with_segments(self, size: int | None) -> Plan:
        """Return the plan whose segments hold so many bytes, or as many as usual."""
        return self._with(segment_bytes=size)

    def _with(self, **parts: Any) -> Plan:
        return Plan(**{name: getattr(self, name) for name in type(self).model_fields} | parts)

    def at(self, run: int) -> Plan:
        """Return the plan of one run of a program: with its factors, and without what it neither updates nor tells.

        A plan without a program is that of each of its runs.

        Raises:
            PlanError: nothing would come of that run.
        """
        if self.program is None:
            return self
        key = (*self.part(run), self.program.k(run))
        program = self.program
        return _kept(self._runs, key, MOST_RUNS_KEPT, lambda: self._at(program, run))

    def part(self, run: int) -> tuple[bool, tuple[str, ...]]:
        """Tell the part of the plan that a run computes: whether it updates states, and the outputs that it tells."""
        program = self.program
        if program is None:
            return bool(self.states), tuple(out.name for out in self.outputs)
        return run <= program.steps, tuple(out.name for out in self.outputs if program.tells(out.name, run))

    def computes(self, run: int) -> bool:
        """Does anything come of a run?"""
        updates, told = self.part(run)
        return updates or bool(told)

    @cached_property
    def _runs(self) -> dict[Hashable, Plan]:
        """Plans of runs that were asked for; runs that compute alike share one."""
        return {}

    def _at(self, program: Program, run: int) -> Plan:
        steps, names = self.part(run)
        told = tuple(out for out in self.outputs if out.name in names)
        if not self.computes(run):
            raise PlanError(f"run {run} of this program neither updates nor tells anything", remedy="close the session")
        states = self.states if steps else tuple(s.model_copy(update={"out": s.in_}) for s in self.states)
        needed = {out.wire for out in told} | {name for state in states for name in (state.in_, state.out)}
        beside = {wire: given.wires for given in self.inputs for wire in given.wires}
        kept: list[Gate] = []
        for gate in reversed(self.gates):
            weight = isinstance(gate, Input) and gate.is_weight
            if weight or needed.intersection(gate.writes):
                needed.update(gate.reads, *(beside[name] for name in gate.reads if name in beside))
                kept.append(_paced(gate, program, run))
        written = {name for gate in kept for name in gate.writes}
        seen = {out.wire for out in told} | beside.keys()
        seen.update(gate.out for gate in self.weights)
        hidden = {"holders": (), "kept": False}
        return Plan.model_construct(
            version=self.version,
            field=self.field,
            inputs=tuple(given for given in self.inputs if given.wire in written),
            outputs=told,
            wires=tuple(w if w.name in seen else w.model_copy(update=hidden) for w in self.wires if w.name in written),
            gates=tuple(reversed(kept)),
            states=states,
            program=None,
            security=self.security,
            segment_bytes=self.segment_bytes,
        )

    def bind(self, batch: int) -> Plan:
        """Return the plan for one batch size: every dimension a number.  It is made once, and nobody changes it.

        Raises:
            PlanError: the batch is not between 1 and `most_rows`.
        """
        return _kept(self._bound, batch, MOST_BOUND, lambda: self._bind(batch))

    @cached_property
    def _bound(self) -> dict[Hashable, Plan]:
        """Plans by the batch that they are bound to."""
        return {}

    def remember(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Return what was computed of this plan under that key, or compute it; see `mpc.plan.once`."""
        return _kept(self.remembered, key, _MOST_REMEMBERED, compute)

    @cached_property
    def remembered(self) -> dict[Hashable, Any]:
        """Things that were computed of this plan; threads that compute at once find alike."""
        return {}

    def _bind(self, batch: int) -> Plan:
        if not 1 <= batch <= self.most_rows:
            raise PlanError(
                f"a batch of {batch}; 1 to {self.most_rows} are possible",
                remedy=f"split the rows into batches of at most {self.most_rows:,}"
                if batch > self.most_rows
                else "enter one row or more",
            )
        outputs = tuple(
            out.model_copy(update={"shape": tuple(batch if d == "batch" else d for d in out.shape)})
            for out in self.outputs
        )
        return Plan.model_construct(
            version=self.version,
            field=self.field,
            inputs=self.inputs,
            outputs=outputs,
            wires=tuple(wire.bind(batch) for wire in self.wires),
            gates=self.gates,
            states=self.states,
            program=self.program,
            security=self.security,
            segment_bytes=self.segment_bytes,
        )


def _kept(known: dict[Hashable, Kept], key: Hashable, most: int, compute: Callable[[], Kept]) -> Kept:
    """Return what is known under a key, or compute it; the oldest goes where there would be more than `most`."""
    try:
        return known[key]
    except KeyError:
        found = compute()
    for oldest in list(known)[: max(0, len(known) + 1 - most)]:
        known.pop(oldest, None)
    known[key] = found
    return found


def _paced(gate: Gate, program: Program, run: int) -> Gate:
    """The gate with the factors that it has in a run."""
    operands = [each.operand for each in program.paced if each.gate == gate.name]
    if not operands or not isinstance(gate, Combine):
        return gate
    k = program.k(run)
    factors = tuple(each * k if place in operands else each for place, each in enumerate(gate.factors))
    return gate.model_copy(update={"factors": factors})


def digest_of(canonical: bytes) -> bytes:
    """Return the digest of the plan of these bytes, whether they are one or not: SHA-256, 32 bytes."""
    return encoding.digest("mpc/v1/plan", canonical)


def _dump(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
