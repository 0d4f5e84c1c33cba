"""Split batches into runs that all parties of a cluster have memory for, as they say."""

from __future__ import annotations

from mpc.plan.plan import Plan
from parties.agreed.memory import needed_memory, plan_memory
from parties.client.channels import Parties
from parties.client.running.feeds import BLOCK_ROWS, is_room_for_two, is_whole, split
from parties.config.models import Limits

LEAST_BYTES = 256 << 20
"""Bytes of memory of a run that every party is taken to have, whatever it says: it makes no run smaller than that."""
_AMPLE = Limits(max_memory_bytes=1 << 62)


def sizes(parties: Parties, plan: Plan, batch: int) -> list[int]:
    """Split a batch into runs, as `feeds.split`, none of which needs more memory than a party has for one client's.

    Parties are asked once a connection, and only if it may matter.
    """
    usual = split(plan, batch)
    if is_whole(plan):
        return usual
    return split(plan, batch, _room(parties, plan, usual[0]))


def is_room_beside(parties: Parties, plan: Plan, batch: int, next_batch: int) -> bool:
    """May a run be prepared while the one before it is online, at every party?"""
    if is_whole(plan) and not plan.is_checked:
        return is_room_for_two(plan, batch, next_batch)
    return is_room_for_two(plan, batch, next_batch, _room(parties, plan, batch))


def _room(parties: Parties, plan: Plan, batch: int) -> int | None:
    """Return the bytes of memory that runs of a session of this plan may need at every party; None if a run of this
    batch needs none to speak of, or if no party says."""
    few = not is_whole(plan) and needed_memory(plan, BLOCK_ROWS) <= LEAST_BYTES
    if few or needed_memory(plan, batch) <= LEAST_BYTES:
        return None
    told = parties.memory
    return None if told is None else max(LEAST_BYTES, told - plan_memory(plan, _AMPLE))
