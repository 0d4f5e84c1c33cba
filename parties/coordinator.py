"""The client's side of a session: propose, open, mask and submit, collect.

A client is whoever holds a certificate that the plan names: the model's owner, a data owner,
a recipient, the coordinator that plans and starts; here one process plays all the parts whose
name it bears.  It sees shares of nothing: what it sends is masked with seeds from every party,
what it receives it unmasks with seeds from every party, each checked against the manifest that
the provider signed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import grpc
import numpy as np

from mpc import field as fp
from mpc.compiler.plan import Plan
from mpc.correlations import BundleId
from mpc.encoding import decode_field, digest, encode_field, field_size
from mpc.errors import HandshakeError, IntegrityError, MpcError, PeerError
from mpc.gates.input import Input
from mpc.prg import Seed, expand_field
from mpc.schedule import schedule
from mpc.wires import Wire
from parties import manifest
from parties.certificates import Identity
from parties.config import ClusterConfig, Peer
from parties.pb import party_pb2, party_pb2_grpc
from parties.terms import Terms
from parties.transport import connect, from_rpc, pieces

Answer = TypeVar("Answer")
Progress = Callable[[int, int, int], None]
"""(rounds done, rounds in all, payload bytes sent by one party so far), a few times a second."""
_RANK = {7: 0, 4: 1, 5: 2, 3: 3, 1: 5}


class PartyClient:
    """One party, as a client calls it."""

    def __init__(self, identity: Identity, peer: Peer) -> None:
        self.name, self.address = peer.name, peer.address
        self._channel = connect(identity, peer.name, peer.address)
        self._stub = party_pb2_grpc.PartyStub(self._channel)

    def call(self, method: str, request: object, seconds: float) -> object:
        """A call with one reply; any failure as an `MpcError` that names this party."""
        try:
            return getattr(self._stub, method)(request, timeout=seconds)
        except grpc.RpcError as error:
            raise from_rpc(error, self.name, self.address) from None

    def stream(self, method: str, request: object, seconds: float) -> Iterator:
        """A call with a stream of replies."""
        try:
            yield from getattr(self._stub, method)(request, timeout=seconds)
        except grpc.RpcError as error:
            raise from_rpc(error, self.name, self.address) from None

    def close(self) -> None:
        self._channel.close()


class Parties:
    """All parties of a cluster, called side by side."""

    def __init__(self, config: ClusterConfig, identity: Identity) -> None:
        self.config, self.identity = config, identity
        self.clients = [PartyClient(identity, peer) for peer in config.parties]
        self.names = tuple(client.name for client in self.clients)
        self._pool = ThreadPoolExecutor(max_workers=2 * len(self.clients), thread_name_prefix="client")

    def each(self, ask: Callable[[PartyClient], Answer]) -> list[Answer]:
        """`ask` every party at once; the most telling error if any failed."""
        futures = [self._pool.submit(ask, client) for client in self.clients]
        answers, errors = [], []
        for future in futures:
            try:
                answers.append(future.result())
            except MpcError as error:
                errors.append(error)
        if errors:
            raise _most_telling(errors)
        return answers

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for client in self.clients:
            client.close()


def _most_telling(errors: list[MpcError]) -> MpcError:
    """Of what several parties say about one failure, the root: a refusal before a lost peer, and of
    lost peers the one that most of the others name."""
    blamed = [error.peer for error in errors if error.peer]

    def rank(error: MpcError) -> tuple[int, int, int]:
        votes = blamed.count(error.peer) if error.peer else 0
        return (_RANK.get(error.exit_code, 4), -votes, 0 if error.code == PeerError.code else 1)

    return min(errors, key=rank)


@dataclass(frozen=True)
class RunReport:
    """What a run cost, counted.

    Args:
        rounds: openings one after another.
        sent_bytes: the largest party's payload, all peers together.
        dealt_bytes: correlations from the provider, all parties together.
        online_s: the slowest party's own time from inputs masked to outputs released.
        offline_s: dealing, sending and preparing, as seen from here.
        provider_s: of that, the provider's own time.
        online_cpu_s: CPU seconds of the largest party while online.
        recipients: who could unmask the outputs.
    """

    batch: int
    parties: int
    rounds: int
    sent_bytes: int
    dealt_bytes: int
    online_s: float
    offline_s: float
    provider_s: float
    online_cpu_s: float
    recipients: tuple[str, ...]


_ADDED = ("batch", "rounds", "sent_bytes", "dealt_bytes", "online_s", "offline_s", "provider_s", "online_cpu_s")


def sum_reports(reports: list[RunReport]) -> RunReport:
    """The price of several runs, one after another."""
    return replace(reports[0], **{name: sum(getattr(report, name) for report in reports) for name in _ADDED})


class CoordinatedSession:
    """A session that this client opened.

    Args:
        plan: not bound.
        weights: int64 integers of the weight wires that this client owns.
    """

    def __init__(self, parties: Parties, plan: Plan, weights: Mapping[str, np.ndarray]) -> None:
        self._parties, self.plan = parties, plan
        self._deadlines = parties.config.deadlines
        self._me = parties.identity.name
        self._runs = 0
        self.on_progress: Progress | None = None
        self.open = False
        self.setup_dealt = 0
        self.terms = self._propose()
        self.id = self.terms.session_id
        try:
            self._open()
            self._enter(0, 1, plan.weights, plan, weights)
        except BaseException:
            self.close()
            raise

    def _propose(self) -> Terms:
        """Every party's consent to the plan, as a nonce."""
        request = party_pb2.ProposeRequest(plan=self.plan.canonical)
        proposals = self._parties.each(lambda party: party.call("Propose", request, self._deadlines.connect))
        return Terms(
            self.plan.digest,
            self._parties.config.provider.name,
            self._parties.names,
            tuple(proposal.nonce for proposal in proposals),
        )

    def _open(self) -> None:
        terms = self.terms
        opening = party_pb2.OpenRequest(plan_digest=terms.plan_digest, parties=terms.parties, nonces=terms.nonces)
        wait = self._deadlines.connect + self._deadlines.setup
        self.open = True
        replies = self._parties.each(lambda party: party.call("Open", opening, wait))
        for name, reply in zip(self._parties.names, replies, strict=True):
            if reply.session_id != self.id:
                raise HandshakeError(f"{name} made another session of the same terms", remedy="mpc doctor", peer=name)
        self.setup_dealt = sum(reply.dealt_bytes for reply in replies)

    # -- inputs

    def _enter(self, run: int, batch: int, gates: Iterable, plan: Plan, values: Mapping[str, np.ndarray]) -> None:
        """Mask and submit every input of these gates that this client owns."""
        wires = [plan.wire[g.out] for g in gates if isinstance(g, Input) and plan.wire[g.out].holders == (self._me,)]
        if not wires:
            return
        seeds = self._input_seeds(BundleId(self.id, run, batch), [wire.name for wire in wires])
        masked = {wire.name: _mask(wire, values[wire.name], seeds[wire.name]) for wire in wires}

        def submit(party: PartyClient) -> None:
            for name, data in masked.items():
                party.call("Submit", _submission(self.id, run, name, data), self._deadlines.submit)

        self._parties.each(submit)

    def _input_seeds(self, bundle: BundleId, wires: list[str]) -> dict[str, list[Seed]]:
        """wire -> one seed a party, each checked against the provider's manifest."""
        request = party_pb2.MasksRequest(session_id=self.id, run=bundle.run)
        replies = self._parties.each(lambda party: party.call("Masks", request, self._deadlines.setup))
        return self._checked(bundle, wires, [(reply.manifest, reply.seeds) for reply in replies])

    def _checked(self, bundle: BundleId, wires: list[str], answers: list[tuple]) -> dict[str, list[Seed]]:
        """Exactly one seed of each wire from each party: with one missing, a value is less masked than it looks."""
        collected: dict[str, list[Seed]] = {wire: [] for wire in wires}
        for name, (signed, parts) in zip(self._parties.names, answers, strict=True):
            try:
                checked = manifest.verify(self._parties.identity.ca_pem, self.terms, bundle, signed)
            except IntegrityError as error:
                raise IntegrityError(f"{name} handed over a false manifest", cause=error.what, peer=name) from None
            if sorted(part.wire for part in parts) != sorted(wires):
                raise IntegrityError(f"{name} did not hand over one mask seed for each wire", peer=name)
            for part in parts:
                seed = manifest.read_seed(part.seed, name)
                checked.check_seed(part.wire, name, seed)
                collected[part.wire].append(seed)
        return collected

    # -- runs

    def run(self, values: Mapping[str, np.ndarray], batch: int, clock: Callable[[], float]) -> tuple[dict, RunReport]:
        """One run.

        Args:
            values: int64 integers of every input wire that this client owns.
            clock: seconds, for the report.

        Returns:
            (int64 integers of every output wire that this client receives, the report)
        """
        self._runs += 1
        plan, number = self.plan.bind(batch), self._runs
        started = clock()
        request = party_pb2.PrepareRequest(session_id=self.id, run=number, batch=batch)
        prepared = self._parties.each(lambda party: party.call("Prepare", request, self._deadlines.setup))
        offline = clock() - started
        self._enter(number, batch, plan.online, plan, values)
        headers, public = self._results(number, plan)
        outputs = self._unmask(BundleId(self.id, number, batch), plan, headers, public)
        report = RunReport(
            batch=batch,
            parties=len(self._parties.names),
            rounds=headers[0].rounds,
            sent_bytes=max(header.sent_bytes for header in headers),
            dealt_bytes=sum(reply.dealt_bytes for reply in prepared),
            online_s=max(header.online_seconds for header in headers),
            offline_s=offline,
            provider_s=max(reply.deal_seconds for reply in prepared),
            online_cpu_s=max(header.online_cpu_seconds for header in headers),
            recipients=tuple(sorted(plan.recipients)),
        )
        return outputs, report

    def _results(self, run: int, plan: Plan) -> tuple[list[party_pb2.ResultHeader], dict[str, bytes]]:
        """Every party's header, and z^ from the first one."""
        limits = {out.wire: field_size(plan.wire[out.wire].sizes) for out in plan.outputs}
        received: dict[str, bytearray] = {wire: bytearray() for wire in limits}
        rounds = len(schedule(plan.online, plan.wire).steps)
        patience = self._deadlines.submit + self._deadlines.setup + rounds * self._deadlines.step

        def ask(party: PartyClient) -> party_pb2.ResultHeader:
            first = party is self._parties.clients[0]
            request = party_pb2.ResultRequest(session_id=self.id, run=run, values=first)
            replies = party.stream("Result", request, patience)
            header = party_pb2.ResultHeader()
            for reply in replies:
                kind = reply.WhichOneof("part")
                if kind == "header":
                    header = reply.header
                elif kind == "progress" and first and self.on_progress is not None:
                    self.on_progress(reply.progress.rounds, reply.progress.of, reply.progress.sent_bytes)
                if kind != "chunk":
                    continue
                wire, data = reply.chunk.wire, reply.chunk.data
                if not first or wire not in limits or len(received[wire]) + len(data) > limits[wire]:
                    raise PeerError(f"{party.name} sent more output than there is", peer=party.name)
                received[wire] += data
            return header

        headers = self._parties.each(ask)
        if len({header.transcript for header in headers}) != 1:
            raise IntegrityError(
                "the parties did not all see the same openings",
                cause="one of them deviated from the protocol",
                remedy="do not use this session's results",
            )
        return headers, {wire: bytes(data) for wire, data in received.items()}

    def _unmask(
        self, bundle: BundleId, plan: Plan, headers: list[party_pb2.ResultHeader], public: dict[str, bytes]
    ) -> dict[str, np.ndarray]:
        mine = [wire for wire in dict.fromkeys(out.wire for out in plan.outputs) if self._me in plan.wire[wire].holders]
        seeds = self._checked(bundle, mine, [(header.manifest, header.outputs) for header in headers])
        outputs = {}
        for wire, per_party in seeds.items():
            listed = {part.digest for header in headers for part in header.outputs if part.wire == wire}
            if listed != {digest("mpc/v1/output", public[wire])}:
                raise IntegrityError("the parties hold different outputs", remedy="do not use this session's results")
            total = decode_field(public[wire], plan.wire[wire].sizes)
            for seed in per_party:
                total = fp.sub(total, expand_field(seed, plan.wire[wire].sizes))
            outputs[wire] = fp.to_signed(total)
        return outputs

    def close(self) -> None:
        """Tell every party that the session is over; a party that is gone is no error here."""
        if not self.open:
            return
        self.open = False
        request = party_pb2.CloseRequest(session_id=self.id)
        try:
            self._parties.each(lambda party: party.call("Close", request, self._deadlines.connect))
        except (MpcError, RuntimeError):  # a party is gone, or this client's own threads are
            return


def _mask(wire: Wire, values: np.ndarray, seeds: list[Seed]) -> bytes:
    """x^ = x + sum of the parties' mask shares, canonical bytes."""
    total = fp.from_signed(values)
    for seed in seeds:
        total = fp.add(total, expand_field(seed, wire.sizes))
    return encode_field(total)


def _submission(session_id: bytes, run: int, wire: str, data: bytes) -> Iterator[party_pb2.SubmitPart]:
    yield party_pb2.SubmitPart(header=party_pb2.SubmitHeader(session_id=session_id, run=run, wire=wire))
    for piece in pieces(data):
        yield party_pb2.SubmitPart(chunk=piece)
