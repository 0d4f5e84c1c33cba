"""Seal what a party's ledger holds of a block under its object's key: the seed, and which x^ lies in which file.

A block that a version keeps from the one before has its row with each of them, sealed under the key of each: the seed,
the file and the file's own key are the ones that it had.  The file is there as long as any row names it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from mpc.encoding import canonical
from mpc.errors import IntegrityError, SessionError
from mpc.prg import SEED_BYTES, Seed
from parties.party.vault.catalogue import Row
from parties.party.vault.files import file_key
from parties.party.vault.keys import seal, unseal

_DIGEST_BYTES, _NAME_BYTES = 32, 16


@dataclass(frozen=True)
class Block:
    """One block of one column, opened.

    Args:
        seed: k_i.
        digest: BLAKE3 of x^; b"" before x^ is here.
        name: of its file; "" before x^ is here.
        key: of its file; None before x^ is here.
        kept: it is a block of the version before.
    """

    seed: Seed = field(repr=False)
    digest: bytes = field(default=b"", repr=False)
    name: str = ""
    key: Seed | None = field(default=None, repr=False)
    kept: bool = False

    def keep(self) -> Block:
        """Return the block as a later version keeps it."""
        return replace(self, kept=True)


def block_context(put: bytes, place: int, block: int) -> bytes:
    """Encode what a block's sealed row is for."""
    return canonical("mpc/v1/object block", put, place, block)


def block_key(key: Seed) -> Seed:
    """Derive the key of an object's sealed rows."""
    return key.derive("blocks")


def open_block(database: sqlite3.Connection, row: Row, key: Seed, place: int, block: int) -> Block:
    """Return a block whose seed was given.

    Raises:
        SessionError: nothing of it is here.
        IntegrityError: it was altered, or another file laid under it.
    """
    query = "SELECT sealed, file FROM data_blocks WHERE number = ? AND place = ? AND block = ?"
    found = database.execute(query, (row.number, place, block)).fetchone()
    if found is None:
        raise SessionError("no seeds were given for that block", remedy="put the object again")
    opened = unseal_block(row.put, key, place, block, found[0])
    if opened.name != (found[1] or ""):
        raise IntegrityError(
            f"another file was laid under a block of {row.name}",
            cause="somebody wrote to this party's ledger",
            remedy="put the object again; ask the party's operator to look at the disk",
        )
    return opened


def seal_block(put: bytes, key: Seed, place: int, block: int, opened: Block, draw: Callable[[int], bytes]) -> bytes:
    """Seal a block's row; a kept block's has the key of its file, which follows from another object's key."""
    secret = opened.seed.secret + opened.digest + bytes.fromhex(opened.name)
    if opened.kept and opened.key is not None:
        secret += opened.key.secret
    return seal(block_key(key), block_context(put, place, block), secret, draw)


def unseal_block(put: bytes, key: Seed, place: int, block: int, sealed: bytes) -> Block:
    """Open a block's sealed row; `IntegrityError` if it was altered."""
    secret = unseal(block_key(key), block_context(put, place, block), sealed)
    parts, start = [], 0
    for size in (SEED_BYTES, _DIGEST_BYTES, _NAME_BYTES, SEED_BYTES):
        parts.append(secret[start : start + size])
        start += size
    seed, digest, name, own = parts
    if not name:
        return Block(Seed(seed))
    return Block(Seed(seed), digest, name.hex(), Seed(own) if own else file_key(key, name.hex()), bool(own))
