"""Tables as text, .csv and .tsv: one row a line, perhaps under a line of names.

No row may be taken for names, nor names for a row: the first line holds names if no cell of it is a number.  A line of
both, and one that counts 0, 1, 2, as pandas names columns that have no names, are refused.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from mpc.errors import InputError

_SEPARATORS = {".csv": (",", ";", "\t"), ".tsv": ("\t",)}
SUFFIXES = tuple(_SEPARATORS)
_MISSING = frozenset({"", "na", "n/a", "#n/a", "<na>", "nan", "null", "none"})
"""Cells without a number, as spreadsheets, R and pandas write them; in lower case."""
_COUNTED = 3
"""So many columns named 0, 1, 2, ... are no row by chance."""

Line = tuple[int, list[str]]
"""Its number, and its cells."""


def read_text(path: Path) -> tuple[list[str], Iterator[Line]]:
    """Read names of columns, none if the table has none, and its lines, one after the other; empty ones are left out.

    Raises:
        InputError: it is no table, at once or when the line that is none is asked for.
    """
    lines = _lines(path)
    first = next(lines, None)
    if first is None:
        return [], lines
    header = _header(path, *first)
    rows = lines if header else chain([first], lines)
    return header, _even(path, len(first[1]), rows)


def read_numbers(path: Path) -> tuple[list[str], list[list[float]]]:
    """Read names of columns, if the table has them, and its rows of numbers, NaN where one is missing.

    Raises:
        InputError: it is no table of numbers.
    """
    header, lines = read_text(path)
    rows = [
        [_number(path, number, _column(header, column), cell) for column, cell in enumerate(line)]
        for number, line in lines
    ]
    if not rows:
        raise no_rows(path, bool(header))
    return header, rows


def separator_of(path: Path) -> str:
    """Choose what separates cells: of what files of that ending have, whichever the first line has most of."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return max(_SEPARATORS[path.suffix.lower()], key=file.readline().count)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text ({type(error).__name__})", remedy="save it as UTF-8") from None


def no_rows(path: Path, header: bool) -> InputError:
    """Make the error for a table that is empty."""
    cause = "its one line is taken for names of columns, since no cell of it is a number" if header else None
    return InputError(f"{path} has no row of numbers", cause=cause, remedy="give at least one")


def is_missing(cell: str) -> bool:
    """Tell whether a cell stands for a number that is missing."""
    return cell.strip().lower() in _MISSING


def _lines(path: Path) -> Iterator[Line]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            separator = max(_SEPARATORS[path.suffix.lower()], key=first.count)
            for number, line in enumerate(csv.reader(file, delimiter=separator), 1):
                if line:
                    yield number, line
    except FileNotFoundError:
        raise InputError(f"input file {path} does not exist", remedy="check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text ({type(error).__name__})", remedy="save it as UTF-8") from None
    except csv.Error:
        raise InputError(f"{path} is no table", cause="a cell is too large, or quotes do not end") from None


def _even(path: Path, width: int, lines: Iterator[Line]) -> Iterator[Line]:
    for number, line in lines:
        if len(line) != width:
            raise InputError(
                f"{path}, line {number}: {len(line)} cells where others have {width}", remedy="complete it"
            )
        yield number, line


def _header(path: Path, number: int, line: list[str]) -> list[str]:
    """Return the names of columns, if the first line holds them; refuse it where it could be names or a row."""
    cells = [cell.strip() for cell in line]
    text = [column for column, cell in enumerate(cells) if not _is_number(cell)]
    if len(cells) >= _COUNTED and cells == [str(column) for column in range(len(cells))]:
        raise InputError(
            f"{path}, line {number} counts 0, 1, 2, ...: it is a line of names or a row",
            cause="pandas writes this line for columns without names",
            remedy="save the table with header=False, or give its columns names",
        )
    if text and any(_is_number(cell) and cell.lower() not in _MISSING for cell in cells):
        raise InputError(
            f"{path}, line {number}: {_column([], text[0])} is no number, and others are",
            cause="the first line holds names only if no cell of it is a number",
            remedy="leave a cell empty where a number is missing, or give every column a name",
        )
    return cells if text else []


def _is_number(cell: str) -> bool:
    """Tell whether a cell holds a number, or stands for a missing one."""
    try:
        float("nan" if cell.lower() in _MISSING else cell)
    except ValueError:
        return False
    return True


def _column(header: list[str], column: int) -> str:
    """Name a column: by its header, or as all messages count columns."""
    return f"column {header[column]!r}" if header else f"column {column} (the first is column 0)"


def _number(path: Path, line: int, column: str, cell: str) -> float:
    """Read a cell's number; one that is empty or says NA has none."""
    if _is_number(cell := cell.strip()):
        return float("nan" if cell.lower() in _MISSING else cell)
    raise InputError(
        f"{path}, line {line}: {column} is no number",
        cause="it has text in it, a category perhaps, or a comma where a point belongs",
        remedy=(
            "leave it empty where a number is missing; give categories the numbers that the model was trained with "
            "(one column each for one-hot)"
        ),
    )
