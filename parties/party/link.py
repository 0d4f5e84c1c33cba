"""One stream between two parties of one session, and the steps that travel on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import SimpleQueue

from mpc.errors import DeadlineError, HandshakeError, MpcError, PeerError, by_code
from parties.addresses import check_name
from parties.party.inbox import Inbox
from parties.pb.party_pb2 import Abort, Entered, Frame, Hello, Told
from parties.wire.frames import Piece
from parties.wire.pieces import slices

SALT_BYTES = 32


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
