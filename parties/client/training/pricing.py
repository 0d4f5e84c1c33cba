"""Price of a training before anything runs: what its plans and their programs say, added up over all steps."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from mpc.plan.cost import Cost, plan_cost
from parties.client.training.stretches import Course


@dataclass(frozen=True)
class TrainingCost:
    """Price of all steps together; that of opening a session, 8 bytes a weight, is not in it.

    Args:
        digest: of the plan, hex; of several sessions the first one's.
        steps: how many there are, one run each.
        sessions: that they are made in: one, or one from each checkpoint to the next.
        rounds: openings one after another.
        sent_bytes: of one party, to all its peers together.
        dealt_bytes: from the provider, to all parties together.
        step: the price of a step that tells nothing, in a run's terms: sent to each peer, dealt to one party.
        step_s: seconds that a step took, of some that were run to measure it; None if none were.
        seconds: of all steps, if each takes as long.
    """

    digest: str
    steps: int
    batch: int
    parties: int
    sessions: int
    rounds: int
    sent_bytes: int
    dealt_bytes: int
    step: Cost
    step_s: float | None = None

    @property
    def seconds(self) -> float | None:
        """Return how long all steps take, as far as those that were measured tell."""
        return None if self.step_s is None else self.steps * self.step_s


def training_cost(made: Course, parties: int, step_s: float | None = None) -> TrainingCost:
    """Add up what a training costs.

    Args:
        step_s: seconds of a step, if some were measured.
    """
    first: dict[object, tuple[int, int]] = {}
    kinds: Counter[object] = Counter()
    for number, plan in enumerate(made.plans):
        for run in range(1, made.length(number) + 1):
            part = number > 0, plan.part(run)
            kinds[part] += 1
            first.setdefault(part, (number, run))
    costs = {part: plan_cost(made.plans[number].at(run)) for part, (number, run) in first.items()}
    return TrainingCost(
        digest=made.plans[0].digest.hex(),
        steps=made.steps,
        batch=made.training.batch,
        parties=parties,
        sessions=len(made.plans),
        rounds=sum(costs[part].rounds * number for part, number in kinds.items()),
        sent_bytes=sum(costs[part].total_sent(parties) * number for part, number in kinds.items()),
        dealt_bytes=sum(costs[part].total_dealt(parties) * number for part, number in kinds.items()),
        step=min(costs.values(), key=lambda cost: cost.sent),
        step_s=step_s,
    )
