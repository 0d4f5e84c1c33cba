"""Which certificate a server shows, and why a process cannot be reached: what is said is known, not guessed."""

from __future__ import annotations

import gc
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import grpc
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mpc.errors import IntegrityError, PeerError
from parties.addresses import Endpoint
from parties.trust import identity as certificates
from parties.trust import pem
from parties.trust.identity import Identity
from parties.wire import channels, dialling
from parties.wire.channels import Unreachable, Verified
from parties.wire.dialling import Seen, diagnose, look
from parties.wire.server import serve
from parties.wire.status import from_rpc
from parties.wire.transport import answered_in_time, connect, patience
from tests.support.authority import Issuer
from tests.support.parties import eventually, free_ports

SECONDS = 10.0
pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def root() -> Issuer:
    return Issuer.root()


@pytest.fixture
def client(root: Issuer, tmp_path: Path) -> Identity:
    return Identity.load(root.leaf("client", tmp_path / "client"))


STREAM = "test.Stream"


def offer_stream(server: grpc.Server) -> None:
    """One reply, and then nothing until the caller hangs up."""

    def say(request: object, context: grpc.ServicerContext) -> Iterator[health_pb2.HealthCheckResponse]:
        ended = threading.Event()
        if context.add_callback(ended.set):
            yield health_pb2.HealthCheckResponse(status=1)
            ended.wait(SECONDS)

    handler = grpc.unary_stream_rpc_method_handler(
        say, health_pb2.HealthCheckRequest.FromString, health_pb2.HealthCheckResponse.SerializeToString
    )
    server.add_registered_method_handlers(STREAM, {"Say": handler})


def stream(channel: grpc.Channel) -> grpc.UnaryStreamMultiCallable:
    return channel.unary_stream(
        f"/{STREAM}/Say", health_pb2.HealthCheckRequest.SerializeToString, health_pb2.HealthCheckResponse.FromString
    )


@contextmanager
def serving(identity: Identity, port: int | None = None) -> Iterator[Endpoint]:
    address = Endpoint(f"127.0.0.1:{port or free_ports(1)[0]}")
    server = serve(identity, address, offer_stream, 1 << 20)
    try:
        yield address
    finally:
        server.stop(0)


@contextmanager
def answering(answer: bytes | None) -> Iterator[str]:
    """Something that takes connections and says `answer`, or nothing at all and keeps them."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        kept = []

        def loop() -> None:
            while True:
                try:
                    taken, _ = listening.accept()
                except OSError:
                    return
                kept.append(taken)
                if answer is not None:
                    with closing(taken):
                        taken.sendall(answer)

        threading.Thread(target=loop, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    for one in kept:
        one.close()


def check(channel: grpc.Channel) -> None:
    health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)


def failure(identity: Identity, address: str, name: str = "party-0") -> PeerError:
    """The error of a call to that address."""
    with closing(connect(identity, name, address)) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            check(channel)
        error = from_rpc(caught.value, name, address, identity)
    assert isinstance(error, PeerError) and error.peer == name and error.cause and error.remedy
    return error


# --- whose certificate


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("mallory", ["mallory", "party-0"]),
        ("mallory", ["party-0"]),
        ("mallory", ["mallory", "*.example", "party-0"]),
        ("PARTY-0", ["PARTY-0"]),
        ("party-0", ["mallory"]),
    ],
)
def test_security_35_a_server_with_two_names(
    root: Issuer, client: Identity, tmp_path: Path, name: str, names: list[str]
) -> None:
    """gRPC alone takes a certificate of mallory's for party-0's if party-0 is among its DNS names."""
    tls = root.leaf(name, tmp_path / "server", names=names)
    pems = [path.read_bytes() for path in (tls.certificate, tls.key, tls.ca)]
    server = Identity(name, *pems, client.not_after, client.trust, certificates.client_context(tls))
    with serving(server) as address:
        assert "certificate" in (failure(client, address).cause or "")
        if "party-0" in names:
            credentials = grpc.ssl_channel_credentials(client.ca_pem, client.key_pem, client.certificate_pem)
            with closing(
                grpc.secure_channel(address, credentials, [("grpc.ssl_target_name_override", "party-0")])
            ) as plain:
                check(plain)  # the attack is one


def test_security_35_a_server_that_comes_between_look_and_call(root: Issuer, client: Identity, tmp_path: Path) -> None:
    """Whoever takes the address over after the look needs the very key that was seen, not only a certificate."""
    first = Identity.load(root.leaf("party-0", tmp_path / "first"))
    tls = root.leaf("mallory", tmp_path / "mallory", names=["mallory", "party-0"])
    pems = [path.read_bytes() for path in (tls.certificate, tls.key, tls.ca)]
    mallory = Identity("mallory", *pems, client.not_after, client.trust, certificates.client_context(tls))
    [port] = free_ports(1)
    address = f"127.0.0.1:{port}"
    with closing(connect(client, "party-0", address)) as channel:
        with serving(first, port):
            check(channel)
        with serving(mallory, port):
            with pytest.raises(grpc.RpcError) as caught:
                check(channel)
            assert not isinstance(caught.value, Unreachable)  # no call has failed, so nobody looks again
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "is for 'mallory'" in (failure(client, address).cause or "")


def test_security_35_a_revoked_server(root: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the next call on, over the connection that there is."""
    monkeypatch.setattr("parties.trust.revocation.LOOK_AGAIN", 0.0)
    crl = tmp_path / "crl.pem"
    crl.write_bytes(root.revoked([]))
    client = Identity.load(root.leaf("client", tmp_path / "client").model_copy(update={"crl": crl}))
    server = Identity.load(root.leaf("party-0", tmp_path / "server"))
    with serving(server) as address, closing(connect(client, "party-0", address)) as channel:
        check(channel)
        crl.write_bytes(root.revoked([x509.load_pem_x509_certificates(server.certificate_pem)[0]]))
        with pytest.raises(grpc.RpcError) as caught:
            check(channel)
        assert "was revoked" in (from_rpc(caught.value, "party-0", address).cause or "")


@pytest.mark.parametrize("in_file", [False, True])
def test_security_35_a_revoked_intermediate_in_use(
    root: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_file: bool
) -> None:
    """A caller is refused by the server, and a server by who dials it, from the next call on.

    in_file: the intermediate stands in everybody's CA file too, and nobody shows it.
    """
    monkeypatch.setattr("parties.trust.revocation.LOOK_AGAIN", 0.0)
    middle = root.intermediate()
    lists = {name: tmp_path / f"{name}.crl" for name in ("old", "party-0", "client")}

    def identity(issuer: Issuer, name: str) -> Identity:
        tls = issuer.leaf(name, tmp_path / name, root=root, chain=not in_file)
        if in_file:
            tls.ca.write_bytes(pem.encode(root.certificate) + pem.encode(middle.certificate))
        lists[name].write_bytes(root.revoked([]))
        return Identity.load(tls.model_copy(update={"crl": lists[name]}))

    old, client, server = identity(middle, "old"), identity(root, "client"), identity(root, "party-0")
    with serving(server) as address, closing(connect(old, "party-0", address)) as channel:
        check(channel)
        with closing(connect(client, "party-0", address)) as another:
            check(another)
            lists["party-0"].write_bytes(root.revoked([middle.certificate]))
            with pytest.raises(grpc.RpcError) as caught:
                check(channel)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert "a CA that was revoked" in str(from_rpc(caught.value, "party-0", address))
            check(another)
    with serving(old) as address, closing(connect(client, "old", address)) as channel:
        check(channel)
        lists["client"].write_bytes(root.revoked([middle.certificate]))
        with pytest.raises(grpc.RpcError) as caught:
            check(channel)
        assert "a CA that was revoked" in (from_rpc(caught.value, "old", address).cause or "")


def test_a_process_that_is_restarted_with_another_certificate(root: Issuer, client: Identity, tmp_path: Path) -> None:
    port = free_ports(1)[0]
    with closing(connect(client, "party-0", f"127.0.0.1:{port}")) as channel:
        for number in range(3):
            with serving(Identity.load(root.leaf("party-0", tmp_path / str(number))), port):
                if number:  # the first call shows that the connection is lost
                    with pytest.raises(grpc.RpcError):
                        check(channel)
                check(channel)


def test_one_look_for_many_calls(
    root: Issuer, client: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls that begin together wait for one look, and later ones need none until time has passed."""
    looks: list[str] = []
    arrived: list[int] = []

    def counted(*arguments: object) -> Seen:
        looks.append(str(arguments[1]))
        assert eventually(lambda: len(arrived) == 6)  # all of them wait for this one
        return look(*arguments)

    monkeypatch.setattr("parties.wire.channels.look", counted)
    monkeypatch.setattr("parties.wire.server.HEALTH_SHARE", 32)  # all calls at once are answered
    server = Identity.load(root.leaf("party-0", tmp_path / "server"))
    with serving(server) as address, closing(connect(client, "party-0", address)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        with futures.ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda number: [arrived.append(number), check(channel)], range(6)))
        begun = [stub.Check.future(health_pb2.HealthCheckRequest(), timeout=SECONDS) for _ in range(3)]
        assert [one.result().status for one in begun] == [1, 1, 1]
        assert looks == ["party-0"]
        monkeypatch.setattr("parties.wire.channels.FRESH", 0.0)
        check(channel)
        assert len(looks) == 2


def test_futures_fail_and_let_go(root: Issuer, client: Identity, tmp_path: Path) -> None:
    """A call that is begun while nobody can be reached fails as its future does, at once and for whoever waits."""
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with closing(connect(client, "party-0", address)) as channel:
        stub, told = health_pb2_grpc.HealthStub(channel), threading.Event()
        pending = stub.Check.future(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        pending.add_done_callback(lambda _: told.set())
        with pytest.raises(grpc.RpcError) as caught:
            pending.result()
        assert told.wait(SECONDS) and pending.done() and isinstance(pending.exception(), grpc.RpcError)
        assert "not running" in (from_rpc(caught.value, "party-0", address).cause or "")
        replies = stream(channel)(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        with pytest.raises(grpc.RpcError):
            next(replies)
        with serving(Identity.load(root.leaf("party-0", tmp_path / "server")), Endpoint(address).port):
            later = stub.Check.future(health_pb2.HealthCheckRequest(), timeout=SECONDS)
            assert later.result().status == 1
            replies = stream(channel)(health_pb2.HealthCheckRequest(), timeout=SECONDS)
            assert next(replies).status == 1
            held = weakref.ref(replies)
            gc.disable()
            try:
                del replies
                assert held() is None  # nothing of ours keeps a call that nobody holds
            finally:
                gc.enable()
    with pytest.raises(ValueError, match="closed"):
        check(channel)


# --- one name, several servers


HOSTS = ("127.0.0.1", "127.0.0.2")


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A name with two addresses, in the order of the list."""
    if not sys.platform.startswith("linux"):
        pytest.skip("one loopback address")
    order, resolve = [*HOSTS], socket.getaddrinfo

    def resolved(host: str, port: int, **more: int) -> list:
        hosts = order if host == "localhost" else [host]
        return [entry for one in hosts for entry in resolve(one, port, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    yield order


@contextmanager
def both(first: Identity, second: Identity) -> Iterator[tuple[Endpoint, list]]:
    """Two servers on one port of two addresses, and what is called there."""
    port, calls = free_ports(1)[0], []

    def registered(host: str) -> Callable[[grpc.Server], None]:
        def register(server: grpc.Server) -> None:
            def said(request: object, context: grpc.ServicerContext) -> health_pb2.HealthCheckResponse:
                calls.append(host)
                return health_pb2.HealthCheckResponse(status=1)

            handler = grpc.unary_unary_rpc_method_handler(
                said, health_pb2.HealthCheckRequest.FromString, health_pb2.HealthCheckResponse.SerializeToString
            )
            server.add_registered_method_handlers("test.Twin", {"Who": handler})

        return register

    servers = [
        serve(identity, Endpoint(f"{host}:{port}"), registered(host), 1 << 20)
        for identity, host in zip((first, second), HOSTS, strict=True)
    ]
    try:
        yield Endpoint(f"localhost:{port}"), [servers, calls]
    finally:
        for server in servers:
            server.stop(0)


def ask(channel: grpc.Channel) -> None:
    call = channel.unary_unary(
        "/test.Twin/Who", health_pb2.HealthCheckRequest.SerializeToString, health_pb2.HealthCheckResponse.FromString
    )
    call(health_pb2.HealthCheckRequest(), timeout=SECONDS)


def test_a_name_of_two_servers_with_certificates_of_their_own(
    root: Issuer, client: Identity, tmp_path: Path, twins: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A channel stays with the one that it saw first, whatever order the name has later, until a call fails."""
    servers = [Identity.load(root.leaf("party-0", tmp_path / str(number))) for number in range(2)]
    with both(*servers) as (address, [running, calls]), closing(connect(client, "party-0", address)) as channel:
        ask(channel)
        twins.reverse()
        monkeypatch.setattr("parties.wire.channels.FRESH", 0.0)
        for _ in range(3):
            ask(channel)
        assert calls == [HOSTS[0]] * 4
        running[0].stop(0)
        with suppress(grpc.RpcError):  # what shows that it is gone
            ask(channel)
        ask(channel)
        assert calls[-1] == HOSTS[1]


def test_security_35_of_two_servers_only_one_bears_the_name(
    root: Issuer, client: Identity, tmp_path: Path, twins: list[str]
) -> None:
    """Each is judged by all rules; if none passes, the error says what is wrong with the first."""
    good = Identity.load(root.leaf("party-0", tmp_path / "good"))
    wrong = [Identity.load(root.leaf("mallory", tmp_path / "mallory"))]
    wrong += [Identity.load(Issuer.root("Other Root").leaf("party-0", tmp_path / "stranger"))]
    for bad in wrong:
        with both(bad, good) as (address, [_, calls]), closing(connect(client, "party-0", address)) as channel:
            ask(channel)
            assert calls == [HOSTS[1]]
    with both(*wrong) as (address, [_, calls]), closing(connect(client, "party-0", address)) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            ask(channel)
        assert not calls and "certificate" in (from_rpc(caught.value, "party-0", address).cause or "")


# --- why not


def test_causes(root: Issuer, client: Identity, tmp_path: Path) -> None:
    """Each fault by its own name."""
    assert "does not resolve" in (failure(client, "no-such-host.invalid:7101").cause or "")
    dead = failure(client, f"127.0.0.1:{free_ports(1)[0]}")
    assert "nobody listens on that port" in (dead.cause or "") and "mpc up --detach" in (dead.remedy or "")
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        assert "does not speak TLS" in (failure(client, address).cause or "")
    with answering(b"") as address:
        assert "TLS handshake" in (failure(client, address).cause or "")
    stranger = Identity.load(Issuer.root("Other Root").leaf("party-0", tmp_path / "stranger"))
    with serving(stranger) as address:
        assert "does not verify" in (failure(client, address).cause or "")
    server = Identity.load(root.leaf("party-0", tmp_path / "server"))
    with serving(server) as address:
        own = root.leaf("client", tmp_path / "half")
        foreign = Issuer.root("Third Root").leaf("client", tmp_path / "third")
        half = own.model_copy(update={"certificate": foreign.certificate, "key": foreign.key})
        pems = [path.read_bytes() for path in (half.certificate, half.key, half.ca)]
        unknown = Identity("client", *pems, client.not_after, client.trust, certificates.client_context(half))
        assert "our certificate" in (failure(unknown, address).cause or "")
        other = failure(client, address, "party-1")
        assert "is for 'party-0', not 'party-1'" in (other.cause or "")
        found = diagnose(client, "party-0", address)
        assert "was lost" in found.what and "it can be reached now" in (found.cause or "")


def test_who_was_cut_off_is_dialled_once_more(client: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was killed: its system has answered a moment longer."""
    causes = iter(["the connection was cut during the TLS handshake: Connection reset by peer", "it is not running"])

    def refuse(*arguments: object) -> NoReturn:
        raise PeerError("party-0 cannot be reached", cause=next(causes), peer="party-0")

    monkeypatch.setattr(dialling, "look", refuse)
    assert diagnose(client, "party-0", "127.0.0.1:1").cause == "it is not running"
    assert not [*causes]


def test_an_expired_server_and_a_clock_that_is_off(root: Issuer, client: Identity, tmp_path: Path) -> None:
    tls = root.leaf("party-0", tmp_path / "server", days=-1)
    pems = [path.read_bytes() for path in (tls.certificate, tls.key, tls.ca)]
    server = Identity("party-0", *pems, client.not_after, client.trust, certificates.client_context(tls))
    with serving(server) as address:
        found = failure(client, address)
        assert "expired" in (found.cause or "") and "clocks" in (found.remedy or "")


def test_silence_and_refusal_are_two_things(client: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(None) as address:
        with pytest.raises(PeerError, match="nothing came in 0.5 s"):
            look(client, "party-0", address, 0.5)

    def unanswered(self: socket.socket, where: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(socket.socket, "connect", unanswered)
    with pytest.raises(PeerError, match="a firewall drops the packets"):
        look(client, "party-0", "127.0.0.1:7101", 0.5)


def test_a_path_is_no_mention_of_a_party() -> None:
    """An error that another process sent names it, even if a folder in its text is called so too."""

    class Ended(grpc.RpcError, grpc.Call):
        def __init__(self, detail: str) -> None:
            self.detail = detail

        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.FAILED_PRECONDITION

        def details(self) -> str:
            return self.detail

    Ended.__abstractmethods__ = frozenset()
    for what, shown in (
        ("the ledger in /srv/party-1/data cannot be used", "party-1: the ledger in /srv/party-1/data cannot be used"),
        ("the config party-1.toml is missing", "party-1: the config party-1.toml is missing"),
        ("this is party-10's", "party-1: this is party-10's"),
        ("party-0 did not greet party-1", "party-1: party-0 did not greet party-1"),
        ("the provider does not know party-1: add it", "party-1: the provider does not know party-1: add it"),
    ):
        error = from_rpc(Ended(f'{{"code": "integrity", "what": "{what}"}}'), "party-1", "127.0.0.1:1")
        assert isinstance(error, IntegrityError) and error.what == shown
    other = from_rpc(Ended('{"code": "integrity", "what": "it cheats", "peer": "party-0"}'), "party-1", "127.0.0.1:1")
    assert (other.what, other.peer, other.said_by) == ("party-1 says of party-0: it cheats", "party-0", "party-1")


def test_the_callee_gives_up_first(root: Issuer, client: Identity, tmp_path: Path) -> None:
    """Whoever waits for somebody else has less time than its own caller, however the deadlines are set."""
    seen: list[float] = []

    class Service:
        def check(self, request: object, context: grpc.ServicerContext) -> health_pb2.HealthCheckResponse:
            with answered_in_time(context):
                seen.append(patience(60))
            return health_pb2.HealthCheckResponse()

    def register(server: grpc.Server) -> None:
        handler = grpc.unary_unary_rpc_method_handler(
            Service().check,
            health_pb2.HealthCheckRequest.FromString,
            health_pb2.HealthCheckResponse.SerializeToString,
        )
        server.add_registered_method_handlers("test.Waiting", {"Check": handler})

    address = Endpoint(f"127.0.0.1:{free_ports(1)[0]}")
    server = serve(Identity.load(root.leaf("party-0", tmp_path / "server")), address, register, 1 << 20)
    try:
        with closing(connect(client, "party-0", address)) as channel:
            call = channel.unary_unary(
                "/test.Waiting/Check",
                health_pb2.HealthCheckRequest.SerializeToString,
                health_pb2.HealthCheckResponse.FromString,
            )
            call(health_pb2.HealthCheckRequest(), timeout=30)
            call(health_pb2.HealthCheckRequest())
            assert 20 < seen[0] <= 28 and seen[1] == 60
    finally:
        server.stop(0)
    assert patience(60) == 60


def test_a_silent_address_leaves_time_to_those_behind_it() -> None:
    now = time.monotonic()
    first = dialling.share(now + 10, 2)
    assert now + 4.9 < first < now + 5.1
    assert dialling.share(now + 10, 1) == now + 10
    assert dialling.share(now + 0.5, 4) == now + 0.5  # never beyond what there is


def test_whoever_only_asks_whether_a_look_is_due_does_not_put_it_off(
    root: Issuer, client: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Open calls ask before each message, and the call that is opened anew is the one that looks."""
    server = Identity.load(root.leaf("party-0", tmp_path / "party-0"), serves=True)
    with serving(server) as address, connect(client, "party-0", address) as channel:
        assert isinstance(channel, Verified)
        check(channel)
        assert channel.current() is not None
        monkeypatch.setattr(channels, "FRESH", 0.0)
        time.sleep(0.01)
        assert channel.current() is None and channel.current() is None
        monkeypatch.setattr(channels, "FRESH", SECONDS)
        check(channel)
        assert channel.current() is not None
