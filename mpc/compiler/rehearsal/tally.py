"""Add up what outputs are off by, of all that was seen in a rehearsal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpc.compiler.graph.graph import GraphOutput
from mpc.compiler.rehearsal.drawing import ALIKE, EMPTIES, EMPTY, FLAT, KINDS, PART, TINY
from mpc.compiler.rehearsal.jumps import Jumps
from mpc.wires import BATCH

_USUAL = 7 / 8
"""The part of the rows that says how large an output usually is; what is `_BEYOND` times larger is left out."""
_BEYOND = 16.0
LOST = 10
"""An error of more than one in so many of a value leaves hardly a digit of it."""
_MORE, _KEPT, _SOME = 2.0, 0.01, 1 / 200
"""Errors of tiny inputs are told if in some of them they are so much larger, and leave less than two digits."""
_ENOUGH_ROWS = 16
"""Rows of a table whose mean is one of a column."""
RARE = 1e-4
"""A decision that comes out otherwise in fewer rows than that is none to expect."""


@dataclass(frozen=True)
class Expected:
    """The expected error of an output.

    Args:
        smooth: root mean square, in the model's units, while decisions come out as they do in the model; of labels and
            whole numbers the part that differs.
        jumps: likewise, of decisions that come out otherwise.
        changed: the part of the rows whose result they change.
        size: root mean square of the output itself.
        tiny: what it is off by, likewise, where inputs are very small beside their ranges, if that is more and leaves
            hardly two digits of it; else 0.
        alike: the same where the numbers of a row are equal.
        empty: the same where inputs are zeros, or some of them, if it is much beside the output's size.
        part: the same where one number of a row is very small beside its range.
        whole: it holds labels or whole numbers.
    """

    smooth: float
    jumps: float = 0.0
    changed: float = 0.0
    size: float = 0.0
    tiny: float = 0.0
    alike: float = 0.0
    empty: float = 0.0
    part: float = 0.0
    whole: bool = False

    @property
    def error(self) -> float:
        """The root mean square of all that is to be expected; of labels and whole numbers the part that differs."""
        if self.whole:
            return min(1.0, self.smooth + self.jumps)
        return math.hypot(self.smooth, self.jumps) if self.changed > RARE else self.smooth


class Tally:
    """Adds up the errors of one output over all runs.

    Args:
        drawn: rows are drawn from their ranges, of several kinds.
        rare: kinds of rare rows, which come by turns.
    """

    def __init__(self, out: GraphOutput, *, drawn: bool, rare: Sequence[int]) -> None:
        self.out, self._drawn, self._rarities = out, drawn, rare
        self._whole = out.labels is not None or not out.dtype.startswith("float")
        self._ours: list[np.ndarray] = []
        self._theirs: list[np.ndarray] = []
        self._kinds: list[np.ndarray] = []
        self._rare: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._empty: list[tuple[np.ndarray, np.ndarray]] = []
        self.jumps: list[Jumps] = []

    def take_rare(self, ours: np.ndarray, theirs: np.ndarray, number: int) -> None:
        """Add a run of rows that are rare: the plan's values and the graph's."""
        ours, theirs = self._flat(ours.reshape(theirs.shape)), self._flat(theirs)
        self._rare.append((ours, theirs, self._rare_kinds(len(theirs), number)))

    def take_empty(self, ours: np.ndarray, theirs: np.ndarray, exact: np.ndarray, number: int) -> None:
        """Add a run of rows of zeros: what is compared there is often just on a threshold, and comes out one way.

        Args:
            theirs, exact: the graph's values, by the decisions that the plan took and by its own.  Rows with other
                numbers count by the first: how often those come out otherwise is for `jumps`.
        """
        ours, theirs, exact = self._flat(ours.reshape(theirs.shape)), self._flat(theirs), self._flat(exact)
        nothing = self._kinds_of(len(theirs), number, EMPTIES) == EMPTY
        self._empty.append((ours, np.where(nothing[:, None], exact, theirs)))

    def _lost_of_empty(self, smooth: float, size: float) -> float:
        """Return the error of rows of zeros, where it is larger than of others, and much beside what is usual."""
        if self._whole or not self._empty:
            return 0.0
        ours, theirs = (np.concatenate(each) for each in zip(*self._empty, strict=True))
        apart = np.abs(ours - theirs)
        lost = np.isfinite(apart) & (apart > _MORE * smooth) & (apart > _KEPT * np.maximum(np.abs(theirs), size))
        return math.sqrt(np.square(apart[lost]).mean()) if lost.any() else 0.0

    def _rare_kinds(self, rows: int, number: int) -> np.ndarray:
        return np.array(self._rarities)[self._kinds_of(rows, number, len(self._rarities))]

    def _kinds_of(self, rows: int, number: int, kinds: int) -> np.ndarray:
        return np.arange(rows) % kinds if BATCH in self.out.shape else np.full(rows, number % kinds)

    def _lost(self, smooth: float, kind: int) -> float:
        """Return the error of results of rare inputs, where it is larger than of others, and large beside them."""
        if self._whole or not self._rare:
            return 0.0
        ours, theirs, kinds = (np.concatenate(each) for each in zip(*self._rare, strict=True))
        ours, theirs = ours[kinds == kind], theirs[kinds == kind]
        if not theirs.size:
            return 0.0
        apart = np.abs(ours - theirs)
        lost = np.isfinite(apart) & (apart > _MORE * smooth) & (apart > _KEPT * np.abs(theirs))
        return math.sqrt(np.square(apart[lost]).mean()) if lost.mean() > _SOME else 0.0

    def take(self, ours: np.ndarray, theirs: np.ndarray, number: int) -> None:
        """Add a run: the plan's values and the graph's."""
        self._theirs.append(self._flat(theirs))
        self._ours.append(ours.reshape(self._theirs[-1].shape))
        self._kinds.append(self._kinds_of(len(self._theirs[-1]), number, KINDS))

    def _flat(self, values: np.ndarray) -> np.ndarray:
        """(rows, elements)"""
        return np.asarray(values, np.float64).reshape(len(values) if BATCH in self.out.shape else 1, -1)

    def _squares(self, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        """Squares of differences; of whole numbers whether they differ."""
        apart = ours - theirs
        return (np.abs(apart) > 0.5).astype(np.float64) if self._whole else np.square(apart)

    def _moved(self, seen: Sequence[Jumps]) -> tuple[np.ndarray, np.ndarray]:
        """Mean squares of each row that was moved, and their chances: of a sum over rows that of the likeliest."""
        squares = [self._squares(self._flat(each.moved), self._flat(each.still)).mean(axis=1) for each in seen]
        chances = [
            np.broadcast_to(each.chances if len(each.chances) in (1, len(row)) else each.chances.max(), row.shape)
            for each, row in zip(seen, squares, strict=True)
        ]
        return np.nan_to_num(np.concatenate(squares)), np.concatenate(chances)

    def count(self, seen: Sequence[Jumps]) -> int:
        """Return how many rows jump."""
        return int((self._moved(seen)[0] > 0).sum())

    @property
    def expected(self) -> Expected:
        ours, theirs, kinds = (np.concatenate(each) for each in (self._ours, self._theirs, self._kinds))
        squares = np.where(self._left_out(theirs), np.nan, self._squares(ours, theirs))
        groups = [squares[kinds == kind] for kind in range(KINDS)] if self._drawn else [squares]
        smooth = max(self._largest(group) for group in groups)
        size = math.sqrt(max(0.0, _mean(np.where(np.isnan(squares), np.nan, np.square(theirs)))))
        jumped = changed = 0.0
        if self.jumps:
            moved, chances = self._moved(self.jumps)
            jumped, changed = float((moved * chances).mean()), float(((moved > 0) * chances).mean())
        if self._whole:
            return Expected(smooth, jumped, changed, size, whole=True)
        error = math.sqrt(smooth)
        tiny, alike, flat, part = (self._lost(error, kind) for kind in (TINY, ALIKE, FLAT, PART))
        empty = self._lost_of_empty(error, size)
        return Expected(error, math.sqrt(jumped), changed, size, tiny, max(alike, flat), empty, part)

    def _largest(self, squares: np.ndarray) -> float:
        """The mean; of a table that of the column that is off most, which others would hide."""
        if self._whole or len(self.out.shape) != 2 or len(squares) < _ENOUGH_ROWS:
            return _mean(squares)
        return max(_mean(column) for column in squares.T)

    @staticmethod
    def _left_out(values: np.ndarray) -> np.ndarray:
        """Which are infinite, or far larger than usual, as where a divisor is nearly 0."""
        size = np.where(np.isfinite(values), np.abs(values), np.inf)
        usual = np.maximum(np.quantile(size, _USUAL, axis=0, method="lower"), np.quantile(size, _USUAL, method="lower"))
        return ~np.isfinite(size) | ((size > _BEYOND * usual) & (usual > 0))


def _mean(squares: np.ndarray) -> float:
    return float(np.nanmean(squares)) if not np.isnan(squares).all() else 0.0
