"""A plan from outside: parsed, held to the one encoding, and verified."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from mpc.errors import PlanError
from mpc.gates import GATES
from mpc.gates.base import COMPILE_ANEW, Gate
from mpc.plan.plan import Plan
from mpc.plan.verify import require_few, verify
from mpc.text import shown


def outline(data: bytes) -> dict[str, Any]:
    """Read what a plan from outside says, of which nothing is believed yet, and count what costs most to parse.

    It takes a fraction of what `parse_plan` does, and whoever lets one plan be parsed at a time does it before.

    Raises:
        PlanError: no plan, or with more gates or reads than any may have.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _malformed(error) from None
    if not isinstance(content, dict) or not isinstance(content.get("gates"), list):
        raise PlanError("these bytes are not a plan", remedy="make one with 'mpc compile'")
    require_few(len(content["gates"]), 0)  # before each of them is looked at
    require_few(len(content["gates"]), sum(map(reads_of, content["gates"])))
    return content


def parse_plan(data: bytes, known: dict[str, Any] | None = None) -> Plan:
    """Parse and verify a plan from outside.

    Args:
        known: its outline, if it was read before.

    Raises:
        PlanError: not canonical, not well-formed, or refused by `verify`.
    """
    content = outline(data) if known is None else known
    try:
        gates = tuple(gate_of(entry) for entry in content["gates"])
        plan = Plan.model_validate({**content, "gates": gates})
    except (ValidationError, ValueError, TypeError, RecursionError, ZeroDivisionError) as error:
        raise _malformed(error) from None
    if plan.canonical != data:
        raise PlanError("the plan is not in its canonical encoding", remedy="make it with 'mpc compile'")
    verify(plan)
    return plan


def _malformed(error: Exception) -> PlanError:
    return PlanError(f"the plan is malformed: {_first_line(error)}", remedy=COMPILE_ANEW)


def reads_of(entry: Any) -> int:
    """Count the wires that an entry says its gate reads."""
    kind = GATES.get(str(entry.get("kind"))) if isinstance(entry, dict) else None
    named = [] if kind is None else [entry.get(operand) for operand in kind.operands]
    return sum(len(each) if isinstance(each, list) else each is not None for each in named)


def gate_of(entry: Any) -> Gate:
    """Return the gate that an entry of a plan says; `PlanError` if it says none."""
    if not isinstance(entry, dict):
        raise PlanError("a gate of the plan is not an object", remedy=COMPILE_ANEW)
    kind = GATES.get(str(entry.get("kind")))
    if kind is None:
        raise PlanError(
            f"the plan has a gate of kind {str(entry.get('kind'))[:40]!r}, which this version does not know",
            remedy="run the same version of mpc everywhere",
        )
    return kind.model_validate({key: value for key, value in entry.items() if key != "kind"})


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return shown(f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:400])
    return shown(str(error).split("\n", 1)[0][:200])
