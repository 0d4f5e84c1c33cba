"""Later versions of a dataset that keep blocks of the one before: rows are added beside them, or taken out of some.

A block never changes: under one seed two values would show their difference.  Rows that are added are blocks of their
own, beside a last one that may be short.  A block from which a row is taken out is put anew by its owner, under fresh
seeds, and every version before is removed in the transaction in which the new one begins to exist.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mpc.errors import InputError, SessionError, UsageError
from mpc.stored import Layout
from mpc.text import shown
from parties.agreed.objects import Manifest
from parties.client.at_rest import upload
from parties.client.at_rest.putlog import PutLog
from parties.client.at_rest.sending import Progress
from parties.client.at_rest.upload import Described, Next, open_log
from parties.client.channels import Parties
from parties.client.consent import granting
from parties.client.tables.stated import Stated, as_rows_per_person
from parties.client.tables.table import Table, read_more

Check = Callable[[int], None]
"""Told how many rows are checked."""


def append(
    parties: Parties,
    name: str,
    table: Any,
    person: str | None,
    rows_per_person: int | None,
    expires: int | None,
    progress: Progress,
    checked: Check,
) -> Manifest:
    """Put rows beside those that a dataset has: the next version, whose other blocks are the ones before.

    Args:
        name: OWNER/NAME.
        rows_per_person: of all rows together; None: as before.
        expires: seconds since 1970; None: as before.

    Raises:
        InputError, UsageError: rows that do not fit what is said of the dataset, or fewer rows a person than before.
        SessionError, PolicyError, PeerError, IntegrityError: as `upload.put_next`.
    """

    def plan(base: Manifest) -> Next:
        most = base.rows_per_person if rows_per_person is None else as_rows_per_person(rows_per_person)
        if most < base.rows_per_person:
            raise InputError(
                f"at most {most} rows would be one person's, and version {base.version} says {base.rows_per_person}",
                remedy=f"rows_per_person={base.rows_per_person} or more: it is of all rows together",
            )
        stated = Stated.of(person=person, rows_per_person=most)
        found = read_more(table, base.columns, stated, checked)
        added = Layout(found.rows)
        lengths = [*_lengths(base.layout), *_lengths(added)]
        described = replace(
            _described(base, lengths),
            rows_per_person=most,
            expires=base.expires if expires is None else expires,
            sample=dict(base.sample),
        )
        kept = {block: block for block in range(base.block_count)}
        return Next(described, kept, found.blocks, notes=_of_difference(parties, base, found.rows, *_ADDED))

    with open_log(parties) as log:
        return upload.put_next(parties, log, name, plan, progress)


def remove_rows(
    parties: Parties,
    name: str,
    rows: Sequence[int],
    table: Any,
    sample: Callable[[Manifest], Mapping[str, tuple[int, ...]]],
    progress: Progress,
    checked: Check,
) -> Manifest:
    """Put the blocks that rows lie in without them, keep all others, and remove every version before.

    Args:
        name: OWNER/NAME.
        rows: their numbers in the newest version, the first is 0.
        table: the owner's copy of all rows of that version, or of those blocks' rows alone, in their order.
        sample: of a version's columns, the rows that its owner publishes from now on.

    Raises:
        InputError: there are no such rows, or the copy is not what was put.
        SessionError, PolicyError, PeerError, IntegrityError: as `upload.put_next`.
    """
    with open_log(parties) as log:

        def plan(base: Manifest) -> Next:
            cut = _Cut.of(base, rows)
            found = read_more(table, base.columns, Stated(), checked)
            described = replace(_described(base, cut.lengths), sample=sample(base))
            notes = (*cut.compare(log, found), *_of_difference(parties, base, len(cut.rows), *_REMOVED))
            return Next(described, cut.kept, lambda: cut.blocks(found), True, notes)

        return upload.put_next(parties, log, name, plan, progress)


@dataclass(frozen=True)
class _Cut:
    """Rows that are taken out of a version.

    Args:
        rows: sorted, each once.
        touched: blocks that one of them lies in.
    """

    base: Manifest
    rows: tuple[int, ...]
    touched: tuple[int, ...]

    @classmethod
    def of(cls, base: Manifest, given: Iterable[Any]) -> _Cut:
        rows = sorted(_row(base, each) for each in given)
        if not rows or len(set(rows)) != len(rows):
            raise UsageError("no row is named, or one twice", remedy="rows=[3, 17]")
        if len(rows) == base.rows:
            raise InputError(
                f"{base.name} would have no rows left", remedy=f"remove all of it: mpc data remove {base.name}"
            )
        return cls(base, tuple(rows), tuple(sorted({base.layout.block_at(row) for row in rows})))

    def _left(self, block: int) -> list[int]:
        """Rows of a block that stay, counted within it."""
        start, gone = self.base.layout.start(block), {*self.rows}
        return [row for row in range(self.base.block_rows(block)) if start + row not in gone]

    @property
    def kept(self) -> dict[int, int]:
        """Block of the new version -> block that it is."""
        stay = [block for block in range(self.base.block_count) if block not in self.touched or self._left(block)]
        return {number: block for number, block in enumerate(stay) if block not in self.touched}

    @property
    def lengths(self) -> list[int]:
        """Rows of each block of the new version."""
        every = enumerate(_lengths(self.base.layout))
        counts = [len(self._left(block)) if block in self.touched else rows for block, rows in every]
        return [rows for rows in counts if rows]

    def copies(self, found: Table) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Give the touched blocks as the owner's copy has them; `InputError` if it has other rows than it should."""
        layout = self.base.layout
        there = [layout.rows_of(block) for block in self.touched]
        if found.rows == layout.rows:
            for block, values in enumerate(found.blocks(_lengths(layout))):
                if block in self.touched:
                    yield block, values
        elif found.rows == sum(there):
            yield from zip(self.touched, found.blocks(there), strict=True)
        else:
            spans = ", ".join(f"{layout.start(b)} to {layout.start(b) + layout.rows_of(b) - 1}" for b in self.touched)
            raise InputError(
                f"the copy has {found.rows:,} rows, and version {self.base.version} of {self.base.name} "
                f"{layout.rows:,}",
                cause="what lies at the parties is masked: a block without a row is made anew from your own copy",
                remedy=f"give all {layout.rows:,} rows of that version in their order, or rows {spans} alone "
                f"({sum(there):,}), which lie in blocks together with those that are removed",
            )

    def compare(self, log: PutLog, found: Table) -> tuple[str, ...]:
        """Require that the copy is what was put (`InputError`); return a note if this machine does not know."""
        unknown = False
        for block, values in self.copies(found):
            for place, column in enumerate(self.base.columns):
                integers = np.ascontiguousarray(values[column.name])
                is_it = log.is_of(self.base.name, self.base.id, place, block, integers)
                if is_it is False:
                    start = self.base.layout.start(block)
                    raise InputError(
                        f"the copy is not what was put: column {shown(column.name)!r} differs in rows {start} to "
                        f"{start + self.base.block_rows(block) - 1}",
                        cause="it was changed, or sorted otherwise; rows are known by their numbers alone",
                        remedy="give the rows as they were put, those that were removed since left out; nothing was "
                        "sent",
                    )
                unknown |= is_it is None
        told = "your copy was not compared with what was put, since this machine has no list of it: a copy in another "
        return (told + "order would leave other rows out, and change those beside them",) if unknown else ()

    def blocks(self, found: Table) -> Iterator[dict[str, np.ndarray]]:
        """Give the touched blocks without the rows, those that have some left."""
        for block, values in self.copies(found):
            if left := self._left(block):
                yield {name: np.ascontiguousarray(each[left]) for name, each in values.items()}


def _row(base: Manifest, given: Any) -> int:
    if isinstance(given, bool) or not isinstance(given, int | np.integer):
        raise UsageError("rows are whole numbers", remedy="rows=[3, 17]; the first row is 0")
    if not 0 <= given < base.rows:
        raise InputError(
            f"version {base.version} of {base.name} has rows 0 to {base.rows - 1}, and no row {int(given)}",
            remedy="count from 0, in the newest version: rows behind one that was removed have moved up",
        )
    return int(given)


def _lengths(layout: Layout) -> list[int]:
    return [layout.rows_of(block) for block in range(layout.count)]


def _described(base: Manifest, lengths: Sequence[int]) -> Described:
    """Describe a version like one before, of blocks of these lengths; without the rows that that one publishes."""
    rows = sum(lengths)
    return Described(
        name=base.name.partition("/")[2],
        columns=base.columns,
        rows=rows,
        rows_per_person=base.rows_per_person,
        description=base.description,
        visible=base.visible,
        expires=base.expires,
        lengths=() if _lengths(Layout(rows)) == list(lengths) else tuple(lengths),
    )


# -- what two versions tell together

_ADDED = "without the {} that you add", "think of it before you grant exact plans of the new version"
_REMOVED = "with the {} that you remove", "such grants end with these versions, and a new one would tell it"


def _of_difference(parties: Parties, base: Manifest, rows: int, versions: str, advice: str) -> tuple[str, ...]:
    """Warn of exact answers from two versions, whose difference is about the rows that only one of them has."""
    exact, grants = _exact(parties, base)
    if not exact and not grants:
        return ()
    return (
        f"{base.name} has {_counted(exact, grants)} of versions {versions.format(_rows(rows))}: an exact answer before "
        f"and one after have a difference, which is about the {_rows(rows)} alone; {advice}",
    )


def _exact(parties: Parties, base: Manifest) -> tuple[int, list[str]]:
    """(exact answers that were given of a dataset, ids of exact grants that stand on the version before)."""
    try:
        answers = granting.budget(parties, base.name).exact
    except SessionError:  # a party knows the name no more
        answers = 0
    standing = [
        each.id[:16]
        for each in granting.given(parties)
        if each.grant.question.exact is not None
        and each.grant.dataset == base.id.hex()
        and not each.revoked
        and each.grant.expires > time.time()
    ]
    return answers, standing


def _counted(exact: int, grants: Sequence[str]) -> str:
    answers = f"{exact} exact answer{'s' if exact != 1 else ''}" if exact else ""
    stand = f"exact grants ({', '.join(grants[:5])})" if grants else ""
    return " and ".join(filter(None, (answers, stand)))


def _rows(count: int) -> str:
    return f"{count:,} row{'s' if count != 1 else ''}"
