"""Public weights at the provider: who may hand them over, what it takes, and that all parties hold the same."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import grpc
import numpy as np
import pytest

from mpc import field as fp
from mpc.encoding import encode_field
from mpc.errors import (
    DeadlineError,
    EncodingError,
    HandshakeError,
    MpcError,
    PeerError,
    PlanError,
    PolicyError,
    SessionError,
)
from mpc.field import P
from mpc.interpret.session_wires import public_digest
from mpc.plan.parse import parse_plan
from mpc.wires import Masking
from parties import entropy
from parties.agreed.terms import Terms
from parties.agreed.ticket import Ticket
from parties.client.running import stocks as ordering
from parties.client.running.coordinated import CoordinatedSession
from parties.client.running.participant import Participant
from parties.client.running.roles import known_weights
from parties.config.models import Limits
from parties.party.services import PartyService
from parties.pb import party_pb2, provider_pb2
from tests.support.effort import patient
from tests.support.parties import (
    COORDINATOR,
    FAST,
    MODEL_OWNER,
    OWNER,
    PATIENCE,
    RECIPIENT,
    SEPARATE,
    InProcess,
    Script,
    data,
    eventually,
    tiny_answer,
)
from tests.support.plans import replace_wires

pytestmark = pytest.mark.timeout(60)
CANARY = 1.7320508
PUBLIC = replace(SEPARATE, public_weights=True)
ALONE = replace(
    SEPARATE, model_owner=COORDINATOR, data_owner=COORDINATOR, recipients=(COORDINATOR,), public_weights=True
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    folder = tmp_path_factory.mktemp("cluster")
    impatient = FAST.model_copy(update={"setup": patient(5)})
    with InProcess(folder, 2, deadlines=impatient, limits=Limits(max_sessions=256)) as one:
        yield one


class Handing:
    """A session at the provider alone, whose weights are public; the parties are played by the test."""

    def __init__(self, cluster: InProcess, public: bool = True) -> None:
        self.cluster = cluster
        compiled = cluster.compiled(replace(SEPARATE, public_weights=public))
        self.plan = compiled.plan
        self.weights = {gate.out: fp.from_signed(compiled.weights[gate.out]) for gate in self.plan.weights}
        nonces = tuple(entropy.token(32) for _ in range(2))
        self.terms = Terms(self.plan.digest, "provider", ("party-0", "party-1"), nonces)
        self.id = self.terms.session_id
        for party in self.terms.parties:
            self.deal(party, 0)

    @property
    def data(self) -> bytes:
        return b"".join(encode_field(values) for values in self.weights.values())

    @property
    def digest(self) -> bytes:
        return public_digest(self.weights)

    def deal(self, who: str, run: int, digest: bytes = b"") -> list[provider_pb2.DealPart]:
        request = provider_pb2.DealRequest(session_id=self.id, run=run, batch=1, weights=digest)
        if run == 0:
            terms = provider_pb2.SessionTerms(plan=self.plan.canonical)
            terms.parties.extend(self.terms.parties)
            terms.nonces.extend(self.terms.nonces)
            request.terms.CopyFrom(terms)
        found: list[provider_pb2.DealPart] = self.cluster.dealer(who).deal(request)
        return found

    def hand_over(
        self, who: str = "party-0", data: bytes | None = None, chunk: int = 1 << 20, header: bool = True
    ) -> None:
        data = self.data if data is None else data

        def parts() -> Iterator[provider_pb2.WeightsPart]:
            if header:
                yield provider_pb2.WeightsPart(header=provider_pb2.WeightsHeader(session_id=self.id))
            for start in range(0, len(data), chunk):
                yield provider_pb2.WeightsPart(chunk=data[start : start + chunk])

        self.cluster.dealer(who).Weights(parts())

    @property
    def dealt(self) -> int:
        """The last run that was dealt."""
        return self.cluster.dealt(self.id).due.number - 1


# ------------------------------------------------------------------------------ the same


def test_equal_weights_are_dealt_for(cluster: InProcess) -> None:
    handing = Handing(cluster)
    handing.hand_over(chunk=16)
    for run in (1, 2):
        assert [len(handing.deal(party, run, handing.digest)) for party in ("party-0", "party-1")].count(2) == 1


@pytest.mark.parametrize("who", ["party-0", "party-1"])
@pytest.mark.parametrize("other", [b"", b"\x01" * 32, None])
def test_a_party_that_holds_others_is_named_before_anything_is_dealt(
    cluster: InProcess, who: str, other: bytes | None
) -> None:
    handing = Handing(cluster)
    handing.hand_over()
    if other is None:  # of weights that differ in one unit of one element
        values = {name: array.copy() for name, array in handing.weights.items()}
        next(iter(values.values())).flat[0] ^= np.uint64(1)
        other = public_digest(values)
    with pytest.raises(HandshakeError, match="other public weights") as caught:
        handing.deal(who, 1, other)
    assert caught.value.peer == who and handing.dealt == 0
    for party in ("party-0", "party-1"):  # nobody else is harmed
        handing.deal(party, 1, handing.digest)
    with pytest.raises(HandshakeError):
        handing.deal(who, 2, other)


def test_names_and_places_count(cluster: InProcess) -> None:
    """Equal bytes for other wires are other weights."""
    first, second = np.zeros((2, 3), dtype=np.uint64), np.zeros((3, 2), dtype=np.uint64)
    assert public_digest({"a": first, "b": second}) != public_digest({"b": first, "a": second})
    assert public_digest({}) == b""


def test_of_a_plan_without_public_weights_nobody_holds_any(cluster: InProcess) -> None:
    handing = Handing(cluster, public=False)
    with pytest.raises(HandshakeError):
        handing.deal("party-0", 1, bytes(32))
    with pytest.raises(SessionError, match="no public weights"):
        handing.hand_over()
    handing.deal("party-0", 1)


# ------------------------------------------------------------------------------- from whom


@pytest.mark.parametrize("who", ["party-1", COORDINATOR, MODEL_OWNER, "provider", "party-9"])
def test_one_party_hands_them_over_and_nobody_else(cluster: InProcess, who: str) -> None:
    handing = Handing(cluster)
    with pytest.raises(PolicyError, match="handed over by party-0|its own parties only"):
        handing.hand_over(who)
    handing.hand_over()


def test_they_are_handed_over_once(cluster: InProcess) -> None:
    handing = Handing(cluster)
    handing.hand_over()
    with pytest.raises(SessionError, match="all of them are here"):
        handing.hand_over()
    handing.deal("party-0", 1, handing.digest)


def test_a_session_that_nobody_opened(cluster: InProcess) -> None:
    handing = Handing(cluster)
    handing.id = bytes(32)
    with pytest.raises(SessionError, match="does not know"):
        handing.hand_over()


# ------------------------------------------------------------------------------------ what


def uncanonical(data: bytes) -> bytes:
    return data[:-8] + P.to_bytes(8, "little")


BAD = {
    "too long": (lambda data: data + bytes(8), PeerError),
    "far too long": (lambda data: bytes(1 << 22), PeerError),
    "too short": (lambda data: data[:-8], PeerError),
    "not whole": (lambda data: data[:-1], PeerError),
    "none": (lambda data: b"", PeerError),
    "not below p": (uncanonical, EncodingError),
}


@pytest.mark.parametrize("how", BAD)
def test_what_it_takes_is_exactly_the_plans(cluster: InProcess, how: str) -> None:
    """Named, not kept, and in nobody's way: the right ones can still come."""
    handing = Handing(cluster)
    change, error = BAD[how]
    taken = cluster.provider.budget.taken
    with pytest.raises(error) as caught:
        handing.hand_over(data=change(handing.data))
    assert caught.value.peer == "party-0" and cluster.provider.budget.taken == taken
    assert not cluster.dealt(handing.id).masks.public
    handing.hand_over()
    handing.deal("party-0", 1, handing.digest)


def test_their_header_comes_first(cluster: InProcess) -> None:
    with pytest.raises(PeerError, match="header"):
        Handing(cluster).hand_over(header=False)


# ------------------------------------------------------------------------------------ when


def test_a_bundle_waits_for_them(cluster: InProcess) -> None:
    handing = Handing(cluster)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(handing.deal, "party-1", 1, handing.digest)
        assert not waiting.done()
        handing.hand_over()
        assert waiting.result(PATIENCE)


def test_nobody_waits_for_ever(cluster: InProcess) -> None:
    handing = Handing(cluster)
    with pytest.raises(DeadlineError, match="party-0 did not hand over") as caught:
        handing.deal("party-1", 1, handing.digest)
    assert caught.value.peer == "party-0"


def test_an_ended_session_wakes_who_waits(cluster: InProcess) -> None:
    handing = Handing(cluster)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(handing.deal, "party-1", 1, handing.digest)
        cluster.dealer("party-0").Finish(provider_pb2.FinishRequest(session_id=handing.id))
        with pytest.raises(SessionError) as caught:
            waiting.result(PATIENCE)
    with pytest.raises(SessionError) as later:
        handing.deal("party-1", 1, handing.digest)
    for error in (caught.value, later.value):  # the provider is not to blame, and does not say it found anything
        assert error.peer == error.heard_from == "party-0" and "it has ended at party-0" in str(error.cause)


# ------------------------------------------------------------------------- a whole cluster


class Recorded(PartyService):
    """A party that writes down what is submitted to it: wire, bytes."""

    sent: ClassVar[dict[str, bytes]] = {}

    def SubmitWhole(self, request: party_pb2.WholeInput, context: grpc.ServicerContext) -> party_pb2.SubmitReply:
        self.sent[request.header.wire] = request.data
        return super().SubmitWhole(request, context)


class SentOthers(PartyService):
    """A party to which the owner sends other bytes than to the rest."""

    def SubmitWhole(self, request: party_pb2.WholeInput, context: grpc.ServicerContext) -> party_pb2.SubmitReply:
        request.data = bytes([request.data[0] ^ 1]) + request.data[1:]
        return super().SubmitWhole(request, context)


def test_an_owner_that_sends_each_party_others_is_found_out(tmp_path: Path) -> None:
    with InProcess(tmp_path, 2, services={1: SentOthers}) as cluster:
        compiled = cluster.compiled(ALONE)
        session = CoordinatedSession(cluster.client(), compiled.plan, compiled.weights)
        with pytest.raises(PeerError) as caught:  # from whichever party answers first
            session.run({}, 1, lambda: 0.0)
        assert caught.value.peer == "party-1"
        with pytest.raises(HandshakeError, match="party-1 holds other public weights than party-0"):
            cluster.nodes[1].session(session.id, COORDINATOR)
        session.close()


def test_nothing_is_dealt_ahead_for_them(cluster: InProcess) -> None:
    compiled, client = cluster.compiled(ALONE), cluster.client()
    with pytest.raises(PlanError, match="dealt ahead") as caught:
        ordering.order(client, compiled.plan, [1])
    assert "--weights secret" in str(caught.value.remedy)
    terms = ordering.propose(client, compiled.plan)  # and the party refuses it whoever asks
    agreed = party_pb2.StockTerms(
        plan_digest=terms.plan_digest, parties=terms.parties, nonces=terms.nonces, batches=[1]
    )
    with pytest.raises(PlanError, match="dealt ahead"):
        cluster.party(0).Store(party_pb2.StoreRequest(session_id=terms.session_id, run=0, terms=agreed))


def test_a_public_weight_has_no_masks_and_one_value(cluster: InProcess) -> None:
    script = cluster.script(PUBLIC).open()
    with pytest.raises(PolicyError, match="no input of the weights that is masked"):
        script.masks(0, 0, MODEL_OWNER)
    name, value = next(iter(script.compiled.weights.items()))
    data = encode_field(fp.from_signed(value))
    with pytest.raises(PolicyError):
        script.submit(0, 0, name, data, OWNER)
    with pytest.raises(PeerError):
        script.submit(0, 0, name, uncanonical(data), MODEL_OWNER)
    script.submit(0, 0, name, data, MODEL_OWNER)
    with pytest.raises(MpcError, match="before"):
        script.submit(0, 0, name, data, MODEL_OWNER)


def test_a_guest_who_only_receives_is_not_told_the_weights_or_the_masks(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that it is sent: no weight in any form, no seed but its own output's; its ticket says that there are some."""
    script = Script(cluster, cluster.compiled(PUBLIC, secret=CANARY)).open()
    weights = {name: fp.from_signed(value) for name, value in script.compiled.weights.items()}
    for index in range(2):
        for name, value in weights.items():
            script.submit(index, 0, name, encode_field(value), MODEL_OWNER)
    script.prepare(1)
    script.enter(1, script.integers(data(1)), OWNER)

    client, heard = cluster.client(RECIPIENT), []
    for party in client.clients:
        ask = party.stream

        def overheard(call: object, request: object, seconds: float, *more: object, ask=ask) -> Iterator:
            for reply in ask(call, request, seconds, *more):
                heard.append(reply.SerializeToString())
                yield reply

        monkeypatch.setattr(party, "stream", overheard)
    part = Participant(client, script.plan, script.terms)
    received = part.receive(1)
    scale = float(script.plan.wire[script.output_wire].scale)
    assert np.abs(received.outputs[script.output_wire] / scale - tiny_answer(data(1), CANARY)).max() < 1e-3

    everything = b"".join(heard) + Ticket(script.plan, script.terms).text.encode()
    sizes = {abs(int(v)) for value in script.compiled.weights.values() for v in value.flat}
    telling = {v for v in sizes if v > 10**6 and v & 0xFFFF}  # others are numbers of the plan too
    assert telling and not any(str(v).encode() in everything for v in telling)
    assert not any(
        v.to_bytes(8, "little") in everything or (P - v).to_bytes(8, "little") in everything for v in telling
    )
    seeds = [out.seed for header in received.headers for out in header.outputs]
    assert {out.wire for header in received.headers for out in header.outputs} == {script.output_wire}
    dealt = [cluster.of(index, script.id).runs.get(1).party.bundle for index in (0, 1)]
    hidden = [seed.secret for bundle in dealt for _, seed in bundle.held_seeds()]
    assert len(seeds) == 2 and not any(seed in everything for seed in hidden)
    assert Ticket.parse(Ticket(script.plan, script.terms).text).plan.public_weights
    for run in (0, 1):
        with pytest.raises(PolicyError):
            script.masks(0, run, RECIPIENT)


def test_it_goes_on_for_many_runs(cluster: InProcess) -> None:
    compiled = cluster.compiled(ALONE)
    session = CoordinatedSession(cluster.client(), compiled.plan, compiled.weights)
    [given], [out] = compiled.plan.inputs, compiled.plan.outputs
    for run in range(1, 4):
        x = data(run, seed=run)
        integers = np.rint(x * float(compiled.plan.wire[given.wire].scale)).astype(np.int64)
        opened, report = session.run({given.wire: integers}, run, lambda: 0.0)
        answer = opened[out.wire] / float(compiled.plan.wire[out.wire].scale)
        assert np.abs(answer - tiny_answer(x)).max() < 1e-3
        assert report.rounds == 3
    session.close()
    assert eventually(lambda: cluster.dealt(session.id) is None)


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[InProcess]:
    Recorded.sent.clear()
    with InProcess(tmp_path, 2, services={0: Recorded}) as running:
        yield running


def test_a_model_may_be_partly_public(recorded: InProcess) -> None:
    """Public matrices, secret biases: what is sent of a bias is masked, and the answer is right."""
    cluster, sent = recorded, Recorded.sent
    compiled = cluster.compiled(ALONE)
    biases = {gate.bias: {"masking": Masking.DRAWN} for gate in compiled.plan.gates if getattr(gate, "bias", None)}
    plan = parse_plan(replace_wires(compiled.plan, biases).canonical)
    assert known_weights(plan) == "partly public" and 0 < len(plan.public_weights) < len(plan.weights)
    session = CoordinatedSession(cluster.client(), plan, compiled.weights)
    for name, value in compiled.weights.items():
        assert (sent[name] == encode_field(fp.from_signed(value))) == (name not in biases)
    [given], [out], x = plan.inputs, plan.outputs, data(3)
    integers = np.rint(x * float(plan.wire[given.wire].scale)).astype(np.int64)
    opened, _ = session.run({given.wire: integers}, 3, lambda: 0.0)
    assert np.abs(opened[out.wire] / float(plan.wire[out.wire].scale) - tiny_answer(x)).max() < 1e-3
    session.close()
