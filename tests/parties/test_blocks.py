"""Large batches: runs one after another, of which the next is prepared while one is online."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mpc.compiler.roles import Roles
from mpc.errors import MpcError
from parties.agreed.memory import needed_memory
from parties.client.running import feeds
from parties.client.running.participant import Participant
from parties.client.session import Session
from tests.support.parties import PATIENCE, InProcess, data, eventually, id_of, tiny_answer

ROWS = 7


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InProcess]:
    monkeypatch.setattr(feeds, "BLOCK_ROWS", 3)
    with InProcess(tmp_path, 2) as running:
        yield running


def prepared(cluster: InProcess) -> int:
    """The last run that every party has prepared."""
    return min(session.runs.latest for index in (0, 1) for session in cluster.sessions(index).values())


def test_the_next_run_is_prepared_while_one_is_online(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, bool]] = []
    receive = Participant.receive

    def slow(self: Participant, run: int, *rest: object) -> object:
        ahead = min(run + 1, 3)
        seen.append((run, eventually(lambda: prepared(cluster) >= ahead, PATIENCE)))
        return receive(self, run, *rest)

    monkeypatch.setattr(Participant, "receive", slow)
    session = Session(cluster.client(), cluster.compiled(Roles()))
    x = data(ROWS)
    [y] = session.run(None, {"x": x})
    assert np.abs(y - tiny_answer(x)).max() < 1e-3
    assert seen == [(1, True), (2, True), (3, True)]
    assert session.last_run is not None and session.last_run.batch == ROWS
    [again] = session.run(None, {"x": x[:2]})  # nothing was prepared that is not used
    assert np.abs(again - tiny_answer(x[:2])).max() < 1e-3
    session.close()
    assert set(cluster.run_states(0, id_of(session))) == {"revealed"}


@pytest.mark.parametrize(("rows", "ahead"), [((3,), [None] * 3), ((3, 2), [2, 3, None])])
def test_security_active_the_next_run_is_prepared_while_one_is_online_if_both_fit(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch, rows: tuple[int, ...], ahead: list[int | None]
) -> None:
    seen, receive, compiled = [], Participant.receive, cluster.compiled(Roles(security="active"))

    def watched(self: Participant, run: int, *rest: object) -> object:
        seen.append(session.remote.ahead)
        return receive(self, run, *rest)

    monkeypatch.setattr(Participant, "receive", watched)
    monkeypatch.setattr(feeds, "CHECKED_BYTES", sum(needed_memory(compiled.plan, each) for each in rows))
    session, x = Session(cluster.client(), compiled), data(ROWS)
    [y] = session.run(None, {"x": x})
    session.close()
    assert np.abs(y - tiny_answer(x)).max() < 1e-3
    assert seen == ahead


def test_a_failure_ahead_is_told_once_it_is_due(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider is gone after the first run: that run's session is over, and nothing hangs."""
    session = Session(cluster.client(), cluster.compiled(Roles()))
    stopped = threading.Event()
    enter = Participant.enter

    def gone(self: Participant, run: int, *rest: object) -> None:
        if not stopped.is_set():
            stopped.set()
            cluster.stop_provider()
        enter(self, run, *rest)

    monkeypatch.setattr(Participant, "enter", gone)
    with pytest.raises(MpcError, match="provider"):
        session.run(None, {"x": data(ROWS)})
    assert cluster.is_idle()


def test_what_a_run_held_goes_when_the_next_one_is_prepared(cluster: InProcess) -> None:
    """At once, not when Python's collector of cycles comes round: it is hundreds of megabytes."""
    session = Session(cluster.client(), cluster.compiled(Roles()))
    gc.disable()
    try:
        session.run(None, {"x": data(2)})
        runs = [weakref.ref(held.runs.get(1).party) for index in (0, 1) for held in cluster.sessions(index).values()]
        assert len(runs) == 2 and all(run() is not None for run in runs)
        session.run(None, {"x": data(2)})
        assert all(run() is None for run in runs)
    finally:
        gc.enable()
    session.close()
