"""Bundles on their way from the provider: corrections into memory, a window of segments at a time.

Where many corrections come, a thread of their own receives them, so that a party expands and prepares meanwhile.  It
stops reading where the window is full: the stream's own fills, and the provider is held back.  Where few come, or none,
whoever waits for some of it reads it: a thread would cost more than it gains.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import grpc

from mpc.correlations import CorrectionsDigest
from mpc.errors import DeadlineError, MpcError, PeerError, SessionError
from mpc.plan.segments import Segment
from mpc.prg import Seed
from parties import telemetry
from parties.alarms import ALARMS
from parties.party.delivery import Delivery, Signatures, Statement
from parties.pb import provider_pb2
from parties.trust.identity import Identity
from parties.wire.frames import Chunk
from parties.wire.inflow import Inflow
from parties.wire.pieces import room
from parties.wire.status import from_rpc
from parties.wire.transport import FRAME_BYTES, patience

_FEW = FRAME_BYTES
"""Bytes of corrections of a bundle that need no thread: what the stream holds by itself while nobody reads."""

_LEAST = 1 << 12
"""Bytes that messages of corrections have on average, at least, but for one a gate: that is how they are dealt."""
_SPARE = 8

Part = provider_pb2.DealPart | Chunk


@dataclass(frozen=True)
class Source:
    """Names whoever deals, for errors.

    Args:
        seconds: that it may be silent.
        cancel: ends the call.
    """

    identity: Identity
    name: str
    address: str
    seconds: float
    cancel: Callable[[], object]

    def failed(self, error: grpc.RpcError) -> MpcError:
        """Return the error that a broken stream stands for."""
        return from_rpc(error, self.name, self.address, self.identity)

    def silent(self) -> MpcError:
        """Make the error of a provider that has said nothing for too long."""
        return DeadlineError(
            f"{self.name} at {self.address} did not answer in time",
            cause="it is busy, or a signal has frozen it, or the network between is",
            remedy="mpc doctor; deadlines are in the configs",
            peer=self.name,
        )


class Arriving(Delivery):
    """A bundle on its way.  Thread-safe; what ends the stream early is raised by whoever waits.

    Args:
        window: bytes that are held of segments at a time, expanded, unless somebody waits for more.
        key: of the digests of corrections.
        parts: what follows the header.
    """

    def __init__(
        self,
        seed: Seed,
        segments: tuple[Segment, ...],
        mine: bool,
        signatures: Signatures,
        window: int | None,
        key: Seed,
        parts: Iterator[Part],
        source: Source,
    ) -> None:
        super().__init__(seed, segments, mine, signatures)
        self._window, self._key, self._source = window, key, source
        self._parts: Iterator[Part] = parts
        self._inflow = Inflow()
        self._filled = 0
        self._wanted = -1
        self._released: set[int] = set()
        self._buffers: dict[int, memoryview] = {}
        self._statements: list[Statement] = []
        self._digest: CorrectionsDigest | None = None
        self._buffer = memoryview(b"")
        self._chunks = _SPARE + sum(len(segment.gates) for segment in segments) + self.size // _LEAST
        self._threaded = self.size > _FEW
        if self._threaded:
            threading.Thread(target=self._receive, name="dealt", daemon=True).start()  # holds this until it ends

    # ------------------------------------------------------------------------- whoever waits

    def read(self, start: int, stop: int) -> memoryview:
        """Return these bytes; wait until they are here."""
        number = self.segment_at(start)
        self._pull(lambda: self._filled >= stop)
        with self._inflow.lock:
            self._want(number)
            self._await(lambda: self._filled >= stop)
            if number not in self._buffers:
                raise SessionError("corrections are asked for that were let go of")
            place = self.segments[number].start
            return self._buffers[number][start - place : stop - place].toreadonly()

    def statement(self, number: int) -> Statement:
        """Return what the provider says behind a segment; wait until it is here."""
        self._pull(lambda: len(self._statements) > number)
        with self._inflow.lock:
            self._want(number)
            self._await(lambda: len(self._statements) > number)
            return self._statements[number]

    def _pull(self, ready: Callable[[], bool]) -> None:
        """Read on until something is ready, where no thread does."""
        if self._threaded:
            return
        while not ready():
            self._inflow.check()
            try:
                self._read_one()
            except MpcError as error:
                self._inflow.fail(error)
                raise

    def _want(self, number: int) -> None:
        """Have everything up to a segment come, whatever the window is; with the lock."""
        if number > self._wanted:
            self._wanted = number
            self._inflow.arrived()

    def _await(self, ready: Callable[[], bool]) -> None:
        """Wait for something to be ready, as long as anything comes; with the lock."""
        while not ready():
            deadline = time.monotonic() + patience(self._source.seconds)
            come = partial(self._has_come, ready, self._come)
            if not self._inflow.wait(come, deadline, self._late):
                raise PeerError("the provider did not deal what it said", peer=self._source.name)

    @property
    def _come(self) -> tuple[int, int]:
        return self._filled, len(self._statements)

    def _has_come(self, ready: Callable[[], bool], before: tuple[int, int]) -> bool:
        """Is it ready, or has at least something come?"""
        return ready() or self._come != before

    def _late(self) -> MpcError:
        self._inflow.fail(self._source.silent())  # comes before what the call ends with
        self._source.cancel()
        return self._source.silent()

    def release(self, number: int) -> None:
        """Let go of a segment; what was made of it stays with whoever made it."""
        with self._inflow.lock:
            self._buffers.pop(number, None)
            self._released.add(number)
            self._inflow.arrived()

    def give_up(self) -> None:
        """Let go of everything; whoever waits is told so."""
        self._inflow.fail(SessionError("the session ended while a run was dealt"))
        self._source.cancel()
        with self._inflow.lock:
            self._buffers.clear()

    # ------------------------------------------------------------------------- what comes

    def _receive(self) -> None:
        try:
            for number in range(len(self.segments)):
                with self._inflow.lock:
                    self._inflow.hold_back(partial(self._is_early, number))
                    self._inflow.check()
                while len(self._statements) == number:
                    self._read_one()
            self._inflow.close()
        except MpcError as error:
            self._inflow.fail(error)
        except Exception as error:
            telemetry.logger().error("unexpected error while corrections arrived", exc_info=error)
            self._inflow.fail(PeerError("corrections could not be received", peer=self._source.name))

    def _is_early(self, number: int) -> bool:
        """Would a segment be too much for the window, and does nobody wait for it?  With the lock."""
        if self._window is None or number <= self._wanted:
            return False
        held = [segment.held for place, segment in enumerate(self.segments[:number]) if place not in self._released]
        return bool(held) and sum(held) + self.segments[number].held > self._window

    def _read_one(self) -> None:
        """Read the next message, corrections of a segment or what is said behind it; one thread does at a time."""
        number = len(self._statements)
        if number == len(self.segments):
            raise PeerError("the provider did not deal what it said", peer=self._source.name)
        segment, left = self.segments[number], self.size and self.segments[number].stop - self._filled
        if self._digest is None and self.size:
            self._digest = CorrectionsDigest(self._key, segment.dealt, number)
            self._buffer = room(segment.dealt)
            with self._inflow.lock:
                self._buffers[number] = self._buffer
        if left:
            self._read_corrections(segment, left)
            return
        statement = self._next_statement(number, None if self._digest is None else self._digest.value)
        self._digest = None
        with self._inflow.lock:
            self._statements.append(statement)
            self._inflow.arrived()

    def _read_corrections(self, segment: Segment, left: int) -> None:
        part = self._next()
        if not isinstance(part, Chunk):
            missing = f"{self._filled} of {self.size} bytes of corrections arrived"
            raise PeerError(missing, peer=self._source.name)
        self._chunks -= 1
        if not part.data or self._chunks < 0:
            raise PeerError("the provider sends corrections in crumbs", peer=self._source.name)
        if len(part.data) > left:
            raise PeerError(f"more than the {segment.dealt} bytes that a segment has", peer=self._source.name)
        if self._digest is not None:
            self._digest.update(part.data)
        filled = self._filled - segment.start
        self._buffer[filled : filled + len(part.data)] = part.data
        with self._inflow.lock:
            self._filled += len(part.data)
            self._inflow.arrived()

    def _next_statement(self, number: int, found: bytes | None) -> Statement:
        """Read what the provider says behind a segment; behind the last one there is nothing more."""
        part = self._next()
        if part is None or isinstance(part, Chunk) or part.WhichOneof("part") != ("segment" if number else "end"):
            why = "did not finish what it dealt" if part is None else "sent a message out of turn"
            raise PeerError(f"the provider {why}", peer=self._source.name)
        if number == len(self.segments) - 1 and self._next() is not None:
            raise PeerError("the provider goes on after its end", peer=self._source.name)
        if number:
            said = part.segment
            return Statement(None, said.content, said.signature, said.deal_seconds, found)
        return Statement(part.end.manifest, deal_seconds=part.end.deal_seconds, found=found)

    def _next(self) -> Part | None:
        """Read one message; None behind the last one."""
        return read_next(self._parts, self._source, bounded=not self._threaded)


def read_next(parts: Iterator[Part], source: Source, bounded: bool) -> Part | None:
    """Read one message of a stream; None behind the last one.

    Args:
        bounded: wait no longer than the provider may be silent; else somebody else sees to that.

    Raises:
        MpcError: what the stream broke with, or that nothing came in time.
    """
    rang: list[bool] = []

    def ring() -> None:
        rang.append(True)
        source.cancel()

    alarm = ALARMS.set(patience(source.seconds), ring) if bounded else None
    try:
        return next(parts, None)
    except grpc.RpcError as error:
        error.__traceback__ = None  # whoever made the call keeps it, and so its frames
        if rang:
            raise source.silent() from None
        raise source.failed(error) from None
    finally:
        if alarm is not None:
            alarm.cancel()
