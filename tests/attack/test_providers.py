"""The provider: whom it deals to, what it deals twice (never), and lies on the way (security.md 16, 20, 21)."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest

from mpc import prg, tables
from mpc.compiler.compile import compile_model
from mpc.compiler.roles import Roles
from mpc.errors import (
    EntropyError,
    HandshakeError,
    IntegrityError,
    MpcError,
    PeerError,
    PlanError,
    PolicyError,
    SessionError,
)
from mpc.plan.cost import plan_cost
from mpc.plan.plan import Plan
from mpc.prg import SEED_BYTES
from parties import entropy
from parties.agreed.terms import Terms
from parties.config.models import Limits
from parties.pb import party_pb2, provider_pb2, provider_pb2_grpc
from parties.pb.provider_pb2 import DealPart
from parties.process.life import Life
from parties.provider import dealing
from parties.provider.service import ProviderService
from parties.trust import identity as certificates
from parties.wire.frames import Chunk
from tests.support.parties import COORDINATOR, MODEL_OWNER, OWNER, PATIENCE, InProcess, deadlines, eventually

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("cluster"), 2, limits=Limits(max_sessions=256)) as running:
        yield running


class Asking:
    """A session at the provider alone; the parties are played by the test."""

    def __init__(
        self, cluster: InProcess, parties: tuple[str, ...] = ("party-0", "party-1"), roles: Roles | None = None
    ) -> None:
        self.cluster = cluster
        self.plan: Plan = cluster.compiled(roles).plan
        nonces = tuple(entropy.token(32) for _ in parties)
        self.terms = Terms(self.plan.digest, "provider", parties, nonces)
        self.id = self.terms.session_id

    def request(self, run: int, batch: int = 1) -> provider_pb2.DealRequest:
        request = provider_pb2.DealRequest(session_id=self.id, run=run, batch=batch)
        if run == 0:
            request.terms.plan = self.plan.canonical
            request.terms.parties.extend(self.terms.parties)
            request.terms.nonces.extend(self.terms.nonces)
        return request

    def deal(self, who: str, run: int, batch: int = 1, **changes: Any) -> list[provider_pb2.DealPart]:
        request = self.request(run, batch)
        for name, value in changes.items():
            setattr(request, name, value)
        found: list[provider_pb2.DealPart] = self.cluster.dealer(who).deal(request)
        return found

    def opened(self) -> Asking:
        for who in self.terms.parties:
            self.deal(who, 0)
        return self


# ------------------------------------------------------------------------------- to whom


@pytest.mark.parametrize("who", [COORDINATOR, "provider", "party-2", "stranger", MODEL_OWNER])
def test_it_deals_to_its_own_parties(cluster: InProcess, who: str) -> None:
    asking = Asking(cluster)
    for run in (0, 1):
        with pytest.raises(PolicyError, match="own parties only"):
            asking.deal(who, run)
    assert cluster.dealt(asking.id) is None


def test_each_certificate_gets_its_own_seed_and_one_the_corrections(cluster: InProcess) -> None:
    """20: there is no way to name another party in a request."""
    asking = Asking(cluster).opened()
    mine, theirs = asking.deal("party-0", 1), asking.deal("party-1", 1)
    seeds = {parts[0].header.seed for parts in (mine, theirs)}
    assert len(seeds) == 2 and all(len(seed) == SEED_BYTES for seed in seeds)
    assert (mine[0].header.corrections, len(mine)) == (0, 2)  # run 1 of 2 parties corrects party-1
    assert theirs[0].header.corrections == sum(len(part.chunk) for part in theirs) > 0
    assert mine[-1].end.manifest == theirs[-1].end.manifest
    public = mine[-1].end.manifest.SerializeToString()
    assert not any(seed in public or seed.hex().encode() in public for seed in seeds)


def test_a_party_of_another_session_is_told_nothing(tmp_path: Path) -> None:
    with InProcess(tmp_path, 3) as three:
        asking = Asking(three, ("party-0", "party-1")).opened()
        for run in (0, 1):
            with pytest.raises(PolicyError, match="not a party of this session"):
                asking.deal("party-2", run)
        outside = Asking(three, ("party-0", "party-1"))
        with pytest.raises(PolicyError):
            outside.deal("party-2", 0)
        assert three.dealt(outside.id) is None  # nor may it take up room


def test_it_deals_to_nobody_together_with_strangers(cluster: InProcess) -> None:
    with pytest.raises(PolicyError):
        Asking(cluster, ("party-0", "stranger")).deal("party-0", 0)


# -------------------------------------------------------------------------------- what


def test_a_bundle_is_given_once(cluster: InProcess) -> None:
    """16: also to the same party, and while the others have not fetched theirs."""
    asking = Asking(cluster)
    asking.deal("party-0", 0)
    with pytest.raises(SessionError, match="given once"):
        asking.deal("party-0", 0)
    asking.deal("party-1", 0)
    for run in (0, 0):
        with pytest.raises(SessionError, match="before"):
            asking.deal("party-0", run)
    asking.deal("party-1", 1)
    with pytest.raises(SessionError, match="given once"):
        asking.deal("party-1", 1)


@pytest.mark.parametrize("run", [2, 3, 1 << 31])
def test_runs_are_dealt_in_order(cluster: InProcess, run: int) -> None:
    with pytest.raises(SessionError, match="too early"):
        Asking(cluster).opened().deal("party-0", run)


@contextmanager
def slow_dealing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if what is dealt in this block took long."""
    deal, go = dealing.deal, threading.Event()

    def waiting(*arguments: Any) -> Any:
        assert go.wait(PATIENCE)
        return deal(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(dealing, "deal", waiting)
        try:
            yield
        finally:
            go.set()


def test_one_run_is_dealt_at_a_time(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor can what is asked for too early overtake: run 1 needs the masks of run 0."""
    asking = Asking(cluster).opened()
    with slow_dealing(monkeypatch):
        stub = provider_pb2_grpc.ProviderStub(cluster.channel("party-0", "provider"))
        parts = stub.Deals(iter([asking.request(1)]), timeout=PATIENCE)
        assert next(parts).header.seed
        for run in (2, 2):
            with pytest.raises(SessionError, match="still being dealt"):
                asking.deal("party-1", run)
    assert list(parts)[-1].end.manifest.ByteSize()
    dealt = sum(len(part.chunk) for part in asking.deal("party-1", 1))
    assert dealt == plan_cost(asking.plan, 1).dealt > 0
    asking.deal("party-0", 2)


def test_parts_come_as_they_are_dealt(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seed is there before anything is dealt; corrections before all of them are."""
    asking = Asking(cluster).opened()
    with slow_dealing(monkeypatch):
        stub = provider_pb2_grpc.ProviderStub(cluster.channel("party-1", "provider"))
        parts = stub.Deals(iter([asking.request(1)]), timeout=PATIENCE)
        header = next(parts).header
        assert header.corrections > 0 and len(header.seed) == SEED_BYTES
    kinds = [part.WhichOneof("part") for part in parts]
    assert kinds[-1] == "end" and set(kinds[:-1]) == {"chunk"}


def test_the_parties_agree_on_the_batch(cluster: InProcess) -> None:
    asking = Asking(cluster).opened()
    asking.deal("party-0", 1, batch=2)
    with pytest.raises(HandshakeError, match="batch"):
        asking.deal("party-1", 1, batch=3)


@pytest.mark.parametrize("batch", [0, (1 << 20) + 1, (1 << 32) - 1])
def test_impossible_batches(cluster: InProcess, batch: int) -> None:
    with pytest.raises(PlanError):
        Asking(cluster).opened().deal("party-0", 1, batch=batch)


def test_too_much_memory(tmp_path: Path) -> None:
    with InProcess(tmp_path, 2, limits=Limits(max_memory_bytes=150_000)) as small:
        asking = Asking(small).opened()
        with pytest.raises(PlanError, match="memory"):
            asking.deal("party-0", 1, batch=4000)


def test_the_id_is_that_of_the_terms(cluster: InProcess) -> None:
    """6: it cannot be chosen."""
    for session_id in (bytes(32), b"", b"\x05" * 32):
        with pytest.raises(HandshakeError, match="does not belong"):
            Asking(cluster).deal("party-0", 0, session_id=session_id)
    asking = Asking(cluster)
    request = asking.request(0)
    request.terms.nonces[1] = bytes(32)
    with pytest.raises(HandshakeError):
        cluster.dealer("party-0").deal(request)


def test_memory_is_given_back_whoever_fetched_what(tmp_path: Path) -> None:
    """A session that ends with a bundle half fetched, fetched whole, or being fetched: nothing stays, nothing twice."""
    with InProcess(tmp_path, 2) as own:
        budget = own.provider.budget
        for fetchers in ((), ("party-0",), ("party-0", "party-1")):
            asking = Asking(own).opened()
            for who in fetchers:
                asking.deal(who, 1)
            assert budget.taken > 0
            own.dealer("party-0").Finish(provider_pb2.FinishRequest(session_id=asking.id))
            assert eventually(lambda: budget.taken == 0)  # what is being dealt ends first


def test_a_session_that_ends_while_a_bundle_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had been found, and waits for its public weights: it is told, and nothing stays."""
    with InProcess(tmp_path, 2) as own, ThreadPoolExecutor(1) as pool:
        late = Asking(own, roles=Roles(public_weights=True)).opened()
        changed, waiting = own.dealt(late.id).changed, threading.Event()
        wait_for = changed.wait_for

        def seen(*arguments: Any) -> bool:
            waiting.set()
            return wait_for(*arguments)

        monkeypatch.setattr(changed, "wait_for", seen)
        asked = pool.submit(late.deal, "party-0", 1)
        assert waiting.wait(PATIENCE)
        own.dealer("party-1").Finish(provider_pb2.FinishRequest(session_id=late.id))
        with pytest.raises(SessionError, match="over"):
            asked.result(PATIENCE)
        assert eventually(lambda: own.provider.budget.taken == 0)


def test_an_ended_session_is_not_dealt_again(cluster: InProcess) -> None:
    """16, 19."""
    asking = Asking(cluster).opened()
    with pytest.raises(PolicyError, match="its own parties only"):
        cluster.dealer("stranger").Finish(provider_pb2.FinishRequest(session_id=asking.id))
    asking.deal("party-0", 1)
    cluster.dealer("party-1").Finish(provider_pb2.FinishRequest(session_id=asking.id))
    for party, run in (("party-0", 0), ("party-1", 1)):
        with pytest.raises(SessionError, match="this session is over") as caught:
            asking.deal(party, run)
        assert caught.value.peer == caught.value.heard_from == "party-1"


def test_a_call_that_asks_nothing_more_ends_behind_its_session(tmp_path: Path) -> None:
    """It holds a place, which is its party's; while the session is open that is what it is for."""
    with InProcess(tmp_path, 2, deadlines=deadlines(connect=1, setup=20, step=20, submit=20)) as cluster:
        asking, asked, [desk, *_] = Asking(cluster), SimpleQueue[provider_pb2.DealRequest](), cluster.provider.desks
        call: Any = cluster.dealer("party-0").stub.Deals(iter(asked.get, None), timeout=PATIENCE)
        asked.put(asking.request(0))
        asking.deal("party-1", 0)
        assert [next(call).WhichOneof("part") for _ in range(2)] == ["header", "end"]
        assert desk.taken("party-0") == 1
        cluster.dealer("party-1").Finish(provider_pb2.FinishRequest(session_id=asking.id))
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        assert caught.value.code() is grpc.StatusCode.CANCELLED
        assert eventually(lambda: not desk.taken("party-0"))


# ------------------------------------------------------------------- lies and damage


class Damaging(ProviderService):
    """Changes what it sends of run 1, to everybody."""

    damage = "nothing"

    def deal(self, request: provider_pb2.DealRequest, context: Any) -> Iterator[DealPart | Chunk]:
        for part in super().deal(request, context):
            yield from self._changed(part) if request.run == 1 else [part]

    def Deals(self, request: Iterator[provider_pb2.DealRequest], context: Any) -> Iterator[DealPart | Chunk]:
        for asked in request:
            yield from self.deal(asked, context)
            if self.damage == "no end" and asked.run:
                return

    def _changed(self, part: DealPart | Chunk) -> list[DealPart | Chunk]:
        if isinstance(part, Chunk):
            return self._changed_chunk(part)
        return self._changed_header(part) if part.WhichOneof("part") == "header" else self._changed_end(part)

    def _changed_chunk(self, part: Chunk) -> list[DealPart | Chunk]:
        chunk = bytearray(part.data)
        if self.damage == "a bit of the corrections":
            chunk[len(chunk) // 2] ^= 1
        if self.damage == "an impossible element":
            chunk[-8:] = b"\xff" * 8
        if self.damage == "corrections cut":
            chunk = chunk[:-8]
        if self.damage == "corrections twice":
            return [part, part]
        if self.damage == "nothing before the corrections":
            return [Chunk(b""), part]
        if self.damage == "corrections byte by byte":
            return [Chunk(bytes([each])) for each in chunk]
        return [Chunk(bytes(chunk))]

    def _changed_end(self, part: DealPart) -> list[DealPart | Chunk]:
        manifest = part.end.manifest
        if self.damage == "a bit of the manifest":
            manifest.content = manifest.content.replace(b'"batch":1', b'"batch":2')
        if self.damage == "a bit of the signature":
            manifest.signature = manifest.signature[:-1] + bytes([manifest.signature[-1] ^ 1])
        if self.damage == "signed by a party":
            forger = CLUSTER[0].identity("party-0")
            manifest.signature = certificates.sign(forger, manifest.content)
            manifest.certificate = forger.certificate_pem
        if self.damage == "the manifest of another run":
            manifest.CopyFrom(KEPT[0])
        if self.damage == "no manifest":
            manifest.Clear()
        if self.damage == "no end":
            return []
        if self.damage == "more after the end":
            return [part, Chunk(b"x")]
        return [part]

    def _changed_header(self, part: DealPart) -> list[DealPart | Chunk]:
        header = part.header
        if self.damage == "another seed":
            header.seed = bytes(range(32))
        if self.damage == "a short seed":
            header.seed = header.seed[:31]
        if self.damage == "a wrong length":
            header.corrections += 8
        if self.damage == "no header":
            return []
        if self.damage == "two headers":
            return [part, part]
        return [part]


CLUSTER: list[InProcess] = []
KEPT: list[party_pb2.Manifest] = []


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    folder = tmp_path_factory.mktemp("damaged")
    with InProcess(folder, 2, provider=Damaging, limits=Limits(max_sessions=256)) as running:
        CLUSTER[:] = [running]
        yield running


@pytest.mark.parametrize(
    ("damage", "errors"),
    [
        ("a bit of the corrections", IntegrityError),
        ("an impossible element", IntegrityError),
        ("corrections cut", PeerError),
        ("corrections twice", PeerError),
        ("nothing before the corrections", PeerError),
        ("corrections byte by byte", PeerError),
        ("a wrong length", IntegrityError),
        ("a bit of the manifest", IntegrityError),
        ("a bit of the signature", IntegrityError),
        ("signed by a party", IntegrityError),
        ("the manifest of another run", IntegrityError),
        ("no manifest", IntegrityError),
        ("another seed", IntegrityError),
        ("a short seed", IntegrityError),
        ("no header", PeerError),
        ("two headers", PeerError),
        ("no end", PeerError),
    ],
)
def test_damage_on_the_way_is_caught_before_any_input(
    damaged: InProcess, monkeypatch: pytest.MonkeyPatch, damage: str, errors: type[MpcError]
) -> None:
    """21: the signed manifest catches it; both parties abort, nothing is burnt, no mask has left.

    Where only the corrected party sees the damage, the other hears of it a moment later.
    """
    script = damaged.script().open().enter_weights()
    KEPT[:] = [script.masks_manifest]
    monkeypatch.setattr(damaged.provider, "damage", damage)
    with pytest.raises(MpcError):
        script.prepare(1)
    assert any(isinstance(error, errors) for error in script.errors), script.errors
    for index in (0, 1):
        assert eventually(lambda index=index: damaged.ledger_states(index)[0][0] == "aborted")
        with pytest.raises(MpcError):
            script.masks(index, 1, OWNER)
        assert "burnt" not in damaged.run_states(index, script.id)


def test_more_after_the_end_of_a_bundle_spoils_the_next_one(
    damaged: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes in place of that one's header; of this one nothing is missing or wrong."""
    script = damaged.script().open().enter_weights()
    monkeypatch.setattr(damaged.provider, "damage", "more after the end")
    script.prepare(1)
    with pytest.raises(PeerError, match="has no header"):
        script.prepare(2)
    for index in (0, 1):
        assert eventually(lambda index=index: damaged.ledger_states(index)[0][0] == "aborted")
        assert "burnt" not in damaged.run_states(index, script.id)


def test_undamaged(damaged: InProcess) -> None:
    """The control."""
    assert damaged.script().started().finish()


# --------------------------------------------------------------------------- public tables


def test_a_process_with_another_sine_table_refuses_the_plan(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One differing unit would yield garbage: refused before a nonce is drawn, at party and provider."""
    plan = compile_model(Path(__file__).parents[2] / "examples" / "breast_cancer_lr.onnx").plan
    request = party_pb2.ProposeRequest(plan=plan.canonical)
    cluster.party(0).Propose(request)
    asking = Asking(cluster)
    asking.plan = plan
    asking.terms = Terms(plan.digest, "provider", asking.terms.parties, asking.terms.nonces)
    asking.id = asking.terms.session_id
    monkeypatch.setattr(tables, "sincos_digest", lambda: "00" * 32)
    cluster.nodes[0].proposals.drop_old(float("inf"))  # a plan is parsed once, while anybody uses it
    gc.collect()
    with pytest.raises(PlanError) as caught:
        cluster.party(0).Propose(request)
    assert "table" in str(caught.value)
    assert len(cluster.nodes[0].proposals) == 0
    with pytest.raises(PlanError):
        asking.deal("party-0", 0)


# ------------------------------------------------------------------------------- entropy


class Source:
    """A source of randomness that fails once it is broken."""

    def __init__(self) -> None:
        self.broken = False

    def __call__(self, n: int) -> bytes:
        if self.broken:
            raise EntropyError("the system's random source gave a constant")
        return entropy.token(n)


def test_without_entropy_nothing_begins(tmp_path: Path) -> None:
    """12: a nonce that cannot be drawn is an error, never a weaker one; a party that starts needs a key already."""
    source = Source()
    with InProcess(tmp_path, 2, draw=source) as cluster:
        source.broken = True
        with pytest.raises(EntropyError):
            cluster.script().propose()
        assert all(not len(node.proposals) for node in cluster.nodes)


def test_when_entropy_fails_at_the_provider_no_bundle_is_dealt(tmp_path: Path) -> None:
    source = Source()
    with InProcess(tmp_path, 2, draw=source) as cluster:
        script = cluster.script().open().enter_weights()
        source.broken = True  # parties draw nothing for a run: it is the provider that does
        with pytest.raises(EntropyError):
            script.prepare(1)
        with pytest.raises(MpcError):
            script.masks(0, 1, OWNER)


def test_a_daemon_stops_when_entropy_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """12: the first failure ends the process; nothing is drawn in the meantime."""
    life = Life()
    assert len(life.draw(32)) == 32 and not life.stop.is_set()
    with monkeypatch.context() as patched:
        patched.setattr(os, "urandom", lambda n: bytes(n))
        with pytest.raises(EntropyError):
            life.draw(32)
    assert life.stop.is_set()
    with pytest.raises(EntropyError):
        life.draw(32)


def test_when_aes_fails_the_session_ends(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """12: no mask is made of anything else."""
    script = cluster.script().open().enter_weights()

    class Short:
        """A cipher that leaves out the last byte."""

        def __init__(self, *_: object) -> None: ...

        def encryptor(self) -> Short:
            return self

        def update_into(self, data: memoryview, out: memoryview) -> int:
            return len(data) - 1

    monkeypatch.setattr(prg, "Cipher", Short)
    with pytest.raises(EntropyError, match="AES returned less"):
        script.prepare(1)
    monkeypatch.undo()
    with pytest.raises(MpcError):
        script.masks(0, 1, OWNER)
    assert eventually(lambda: {cluster.ledger_states(index)[0][0] for index in (0, 1)} == {"aborted"})
