"""Turn values into the integers that an object holds: round(x scale), a category's number, a stand-in where one misses.

What does not fit is counted and never shown: an owner's terminal, log or issue is no place for a person's value.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from mpc.errors import InputError
from mpc.text import shown
from parties.agreed.columns import Column
from parties.client.tables.sources import Cells, is_nothing
from parties.client.tables.text import is_missing

OUTSIDE, NOT_WHOLE, NO_NUMBER, UNKNOWN = "outside", "not whole", "no number", "unknown"
_TRUTHS = {"true": 1, "false": 0, "yes": 1, "no": 0, "1": 1, "0": 0}
_SAFE = 1 << 62


@dataclass
class Faults:
    """Counts of values that do not fit, by column and why."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, column: str, why: str, wrong: np.ndarray | int) -> None:
        """Count some more, of a mask or a number."""
        count = int(np.count_nonzero(wrong)) if isinstance(wrong, np.ndarray) else wrong
        if count:
            self.counts.setdefault(column, Counter())[why] += count

    def check(self, columns: Iterable[Column], where: str) -> None:
        """Refuse a table that has values which do not fit.

        Raises:
            InputError: naming columns, counts and ranges, and no value.
        """
        said = [_fault(column, why, count) for column in columns for why, count in self._of(column)]
        if said:
            raise InputError(
                f"{where} does not fit what you have said of it: {'; '.join(said)}",
                cause="nothing was sent; a value beyond its range would make answers wrong",
                remedy="give ranges and categories that hold for every row, or mend or leave out the rows",
            )

    def _of(self, column: Column) -> list[tuple[str, int]]:
        return sorted(self.counts.get(column.name, Counter()).items())


def _fault(column: Column, why: str, count: int) -> str:
    name, many = shown(column.name), f"{count:,} value{'s' if count != 1 else ''}"
    ends = f"{float(column.low):g}:{float(column.high):g}"
    return {
        OUTSIDE: f"column {name!r} has {many} outside its range {ends}",
        NOT_WHOLE: f"column {name!r} has {many} that {'are' if count != 1 else 'is'} not whole "
        f"(types={{{name!r}: 'number'}} makes it real)",
        NO_NUMBER: f"column {name!r} has {many} that {'are no numbers' if count != 1 else 'is no number'} "
        "(texts need categories, dates need to be numbers)",
        UNKNOWN: f"column {name!r} has {many} in none of its categories",
    }[why]


@dataclass(frozen=True)
class Encoded:
    """Some rows of a column as integers.

    Args:
        values: int64, (rows, *shape).
        missing: bool by row; None if none is missing.
    """

    values: np.ndarray = field(repr=False)
    missing: np.ndarray | None = field(repr=False)


Encoder = Callable[[Cells, Faults], Encoded]


def encoder(column: Column, truths: bool = False) -> Encoder:
    """Make what turns a column's values into integers.

    truths: texts in it are true or false.
    """
    if column.type == "category":
        numbers = category_numbers(column.categories)
        return lambda cells, faults: _categories(cells, column, numbers, faults)
    return lambda cells, faults: _numbers(cells, column, truths, faults)


def category_numbers(categories: Sequence[str]) -> Mapping[Any, int]:
    """Number categories, by text and, where one is a whole number as Python prints it, by that too."""
    numbers: dict[Any, int] = {label: number for number, label in enumerate(categories)}
    for number, label in enumerate(categories):
        digits = label.removeprefix("-")
        if digits.isascii() and digits.isdigit() and str(int(label)) == label:
            numbers[int(label)] = number
    return numbers


def texts_of(cells: Cells, known: Mapping[Any, int]) -> list[Any]:
    """List a column's values as they are looked up among categories; None where one is missing."""
    found: list[Any] = cells.values.tolist()
    if cells.values.dtype == object:
        found = [each.strip() if isinstance(each, str) else each for each in found]
    gone = [is_nothing(each) or (isinstance(each, str) and each not in known and is_missing(each)) for each in found]
    if cells.missing is not None:
        gone = [here or bool(there) for here, there in zip(gone, cells.missing, strict=True)]
    return [None if nothing else each for nothing, each in zip(gone, found, strict=True)]


def _categories(cells: Cells, column: Column, numbers: Mapping[Any, int], faults: Faults) -> Encoded:
    texts = texts_of(cells, numbers)
    values = np.fromiter((-2 if each is None else numbers.get(each, -1) for each in texts), np.int64, len(texts))
    faults.add(column.name, UNKNOWN, values == -1)
    gone = values == -2
    return Encoded(np.maximum(values, 0), gone if gone.any() else None)


def _numbers(cells: Cells, column: Column, truths: bool, faults: Faults) -> Encoded:
    values, missing = cells.values, cells.missing
    gone = np.zeros(values.shape, dtype=bool)
    if missing is not None:
        gone |= missing.reshape(-1, *[1] * (values.ndim - 1))
    if values.dtype == object:
        values, unread, bad = _read(values, gone, column.type in ("integer", "boolean"), truths)
        faults.add(column.name, NO_NUMBER, bad)
        gone |= unread
    if values.dtype.kind == "b":
        values = values.astype(np.int64)
    if values.dtype.kind == "f":
        gone |= np.isnan(values)
    outside = _outside(values, column) & ~gone
    faults.add(column.name, OUTSIDE, outside)
    values = np.where(gone | outside, values.dtype.type(0), values)
    if column.scale != 1 or values.dtype.kind == "f":
        reals = values.astype(np.float64) * float(column.scale)
        integers = np.rint(reals)
        if column.type in ("integer", "boolean") or _holds_whole_arrays(column):
            faults.add(column.name, NOT_WHOLE, integers != reals)
        integers = integers.astype(np.int64)
    else:
        integers = values.astype(np.int64)
    least, most = column.ends
    np.clip(integers, least, most, out=integers)
    integers[gone] = stand_in(column)
    rows = np.asarray(gone.any(axis=tuple(range(1, gone.ndim))))
    return Encoded(integers, rows if rows.any() else None)


def _holds_whole_arrays(column: Column) -> bool:
    """Is it an array of whole numbers?  One of reals in that range would have another scale."""
    return column.type == "array" and column.scale == 1 != real_scale(column.low, column.high)


def real_scale(low: Fraction, high: Fraction, said: int | None = None) -> Fraction:
    """Choose the scale of real numbers in a range: 2^28, or less where 44 bits would not hold the largest.

    said: fractional bits that the owner has asked for; not more than that.
    """
    size = max(abs(low), abs(high))
    bits = math.ceil(math.log2(size)) if size else 0
    return Fraction(2) ** min(28 if said is None else said, 44 - bits)


def stand_in(column: Column) -> int:
    """Give the integer that stands where a value is missing: the one in range that is nearest to zero."""
    least, most = column.ends
    return min(max(0, least), most)


def _outside(values: np.ndarray, column: Column) -> np.ndarray:
    """Compare with the range in the type that values have: 0.1 as a float32 is not 0.1 as a float64."""
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            low, high = (np.float64(float(end)).astype(values.dtype) for end in (column.low, column.high))
        return np.asarray((values < low) | (values > high))
    return np.asarray((values < math.ceil(column.low)) | (values > math.floor(column.high)))


def _read(values: np.ndarray, gone: np.ndarray, whole: bool, truths: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """Read texts as numbers: values, where one is missing or is none, and how many are none."""
    kind = np.int64 if whole and not truths else np.float64
    if not truths and not gone.any():
        try:
            return values.astype(kind), np.zeros(len(values), dtype=bool), 0
        except (TypeError, ValueError, OverflowError):
            pass  # some are missing, or are no numbers
    read: list[float] = []
    unread = np.zeros(len(values), dtype=bool)
    bad = 0
    for row, text in enumerate(values.tolist()):
        number = None if gone[row] or is_nothing(text) or is_missing(str(text)) else _parse(str(text), whole, truths)
        bad += number is not None and number != number
        unread[row] = number is None or number != number
        read.append(0 if unread[row] or number is None else number)
    exact = whole and all(isinstance(each, int) and -_SAFE < each < _SAFE for each in read)
    return np.array(read, dtype=np.int64 if exact else np.float64), unread, bad


def _parse(text: str, whole: bool, truths: bool) -> float:
    """Read a cell; NaN if it is no number."""
    if truths:
        if (truth := _TRUTHS.get(text.strip().lower())) is not None:
            return float(truth)
    if whole:
        try:
            return int(text)
        except ValueError:
            pass
    try:
        return float(text)
    except ValueError:
        return math.nan


def check_same_rows(found: int, expected: int, where: str) -> None:
    """Refuse a table that is not the one that was checked."""
    if found != expected:
        raise InputError(f"{where} was changed while it was read", remedy="begin again when nobody writes to it")
