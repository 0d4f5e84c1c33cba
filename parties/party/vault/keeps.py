"""Make what a session computes an object at this party: block by block, then signed by all, or not at all.

A block is written before its run is told, and listed in the transaction that writes `revealed`; with the last one the
whole object is here.  It exists once this party has the signatures of all parties under its manifest: each signs
behind that transaction, so whoever has all of them knows that it is whole everywhere.  What a session leaves unfinished
is erased when it ends, or at the next start.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mpc.encoding import field_size, view_field
from mpc.errors import HandshakeError, InputError, PolicyError, SessionError
from mpc.prg import SEED_BYTES, Seed
from parties.agreed.keeps import Keep
from parties.agreed.objects import Manifest, Schema
from parties.agreed.signed import Signed
from parties.config.models import PartyConfig
from parties.party.consent import audit, tables
from parties.party.vault import catalogue, erased, files
from parties.party.vault.admission import MOST_SKEW, granted, require_bytes, require_next, require_room
from parties.party.vault.blocks import Block, seal_block
from parties.party.vault.catalogue import KEEPING, RECEIVED, Row
from parties.party.vault.files import BlockWriter, file_key
from parties.party.vault.vault import Vault
from parties.telemetry import logger


@dataclass(frozen=True)
class KeptBlock:
    """A block that is on the disk, and listed nowhere yet.

    Args:
        place: of its column.
        number: of the block.
        seed: k_i.
        digest: BLAKE3 of x^.
        file: its name.
    """

    place: int
    number: int
    seed: Seed = field(repr=False)
    digest: bytes = field(repr=False)
    file: str


class Making:
    """One object that a session makes at this party; its session's threads use it one after another.

    Args:
        key: digest of the coordinator's public key, whose object it will be.
    """

    def __init__(self, vault: Vault, keep: Keep, key: bytes) -> None:
        self.keep, self.vault, self._key = keep, vault, key
        self._put, self._own = vault.draw(16), Seed(vault.draw(SEED_BYTES))
        self._begun = False

    def require_new(self, refreshes: bool) -> None:
        """Require that the object may be made here: its version follows, it was named now, and its name is free for it.

        refreshes: it is a refresh of the version before.

        Raises:
            PolicyError, SessionError, InputError: it may not.
        """
        keep, now = self.keep, self.vault.times.now()
        if abs(keep.created - now) > MOST_SKEW or (keep.expires and keep.expires <= now):
            raise InputError(f"{keep.name} was not named now, or has expired", remedy="look at the clocks: mpc doctor")
        with self.vault.ledger.reading() as database:
            require_next(database, keep, self._key)
            before = catalogue.versions(database, keep.name)
        if before and not refreshes and max(before, key=lambda row: row.version).is_put:
            raise PolicyError(
                f"{keep.name} is a dataset that was put, and what is kept now is something else",
                remedy="keep it under another name; cluster.datasets.refresh makes a dataset's next version",
            )

    def write(self, place: int, number: int, seed: Seed, public: np.ndarray) -> KeptBlock:
        """Write z^ of one output of a run to the disk; `discard` the file if it is not listed."""
        name, size = self.vault.draw(16).hex(), field_size(public.shape)
        with BlockWriter(self.vault.folder, name, file_key(self._own, name), size, self.keep.owner) as writer:
            digest = writer.write([view_field(np.ascontiguousarray(public))])
            writer.keep()
        return KeptBlock(place, number, seed, digest, name)

    def discard(self, blocks: Sequence[KeptBlock]) -> None:
        """Delete the files of blocks that were not listed."""
        files.remove(self.vault.folder, [each.file for each in blocks])

    def clear(self) -> None:
        """Erase what was left of this name before the first block of it is listed: no party lets it exist any more."""
        if self._begun:
            return
        self.vault.ending.give_up(self.keep.name, self._key)

    def enter(
        self,
        database: sqlite3.Connection,
        schema: Schema,
        blocks: Sequence[KeptBlock],
        grants: Sequence[tuple[str, str, bytes]],
    ) -> Row:
        """List blocks of a run, in the transaction that writes `revealed`.

        Args:
            schema: of the object, as far as it is known.
            grants: under which the run is allowed, each with its owner and key.

        Raises:
            SessionError: there is no room for it, or somebody has erased what was here of it.
        """
        size = granted(schema, self.vault.config.limits)
        if not self._begun:
            require_room(database, self.vault.config.limits, schema, size)
            wrapped = self.vault.keys.wrap(self._put, self._own)
            made = catalogue.insert(database, self._put, self._key, schema, size, wrapped, KEEPING)
            if schema.plan is not None:  # of a model that is refreshed
                catalogue.copy_plan(database, made.number, schema.previous)
        row = self._row(database, KEEPING)
        if size > row.size:  # how long its blocks are, each run says for itself
            require_bytes(database, self.vault.config.limits, schema, size - row.size)
            catalogue.grow(database, row.number, size)
        catalogue.touch(database, row.number, self.vault.times.shown())
        for each in blocks:
            place, draw = (each.place, each.number), self.vault.draw
            opened = Block(each.seed, each.digest, each.file)
            sealed = seal_block(self._put, self._own, *place, opened, draw)
            values = (row.number, *place, sealed, each.file)
            database.execute("INSERT INTO data_blocks VALUES (?, ?, ?, ?, ?)", values)
        tables.keep_under(database, row.number, grants)
        tables.keep_under_those_of(database, row.number, schema.kept.objects if schema.kept is not None else ())
        return row

    def receive(self, database: sqlite3.Connection, row: Row, whole: Manifest) -> None:
        """Take down that all of the object is here, in that transaction too.

        Raises:
            SessionError: what it came from has been removed.
        """
        self._require_living(database, whole)
        catalogue.keep_whole(database, row.number, whole, granted(whole, self.vault.config.limits))
        if whole.plan is not None and catalogue.plan_of(database, row.number) is None:
            raise SessionError(f"the model that {whole.name} is a refresh of is gone", remedy="put it again")

    def listed(self) -> None:
        """Note that the transaction is over, and its first blocks are listed."""
        self._begun = True

    def complete(self, whole: Manifest, signed: Signed) -> None:
        """Let the object exist: all parties have signed it.

        Raises:
            SessionError: another version was put meanwhile, or what it came from has been removed.
        """
        with self.vault.ledger.writing(counted=True) as database:
            row = self._row(database, RECEIVED)
            require_next(database, whole, self._key)
            self._require_living(database, whole)
            catalogue.endorse(database, row.number, signed.endorsements)
            catalogue.bring_to_life(database, row)
            self.vault.ending.note(database, audit.KEEP, row)
            self.vault.times.store(database)
        logger().info("an object was kept", name=row.name, version=row.version, object=row.object, owner=row.owner)

    def replace(self, whole: Manifest, before: Manifest) -> None:
        """Erase the versions whose seeds or values a refresh has made worthless."""
        old = _seeds_of(before)
        with self.vault.ledger.reading() as database:
            rows = [row for row in catalogue.versions(database, whole.name) if row.version < whole.version]
            manifests = [Manifest.parse(catalogue.signed_of(database, row.number).content) for row in rows]
        gone = [
            row
            for row, found in zip(rows, manifests, strict=True)
            if found.id.hex() in whole.aliases or found.aliases & whole.aliases or _seeds_of(found) & old
        ]
        self.vault.ending.erase_all(gone)

    def give_up(self) -> None:
        """Erase what is here of an object that is not whole: its session is over."""
        with self.vault.ledger.reading() as database:
            row = catalogue.by_put(database, self._put)
        if row is not None and row.state == KEEPING:
            self.vault.ending.erase_all([row])

    def _row(self, database: sqlite3.Connection, state: str) -> Row:
        row = catalogue.by_put(database, self._put)
        if row is None or row.state != state:
            raise SessionError(
                f"what was kept of {self.keep.name} is gone",
                cause="its owner puts, or keeps, something else under that name, or has removed what it came from",
                remedy="start a new session",
            )
        return row

    def _require_living(self, database: sqlite3.Connection, whole: Manifest) -> None:
        kept = whole.kept
        for each in () if kept is None else {*kept.objects, *(origin.object for origin in kept.origins)}:
            if erased.is_buried(database, each):
                raise SessionError(f"what {whole.name} came from has been removed", remedy="start a new session")


def _seeds_of(whole: Manifest) -> frozenset[str]:
    """Return the commitments to all seeds of an object, block by block."""
    return frozenset(each for blocks in whole.commitments.values() for each in blocks)


def require_ours(config: PartyConfig, names: Sequence[str]) -> None:
    """Require that this party keeps data at all, for these parties; `HandshakeError`."""
    if config.cluster is None:
        raise HandshakeError(
            f"{config.name}'s config has no cluster id, so it keeps no data",
            remedy="make an id with mpc cert cluster, and put it as 'cluster' into every config",
        )
    if tuple(names) != tuple(peer.name for peer in config.peers):
        raise HandshakeError("the session is one of other parties than this party's")
