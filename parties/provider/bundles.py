"""One bundle at the provider, from when it begins to be dealt until every party has fetched its part."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from mpc.correlations import BundleId, corrected_party
from mpc.errors import MpcError
from mpc.plan.segments import Segment
from mpc.prg import Seed
from parties.agreed.terms import Terms
from parties.pb.provider_pb2 import DealPart
from parties.wire.inflow import Inflow
from parties.wire.transport import FRAME_BYTES


class DealtBundle:
    """One bundle, from when it begins to be dealt until every party has fetched its part.

    What was sent is gone; what is being sent or waits for that is no more than the window, or one gate's.

    Args:
        corrected: the index of the party that all corrections go to.
        held: bytes of memory it was granted.
        window: bytes of corrections that are being sent or wait for that, before dealing is held back.
    """

    def __init__(
        self, id: BundleId, seeds: list[Seed], terms: Terms, segments: tuple[Segment, ...], held: int, window: int
    ) -> None:
        self.id, self.seeds, self.segments, self.held = id, seeds, segments, held
        self.corrected = corrected_party(id, len(terms.parties))
        self.waiting = set(terms.parties)
        self._window = window
        self._parts: deque[memoryview] = deque()
        self._queued = 0
        self._forsaken: MpcError | None = None
        self._statements: list[DealPart] = []
        self._inflow = Inflow()

    @property
    def size(self) -> int:
        """Bytes of all corrections."""
        return self.segments[-1].stop

    @property
    def over(self) -> bool:
        """Nothing more is dealt of it."""
        return self._inflow.over

    def add(self, part: memoryview) -> None:
        """Add corrections that are final, once those before have been sent, but for a window.

        Raises:
            MpcError: what has ended it meanwhile.
        """
        with self._inflow.lock:
            self._inflow.hold_back(lambda: self._forsaken is None and self._is_full(part))
            self._inflow.check()
            if self._forsaken is not None and self._is_full(part):
                raise self._forsaken.again()
            self._parts.append(part)
            self._queued += len(part)
            self._inflow.arrived()

    def _is_full(self, part: memoryview) -> bool:
        return bool(self._queued) and self._queued + len(part) > self._window

    def forsake(self, error: MpcError) -> None:
        """Say that nobody may be left to read it: dealing is not held back for anybody, but ends with this error."""
        with self._inflow.lock:
            self._forsaken = error
            self._inflow.arrived()

    def seal(self, statement: DealPart) -> None:
        """Add what was signed of the next segment, all of which is added."""
        with self._inflow.lock:
            self._statements.append(statement)
            self._inflow.arrived()

    def end(self, error: MpcError | None = None) -> None:
        """Say that there is nothing more, and why if that is an error; the first word stands."""
        if error is None:
            self._inflow.close()
        elif not self.over:
            self._inflow.fail(error)

    def corrections(self, segment: Segment) -> Iterator[memoryview]:
        """Yield a segment's corrections as they are dealt, once; raise what ended them, if that is an error."""
        left = segment.dealt
        while left:
            part = self._take(left)
            size = len(part)
            left -= size
            yield part
            del part
            self._sent(size)

    def _take(self, left: int) -> memoryview:
        """Take the next part of a segment of which so much is left, with small ones that are dealt behind it."""
        most = min(left, FRAME_BYTES)
        with self._inflow.lock:
            self._inflow.wait(lambda: bool(self._parts))
            parts = [self._parts.popleft()]
            size = len(parts[0])
            while self._parts and size + len(self._parts[0]) <= most:
                size += len(self._parts[0])
                parts.append(self._parts.popleft())
        return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))

    def _sent(self, size: int) -> None:
        with self._inflow.lock:
            self._queued -= size
            self._inflow.arrived()

    def statement(self, number: int) -> DealPart:
        """Return what was signed of a segment; of the last one only when nothing more is dealt."""
        last = number == len(self.segments) - 1
        with self._inflow.lock:
            self._inflow.wait(lambda: len(self._statements) > number and not last)
            return self._statements[number]
