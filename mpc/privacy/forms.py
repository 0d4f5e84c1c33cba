"""Linear forms: how the elements of a wire depend on atoms, as sparse matrices of exact integers.

A wire's value is a constant plus the sum of M v over atoms v, where M follows from the public factors on the way.  M is
meant over Z: a factor that is zero in machine words, two times 2^32 say, is none in the field.  So a coefficient that
would not fit is refused, long before a machine word ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mpc.errors import PlanError
from mpc.gates.base import Gate
from mpc.gates.linear import INTEGERS, Combine, LinearMap, Total, Weigh
from mpc.gates.moves import Concat, Reshape, Take
from mpc.gates.rows import Rows
from mpc.wires import Wires

MOST_ENTRIES = 1 << 21
"""Elements that one matrix may have."""
LARGEST = 1 << 52
"""Coefficients stay below: noise that hides more would not fit the field."""


@dataclass(frozen=True)
class Matrix:
    """A sparse integer matrix: value i stands at (rows[i], columns[i]); ordered by rows, no place twice, none zero."""

    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray

    @property
    def largest(self) -> int:
        """The largest size of a coefficient."""
        return int(np.abs(self.values).max()) if self.values.size else 0


Form = Mapping[str, Matrix]
"""Atoms' wire -> the matrix from its elements; a wire that is missing counts nothing."""


@dataclass(frozen=True)
class Links:
    """Which output elements read which elements of one operand, and how often: out[to[i]] += factor[i] x[of[i]]."""

    to: np.ndarray
    of: np.ndarray
    factor: np.ndarray


def identity(wire: str, size: int) -> Form:
    """Return the form of atoms themselves.

    Raises:
        PlanError: there are too many to keep account of.
    """
    _require_few(size)
    places = np.arange(size, dtype=np.int64)
    return {wire: Matrix(places, places, np.ones(size, dtype=np.int64))}


def mapped(gate: LinearMap, forms: Mapping[str, Form], wires: Wires) -> Form:
    """Return the form of what a public linear map writes.

    Args:
        forms: of those operands that depend on atoms; the others count as constants.
        wires: bound to one row, so that the maps are those of a row.

    Raises:
        PlanError: a coefficient, or their number, is too large.
    """
    parts: dict[str, list[tuple[Matrix, Links]]] = {}
    entries = Counter[str]()
    for place, name in enumerate(gate.reads):
        if name in forms:
            by = links(gate, place, wires)
            for atom, matrix in forms[name].items():
                entries[atom] += _entries(matrix, by)
                _require_few(entries[atom])  # before any of the products is made
                parts.setdefault(atom, []).append((matrix, by))
    return {atom: _added(found) for atom, found in parts.items()}


def links(gate: LinearMap, place: int, wires: Wires) -> Links:
    """Return how a gate reads its operand number `place`.

    Raises:
        PlanError: the operand is read too often to keep account of.
    """
    names = gate.reads
    sizes, out = wires[names[place]].sizes, wires[gate.writes[0]].sizes
    size = int(np.prod(sizes, dtype=object))
    _require_few(max(size, int(np.prod(out, dtype=object))))
    own = np.arange(size, dtype=np.int64).reshape(sizes)
    return _LINKS[type(gate)](gate, place, own, out, wires)


def _moved(gate: LinearMap, place: int, own: np.ndarray, out: tuple[int, ...], wires: Wires) -> Links:
    """By what the gate does to places: 0 stands for nothing, and for other operands."""
    operands = [np.zeros(wires[name].sizes, dtype=np.int64) for name in gate.reads]
    operands[place] = own + 1
    read = gate.apply(operands, out, INTEGERS).reshape(-1)
    to = np.flatnonzero(read)
    return Links(to, read[to] - 1, np.ones(to.size, dtype=np.int64))


def _joined(gate: Concat, place: int, own: np.ndarray, out: tuple[int, ...], wires: Wires) -> Links:
    start = sum(wires[name].sizes[gate.axis] for name in gate.xs[:place])
    before, behind = (int(np.prod(part, dtype=object)) for part in (out[: gate.axis], out[gate.axis + 1 :]))
    rows = np.arange(before, dtype=np.int64).reshape(-1, 1) * out[gate.axis] + start
    rows = rows + np.arange(own.shape[gate.axis], dtype=np.int64)
    to = (rows.reshape(-1, 1) * behind + np.arange(behind, dtype=np.int64)).reshape(-1)
    return Links(to, own.reshape(-1), np.ones(to.size, dtype=np.int64))


def _combined(gate: Combine, place: int, own: np.ndarray, out: tuple[int, ...], wires: Wires) -> Links:
    factor = gate.factors[place] if place < len(gate.factors) else 1
    read = np.broadcast_to(own, out).reshape(-1)
    return Links(np.arange(read.size), read, np.full(read.size, factor, dtype=np.int64))


def _weighed(gate: Weigh, place: int, own: np.ndarray, out: tuple[int, ...], wires: Wires) -> Links:
    factors = gate.apply([np.ones_like(own)], out, INTEGERS).reshape(-1)
    kept = np.flatnonzero(factors)
    return Links(kept, kept, factors[kept])


def _totalled(gate: Total | Rows, place: int, own: np.ndarray, out: tuple[int, ...], wires: Wires) -> Links:
    sums = np.arange(int(np.prod(out, dtype=object)), dtype=np.int64)
    kept = sums.reshape((1, *out)) if isinstance(gate, Rows) else sums.reshape(out)
    to = np.broadcast_to(kept, own.shape).reshape(-1)
    return Links(to, own.reshape(-1), np.ones(to.size, dtype=np.int64))


_LINKS: dict[type[Gate], Callable[..., Links]] = {
    Combine: _combined,
    Concat: _joined,
    Reshape: _moved,
    Rows: _totalled,
    Take: _moved,
    Total: _totalled,
    Weigh: _weighed,
}
LINEAR = frozenset(kind.kind for kind in _LINKS) - {Rows.kind}
"""Kinds of gates whose maps are known here, but for the sum over rows."""


def _added(parts: list[tuple[Matrix, Links]]) -> Matrix:
    products = [_linked(matrix, by) for matrix, by in parts]
    if len(parts) == 1 and (np.diff(parts[0][1].to) > 0).all():  # in order, and no place twice
        _require_small(products[0].largest)
        return products[0]
    return _merged(products)


def _sizes(matrix: Matrix, by: Links) -> np.ndarray:
    """How many entries each row of a matrix has, of those at least that are read."""
    return np.bincount(matrix.rows, minlength=int(by.of.max(initial=0)) + 1)


def _entries(matrix: Matrix, by: Links) -> int:
    """How many entries the product of the links with a matrix has."""
    return int(_sizes(matrix, by)[by.of].sum())


def _linked(matrix: Matrix, by: Links) -> Matrix:
    """The product of the links with a matrix; places may occur twice."""
    sizes = _sizes(matrix, by)
    counts, ends_of = sizes[by.of], np.cumsum(sizes)
    starts = ends_of[by.of] - counts
    total = int(counts.sum())
    _require_small(matrix.largest * (int(np.abs(by.factor).max()) if by.factor.size else 0))
    ends = np.cumsum(counts)
    entries = np.arange(total) + np.repeat(starts - (ends - counts), counts)
    return Matrix(
        np.repeat(by.to, counts), matrix.columns[entries], matrix.values[entries] * np.repeat(by.factor, counts)
    )


def _merged(parts: list[Matrix]) -> Matrix:
    """The sum of matrices in which places may occur twice."""
    rows, columns, values = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "columns", "values")
    )
    if not values.size:
        return Matrix(rows, columns, values)
    order = np.lexsort((columns, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    first = np.append(True, (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1]))
    starts = np.flatnonzero(first)
    often = int(np.diff(np.append(starts, values.size)).max())
    if often * int(np.abs(values).max()) >= 1 << 62:  # then even the sum may not be one in machine words
        _require_small(1 << 62)
    sums = np.add.reduceat(values, starts)
    kept = sums != 0
    found = Matrix(rows[starts][kept], columns[starts][kept], sums[kept])
    _require_small(found.largest)
    return found


def _require_few(entries: int) -> None:
    if entries > MOST_ENTRIES:
        raise PlanError(
            f"what a row contributes has more than {MOST_ENTRIES:,} coefficients: nothing is proved of it",
            remedy="ask for fewer elements at once, or for sums instead of sums of sums",
        )


def _require_small(coefficient: int) -> None:
    if coefficient >= LARGEST:
        raise PlanError(
            f"a row is multiplied by 2^{LARGEST.bit_length() - 1} or more before noise is added: "
            "no noise that fits the field hides it",
            remedy="weigh sums after the noise: what has been noised may be multiplied by anything",
        )
