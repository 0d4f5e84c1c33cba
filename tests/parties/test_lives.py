"""How long sessions live: as long as their coordinator; who sees them, who ends them, how many there are."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.compiler.roles import Roles
from mpc.errors import MpcError, PolicyError, SessionError
from parties.client.cluster import Cluster
from parties.config.load import dump_toml
from parties.config.models import Limits
from parties.party.delivery import Delivery
from parties.pb import party_pb2
from tests.parties.test_side_by_side import at_once
from tests.support.effort import patient
from tests.support.parties import (
    COORDINATOR,
    MODEL_OWNER,
    OWNER,
    PATIENCE,
    RECIPIENT,
    SEPARATE,
    InProcess,
    data,
    deadlines,
    eventually,
    id_of,
    tiny_answer,
)
from tests.support.parties_commands import mpc_here

SHORT = deadlines(connect=10, setup=30, step=10, submit=15, grace=1)
BOB = "bob"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("cluster"), 2, deadlines=SHORT) as running:
        yield running


def tick(cluster: InProcess) -> None:
    for node in cluster.nodes:
        node.end_overdue()


def gone(cluster: InProcess, session_id: bytes) -> bool:
    tick(cluster)
    return all(session_id not in cluster.sessions(index) for index in range(len(cluster.nodes)))


def quiet(cluster: InProcess) -> InProcess:
    """The cluster, once no session of another test is left in it."""
    assert eventually(lambda: tick(cluster) or not any(node.open_sessions() for node in cluster.nodes))
    return cluster


def client_of(cluster: InProcess, name: str = COORDINATOR) -> Cluster:
    return Cluster(cluster.client(name).config)


# ------------------------------------------------------------------------------- leases


def test_a_session_ends_with_its_coordinator(cluster: InProcess) -> None:
    script = cluster.script().open().enter_weights()
    assert eventually(lambda: gone(cluster, script.id))
    refused = []
    for index in range(2):
        with pytest.raises(SessionError, match="coordinator") as caught:
            script.masks(index, 1, MODEL_OWNER)
        refused.append(caught.value)
    found = [each for each in refused if "coordinator, who coordinates the session, is gone" in str(each)]
    assert found  # by one party or both: a party may hear it of the other first
    assert all(each.peer == COORDINATOR and "deadlines.grace" in str(each.cause) for each in found)


def test_a_client_that_lives_and_says_nothing_keeps_its_session(cluster: InProcess) -> None:
    with client_of(cluster) as client:
        session = client.open(cluster.compiled())
        assert not eventually(lambda: gone(cluster, id_of(session)), 3)  # of its grace
        x = data(1)
        assert np.abs(session.run(None, {"x": x})[0] - tiny_answer(x)).max() < 1e-3


def test_a_client_that_waits_for_a_slow_party_is_not_gone_for_the_others(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One party opens for longer than the grace, as one whose provider is slow; the other has opened, and waits."""
    slow, go = cluster.nodes[0].supply, threading.Event()
    fetch = slow.fetch_weights

    def late(*what: Any) -> Delivery:
        assert go.wait(PATIENCE)
        return fetch(*what)

    def kept(index: int) -> bool:
        tick(cluster)
        [life] = [session.life for session in cluster.sessions(index).values()]
        assert life.state == "open"
        return life.renewed_at - life.opened_at > 2 * SHORT.grace

    monkeypatch.setattr(slow, "fetch_weights", late)
    with client_of(quiet(cluster)) as client, ThreadPoolExecutor(1) as pool:
        opening = pool.submit(client.open, cluster.compiled())
        try:
            assert eventually(lambda: any(each.life.state == "open" for each in cluster.sessions(1).values()))
            assert eventually(lambda: kept(1))
        finally:
            go.set()
        x = data(1)
        assert np.abs(opening.result(PATIENCE).run(None, {"x": x})[0] - tiny_answer(x)).max() < 1e-3


def test_a_brief_loss_of_the_connection_ends_nothing(cluster: InProcess) -> None:
    """Every other sign of life is lost, as if connections came and went."""
    with client_of(cluster) as client:
        session = client.open(cluster.compiled())
        party, lost = client.parties.clients[0], []
        begin = party.begin

        def flaky(method: str, request: object, seconds: float, *more: object) -> object:
            if method == "Renew" and len(lost) % 2 == 0:
                lost.append(method)
                raise SessionError("lost, for this test")
            lost.append(method)
            return begin(method, request, seconds, *more)

        party.begin = flaky  # type: ignore[method-assign]
        assert eventually(lambda: gone(cluster, id_of(session)) or len(lost) > 12)
        assert not gone(cluster, id_of(session))


def test_a_session_object_that_is_dropped_is_not_kept(cluster: InProcess) -> None:
    with client_of(cluster) as client:
        remote = cluster.session(client.parties)
        session_id = remote.id
        del remote
        assert eventually(lambda: gone(cluster, session_id))


def test_outputs_are_kept_for_those_who_have_yet_to_fetch_them(cluster: InProcess) -> None:
    """The coordinator is gone right after the run; the recipient comes later than the grace."""
    script = cluster.script().started()
    assert eventually(lambda: all(run_is_over(cluster, i, script.id) for i in range(2)))
    assert not eventually(lambda: gone(cluster, script.id), 1.5)  # longer than a coordinator may be silent
    assert len(script.finish()) == 2
    assert not gone(cluster, script.id)  # the owner was not told yet
    script.everyone(lambda i: script.result(i, 1, OWNER))
    assert eventually(lambda: gone(cluster, script.id))


def run_is_over(cluster: InProcess, index: int, session_id: bytes) -> bool:
    return cluster.of(index, session_id).runs.get(1).done.is_set()


def test_they_are_not_kept_for_ever(tmp_path: Path) -> None:
    quick = SHORT.model_copy(update={"submit": patient(2), "grace": patient(0.5)})
    with InProcess(tmp_path, 2, deadlines=quick) as own:
        script = own.script().started()
        assert eventually(lambda: gone(own, script.id))


def test_a_coordinator_that_owes_an_input_keeps_nothing_by_it(cluster: InProcess) -> None:
    """It asked for masks, and died: nobody waits for the input's own deadline, which is longer."""
    script = cluster.script(Roles(COORDINATOR, COORDINATOR, (COORDINATOR,)))
    script.open()
    script.enter(0, script.compiled.weights, COORDINATOR)
    script.prepare(1)
    script.everyone(lambda i: script.masks(i, 1, COORDINATOR))
    started = time.monotonic()
    assert eventually(lambda: gone(cluster, script.id))
    assert time.monotonic() - started < SHORT.submit


# ------------------------------------------------------------------------------ how many


@pytest.mark.parametrize("clients", [1, 4])
def test_twenty_at_once_are_sixteen_answers_and_four_refusals(tmp_path: Path, clients: int) -> None:
    """At once, and with the true cause at each: nobody blames a party that is merely full."""
    with InProcess(tmp_path, 2) as own:
        names = [f"client-{number}" for number in range(clients)]
        connected = [client_of(own, name) for name in names]
        compiled = [own.compiled(Roles(name, name, (name,))) for name in names]
        x = data(1)

        def one(number: int) -> object:
            session = connected[number % clients].open(compiled[number % clients])
            [y] = session.run(None, {"x": x})
            return session, y

        started = time.monotonic()
        found = at_once([lambda number=number: one(number) for number in range(20)])  # type: ignore[misc]
        refused = [error for error in found if isinstance(error, MpcError)]
        answers = [y for _, y in (each for each in found if not isinstance(each, MpcError))]
        assert len(answers) == 16 and len(refused) == 4, refused
        assert all(np.abs(y - tiny_answer(x)).max() < 1e-3 for y in answers)
        for error in refused:
            assert isinstance(error, SessionError) and "16 open sessions, as many as it allows" in error.what, error
            assert "not running" not in str(error)
        assert time.monotonic() - started < PATIENCE
        del found
        for client in connected:
            client.close()
        assert own.is_idle()


def test_one_caller_cannot_take_all_places(tmp_path: Path) -> None:
    with InProcess(tmp_path, 2, limits=Limits(max_sessions=4, max_sessions_per_caller=3)) as own:
        with client_of(own) as greedy, client_of(own, BOB) as other:
            kept = [greedy.open(own.compiled()) for _ in range(3)]
            with pytest.raises(SessionError, match="has 3 open sessions at party-0, as many as one caller may have"):
                greedy.open(own.compiled())
            mine = other.open(own.compiled(Roles(BOB, BOB, (BOB,))))
            x = data(1)
            assert np.abs(mine.run(None, {"x": x})[0] - tiny_answer(x)).max() < 1e-3
            kept.pop().close()
            kept.append(greedy.open(own.compiled()))


def test_a_party_that_does_not_open_is_not_waited_for(tmp_path: Path) -> None:
    """The others would wait for its greeting until a deadline; they are called off, and the refusal is what is said."""
    with InProcess(tmp_path, 3) as own, client_of(own) as client:
        node = own.nodes[2]

        def full(*_: object, **__: object) -> object:
            raise SessionError("party-2 is full, for this test")

        node.slots.keep = full  # type: ignore[method-assign]
        started = time.monotonic()
        with pytest.raises(SessionError, match="party-2 is full"):
            client.open(own.compiled())
        assert time.monotonic() - started < own.deadlines.connect
        assert own.is_idle()


# ----------------------------------------------------------------------------- operators


def listed(cluster: InProcess, index: int, caller: str) -> list[bytes]:
    replies = cluster.party(index, caller).Sessions(party_pb2.SessionsRequest())
    return [reply.session_id for reply in replies]


def test_who_sees_and_ends_which_sessions(cluster: InProcess) -> None:
    script = quiet(cluster).script(SEPARATE).open()
    other = cluster.script(SEPARATE).open(BOB)
    assert {script.id} == set(listed(cluster, 0, COORDINATOR)) and listed(cluster, 0, BOB) == [other.id]
    assert {script.id, other.id} == set(listed(cluster, 0, "party-0"))
    assert listed(cluster, 0, RECIPIENT) == [] and listed(cluster, 0, OWNER) == []
    for stranger in ("party-1", "provider"):
        with pytest.raises(PolicyError):
            listed(cluster, 0, stranger)
    request = party_pb2.EndRequest(session_id=other.id)
    for stranger in (COORDINATOR, RECIPIENT):
        with pytest.raises(SessionError, match="no open session of that id"):
            cluster.party(0, stranger).End(request)
    cluster.party(0, "party-0").End(request)
    assert cluster.has_ended(other.id)
    with pytest.raises(SessionError, match="the operator of party-0 ended the session"):
        other.masks(0, 1, MODEL_OWNER)
    cluster.party(1).End(party_pb2.EndRequest(session_id=script.id))
    assert cluster.has_ended(script.id)


def test_the_command(cluster: InProcess, tmp_path: Path) -> None:
    mine, operators = tmp_path / "cluster.toml", tmp_path / "party.toml"
    mine.write_text(dump_toml(cluster.client().config))
    operators.write_text(dump_toml(cluster.party_config(1)))
    script, other = quiet(cluster).script().open(), cluster.script().open(BOB)
    told = mpc_here("sessions", "--cluster", mine, "--json")
    assert told.returncode == 0, told.stderr
    [found] = json.loads(told.stdout)["sessions"]
    assert found["session"] == script.id.hex() and found["parties"] == ["party-0", "party-1"]
    assert (found["coordinator"], found["state"], found["runs"]) == (COORDINATOR, "open", 0)
    assert script.id.hex()[:16] in mpc_here("sessions", "--cluster", mine).stdout
    wrong = mpc_here("sessions", "--cluster", mine, "--abort", other.id.hex())
    assert wrong.returncode == 2 and "no open session" in wrong.stderr
    short = mpc_here("sessions", "--cluster", mine, "--abort", script.id.hex()[:4])
    assert short.returncode == 2 and "more of its digits" in short.stderr
    done = mpc_here("sessions", "--party", operators, "--abort", other.id.hex()[:10], "--abort", script.id.hex()[:8])
    assert done.returncode == 0 and done.stderr.count("ended session") == 2, done.stderr
    assert cluster.is_idle()
    assert "no open sessions" in mpc_here("sessions", "--cluster", mine).stderr


def test_of_a_party_that_is_gone_the_others_are_shown(tmp_path: Path) -> None:
    with InProcess(tmp_path, 2) as own:
        script = own.script().open()
        own.crash(1)
        path = tmp_path / "cluster.toml"
        path.write_text(dump_toml(own.client().config))
        assert eventually(lambda: script.id not in own.sessions(0))  # its link is lost, and the log says so
        told = mpc_here("sessions", "--cluster", path, "--json")
        assert told.returncode == 6 and "party-1" in told.stderr
        [answer] = [line for line in told.stdout.splitlines() if line.startswith("{")]  # parties in here log there too
        shown = json.loads(answer)
        assert shown["sessions"] == [] and shown["error"]["peer"] == "party-1"
