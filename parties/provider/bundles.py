"""One bundle at the provider, from when it begins to be dealt until every party has fetched its part."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from mpc.correlations import BundleId, corrected_party
from mpc.errors import MpcError
from mpc.prg import Seed
from parties.agreed.terms import Terms
from parties.pb import party_pb2


class DealtBundle:
    """One bundle, from when it begins to be dealt until every party has fetched its part.

    Args:
        corrected: the index of the party that all corrections go to, `size` bytes.
        held: bytes of memory it was granted.
        seconds: that dealing took, coarsely: a party is told them, and tells them on.
    """

    def __init__(self, id: BundleId, seeds: list[Seed], terms: Terms, size: int, held: int) -> None:
        self.id, self.seeds, self.size, self.held = id, seeds, size, held
        self.corrected = corrected_party(id, len(terms.parties))
        self.waiting = set(terms.parties)
        self.signed = party_pb2.Manifest()
        self.seconds = 0.0
        self.over = False
        self._parts: list[memoryview] = []
        self._error: MpcError | None = None
        self._changed = threading.Condition()

    def add(self, part: memoryview) -> None:
        """Corrections that are final."""
        with self._changed:
            self._parts.append(part)
            self._changed.notify_all()

    def end(self, error: MpcError | None = None) -> None:
        """There is nothing more."""
        with self._changed:
            self._error, self.over = error and error.again(), True
            self._changed.notify_all()

    def corrections(self) -> Iterator[memoryview]:
        """All of them, as they are dealt; then what ended it, if that is an error."""
        place = 0
        while True:
            with self._changed:
                while place == len(self._parts) and not self.over:
                    self._changed.wait()
                if place == len(self._parts):
                    break
                part = self._parts[place]
            place += 1
            yield part
        if self._error is not None:
            raise self._error.again()
