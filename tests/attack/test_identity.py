"""Nobody passes for somebody else (security.md 35): CN and DNS names, roles, the development CA, revocation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mpc.compiler.roles import Roles
from mpc.errors import ConfigError, MpcError, PolicyError
from parties.addresses import Endpoint
from parties.config.models import PartyConfig, PolicyConfig, TlsConfig
from parties.party.policy import Policy
from parties.pb import party_pb2, party_pb2_grpc, provider_pb2
from parties.trust import authority
from parties.trust import identity as certificates
from parties.trust.chains import DEVELOPMENT_CA
from parties.trust.identity import Identity
from parties.wire.server import serve
from parties.wire.status import from_rpc
from parties.wire.transport import connect
from tests.support.authority import Issuer
from tests.support.parties import COORDINATOR, InProcess, free_ports

pytestmark = pytest.mark.timeout(60)
SECONDS = 10


class Foreign(InProcess):
    """A cluster under a CA that issues whatever it is asked for."""

    def __init__(self, folder: Path, parties: int = 2, **more) -> None:
        self.issuer = Issuer.root()
        self.crl = folder / "crl.pem"
        self.crl.write_bytes(self.issuer.revoked([]))
        super().__init__(folder, parties, **more)

    def tls(self, name: str) -> TlsConfig:
        with self._lock:
            if name not in self._tls:
                tls = self.issuer.leaf(name, self.folder / "certificates" / name)
                self._tls[name] = tls.model_copy(update={"crl": self.crl})
            return self._tls[name]

    def forged(self, name: str, names: list[str]) -> Identity:
        """An attacker's identity: loading it properly would refuse it."""
        tls = self.issuer.leaf(name, self.folder / "forged" / f"{name}-{len(names)}", names=names)
        pems = [path.read_bytes() for path in (tls.certificate, tls.key, tls.ca)]
        own = self.identity(COORDINATOR)
        return Identity(name, pems[0], pems[1], pems[2], own.not_after, own.trust, certificates.client_context(tls))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Foreign]:
    with Foreign(tmp_path_factory.mktemp("cluster")) as running:
        yield running


def error_of(channel: grpc.Channel, name: str) -> MpcError:
    """What a health check under some certificate ends with."""
    try:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
    except grpc.RpcError as error:
        return from_rpc(error, name, "127.0.0.1:1")
    finally:
        channel.close()
    pytest.fail("it was let in")


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("party-0", ["mallory"]),  # a CA that checks DNS names, and takes CNs as they come
        ("provider", ["mallory", "localhost"]),
        ("mallory", ["party-0"]),
        ("mallory", ["mallory", "party-0"]),
        ("mallory", ["mallory", "PROVIDER"]),
        ("mal\x1b[2Klory", ["x"]),
        ("mallory", []),
    ],
)
def test_security_35_callers_with_two_names(cluster: Foreign, name: str, names: list[str]) -> None:
    """On every server and for every call, the health check included: refused, and never under another's name."""
    for callee in ("party-1", "provider"):
        channel = connect(cluster.forged(name, names), callee, cluster.addresses[callee])
        error = error_of(channel, callee)
        assert isinstance(error, PolicyError), error
        assert "certificate" in error.what and error.what.isprintable()


def test_security_35_a_revoked_caller(cluster: Foreign, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the next call on, over the connection that it has already."""
    monkeypatch.setattr("parties.trust.revocation.LOOK_AGAIN", 0.0)
    channel = cluster.channel("mallory", "party-0")
    stub = party_pb2_grpc.PartyStub(channel)
    stub.Describe(party_pb2.DescribeRequest(), timeout=SECONDS)
    leaf = x509.load_pem_x509_certificates(cluster.identity("mallory").certificate_pem)[0]
    cluster.crl.write_bytes(cluster.issuer.revoked([leaf]))
    with pytest.raises(grpc.RpcError) as caught:
        stub.Describe(party_pb2.DescribeRequest(), timeout=SECONDS)
    assert "was revoked" in from_rpc(caught.value, "party-0", "127.0.0.1:1").what
    cluster.crl.write_bytes(cluster.issuer.revoked([]))
    stub.Describe(party_pb2.DescribeRequest(), timeout=SECONDS)


# --- roles


@pytest.mark.parametrize("machine", ["party-0", "party-1", "provider"])
def test_security_35_a_process_of_the_cluster_is_no_client(cluster: Foreign, machine: str) -> None:
    """'any' means clients: the roster's and the provider's certificates coordinate nothing."""
    plan = cluster.compiled().plan
    for index in range(2):
        for call in (
            lambda caller: caller.Propose(party_pb2.ProposeRequest(plan=plan.canonical)),
            lambda caller: caller.Store(party_pb2.StoreRequest(session_id=bytes(32), run=1)),
        ):
            with pytest.raises(PolicyError, match="process of the cluster"):
                call(cluster.party(index, machine))
    for roles in (Roles(machine), Roles(COORDINATOR, machine), Roles(COORDINATOR, COORDINATOR, (machine,))):
        plan = cluster.compiled(roles).plan
        with pytest.raises(PolicyError, match="process of the cluster"):
            cluster.party(0).Propose(party_pb2.ProposeRequest(plan=plan.canonical))


def test_security_35_a_client_is_no_party(cluster: Foreign) -> None:
    """And the other way round: a client greets nobody, and is dealt nothing."""
    with pytest.raises(grpc.RpcError) as caught:
        request = provider_pb2.DealRequest(session_id=bytes(32))
        list(cluster.dealer(COORDINATOR).stub.Deals(iter([request]), timeout=SECONDS))
    assert "own parties only" in from_rpc(caught.value, "provider", "127.0.0.1:1").what


def test_a_policy_cannot_list_a_process(cluster: Foreign) -> None:
    for key in ("coordinators", "owners", "recipients"):
        for machine in ("party-1", "provider"):
            fields = cluster.party_config(0).model_dump() | {"policy": {key: ("clinic", machine)}}
            with pytest.raises(ValueError, match=f"policy.{key}: '{machine}' is a process of the cluster"):
                PartyConfig.model_validate(fields)


def test_machines_are_refused_by_policy_alone() -> None:
    policy = Policy(PolicyConfig(coordinators=("any",)), frozenset({"party-0"}))
    policy.admit("party-7")
    with pytest.raises(PolicyError, match="process of the cluster"):
        policy.admit("party-0")


# --- the development CA


def test_security_35_the_development_ca_stays_on_its_machine(tmp_path: Path) -> None:
    """Neither served nor believed beyond loopback; on it, and with another CA, everything goes."""
    authority.make_ca(tmp_path / "ca", DEVELOPMENT_CA)
    local = Identity.load(authority.issue(tmp_path / "ca", "party-0", tmp_path / "party-0"))
    port = free_ports(1)[0]
    for host in ("0.0.0.0", "[::]", "party-0.example", "10.1.2.3"):
        with pytest.raises(ConfigError, match="development CA"):
            serve(local, Endpoint(f"{host}:{port}"), lambda _: None, 1 << 20)
        with pytest.raises(ConfigError, match="development CA"):
            connect(local, "party-1", f"{host}:{port}")
    for host in ("localhost", "127.0.0.1"):
        connect(local, "party-1", f"{host}:{port}").close()
    authority.make_ca(tmp_path / "real", "clinic-ca")
    real = Identity.load(authority.issue(tmp_path / "real", "party-0", tmp_path / "again"))
    serve(real, Endpoint(f"0.0.0.0:{port}"), lambda _: None, 1 << 20).stop(0)
    mixed = tmp_path / "mixed.pem"
    mixed.write_bytes(real.ca_pem + local.ca_pem)
    both = authority.issue(tmp_path / "real", "party-0", tmp_path / "both").model_copy(update={"ca": mixed})
    with pytest.raises(ConfigError, match="development CA"):
        serve(Identity.load(both), Endpoint(f"0.0.0.0:{port}"), lambda _: None, 1 << 20)
