"""Costs of a run that is checked, before it runs: those of an unchecked one, and tags and four exchanges besides."""

from __future__ import annotations

from mpc.entry import WEIGHTS, EntryId
from mpc.interpret.active.check import SIZES
from mpc.plan.cost import Cost, plan_cost
from mpc.plan.plan import Plan
from mpc.plan.tagging import entry_tags

_RUN = EntryId(1)
"""Any run: their costs are alike."""


def checked_cost(plan: Plan, batch: int = 1) -> Cost:
    """Return the whole cost of one run that is checked."""
    cost, more = plan_cost(plan, batch), _tag_bytes(plan.bind(batch), _RUN)
    return Cost(
        rounds=cost.rounds + len(SIZES), sent=cost.sent + sum(SIZES), dealt=cost.dealt + more, held=cost.held + more
    )


def session_tag_bytes(plan: Plan) -> int:
    """Count the bytes of tags that are dealt once a session: of the weights' masks, 8 an element."""
    return _tag_bytes(plan, WEIGHTS)


def _tag_bytes(plan: Plan, entry: EntryId) -> int:
    return sum(spec.size for specs in entry_tags(plan, entry).values() for spec in specs)
