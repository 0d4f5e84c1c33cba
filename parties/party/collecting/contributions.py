"""Contributions while they are put, at one party: one of each client, of its collection's shape, and in time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import lru_cache

from mpc.encoding import canonical
from mpc.errors import PolicyError, SessionError
from mpc.prg import Seed
from parties.agreed.collecting import Collection, contribution_fault
from parties.agreed.objects import Schema
from parties.party.collecting import tables
from parties.party.vault.catalogue import Row
from parties.party.vault.keys import seal, unseal


@lru_cache(8)
def _read(content: bytes) -> Collection:
    return Collection.parse(content)


def unknown_collection() -> SessionError:
    """Make the one answer for a collection that is not here, or not for who asks."""
    return SessionError(
        "there is no such collection here, or it is not open to you",
        remedy="look at its name; whoever collects says who may enter",
    )


def require_open(database: sqlite3.Connection, schema: Schema, now: float) -> None:
    """Require that a contribution may be put here now; what is no contribution is let through.

    Raises:
        SessionError: its collection is not here, closed, over or full.
        PolicyError: the collection does not take it.
    """
    if schema.collection is None:
        return
    kept = tables.find(database, schema.collection)
    if kept is None:
        raise unknown_collection()
    collection = _read(kept.signed.content)
    if not collection.takes(schema.owner):
        raise unknown_collection()
    fault = contribution_fault(schema, collection)
    if fault is not None:
        raise PolicyError(f"{collection.name} does not take this row: {fault}", remedy="enter it with Collection.enter")
    if kept.contributions is not None or now >= collection.until:
        raise SessionError(
            f"{collection.name} is closed", cause="rows are entered until its time is over", remedy="wait for the next"
        )
    most, counts = collection.places, (tables.count_begun, tables.count_contributions)  # the second one looks up each
    if all(count(database, collection.id) >= most for count in counts):
        raise SessionError(
            f"{collection.name} is full: it takes {collection.at_most:,} rows", remedy="wait for another"
        )


def require_free(database: sqlite3.Connection, name: str) -> None:
    """Require that a name is no collection's: what is gathered alone is called that; `SessionError`."""
    if tables.named(database, name) is not None:
        raise SessionError(
            f"{name} is the name of a collection",
            cause="what its clients entered is gathered under it, and nothing else is put or kept there",
            remedy="choose another name",
        )


def begin(database: sqlite3.Connection, schema: Schema, number: int) -> None:
    """Note that an object that is being put is a contribution, if it is one."""
    if schema.collection is not None:
        tables.add_contribution(database, number, schema.collection)


def receive(
    database: sqlite3.Connection, schema: Schema, row: Row, own: Seed, salt: bytes, draw: Callable[[int], bytes]
) -> None:
    """Keep the salt of a contribution that is all here, under its object's key.

    The salt of what is gathered is made of those of its contributions: the provider has none of them.
    """
    if schema.collection is not None:
        tables.keep_salt(database, row.number, seal(_key(own), _context(row), salt, draw))


def salt_of(database: sqlite3.Connection, row: Row, own: Seed) -> bytes:
    """Return a contribution's salt, 32 bytes; `SessionError` if it is none."""
    sealed = tables.salt_of(database, row.number)
    if sealed is None:
        raise SessionError(f"{row.name} is no contribution of a collection")
    return unseal(_key(own), _context(row), sealed)


def require_loose(database: sqlite3.Connection, row: Row) -> None:
    """Require that an object may be taken away: a contribution may be until it is closed; `SessionError`."""
    collection = tables.collection_of(database, row.number)
    kept = None if collection is None else tables.find(database, collection)
    if kept is not None and kept.contributions is not None:
        raise SessionError(
            "its collection is closed, and counts on this row",
            cause="a contribution can be taken back until then",
            remedy="it is erased when its collection's sum has been gathered, or expires",
        )


def _key(own: Seed) -> Seed:
    return own.derive("salt")


def _context(row: Row) -> bytes:
    return canonical("mpc/v1/contribution salt", row.put)
