"""Rows of the ledger's file about collections: what was signed of each, its contributions, and the one list of them."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from parties.agreed.signed import Signed
from parties.party.vault.catalogue import LIVING


@dataclass(frozen=True)
class Kept:
    """A collection as a party keeps it.

    Args:
        owner_key: digest of the public key of whoever collects.
        signed: as it was signed.
        contributions: the list that this party has signed; None: it is not closed here.
        gathered: id (hex) of the object that this party has signed; None: of none yet.
    """

    id: str
    owner: str
    owner_key: bytes
    signed: Signed
    contributions: Signed | None
    gathered: str | None


_ROW = "id, owner, owner_key, content, signature, certificate, list, list_signature, list_certificate, gathered"


def find(database: sqlite3.Connection, collection: str) -> Kept | None:
    """Return the collection of an id."""
    return _read(database.execute(f"SELECT {_ROW} FROM collections WHERE id = ?", (collection,)))  # noqa: S608


def named(database: sqlite3.Connection, name: str) -> Kept | None:
    """Return the collection of a name."""
    return _read(database.execute(f"SELECT {_ROW} FROM collections WHERE name = ?", (name,)))  # noqa: S608


def _read(rows: sqlite3.Cursor) -> Kept | None:
    row = rows.fetchone()
    if row is None:
        return None
    number, owner, key, *signed, contributions, signature, certificate, gathered = row
    listed = None if contributions is None else Signed(contributions, signature, certificate)
    return Kept(number, owner, key, Signed(*signed), listed, gathered)


def add(database: sqlite3.Connection, kept: Kept, name: str) -> None:
    """Keep a collection that was opened."""
    signed = kept.signed
    values = (kept.id, name, kept.owner, kept.owner_key, signed.content, signed.signature, signed.certificate)
    database.execute(
        "INSERT INTO collections (id, name, owner, owner_key, content, signature, certificate) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        values,
    )


def count(database: sqlite3.Connection, owner: str) -> int:
    """Count the collections that a client has opened."""
    return int(database.execute("SELECT count(*) FROM collections WHERE owner = ?", (owner,)).fetchone()[0])


def close(database: sqlite3.Connection, collection: str, contributions: Signed) -> None:
    """Keep the one list of a collection's contributions."""
    database.execute(
        "UPDATE collections SET list = ?, list_signature = ?, list_certificate = ? WHERE id = ? AND list IS NULL",
        (contributions.content, contributions.signature, contributions.certificate, collection),
    )


def gather(database: sqlite3.Connection, collection: str, object_id: str) -> None:
    """Keep which object this party signs of a collection."""
    database.execute("UPDATE collections SET gathered = ? WHERE id = ?", (object_id, collection))


def add_contribution(database: sqlite3.Connection, number: int, collection: str) -> None:
    """Note that an object that is being put is a contribution."""
    database.execute("INSERT INTO data_contributions VALUES (?, ?, NULL)", (number, collection))


def keep_salt(database: sqlite3.Connection, number: int, sealed: bytes) -> None:
    """Keep a contribution's salt, sealed."""
    database.execute("UPDATE data_contributions SET salt = ? WHERE number = ?", (sealed, number))


def salt_of(database: sqlite3.Connection, number: int) -> bytes | None:
    """Return a contribution's salt, sealed; None if it is not all here."""
    found = database.execute("SELECT salt FROM data_contributions WHERE number = ?", (number,)).fetchone()
    return None if found is None else found[0]


def collection_of(database: sqlite3.Connection, number: int) -> str | None:
    """Return the collection that an object is a contribution of."""
    found = database.execute("SELECT collection FROM data_contributions WHERE number = ?", (number,)).fetchone()
    return None if found is None else str(found[0])


def contributions(database: sqlite3.Connection, collection: str) -> list[str]:
    """List the ids of a collection's contributions that exist here, sorted."""
    query = (
        "SELECT o.object FROM data_contributions e JOIN data_objects o ON o.number = e.number "
        "WHERE e.collection = ? AND o.state = ? ORDER BY o.object"
    )
    return [object_id for (object_id,) in database.execute(query, (collection, LIVING))]


def count_begun(database: sqlite3.Connection, collection: str) -> int:
    """Count a collection's contributions that exist here, and those that are being put."""
    query = "SELECT count(*) FROM data_contributions WHERE collection = ?"
    return int(database.execute(query, (collection,)).fetchone()[0])


def count_contributions(database: sqlite3.Connection, collection: str) -> int:
    """Count a collection's contributions that exist here."""
    query = (
        "SELECT count(*) FROM data_contributions e JOIN data_objects o ON o.number = e.number "
        "WHERE e.collection = ? AND o.state = ?"
    )
    return int(database.execute(query, (collection, LIVING)).fetchone()[0])
