"""The open call in which a coordinator has runs prepared, enters, and is answered: it may no more than single calls."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, cast

import grpc
import numpy as np
import pytest

from mpc.compiler.roles import Roles
from mpc.errors import DeadlineError, InputError, MpcError, PeerError, PolicyError, SessionError
from parties import Session
from parties.client.conversation import Conversation
from parties.client.running.conversing import Conversing
from parties.config.models import PolicyConfig
from parties.party.coordinating import Ended, answer
from parties.party.policy import Policy
from parties.party.services import PartyService
from parties.pb import party_pb2
from parties.pb.party_pb2 import CoordinatePart, CoordinateReply, MasksRequest, PrepareRequest, ResultRequest
from parties.trust.chains import Trust
from parties.wire.status import from_rpc
from parties.wire.transport import answered_within, patience
from tests.support.parties import (
    COORDINATOR,
    OWNER,
    PATIENCE,
    InProcess,
    Script,
    data,
    deadlines,
    eventually,
    id_of,
    tiny_answer,
)

ALL = Roles()
"""The coordinator owns and receives everything."""
FEW = deadlines(connect=2, setup=PATIENCE, step=PATIENCE, submit=PATIENCE)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[InProcess]:
    with InProcess(tmp_path / "cluster", 2, deadlines=FEW) as made:
        yield made


class Open:
    """One open call to one party, message by message."""

    def __init__(self, cluster: InProcess, index: int = 0, caller: str = COORDINATOR) -> None:
        self.name, self.address = cluster.names[index], cluster.addresses[cluster.names[index]]
        self._asked: SimpleQueue[CoordinatePart | None] = SimpleQueue()
        self.call: Any = cluster.party(index, caller).stub.Coordinate(iter(self._asked.get, None), timeout=PATIENCE)

    def ask(self, **fields: Any) -> CoordinateReply:
        """Ask one thing, and wait for the first reply to it."""
        self._asked.put(CoordinatePart(**fields))
        return self.next()

    def next(self) -> CoordinateReply:
        try:
            reply: CoordinateReply = next(self.call)
            return reply
        except grpc.RpcError as error:
            raise from_rpc(error, self.name, self.address) from None

    def finish(self) -> None:
        self._asked.put(None)
        assert list(self.call) == []


def opened(cluster: InProcess) -> Script:
    script = cluster.script(ALL).open()
    script.enter(0, script.compiled.weights, COORDINATOR)
    return script


def test_a_run_takes_two_messages_and_answers_as_calls_do(cluster: InProcess) -> None:
    script, x = opened(cluster), data(1)
    calls = [Open(cluster, index) for index in (0, 1)]
    prepare = PrepareRequest(session_id=script.id, run=1, batch=1, masks=True)
    prepared = script.everyone(lambda i: calls[i].ask(prepare=prepare))
    assert all(reply.ended and reply.prepared.dealt_bytes and not reply.result for reply in prepared)
    masked = script.masked(script.integers(x), [reply.prepared.masks for reply in prepared])
    inputs = [
        party_pb2.WholeInput(header=party_pb2.SubmitHeader(session_id=script.id, run=1, wire=wire), data=value)
        for wire, value in masked.items()
    ]

    def end(index: int) -> list[party_pb2.ResultPart]:
        reply = calls[index].ask(inputs=inputs, result=ResultRequest(session_id=script.id, run=1, values=True))
        while not reply.ended:
            assert all(part.HasField("progress") for part in reply.result)
            reply = calls[index].next()
        return list(reply.result)

    found = script.everyone(end)
    assert found == script.everyone(lambda i: script.result(i, 1, COORDINATOR)), "as the call Result has it"
    for call in calls:
        call.finish()


# ------------------------------------------------------------------------------- what it may do


def test_what_would_be_refused_is_refused_alike(cluster: InProcess) -> None:
    """With the same words: they come from the same methods."""
    script = opened(cluster)
    script.prepare(1)
    id, party = script.id, cluster.party(0)
    wire, other = script.input_wire, script.plan.weights[0].out

    def given(name: str, run: int = 1, size: int = 8) -> party_pb2.WholeInput:
        header = party_pb2.SubmitHeader(session_id=id, run=run, wire=name)
        return party_pb2.WholeInput(header=header, data=bytes(size))

    cases: list[tuple[dict[str, Any], Any]] = [
        ({"prepare": PrepareRequest(session_id=id, run=3, batch=1)}, party.Prepare),
        ({"prepare": PrepareRequest(session_id=id, run=1, batch=1, masks=True)}, party.Prepare),
        ({"prepare": PrepareRequest(session_id=id, run=2, batch=0)}, party.Prepare),
        ({"masks": MasksRequest(session_id=id, run=2)}, party.Masks),
        ({"inputs": [given(wire)]}, party.SubmitWhole),
        ({"inputs": [given("none")]}, party.SubmitWhole),
        ({"inputs": [given(other, run=0)]}, party.SubmitWhole),
        ({"result": ResultRequest(session_id=id, run=5)}, lambda request: list(party.Result(request))),
        ({"masks": MasksRequest(session_id=bytes(32), run=1)}, party.Masks),
    ]
    for fields, call in cases:
        [request] = [each[0] if isinstance(each, list) else each for each in fields.values()]
        with pytest.raises(MpcError) as alone:
            call(request)
        with pytest.raises(MpcError) as joined:
            Open(cluster).ask(**fields)
        assert type(joined.value) is type(alone.value)
        assert str(joined.value) == str(alone.value)


def test_security_16_masks_in_an_open_call_are_handed_out_behind_burnt(cluster: InProcess) -> None:
    script = opened(cluster)
    script.prepare(1)
    assert cluster.run_states(0, script.id) == ["dealt"]
    calls = [Open(cluster, index) for index in (0, 1)]
    assert all(len(call.ask(masks=MasksRequest(session_id=script.id, run=1)).masks.seeds) == 1 for call in calls)
    for index in (0, 1):
        assert cluster.run_states(index, script.id) == ["burnt"]


def test_only_a_sessions_coordinator_has_one_and_for_this_session_alone(cluster: InProcess) -> None:
    script = cluster.script().open().enter_weights()
    masks = MasksRequest(session_id=script.id, run=1)
    with pytest.raises(PolicyError, match="is not this session's coordinator"):
        Open(cluster, caller=OWNER).ask(masks=masks)
    other, mine = opened(cluster), Open(cluster)
    own = [mine, Open(cluster, 1)]
    prepare = PrepareRequest(session_id=script.id, run=1, batch=1)
    assert all(reply.ended for reply in script.everyone(lambda i: own[i].ask(prepare=prepare)))
    with pytest.raises(PeerError, match="all parts of a call are about one session"):
        mine.ask(prepare=PrepareRequest(session_id=other.id, run=1, batch=1))
    for fields in ({}, {"masks": masks, "result": ResultRequest(session_id=other.id, run=1)}):
        with pytest.raises(PeerError, match="a part of a call is about one session"):
            Open(cluster).ask(**fields)


def test_policy_and_certificate_are_asked_again_for_each_part(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, calls = opened(cluster), [Open(cluster, index) for index in (0, 1)]
    first, second = (PrepareRequest(session_id=script.id, run=run, batch=1) for run in (1, 2))
    script.everyone(lambda i: calls[i].ask(prepare=first))
    rules = cluster.nodes[0].rules
    rules.policy = Policy(PolicyConfig(plans=("any",), coordinators=("somebody",)), frozenset())
    with pytest.raises(PolicyError, match="coordinat"):
        calls[0].ask(prepare=second)
    monkeypatch.setattr(Trust, "lists", property(lambda trust: 7))
    monkeypatch.setattr(Trust, "fault_in_use", lambda *_: "was revoked")
    with pytest.raises(PolicyError, match="was revoked"):
        calls[1].ask(prepare=second)


# ------------------------------------------------------------------------------- when it ends


def test_a_call_outlives_its_session_by_a_moment_in_which_it_is_told_why(cluster: InProcess) -> None:
    """One that asks nothing is ended, and holds no place; nothing of the session is held meanwhile."""
    script, desk = opened(cluster), cluster.desks[0].sessions
    asking, silent = Open(cluster), Open(cluster)
    prepare = PrepareRequest(session_id=script.id, run=1, batch=1)
    other = Open(cluster, 1)
    script.everyone(lambda i: (asking, other)[i].ask(prepare=prepare))
    silent.ask(masks=MasksRequest(session_id=script.id, run=1))
    assert desk.taken(COORDINATOR) == 2
    cluster.party(0).End(party_pb2.EndRequest(session_id=script.id))
    with pytest.raises(SessionError, match="ended the session"):
        asking.ask(prepare=PrepareRequest(session_id=script.id, run=2, batch=1))
    with pytest.raises(PeerError, match="cancelled"):
        silent.next()
    assert eventually(lambda: not desk.taken(COORDINATOR))


def test_who_waits_for_a_result_counts_as_told_once_it_has_left(cluster: InProcess) -> None:
    """Not when it is made: whoever hung up before has to be able to ask again."""
    told = list[str]()

    class Ending(PartyService):
        def result(self, request: ResultRequest, context: grpc.ServicerContext) -> Ended:
            yield party_pb2.ResultPart(header=party_pb2.ResultHeader(rounds=3))
            return partial(told.append, "told")

    part = CoordinatePart(result=ResultRequest(session_id=bytes(32), run=1))
    context = cast(grpc.ServicerContext, SimpleNamespace(cancel=lambda: None))
    replies = answer(Ending(cluster.nodes[0]), part, context, PATIENCE)
    assert next(replies).ended and told == []
    assert next(replies, None) is None and told == ["told"]


def test_a_call_that_says_nothing_at_first_is_ended(cluster: InProcess) -> None:
    with pytest.raises(PeerError, match="cancelled"):
        Open(cluster).next()


def test_a_session_whose_calls_were_ended_opens_others(cluster: InProcess) -> None:
    """As when a connection was lost between two runs."""
    with Session(cluster.client(), cluster.compiled(ALL)) as session:
        for _ in range(2):
            [y] = session.run(None, {"x": data(1)})
            assert np.abs(y - tiny_answer(data(1))).max() < 1e-3
            calls = cast(Conversing, session.remote.conversing).calls
            for call in calls:
                call.cancel()
            assert all(eventually(partial(getattr, call, "is_over")) for call in calls)
        [y] = session.run(None, {"x": data(1)})
        id = id_of(session)
    assert cluster.has_ended(id)
    for desks in cluster.desks:
        assert eventually(lambda desks=desks: not desks.sessions.taken(COORDINATOR))


def test_a_party_whose_certificate_is_revoked_is_asked_nothing_more(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Session(cluster.client(), cluster.compiled(ALL)) as session:
        session.run(None, {"x": data(1)})
        monkeypatch.setattr(Trust, "lists", property(lambda trust: 7))
        monkeypatch.setattr(Trust, "fault_in_use", lambda trust, chain, name, now: "was revoked" if name else None)
        with pytest.raises(PeerError) as caught:
            session.run(None, {"x": data(1)})
    assert "was revoked" in str(caught.value)


def test_what_one_party_refuses_is_told_although_another_waits(tmp_path: Path) -> None:
    """The other waits for the first in the first round, for `deadlines.step`; its call is ended before."""

    class Refuses(PartyService):
        def SubmitWhole(self, request: party_pb2.WholeInput, context: Any) -> party_pb2.SubmitReply:
            if request.header.run:
                raise InputError("this party does not like it")
            return super().SubmitWhole(request, context)

    with (
        InProcess(tmp_path, 2, services={1: Refuses}, deadlines=FEW) as cluster,
        Session(cluster.client(), cluster.compiled(ALL)) as session,
        pytest.raises(InputError, match="does not like it"),
    ):
        session.run(None, {"x": data(1)})


def test_a_party_that_does_not_answer_in_an_open_call_is_named(tmp_path: Path) -> None:
    done = threading.Event()

    class Late(PartyService):
        def Prepare(self, request: party_pb2.PrepareRequest, context: Any) -> party_pb2.PrepareReply:
            done.wait(PATIENCE)
            return super().Prepare(request, context)

    limits = deadlines(connect=1, setup=5, step=PATIENCE, submit=PATIENCE)
    with InProcess(tmp_path, 2, services={1: Late}, deadlines=limits) as cluster:
        try:
            with (
                Session(cluster.client(), cluster.compiled(ALL)) as session,
                pytest.raises(DeadlineError, match="did not answer in time") as caught,
            ):
                session.run(None, {"x": data(1)})
            assert caught.value.peer == "party-1"
        finally:
            done.set()


def test_a_call_that_is_given_up_says_that_its_party_was_silent(cluster: InProcess) -> None:
    """Not that it was cancelled, which tells nothing: the others say what they waited for."""

    class Silent(grpc.RpcError):
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.CANCELLED

    class Waiting:
        cancelled = False

        def cancel(self) -> None:
            self.cancelled = True

        def __next__(self) -> object:
            raise Silent

    call = Waiting()
    conversation = Conversation(cluster.client().clients[0], cast(Any, call))
    conversation.give_up()
    with pytest.raises(PeerError, match="party-0 said nothing, and the session ends without it") as caught:
        conversation.next(time.monotonic() + PATIENCE)
    assert call.cancelled and caught.value.peer == "party-0"


@pytest.mark.parametrize("seconds", [-5.0, math.nan, math.inf, 0.0])
def test_a_time_that_is_none_counts_as_not_said(seconds: float) -> None:
    with answered_within(seconds):
        assert patience(7.0) == 7.0
    with answered_within(3.0):
        assert patience(7.0) < 7.0
