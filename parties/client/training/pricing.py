"""Price of a training before anything runs: what its plan and its program say, added up over all steps."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from mpc.compiler.training.train import Training
from mpc.errors import InputError
from mpc.plan.cost import Cost, plan_cost
from mpc.plan.program import Program
from parties.client.training.telling import told


@dataclass(frozen=True)
class TrainingCost:
    """Price of all steps together; that of a session's opening, 8 bytes a weight, is not in it.

    Args:
        steps: how many there are, one run each.
        rounds: openings one after another.
        sent_bytes: of one party, to all its peers together.
        dealt_bytes: from the provider, to all parties together.
        step: the price of a step that tells nothing, in a run's terms: sent to each peer, dealt to one party.
    """

    steps: int
    batch: int
    parties: int
    rounds: int
    sent_bytes: int
    dealt_bytes: int
    step: Cost


def training_cost(
    training: Training, rows: int, epochs: int, parties: int, release: int | None, check: int | None
) -> TrainingCost:
    """Add up what a training on so many rows costs.

    Args:
        release, check: every how many steps the loss is told, and ranges are checked.

    Raises:
        InputError: there are fewer rows than a step reads.
    """
    steps = epochs * (rows // training.batch)
    if not steps:
        raise InputError(
            f"there are {rows} rows, and a step reads {training.batch}", remedy="give more rows, or use a smaller batch"
        )
    plan = training.plan.with_program(Program(steps=steps, told=told(training, steps, release, check)))
    first: dict[object, int] = {}
    kinds: Counter[object] = Counter()
    for step in range(1, steps + 1):
        kinds[part := plan.part(step)] += 1
        first.setdefault(part, step)
    costs = {part: plan_cost(plan.at(step)) for part, step in first.items()}
    return TrainingCost(
        steps=steps,
        batch=training.batch,
        parties=parties,
        rounds=sum(costs[part].rounds * number for part, number in kinds.items()),
        sent_bytes=sum(costs[part].total_sent(parties) * number for part, number in kinds.items()),
        dealt_bytes=sum(costs[part].total_dealt(parties) * number for part, number in kinds.items()),
        step=min(costs.values(), key=lambda cost: cost.sent),
    )
