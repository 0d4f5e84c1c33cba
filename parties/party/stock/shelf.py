"""A party's stocks: correlations that were dealt ahead, kept on its disk until one session uses them.

A stock is a session that nobody has opened yet.  All parties agree on it as on any other - fresh
nonces, and an id that hashes them with plan, provider and roster - so its bundles are bound to that
id, and whoever opens it takes part in exactly that session.  The ledger decides whether it may be
used: `stocked` turns into `open` once, durably, before any of its files is read, and an open session
is burnt by a restart.  Files that the ledger does not list as stocked are worthless, wherever they
come from, and are deleted at the next start.

    data_dir/stock/<session id>/terms.json       whose it is, how many rows each run has
                                plan             canonical bytes
                                000000.bundle    the weights' masks; then one file for each run

A bundle file holds this party's seed, its corrections if it is the corrected one, and the provider's
signed manifest, which all of it is checked against when it is read.  A file is deleted as soon as
it is read.  What lies here is one party's share of the masks of runs to come: secret as its memory.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path

from mpc.errors import IntegrityError, MpcError, SessionError
from mpc.plan.parse import parse_plan
from parties.agreed.terms import Terms
from parties.config.models import PartyConfig
from parties.party.ledger.sessions import Ledger
from parties.party.stock.files import (
    FOLDER,
    FORMAT,
    PLAN,
    bundle_name,
    naming,
    on_disk,
    read_content,
    read_file,
    read_terms,
    remove,
    shown_path,
    size_of,
)
from parties.party.stock.orders import Held, Stock, Totals
from parties.party.stock.supply import StoredSupply
from parties.telemetry import logger
from parties.trust.identity import Identity

_ID = re.compile(r"[0-9a-f]{64}")


class Shelf:
    """All stocks of one party.  Thread-safe; made once a process, after the ledger.

    Attributes:
        lock: guards which stocks there are, and which are being dealt (`Orders`): they share one room.

    Raises:
        ConfigError: the disk fails.
    """

    def __init__(self, config: PartyConfig, identity: Identity, ledger: Ledger) -> None:
        self._config, self._identity, self._ledger = config, identity, ledger
        self._root = config.data_dir / FOLDER
        self.lock = threading.Lock()
        self._held: dict[bytes, Held] = {}
        with on_disk(self._root):
            self._load()

    def _load(self) -> None:
        if not self._root.is_dir():
            return
        listed = self._ledger.stocked()
        for folder in sorted(self._root.iterdir()):
            if not _ID.fullmatch(folder.name):
                continue
            session_id = bytes.fromhex(folder.name)
            if session_id not in listed:
                # Left by a crash, or put back from a copy: either way nothing may ever be computed with it.
                logger().warning("a stock that the ledger does not list was deleted", session=folder.name[:16])
                remove(folder)
                continue
            _, coordinator, made_at = listed[session_id]
            try:
                if read_content(folder)["format"] != FORMAT:
                    self._drop_foreign(session_id, coordinator, folder)
                    continue
                terms, batches = read_terms(folder)
            except MpcError as error:
                logger().error("a stock cannot be used", session=folder.name[:16], why=str(error))
                continue
            self._held[session_id] = Held(Stock(terms, batches, size_of(folder), made_at), coordinator)

    def _drop_foreign(self, session_id: bytes, coordinator: str, folder: Path) -> None:
        """Give up a stock that another version of this program wrote: none of it is ever read."""
        self._ledger.drop_stocked(session_id, coordinator)
        remove(folder)
        logger().warning("a stock of another version of mpc was deleted; deal others", session=folder.name[:16])

    @property
    def size(self) -> int:
        """Bytes that all stocks take; with the lock."""
        return sum(held.stock.size for held in self._held.values())

    def add(self, stock: Stock, coordinator: str) -> None:
        """Take a stock that the ledger has; with the lock."""
        self._held[stock.terms.session_id] = Held(stock, coordinator)

    def held(self, coordinator: str, plan_digest: bytes = b"") -> list[Stock]:
        """The stocks of one coordinator that can be used, the oldest first."""
        with self.lock:
            mine = [held for held in self._held.values() if held.coordinator == coordinator]
        stocks = [held.stock for held in mine if not held.taken]
        wanted = [stock for stock in stocks if plan_digest in (b"", stock.terms.plan_digest)]
        return sorted((stock for stock in wanted if self._whole(stock)), key=lambda stock: stock.made_at)

    def _whole(self, stock: Stock) -> bool:
        folder = self._root / stock.terms.session_id.hex()
        names = [PLAN, *map(bundle_name, stock.entries)]
        missing = next((name for name in names if not (folder / name).is_file()), None)
        if missing is not None:
            logger().error("a stock cannot be used: a file is missing", file=shown_path(folder / missing))
        return missing is None

    @property
    def totals(self) -> Totals:
        """For everyone who may ask for this party's health."""
        with self.lock:
            every = list(self._held.values())
        free = [held.stock for held in every if not held.taken]
        size = sum(held.stock.size for held in every)
        return Totals(len(free), sum(len(s.batches) for s in free), size, self._config.limits.max_stock_bytes)

    def take(self, terms: Terms, coordinator: str) -> StoredSupply:
        """The stock of exactly these terms, for the session that will open it.

        Nothing of it is read but its plan, and the ledger has yet to allow its use.

        Raises:
            SessionError: it is not here, or not whole; no other party's is harmed by saying so.
            IntegrityError: its plan was altered.
        """
        folder = self._root / terms.session_id.hex()
        with self.lock:
            held = self._held.get(terms.session_id)
        if held is None or held.taken or held.coordinator != coordinator or not self._whole(held.stock):
            raise SessionError(
                "this party has no stock of these terms",
                cause="it was used or dropped before, or its files are gone",
                remedy="start a session without it; mpc deal --list shows what there is, mpc deal makes more",
            )
        with on_disk(folder), naming(folder / PLAN):
            plan = parse_plan(read_file(folder / PLAN, self._config.limits.max_plan_bytes))
            if plan.digest != terms.plan_digest:
                raise IntegrityError("it is another plan's")
        return StoredSupply(folder, held.stock, plan, self._config.name, self._identity.trust)

    def taken(self, session_id: bytes) -> None:
        """The ledger has opened it: nobody finds it any more."""
        with self.lock:
            self._held[session_id].taken = True

    def drop(self, session_id: bytes, coordinator: str) -> bool:
        """Give up a stock of this coordinator; False if there is none."""
        if not self._ledger.drop_stocked(session_id, coordinator):
            return False
        self.remove(session_id)
        return True

    def remove(self, session_id: bytes) -> None:
        """Delete what is left of a stock that the ledger no longer lists; nothing happens if there is none."""
        with self.lock:
            held = self._held.pop(session_id, None)
        if held is not None:
            remove(self._root / session_id.hex())
