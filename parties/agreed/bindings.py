"""Bindings of a session: for each stored wire of its plan an object, columns and rows of it.

The plan names owners and scales but no dataset, so one question has one digest whatever it is asked of.  What it is
asked of stands in the session's terms, which everyone agrees on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby, pairwise

import numpy as np

from mpc.encoding import Part
from mpc.errors import HandshakeError, InputError, PlanError
from mpc.plan.ends import PlanInput
from mpc.plan.plan import Plan
from mpc.stored import Layout
from parties.agreed.columns import Column
from parties.pb import party_pb2

ID_BYTES = 32
_MOST_COLUMNS = 1 << 12
_MOST_ROWS = 1 << 40
MOST_BINDINGS = 1 << 12


@dataclass(frozen=True)
class Binding:
    """A stored wire, and what it stands for: all of it, or rows of several objects that lie one behind the other.

    Args:
        wire: of the plan.
        object: the object's id, 32 bytes.
        columns: whose elements make up a row of the wire, in this order.
        first, rows: the rows that the session goes through; of weights 0 and 1.

    Raises:
        HandshakeError: that is no id, or there are no columns or rows.
    """

    wire: str
    object: bytes
    columns: tuple[str, ...]
    first: int
    rows: int

    def __post_init__(self) -> None:
        if len(self.object) != ID_BYTES:
            raise HandshakeError(f"an object's id has {ID_BYTES} bytes, not {len(self.object)}")
        if not 1 <= len(self.columns) <= _MOST_COLUMNS:
            raise HandshakeError(f"the wire {self.wire!r} is bound to {len(self.columns)} columns")
        if self.first < 0 or self.rows < 1 or self.first + self.rows > _MOST_ROWS:
            raise HandshakeError(f"the wire {self.wire!r} is bound to no rows that there could be")

    @property
    def parts(self) -> tuple[Part, ...]:
        """Return the parts that a session's id hashes of it."""
        return (self.wire, self.object, len(self.columns), *self.columns, self.first, self.rows)


def check_bindings(plan: Plan, bindings: Sequence[Binding]) -> None:
    """Check that each stored wire of a plan is bound, in plan order, and all that have rows to equally many.

    A wire of data may be bound to several objects in a row: their rows follow one another.

    Raises:
        HandshakeError: naming the wire.
    """
    wanted = [gate.out for gate in plan.stored]
    weights = {gate.out for gate in plan.stored if gate.is_weight}
    every = [binding.wire for binding in bindings]
    bound = [wire for wire, _ in groupby(every)]
    if len(bindings) > MOST_BINDINGS or any(every.count(wire) > 1 for wire in weights):
        raise HandshakeError(f"a weight is bound twice, or there are more than {MOST_BINDINGS} bindings")
    if bound != wanted:
        missing = [wire for wire in wanted if wire not in bound] or [wire for wire in bound if wire not in wanted]
        raise HandshakeError(
            "the session's bindings are not the stored wires of its plan",
            cause=f"see {', '.join(map(repr, missing[:5] or bound[:5]))}",
            remedy="bind each of them once, in the plan's order",
        )
    if any(_meet(parts_of(bindings, wire)) for wire in {*every} - weights):
        raise HandshakeError("a wire is bound to some rows of an object twice", remedy="name each row once")
    for binding in bindings:
        if binding.wire in weights and (binding.first, binding.rows) != (0, 1):
            raise HandshakeError(f"the weight {binding.wire!r} is bound to rows")
    rows = {wire: sum(each.rows for each in parts_of(bindings, wire)) for wire in wanted if wire not in weights}
    if len({*rows.values()}) > 1:
        raise HandshakeError(
            "the session's datasets do not have equally many rows",
            cause=", ".join(f"{count} for {wire!r}" for wire, count in rows.items()),
            remedy="bind as many rows of each",
        )


def rows_of(plan: Plan, bindings: Sequence[Binding]) -> int | None:
    """Return how many rows a session's stored data have; None if it has none."""
    weights = {gate.out for gate in plan.stored if gate.is_weight}
    first = next((binding.wire for binding in bindings if binding.wire not in weights), None)
    return None if first is None else sum(each.rows for each in parts_of(bindings, first))


def _meet(parts: Sequence[Binding]) -> bool:
    """Do two of these have a row in common?"""
    places = sorted((each.object, each.first, each.rows) for each in parts)
    return any(one[0] == two[0] and one[1] + one[2] > two[1] for one, two in pairwise(places))


def parts_of(bindings: Iterable[Binding], wire: str) -> list[Binding]:
    """Return what a wire is bound to, in the order of its rows."""
    return [each for each in bindings if each.wire == wire]


def spread(parts: Sequence[Binding], rows: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield the number of each part that some rows lie in, these rows of its object, and their places among all.

    rows: counted from 0, over all parts.
    """
    start = 0
    for number, each in enumerate(parts):
        places = np.flatnonzero((start <= rows) & (rows < start + each.rows))
        if places.size:
            yield number, each.first + rows[places] - start, places
        start += each.rows


def gather_parts(
    parts: Sequence[Binding], rows: np.ndarray, read: Callable[[int, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return rows of a wire, in their order; `read` of (number of a part, rows of its object) gives some."""
    found = [(read(number, some), places) for number, some, places in spread(parts, rows)]
    if len(found) == 1:
        return found[0][0]
    whole = np.empty((len(rows), *found[0][0].shape[1:]), found[0][0].dtype)
    for values, places in found:
        whole[places] = values
    return whole


def place(done: int, batch: int, rows: int) -> int:
    """Return the first of a run's rows, of the `rows` that a session goes through: runs follow one another.

    Args:
        done: rows of all runs before it.

    Raises:
        InputError: the run would cross the end.
    """
    first = done % rows
    if first + batch > rows:
        raise InputError(
            f"a run of {batch} rows, where {rows - first} of the {rows} stored rows are left",
            remedy="runs go through the rows in order and end where they end",
        )
    return first


def run_rows(plan: Plan, run: int, batch: int, done: int, total: int) -> np.ndarray:
    """Find the rows that a run reads, of those that a session goes through, counted from 0: a program says so, or else
    runs follow one another.

    Args:
        done: rows of all runs before it.
        total: rows that the session goes through.

    Raises:
        InputError: there are too few.
    """
    if plan.program is not None and plan.program.rows is not None:
        return plan.program.rows_of(run, total)
    first = place(done, batch, total)
    return np.arange(first, first + batch)


def check_columns(
    given: PlanInput, shape: tuple[object, ...], scale: Fraction, columns: Sequence[Column], name: str
) -> None:
    """Hold columns to the input that is to read them: their elements fill a row, at its scales, within its range.

    Args:
        shape: of one row of the input's wire, of this scale.
        name: the dataset's.

    Raises:
        InputError: they do not.
    """
    if given.places is not None:
        raise PlanError(f"input {given.name!r} takes places of a table, which are entered for the run")
    if given.first is not None and len(columns) > 1:
        raise InputError(f"input {given.name!r} reads a band of one column, and {len(columns)} of {name} are bound")
    sizes = tuple(size for size in shape if isinstance(size, int))
    count = int(np.prod(sizes, dtype=np.int64))
    left = [column.elements(1) - (given.first or 0) for column in columns]
    size = left if given.first is None else [min(count, max(0, left[0]))]
    elements = [column for column, often in zip(columns, size, strict=True) for _ in range(often)]
    if len(elements) != count:
        raise InputError(
            f"the columns of {name} have {len(elements)} elements a row, and input {given.name!r} reads {count}",
            remedy="bind the columns that the model was made for, in its order",
        )
    if any(given.offset):
        raise PlanError(f"input {given.name!r} is stored, and the plan gives it an offset")

    def each(values: Sequence[Fraction]) -> list[Fraction]:
        spread = np.array([*values], dtype=object).reshape(-1)
        return list(np.broadcast_to(spread, sizes or (1,)).reshape(-1))

    for column, factor, low, high in zip(elements, each(given.factor), each(given.low), each(given.high), strict=True):
        if column.scale != scale * factor:
            raise InputError(
                f"column {column.name!r} of {name} is held in units of 1/{column.scale}, and the plan reads units of "
                f"1/{scale * factor}",
                cause="the plan was compiled for another dataset, or another version of this one",
                remedy="compile it for this one",
            )
        if column.low < low or column.high > high:
            raise InputError(
                f"column {column.name!r} of {name} can be {float(column.low):g} to {float(column.high):g}, and input "
                f"{given.name!r} takes {float(low):g} to {float(high):g}",
                remedy="compile the model for this dataset: its ranges are taken then",
            )


def count_seeds(binding: Binding, layout: Layout) -> int:
    """Return how many seeds a party keeps for what is bound: one a block of each column."""
    return len(binding.columns) * len(layout.blocks(binding.first, binding.rows))


def same_seeds(plan: Plan, bindings: Sequence[Binding]) -> list[int]:
    """Return for each binding the one that shows its seeds: itself, or of bands of the same rows the first."""
    first: dict[tuple[bytes, tuple[str, ...], int, int], int] = {}
    return [
        first.setdefault((each.object, each.columns, each.first, each.rows), index)
        if each.wire in plan.bands
        else index
        for index, each in enumerate(bindings)
    ]


def read_binding(message: party_pb2.Binding) -> Binding:
    """Read a binding that a peer sent; `HandshakeError` if it binds nothing."""
    return Binding(message.wire, message.object, tuple(message.columns), message.first, message.rows)


def write_bindings(bindings: Iterable[Binding]) -> list[party_pb2.Binding]:
    """Write bindings as a message carries them."""
    return [
        party_pb2.Binding(wire=each.wire, object=each.object, columns=each.columns, first=each.first, rows=each.rows)
        for each in bindings
    ]
