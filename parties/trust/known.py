"""Remember certificates that were accepted, for as long as nothing that was looked at can have changed.

A run's manifest is verified by every party and client, with one certificate for all runs of a session.  To find its way
to a CA takes five times as long as to verify the signature itself.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

_MOST = 64

Question = tuple[bytes, str, bool, int]
"""(certificates as they were shown, whose they have to be, whether for a server, which revocation lists hold)."""


@dataclass(frozen=True)
class _Answer:
    """A key that was believed, and from when to when no certificate that was looked at begins or ends."""

    key: ec.EllipticCurvePublicKey
    since: datetime.datetime
    until: datetime.datetime


class Known:
    """Keys of certificates that were accepted.  Thread-safe: whoever comes in between asks once more."""

    def __init__(self) -> None:
        self._answers: dict[Question, _Answer] = {}

    def key(self, question: Question, now: datetime.datetime) -> ec.EllipticCurvePublicKey | None:
        """Return the key, if the certificate was accepted and still would be; None asks for another look."""
        found = self._answers.get(question)
        return found.key if found is not None and found.since <= now <= found.until else None

    def keep(
        self,
        question: Question,
        key: ec.EllipticCurvePublicKey,
        now: datetime.datetime,
        looked_at: Iterable[x509.Certificate],
    ) -> None:
        """Keep what was accepted now.

        Args:
            looked_at: all certificates that had a part in it, or may have.
        """
        ends = [each.not_valid_after_utc for each in looked_at]
        if len(self._answers) >= _MOST:
            self._answers.clear()
        self._answers[question] = _Answer(key, now, min((end for end in ends if end >= now), default=now))
