"""Take the objects that owners put: schema, seeds, blocks, manifest, receipts.

A seed is fresh for each call that asks for it, so none is given twice, and it takes one x^: a second one that differs
is refused, since two values under one seed show their difference.  Who cannot go on where it was asks for another
seed.  Until the owner has shown the receipts of all parties, nothing that was put counts.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from functools import lru_cache

from mpc.encoding import field_size
from mpc.errors import InputError, IntegrityError, PolicyError, SessionError
from mpc.prg import SEED_BYTES, Seed
from parties.agreed.models import read_model
from parties.agreed.objects import Manifest, Schema
from parties.agreed.receipts import Receipt
from parties.agreed.signed import Signed, key_of
from parties.party.collecting import contributions
from parties.party.consent import audit
from parties.party.stock.files import sync
from parties.party.vault import catalogue, files
from parties.party.vault.admission import (
    MOST_SKEW,
    granted,
    manifest_size,
    require_kind,
    require_next,
    require_ours,
    require_room,
)
from parties.party.vault.blocks import Block, open_block, seal_block, unseal_block
from parties.party.vault.catalogue import DRAFT, LIVING, Row
from parties.party.vault.contents import require_contents
from parties.party.vault.ending import unknown
from parties.party.vault.files import BlockWriter, file_key
from parties.party.vault.vault import Vault
from parties.party.vault.versions import Kept, add_kept, kept_from, require_kept, sealed_anew
from parties.telemetry import logger

PUT_BYTES = 16


@lru_cache(8)
def _read_schema(content: bytes) -> Schema:
    return Schema.parse(content)


class Puts:
    """Objects that owners are putting at one party.  Thread-safe.

    Every call names its caller: a client, and the digest of the public key in its certificate.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault, self._config, self._ledger = vault, vault.config, vault.ledger
        self._roster = tuple(peer.name for peer in vault.config.peers)
        self.parsing = threading.Lock()

    def begin(self, put: bytes, content: bytes, client: str, key: bytes, kept: Kept | None = None) -> str:
        """Begin, or go on with, a put: the state that it is in.

        Args:
            put: 16 random bytes that its owner has drawn.
            content: the schema's canonical bytes.
            kept: blocks that it keeps of the version before.

        Raises:
            InputError, PolicyError, HandshakeError, SessionError: it is refused; nothing was written.
        """
        if len(put) != PUT_BYTES:
            raise InputError(f"a put has an id of {PUT_BYTES} bytes, not {len(put)}")
        with self.parsing:
            schema = _read_schema(content)
        require_ours(self._config, schema, client)
        kept = kept or {}
        size, now = granted(schema, self._config.limits, kept), self._vault.times.now()
        with self._ledger.reading() as database:
            found = catalogue.by_put(database, put)
        if found is not None:
            if (found.owner_key, found.schema) != (key, content):
                raise SessionError("that put is another one", remedy="begin again")
            return found.state
        if abs(schema.created - now) > MOST_SKEW or (schema.expires is not None and schema.expires <= now):
            raise InputError("the object was not made now, or has expired", remedy="look at the clocks: mpc doctor")
        with self._ledger.reading() as database:
            require_next(database, schema, key)
            require_kind(database, schema)
            contributions.require_open(database, schema, now)
        self._vault.ending.give_up(schema.name, key)
        own = Seed(self._vault.draw(SEED_BYTES))
        rows = self._kept(schema, put, own, kept, now)
        with self._ledger.writing() as database:
            require_next(database, schema, key)
            contributions.require_open(database, schema, now)
            if kept:
                kept_from(database, schema, now)
            if catalogue.unfinished(database, schema.name):
                raise SessionError(f"{schema.name} is being put by another process", remedy="wait for it")
            require_room(database, self._config.limits, schema, size)
            row = catalogue.insert(database, put, key, schema, size, self._vault.keys.wrap(put, own))
            add_kept(database, row.number, rows)
            contributions.begin(database, schema, row.number)
            catalogue.touch(database, row.number, now)
        return DRAFT

    def _kept(self, schema: Schema, put: bytes, own: Seed, kept: Kept, now: float) -> list[tuple[int, int, bytes, str]]:
        """Seal the blocks that a put keeps under its own key."""
        if not kept:
            return []
        with self._ledger.reading() as database:
            before = kept_from(database, schema, now)
            require_kept(schema, _read_schema(before.schema), kept)
            key = self._vault.keys.unwrap(before.put, before.wrapped)
            return sealed_anew(database, before, key, put, own, kept, self._vault.draw)

    def manifest_size(self, put: bytes, key: bytes) -> int:
        """Return the bytes that the manifest of a put has at most."""
        with self._ledger.reading() as database:
            row, _ = self._open(database, put, key)
        return manifest_size(_read_schema(row.schema))

    def plan(self, put: bytes, content: bytes, key: bytes) -> None:
        """Keep the plan that a model is for.

        Raises:
            PlanError, InputError: it is no plan, or not the one that the model's schema names.
            SessionError: no such put.
        """
        with self._ledger.reading() as database:
            row, _ = self._open(database, put, key)
        with self.parsing:
            read_model(_read_schema(row.schema), content)
        with self._ledger.writing() as database:
            row, _ = self._open(database, put, key)
            if row.state == DRAFT:
                catalogue.keep_plan(database, row.number, content)

    def held(self, put: bytes, key: bytes) -> list[tuple[int, int, bytes, bytes]]:
        """List the blocks that are here: (place of the column, block, H(k_i), BLAKE3 of x^)."""
        with self._ledger.reading() as database:
            row, own = self._open(database, put, key)
            sealed = catalogue.blocks_of(database, row.number)
        opened = [(place, block, unseal_block(row.put, own, place, block, each)) for place, block, each in sealed]
        return [(place, block, found.seed.commitment(), found.digest) for place, block, found in opened]

    def newest(self, name: str, key: bytes) -> tuple[int, str]:
        """(newest version, its id in hex) of a name that this key has put under; (0, "") of any other."""
        with self._ledger.reading() as database:
            known = catalogue.name_of(database, name)
        return (known[1], known[2]) if known is not None and known[0] == key else (0, "")

    def seeds(self, put: bytes, block: int, places: Sequence[int], key: bytes) -> list[Seed]:
        """Draw a fresh seed for a block of each of these columns, in the place of older ones and of what lay under
        those."""
        now = self._vault.times.now()
        query = "SELECT sealed, file FROM data_blocks WHERE number = ? AND place = ? AND block = ?"
        given, older = [], []
        with self._ledger.writing() as database:
            row, own = self._draft(database, put, key)
            for place in places:
                self._shape(row, place, block)
                fresh = Seed(self._vault.draw(SEED_BYTES))
                for sealed, name in database.execute(query, (row.number, place, block)).fetchall():
                    if unseal_block(row.put, own, place, block, sealed).kept:
                        raise SessionError(f"block {block} of {row.name} is kept from the version before")
                    older += [name] if name else []
                sealed = seal_block(row.put, own, place, block, Block(fresh), self._vault.draw)
                values = (row.number, place, block, sealed)
                database.execute("INSERT OR REPLACE INTO data_blocks VALUES (?, ?, ?, ?, NULL)", values)
                given.append(fresh)
            catalogue.touch(database, row.number, now)
        files.remove(self._vault.folder, older)
        return given

    def receive(
        self, put: bytes, place: int, block: int, commitment: bytes, pieces: Iterable[bytes], client: str, key: bytes
    ) -> bytes:
        """Take a block's x^, which was masked with the seed of that commitment; its BLAKE3.

        Raises:
            SessionError: no such put, or another seed was given since.
            IntegrityError: another x^ is here under this seed.
            PeerError, EncodingError: its bytes.
        """
        with self._ledger.reading() as database:
            row, own = self._draft(database, put, key)
            self._require_seed(database, row, own, place, block, commitment)
        size, name = field_size(self._shape(row, place, block)), self._vault.draw(16).hex()
        with BlockWriter(self._vault.folder, name, file_key(own, name), size, client) as writer:
            digest = writer.write(pieces)
            with self._ledger.writing() as database:
                row, own = self._draft(database, put, key)
                found = self._require_seed(database, row, own, place, block, commitment)
                if found.name and found.digest != digest:
                    raise IntegrityError(
                        f"{client} sent a second value under one seed of {row.name}",
                        cause="two values under one seed show their difference",
                        remedy="ask for another seed, and mask the block with that",
                        peer=client,
                    )
                if not found.name:
                    written = Block(found.seed, digest, name)
                    sealed = seal_block(row.put, own, place, block, written, self._vault.draw)
                    values = (sealed, name, row.number, place, block)
                    database.execute(
                        "UPDATE data_blocks SET sealed = ?, file = ? WHERE number = ? AND place = ? AND block = ?",
                        values,
                    )
                    writer.keep()
                catalogue.touch(database, row.number, self._vault.times.now())
        return digest

    def commit(self, put: bytes, signed: Signed, salt: bytes, client: str, key: bytes) -> Signed:
        """Check the manifest against what is here, and give this party's receipt once all of it is on the disk.

        Raises:
            IntegrityError: its owner has not signed it, or it commits to something else than what is here.
            SessionError: no such put, or a block is missing.
        """
        now = self._vault.times.now()
        with self.parsing:
            whole = Manifest.verify(self._vault.identity.trust, signed, lambda: now)
        if whole.owner != client or key_of(signed.certificate) != key:
            raise PolicyError(f"{client!r} puts nothing under the name of {whole.owner!r}", remedy="sign as yourself")
        with self._ledger.reading() as database:
            row, own = self._open(database, put, key)
            if row.state != DRAFT and row.object != whole.id.hex():
                raise SessionError(f"{row.name} has another manifest here already", remedy="put it again")
            if row.schema != whole.schema_content:
                raise IntegrityError(f"the manifest of {row.name} says something else than its schema", peer=client)
            sealed = catalogue.blocks_of(database, row.number)
            if whole.plan is not None and catalogue.plan_of(database, row.number) is None:
                raise SessionError(f"the plan of {row.name} is not here", remedy="put the model again")
        require_contents(self._config.name, row, own, whole, salt, sealed)
        sync(self._vault.folder)
        with self._ledger.writing(counted=True) as database:
            row, _ = self._open(database, put, key)
            if catalogue.blocks_of(database, row.number) != sealed:
                raise SessionError(f"other seeds of {row.name} were given while its manifest was looked at")
            if row.state == DRAFT:
                catalogue.receive(database, row.number, whole.id.hex(), signed)
                contributions.receive(database, whole, row, own, salt, self._vault.draw)
            catalogue.touch(database, row.number, now)
            self._vault.times.store(database)
        receipt = Receipt(cluster=whole.cluster, party=self._config.name, object=whole.id.hex(), at=int(now))
        return receipt.sign(self._vault.identity)

    def complete(
        self, object_id: bytes, receipts: Sequence[Signed], client: str, key: bytes, stones: Sequence[Signed] = ()
    ) -> None:
        """Let the object exist here, now that the owner has shown the receipts of all parties.

        Args:
            stones: tombstones of older versions, which are removed in the same transaction.

        Raises:
            IntegrityError: a receipt or a tombstone is another's, or for something else.
            SessionError: no such object, or another version was put meanwhile.
        """
        now = self._vault.times.now()
        with self._ledger.reading() as database:
            row = self._committed(database, object_id, key)
        if row.state == LIVING:
            return
        if len(receipts) != len(self._roster):
            raise IntegrityError(f"{len(receipts)} receipts, and there are {len(self._roster)} parties", peer=client)
        for party, signed in zip(self._roster, receipts, strict=True):
            receipt = Receipt.verify(self._vault.identity.trust, signed, party, lambda: now)
            if (receipt.object, receipt.cluster) != (object_id.hex(), self._config.cluster):
                raise IntegrityError(f"{client} showed a receipt of {party} for something else", peer=client)
        schema, older = _read_schema(row.schema), self._older(row, stones, client, key)

        def live(database: sqlite3.Connection) -> list[Row]:
            found = self._committed(database, object_id, key)
            if found.state != LIVING:
                require_next(database, schema, key)
                contributions.require_open(database, schema, now)
                catalogue.bring_to_life(database, found)
                self._vault.ending.note(database, audit.PUT, found)
            self._vault.times.store(database)
            return self._vault.ending.bury(database, older)

        if older:
            self._vault.ending.erase(live)
        else:
            with self._ledger.writing(counted=True) as database:
                live(database)
        fields = {"name": row.name, "version": row.version, "object": row.object, "owner": client, "rows": schema.rows}
        logger().info("an object was put", **fields)
        for each, _ in older:
            self._vault.ending.tell_removed(each)

    def _older(self, row: Row, stones: Sequence[Signed], client: str, key: bytes) -> list[tuple[Row, Signed]]:
        """Return the versions before an object that tombstones are of, and that are still here."""
        found = []
        for stone in stones:
            older = self._vault.ending.buried(stone, client, key)
            if older is None:
                continue
            if older.name != row.name or older.version >= row.version:
                raise IntegrityError(f"{client} showed a tombstone of something else than versions before", peer=client)
            found.append((older, stone))
        return found

    # -- rows

    def _committed(self, database: sqlite3.Connection, object_id: bytes, key: bytes) -> Row:
        row = catalogue.by_id(database, object_id.hex())
        if row is None or row.owner_key != key:
            raise unknown()
        return row

    def _open(self, database: sqlite3.Connection, put: bytes, key: bytes) -> tuple[Row, Seed]:
        """(the row of a put, its key), for its owner."""
        row = catalogue.by_put(database, put)
        if row is None or row.owner_key != key:
            raise SessionError("this party knows no such put of yours", remedy="begin again: put the object once more")
        return row, self._vault.keys.unwrap(row.put, row.wrapped)

    def _draft(self, database: sqlite3.Connection, put: bytes, key: bytes) -> tuple[Row, Seed]:
        row, own = self._open(database, put, key)
        if row.state != DRAFT:
            raise SessionError(f"{row.name} is here as a whole: nothing of it changes any more")
        return row, own

    def _shape(self, row: Row, place: int, block: int) -> tuple[int, ...]:
        schema = _read_schema(row.schema)
        if not 0 <= place < len(schema.columns):
            raise InputError(f"{row.name} has no column {place}")
        return schema.block_shape(schema.columns[place].name, block)

    def _require_seed(
        self, database: sqlite3.Connection, row: Row, own: Seed, place: int, block: int, commitment: bytes
    ) -> Block:
        found = open_block(database, row, own, place, block)
        if found.seed.commitment() != commitment:
            raise SessionError("the block was masked with another seed than the last", remedy="mask it with that one")
        return found
