"""A cluster inside the test's own process, on real sockets with real certificates, that can be attacked.

Everything a daemon has is here but the process: servers, identities, ledgers, configs.  An
attack speaks to it with raw stubs under any certificate; a deviating party or provider is a
subclass of the service with one method changed; `Middle` stands between two parties.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mpc import field as fp
from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.roles import Roles
from mpc.encoding import encode_field
from mpc.errors import MpcError
from mpc.fixedpoint import encode
from mpc.prg import Seed, expand_field
from parties.addresses import Endpoint
from parties.agreed.terms import Terms
from parties.agreed.ticket import Ticket
from parties.client.channels import PartyClient
from parties.client.running.coordinated import CoordinatedSession, Parties
from parties.client.session import Session
from parties.config.models import (
    ClusterConfig,
    Deadlines,
    Limits,
    PartyConfig,
    Peer,
    PolicyConfig,
    ProviderConfig,
    ProviderPeer,
    Security,
    TlsConfig,
)
from parties.local.ports import Ports
from parties.party.collecting.service import CollectService
from parties.party.consent.service import ConsentService
from parties.party.coordinating import Ended
from parties.party.desks import PartyDesks
from parties.party.ledger.sessions import Ledger
from parties.party.ledger.states import RunState
from parties.party.node import PartyNode
from parties.party.peer_service import PeerService
from parties.party.services import PartyService
from parties.party.session import PartySession
from parties.party.vault.service import DataService
from parties.pb import (
    collect_pb2_grpc,
    consent_pb2_grpc,
    data_pb2_grpc,
    party_pb2,
    party_pb2_grpc,
    provider_pb2,
    provider_pb2_grpc,
)
from parties.provider.service import ProviderService
from parties.provider.sessions import ProviderSession
from parties.telemetry import Counters
from parties.trust import authority
from parties.trust.identity import Identity
from parties.wire.desk import Desk
from parties.wire.server import Server, largest_message, serve
from parties.wire.status import from_rpc
from parties.wire.transport import connect
from tests.support.effort import patient

COORDINATOR, OWNER, MODEL_OWNER, RECIPIENT = "coordinator", "data-owner", "model-owner", "recipient"
CLUSTER = "0123456789abcdef" * 2
EVERYONE = PolicyConfig(
    plans=("any",), coordinators=("any",), owners=("any",), recipients=("any",), data_owners=("any",)
)


def deadlines(
    connect: float, setup: float, step: float, submit: float, idle: float = 600, grace: float = 60
) -> Deadlines:
    """These seconds, and more on a slow machine."""
    return Deadlines(
        connect=patient(connect),
        setup=patient(setup),
        step=patient(step),
        submit=patient(submit),
        idle=patient(idle),
        grace=patient(grace),
    )


FAST = deadlines(connect=10, setup=30, step=10, submit=15)
"""For tests in which nobody is silent: nothing is waited for as long as this."""
FEATURES, CLASSES = 3, 2
USUAL = 30.0
PATIENCE = patient(USUAL)
"""Seconds after which a test that waits for something gives up."""


# --------------------------------------------------------------------------------- models


def tiny_model(path: Path, secret: float = 0.625) -> Path:
    """x [batch, 3] in -4:4 -> Gemm -> Relu -> Gemm -> y [batch, 2]; `secret` is one of the weights."""
    first = np.array([[0.5, -1.0, secret], [0.25, 1.5, -0.75]], dtype=np.float32)
    second = np.array([[1.0, -0.5], [-1.25, 0.75]], dtype=np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "first", transB=1),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], "second", transB=1),
    ]
    constants = {"w1": first, "b1": np.array([0.1, -0.2], np.float32), "w2": second, "b2": np.zeros(2, np.float32)}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)
    return path


def tiny_answer(x: np.ndarray, secret: float = 0.625) -> np.ndarray:
    """What the tiny model gives in the clear."""
    first = np.array([[0.5, -1.0, secret], [0.25, 1.5, -0.75]])
    hidden = np.maximum(x @ first.T + np.array([0.1, -0.2]), 0)
    return hidden @ np.array([[1.0, -0.5], [-1.25, 0.75]]).T


_COMPILING = threading.Lock()


@cache
def _compiled(folder: str, roles: Roles, secret: float) -> Compiled:
    path = Path(folder) / f"tiny-{secret}.onnx"
    with _COMPILING:  # threads of one test may ask at once: nobody reads what another is writing
        return compile_model(tiny_model(path, secret), {"x": (-4.0, 4.0)}, roles)


def data(batch: int, seed: int = 1) -> np.ndarray:
    """A batch for the tiny model."""
    return np.random.default_rng(seed).uniform(-4, 4, (batch, FEATURES)).astype(np.float32)


# -------------------------------------------------------------------------------- cluster


_held: deque[Ports] = deque(maxlen=64)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, and that no other process is given meanwhile; for a test or two."""
    _held.append(Ports(count))
    return _held[-1].numbers


class InProcess:
    """A provider and parties in this process.  A context manager.

    Args:
        services: the class that answers clients, by party index.
        provider: the class of the provider.
        nodes: the class of a party's node, by index.
        policies: by party index; anything goes elsewhere.
        addresses: (party that dials, party dialled) -> another address, of somebody in the middle.
        entropy: where parties and provider draw from.
    """

    def __init__(
        self,
        folder: Path,
        parties: int = 2,
        *,
        deadlines: Deadlines = FAST,
        limits: Limits | None = None,
        services: Mapping[int, type[PartyService]] | None = None,
        provider: type[ProviderService] = ProviderService,
        policies: Mapping[int, PolicyConfig] | None = None,
        middles: Sequence[tuple[int, int]] = (),
        draw: Callable[[int], bytes] | None = None,
        absent: Sequence[int] = (),
    ) -> None:
        self.folder, self.deadlines = folder, deadlines
        self.limits = limits or Limits()
        self.names = tuple(f"party-{index}" for index in range(parties))
        self._services, self._provider_class, self._policies = services or {}, provider, policies or {}
        self._pairs, self._draw, self._absent = middles, draw, absent
        self._stack = ExitStack()
        self.ca = folder / "ca"
        authority.make_ca(self.ca, "test-ca")
        ports = free_ports(parties + 1 + len(middles))
        self.addresses = {
            name: Endpoint(f"127.0.0.1:{port}") for name, port in zip(("provider", *self.names), ports, strict=False)
        }
        self._middle_ports = ports[parties + 1 :]
        self.nodes: list[PartyNode] = []
        self.desks: list[PartyDesks] = []
        self.ledgers: list[Ledger] = []
        self.middles: list[Middle] = []
        self.servers: dict[str, Server] = {}
        self._lives = [ExitStack() for _ in range(parties)]
        self._lock = threading.RLock()
        self._tls: dict[str, TlsConfig] = {}
        self._channels: dict[tuple[str, str], grpc.Channel] = {}

    # -- lives

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _start(self) -> None:
        extra = {} if self._draw is None else {"draw": self._draw}
        tls = self.tls("provider")
        config = ProviderConfig(
            name="provider",
            cluster=CLUSTER,
            listen=self.addresses["provider"],
            data_dir=self.folder / "provider-data",
            tls=tls,
            deadlines=self.deadlines,
            limits=self.limits,
            parties=self.names,
        )
        self._provider_config = config
        self.provider = self._provider_class(config, self.identity("provider"), Counters(), **extra)
        self._dealer = self._stack.enter_context(ExitStack())
        self._serve("provider", self.provider.register, self.provider.desks, self._dealer)
        for (first, second), port in zip(self._pairs, self._middle_ports, strict=True):
            self.middles.append(self._stack.enter_context(Middle(self, first, second, port)))
        for index in range(len(self.names)):
            self._stack.callback(self._lives[index].close)
            self._start_party(index)

    def _start_party(self, index: int) -> None:
        extra = {} if self._draw is None else {"draw": self._draw}
        name, life = self.names[index], self._lives[index]
        config = self.party_config(index)
        ledger = life.enter_context(Ledger.open(config.data_dir))
        node = PartyNode(config, self.identity(name), ledger, Counters(), **extra)
        self.nodes[index : index + 1] = [node]
        self.ledgers[index : index + 1] = [ledger]
        service = self._services.get(index, PartyService)(node)

        desks = PartyDesks(config)
        self.desks[index : index + 1] = [desks]

        def register(server: grpc.Server) -> None:
            service.register(server, desks)
            PeerService(node).register(server, desks)
            DataService(node).register(server, desks.data)
            ConsentService(node).register(server, desks.data)
            CollectService(node).register(server, desks.data)

        if index not in self._absent:
            self._serve(name, register, desks.all, life)
        life.callback(node.stop)

    def crash(self, index: int) -> None:
        """End a party without a word to its ledger, as a kill does; `revive` starts it again."""
        self.ledgers[index].close()
        self._lives[index].close()

    def revive(self, index: int, policy: PolicyConfig | None = None) -> None:
        """Start a party that has crashed on what it left on its disk."""
        if policy is not None:
            self._policies = {**self._policies, index: policy}
        self._start_party(index)

    def stop_provider(self) -> None:
        """Nobody deals from now on."""
        self._dealer.close()

    def start_provider(self) -> None:
        """Start a provider again, which knows nothing of what it dealt before."""
        extra = {} if self._draw is None else {"draw": self._draw}
        self.provider = self._provider_class(self._provider_config, self.identity("provider"), Counters(), **extra)
        self._serve("provider", self.provider.register, self.provider.desks, self._dealer)

    def _serve(
        self, name: str, register: Callable[[grpc.Server], None], desks: Sequence[Desk], life: ExitStack
    ) -> None:
        server = serve(self.identity(name), self.addresses[name], register, largest_message(self.limits), desks)
        self.servers[name] = server
        life.callback(server.stop, 0)

    def party_config(self, index: int) -> PartyConfig:
        """The config of one party, with those in the middle at their place."""
        addresses = dict(self.addresses)
        for (first, second), port in zip(self._pairs, self._middle_ports, strict=True):
            if first == index:
                addresses[self.names[second]] = Endpoint(f"127.0.0.1:{port}")
        return PartyConfig(
            name=self.names[index],
            cluster=CLUSTER,
            listen=self.addresses[self.names[index]],
            data_dir=self.folder / f"data-{index}",
            tls=self.tls(self.names[index]),
            deadlines=self.deadlines,
            limits=self.limits,
            provider=ProviderPeer(name="provider", address=self.addresses["provider"]),
            peers=tuple(Peer(name=name, address=addresses[name]) for name in self.names),
            policy=self._policies.get(index, EVERYONE),
            rounds_port=None if self._pairs else 0,  # whoever stands in the middle is to see payloads
        )

    def __exit__(self, *_: object) -> None:
        for channel in self._channels.values():
            channel.close()
        self._stack.close()

    # -- who calls

    def tls(self, name: str) -> TlsConfig:
        """Certificate files of any name under this cluster's CA."""
        with self._lock:
            if name not in self._tls:
                self._tls[name] = authority.issue(self.ca, name, self.folder / "certificates" / name)
            return self._tls[name]

    def renew(self, name: str) -> None:
        """Have the CA issue a name's certificate again, with a new key; its next calls show that one."""
        with self._lock:
            self._tls[name] = authority.issue(self.ca, name, self.folder / "again" / name)
            for caller, callee in [pair for pair in self._channels if pair[0] == name]:
                self._channels.pop((caller, callee)).close()

    def identity(self, name: str) -> Identity:
        """A certificate of any name under this cluster's CA."""
        return Identity.load(self.tls(name), name, members=(*self.names, "provider"))

    def channel(self, caller: str, callee: str) -> grpc.Channel:
        """A channel from `caller` to a process."""
        with self._lock:
            if (caller, callee) not in self._channels:
                self._channels[caller, callee] = connect(self.identity(caller), callee, self.addresses[callee])
            return self._channels[caller, callee]

    def party(self, index: int, caller: str = COORDINATOR) -> Caller:
        """A client's way to call a party."""
        name = self.names[index]
        return Caller(party_pb2_grpc.PartyStub(self.channel(caller, name)), name, self.addresses[name])

    def data(self, index: int, caller: str = OWNER) -> Caller:
        """A client's way to ask a party about data at rest."""
        name = self.names[index]
        return Caller(data_pb2_grpc.DataStub(self.channel(caller, name)), name, self.addresses[name])

    def consent(self, index: int, caller: str = OWNER) -> Caller:
        """A client's way to say, and to ask, what may be done with data."""
        name = self.names[index]
        return Caller(consent_pb2_grpc.ConsentStub(self.channel(caller, name)), name, self.addresses[name])

    def collect(self, index: int, caller: str = COORDINATOR) -> Caller:
        """A client's way to open, close and gather collections."""
        name = self.names[index]
        return Caller(collect_pb2_grpc.CollectStub(self.channel(caller, name)), name, self.addresses[name])

    def peer(self, index: int, caller: str) -> party_pb2_grpc.PeerStub:
        """A peer's way to call a party."""
        return party_pb2_grpc.PeerStub(self.channel(caller, self.names[index]))

    def dealer(self, caller: str) -> Dealer:
        """A party's way to call the provider."""
        return Dealer(
            provider_pb2_grpc.ProviderStub(self.channel(caller, "provider")), "provider", self.addresses["provider"]
        )

    def client(self, name: str = COORDINATOR, security: Security = "passive") -> Parties:
        """All parties, for `CoordinatedSession`; closed with the cluster."""
        config = ClusterConfig(
            name=name,
            cluster=CLUSTER,
            tls=self.tls(name),
            provider=ProviderPeer(name="provider", address=self.addresses["provider"]),
            parties=tuple(Peer(name=party, address=self.addresses[party]) for party in self.names),
            deadlines=self.deadlines,
            security=security,
        )
        parties = Parties(config, self.identity(name))
        self._stack.callback(parties.close)
        return parties

    def client_of_party(self, name: str) -> list[PartyClient]:
        """All parties, as the operator of one of them calls them: with that party's own certificate."""
        identity = self.identity(name)
        clients = [PartyClient(identity, Peer(name=each, address=self.addresses[each])) for each in self.names]
        for client in clients:
            self._stack.callback(client.close)
        return clients

    # -- models and sessions

    def compiled(self, roles: Roles | None = None, secret: float = 0.625) -> Compiled:
        """The tiny model, everything the coordinator's unless said otherwise."""
        self.folder.mkdir(exist_ok=True)
        return _compiled(str(self.folder), roles or Roles(), secret)

    def session(self, client: Parties | None = None, roles: Roles | None = None) -> CoordinatedSession:
        """A session of the tiny model, weights shared."""
        compiled = self.compiled(roles)
        return CoordinatedSession(client or self.client(), compiled.plan, compiled.weights)

    def script(self, roles: Roles | None = None) -> Script:
        """A session to be driven call by call."""
        return Script(self, self.compiled(roles or SEPARATE))

    def sessions(self, index: int) -> dict[bytes, PartySession]:
        """A party's open sessions by their ids, as its operator is shown them."""
        return {session.id: session for session in self.nodes[index].sessions(self.names[index])}

    def of(self, index: int, session_id: bytes) -> PartySession:
        """A party's own session object."""
        return self.sessions(index)[session_id]

    def dealt(self, session_id: bytes) -> ProviderSession | None:
        """The provider's own session object; None if it has none of that id."""
        found = [each for each in self.provider.sessions() if each.terms.session_id == session_id]
        return found[0] if found else None

    def is_idle(self, seconds: float = USUAL) -> bool:
        """No party has an open session; waits for that.  Not in a cluster where another test may have left one."""
        return eventually(lambda: all(node.open_sessions() == 0 for node in self.nodes), seconds)

    def has_ended(self, session_id: bytes) -> bool:
        """No party has this session; waits for that."""
        return eventually(lambda: not any(session_id in self.sessions(index) for index in range(len(self.nodes))))

    def ledger_states(self, index: int) -> list[tuple[str, str | None]]:
        """(state, reason) of one party's sessions, the newest first."""
        return [(str(record.state), record.reason) for record in self.ledgers[index].history()]

    def revealed(self, index: int) -> int:
        """How many runs one party has told."""
        with self.ledgers[index].reading() as database:
            query = "SELECT count(*) FROM runs WHERE state = ?"
            return int(database.execute(query, (RunState.REVEALED,)).fetchone()[0])

    def run_states(self, index: int, session_id: bytes) -> list[str]:
        """States of a session's runs in one party's ledger, in order."""
        query = "SELECT state FROM runs WHERE session_id = ? ORDER BY run"
        with closing(sqlite3.connect(self.party_config(index).data_dir / "ledger.sqlite")) as reader:
            return [row[0] for row in reader.execute(query, (session_id.hex(),)).fetchall()]


SEPARATE = Roles(MODEL_OWNER, OWNER, (RECIPIENT,))
"""Every role its own certificate."""


def id_of(session: Session) -> bytes:
    """The id of a session of the SDK, which its ticket has."""
    return Ticket.parse(session.ticket).terms.session_id


def eventually(true: Callable[[], bool], seconds: float = USUAL) -> bool:
    """Wait until something is true, which takes at most so many seconds on an idle machine."""
    end = time.monotonic() + patient(seconds)
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class Caller:
    """A stub whose failures are the errors that they stand for."""

    def __init__(self, stub: Any, name: str, address: str) -> None:
        self.stub, self.name, self.address = stub, name, address

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return lambda request, seconds=PATIENCE: self.call(method, request, seconds)

    def call(self, method: str, request: Any, seconds: float) -> Any:
        try:
            reply = getattr(self.stub, method)(request, timeout=seconds)
            return reply if hasattr(reply, "DESCRIPTOR") else list(reply)
        except grpc.RpcError as error:
            raise from_rpc(error, self.name, self.address) from None


def altered(parts: Ended, alter: Callable[[party_pb2.ResultPart], None]) -> Ended:
    """What a party answers to whoever waits for a result, each part changed before it leaves."""
    while True:
        try:
            part = next(parts)
        except StopIteration as end:
            noted: Callable[[], None] = end.value
            return noted
        alter(part)
        yield part


class Dealer(Caller):
    """A stub of the provider's, which is asked for one bundle in each call."""

    def deal(self, request: provider_pb2.DealRequest, seconds: float = PATIENCE) -> list[provider_pb2.DealPart]:
        """All parts of one bundle."""
        found: list[provider_pb2.DealPart] = self.call("Deals", iter([request]), seconds)
        return found


# --------------------------------------------------------------------------------- script


class Script:
    """A session, one call after another, each under the certificate that may make it - or another.

    whole: inputs are submitted in one message.
    """

    def __init__(self, cluster: InProcess, compiled: Compiled) -> None:
        self.cluster, self.compiled, self.plan = cluster, compiled, compiled.plan
        self.count = len(cluster.names)
        self.id = b""
        self.whole = False

    def everyone(self, call: Callable[[int], Any]) -> list[Any]:
        """One call to every party, at once; the first error that a party found itself, or else that it heard of."""
        results: list[Any] = [None] * self.count
        errors: list[MpcError | None] = [None] * self.count

        def one(index: int) -> None:
            try:
                results[index] = call(index)
            except MpcError as error:
                errors[index] = error

        threads = [threading.Thread(target=one, args=(index,)) for index in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.errors = errors
        failed = sorted((error for error in errors if error is not None), key=lambda error: bool(error.heard_from))
        if failed:
            raise failed[0]
        return results

    def propose(self, caller: str = COORDINATOR) -> tuple[bytes, ...]:
        request = party_pb2.ProposeRequest(plan=self.plan.canonical)
        return tuple(self.everyone(lambda i: self.cluster.party(i, caller).Propose(request).nonce))

    def opening(self, nonces: Sequence[bytes], parties: Sequence[str] | None = None) -> party_pb2.OpenRequest:
        names = self.cluster.names if parties is None else parties
        return party_pb2.OpenRequest(plan_digest=self.plan.digest, parties=names, nonces=nonces)

    def open(self, caller: str = COORDINATOR) -> Script:
        nonces = self.propose(caller)
        request = self.opening(nonces)
        replies = self.everyone(lambda i: self.cluster.party(i, caller).Open(request))
        self.terms = Terms(self.plan.digest, "provider", self.cluster.names, nonces)
        self.id = self.terms.session_id
        assert {reply.session_id for reply in replies} == {self.id}
        return self

    def masks(self, index: int, run: int, caller: str) -> party_pb2.MasksReply:
        request = party_pb2.MasksRequest(session_id=self.id, run=run)
        reply: party_pb2.MasksReply = self.cluster.party(index, caller).Masks(request)
        return reply

    def submit(self, index: int, run: int, wire: str, value: bytes, caller: str, session_id: bytes = b"") -> None:
        party, found = self.cluster.party(index, caller), session_id or self.id
        if self.whole:
            header = party_pb2.SubmitHeader(session_id=found, run=run, wire=wire)
            party.SubmitWhole(party_pb2.WholeInput(header=header, data=value))
        else:
            party.Submit(iter(parts(found, run, wire, value)))

    def enter(self, run: int, values: Mapping[str, np.ndarray], caller: str, batch: int = 1) -> dict[str, bytes]:
        """Fetch masks, mask, submit to every party; what was submitted."""
        replies = self.everyone(lambda i: self.masks(i, run, caller))
        self.masks_manifest = replies[0].manifest
        masked = self.masked(values, replies, batch)
        self.everyone(lambda i: [self.submit(i, run, wire, value, caller) for wire, value in masked.items()])
        return masked

    def masked(
        self, values: Mapping[str, np.ndarray], replies: Sequence[party_pb2.MasksReply], batch: int = 1
    ) -> dict[str, bytes]:
        """x^ of each wire, from every party's seeds."""
        bound = self.plan.bind(batch)
        found = {}
        for wire, value in values.items():
            total = fp.from_signed(value)
            for reply in replies:
                seed = next(part.seed for part in reply.seeds if part.wire == wire)
                total = fp.add(total, expand_field(Seed(seed), bound.wire[wire].sizes))
            found[wire] = encode_field(total)
        return found

    def enter_weights(self) -> Script:
        self.enter(0, self.compiled.weights, MODEL_OWNER)
        return self

    def integers(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The data, as integers by wire."""
        [given] = self.plan.inputs
        return {given.wire: encode(x, self.plan.wire[given.wire].scale)}

    def prepare(self, run: int, batch: int = 1, caller: str = COORDINATOR) -> None:
        request = party_pb2.PrepareRequest(session_id=self.id, run=run, batch=batch)
        self.everyone(lambda i: self.cluster.party(i, caller).Prepare(request))

    def result(self, index: int, run: int, caller: str, values: bool = True) -> list[party_pb2.ResultPart]:
        request = party_pb2.ResultRequest(session_id=self.id, run=run, values=values)
        replies: list[party_pb2.ResultPart] = self.cluster.party(index, caller).Result(request)
        return [reply for reply in replies if reply.WhichOneof("part") != "progress"]

    def ready(self, batch: int = 1) -> Script:
        """Open, with weights, run 1 prepared."""
        self.open().enter_weights().prepare(1, batch)
        return self

    def started(self, batch: int = 1) -> Script:
        """All of the above, and the data entered."""
        self.ready(batch).enter(1, self.integers(data(batch)), OWNER, batch)
        return self

    def finish(self, run: int = 1) -> list[list[party_pb2.ResultPart]]:
        """Every party's reply to the recipient."""
        return self.everyone(lambda i: self.result(i, run, RECIPIENT))

    @property
    def input_wire(self) -> str:
        return self.plan.inputs[0].wire

    @property
    def output_wire(self) -> str:
        return self.plan.outputs[0].wire


def parts(session_id: bytes, run: int, wire: str, value: bytes, chunk: int = 1 << 20) -> Iterator[party_pb2.SubmitPart]:
    """A submission."""
    yield party_pb2.SubmitPart(header=party_pb2.SubmitHeader(session_id=session_id, run=run, wire=wire))
    for start in range(0, len(value), chunk):
        yield party_pb2.SubmitPart(chunk=value[start : start + chunk])


# --------------------------------------------------------------------------------- middle

Frames = Iterator[party_pb2.Frame]
Tamper = Callable[[str, int, party_pb2.Frame], "Sequence[party_pb2.Frame] | None"]
"""(sender, number of the frame in that direction, frame) -> what is passed on; None cuts the stream."""


class Middle(party_pb2_grpc.PeerServicer):
    """Stands between two parties with both their keys: frames pass through `tamper`.

    The test plays a deviating party with it: all that the other side can tell is that frames come
    over a stream with the right certificate.
    """

    def __init__(self, cluster: InProcess, first: int, second: int, port: int) -> None:
        self.first, self.second = cluster.names[first], cluster.names[second]
        self.tamper: Tamper = lambda sender, number, frame: [frame]
        self._cluster, self._address = cluster, Endpoint(f"127.0.0.1:{port}")

    def __enter__(self) -> Self:
        self._channel = connect(self._cluster.identity(self.first), self.second, self._cluster.addresses[self.second])
        self._server = serve(
            self._cluster.identity(self.second),
            self._address,
            lambda server: party_pb2_grpc.add_PeerServicer_to_server(self, server),
            1 << 24,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0)
        self._channel.close()

    def Exchange(self, request: Frames, context: grpc.ServicerContext) -> Frames:
        stub = party_pb2_grpc.PeerStub(self._channel)
        ending: list[grpc.Call] = []

        def cut() -> None:
            context.cancel()
            for call in ending:
                call.cancel()

        call = stub.Exchange(self._pass(request, self.first, cut))
        ending.append(call)
        context.add_callback(call.cancel)
        try:
            yield from self._pass(call, self.second, cut)
        except grpc.RpcError:
            context.cancel()

    def _pass(self, frames: Frames, sender: str, cut: Callable[[], None]) -> Frames:
        try:
            for number, frame in enumerate(frames):
                passed = self.tamper(sender, number, frame)
                if passed is None:
                    cut()
                    return
                yield from passed
        except grpc.RpcError:
            cut()
        except Exception:  # gRPC ends a cancelled request stream with a bare one
            return
