"""Keep what the ledger's file says of objects: rows, names, who may see them, and the index of their words.

The index lies in memory and is made again at each start, so that what is removed leaves no words behind.  So do sums of
what owners take: each put asks for them, however many objects there are.
"""

from __future__ import annotations

import json
import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from parties.addresses import ANY
from parties.agreed.listed import Entry
from parties.agreed.objects import Manifest, Schema
from parties.agreed.signed import Endorsement, Signed

DRAFT, KEEPING, RECEIVED, LIVING = "draft", "keeping", "received", "living"
"""An object that is being put, or kept of a session; that is here as a whole; that exists."""
_ROW = "number, put, state, object, owner, owner_key, name, version, schema, size, expires, key"
_WORD = re.compile(r"[^\W_]+")
_MOST_WORDS, _LONGEST_WORD = 16, 64
_SEEN = """(o.owner = :client AND o.owner_key = :key OR EXISTS (
    SELECT 1 FROM data_readers r WHERE r.number = o.number AND r.client IN (:client, :any)))"""
_ALL_SEEN = """SELECT number FROM data_objects WHERE owner = :client AND owner_key = :key
    UNION SELECT number FROM data_readers WHERE client IN (:client, :any)"""
"""Found by indices: however many objects there are that a client may not see, its lists and searches take no longer."""

_ADDED = """INSERT INTO data_taken VALUES (NEW.owner, NEW.size, NEW.state != 'living'), ('', NEW.size, 0)
    ON CONFLICT (owner) DO UPDATE SET size = size + excluded.size, open = open + excluded.open;"""
_TAKEN_OFF = """UPDATE data_taken SET size = size - OLD.size WHERE owner IN (OLD.owner, '');
    UPDATE data_taken SET open = open - 1 WHERE owner = OLD.owner AND OLD.state != 'living';"""
_SUMS = (
    "DROP TABLE IF EXISTS temp.data_taken",
    "CREATE TABLE temp.data_taken (owner TEXT PRIMARY KEY, size INTEGER NOT NULL, open INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO temp.data_taken SELECT owner, sum(size), sum(state != 'living') FROM data_objects GROUP BY owner",
    "INSERT INTO temp.data_taken SELECT '', coalesce(sum(size), 0), 0 FROM data_objects",
    f"CREATE TEMP TRIGGER IF NOT EXISTS data_put AFTER INSERT ON main.data_objects BEGIN {_ADDED} END",
    f"CREATE TEMP TRIGGER IF NOT EXISTS data_gone AFTER DELETE ON main.data_objects BEGIN {_TAKEN_OFF} END",
    "CREATE TEMP TRIGGER IF NOT EXISTS data_changed AFTER UPDATE OF owner, size, state ON main.data_objects "
    f"BEGIN {_TAKEN_OFF} {_ADDED} END",
)
"""Sums by owner, of whom none is called "", which stands for all; triggers keep them right, also where a transaction is
taken back."""


@dataclass(frozen=True)
class Row:
    """One object, or one that is being put.

    Args:
        object: its id (hex), once its manifest is here.
        owner_key: digest of its owner's public key.
        schema: its canonical bytes.
        size: bytes of disk that it is granted.
        wrapped: its key.
    """

    number: int
    put: bytes
    state: str
    object: str | None
    owner: str
    owner_key: bytes
    name: str
    version: int
    schema: bytes
    size: int
    expires: int | None
    wrapped: bytes

    @property
    def is_put(self) -> bool:
        """Has its owner put it, or is it a refresh of what was put?"""
        kept = json.loads(self.schema).get("kept")
        return kept is None or any(origin["name"] == self.name for origin in kept["origins"])

    def __repr__(self) -> str:
        return f"Row({self.name!r}, {self.version}, {self.state})"


def start(database: sqlite3.Connection) -> None:
    """Make the index of words from the living objects, and the sums from all."""
    for statement in _SUMS:
        database.execute(statement)
    database.execute("CREATE TABLE IF NOT EXISTS temp.data_words (number INTEGER PRIMARY KEY, words TEXT NOT NULL)")
    database.execute("DELETE FROM temp.data_words")
    living = database.execute("SELECT number, schema FROM data_objects WHERE state = ?", (LIVING,))
    for number, schema in living.fetchall():
        index(database, number, schema)


def index(database: sqlite3.Connection, number: int, schema: bytes) -> None:
    """Add a living object's words."""
    said = json.loads(schema)
    columns = (f"{column['name']} {column['description']}" for column in said["columns"])
    found = _words(" ".join([said["name"], said["description"], *columns]))
    database.execute("INSERT INTO temp.data_words VALUES (?, ?)", (number, "".join(f" {word}" for word in found)))


def insert(
    database: sqlite3.Connection,
    put: bytes,
    key: bytes,
    schema: Schema,
    size: int,
    wrapped: bytes,
    state: str = DRAFT,
) -> Row:
    """Add an object that is being put, or kept of a session."""
    done = database.execute(
        "INSERT INTO data_objects (put, state, owner, owner_key, name, version, schema, size, expires, touched, key) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)",
        (put, state, schema.owner, key, schema.name, schema.version, schema.content, size, schema.expires, wrapped),
    )
    database.executemany(
        "INSERT INTO data_readers VALUES (?, ?)", {(done.lastrowid, client) for client in schema.visible}
    )
    found = by_put(database, put)
    if found is None:
        raise sqlite3.IntegrityError("a row that was written is not there")
    return found


def touch(database: sqlite3.Connection, number: int, now: float) -> None:
    """Note that its owner has just gone on with it."""
    database.execute("UPDATE data_objects SET touched = ? WHERE number = ?", (now, number))


def grow(database: sqlite3.Connection, number: int, size: int) -> None:
    """Note how many bytes of disk an object is granted by now."""
    database.execute("UPDATE data_objects SET size = ? WHERE number = ?", (size, number))


def receive(database: sqlite3.Connection, number: int, object_id: str, signed: Signed) -> None:
    """Keep an object's manifest: all of it is here."""
    database.execute(
        "UPDATE data_objects SET state = ?, object = ?, content = ?, signature = ?, certificate = ? WHERE number = ?",
        (RECEIVED, object_id, signed.content, signed.signature, signed.certificate, number),
    )


def keep_whole(database: sqlite3.Connection, number: int, whole: Manifest, size: int) -> None:
    """Keep the manifest of what was kept of a session, unsigned yet: all of it is here."""
    database.execute(
        "UPDATE data_objects SET state = ?, object = ?, schema = ?, size = ?, expires = ?, content = ?, "
        "signature = x'', certificate = x'' WHERE number = ?",
        (RECEIVED, whole.id.hex(), whole.schema_content, size, whole.expires, whole.content, number),
    )
    known = set() if whole.kept is None else {*whole.kept.objects, *(each.object for each in whole.kept.origins)}
    database.executemany("INSERT OR IGNORE INTO data_origins VALUES (?, ?)", [(number, each) for each in known])


def endorse(database: sqlite3.Connection, number: int, endorsements: Sequence[Endorsement]) -> None:
    """Keep the signatures of all parties, in the roster's order."""
    rows = [(number, place, each.signature, each.certificate) for place, each in enumerate(endorsements)]
    database.executemany("INSERT INTO data_endorsements VALUES (?, ?, ?, ?)", rows)


def bring_to_life(database: sqlite3.Connection, row: Row) -> None:
    """Let an object exist, as the newest version of its name."""
    database.execute("UPDATE data_objects SET state = ? WHERE number = ?", (LIVING, row.number))
    database.execute(
        "INSERT INTO data_names VALUES (?, ?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET version = excluded.version, newest = excluded.newest",
        (row.name, row.owner_key, row.version, row.object),
    )
    index(database, row.number, row.schema)


def size_of(database: sqlite3.Connection, number: int) -> int:
    """Return the bytes of an object's manifest."""
    query = "SELECT length(content) FROM data_objects WHERE number = ?"
    found: tuple[int] = database.execute(query, (number,)).fetchone()
    return found[0]


def signed_of(database: sqlite3.Connection, number: int) -> Signed:
    """Read an object's manifest as its owner signed it."""
    query = "SELECT content, signature, certificate FROM data_objects WHERE number = ?"
    content, signature, certificate = database.execute(query, (number,)).fetchone()
    query = "SELECT signature, certificate FROM data_endorsements WHERE number = ? ORDER BY place"
    joint = tuple(Endorsement(*found) for found in database.execute(query, (number,)))
    return Signed(content, signature, certificate, joint)


def kept_of(database: sqlite3.Connection, objects: Iterable[str]) -> list[Row]:
    """List what came from any of these objects, and what came from that, whatever state it is in."""
    where, found, todo = "number IN (SELECT number FROM data_origins WHERE object = ?)", dict[int, Row](), [*objects]
    while todo:
        for row in _many(database, where, (todo.pop(),)):
            if row.number not in found:
                found[row.number] = row
                todo += [row.object] if row.object else []
    return list(found.values())


def versions(database: sqlite3.Connection, name: str) -> list[Row]:
    """List the objects of a name that exist."""
    return _many(database, "name = ? AND state = ?", (name, LIVING))


def abandoned(database: sqlite3.Connection) -> list[Row]:
    """List what sessions began to keep that are over."""
    return _many(database, "state = ?", (KEEPING,))


def keep_plan(database: sqlite3.Connection, number: int, content: bytes) -> None:
    """Keep the plan of a model that is being put."""
    database.execute("INSERT OR REPLACE INTO data_plans VALUES (?, ?)", (number, content))


def copy_plan(database: sqlite3.Connection, number: int, before: str | None) -> None:
    """Keep the plan of a model for a version that refreshes the one of that id."""
    query = "INSERT INTO data_plans SELECT ?, p.content FROM data_plans p JOIN data_objects o USING (number)"
    database.execute(f"{query} WHERE o.object = ?", (number, before))


def plan_of(database: sqlite3.Connection, number: int) -> bytes | None:
    """Return a model's plan, once it is here."""
    found = database.execute("SELECT content FROM data_plans WHERE number = ?", (number,)).fetchone()
    return None if found is None else bytes(found[0])


def by_put(database: sqlite3.Connection, put: bytes) -> Row | None:
    """Find what is, or was, put under that id."""
    return _one(database, "put = ?", (put,))


def by_id(database: sqlite3.Connection, object_id: str) -> Row | None:
    """Find an object whose manifest is here."""
    return _one(database, "object = ?", (object_id,))


def newest(database: sqlite3.Connection, name: str, now: float) -> Row | None:
    """Find the newest living object of a name that has not expired."""
    where = "name = ? AND state = ? AND (expires IS NULL OR expires > ?) ORDER BY version DESC LIMIT 1"
    return _one(database, where, (name, LIVING, now))


def unfinished(database: sqlite3.Connection, name: str) -> list[Row]:
    """List what is being put under a name, and does not exist yet."""
    return _many(database, "name = ? AND state != ?", (name, LIVING))


def overdue(database: sqlite3.Connection, begun: float, received: float, now: float) -> list[Row]:
    """List what was given up while it was being put, and what has expired.

    Args:
        begun, received: when their owners must have gone on with puts of which a part, or all, is here.
    """
    where = "state = ? AND touched < ? OR state = ? AND touched < ? OR expires <= ?"
    return _many(database, where, (DRAFT, begun, RECEIVED, received, now))


def expired(database: sqlite3.Connection, now: float) -> list[Row]:
    """List what has expired by a time, in seconds since 1970."""
    return _many(database, "expires <= ?", (now,))


def name_of(database: sqlite3.Connection, name: str) -> tuple[bytes, int, str] | None:
    """(its owner's key, its newest version, that one's id in hex) of a name that was ever taken."""
    query = "SELECT owner_key, version, newest FROM data_names WHERE name = ?"
    found: tuple[bytes, int, str] | None = database.execute(query, (name,)).fetchone()
    return found


def blocks_of(database: sqlite3.Connection, number: int) -> list[tuple[int, int, bytes]]:
    """List the blocks of an object whose x^ is here: (place of the column, block, sealed row)."""
    query = "SELECT place, block, sealed FROM data_blocks WHERE number = ? AND file IS NOT NULL"
    return database.execute(query, (number,)).fetchall()


def taken(database: sqlite3.Connection, owner: str) -> tuple[int, int, int]:
    """(bytes granted to all, to that owner, objects that the owner is putting)."""
    query = "SELECT size, open FROM temp.data_taken WHERE owner = ?"
    every, own = (database.execute(query, (name,)).fetchone() or (0, 0) for name in ("", owner))
    return every[0], own[0], own[1]


def owns(database: sqlite3.Connection, client: str, key: bytes | None) -> bool:
    """Is anything here put under that client's name, by that key if one is given?"""
    query = "SELECT 1 FROM data_objects WHERE owner = ?1 AND (?2 IS NULL OR owner_key = ?2) LIMIT 1"
    return database.execute(query, (client, key)).fetchone() is not None


def is_seen(database: sqlite3.Connection, number: int, client: str, key: bytes) -> bool:
    """May this client see the object?"""
    query = f"SELECT 1 FROM data_objects o WHERE o.number = :number AND {_SEEN}"  # noqa: S608 - no value of anybody's
    return database.execute(query, {"number": number, **_who(client, key)}).fetchone() is not None


def entries(
    database: sqlite3.Connection, client: str, key: bytes, words: str, after: tuple[str, int], limit: int, now: float
) -> list[Entry]:
    """List the living objects that a client may see; no other is looked at, so no time tells of them.

    Args:
        words: all of which, as beginnings, stand in the object's name, description or columns; "" for any.
        after: (name, version) that the list goes on behind; it is ordered by name, and in a name the newest first.
    """
    values = {**_who(client, key), "living": LIVING, "now": now, "name": after[0], "version": after[1], "limit": limit}
    asked = _words(words)[:_MOST_WORDS]
    if words.strip() and not asked:
        return []
    values |= {f"word{place}": f" {word[:_LONGEST_WORD]}" for place, word in enumerate(asked)}
    fits = " ".join(f"AND instr(w.words, :word{place})" for place in range(len(asked)))
    query = (
        f"WITH seen AS MATERIALIZED ({_ALL_SEEN}) "  # noqa: S608 - clauses of this module
        "SELECT o.object, o.owner, o.name, o.version, o.schema, o.expires FROM seen "
        "CROSS JOIN data_objects o ON o.number = seen.number CROSS JOIN temp.data_words w ON w.number = seen.number "
        "WHERE o.state = :living AND (o.expires IS NULL OR o.expires > :now) "
        f"AND (o.name > :name OR o.name = :name AND o.version < :version) {fits} "
        "ORDER BY o.name, o.version DESC LIMIT :limit"
    )
    found = []
    for object_id, owner, name, version, schema, expires in database.execute(query, values):
        said = json.loads(schema)
        about = (said["rows"], expires, said["description"], said.get("plan"))
        entry = Entry(bytes.fromhex(object_id), owner, name, version, *about)
        found.append(entry)
    return found


def _who(client: str, key: bytes) -> dict[str, object]:
    return {"client": client, "key": key, "any": ANY}


def _words(text: str) -> list[str]:
    """Split a text into words, without accents and in lower case; nothing of what a caller sends is syntax."""
    plain = "".join(each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each))
    return _WORD.findall(plain.casefold())


def _one(database: sqlite3.Connection, where: str, values: tuple[object, ...]) -> Row | None:
    found = _many(database, where, values)
    return found[0] if found else None


def _many(database: sqlite3.Connection, where: str, values: tuple[object, ...]) -> list[Row]:
    query = f"SELECT {_ROW} FROM data_objects WHERE {where}"  # noqa: S608 - clauses of this module
    return [Row(*found) for found in database.execute(query, values)]
