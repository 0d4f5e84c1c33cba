"""Objects that a client is putting, as it remembers them, so that an interrupted put goes on where it was.

One sqlite file for each name, beside the key.  A block is sent again, under fresh seeds, unless the data are what they
were: so a digest of them stands here, keyed by this client's own private key, which says nothing to whoever reads
only this file.  Seeds and masked values are not kept.  A put that is done, or given up, leaves no row.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import blake3
import numpy as np

from mpc.encoding import view_field
from mpc.errors import ConfigError
from mpc.prg import Seed
from parties.agreed.objects import SALT_BYTES, Schema
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
        fresh: it has just begun.
    """

    put: bytes
    schema: Schema
    salt: bytes
    signed: Signed | None = None
    blocks: dict[tuple[int, int], Sent] = field(default_factory=dict)
    fresh: bool = True

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
            query = "SELECT put, schema, salt, content, signature, certificate FROM puts WHERE name = ?"
            row = self._database.execute(query, (name,)).fetchone()
            query = "SELECT place, block, mark, digest, commitments FROM blocks WHERE name = ?"
            blocks = self._database.execute(query, (name,)).fetchall()
        if row is None:
            return None
        signed = Signed(*row[3:]) if row[3] is not None else None
        sent = {(place, block): Sent(*rest) for place, block, *rest in blocks}
        return Unfinished(row[0], Schema.parse(row[1]), row[2], signed, sent, fresh=False)

    def begin(self, schema: Schema) -> Unfinished:
        """List a new put, in the place of one of that name that was interrupted."""
        begun = Unfinished(token(_PUT_BYTES), schema, token(SALT_BYTES))
        with self._writing() as database:
            database.execute("DELETE FROM puts WHERE name = ?", (schema.name,))
            values = (schema.name, begun.put, schema.content, begun.salt)
            database.execute("INSERT INTO puts (name, put, schema, salt) VALUES (?, ?, ?, ?)", values)
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
        """Take a put off the list: all of it is done, or it is given up."""
        with self._writing() as database:
            database.execute("DELETE FROM puts WHERE name = ? AND put = ?", (begun.schema.name, begun.put))

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
