"""Hold what is asked to be dealt ahead, and what lies there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mpc.entry import WEIGHTS, EntryId, entries
from mpc.plan.plan import Plan
from parties.agreed.terms import Terms

MOST_RUNS = 1 << 16
"""Runs of one stock."""


@dataclass(frozen=True)
class Stock:
    """Correlations that were dealt ahead for one session.

    Args:
        batches: rows of its runs 1, 2, 3, ...
        size: bytes on this party's disk.
        made_at: seconds since 1970.
    """

    terms: Terms
    batches: tuple[int, ...]
    size: int
    made_at: float

    @property
    def entries(self) -> Iterator[EntryId]:
        """Its bundles, one each."""
        return entries(len(self.batches))


@dataclass(frozen=True)
class Totals:
    """Sums that a party tells everyone of its stocks: sessions, runs, bytes taken and bytes allowed."""

    stocks: int
    runs: int
    size: int
    limit: int


@dataclass
class Order:
    """A stock that is being dealt, in memory; its folder is worth nothing until the ledger knows it.

    Args:
        reserved: bytes of disk.
        due: the entry whose bundle is stored next.
        over: it is in the ledger, or given up.
    """

    terms: Terms
    plan: Plan
    coordinator: str
    batches: tuple[int, ...]
    folder: Path
    reserved: int
    used_at: float
    size: int = 0
    due: EntryId = WEIGHTS
    over: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def complete(self) -> bool:
        """Are all its bundles stored?"""
        return self.due.number > len(self.batches)


@dataclass
class Held:
    """A stock that is in the ledger."""

    stock: Stock
    coordinator: str
    taken: bool = False
