"""A client's pipeline: which run is prepared when, and that each is taken in its turn; without processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from mpc.errors import LocalProtocolError, PeerError
from mpc.plan.cost import plan_cost
from parties.client.running.coordinated import prepare
from parties.client.running.pipeline import Pipeline
from tests.support.small_plans import small

PARTIES = 3


@dataclass(frozen=True)
class Answer:
    """One party's answer, which says what was asked; or why there is none."""

    asked: tuple[int, int, int]
    error: PeerError | None = None

    def result(self) -> tuple[int, int, int]:
        if self.error is not None:
            raise self.error
        return self.asked


@dataclass
class Asked:
    """What the parties were asked to prepare: (number, rows, rows that follow), in order."""

    calls: list[tuple[int, int, int]] = field(default_factory=list)
    fails: int | None = None

    def prepare(self, number: int, batch: int, following: int) -> list[Answer]:
        call = (number, batch, following)
        self.calls.append(call)
        error = PeerError("gone", peer="party-1") if number == self.fails else None
        return [Answer(call, error) for _ in range(PARTIES)]


def test_the_next_run_of_a_batch_is_prepared_once_the_inputs_of_this_one_are_entered() -> None:
    asked = Asked()
    pipeline = Pipeline(asked.prepare, looks_ahead=True)
    pipeline.opened()
    assert asked.calls == [] and pipeline.ahead is None
    assert pipeline.next(4, [4, 2]) == [(1, 4, 6)] * PARTIES
    assert pipeline.begun == 1 and asked.calls == [(1, 4, 6)]
    pipeline.entered([4, 2])
    assert pipeline.ahead == 2 and asked.calls[1:] == [(2, 4, 2)]  # before this run's end is known
    pipeline.received()
    assert len(asked.calls) == 2
    assert pipeline.next(4, [2]) == [(2, 4, 2)] * PARTIES and len(asked.calls) == 2  # as it was prepared
    pipeline.entered([2])
    pipeline.received()
    assert pipeline.next(2) == [(3, 2, 0)] * PARTIES
    pipeline.entered([])
    pipeline.received()
    assert pipeline.ahead is None and asked.calls == [(1, 4, 6), (2, 4, 2), (3, 2, 0)]
    assert pipeline.next(7) == [(4, 7, 0)] * PARTIES  # of another batch: prepared when it is asked for


def test_what_was_dealt_ahead_is_prepared_while_nobody_waits() -> None:
    asked = Asked()
    pipeline = Pipeline(asked.prepare, looks_ahead=True, dealt=(4, 2, 4))
    assert pipeline.left == (4, 2, 4)
    pipeline.opened()
    assert (pipeline.begun, pipeline.ahead) == (0, 1) and asked.calls == [(1, 4, 6)]
    assert pipeline.next(4, [2]) == [(1, 4, 6)] * PARTIES
    pipeline.entered([2])
    assert len(asked.calls) == 1  # not while it is online: the disk is read once that is over
    pipeline.received()
    assert pipeline.left == (2, 4) and asked.calls[1:] == [(2, 2, 4)]
    pipeline.next(2)
    pipeline.entered([])
    pipeline.received()
    pipeline.next(4)
    pipeline.entered([])
    pipeline.received()
    assert pipeline.left == () and pipeline.ahead is None and [call[0] for call in asked.calls] == [1, 2, 3]


@pytest.mark.parametrize("dealt", [None, (4, 4)])
def test_nothing_is_prepared_ahead_where_others_take_part(dealt: tuple[int, ...] | None) -> None:
    asked = Asked()
    pipeline = Pipeline(asked.prepare, looks_ahead=False, dealt=dealt)
    pipeline.opened()
    for number in (1, 2):
        assert len(asked.calls) == number - 1 and pipeline.ahead is None
        following = [4] * (2 - number)
        assert pipeline.next(4, following) == [(number, 4, sum(following))] * PARTIES
        pipeline.entered(following)
        pipeline.received()
    assert len(asked.calls) == 2


def test_a_failure_ahead_is_told_when_it_is_that_runs_turn() -> None:
    asked = Asked(fails=2)
    pipeline = Pipeline(asked.prepare, looks_ahead=True)
    pipeline.next(4, [4])
    pipeline.entered([4])
    pipeline.received()
    with pytest.raises(PeerError, match="gone"):
        pipeline.next(4)
    assert asked.calls == [(1, 4, 4), (2, 4, 0)]


def test_a_run_that_was_prepared_for_other_rows_is_not_taken() -> None:
    """Its manifest would be of other rows than the client masks: that looks like a party's doing, and is not."""
    pipeline = Pipeline(Asked().prepare, looks_ahead=True, dealt=(4,))
    pipeline.opened()
    with pytest.raises(LocalProtocolError, match="prepared for 4 rows, not for 3"):
        pipeline.next(3)


def test_what_is_forgotten_is_asked_for_again() -> None:
    asked = Asked()
    pipeline = Pipeline(asked.prepare, looks_ahead=True)
    pipeline.next(4, [4])
    pipeline.entered([4])
    pipeline.forget()
    assert pipeline.ahead is None and pipeline.left == ()
    assert pipeline.next(4) == [(2, 4, 0)] * PARTIES and asked.calls[-2:] == [(2, 4, 0)] * 2


def test_a_run_may_take_as_long_as_a_slow_link_needs_for_what_it_is_dealt() -> None:
    """A checked one is dealt many times as much; what others are dealt beyond a window comes while they compute."""
    plan, seconds = small("relu").plan, list[float]()
    parties: Any = SimpleNamespace(
        config=SimpleNamespace(deadlines=SimpleNamespace(setup=60.0)),
        start=lambda call, request, patience, together: seconds.append(patience),
        together=object,
    )
    for each in (plan, plan.with_security("active")):
        prepare(parties, each, bytes(32), 1, 4096, 0)
    passive, active = (plan_cost(each, 4096).dealt for each in (plan, plan.with_security("active")))
    assert seconds == [60 + passive / (1 << 20), 60 + active / (1 << 20)] and seconds[1] > 61
