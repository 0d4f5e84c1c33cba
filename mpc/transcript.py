"""What has been opened, in plan order, as one running digest: equal at all parties of an honest run."""

from __future__ import annotations

import hashlib

from mpc.encoding import Part, canonical, pieces


class Transcript:
    """SHA-256 over every label and every reconstructed opening."""

    def __init__(self, *context: Part) -> None:
        self._hash = hashlib.sha256(canonical("mpc/v1/transcript", *context))

    def absorb(self, *label_and_bytes: Part) -> None:
        """Add one opening: its label, then its canonical bytes."""
        for piece in pieces(*label_and_bytes):
            self._hash.update(piece)

    @property
    def digest(self) -> bytes:
        """32 bytes."""
        return self._hash.digest()
