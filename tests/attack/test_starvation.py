"""Nobody can stop everybody: threads, places and memory of one caller have a bound, and the others have theirs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mpc.compiler.roles import Roles
from mpc.errors import ConfigError, InputError, MpcError, PlanError, PolicyError, SessionError
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan
from parties import entropy
from parties.agreed.memory import parsed_memory, plan_memory, run_memory
from parties.agreed.terms import Terms
from parties.client.cluster import Cluster
from parties.config.models import Limits, PolicyConfig
from parties.party import proposals
from parties.party.stock import ordering
from parties.pb import party_pb2, provider_pb2
from parties.provider import table
from parties.wire.desk import CALLERS, Desk
from parties.wire.status import from_rpc
from tests.parties.test_side_by_side import at_once
from tests.support.parties import (
    COORDINATOR,
    OWNER,
    PATIENCE,
    RECIPIENT,
    SEPARATE,
    InProcess,
    Script,
    data,
    deadlines,
    eventually,
    parts,
    tiny_answer,
)

OTHER = "other-coordinator"
SMALL = Limits(max_sessions=4)
ALONE = Roles(OTHER, OTHER, (OTHER,))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[InProcess]:
    with InProcess(tmp_path, 2, limits=SMALL, deadlines=deadlines(connect=3, setup=30, step=10, submit=20)) as running:
        yield running


def check_a_good_client(cluster: InProcess) -> None:
    """Somebody else opens a session, runs it, and closes it."""
    x = data(1)
    with Cluster(cluster.client(OTHER).config) as client, client.open(cluster.compiled(ALONE)) as session:
        [y] = session.run(None, {"x": x})
    assert np.abs(y - tiny_answer(x)).max() < 1e-3


# ------------------------------------------------------------------------------- threads


def test_a_desk_gives_each_caller_its_share_and_has_threads_for_several() -> None:
    desk = Desk("test", 2)
    assert desk.threads == 2 * CALLERS
    with ExitStack() as held:
        for client in ("a", "a", "b"):
            held.enter_context(desk.place(client))
        with pytest.raises(SessionError, match="2 calls of a"), desk.place("a"):
            pass
        held.enter_context(desk.place("b"))
    with desk.place("a"):
        pass
    with ExitStack() as held:  # all places were given back, and no more than there are
        for client in ("a", "a", "b", "b"):
            held.enter_context(desk.place(client))
        for client in "ab":
            with pytest.raises(SessionError), desk.place(client):
                pass


@contextmanager
def half_open(cluster: InProcess, path: str, caller: str, count: int) -> Iterator[list[grpc.Future]]:
    """Calls whose first message never comes."""
    done = threading.Event()

    def silent() -> Iterator[bytes]:
        done.wait(PATIENCE)
        yield from ()

    call = cluster.channel(caller, "provider" if "Provider" in path else "party-0").stream_unary(path)
    calls = [call.future(silent(), timeout=PATIENCE) for _ in range(count)]
    try:
        yield calls
    finally:
        done.set()
        for each in calls:
            each.cancel()


@pytest.mark.parametrize(
    "method", ["Propose", "Submit", *(pytest.param(name, marks=pytest.mark.slow) for name in ("Status", "Prepare"))]
)
def test_calls_that_say_nothing_hold_their_callers_places_only(cluster: InProcess, method: str) -> None:
    """Also those of methods with one message: gRPC would wait for it in a thread of the server's, for ever."""
    share = 3 * SMALL.max_sessions + 8
    with half_open(cluster, f"/mpc.v1.Party/{method}", RECIPIENT, share + 20) as calls:
        assert eventually(lambda: sum(call.done() for call in calls) >= 20, 5)
        refused = [from_rpc(call.exception(), "party-0", "here") for call in calls if call.done()]  # type: ignore[arg-type]
        told = [error.what for error in refused if isinstance(error, SessionError)]
        assert any(f"{share} calls of {RECIPIENT}" in what for what in told)
        check_a_good_client(cluster)
        assert eventually(lambda: all(call.done() for call in calls))  # after `connect` seconds


def test_who_has_no_part_here_holds_no_place(tmp_path: Path) -> None:
    closed = PolicyConfig(plans=("any",), coordinators=(OTHER,), owners=(OTHER,), recipients=(OTHER,))
    with InProcess(tmp_path, 2, policies={0: closed, 1: closed}, limits=SMALL) as cluster:
        for path in ("/mpc.v1.Party/Submit", "/mpc.v1.Party/Propose", "/mpc.v1.Provider/Deals"):
            with half_open(cluster, path, "stranger", 30) as calls:
                assert eventually(lambda calls=calls: all(call.done() for call in calls))  # type: ignore[misc]
                told = {str(from_rpc(call.exception(), "party-0", "here")) for call in calls}  # type: ignore[arg-type]
                assert len(told) == 1 and ("no part for" in str(told) or "its own parties only" in str(told))
        check_a_good_client(cluster)


def test_results_that_are_waited_for_keep_no_peer_and_no_other_client_out(cluster: InProcess) -> None:
    """Hundreds, by one member: of each run one waits, and Exchange has threads of its own."""
    script = cluster.script().ready()
    requests = [party_pb2.ResultRequest(session_id=script.id, run=1, values=True)] * 300

    def ask(request: party_pb2.ResultRequest) -> MpcError | None:
        try:
            cluster.party(0, RECIPIENT).Result(request)
        except MpcError as error:
            return error
        return None

    with ThreadPoolExecutor(32) as pool:
        asking = [pool.submit(ask, request) for request in requests]
        assert eventually(lambda: sum(each.done() for each in asking) > 30)
        check_a_good_client(cluster)
        assert eventually(lambda: sum(not each.done() for each in asking) <= 1)
        script.enter(1, script.integers(data(1)), OWNER)
        found = [each.result(PATIENCE) for each in asking]
    assert sum(error is None for error in found) == 1
    errors = [error for error in found if error is not None]
    assert all(isinstance(error, SessionError) for error in errors)
    assert any("asked for the result of run 1 again" in error.what for error in errors)


def test_health_is_answered_while_every_other_place_is_taken(cluster: InProcess) -> None:
    with half_open(cluster, "/mpc.v1.Party/Propose", RECIPIENT, 100):
        stub = health_pb2_grpc.HealthStub(cluster.channel(OTHER, "party-0"))
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status == 1


# -------------------------------------------------------------------------------- memory


def test_an_input_is_held_once_however_often_it_is_sent(cluster: InProcess) -> None:
    script = cluster.script().ready()
    script.everyone(lambda i: script.masks(i, 1, OWNER))
    go = threading.Event()

    def slowly() -> Iterator[party_pb2.SubmitPart]:
        yield from parts(script.id, 1, script.input_wire, b"")
        go.wait(PATIENCE)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: cluster.party(0, OWNER).Submit(slowly()))
        assert eventually(lambda: bool(cluster.of(0, script.id).runs.get(1).entry.arriving))
        for whole in (False, True):
            script.whole = whole
            with pytest.raises(InputError, match="is being submitted"):
                script.submit(0, 1, script.input_wire, bytes(24), OWNER)
        go.set()
        with pytest.raises(MpcError, match="0 of 24 bytes"):
            first.result(PATIENCE)
    script.whole = False
    script.submit(0, 1, script.input_wire, bytes(24), OWNER)  # who was cut off may try again


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How long each plan was that was parsed."""
    parse, seen = parse_plan, list[int]()

    def watched(given: bytes, known: dict[str, Any]) -> Plan:
        seen.append(len(given))
        return parse(given, known)

    for place in (proposals, table):
        monkeypatch.setattr(place, "parse_plan", watched)
    yield seen
    for place in (proposals, table):
        monkeypatch.setattr(place, "parse_plan", parse)


def test_no_plan_is_parsed_for_who_may_not_propose_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policies = {
        0: PolicyConfig(plans=("any",), coordinators=(OTHER,), owners=("any",), recipients=("any",)),
        1: PolicyConfig(plans=("ab" * 32,), coordinators=("any",), owners=("any",), recipients=("any",)),
    }
    with InProcess(tmp_path, 2, policies=policies) as cluster:
        plan = cluster.compiled().plan.canonical
        with counted(monkeypatch) as parsed:
            with pytest.raises(PolicyError, match="does not allow the coordinator"):
                cluster.party(0).Propose(party_pb2.ProposeRequest(plan=plan))
            with pytest.raises(PolicyError, match="does not allow the plan"):
                cluster.party(1).Propose(party_pb2.ProposeRequest(plan=plan))
            for nonsense in (b"", b"[" * 100_000, b"{" * 1_000_000):
                with pytest.raises(PolicyError):
                    cluster.party(0).Propose(party_pb2.ProposeRequest(plan=nonsense))
            assert parsed == []


def test_a_plan_of_too_many_reads_is_refused_while_another_is_parsed(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else waits for its refusal, since it is counted before its turn; and no gate of it is made."""
    content, node = json.loads(cluster.compiled().plan.canonical), cluster.nodes[0]
    join = {"kind": "concat", "name": "c", "out": "c", "xs": ["x"] * 1024, "axis": 0}
    content["gates"] += [{**join, "name": f"c{number}"} for number in range(1600)]
    plan = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    assert 6 << 20 < len(plan) < 8 << 20
    with counted(monkeypatch) as parsed, node.proposals.parsing:
        with pytest.raises(PlanError, match=r"1,638,\d\d\d reads of wires by its gates, where 65,536 are possible"):
            cluster.party(0).Propose(party_pb2.ProposeRequest(plan=plan))
        assert parsed == []


def test_a_plan_has_a_size_that_is_refused_unread(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    with counted(monkeypatch) as parsed:
        with pytest.raises(PlanError, match="8,388,609 bytes; this party accepts 8,388,608"):
            cluster.party(0).Propose(party_pb2.ProposeRequest(plan=b" " * ((8 << 20) + 1)))
        with pytest.raises(
            PlanError, match="raise limits.max_plan_bytes of every party and of the provider to 16,777,216"
        ):
            cluster.party(0).Propose(party_pb2.ProposeRequest(plan=b" " * (9 << 20)))  # gRPC does not even take it in
        assert parsed == []


def test_the_provider_parses_a_sessions_plan_once_and_none_that_the_terms_do_not_name(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = cluster.script()
    nonces = script.propose()
    with counted(monkeypatch) as parsed:
        request = script.opening(nonces)
        script.everyone(lambda i: cluster.party(i).Open(request))
        assert parsed == [len(script.plan.canonical)]
        terms = provider_pb2.SessionTerms(plan=b"{" * 100_000, parties=cluster.names, nonces=nonces)
        with pytest.raises(MpcError, match="does not belong to these terms"):
            cluster.dealer("party-0").deal(
                provider_pb2.DealRequest(session_id=bytes(range(32)), run=0, batch=1, terms=terms)
            )
        assert len(parsed) == 1


def test_parties_that_come_to_the_provider_at_once_have_a_plan_parsed_once(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second comes while the plan is being parsed for the first."""
    script, parse, digested = cluster.script(), parse_plan, table.digest_of
    request = script.opening(script.propose())
    came, parsed = list[int](), list[int]()

    def coming(given: bytes) -> bytes:
        came.append(len(given))
        return digested(given)

    def watched(given: bytes, known: dict[str, Any]) -> Plan:
        parsed.append(len(given))
        assert eventually(lambda: len(came) == 2)
        return parse(given, known)

    monkeypatch.setattr(table, "digest_of", coming)
    monkeypatch.setattr(table, "parse_plan", watched)
    script.everyone(lambda i: cluster.party(i).Open(request))
    assert parsed == [len(script.plan.canonical)]


def test_proposals_take_memory_that_is_counted_and_give_way_to_ones_own_only(tmp_path: Path) -> None:
    limits = Limits(max_sessions=4, max_memory_bytes=1 << 24)
    with InProcess(tmp_path, 2, limits=limits) as cluster:
        node, plan = cluster.nodes[0], cluster.compiled().plan.canonical
        each = parsed_memory(len(plan))
        other = node.propose(plan, OTHER, b"k" * 32, ahead=True)
        for number in range(100):
            node.propose(plan, COORDINATOR, b"k" * 32, ahead=True)
            assert node.budget.taken == each * (1 + min(number + 1, 16))
        kept = node.proposals.claim(other, OTHER, cluster.compiled().plan.digest)
        assert kept.plan.canonical == plan
        node.proposals.give_back(kept)
        node.proposals.drop_old(time.monotonic() + cluster.deadlines.connect + cluster.deadlines.setup + 1)
        assert node.budget.taken == 0 and len(node.proposals) == 0
        full = InProcess.script(cluster).open()
        assert node.budget.taken > 0
        full.everyone(lambda i: cluster.party(i).Close(party_pb2.CloseRequest(session_id=full.id)))
        assert eventually(lambda: node.budget.taken == 0)


def test_what_is_dealt_ahead_is_counted_while_it_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with InProcess(tmp_path, 2) as cluster, Cluster(cluster.client().config) as client:
        taken: list[int] = []
        write = ordering.write_file

        def watched(path: Path, *content: Any) -> int:
            if path.suffix == ".bundle":
                [node] = [node for node in cluster.nodes if path.is_relative_to(node.config.data_dir)]
                taken.append(node.budget.taken)
            return write(path, *content)

        monkeypatch.setattr(ordering, "write_file", watched)
        [stock] = client.deal(cluster.compiled().plan, runs=2, batch=5)
        assert len(taken) == 6 and max(taken) > 0
        assert all(node.budget.taken == 0 for node in cluster.nodes)
        client.drop(stock)


def test_runs_that_are_prepared_and_never_entered_leave_the_others_their_memory(tmp_path: Path) -> None:
    """One client prepares as many as it may, in two sessions; another one's run, as large as those, finds room."""
    rows, large = 1024, Limits(max_memory_bytes=1 << 50)
    with InProcess(tmp_path / "plan", 2) as made:
        plan = made.compiled().plan
    each = run_memory(plan, rows, large)
    once = 2 * (plan_memory(plan, large) + parsed_memory(len(plan.canonical)))
    limits = Limits(max_memory_bytes=3 * (each + once), max_memory_bytes_per_caller=2 * each + once)
    with InProcess(tmp_path / "run", 2, limits=limits) as cluster:
        scripts, refused = [cluster.script().open() for _ in range(2)], list[str]()
        for script in scripts:
            script.enter_weights()
            for run in range(1, 4):
                try:
                    script.prepare(run, rows)
                except PlanError as error:
                    refused.append(str(error))
                    break
        assert len(refused) == 2 and all(f"runs of {COORDINATOR} need more memory" in why for why in refused)
        x = data(rows)
        with Cluster(cluster.client(OTHER).config) as client, client.open(cluster.compiled(ALONE)) as session:
            [y] = session.run(None, {"x": x})
        assert np.abs(y - tiny_answer(x)).max() < 1e-3
        for script in scripts:
            script.everyone(lambda i, id=script.id: cluster.party(i).Close(party_pb2.CloseRequest(session_id=id)))
        assert eventually(lambda: all(node.budget.taken == 0 for node in cluster.nodes))


# -------------------------------------------------------------------------------- places


def test_a_reserved_place_that_is_not_used_is_free_again(tmp_path: Path) -> None:
    quick = deadlines(connect=1, setup=30, step=10, submit=20)
    with InProcess(tmp_path, 2, limits=Limits(max_sessions=2), deadlines=quick) as cluster:
        for _ in range(2):
            cluster.script().propose()
        with pytest.raises(SessionError, match="2 open sessions, as many as it allows"):
            cluster.script().propose()
        assert eventually(lambda: not isinstance(at_once([lambda: cluster.script().open()])[0], MpcError))


def test_one_party_cannot_take_the_providers_places(cluster: InProcess) -> None:
    """It opens sessions that no other party knows of; those that all have joined still find room."""
    plan = cluster.compiled().plan

    def alone() -> None:
        nonces = tuple(entropy.token(32) for _ in cluster.names)
        terms = Terms(plan.digest, "provider", cluster.names, nonces)
        agreed = provider_pb2.SessionTerms(plan=plan.canonical, parties=cluster.names, nonces=nonces)
        request = provider_pb2.DealRequest(session_id=terms.session_id, run=0, batch=1, terms=agreed)
        cluster.dealer("party-1").deal(request)

    for _ in range(SMALL.max_sessions):
        alone()
    with pytest.raises(SessionError, match="that only party-1 has joined"):
        alone()
    opening = cluster.nodes[1].supply.fetch_weights

    def later(*arguments: Any) -> Any:
        """As party-1's quota is used up, party-0 has to come first."""
        assert eventually(lambda: len(cluster.provider.sessions()) > SMALL.max_sessions)
        return opening(*arguments)

    cluster.nodes[1].supply.fetch_weights = later  # type: ignore[method-assign]
    check_a_good_client(cluster)


# ------------------------------------------------------------------------ disks and ends


def test_a_disk_that_is_slow_stops_nobody_else(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """One session waits for the ledger while it is opened: others are found, run and closed meanwhile."""
    script: Script = cluster.script().started()
    go, reached = threading.Event(), threading.Event()
    enter = cluster.ledgers[0].open_session

    def slow(session_id: bytes, *rest: Any) -> None:
        reached.set()
        assert go.wait(PATIENCE)
        enter(session_id, *rest)

    monkeypatch.setattr(cluster.ledgers[0], "open_session", slow)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: cluster.script().open())
        assert reached.wait(PATIENCE)
        assert len(script.finish()) == 2
        assert cluster.party(0).Describe(party_pb2.DescribeRequest()).open_sessions == 1
        for node in cluster.nodes:
            node.end_overdue()
        script.everyone(lambda i: cluster.party(i).Close(party_pb2.CloseRequest(session_id=script.id)))
        go.set()
        waiting.result(PATIENCE)


def test_a_disk_that_is_slow_keeps_nobody_from_asking(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one session too: its status is told, and deadlines are watched, while masks wait for `burnt`."""
    script = cluster.script().ready()
    go, reached = threading.Event(), threading.Event()
    advance = cluster.ledgers[0].advance

    def slow(*arguments: Any, **options: Any) -> None:
        reached.set()
        assert go.wait(PATIENCE)
        advance(*arguments, **options)

    monkeypatch.setattr(cluster.ledgers[0], "advance", slow)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: script.enter(1, script.integers(data(1)), OWNER))
        assert reached.wait(PATIENCE)
        status = cluster.party(0, OWNER).Status(party_pb2.StatusRequest(session_id=script.id, run=1))
        assert list(status.entering) == [OWNER]
        assert len(cluster.party(0).Sessions(party_pb2.SessionsRequest())) == 1
        cluster.nodes[0].end_overdue()
        go.set()
        waiting.result(PATIENCE)
    assert len(script.finish()) == 2


def test_a_session_is_over_whatever_the_disk_says(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk when it is closed: the caller is told, and no place and no memory stays taken."""
    script = cluster.script().open()

    def full(*_: object) -> None:
        raise ConfigError("the disk is full")

    monkeypatch.setattr(cluster.ledgers[0], "close_session", full)
    with pytest.raises(ConfigError):
        cluster.party(0).Close(party_pb2.CloseRequest(session_id=script.id))
    assert script.id not in cluster.sessions(0) and cluster.nodes[0].budget.taken == 0
    check_a_good_client(cluster)


def test_a_party_that_drains_says_so_and_opens_nothing_more(cluster: InProcess) -> None:
    script = cluster.script()
    nonces = script.propose()
    cluster.servers["party-0"].drain()
    stub = health_pb2_grpc.HealthStub(cluster.channel(OTHER, "party-0"))
    states = health_pb2.HealthCheckResponse
    assert stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status == states.NOT_SERVING
    cluster.servers["party-0"].set_health(True)
    assert stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status == states.NOT_SERVING
    cluster.nodes[0].stop()
    with pytest.raises(SessionError, match="this party is shutting down"):
        cluster.party(0).Open(script.opening(nonces))
    with pytest.raises(SessionError, match="party-0: this party is shutting down"):
        cluster.script(SEPARATE).propose()
