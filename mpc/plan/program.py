"""Say what differs from run to run of a session that hands on state, all of it public and part of the plan.

The runs of a program have numbers, 1, 2, 3, ..., and what run t computes follows from t alone: which rows of stored
data it reads, by which integer k some sums are weighed, which outputs it tells.  Runs up to `steps` update the states;
later ones read them as they are.  So no coordinator chooses any of it, and one digest says it all: the plan's.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

import numpy as np
from pydantic import Field

from mpc.errors import InputError
from mpc.gates.base import Name
from mpc.prg import Seed, expand_words
from mpc.wires import Frozen

MOST_RUNS = 1 << 31
_MOST_SHUFFLED = 1 << 22
"""Rows, whose order takes 32 MiB."""
Run = Annotated[int, Field(ge=1, le=MOST_RUNS)]


class Rate(Frozen):
    """The integer k of all runs from `first` on, until the next rate begins."""

    first: Run
    k: Annotated[int, Field(gt=-(1 << 58), lt=1 << 58)]


class Paced(Frozen):
    """A combine, one of whose factors is multiplied by the run's k."""

    gate: Name
    operand: Annotated[int, Field(ge=0, lt=64)]


class Told(Frozen):
    """The runs in which an output is told: `first`, and each `every` runs after it (0: no other) up to `last`."""

    output: Name
    first: Run
    every: Annotated[int, Field(ge=0, le=MOST_RUNS)] = 0
    last: Run | None = None

    def in_run(self, run: int) -> bool:
        """Is it told in this run?"""
        if run < self.first or (self.last is not None and run > self.last):
            return False
        return run == self.first or (self.every > 0 and (run - self.first) % self.every == 0)


class Program(Frozen):
    """A program, as the module says.

    Args:
        steps: the runs that update states; in later ones the states stay as they are.
        rows: of stored data that each run reads; None if none are read.
        seed: hex of 32 bytes, which everybody knows: rows are shuffled by it, anew in each epoch.  Rows that are left
            over at the end of an epoch are not read in it.
        rates: in the order of their first runs, the first of them 1.
        told: outputs that are not told in every run.
        after: steps that other sessions have made before these: rows and rates go on behind them.
        previous: hex digest of the plan that made the last of those, and kept what the states begin with.
    """

    steps: Run
    rows: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    seed: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    rates: Annotated[tuple[Rate, ...], Field(max_length=4096)] = ()
    paced: Annotated[tuple[Paced, ...], Field(max_length=1024)] = ()
    told: Annotated[tuple[Told, ...], Field(max_length=2048)] = ()
    after: Annotated[int, Field(ge=1, lt=MOST_RUNS)] | None = None
    previous: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None

    def tells(self, output: str, run: int) -> bool:
        """Is an output told in a run?"""
        named = [told for told in self.told if told.output == output]
        return not named or named[0].in_run(run)

    def keeps_in(self, outputs: tuple[str, ...]) -> int | None:
        """Return the one run in which all of these outputs are told; None if there is no such run."""
        told = {each.output: each for each in self.told}
        runs = {told[name].first if name in told and not told[name].every else None for name in outputs}
        return runs.pop() if len(runs) == 1 else None

    def k(self, run: int) -> int:
        """Return the integer that paced factors are multiplied by in a run."""
        step = run + (self.after or 0)
        return next((rate.k for rate in reversed(self.rates) if rate.first <= step), 1)

    def rows_of(self, run: int, total: int) -> np.ndarray:
        """Return the rows that a run reads of stored data with so many, int64, counted from 0.

        Raises:
            InputError: there are fewer than one run reads, or more than can be shuffled.
        """
        if self.rows is None or self.seed is None or not self.rows <= total <= _MOST_SHUFFLED:
            raise InputError(
                f"a run of this program reads {self.rows} rows, of data that have {total}",
                remedy=f"bind data of at least that many rows, and at most {_MOST_SHUFFLED:,}",
            )
        epoch, place = divmod(run - 1 + (self.after or 0), total // self.rows)
        return _shuffled(self.seed, epoch, total)[place * self.rows : (place + 1) * self.rows]


@lru_cache(maxsize=4)
def _shuffled(seed: str, epoch: int, total: int) -> np.ndarray:
    """A permutation that everybody computes alike: the order of uniform words."""
    words = expand_words(Seed(bytes.fromhex(seed)).derive("rows", epoch), (total,), 64)
    order = np.argsort(words, kind="stable").astype(np.int64)
    order.setflags(write=False)
    return order
