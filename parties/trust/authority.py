"""A certificate authority of one's own: make it, issue certificates, revoke them."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mpc.errors import ConfigError
from parties.addresses import check_name, is_host_name
from parties.config.models import TlsConfig
from parties.disk import private_folder, write_atomic
from parties.trust import issued, pem
from parties.trust.identity import CA_CERTIFICATE, CA_KEY, CERTIFICATE, KEY

CA_DAYS, LEAF_DAYS = 3650, 365
_SKEW = datetime.timedelta(minutes=5)  # clocks of different machines disagree a little


def make_ca(folder: Path, name: str) -> Path:
    """Make a new CA called `name` in `folder`; return its certificate's path.  Never replaces one."""
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
    *,
    keep_key: bool = False,
) -> TlsConfig:
    """Issue a new key and certificate for `name` in `folder`, replacing older ones there.

    hosts: DNS names and IP addresses it is reached at; none that is the name of another certificate, and no name
    that is another's host.  days: validity, cut at the CA's own end.  keep_key: certify the key that is there.
    Returns the paths; raises ConfigError.
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
        old = _kept(folder / KEY) if keep_key else None
        key, certificate = _leaf(authority, authority_key, name, hosts, days, old)
        issued.add(ca_folder, name, hosts, certificate)
    paths = TlsConfig(ca=folder / CA_CERTIFICATE, certificate=folder / CERTIFICATE, key=folder / KEY)
    write_atomic(paths.key, pem.encode_private(key))
    write_atomic(paths.certificate, pem.encode(certificate), 0o644)
    write_atomic(paths.ca, pem.encode(authority), 0o644)
    return paths


def _kept(path: Path) -> ec.EllipticCurvePrivateKey:
    key = pem.private_key(pem.read(path, private=True), path)
    if not isinstance(key.curve, ec.SECP256R1):
        raise ConfigError(f"{path} is not a key on P-256", remedy="issue it again without --keep-key", local=True)
    return key


def _leaf(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    name: str,
    hosts: Sequence[str],
    days: int,
    key: ec.EllipticCurvePrivateKey | None,
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = key or ec.generate_private_key(ec.SECP256R1())
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
    """Take back every certificate of `name`; return the CA's revocation list and how many it newly lists."""
    return issued.revoke(ca_folder, name, CA_CERTIFICATE, CA_KEY)


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
