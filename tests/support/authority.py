"""Certificates as other CAs make them: a root with an RSA key, an intermediate, leaves of any names."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from parties.config.models import TlsConfig
from parties.trust import pem

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
BOTH = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)


@dataclass(frozen=True)
class Issuer:
    """A CA's certificate, its key, and the certificates between it and the root, the root left out."""

    certificate: x509.Certificate
    key: Key
    between: tuple[x509.Certificate, ...] = ()

    @classmethod
    def root(cls, name: str = "Acme Root", usage: bool = False) -> Issuer:
        """As `openssl req -x509` makes it: RSA, and without a key usage unless asked for."""
        key = rsa.generate_private_key(65537, 2048)
        return cls(_signed(name, key, _subject(name), key, ca=True, usage=usage), key)

    def intermediate(
        self, name: str = "Acme Intermediate", length: int | None = 0, days: float = 90, key: Key | None = None
    ) -> Issuer:
        """A CA below this one; with `key`, one that is certified anew."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        made = _signed(name, key, self.certificate.subject, self.key, ca=True, usage=True, length=length, days=days)
        return Issuer(made, key, (made, *self.between))

    def leaf(
        self,
        name: str,
        folder: Path,
        names: Sequence[str] | None = None,
        root: Issuer | None = None,
        uses: Sequence[x509.ObjectIdentifier] = BOTH,
        chain: bool = True,
        days: float = 30,
    ) -> TlsConfig:
        """Key, certificate with its chain, and the root's certificate in `folder`.

        names: the DNS names, `name` and localhost if None.
        """
        folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        wanted = [name, "localhost"] if names is None else names
        made = _signed(name, key, self.certificate.subject, self.key, names=wanted, uses=uses, days=days)
        paths = TlsConfig(ca=folder / "ca.pem", certificate=folder / "certificate.pem", key=folder / "key.pem")
        paths.ca.write_bytes(pem.encode((root or self).certificate))
        paths.certificate.write_bytes(b"".join(map(pem.encode, (made, *(self.between if chain else ())))))
        paths.key.touch(mode=0o600)
        paths.key.write_bytes(pem.encode_private(key))
        return paths

    def revoked(self, certificates: Sequence[x509.Certificate], days: float = 7) -> bytes:
        """A revocation list in PEM."""
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(now - datetime.timedelta(days=30))
        builder = builder.next_update(now + datetime.timedelta(days=days))
        for taken in certificates:
            entry = x509.RevokedCertificateBuilder().serial_number(taken.serial_number).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(pem.serialization.Encoding.PEM)


def _subject(name: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Acme"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )


def _signed(
    name: str,
    key: Key,
    issuer: x509.Name,
    signer: Key,
    *,
    ca: bool = False,
    usage: bool = True,
    length: int | None = None,
    names: Sequence[str] = (),
    uses: Sequence[x509.ObjectIdentifier] = (),
    days: float = 90,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_subject(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=length), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if usage:
        builder = builder.add_extension(
            x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False), critical=True
        )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(map(x509.DNSName, names))), critical=False)
    if uses:
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(uses)), critical=False)
    return builder.sign(signer, hashes.SHA256())
