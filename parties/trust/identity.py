"""Certificates: a development CA, each process's identity, and signatures over manifests.

Keys are ECDSA P-256.  A certificate's CN is the process's name everywhere (config, policy,
logs); its DNS names are that name and the hosts it may be reached at.  A CA of our own signs
them itself; somebody else's may have intermediates, which stand behind the leaf in its file.
"""

from __future__ import annotations

import datetime
import ssl
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from mpc.errors import ConfigError, IntegrityError
from parties.config.models import TlsConfig
from parties.trust import pem
from parties.trust.chains import Clock, Trust, common_name
from parties.trust.known import Question
from parties.trust.revocation import Revocations

CA_CERTIFICATE, CA_KEY = "ca.pem", "ca.key"
CERTIFICATE, KEY = "certificate.pem", "key.pem"
# Keeps our signatures apart from those TLS makes with the same key.
_DOMAIN = b"mpc/v1 signed bytes\x00"


@dataclass(frozen=True)
class Identity:
    """Certificate and key of this process, and its trust.  The key stays out of repr and logs.

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
        """Read the certificate, the key and the CAs from their files, and check them.

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

    @cached_property
    def _private(self) -> ec.EllipticCurvePrivateKey:
        """Parse the key, once: that takes as long as a signature."""
        return pem.private_key(self.key_pem, Path(KEY))

    def days_left(self, clock: Clock = time.time) -> float:
        """Return the days until the certificate ends."""
        return (self.not_after.timestamp() - clock()) / 86400


def client_context(tls: TlsConfig) -> ssl.SSLContext:
    """Make a client's TLS context: 1.2 or newer, shows our certificate, demands one that leads to our CA.

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
    """Sign a domain tag and `message` with ECDSA-SHA256 (DER)."""
    return identity._private.sign(_DOMAIN + message, ec.ECDSA(hashes.SHA256()))


def verify(
    trust: Trust,
    certificate_pem: bytes,
    expected_name: str,
    message: bytes,
    signature: bytes,
    clock: Clock = time.time,
    *,
    serves: bool = True,
) -> None:
    """Raise IntegrityError unless `expected_name`, certified and valid now, signed `message`.

    Args:
        certificate_pem: the signer's certificate and, behind it, the intermediates that lead to a CA of ours.
        serves: the certificate must be good for a server, as a process's is; a client's need not be.
    """
    now = datetime.datetime.fromtimestamp(clock(), datetime.UTC)
    question = (certificate_pem, expected_name, serves, trust.lists)
    public = trust.known.key(question, now)
    if public is None:
        public = _believed(trust, certificate_pem, expected_name, now, serves, question)
    try:
        public.verify(signature, _DOMAIN + message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise _rejected("it does not match the bytes", expected_name) from None


def _believed(
    trust: Trust, certificate_pem: bytes, name: str, now: datetime.datetime, serves: bool, question: Question
) -> ec.EllipticCurvePublicKey:
    """Return the key of a certificate that is accepted, and remember that it was; raise IntegrityError if it is not."""
    try:
        chain = pem.certificates(certificate_pem, Path(CERTIFICATE))
    except ConfigError:
        raise _rejected("its certificate cannot be read", name) from None
    fault = trust.fault(chain, name, now, serves=serves)
    if fault:
        raise _rejected(f"its certificate {fault}", name)
    public = chain[0].public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):  # `fault` has said so already; this is for the type checker
        raise _rejected("its key is not ECDSA P-256", name)
    trust.known.keep(question, public, now, [*chain, *trust.authorities])
    return public


def _rejected(why: str, name: str) -> IntegrityError:
    return IntegrityError(
        f"a signature by {name!r} was rejected: {why}",
        cause="the bytes were altered, or come from someone else",
        remedy=f"check which CA and certificate {name!r} uses, then start a new session",
        peer=name,
    )
