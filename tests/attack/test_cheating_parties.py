"""A party of a cluster cheats: all others abort, alike, before anything is told, and whoever waits learns so."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import numpy as np
import pytest

from mpc import field as fp
from mpc.compiler.compile import compile_model
from mpc.compiler.roles import Roles
from mpc.entry import EntryId
from mpc.errors import IntegrityError, MpcError
from mpc.fixedpoint import decode, encode
from mpc.gates.base import Layout
from mpc.plan.checking import check_windows
from parties.client.running.coordinated import CoordinatedSession
from parties.client.running.stocks import order, stocks
from parties.client.session import Session
from parties.party.coordinating import Ended
from parties.party.evaluating import failed_check
from parties.party.services import PartyService
from parties.pb import party_pb2
from tests.support.cheaters import cheating
from tests.support.cheating import (
    Deviation,
    Field,
    Place,
    added,
    dealt,
    fields_of_the_check,
    once,
    opened,
    rounds,
)
from tests.support.effort import FULL
from tests.support.parties import COORDINATOR, InProcess, altered, data, eventually, id_of, tiny_answer, tiny_model

ACTIVE = Roles(security="active")
PARTIES = 3
RUN = EntryId(1)
with TemporaryDirectory() as _folder:
    PLAN = compile_model(tiny_model(Path(_folder) / "tiny.onnx"), {"x": (-4.0, 4.0)}, ACTIVE).plan
OPENINGS = list(opened(PLAN))
DEALT = list(dealt(PLAN, RUN))
CHECK = fields_of_the_check()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("cluster"), PARTIES) as running:
        yield running


def answer(session: CoordinatedSession, x: np.ndarray) -> np.ndarray:
    [given], [out] = session.plan.inputs, session.plan.outputs
    found, _ = session.run({given.wire: encode(x, session.plan.wire[given.wire].scale)}, len(x), time.perf_counter)
    return decode(found[out.wire], session.plan.wire[out.wire].scale)


def caught(
    cluster: InProcess, deviation: Deviation, cheater: int, before: int = 0, may_pass: Collection[int] = ()
) -> MpcError:
    """Run, and hold every honest party to what it has to do; what the recipient was told."""
    with cheating(deviation, cheater):
        session = cluster.session(roles=ACTIVE)
        for number in range(before):
            answer(session, data(2, number))
        with pytest.raises(IntegrityError) as error:
            answer(session, data(2))
        assert error.value.exit_code == 7
        require_over(cluster, session.id, cheater, before, may_pass)
        with pytest.raises(MpcError):  # nothing more comes of it: not what is prepared either
            answer(session, data(2))
    session.close()
    return error.value


def assert_alike(error: MpcError) -> None:
    """Whatever was wrong, and whoever found it, says the one thing."""
    assert error.what.partition(": ")[2] == failed_check().what and error.cause == failed_check().cause


def require_over(
    cluster: InProcess, session_id: bytes, cheater: int, before: int = 0, may_pass: Collection[int] = ()
) -> None:
    """Nothing is left of a session at every honest party and the provider, and nothing of its last run was told.

    Args:
        may_pass: parties whose check may have passed: the cheater told them the truth, and another one a lie.
    """
    assert cluster.has_ended(session_id)
    for index in {*range(PARTIES)} - {cheater}:
        assert cluster.ledger_states(index)[0] == ("aborted", "integrity")
        states = cluster.run_states(index, session_id)
        assert states[:before] == ["revealed"] * before
        assert states[before:] and {*states[before:]} <= {"aborted", *(["revealed"] if index in may_pass else [])}
        with pytest.raises(IntegrityError) as ended:
            cluster.nodes[index].session(session_id, COORDINATOR)
        assert ended.value.peer is None  # no name: it would be hearsay
    assert eventually(lambda: cluster.dealt(session_id) is None)


# ------------------------------------------------------------------ what it opens, and what it was dealt


@pytest.mark.parametrize("place", OPENINGS, ids=str)
def test_security_active_another_share_opened_by_a_daemon_is_caught(cluster: InProcess, place: Place) -> None:
    """Each party in turn goes on as if its share had been another one."""
    turn = OPENINGS.index(place)
    for cheater in range(PARTIES) if FULL else [turn % PARTIES]:
        error = caught(cluster, Deviation(opens=(place, (added, once)[turn % 2])), cheater)
        assert_alike(error)


def test_security_active_it_is_caught_with_its_window_if_a_run_has_several(cluster: InProcess) -> None:
    """Whoever hears of it in the middle of a run, or at its end, hears the same."""
    compiled = cluster.compiled(ACTIVE)
    plan = compiled.plan.with_segments(1)
    assert len(check_windows(plan.bind(2))) > 1
    for deviation in (None, Deviation(opens=(OPENINGS[0], added)), Deviation(opens=(OPENINGS[-1], added))):
        with cheating(deviation or Deviation(), 1):
            session = CoordinatedSession(cluster.client(), plan, compiled.weights)
            if deviation is None:
                assert np.abs(answer(session, data(2)) - tiny_answer(data(2))).max() < 1e-3
            else:
                with pytest.raises(IntegrityError) as error:
                    answer(session, data(2))
                assert_alike(error.value)
                require_over(cluster, session.id, 1)
            session.close()


@pytest.mark.parametrize("place", DEALT if FULL else DEALT[1::5], ids=str)
def test_another_dealt_share_is_caught_or_changes_nothing(cluster: InProcess, place: Place) -> None:
    cheater, x = DEALT.index(place) % PARTIES, data(2)
    with cheating(Deviation(takes=(place, added)), cheater):
        session = cluster.session(roles=ACTIVE)
        try:
            found = answer(session, x)
        except IntegrityError:
            require_over(cluster, session.id, cheater)
        else:
            assert np.abs(found - tiny_answer(x)).max() < 1e-3
        session.close()


@pytest.mark.parametrize("place", OPENINGS[::2], ids=str)
def test_control_unchecked_it_is_told_another_answer(cluster: InProcess, place: Place) -> None:
    def far(values: np.ndarray, layout: Layout) -> np.ndarray:
        return added(values, layout) if layout.width else fp.add(values, np.full(values.shape, 1 << 34, np.uint64))

    x = data(2)
    with cheating(Deviation(opens=(place, far)), 0):
        session = cluster.session()
        assert np.abs(answer(session, x) - tiny_answer(x)).max() > 1e-2
        session.close()


# ------------------------------------------------------------------ what it says in the check


@pytest.mark.parametrize("part", CHECK if FULL else CHECK[::2], ids=str)
def test_another_word_in_the_check_is_caught(cluster: InProcess, part: Field) -> None:
    """A bit of it, told to all others, or to one of them."""
    cheater, first = CHECK.index(part) % PARTIES, rounds(PLAN, 2)
    told = [index for index in range(PARTIES) if index != cheater]

    def sends(number: int, recipient: int, payload: bytes) -> bytes:
        if number != first + part.exchange or recipient not in told:
            return payload
        changed = bytearray(payload)
        changed[part.start] ^= 1
        return bytes(changed)

    assert_alike(caught(cluster, Deviation(sends=sends), cheater))
    if FULL or part.name in ("held", "words"):
        spared = told[1:] if part.exchange == 3 else []
        told = told[:1]
        assert_alike(caught(cluster, Deviation(sends=sends), cheater, may_pass=spared))


def test_a_number_that_is_none_is_no_other_error(cluster: InProcess) -> None:
    """Whoever sends p for a sum learns nothing by how others fail."""
    last = rounds(PLAN, 2) + 3
    wrong = int(fp.P).to_bytes(8, "little")
    sends = Deviation(sends=lambda number, _, payload: wrong + payload[8:] if number == last else payload)
    assert_alike(caught(cluster, sends, 1))


def test_different_openings_told_to_different_peers_are_caught(cluster: InProcess) -> None:
    """Behind the agreement's 32 bytes a share is what one peer is told, and one more what the other is."""

    def sends(number: int, recipient: int, payload: bytes) -> bytes:
        if number != 1 or recipient != 2:
            return payload
        changed = bytearray(payload)
        changed[0] ^= 1
        return bytes(changed)

    assert_alike(caught(cluster, Deviation(sends=sends), 0))


def test_frames_of_another_session_are_caught(cluster: InProcess) -> None:
    """Each message of the check, and of an opening, as it was in a session before."""
    kept: dict[tuple[int, int], bytes] = {}

    def records(number: int, recipient: int, payload: bytes) -> bytes:
        kept[number, recipient] = payload
        return payload

    with cheating(Deviation(sends=records), 1):
        session = cluster.session(roles=ACTIVE)
        answer(session, data(2))
        session.close()
    last = max(number for number, _ in kept)
    for replayed in (1, last - 3, last - 2, last - 1, last):

        def replays(number: int, recipient: int, payload: bytes, replayed: int = replayed) -> bytes:
            return kept[number, recipient] if number == replayed else payload

        assert_alike(caught(cluster, Deviation(sends=replays), 1))


def test_what_went_before_was_told_and_what_is_prepared_is_worth_nothing(cluster: InProcess) -> None:
    """A cheater that waits for the third run; the one behind it is prepared by then, and never computed."""
    place, seen = OPENINGS[-1], 0

    def late(values: np.ndarray, layout: Layout) -> np.ndarray:
        nonlocal seen
        seen += 1
        return added(values, layout) if seen == 3 else values

    caught(cluster, Deviation(opens=(place, late)), 2, before=2)


def test_what_was_dealt_ahead_goes_with_the_session_that_was_cheated(cluster: InProcess) -> None:
    compiled, client = cluster.compiled(ACTIVE), cluster.client()
    order(client, compiled.plan, [2, 2])
    with cheating(Deviation(opens=(OPENINGS[0], added)), 0):
        session = Session(client, compiled, 2)
        with pytest.raises(IntegrityError):
            session.run(None, {"x": data(2)})
        require_over(cluster, id_of(session), 0)
        assert not stocks(client, compiled.plan)
        session.abandon()


# ------------------------------------------------------------------ what it hands to a recipient


class Liar(PartyService):
    """Tells a recipient another seed, or another z^, than it has."""

    lies = ""

    def result(self, request: party_pb2.ResultRequest, context: grpc.ServicerContext) -> Ended:
        def alter(part: party_pb2.ResultPart) -> None:
            if part.WhichOneof("part") == "header":
                for out in part.header.outputs:
                    if Liar.lies == "seed":
                        out.seed = bytes([out.seed[0] ^ 1]) + out.seed[1:]
                    if Liar.lies == "digest":
                        out.digest = bytes(32)
                if Liar.lies == "transcript":
                    part.header.transcript = bytes(32)
            elif part.WhichOneof("part") == "chunk" and Liar.lies == "value":
                part.chunk.data = bytes(8) + part.chunk.data[8:]

        return altered(super().result(request, context), alter)


@pytest.mark.parametrize("lies", ["seed", "digest", "transcript", "value"])
def test_a_recipient_catches_who_lies_to_it(tmp_path: Path, lies: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Liar, "lies", lies)
    with InProcess(tmp_path, 2, services={0: Liar}) as cluster:
        session = cluster.session(roles=ACTIVE)
        with pytest.raises(IntegrityError) as error:
            answer(session, data(2))
        assert error.value.exit_code == 7
        assert (error.value.peer == "party-0") == (lies == "seed")
        session.close()
