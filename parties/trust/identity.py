"""Certificates: a development CA, each process's identity, and signatures over manifests.

Keys are ECDSA P-256.  A certificate's CN is the process's name everywhere (config, policy,
logs); its DNS names are that name and the hosts it may be reached at.  A CA of our own signs
them itself; somebody else's may have intermediates, which stand behind the leaf in its file.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mpc.errors import ConfigError, IntegrityError
from parties.config.models import TlsConfig, check_name, is_host_name, write_atomic
from parties.trust import issued, pem
from parties.trust.chains import Clock, Trust, common_name
from parties.trust.revocation import Revocations

CA_CERTIFICATE, CA_KEY = "ca.pem", "ca.key"
CERTIFICATE, KEY = "certificate.pem", "key.pem"
CA_DAYS, LEAF_DAYS = 3650, 365
# Keeps our signatures apart from those TLS makes with the same key.
_DOMAIN = b"mpc/v1 signed bytes\x00"
_SKEW = datetime.timedelta(minutes=5)  # clocks of different machines disagree a little

# --- making them ------------------------------------------------------------------------


def make_ca(folder: Path, name: str) -> Path:
    """A new CA called `name` in `folder`; returns its certificate's path.  Never replaces one."""
    _check_name(name)
    private_folder(folder)
    for existing in (folder / CA_KEY, folder / CA_CERTIFICATE):
        if existing.exists():
            raise ConfigError(
                f"{existing} exists already",
                remedy="use that CA, or remove its folder and issue every certificate again",
                local=True,
            )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name)
    certificate = (
        _builder(subject, subject, key.public_key(), _now() + datetime.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_atomic(folder / CA_KEY, pem.encode_private(key))
    write_atomic(folder / CA_CERTIFICATE, pem.encode(certificate), 0o644)
    return folder / CA_CERTIFICATE


def issue(
    ca_folder: Path,
    name: str,
    folder: Path,
    hosts: Sequence[str] = ("localhost", "127.0.0.1"),
    days: int = LEAF_DAYS,
) -> TlsConfig:
    """A new key and certificate for `name` in `folder`, replacing older ones there.

    hosts: DNS names and IP addresses it is reached at; none that is the name of another certificate, and no name
    that is another's host.  days: validity, cut at the CA's own end.  Returns the paths; raises ConfigError.
    """
    _check_name(name)
    authority = pem.certificates(pem.read(ca_folder / CA_CERTIFICATE), ca_folder / CA_CERTIFICATE)[0]
    authority_key = pem.private_key(pem.read(ca_folder / CA_KEY, private=True), ca_folder / CA_KEY)
    if authority_key.public_key() != authority.public_key():
        raise ConfigError(
            f"{ca_folder / CA_KEY} is not the key of {CA_CERTIFICATE}", remedy="restore the pair", local=True
        )
    if authority.not_valid_after_utc <= _now():
        raise ConfigError(
            f"the CA in {ca_folder} has expired", remedy="make a new CA and issue every certificate again", local=True
        )
    private_folder(folder)
    with issued.locked(ca_folder):
        issued.check(ca_folder, name, hosts)
        key, certificate = _leaf(authority, authority_key, name, hosts, days)
        issued.add(ca_folder, name, hosts, certificate)
    paths = TlsConfig(ca=folder / CA_CERTIFICATE, certificate=folder / CERTIFICATE, key=folder / KEY)
    write_atomic(paths.key, pem.encode_private(key))
    write_atomic(paths.certificate, pem.encode(certificate), 0o644)
    write_atomic(paths.ca, pem.encode(authority), 0o644)
    return paths


def _leaf(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    name: str,
    hosts: Sequence[str],
    days: int,
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    end = min(_now() + datetime.timedelta(days=days), authority.not_valid_after_utc)
    names = [x509.DNSName(name), *(_general_name(host) for host in dict.fromkeys(hosts) if host != name)]
    certificate = (
        _builder(_subject(name), authority.subject, key.public_key(), end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return key, certificate


def revoke(ca_folder: Path, name: str) -> tuple[Path, int]:
    """Take back every certificate of `name`: (the CA's revocation list, how many it newly lists); ConfigError."""
    return issued.revoke(ca_folder, name, CA_CERTIFICATE, CA_KEY)


def private_folder(folder: Path) -> None:
    """Make `folder` (and its parents) if it is not there; only its owner may enter it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigError(
            f"folder {folder} cannot be made",
            cause=error.strerror,
            remedy="choose a folder you may write to",
            local=True,
        ) from None


# --- using them -------------------------------------------------------------------------


@dataclass(frozen=True)
class Identity:
    """Who this process is, and whom it believes; the key stays out of repr and logs.

    Args:
        certificate_pem: the leaf, and the intermediates that lead to a CA if there are any.
        not_after: the end of whichever of these ends first.
        context: TLS for a client of this identity, as Python's own library does it.
    """

    name: str
    certificate_pem: bytes
    key_pem: bytes = field(repr=False)
    ca_pem: bytes
    not_after: datetime.datetime
    trust: Trust
    context: ssl.SSLContext = field(repr=False, compare=False)

    __secret__ = True

    def __repr__(self) -> str:
        return f"Identity({self.name!r}, key=<redacted>, not_after={self.not_after.isoformat()})"

    @classmethod
    def load(
        cls,
        tls: TlsConfig,
        name: str | None = None,
        clock: Clock = time.time,
        members: Collection[str] = (),
        serves: bool = False,
    ) -> Identity:
        """Read and check the files.

        Args:
            name: the certificate must bear it; None for any.
            members: names of the cluster's processes: no certificate of anybody else may have one among its names.
            serves: the certificate must be good for a server too.

        Raises:
            ConfigError: a file is missing or malformed, or the certificate is refused.
        """
        ca_pem, certificate_pem = pem.read(tls.ca), pem.read(tls.certificate)
        key_pem = pem.read(tls.key, private=True)
        authorities, chain = pem.certificates(ca_pem, tls.ca), pem.certificates(certificate_pem, tls.certificate)
        revoked = None if tls.crl is None else Revocations(tls.crl, [*authorities, *chain[1:]])
        trust = Trust(tuple(authorities), frozenset(members), revoked)
        fault = trust.fault(chain, name, datetime.datetime.fromtimestamp(clock(), datetime.UTC), serves=serves)
        if fault:
            raise ConfigError(
                f"certificate {tls.certificate} {fault}",
                remedy="issue it again with the right CA and name (mpc cert issue), and check this machine's clock",
                local=True,
            )
        if pem.private_key(key_pem, tls.key).public_key() != chain[0].public_key():
            raise ConfigError(
                f"key {tls.key} does not belong to certificate {tls.certificate}",
                cause="one of the two was replaced without the other",
                remedy="issue both again: mpc cert issue",
                local=True,
            )
        end = min(certificate.not_valid_after_utc for certificate in chain)
        return cls(common_name(chain[0]), certificate_pem, key_pem, ca_pem, end, trust, client_context(tls))

    def days_left(self, clock: Clock = time.time) -> float:
        """Days until the certificate ends."""
        return (self.not_after.timestamp() - clock()) / 86400


def client_context(tls: TlsConfig) -> ssl.SSLContext:
    """TLS 1.2 or newer for a client: it shows our certificate, and demands one that leads to our CA.

    The name in that certificate is not compared: a certificate's own rules (`Trust`) are stricter than TLS's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # whatever is in the CA file counts, as with gRPC
    context.load_verify_locations(tls.ca)
    context.load_cert_chain(tls.certificate, tls.key, password="")
    context.set_alpn_protocols(["h2"])
    return context


def sign(identity: Identity, message: bytes) -> bytes:
    """ECDSA-SHA256 (DER) by `identity` over a domain tag and `message`."""
    key = pem.private_key(identity.key_pem, Path(KEY))
    return key.sign(_DOMAIN + message, ec.ECDSA(hashes.SHA256()))


def verify(
    trust: Trust,
    certificate_pem: bytes,
    expected_name: str,
    message: bytes,
    signature: bytes,
    clock: Clock = time.time,
) -> None:
    """Raise IntegrityError unless `expected_name`, certified and valid now, signed `message`.

    certificate_pem: the signer's certificate and, behind it, the intermediates that lead to a CA of ours.
    """
    try:
        chain = pem.certificates(certificate_pem, Path(CERTIFICATE))
    except ConfigError:
        raise _rejected("its certificate cannot be read", expected_name) from None
    fault = trust.fault(chain, expected_name, datetime.datetime.fromtimestamp(clock(), datetime.UTC), serves=True)
    if fault:
        raise _rejected(f"its certificate {fault}", expected_name)
    public = chain[0].public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):  # `fault` has said so already; this is for the type checker
        raise _rejected("its key is not ECDSA P-256", expected_name)
    try:
        public.verify(signature, _DOMAIN + message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise _rejected("it does not match the bytes", expected_name) from None


def _rejected(why: str, name: str) -> IntegrityError:
    return IntegrityError(
        f"a signature by {name!r} was rejected: {why}",
        cause="the bytes were altered, or come from someone else",
        remedy=f"check which CA and certificate {name!r} uses, then start a new session",
        peer=name,
    )


# --- parts ------------------------------------------------------------------------------


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, end: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - _SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _check_name(name: str) -> None:
    try:
        check_name(name)
    except ValueError as error:
        raise ConfigError(
            f"{name!r} cannot be a certificate's name: it {error}", remedy="choose another name"
        ) from None


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not is_host_name(host):
        raise ConfigError(f"{host!r} is neither a DNS name nor an IP address", remedy="correct the host")
    return x509.DNSName(host)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
