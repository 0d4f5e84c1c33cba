"""One stream between two parties of one session, and the steps that travel on it or beside it.

Greetings, what is told of kept outputs, and what ends a session travel on the stream.  So do the payloads of steps,
unless both parties take connections for rounds: then one of these has them, and the stream none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import SimpleQueue

from mpc.errors import DeadlineError, HandshakeError, MpcError, PeerError, by_code
from parties.addresses import check_name
from parties.party.inbox import Inbox
from parties.pb.party_pb2 import Abort, Entered, Frame, Hello, Told, Ways
from parties.wire.direct import Direct, swap
from parties.wire.direct_listener import TOKEN_BYTES, Offer
from parties.wire.frames import Piece
from parties.wire.pieces import slices

SALT_BYTES = 32
_REASON_SECONDS = 5.0
"""That a lost connection, or a late step, is given a better reason within, by the stream beside it."""
_LOOK_SECONDS = 0.02


class Link:
    """This party's end of one stream.

    Args:
        hello: what both sides have to agree on.
        offer: of a connection for rounds, at the party that is dialled, if it takes some.
        failed: called once with what ended the stream, unless it ended in good order.
        ended: called with the peer's name if it did.
        coordinator: of the session.
    """

    def __init__(
        self,
        peer: str,
        hello: Hello,
        failed: Callable[[MpcError], None],
        ended: Callable[[str], None],
        coordinator: str,
        offer: Offer | None = None,
    ) -> None:
        self.peer = peer
        self.inbox = Inbox(peer, coordinator)
        self._hello = hello
        self._failed, self._ended = failed, ended
        self._outgoing: SimpleQueue[Frame | Piece | None] = SimpleQueue()
        self._outgoing.put(Frame(hello=hello))
        self._agreed, self._settled = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._offer, self._closed = offer, False
        self.offered: tuple[int, bytes] | None = None
        """Where the peer takes a connection for rounds, and the token to bring; None if it is not to be dialled."""
        self._direct: Direct | None = None
        self._sizes: Sequence[int] = ()
        self._error: MpcError | None = None
        self.peer_salt = b""
        self.peer_window = 0

    def frames(self) -> Iterator[Frame | Piece]:
        """Yield the frames that this side sends, until it is closed; gRPC iterates it in a thread of its own."""
        while (frame := self._outgoing.get()) is not None:
            yield frame

    @property
    def direct(self) -> Direct | None:
        """The connection that has the payloads of steps; None if the stream has them."""
        return self._direct

    def begin(self, run: int, sizes: Sequence[int], tells: int = 0) -> None:
        """A run starts here: bytes of each of its steps, and how often the peer tells something behind them."""
        self._sizes = sizes
        self.inbox.begin(run, sizes if self._direct is None else (), tells)

    def send(self, run: int, step: int, payload: bytes | memoryview) -> None:
        """Send one step, in pieces, or have `swap` send it; the payload must not change from now on."""
        if self._direct is not None:
            self._direct.begin(run, step, payload, self._sizes[step])
            return
        self.inbox.allow(step + 1)
        for piece in slices(payload):
            self._outgoing.put(Piece(run, step, piece))

    def take(self, step: int, deadline: float) -> memoryview:
        """All bytes of the peer's step; raises as `Inbox.take`."""
        if self._direct is None:
            return self.inbox.take(step, deadline)
        payload = self._direct.payload()
        if self._direct.is_late:
            raise DeadlineError(
                f"{self.peer} did not {'send' if payload is None else 'take'} step {step} in time", peer=self.peer
            )
        if payload is None:  # lost: its end of the stream, or of the session, says why if it is more than that
            self.inbox.await_end(step, time.monotonic() + _REASON_SECONDS, self._hung_up)
        return payload

    def misses(self, step: int) -> bool:
        """Is the peer late with a step, or gone, now that its deadline has passed?"""
        if self._direct is None:
            return not self.inbox.has(step)
        return self._direct.is_late or not self._direct.is_open

    def _hung_up(self) -> MpcError:
        return PeerError(
            f"the connection to {self.peer} for rounds was lost",
            cause="" if self._direct is None else self._direct.why,
            remedy=f"start a new session; if it happens again, look into the log of {self.peer}",
            peer=self.peer,
        )

    def choose(self, direct: Direct | None) -> None:
        """Say, at the party that dials, which way payloads travel from now on: by this connection, or by the stream."""
        self._outgoing.put(Frame(ways=Ways(direct=direct is not None)))
        self._settle(direct)

    def _settle(self, direct: Direct | None) -> None:
        with self._lock:
            self._direct, late = (None, direct) if self._closed else (direct, None)
        if late is not None:
            late.close()
        if self._offer is not None:
            self._offer.cancel()  # nobody is waited for any more
        self._settled.set()

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
        """No more frames from this side, and no more payloads in either direction."""
        self._outgoing.put(None)
        with self._lock:
            self._closed = True
        if self._offer is not None:
            self._offer.cancel()
        if self._direct is not None:
            self._direct.close()

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
        elif body == "ways" and self._offer is not None and self._agreed.is_set() and not self._settled.is_set():
            self._follow(self._offer, frame.ways.direct)
        elif body == "abort":
            raise self._heard(frame.abort)
        else:
            raise PeerError(f"{self.peer} sent a frame out of turn", peer=self.peer)

    def _follow(self, offer: Offer, direct: bool) -> None:
        """Take the way that the peer, who dials, has chosen."""
        came = offer.take()
        if direct and came is None:
            raise PeerError(f"{self.peer} says that it is connected, and is not", peer=self.peer)
        if not direct and came is not None:
            came.close()
        self._settle(came if direct else None)

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
        port, token = hello.rounds_port, hello.rounds_token
        if len(hello.salt) != SALT_BYTES or not hello.window or port > 0xFFFF or len(token) not in (0, TOKEN_BYTES):
            raise HandshakeError(f"{self.peer} sent a malformed greeting", peer=self.peer)
        self.peer_salt, self.peer_window = hello.salt, hello.window
        both = bool(self._hello.rounds_port and port)
        if both and self._offer is None and token:
            self.offered = port, token
        elif not both or self._offer is None:
            self._settle(None)
        self._agreed.set()

    def await_agreement(self, deadline: float) -> None:
        """Wait for the peer's greeting until `deadline` (monotonic seconds)."""
        self._await(self._agreed, deadline)

    def await_way(self, deadline: float) -> None:
        """Wait until it is known which way payloads travel, until `deadline` (monotonic seconds)."""
        self._await(self._settled, deadline)

    def _await(self, event: threading.Event, deadline: float) -> None:
        while not event.wait(min(0.05, max(0.0, deadline - time.monotonic()))):
            if self._error is not None:
                raise self._error.again()
            if time.monotonic() >= deadline:
                raise DeadlineError(
                    f"{self.peer} did not join the session in time",
                    cause="it is busy, or a signal has frozen it, or it cannot reach this party",
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
    direct = [link.direct for link in links if link.direct is not None]
    if direct:

        def check() -> None:
            for link in links:
                link.inbox.check(step)

        swap(direct, deadline, check)
    try:
        return [link.take(step, deadline) for link in links]
    except DeadlineError as error:
        if error.heard_from is None:
            _await_words([link for link in links if link.misses(step)], step)
        raise


def _await_words(late: Sequence[Link], step: int) -> None:
    """Wait, where several peers are late, until one of them says whom it missed itself; raise that.

    A peer may be late since another was silent towards it, and that one not towards this party until a step later.
    Its deadline has passed before ours, and what it says is on its way: nobody is blamed who has only waited.
    """
    deadline = time.monotonic() + _REASON_SECONDS
    while len(late) > 1 and time.monotonic() < deadline:
        for link in late:
            link.inbox.check(step)
        time.sleep(_LOOK_SECONDS)
