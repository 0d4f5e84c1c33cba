"""What a session held is free when it ends: at once, and not when Python's collector of cycles comes round."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

import parties.party.online
import parties.provider.dealing
from mpc.correlations import Bundle
from mpc.errors import MpcError, SessionError
from mpc.interpret.dealer import SessionMasks
from mpc.interpret.party import PartyRun, SessionWires
from parties.client.cluster import Cluster
from parties.client.running.coordinated import CoordinatedSession
from parties.client.running.participant import Participant
from parties.client.session import Session
from parties.party.link import Link
from parties.party.run import Run
from parties.party.session import PartySession
from parties.party.stock.supply import StoredSupply
from parties.pb import party_pb2
from parties.provider.bundles import DealtBundle
from parties.provider.public_weights import PublicWeights
from parties.provider.sessions import ProviderSession
from tests.support.parties import InProcess, data, eventually, id_of, tiny_answer

CLIENT = {CoordinatedSession, Participant}
PARTY = {PartySession, SessionWires, Bundle, Link, Run, PartyRun, StoredSupply}
PROVIDER = {ProviderSession, SessionMasks, PublicWeights, DealtBundle}
KINDS = CLIENT | PARTY | PROVIDER


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("cluster"), 2) as running:
        yield running


@pytest.fixture
def client(cluster: InProcess) -> Iterator[Cluster]:
    with Cluster(cluster.client().config) as connected:
        yield connected


@pytest.fixture(autouse=True)
def earlier() -> Iterator[Earlier]:
    """What is alive before a test; the collector of cycles does not run in it."""
    structlog.configure(processors=[structlog.processors.KeyValueRenderer()])  # the usual one keeps frames' locals
    gc.collect()
    gc.disable()
    yield {id(thing): weakref.ref(thing) for thing in alive()}
    gc.enable()


Earlier = dict[int, weakref.ref]


def alive() -> Iterator[Any]:
    """Everything large, or secret, that a session is made of: at parties, provider and client, in this process."""
    return (thing for thing in gc.get_objects() if type(thing) in KINDS)


def held(earlier: Earlier) -> dict[str, weakref.ref]:
    """What is alive that was not before the test."""
    found: list[Any] = []
    for thing in alive():
        if id(thing) not in earlier or earlier[id(thing)]() is not thing:
            found.append(thing)
            if isinstance(thing, SessionWires):
                found += [masked.public for masked in thing.masked.values()]
    return {f"{type(thing).__name__} {number}": weakref.ref(thing) for number, thing in enumerate(found)}


def kinds(refs: dict[str, weakref.ref]) -> set[str]:
    return {name.split()[0] for name in refs}


def left(refs: dict[str, weakref.ref]) -> list[str]:
    return [name for name, ref in refs.items() if ref() is not None]


def check_gone(refs: dict[str, weakref.ref]) -> None:
    """All of it goes, and it was all there."""
    expected = {kind.__name__ for kind in KINDS} - {"Run", "PartyRun", "DealtBundle", "StoredSupply"}
    assert expected <= kinds(refs) and len(refs) > 12
    assert eventually(lambda: not left(refs), 5), left(refs)


def run(session: Session) -> None:
    x = data(2)
    [y] = session.run(None, {"x": x})
    assert np.abs(y - tiny_answer(x)).max() < 1e-3


def test_a_session_that_is_closed(cluster: InProcess, client: Cluster, earlier: Earlier) -> None:
    session = client.open(cluster.compiled())
    run(session)
    run(session)
    refs = held(earlier)
    assert len(left(refs)) == len(refs)
    session.close()
    del session
    check_gone(refs)


def test_a_session_that_nobody_ran(cluster: InProcess, client: Cluster, earlier: Earlier) -> None:
    session = client.open(cluster.compiled())
    refs = held(earlier)
    session.close()
    del session
    check_gone(refs)


@pytest.mark.parametrize("at", [0, 1])
def test_a_session_that_a_party_aborts(cluster: InProcess, client: Cluster, earlier: Earlier, at: int) -> None:
    """The error is kept for those who ask, and told to several: none of them keeps the frames that it passed."""
    session = client.open(cluster.compiled())
    run(session)
    refs, session_id = held(earlier), id_of(session)
    cluster.of(at, session_id).abort(SessionError("for this test"))
    for _ in range(2):
        try:
            session.run(None, {"x": data(1)})
        except MpcError as error:
            assert error.code == SessionError.code
    request = party_pb2.StatusRequest(session_id=session_id)
    with pytest.raises(SessionError, match="for this test"):
        cluster.party(at).Status(request)
    del session
    check_gone(refs)


def test_a_session_that_fails_in_a_run(
    cluster: InProcess, client: Cluster, earlier: Earlier, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = client.open(cluster.compiled())
    run(session)
    refs = held(earlier)

    def broken(*_: object) -> None:
        raise ValueError("a mistake of this test's")

    monkeypatch.setattr(parties.party.online.Online, "before_reveal", broken)
    with pytest.raises(MpcError, match="internal error"):
        session.run(None, {"x": data(1)})
    del session
    check_gone(refs)


def test_a_session_whose_provider_fails(tmp_path: Path, earlier: Earlier, monkeypatch: pytest.MonkeyPatch) -> None:
    with InProcess(tmp_path, 2) as own, Cluster(own.client().config) as client:
        session = client.open(own.compiled())
        run(session)
        refs = held(earlier)

        def broken(*arguments: Any) -> None:
            raise ValueError("a mistake of this test's")

        monkeypatch.setattr(parties.provider.dealing, "deal", broken)
        with pytest.raises(MpcError):
            session.run(None, {"x": data(1)})
        del session
        check_gone(refs)


def test_a_session_whose_connections_break(tmp_path: Path, earlier: Earlier) -> None:
    """gRPC keeps the error that a broken stream's reader gets, and with it what that error's frames hold."""
    with InProcess(tmp_path, 2, middles=[(0, 1)]) as own, Cluster(own.client().config) as client:
        session = client.open(own.compiled())
        run(session)
        refs = held(earlier)
        own.middles[0].tamper = lambda *_: None
        with pytest.raises(MpcError):
            session.run(None, {"x": data(1)})
        del session
        check_gone(refs)


def test_a_session_of_which_a_party_ends(tmp_path: Path, earlier: Earlier) -> None:
    """Calls that are then refused, of client and party, keep nothing of their callers."""
    with InProcess(tmp_path, 2) as own, Cluster(own.client().config) as client:
        session = client.open(own.compiled())
        run(session)
        refs = held(earlier)
        own.servers["party-1"].stop(0)
        with pytest.raises(MpcError):
            session.run(None, {"x": data(1)})
        del session
        check_gone(refs)


def test_a_session_of_what_was_dealt_ahead(cluster: InProcess, client: Cluster, earlier: Earlier) -> None:
    compiled = cluster.compiled()
    client.deal(compiled.plan, runs=2, batch=2)
    session = client.open(compiled, batch=2)
    assert session.stocked == 2
    run(session)
    refs = held(earlier)
    assert {"PartySession", "SessionWires", "Run", "StoredSupply"} <= kinds(refs)
    session.close()
    del session
    assert eventually(lambda: not left(refs), 5), left(refs)
