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
from mpc.errors import MpcError, SessionError
from parties.client.cluster import Cluster
from parties.client.session import Session
from parties.pb import party_pb2
from tests.support.parties import InProcess, data, eventually, tiny_answer


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("cluster"), 2) as running:
        yield running


@pytest.fixture
def client(cluster: InProcess) -> Iterator[Cluster]:
    with Cluster(cluster.client().config) as connected:
        yield connected


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    structlog.configure(processors=[structlog.processors.KeyValueRenderer()])  # the usual one keeps frames' locals
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    structlog.reset_defaults()


def held(cluster: InProcess, session: Session) -> dict[str, weakref.ref]:
    """Everything large, or secret, that a session is made of, at parties, provider and client."""
    remote = session._remote
    found: dict[str, Any] = {"client's session": remote, "participant": remote.part}
    for name, node in zip(cluster.names, cluster.nodes, strict=True):
        own = node._sessions[remote.id]
        found |= {
            f"{name}'s session": own,
            f"{name}'s wires": own._wires,
            f"{name}'s bundle of weights": own.entries.weights.bundle,
        }
        found |= {f"{name}'s link to {peer}": link for peer, link in own.links.items()}
        found |= {f"{name}'s run {number}": run for number, run in own.runs.kept.items()}
        found |= {f"{name}'s {wire}": masked.public for wire, masked in own._wires.masked.items()}
    dealt = cluster.provider.table.open[remote.id]
    found |= {"provider's session": dealt, "provider's masks": dealt.masks, "provider's weights": dealt.weights}
    return {name: weakref.ref(thing) for name, thing in found.items()}


def left(refs: dict[str, weakref.ref]) -> list[str]:
    return [name for name, ref in refs.items() if ref() is not None]


def check_gone(refs: dict[str, weakref.ref]) -> None:
    assert len(refs) > 12
    assert eventually(lambda: not left(refs), 5), left(refs)


def run(session: Session) -> None:
    x = data(2)
    [y] = session.run(None, {"x": x})
    assert np.abs(y - tiny_answer(x)).max() < 1e-3


def test_a_session_that_is_closed(cluster: InProcess, client: Cluster) -> None:
    session = client.open(cluster.compiled())
    run(session)
    run(session)
    refs = held(cluster, session)
    assert len(left(refs)) == len(refs)
    session.close()
    del session
    check_gone(refs)


def test_a_session_that_nobody_ran(cluster: InProcess, client: Cluster) -> None:
    session = client.open(cluster.compiled())
    refs = held(cluster, session)
    session.close()
    del session
    check_gone(refs)


@pytest.mark.parametrize("at", [0, 1])
def test_a_session_that_a_party_aborts(cluster: InProcess, client: Cluster, at: int) -> None:
    """The error is kept for those who ask, and told to several: none of them keeps the frames that it passed."""
    session = client.open(cluster.compiled())
    run(session)
    refs = held(cluster, session)
    cluster.of(at, session._remote.id).abort(SessionError("for this test"))
    for _ in range(2):
        try:
            session.run(None, {"x": data(1)})
        except MpcError as error:
            assert error.code == SessionError.code
    request = party_pb2.StatusRequest(session_id=session._remote.id)
    with pytest.raises(SessionError, match="for this test"):
        cluster.party(at).Status(request)
    del session
    check_gone(refs)


def test_a_session_that_fails_in_a_run(cluster: InProcess, client: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    session = client.open(cluster.compiled())
    run(session)
    refs = held(cluster, session)

    def broken(*_: object) -> None:
        raise ValueError("a mistake of this test's")

    monkeypatch.setattr(parties.party.online.Online, "before_reveal", broken)
    with pytest.raises(MpcError, match="internal error"):
        session.run(None, {"x": data(1)})
    del session
    check_gone(refs)


def test_a_session_whose_provider_fails(tmp_path: Path) -> None:
    with InProcess(tmp_path, 2) as own, Cluster(own.client().config) as client:
        session = client.open(own.compiled())
        run(session)
        refs = held(own, session)
        deal = own.provider.dealing._deal_parts

        def broken(*arguments: Any) -> None:
            raise ValueError("a mistake of this test's")

        own.provider.dealing._deal_parts = broken  # type: ignore[method-assign]
        with pytest.raises(MpcError):
            session.run(None, {"x": data(1)})
        own.provider.dealing._deal_parts = deal  # type: ignore[method-assign]
        del session
        check_gone(refs)


def test_a_session_whose_connections_break(tmp_path: Path) -> None:
    """gRPC keeps the error that a broken stream's reader gets, and with it what that error's frames hold."""
    with InProcess(tmp_path, 2) as own, Cluster(own.client().config) as client:
        session = client.open(own.compiled())
        run(session)
        refs = held(own, session)
        for node in own.nodes:
            for channel in node._channels.values():
                channel.close()
        with pytest.raises(MpcError):
            session.run(None, {"x": data(1)})
        del session
        check_gone(refs)


def test_a_session_of_what_was_dealt_ahead(cluster: InProcess, client: Cluster) -> None:
    compiled = cluster.compiled()
    client.deal(compiled.plan, runs=2, batch=2)
    session = client.open(compiled, batch=2)
    assert session.stocked == 2
    run(session)
    remote = session._remote
    refs = {
        f"{name}'s {what}": weakref.ref(thing)
        for name, node in zip(cluster.names, cluster.nodes, strict=True)
        for own in [node._sessions[remote.id]]
        for what, thing in {"session": own, "wires": own._wires, "run": own.runs.kept[1], "stock": own._supply}.items()
    }
    del remote
    session.close()
    del session
    assert eventually(lambda: not left(refs), 5), left(refs)
