"""An error names the process that is to blame, whoever notices first (issue: deadlines, shutdowns)."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from mpc.errors import DeadlineError, HandshakeError, IntegrityError, MpcError, PeerError, PolicyError, SessionError
from parties.client.channels import Parties, most_telling
from parties.client.together import given_up
from parties.config.models import Deadlines
from parties.party.services import PartyService
from parties.pb import party_pb2, provider_pb2
from parties.pb.party_pb2 import CloseRequest
from parties.pb.provider_pb2 import DealPart
from parties.provider.service import ProviderService
from parties.wire.frames import Chunk
from tests.support.effort import SLOWNESS
from tests.support.parties import OWNER, RECIPIENT, InProcess, data, deadlines, eventually

pytestmark = pytest.mark.timeout(120)


def test_a_silent_provider_is_blamed_and_not_a_party(tmp_path: Path) -> None:
    """Equal deadlines everywhere: each process gives up before its caller does."""

    class Silent(ProviderService):
        def deal(self, request: provider_pb2.DealRequest, context: grpc.ServicerContext) -> Iterator[DealPart | Chunk]:
            while context.is_active():
                time.sleep(0.05)
            yield from ()

    deadlines = Deadlines(connect=2 * SLOWNESS, setup=2 * SLOWNESS, step=5, submit=5, idle=600)
    with InProcess(tmp_path, 2, provider=Silent, deadlines=deadlines) as cluster:
        with pytest.raises(MpcError) as caught:
            cluster.session()
        assert caught.value.peer == "provider", caught.value
        assert "provider" in caught.value.what and caught.value.cause


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("busy", [False, True])
def test_a_party_that_shuts_down_blames_itself(tmp_path: Path, index: int, busy: bool) -> None:
    """Idle or in the middle of a run: everybody who is told names the party that went."""
    with InProcess(tmp_path, 3) as cluster:
        script = cluster.script().ready()
        name, waiting = cluster.names[index], []

        def wait(other: int) -> None:
            try:
                script.result(other, 1, RECIPIENT)
            except MpcError as error:
                waiting.append(error)

        threads = [threading.Thread(target=wait, args=(other,)) for other in range(3 if busy else 0)]
        for thread in threads:
            thread.start()
        sessions = [cluster.of(other, script.id) for other in range(3)]
        if busy:
            assert eventually(lambda: all(session.runs.get(1).entry.asked_at for session in sessions))
        cluster.nodes[index].stop()
        assert eventually(lambda: all(session.life.state == "aborted" for session in sessions))
        for thread in threads:
            thread.join()
        for error in (*(session.life.error for session in sessions), *waiting):
            assert isinstance(error, PeerError) and error.peer == name, error
        assert len(waiting) == len(threads)


def test_a_provider_that_shuts_down_is_named(tmp_path: Path) -> None:
    with InProcess(tmp_path, 2) as cluster:
        script = cluster.script().open().enter_weights()
        cluster.stop_provider()
        with pytest.raises(PeerError) as caught:
            script.prepare(1)
        assert caught.value.peer == "provider"
        assert "it is not running" in (caught.value.cause or "")


def test_what_only_follows_from_the_end_does_not_stand_for_its_cause(tmp_path: Path) -> None:
    """A call that finds the session closed answers why it was, if a peer has said so; own findings go first."""
    with InProcess(tmp_path, 2) as cluster:
        session = cluster.of(0, cluster.script().open().id)
        heard = HandshakeError("party-1 ended the session", peer="party-1", heard_from="party-1")
        session.abort(heard)
        for follows in (SessionError("it is aborted, not open"), PeerError("it does not answer", peer="provider")):
            told = session.life.told(follows)
            assert (told.code, told.peer) == (HandshakeError.code, "party-1")
        own = IntegrityError("the corrections were altered", peer="provider")
        assert session.life.told(own) is own


def test_whoever_may_have_ended_a_session_at_one_party_is_named(tmp_path: Path) -> None:
    """As a client does that gives up on a third: the party that obeys has done nothing by itself."""
    with InProcess(tmp_path, 2) as cluster:
        script = cluster.script().ready()
        session = cluster.of(0, script.id)
        handed = script.everyone(lambda index: script.masks(index, 1, OWNER))
        for wire, value in script.masked(script.integers(data(1)), handed).items():
            script.submit(0, 1, wire, value, OWNER)
        cluster.party(1).Close(CloseRequest(session_id=script.id))
        assert eventually(lambda: session.life.error is not None)
        error = session.life.error
        assert error is not None and (error.code, error.peer, error.heard_from) == ("peer", "party-1", None)
        assert error.what == "party-1 closed its end of the session"
        assert str(error.cause).startswith("as party-1 says, coordinator, who coordinates the session, ended it at")
        assert eventually(lambda: script.id not in cluster.sessions(0))
        cluster.party(0).Close(CloseRequest(session_id=script.id))  # nothing is left to end


@pytest.mark.parametrize("lie", [PeerError, PolicyError, IntegrityError])
def test_a_liar_of_three_has_no_innocent_party_named_as_a_session_is_opened(
    tmp_path: Path, lie: type[MpcError]
) -> None:
    """It blames one of the others at once, of whatever kind, and is silent to both: they have the time to say so."""

    class Liar(PartyService):
        def Open(self, request: party_pb2.OpenRequest, context: grpc.ServicerContext) -> party_pb2.OpenReply:
            raise lie("party-1 did not meet party-2", peer="party-1")

    quick = deadlines(connect=1, setup=3, step=5, submit=5)
    with InProcess(tmp_path, 3, services={2: Liar}, deadlines=quick) as cluster:
        with pytest.raises(PeerError) as caught:
            cluster.session()
        assert caught.value.peer == "party-2", caught.value
        assert eventually(lambda: not any(cluster.sessions(index) for index in range(2)))


@pytest.mark.parametrize("kind", [PolicyError, IntegrityError])
@pytest.mark.parametrize(
    ("others", "named", "told"),
    [
        (["party-2", "party-2"], "party-2", DeadlineError),  # both wait for the liar
        (["party-2", "heard from party-0"], "party-2", DeadlineError),
        (["party-2", "given up"], "party-1", None),  # nobody can tell: it is shown as the liar's word
        (["party-2", "about itself"], "party-1", PolicyError),
    ],
)
def test_a_refusal_or_a_cheat_that_a_party_tells_of_another_is_outvoted(
    kind: type[MpcError], others: list[str], named: str, told: type[MpcError] | None
) -> None:
    """However grave: what a party says of another is its word, of itself its own."""
    late = DeadlineError("party-2 did not join in time", peer="party-2")
    voices: dict[str, MpcError] = {
        "party-2": late,
        "heard from party-0": late.with_(heard_from="party-0"),
        "given up": given_up("party-1"),
        "about itself": PolicyError("party-1: refused", peer="party-1"),
    }
    errors = [voices[word].as_said_by(f"party-{index}") for index, word in enumerate(others)]
    chosen = most_telling([kind("party-2 says of party-1: it did", peer="party-1").as_said_by("party-2"), *errors])
    assert chosen.peer == named and isinstance(chosen, told or kind)


def test_errors_keep_whose_words_they_are() -> None:
    error = IntegrityError("party-1 cheats", peer="party-1").as_said_by("party-2")
    for same in (error.again(), error.with_(what="it cheats"), pickle.loads(pickle.dumps(error))):
        assert same.said_by == "party-2" and same.is_about_another
    assert not error.with_(peer="party-2").is_about_another and not error.as_said_by(None).is_about_another


class Call:
    """A call to a party; those that are heard are noted."""

    def __init__(self, name: str, heard: list[str]) -> None:
        self.name, self._heard, self._done = name, heard, Future[int]()

    def answer(self, value: int | MpcError) -> None:
        if isinstance(value, MpcError):
            self._done.set_exception(value)
        else:
            self._done.set_result(value)

    def when_done(self, tell: Callable[[], None]) -> None:
        self._done.add_done_callback(lambda _: tell())

    def result(self) -> int:
        self._heard.append(self.name)
        return self._done.result()


ABOUT_1 = DeadlineError("party-1 did not send it in time", peer="party-1")
ABOUT_2 = DeadlineError("party-2 did not send it in time", peer="party-2")
REFUSES = PolicyError("party-0 does not keep so much", peer="party-0")


@pytest.mark.parametrize(
    ("said", "named", "called_off"),
    [
        ([(2, ABOUT_1), (0, ABOUT_2), (1, ABOUT_2)], "party-2", 3),
        ([(2, ABOUT_1), (0, 7), (1, 7)], "party-1", 3),
        ([(2, ABOUT_1), (0, REFUSES), (1, ABOUT_2)], "party-0", 2),
        ([(0, REFUSES), (2, ABOUT_1), (1, ABOUT_1)], "party-0", 1),
        ([(2, ABOUT_1.with_(heard_from="party-0")), (0, ABOUT_2), (1, given_up("party-1"))], "party-2", 3),
    ],
)
def test_words_about_another_are_believed_once_the_others_have_spoken(
    said: list[tuple[int, int | MpcError]], named: str, called_off: int
) -> None:
    """The others are called off with the first word of a party about itself, or once all have spoken."""
    heard, ends = list[str](), list[int]()
    calls = [Call(f"party-{index}", heard) for index in range(3)]

    def start(*_: object) -> list[Call]:
        for index, value in said:
            calls[index].answer(value)
        return [calls[index] for index, _ in said]

    parties: Any = SimpleNamespace(start=start, together=lambda: None, identity=SimpleNamespace(name="coordinator"))
    with pytest.raises(MpcError) as caught:
        Parties.each_or_none(
            parties, lambda stub: stub.Open, party_pb2.OpenRequest(), 1, lambda: ends.append(len(heard))
        )
    assert caught.value.peer == named and ends == [called_off]
