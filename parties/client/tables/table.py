"""A table that an owner puts: checked against what the owner says of it, as columns and blocks of integers.

A table is gone through twice.  First all of it is checked and nothing leaves.  Then blocks are made, one after the
other, and what was checked is checked again, since files may change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mpc.errors import InputError, UsageError, warn
from mpc.stored import Layout
from mpc.text import shown
from parties.agreed.columns import Column
from parties.client.tables.columns import check_column_names, describe, missing_column, require_kind, with_categories
from parties.client.tables.files import open_file
from parties.client.tables.frames import open_frame
from parties.client.tables.integers import Encoder, Faults, check_same_rows, encoder, texts_of
from parties.client.tables.people import People
from parties.client.tables.sources import Arrays, Found, Source, from_numpy, from_rows
from parties.client.tables.stated import Stated, as_labels, as_rows_per_person

_MOST_CATEGORIES = 1 << 16
Progress = Callable[[int], None]
"""Told how many rows are done."""


@dataclass(frozen=True)
class Table:
    """A table whose every value fits its columns.

    Args:
        columns: those that are put; a column of missing numbers follows the one that it marks.
        rows: how many there are.
        published: what of the data its columns tell, a sentence each: that some miss values, categories from data.
    """

    columns: tuple[Column, ...]
    rows: int
    published: tuple[str, ...]
    _source: Source
    _encoders: Mapping[str, Encoder]

    def blocks(self, lengths: Sequence[int] = ()) -> Iterator[dict[str, np.ndarray]]:
        """Give the integers of the rows of one block after the other: int64, (rows, *shape), by column.

        Args:
            lengths: rows of each block; none: 65,536, and in the last one what is left.

        Raises:
            InputError: the table is not as it was when it was checked.
        """
        layout = Layout(self.rows, tuple(lengths))
        waiting: list[dict[str, np.ndarray]] = []
        held = done = block = 0
        for piece in self._pieces():
            waiting.append(piece)
            held += len(next(iter(piece.values())))
            while block < layout.count and held >= (count := layout.rows_of(block)):
                whole = _joined(waiting)
                yield {name: values[:count] for name, values in whole.items()}
                waiting = [{name: values[count:] for name, values in whole.items()}]
                done, held, block = done + count, held - count, block + 1
        check_same_rows(done + held, self.rows, self._source.where)

    def _pieces(self) -> Iterator[dict[str, np.ndarray]]:
        marks = {column.missing_of: column.name for column in self.columns if column.missing_of}
        for cells in self._source.pieces([*self._encoders]):
            faults, found = Faults(), {}
            for name, encode in self._encoders.items():
                encoded = encode(cells[name], faults)
                found[name] = encoded.values
                gone = encoded.missing
                if name in marks:
                    marked = np.zeros(len(encoded.values), dtype=bool) if gone is None else gone
                    found[marks[name]] = marked.astype(np.int64)
                elif gone is not None:
                    raise InputError(f"{self._source.where} was changed while it was read", remedy="begin again")
            faults.check(self.columns, self._source.where)
            yield found


def _joined(pieces: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if len(pieces) == 1:
        return pieces[0]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def read_table(given: Any, stated: Stated, progress: Progress | None = None) -> Table:
    """Check a table against what its owner says, without keeping it.

    Args:
        given: a data frame of pandas, polars or pyarrow; a numpy array, structured or 2-D; arrays or lists by column;
            a list of dicts; or the path of a .csv, .tsv, .parquet, .npy or .npz file.
        progress: told how many rows are checked.

    Raises:
        InputError: something in it does not fit; the message has names of columns and counts, and no value.
        UsageError: it is no table.
    """
    source = open_source(given, stated)
    for name in source.aside:
        warn(f"the index {shown(name)!r} is not put: t.reset_index() makes a column of it, and so does speaking of it")
    stated.check_names([*source.found], source.where)
    names = stated.without([*source.found])
    check_column_names(names, source.where)
    if not names:
        raise InputError(f"{source.where} has no columns", remedy="give at least one")
    columns = describe({name: source.found[name] for name in names}, stated)
    if taken := [column.name for column in columns if column.type == "category" and not stated.categories[column.name]]:
        found = _occurring(source, taken)
        columns = [with_categories(each, found[each.name]) if each.name in found else each for each in columns]
    encoders = {column.name: encoder(column, _is_truths(column, stated)) for column in columns}
    rows, lacking = _check(source, columns, encoders, stated, progress)
    return Table(
        columns=_with_marks(columns, lacking, stated, source.where),
        rows=rows,
        published=_published(taken, sorted(lacking) if stated.missing is None else []),
        _source=source,
        _encoders=encoders,
    )


def read_more(given: Any, columns: Sequence[Column], stated: Stated, progress: Progress | None = None) -> Table:
    """Check rows against columns that were described before, for a dataset that has other rows already.

    Args:
        given: as `read_table`'s; it may have other columns besides.
        columns: what all its rows are held to: types, ranges, categories, and which of them may miss values.
        stated: `person` and `rows_per_person`, which are counted in these rows alone; nothing else of it is read.

    Raises:
        InputError: something in it does not fit; the message has names of columns and counts, and no value.
        UsageError: it is no table.
    """
    plain = [column for column in columns if column.type != "missing"]
    names = tuple(column.name for column in plain)
    shapes = {column.name: column.shape for column in plain if column.type == "array"}
    source = open_source(given, replace(stated, columns=names, shapes=shapes))
    replace(stated, columns=names).check_names([*source.found], source.where)
    for column in plain:
        require_kind(column, source.found[column.name], source.where)
    encoders = {each.name: encoder(each, _may_be_truths(each, source.found[each.name])) for each in plain}
    rows, lacking = _check(source, plain, encoders, stated, progress)
    if unmarked := lacking - {column.missing_of for column in columns}:
        raise InputError(
            f"{source.where} misses values in {', '.join(map(shown, sorted(unmarked)))}, where the dataset misses none",
            cause="whether a column may miss values is said when a dataset is put first",
            remedy="fill them or leave out the rows; or put all rows anew, with missing=",
        )
    return Table(tuple(columns), rows, (), source, encoders)


def open_source(given: Any, stated: Stated) -> Source:
    """Find out what kind of table this is.

    Raises:
        InputError, UsageError: it is none.
    """
    if isinstance(given, str | PathLike):
        return open_file(Path(given), stated.columns, stated.shapes)
    if isinstance(given, np.ndarray):
        return from_numpy(given, stated.columns)
    if isinstance(given, Mapping):
        return Arrays(given)
    if isinstance(given, list | tuple):
        return from_rows(given)
    return open_frame(given, stated.shapes, stated.spoken)


def _is_truths(column: Column, stated: Stated) -> bool:
    return stated.types.get(column.name) == "boolean"


def _may_be_truths(column: Column, found: Found) -> bool:
    """May texts in a column of truths, or of whole numbers 0 and 1, be true and false?"""
    return column.type in ("boolean", "integer") and column.ends == (0, 1) and found.kind in ("text", "cells")


def _check(
    source: Source,
    columns: Sequence[Column],
    encoders: Mapping[str, Encoder],
    stated: Stated,
    progress: Progress | None,
) -> tuple[int, set[str]]:
    """Go through all of a table: count its rows, and find the columns in which something is missing."""
    people = None if stated.person is None else People(stated.person, stated.rows_per_person)
    names = [*dict.fromkeys([*encoders, *([] if stated.person is None else [stated.person])])]
    rows, lacking, faults = 0, set(), Faults()
    for cells in source.pieces(names):
        for name, encode in encoders.items():
            if encode(cells[name], faults).missing is not None:
                lacking.add(name)
        if people is not None and stated.person is not None:
            people.add(cells[stated.person])
        rows += len(cells[names[0]].values)
        if progress is not None:
            progress(rows)
    faults.check(columns, source.where)
    if not rows:
        raise InputError(f"{source.where} has no rows", remedy="give at least one")
    if people is not None:
        people.check()
    return rows, lacking


def _with_marks(columns: Sequence[Column], lacking: set[str], stated: Stated, where: str) -> tuple[Column, ...]:
    """Put a 0/1 column behind each column that may miss values."""
    if stated.missing is not None and (unsaid := lacking - stated.missing):
        raise InputError(
            f"{where} misses values in {', '.join(map(shown, sorted(unsaid)))}, which you have not said",
            remedy="name these columns in missing=, or fill or leave out the rows",
        )
    marked = lacking if stated.missing is None else stated.missing
    every = [
        each for column in columns for each in ([column, missing_column(column)] if column.name in marked else [column])
    ]
    check_column_names([column.name for column in every], where)
    return tuple(every)


def _occurring(source: Source, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """List the categories that occur in columns, in order."""
    seen: dict[str, set[str]] = {name: set() for name in names}
    for cells in source.pieces(names):
        for name in names:
            seen[name] |= {str(each) for each in texts_of(cells[name], {}) if each is not None}
            if len(seen[name]) > _MOST_CATEGORIES:
                raise InputError(f"column {shown(name)!r} has more than {_MOST_CATEGORIES:,} categories")
    return {name: as_labels(name, sorted(labels, key=_order)) for name, labels in seen.items()}


def _order(label: str) -> tuple[int, int, str]:
    digits = label.removeprefix("-")
    return (0, int(label), label) if digits.isascii() and digits.isdigit() and len(digits) < 20 else (1, 0, label)


def _published(taken: Sequence[str], lacking: Sequence[str]) -> tuple[str, ...]:
    told = [f"which categories occur in column {shown(name)!r}" for name in taken]
    return (*told, *(f"that column {shown(name)!r} misses values" for name in lacking))


def require_rows_per_person(given: Any) -> int:
    """Refuse an owner's silence on it, and whatever is no whole number; `UsageError`."""
    if given is None:
        raise UsageError(
            "rows_per_person is not said",
            cause="the noise of answers covers so many rows of one person, so a guess would break its promise",
            remedy="rows_per_person=1 if no person has two rows; person='patient' has it checked",
        )
    return as_rows_per_person(given)
