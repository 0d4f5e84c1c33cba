"""Who may connect at all (security.md 28): plaintext, other CAs, other names, expired and rotated certificates."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from mpc.errors import ConfigError, PeerError
from parties.addresses import Endpoint
from parties.pb import party_pb2, party_pb2_grpc, provider_pb2_grpc
from parties.trust import authority
from parties.trust import identity as certificates
from parties.trust.identity import Identity
from parties.wire.probe import probe
from parties.wire.server import serve
from parties.wire.status import from_rpc
from parties.wire.transport import connect
from tests.support.authority import Issuer
from tests.support.effort import patient
from tests.support.parties import COORDINATOR, InProcess, free_ports

pytestmark = pytest.mark.timeout(60)
SECONDS = patient(10)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("cluster"), 2) as running:
        yield running


def describe(channel: grpc.Channel, name: str = "party-0") -> party_pb2.DescribeReply:
    stub = (provider_pb2_grpc.ProviderStub if name == "provider" else party_pb2_grpc.PartyStub)(channel)
    try:
        reply: party_pb2.DescribeReply = stub.Describe(party_pb2.DescribeRequest(), timeout=SECONDS)
        return reply
    except grpc.RpcError as error:
        raise from_rpc(error, name, "127.0.0.1:1") from None
    finally:
        channel.close()


def other_ca(folder: Path, name: str) -> Identity:
    authority.make_ca(folder / "ca", "test-ca")  # the same name, another key
    return Identity.load(authority.issue(folder / "ca", name, folder / name), name)


def expired(cluster: InProcess, folder: Path, name: str) -> Identity:
    """A certificate of the right CA that was valid until an hour ago."""
    certificate = x509.load_pem_x509_certificate((cluster.ca / authority.CA_CERTIFICATE).read_bytes())
    key = serialization.load_pem_private_key((cluster.ca / authority.CA_KEY).read_bytes(), password=None)
    tls = Issuer(certificate, key).leaf(name, folder / f"expired-{name}", days=-1 / 24)
    # Identity.load would refuse it, as it should; an attacker does not ask.
    with pytest.raises(ConfigError, match="expired"):
        Identity.load(tls, name)
    pem = [path.read_bytes() for path in (tls.certificate, tls.key, tls.ca)]
    trust = cluster.identity(COORDINATOR).trust
    return Identity(name, pem[0], pem[1], pem[2], datetime.now(UTC), trust, certificates.client_context(tls))


@pytest.mark.parametrize("name", ["party-0", "provider"])
def test_who_gets_in(cluster: InProcess, tmp_path: Path, name: str) -> None:
    address = cluster.addresses[name]
    assert describe(connect(cluster.identity(COORDINATOR), name, address), name).name == name

    with pytest.raises(PeerError):  # no TLS
        describe(grpc.insecure_channel(address), name)

    anonymous = grpc.ssl_channel_credentials(cluster.identity(COORDINATOR).ca_pem)
    options = [("grpc.ssl_target_name_override", name)]
    with pytest.raises(PeerError):  # no certificate of its own
        describe(grpc.secure_channel(address, anonymous, options), name)

    stranger = other_ca(tmp_path / "other", COORDINATOR)
    with pytest.raises(PeerError) as caught:  # does not even know whom it talks to
        describe(connect(stranger, name, address), name)
    assert "certificate" in (caught.value.cause or "")

    own = cluster.identity(COORDINATOR)
    credentials = grpc.ssl_channel_credentials(own.ca_pem, stranger.key_pem, stranger.certificate_pem)
    with pytest.raises(PeerError):  # trusts the right CA, but is certified by another of the same name
        describe(grpc.secure_channel(address, credentials, options), name)

    with pytest.raises(PeerError):
        describe(connect(expired(cluster, tmp_path, COORDINATOR), name, address), name)


def test_another_name_is_another_process(cluster: InProcess) -> None:
    """A right certificate with a wrong name: an address that leads to somebody else is noticed."""
    own = cluster.identity(COORDINATOR)
    for expected, address in (("party-1", "party-0"), ("provider", "party-0"), ("party-0", "provider")):
        with pytest.raises(PeerError) as caught:
            describe(connect(own, expected, cluster.addresses[address]), expected)
        assert caught.value.peer == expected


def test_a_server_whose_certificate_has_expired(cluster: InProcess, tmp_path: Path) -> None:
    identity = expired(cluster, tmp_path, "party-7")
    address = Endpoint(f"127.0.0.1:{free_ports(1)[0]}")
    server = serve(identity, address, lambda s: None, 1 << 20)
    try:
        reach = probe(cluster.identity(COORDINATOR), "party-7", address, SECONDS)
        assert not reach.reachable and "certificate" in reach.problem
    finally:
        server.stop(0)


def misled(cluster: InProcess, name: str, other: str) -> None:
    """Restart party-0 with the address of another process under this name."""
    right = cluster.addresses[name]
    cluster.crash(0)
    cluster.addresses[name] = Endpoint(f"localhost:{cluster.addresses[other].port}")  # no address stands twice
    cluster.revive(0)
    cluster.addresses[name] = right


def test_a_parties_session_with_an_impostor_among_them(tmp_path: Path) -> None:
    """party-1's address leads to a process with another party's certificate: named, and no session."""
    with InProcess(tmp_path, 3) as cluster:
        misled(cluster, "party-1", "party-2")
        with pytest.raises(PeerError) as caught:
            cluster.session()
        assert caught.value.peer == "party-1"
        assert cluster.is_idle()


def test_an_unpinned_provider_is_refused(tmp_path: Path) -> None:
    """20: the provider is the one of the config; another process of the same CA is not."""
    with InProcess(tmp_path, 2) as cluster:
        misled(cluster, "provider", "party-1")
        with pytest.raises(PeerError) as caught:
            cluster.session()
        assert caught.value.peer == "provider"
        assert cluster.is_idle()


def test_a_rotated_certificate_is_as_good(cluster: InProcess) -> None:
    """A new key and certificate of the same name and CA: no config changes."""
    before = cluster.identity(COORDINATOR)
    cluster.renew(COORDINATOR)
    after = cluster.identity(COORDINATOR)
    assert before.key_pem != after.key_pem
    for identity in (before, after):
        assert describe(connect(identity, "party-0", cluster.addresses["party-0"])).name == "party-0"
