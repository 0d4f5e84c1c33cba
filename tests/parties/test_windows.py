"""Parties whose windows of correlations differ: the smallest is in force for all, and nobody waits for another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from mpc.entry import EntryId
from mpc.errors import HandshakeError
from mpc.plan.checking import check_windows
from mpc.plan.segments import segments
from parties.config.models import Limits, PartyConfig
from parties.party.link import SALT_BYTES, Link
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
