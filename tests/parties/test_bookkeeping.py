"""What a run does beside its arithmetic: nothing is computed again, calls are joined, and few runs wait for a disk."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.compiler.compile import Compiled
from mpc.correlations import Bundle, BundleId
from mpc.errors import MpcError, PolicyError, SessionError
from mpc.plan import cost
from mpc.plan.cost import plan_schedule
from mpc.plan.plan import Plan
from parties import Session
from parties.agreed.manifest import Manifest
from parties.client.channels import Parties, PartyClient
from parties.client.conversation import Conversation
from parties.client.running.entered import place_of
from parties.client.running.handed import HandedOver
from parties.party.ledger.burning import BurntAhead
from parties.party.ledger.states import RunState
from parties.party.services import PartyService
from parties.pb import party_pb2
from tests.support.layer import X, compile_layer, run
from tests.support.parties import COORDINATOR, OWNER, PATIENCE, InProcess, data, eventually, id_of


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compile_layer(tmp_path_factory.mktemp("model"))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[InProcess]:
    with InProcess(tmp_path / "cluster", 2) as made:
        yield made


def last_entered(client: Parties, session_id: bytes) -> int:
    """The last run that the client's own list has of a session."""
    with closing(sqlite3.connect(place_of(client.config))) as reader:
        query = "SELECT max(last) FROM entered WHERE session = ?"
        return int(reader.execute(query, (session_id,)).fetchone()[0])


def counting(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, counts: Counter[str]) -> None:
    plain = getattr(owner, name)

    def counted(*args: Any, **more: Any) -> Any:
        counts[name] += 1
        return plain(*args, **more)

    monkeypatch.setattr(owner, name, counted)


class Names:
    """A stub of which every call is its name."""

    def __getattr__(self, name: str) -> str:
        return name


def test_a_second_run_computes_no_cost_again_and_asks_each_party_once(
    cluster: InProcess, compiled: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the client, the parties and the provider, which are one process here."""
    counts: Counter[str] = Counter()
    called: list[str] = []
    asked: list[list[str]] = []

    def naming(method: str) -> None:
        plain = getattr(PartyClient, method)

        def named(party: PartyClient, call: Callable[[Any], Any], *rest: Any) -> Any:
            called.append(call(Names()))
            return plain(party, call, *rest)

        monkeypatch.setattr(PartyClient, method, named)

    def ask(conversation: Conversation[Any, Any], part: party_pb2.CoordinatePart, seconds: float) -> Any:
        asked.append([field.name for field, _ in part.ListFields() if field.name != "seconds"])
        return plain_ask(conversation, part, seconds)

    with Session(cluster.client(), compiled) as session:
        plain_ask = Conversation.ask
        monkeypatch.setattr(Conversation, "ask", ask)
        for method in ("begin", "stream", "converse"):
            naming(method)
        run(session)
        assert called == ["Coordinate"] * 2, "the session's first run opens one call to each party"
        counting(monkeypatch, cost, "gate_cost", counts)
        counting(monkeypatch, cost, "schedule", counts)
        counting(monkeypatch, Plan, "_bind", counts)
        for kind in {type(gate) for gate in compiled.plan.gates}:
            counting(monkeypatch, kind, "correlations", counts)
        called.clear()
        asked.clear()
        run(session)
        assert counts == Counter()
        assert called == [], "the calls of the first run are open"
        assert asked == [each for each in (["prepare"], ["inputs", "result"]) for _ in (0, 1)]
        session.run(None, {"x": np.repeat(X, 2, axis=0)})
        assert counts["_bind"] and counts["schedule"], "another batch is bound and scheduled anew"


def test_masks_are_looked_at_while_another_party_still_prepares(
    tmp_path: Path, compiled: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = threading.Event()

    class Last(PartyService):
        def Prepare(self, request: party_pb2.PrepareRequest, context: Any) -> party_pb2.PrepareReply:
            reply = super().Prepare(request, context)
            assert seen.wait(PATIENCE)
            return reply

    plain = HandedOver.manifest

    def verified(handed: HandedOver, sender: str, bundle: BundleId, signed: party_pb2.Manifest) -> Manifest:
        found = plain(handed, sender, bundle, signed)
        if not bundle.entry.is_weights:
            seen.set()
        return found

    monkeypatch.setattr(HandedOver, "manifest", verified)
    with InProcess(tmp_path, 2, services={1: Last}) as cluster, Session(cluster.client(), compiled) as session:
        run(session)


def test_a_coordinator_alone_asks_for_a_result_while_the_run_is_being_prepared(cluster: InProcess) -> None:
    """It waits at the party then, the newest call alone; whoever else asks too early is told so at once."""
    script = cluster.script().open().enter_weights()
    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(script.result, 0, 1, COORDINATOR) for _ in range(2)]
        assert eventually(lambda: asking[0].done() != asking[1].done())
        displaced, waiting = sorted(asking, key=Future.done, reverse=True)
        for early in (partial(script.result, 0, 1, OWNER), partial(displaced.result, PATIENCE)):
            with pytest.raises(SessionError, match="run 1 is not prepared"):
                early()
        script.prepare(1)
        assert not waiting.done()
        script.enter(1, script.integers(data(1)), OWNER)
        [ending] = waiting.result(PATIENCE)
        waiting = pool.submit(script.result, 0, 2, COORDINATOR)
        assert script.result(0, 1, COORDINATOR, values=False) == [ending], "as often as it asks"
        assert not eventually(waiting.done, 1), "and who waits for the next waits on"
        script.prepare(2)
        script.enter(2, script.integers(data(1)), OWNER)
        assert waiting.result(PATIENCE)
        assert ending.header.rounds == len(plan_schedule(script.plan.bind(1)).steps)


def test_a_result_that_is_asked_for_too_early_ends_with_the_session(cluster: InProcess) -> None:
    script = cluster.script().open().enter_weights()
    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(script.result, 0, 1, COORDINATOR) for _ in range(2)]
        assert eventually(lambda: asking[0].done() != asking[1].done())
        script.everyone(lambda i: cluster.party(i).Close(party_pb2.CloseRequest(session_id=script.id)))
        with pytest.raises(SessionError, match="the session is closed"):
            next(each for each in asking if each.exception(PATIENCE) and "closed" in str(each.exception())).result()


def test_runs_are_burnt_and_listed_in_windows_that_grow(
    cluster: InProcess, compiled: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each before its masks leave; of what was burnt in vain no row is left."""
    burnt: list[range] = []
    burn = BurntAhead.burn

    def noted(ahead: BurntAhead, database: Any, session_id: bytes, runs: range) -> None:
        burnt.append(runs)
        burn(ahead, database, session_id, runs)

    client = cluster.client()
    with Session(client, compiled) as session, monkeypatch.context() as patch:
        id = id_of(session)
        patch.setattr(BurntAhead, "burn", noted)
        for number, listed in enumerate((1, 3, 3, 7, 7, 7, 7, 15, 15), 1):
            run(session)
            assert cluster.ledgers[0].history()[0].runs == number
            assert last_entered(client, id) == listed
        assert Counter(burnt) == dict.fromkeys((range(2, 2), range(3, 4), range(5, 8), range(9, 16)), 2)
        assert cluster.run_states(0, id) == ["revealed"] * 9 + ["burnt"] * 6
    for index in (0, 1):
        assert eventually(lambda index=index: cluster.run_states(index, id) == ["revealed"] * 9)


def test_security_16_masks_that_come_with_a_prepared_run_leave_once_it_is_burnt(
    cluster: InProcess, compiled: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    take = Bundle.mask_seed

    def spy(bundle: Bundle, wire: str) -> Any:
        for index in (0, 1):
            runs = cluster.of(index, bundle.id.session).runs.kept
            if bundle.id.entry.number in runs and runs[bundle.id.entry.number].entry.bundle is bundle:
                seen.append(cluster.run_states(index, bundle.id.session))
        return take(bundle, wire)

    with Session(cluster.client(), compiled) as session:
        monkeypatch.setattr(Bundle, "mask_seed", spy)
        run(session)
    assert sorted(seen) == [["burnt"], ["burnt"], ["revealed"], ["revealed"]], "of the input, then of the output"


def test_a_coordinator_is_prepared_a_run_but_given_no_masks_of_others(cluster: InProcess) -> None:
    script = cluster.script().open().enter_weights()
    request = party_pb2.PrepareRequest(session_id=script.id, run=1, batch=1, masks=True)
    with pytest.raises(PolicyError, match="owns no input"):
        script.everyone(lambda index: cluster.party(index).Prepare(request))
    assert [cluster.run_states(index, script.id) for index in (0, 1)] == [["dealt"], ["dealt"]]
    assert len(script.masks(0, 1, OWNER).seeds) == 1


def test_security_17_a_crash_within_a_window_of_burnt_runs_burns_the_rest_of_it(
    cluster: InProcess, compiled: Compiled
) -> None:
    session = Session(cluster.client(), compiled)
    id = id_of(session)
    for _ in range(5):
        run(session)
    assert cluster.run_states(0, id) == ["revealed"] * 5 + ["burnt"] * 2
    cluster.crash(0)
    cluster.revive(0)
    assert cluster.ledger_states(0)[0] == ("burnt", "restart")
    assert cluster.run_states(0, id) == ["revealed"] * 5 + ["burnt"] * 2
    for number in (6, 7, 8):
        for state in (RunState.DEALT, RunState.BURNT):
            with pytest.raises(SessionError, match="is burnt, not open"):
                cluster.ledgers[0].advance(id, number, state)
    with pytest.raises(MpcError):
        session.run(None, {"x": X})
    with Session(cluster.client(), compiled) as again:
        run(again)
