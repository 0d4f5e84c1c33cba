"""Read off a plan's public bytes what each wire depends on: which stored inputs, and whether row by row.

An output that stays at the parties has a history that later questions are judged by.  Row i of it is about the people
of row i of a stored input only if every gate on the way acts within a row (`within`); anything else, a weight
for instance, is about whoever is in that input at all.  So is state: it depends on whatever earlier runs read.
Where an answer is about several rows at once, how many a run has is part of what is asked.
"""

from __future__ import annotations

from collections.abc import Mapping

from mpc.errors import PlanError
from mpc.gates.base import Gate
from mpc.gates.input import Input
from mpc.plan.plan import Plan
from mpc.privacy.within import check_within, has_rows
from mpc.wires import Wires

Sources = Mapping[str, bool]
"""Stored wire -> does row i depend on row i of it alone?"""


def dependence(plan: Plan) -> dict[str, Sources]:
    """Find the stored wires that each kept output of a verified plan depends on, by the output's name.

    Runs that hand on state are all those of a session so far, so state depends on all that any of them reads.
    """
    found = _of_outputs(plan)
    return {out.name: found[out.name] for out in plan.kept}


def rows_meet(plan: Plan) -> bool:
    """Does an output of a verified plan depend on several rows of stored data at once?

    If none does, each row of an answer is what a run of that row alone tells.  Of others it matters how many rows a run
    has: a sum over a single row is that row.  What state brings of earlier runs counts as several rows.
    """
    weights = {gate.out for gate in plan.stored if gate.is_weight}
    found = _of_outputs(plan).values()
    return any(wire not in weights and not by_row for sources in found for wire, by_row in sources.items())


def _of_outputs(plan: Plan) -> dict[str, Sources]:
    """Return what each output depends on: state stands for itself at first, then for all that earlier runs have read.

    One pass over the gates, however many states hand on to each other.
    """
    found = _found(plan, {state.in_: {state.in_: False} for state in plan.states})
    reached = _reached(plan, found)
    outputs: dict[str, Sources] = {}
    for out in plan.outputs:
        direct = {name: by_row for name, by_row in found[out.wire].items() if name not in reached}
        carried = {name for state in reached.keys() & found[out.wire].keys() for name in reached[state]}
        outputs[out.name] = direct | dict.fromkeys(carried, False)
    return outputs


def _reached(plan: Plan, found: Mapping[str, Sources]) -> dict[str, set[str]]:
    """Return the stored wires that each state depends on, whichever run reads it, by the wire that reads it."""
    reached = {state.in_: set(_stored(plan, state.init)) for state in plan.states}
    readers: dict[str, list[str]] = {name: [] for name in reached}
    for state in plan.states:
        for name in found[state.out]:
            if name in reached:
                readers[name].append(state.in_)
            else:
                reached[state.in_].add(name)
    todo = [*reached]
    while todo:
        name = todo.pop()
        for reader in readers[name]:
            if not reached[name] <= reached[reader]:
                reached[reader] |= reached[name]
                todo.append(reader)
    return reached


def _stored(plan: Plan, name: str | None) -> list[str]:
    return [gate.out for gate in plan.stored if gate.out == name]


def _found(plan: Plan, states: Mapping[str, Sources]) -> dict[str, Sources]:
    """Return what outputs, and wires that the next run reads, depend on, if state depends on this."""
    last = {name: number for number, gate in enumerate(plan.gates) for name in gate.reads}
    kept = {out.wire for out in plan.outputs} | plan.carried
    found: dict[str, Sources] = {}
    for number, gate in enumerate(plan.gates):
        written = states.get(gate.writes[0]) or _written(gate, plan.wire, found)
        found.update(dict.fromkeys(gate.writes, written))
        for name in set(gate.reads):  # nobody asks again
            if last[name] == number and name not in kept:
                found.pop(name, None)
    return found


def _written(gate: Gate, wires: Wires, found: Mapping[str, Sources]) -> Sources:
    if isinstance(gate, Input):
        return {gate.out: has_rows(wires[gate.out])} if gate.is_stored else {}
    sources: dict[str, bool] = {}
    for name in gate.reads:
        for wire, by_row in found[name].items():
            sources[wire] = by_row and sources.get(wire, True)
    if any(sources.values()) and not _is_within(gate, wires):
        return dict.fromkeys(sources, False)
    return sources


def _is_within(gate: Gate, wires: Wires) -> bool:
    try:
        check_within(gate, wires)
    except PlanError:
        return False
    return True
