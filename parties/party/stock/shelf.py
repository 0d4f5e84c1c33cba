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
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from mpc.correlations import BundleId, corrected_party
from mpc.entry import EntryId
from mpc.errors import ConfigError, IntegrityError, MpcError, PlanError, PolicyError, SessionError
from mpc.plan.cost import plan_cost
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan
from parties.agreed.ahead import refuse_public_weights
from parties.agreed.memory import run_memory
from parties.agreed.terms import Terms
from parties.config.models import PartyConfig
from parties.disk import private_folder
from parties.party.ledger.sessions import Ledger
from parties.party.stock.files import (
    FOLDER,
    FORMAT,
    LENGTH_BYTES,
    MAGIC,
    PLAN,
    TERMS,
    bundle_name,
    dump_terms,
    naming,
    on_disk,
    read_content,
    read_file,
    read_terms,
    remove,
    shown_path,
    size_of,
    sync,
    write_file,
)
from parties.party.stock.orders import MOST_RUNS, Held, Order, Stock, Totals
from parties.party.stock.supply import StoredSupply
from parties.party.supply import Delivery, LiveSupply
from parties.pb import party_pb2
from parties.process.budget import MemoryBudget
from parties.telemetry import logger
from parties.trust.identity import Identity

_BUNDLE_BYTES = 4096
"""What a bundle takes beside its corrections, about: seed, manifest, certificate."""
_ID = re.compile(r"[0-9a-f]{64}")


class Shelf:
    """All stocks of one party.  Thread-safe; made once a process, after the ledger.

    Raises:
        ConfigError: the disk fails.
    """

    def __init__(
        self, config: PartyConfig, identity: Identity, ledger: Ledger, dealings: LiveSupply, budget: MemoryBudget
    ) -> None:
        self._config, self._identity, self._ledger, self._supply = config, identity, ledger, dealings
        self._budget = budget
        self._root = config.data_dir / FOLDER
        self._lock = threading.Lock()
        self._orders: dict[bytes, Order] = {}
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

    # ------------------------------------------------------------------------- dealing

    def order(self, terms: Terms, plan: Plan, coordinator: str, batches: Sequence[int]) -> tuple[float, int]:
        """Begin a stock with its weights' masks; (the provider's seconds, bytes stored).

        Raises:
            PlanError: more runs, rows or bytes than this party allows.
            ConfigError: the disk is full, or fails.
        """
        refuse_public_weights(plan)
        if not 1 <= len(batches) <= MOST_RUNS:
            raise PlanError(f"a stock of {len(batches)} runs; 1 to {MOST_RUNS:,} are possible")
        mine = terms.parties.index(self._config.name)
        costs = {batch: _dealt(plan, batch, self._config) for batch in sorted(set(batches))}
        runs = enumerate(batches, 1)
        needed = sum(
            costs[batch]
            for run, batch in runs
            if mine == corrected_party(BundleId.of_run(b"", run, 1), len(terms.parties))
        )
        needed += (len(batches) + 1) * _BUNDLE_BYTES + len(plan.canonical)
        folder = self._root / terms.session_id.hex()
        order = Order(terms, plan, coordinator, tuple(batches), folder, needed, time.monotonic())
        self._require_disk(needed)
        with self._lock:
            self._require_room(needed)
            self._orders[terms.session_id] = order
        try:
            with order.lock:
                self._prepare_folder(order)
                delivery = self._supply.fetch_weights(terms.session_id, terms, plan)
                seconds, _ = self._write(order, delivery)
                return seconds, order.size
        except BaseException:
            self._give_up(order)
            raise

    def _require_room(self, needed: int) -> None:
        limits = self._config.limits
        taken = sum(order.reserved for order in self._orders.values())
        taken += sum(held.stock.size for held in self._held.values())
        if taken + needed > limits.max_stock_bytes:
            raise PlanError(
                f"the stock needs {needed:,} bytes of disk; {max(0, limits.max_stock_bytes - taken):,} of the "
                f"{limits.max_stock_bytes:,} that this party allows are left",
                remedy="deal fewer runs, drop others (mpc deal --drop), or raise limits.max_stock_bytes",
            )
        if len(self._orders) >= limits.max_sessions:
            raise SessionError("this party is dealt too many stocks at once", remedy="wait for the others")

    def _require_disk(self, needed: int) -> None:
        private_folder(self._root)
        with on_disk(self._root):
            free = shutil.disk_usage(self._root).free
        if free < needed:
            raise ConfigError(
                f"the stock needs {needed >> 20:,} MiB, and {self._config.name}'s disk has {free >> 20:,} left",
                remedy="free some, or deal fewer runs",
            )

    def _prepare_folder(self, order: Order) -> None:
        with on_disk(order.folder):
            order.folder.mkdir(mode=0o700)
            order.size += write_file(order.folder / TERMS, [dump_terms(order.terms, order.batches)])
            order.size += write_file(order.folder / PLAN, [order.plan.canonical])

    def store(self, session_id: bytes, entry: EntryId, coordinator: str) -> tuple[float, int]:
        """Receive and write the bundle of one run, in order; (the provider's seconds, bytes stored)."""
        order = self._order(session_id, coordinator)
        with order.lock:
            if order.over or entry != order.due or order.complete:
                raise SessionError(f"bundle {entry.number} of this stock was stored before, or comes too early")
            bundle = BundleId(session_id, entry, order.batches[entry.number - 1])
            mine = order.terms.parties[corrected_party(bundle, len(order.terms.parties))] == self._config.name
            held = plan_cost(order.plan, bundle.batch).dealt if mine else 0  # all of it, until it is on the disk
            self._budget.take(held)
            try:
                delivery = self._supply.fetch(order.terms, bundle, weights=b"")
                return self._write(order, delivery)
            except BaseException:
                self._give_up(order)
                raise
            finally:
                self._budget.give(held)

    def _write(self, order: Order, delivery: Delivery) -> tuple[float, int]:
        receipt, dealt = delivery.finish(), delivery.corrections
        corrections = memoryview(b"") if dealt is None else dealt.read(0, dealt.size)
        header = party_pb2.StoredBundle(
            seed=delivery.seed.secret, manifest=receipt.signed, corrections=len(corrections)
        ).SerializeToString()
        parts: list[bytes | memoryview] = [MAGIC, len(header).to_bytes(LENGTH_BYTES, "big"), header, corrections]
        with on_disk(order.folder):
            written = write_file(order.folder / bundle_name(order.due), parts)
        order.due = order.due.following
        order.size += written
        order.used_at = time.monotonic()
        return receipt.deal_seconds, written

    def keep(self, session_id: bytes, coordinator: str) -> None:
        """All of it is on this party's disk: enter it into the ledger.  The provider forgets it."""
        order = self._order(session_id, coordinator)
        with order.lock:
            if order.over or not order.complete:
                raise SessionError(f"{order.due.number} of this stock's {len(order.batches) + 1} bundles are stored")
            self._supply.finish(session_id)
            with on_disk(order.folder):
                sync(order.folder)
                sync(self._root)
            self._ledger.stock_session(session_id, order.plan.digest, coordinator, len(order.batches))
            order.over = True
            stock = Stock(order.terms, order.batches, order.size, time.time())
            with self._lock:
                del self._orders[session_id]
                self._held[session_id] = Held(stock, coordinator)
        logger().info("stocked", session=session_id.hex()[:16], runs=len(order.batches), bytes=order.size)

    def _order(self, session_id: bytes, coordinator: str) -> Order:
        with self._lock:
            order = self._orders.get(session_id)
        if order is None:
            raise SessionError("this party is not being dealt that stock", remedy="order it again: mpc deal")
        if order.coordinator != coordinator:
            raise PolicyError(f"{coordinator!r} did not order this stock")
        return order

    def _give_up(self, order: Order) -> None:
        """Forget a stock that is not in the ledger; call without the lock of all, with the order's or alone."""
        order.over = True
        with self._lock:
            self._orders.pop(order.terms.session_id, None)
        self._supply.finish(order.terms.session_id)
        remove(order.folder)

    def drop_idle(self, limit: float) -> None:
        """Give up the orders that nobody has gone on with since `limit` (monotonic seconds)."""
        with self._lock:
            idle = [order for order in self._orders.values() if order.used_at < limit]
        for order in idle:
            if order.lock.acquire(blocking=False):
                try:
                    if not order.over:
                        self._give_up(order)
                finally:
                    order.lock.release()

    def stop(self) -> None:
        """The process ends; what is being dealt is lost."""
        self.drop_idle(float("inf"))

    # --------------------------------------------------------------------------- using

    def held(self, coordinator: str, plan_digest: bytes = b"") -> list[Stock]:
        """The stocks of one coordinator that can be used, the oldest first."""
        with self._lock:
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
        with self._lock:
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
        with self._lock:
            held = self._held.get(terms.session_id)
        if held is None or held.taken or held.coordinator != coordinator or not self._whole(held.stock):
            raise SessionError(
                f"{self._config.name} has no stock of these terms",
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
        with self._lock:
            self._held[session_id].taken = True

    def drop(self, session_id: bytes, coordinator: str) -> bool:
        """Give up a stock of this coordinator, whether it is complete or not; False if there is none."""
        with self._lock:
            order = self._orders.get(session_id)
        if order is not None and order.coordinator == coordinator:
            with order.lock:
                if not order.over:
                    self._give_up(order)
                    return True
        if not self._ledger.drop_stocked(session_id, coordinator):
            return False
        self.remove(session_id)
        return True

    def remove(self, session_id: bytes) -> None:
        """Delete what is left of a stock that the ledger no longer lists; nothing happens if there is none."""
        with self._lock:
            held = self._held.pop(session_id, None)
        if held is not None:
            remove(self._root / session_id.hex())


def _dealt(plan: Plan, batch: int, config: PartyConfig) -> int:
    """Bytes of corrections of a run; `PlanError` if this party would not take part in one."""
    run_memory(plan, batch, config.limits)
    return plan_cost(plan, batch).dealt
