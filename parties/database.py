"""sqlite files that must forget nothing: their owner's alone, and brought forward by numbered migrations.

The file says its version (`PRAGMA user_version`).  Migration k, counted from 1, makes version k of version k - 1.
Those that a file lacks run when it is opened, in one transaction with the version: after a crash the file is the old
one or the new one.  There is no way back: a file that is newer than the program is refused.  A migration that has been
released is never changed; tests/vectors/databases has a file of every version.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mpc.errors import LocalProtocolError

Migration = tuple[str, ...]
"""SQL statements, in their order."""
_WAIT_SECONDS = 20.0
"""For other processes that write at the same moment; each takes milliseconds."""


class UnknownVersionError(Exception):
    """A file has a version that this program does not know: it was written by a newer one."""

    def __init__(self, version: int, newest: int) -> None:
        super().__init__(f"it has version {version}, this program reads versions up to {newest}")


def connect(path: Path, *pragmas: str) -> sqlite3.Connection:
    """Open a file, which is made if it is not there, with these pragmas; for all threads, one at a time."""
    # Made by us first: sqlite would use the umask, and gives the files beside it the mode of this one.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)
    database = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        for pragma in pragmas:
            database.execute(f"PRAGMA {pragma}")
    except BaseException:
        database.close()
        raise
    return database


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Do all of the block in the file, or nothing if it raises; others wait."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def version_of(database: sqlite3.Connection) -> int:
    """Return the file's version; 0 if nothing was written to it."""
    version: int = database.execute("PRAGMA user_version").fetchone()[0]
    return version


def migrate(database: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    """Bring a file forward to the newest version, within the caller's transaction.

    Raises:
        UnknownVersionError: it is newer than that.
    """
    if not database.in_transaction:
        raise LocalProtocolError("a database is brought forward within a transaction")
    version = version_of(database)
    if not 0 <= version <= len(migrations):
        raise UnknownVersionError(version, len(migrations))
    for number, statements in enumerate(migrations[version:], version + 1):
        for statement in statements:
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {number}")
