"""Certificates (test 28 of security.md) and signed bytes (test 21)."""

from __future__ import annotations

import datetime
import ssl
import stat
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from mpc.errors import ConfigError, IntegrityError
from parties.config.models import TlsConfig
from parties.trust.authority import issue, make_ca
from parties.trust.chains import Trust
from parties.trust.identity import Identity, sign, verify

DAY = 86400


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    make_ca(tmp_path / "ca", "test-ca")
    return tmp_path / "ca"


@pytest.fixture
def tls(ca: Path, tmp_path: Path) -> TlsConfig:
    return issue(ca, "alice", tmp_path / "alice")


def refused(tls: TlsConfig, name: str | None = "alice", **kwargs) -> str:
    with pytest.raises(ConfigError) as caught:
        Identity.load(tls, name, **kwargs)
    assert caught.value.remedy
    assert "BEGIN" not in str(caught.value)
    return str(caught.value)


def test_what_a_certificate_says(tls: TlsConfig) -> None:
    leaf = x509.load_pem_x509_certificate(tls.certificate.read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert leaf.subject.rfc4514_string() == "CN=alice"
    assert names.get_values_for_type(x509.DNSName) == ["alice", "localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    assert isinstance(leaf.public_key().curve, ec.SECP256R1)


def test_a_tls_library_accepts_the_chain_strictly(tls: TlsConfig) -> None:
    """Two ends of a handshake, in memory, each demanding the other's certificate."""
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tls.ca))
    client_side = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(tls.ca))
    for context in (server_side, client_side):
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_cert_chain(tls.certificate, tls.key)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(down, up, server_hostname="alice")
    server = server_side.wrap_bio(up, down, server_side=True)
    done: set[ssl.SSLObject] = set()
    for _ in range(6):
        for end in (client, server):
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                pass
    assert done == {client, server}
    assert dict(pair[0] for pair in client.getpeercert()["subject"]) == {"commonName": "alice"}


def test_file_modes(tls: TlsConfig, ca: Path) -> None:
    for key in (tls.key, ca / "ca.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700


def test_an_identity_loads_and_hides_its_key(tls: TlsConfig) -> None:
    identity = Identity.load(tls, "alice")
    assert identity.name == "alice"
    left = identity.not_after - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(days=364) < left <= datetime.timedelta(days=365)
    for shown in (repr(identity), str(identity), f"{identity}"):
        assert "PRIVATE" not in shown
        assert "redacted" in shown


def test_a_ca_is_never_replaced(ca: Path) -> None:
    before = (ca / "ca.key").read_bytes()
    with pytest.raises(ConfigError, match="exists already"):
        make_ca(ca, "test-ca")
    assert (ca / "ca.key").read_bytes() == before


def test_reissuing_rotates_key_and_certificate(tls: TlsConfig, ca: Path) -> None:
    before = tls.key.read_bytes()
    issue(ca, "alice", tls.key.parent)
    assert tls.key.read_bytes() != before
    Identity.load(tls, "alice")


def test_a_leaf_never_outlives_its_ca(ca: Path, tmp_path: Path) -> None:
    tls = issue(ca, "old", tmp_path / "old", days=100_000)
    authority = x509.load_pem_x509_certificate((ca / "ca.pem").read_bytes())
    assert Identity.load(tls, "old").not_after == authority.not_valid_after_utc


@pytest.mark.parametrize("name", ["", "a b", "any", "-a", "a" * 64, "a/../b", "é"])
def test_impossible_names(ca: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        issue(ca, name, tmp_path / "x")


def test_missing_and_unreadable(tls: TlsConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "does not exist" in refused(tls.model_copy(update={"key": Path("/nowhere/key.pem")}))
    assert "cannot be read" in refused(tls.model_copy(update={"ca": tls.ca.parent}))
    tls.key.chmod(0o640)
    assert "chmod 600" in refused(tls)


def test_no_permission(tls: TlsConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert "Permission denied" in refused(tls)


def test_clock_and_validity(tls: TlsConfig) -> None:
    assert "expired" in refused(tls, clock=lambda: time.time() + 366 * DAY)
    assert "not valid before" in refused(tls, clock=lambda: time.time() - DAY)
    assert "'s CA expired" in refused(  # the leaf is cut at the CA's end, so make only the CA look old
        tls.model_copy(update={"ca": _expired_ca(tls)})
    )


def _expired_ca(tls: TlsConfig) -> Path:
    folder = tls.ca.parents[1] / "ca"
    key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    old = x509.load_pem_x509_certificate(tls.ca.read_bytes())
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(old.issuer, old.subject, key.public_key(), 7).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    dated = builder.not_valid_before(now - datetime.timedelta(9)).not_valid_after(now - datetime.timedelta(1))
    path = folder / "expired.pem"
    path.write_bytes(dated.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return path


def test_mixed_up_files(tls: TlsConfig, ca: Path, tmp_path: Path) -> None:
    bob = issue(ca, "bob", tmp_path / "bob")
    assert "does not belong" in refused(tls.model_copy(update={"key": bob.key}))
    assert "is for 'bob', not 'alice'" in refused(bob)
    make_ca(tmp_path / "other", "test-ca")  # the same name, another key
    assert "not signed by the CA" in refused(tls.model_copy(update={"ca": tmp_path / "other" / "ca.pem"}))
    assert "not a PEM certificate" in refused(tls.model_copy(update={"certificate": tls.key}))
    assert "not an unencrypted ECDSA key" in refused(_with_key(tls, tmp_path, rsa.generate_private_key(65537, 2048)))
    ca_as_process = TlsConfig(ca=ca / "ca.pem", certificate=ca / "ca.pem", key=ca / "ca.key")
    assert "a CA's own" in refused(ca_as_process)


def test_an_encrypted_key_is_named_as_such(tls: TlsConfig, tmp_path: Path) -> None:
    key = serialization.load_pem_private_key(tls.key.read_bytes(), None)
    locked = _with_key(tls, tmp_path, key, serialization.BestAvailableEncryption(b"words"))
    assert "not an unencrypted" in refused(locked)


def _with_key(tls: TlsConfig, folder: Path, key, lock=None) -> TlsConfig:
    path = folder / "other.pem"
    path.touch(mode=0o600)
    encoding, shape = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(encoding, shape, lock or serialization.NoEncryption()))
    return tls.model_copy(update={"key": path})


def test_the_common_name_must_be_a_dns_name_too(tls: TlsConfig, ca: Path) -> None:
    """gRPC checks DNS names, policies the CN: a certificate where they differ is two people."""
    key = serialization.load_pem_private_key(tls.key.read_bytes(), None)
    authority = serialization.load_pem_private_key((ca / "ca.key").read_bytes(), None)
    leaf = x509.load_pem_x509_certificate(tls.certificate.read_bytes())
    for names in (None, [x509.DNSName("bob")]):
        builder = x509.CertificateBuilder(leaf.issuer, leaf.subject, key.public_key(), 7)
        builder = builder.not_valid_before(leaf.not_valid_before_utc).not_valid_after(leaf.not_valid_after_utc)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signed = builder.sign(authority, hashes.SHA256())
        tls.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        assert "does not have its CN among its DNS names" in refused(tls)


def test_a_leaf_cannot_issue(tls: TlsConfig, tmp_path: Path) -> None:
    """A process's own key as CA: the chain must end at the CA."""
    fake = tmp_path / "fake"
    fake.mkdir()
    (fake / "ca.pem").write_bytes(tls.certificate.read_bytes())
    (fake / "ca.key").touch(mode=0o600)
    (fake / "ca.key").write_bytes(tls.key.read_bytes())
    forged = issue(fake, "provider", tmp_path / "forged")
    assert "not signed by the CA" in refused(forged, "provider")  # even with the leaf given as the CA file
    assert "not signed by the CA" in refused(forged.model_copy(update={"ca": tls.ca}), "provider")


MESSAGE = b"manifest of bundle 7"


def test_signed_bytes(tls: TlsConfig, ca: Path, tmp_path: Path) -> None:
    identity = Identity.load(tls)
    signature = sign(identity, MESSAGE)
    good = (identity.trust, identity.certificate_pem, "alice", MESSAGE, signature)
    verify(*good)
    bob = Identity.load(issue(ca, "bob", tmp_path / "bob"))
    make_ca(tmp_path / "other", "test-ca")
    other_ca = Identity.load(issue(tmp_path / "other", "alice", tmp_path / "stranger")).trust
    flipped = bytes([signature[-1] ^ 1])
    for place, value in [
        (0, other_ca),
        (0, Trust(())),
        (1, bob.certificate_pem),
        (1, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        (1, identity.certificate_pem + b"\n" * (1 << 20)),
        (2, "bob"),
        (2, "localhost"),  # among every certificate's DNS names, nobody's CN
        (3, MESSAGE + b"\x00"),
        (3, b""),
        (4, signature[:-1] + flipped),
        (4, b""),
        (4, sign(bob, MESSAGE)),
    ]:
        with pytest.raises(IntegrityError) as caught:
            verify(*(value if index == place else part for index, part in enumerate(good)))
        assert caught.value.peer in ("alice", "bob", "localhost")
    with pytest.raises(IntegrityError, match="expired"):
        verify(*good, clock=lambda: time.time() + 366 * DAY)


def test_a_bare_signature_by_the_tls_key_is_not_ours(tls: TlsConfig) -> None:
    identity = Identity.load(tls)
    key = serialization.load_pem_private_key(identity.key_pem, None)
    bare = key.sign(MESSAGE, ec.ECDSA(hashes.SHA256()))
    with pytest.raises(IntegrityError):
        verify(identity.trust, identity.certificate_pem, "alice", MESSAGE, bare)
