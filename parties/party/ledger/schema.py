"""The ledger's tables, and opening its file."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from mpc.errors import ConfigError

DATABASE = "ledger.sqlite"
VERSION = 1
SCHEMA = """
CREATE TABLE epoch (id TEXT NOT NULL, counter INTEGER NOT NULL);
CREATE TABLE sessions (
    session_id TEXT PRIMARY KEY, plan_digest TEXT NOT NULL, coordinator TEXT NOT NULL,
    state TEXT NOT NULL, opened_at REAL NOT NULL, reason TEXT);
CREATE INDEX sessions_by_state ON sessions (state);
CREATE TABLE runs (
    session_id TEXT NOT NULL REFERENCES sessions, run INTEGER NOT NULL, state TEXT NOT NULL,
    PRIMARY KEY (session_id, run)) WITHOUT ROWID;
"""


def connect(path: Path) -> sqlite3.Connection:
    # Made by us first: sqlite would use the umask, and gives -wal and -shm the mode of this file.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("journal_mode = WAL", "fullfsync = ON", "checkpoint_fullfsync = ON", "foreign_keys = ON"):
            database.execute(f"PRAGMA {pragma}")  # fullfsync: macOS's fsync alone does not reach the disk
    except BaseException:
        database.close()
        raise
    return database


def check_version(database: sqlite3.Connection, folder: Path) -> None:
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        raise ConfigError(
            f"the ledger in {folder} has version {version}, this program reads {VERSION}",
            remedy="run the version of mpc that wrote it, or give the party a new, empty data_dir",
            local=True,
        )
