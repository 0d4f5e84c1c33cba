"""One stream between two parties of one session, and the steps that travel on it.

A peer cannot know step t + 1 before it has this party's step t, so at any moment the only
acceptable frames are pieces of the step that is awaited and of the one after what was sent
last.  Everything else - a past step with other bytes, a future one, a piece too many - ends
the session.  A peer that is a run ahead is held back by not reading on, which fills its
stream's window: nothing is buffered without bound.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import SimpleQueue

from mpc.errors import DeadlineError, HandshakeError, MpcError, PeerError, by_code
from parties.addresses import check_name
from parties.pb.party_pb2 import Abort, Entered, Frame, Hello, Told
from parties.wire.frames import Piece
from parties.wire.inflow import Inflow
from parties.wire.pieces import room, slices

SALT_BYTES = 32
_LARGEST_TOLD = 1 << 20
"""Bytes of the largest frame about outputs that are kept: signatures and certificates of up to 256 objects."""


class Inbox:
    """The steps of one peer, in order.  Thread-safe: one thread puts, another takes."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._inflow = Inflow()
        self._run = 0
        self._sizes: tuple[int, ...] = ()
        self._buffers: dict[int, memoryview] = {}
        self._filled: dict[int, int] = {}
        self._repeated: dict[int, int] = {}
        self._entered: tuple[bytes, ...] | None = None
        self._told: dict[int, tuple[bytes, ...]] = {}
        self._tells = 0
        self._allowed = -1

    def begin(self, run: int, sizes: Sequence[int], tells: int = 0) -> None:
        """A run starts here: bytes of each of its steps, and how often the peer tells something behind them."""
        with self._inflow.lock:
            self._run, self._sizes, self._tells = run, tuple(sizes), tells
            self._buffers, self._filled, self._repeated, self._entered, self._told = {}, {}, {}, None, {}
            self._allowed = -1
            self._allow(0)
            self._inflow.arrived()

    def allow(self, step: int) -> None:
        """This party sends step - 1 now, so the peer may send up to `step`."""
        with self._inflow.lock:
            self._allow(step)

    def _allow(self, step: int) -> None:
        for number in range(self._allowed + 1, min(step + 1, len(self._sizes))):
            self._buffers[number] = room(self._sizes[number])
            self._filled[number] = 0
        self._allowed = max(self._allowed, step)

    def put(self, run: int, step: int, data: bytes | memoryview) -> None:
        """A piece arrived.

        Raises:
            PeerError: it belongs to no step that is possible now, or differs from what came before.
        """
        with self._inflow.lock:
            self._inflow.hold_back(lambda: run == self._run + 1)  # its stream's window fills: nothing is buffered
            if run != self._run or step > self._allowed or step not in self._buffers:
                raise PeerError(f"{self._peer} sent step {step} of run {run} out of turn", peer=self._peer)
            buffer, filled = self._buffers[step], self._filled[step]
            if filled == len(buffer):
                self._repeat(step, data)
                return
            if filled + len(data) > len(buffer) or not data:
                raise PeerError(f"{self._peer} sent too many bytes in step {step}", peer=self._peer)
            buffer[filled : filled + len(data)] = data
            self._filled[step] = filled + len(data)
            if self._filled[step] == len(buffer):
                self._inflow.arrived()

    def _repeat(self, step: int, data: bytes | memoryview) -> None:
        """Ignore bytes that came before, and refuse other ones: they are equivocation."""
        start = self._repeated.get(step, 0)
        if not data or bytes(self._buffers[step][start : start + len(data)]) != bytes(data):
            raise PeerError(f"{self._peer} sent step {step} twice with different bytes", peer=self._peer)
        self._repeated[step] = (start + len(data)) % len(self._buffers[step])

    def take(self, step: int, deadline: float) -> memoryview:
        """All bytes of a step; waits until `deadline` (monotonic seconds).

        Raises:
            DeadlineError: they did not come in time.
            MpcError: whatever ended the link.
        """
        with self._inflow.lock:
            self._await(lambda: self._is_here(step), deadline, f"did not send step {step} in time")
            self._buffers.pop(step - 1, None)
            return self._buffers[step]

    @property
    def held_back(self) -> bool:
        """The peer is a run ahead, and its stream is not read on; or somebody waits for a step."""
        return self._inflow.waiting > 0

    def put_entered(self, run: int, digests: Sequence[bytes]) -> None:
        """The peer found that it was not sent what others were, and says what it was sent, owner by owner."""
        with self._inflow.lock:
            if run != self._run or self._entered is not None:
                raise PeerError(f"{self._peer} sent a frame out of turn", peer=self._peer)
            self._entered = tuple(digests)
            self._inflow.arrived()

    def take_entered(self, count: int, deadline: float) -> tuple[bytes, ...]:
        """These digests, `count` of them; raises as `take`."""
        with self._inflow.lock:
            self._await(lambda: self._entered is not None, deadline, "did not say what it was sent")
            entered = self._entered or ()
            if len(entered) != count:
                raise PeerError(f"{self._peer} sent a malformed frame", peer=self._peer)
            return entered

    def put_told(self, run: int, number: int, parts: Sequence[bytes]) -> None:
        """The peer tells something of what is kept of a run."""
        with self._inflow.lock:
            new = 1 <= number <= self._tells and number not in self._told
            if run != self._run or not new or sum(map(len, parts)) > _LARGEST_TOLD:
                raise PeerError(f"{self._peer} sent a frame out of turn", peer=self._peer)
            self._told[number] = tuple(parts)
            self._inflow.arrived()

    def take_told(self, number: int, count: int, deadline: float) -> tuple[bytes, ...]:
        """Return the `count` parts that the peer tells; raises as `take`."""
        with self._inflow.lock:
            self._await(lambda: number in self._told, deadline, "did not say what it keeps")
            parts = self._told[number]
            if len(parts) != count:
                raise PeerError(f"{self._peer} sent a malformed frame", peer=self._peer)
            return parts

    def _is_here(self, step: int) -> bool:
        if self._filled[step] == len(self._buffers[step]):
            return True
        if self._entered is not None and step and not self._inflow.over:  # it disagrees, and this party does not
            raise PeerError(f"{self._peer} sent a frame out of turn", peer=self._peer)
        return False

    def _await(self, ready: Callable[[], bool], deadline: float, late: str) -> None:
        if not self._inflow.wait(ready, deadline, lambda: DeadlineError(f"{self._peer} {late}", peer=self._peer)):
            raise PeerError(f"{self._peer} ended the session", peer=self._peer)

    def fail(self, error: MpcError) -> None:
        """Nothing more will come: whoever waits gets this error."""
        self._inflow.fail(error)

    def end(self) -> None:
        """The peer closed its side in good order."""
        self._inflow.close()


class Link:
    """This party's end of one stream.

    Args:
        hello: what both sides have to agree on.
        failed: called once with what ended the stream, unless it ended in good order.
        ended: called with the peer's name if it did.
    """

    def __init__(
        self, peer: str, hello: Hello, failed: Callable[[MpcError], None], ended: Callable[[str], None]
    ) -> None:
        self.peer = peer
        self.inbox = Inbox(peer)
        self._hello = hello
        self._failed, self._ended = failed, ended
        self._outgoing: SimpleQueue[Frame | Piece | None] = SimpleQueue()
        self._outgoing.put(Frame(hello=hello))
        self._agreed = threading.Event()
        self._error: MpcError | None = None
        self.peer_salt = b""
        self.peer_window = 0

    def frames(self) -> Iterator[Frame | Piece]:
        """Yield the frames that this side sends, until it is closed; gRPC iterates it in a thread of its own."""
        while (frame := self._outgoing.get()) is not None:
            yield frame

    def send(self, run: int, step: int, payload: bytes | memoryview) -> None:
        """Send one step, in pieces; the payload must not change from now on."""
        self.inbox.allow(step + 1)
        for piece in slices(payload):
            self._outgoing.put(Piece(run, step, piece))

    def send_entered(self, run: int, digests: Sequence[bytes]) -> None:
        """Say what this party was sent: first payloads have shown that not all were sent the same."""
        self._outgoing.put(Frame(entered=Entered(run=run, digests=digests)))

    def send_told(self, run: int, number: int, parts: Sequence[bytes]) -> None:
        """Tell something of what is kept of a run."""
        self._outgoing.put(Frame(told=Told(run=run, number=number, parts=parts)))

    def abort(self, error: MpcError) -> None:
        """Tell the peer the code, and whom it is about; nothing else."""
        self._outgoing.put(Frame(abort=Abort(code=error.code, about=error.peer or "")))
        self.close()
        self._error = self._error or error.again()
        self.inbox.fail(error)

    def close(self) -> None:
        """No more frames from this side."""
        self._outgoing.put(None)

    def receive(self, incoming: Iterable[Frame | Piece], lost: Callable[[Exception], MpcError]) -> None:
        """Read the peer's frames until they end; runs in a thread of its own.

        Args:
            lost: turns what the transport raises into an error that names the peer.
        """
        try:
            for frame in incoming:
                self._accept(frame)
            if not self._agreed.is_set():
                raise PeerError(f"{self.peer} closed the stream without a greeting", peer=self.peer)
            self.inbox.end()
            self._ended(self.peer)
        except MpcError as error:
            self._fail(error)
        except Exception as error:  # the transport's own
            self._fail(lost(error))

    def _accept(self, frame: Frame | Piece) -> None:
        if isinstance(frame, Piece):
            if not self._agreed.is_set():
                raise PeerError(f"{self.peer} sent a frame out of turn", peer=self.peer)
            self.inbox.put(frame.run, frame.step, frame.data)
            return
        body = frame.WhichOneof("body")
        if body == "hello" and not self._agreed.is_set():
            self.check(frame.hello)
        elif body == "entered" and self._agreed.is_set():
            self.inbox.put_entered(frame.entered.run, frame.entered.digests)
        elif body == "told" and self._agreed.is_set():
            self.inbox.put_told(frame.told.run, frame.told.number, frame.told.parts)
        elif body == "abort":
            raise self._heard(frame.abort)
        else:
            raise PeerError(f"{self.peer} sent a frame out of turn", peer=self.peer)

    def _heard(self, abort: Abort) -> MpcError:
        """Turn a peer's abort, a code and a name, into an error."""
        cls = by_code(abort.code)
        about = _name(abort.about) or self.peer
        return cls(
            f"{self.peer} ended the session ({cls.code}, about {about})",
            cause=f"the log of {self.peer} says more",
            remedy="mpc doctor, then start a new session",
            peer=about,
            heard_from=self.peer,
        )

    def check(self, hello: Hello) -> None:
        """Compare the greetings.

        Raises:
            HandshakeError: naming what differs; no share has been sent.
        """
        for name in ("protocol", "field", "session_id", "plan_digest", "roster"):
            if getattr(hello, name) != getattr(self._hello, name):
                raise HandshakeError(
                    f"{self.peer} disagrees about the session's {name.replace('_', ' ')}",
                    cause="it runs another version, or was given another plan or roster",
                    remedy="mpc doctor",
                    peer=self.peer,
                )
        if len(hello.salt) != SALT_BYTES or not hello.window:
            raise HandshakeError(f"{self.peer} sent a malformed greeting", peer=self.peer)
        self.peer_salt, self.peer_window = hello.salt, hello.window
        self._agreed.set()

    def await_agreement(self, deadline: float) -> None:
        """Wait for the peer's greeting until `deadline` (monotonic seconds)."""
        while not self._agreed.wait(min(0.05, max(0.0, deadline - time.monotonic()))):
            if self._error is not None:
                raise self._error.again()
            if time.monotonic() >= deadline:
                raise DeadlineError(
                    f"{self.peer} did not join the session in time",
                    cause="it is stopped or busy, or cannot reach this party",
                    remedy="mpc doctor says which way is closed",
                    peer=self.peer,
                )

    def _fail(self, error: MpcError) -> None:
        self._error = self._error or error.again()
        self.inbox.fail(error)
        self._failed(error)


def _name(text: str) -> str | None:
    try:
        return check_name(text)
    except ValueError:
        return None


def tell(links: Sequence[Link], run: int, number: int, parts: Sequence[bytes], seconds: float) -> list[Sequence[bytes]]:
    """Tell every peer something of what is kept of a run, and take as many parts of theirs; within `seconds`."""
    for link in links:
        link.send_told(run, number, parts)
    deadline = time.monotonic() + seconds
    return [link.inbox.take_told(number, len(parts), deadline) for link in links]


def exchange(
    links: Sequence[Link], run: int, step: int, payload: bytes | memoryview, seconds: float
) -> list[memoryview]:
    """Send one step to every peer and take theirs; within `seconds`."""
    for link in links:
        link.send(run, step, payload)
    deadline = time.monotonic() + seconds
    return [link.inbox.take(step, deadline) for link in links]
