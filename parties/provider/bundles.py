"""One bundle at the provider, from when it begins to be dealt until every party has fetched its part."""

from __future__ import annotations

from collections.abc import Iterator

from mpc.correlations import BundleId, corrected_party
from mpc.errors import MpcError
from mpc.prg import Seed
from parties.agreed.terms import Terms
from parties.pb import party_pb2
from parties.wire.inflow import Inflow


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
        self._parts: list[memoryview] = []
        self._inflow = Inflow()

    @property
    def over(self) -> bool:
        """Nothing more is dealt of it."""
        return self._inflow.over

    def add(self, part: memoryview) -> None:
        """Add corrections that are final."""
        with self._inflow.lock:
            self._parts.append(part)
            self._inflow.arrived()

    def end(self, error: MpcError | None = None) -> None:
        """Say that there is nothing more, and why if that is an error."""
        if error is None:
            self._inflow.close()
        else:
            self._inflow.fail(error)

    def corrections(self) -> Iterator[memoryview]:
        """Yield all corrections as they are dealt; then raise what ended it, if that is an error."""
        place = 0
        while (part := self._part(place)) is not None:
            yield part
            place += 1

    def _part(self, place: int) -> memoryview | None:
        with self._inflow.lock:
            return self._parts[place] if self._inflow.wait(lambda: place < len(self._parts)) else None
