"""A party that lies to owners and recipients: named, exit code 7, nothing accepted (security.md 21, active.md)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mpc.errors import IntegrityError, MpcError, PeerError
from mpc.fixedpoint import decode, encode
from parties.client.running.coordinated import CoordinatedSession
from parties.party.coordinating import Ended
from parties.party.services import PartyService
from parties.pb import party_pb2
from tests.support.parties import InProcess, altered, data, tiny_answer

pytestmark = pytest.mark.timeout(60)


class Lying(PartyService):
    """An honest party whose answers to clients are changed."""

    masks: Callable[[party_pb2.MasksReply, int], None] | None = None
    part: Callable[[party_pb2.ResultPart], None] | None = None
    open_reply: Callable[[party_pb2.OpenReply], None] | None = None

    def Open(self, request: party_pb2.OpenRequest, context: Any) -> party_pb2.OpenReply:
        reply = super().Open(request, context)
        if Lying.open_reply:
            Lying.open_reply(reply)
        return reply

    def Masks(self, request: party_pb2.MasksRequest, context: Any) -> party_pb2.MasksReply:
        reply = super().Masks(request, context)
        if Lying.masks:
            Lying.masks(reply, request.run)
        return reply

    def result(self, request: party_pb2.ResultRequest, context: Any) -> Ended:
        def alter(part: party_pb2.ResultPart) -> None:
            if Lying.part:
                Lying.part(part)

        return altered(super().result(request, context), alter)


@pytest.fixture(scope="module", params=[0, 1], ids=["party-0 lies", "party-1 lies"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("cluster"), 3, services={request.param: Lying}) as running:
        running.liar = f"party-{request.param}"  # type: ignore[attr-defined]
        yield running


@pytest.fixture(autouse=True)
def honest() -> Iterator[None]:
    yield
    Lying.masks = Lying.part = Lying.open_reply = None


def attempt(cluster: InProcess) -> np.ndarray:
    session = cluster.session()
    try:
        [given], [out] = session.plan.inputs, session.plan.outputs
        integers = encode(data(2), session.plan.wire[given.wire].scale)
        opened, _ = session.run({given.wire: integers}, 2, time.perf_counter)
        return decode(opened[out.wire], session.plan.wire[out.wire].scale)
    finally:
        session.close()


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def other_seed(reply: party_pb2.MasksReply, run: int) -> None:
    reply.seeds[0].seed = flipped(reply.seeds[0].seed)


def short_seed(reply: party_pb2.MasksReply, run: int) -> None:
    reply.seeds[0].seed = reply.seeds[0].seed[:31]


def none_at_all(reply: party_pb2.MasksReply, run: int) -> None:
    del reply.seeds[:]


def one_twice(reply: party_pb2.MasksReply, run: int) -> None:
    reply.seeds.append(reply.seeds[0])


def one_more(reply: party_pb2.MasksReply, run: int) -> None:
    reply.seeds.add(wire="y", seed=bytes(32))


def renamed(reply: party_pb2.MasksReply, run: int) -> None:
    reply.seeds[0].wire = "elsewhere"


def own_manifest(reply: party_pb2.MasksReply, run: int) -> None:
    reply.manifest.content = reply.manifest.content.replace(b'"run":', b'"run": ')


def no_manifest(reply: party_pb2.MasksReply, run: int) -> None:
    reply.manifest.Clear()


LIES = [other_seed, short_seed, none_at_all, one_twice, one_more, renamed, own_manifest, no_manifest]


@pytest.mark.parametrize("run", [0, 1], ids=["weights", "data"])
@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_a_lie_about_masks_is_named_and_no_input_leaves(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch, lie: Callable, run: int
) -> None:
    submitted: list[int] = []
    for name in ("Submit", "SubmitWhole"):
        submit = getattr(PartyService, name)

        def counted(self: PartyService, request: Any, context: Any, submit: Callable = submit) -> Any:
            submitted.append(1)
            return submit(self, request, context)

        monkeypatch.setattr(PartyService, name, counted)
    Lying.masks = lambda reply, number: lie(reply, number) if number == run else None
    weights = 3 * len(cluster.compiled().weights)
    with pytest.raises(IntegrityError) as caught:
        attempt(cluster)
    assert (caught.value.peer, caught.value.exit_code) == (cluster.liar, 7)
    assert len(submitted) in (0, weights) if run == 0 else len(submitted) <= weights
    assert cluster.is_idle(), "the client ended the session at every party"


def in_header(change: Callable[[party_pb2.ResultHeader], None]) -> Callable[[party_pb2.ResultPart], None]:
    return lambda part: change(part.header) if part.WhichOneof("part") == "header" else None


def set_(header: party_pb2.ResultHeader, **fields: Any) -> None:
    for name, value in fields.items():
        setattr(header, name, value)


@pytest.mark.parametrize(
    "lie",
    [
        lambda header: set_(header.outputs[0], seed=flipped(header.outputs[0].seed)),
        lambda header: set_(header.outputs[0], seed=b""),
        lambda header: header.ClearField("outputs"),
        lambda header: header.outputs.append(header.outputs[0]),
        lambda header: header.ClearField("manifest"),
    ],
    ids=["another seed", "no seed", "no outputs", "one twice", "no manifest"],
)
def test_a_lie_about_an_outputs_mask_is_named(cluster: InProcess, lie: Callable) -> None:
    Lying.part = in_header(lie)
    with pytest.raises(IntegrityError) as caught:
        attempt(cluster)
    assert (caught.value.peer, caught.value.exit_code) == (cluster.liar, 7)


@pytest.mark.parametrize(
    "lie",
    [
        lambda header: set_(header, transcript=flipped(header.transcript)),
        lambda header: set_(header, transcript=b""),
        lambda header: set_(header.outputs[0], digest=flipped(header.outputs[0].digest)),
        lambda header: set_(header.outputs[0], digest=b""),
    ],
    ids=["transcript", "no transcript", "digest", "no digest"],
)
def test_parties_that_contradict_each_other_are_not_believed(cluster: InProcess, lie: Callable) -> None:
    Lying.part = in_header(lie)
    with pytest.raises(IntegrityError) as caught:
        attempt(cluster)
    assert caught.value.exit_code == 7


def chunk(data: Callable[[bytes], bytes], wire: str | None = None) -> Callable[[party_pb2.ResultPart], None]:
    def change(part: party_pb2.ResultPart) -> None:
        if part.WhichOneof("part") == "chunk":
            part.chunk.data = data(part.chunk.data)
            part.chunk.wire = wire or part.chunk.wire

    return change


@pytest.mark.parametrize(
    "lie",
    [
        chunk(flipped),
        chunk(lambda d: d[:-8]),
        chunk(lambda d: d + bytes(8)),
        chunk(lambda d: b""),
        chunk(lambda d: b"\xff" * len(d)),
        chunk(lambda d: d, wire="elsewhere"),
        chunk(lambda d: d, wire="\x1b[2J"),
    ],
    ids=["changed", "short", "long", "empty", "not below p", "another wire", "a wire to steer a terminal"],
)
def test_a_changed_masked_output_is_not_believed(cluster: InProcess, lie: Callable) -> None:
    """Only the first party is asked for values; all are asked for digests."""
    Lying.part = lie
    if cluster.liar != "party-0":
        assert np.abs(attempt(cluster) - tiny_answer(data(2))).max() < 1e-3
        return
    with pytest.raises(MpcError) as caught:
        attempt(cluster)
    assert isinstance(caught.value, IntegrityError | PeerError)
    assert "\x1b" not in str(caught.value)


def test_a_party_that_sends_values_nobody_asked_for(tmp_path: Path) -> None:
    class Pushing(PartyService):
        def result(self, request: party_pb2.ResultRequest, context: Any) -> Ended:
            request.values = True
            return super().result(request, context)

    with InProcess(tmp_path, 2, services={1: Pushing}) as cluster:
        with pytest.raises(PeerError, match="more output") as caught:
            attempt(cluster)
        assert caught.value.peer == "party-1"


def test_another_session_id_is_noticed(cluster: InProcess) -> None:
    Lying.open_reply = lambda reply: set_(reply, session_id=flipped(reply.session_id))
    with pytest.raises(PeerError):
        cluster.session()
    assert cluster.is_idle(), "a session that nobody will use is not left open"


def test_details_of_an_error_are_text_and_bounded(tmp_path: Path) -> None:
    """What a hostile party puts in a status detail reaches a user's terminal."""

    class Hostile(PartyService):
        detail = ""

        def Propose(self, request: party_pb2.ProposeRequest, context: Any) -> party_pb2.ProposeReply:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, Hostile.detail)

    with InProcess(tmp_path, 2, services={1: Hostile}) as cluster:
        client = cluster.client()
        compiled = cluster.compiled()
        for detail in (
            "",
            "not JSON \x1b]0;title\x07",
            "[]",
            '{"code": 5}',
            '{"code": "policy", "what": 7}',
            '{"code": "policy", "what": "\\u001b[2J\\u0007"}',
            '{"code": "no such code", "what": "x"}',
            '{"code": "model", "what": "x", "peer": "\\u001b"}',
            '{"what": "x"}',
            '{"code": "policy", "what": "' + "y" * 5000 + '"}',
            "[" * 3000,
        ):
            Hostile.detail = detail
            with pytest.raises(MpcError) as caught:
                CoordinatedSession(client, compiled.plan, compiled.weights)
            text = str(caught.value)
            assert text.isprintable() and len(text) < 9000
            assert "party-1" in text and (caught.value.peer or "").isprintable()


def test_the_control(cluster: InProcess) -> None:
    assert np.abs(attempt(cluster) - tiny_answer(data(2))).max() < 1e-3
