"""Count the exact cost of a run that is checked, whatever its plan says of that, to compare both."""

from __future__ import annotations

from mpc.plan.cost import Cost, plan_cost, session_dealt
from mpc.plan.plan import Plan


def checked_cost(plan: Plan, batch: int = 1) -> Cost:
    """Return the whole cost of one run that is checked."""
    return plan_cost(plan.with_security("active"), batch)


def session_tag_bytes(plan: Plan) -> int:
    """Count the bytes of tags that are dealt once a session: of the weights' masks, 8 an element."""
    return session_dealt(plan.with_security("active"))
