"""List what a certificate authority of our own has issued, and what it has taken back.

    CA/issued.jsonl   a line a certificate: name, hosts, serial number, end
    CA/crl.pem        the serial numbers of the revoked ones, signed

Every certificate is reached under its name, so one process's host must not be another's name: to a TLS
library they look alike.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from mpc.errors import ConfigError
from parties.disk import write_atomic
from parties.trust import pem

ISSUED, REVOKED = "issued.jsonl", "crl.pem"


@dataclass(frozen=True)
class Issued:
    """One certificate that the CA has issued; hosts are those besides its name."""

    name: str
    hosts: tuple[str, ...]
    serial: int
    end: float


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process, and one thread, at a time issue or revoke in this CA's folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read(folder: Path) -> list[Issued]:
    """Read what this CA has issued, as far as it has kept a list; raise ConfigError if that is damaged."""
    try:
        lines = (folder / ISSUED).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []  # a CA of before there were lists
    except OSError as error:
        raise ConfigError(
            f"{folder / ISSUED} cannot be read", cause=error.strerror, remedy="check its mode", local=True
        ) from None
    try:
        entries = [json.loads(line) for line in lines]
        return [Issued(e["name"], tuple(e["hosts"]), int(e["serial"]), float(e["end"])) for e in entries]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{folder / ISSUED} is damaged",
            remedy="restore it; without it this CA cannot tell names from hosts",
            local=True,
        ) from None


def check(folder: Path, name: str, hosts: Sequence[str]) -> None:
    """Raise ConfigError if a host is another certificate's name, or the name another's host.  Case does not count."""
    mine = {_plain(host) for host in hosts} - {name.lower()}
    for wildcard in sorted(host for host in mine if "*" in host):
        raise ConfigError(
            f"{wildcard!r} stands for many hosts", remedy="name each host: a wildcard would answer to other names too"
        )
    for other in read(folder):
        if other.name.lower() == name.lower():
            if other.name != name:
                raise ConfigError(
                    f"{name!r} differs from {other.name!r} in upper and lower case only",
                    cause="TLS does not tell them apart",
                    remedy="choose another name",
                )
            continue
        if other.name.lower() in mine:
            raise ConfigError(
                f"the host {other.name!r} is the name of a certificate that this CA has issued",
                cause=f"a certificate of {name!r} with that host would be taken for {other.name!r}",
                remedy="give the host another name, or leave it out: peers check names, not addresses",
            )
        if name.lower() in map(_plain, other.hosts):
            raise ConfigError(
                f"the name {name!r} is a host of {other.name!r}, to whom this CA has issued a certificate",
                cause=f"{other.name!r} would be taken for {name!r}",
                remedy="choose another name",
            )


def _plain(host: str) -> str:
    """Return a host as DNS compares it: without case, and without the dot that may end it."""
    return host.rstrip(".").lower()


def add(folder: Path, name: str, hosts: Sequence[str], certificate: x509.Certificate) -> None:
    """Append a certificate, durably, before it is handed out."""
    entry = {
        "name": name,
        "hosts": [host for host in dict.fromkeys(hosts) if host != name],
        "serial": str(certificate.serial_number),
        "end": certificate.not_valid_after_utc.timestamp(),
    }
    descriptor = os.open(folder / ISSUED, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, json.dumps(entry).encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def revoke(folder: Path, name: str, authority: str, key: str) -> tuple[Path, int]:
    """Take back every certificate of `name`; return the revocation list and how many it newly lists.

    Args:
        authority, key: file names of the CA's certificate and key.

    Raises:
        ConfigError: this CA has no list of one of that name, or its key is not here.
    """
    issuer = pem.certificates(pem.read(folder / authority), folder / authority)[0]
    signer = pem.private_key(pem.read(folder / key, private=True), folder / key)
    with locked(folder):
        serials = {entry.serial for entry in read(folder) if entry.name == name}
        if not serials:
            raise ConfigError(
                f"this CA has issued no certificate to {name!r} that it knows of",
                cause=f"{folder / ISSUED} lists what was issued",
                remedy="check the name; it is the certificate's CN",
                local=True,
            )
        now = datetime.now(UTC)
        path = folder / REVOKED
        old = list(x509.load_pem_x509_crl(pem.read(path, most=pem.LONGEST_LIST))) if path.exists() else []
        new = serials - {entry.serial_number for entry in old}
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.subject)
            .last_update(now)
            .next_update(max(issuer.not_valid_after_utc, now + timedelta(days=1)))
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        for entry in old:
            builder = builder.add_revoked_certificate(entry)
        for serial in sorted(new):
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            builder = builder.add_revoked_certificate(revoked)
        signed = builder.sign(signer, hashes.SHA256())
        write_atomic(path, signed.public_bytes(serialization.Encoding.PEM), 0o644)
    return path, len(new)
