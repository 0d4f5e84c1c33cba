"""List the runs in which a client has entered something, which it must never forget.

A run's masks are used once, and the parties' ledgers see to that.  But if all parties are put back to an earlier moment
- snapshots of machines, or a stock with its whole data folder - or lie, none of them remembers, and the masks of a
run would be handed out again.  Two values under one mask show their difference.  So every client keeps this list, by
itself: a run stands in it, durably, before anything leaves that was masked for it, and no run is entered twice.

Where nobody but this process may enter the runs of a session that follow, it lists some of them with the first: then
only that one waits for the disk.  In memory stands which of these it has yet to enter; a crash loses them.

One sqlite file for each name, beside the key unless the cluster file says otherwise; several processes may use it at
once.  Runs of a session follow one another, so a session takes one row, of about 100 bytes, however many runs it has.
Nothing is ever pruned: a party can be restored to any age, and what the provider signed can be shown with a renewed
certificate of the same key, so there is no day after which a session cannot come back.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mpc.entry import EntryId
from mpc.errors import ConfigError, IntegrityError
from parties.config.models import ClusterConfig
from parties.database import Migration, UnknownVersionError, connect, migrate, transaction, version_of

MIGRATIONS: tuple[Migration, ...] = (
    (
        # "if not": the first program that made lists did it in two steps
        """CREATE TABLE IF NOT EXISTS entered (
            session BLOB NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (session, first)
        ) WITHOUT ROWID""",
    ),
)
"""Number k makes version k of version k - 1; what has been released stays as it is (see `parties/database.py`)."""


def place_of(config: ClusterConfig) -> Path:
    """Return the path of the file in which this client lists what it has entered."""
    return config.entered or config.tls.key.parent / f"{config.name}.entered.sqlite"


class EnteredRuns:
    """List of what one client has entered.  Thread-safe; the file is made when something is entered for the first time.

    Args:
        path: of the file, which only its owner may read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._ahead: dict[bytes, set[int]] = {}
        self._process = os.getpid()

    def claim(self, session_id: bytes, entry: EntryId, following: int = 0) -> None:
        """List an entry; it is on the disk when this returns.

        following: runs that are listed with it, for this process alone.

        Raises:
            IntegrityError: it is listed already.
            ConfigError: the file cannot be written.
        """
        with self._lock:
            self._forget_parents()
            if entry.number in self._ahead.get(session_id, ()):
                self._ahead[session_id].discard(entry.number)
                return
            listed = self._list(session_id, entry, following)
            if listed:
                self._ahead.setdefault(session_id, set()).update(listed)

    def _list(self, session_id: bytes, entry: EntryId, following: int) -> range:
        """Write an entry, and runs that follow up to the next one that is listed; return these."""
        run = entry.number
        with self._writing() as database:
            row = database.execute(
                "SELECT first, last FROM entered WHERE session = ? AND first <= ? ORDER BY first DESC LIMIT 1",
                (session_id, run),
            ).fetchone()
            if row is not None and run <= row[1]:
                raise IntegrityError(
                    f"this client entered something in {entry} of this session before",
                    cause="a party was restored from a backup or forgets what it has used, or another process of this "
                    "client takes part in the session too",
                    remedy="enter nothing in this session: find out which party was restored, and start a new session",
                )
            key = (session_id, run)
            next_one = database.execute(
                "SELECT min(first) FROM entered WHERE session = ? AND first > ?", key
            ).fetchone()
            last = run + following if next_one[0] is None else min(run + following, next_one[0] - 1)
            if row is not None and run == row[1] + 1:
                database.execute(
                    "UPDATE entered SET last = ? WHERE session = ? AND first = ?", (last, session_id, row[0])
                )
            else:
                database.execute("INSERT INTO entered VALUES (?, ?, ?)", (session_id, run, last))
            return range(run + 1, last + 1)

    def withdraw(self, session_id: bytes, entry: EntryId) -> None:
        """Take back a claim of which nothing has left this process; the entry may be claimed again.

        Where later runs were listed with it, it stays listed for others, and this process may claim it again.
        """
        with self._lock:
            self._forget_parents()
            ahead = self._ahead.get(session_id)
            if ahead:
                ahead.add(entry.number)
                return
            with self._writing() as database:
                key = (session_id, entry.number)
                database.execute("DELETE FROM entered WHERE session = ? AND last = ? AND first = last", key)
                database.execute("UPDATE entered SET last = last - 1 WHERE session = ? AND last = ?", key)

    def forget(self, session_id: bytes) -> None:
        """Forget which runs of a session that is over were listed ahead; they stay in the list."""
        with self._lock:
            self._ahead.pop(session_id, None)

    def _forget_parents(self) -> None:
        """Forget what the process listed ahead that this one is a fork of: both would enter these runs."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._ahead.clear()

    def close(self) -> None:
        """Let go of the file; safe to call twice."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Write in the block, with the lock."""
        with self._storing():
            if self._connection is None:
                self._connection = _connect(self._path)
            database = self._connection
            with transaction(database):
                yield database

    @contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ConfigError(
                f"this client's list of the runs it has entered something in, {self._path}, cannot be written: {why}",
                cause="its folder is missing, read-only or full, or the file is damaged",
                remedy="make the folder writable, or name another durable file as 'entered' in the cluster file; "
                "do not delete the list, it keeps a mask from being used twice",
                local=True,
            ) from None


def _connect(path: Path) -> sqlite3.Connection:
    # No write-ahead log: this file alone is the list, and whoever moves it moves all of it.
    database = connect(path, "journal_mode = TRUNCATE", "synchronous = FULL", "fullfsync = ON")
    try:
        if version_of(database) != len(MIGRATIONS):  # else nobody has to wait
            with transaction(database):
                migrate(database, MIGRATIONS)
    except UnknownVersionError as error:
        database.close()
        raise ConfigError(
            f"this client's list of the runs it has entered something in, {path}, cannot be read: {error}",
            cause="a newer version of mpc wrote it",
            remedy="run the version that wrote it; do not delete the list, it keeps a mask from being used twice",
            local=True,
        ) from None
    except BaseException:
        database.close()
        raise
    return database
