"""Count what a plan costs, exactly, before anything runs: the counters of a run must agree with it."""

from __future__ import annotations

from dataclasses import dataclass

from mpc.encoding import field_size
from mpc.entry import WEIGHTS, EntryId
from mpc.gates.base import Gate
from mpc.plan.checking import tag_bytes, with_checks
from mpc.plan.once import once
from mpc.plan.plan import Plan
from mpc.plan.schedule import Schedule, schedule
from mpc.prg import SEED_BYTES
from mpc.wires import Wires

_RUN = EntryId(1)
"""Any run: their costs are alike."""


@dataclass(frozen=True)
class Cost:
    """The price of one run, or of one gate's part of it.

    Args:
        rounds: openings one after another.
        sent: payload bytes of one party to each of its peers.
        dealt: bytes of corrections, to one party; every party also receives one seed.
        held: bytes of correlations that a party holds, expanded.
    """

    rounds: int
    sent: int
    dealt: int
    held: int

    def total_sent(self, parties: int) -> int:
        """Count the payload bytes of one party to all its peers."""
        return self.sent * (parties - 1)

    def total_dealt(self, parties: int) -> int:
        """Count all bytes of correlations that leave the provider, seeds included."""
        return self.dealt + SEED_BYTES * parties


def gate_cost(gate: Gate, wires: Wires) -> Cost:
    """Return one gate's own rounds and bytes, over bound wires."""
    rounds = gate.openings(wires)
    correlations = gate.correlations(wires)
    return Cost(
        rounds=len(rounds),
        sent=sum(opening.size for openings in rounds for opening in openings),
        dealt=sum(c.size for c in correlations if c.dependent),
        held=sum(c.size for c in correlations),
    )


def stored_bytes(plan: Plan) -> int:
    """Count the bytes of the weights, 8 an element."""
    return sum(field_size(plan.wire[gate.out].sizes) for gate in plan.weights)


@once
def plan_schedule(plan: Plan) -> Schedule:
    """Return the schedule of a run of a bound plan."""
    return schedule(plan.online, plan.wire)


def exchanges(plan: Plan) -> tuple[int, ...]:
    """Return the bytes of each payload of one party to each peer in a run of a bound plan, one after another.

    Gates that share a round have one, the first has the agreement's 32 bytes; checks come behind the last opening of
    each window.
    """
    sizes = tuple(step.size for step in plan_schedule(plan).steps)
    return with_checks(plan, sizes) if plan.is_checked else sizes


@once
def plan_cost(plan: Plan, batch: int = 1) -> Cost:
    """Return the whole run's cost, with that of its check if it has one."""
    bound = plan.bind(batch)
    parts = [gate_cost(gate, bound.wire) for gate in bound.online]
    sizes, tags = exchanges(bound), tag_bytes(bound, _RUN) if plan.is_checked else 0
    return Cost(
        rounds=len(sizes),
        sent=sum(sizes),
        dealt=sum(part.dealt for part in parts) + tags,
        held=sum(part.held for part in parts) + tags,
    )


def public_bytes(plan: Plan) -> int:
    """Count the bytes of the public weights, which the provider is handed before run 1; 8 an element."""
    return sum(field_size(plan.wire[gate.out].sizes) for gate in plan.public_weights)


def session_dealt(plan: Plan) -> int:
    """Count the bytes of corrections that are dealt once a session: of the weights' tags, 8 an element."""
    return tag_bytes(plan, WEIGHTS) if plan.is_checked else 0
