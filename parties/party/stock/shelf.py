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

import json
import os
import re
import shutil
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from google.protobuf.message import DecodeError

from mpc.correlations import BundleId, CorrectionsDigest, Whole, corrected_party, sub_seed
from mpc.errors import ConfigError, EncodingError, IntegrityError, MpcError, PlanError, PolicyError, SessionError
from mpc.gates.base import Gate, mask_name
from mpc.plan.cost import plan_cost
from mpc.plan.plan import Plan
from mpc.prg import SEED_BYTES, Seed
from mpc.wires import Wires
from parties.agreed import manifest
from parties.agreed.manifest import Manifest
from parties.agreed.memory import MemoryBudget, run_memory
from parties.agreed.terms import Terms, refuse_public_weights
from parties.config.models import PartyConfig
from parties.party.ledger.sessions import Ledger
from parties.party.supply import Dealings, Delivery, Receipt
from parties.pb import party_pb2
from parties.telemetry import logger
from parties.trust.chains import Trust
from parties.trust.identity import Identity, private_folder
from parties.wire.transport import room

FOLDER, TERMS, PLAN = "stock", "terms.json", "plan"
FORMAT = "mpc-stock-2"
"""Of its files, and of what the provider signed; what has another format is deleted at the next start."""
MOST_RUNS = 1 << 16
"""Runs of one stock."""
_MAGIC = b"mpc-bundle-2\n"
_LENGTH_BYTES = 4
_MOST_HEADER = manifest.LARGEST + (1 << 16)
_MOST_TERMS = 1 << 20
_BUNDLE_BYTES = 4096
"""What a bundle takes beside its corrections, about: seed, manifest, certificate."""
_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Stock:
    """What was dealt ahead for one session.

    Args:
        batches: rows of its runs 1, 2, 3, ...
        size: bytes on this party's disk.
        made_at: seconds since 1970.
    """

    terms: Terms
    batches: tuple[int, ...]
    size: int
    made_at: float


@dataclass(frozen=True)
class Totals:
    """What a party tells of its stocks to everyone: how many sessions and runs, bytes taken and allowed."""

    stocks: int
    runs: int
    size: int
    limit: int


@dataclass
class _Order:
    """A stock that is being dealt, in memory; its folder is worth nothing until the ledger knows it."""

    terms: Terms
    plan: Plan
    coordinator: str
    batches: tuple[int, ...]
    folder: Path
    reserved: int
    used_at: float
    size: int = 0
    stored: int = 0
    over: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class _Entry:
    stock: Stock
    coordinator: str
    taken: bool = False


class Stocked:
    """The bundles of one stock: stands where `Dealings` does in the session that takes it.

    Args:
        stock: of this plan; in the ledger.
        me: this party.
    """

    def __init__(self, folder: Path, stock: Stock, plan: Plan, me: str, trust: Trust) -> None:
        self.plan, self._folder, self._stock, self._me, self._trust = plan, folder, stock, me, trust

    def fetch_weights(self, session_id: bytes, terms: Terms, plan: Plan) -> Delivery:
        """The weights' masks."""
        return self._read(terms, BundleId(session_id, 0, 1), self.plan.weights, self.plan.wire, 0)

    def fetch(self, terms: Terms, bundle: BundleId, weights: bytes) -> Delivery:
        """The bundle of one run; a stock's plan has no public weights.

        Raises:
            PlanError: it was dealt for another number of rows.
            SessionError: there are no more.
        """
        batches = self._stock.batches
        if bundle.run > len(batches):
            raise SessionError(
                f"the {len(batches)} runs that were dealt ahead for this session are used up",
                cause="its weights' masks are no longer with the provider, so no more can be dealt for it",
                remedy="start a new session",
            )
        if batches[bundle.run - 1] != bundle.batch:
            raise PlanError(
                f"run {bundle.run} was dealt ahead for {batches[bundle.run - 1]} rows, not {bundle.batch}",
                remedy="give as many rows as the stock was dealt for, or start a session without it",
            )
        plan = self.plan.bind(bundle.batch)
        return self._read(terms, bundle, plan.online, plan.wire, plan_cost(self.plan, bundle.batch).dealt)

    def _read(self, terms: Terms, bundle: BundleId, gates: Iterable[Gate], wires: Wires, most: int) -> Delivery:
        path = self._folder / _bundle_name(bundle.run)
        mine = terms.parties[corrected_party(bundle, len(terms.parties))] == self._me
        with _naming(path):
            header, corrections = _read_bundle(path, most if mine else 0)
            checked = manifest.verify(self._trust, terms, bundle, header.manifest)
            seed = manifest.read_seed(header.seed, self._me)
            self._check_seeds(checked, bundle, seed, gates, wires)
            if mine:
                checked.check_corrections(_digest(bundle.digest_key(seed), corrections))
            path.unlink()
        receipt = Receipt(checked, header.manifest, 0.0, SEED_BYTES + len(corrections))
        return Delivery(seed, Whole(corrections) if mine else None, lambda: receipt)

    def _check_seeds(
        self, checked: Manifest, bundle: BundleId, seed: Seed, gates: Iterable[Gate], wires: Wires
    ) -> None:
        """The seed is the one that was dealt: every sub-seed that the manifest commits to follows from it."""
        draws = bundle.draws(seed)
        for gate in gates:
            for correlation in gate.correlations(wires):
                if correlation.holders:
                    wire = correlation.name.removeprefix(mask_name(""))
                    checked.check_seed(wire, self._me, sub_seed(draws, gate, correlation))


class Stocks:
    """All stocks of one party.  Thread-safe; made once a process, after the ledger.

    Raises:
        ConfigError: the disk fails.
    """

    def __init__(
        self, config: PartyConfig, identity: Identity, ledger: Ledger, dealings: Dealings, budget: MemoryBudget
    ) -> None:
        self._config, self._identity, self._ledger, self._dealings = config, identity, ledger, dealings
        self._budget = budget
        self._root = config.data_dir / FOLDER
        self._lock = threading.Lock()
        self._orders: dict[bytes, _Order] = {}
        self._entries: dict[bytes, _Entry] = {}
        with _disk(self._root):
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
                _remove(folder)
                continue
            _, coordinator, made_at = listed[session_id]
            try:
                if _read_content(folder)["format"] != FORMAT:
                    self._drop_foreign(session_id, coordinator, folder)
                    continue
                terms, batches = _read_terms(folder)
            except MpcError as error:
                logger().error("a stock cannot be used", session=folder.name[:16], why=str(error))
                continue
            self._entries[session_id] = _Entry(Stock(terms, batches, _size(folder), made_at), coordinator)

    def _drop_foreign(self, session_id: bytes, coordinator: str, folder: Path) -> None:
        """Give up a stock that another version of this program wrote: none of it is ever read."""
        self._ledger.drop_stocked(session_id, coordinator)
        _remove(folder)
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
            costs[batch] for run, batch in runs if mine == corrected_party(BundleId(b"", run, 1), len(terms.parties))
        )
        needed += (len(batches) + 1) * _BUNDLE_BYTES + len(plan.canonical)
        folder = self._root / terms.session_id.hex()
        order = _Order(terms, plan, coordinator, tuple(batches), folder, needed, time.monotonic())
        self._require_disk(needed)
        with self._lock:
            self._require_room(needed)
            self._orders[terms.session_id] = order
        try:
            with order.lock:
                self._prepare_folder(order)
                delivery = self._dealings.fetch_weights(terms.session_id, terms, plan)
                seconds, _ = self._write(order, delivery)
                return seconds, order.size
        except BaseException:
            self._give_up(order)
            raise

    def _require_room(self, needed: int) -> None:
        limits = self._config.limits
        taken = sum(order.reserved for order in self._orders.values())
        taken += sum(entry.stock.size for entry in self._entries.values())
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
        with _disk(self._root):
            free = shutil.disk_usage(self._root).free
        if free < needed:
            raise ConfigError(
                f"the stock needs {needed >> 20:,} MiB, and {self._config.name}'s disk has {free >> 20:,} left",
                remedy="free some, or deal fewer runs",
            )

    def _prepare_folder(self, order: _Order) -> None:
        with _disk(order.folder):
            order.folder.mkdir(mode=0o700)
            order.size += _write_file(order.folder / TERMS, [_dump_terms(order.terms, order.batches)])
            order.size += _write_file(order.folder / PLAN, [order.plan.canonical])

    def store(self, session_id: bytes, run: int, coordinator: str) -> tuple[float, int]:
        """Receive and write the bundle of one run, in order; (the provider's seconds, bytes stored)."""
        order = self._order(session_id, coordinator)
        with order.lock:
            if order.over or run != order.stored or run > len(order.batches):
                raise SessionError(f"bundle {run} of this stock was stored before, or comes too early")
            bundle = BundleId(session_id, run, order.batches[run - 1])
            mine = order.terms.parties[corrected_party(bundle, len(order.terms.parties))] == self._config.name
            held = plan_cost(order.plan, bundle.batch).dealt if mine else 0  # all of it, until it is on the disk
            self._budget.take(held)
            try:
                delivery = self._dealings.fetch(order.terms, bundle, weights=b"")
                return self._write(order, delivery)
            except BaseException:
                self._give_up(order)
                raise
            finally:
                self._budget.give(held)

    def _write(self, order: _Order, delivery: Delivery) -> tuple[float, int]:
        receipt, dealt = delivery.finish(), delivery.corrections
        corrections = memoryview(b"") if dealt is None else dealt.read(0, dealt.size)
        header = party_pb2.StoredBundle(
            seed=delivery.seed.secret, manifest=receipt.signed, corrections=len(corrections)
        ).SerializeToString()
        parts = [_MAGIC, len(header).to_bytes(_LENGTH_BYTES, "big"), header, corrections]
        with _disk(order.folder):
            written = _write_file(order.folder / _bundle_name(order.stored), parts)
        order.stored += 1
        order.size += written
        order.used_at = time.monotonic()
        return receipt.deal_seconds, written

    def keep(self, session_id: bytes, coordinator: str) -> None:
        """All of it is on this party's disk: enter it into the ledger.  The provider forgets it."""
        order = self._order(session_id, coordinator)
        with order.lock:
            if order.over or order.stored != len(order.batches) + 1:
                raise SessionError(f"{order.stored} of this stock's {len(order.batches) + 1} bundles are stored")
            self._dealings.finish(session_id)
            with _disk(order.folder):
                _sync(order.folder)
                _sync(self._root)
            self._ledger.stock_session(session_id, order.plan.digest, coordinator, len(order.batches))
            order.over = True
            stock = Stock(order.terms, order.batches, order.size, time.time())
            with self._lock:
                del self._orders[session_id]
                self._entries[session_id] = _Entry(stock, coordinator)
        logger().info("stocked", session=session_id.hex()[:16], runs=len(order.batches), bytes=order.size)

    def _order(self, session_id: bytes, coordinator: str) -> _Order:
        with self._lock:
            order = self._orders.get(session_id)
        if order is None:
            raise SessionError("this party is not being dealt that stock", remedy="order it again: mpc deal")
        if order.coordinator != coordinator:
            raise PolicyError(f"{coordinator!r} did not order this stock")
        return order

    def _give_up(self, order: _Order) -> None:
        """Forget a stock that is not in the ledger; call without the lock of all, with the order's or alone."""
        order.over = True
        with self._lock:
            self._orders.pop(order.terms.session_id, None)
        self._dealings.finish(order.terms.session_id)
        _remove(order.folder)

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
            entries = [entry for entry in self._entries.values() if entry.coordinator == coordinator]
        stocks = [entry.stock for entry in entries if not entry.taken]
        wanted = [stock for stock in stocks if plan_digest in (b"", stock.terms.plan_digest)]
        return sorted((stock for stock in wanted if self._whole(stock)), key=lambda stock: stock.made_at)

    def _whole(self, stock: Stock) -> bool:
        folder = self._root / stock.terms.session_id.hex()
        names = [PLAN, *(_bundle_name(run) for run in range(len(stock.batches) + 1))]
        missing = next((name for name in names if not (folder / name).is_file()), None)
        if missing is not None:
            logger().error("a stock cannot be used: a file is missing", file=_shown(folder / missing))
        return missing is None

    @property
    def totals(self) -> Totals:
        """For everyone who may ask for this party's health."""
        with self._lock:
            entries = list(self._entries.values())
        free = [entry.stock for entry in entries if not entry.taken]
        size = sum(entry.stock.size for entry in entries)
        return Totals(len(free), sum(len(s.batches) for s in free), size, self._config.limits.max_stock_bytes)

    def take(self, terms: Terms, coordinator: str) -> Stocked:
        """The stock of exactly these terms, for the session that will open it.

        Nothing of it is read but its plan, and the ledger has yet to allow its use.

        Raises:
            SessionError: it is not here, or not whole; no other party's is harmed by saying so.
            IntegrityError: its plan was altered.
        """
        folder = self._root / terms.session_id.hex()
        with self._lock:
            entry = self._entries.get(terms.session_id)
        if entry is None or entry.taken or entry.coordinator != coordinator or not self._whole(entry.stock):
            raise SessionError(
                f"{self._config.name} has no stock of these terms",
                cause="it was used or dropped before, or its files are gone",
                remedy="start a session without it; mpc deal --list shows what there is, mpc deal makes more",
            )
        with _disk(folder), _naming(folder / PLAN):
            plan = Plan.from_bytes(_read_file(folder / PLAN, self._config.limits.max_plan_bytes))
            if plan.digest != terms.plan_digest:
                raise IntegrityError("it is another plan's")
        return Stocked(folder, entry.stock, plan, self._config.name, self._identity.trust)

    def taken(self, session_id: bytes) -> None:
        """The ledger has opened it: nobody finds it any more."""
        with self._lock:
            self._entries[session_id].taken = True

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
            entry = self._entries.pop(session_id, None)
        if entry is not None:
            _remove(self._root / session_id.hex())


def _dealt(plan: Plan, batch: int, config: PartyConfig) -> int:
    """Bytes of corrections of a run; `PlanError` if this party would not take part in one."""
    run_memory(plan, batch, config.limits)
    return plan_cost(plan, batch).dealt


# ---------------------------------------------------------------------------------- files


def _bundle_name(run: int) -> str:
    return f"{run:06d}.bundle"


def _shown(path: Path) -> str:
    """A file's name for people: below the data folder."""
    last = len(path.parts) - 1 - path.parts[::-1].index(FOLDER)
    return "/".join(path.parts[last:])


def _dump_terms(terms: Terms, batches: Sequence[int]) -> bytes:
    content = {
        "batches": list(batches),
        "format": FORMAT,
        "nonces": [nonce.hex() for nonce in terms.nonces],
        "parties": list(terms.parties),
        "plan_digest": terms.plan_digest.hex(),
        "provider": terms.provider,
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _read_content(folder: Path) -> dict[str, Any]:
    """What the terms' file says, which has a format."""
    path = folder / TERMS
    with _naming(path):
        content: dict[str, Any] = json.loads(_read_file(path, _MOST_TERMS))
        if not isinstance(content["format"], str):
            raise IntegrityError("it has no format")
        return content


def _read_terms(folder: Path) -> tuple[Terms, tuple[int, ...]]:
    """The terms, whose id is the folder's name, and the rows of each run."""
    content = _read_content(folder)
    with _naming(folder / TERMS):
        terms = Terms(
            bytes.fromhex(content["plan_digest"]),
            content["provider"],
            tuple(content["parties"]),
            tuple(bytes.fromhex(nonce) for nonce in content["nonces"]),
        )
        batches = tuple(content["batches"])
        if content["format"] != FORMAT or terms.session_id.hex() != folder.name:
            raise IntegrityError("it is another stock's")
        if not 1 <= len(batches) <= MOST_RUNS or not all(type(batch) is int and batch > 0 for batch in batches):
            raise IntegrityError("its runs are malformed")
        return terms, batches


def _read_bundle(path: Path, corrections: int) -> tuple[party_pb2.StoredBundle, memoryview]:
    """The header, and exactly so many bytes of corrections."""
    with _opened(path) as file:
        start = file.read(len(_MAGIC) + _LENGTH_BYTES)
        length = int.from_bytes(start[len(_MAGIC) :], "big")
        whole = len(_MAGIC) + _LENGTH_BYTES + length + corrections
        if not start.startswith(_MAGIC) or length > _MOST_HEADER or os.fstat(file.fileno()).st_size != whole:
            raise IntegrityError("it is longer or shorter than it should be")
        header = party_pb2.StoredBundle.FromString(file.read(length))
        data = room(corrections)
        filled = file.readinto(data)
    if filled != corrections or header.corrections != corrections:
        raise IntegrityError("it holds more or less than the plan says")
    return header, data.toreadonly()


def _digest(key: Seed, corrections: memoryview) -> bytes:
    digest = CorrectionsDigest(key, len(corrections))
    digest.update(corrections)
    return digest.value


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if path.is_symlink():
        raise IntegrityError("it is no file")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise IntegrityError("it is no file")
        yield file


def _read_file(path: Path, most: int) -> bytes:
    with _opened(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise IntegrityError("it is too large")
    return data


def _write_file(path: Path, parts: Iterable[bytes]) -> int:
    """A new file that only its owner may read, on the disk when this returns; its bytes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        written = sum(file.write(part) for part in parts)
        file.flush()
        os.fsync(descriptor)
    return written


def _sync(folder: Path) -> None:
    """The names in a folder survive a power cut too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _remove(folder: Path) -> None:
    """Delete a stock's folder; what cannot be deleted is said, and of no use to anybody."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        logger().error("a stock's files cannot be deleted", folder=_shown(folder), why=error.strerror)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Whatever is wrong with a file of a stock is said about that file."""
    try:
        yield
    except FileNotFoundError:
        raise IntegrityError(f"the stock's file {_shown(path)} is missing", remedy=_FRESH) from None
    except (MpcError, DecodeError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = (
            error.what if isinstance(error, IntegrityError | EncodingError | PlanError | SessionError) else "malformed"
        )
        raise IntegrityError(
            f"the stock's file {_shown(path)} is not what was dealt: {why}",
            cause="it was altered, cut short or exchanged, or the provider's certificate is no longer valid",
            remedy=_FRESH,
        ) from None
    except OSError as error:
        raise ConfigError(f"the stock's file {_shown(path)} cannot be read: {error.strerror}") from None


_FRESH = "find out who wrote to this party's disk; start a new session, what is left of this stock is given up"


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"the stock in {_shown(folder / '')} cannot be written or read: {error.strerror}",
            cause="the disk is full or read-only",
            remedy="check the disk of this party",
        ) from None
