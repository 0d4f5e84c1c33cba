"""Erase objects in the ledger's file: rows, keys, tombstones, and whose the files are that are left."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from mpc.encoding import field_size
from parties.agreed.objects import Schema
from parties.agreed.signed import Signed
from parties.party.vault import catalogue
from parties.party.vault.catalogue import Row
from parties.party.vault.files import size_on_disk


def erase(database: sqlite3.Connection, rows: Sequence[Row]) -> list[str]:
    """Delete objects with their keys; the names of files that no other version of their names keeps.

    rows: as they were read, perhaps before this transaction: one that has ended since is passed over, for another
        object may have its number by now.
    """
    left: set[str] = set()
    for row in filter(None, (catalogue.by_put(database, row.put) for row in rows)):
        files = _files(database, row.number)
        database.execute("DELETE FROM temp.data_words WHERE number = ?", (row.number,))
        database.execute("DELETE FROM data_objects WHERE number = ?", (row.number,))
        _hand_on(database, row, files)
        left |= files.keys()
    return sorted(left - {name for (name,) in database.execute("SELECT file FROM data_blocks WHERE file IS NOT NULL")})


def _files(database: sqlite3.Connection, number: int) -> dict[str, tuple[int, int]]:
    """Return name -> (place, block) of the files that an object lists."""
    query = "SELECT file, place, block FROM data_blocks WHERE number = ? AND file IS NOT NULL"
    return {file: (place, block) for file, place, block in database.execute(query, (number,))}


def _hand_on(database: sqlite3.Connection, gone: Row, files: Mapping[str, tuple[int, int]]) -> None:
    """Count the files that were an erased object's, and that a later version keeps, as the oldest such one's.

    Of a file the oldest version that lists it was granted the room.
    """
    others = "SELECT number FROM data_objects WHERE name = ? ORDER BY number DESC"
    numbers = [number for (number,) in database.execute(others, (gone.name,))]
    holder = {file: number for number in numbers for file in _files(database, number)}
    schema, more = Schema.parse(gone.schema), Counter[int]()
    for file, (place, block) in files.items():
        if holder.get(file, 0) > gone.number:
            more[holder[file]] += size_on_disk(field_size(schema.block_shape(schema.columns[place].name, block)))
    for number, size in more.items():
        database.execute("UPDATE data_objects SET size = size + ? WHERE number = ?", (size, number))


def wrapped_keys(database: sqlite3.Connection) -> list[tuple[int, bytes, bytes]]:
    """(number, put, wrapped key) of every object."""
    return database.execute("SELECT number, put, key FROM data_objects").fetchall()


def rewrap(database: sqlite3.Connection, keys: Sequence[tuple[bytes, int]], wrapping: str) -> None:
    """Store (wrapped key, number) of every object, and what they are wrapped by."""
    database.executemany("UPDATE data_objects SET key = ? WHERE number = ?", keys)
    database.execute("DELETE FROM data_wrapping")
    database.execute("INSERT INTO data_wrapping VALUES (?)", (wrapping,))


def bury(database: sqlite3.Connection, objects: Iterable[str], name: str, signed: Signed) -> None:
    """Keep the tombstone of an object, and of earlier versions that have its values."""
    rows = [(each, name, signed.content, signed.signature, signed.certificate) for each in objects]
    database.executemany("INSERT OR IGNORE INTO data_tombstones VALUES (?, ?, ?, ?, ?)", rows)


def is_buried(database: sqlite3.Connection, object_id: str) -> bool:
    """Was this object removed by its owner?"""
    return database.execute("SELECT 1 FROM data_tombstones WHERE object = ?", (object_id,)).fetchone() is not None


def shares(database: sqlite3.Connection, one: int, other: int) -> bool:
    """Do two objects list a file both?"""
    return not _files(database, one).keys().isdisjoint(_files(database, other))
