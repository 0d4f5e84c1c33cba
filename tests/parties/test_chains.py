"""Certificates of a CA with intermediates, lists of revoked ones, and what a CA of our own remembers."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from mpc.errors import ConfigError, IntegrityError
from mpc.fixedpoint import decode, encode
from parties.config.load import load
from parties.config.models import ClusterConfig, TlsConfig
from parties.trust import identity as certificates
from parties.trust import pem
from parties.trust.authority import issue, make_ca, revoke
from parties.trust.chains import DEVELOPMENT_CA, Trust, is_loopback
from parties.trust.identity import Identity, sign, verify
from parties.trust.revocation import Revocations
from tests.support.authority import Issuer
from tests.support.parties import InProcess, data, tiny_answer
from tests.support.parties_commands import mpc_here as mpc

NOW = datetime.now(UTC)


def leaf_of(tls: TlsConfig) -> x509.Certificate:
    return x509.load_pem_x509_certificates(tls.certificate.read_bytes())[0]


@pytest.fixture(scope="module")
def root() -> Issuer:
    return Issuer.root()


@pytest.fixture(scope="module")
def middle(root: Issuer) -> Issuer:
    return root.intermediate()


def refused(tls: TlsConfig, name: str = "alice", **more) -> str:
    with pytest.raises(ConfigError) as caught:
        Identity.load(tls, name, **more)
    return caught.value.what


def test_a_leaf_behind_intermediates(root: Issuer, middle: Issuer, tmp_path: Path) -> None:
    lower = root.intermediate("Upper", length=1).intermediate("Lower")
    for number, issuer in enumerate((middle, lower, root)):
        tls = issuer.leaf("alice", tmp_path / str(number), root=root)
        identity = Identity.load(tls, "alice", serves=True)
        assert len(x509.load_pem_x509_certificates(identity.certificate_pem)) == 1 + len(issuer.between)
        signature = sign(identity, b"bytes")
        verify(identity.trust, identity.certificate_pem, "alice", b"bytes", signature)
    assert identity.days_left() < 31


def test_refused_chains_say_why(root: Issuer, middle: Issuer, tmp_path: Path) -> None:
    assert "not signed by the CA" in refused(middle.leaf("alice", tmp_path / "a", root=root, chain=False))
    assert "does not lead to the CA" in refused(middle.leaf("alice", tmp_path / "b", root=Issuer.root()))
    old = root.intermediate("Old", days=-1)
    assert "'s CA expired" in refused(old.leaf("alice", tmp_path / "c", root=root))
    below = middle.intermediate("Below")  # which the middle one's path length forbids
    assert "does not lead to the CA" in refused(below.leaf("alice", tmp_path / "d", root=root))
    assert "is for 'bob'" in refused(middle.leaf("bob", tmp_path / "e", root=root))


def test_an_intermediates_end_counts(root: Issuer, tmp_path: Path) -> None:
    tls = root.intermediate("Short", days=5).leaf("alice", tmp_path, root=root, days=30)
    assert 4 < Identity.load(tls).days_left() < 5


def test_uses_are_kept_apart(root: Issuer, tmp_path: Path) -> None:
    """A client's certificate signs no manifests and serves nobody."""
    tls = root.leaf("alice", tmp_path / "client", uses=[ExtendedKeyUsageOID.CLIENT_AUTH])
    identity = Identity.load(tls, "alice")
    assert "not meant for a server" in refused(tls, serves=True)
    with pytest.raises(IntegrityError, match="not meant for a server"):
        verify(identity.trust, identity.certificate_pem, "alice", b"bytes", sign(identity, b"bytes"))
    server = root.leaf("alice", tmp_path / "server", uses=[ExtendedKeyUsageOID.SERVER_AUTH])
    assert "not meant for a client" in refused(server)


def test_another_members_name_is_refused(root: Issuer, tmp_path: Path) -> None:
    tls = root.leaf("mallory", tmp_path, names=["mallory", "Party-1"])
    Identity.load(tls, "mallory")  # nothing here says who else there is
    assert "another process of the cluster, 'party-1'" in refused(tls, "mallory", members=["party-0", "party-1"])


def test_a_session_of_a_company_s_ca(root: Issuer, middle: Issuer, tmp_path: Path) -> None:
    """Root, intermediate and leaf through TLS, manifests and all."""

    class Company(InProcess):
        def tls(self, name: str) -> TlsConfig:
            with self._lock:
                if name not in self._tls:
                    self._tls[name] = middle.leaf(name, self.folder / "certificates" / name, root=root)
                return self._tls[name]

    with Company(tmp_path, 3) as cluster:
        session = cluster.session()
        [given], [out], x = session.plan.inputs, session.plan.outputs, data(2)
        values = {given.wire: encode(x, session.plan.wire[given.wire].scale)}
        opened, _ = session.run(values, 2, lambda: 0.0)
        assert np.abs(decode(opened[out.wire], session.plan.wire[out.wire].scale) - tiny_answer(x)).max() < 1e-3
        session.close()


# --- revocation


def test_a_revoked_certificate(middle: Issuer, root: Issuer, tmp_path: Path) -> None:
    alice, bob = (middle.leaf(name, tmp_path / name, root=root) for name in ("alice", "bob"))
    crl = tmp_path / "crl.pem"
    crl.write_bytes(middle.revoked([leaf_of(bob)]) + root.revoked([]))
    alice, bob = (tls.model_copy(update={"crl": crl}) for tls in (alice, bob))
    identity = Identity.load(alice, "alice")
    assert "was revoked" in refused(bob, "bob")
    signer = Identity.load(bob.model_copy(update={"crl": None}))
    with pytest.raises(IntegrityError, match="was revoked"):
        verify(identity.trust, signer.certificate_pem, "bob", b"bytes", sign(signer, b"bytes"))


def test_security_35_a_revoked_intermediate(root: Issuer, tmp_path: Path) -> None:
    """The root's list has it: whatever leads through it is refused, wherever it stands and however many follow."""
    upper = root.intermediate("Upper", length=1)
    lower, crl = upper.intermediate("Lower"), tmp_path / "crl.pem"
    folders = {upper: tmp_path / "upper", lower: tmp_path / "lower", root: tmp_path / "root"}
    leaves = {issuer: issuer.leaf("alice", folder, root=root) for issuer, folder in folders.items()}
    signers = {issuer: Identity.load(tls) for issuer, tls in leaves.items()}
    refusal = "was issued by a CA that was revoked"

    def outcome(issuer: Issuer, authorities: tuple[Issuer, ...] = (root,)) -> str:
        tls = leaves[issuer].model_copy(update={"ca": tmp_path / "ca.pem", "crl": crl})
        tls.ca.write_bytes(b"".join(pem.encode(each.certificate) for each in authorities))
        lists = Revocations(crl, [each.certificate for each in (root, upper, lower)])
        trust = Trust(tuple(each.certificate for each in authorities), frozenset(), lists)
        chain, signer = x509.load_pem_x509_certificates(tls.certificate.read_bytes()), signers[issuer]
        found = {trust.fault(chain, "alice", NOW), trust.fault_in_use(chain, "alice", NOW)}
        for use in (
            lambda: Identity.load(tls),
            lambda: verify(trust, signer.certificate_pem, "alice", b"x", sign(signer, b"x")),
        ):
            try:
                use()
                found.add(None)
            except (ConfigError, IntegrityError) as error:
                found.add(refusal if refusal in str(error) else str(error))
        [same] = found
        return same or ""

    crl.write_bytes(root.revoked([]))
    assert [outcome(issuer) for issuer in leaves] == ["", "", ""]
    crl.write_bytes(root.revoked([upper.certificate]))
    for authorities in ((root,), (root, upper), (root, upper, lower), (upper, root), (root, lower)):
        assert [outcome(issuer, authorities) for issuer in leaves] == [refusal, refusal, ""], authorities
    crl.write_bytes(root.revoked([]) + upper.revoked([lower.certificate]))
    assert [outcome(issuer, (root, upper)) for issuer in leaves] == ["", refusal, ""]
    crl.write_bytes(root.revoked([root.certificate]))
    assert [outcome(issuer) for issuer in leaves] == [refusal] * 3


def test_an_intermediate_that_was_certified_anew(root: Issuer, tmp_path: Path) -> None:
    """The old certificate of a CA's key is on the list, the new one is not: leaves lead past the old one."""
    old, crl = root.intermediate(), tmp_path / "crl.pem"
    new = root.intermediate(key=old.key)
    crl.write_bytes(root.revoked([old.certificate]))
    for between, good in (((old,), False), ((new,), True), ((old, new), True), ((new, old), True)):
        tls = old.leaf("alice", tmp_path / "alice", root=root, chain=False).model_copy(update={"crl": crl})
        tls.certificate.write_bytes(
            tls.certificate.read_bytes() + b"".join(pem.encode(issuer.certificate) for issuer in between)
        )
        if good:
            assert Identity.load(tls).name == "alice"
        else:
            assert "a CA that was revoked" in refused(tls)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ("*", "wildcard"),
        ("party-*", "wildcard"),
        ("*.example", "wildcard"),
        ("party-0.", "another process of the cluster, 'party-0'"),
        ("PARTY-0.", "another process of the cluster, 'party-0'"),
        ("party-0..", "no host's name"),
        (".party-0", "no host's name"),
        ("party-0\0.example", "no host's name"),
        ("party-0\n", "no host's name"),
        ("party-0 ", "no host's name"),
        ("", "no host's name"),
        ("host.example.", ""),
    ],
)
def test_security_35_names_that_stand_for_others(root: Issuer, tmp_path: Path, other: str, why: str) -> None:
    """Patterns, and other ways to write a name, are no way round the rule that nobody bears another's."""
    tls = root.leaf("mallory", tmp_path, names=["mallory", other])
    trust = Trust((root.certificate,), frozenset({"party-0", "provider"}))
    fault = trust.fault_in_use([leaf_of(tls)], None, NOW)
    assert fault == trust.fault([leaf_of(tls)], "mallory", NOW)
    assert (why in (fault or "")) if why else fault is None


def test_a_list_is_read_again(root: Issuer, tmp_path: Path) -> None:
    leaf = leaf_of(root.leaf("alice", tmp_path / "alice"))
    path, time = tmp_path / "crl.pem", [0.0]
    path.write_bytes(root.revoked([]))
    revoked = Revocations(path, [root.certificate], lambda: time[0])
    assert not revoked.contains(leaf)
    path.write_bytes(root.revoked([leaf]))
    assert not revoked.contains(leaf)  # looked a moment ago
    time[0] += 2
    assert revoked.contains(leaf) and revoked.generation == 1
    path.write_bytes(b"garbage")
    time[0] += 2
    assert revoked.contains(leaf)  # the last good one stays in force
    path.unlink()
    time[0] += 2
    assert revoked.contains(leaf)


def test_a_signer_that_was_believed_before(root: Issuer, tmp_path: Path) -> None:
    path, passed = tmp_path / "crl.pem", [0.0]
    path.write_bytes(root.revoked([]))
    trust = Trust((root.certificate,), frozenset(), Revocations(path, [root.certificate], lambda: passed[0]))
    tls = root.leaf("alice", tmp_path / "alice", uses=[ExtendedKeyUsageOID.CLIENT_AUTH])
    signer, leaf = Identity.load(tls), leaf_of(tls)
    signature, now = sign(signer, b"x"), NOW.timestamp() + 60

    def check(signed: bytes = b"x", clock: float = now, serves: bool = False) -> None:
        verify(trust, signer.certificate_pem, "alice", signed, signature, lambda: clock, serves=serves)

    check()
    check()
    for match, wrong in {
        "does not match": {"signed": b"y"},
        "not meant for a server": {"serves": True},
        "expired": {"clock": leaf.not_valid_after_utc.timestamp() + 1},
        "not valid before": {"clock": leaf.not_valid_before_utc.timestamp() - 1},
    }.items():
        with pytest.raises(IntegrityError, match=match):
            check(**wrong)
    check()
    path.write_bytes(root.revoked([leaf]))
    passed[0] += 2
    with pytest.raises(IntegrityError, match="revoked"):
        check()


def test_lists_that_are_none(root: Issuer, tmp_path: Path) -> None:
    path = tmp_path / "crl.pem"
    for content in (b"", b"garbage", pem.encode(root.certificate), root.revoked([])[:-30]):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="not a revocation list"):
            Revocations(path, [root.certificate])
    path.write_bytes(Issuer.root().revoked([]))  # another CA of the same name
    with pytest.raises(ConfigError, match="not signed by a known CA"):
        Revocations(path, [root.certificate])
    path.write_bytes(root.revoked([], days=-1))
    assert Revocations(path, [root.certificate]).overdue is not None


def test_a_relative_list_in_a_variable(tmp_path: Path) -> None:
    text = 'name = "a"\n[tls]\nca = "ca.pem"\ncertificate = "c.pem"\nkey = "k.pem"\ncrl = "crl.pem"\n'
    text += '[provider]\nname = "p"\naddress = "h:1"\n'
    text += "".join(f'[[parties]]\nname = "p{i}"\naddress = "h:{2 + i}"\n' for i in range(2))
    path = tmp_path / "cluster.toml"
    path.write_text(text)
    assert load(ClusterConfig, path, environ={}).tls.crl == tmp_path / "crl.pem"
    assert load(ClusterConfig, path, environ={"MPC_TLS_CRL": "x.pem"}).tls.crl == Path.cwd() / "x.pem"


# --- a CA of our own


def test_security_35_a_host_that_is_a_name(tmp_path: Path) -> None:
    ca = tmp_path / "ca"
    make_ca(ca, "test-ca")
    issue(ca, "party-1", tmp_path / "party-1", ["b.example"])
    for hosts in (
        ["party-1"],
        ["PARTY-1"],
        ["m.example", "Party-1"],
        ["*"],
        ["*.example"],
        ["party-1."],
        ["a b"],
        [""],
    ):
        with pytest.raises(ConfigError):
            issue(ca, "mallory", tmp_path / "mallory", hosts)
    for name in ("b.example", "B.example", "PARTY-1"):
        with pytest.raises(ConfigError):
            issue(ca, name, tmp_path / "mallory", [])
    issue(ca, "party-1", tmp_path / "party-1", ["b.example", "party-1"])  # renewed
    issue(ca, "party-2", tmp_path / "party-2", ["b.example"])  # another process on that machine


def test_revoking_and_issuing_again(tmp_path: Path) -> None:
    ca = tmp_path / "ca"
    make_ca(ca, "test-ca")
    first, bob = (issue(ca, name, tmp_path / name) for name in ("alice", "bob"))
    old = certificates.Identity.load(first)
    with pytest.raises(ConfigError, match="no certificate to 'carol'"):
        revoke(ca, "carol")
    path, number = revoke(ca, "alice")
    assert number == 1
    again = issue(ca, "alice", tmp_path / "alice").model_copy(update={"crl": path})
    identity = Identity.load(again, "alice")
    with pytest.raises(IntegrityError, match="revoked"):
        verify(identity.trust, old.certificate_pem, "alice", b"bytes", sign(old, b"bytes"))
    assert revoke(ca, "alice")[1] == 1
    assert revoke(ca, "bob")[1] == 1
    assert len(x509.load_pem_x509_crl(path.read_bytes())) == 3
    assert "was revoked" in refused(bob.model_copy(update={"crl": path}), "bob")


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("0.0.0.0", False)]
    + [("10.0.0.1", False), ("localhost.example", False), ("::", False), ("example", False)],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_the_commands(tmp_path: Path) -> None:
    """A CA, two certificates, one taken back; names that are hosts, and the development CA's name, are refused."""
    ca = tmp_path / "ca"
    assert mpc("cert", "ca", ca, "--name", DEVELOPMENT_CA).returncode == 2
    assert mpc("cert", "ca", ca).returncode == 0
    assert mpc("cert", "issue", "party-0", "--ca", ca, "-o", tmp_path / "a", "--host", "a.example").returncode == 0
    done = mpc("cert", "issue", "mallory", "--ca", ca, "-o", tmp_path / "m", "--host", "party-0")
    assert done.returncode == 3 and "is the name of a certificate" in done.stderr and "fix:" in done.stderr
    assert not (tmp_path / "m" / "certificate.pem").exists()
    done = mpc("cert", "revoke", "party-0", "--ca", ca)
    assert done.returncode == 0 and done.stdout.strip() == str(ca / "crl.pem")
    files = {name: tmp_path / "a" / f"{name}.pem" for name in ("ca", "certificate", "key")}
    tls = TlsConfig(**files, crl=ca / "crl.pem")
    assert "was revoked" in refused(tls, "party-0")
    assert mpc("cert", "revoke", "nobody", "--ca", ca).returncode == 3
