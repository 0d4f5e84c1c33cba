"""The ledger's file: who has it, how it is written, and how one that was put back from a copy is known.

One sqlite file per data directory, used by one process at a time.

A ledger put back from a backup would forget what was consumed since.  So a counter stands both
in the database and in a file beside it, and moves whenever the ledger or a session is opened: a
copy of the database from before the newest session is behind the file, and is refused.  (A copy
of the *whole* folder agrees with itself; only someone who remembers `LedgerFile.epoch` can tell.)

The database is written first, the file second, and the call that moved the counter returns after
both.  If the second write fails (a full disk), the call fails and the database is one ahead; the
counter does not move again before the file has caught up.  So the database is never two ahead,
however many writes fail, and every call that returned has left its counter in the file: a copy of
the database that does not know of it is behind the file.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from mpc.errors import LocalProtocolError
from parties.agreed.audit import START
from parties.database import transaction
from parties.disk import private_folder, write_atomic
from parties.entropy import token
from parties.party.ledger.epoch import EPOCH, Epoch, failing, read_epoch, restored
from parties.party.ledger.schema import DATABASE, bring_forward, connect, head_of, is_empty
from parties.process import lock
from parties.telemetry import logger

LOCK = lock.LEDGER
_ROOM = 1 << 20
"""Bytes that the write-ahead log has from the start.

sqlite begins it again before it is longer (`schema.connect`).  So what must be on the disk is written over bytes that
are there, and waits for these alone; a file that grows waits for the file system's journal, with what others write.
"""


class LedgerFile(ABC):
    """One ledger's file.  Thread-safe; one per data directory.  Every method raises ConfigError when the disk fails."""

    def __init__(
        self, folder: Path, connection: sqlite3.Connection, lock_file: int, clock: Callable[[], float]
    ) -> None:
        self._folder = folder
        self._connection = connection
        self._lock_file = lock_file
        self._clock = clock
        self._lock = threading.Lock()
        self._closed = False
        self._epoch = Epoch("", 0)
        self._beside: Epoch | None = None
        self._settled = True
        self._head = START

    @classmethod
    def open(cls, data_dir: Path, clock: Callable[[], float] = time.time) -> Self:
        """Take exclusive use of `data_dir`, refuse a restored ledger, burn what a crash left open."""
        private_folder(data_dir)
        with _storing(data_dir):
            lock_file = lock.take(data_dir, LOCK)
        connection = None
        try:
            with _storing(data_dir):
                connection = connect(data_dir / DATABASE)
                ledger = cls(data_dir, connection, lock_file, clock)
                ledger._start()
            return ledger
        except BaseException:
            if connection is not None:
                connection.close()
            os.close(lock_file)
            raise

    def check_writable(self) -> None:
        """Write, durably, what is there already; ConfigError if the disk does not take it."""
        with self._writing(durable=True) as database:
            database.execute("UPDATE epoch SET counter = counter")

    def settle(self) -> None:
        """Wait until all that was written is on the disk: a power failure takes nothing back then that was shown."""
        with self._lock:
            if self._settled:
                return
        self.check_writable()

    @property
    def head(self) -> bytes:
        """The head of the audit chain behind the newest row that is on the disk for certain."""
        with self._lock:
            return self._head

    @property
    def epoch(self) -> Epoch:
        return self._epoch

    @abstractmethod
    def _burn_open(self, database: sqlite3.Connection) -> None:
        """Burn what a crash left open, in the transaction in which the file is opened."""

    @abstractmethod
    def _written(self) -> None:
        """Note that what was written since the last call is on the disk; with the lock."""

    @abstractmethod
    def _failed(self) -> None:
        """Note that it is not; with the lock."""

    def close(self) -> None:
        """Give up the data directory; safe to call twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._connection.close()
                os.close(self._lock_file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        recorded = self._beside = read_epoch(self._folder)
        with self._writing(durable=True) as database:
            new = is_empty(database)
            if new and recorded is not None:
                raise restored(self._folder, "the database is gone, its epoch file is not")
            bring_forward(database, self._folder)
            if new:
                database.execute("INSERT INTO epoch VALUES (?, 0)", (token(16).hex(),))
            stored = Epoch(*database.execute("SELECT id, counter FROM epoch").fetchone())
            # One ahead: the last write of the file failed, or a crash came between the two.
            # With no file at all that is the very first start, before any session.
            beside = recorded or Epoch(stored.id, 0)
            if beside.id != stored.id or stored.counter - beside.counter not in (0, 1):
                raise restored(self._folder, "the epoch in the database and in the file beside it do not agree")
            self._burn_open(database)
            self._count_up(database)
        self._make_room()

    def _make_room(self) -> None:
        """Lengthen the write-ahead log by zeros, which are no frames of it; where there is no room it grows later."""
        with suppress(OSError), (self._folder / f"{DATABASE}-wal").open("r+b") as log:
            log.write(bytes(max(0, _ROOM - log.seek(0, os.SEEK_END))))

    def _count_up(self, database: sqlite3.Connection) -> None:
        """Move the counter in the database by one, once the file beside it has the last one."""
        stored = Epoch(*database.execute("SELECT id, counter FROM epoch").fetchone())
        if stored.counter and stored != self._beside:
            self._write_beside(stored)
        database.execute("UPDATE epoch SET counter = counter + 1")
        self._epoch = Epoch(stored.id, stored.counter + 1)

    def _write_beside(self, epoch: Epoch) -> None:
        write_atomic(self._folder / EPOCH, f"{epoch.id} {epoch.counter}\n".encode())
        self._beside = epoch

    @contextmanager
    def _writing(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        with self._lock, _using(self._folder):
            self._require_usable()
            database, before = self._connection, self._epoch
            changes = database.total_changes
            database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            try:
                with transaction(database):
                    yield database
            except BaseException:
                self._epoch = before
                self._failed()
                raise
            self._written()
            if database.total_changes != changes:  # where nothing is written the disk is not waited for
                self._settled = durable
                self._head = head_of(database) if durable else self._head
            if self._epoch != before:
                self._write_beside(self._epoch)

    # -- for those whose tables lie in the same file

    @contextmanager
    def writing(self, *, durable: bool = False, counted: bool = False) -> Iterator[sqlite3.Connection]:
        """Do all of the block in one transaction, or nothing if it raises.

        durable: it is on the disk when the block has ended.  counted: a copy of the database from before is refused
        from then on.
        """
        with self._writing(durable=durable or counted) as database:
            yield database
            if counted:
                self._count_up(database)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read in the block, while nobody writes."""
        with self._lock, _using(self._folder):
            self._require_usable()
            yield self._connection

    def forget_deleted(self) -> None:
        """Empty the write-ahead log, in which what was deleted may still stand."""
        with self.reading() as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _require_usable(self) -> None:
        if self._closed:
            raise LocalProtocolError("the ledger is closed")


@contextmanager
def _storing(folder: Path) -> Iterator[None]:
    """Errors of the disk while the ledger is opened, for the operator who starts the party."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise failing(f"the ledger in {folder} cannot be used: {error}", local=True) from error


@contextmanager
def _using(folder: Path) -> Iterator[None]:
    """Errors of the disk in an open ledger: clients are told them, and so learn no path; the log has it."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        logger().error("the ledger cannot be used", folder=folder, why=why)
        raise failing(f"the ledger cannot be used: {why}") from error
