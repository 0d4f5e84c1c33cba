"""Certificates that their CA has taken back: a file of PEM revocation lists, read again when it changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from mpc.errors import ConfigError
from parties.trust import pem

_END = b"-----END X509 CRL-----"
LOOK_AGAIN = 1.0  # seconds


class Revocations:
    """Revoked serial numbers of each issuer.  Thread-safe.

    Each list has to be signed by one of `issuers`.  The file is looked at again at most once a second; one that
    cannot be used then is said in the log, and the last good one stays in force.

    Args:
        issuers: certificates of the CAs, and of the intermediates that we know.
        clock: monotonic seconds.

    Raises:
        ConfigError: the file is missing, no revocation list, or not signed by any of them.
    """

    def __init__(
        self, path: Path, issuers: Sequence[x509.Certificate], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path, self._issuers, self._clock = path, tuple(issuers), clock
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._serials, self.overdue = self._load()
        self._looked = clock()
        self.generation = 0

    def contains(self, certificate: x509.Certificate) -> bool:
        """Is this certificate on its issuer's list?"""
        self.refresh()
        return (certificate.issuer, certificate.serial_number) in self._serials

    def refresh(self) -> int:
        """Read the file again if it has changed; return a number that grows whenever the lists do."""
        with self._lock:
            if self._clock() - self._looked >= LOOK_AGAIN:
                self._looked = self._clock()
                stamp = self._stamp()
                if stamp != self._seen:
                    self._seen = stamp
                    self._reload()
            return self.generation

    def _reload(self) -> None:
        from parties import telemetry  # most clients have no list, and none of them a log

        try:
            self._serials, self.overdue = self._load()
        except ConfigError as error:
            telemetry.logger().error("the revocation list cannot be used: the last good one stays in force", why=error)
            return
        self.generation += 1
        telemetry.logger().info("the revocation list was read again", revoked=len(self._serials))

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _load(self) -> tuple[frozenset[tuple[x509.Name, int]], datetime | None]:
        """Return the issuer and serial number of each revoked certificate, and the earliest end of a list if that is
        past."""
        serials: set[tuple[x509.Name, int]] = set()
        ends: list[datetime] = []
        for found in _parse(pem.read(self._path, most=pem.LONGEST_LIST), self._path):
            if not any(_signed(found, issuer) for issuer in self._issuers):
                raise ConfigError(
                    f"a revocation list in {self._path} is not signed by a known CA",
                    cause=f"its issuer is {found.issuer.rfc4514_string()[:200]}",
                    remedy="put that CA's certificate into tls.ca, or an intermediate's into tls.certificate",
                    local=True,
                )
            serials.update((found.issuer, entry.serial_number) for entry in found)
            if found.next_update_utc is not None:
                ends.append(found.next_update_utc)
        end = min(ends, default=None)
        return frozenset(serials), end if end is not None and end < datetime.now(UTC) else None


def _parse(data: bytes, path: Path) -> list[x509.CertificateRevocationList]:
    try:
        if len(data) > pem.LONGEST_LIST or not data.strip():
            raise ValueError
        parts = [part for part in data.split(_END) if part.strip()]
        return [x509.load_pem_x509_crl(part + _END) for part in parts]
    except ValueError:
        raise ConfigError(
            f"{path} is not a revocation list in PEM",
            remedy="make one: mpc cert revoke, or your CA's own command",
            local=True,
        ) from None


def _signed(revoked: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    if revoked.issuer != issuer.subject:
        return False
    try:
        return revoked.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except Exception:  # a key of a kind that cannot have signed it
        return False
