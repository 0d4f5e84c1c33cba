"""Which way payloads travel is agreed between two parties, and a peer that deviates there ends its own session.

Frames are sent by hand to one party of a cluster whose parties all take connections for rounds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mpc.errors import ConfigError, DeadlineError, HandshakeError, MpcError, PeerError
from mpc.fixedpoint import encode
from parties.config.models import PartyConfig
from parties.party import peers
from parties.party.link import Link
from parties.pb import party_pb2
from parties.pb.party_pb2 import Abort, Frame, OpenReply, Payload, Ways
from parties.wire import direct_listener
from parties.wire.direct import Direct, swap
from parties.wire.direct_listener import call, round_context
from tests.support.parties import PATIENCE, InProcess, data, deadlines, eventually
from tests.support.raw_peers import Opening, RawPeer

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    soon = deadlines(connect=3, setup=15, step=3, submit=10)
    with InProcess(tmp_path_factory.mktemp("cluster"), 2, deadlines=soon) as running:
        yield running


class Meeting:
    """The test is party-0, and has greeted party-1 with a port of its own."""

    def __init__(self, cluster: InProcess, port: int = 1, token: bytes = b"") -> None:
        self.cluster, self.opening = cluster, Opening(cluster)
        hello = self.opening.hello
        hello.rounds_port, hello.rounds_token = port, token
        self.peer = RawPeer(cluster).send(Frame(hello=hello))
        self.told = self.peer.first()

    def connect(self) -> Direct:
        tls, hello = self.cluster.tls("party-0"), self.told.hello
        identity = self.cluster.identity("party-0")
        context = round_context(tls, serves=False)
        return call(identity, context, "party-1", "127.0.0.1", hello.rounds_port, hello.rounds_token, PATIENCE)

    def outcome(self) -> Exception:
        error = self.opening.join()
        assert isinstance(error, MpcError), error
        return error

    def ends(self) -> None:
        """The session ends, party-0 is told that it is about itself, and party-1 waits for no connection any more."""
        last = self.peer.all()[-1]
        assert last.WhichOneof("body") == "abort" and last.abort == Abort(code="peer", about="party-0")
        assert eventually(lambda: self.opening.id not in self.cluster.sessions(1))
        listener = self.cluster.nodes[1].listener
        assert listener is not None and not listener.waiting


def test_the_way_is_chosen_by_who_dials(cluster: InProcess) -> None:
    meeting = Meeting(cluster)
    assert meeting.told.hello.rounds_port and len(meeting.told.hello.rounds_token) == 32
    with closing(meeting.connect()):
        meeting.peer.send(Frame(ways=Ways(direct=True)))
        assert isinstance(meeting.opening.join(), OpenReply)
        link = cluster.of(1, meeting.opening.id).links["party-0"]
        assert link.direct is not None
        meeting.peer.end()


def test_a_token_is_fresh_for_each_session(cluster: InProcess) -> None:
    tokens = []
    for _ in range(2):
        meeting = Meeting(cluster)
        tokens.append(meeting.told.hello.rounds_token)
        meeting.peer.send(Frame(ways=Ways(direct=False)))
        assert isinstance(meeting.opening.join(), OpenReply)
        meeting.peer.end()
    assert tokens[0] != tokens[1]


def test_who_connects_and_then_says_no_is_hung_up_on(cluster: InProcess) -> None:
    meeting = Meeting(cluster)
    with closing(meeting.connect()) as direct:
        meeting.peer.send(Frame(ways=Ways(direct=False)))
        assert isinstance(meeting.opening.join(), OpenReply)
        assert cluster.of(1, meeting.opening.id).links["party-0"].direct is None
        direct.begin(1, 0, b"abc", 3)
        swap([direct], time.monotonic() + PATIENCE, lambda: None)
        assert not direct.is_open
    meeting.peer.end()


def test_who_says_that_it_is_connected_has_to_be(cluster: InProcess) -> None:
    meeting = Meeting(cluster)
    meeting.peer.send(Frame(ways=Ways(direct=True)))
    error = meeting.outcome()
    assert isinstance(error, PeerError) and error.peer == "party-0"
    assert "says that it is connected, and is not" in str(error)
    meeting.ends()


def test_who_never_chooses_is_named(cluster: InProcess) -> None:
    meeting = Meeting(cluster)
    error = meeting.outcome()
    assert isinstance(error, DeadlineError) and error.peer == "party-0"


@pytest.mark.parametrize("port", [0, 1])
def test_a_choice_is_made_once_and_only_where_there_is_one(cluster: InProcess, port: int) -> None:
    meeting = Meeting(cluster, port)
    if port:
        meeting.peer.send(Frame(ways=Ways(direct=False)))
    assert isinstance(meeting.opening.join(), OpenReply)
    meeting.peer.send(Frame(ways=Ways(direct=False)))
    meeting.ends()


def test_the_stream_carries_no_payloads_beside_a_connection(cluster: InProcess) -> None:
    meeting = Meeting(cluster)
    with closing(meeting.connect()):
        meeting.peer.send(Frame(ways=Ways(direct=True)))
        assert isinstance(meeting.opening.join(), OpenReply)
        cluster.of(1, meeting.opening.id).links["party-0"].begin(1, [8])
        meeting.peer.send(Frame(payload=Payload(run=1, step=0, data=bytes(8))))
        meeting.ends()


@pytest.mark.parametrize(("port", "token"), [(1 << 16, b""), (1, b"short"), (1, bytes(33))])
def test_a_malformed_port_or_token_is_a_malformed_greeting(cluster: InProcess, port: int, token: bytes) -> None:
    meeting = Meeting(cluster, port, token)
    error = meeting.outcome()
    assert isinstance(error, HandshakeError) and "malformed greeting" in error.what


# --------------------------------------------------------------------- both are honest


def ways(cluster: InProcess) -> set[bool]:
    """Run a session; whether its links had connections of their own."""
    found: set[bool] = set()
    session = cluster.session()
    try:
        for place in range(len(cluster.names)):
            found |= {link.direct is not None for link in cluster.of(place, session.id).links.values()}
    finally:
        session.close()
    return found


def said_of_rounds(cluster: InProcess) -> str:
    """What party-0 says of how rounds went to party-1."""
    reply = cluster.party(0).Describe(party_pb2.DescribeRequest(probe=True))
    return {reach.name: reach.rounds for reach in reply.peers}["party-1"]


def test_rounds_have_a_connection_of_their_own(cluster: InProcess) -> None:
    assert ways(cluster) == {True}
    assert said_of_rounds(cluster) == "direct"


def test_a_port_that_cannot_be_reached_costs_a_line_in_the_log(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []

    def unreachable(*_: object, **__: object) -> Direct:
        raise PeerError("a firewall is in the way")

    monkeypatch.setattr(peers, "call", unreachable)
    monkeypatch.setattr(peers, "rationed", lambda *given, **fields: said.append((given, fields)))
    assert ways(cluster) == {False}
    [(given, fields)] = said
    assert given[2] == "rounds travel through gRPC"
    assert fields["peer"] == "party-1" and "a firewall is in the way" in fields["why"]
    assert "a firewall is in the way" in said_of_rounds(cluster)


@pytest.mark.parametrize("without", [0, 1])
def test_both_of_a_pair_have_to_take_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: int) -> None:
    made = InProcess.party_config

    def config(self: InProcess, index: int) -> PartyConfig:
        found = made(self, index)
        return found.model_copy(update={"rounds_port": None}) if index == without else found

    monkeypatch.setattr(InProcess, "party_config", config)
    with InProcess(tmp_path, 2) as running:
        assert ways(running) == {False}


def test_a_port_that_is_silent_leaves_time_for_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However short the time to connect is: who dials gives up before the peer does."""

    def silent(*given: object) -> Direct:
        time.sleep(float(str(given[-1])))
        raise PeerError("nothing came in time")

    monkeypatch.setattr(peers, "call", silent)
    with InProcess(tmp_path, 2, deadlines=deadlines(connect=2, setup=15, step=3, submit=10)) as running:
        assert ways(running) == {False}


def test_whatever_fails_while_a_peer_is_dialled_the_stream_has_the_rounds(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Direct:
        raise RuntimeError("unexpected")

    monkeypatch.setattr(peers, "call", broken)
    assert ways(cluster) == {False}


def test_a_certificate_that_cannot_be_read_is_refused(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL takes some that the library which judges them does not."""

    def unreadable(*_: object) -> list[object]:
        raise ValueError("6 is not a valid X509 version")

    monkeypatch.setattr(direct_listener, "certificates_shown", unreadable)
    assert ways(cluster) == {False}


def test_a_session_that_cannot_be_made_waits_for_nobody(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise ConfigError("the disk is full")

    for node in cluster.nodes:
        monkeypatch.setattr(node.ledger, "open_session", full)
    with pytest.raises(MpcError):
        cluster.session()
    assert all(node.listener is not None and not node.listener.waiting for node in cluster.nodes)


def test_a_peer_that_takes_no_connections_is_not_waited_for(cluster: InProcess) -> None:
    meeting = Meeting(cluster, port=0)
    assert isinstance(meeting.opening.join(), OpenReply)
    listener = cluster.nodes[1].listener
    assert listener is not None and not listener.waiting
    meeting.peer.end()


def test_a_connection_that_breaks_by_itself_is_named(cluster: InProcess) -> None:
    """Its stream is well, so nothing else says what happened; nobody waits for a step's deadline."""
    session = cluster.session()
    try:
        for link in cluster.of(1, session.id).links.values():
            assert link.direct is not None
            link.direct.close()
        [given] = session.plan.inputs
        integers = encode(data(1), session.plan.wire[given.wire].scale)
        with pytest.raises(PeerError, match="the connection to party-[01] for rounds was lost") as caught:
            session.run({given.wire: integers}, 1, time.perf_counter)
        assert caught.value.peer in cluster.names
    finally:
        session.close()


def test_rounds_have_another_port_than_calls(cluster: InProcess) -> None:
    config = cluster.party_config(0)
    with pytest.raises(ValueError, match="rounds_port must be another port than that of listen"):
        PartyConfig.model_validate({**config.model_dump(), "rounds_port": config.listen.port})


def test_a_session_that_ends_hangs_up(cluster: InProcess) -> None:
    seen: list[Link] = []
    session = cluster.session()
    for place in range(2):
        seen += cluster.of(place, session.id).links.values()
    session.close()
    assert all(eventually(lambda link=link: not link.direct.is_open) for link in seen)
