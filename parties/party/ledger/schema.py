"""The ledger's tables, and opening its file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from mpc.errors import ConfigError
from parties import database as files
from parties.agreed.audit import START

DATABASE = "ledger.sqlite"
MIGRATIONS: tuple[files.Migration, ...] = (
    (
        "CREATE TABLE epoch (id TEXT NOT NULL, counter INTEGER NOT NULL)",
        """CREATE TABLE sessions (
            session_id TEXT PRIMARY KEY, plan_digest TEXT NOT NULL, coordinator TEXT NOT NULL,
            state TEXT NOT NULL, opened_at REAL NOT NULL, reason TEXT)""",
        "CREATE INDEX sessions_by_state ON sessions (state)",
        """CREATE TABLE runs (
            session_id TEXT NOT NULL REFERENCES sessions, run INTEGER NOT NULL, state TEXT NOT NULL,
            PRIMARY KEY (session_id, run)) WITHOUT ROWID""",
    ),
    (  # data at rest (parties/party/vault)
        """CREATE TABLE data_names (
            name TEXT PRIMARY KEY, owner_key BLOB NOT NULL, version INTEGER NOT NULL, newest TEXT NOT NULL
        ) WITHOUT ROWID""",
        """CREATE TABLE data_objects (
            number INTEGER PRIMARY KEY, put BLOB NOT NULL UNIQUE, state TEXT NOT NULL, object TEXT UNIQUE,
            owner TEXT NOT NULL, owner_key BLOB NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL,
            schema BLOB NOT NULL, size INTEGER NOT NULL, expires INTEGER, touched REAL NOT NULL, key BLOB NOT NULL,
            content BLOB, signature BLOB, certificate BLOB)""",
        "CREATE INDEX data_objects_by_name ON data_objects (name)",
        """CREATE TABLE data_blocks (
            number INTEGER NOT NULL REFERENCES data_objects ON DELETE CASCADE, place INTEGER NOT NULL,
            block INTEGER NOT NULL, sealed BLOB NOT NULL, file TEXT, PRIMARY KEY (number, place, block)
        ) WITHOUT ROWID""",
        """CREATE TABLE data_readers (
            number INTEGER NOT NULL REFERENCES data_objects ON DELETE CASCADE, client TEXT NOT NULL,
            PRIMARY KEY (number, client)) WITHOUT ROWID""",
        """CREATE TABLE data_tombstones (
            object TEXT PRIMARY KEY, name TEXT NOT NULL, content BLOB NOT NULL, signature BLOB NOT NULL,
            certificate BLOB NOT NULL) WITHOUT ROWID""",
        "CREATE TABLE data_wrapping (key TEXT NOT NULL)",
        "CREATE TABLE data_clock (latest REAL NOT NULL)",
    ),
    (  # owners' consent (parties/party/consent)
        """CREATE TABLE consent_grants (
            number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, owner_key BLOB NOT NULL,
            dataset TEXT NOT NULL, expires INTEGER NOT NULL, content BLOB NOT NULL, signature BLOB NOT NULL,
            certificate BLOB NOT NULL)""",
        "CREATE INDEX consent_grants_by_dataset ON consent_grants (dataset)",
        "CREATE INDEX consent_grants_by_owner ON consent_grants (owner)",
        """CREATE TABLE consent_named (
            grant_id TEXT NOT NULL REFERENCES consent_grants (id) ON DELETE CASCADE, client TEXT NOT NULL,
            PRIMARY KEY (client, grant_id)) WITHOUT ROWID""",
        "CREATE INDEX consent_named_by_grant ON consent_named (grant_id)",
        """CREATE TABLE consent_revocations (
            revoked TEXT NOT NULL, owner TEXT NOT NULL, owner_key BLOB NOT NULL, content BLOB NOT NULL,
            signature BLOB NOT NULL, certificate BLOB NOT NULL, PRIMARY KEY (revoked, owner, owner_key)
        ) WITHOUT ROWID""",
        """CREATE TABLE consent_budgets (
            dataset TEXT NOT NULL, owner_key BLOB NOT NULL, owner TEXT NOT NULL, content BLOB NOT NULL,
            signature BLOB NOT NULL, certificate BLOB NOT NULL, PRIMARY KEY (dataset, owner_key)) WITHOUT ROWID""",
        """CREATE TABLE consent_charges (
            session TEXT NOT NULL, run INTEGER NOT NULL, dataset TEXT NOT NULL, grant_id TEXT NOT NULL,
            plan TEXT NOT NULL, mechanism TEXT NOT NULL, epsilon INTEGER NOT NULL, delta INTEGER NOT NULL,
            at REAL NOT NULL, PRIMARY KEY (session, run, dataset)) WITHOUT ROWID""",
        "CREATE INDEX consent_charges_by_dataset ON consent_charges (dataset, mechanism, epsilon, delta)",
        "CREATE INDEX consent_charges_by_grant ON consent_charges (grant_id, epsilon, delta)",
        """CREATE TABLE audit (
            number INTEGER PRIMARY KEY, head BLOB NOT NULL UNIQUE, digest BLOB NOT NULL, row BLOB NOT NULL)""",
    ),
    (  # models at rest (parties/agreed/models.py)
        """CREATE TABLE data_plans (
            number INTEGER PRIMARY KEY REFERENCES data_objects ON DELETE CASCADE, content BLOB NOT NULL)""",
    ),
    (  # what parties keep of sessions: who signed it, what it came from, and under which grants
        """CREATE TABLE data_endorsements (
            number INTEGER NOT NULL REFERENCES data_objects ON DELETE CASCADE, place INTEGER NOT NULL,
            signature BLOB NOT NULL, certificate BLOB NOT NULL, PRIMARY KEY (number, place)) WITHOUT ROWID""",
        """CREATE TABLE data_origins (
            number INTEGER NOT NULL REFERENCES data_objects ON DELETE CASCADE, object TEXT NOT NULL,
            PRIMARY KEY (number, object)) WITHOUT ROWID""",
        "CREATE INDEX data_origins_by_object ON data_origins (object)",
        """CREATE TABLE data_grants (
            number INTEGER NOT NULL REFERENCES data_objects ON DELETE CASCADE, grant_id TEXT NOT NULL,
            owner TEXT NOT NULL, owner_key BLOB NOT NULL, PRIMARY KEY (number, grant_id)) WITHOUT ROWID""",
    ),
    (  # requests that wait for a word, and whose objects are whose without looking at the others
        """CREATE TABLE consent_requests (
            number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, client TEXT NOT NULL, client_key BLOB NOT NULL,
            record BLOB NOT NULL, plan BLOB NOT NULL, state TEXT NOT NULL, operator INTEGER NOT NULL,
            made REAL NOT NULL, expires REAL NOT NULL, uses INTEGER NOT NULL, used INTEGER NOT NULL,
            reason TEXT NOT NULL)""",
        "CREATE INDEX consent_requests_by_client ON consent_requests (client)",
        """CREATE TABLE consent_request_owners (
            number INTEGER NOT NULL REFERENCES consent_requests ON DELETE CASCADE, owner TEXT NOT NULL,
            owner_key BLOB NOT NULL, PRIMARY KEY (number, owner, owner_key)) WITHOUT ROWID""",
        "CREATE INDEX data_objects_by_owner ON data_objects (owner, owner_key)",
        "CREATE INDEX data_readers_by_client ON data_readers (client, number)",
    ),
    (  # collections, and the rows that clients enter into them (parties/party/collecting)
        """CREATE TABLE collections (
            id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, owner_key BLOB NOT NULL,
            content BLOB NOT NULL, signature BLOB NOT NULL, certificate BLOB NOT NULL, list BLOB,
            list_signature BLOB, list_certificate BLOB, gathered TEXT) WITHOUT ROWID""",
        "CREATE INDEX collections_by_owner ON collections (owner)",
        """CREATE TABLE data_contributions (
            number INTEGER PRIMARY KEY REFERENCES data_objects ON DELETE CASCADE, collection TEXT NOT NULL,
            salt BLOB)""",
        "CREATE INDEX data_contributions_by_collection ON data_contributions (collection)",
    ),
)
"""Number k makes version k of version k - 1; what has been released stays as it is (see `parties/database.py`)."""


def connect(path: Path) -> sqlite3.Connection:
    """Open the ledger's file."""
    # fullfsync: macOS's fsync alone does not reach the disk; secure_delete: what is deleted is written over
    return files.connect(
        path,
        "journal_mode = WAL",
        "fullfsync = ON",
        "checkpoint_fullfsync = ON",
        "foreign_keys = ON",
        "secure_delete = ON",
        "temp_store = MEMORY",
        "wal_autocheckpoint = 200",  # pages: the log begins again within the room that `file` makes for it
    )


def is_empty(database: sqlite3.Connection) -> bool:
    """Say whether nothing was ever written to the file."""
    return database.execute("SELECT 1 FROM sqlite_master").fetchone() is None


def head_of(database: sqlite3.Connection) -> bytes:
    """Return the head of the audit chain."""
    last = database.execute("SELECT head FROM audit ORDER BY number DESC LIMIT 1").fetchone()
    return START if last is None else bytes(last[0])


def bring_forward(database: sqlite3.Connection, folder: Path) -> None:
    """Make the tables, or those of an older version today's, within the caller's transaction.

    Raises:
        ConfigError: a newer program wrote the ledger.
    """
    try:
        files.migrate(database, MIGRATIONS)
    except files.UnknownVersionError as error:
        raise ConfigError(
            f"the ledger in {folder} cannot be read: {error}",
            cause="a newer version of mpc wrote it",
            remedy="run the version of mpc that wrote it, or give the party a new, empty data_dir",
            local=True,
        ) from None
