"""Whoever waits gets what has arrived, or one of three endings, each told apart; under any order of events."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mpc.errors import DeadlineError, MpcError, PeerError, SessionError
from parties.wire.inflow import Inflow
from tests.support.effort import examples, patient

PAST = 0.0  # monotonic seconds: long ago


class Counted:
    """The least that an owner of an inflow is: a number that grows."""

    def __init__(self) -> None:
        self.inflow = Inflow()
        self.there = 0

    def put(self, count: int = 1) -> None:
        with self.inflow.lock:
            self.there += count
            self.inflow.arrived()

    def take(self, count: int, deadline: float) -> bool:
        with self.inflow.lock:
            return self.inflow.wait(lambda: self.there >= count, deadline, lambda: DeadlineError("late"))


class Endings(RuleBasedStateMachine):
    """Against a model that has no threads: what is there is given, and the first failure stands."""

    def __init__(self) -> None:
        super().__init__()
        self.feed, self.closed, self.failed = Counted(), False, ""

    @rule(count=st.integers(0, 3))
    def put(self, count: int) -> None:
        self.feed.put(count)

    @rule()
    def close(self) -> None:
        self.feed.inflow.close()
        self.closed = True

    @rule(name=st.sampled_from("ab"))
    def fail(self, name: str) -> None:
        self.feed.inflow.fail(PeerError(name))
        self.failed = self.failed or name

    @rule(more=st.integers(-1, 2))
    def take(self, more: int) -> None:
        count = self.feed.there + more
        if more <= 0:
            assert self.feed.take(count, PAST)
        elif self.failed:
            with pytest.raises(PeerError, match=self.failed):
                self.feed.take(count, PAST)
        elif self.closed:
            assert not self.feed.take(count, PAST)
        else:
            with pytest.raises(DeadlineError, match="late"):
                self.feed.take(count, PAST)

    @precondition(lambda self: self.failed)
    @rule()
    def errors_are_copies(self) -> None:
        seen = []
        for _ in range(2):
            with pytest.raises(MpcError) as caught:
                self.feed.inflow.check()
            seen.append(caught.value)
        assert seen[0] is not seen[1]

    @invariant()
    def over(self) -> None:
        assert self.feed.inflow.over == (self.closed or bool(self.failed))


Endings.TestCase.settings = examples(30)
TestEndings = Endings.TestCase


@pytest.mark.parametrize("ending", ["put", "close", "fail"])
def test_whoever_waits_is_woken(ending: str) -> None:
    feed, told = Counted(), list[object]()

    def wait() -> None:
        try:
            told.append(feed.take(1, time.monotonic() + patient(60)))
        except MpcError as error:
            told.append(type(error))

    waiting = [threading.Thread(target=wait, daemon=True) for _ in range(3)]
    for thread in waiting:
        thread.start()
    {"put": feed.put, "close": feed.inflow.close, "fail": lambda: feed.inflow.fail(SessionError("over"))}[ending]()
    for thread in waiting:
        thread.join(patient(30))
    assert told == [{"put": True, "close": False, "fail": SessionError}[ending]] * 3


@examples(20)
@given(st.lists(st.integers(1, 5), max_size=20))
def test_nothing_that_arrives_is_missed(counts: list[int]) -> None:
    """A taker that is slower or faster than the putter gets as far as there is, then hears that it was closed."""
    feed, reached = Counted(), list[int]()

    def take() -> None:
        while feed.take(len(reached) + 1, time.monotonic() + patient(60)):
            reached.append(1)

    taking = threading.Thread(target=take, daemon=True)
    taking.start()
    for count in counts:
        feed.put(count)
    feed.inflow.close()
    taking.join(patient(30))
    assert not taking.is_alive() and len(reached) == sum(counts)
