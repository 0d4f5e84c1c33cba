"""The party's own record of what was put, granted, opened, charged and told, each row chained to all before it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from parties.agreed.audit import NONCE_BYTES, START, follow, row_digest
from parties.agreed.signed import dump
from parties.party.ledger.schema import head_of

Draw = Callable[[int], bytes]
PUT, KEEP, GRANT, BUDGET, REVOKE, REQUEST, DECISION, OPEN, ALLOW, REVEAL, CHARGE, REMOVE, CLOCK = (
    "put",
    "keep",
    "grant",
    "budget",
    "revoke",
    "request",
    "decision",
    "open",
    "allow",
    "reveal",
    "charge",
    "remove",
    "clock",
)
MOST_LISTED, MOST_BYTES = 1024, 4 << 20


@dataclass(frozen=True)
class Entry:
    """One row of the chain, as somebody may read it.

    Args:
        digest: of the row.
        row: its bytes; b"" where they are not for who asks.
    """

    number: int
    head: bytes
    digest: bytes
    row: bytes


def append(
    database: sqlite3.Connection, draw: Draw, kind: str, now: float, about: Iterable[str], **facts: Any
) -> bytes:
    """Add a row within the caller's transaction; return the new head.

    Args:
        about: names of those who may read the row; nobody, in a row of the clock, which all may read.
    """
    content = {"about": sorted({*about}), "at": int(now), "kind": kind, "nonce": draw(NONCE_BYTES).hex(), **facts}
    row = dump(content)
    found = row_digest(row)
    head = follow(head_of(database), found)
    database.execute("INSERT INTO audit (head, digest, row) VALUES (?, ?, ?)", (head, found, row))
    return head


def number_of(database: sqlite3.Connection, head: bytes) -> int | None:
    """Return the number of the row that a head stands behind, 0 for the start; None if there is none."""
    if head == START:
        return 0
    found = database.execute("SELECT number FROM audit WHERE head = ?", (head,)).fetchone()
    return None if found is None else int(found[0])


def entries(database: sqlite3.Connection, after: int, reader: str | None) -> Iterator[Entry]:
    """List at most 1,024 rows behind that number, of 4 MiB if not one alone has more; None reads all of them."""
    query = "SELECT number, head, digest, row FROM audit WHERE number > ? ORDER BY number LIMIT ?"
    size = 0
    for number, head, digest, row in database.execute(query, (after, MOST_LISTED)):
        size += len(row)
        if size > MOST_BYTES and size > len(row):
            return
        yield Entry(number, head, digest, row if reader is None or _is_for(reader, json.loads(row)) else b"")


def _is_for(reader: str, row: dict[str, Any]) -> bool:
    return reader in row["about"] or (row["kind"] == CLOCK and not row["about"])
