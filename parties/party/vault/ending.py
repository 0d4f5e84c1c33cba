"""End objects at a party: removed by their owners, given up while they are put, or expired.

An object ends with its keys, in one transaction, and with all that was kept of it; files go behind that.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from mpc.errors import ConfigError, IntegrityError, MpcError, SessionError
from parties.agreed.receipts import Tombstone
from parties.agreed.signed import Signed, key_of
from parties.party.collecting import contributions
from parties.party.consent import audit
from parties.party.ledger.sessions import Ledger
from parties.party.vault import catalogue, erased, files
from parties.party.vault.catalogue import LIVING, Row
from parties.party.vault.keys import WrappingKey
from parties.party.vault.times import Times
from parties.telemetry import logger
from parties.trust.chains import Trust

GIVEN_UP, NEVER_COMPLETED = 86_400.0, 7 * 86_400.0
"""Seconds after which a put that nobody goes on with is dropped: one of which a part is here, and one that all is here
of, which exists at other parties perhaps."""


def unknown() -> SessionError:
    """Make the one answer for what is not here, or not for who asks."""
    return SessionError(
        "there is no such object here, or you may not see it",
        remedy="look at its name and version; its owner decides who may see it",
    )


class Ending:
    """The end of one party's objects.  Thread-safe.

    Args:
        folder: of the blocks' files.
        cluster: its id.
        draw: fresh random bytes.
        forget: told which objects are gone.
    """

    def __init__(
        self,
        ledger: Ledger,
        folder: Path,
        cluster: str | None,
        trust: Trust,
        keys: WrappingKey,
        times: Times,
        draw: Callable[[int], bytes],
        forget: Callable[[Sequence[Row]], None],
    ) -> None:
        self._ledger, self._folder, self._cluster, self._trust = ledger, folder, cluster, trust
        self._keys, self._times, self._draw, self._forget = keys, times, draw, forget
        self._erasing = threading.Lock()
        self._is_behind = False

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
        gone = self.erase(lambda database: self.bury(database, [(row, signed)]))
        if row in gone:
            self.tell_removed(row)

    def buried(self, signed: Signed, client: str, key: bytes) -> Row | None:
        """Return the object that a tombstone is of; None if it was removed before.  Raises as `remove`."""
        now = self._times.now()
        stone = Tombstone.verify(self._trust, signed, lambda: now)
        if stone.cluster != self._cluster:
            raise IntegrityError("this tombstone is for another cluster", peer=client)
        if stone.owner != client or key_of(signed.certificate) != key:
            raise unknown()
        with self._ledger.reading() as database:
            row = catalogue.by_id(database, stone.object)
            buried = erased.is_buried(database, stone.object)
        if row is None and buried:
            self._require_settled()
            return None
        if row is None or (row.owner, row.owner_key) != (client, key):
            raise unknown()
        return row

    def bury(self, database: sqlite3.Connection, stones: Sequence[tuple[Row, Signed]]) -> list[Row]:
        """Keep the tombstones of objects, within the transaction in which `erase` erases what this returns.

        Returns:
            These objects, as far as they are here, all that was kept of them or of versions with their values, and
            what is being put and keeps blocks of theirs.
        """
        here = [(row, signed) for row, signed in stones if catalogue.by_put(database, row.put) is not None]
        gone = {row.number: row for row, _ in here}
        for row, signed in here:
            contributions.require_loose(database, row)
            values = _values_of(row)
            erased.bury(database, values, row.name, signed)
            gone |= {each.number: each for each in catalogue.kept_of(database, values)}
        for each in gone.values():
            self.note(database, audit.REMOVE, each)
        for row, _ in here:
            begun = [each for each in catalogue.unfinished(database, row.name) if each.number not in gone]
            gone |= {each.number: each for each in begun if erased.shares(database, each.number, row.number)}
        return list(gone.values())

    def tell_removed(self, row: Row) -> None:
        """Log that an object was removed."""
        logger().info("an object was removed", name=row.name, version=row.version, object=row.object, owner=row.owner)

    def note(self, database: sqlite3.Connection, kind: str, row: Row) -> None:
        """Add to the audit chain what was done with an object, for its owner, within the caller's transaction."""
        facts = {"object": row.object, "name": row.name, "version": row.version, "owner": row.owner}
        audit.append(database, self._draw, kind, self._times.shown(), [row.owner], **facts)

    def give_up(self, name: str, key: bytes) -> None:
        """Erase what that key is putting or keeping under a name and has not finished; raises as `erase`.

        What was gathered of a collection stays: it is its clients'.
        """

        def begun(database: sqlite3.Connection) -> list[Row]:
            found = [row for row in catalogue.unfinished(database, name) if row.owner_key == key]
            return [row for row in found if json.loads(row.schema).get("gathered") is None]

        with self._ledger.reading() as database:
            some = bool(begun(database))
        if some:
            self.erase(begun)

    def erase_all(self, rows: Sequence[Row]) -> None:
        """Delete these objects, as far as they are here; raises as `erase`."""
        if rows:
            self.erase(lambda _: rows)

    def erase(
        self, which: Callable[[sqlite3.Connection], Sequence[Row]], accepted: Callable[[], float] | None = None
    ) -> list[Row]:
        """Delete objects' keys durably, so that no copy of anything opens them, and then their files.

        A file that another version keeps stays, and is counted as that one's.

        Args:
            which: says in the transaction which objects end, and writes whatever belongs to that.
            accepted: says behind that at which time, in seconds since 1970, the party's clock begins again with the
                transaction.

        Raises:
            ConfigError: all that is done, but for the end of the old wrapping key, which is tried again.
        """
        with self._erasing:
            fresh, old = self._keys.prepare(), self._keys.copy()
            try:
                with self._ledger.writing(counted=True) as database:
                    rows = list(which(database))
                    begins = None if accepted is None else accepted()
                    left = erased.erase(database, rows)
                    kept = [(n, put, self._keys.unwrap(put, key)) for n, put, key in erased.wrapped_keys(database)]
                    rewrapped = [(fresh.wrap(put, key), number) for number, put, key in kept]
                    erased.rewrap(database, rewrapped, fresh.id)
                    self._times.store(database, begins)
                    self._keys.adopt(fresh)  # nobody reads before this transaction is over
            except BaseException:
                self._keys.adopt(old)
                raise
            if begins is not None:
                self._times.accept(begins)
            failed = self._settle()
        self._forget(rows)
        self._ledger.forget_deleted()
        files.remove(self._folder, left)
        if failed is not None:
            raise failed
        return rows

    def _require_settled(self) -> None:
        with self._erasing:
            failed = self._settle() if self._keys.has_left else None
        if failed is not None:
            raise failed

    def _settle(self) -> ConfigError | None:
        """Let go of the old wrapping key; why that has to be tried again, if it has."""
        try:
            self._keys.settle()
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
            now = self._now()
            if now is None or not self._times.is_due():
                return
            with self._ledger.writing() as database:
                self._times.store(database)
                due = bool(_overdue(database, now))
            rows = self.erase(lambda database: _overdue(database, now)) if due else []
            with self._erasing:
                if self._keys.has_left:
                    self._settle()
            for row in rows:
                event = "an object has expired" if row.state == LIVING else "a put was given up"
                logger().info(event, name=row.name, version=row.version, owner=row.owner)
        except MpcError as error:
            self._times.put_off()
            logger().warning("data at rest are not looked after", why=str(error))

    def _now(self) -> float | None:
        """Tell the time; None while the clock is behind, which is logged once."""
        try:
            now = self._times.now()
        except SessionError as error:
            if not self._is_behind:
                self._is_behind = True
                logger().warning("data at rest are not looked after", why=error.what, fix=error.remedy)
            return None
        if self._is_behind:
            self._is_behind = False
            logger().info("the clock is not behind any more: data at rest are looked after again")
        return now


def _overdue(database: sqlite3.Connection, now: float) -> list[Row]:
    return catalogue.overdue(database, now - GIVEN_UP, now - NEVER_COMPLETED, now)


def _values_of(row: Row) -> list[str]:
    """List the ids of the versions that have an object's very values: its own, and those that it is a refresh of."""
    kept = json.loads(row.schema).get("kept") or {}
    own = [each["object"] for each in kept.get("origins", ()) if each["name"] == row.name]
    return list(dict.fromkeys([row.object or "", *kept.get("refreshes", ()), *own]))
