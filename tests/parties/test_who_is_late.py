"""A party that is frozen in a run: who is told whom it waits for, and how soon."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest

from mpc.compiler.roles import Roles
from mpc.errors import DeadlineError, IntegrityError, MpcError, PeerError, PolicyError
from parties import Session
from parties.agreed.terms import Terms
from parties.agreed.ticket import Ticket
from parties.client.channels import gather
from parties.client.guest import Guest
from parties.client.running.participant import Participant
from parties.client.together import GivenUpError, Together, given_up
from parties.config.models import Deadlines
from parties.party.services import PartyService
from parties.pb import party_pb2
from parties.wire.direct import swap
from parties.wire.status import to_detail
from tests.support.parties import COORDINATOR, OWNER, PATIENCE, RECIPIENT, SEPARATE, InProcess, Script, data, deadlines

pytestmark = pytest.mark.timeout(120)
ALL = Roles()
"""The coordinator owns and receives everything."""
LATE = deadlines(connect=10 * PATIENCE, setup=PATIENCE, step=1, submit=10 * PATIENCE)
"""Who waits for a frozen party as long as for a connection, or for an input, is not done before the test is."""


@pytest.fixture
def thawed() -> Iterator[threading.Event]:
    """Set when the test is over: what was frozen goes on."""
    event = threading.Event()
    yield event
    event.set()


def frozen(thawed: threading.Event) -> type[PartyService]:
    """A party that does nothing any more once a run's input is to come."""

    class Frozen(PartyService):
        def SubmitWhole(self, request: party_pb2.WholeInput, context: grpc.ServicerContext) -> party_pb2.SubmitReply:
            if request.header.run:
                thawed.wait()
            return super().SubmitWhole(request, context)

        def Submit(
            self, request: Iterator[party_pb2.SubmitPart], context: grpc.ServicerContext
        ) -> party_pb2.SubmitReply:
            first = next(request)
            if first.header.run:
                thawed.wait()
            return super().Submit(chain([first], request), context)

        def Result(
            self, request: party_pb2.ResultRequest, context: grpc.ServicerContext
        ) -> Iterator[party_pb2.ResultPart]:
            thawed.wait()
            yield from super().Result(request, context)

        def Close(self, request: party_pb2.CloseRequest, context: grpc.ServicerContext) -> party_pb2.CloseReply:
            thawed.wait()
            return super().Close(request, context)

    return Frozen


@pytest.mark.parametrize("index", [0, 1])
def test_a_client_is_told_by_who_waits_for_a_frozen_party(tmp_path: Path, index: int, thawed: threading.Event) -> None:
    """As soon as the other one knows, whichever is asked first; closing the session waits for nobody, either."""
    with InProcess(tmp_path, 2, services={index: frozen(thawed)}, deadlines=LATE) as cluster:
        try:
            with (
                Session(cluster.client(), cluster.compiled(ALL)) as session,
                pytest.raises(DeadlineError, match=f"party-{1 - index}: party-{index} did not send step 0 in time"),
            ):
                session.run(None, {"x": data(1)})
        finally:
            thawed.set()


def test_a_recipient_is_told_by_who_waits_for_a_frozen_party(tmp_path: Path, thawed: threading.Event) -> None:
    with InProcess(tmp_path, 2, services={0: frozen(thawed)}, deadlines=LATE) as cluster:
        try:
            script = cluster.script(SEPARATE).ready()
            entering = threading.Thread(target=enter, args=(script,))
            entering.start()
            guest = Participant(cluster.client(RECIPIENT), script.plan, terms_of(script))
            with pytest.raises(DeadlineError, match="party-1: party-0 did not send step 0 in time"):
                guest.receive(1)
        finally:
            thawed.set()
        entering.join()


def test_an_owner_who_joins_is_told_by_who_waits_for_a_frozen_party(tmp_path: Path, thawed: threading.Event) -> None:
    """As soon as that one knows, though the frozen one takes no input."""
    with InProcess(tmp_path, 2, services={0: frozen(thawed)}, deadlines=LATE) as cluster:
        try:
            script = cluster.script(SEPARATE).ready()
            guest = Guest(cluster.client(OWNER), Ticket(script.plan, terms_of(script)))
            with pytest.raises(DeadlineError, match="party-1: party-0 did not send step 0 in time"):
                guest.run({"x": data(1)})
        finally:
            thawed.set()


@pytest.mark.parametrize("rows", [1, 50_000], ids=["small", "large"])
def test_a_coordinator_beside_others_is_told_of_a_party_that_takes_no_input(
    tmp_path: Path, rows: int, thawed: threading.Event
) -> None:
    """Its input in one message, and in pieces."""
    with InProcess(tmp_path, 2, services={0: frozen(thawed)}, deadlines=LATE) as cluster:
        try:
            roles = Roles(COORDINATOR, COORDINATOR, (RECIPIENT,))
            with (
                Session(cluster.client(), cluster.compiled(roles)) as session,
                pytest.raises(DeadlineError, match="party-1: party-0 did not send step 0 in time"),
            ):
                session.run(None, {"x": data(rows)})
        finally:
            thawed.set()


def enter(script: Script) -> None:
    with suppress(PeerError):
        script.enter(1, script.integers(data(1)), OWNER)


def terms_of(script: Script) -> Terms:
    return script.cluster.of(0, script.id).terms


@pytest.mark.parametrize("step", [0, 1])
def test_who_has_only_waited_for_another_is_not_blamed_in_rounds_beside_grpc(
    tmp_path: Path, step: int, thawed: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last party freezes between two of its sends: the first misses a step of both others, as the second waits."""
    quick = deadlines(connect=5, setup=PATIENCE, step=1.5, submit=PATIENCE)
    with InProcess(tmp_path, 3, deadlines=quick) as cluster:
        script = cluster.script().ready()
        sessions = [cluster.of(index, script.id) for index in range(3)]
        assert all(link.direct is not None for session in sessions for link in session.links.values())
        first, second = (cast(Any, sessions[2].links[name].direct) for name in ("party-0", "party-1"))
        begin = second.begin

        def freeze(run: int, number: int, payload: bytes, size: int) -> None:
            if number == step:
                swap([first], float("inf"), lambda: None)
                thawed.wait()
            begin(run, number, payload, size)

        monkeypatch.setattr(second, "begin", freeze)
        try:
            with suppress(PeerError):
                script.enter(1, script.integers(data(1)), OWNER)
            with pytest.raises(PeerError) as caught:
                script.everyone(lambda i: script.result(i, 1, RECIPIENT))
        finally:
            thawed.set()
        assert [error and error.peer for error in script.errors[:2]] == ["party-2", "party-2"], script.errors
        assert caught.value.peer == "party-2"
        ends = [session.life.error for session in sessions[:2]]
        assert ends[1] is not None and ends[1].what == f"party-2 did not send step {step} in time"
        assert ends[0] is not None and ends[0].peer == "party-2"


# ------------------------------------------------------------------------- calls made together


class Ended(grpc.Call):
    """A call that is over, as far as anybody asks."""

    def __init__(self, error: MpcError | None, code: grpc.StatusCode = grpc.StatusCode.FAILED_PRECONDITION) -> None:
        self._error, self._code = error, code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "" if self._error is None else to_detail(self._error)


for name in grpc.Call.__abstractmethods__ - set(vars(Ended)):
    setattr(Ended, name, lambda self, *arguments: None)
Ended.__abstractmethods__ = frozenset()


class Waiting:
    def __init__(self) -> None:
        self.over = threading.Event()

    def give_up(self) -> None:
        self.over.set()


def blames(peer: str, **words: str) -> Ended:
    return Ended(DeadlineError(f"{peer} did not send step 0 in time", peer=peer, **words))


LOST = Ended(None, grpc.StatusCode.UNAVAILABLE)
WELL = Ended(None, grpc.StatusCode.OK)
HEARD = Ended(IntegrityError("party-1 ended the session", peer="party-0", heard_from="party-1"))
REASON = Ended(PolicyError("no model of that name"))
GONE = Ended(PeerError("party-1 is gone", peer="party-1"))
LONG = 1000
"""Seconds: nothing is given up within a test."""


@pytest.mark.parametrize(
    ("ended", "seconds", "blamed", "given"),
    [
        ({0: REASON}, LONG, LONG, True),
        ({2: HEARD, 0: REASON}, LONG, LONG, True),
        ({0: LOST}, 0, LONG, True),
        ({0: HEARD}, 0, LONG, True),
        ({2: LOST, 0: HEARD}, LONG, 0, False),
        ({0: WELL, 1: None}, 0, 0, False),
        # words about somebody else, who has said nothing: one party's are not enough
        ({0: blames("party-1")}, 0, LONG, False),
        ({0: blames("party-1", heard_from="party-2")}, 0, LONG, False),
        ({0: GONE}, 0, LONG, False),
        ({0: blames("provider")}, 0, LONG, False),
        ({1: WELL, 0: blames("party-1")}, 0, LONG, False),
        ({0: blames("party-1")}, LONG, 0, True),
        ({0: blames("party-1"), 2: blames("party-0")}, LONG, LONG, True),
        ({0: blames("party-1"), 2: blames("party-1")}, LONG, LONG, True),
        ({0: blames("party-1"), 2: REASON}, LONG, LONG, True),
        ({0: blames("party-1"), 1: LOST}, LONG, LONG, True),
    ],
)
def test_calls_are_given_up_soon_after_one_has_a_reason(
    ended: dict[int, Ended | None], seconds: float, blamed: float, given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was lost, or has only heard of a failure, leaves the others time; one that has ended well leaves all.

    So does one that blames somebody else, until a second party has a reason: a liar would have an innocent one named.
    """
    rung = alarms(monkeypatch)
    together, waiting = Together(seconds, blamed), Waiting()
    together.add(waiting)
    for index, call in ended.items():
        together.ended(call, f"party-{index}")
    assert waiting.over.is_set() is given, rung


def test_words_about_another_leave_time_although_a_connection_was_lost_before(monkeypatch: pytest.MonkeyPatch) -> None:
    rung = alarms(monkeypatch)
    together = Together(LONG, 2 * LONG)
    for index, call in ((2, LOST), (0, blames("party-1"))):
        together.ended(call, f"party-{index}")
    assert rung == [2 * LONG], "the alarm before was cancelled"


@pytest.mark.parametrize(("parties", "seconds"), [(2, 1.0), (3, 60.0), (5, 60.0)])
def test_what_one_of_two_says_is_told_soon(parties: int, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rung = alarms(monkeypatch)
    together = Together.of_session(Deadlines(step=30, connect=10), parties)
    together.ended(blames("party-1"), "party-0")
    assert rung[-1] == seconds


def alarms(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Have alarms ring at once, if they would soon; return what they were set to, but for those that were cancelled."""
    rung = list[float]()

    def ring(after: float, call: Callable[[], None]) -> SimpleNamespace:
        rung.append(after)
        if after < LONG:
            call()
        return SimpleNamespace(cancel=lambda: rung.remove(after))

    monkeypatch.setattr("parties.client.together.ALARMS", SimpleNamespace(set=ring))
    return rung


def test_who_was_given_up_is_named_only_if_nobody_says_more() -> None:
    reason = DeadlineError("party-0: party-1 did not send step 0 in time", peer="party-1")
    silent = given_up("party-1")

    class Fails:
        def __init__(self, error: MpcError) -> None:
            self.error = error

        def result(self) -> object:
            raise self.error.again()

    for errors in ([silent, reason], [reason, silent]):
        with pytest.raises(DeadlineError, match="did not send step 0"):
            gather([Fails(error) for error in errors])
    with pytest.raises(GivenUpError) as caught:
        gather([Fails(silent)])
    assert caught.value.peer == "party-1" and (caught.value.code, caught.value.exit_code) == ("peer", 6)
