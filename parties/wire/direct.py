"""Carry the payloads of rounds between two parties through TLS alone, in the thread that computes with them.

A round through gRPC is handed from thread to thread four times in each direction, which costs more than all else in a
small run (docs/decisions/033).  A direct connection has no thread and no queue: `swap` sends to all peers and
receives from them at the same time, so that two parties that both send much never wait for each other.

Each payload has 16 bytes before it: run, step and size.  Sizes are known beforehand: nothing is allocated because
of what a peer says, and nothing is read before somebody waits for it, which holds back a peer that is ahead.
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

from mpc.errors import PeerError
from parties.wire.pieces import room

_HEAD = struct.Struct("<IIQ")
_JOINED = 1 << 14
"""Bytes of a payload that travel with its head at most: one record of TLS."""
_LOOK_SECONDS = 0.05
"""So often whoever waits looks whether the session goes on."""


class Direct:
    """One end of a connection to `peer`.  One thread swaps; any may close.

    Args:
        secured: after the handshake, and the other end is certainly that peer's.
    """

    def __init__(self, secured: ssl.SSLSocket, peer: str) -> None:
        secured.setblocking(False)
        secured.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._secured, self.peer = secured, peer
        self._lock = threading.Lock()
        self._lost = False
        self._leaving: list[memoryview] = []
        self._incoming = memoryview(b"")
        self._filled, self._head = 0, b""
        self._arrived, self._awaits = True, 0

    def greet(self, welcome: bytes) -> None:
        """Send a few bytes before anything else leaves."""
        with self._lock:
            if not self._lost:
                self._secured.send(welcome)

    def begin(self, run: int, step: int, payload: bytes | memoryview, size: int) -> None:
        """Say what leaves next, and how many bytes the peer's payload of that step has."""
        head, view = _HEAD.pack(run, step, len(payload)), memoryview(payload)
        first = memoryview(b"".join((head, view[: _JOINED - _HEAD.size])))
        rest = view[_JOINED - _HEAD.size :]
        self._leaving = [first, rest] if rest else [first]
        self._head = _HEAD.pack(run, step, size)
        self._incoming, self._filled, self._arrived = room(_HEAD.size + size), 0, False

    @property
    def is_open(self) -> bool:
        """False once it was closed or is lost."""
        return not self._lost

    @property
    def busy(self) -> bool:
        """Something has still to leave or to come, and may."""
        return not self._lost and (bool(self._leaving) or not self._arrived)

    def advance(self) -> bool:
        """Send and receive as much as can be at once; say whether anything was.

        Raises:
            PeerError: what comes is not the step that is awaited.
        """
        with self._lock:
            if self._lost:
                return False
            self._awaits = 0
            try:
                sent = self._go_on(self._send)
                return self._go_on(self._receive) or sent
            except OSError:  # TLS's other errors are such ones
                self._lost = True
                return False

    def _go_on(self, transfer: Callable[[], bool]) -> bool:
        """Transfer until it is done or has to wait; note for what."""
        moved = False
        try:
            while transfer():
                moved = True
        except ssl.SSLWantReadError:
            self._awaits |= select.POLLIN
        except ssl.SSLWantWriteError:
            self._awaits |= select.POLLOUT
        return moved

    def _send(self) -> bool:
        if not self._leaving:
            return False
        count = self._secured.send(self._leaving[0])
        rest = self._leaving[0][count:]
        self._leaving[:1] = [rest] if rest else []
        return True

    def _receive(self) -> bool:
        if self._arrived:
            return False
        count = self._secured.recv_into(self._incoming[self._filled :])
        if not count:
            raise ConnectionResetError("the peer's end is closed")
        self._filled += count
        self._judge()
        return True

    def _judge(self) -> None:
        """Look at the head once it is here: nothing else is taken for the step that is awaited."""
        known = min(self._filled, _HEAD.size)
        if self._incoming[:known] != self._head[:known]:
            raise PeerError(f"{self.peer} sent something out of turn", peer=self.peer)
        self._arrived = self._filled == len(self._incoming)

    def payload(self) -> memoryview | None:
        """Return what the peer has sent in this step, once it is here as a whole."""
        return self._incoming[_HEAD.size :] if self._arrived else None

    def wait_on(self, poll: select.poll) -> None:
        """Have a poll end when something more can leave or come."""
        with self._lock, suppress(ValueError):  # it was closed
            poll.register(self._secured.fileno(), self._awaits)

    def give_up(self) -> None:
        """Wait for the peer no more: what has left in part cannot be followed by anything."""
        self._lost = True

    def close(self) -> None:
        """Hang up; whoever swaps finds the connection lost.  Safe to call twice."""
        with self._lock:
            self._lost = True
            self._secured.close()


def swap(connections: Sequence[Direct], deadline: float, check: Callable[[], None]) -> None:
    """Have what was begun leave all these connections, and what is awaited come, until `deadline` (monotonic seconds).

    What a lost connection, or a late peer, has not sent is missing then.

    Args:
        check: called while nothing moves; raises what has ended the session.

    Raises:
        PeerError: a peer sent something out of turn.
    """
    busy = [each for each in connections if each.busy]
    while busy:
        moved = [each.advance() for each in busy]
        busy = [each for each in busy if each.busy]
        if any(moved) or not busy:
            continue
        check()
        left = deadline - time.monotonic()
        if left <= 0:
            for each in busy:
                each.give_up()
            return
        poll = select.poll()
        for each in busy:
            each.wait_on(poll)
        poll.poll(1000 * min(left, _LOOK_SECONDS))
