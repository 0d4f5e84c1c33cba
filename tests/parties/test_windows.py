"""Parties whose windows of correlations differ: the smallest is in force for all, and nobody waits for another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import pytest

from mpc.entry import WEIGHTS, EntryId
from mpc.errors import HandshakeError, PlanError
from mpc.plan.checking import check_windows
from mpc.plan.cost import plan_cost
from mpc.plan.plan import Security
from mpc.plan.segments import segments
from parties.client.running.patience import until_dealt
from parties.config.models import Limits, PartyConfig
from parties.party.life import SessionLife
from parties.party.link import SALT_BYTES, Link
from parties.party.run import Run
from parties.party.runs import Runs
from parties.pb.party_pb2 import Hello
from tests.support.parties import OWNER, SEPARATE, InProcess, Script, data

SMALL = Limits(max_sessions=256, max_window_bytes=1)


class Uneven(InProcess):
    """party-0 has room for all of a run; party-1, which run 1 is corrected at, and the provider for a segment."""

    def party_config(self, index: int) -> PartyConfig:
        config = super().party_config(index)
        return config.model_copy(update={"limits": Limits(max_sessions=256)}) if index == 0 else config


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uneven]:
    with Uneven(tmp_path_factory.mktemp("cluster"), 2, limits=SMALL) as running:
        yield running


def test_the_smallest_window_is_in_force_for_every_party(cluster: Uneven) -> None:
    """A party with a larger one would wait for segments that the other reads only once the run goes on."""
    compiled = cluster.compiled(SEPARATE)
    script = Script(cluster, replace(compiled, plan=compiled.plan.with_segments(1))).ready()
    assert len(segments(script.plan.bind(1), EntryId(1))) > 2
    sessions = [cluster.of(index, script.id) for index in range(2)]
    assert [session.window for session in sessions] == [1, 1]
    assert not any(session.runs.get(1).whole for session in sessions), "one holds more ahead than the other has"
    script.enter(1, script.integers(data(1)), OWNER)
    assert len(script.finish()) == 2


def test_a_checked_run_of_one_window_is_prepared_whole(cluster: Uneven, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it is held until its check, so nothing is saved by preparing it late, whatever the windows are."""
    monkeypatch.setattr("mpc.plan.segments.SEGMENT_BYTES", 1)
    script = Script(cluster, cluster.compiled(replace(SEPARATE, security="active"))).ready()
    assert len(segments(script.plan.bind(1), EntryId(1))) > 2
    assert len(check_windows(script.plan.bind(1))) == 1
    assert all(cluster.of(index, script.id).runs.get(1).whole for index in range(2))
    script.enter(1, script.integers(data(1)), OWNER)
    assert len(script.finish()) == 2


def test_a_greeting_without_a_window_is_malformed() -> None:
    own = Hello(protocol=1, session_id=bytes(32), salt=bytes(SALT_BYTES), window=7)
    link = Link("party-1", own, lambda error: None, lambda name: None, "coordinator")
    with pytest.raises(HandshakeError, match="malformed"):
        link.check(Hello(protocol=1, session_id=bytes(32), salt=bytes(SALT_BYTES)))
    link.check(Hello(protocol=1, session_id=bytes(32), salt=bytes(SALT_BYTES), window=9))
    assert link.peer_window == 9


@dataclass
class Dealt:
    """A run of which not all is here."""

    started: bool
    looks: int = 0

    @property
    def whole(self) -> bool:
        self.looks += 1
        return self.looks > 3


@pytest.mark.parametrize("started", [False, True])
def test_the_next_run_waits_for_one_that_computes_however_long_that_is_dealt(started: bool) -> None:
    """One that is not begun would stay as it is: its window is full."""
    life, run = SessionLife(), Dealt(started)
    life.move("open")
    runs = Runs(life, lambda count: None)
    runs.kept[1] = cast(Run, run)
    if started:
        runs.await_whole(1, 0.0)
        assert run.whole and run.looks > 3
        return
    with pytest.raises(PlanError, match="run 2 is to be prepared while run 1 is still being dealt"):
        runs.await_whole(1, 0.0)


SHORT, LONG = 60.0, 1 << 20


@pytest.mark.parametrize("security", ["passive", "active"])
def test_a_client_waits_longer_where_more_is_dealt(
    cluster: Uneven, security: Security, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second a MiB: all of it where that is checked before inputs, else what a window holds; and no segments."""
    plan = cluster.compiled(replace(SEPARATE, security=security)).plan
    cut, run = plan.with_segments(1), EntryId(1)
    assert until_dealt(SHORT, plan, WEIGHTS) < SHORT + 0.01
    assert SHORT < until_dealt(SHORT, cut, run) < SHORT + 0.01
    rows = 3 * LONG // plan_cost(plan).dealt
    assert 2.9 < until_dealt(SHORT, cut, run, rows) - SHORT < 3.1
    monkeypatch.setattr("parties.client.running.patience.WINDOW", LONG)
    assert round(until_dealt(SHORT, cut, run, rows) - SHORT, 1) == (1.0 if security == "passive" else 3.0)
