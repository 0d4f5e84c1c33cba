"""A party's vault: what it keeps of others' data, and gives to sessions.

An object is here once its owner has shown this party the receipts of all; before that nothing of it counts.  A name
belongs to the key that put under it first, for good: whoever is issued that owner's name later inherits nothing.  For
what is unknown, has expired, or is not to be seen by who asks there is one answer.

`puts` has how an object comes here, `ending` how it goes.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mpc.encoding import decode_field, field_size
from mpc.errors import InputError, SessionError
from mpc.prg import Seed
from parties import entropy
from parties.agreed.listed import Entry
from parties.agreed.objects import Manifest
from parties.agreed.signed import Signed
from parties.config.models import PartyConfig
from parties.disk import private_folder
from parties.party.ledger.sessions import Ledger
from parties.party.vault import catalogue, files
from parties.party.vault.blocks import Block, open_block
from parties.party.vault.catalogue import LIVING, Row
from parties.party.vault.ending import Ending, unknown
from parties.party.vault.key_command import LEFT, KeyCommand
from parties.party.vault.keys import WrappingKey
from parties.party.vault.times import Times
from parties.trust.identity import Identity

FOLDER, KEY_FILE = "vault", "key"
MOST_LISTED = 256
_REMEMBERED = 8


class Vault:
    """Everything that one party keeps of objects.  Thread-safe.

    Args:
        clock: seconds since 1970.
        draw: fresh random bytes.

    Raises:
        ConfigError: the ledger, the folder or the wrapping key.
    """

    def __init__(
        self,
        config: PartyConfig,
        identity: Identity,
        ledger: Ledger,
        draw: Callable[[int], bytes] = entropy.token,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.config, self.identity, self.ledger, self.draw = config, identity, ledger, draw
        self.folder: Path = config.data_dir / FOLDER
        self.times = Times(clock)
        self._parsed: OrderedDict[bytes, Manifest] = OrderedDict()
        self._lock = threading.Lock()
        private_folder(self.folder)
        self.keys = self._wrapping_key()
        trust = identity.trust
        self.ending = Ending(ledger, self.folder, config.cluster, trust, self.keys, self.times, draw, self._forget)
        self._start()

    def _wrapping_key(self) -> WrappingKey:
        config, path = self.config, self.config.data_key or self.folder / KEY_FILE
        if not config.data_key_command:
            return WrappingKey(path, self.draw)
        return KeyCommand(config.data_key_command, config.data_key_seconds, path, self.folder / LEFT, self.draw)

    def _start(self) -> None:
        with self.ledger.writing(durable=True) as database:
            self.times.start(database)
            found = database.execute("SELECT key FROM data_wrapping").fetchone()
            wrapping = self.keys.start(found[0] if found else None)
            if found is None:
                database.execute("INSERT INTO data_wrapping VALUES (?)", (wrapping,))
            catalogue.start(database)
            listed = database.execute("SELECT file FROM data_blocks WHERE file IS NOT NULL")
            left = files.orphans(self.folder, {name for (name,) in listed})
            abandoned = catalogue.abandoned(database)
        self.ledger.forget_deleted()
        files.remove(self.folder, left)
        self.ending.erase_all(abandoned)

    # -- for sessions

    def find(self, name: str, client: str | None = None, key: bytes = b"") -> Manifest:
        """Return the manifest of the newest living version of a name.

        Args:
            client, key: who asks, and the digest of its public key; None for the party itself.

        Raises:
            SessionError: there is none for who asks, or this party's clock is behind.
        """
        now = self.times.now()
        with self.ledger.reading() as database:
            row = catalogue.newest(database, name, now)
            self._require_seen(database, row, client, key)
        return self._manifest(row)

    def manifest(self, object_id: bytes) -> Manifest:
        """Return the manifest of an object that exists; raises as `find`."""
        return self._manifest(self._living(object_id))

    def signed(self, object_id: bytes) -> Signed:
        """Return the manifest as its owner signed it; raises as `find`."""
        self._living(object_id)
        with self.ledger.reading() as database:
            row = catalogue.by_id(database, object_id.hex())  # once more: it may have been removed meanwhile
            if row is None:
                raise unknown()
            return catalogue.signed_of(database, row.number)

    def plan(self, object_id: bytes) -> bytes:
        """Return the canonical bytes of the plan that a model is for; raises as `find`."""
        row = self._living(object_id)
        with self.ledger.reading() as database:
            found = catalogue.plan_of(database, row.number)
        if found is None:
            raise unknown()
        return found

    def owner_key(self, object_id: bytes) -> bytes:
        """Return the digest of the public key that an object belongs to; raises as `find`."""
        return self._living(object_id).owner_key

    def seed(self, object_id: bytes, column: str, block: int) -> Seed:
        """Return this party's seed k_i of a block.

        Raises:
            SessionError: there is no such object.
            InputError: no such column or block.
            IntegrityError: the party's disk was altered.
        """
        return self._block(object_id, column, block)[1].seed

    def block(self, object_id: bytes, column: str, block: int) -> np.ndarray:
        """Return a block's x^: uint64 field elements, (rows, *shape); raises as `seed`."""
        whole, found = self._block(object_id, column, block)
        shape = whole.block_shape(column, block)
        return files.read_block(self.folder, found.name, _key_of(found), shape, found.digest)

    def rows(self, object_id: bytes, column: str, block: int, start: int, stop: int) -> np.ndarray:
        """Return x^ of rows `start` to `stop` of a block, uint64 field elements, (stop - start, *shape).

        Raises:
            SessionError, InputError, IntegrityError: as `seed`.
        """
        whole, found = self._block(object_id, column, block)
        rows, *shape = whole.block_shape(column, block)
        if not 0 <= start < stop <= rows:
            raise InputError(f"rows {start} to {stop - 1} of a block of {rows} rows")
        row = field_size(tuple(shape))
        part = files.read_part(self.folder, found.name, _key_of(found), rows * row, start * row, stop * row)
        return decode_field(part, (stop - start, *shape))

    def _block(self, object_id: bytes, column: str, block: int) -> tuple[Manifest, Block]:
        """Return (manifest, the block, opened)."""
        row = self._living(object_id)
        whole = self._manifest(row)
        whole.block_shape(column, block)
        place = next(place for place, known in enumerate(whole.columns) if known.name == column)
        with self.ledger.reading() as database:
            # once more, and with the key that it is wrapped by now: it may have been removed meanwhile
            now = catalogue.by_id(database, object_id.hex())
            if now is None:
                raise unknown()
            found = open_block(database, now, self.keys.unwrap(now.put, now.wrapped), place, block)
        whole.check_seed(column, block, self.config.name, found.seed)
        return whole, found

    def _living(self, object_id: bytes) -> Row:
        now = self.times.now()
        with self.ledger.reading() as database:
            row = catalogue.by_id(database, object_id.hex())
        if row is None or row.state != LIVING or (row.expires is not None and row.expires <= now):
            raise unknown()
        return row

    def _manifest(self, row: Row | None) -> Manifest:
        if row is None or row.object is None:
            raise unknown()
        key = bytes.fromhex(row.object)
        with self._lock:
            if key in self._parsed:
                self._parsed.move_to_end(key)
                return self._parsed[key]
        with self.ledger.reading() as database:
            found = catalogue.by_id(database, row.object)
            if found is None:
                raise unknown()
            content = catalogue.signed_of(database, found.number).content
        whole = Manifest.parse(content)
        with self._lock:
            self._parsed[key] = whole
            while len(self._parsed) > _REMEMBERED:
                self._parsed.popitem(last=False)
        return whole

    def _forget(self, rows: Sequence[Row]) -> None:
        with self._lock:
            for row in rows:
                self._parsed.pop(bytes.fromhex(row.object or ""), None)

    # -- for clients

    def seen(self, client: str, key: bytes, object_id: bytes, name: str) -> tuple[bytes, int]:
        """(id, bytes of its manifest) of an object that the caller may see: by id, or the newest version of a name.

        Raises:
            SessionError: there is none for who asks.
        """
        now = self.times.now()
        with self.ledger.reading() as database:
            row = catalogue.by_id(database, object_id.hex()) if object_id else catalogue.newest(database, name, now)
            if row is not None and (row.state != LIVING or (row.expires is not None and row.expires <= now)):
                row = None
            row = self._require_seen(database, row, client, key)
            return bytes.fromhex(row.object or ""), catalogue.size_of(database, row.number)

    def entries(
        self, client: str, key: bytes, words: str = "", after: tuple[str, int] = ("", 0), limit: int = MOST_LISTED
    ) -> list[Entry]:
        """List what a client may see, of objects with these words; at most 256 from `after` on."""
        now = self.times.now()
        with self.ledger.reading() as database:
            return catalogue.entries(database, client, key, words, after, min(max(limit, 1), MOST_LISTED), now)

    def owns(self, client: str, key: bytes | None = None) -> bool:
        """Is anything here put under that client's name, by that key if one is given?"""
        with self.ledger.reading() as database:
            return catalogue.owns(database, client, key)

    def _require_seen(self, database: sqlite3.Connection, row: Row | None, client: str | None, key: bytes) -> Row:
        if row is None or (client is not None and not catalogue.is_seen(database, row.number, client, key)):
            raise unknown()
        return row


def _key_of(block: Block) -> Seed:
    if block.key is None:
        raise SessionError("nothing of that block is here yet")
    return block.key
