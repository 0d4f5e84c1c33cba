"""Certificates: a development CA, each process's identity, and signatures over manifests.

Keys are ECDSA P-256.  A certificate's CN is the process's name everywhere (config, policy,
logs); its DNS names are that name and the hosts it may be reached at.  Chains have exactly
two links, CA and leaf, so that "who may speak" is one file to read.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mpc.errors import ConfigError, IntegrityError
from parties.config import TlsConfig, check_name, write_atomic

Clock = Callable[[], float]

CA_CERTIFICATE, CA_KEY = "ca.pem", "ca.key"
CERTIFICATE, KEY = "certificate.pem", "key.pem"
CA_DAYS, LEAF_DAYS = 3650, 365
LONGEST_PEM = 64 << 10  # bytes; what a peer may make us parse
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
            )
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name)
    certificate = (
        _builder(subject, subject, key.public_key(), _now() + datetime.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_atomic(folder / CA_KEY, _private_pem(key))
    write_atomic(folder / CA_CERTIFICATE, _pem(certificate), 0o644)
    return folder / CA_CERTIFICATE


def issue(
    ca_folder: Path,
    name: str,
    folder: Path,
    hosts: Sequence[str] = ("localhost", "127.0.0.1"),
    days: int = LEAF_DAYS,
) -> TlsConfig:
    """A new key and certificate for `name` in `folder`, replacing older ones there.

    hosts: DNS names and IP addresses it is reached at.  days: validity, cut at the CA's own end.
    Returns the paths; raises ConfigError.
    """
    _check_name(name)
    authority = _certificates(_read(ca_folder / CA_CERTIFICATE), ca_folder / CA_CERTIFICATE)[0]
    authority_key = _private_key(_read(ca_folder / CA_KEY, private=True), ca_folder / CA_KEY)
    if authority_key.public_key() != authority.public_key():
        raise ConfigError(f"{ca_folder / CA_KEY} is not the key of {CA_CERTIFICATE}", remedy="restore the pair")
    if authority.not_valid_after_utc <= _now():
        raise ConfigError(
            f"the CA in {ca_folder} has expired", remedy="make a new CA and issue every certificate again"
        )
    private_folder(folder)
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
    paths = TlsConfig(ca=folder / CA_CERTIFICATE, certificate=folder / CERTIFICATE, key=folder / KEY)
    write_atomic(paths.key, _private_pem(key))
    write_atomic(paths.certificate, _pem(certificate), 0o644)
    write_atomic(paths.ca, _pem(authority), 0o644)
    return paths


def private_folder(folder: Path) -> None:
    """Make `folder` (and its parents) if it is not there; only its owner may enter it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigError(
            f"folder {folder} cannot be made", cause=error.strerror, remedy="choose a folder you may write to"
        ) from None


# --- using them -------------------------------------------------------------------------


@dataclass(frozen=True)
class Identity:
    """Who this process is; the key stays out of repr and logs."""

    name: str
    certificate_pem: bytes
    key_pem: bytes = field(repr=False)
    ca_pem: bytes
    not_after: datetime.datetime

    __secret__ = True

    def __repr__(self) -> str:
        return f"Identity({self.name!r}, key=<redacted>, not_after={self.not_after.isoformat()})"

    @classmethod
    def load(cls, tls: TlsConfig, name: str | None = None, clock: Clock = time.time) -> Identity:
        """Read and check the three files; with `name`, the certificate must bear it.  Raises ConfigError."""
        ca_pem, certificate_pem = _read(tls.ca), _read(tls.certificate)
        key_pem = _read(tls.key, private=True)
        authorities = _certificates(ca_pem, tls.ca)
        leaf = _certificates(certificate_pem, tls.certificate)[0]
        now = datetime.datetime.fromtimestamp(clock(), datetime.UTC)
        fault = _fault(leaf, authorities, name, now)
        if fault:
            raise ConfigError(
                f"certificate {tls.certificate} {fault}",
                remedy="issue it again with the right CA and name (mpc cert issue), and check this machine's clock",
            )
        if _private_key(key_pem, tls.key).public_key() != leaf.public_key():
            raise ConfigError(
                f"key {tls.key} does not belong to certificate {tls.certificate}",
                cause="one of the two was replaced without the other",
                remedy="issue both again: mpc cert issue",
            )
        return cls(_common_name(leaf), certificate_pem, key_pem, ca_pem, leaf.not_valid_after_utc)


def sign(identity: Identity, message: bytes) -> bytes:
    """ECDSA-SHA256 (DER) by `identity` over a domain tag and `message`."""
    key = _private_key(identity.key_pem, Path(KEY))
    return key.sign(_DOMAIN + message, ec.ECDSA(hashes.SHA256()))


def verify(
    ca_pem: bytes,
    certificate_pem: bytes,
    expected_name: str,
    message: bytes,
    signature: bytes,
    clock: Clock = time.time,
) -> None:
    """Raise IntegrityError unless `expected_name`, certified by the CA and valid now, signed `message`."""
    try:
        authorities = _certificates(ca_pem, Path(CA_CERTIFICATE))
        leaf = _certificates(certificate_pem, Path(CERTIFICATE))[0]
    except ConfigError:
        raise _rejected("its certificate cannot be read", expected_name) from None
    now = datetime.datetime.fromtimestamp(clock(), datetime.UTC)
    fault = _fault(leaf, authorities, expected_name, now)
    if fault:
        raise _rejected(f"its certificate {fault}", expected_name)
    public = leaf.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):  # _fault has said so already; this is for the type checker
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


def _fault(
    leaf: x509.Certificate, authorities: list[x509.Certificate], name: str | None, now: datetime.datetime
) -> str | None:
    """What is wrong with `leaf`, as the rest of a sentence; None if nothing is."""
    public = leaf.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        return "has a key that is not ECDSA P-256"
    issuers = [authority for authority in authorities if _issued(authority, leaf)]
    if not issuers:
        return "is not signed by the CA"
    for certificate, owner in ((leaf, ""), (issuers[0], "'s CA")):
        if now > certificate.not_valid_after_utc:
            return f"{owner} expired on {certificate.not_valid_after_utc:%Y-%m-%d}".strip()
        if now < certificate.not_valid_before_utc:
            return f"{owner} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC".strip()
    if _is_authority(leaf):
        return "is a CA's own, not a process's"
    bears = _common_name(leaf)
    if not bears or bears not in _dns_names(leaf):
        return "does not have its CN among its DNS names"
    if name is not None and bears != name:
        return f"is for {bears!r}, not {name!r}"
    return None


def _issued(authority: x509.Certificate, leaf: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return _is_authority(authority)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _dns_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, ValueError):
        return []


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


# --- files and parts --------------------------------------------------------------------


def _read(path: Path, *, private: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if private and mode & 0o077:
                raise ConfigError(
                    f"key {path} can be read by others (mode {mode:04o})",
                    remedy=f"chmod 600 {path}, or issue a new key",
                )
            return file.read(LONGEST_PEM + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist", remedy="issue certificates (mpc cert issue), or correct [tls]"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read", cause=error.strerror, remedy=f"make it readable by this user: ls -l {path}"
        ) from None


def _certificates(pem: bytes, path: Path) -> list[x509.Certificate]:
    try:
        if len(pem) > LONGEST_PEM:
            raise ValueError
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ConfigError(f"{path} is not a PEM certificate", remedy="issue it again: mpc cert issue") from None


def _private_key(pem: bytes, path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):  # TypeError: it is encrypted; the library's message is not passed on
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path} is not an unencrypted ECDSA key in PEM", remedy="issue it again: mpc cert issue")
    return key


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
    try:
        return x509.DNSName(host)
    except ValueError:
        raise ConfigError(f"{host!r} is neither a DNS name nor an IP address", remedy="correct the host") from None


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
