"""PEM files: read with a bound, keys only if nobody else can, and what is wrong with one said with its path."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mpc.errors import ConfigError

LONGEST = 64 << 10  # bytes; what a peer may make us parse
LONGEST_LIST = 8 << 20  # bytes of a revocation list, which our own operator provides


def read(path: Path, *, private: bool = False, most: int = LONGEST) -> bytes:
    """Read at most `most` + 1 bytes of a file; raise ConfigError if it is not there or, a private one, readable by
    others."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if private and mode & 0o077:
                raise ConfigError(
                    f"key {path} can be read by others (mode {mode:04o})",
                    remedy=f"chmod 600 {path}, or issue a new key",
                    local=True,
                )
            return file.read(most + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist", remedy="issue certificates (mpc cert issue), or correct [tls]", local=True
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read",
            cause=error.strerror,
            remedy=f"make it readable by this user: ls -l {path}",
            local=True,
        ) from None


def certificates(pem: bytes, path: Path) -> list[x509.Certificate]:
    """Parse one certificate or more, in their order; raise ConfigError that names `path`."""
    try:
        if len(pem) > LONGEST:
            raise ValueError
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ConfigError(
            f"{path} is not a PEM certificate", remedy="issue it again: mpc cert issue", local=True
        ) from None


def private_key(pem: bytes, path: Path) -> ec.EllipticCurvePrivateKey:
    """Parse an unencrypted ECDSA key; raise ConfigError that names `path`."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):  # TypeError: it is encrypted; the library's message is not passed on
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(
            f"{path} is not an unencrypted ECDSA key in PEM", remedy="issue it again: mpc cert issue", local=True
        )
    return key


def encode(certificate: x509.Certificate) -> bytes:
    """Encode a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def encode_private(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Encode a key as unencrypted PKCS #8 in PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
