"""Objects that a client is putting, as it remembers them, so that an interrupted put goes on where it was.

One sqlite file a client, beside the key.  A block is sent again, under fresh seeds, unless the data are what they
were: so a digest of them stands here, keyed by this client's own private key, which says nothing to whoever reads
only this file.  Seeds and masked values are not kept.  A put that is given up leaves no row.  One that is done leaves
these digests, of the newest version of its name: a copy from which rows are taken out is compared with them.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import blake3
import numpy as np

from mpc.encoding import view_field
from mpc.errors import ConfigError
from mpc.prg import Seed
from parties.agreed.objects import SALT_BYTES, Manifest, Schema
from parties.agreed.signed import Signed
from parties.config.models import ClusterConfig
from parties.database import Migration, UnknownVersionError, connect, migrate, transaction
from parties.entropy import token
from parties.trust.identity import Identity

_PUT_BYTES = 16
MIGRATIONS: tuple[Migration, ...] = (
    (
        """CREATE TABLE puts (
            name TEXT PRIMARY KEY, put BLOB NOT NULL, schema BLOB NOT NULL, salt BLOB NOT NULL,
            content BLOB, signature BLOB, certificate BLOB)""",
        """CREATE TABLE blocks (
            name TEXT NOT NULL REFERENCES puts ON DELETE CASCADE, place INTEGER NOT NULL, block INTEGER NOT NULL,
            mark BLOB NOT NULL, digest BLOB NOT NULL, commitments BLOB NOT NULL, PRIMARY KEY (name, place, block)
        ) WITHOUT ROWID""",
    ),
    (  # versions that keep blocks of the one before
        "ALTER TABLE puts ADD COLUMN base BLOB",
        "ALTER TABLE puts ADD COLUMN kept TEXT",
        """CREATE TABLE marks (
            name TEXT NOT NULL, object BLOB NOT NULL, place INTEGER NOT NULL, block INTEGER NOT NULL,
            put BLOB NOT NULL, mark BLOB NOT NULL, PRIMARY KEY (name, place, block)) WITHOUT ROWID""",
    ),
)
"""Number k makes version k of version k - 1; what has been released stays as it is (see `parties/database.py`)."""


@dataclass(frozen=True)
class Sent:
    """One block that all parties have.

    Args:
        mark: keyed digest of the data.
        digest: BLAKE3 of x^.
        commitments: H(k_i) of each party, one after another.
    """

    mark: bytes
    digest: bytes
    commitments: bytes


@dataclass
class Unfinished:
    """A put that has begun.

    Args:
        put: its id at all parties.
        salt: of the digest of its contents.
        signed: its manifest, once it was signed.
        base: manifest of the version before, of which blocks are kept.
        kept: block -> block of that version.
        fresh: it has just begun.
    """

    put: bytes
    schema: Schema
    salt: bytes
    signed: Signed | None = None
    blocks: dict[tuple[int, int], Sent] = field(default_factory=dict)
    fresh: bool = True
    base: Manifest | None = None
    kept: dict[int, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Unfinished({self.schema.name!r})"


def place_of(config: ClusterConfig) -> Path:
    """Name the file of this client's list."""
    return config.tls.key.parent / f"{config.name}.puts.sqlite"


class PutLog:
    """List of one client.  One thread at a time; several processes may use the file.

    Args:
        path: of the file, which only its owner may read.
    """

    def __init__(self, path: Path, identity: Identity) -> None:
        self._path = path
        self._key = Seed(hashlib.sha256(identity.key_pem).digest()).derive("put log")
        with self._storing():
            self._database = connect(path, "journal_mode = TRUNCATE", "secure_delete = ON", "foreign_keys = ON")
            try:
                with transaction(self._database):
                    migrate(self._database, MIGRATIONS)
            except BaseException:
                self._database.close()
                raise

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def mark(self, put: bytes, values: np.ndarray) -> bytes:
        """Digest a block's integers with this client's own key, 32 bytes."""
        key = self._key.derive(put).secret
        return blake3.blake3(view_field(values.view(np.uint64)), key=key).digest()

    def find(self, name: str) -> Unfinished | None:
        """Find the put of that name that was interrupted."""
        with self._storing():
            query = "SELECT put, schema, salt, content, signature, certificate, base, kept FROM puts WHERE name = ?"
            row = self._database.execute(query, (name,)).fetchone()
            query = "SELECT place, block, mark, digest, commitments FROM blocks WHERE name = ?"
            blocks = self._database.execute(query, (name,)).fetchall()
        if row is None:
            return None
        signed = Signed(*row[3:6]) if row[3] is not None else None
        sent = {(place, block): Sent(*rest) for place, block, *rest in blocks}
        base = None if row[6] is None else Manifest.parse(row[6])
        kept = {} if row[7] is None else dict(json.loads(row[7]))
        return Unfinished(row[0], Schema.parse(row[1]), row[2], signed, sent, False, base, kept)

    def begin(self, schema: Schema, base: Manifest | None = None, kept: Mapping[int, int] | None = None) -> Unfinished:
        """List a new put, in the place of one of that name that was interrupted.

        Args:
            base: the version before, if blocks of it are kept.
            kept: block -> block of that version.
        """
        begun = Unfinished(token(_PUT_BYTES), schema, token(SALT_BYTES), base=base, kept=dict(kept or {}))
        with self._writing() as database:
            database.execute("DELETE FROM puts WHERE name = ?", (schema.name,))
            plain = json.dumps([*begun.kept.items()]) if base is not None else None
            values = (schema.name, begun.put, schema.content, begun.salt, base and base.content, plain)
            query = "INSERT INTO puts (name, put, schema, salt, base, kept) VALUES (?, ?, ?, ?, ?, ?)"
            database.execute(query, values)
        return begun

    def sent(self, begun: Unfinished, place: int, block: int, sent: Sent) -> None:
        """List a block that all parties have."""
        begun.blocks[place, block] = sent
        values = (begun.schema.name, place, block, sent.mark, sent.digest, sent.commitments)
        with self._writing() as database:
            database.execute("INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?, ?, ?)", values)

    def sign(self, begun: Unfinished, signed: Signed) -> None:
        """Keep the manifest, durably, before any party is shown it."""
        begun.signed = signed
        values = (signed.content, signed.signature, signed.certificate, begun.schema.name)
        with self._writing() as database:
            database.execute("UPDATE puts SET content = ?, signature = ?, certificate = ? WHERE name = ?", values)

    def forget(self, begun: Unfinished) -> None:
        """Take a put off the list: it is given up."""
        with self._writing() as database:
            _forget(database, begun)

    def finish(self, begun: Unfinished, object_id: bytes) -> None:
        """Take a put off the list: all of it is done.  The digests of its data stay, in the place of older ones."""
        name, kept = begun.schema.name, begun.kept
        with self._writing() as database:
            query = "SELECT place, block, put, mark FROM marks WHERE name = ? AND object = ?"
            before = begun.base.id if begun.base is not None else b""
            known = {(place, block): rest for place, block, *rest in database.execute(query, (name, before))}
            found = {key: (begun.put, sent.mark) for key, sent in begun.blocks.items() if key[1] not in kept}
            for place in range(len(begun.schema.columns)):
                found |= {(place, block): known[place, of] for block, of in kept.items() if (place, of) in known}
            database.execute("DELETE FROM marks WHERE name = ?", (name,))
            rows = [(name, object_id, *key, *rest) for key, rest in found.items()]
            database.executemany("INSERT INTO marks VALUES (?, ?, ?, ?, ?, ?)", rows)
            _forget(database, begun)

    def is_of(self, name: str, object_id: bytes, place: int, block: int, values: np.ndarray) -> bool | None:
        """Say whether integers are those that were put as a block; None if this list does not know the block."""
        with self._storing():
            query = "SELECT put, mark FROM marks WHERE name = ? AND object = ? AND place = ? AND block = ?"
            found = self._database.execute(query, (name, object_id, place, block)).fetchone()
        return None if found is None else self.mark(found[0], values) == found[1]

    def drop(self, name: str) -> None:
        """Remove the digests of what was put under a name: it is removed."""
        with self._writing() as database:
            database.execute("DELETE FROM marks WHERE name = ?", (name,))

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._storing(), transaction(self._database):
            yield self._database

    @contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, UnknownVersionError) as error:
            raise ConfigError(
                f"this client's list of objects that it is putting, {self._path}, cannot be used: {error}",
                cause="its folder is missing, read-only or full, or a newer version of mpc wrote it",
                remedy="make the folder writable; if the file is damaged, delete it: interrupted puts then begin anew",
                local=True,
            ) from None


def _forget(database: sqlite3.Connection, begun: Unfinished) -> None:
    database.execute("DELETE FROM puts WHERE name = ? AND put = ?", (begun.schema.name, begun.put))
