"""Inputs to rehearse a plan on: rows of samples, or drawn from the declared ranges, the same ones every time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mpc.compiler.graph.graph import GraphInput
from mpc.compiler.operators.missing import with_marks
from mpc.field import BITS, P
from mpc.prg import Seed, expand_words
from mpc.wires import BATCH

KINDS = 5
"""Kinds of rows that are drawn: spread over the range, moving together, small, at its upper side, at its lower one."""
_UPPER, _LOWER = 3, 4
TINY, ALIKE, FLAT, PART = range(4)
"""Kinds of rows that are rare: tiny, alike along their last axis, alike in all of their numbers, beside bits, and tiny
in one number, as the column of a table is whose range is far too wide."""
EMPTIES, EMPTY = 2, 0
"""Kinds of rows of zeros: of nothing else, and with zeros among numbers."""
_MOST_RUNS = 15
"""Runs of a model that fixes its rows."""
_SMALLEST = 6.0
"""Small rows are smaller by up to this power of two."""
_TINIEST = 24.0
"""Tiny numbers of a range about zero are smaller by up to this power of two."""
_SHRUNK = 12.0
"""Rows of equal numbers are smaller by up to this power of two: then they have as many more digits to round."""
_TOGETHER = 0.75
"""The part of its range by which a row moves as a whole, if it does."""
_LIGHTEST = 10.0
"""Weights of a row are smaller as a whole by up to this power of two."""
_MISSING = 1 / 8
CORNERS = 8
"""Kinds of rows at the ends of their ranges."""
_NEARER = 4
"""One in so many rows at the ends is there; the others are drawn towards zero."""

Feeds = dict[str, np.ndarray]


class Draws:
    """Draws numbers that follow from nothing but how many arrays were drawn before: a rehearsal repeats itself."""

    def __init__(self, label: str = "rehearsal") -> None:
        self._seed, self._label, self._count = Seed(bytes(32)), label, 0

    def _next(self) -> Seed:
        self._count += 1
        return self._seed.derive(self._label, self._count)

    def coins(self, shape: tuple[int, ...]) -> np.ndarray:
        """Draw field elements, about uniform, without a compiled loop: who only inspects a model waits for none."""
        return np.asarray(expand_words(self._next(), shape, BITS) % np.uint64(P))

    def uniform(self, shape: tuple[int, ...]) -> np.ndarray:
        """Draw reals between 0 and 1."""
        return (expand_words(self._next(), shape, 32) + 0.5) * 2.0**-32

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """Draw reals of mean 0 and variance 1 (Box and Muller 1958)."""
        return np.asarray(np.sqrt(-2 * np.log(self.uniform(shape))) * np.cos(2 * np.pi * self.uniform(shape)))


def drawn_runs(inputs: list[GraphInput], rows: int, draws: Draws, *, rare: bool = False) -> list[Feeds]:
    """Return one run of many rows, or several runs of a model that fixes its rows: arrays by input name, marks among
    them.

    Row r of an open batch, and run r of others, is of kind r modulo `KINDS`.

    Args:
        rare: instead each is of one of the kinds of `rarities`, by turns: as near to zero as its range lets it be, by
            random powers of two, in all numbers or in one, or equal along the last axis, at one part of the ranges of
            columns, or equal in all of its numbers.

    Inputs between 0 and 1 beside others are zeros and ones in most rows, as marks of padding are, and some are ones.
    """
    data = [given for given in inputs if given.of == given.name]
    kinds, runs = rarities(inputs) if rare else (), []
    for number in range(_number(data, rows)):
        feeds = {given.name: _drawn(given, rows, number, draws, kinds) for given in data}
        feeds |= {given.name: _marked(given, feeds[given.name], number, draws, rare) for given in _marks(data)}
        runs.append(_entered(inputs, feeds, draws))
    return runs


def rarities(inputs: list[GraphInput]) -> tuple[int, ...]:
    """Return the kinds of rare rows that differ: of one number all are tiny, and of one axis all that are alike."""
    if any(len(given.given) - (BATCH in given.given) > 1 and _has_several(given) for given in inputs):
        return TINY, ALIKE, FLAT
    return (TINY, ALIKE, PART) if any(map(_has_several, inputs)) else (TINY,)


def _has_several(given: GraphInput) -> bool:
    return bool(given.given) and given.given[-1] not in (1, BATCH)


def spread_run(inputs: list[GraphInput], draws: Draws) -> Feeds:
    """Return one run of inputs that fix their rows, all of which are spread over their ranges."""
    return {given.name: _drawn(given, 1, 0, draws) for given in inputs}


def corner_runs(inputs: list[GraphInput], rows: int, draws: Draws) -> list[Feeds]:
    """Return runs, as `drawn_runs` does, of rows that lie where bounds are reached if they are at all.

    Row r of an open batch, and run r of others, is of kind r modulo `CORNERS`: all its numbers are at the low end, at
    the high end, as near to zero as can be, at ends by chance, at ends in turn, at one end in the first half of the
    last axis and at the other in the second, all but one near zero, or all equal.  Most rows are then drawn towards
    zero by random powers of two, as far as tiny ones: what is normalised is largest there.
    """
    data = [given for given in inputs if given.of == given.name]
    runs = []
    for number in range(_number(data, rows)):
        feeds = {given.name: _corner(given, rows, number, draws) for given in data}
        runs.append(_entered(inputs, feeds, draws))
    return runs


def empty_runs(inputs: list[GraphInput], rows: int, draws: Draws) -> list[Feeds]:
    """Return runs, as `drawn_runs` does, of rows with zeros as a ReLU or padding gives, and of nothing else.

    Row r of an open batch, and run r of others, is of kind r modulo `EMPTIES`.  A range without a zero gives its number
    that is nearest to it; of such ranges alone there are no runs.  No number is missing.
    """
    data = [given for given in inputs if given.of == given.name]
    if not any(((low <= 0) & (high >= 0)).any() for low, high in (map(np.asarray, given.range) for given in data)):
        return []
    return [
        with_marks(inputs, {given.name: _emptied(given, rows, number, draws) for given in data})
        for number in range(_number(data, rows))
    ]


def _emptied(given: GraphInput, rows: int, number: int, draws: Draws) -> np.ndarray:
    """Return rows of the kinds of `empty_runs`."""
    values = _drawn(given, rows, number, draws)
    low, high = (np.broadcast_to(np.asarray(end, np.float64), values.shape) for end in given.range)
    each = (*values.shape[:1], *(1,) * (values.ndim - 1))
    kind = (np.arange(rows).reshape(each) if BATCH in given.shape else np.array(number)) % EMPTIES
    gone = (kind == EMPTY) | (draws.uniform(values.shape) < 0.5)
    return _held(given, np.where(gone, np.clip(0.0, low, high), values), low, high)


def sampled_runs(inputs: list[GraphInput], rows: int, samples: Mapping[str, np.ndarray]) -> list[Feeds]:
    """Return one run of many rows of the samples, evenly chosen, or several runs of a model that fixes its rows."""
    data = [given for given in inputs if given.of == given.name]
    chosen = (
        {given.name: _chosen(given, samples[given.name], rows, number) for given in data}
        for number in range(_number(data, rows))
    )
    return [with_marks(inputs, feeds) for feeds in chosen]


def _number(data: list[GraphInput], rows: int) -> int:
    return 1 if any(BATCH in given.shape for given in data) else min(rows, _MOST_RUNS)


def _chosen(given: GraphInput, values: np.ndarray, rows: int, number: int) -> np.ndarray:
    """Rows of the samples, evenly; of a model that fixes how many it takes, those of one run."""
    if not given.shape:
        return values
    if BATCH in given.shape:
        return values[:: max(1, len(values) // rows)][:rows]
    size = int(given.shape[0])
    first = number % max(1, len(values) // size) * size
    return values[first : first + size]


def _drawn(given: GraphInput, rows: int, number: int, draws: Draws, rare: tuple[int, ...] = ()) -> np.ndarray:
    """Draw rows by turns: spread over the range, moving as a whole, small, positive, negative.

    Data are no uniform noise: neighbours of an image move together, much of a range is often empty, and amounts have
    one sign.  Rows of a range without a zero are above its middle instead, or below it.  Of places in a table none is
    near another, and none is small: all rows are spread.

    Args:
        rare: these kinds of rows instead, by turns; none: the usual ones.
    """
    shape = tuple(rows if size == BATCH else int(size) for size in given.given)
    low, high = (np.broadcast_to(np.asarray(end, np.float64), shape) for end in given.range)
    each = (*shape[:1], *(1,) * (len(shape) - 1))
    row = np.arange(rows).reshape(each) if BATCH in given.shape else np.array(number)
    kind = row % (_UPPER if rare else KINDS)  # what is rare has no side
    part, together = draws.uniform(shape), draws.uniform(each)
    if not given.places:
        part = np.where(kind == 1, _TOGETHER * together + (1 - _TOGETHER) * part, part)
        if kind.max() >= _UPPER:
            part = _sided(part, low, high, kind)
    size = np.where((kind == 2) & (not given.places), np.exp2(-_SMALLEST * together), 1.0)
    nearest = np.clip(0.0, low, high)
    values = nearest + (low + (high - low) * part - nearest) * size
    if rare:
        kind, spread = np.array(rare)[row % len(rare)], values
        least = np.maximum(np.abs(nearest), np.maximum(np.abs(low), np.abs(high)) * 2.0**-_TINIEST)
        size = np.log2(np.maximum(np.abs(values), least) / np.where(least > 0, least, 1.0))
        # a long row has large numbers among its own, unless all are held below some size
        values = np.clip(np.sign(values) * least * np.exp2(size * together * draws.uniform(shape)), low, high)
        one = (*shape[:-1], 1) if shape else shape
        if not _has_several(given):
            return _held(given, values, low, high)
        equal = nearest + (low + (high - low) * draws.uniform(one) - nearest) * np.exp2(-_SHRUNK * draws.uniform(one))
        values = np.where(kind == ALIKE, equal, values)
        if FLAT in rare:
            values = np.where(kind == FLAT, low + (high - low) * draws.uniform(each), values)
        if PART in rare:
            chosen = row // len(rare) % shape[-1] == np.arange(shape[-1])
            values = np.where((kind == PART) & ~chosen, spread, values)
    return _held(given, values, low, high)


def _sided(part: np.ndarray, low: np.ndarray, high: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Return parts of ranges, of rows at one side those that are above zero, or below it."""
    width = high - low
    middle = np.divide(-low, width, out=np.full(part.shape, 0.5), where=(low < 0) & (high > 0))
    upper, lower = middle + (1 - middle) * part, middle * part
    return np.where(kind == _UPPER, upper, np.where(kind == _LOWER, lower, part))


def _marks(data: list[GraphInput]) -> list[GraphInput]:
    """Return inputs that may be marks: they are between 0 and 1, and others are not."""
    found = [given for given in data if _has_several(given) and _is_of_bits(given)]
    return found if len(found) < len(data) else []


def _is_of_bits(given: GraphInput) -> bool:
    low, high = map(np.asarray, given.range)
    return bool((low == 0).all() and (high == 1).all())


def _marked(given: GraphInput, values: np.ndarray, number: int, draws: Draws, rare: bool) -> np.ndarray:
    """Return zeros and ones, of which each row has another part, and one at least, but in rows that are spread, and in
    those of the last kind, where they are weights that are small as a whole.
    """
    each = (*values.shape[:1], *(1,) * (values.ndim - 1))
    places = draws.uniform(values.shape)
    chosen = (places < draws.uniform(each)) | (places == places.min(axis=-1, keepdims=True))
    kind = (np.arange(len(values)).reshape(each) if BATCH in given.shape else np.array(number)) % KINDS
    if rare:
        return chosen.astype(values.dtype)
    light = (kind == _LOWER) & (not given.exact)
    weights = np.where(light, values * np.exp2(-_LIGHTEST * draws.uniform(each)), values)
    return np.where((kind == 0) | light, weights, chosen).astype(values.dtype)


def _corner(given: GraphInput, rows: int, number: int, draws: Draws) -> np.ndarray:
    """Return rows of the kinds of `corner_runs`."""
    shape = tuple(rows if size == BATCH else int(size) for size in given.given)
    low, high = (np.broadcast_to(np.asarray(end, np.float64), shape) for end in given.range)
    each = (*shape[:1], *(1,) * (len(shape) - 1))
    row = np.arange(rows).reshape(each) if BATCH in given.shape else np.array(number)
    along = shape[-1:] if given.given[-1:] != (BATCH,) else ()
    length = along[0] if along else 1
    place, nearest = np.arange(length), np.clip(0.0, low, high)
    chance = np.where(draws.uniform(shape) < 0.5, low, high)
    alone = np.floor(draws.uniform((*shape[:-1], 1) if along else shape) * length)
    kinds = [
        low,
        high,
        nearest,
        chance,
        np.where(place % 2 == 0, low, high),
        np.where(place < length / 2, low, high),
        np.where(place == alone, chance, nearest),
        np.where(draws.uniform(each) < 0.5, low, high),
    ]
    values = np.choose(row % CORNERS, kinds)
    size = np.where(row // CORNERS % _NEARER == 0, 1.0, np.exp2(-_TINIEST * draws.uniform(each)))
    values = nearest + (values - nearest) * size
    return _held(given, values, low, high)


def _held(given: GraphInput, values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return values of the input's type, whole ones within the range if it holds such."""
    values = np.where(given.exact, np.clip(np.rint(values), np.ceil(low), np.floor(high)), values)
    return values.astype(given.dtype)


def _entered(inputs: list[GraphInput], feeds: Feeds, draws: Draws) -> Feeds:
    """Return what is entered of drawn numbers, of which some are missing where they may be."""
    for given in inputs:
        if given.columns:
            _leave_out(feeds[given.of], given.columns, draws)
    return with_marks(inputs, feeds)


def _leave_out(values: np.ndarray, columns: tuple[int, ...], draws: Draws) -> None:
    """Make some numbers of columns missing that may be."""
    gone = np.zeros(values.shape, dtype=bool)
    gone[..., list(columns)] = True
    values[gone & (draws.uniform(values.shape) < _MISSING)] = np.nan
