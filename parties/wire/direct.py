"""Carry the payloads of rounds between two parties through TLS alone, in the thread that computes with them.

A round through gRPC is handed from thread to thread four times in each direction, which costs more than all else in a
small run (docs/decisions/033).  A direct connection has no thread and no queue: `swap` sends to all peers and
receives from them at the same time, so that two parties that both send much never wait for each other.

Each payload has 16 bytes before it: run, step and size.  Sizes are known beforehand: nothing is allocated because
of what a peer says, and nothing is read before somebody waits for it, which holds back a peer that is ahead.

TLS works on memory here, and the socket is never waited for in it.  So a peer that sends what is no payload without end
keeps nobody inside the TLS library, where no deadline and no end of the session is seen: each turn takes a bounded
number of bytes, and a step a bounded number of turns.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from mpc.errors import PeerError
from parties.wire.pieces import room

DIRECT = "direct"
"""Say of payloads that they travel by such a connection."""
_HEAD = struct.Struct("<IIQ")
_TURN = 1 << 18
"""Bytes that are sent, and received, in one turn at most: more would not stay in a core's cache meanwhile."""
_RECORD = 1 << 14
_SPARE = 1 << 18
"""Bytes that a peer may send beside a payload, twice over: TLS's own, of which an honest one's are a thousandth."""
_LOOK_SECONDS = 0.05
"""So often whoever waits looks whether the session goes on."""
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 20, "TCP_KEEPCNT": 4}
"""Seconds, seconds, and a number, where the system has them: a firewall forgets connections that are silent."""

Found = TypeVar("Found")


class Direct:
    """One end of a connection to another party.  One thread at a time uses it; any may close it.

    Args:
        raw: connected.
        serves: this end has accepted the connection.
    """

    def __init__(self, raw: socket.socket, context: ssl.SSLContext, serves: bool) -> None:
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self.peer = ""
        self.why = ""
        """Why it is lost, if it is."""
        self.is_late = False
        """Whether the peer has not taken, or not sent, a step in time."""
        self._raw = raw
        self._lock = threading.Lock()
        self._arriving, self._encrypted = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._arriving, self._encrypted, server_side=serves)
        self._read = memoryview(bytearray(_RECORD))
        self._fed, self._allowed = 0, _SPARE
        self._unsent = memoryview(b"")
        self._leaving = memoryview(b"")
        self._incoming = memoryview(b"")
        self._filled, self._head = 0, b""
        self._arrived, self._awaits = True, 0

    # ------------------------------------------------------------------------- before rounds

    def belong_to(self, peer: str) -> None:
        """Note whose the other end is, once its certificate was judged; it may have more memory then."""
        self.peer = peer
        self._read = memoryview(bytearray(_TURN))

    def shake_hands(self, deadline: float) -> None:
        """Have TLS begin, until `deadline` (monotonic seconds); raise OSError if it does not."""
        self._complete(self.tls.do_handshake, deadline)

    def tell(self, words: bytes, deadline: float) -> None:
        """Send a few bytes before any payload; raise OSError if they do not leave in time."""
        self._complete(lambda: self.tls.write(words), deadline)

    def hear(self, size: int, deadline: float) -> bytes:
        """Read a few bytes before any payload; raise OSError if they do not come in time."""
        heard = b""
        while len(heard) < size:
            part = self._complete(partial(self.tls.read, size - len(heard)), deadline)
            if not part:
                raise ConnectionResetError("it hung up")
            heard += part
        return heard

    def _complete(self, action: Callable[[], Found], deadline: float) -> Found:
        """Repeat something that TLS does until it needs no more bytes, and what it says has left."""
        found: list[Found] = []
        while True:
            with self._lock:
                self._require_open()
                self._awaits = 0
                if not found:
                    with suppress(ssl.SSLWantReadError):
                        found.append(action())
                self._flush()
                if found and not self._unsent:
                    return found[0]
                moved = not found and self._feed()
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("nothing came in time")
            if not moved:
                _wait([self], left)

    # ------------------------------------------------------------------------- a round

    def begin(self, run: int, step: int, payload: bytes | memoryview, size: int) -> None:
        """Say what leaves next, and how many bytes the peer's payload of that step has."""
        head, view = _HEAD.pack(run, step, len(payload)), memoryview(payload)
        first = _RECORD - _HEAD.size
        with self._lock:
            try:
                self._require_open()
                self.tls.write(b"".join((head, view[:first])))
            except OSError as error:
                self.why = self.why or reason(error)
        self._leaving = view[first:]
        self._head = _HEAD.pack(run, step, size)
        self._incoming, self._filled, self._arrived = room(_HEAD.size + size), 0, False
        self._fed, self._allowed = 0, 2 * (size + _SPARE)

    @property
    def is_open(self) -> bool:
        """False once it was closed or is lost."""
        return not self._lost

    @property
    def busy(self) -> bool:
        """Something has still to leave or to come, and may."""
        return self.is_open and (bool(self._unsent or self._leaving or self._encrypted.pending) or not self._arrived)

    def advance(self) -> bool:
        """Send and receive what can be at once, of a turn's bytes; say whether anything was.

        Raises:
            PeerError: what comes is not the step that is awaited, or much more than that.
        """
        with self._lock:
            if self._lost:
                return False
            self._awaits = 0
            try:
                sent = self._send()
                return self._receive() or sent
            except OSError as error:  # TLS's errors are such ones
                self.why = reason(error)
                return False

    def _send(self) -> bool:
        if self._leaving and not self._unsent:
            count = self.tls.write(self._leaving[:_TURN])  # in records, all of them: memory takes any number
            self._leaving = self._leaving[count:] or memoryview(b"")
        return self._flush()

    def _flush(self) -> bool:
        """Have encrypted bytes leave; say whether any did."""
        if not self._unsent:
            self._unsent = memoryview(self._encrypted.read())
        if not self._unsent:
            return False
        try:
            self._unsent = self._unsent[self._raw.send(self._unsent) :]
        except BlockingIOError:
            self._awaits |= select.POLLOUT
            return False
        return True

    def _receive(self) -> bool:
        if self._arrived:
            return False
        before, whole, incoming = self._filled, len(self._incoming), self._incoming
        tls: Any = self.tls  # its types speak of bytearrays alone
        with suppress(ssl.SSLWantReadError):
            while not self._arrived:
                filled = self._filled
                count = tls.read(whole - filled, incoming[filled:])  # a record at a time
                if not count:
                    raise ConnectionResetError("the peer has hung up")
                self._filled = filled + count
                if filled < _HEAD.size:
                    self._judge()
                self._arrived = self._filled == whole
        return self._filled > before or self._feed()

    def _feed(self) -> bool:
        """Hand TLS what has come, a turn's bytes at most; say whether anything had."""
        try:
            count = self._raw.recv_into(self._read)
        except BlockingIOError:
            self._awaits |= select.POLLIN
            return False
        if not count:
            raise ConnectionResetError("the peer has hung up")
        self._fed += count
        if self._fed > self._allowed:
            raise PeerError(f"{self.peer or 'somebody'} sends much more than a step has", peer=self.peer or None)
        self._arriving.write(self._read[:count])
        return True

    def _judge(self) -> None:
        """Look at the head once it is here: nothing else is taken for the step that is awaited."""
        known = min(self._filled, _HEAD.size)
        if self._incoming[:known] != self._head[:known]:
            raise PeerError(f"{self.peer} sent something out of turn", peer=self.peer)

    def payload(self) -> memoryview | None:
        """Return what the peer has sent in this step, once it is here as a whole; it is let go of here."""
        if not self._arrived:
            return None
        found, self._incoming = self._incoming, memoryview(b"")
        return found[_HEAD.size :]

    def wait_on(self, poll: select.poll) -> None:
        """Have a poll end when something more can leave or come."""
        with self._lock:
            if not self._lost:
                poll.register(self._raw.fileno(), self._awaits)

    # ------------------------------------------------------------------------- its end

    @property
    def _lost(self) -> bool:
        return bool(self.why)

    def _require_open(self) -> None:
        if self._lost:
            raise ConnectionResetError(self.why)

    def give_up(self) -> None:
        """Wait for the peer no more: what has left in part cannot be followed by anything."""
        self.is_late, self.why = True, self.why or "the peer was too late"

    def close(self) -> None:
        """Hang up; whoever swaps finds the connection lost.  Safe to call twice."""
        with self._lock:
            self.why = self.why or "this party has hung up"
            self._raw.close()


def swap(connections: Sequence[Direct], deadline: float, check: Callable[[], None]) -> None:
    """Have what was begun leave all these connections, and what is awaited come, until `deadline` (monotonic seconds).

    What a lost connection, or a late peer, has not sent is missing then.

    Args:
        check: called now and then; raises what has ended the session.

    Raises:
        PeerError: a peer sent something out of turn.
    """
    busy = [each for each in connections if each.busy]
    look = time.monotonic() + _LOOK_SECONDS
    while busy:
        moved = [each.advance() for each in busy]
        busy = [each for each in busy if each.busy]
        if not busy:
            return
        now = time.monotonic()
        if now >= deadline:
            for each in busy:
                each.give_up()
            return
        if now >= look or not any(moved):
            check()
            look = now + _LOOK_SECONDS
        if not any(moved):
            _wait(busy, deadline - now)


def _wait(connections: Sequence[Direct], seconds: float) -> None:
    """Wait until something can be done on one of these connections, for a moment at most."""
    poll = select.poll()
    for each in connections:
        each.wait_on(poll)
    poll.poll(1000 * min(seconds, _LOOK_SECONDS))


def reason(error: OSError) -> str:
    """Say in words why a connection failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"a certificate does not verify: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or 'no reason given').lower().replace('_', ' ')}"
    if isinstance(error, TimeoutError):
        return "nothing came in time"
    return error.strerror or str(error) or type(error).__name__
