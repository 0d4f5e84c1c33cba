"""What a party's ledger holds of a block, sealed under its object's key: the seed, and which x^ lies in which file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from mpc.encoding import canonical
from mpc.errors import IntegrityError, SessionError
from mpc.prg import SEED_BYTES, Seed
from parties.party.vault.catalogue import Row
from parties.party.vault.keys import seal, unseal

_DIGEST_BYTES = 32


def block_context(put: bytes, place: int, block: int) -> bytes:
    """Encode what a block's sealed row is for."""
    return canonical("mpc/v1/object block", put, place, block)


def block_key(key: Seed) -> Seed:
    """Derive the key of an object's sealed rows."""
    return key.derive("blocks")


def open_block(database: sqlite3.Connection, row: Row, key: Seed, place: int, block: int) -> tuple[Seed, bytes, str]:
    """(k_i, BLAKE3 of x^, name of its file) of a block that is here; the name is "" before x^ is.

    Raises:
        SessionError: nothing of it is here.
        IntegrityError: it was altered, or another file laid under it.
    """
    query = "SELECT sealed, file FROM data_blocks WHERE number = ? AND place = ? AND block = ?"
    found = database.execute(query, (row.number, place, block)).fetchone()
    if found is None:
        raise SessionError("no seeds were given for that block", remedy="put the object again")
    seed, digest, name = unseal_block(row, key, place, block, found[0])
    if name != (found[1] or ""):
        raise IntegrityError(
            f"another file was laid under a block of {row.name}",
            cause="somebody wrote to this party's ledger",
            remedy="put the object again; ask the party's operator to look at the disk",
        )
    return seed, digest, name


def seal_block(
    row: Row,
    key: Seed,
    place: int,
    block: int,
    seed: Seed,
    draw: Callable[[int], bytes],
    digest: bytes = b"",
    name: str = "",
) -> bytes:
    """Seal k_i of a block, with BLAKE3 of x^ and the name of its file once these are here."""
    secret = seed.secret + digest + bytes.fromhex(name)
    return seal(block_key(key), block_context(row.put, place, block), secret, draw)


def unseal_block(row: Row, key: Seed, place: int, block: int, sealed: bytes) -> tuple[Seed, bytes, str]:
    """(k_i, BLAKE3 of x^ and name of its file once it is here) of a sealed row; `IntegrityError` if it was altered."""
    secret = unseal(block_key(key), block_context(row.put, place, block), sealed)
    whole = SEED_BYTES + _DIGEST_BYTES
    return Seed(secret[:SEED_BYTES]), secret[SEED_BYTES:whole], secret[whole:].hex()
