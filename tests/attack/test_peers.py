"""A party that deviates on its streams (security.md 1-5, 7, 8, 25).

`Middle` plays it: frames pass it under the certificates of both ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue

import pytest

from mpc.errors import HandshakeError, IntegrityError, MpcError, PeerError, SessionError
from mpc.fixedpoint import decode, encode
from mpc.transcript import DIGEST_BYTES
from parties.agreed.terms import PROTOCOL
from parties.config.models import Limits
from parties.pb.party_pb2 import Abort, Frame, Hello, OpenReply, Payload
from tests.support.parties import (
    COORDINATOR,
    PATIENCE,
    InProcess,
    data,
    deadlines,
    eventually,
    tiny_answer,
)
from tests.support.raw_peers import Opening, RawPeer

pytestmark = pytest.mark.timeout(60)
LAST_STEP = 4
CODES_ONLY = {"code", "about"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    folder = tmp_path_factory.mktemp("cluster")
    with_these = deadlines(connect=3, setup=15, step=3, submit=10)
    with InProcess(folder, 2, middles=[(0, 1)], limits=Limits(max_sessions=256), deadlines=with_these) as running:
        yield running


@pytest.fixture(scope="module")
def unhurried_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("unhurried"), 2, middles=[(0, 1)]) as running:
        yield running


@pytest.fixture
def unhurried(unhurried_cluster: InProcess) -> Iterator[InProcess]:
    """For attempts in which nobody is silent: no deadline of theirs comes first on a busy machine."""
    yield unhurried_cluster
    unhurried_cluster.middles[0].tamper = lambda sender, number, frame: [frame]


@pytest.fixture(autouse=True)
def honest(cluster: InProcess) -> Iterator[None]:
    yield
    cluster.middles[0].tamper = lambda sender, number, frame: [frame]


def attempt(cluster: InProcess, batch: int = 1) -> object:
    """A whole session as one client; the outputs."""
    session = cluster.session()
    try:
        [given], [out] = session.plan.inputs, session.plan.outputs
        integers = encode(data(batch), session.plan.wire[given.wire].scale)
        opened, _ = session.run({given.wire: integers}, batch, time.perf_counter)
        return decode(opened[out.wire], session.plan.wire[out.wire].scale)
    finally:
        session.close()


def payloads(change: Callable[[Payload], Sequence[Payload] | None], sender: str = "party-1") -> Callable:
    """Tampers with the payloads of one sender; everything else passes."""

    def tamper(who: str, number: int, frame: Frame) -> Sequence[Frame] | None:
        if who != sender or frame.WhichOneof("body") != "payload":
            return [frame]
        changed = change(frame.payload)
        return None if changed is None else [Frame(payload=payload) for payload in changed]

    return tamper


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def ones(data: bytes) -> bytes:
    return b"\xff" * len(data)


def behind(payload: Payload, change: Callable[[bytes], bytes]) -> bytes:
    """The payload with its openings changed; what parties compare in front of the first ones stays."""
    kept = 0 if payload.step else DIGEST_BYTES
    return payload.data[:kept] + change(payload.data[kept:])


# ------------------------------------------------------------------------------ greetings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("protocol", PROTOCOL + 1),
        ("plan_digest", bytes(32)),
        ("field", "2^64"),
        ("roster", bytes(range(32))),
        ("plan_digest", b""),
    ],
)
def test_a_greeting_that_differs_fails_before_any_share(cluster: InProcess, field: str, value: object) -> None:
    """5: with a code of its own; the peer is told that code and nothing else."""
    opening = Opening(cluster)
    setattr(opening.hello, field, value)
    started = time.monotonic()
    frames = RawPeer(cluster).send(Frame(hello=opening.hello)).all()
    assert [frame.WhichOneof("body") for frame in frames if frame.WhichOneof("body") != "hello"] == ["abort"]
    assert frames[-1].abort.code == "handshake"
    assert {found.name for found, _ in frames[-1].abort.ListFields()} <= CODES_ONLY
    error = opening.join()
    assert isinstance(error, HandshakeError) and error.peer == "party-0" and field.replace("_", " ") in error.what
    assert time.monotonic() - started < cluster.deadlines.connect  # at once, not when the deadline is over
    assert not any(frame.HasField("payload") for frame in frames)


def test_a_greeting_for_a_session_that_is_not_there(cluster: InProcess) -> None:
    """It may come in a moment, so each of these is answered after a while."""
    peers = []
    for session_id in (bytes(32), b"", b"\x01" * 32, bytes(1 << 10)):
        hello = Hello(protocol=PROTOCOL, session_id=session_id, plan_digest=bytes(32), field="2^61-1", roster=bytes(32))
        peers.append(RawPeer(cluster).send(Frame(hello=hello)))
    for peer in peers:
        assert [(frame.abort.code, frame.abort.about) for frame in peer.all()] == [("session", "")]


@pytest.mark.parametrize("caller", [COORDINATOR, "provider", "party-1", "stranger", "party-7"])
def test_only_an_earlier_party_of_the_roster_dials(cluster: InProcess, caller: str) -> None:
    """4: who it is stands in its certificate, and nowhere else; 3: a party is no peer of itself."""
    opening = Opening(cluster)
    frames = RawPeer(cluster, caller).send(Frame(hello=opening.hello)).all()
    assert [frame.abort.code for frame in frames] == ["policy"]
    peer = RawPeer(cluster).send(Frame(hello=opening.hello))
    assert isinstance(opening.join(), OpenReply)  # the honest party is not kept out by it
    peer.end()


@pytest.mark.parametrize(
    "frame",
    [
        Frame(payload=Payload(run=1, step=0, data=b"x")),
        Frame(abort=Abort(code="deadline", about="party-1")),
        Frame(),
    ],
    ids=["payload", "abort", "empty"],
)
def test_the_first_frame_is_a_greeting(cluster: InProcess, frame: Frame) -> None:
    frames = RawPeer(cluster).send(frame).all()
    assert [frame.abort.code for frame in frames] == ["handshake"]


def test_a_dialler_that_says_nothing_is_let_go(cluster: InProcess) -> None:
    started = time.monotonic()
    assert RawPeer(cluster).all() == []
    assert time.monotonic() - started < cluster.deadlines.connect + PATIENCE


@pytest.mark.parametrize(
    "second",
    [
        lambda hello: Frame(hello=hello),
        lambda hello: Frame(),
        lambda hello: Frame(payload=Payload(run=0, step=0, data=b"x")),
        lambda hello: Frame(payload=Payload(run=7, step=0, data=b"x")),
    ],
    ids=["greeting", "empty", "run 0", "run 7"],
)
def test_frames_out_of_turn_end_the_session(cluster: InProcess, second: Callable[[Hello], Frame]) -> None:
    opening = Opening(cluster)
    peer = RawPeer(cluster).send(Frame(hello=opening.hello))
    assert isinstance(opening.join(), OpenReply)
    frames = peer.send(second(opening.hello)).all()
    assert [frame.WhichOneof("body") for frame in frames] == ["hello", "abort"]
    assert (frames[1].abort.code, frames[1].abort.about) == ("peer", "party-0")
    assert eventually(lambda: opening.id not in cluster.sessions(1))


def test_a_second_stream_is_refused_and_the_first_goes_on(cluster: InProcess) -> None:
    opening = Opening(cluster)
    peer = RawPeer(cluster).send(Frame(hello=opening.hello))
    assert isinstance(opening.join(), OpenReply)
    assert peer.first().HasField("hello")
    frames = RawPeer(cluster).send(Frame(hello=opening.hello)).all()
    assert [frame.abort.code for frame in frames] == ["peer"]
    assert cluster.of(1, opening.id).life.state == "open"
    peer.end()


def test_an_abort_is_believed_about_names_only(cluster: InProcess) -> None:
    """A peer's word goes to logs, clients and terminals: it is a code and a name, or it is dropped."""
    for code, about, expected in (
        ("deadline", "party-2", ("deadline", "party-2")),
        ("no such code\n", "\x1b[2Jevil", ("internal", "party-0")),
        ("x" * 100_000, "y" * 100_000, ("internal", "party-0")),
    ):
        opening = Opening(cluster)
        peer = RawPeer(cluster).send(Frame(hello=opening.hello))
        assert isinstance(opening.join(), OpenReply)
        peer.send(Frame(abort=Abort(code=code, about=about))).all()
        assert eventually(lambda: opening.id not in cluster.sessions(1))  # noqa: B023
        with pytest.raises(MpcError) as caught:
            cluster.nodes[1].session(opening.id, COORDINATOR)
        error = caught.value
        assert (error.code, error.peer) == expected
        assert "\x1b" not in str(error) and len(str(error)) < 300
        assert eventually(lambda expected=expected: cluster.ledger_states(1)[0] == ("aborted", expected[0]))


# -------------------------------------------------------------------------------- steps


def test_the_same_bytes_twice_are_ignored(cluster: InProcess) -> None:
    """2, first half."""
    cluster.middles[0].tamper = payloads(lambda payload: [payload, payload])
    assert abs(attempt(cluster) - tiny_answer(data(1))).max() < 1e-3


@pytest.mark.parametrize("step", range(LAST_STEP))
def test_other_bytes_for_the_same_step_end_the_session(cluster: InProcess, step: int) -> None:
    """2, second half: equivocation."""

    def change(payload: Payload) -> list[Payload]:
        other = Payload(run=payload.run, step=payload.step, data=flipped(payload.data))
        return [payload, other] if payload.step == step else [payload]

    cluster.middles[0].tamper = payloads(change)
    # By the time that they come party-0 may have sent all its steps: then party-1 has finished its run, which is no use
    # to anybody without party-0's.
    check_abort(cluster, "peer", other=("aborted", "closed"))


def test_other_bytes_after_the_last_step_change_no_result(cluster: InProcess) -> None:
    """They may arrive when all is over: then the result is the right one."""

    def change(payload: Payload) -> list[Payload]:
        other = Payload(run=payload.run, step=payload.step, data=flipped(payload.data))
        return [payload, other] if payload.step == LAST_STEP else [payload]

    cluster.middles[0].tamper = payloads(change)
    try:
        assert abs(attempt(cluster) - tiny_answer(data(1))).max() < 1e-3
    except PeerError as error:
        assert error.peer == "party-1"


def check_abort(cluster: InProcess, *codes: str, batch: int = 1, other: tuple[str, ...] = ("aborted",)) -> MpcError:
    """The run ends with a typed error about party-1, at both parties, and nothing is revealed at party-0."""
    with pytest.raises(MpcError) as caught:
        attempt(cluster, batch)
    error = caught.value
    assert error.code in codes and error.peer == "party-1", error
    assert eventually(lambda: cluster.ledger_states(0)[0][0] == "aborted")
    assert eventually(lambda: cluster.ledger_states(1)[0][0] in other)
    return error


CHANGES = {
    "a past step again": lambda p: [p] if p.step < 2 else [Payload(run=1, step=0, data=p.data)],
    "the next step": lambda p: [Payload(run=1, step=p.step + 1, data=p.data)],
    "a far step": lambda p: [Payload(run=1, step=1 << 31, data=p.data)],
    "an earlier run": lambda p: [Payload(run=0, step=p.step, data=p.data)],
    "a later run": lambda p: [Payload(run=3, step=p.step, data=p.data)],
    "one byte less": lambda p: [Payload(run=1, step=p.step, data=p.data[:-1])] if p.step else [p],
    "one byte more": lambda p: [Payload(run=1, step=p.step, data=p.data + b"\0")],
    "a MiB": lambda p: [Payload(run=1, step=p.step, data=bytes(1 << 20))],
    "an empty piece": lambda p: [Payload(run=1, step=p.step, data=b""), p],
    "nothing": lambda p: [Payload(run=1, step=p.step, data=b"")],
    "steps in the wrong order": lambda p: [] if p.step == 0 else [p],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_is_not_the_awaited_step_ends_the_session(cluster: InProcess, change: Callable) -> None:
    """3, 8."""
    cluster.middles[0].tamper = payloads(change)
    check_abort(cluster, "peer", "deadline")


def test_pieces_of_any_size_make_a_step(unhurried: InProcess) -> None:
    def cut(p: Payload) -> list[Payload]:
        return [Payload(run=p.run, step=p.step, data=p.data[i : i + 3]) for i in range(0, len(p.data), 3)]

    unhurried.middles[0].tamper = payloads(cut)
    assert abs(attempt(unhurried) - tiny_answer(data(1))).max() < 1e-3


def test_elements_that_are_not_below_p_end_the_session(unhurried: InProcess) -> None:
    """7: never reduced; the peer that sent them is named."""
    unhurried.middles[0].tamper = payloads(lambda p: [Payload(run=p.run, step=p.step, data=behind(p, ones))])
    check_abort(unhurried, "encoding")


def test_of_three_the_sender_of_nonsense_is_named(tmp_path: Path) -> None:
    with InProcess(tmp_path, 3, middles=[(0, 2)]) as three:
        three.middles[0].tamper = payloads(
            lambda p: [Payload(run=p.run, step=p.step, data=behind(p, ones))], sender="party-2"
        )
        with pytest.raises(MpcError) as caught:
            attempt(three)
        assert (caught.value.code, caught.value.peer) == ("encoding", "party-2")


# ----------------------------------------------------------------- what only digests catch


def test_a_changed_opening_never_passes_as_a_result(unhurried: InProcess) -> None:
    """In passive mode a wrong share is not seen at once: the parties' transcripts differ, and nothing is accepted."""

    def change(p: Payload) -> list[Payload]:
        return [Payload(run=p.run, step=p.step, data=behind(p, flipped) if p.step == 0 else p.data)]

    unhurried.middles[0].tamper = payloads(change)
    with pytest.raises(IntegrityError) as caught:
        attempt(unhurried)
    assert caught.value.exit_code == 7


def test_a_reflected_step_never_passes(cluster: InProcess) -> None:
    """3: party-0 is sent its own openings back, in place of party-1's."""
    own: dict[int, SimpleQueue] = {step: SimpleQueue() for step in range(LAST_STEP + 1)}

    def reflect(sender: str, number: int, frame: Frame) -> Sequence[Frame]:
        if frame.WhichOneof("body") != "payload":
            return [frame]
        if sender == "party-0":
            own[frame.payload.step].put(frame)
            return [frame]
        return [own[frame.payload.step].get(timeout=PATIENCE)]

    cluster.middles[0].tamper = reflect
    with pytest.raises(MpcError) as caught:
        attempt(cluster)
    assert caught.value.exit_code in (6, 7)


def test_a_message_of_one_session_in_another_never_passes(cluster: InProcess) -> None:
    """1: in addition it is equivocation; in place of the right one the digests differ."""
    recorded: dict[int, bytes] = {}

    def record(p: Payload) -> list[Payload]:
        recorded[p.step] = p.data
        return [p]

    cluster.middles[0].tamper = payloads(record)
    attempt(cluster)
    cluster.middles[0].tamper = payloads(lambda p: [p, Payload(run=p.run, step=p.step, data=recorded[p.step])])
    check_abort(cluster, "peer")
    cluster.middles[0].tamper = payloads(lambda p: [Payload(run=p.run, step=p.step, data=recorded[p.step])])
    with pytest.raises(MpcError) as caught:
        attempt(cluster)
    assert caught.value.exit_code in (6, 7)


def test_a_replayed_greeting_opens_nothing(cluster: InProcess) -> None:
    """1, 6: after a session is over its greeting is worth nothing."""
    seen: list[Frame] = []

    def record(sender: str, number: int, frame: Frame) -> Sequence[Frame]:
        seen.append(frame)
        return [frame]

    cluster.middles[0].tamper = record
    attempt(cluster)
    greetings = [frame for frame in seen if frame.HasField("hello")]
    assert len(greetings) == 2
    frames = RawPeer(cluster).send(greetings[0], *(frame for frame in seen if frame.HasField("payload"))).all()
    assert [frame.abort.code for frame in frames] == [SessionError.code]


def test_a_peer_ahead_is_held_back_not_buffered(cluster: InProcess) -> None:
    """A flood for the run after next changes nothing that this party holds, and ends the session."""
    opening = Opening(cluster)
    peer = RawPeer(cluster).send(Frame(hello=opening.hello))
    assert isinstance(opening.join(), OpenReply)
    inbox = cluster.of(1, opening.id).links["party-0"].inbox
    peer.send(*[Frame(payload=Payload(run=1, step=0, data=bytes(1 << 20)))] * 192)
    assert eventually(lambda: inbox.held_back)
    assert not eventually(
        lambda: peer.out.qsize() < 96, 0.5
    )  # windows and sockets hold tens of MiB, and no more is read
    cluster.of(1, opening.id).abort(PeerError("enough"))
    peer.end()
