"""A party whose clock was ahead, and is set back: what it still does, what it says, and how its operator ends that."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.errors import ConfigError, PolicyError, SessionError, WaitingError
from parties.cli.doctor import examine
from parties.client.consent.requests import decide
from parties.client.session import Session
from parties.config.models import PolicyConfig
from parties.pb import consent_pb2
from tests.support.asking import ANALYST, HOSPITAL, Kept, noised_sum
from tests.support.effort import patient
from tests.support.grants import budget, dp, grant, revocation
from tests.support.logs import lines, log
from tests.support.parties import InProcess, data, tiny_answer

AHEAD = 100.5 * 86_400
"""Seconds; less than certificates last."""
PLAN = noised_sum()
__all__ = ["log"]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    with InProcess(tmp_path, 2) as cluster:
        yield Kept(cluster)


def was_ahead(cluster: InProcess, meanwhile: Callable[[], object] = tuple) -> None:
    """Have the first party's clock be ahead for a while, and set it right; nothing has been looked after meanwhile."""
    times = cluster.nodes[0].vault.times
    times.clock = lambda: time.time() + AHEAD
    with cluster.ledgers[0].writing(durable=True) as database:
        times.now()
        times.store(database)
    meanwhile()
    times.clock = time.time


def ask_operator(cluster: InProcess, accept: bool = False, apart: float = 0) -> Any:
    request = consent_pb2.ClockRequest(accept=accept, at=time.time() + apart)
    return cluster.consent(0, cluster.names[0]).Clock(request)


def approve(cluster: InProcess, request: str, seconds: int) -> None:
    operator = next(client for client in cluster.client_of_party("party-0") if client.name == "party-0")
    decide(operator, request, 5, seconds, "", 30)


def audited(cluster: InProcess, kind: str) -> list[dict[str, Any]]:
    with cluster.ledgers[0].reading() as database:
        rows = [json.loads(row) for (row,) in database.execute("SELECT row FROM audit ORDER BY number")]
    return [row for row in rows if row["kind"] == kind]


def test_what_reads_nothing_at_rest_runs_though_the_clock_is_behind(tmp_path: Path) -> None:
    with InProcess(tmp_path, 2) as cluster:
        was_ahead(cluster)
        with Session(cluster.client(), cluster.compiled()) as session:
            x = data(3)
            [y] = session.run(None, {"x": x})
        assert np.abs(y - tiny_answer(x)).max() < 1e-3


def test_it_is_logged_once(kept: Kept, log: io.StringIO) -> None:
    was_ahead(kept.cluster)
    node = kept.cluster.nodes[0]
    for _ in range(3):
        node.end_overdue()
    [line] = lines(log, "data at rest are not looked after")
    assert "behind the latest time" in line["why"] and "mpc clock" in line["fix"]
    node.vault.times.clock = lambda: time.time() + AHEAD
    for _ in range(3):
        node.end_overdue()
    assert len([line for line in lines(log) if "not behind any more" in line["event"]]) == 1
    node.vault.times.clock = time.time
    node.end_overdue()
    assert len(lines(log, "data at rest are not looked after")) == 2


def test_doctor_says_what_helps(kept: Kept) -> None:
    config = kept.cluster.client().config
    assert all(finding.ok for finding in examine(config) if "clock" in finding.check or "time" in finding.check)
    was_ahead(kept.cluster)
    bad = {finding.check: finding for finding in examine(config) if not finding.ok}
    assert {*bad} == {"party-0 kept time"}
    assert "100 days" in bad["party-0 kept time"].found and "mpc clock" in bad["party-0 kept time"].fix


def test_the_operator_accepts_a_clock_that_is_right_and_nothing_lives_again(kept: Kept) -> None:
    """What had expired by the latest time ends; what was spent, revoked and removed stays, also behind a restart."""
    lasting = int(time.time() + 2 * AHEAD)
    revoked = kept.allow(expires=lasting + 1)
    kept.say(revocation(revoked))
    ended = kept.grant(question=revoked.question)
    shortly = kept.put("shortly", expires=int(time.time()) + 3600)
    kept.ask(PLAN)
    spent = kept.spent()
    assert spent
    was_ahead(kept.cluster)
    with pytest.raises(SessionError, match="behind the latest time") as refused:
        kept.ask(PLAN)
    assert "mpc clock" in (refused.value.remedy or "")
    shown = ask_operator(kept.cluster)
    assert AHEAD - 100 < shown.behind < AHEAD + 1 and not audited(kept.cluster, "clock")
    done = ask_operator(kept.cluster, accept=True)
    assert (done.behind, done.grants, done.objects) == (0, 1, 1)
    [row] = audited(kept.cluster, "clock")
    assert row["latest"] - row["accepted"] > AHEAD - 100

    vault = kept.cluster.nodes[0].vault
    assert vault.manifest(kept.manifest.id) == kept.manifest
    with pytest.raises(SessionError, match="no such object"):
        vault.manifest(shortly.id)
    with pytest.raises(PolicyError, match=r"was revoked|granted analyst nothing"):
        kept.ask(PLAN)
    kept.say(revoked)
    with pytest.raises(PolicyError, match="was revoked"):
        kept.ask(PLAN)
    assert kept.spent() == spent and kept.revealed() == 1

    kept.cluster.crash(0)
    kept.cluster.revive(0)
    assert not ask_operator(kept.cluster).behind and kept.spent() == spent
    kept.say(ended, only=[0])  # its owner may give it anew
    kept.ask(PLAN)
    assert kept.spent() == 2 * spent


def test_sessions_that_were_opened_meanwhile_hold_no_accepted_clock_up(kept: Kept) -> None:
    kept.allow(expires=int(time.time() + 2 * AHEAD))
    kept.ask(PLAN)
    with kept.cluster.ledgers[0].writing() as database:
        database.execute("UPDATE sessions SET opened_at = opened_at + ?", (AHEAD,))
    kept.cluster.crash(0)
    kept.cluster.revive(0)
    assert ask_operator(kept.cluster).behind
    ask_operator(kept.cluster, accept=True)
    kept.cluster.crash(0)
    kept.cluster.revive(0)
    assert not ask_operator(kept.cluster).behind
    kept.ask(PLAN)


def test_approvals_hold_no_longer_for_it(tmp_path: Path) -> None:
    """One that is given while the clock is ahead ends when it would have; none is given while it is behind."""
    policy = PolicyConfig(data_owners=("any",), recipients=(ANALYST,), askers=(ANALYST,))
    with InProcess(tmp_path, 2, policies={0: policy}) as cluster:
        kept = Kept(cluster)
        kept.allow(expires=int(time.time() + 2 * AHEAD))
        times = cluster.nodes[0].vault.times
        times.clock = lambda: time.time() + AHEAD
        with pytest.raises(WaitingError) as caught:
            kept.open(PLAN)
        request = caught.value.request or ""
        approve(cluster, request, 1000)
        kept.ask(PLAN)
        times.clock = time.time
        with pytest.raises(SessionError, match="behind the latest time"):
            approve(cluster, request, 1000)
        ask_operator(cluster, accept=True)
        kept.ask(PLAN)
        times.clock = lambda: time.time() + 1001
        with pytest.raises(WaitingError):
            kept.ask(PLAN)


def test_an_approval_holds_not_while_the_clock_is_behind(tmp_path: Path) -> None:
    """Neither as a session opens nor as a run is told, though nothing at rest is read: nobody can tell when it ends."""
    policy = PolicyConfig(askers=("coordinator",))
    with InProcess(tmp_path, 2, policies={0: policy}) as cluster:
        plan, inputs = cluster.compiled(), {"x": data(3)}
        with pytest.raises(WaitingError) as caught, Session(cluster.client(), plan) as session:
            session.run(None, inputs)
        approve(cluster, caught.value.request or "", int(2 * AHEAD))
        with Session(cluster.client(), plan) as session:
            session.run(None, inputs)
            was_ahead(cluster)
            with pytest.raises(SessionError, match="behind the latest time"):
                session.run(None, inputs)
        with pytest.raises(SessionError, match="behind the latest time"), Session(cluster.client(), plan) as session:
            session.run(None, inputs)
        with cluster.ledgers[0].reading() as database:
            assert database.execute("SELECT used FROM consent_requests").fetchall() == [(1,)]


def test_what_was_revoked_stays_so_though_its_grant_was_forgotten_meanwhile(kept: Kept) -> None:
    """Any owner's word has grants forgotten that ended a month ago by a clock that is ahead."""
    kept.say(budget(2))
    revoked = kept.grant(question=dp(1), expires=int(time.time() + 10 * 86_400))
    kept.say(revocation(revoked), only=[0])
    now = int(time.time() + AHEAD)
    other = grant(owner="clinic", dataset="clinic/x", created=now, not_before=now - 60, expires=now + 3600)

    def speak() -> None:
        kept.say(other, "clinic", only=[0])
        with kept.cluster.ledgers[0].reading() as database:
            assert database.execute("SELECT owner FROM consent_grants").fetchall() == [("clinic",)]

    was_ahead(kept.cluster, speak)
    ask_operator(kept.cluster, accept=True)
    kept.say(revoked, only=[0])
    with pytest.raises(PolicyError, match="was revoked"):
        kept.ask(PLAN)
    assert not kept.revealed()


def test_everybody_reads_that_it_was_accepted_and_nobody_learns_a_name(kept: Kept) -> None:
    kept.allow(expires=int(time.time() + 2 * AHEAD))
    kept.put("hidden", owner="clinic", expires=int(time.time() + 2 * AHEAD))
    was_ahead(kept.cluster)
    ask_operator(kept.cluster, accept=True)
    for who in (HOSPITAL, ANALYST, "clinic"):
        replies = kept.cluster.consent(0, who).Audit(consent_pb2.AuditRequest())
        rows = [json.loads(reply.row) for reply in replies if reply.row]
        [row] = [row for row in rows if row["kind"] == "clock"]
        assert {*row} == {"about", "accepted", "at", "kind", "latest", "nonce"} and row["about"] == []
        assert all(who in row["about"] for row in rows if row["kind"] != "clock")


def test_of_two_who_accept_at_once_one_is_refused(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second would take the difference from approvals once more, and end what was granted anew between."""
    was_ahead(kept.cluster)
    ending, both = kept.cluster.nodes[0].vault.ending, threading.Barrier(2, timeout=patient(20))
    erase = ending.erase

    def together(*args: Any, **more: Any) -> Any:
        both.wait()
        return erase(*args, **more)

    monkeypatch.setattr(ending, "erase", together)
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(ask_operator, kept.cluster, accept=True) for _ in range(2)]
        [error] = [call.exception() for call in calls if call.exception()]
    assert isinstance(error, SessionError) and "not behind" in str(error)
    assert len(audited(kept.cluster, "clock")) == 1 and not ask_operator(kept.cluster).behind


def test_only_the_operator_accepts_and_only_what_its_own_clock_says(kept: Kept) -> None:
    request = consent_pb2.ClockRequest(accept=True, at=time.time())
    with pytest.raises(SessionError, match="not behind"):
        ask_operator(kept.cluster, accept=True)
    was_ahead(kept.cluster)
    for who in (HOSPITAL, "party-1", "coordinator"):
        with pytest.raises(PolicyError, match="not the operator"):
            kept.cluster.consent(0, who).Clock(request)
    for apart in (AHEAD, -AHEAD, 400.0, float("nan"), float("inf")):
        with pytest.raises(SessionError, match="apart from"):
            ask_operator(kept.cluster, accept=True, apart=apart)
    assert ask_operator(kept.cluster).behind and not audited(kept.cluster, "clock")


def test_an_accepted_clock_that_is_not_written_is_not_accepted(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    was_ahead(kept.cluster)

    def fails(*_: object) -> int:
        raise ConfigError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr("parties.party.consent.requests.count_from", fails)
        with pytest.raises(ConfigError):
            ask_operator(kept.cluster, accept=True)
    assert ask_operator(kept.cluster).behind and not audited(kept.cluster, "clock")


def test_a_disk_that_fails_ends_no_daemon_and_is_not_said_each_second(
    kept: Kept, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> bool:
        raise ConfigError("the disk is full")

    node = kept.cluster.nodes[0]
    monkeypatch.setattr("parties.party.consent.requests.has_expired", fails)
    monkeypatch.setattr("parties.party.vault.catalogue.overdue", fails)
    now = time.time() + 120
    for second in range(5):
        node.vault.times.clock = lambda second=second: now + second
        node.end_overdue()
    assert len(lines(log, "requests that have expired are not forgotten yet")) == 1
    assert len(lines(log, "data at rest are not looked after")) == 1
