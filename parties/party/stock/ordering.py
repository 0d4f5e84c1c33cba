"""Stocks that are being dealt: bundle after bundle is written to the disk, and at the end the ledger is told."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence

from mpc.correlations import BundleId, corrected_party
from mpc.entry import EntryId
from mpc.errors import ConfigError, PlanError, PolicyError, SessionError
from mpc.plan.cost import plan_cost, session_dealt
from mpc.plan.plan import Plan
from mpc.plan.segments import segments
from parties.agreed.ahead import refuse_later_known
from parties.agreed.memory import run_memory
from parties.agreed.terms import Terms
from parties.config.models import PartyConfig
from parties.disk import private_folder
from parties.party.delivery import Delivery, given_up
from parties.party.ledger.sessions import Ledger
from parties.party.stock.bundles import parts_of
from parties.party.stock.files import (
    FOLDER,
    PLAN,
    TERMS,
    bundle_name,
    dump_terms,
    on_disk,
    remove,
    sync,
    write_file,
)
from parties.party.stock.orders import MOST_RUNS, Order, Stock
from parties.party.stock.shelf import Shelf
from parties.party.supply import LiveSupply
from parties.process.budget import MemoryBudget
from parties.telemetry import logger

_BUNDLE_BYTES = 4096
"""What a bundle takes beside its corrections, about: seed, manifest, certificate."""
_CALLED_OFF_SECONDS = 0.1
"""How long what is being dealt may take to end by itself, where it is given up."""


class Orders:
    """Stocks that one party is being dealt.  Thread-safe.

    Args:
        budget: what corrections are granted memory of until they are on the disk.
        shelf: takes each stock that is complete.
    """

    def __init__(
        self, config: PartyConfig, ledger: Ledger, supply: LiveSupply, budget: MemoryBudget, shelf: Shelf
    ) -> None:
        self._config, self._ledger, self._supply = config, ledger, supply
        self._budget, self._shelf = budget, shelf
        self._root = config.data_dir / FOLDER
        self.open: dict[bytes, Order] = {}

    def order(self, terms: Terms, plan: Plan, coordinator: str, batches: Sequence[int]) -> tuple[float, int]:
        """Begin a stock with its weights' masks; (the provider's seconds, bytes stored).

        Raises:
            PlanError: more runs, rows or bytes than this party allows.
            ConfigError: the disk is full, or fails.
        """
        refuse_later_known(plan)
        if not 1 <= len(batches) <= MOST_RUNS:
            raise PlanError(f"a stock of {len(batches)} runs; 1 to {MOST_RUNS:,} are possible")
        mine = terms.parties.index(self._config.name)
        once = session_dealt(plan) if mine == corrected_party(BundleId.of_weights(b""), len(terms.parties)) else 0
        needed = once + self._needed(plan, mine, len(terms.parties), batches)
        folder = self._root / terms.session_id.hex()
        order = Order(terms, plan, coordinator, tuple(batches), folder, needed, time.monotonic())
        self._require_disk(needed)
        self._budget.take(once, coordinator)  # until it is on the disk
        try:
            return self._begin(order)
        finally:
            self._budget.give(once, coordinator)

    def _needed(self, plan: Plan, mine: int, parties: int, batches: Sequence[int]) -> int:
        """Count the bytes of disk that the party of this index needs for these runs."""
        costs: dict[tuple[object, int], int] = {}
        needed = (len(batches) + 1) * _BUNDLE_BYTES + len(plan.canonical)
        for run, batch in enumerate(batches, 1):
            key = (plan.part(run), batch)  # runs of one part of the plan cost alike
            if key not in costs:
                costs[key] = _dealt(plan.at(run), batch, self._config)
            if mine == corrected_party(BundleId.of_run(b"", run, 1), parties):
                needed += costs[key]
        return needed

    def _begin(self, order: Order) -> tuple[float, int]:
        with self._shelf.lock:
            self._require_room(order.reserved)
            self.open[order.terms.session_id] = order
        try:
            with order.lock:
                self._prepare_folder(order)
                delivery = self._supply.fetch_weights(order.terms.session_id, order.terms, order.plan)
                seconds, _ = self._write(order, delivery)
                return seconds, order.size
        except BaseException:
            self._give_up(order)
            raise

    def _require_room(self, needed: int) -> None:
        limits = self._config.limits
        taken = sum(order.reserved for order in self.open.values())
        taken += self._shelf.size
        if taken + needed > limits.max_stock_bytes:
            raise PlanError(
                f"the stock needs {needed:,} bytes of disk; {max(0, limits.max_stock_bytes - taken):,} of the "
                f"{limits.max_stock_bytes:,} that this party allows are left",
                remedy="deal fewer runs, drop others (mpc deal --drop), or raise limits.max_stock_bytes",
            )
        if len(self.open) >= limits.max_sessions:
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
            held = _held(order.plan.at(entry.number), bundle.batch, self._config) if mine else 0
            self._budget.take(held, coordinator)  # until it is on the disk
            try:
                delivery = self._supply.fetch(order.terms, bundle, weights=b"")
                return self._write(order, delivery)
            except BaseException:
                self._give_up(order)
                raise
            finally:
                self._budget.give(held, coordinator)

    def _write(self, order: Order, delivery: Delivery) -> tuple[float, int]:
        with given_up(delivery), on_disk(order.folder):
            written = write_file(order.folder / bundle_name(order.due), parts_of(delivery))
        order.due = order.due.following
        order.size += written
        order.used_at = time.monotonic()
        return delivery.receipt.deal_seconds, written

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
            with self._shelf.lock:
                del self.open[session_id]
                self._shelf.add(stock, coordinator)
        logger().info("stocked", session=session_id.hex()[:16], runs=len(order.batches), bytes=order.size)

    def _order(self, session_id: bytes, coordinator: str) -> Order:
        with self._shelf.lock:
            order = self.open.get(session_id)
        if order is None:
            raise SessionError("this party is not being dealt that stock", remedy="order it again: mpc deal")
        if order.coordinator != coordinator:
            raise PolicyError(f"{coordinator!r} did not order this stock")
        return order

    def _give_up(self, order: Order) -> None:
        """Forget a stock that is not in the ledger; call without the lock of all, with the order's or alone."""
        order.over = True
        with self._shelf.lock:
            self.open.pop(order.terms.session_id, None)
        self._supply.finish(order.terms.session_id)
        remove(order.folder)

    def drop_idle(self, limit: float) -> None:
        """Give up the orders that nobody has gone on with since `limit` (monotonic seconds)."""
        with self._shelf.lock:
            idle = [order for order in self.open.values() if order.used_at < limit]
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

    def drop(self, session_id: bytes, coordinator: str) -> bool:
        """Give up what this coordinator is being dealt; False if that is nothing, or complete."""
        with self._shelf.lock:
            order = self.open.get(session_id)
        if order is None or order.coordinator != coordinator:
            return False
        while not order.lock.acquire(timeout=_CALLED_OFF_SECONDS):
            self._supply.finish(session_id)  # it waits for the provider, which waits for a party that has refused
        try:
            if order.over:
                return False
            self._give_up(order)
            return True
        finally:
            order.lock.release()


def _dealt(plan: Plan, batch: int, config: PartyConfig) -> int:
    """Bytes of corrections of a run; `PlanError` if this party would not take part in one."""
    run_memory(plan, batch, config.limits)
    return plan_cost(plan, batch).dealt


def _held(plan: Plan, batch: int, config: PartyConfig) -> int:
    """Count the bytes of a run's corrections that are in memory at once on their way to the disk."""
    whole, window = plan_cost(plan, batch).dealt, config.limits.max_window_bytes
    if plan.is_checked:
        return whole
    largest = max(segment.dealt for segment in segments(plan.bind(batch), EntryId(1)))
    return min(whole, window + largest)
