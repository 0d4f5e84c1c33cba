"""Count the sessions that a process has, and each caller's of them: asked before anything is done for one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from mpc.errors import SessionError
from parties.config.models import Limits

_FOREVER = float("inf")


@dataclass(eq=False)
class Slot:
    """One session's place; it is held until that moment (monotonic seconds), or until it is freed."""

    client: str
    until: float = _FOREVER


class Slots:
    """The places for sessions at one process.  Thread-safe.

    Args:
        who: this process, for errors.
    """

    def __init__(self, limits: Limits, who: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._each = limits.max_sessions, limits.sessions_of_one
        self._who, self._clock = who, clock
        self._held: set[Slot] = set()
        self._lock = threading.Lock()

    def reserve(self, client: str, seconds: float) -> Slot:
        """A place for a session that will be opened within so many seconds.

        Raises:
            SessionError: all places are taken, or all that this caller may have.
        """
        with self._lock:
            return self._add(client, self._clock() + seconds)

    def keep(self, client: str, reserved: Slot | None = None) -> Slot:
        """The place of a session that is opened now; raises as `reserve`, unless it was reserved in time."""
        with self._lock:
            if reserved is not None and reserved in self._held and reserved.until > self._clock():
                reserved.until = _FOREVER
                return reserved
            return self._add(client, _FOREVER)

    def free(self, slot: Slot | None) -> None:
        """Somebody else may have it; nothing happens if it is free."""
        if slot is not None:
            with self._lock:
                self._held.discard(slot)

    def _add(self, client: str, until: float) -> Slot:
        now = self._clock()
        self._held = {slot for slot in self._held if slot.until > now}
        mine = sum(slot.client == client for slot in self._held)
        if mine >= self._each < self._most:
            raise SessionError(
                f"{client} has {mine} open sessions at {self._who}, as many as one caller may have",
                remedy="close some (session.close(), mpc sessions --abort ID), or raise limits.max_sessions_per_caller",
            )
        if len(self._held) >= self._most:
            raise SessionError(
                f"{self._who} has {len(self._held)} open sessions, as many as it allows",
                remedy="wait, close some (session.close(), mpc sessions --abort ID), or raise limits.max_sessions",
            )
        slot = Slot(client, until)
        self._held.add(slot)
        return slot
