"""Decide what a column of a table becomes: its public description, by its own type and its owner's word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from pydantic import ValidationError

from mpc.errors import InputError, PlanError
from mpc.text import check_distinct, check_name, shown
from parties.agreed.columns import Column
from parties.client.tables.integers import real_scale
from parties.client.tables.sources import Found, unreadable
from parties.client.tables.stated import Ends, Stated

_SUFFIX = ".missing"
_FEWER = "put other columns alone (columns=[...], --column)"
_DATES = (
    "give numbers: a year, or days since a day that you name, (t['born'] - pandas.Timestamp('1900-01-01')).dt.days; "
    "or leave the column out"
)

_LARGEST = 1 << 59


def describe(found: Mapping[str, Found], stated: Stated) -> list[Column]:
    """Describe columns; a category column whose categories come from the data has none of them yet, but one "".

    Raises:
        InputError: their owner has not said what is needed, or what was said does not fit.
    """
    if texts := [name for name, each in found.items() if _is_unsaid_text(name, each, stated)]:
        raise InputError(
            f"you have not said which texts there are in {_listed(texts)}",
            cause="categories become public, so they are not taken from the data",
            remedy=f"categories={{{shown(texts[0])!r}: ['no', 'yes']}}, on the command line --category "
            f"{shown(texts[0])}=no,yes; a range, if these are numbers; or {_FEWER}",
        )
    kinds = {name: _type(name, each, stated) for name, each in found.items()}
    ends = {name: _range(name, kind, found[name], stated) for name, kind in kinds.items()}
    if silent := [name for name, pair in ends.items() if pair is None]:
        raise InputError(
            f"you have not said which range the numbers of {_listed(silent)} lie in",
            cause="ranges become public, so they are not taken from the data",
            remedy=f"ranges={{{shown(silent[0])!r}: (0, 120)}}, on the command line --range {shown(silent[0])}=0:120; "
            f"categories (--category), if these are texts; or {_FEWER}",
        )
    return [_column(name, kinds[name], pair, found[name], stated) for name, pair in ends.items() if pair is not None]


def _listed(names: Sequence[str]) -> str:
    quoted = ", ".join(repr(shown(name)) for name in names[:20])
    return f"{'columns' if len(names) > 1 else 'column'} {quoted}{' and others' if len(names) > 20 else ''}"


def _column(name: str, kind: str, ends: Ends, found: Found, stated: Stated) -> Column:
    low, high = ends
    if kind == "boolean" and (low, high) != (Fraction(0), Fraction(1)):
        kind = "integer"
    if kind == "integer" and (low.denominator != 1 or high.denominator != 1):
        raise InputError(
            f"the range of column {shown(name)!r}, which holds whole numbers, has an end that is none",
            remedy=f"give whole numbers, or say that it is real: types={{{shown(name)!r}: 'number'}}",
        )
    whole = kind in ("integer", "boolean", "category") or (kind == "array" and found.whole and name not in stated.bits)
    if whole and name in stated.bits:
        raise InputError(
            f"column {shown(name)!r} holds whole numbers, which have no fractional bits",
            remedy=f"leave it out of bits, or say that it is real: types={{{shown(name)!r}: 'number'}}",
        )
    if max(abs(low), abs(high)) > _LARGEST:
        raise InputError(
            f"column {shown(name)!r} is refused: its range goes beyond 2^59",
            remedy="give a narrower range, or divide the column by a power of ten first",
        )
    try:
        return Column(
            name=name,
            type=kind,
            scale=Fraction(1) if whole else real_scale(low, high, stated.bits.get(name)),
            low=low,
            high=high,
            shape=found.shape if kind == "array" else (),
            unit=stated.units.get(name, ""),
            categories=stated.categories.get(name) or (("",) if kind == "category" else ()),
            description=stated.descriptions.get(name, ""),
        )
    except ValidationError as error:
        raise refused(f"column {shown(name)!r}", error) from None


def refused(what: str, error: ValidationError) -> InputError:
    """Say what of a description is not allowed; a value of the data is never in it."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(each) for each in first["loc"][:1])
    why = shown(first["msg"][:200].removeprefix("Value error, "))
    wide = "59 bits" in why
    return InputError(
        f"{what} is refused: {' '.join(filter(None, (place, why)))}",
        remedy="give a narrower range, or divide the column by a power of ten first" if wide else None,
    )


def with_categories(column: Column, categories: Sequence[str]) -> Column:
    """Give a column the categories that its data have.

    Raises:
        InputError: they are too many, or one cannot be printed.
    """
    fields = {**dict(column), "categories": tuple(categories), "high": Fraction(len(categories) - 1)}
    try:
        return Column(**fields)
    except ValidationError as error:
        raise refused(f"column {shown(column.name)!r}", error) from None


def missing_column(column: Column) -> Column:
    """Describe the 0/1 column that marks which rows miss a value of another."""
    return Column(
        name=f"{column.name}{_SUFFIX}",
        type="missing",
        low=Fraction(0),
        high=Fraction(1),
        missing_of=column.name,
        description=f"1 where {column.name} is missing",
    )


def _is_unsaid_text(name: str, found: Found, stated: Stated) -> bool:
    """Tell whether a column holds texts that nobody called categories, numbers or truths."""
    if name in stated.categories:
        return False
    said = stated.types.get(name)
    return said == "category" or (found.kind == "text" and said is None and name not in stated.ranges)


def _type(name: str, found: Found, stated: Stated) -> str:
    """Choose one of number, integer, boolean, category, array."""
    quoted, said = shown(name), stated.types.get(name)
    _require_readable(name, found)
    if found.kind == "array":
        if said or name in stated.categories:
            raise InputError(f"column {quoted!r} holds arrays, which have a range and no other type or categories")
        return "array"
    if name in stated.categories:
        return "category"
    kind = said or found.kind
    return {"cells": "number", "text": "number"}.get(kind, kind)


def _require_readable(name: str, found: Found) -> None:
    if found.kind == "time":
        raise InputError(f"column {shown(name)!r} holds dates or times", remedy=_DATES)
    if found.kind == "other":
        raise unreadable(name)


def require_kind(column: Column, found: Found, where: str) -> None:
    """Require that what a table has can be rows of a column that is described already; `InputError`."""
    _require_readable(column.name, found)
    if (column.type == "array") != (found.kind == "array") or (found.kind == "array" and found.shape != column.shape):
        raise InputError(
            f"column {shown(column.name)!r} of {where} has {_form(found.shape)} a row, and the dataset "
            f"{_form(column.shape)}",
            remedy="give it the form that the dataset's rows have",
        )


def _form(shape: tuple[int, ...]) -> str:
    return f"an array of shape {shape}" if shape else "one value"


def _range(name: str, kind: str, found: Found, stated: Stated) -> Ends | None:
    if kind == "category":
        if name in stated.ranges:
            raise InputError(
                f"column {shown(name)!r} has a range and categories",
                remedy="give it one of the two",
            )
        return Fraction(0), Fraction(len(stated.categories.get(name) or ("",)) - 1)
    if name in stated.ranges:
        return stated.ranges[name]
    if "boolean" in (found.kind, stated.types.get(name)):
        return Fraction(0), Fraction(1)
    return stated.every


def check_column_names(names: Sequence[str], where: str) -> None:
    """Refuse names that are not what they look like, or that another column has.

    Raises:
        InputError: naming the column.
    """
    try:
        for name in names:
            check_name(name, "column")
        check_distinct(list(names), "column")
    except PlanError as error:
        raise InputError(error.what, cause=error.cause, remedy=f"rename it in {where}") from None
    if not all(names) or any(len(name) > 128 for name in names):
        raise InputError(
            f"{where} has a column whose name is empty or longer than 128 letters",
            remedy="rename it; pandas writes its index so, unless it is told to_csv(index=False)",
        )
    if len(set(names)) != len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise InputError(f"{where} has two columns named {twice!r}", remedy="rename one of them")
