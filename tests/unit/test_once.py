"""What follows from a plan and a batch alone is computed once, and a plan does not grow by it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mpc.compiler.compile import compile_model
from mpc.errors import PlanError
from mpc.plan import once
from mpc.plan.cost import plan_cost, plan_schedule
from mpc.plan.plan import MOST_BOUND, Plan
from mpc.plan.schedule import schedule
from tests.support.parties_commands import ROOT


def network_plan() -> Plan:
    return compile_model(ROOT / "examples" / "mnist_mlp.onnx", (0.0, 1.0)).plan


def test_a_plan_is_bound_once_a_batch() -> None:
    plan = network_plan()
    assert plan.bind(3) is plan.bind(3) and plan.bind(3) is not plan.bind(4)
    assert plan.bind(3).outputs[0].shape[0] == 3 and plan.bind(4).outputs[0].shape[0] == 4
    assert plan_schedule(plan.bind(3)) is plan_schedule(plan.bind(3))
    assert plan_schedule(plan.bind(3)) == schedule(plan.online, plan.bind(3).wire)


def test_what_is_computed_once_is_of_that_plan_and_these_numbers() -> None:
    asked: list[tuple[Plan, int, int]] = []

    @once.once
    def count(plan: Plan, batch: int = 1, more: int = 0) -> int:
        asked.append((plan, batch, more))
        if batch > 2:
            raise PlanError("too many")
        return batch + more

    one, other = network_plan(), network_plan()
    assert [count(one), count(one, 1), count(one, 2), count(one, 2, more=5), count(one, 2, more=5)] == [1, 1, 2, 7, 7]
    assert count(other, 2) == 2 and [batch for plan, batch, _ in asked if plan is other] == [2]
    assert len(asked) == 5  # of `one` four: with a number left out, and with each that was said
    for _ in range(2):
        with pytest.raises(PlanError, match="too many"):
            count(one, 3)
    assert len(asked) == 7, "what it raises is kept nowhere"


def test_a_plan_keeps_little_however_many_batches_there_are() -> None:
    plan = network_plan()
    for batch in range(1, 200):
        assert plan_cost(plan, batch).dealt == batch * plan_cost(plan, 1).dealt
        assert len(plan.remembered) <= 8


def test_two_functions_of_one_name_are_two() -> None:
    def named(answer: int) -> Callable[[Plan], int]:
        @once.once
        def count(plan: Plan) -> int:
            return answer

        return count

    plan = network_plan()
    assert [named(1)(plan), named(2)(plan)] == [1, 2]


def test_what_is_asked_most_recently_stays() -> None:
    """A plan lets go of the oldest, not of all, where there is one batch more than it keeps."""
    plan = network_plan()
    bound = [plan.bind(batch) for batch in range(1, MOST_BOUND + 2)]
    assert all(plan.bind(batch) is bound[batch - 1] for batch in range(2, MOST_BOUND + 2))
    assert plan.bind(1) is not bound[0]
