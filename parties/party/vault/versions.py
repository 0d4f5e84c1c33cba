"""A version of an object that keeps blocks of the one before: the same seeds, the same x^, under its own key."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping

from mpc.errors import InputError, SessionError
from mpc.prg import Seed
from parties.agreed.objects import Schema
from parties.party.vault import catalogue
from parties.party.vault.blocks import seal_block, unseal_block
from parties.party.vault.catalogue import LIVING, Row

Kept = Mapping[int, int]
"""Block of a put -> block of the version before, of every column."""


def require_kept(schema: Schema, before: Schema, kept: Kept) -> None:
    """Require that blocks can be kept: columns are the same, and so are each block's rows; `InputError`."""
    if schema.columns != before.columns:
        raise InputError(
            f"{schema.name} would keep blocks of version {before.version}, and has other columns",
            remedy="put all of it anew: what columns hold is said once for all blocks",
        )
    if before.kept is not None and any(origin.name != schema.name for origin in before.kept.origins):
        raise InputError(
            f"{schema.name} would keep blocks that parties kept of others' data",
            cause="what its owner puts is the owner's word alone, and these blocks are not the owner's alone",
            remedy="keep other rows in another session, under the same name",
        )
    if before.gathered is not None or before.collection is not None:
        raise InputError(
            f"{schema.name} would keep rows of a collection",
            cause="they are its clients', of which one noised sum is told; whoever collects has their name alone",
            remedy="put data of your own, all of them, under another name",
        )
    if schema.unchecked == before.is_checked:
        raise InputError(
            f"{schema.name} would keep blocks of version {before.version}, and does not say as that one does whether "
            "they are checked",
            cause="a session whose runs are not checked may have changed what it refreshed",
            remedy="put all of the table",
        )
    if len(set(kept.values())) != len(kept):
        raise InputError(f"{schema.name} would keep a block twice")
    for block, of in kept.items():
        if schema.block_rows(block) != before.block_rows(of):
            raise InputError(f"block {block} of {schema.name} does not have the rows of the block that it keeps")


def kept_from(database: sqlite3.Connection, schema: Schema, now: float) -> Row:
    """Return the version whose blocks are kept; `SessionError` if it is not here any more."""
    found = catalogue.by_id(database, schema.previous) if schema.previous is not None else None
    if found is not None and (found.name != schema.name or found.version >= schema.version):
        found = None
    if found is None or found.state != LIVING or (found.expires is not None and found.expires <= now):
        raise SessionError(
            f"the version of {schema.name} whose blocks are to be kept is not here",
            cause="it was removed, or has expired",
            remedy="put all of the table",
        )
    return found


def sealed_anew(
    database: sqlite3.Connection,
    before: Row,
    key: Seed,
    put: bytes,
    own: Seed,
    kept: Kept,
    draw: Callable[[int], bytes],
) -> list[tuple[int, int, bytes, str]]:
    """Return (place, block, sealed row, file) of the blocks that a put keeps.

    Args:
        key, own: of the version before, and of the put.
    """
    wanted, found = {of: block for block, of in kept.items()}, []
    for place, of, sealed in catalogue.blocks_of(database, before.number):
        if of in wanted:
            opened = unseal_block(before.put, key, place, of, sealed)
            row = seal_block(put, own, place, wanted[of], opened.keep(), draw)
            found.append((place, wanted[of], row, opened.name))
    return found


def add_kept(database: sqlite3.Connection, number: int, rows: list[tuple[int, int, bytes, str]]) -> None:
    """List the blocks that a put keeps, within the transaction in which it begins."""
    database.executemany("INSERT INTO data_blocks VALUES (?, ?, ?, ?, ?)", [(number, *row) for row in rows])
