"""Words for what runs hand on, and for a plan's program: what 'mpc inspect' and requests say of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mpc.plan.plan import Plan
from mpc.plan.program import Program, Told


def described(plan: Plan) -> dict[str, Any]:
    """Return the part of the report that 'mpc inspect --json' prints about states and the program; empty without."""
    if not plan.states:
        return {}
    public = {gate.out for gate in plan.weights if gate.is_public(plan.wire)}
    owners = {gate.out: plan.wire[gate.out].holders for gate in plan.weights}
    states = [
        {
            "state": state.name,
            "shape": list(plan.wire[state.in_].sizes),
            "begins": "zeros" if state.init is None else "public" if state.init in public else "secret",
            "who": list(owners.get(state.init or "", ())),
        }
        for state in plan.states
    ]
    program = None if plan.program is None else plan.program.model_dump(mode="json", exclude_none=True)
    return {"states": states, "program": program}


def kept_alone(plan: Plan) -> set[str]:
    """Return the names of outputs that stay at the parties and are told to nobody."""
    return {out.name for out in plan.kept if not plan.wire[out.wire].holders}


def said(report: Mapping[str, Any], kept: Collection[str]) -> list[tuple[str, str]]:
    """Return what a report says of them, in pairs of a label and words for people; none if there are no states.

    Args:
        kept: names of outputs that stay at the parties and are told to nobody.
    """
    found = [
        (
            "hands on",
            f"state {entry['state']!r} {tuple(entry['shape'])} to the next run; it begins with "
            + _begins(entry["begins"], entry["who"]),
        )
        for entry in report.get("states", [])
    ]
    if report.get("program") is not None:
        program = Program.model_validate(report["program"])
        found.append(("program", f"{program.steps:,} runs update it{_rows(program)}{_rates(program)}"))
        found += [
            ("", f"output {told.output!r} is {'kept at the parties' if told.output in kept else 'told'} {_when(told)}")
            for told in program.told
        ]
    return found


def _begins(how: str, who: Sequence[str]) -> str:
    if how == "zeros":
        return "zeros"
    return f"what {', '.join(who)} says in public" if how == "public" else f"what {', '.join(who)} enters or has put"


def _rows(program: Program) -> str:
    if program.rows is None:
        return ""
    return f", each reads {program.rows:,} rows, in an order that everybody knows"


def _rates(program: Program) -> str:
    if not program.rates:
        return ""
    each = ", ".join(f"{rate.k} from run {rate.first:,} on" for rate in program.rates[:6])
    return f"; rate {each}{' ...' if len(program.rates) > 6 else ''}"


def _when(told: Told) -> str:
    if not told.every or (told.last is not None and told.first + told.every > told.last):
        return f"in run {told.first:,} alone"
    last = "" if told.last is None else f", up to run {told.last:,}"
    often = "each run" if told.every == 1 else f"every {told.every:,} runs"
    return f"in run {told.first:,} and {often} after it{last}"
