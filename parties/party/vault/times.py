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
        self._latest = self.stored = 0.0

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
        if now < self._latest - BEHIND:
            raise SessionError(
                f"this party's clock is {self._latest - now:.0f} seconds behind the latest time in its ledger",
                cause="the clock was set back, or was ahead for a while; what has expired would live again",
                remedy="set the clock of that machine right; the data are there again once it has caught up",
            )
        self._latest = max(self._latest, now)
        return now

    def shown(self) -> float:
        """Tell the time for a record, of which nothing follows: never earlier than what was shown before."""
        return max(self._latest, self.clock())

    def is_due(self) -> bool:
        """Is it time to store what the clock has shown?"""
        return self._latest - self.stored >= _STORED_EVERY

    def store(self, database: sqlite3.Connection) -> None:
        """Write the latest time, within the caller's transaction."""
        database.execute("DELETE FROM data_clock")
        database.execute("INSERT INTO data_clock VALUES (?)", (self._latest,))
        self.stored = self._latest
