"""Say when a narrower declared range would make runs cheaper, from the client's own data and to it alone.

Comparisons cost by the bits of what they compare, so a range that is far wider than the data is paid for in every run.
Whoever entered the data is told so once they have been computed on: nothing waits for it, and nothing follows from it
but words.  A range is part of the plan, which others see, so none is ever taken from private data by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpc.errors import MpcError
from mpc.plan.cost import Cost, plan_cost
from mpc.plan.ends import PlanInput
from mpc.plan.plan import Plan
from parties.client.running.feeds import owned, split

LEAST_SAVED = 0.2
"""The part of the rounds, of what is sent or of what is dealt that a hint is worth."""
_MOST_LOST = 0.1
"""The part by which any of them may grow meanwhile."""
_SMALLEST = 2.0**-10
_MUCH_NARROWER = 8.0
"""How many times narrower data are for a hint without a price."""
_LISTED = 8
"""Columns whose ranges a hint lists."""

Range = tuple[Any, Any]
"""(low, high): of each one number, or one a column."""


@dataclass(frozen=True)
class Hint:
    """A hint at a narrower range, in the words that a client is told.

    Args:
        discreet: what it would save.  It tells of the data that they are narrow, and is for a place that others read.
        whole: with the range, to powers of two around the data: for the user.
    """

    discreet: str
    whole: str = field(repr=False)


@dataclass
class _Ends:
    """The least and the largest number of an input so far, of all or of each column."""

    low: np.ndarray
    high: np.ndarray


class Narrowing:
    """A comparison of one session's own data with their declared ranges.

    Args:
        plan: not bound.
        me: the client that enters the data.
        parties: how many there are.
        again: compiles the model with other ranges (`Compiled.again`); None if that takes long.
    """

    def __init__(
        self, plan: Plan, me: str, parties: int, again: Callable[[Mapping[str, Range]], Any] | None = None
    ) -> None:
        self._plan, self._parties, self._again = plan, parties, again
        names = owned(plan, me)
        self._inputs = [given for given in plan.entered_inputs if given.name in names]
        self._seen: dict[str, _Ends] = {}
        self._rows = 1

    def __repr__(self) -> str:
        return f"<Narrowing of {len(self._inputs)} inputs>"  # and not of the data

    def see(self, feeds: Mapping[str, np.ndarray], rows: int) -> None:
        """Note how far the inputs of a run went, whose answer is there."""
        self._rows = split(self._plan, rows)[0]
        for given in self._inputs:
            values = feeds.get(given.name)
            if values is None or values.dtype.kind not in "fiu" or not values.size:
                continue
            own = _ends(given, values)
            seen = self._seen.setdefault(given.name, own)
            seen.low, seen.high = np.minimum(seen.low, own.low), np.maximum(seen.high, own.high)

    def hint(self) -> Hint | None:
        """Return what to say of all runs so far; None if there were none, or a narrower range saves little."""
        ranges = {given.name: found for given in self._inputs if (found := self._narrower(given)) is not None}
        if not ranges:
            return None
        if self._again is None:
            return self._unpriced(ranges)
        try:
            other: Plan = self._again(ranges).plan
        except MpcError:  # a range that narrow fits no samples, or lets nothing be proved
            return None
        saved = _saved(plan_cost(self._plan, self._rows), plan_cost(other, self._rows), self._parties)
        if not saved:
            return None
        which = " and ".join(map(repr, ranges))
        told = f"a narrower declared range of input {which} would make runs cheaper, by what you entered: {saved}"
        return Hint(told, f"{told}; {_advice(ranges)}")

    def _narrower(self, given: PlanInput) -> Range | None:
        """Return powers of two around what was entered, within what is declared; None if that is no narrower."""
        seen = self._seen.get(given.name)
        if seen is None or not (np.isfinite(seen.low).all() and np.isfinite(seen.high).all()):
            return None
        declared_low, declared_high = _declared(given)
        low = np.maximum(declared_low, np.where(seen.low < 0, -_power_of_two(-seen.low), 0.0))
        high = np.minimum(declared_high, np.where(seen.high > 0, _power_of_two(seen.high), 0.0))
        high = np.where(high > low, high, np.minimum(declared_high, low + _SMALLEST))
        if np.array_equal(low, declared_low) and np.array_equal(high, declared_high):
            return None
        if len(low) == 1:
            return float(low[0]), float(high[0])
        return tuple(low.tolist()), tuple(high.tolist())

    def _unpriced(self, ranges: Mapping[str, Range]) -> Hint | None:
        """Say where the price stands, of a model that takes long to compile and of data that are far narrower."""
        far = []
        for given in self._inputs:
            if given.name in ranges:
                low, high = (np.atleast_1d(np.asarray(end)) for end in ranges[given.name])
                declared_low, declared_high = _declared(given)
                if ((declared_high - declared_low) >= _MUCH_NARROWER * (high - low)).all():
                    far.append(given.name)
        if not far:
            return None
        told = (
            f"a narrower declared range of input {' and '.join(map(repr, far))} may make runs cheaper, by what you "
            f"entered: mpc inspect MODEL --range {far[0]}=LOW:HIGH has the price of one"
        )
        return Hint(told, f"{told}; {_advice({name: ranges[name] for name in far})}")


def _declared(given: PlanInput) -> tuple[np.ndarray, np.ndarray]:
    low, high = (np.array([float(end) for end in ends]) for ends in (given.low, given.high))
    return low, high


def _ends(given: PlanInput, values: np.ndarray) -> _Ends:
    """Return the ends of one run's numbers, of each column where the range has columns; missing ones have none."""
    columns = len(given.low)
    rows = values.reshape(-1, columns) if columns > 1 else values.reshape(-1, 1)
    if rows.dtype.kind == "f":
        return _Ends(_over(np.fmin, rows), _over(np.fmax, rows))
    return _Ends(rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64))


def _over(end: np.ufunc, rows: np.ndarray) -> np.ndarray:
    """Return the least or largest number of each column, NaN where there is none."""
    found: np.ndarray = end.reduce(rows, axis=0)
    return found.astype(np.float64)


def _power_of_two(values: np.ndarray) -> np.ndarray:
    """Return the power of two at or above each number, 2^-10 at least."""
    part, exponent = np.frexp(np.maximum(values, _SMALLEST))
    found: np.ndarray = np.ldexp(1.0, exponent - (part == 0.5))
    return found


def _saved(now: Cost, then: Cost, parties: int) -> str:
    """Word what a run would cost less; empty if that is too little, or something grows."""
    pairs = {
        "rounds": (now.rounds, then.rounds),
        "bytes sent by each party": (now.total_sent(parties), then.total_sent(parties)),
        "bytes dealt": (now.total_dealt(parties), then.total_dealt(parties)),
    }
    worth = any(after <= (1 - LEAST_SAVED) * before for before, after in pairs.values())
    if not worth or any(after > (1 + _MOST_LOST) * before for before, after in pairs.values()):
        return ""
    less = {what: pair for what, pair in pairs.items() if pair[1] < pair[0]}
    return ", ".join(f"{after:,} {what} instead of {before:,}" for what, (before, after) in less.items())


def _advice(ranges: Mapping[str, Range]) -> str:
    shown = []
    for name, (low, high) in ranges.items():
        ends = list(zip(_listed(low), _listed(high), strict=True))
        if len(ends) <= _LISTED:
            shown.append(f"--range {name}=" + ",".join(f"{least:g}:{most:g}" for least, most in ends))
        else:
            shown.append(f"--range {name}=LOW:HIGH,... around its {len(ends)} columns")
    return (
        f"{' '.join(shown)} is around it (in Python ranges={{'NAME': (low, high)}}); declare it if all that is still "
        "to come lies there too, and if the parties, who see the plan, may know it"
    )


def _listed(end: Any) -> Iterable[float]:
    return end if isinstance(end, tuple) else (end,)
