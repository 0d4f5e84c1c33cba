"""Say how long a client waits for what parties are dealt: longer where more comes, so that a party that says nothing of
little is soon missed."""

from __future__ import annotations

from mpc.entry import EntryId
from mpc.plan.cost import plan_cost, public_bytes, session_dealt
from mpc.plan.plan import Plan
from parties.config.models import Limits
from parties.wire.pieces import time_for

WINDOW = Limits().max_window_bytes
"""Stands for the window of each party, which it tells other parties and no client."""


def until_dealt(setup: float, plan: Plan, entry: EntryId, batch: int = 1) -> float:
    """Return the seconds in which parties have an entry prepared, or have said what ended it.

    Parties hear of a silent provider in `setup` seconds themselves, segment by segment.  A client hears nothing
    meanwhile, so it counts what may come: of a run that is not checked a window at most is dealt before its inputs.

    Args:
        setup: seconds for what is short, `deadlines.setup`.
        plan: the session's, not bound.
        batch: rows of the run; of the weights' entry there are none.
    """
    if entry.is_weights:
        return time_for(setup, session_dealt(plan))
    dealt = plan_cost(plan.at(entry.number), batch).dealt
    ahead = dealt if plan.is_checked else min(dealt, WINDOW)
    return time_for(setup, ahead + (public_bytes(plan) if entry.number == 1 else 0))
