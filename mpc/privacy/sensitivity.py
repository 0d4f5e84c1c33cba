"""Bound how much one row can change a vector: D1 and D2, from a form and what its atoms can be.

    D1 = sum_g max_{v, v'} |M_g (v - v')|_1            D2 = min(sum_g max |M_g (v - v')|_2, |widths|_2)

over groups g of atoms, v and v' among the values that g can have; for replacing a row.  An interval's ends differ by
its width; bits of rising levels are 1 .. 1 0 .. 0, so two such patterns differ by a run of ones.  `widths` are how far
the vector's elements can move, each for itself.  Products of patterns with bounded values are in `products`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

import numpy as np

from mpc.privacy import norms, products
from mpc.privacy.forms import Form, Matrix
from mpc.privacy.norms import Ball
from mpc.privacy.products import Products

_UNIT_BITS = 20
"""Roots are rounded up to 2^-20."""
_OBJECTS = 32
"""Python's integers are so many times slower than machine words."""
_PER_GROUP, _PER_PART = 1 << 9, 1 << 4
"""Numbers of whole arrays that are gone through in the time of one group of levels, or of its part in one element."""


@dataclass(frozen=True)
class Atoms:
    """The elements of a wire whose values are known to be few, whatever the data: the hard ground of every proof.

    Args:
        width: each element is in [low, low + width].
        levels: of that many neighbours each, all bits, only those patterns occur that fall: 1 .. 1 0 .. 0; else 1.
        sources: the stored wires that it depends on, row by row.
    """

    width: int
    levels: int
    sources: frozenset[str]


Ground = Atoms | Products | Ball
"""Values that a proof stands on."""


def first(form: Form, atoms: Mapping[str, Ground]) -> int:
    """Return D1, for one row."""
    return sum(_sum(matrix, atoms[name], _manhattan) for name, matrix in form.items())


def second(form: Form, atoms: Mapping[str, Ground]) -> Fraction:
    """Return D2, for one row, rounded up to 2^-20."""
    apart = sum((Fraction(_sum(matrix, atoms[name], _euclid), 1 << _UNIT_BITS) for name, matrix in form.items()), 0)
    return min(Fraction(apart), root(_squared_widths(form, atoms)))


def root(number: int) -> Fraction:
    """Return the root of an integer, rounded up to 2^-20."""
    return Fraction(_root(number), 1 << _UNIT_BITS)


def work(form: Form, atoms: Mapping[str, Ground]) -> int:
    """Return roughly how many numbers `first` and `second` go through, or could have in the time that they take."""
    return sum(_work(matrix, atoms[name]) for name, matrix in form.items())


def _work(matrix: Matrix, atoms: Ground) -> int:
    if isinstance(atoms, Products):
        return products.work(matrix, atoms)
    if isinstance(atoms, Ball):
        return _OBJECTS * matrix.values.size
    levels = atoms.levels
    entries = matrix.values.size * (1 + levels)
    if levels == 1:
        return entries
    groups = matrix.columns // levels  # these are gone through one after another, not as whole arrays
    parts = int(np.count_nonzero((np.diff(matrix.rows) != 0) | (np.diff(groups) != 0))) + 1
    return entries + _PER_GROUP * int(np.unique(groups).size) + _PER_PART * parts


def _sum(matrix: Matrix, atoms: Ground, norm: Callable[[np.ndarray], int]) -> int:
    """The sum over groups of the most that one moves the vector."""
    if not matrix.values.size:
        return 0
    if not isinstance(atoms, Atoms):
        manhattan, squared, _ = _moves(matrix, atoms)
        return manhattan if norm is _manhattan else _root(squared)
    if atoms.levels > 1:
        return sum(max(norm(step) for step in _steps(group)) for group in _groups(matrix, atoms.levels))
    if norm is _manhattan:
        return atoms.width * _exact(np.abs(matrix.values))
    squares = Counter(_added(matrix.columns, matrix.values, np.square).tolist())
    return sum(_root(square * atoms.width**2) * often for square, often in squares.items())


def _moves(matrix: Matrix, atoms: Products | Ball) -> tuple[int, int, dict[int, int]]:
    return norms.moves(matrix, atoms) if isinstance(atoms, Ball) else products.moves(matrix, atoms)


def _exact(values: np.ndarray) -> int:
    """The sum of non-negative int64 below 2^52, however many: in two halves, neither of which can wrap."""
    low = np.int64((1 << 26) - 1)
    return (int((values >> np.int64(26)).sum()) << 26) + int((values & low).sum())


def _added(places: np.ndarray, values: np.ndarray, of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """For each place that occurs, in order, the sum of what the function makes of its values, exactly."""
    order = np.argsort(places, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(places[order]) != 0))
    small = int(np.abs(values).max()) ** 2 * values.size < 1 << 62
    ordered = values[order]
    return np.asarray(np.add.reduceat(of(ordered if small else ordered.astype(object)), starts))


def _groups(matrix: Matrix, levels: int) -> Iterator[np.ndarray]:
    """Each group's coefficients (touched outputs, levels), as Python's integers."""
    group = matrix.columns // levels
    order = np.argsort(group, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        touched, place = np.unique(matrix.rows[part], return_inverse=True)
        dense = np.zeros((touched.size, levels), dtype=object)
        dense[place, matrix.columns[part] % levels] = matrix.values[part].astype(object)
        yield dense


def _steps(group: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the moves between two patterns: sums of coefficients of neighbouring levels, (outputs, pairs)."""
    sums = np.concatenate([np.zeros((group.shape[0], 1), dtype=object), np.cumsum(group, axis=1)], axis=1)
    for start in range(sums.shape[1] - 1):
        yield sums[:, start + 1 :] - sums[:, start : start + 1]


def _manhattan(steps: np.ndarray) -> int:
    return int(np.abs(steps).sum(axis=0).max())


def _euclid(steps: np.ndarray) -> int:
    """In units of 2^-20, rounded up."""
    return _root(int((steps * steps).sum(axis=0).max()))


def _root(square: int) -> int:
    """The root of an integer in units of 2^-20, rounded up."""
    wide = square << 2 * _UNIT_BITS
    found = isqrt(wide)
    return found + (found * found < wide)


def _squared_widths(form: Form, atoms: Mapping[str, Ground]) -> int:
    widths: Counter[int] = Counter()
    for name, matrix in form.items():
        known = atoms[name]
        if not matrix.values.size:
            continue
        if not isinstance(known, Atoms):
            widths.update(_moves(matrix, known)[2])
            continue
        if known.levels == 1:
            moved = _added(matrix.rows, matrix.values, np.abs).astype(object)
            widths.update(dict(zip(np.unique(matrix.rows).tolist(), (moved * known.width).tolist(), strict=True)))
            continue
        edges = np.flatnonzero((np.diff(matrix.rows) != 0) | (np.diff(matrix.columns // known.levels) != 0)) + 1
        for part in np.split(np.arange(matrix.rows.size), edges):  # ordered by rows, then by columns
            widths[int(matrix.rows[part[0]])] += _widest(matrix.values[part].tolist())
    return sum(width * width for width in widths.values())


def _widest(values: list[int]) -> int:
    """The largest size of a sum of neighbours; where a level is missing its coefficient is zero."""
    sums = [0]
    for value in values:
        sums.append(sums[-1] + value)
    return max(sums) - min(sums)
