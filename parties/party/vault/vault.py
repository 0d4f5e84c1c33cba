"""A party's vault: what it keeps of others' data, and gives to sessions.

An object is here once its owner has shown this party the receipts of all; before that nothing of it counts.  A name
belongs to the key that put under it first, for good: whoever is issued that owner's name later inherits nothing.  For
what is unknown, has expired, or is not to be seen by who asks there is one answer.

`puts` has how an object comes here.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mpc.encoding import decode_field, field_size
from mpc.errors import ConfigError, InputError, IntegrityError, MpcError, SessionError
from mpc.prg import Seed
from parties import entropy
from parties.agreed.objects import Manifest
from parties.agreed.receipts import Tombstone
from parties.agreed.signed import Signed, key_of
from parties.config.models import PartyConfig
from parties.disk import private_folder
from parties.party.consent import audit
from parties.party.ledger.sessions import Ledger
from parties.party.vault import catalogue, files
from parties.party.vault.blocks import Block, open_block
from parties.party.vault.catalogue import LIVING, Entry, Row
from parties.party.vault.key_command import LEFT, KeyCommand
from parties.party.vault.keys import WrappingKey
from parties.party.vault.times import Times
from parties.telemetry import logger
from parties.trust.identity import Identity

FOLDER, KEY_FILE = "vault", "key"
GIVEN_UP, NEVER_COMPLETED = 86_400.0, 7 * 86_400.0
"""Seconds after which a put that nobody goes on with is dropped: one of which a part is here, and one that all is here
of, which exists at other parties perhaps."""
MOST_LISTED = 256
_REMEMBERED = 8


def unknown() -> SessionError:
    """Make the one answer for what is not here, or not for who asks."""
    return SessionError(
        "there is no such object here, or you may not see it",
        remedy="look at its name and version; its owner decides who may see it",
    )


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
        self._erasing = threading.Lock()
        private_folder(self.folder)
        self.keys = self._wrapping_key()
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
        self.erase(abandoned)

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
        row = self._living(object_id)
        with self.ledger.reading() as database:
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

    # -- the end of an object

    def remove(self, signed: Signed, client: str, key: bytes) -> None:
        """Remove an object for good, as its owner has signed, with all that was kept of it: keys, and then files.

        A put that is under way, and keeps blocks of it, is given up.

        Raises:
            SessionError: there is no such object of this client.
            IntegrityError: the tombstone is another cluster's, or somebody else signed it.
        """
        row = self.buried(signed, client, key)
        if row is None:
            return
        with self.ledger.reading() as database:
            begun = catalogue.unfinished(database, row.name)
            begun = [each for each in begun if catalogue.shares(database, each.number, row.number)]
        gone = self.gone_with([row])

        def also(database: sqlite3.Connection) -> None:
            self.bury(database, row, signed, gone)
            for each in gone[1:]:
                self.note(database, audit.REMOVE, each)

        self.erase([*gone, *(each for each in begun if each not in gone)], also)
        self.tell_removed(row)

    def buried(self, signed: Signed, client: str, key: bytes) -> Row | None:
        """Return the object that a tombstone is of; None if it was removed before.  Raises as `remove`."""
        now = self.times.now()
        stone = Tombstone.verify(self.identity.trust, signed, lambda: now)
        if stone.cluster != self.config.cluster:
            raise IntegrityError("this tombstone is for another cluster", peer=client)
        if stone.owner != client or key_of(signed.certificate) != key:
            raise unknown()
        with self.ledger.reading() as database:
            row = catalogue.by_id(database, stone.object)
            buried = catalogue.is_buried(database, stone.object)
        if row is None and buried:
            self._require_settled()
            return None
        if row is None or (row.owner, row.owner_key) != (client, key):
            raise unknown()
        return row

    def gone_with(self, rows: Sequence[Row]) -> list[Row]:
        """List these objects, and all that was kept of them or of versions with their values: it goes with them."""
        with self.ledger.reading() as database:
            kept = [each for row in rows for each in catalogue.kept_of(database, _values_of(row))]
        return list({each.number: each for each in (*rows, *kept)}.values())

    def bury(self, database: sqlite3.Connection, row: Row, signed: Signed, gone: Sequence[Row]) -> None:
        """Keep the tombstone of an object, within the transaction in which it is erased.

        gone: all that is erased in it, see `gone_with`.

        Raises:
            SessionError: something was kept of it meanwhile.
        """
        kept = catalogue.kept_of(database, _values_of(row))
        if {each.number for each in kept} - {each.number for each in gone}:
            raise SessionError(f"something is being kept of {row.name} just now", remedy="try again")
        catalogue.bury(database, _values_of(row), row.name, signed)
        self.note(database, audit.REMOVE, row)

    def tell_removed(self, row: Row) -> None:
        """Log that an object was removed."""
        logger().info("an object was removed", name=row.name, version=row.version, object=row.object, owner=row.owner)

    def note(self, database: sqlite3.Connection, kind: str, row: Row) -> None:
        """Add to the audit chain what was done with an object, for its owner, within the caller's transaction."""
        facts = {"object": row.object, "name": row.name, "version": row.version, "owner": row.owner}
        audit.append(database, self.draw, kind, self.times.shown(), [row.owner], **facts)

    def erase(self, rows: Sequence[Row], also: Callable[[sqlite3.Connection], None] = lambda _: None) -> None:
        """Delete objects' keys durably, so that no copy of anything opens them, and then their files.

        A file that another version keeps stays, and is counted as that one's.

        also: done in the same transaction.

        Raises:
            ConfigError: all that is done, but for the end of the old wrapping key, which is tried again.
        """
        if not rows:
            return
        with self._erasing:
            fresh, old = self.keys.prepare(), self.keys.copy()
            try:
                with self.ledger.writing(counted=True) as database:
                    also(database)
                    left = catalogue.erase(database, rows)
                    kept = [(n, put, self.keys.unwrap(put, key)) for n, put, key in catalogue.wrapped_keys(database)]
                    rewrapped = [(fresh.wrap(put, key), number) for number, put, key in kept]
                    catalogue.rewrap(database, rewrapped, fresh.id)
                    self.times.store(database)
                    self.keys.adopt(fresh)  # nobody reads before this transaction is over
            except BaseException:
                self.keys.adopt(old)
                raise
            failed = self._settle()
        with self._lock:
            for row in rows:
                self._parsed.pop(bytes.fromhex(row.object or ""), None)
        self.ledger.forget_deleted()
        files.remove(self.folder, left)
        if failed is not None:
            raise failed

    def _require_settled(self) -> None:
        with self._erasing:
            failed = self._settle() if self.keys.has_left else None
        if failed is not None:
            raise failed

    def _settle(self) -> ConfigError | None:
        """Let go of the old wrapping key; why that has to be tried again, if it has."""
        try:
            self.keys.settle()
        except ConfigError as error:
            logger().error("an old wrapping key is not deleted yet", why=str(error))
            return ConfigError(
                "what was removed is gone, and the key that its key was wrapped by is not deleted yet",
                cause="the store in which this party keeps its wrapping key does not answer",
                remedy="remove it again in a while; the party's operator is told, too",
            )
        return None

    def tick(self) -> None:
        """Drop puts that were given up and objects that have expired; remember the time."""
        try:
            now = self.times.now()
            if not self.times.is_due():
                return
            with self.ledger.writing() as database:
                self.times.store(database)
                rows = catalogue.overdue(database, now - GIVEN_UP, now - NEVER_COMPLETED, now)
            self.erase(rows)
            with self._erasing:
                if self.keys.has_left:
                    self._settle()
            for row in rows:
                event = "an object has expired" if row.state == LIVING else "a put was given up"
                logger().info(event, name=row.name, version=row.version, owner=row.owner)
        except MpcError as error:
            logger().warning("data at rest are not looked after", why=str(error))


def _key_of(block: Block) -> Seed:
    if block.key is None:
        raise SessionError("nothing of that block is here yet")
    return block.key


def _values_of(row: Row) -> list[str]:
    """List the ids of the versions that have an object's very values: its own, and those that it is a refresh of."""
    kept = json.loads(row.schema).get("kept") or {}
    own = [each["object"] for each in kept.get("origins", ()) if each["name"] == row.name]
    return list(dict.fromkeys([row.object or "", *kept.get("refreshes", ()), *own]))
