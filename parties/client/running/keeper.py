"""A client's signs of life: parties end the sessions of one that is gone."""

from __future__ import annotations

import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from mpc.errors import SessionError
from parties.alarms import ALARMS, Alarm
from parties.pb import party_pb2

if TYPE_CHECKING:
    from parties.client.channels import Parties, Reply

_RENEWALS, _SOONEST = 4, 0.05
"""Signs of life within the parties' grace; seconds between two, at least."""


class Kept(Protocol):
    """A session that this client coordinates."""

    id: bytes
    open: bool


class Keeper:
    """A thread-safe list of the sessions that this client still wants, of which it tells the parties now and then: they
    end those of a client that is gone.

    It keeps none of them: a session that nobody here holds any more is not asked for.  Thread-safe.
    """

    def __init__(self, parties: Parties) -> None:
        self._parties = weakref.ref(parties)
        self._sessions: weakref.WeakSet[Kept] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._alarm: Alarm | None = None
        self._interval = float("inf")
        self._sent: list[Reply[party_pb2.RenewReply]] = []

    def keep(self, session: Kept, grace: float) -> None:
        """Ask for this session from now on, until it is closed or gone.

        grace: seconds that a party waits for a sign of life; the shortest counts.
        """
        interval = max(_SOONEST, grace / _RENEWALS)
        with self._lock:
            self._sessions.add(session)
            if self._alarm is not None and interval < self._interval:
                self._alarm.cancel()
                self._alarm = None
            self._interval = min(self._interval, interval)
            if self._alarm is None:
                self._set()

    def _set(self) -> None:
        renew = weakref.WeakMethod(self._renew)
        self._alarm = ALARMS.set(self._interval, lambda: (found := renew()) and found())

    def _renew(self) -> None:
        with self._lock:
            self._alarm, parties = None, self._parties()
            wanted = [session.id for session in self._sessions if session.open]
            if wanted and parties is not None:
                self._set()
            else:
                self._interval = float("inf")
        if wanted and parties is not None:
            with suppress(SessionError):  # closed meanwhile
                self._sent = parties.start(
                    lambda stub: stub.Renew, party_pb2.RenewRequest(session_ids=wanted), self._interval
                )

    def close(self) -> None:
        """Ask for no session any more."""
        with self._lock:
            if self._alarm is not None:
                self._alarm.cancel()
            self._sessions.clear()
