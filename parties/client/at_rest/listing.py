"""Lists of datasets, and all that is said of one: as text, in notebooks, and as JSON."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from mpc.text import shown
from parties.addresses import ANY
from parties.agreed.columns import Column
from parties.agreed.listed import Entry
from parties.agreed.objects import Manifest
from parties.client.at_rest.said import day
from parties.client.tables.samples import unit_of

_LONGEST = 60
CHECKED = "checked: no party has changed it, from what owners put to what is here"
UNCHECKED = "not checked: a party that deviated may have changed it; it is nothing to a grant with --security active"


class Listing(tuple[Entry, ...]):
    """Datasets, as parties list them.

    `_MANY` is the word for its objects, `_SAID` what is said of these alone.
    """

    _MANY: ClassVar[str] = "datasets"
    _SAID: ClassVar[str] = "rows"

    def __new__(cls, entries: Iterable[Entry]) -> Listing:
        """Sort them by name, the newest version of each first."""
        return super().__new__(cls, sorted(entries, key=lambda entry: (entry.name, -entry.version)))

    @property
    def table(self) -> list[tuple[str, ...]]:
        """Rows of texts, the head first."""
        head = ("name", "rows", "version", "expires", "description")
        return [head, *((e.name, f"{e.rows:,}", str(e.version), day(e.expires), cut(e.description)) for e in self)]

    def content(self) -> list[dict[str, Any]]:
        """Return what JSON has of them."""
        return [
            {
                "name": each.name,
                "owner": each.owner,
                "version": each.version,
                "id": each.id.hex(),
                self._SAID: getattr(each, self._SAID),
                "expires": each.expires,
                "description": each.description,
            }
            for each in self
        ]

    def __repr__(self) -> str:
        return as_text(self.table) if self else f"no {self._MANY} that you may see"

    def _repr_html_(self) -> str:
        return as_html(self.table, f"{len(self)} {self._MANY}")


class Versions(tuple[Manifest, ...]):
    """Versions of one dataset."""

    def __new__(cls, found: Iterable[Manifest]) -> Versions:
        """Sort them, the newest first."""
        return super().__new__(cls, sorted(found, key=lambda each: -each.version))

    @property
    def table(self) -> list[tuple[str, ...]]:
        """Rows of texts, the head first."""
        known = {each.id.hex(): each for each in self}
        head = ("version", "rows", "put", "expires", "beside the one before", "id")
        return [head, *(self._row(each, known.get(each.previous or "")) for each in self)]

    @staticmethod
    def _row(each: Manifest, before: Manifest | None) -> tuple[str, ...]:
        kept = 0 if before is None else len(_blocks(each) & _blocks(before))
        more = each.rows - before.rows if before is not None else 0
        beside = f"{kept} of {each.block_count} blocks kept, {more:+,} rows" if kept else "put anew"
        if before is None:
            beside = "the first" if each.previous is None else "the one before is not here"
        return (str(each.version), f"{each.rows:,}", day(each.created), day(each.expires), beside, each.id.hex()[:16])

    def content(self) -> list[dict[str, Any]]:
        """Return what JSON has of them."""
        return [
            {
                "version": each.version,
                "id": each.id.hex(),
                "previous": each.previous,
                "rows": each.rows,
                "rows_per_person": each.rows_per_person,
                "blocks": each.block_count,
                "created": each.created,
                "expires": each.expires,
            }
            for each in self
        ]

    def __repr__(self) -> str:
        return as_text(self.table)

    def _repr_html_(self) -> str:
        return as_html(self.table, f"versions of {self[0].name}" if self else "no versions")


def _blocks(whole: Manifest) -> set[str]:
    """Tell blocks apart by their commitments: a kept one has those that it had."""
    return {*whole.commitments[whole.columns[0].name]}


class Told(ABC):
    """All that an owner says of an object: lines, and a table."""

    manifest: Manifest

    @property
    @abstractmethod
    def lines(self) -> list[str]:
        """Sentences on the object as a whole."""

    @property
    @abstractmethod
    def table(self) -> list[tuple[str, ...]]:
        """Rows of texts, the head first."""

    @abstractmethod
    def content(self) -> dict[str, Any]:
        """Return what JSON has of it."""

    def __repr__(self) -> str:
        return "\n".join([self.manifest.name, *self.lines, "", as_text(self.table)])

    def _repr_html_(self) -> str:
        lines = "<br>".join(html.escape(line) for line in self.lines)
        return f"<p><b>{html.escape(self.manifest.name)}</b><br>{lines}</p>{as_html(self.table, '')}"


class Description(Told):
    """All that an owner says of a dataset.

    Args:
        budget: what is left of its budget, in a line, if the parties tell.
        left: and in numbers, for JSON.
    """

    def __init__(self, manifest: Manifest, budget: str | None = None, left: Mapping[str, Any] | None = None) -> None:
        self.manifest, self.budget, self.left = manifest, budget, left

    @property
    def lines(self) -> list[str]:
        """Sentences on the dataset as a whole."""
        whole = self.manifest
        people = f"at most {whole.rows_per_person} of one person"
        return [
            *(shown(line) for line in whole.description.split("\n") if line),
            f"{whole.rows:,} rows, {people}; owner {whole.owner}",
            terms(whole),
            f"sample: {'rows that the owner published' if whole.sample else 'mock rows from this schema'}",
            *_history(whole),
            *(() if self.budget is None else (self.budget,)),
        ]

    @property
    def table(self) -> list[tuple[str, ...]]:
        """Columns as rows of texts, the head first."""
        head = ("column", "type", "range, categories", "description")
        return [head, *((shown(c.name), _type(c), unit_of(c), cut(c.description)) for c in self.manifest.columns)]

    def content(self) -> dict[str, Any]:
        """Return what JSON has of it."""
        whole = self.manifest
        return {
            "name": whole.name,
            "owner": whole.owner,
            "version": whole.version,
            "id": whole.id.hex(),
            "rows": whole.rows,
            "rows_per_person": whole.rows_per_person,
            "description": whole.description,
            "visible": list(whole.visible),
            "created": whole.created,
            "expires": whole.expires,
            "sample": "published" if whole.sample else "mock",
            "kept": None if whole.kept is None else whole.kept.model_dump(mode="json"),
            "columns": [_column(column) for column in whole.columns],
            "budget": None if self.left is None else dict(self.left),
            "budget_line": self.budget,
        }


def _history(whole: Manifest) -> list[str]:
    """Say where a kept object came from, and whose word its use needs besides its owner's."""
    kept = whole.kept
    if kept is None:
        return [UNCHECKED] if whole.unchecked else []
    names = sorted({origin.name for origin in kept.origins})
    checks = [CHECKED if whole.is_checked else UNCHECKED]
    if names == [whole.name]:
        return [f"refreshed: it has the values of version {kept.refreshes[0][:16]}", *checks] if kept.refreshes else []
    by_row = {name: all(each.by_row for each in kept.origins if each.name == name) for name in names}
    told = [f"{name} ({'row by row' if by_row[name] else 'as a whole'})" for name in names]
    source = f"from {', '.join(told)}" if told else f"from what {whole.owner} entered"
    owners = sorted({origin.owner for origin in kept.origins} - {whole.owner})
    asked = [f"its use needs the word of {', '.join(owners)} too"] if owners else []
    return [f"kept by the parties {source}; plan {kept.plan[:16]}", *checks, *asked]


def _column(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.type,
        "low": float(column.low),
        "high": float(column.high),
        "scale": str(column.scale),
        "shape": list(column.shape),
        "unit": column.unit,
        "categories": list(column.categories),
        "description": column.description,
        "missing_of": column.missing_of,
    }


def _type(column: Column) -> str:
    return f"array {' x '.join(map(str, column.shape))}" if column.type == "array" else column.type


def terms(whole: Manifest) -> str:
    """Describe an object's version, its end, and who sees what is said of it, in one sentence."""
    seen = "everybody whom the parties let in" if whole.visible == (ANY,) else ", ".join(whole.visible) or "its owner"
    return f"version {whole.version}, put {day(whole.created)}, expires {day(whole.expires)}; seen by {seen}"


def cut(text: str) -> str:
    """Return the beginning of a text's first line, for a table."""
    line = shown(text.split("\n")[0])
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """Write a table as text, its columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def as_html(rows: Sequence[Sequence[str]], caption: str) -> str:
    """Write a table for a notebook; whatever is in it is text."""
    head, *body = ([html.escape(cell) for cell in row] for row in rows)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in body)
    names = "".join(f"<th>{cell}</th>" for cell in head)
    return f"<table><caption>{html.escape(caption)}</caption><tr>{names}</tr>{lines}</table>"
