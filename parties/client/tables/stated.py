"""Read what an owner says of a table's columns: ranges, categories, types, units.

All of it becomes public, so all of it is said by the owner and nothing is taken from the data, unless the owner says so
for the categories of a column (`FROM_DATA`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Self

import numpy as np

from mpc.errors import InputError, UsageError
from mpc.text import label_fault, shown

FROM_DATA = "from-data"
"""In place of a column's categories: those that occur in it, which become public by that."""
MOST_BITS = 28
TYPES = ("number", "integer", "boolean", "category")
Ends = tuple[Fraction, Fraction]


@dataclass(frozen=True)
class Stated:
    """An owner's words about a table.

    Args:
        ranges: (low, high) by column, in its own unit.
        every: of all columns of numbers that `ranges` does not name.
        categories: in the order of their numbers 0, 1, 2, ...; None: those in the data.
        types: one of `TYPES`, where a column's own type says another or nothing, as in text.
        shapes: of one row of a column that has lists of one length.
        bits: fractional bits of columns of reals: x is held as round(x 2^bits), where it is 2^28 unless said.
        missing: columns that may miss values, each with a 0/1 column beside it whether or not it does; None: whichever
            does.
        columns: those that are put, in this order; names of an array's columns. None: all.
        person: the column that says whose a row is, for `rows_per_person`; it is put only if `columns` names it.
        rows_per_person: the most rows that are one person's.
    """

    ranges: Mapping[str, Ends] = field(default_factory=dict)
    every: Ends | None = None
    categories: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    bits: Mapping[str, int] = field(default_factory=dict)
    missing: frozenset[str] | None = None
    columns: tuple[str, ...] | None = None
    person: str | None = None
    rows_per_person: int = 1

    @classmethod
    def of(
        cls,
        ranges: Any = None,
        categories: Any = None,
        types: Any = None,
        units: Any = None,
        descriptions: Any = None,
        shapes: Any = None,
        bits: Any = None,
        missing: Any = None,
        columns: Any = None,
        person: Any = None,
        rows_per_person: Any = 1,
    ) -> Self:
        """Read the arguments of `cluster.datasets.put`.

        Raises:
            UsageError: one of them has no such form.
            InputError: a range is empty, or a category cannot be printed.
        """
        each = isinstance(ranges, Mapping)
        return cls(
            ranges=_by_name(ranges, "ranges", as_range) if each else {},
            every=None if each or ranges is None else as_range("", ranges),
            categories=_by_name(categories, "categories", _labels),
            types=_by_name(types, "types", _type),
            units=_by_name(units, "units", _text),
            descriptions=_by_name(descriptions, "descriptions", _text),
            shapes=_by_name(shapes, "shapes", _shape),
            bits=_by_name(bits, "bits", _bits),
            missing=None if missing is None else frozenset(_names(missing, "missing")),
            columns=None if columns is None else _distinct(_names(columns, "columns")),
            person=None if person is None else _names([person], "person")[0],
            rows_per_person=as_rows_per_person(rows_per_person),
        )

    @property
    def spoken(self) -> frozenset[str]:
        """Names that are spoken of."""
        named = (*self._spoken, self.missing or (), self.columns or (), () if self.person is None else (self.person,))
        return frozenset(name for names in named for name in names)

    @property
    def _spoken(self) -> tuple[Mapping[str, Any], ...]:
        return (self.ranges, self.categories, self.types, self.units, self.descriptions, self.shapes, self.bits)

    def check_names(self, known: Collection[str], where: str) -> None:
        """Require that the table has every column that is spoken of.

        Raises:
            InputError: it does not have one of them.
        """
        every = [name for names in (*self._spoken, self.missing or (), self.columns or ()) for name in names]
        for name in [*every, *filter(None, [self.person])]:
            if name not in known:
                raise InputError(
                    f"{where} has no column {shown(name)!r}",
                    remedy=f"it has {', '.join(shown(each) for each in known)[:400]}",
                )

    def without(self, columns: Sequence[str]) -> list[str]:
        """Choose which of a table's columns are put, in their order."""
        if self.columns is not None:
            return list(self.columns)
        return [name for name in columns if name != self.person]


def as_range(name: str, given: Any) -> Ends:
    """Read a range from a pair of numbers, or from "LOW:HIGH".

    Raises:
        UsageError: it is neither.
        InputError: it is empty.
    """
    try:
        low, high = (_number(end) for end in (given.split(":") if isinstance(given, str) else given))
    except (TypeError, ValueError, OverflowError):
        where = f"ranges={{{shown(name)!r}: (0, 120)}}" if name else "ranges={'age': (0, 120)}"
        raise UsageError(
            f"the range of {shown(name)!r} is no pair of numbers" if name else "a range is a pair of numbers",
            remedy=f"{where}; on the command line --range {shown(name) or 'age'}=0:120",
        ) from None
    if low > high:
        raise InputError(f"the range of {shown(name)!r} is empty: low is above high", remedy="give (low, high)")
    return low, high


def _number(end: Any) -> Fraction:
    """Read an end exactly as the float that it is, so that it passes through floats unchanged."""
    if isinstance(end, bool | np.bool_):
        raise TypeError("no number")
    if isinstance(end, int | np.integer):
        return Fraction(int(end))
    if isinstance(end, str) and end.strip().lstrip("+-").isdigit():
        return Fraction(int(end))
    return Fraction(float(end))


def _labels(name: str, given: Any) -> tuple[str, ...] | None:
    if isinstance(given, str) and given == FROM_DATA:
        return None
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Sequence | np.ndarray):
        raise UsageError(
            f"the categories of {shown(name)!r} are no list", remedy=f"categories={{{shown(name)!r}: ['no', 'yes']}}"
        )
    return as_labels(name, list(given))


def as_labels(name: str, given: Sequence[Any]) -> tuple[str, ...]:
    """Read categories, texts or whole numbers, as labels.

    Raises:
        InputError: there is none, two are equal, or one is neither or cannot be printed.
    """
    if wrong := [each for each in given if not isinstance(each, str | int | np.integer)]:
        raise InputError(
            f"a category of column {shown(name)!r} is of type {type(wrong[0]).__name__}",
            remedy="categories are texts or whole numbers",
        )
    labels = tuple(str(each) for each in given)
    if fault := next(filter(None, map(label_fault, labels)), None):
        raise InputError(f"a category of column {shown(name)!r} is refused", cause=fault, remedy="rename it")
    if not labels or len(set(labels)) != len(labels):
        what = "two equal categories" if labels else "no categories"
        raise InputError(f"column {shown(name)!r} has {what}", remedy="list each once")
    return labels


def _type(name: str, given: Any) -> str:
    if given not in TYPES:
        raise UsageError(f"column {shown(name)!r} has no such type", remedy=f"types are {', '.join(TYPES)}")
    return str(given)


def _text(name: str, given: Any) -> str:
    if not isinstance(given, str):
        raise UsageError(f"units and descriptions are texts, and that of {shown(name)!r} is none")
    return given


def _shape(name: str, given: Any) -> tuple[int, ...]:
    try:
        shape = tuple(int(size) for size in given)
    except (TypeError, ValueError):
        shape = ()
    if not shape or min(shape) < 1:
        raise UsageError(
            f"the shape of {shown(name)!r} is no list of sizes", remedy=f"shapes={{{shown(name)!r}: (28, 28)}}"
        )
    return shape


def _bits(name: str, given: Any) -> int:
    given = int(given) if isinstance(given, str) and given.isascii() and given.isdigit() else given
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or not 1 <= given <= MOST_BITS:
        raise UsageError(
            f"column {shown(name)!r} has no such fractional bits",
            remedy=f"bits={{{shown(name)!r}: 8}}, 1 to {MOST_BITS}, of a column of reals",
        )
    return int(given)


def as_rows_per_person(given: Any) -> int:
    """Read how many rows are one person's at most; `UsageError` if it is no whole number above 0."""
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or given < 1:
        raise UsageError(
            "rows_per_person is a whole number above 0",
            cause="it says how many rows of the table are one person's at most, which noise has to cover",
            remedy="rows_per_person=1 if no person has two rows",
        )
    return int(given)


def _by_name(given: Any, what: str, read: Callable[[str, Any], Any]) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise UsageError(f"{what} are by column", remedy=f"{what}={{'age': ...}}")
    return {name: read(name, value) for name, value in zip(_names(given, what), given.values(), strict=True)}


def _names(given: Any, what: str) -> list[str]:
    if isinstance(given, str) or not isinstance(given, Collection) or not all(isinstance(each, str) for each in given):
        form = "{'age': ...}" if isinstance(given, Mapping) else "['age', 'bmi']"
        raise UsageError(f"{what}: names of columns are texts", remedy=f"{what}={form}")
    return list(given)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    if len(set(names)) != len(names):
        raise UsageError("columns names a column twice")
    return tuple(names)
