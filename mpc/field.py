"""F_p arrays, p = 2^61 - 1: canonical `uint64` in [0, p), any shape.

Matrix products go through float64 BLAS exactly: centred representatives in three signed
limbs of 20, 20 and 21 bits, multiplied as polynomials by their values at five points (Toom and
Cook), recombined with rotations.  A value is below 2^22 in size, so an inner dimension of 512
stays below 2^53.
A public matrix of small integers is not split: three to five digits of the other one are enough.
Few rows, or one column, take a compiled loop over halves of elements instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mpc import kernels
from mpc.kernels import cores

BITS = 61
P = (1 << BITS) - 1
MAX_INNER = 512
POINTS = 5
"""At which the polynomials of limbs are multiplied."""
EXACT_BITS = 53
LIMB_BYTES = 16 << 20
"""Bytes of a right operand's limbs that are made at one time, if they are not kept."""
KEPT_BYTES = 64 << 20
"""Bytes of limbs that a session keeps, of the first weights that fit: split anew they would slow small models down."""
NANOSECONDS_A_PRODUCT = 0.25
"""About what a product of two elements takes by limbs: five products of floating-point numbers."""
_FEWEST_ROWS, _FEWEST_COLUMNS = 8, 32
"""By whose multiples blocks begin: on fewer BLAS would be slow."""
FEWER_PRODUCTS = 5
"""The most digits that take no more time than the five products of limbs."""
THIN_ROWS = 6
"""Up to so many rows of the left operand products are made one by one; with one column of the right one always."""


def zeros(shape: tuple[int, ...]) -> np.ndarray:
    """Return all-zero elements."""
    return np.zeros(shape, dtype=np.uint64)


def from_int(value: int) -> np.uint64:
    """Return any integer as a residue."""
    return np.uint64(value % P)


def from_signed(values: np.ndarray) -> np.ndarray:
    """Map int64 with |v| < p to residues: negative values wrap to p - |v|."""
    signed = np.asarray(values, dtype=np.int64)
    return (signed + ((signed >> 63) & np.int64(P))).view(np.uint64)  # the sign as a mask of bits: no branch


def to_signed(values: np.ndarray) -> np.ndarray:
    """Map residues to the int64 in (-p/2, p/2) that they stand for."""
    above = (values + np.uint64((1 << 63) - (1 << BITS - 1))) >> np.uint64(63)  # 1 where the upper half begins
    return values.astype(np.int64) - above.astype(np.int64) * np.int64(P)


def _elementwise(kernel: object, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.shape != b.shape:
        shape = np.broadcast_shapes(a.shape, b.shape)
        a, b = (each if each.shape == shape else np.array(np.broadcast_to(each, shape)) for each in (a, b))
    left, right = np.ascontiguousarray(a), np.ascontiguousarray(b)
    out = np.empty(a.shape, dtype=np.uint64)  # not left's: a scalar's contiguous copy has one axis
    kernel(left.reshape(-1), right.reshape(-1), out.reshape(-1))  # type: ignore[operator]
    return out


def add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a + b, numpy's broadcasting."""
    return _elementwise(kernels.add, a, b)


def sub(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a - b, numpy's broadcasting."""
    return _elementwise(kernels.sub, a, b)


def mul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a b elementwise, numpy's broadcasting."""
    return _elementwise(kernels.mul, a, b)


def neg(a: np.ndarray) -> np.ndarray:
    """Return -a."""
    return scale(a, -1)


def scale(a: np.ndarray, constant: int) -> np.ndarray:
    """Return a times one public integer."""
    flat = np.ascontiguousarray(a)
    out = np.empty(a.shape, dtype=np.uint64)
    kernels.scale(flat.reshape(-1), from_int(constant), out.reshape(-1))
    return out


def add_int(a: np.ndarray, constant: int) -> np.ndarray:
    """Return a plus one public integer."""
    flat = np.ascontiguousarray(a)
    out = np.empty(a.shape, dtype=np.uint64)
    kernels.add_constant(flat.reshape(-1), from_int(constant), out.reshape(-1))
    return out


def total(rows: np.ndarray) -> np.ndarray:
    """Return the sum over the first axis."""
    flat = np.ascontiguousarray(rows).reshape(rows.shape[0], -1)
    out = np.empty(flat.shape[1], dtype=np.uint64)
    kernels.sum_rows(flat, out)
    return out.reshape(rows.shape[1:])


class Room:
    """Bytes that limbs of a session's weights may take beside the weights: those of the first that fit are kept."""

    def __init__(self, size: int = KEPT_BYTES) -> None:
        self.left = size

    def take(self, size: int) -> bool:
        """Take so many bytes; False if they are not left."""
        if size > self.left:
            return False
        self.left -= size
        return True


@dataclass(frozen=True)
class Operand:
    """A right operand (k, n) of matrix products.

    A weight matrix is multiplied by every run of a session.  A small one's limbs are split once and kept; they take
    five times its memory, so a large one's are split for each product, a part at a time.

    Args:
        public: its elements may decide how it is multiplied: small ones take half as long.
    """

    values: np.ndarray = field(repr=False)
    public: bool = False

    @cached_property
    def stack(self) -> dict[tuple[int, ...], Operand]:
        """Each matrix of a stack (..., k, n), by its place."""
        return {place: Operand(self.values[place], self.public) for place in np.ndindex(self.values.shape[:-2])}

    @cached_property
    def rows(self) -> np.ndarray:
        """The transposed matrix (n, k), contiguous, for thin products; `values` are a view of it from then on."""
        rows = np.ascontiguousarray(self.values.T)
        object.__setattr__(self, "values", rows.T)
        return rows

    @property
    def kept(self) -> np.ndarray | None:
        """(5, k, n) float64, see `kernels.split_limbs`, if they are kept."""
        return self.__dict__.get("_kept")

    def keep(self, room: Room) -> None:
        """Split the matrix into limbs once, if there is room for them."""
        if self.kept is None and room.take(limb_bytes(self.values.shape)):
            self.__dict__["_kept"] = limbs(self.values)

    @cached_property
    def small(self) -> Small | None:
        """The matrix as one of small integers, if it is public and is one."""
        if not self.public or self.values.size == 0:
            return None
        signed = to_signed(self.values).astype(np.float64)
        reach = math.frexp(float(np.abs(signed).sum(axis=0).max()))[1]
        width = min(EXACT_BITS - reach, EXACT_BITS // 2)
        return Small(signed, width) if width * (FEWER_PRODUCTS) > BITS else None

    def lay_out(self, rows: int, room: Room) -> None:
        """Make now what a product with this many rows will need, as far as there is room for it."""
        for matrix in self.stack.values() if self.values.ndim > 2 else (self,):
            if is_thin(rows, matrix.values.shape[1]):
                _ = matrix.rows
            elif matrix.small is None:
                matrix.keep(room)


@dataclass(frozen=True)
class Small:
    """A matrix of integers so small that float64 holds its products with digits of `width` bits exactly.

    The largest column's sum of sizes is below 2^(53 - width), and a digit at most 2^(width - 1): so is every
    partial sum of a product below 2^52.
    """

    matrix: np.ndarray = field(repr=False)
    width: int

    def times(self, a: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """Return a (m, k) times it, plus an offset (m, n), over F_p: a product for each digit."""
        (m, k), n, count = a.shape, self.matrix.shape[1], BITS // self.width + 1
        digits = np.empty((count * m, k), dtype=np.float64)
        kernels.split_digits(np.ascontiguousarray(a).reshape(-1), self.width, digits.reshape(count, -1))
        out = np.empty((m, n), dtype=np.uint64)
        products = np.empty((count * m, n), dtype=np.float64)

        def multiply(start: int, stop: int) -> None:
            np.matmul(digits[start:stop], self.matrix, out=products[start:stop])

        cores.in_blocks(multiply, count * m, NANOSECONDS_A_PRODUCT / POINTS * k * n, _FEWEST_ROWS)
        kernels.join_digits(products.reshape(count, -1), self.width, offset.reshape(-1), out.reshape(-1))
        return out


def is_thin(m: int, n: int) -> bool:
    """Are products with m rows and n columns made one by one?"""
    return m <= THIN_ROWS or n == 1


def limb_bytes(shape: tuple[int, ...]) -> int:
    """Return the bytes of the limbs of an array."""
    return 8 * POINTS * math.prod(shape)


def limbs(a: np.ndarray) -> np.ndarray:
    """Split into limbs (5, *shape) float64, see `kernels.split_limbs`."""
    flat = np.ascontiguousarray(a)
    out = np.empty((POINTS, *flat.shape), dtype=np.float64)
    kernels.split_limbs(flat.reshape(-1), out.reshape(POINTS, -1))
    return out


def matmul(a: np.ndarray, b: np.ndarray | Operand, offset: np.ndarray | None = None) -> np.ndarray:
    """Return a @ b (+ offset) over F_p.

    Shapes: a (m, k), b (k, n), offset broadcastable to (m, n); or stacks of them, whose leading axes
    broadcast.  Error: exact.
    """
    if a.ndim > 2 or (b.values if isinstance(b, Operand) else b).ndim > 2:
        return _stacked(a, b, offset)
    right = b if isinstance(b, Operand) else Operand(b)
    (m, k), n = a.shape, right.values.shape[1]
    if right.values.shape[0] != k:
        raise ValueError(f"inner dimensions differ: {a.shape} @ {right.values.shape}")
    out = np.empty((m, n), dtype=np.uint64)
    if is_thin(m, n):
        kernels.matmul_thin(np.ascontiguousarray(a), right.rows, out)
        return out if offset is None else add(out, np.broadcast_to(offset, (m, n)))
    base = zeros((m, n)) if offset is None else np.ascontiguousarray(np.broadcast_to(offset, (m, n)))
    if right.small is not None:
        return right.small.times(a, base)
    _by_limbs(limbs(a), right, base, out)
    return out


def _by_limbs(left: np.ndarray, right: Operand, base: np.ndarray, out: np.ndarray) -> None:
    """Compute out = base + left @ right: left (5, m, k) limbs, base and out (m, n).

    Blocks of columns are computed at one time, and so are blocks of rows where there are few columns.
    """
    _, m, k = left.shape
    n = out.shape[1]
    if m > n and right.kept is not None:

        def some_rows(start: int, stop: int) -> None:
            _some_columns(left[:, start:stop], right, base[start:stop], out[start:stop], 0, n)

        cores.in_blocks(some_rows, m, NANOSECONDS_A_PRODUCT * k * n, _FEWEST_ROWS)
        return

    def some_columns(start: int, stop: int) -> None:
        _some_columns(left, right, base, out, start, stop)

    cores.in_blocks(some_columns, n, NANOSECONDS_A_PRODUCT * k * m, _FEWEST_COLUMNS)


def _some_columns(left: np.ndarray, right: Operand, base: np.ndarray, out: np.ndarray, start: int, stop: int) -> None:
    """Compute columns of a product from start to stop; the right operand's limbs are kept, or made in parts."""
    k, n = left.shape[2], stop - start
    most, inner = _parts(k, n, whole=right.kept is not None)
    for first in range(start, stop, most):
        columns = slice(first, min(first + most, stop))
        sums = np.ascontiguousarray(base[:, columns])
        result = out if n == out.shape[1] <= most else np.empty(sums.shape, dtype=np.uint64)
        products = np.empty((POINTS, *sums.shape), dtype=np.float64)
        for row in range(0, k, inner):
            rows = slice(row, min(row + inner, k))
            split = limbs(right.values[rows, columns]) if right.kept is None else right.kept[:, rows, columns]
            np.matmul(left[:, :, rows], split, out=products)
            kernels.recombine(products.reshape(POINTS, -1), sums.reshape(-1), result.reshape(-1))
            sums = result
        if result is not out:
            out[:, columns] = result


def _parts(k: int, n: int, whole: bool) -> tuple[int, int]:
    """(columns, rows) of the parts in which a right operand (k, n) is multiplied, of whose limbs `LIMB_BYTES` hold one
    a thread.

    Each part of the columns takes the left operand apart once more, each of the rows puts results together once more:
    so the longer side is cut.
    """
    inner, elements = (
        max(1, -(-k // max(1, -(-k // MAX_INNER)))),
        max(1, LIMB_BYTES // limb_bytes(()) // cores.threads()),
    )
    if whole or k * n <= elements:
        return max(n, 1), inner
    columns = min(n, max(1, elements // (inner if n > k else 64)))
    return columns, min(inner, max(1, elements // columns))


def _stacked(a: np.ndarray, b: np.ndarray | Operand, offset: np.ndarray | None) -> np.ndarray:
    """Matrix by matrix; where one right operand serves several left ones, their rows are joined."""
    right = b if isinstance(b, Operand) else Operand(b)
    (m, k), (_, n) = a.shape[-2:], right.values.shape[-2:]
    lead = np.broadcast_shapes(a.shape[:-2], right.values.shape[:-2])
    rank = right.values.ndim - 2
    if all(size == 1 for size in right.values.shape[:-2]):
        base = None if offset is None else np.broadcast_to(offset, (*lead, m, n)).reshape(-1, n)
        joined = right.stack[(0,) * rank] if rank else right
        return matmul(np.broadcast_to(a, (*lead, m, k)).reshape(-1, k), joined, base).reshape(*lead, m, n)
    if m == n == 1 and a.shape[:-2] == right.values.shape[:-2]:
        products = np.empty(lead, dtype=np.uint64)
        columns = np.ascontiguousarray(right.values).reshape(-1, k)
        kernels.dot_rows(np.ascontiguousarray(a).reshape(-1, k), columns, products.reshape(-1))
        inner = products[..., None, None]
        return inner if offset is None else add(inner, offset)
    left = np.broadcast_to(a, (*lead, m, k))
    out = np.empty((*lead, m, n), dtype=np.uint64)
    offsets = None if offset is None else np.broadcast_to(offset, out.shape)
    outer, matrices = len(lead) - rank, list(right.stack.items())

    def multiply(place: tuple[int, ...], matrix: Operand) -> None:
        # every left matrix that this right one is broadcast against
        chosen = (slice(None),) * outer + tuple(
            slice(None) if size == 1 else slice(at, at + 1)
            for at, size in zip(place, right.values.shape[:-2], strict=True)
        )
        rows = left[chosen]
        base = None if offsets is None else offsets[chosen].reshape(-1, n)
        out[chosen] = matmul(rows.reshape(-1, k), matrix, base).reshape(*rows.shape[:-1], n)

    def some(start: int, stop: int) -> None:
        for each in matrices[start:stop]:
            multiply(*each)

    cores.in_blocks(some, len(matrices), NANOSECONDS_A_PRODUCT * out.size * k / max(1, len(matrices)), 1)
    return out
