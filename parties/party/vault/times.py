"""Tell what time it is for data that expire: a party whose clock was set back does not bring them to life again."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from mpc.errors import SessionError

BEHIND = 300.0
"""Seconds that the clock may be behind the latest time that the ledger knows."""
_STORED_EVERY = 60.0


class Times:
    """The party's clock beside the latest time that it has shown.  What calls it holds the ledger's lock, or need not.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._latest = self.stored = self._tried = 0.0

    def start(self, database: sqlite3.Connection) -> None:
        """Read the latest time that the ledger has."""
        rows = database.execute("SELECT latest FROM data_clock UNION ALL SELECT max(opened_at) FROM sessions")
        self._latest = self.stored = max((row[0] for row in rows if row[0] is not None), default=0.0)

    def now(self) -> float:
        """Tell the time.

        Raises:
            SessionError: the clock is behind what it has shown before.
        """
        now = self.clock()
        if behind := self._behind(now):
            raise SessionError(
                f"this party's clock is {behind:.0f} seconds behind the latest time in its ledger",
                cause="the clock was set back, or was ahead for a while; what has expired would live again",
                remedy="set the clock of that machine right; if it is right now, its operator says so: "
                "mpc clock --party CONFIG --accept",
            )
        self._latest = max(self._latest, now)
        return now

    @property
    def latest(self) -> float:
        """The latest time that the clock has shown, in seconds since 1970."""
        return self._latest

    @property
    def behind(self) -> float:
        """Seconds that the clock is behind what it has shown before; 0 where that is borne."""
        return self._behind(self.clock())

    def _behind(self, now: float) -> float:
        return self._latest - now if now < self._latest - BEHIND else 0.0

    def accept(self, now: float) -> None:
        """Begin again at a time that was stored, though a later one was shown before."""
        self._latest = self.stored = self._tried = now

    def shown(self) -> float:
        """Tell the time for a record, of which nothing follows: never earlier than what was shown before."""
        return max(self._latest, self.clock())

    def is_due(self) -> bool:
        """Say whether it is time to store what the clock has shown."""
        return self._latest - max(self.stored, self._tried) >= _STORED_EVERY

    def put_off(self) -> None:
        """Store it a minute later, since it failed now."""
        self._tried = self._latest

    def store(self, database: sqlite3.Connection, now: float | None = None) -> None:
        """Write the latest time, or another one that is `accept`ed after it, within the caller's transaction."""
        database.execute("DELETE FROM data_clock")
        database.execute("INSERT INTO data_clock VALUES (?)", (self._latest if now is None else now,))
        self.stored = self._latest
