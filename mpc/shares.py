"""Secret shares and the lane they live in.

`Share` is an additive share over F_p, `BitShare` an XOR share of words of one-bit values.
Both are frozen, never print their content and cannot be turned into a bool or a number.
Everything a gate does with them is linear with public coefficients; constants enter through
the lane, "my share of one", so that the same gate code can later run on MAC tags (where the
share of one is the share of the key) without knowing who it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from mpc import field as fp
from mpc import kernels
from mpc.comparison import Comparison
from mpc.conjunction import Nodes
from mpc.encoding import view_field
from mpc.errors import LocalProtocolError

Pairs = tuple[np.ndarray, np.ndarray]
WHOLE: Pairs = (np.array([0]), np.array([-1]))
"""Of a list of values, the pairs to compare: row 0 with nothing, unless told otherwise."""


class _Secret:
    """Refuses for every type of share to be shown, to decide a branch, to become a number."""

    __slots__ = ()
    __secret__ = True

    def __repr__(self) -> str:
        return f"<{type(self).__name__} shape={self.shape}>"

    __str__ = __repr__

    @property
    def shape(self) -> tuple[int, ...]:
        raise NotImplementedError  # pragma: no cover - every share type has one

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise LocalProtocolError(f"a {type(self).__name__} has no public value to branch on or convert")

    __bool__ = __float__ = __int__ = __index__ = __array__ = __iter__ = __len__ = _refuse
    __eq__ = _refuse
    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, repr=False, eq=False)
class Share(_Secret):
    """One party's additive share of an array over F_p."""

    values: np.ndarray = field(repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def __add__(self, other: Share) -> Share:
        return Share(fp.add(self.values, other.values))

    def __sub__(self, other: Share) -> Share:
        return Share(fp.sub(self.values, other.values))

    def times(self, public: np.ndarray | int) -> Share:
        """Multiply elementwise with public field elements, or with one public integer."""
        if isinstance(public, int):
            return Share(fp.scale(self.values, public))
        return Share(fp.mul(self.values, public))

    def reshape(self, shape: tuple[int, ...]) -> Share:
        return Share(self.values.reshape(shape))

    def transpose(self, axes: tuple[int, ...]) -> Share:
        return Share(np.ascontiguousarray(self.values.transpose(axes)))

    def broadcast_to(self, shape: tuple[int, ...]) -> Share:
        return Share(np.broadcast_to(self.values, shape))

    def sum_first(self) -> Share:
        """Return the sum over the first axis."""
        return Share(fp.total(self.values))

    def where(self, public_bit: np.ndarray, otherwise: Share) -> Share:
        """Return self where the public bit is 1, otherwise the other."""
        return Share(np.where(public_bit == 1, self.values, otherwise.values))


@dataclass(frozen=True, repr=False, eq=False)
class BitShare(_Secret):
    """One party's XOR share of words that hold `width` one-bit values each."""

    values: np.ndarray = field(repr=False)
    width: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def __xor__(self, other: BitShare) -> BitShare:
        if self.width != other.width:
            raise LocalProtocolError(f"words of {self.width} and {other.width} bits do not add")
        return self._of(self.values ^ other.values)

    @staticmethod
    def stack(rows: Sequence[BitShare]) -> BitShare:
        """Return rows of one shape, width and kind, along a new first axis."""
        return rows[0]._of(np.stack([row.values for row in rows]))

    def reshape(self, shape: tuple[int, ...]) -> BitShare:
        return self._of(self.values.reshape(shape))

    def _of(self, values: np.ndarray) -> BitShare:
        """Return a share of this kind and width."""
        return type(self)(values, self.width)


@dataclass(frozen=True, repr=False)
class Selected:
    """One party's shares of what is dealt for n rows of elements, each (n, rows); see `gates.selection`."""

    bit: np.ndarray
    r1: np.ndarray
    m: np.ndarray
    bit_r1: np.ndarray
    bit_m: np.ndarray

    __secret__ = True


@dataclass(frozen=True)
class Lane:
    """How this party enters constants, and the public linear maps on packed bit shares.

    Args:
        one: this party's additive share of 1.
        bit_one: this party's XOR share of the bit 1.
    """

    one: np.uint64
    bit_one: np.uint64

    @classmethod
    def passive(cls, index: int) -> Lane:
        """Return the value lane: the first party's shares of one are 1, every other's are 0."""
        mine = np.uint64(1 if index == 0 else 0)
        return cls(one=mine, bit_one=mine)

    def const(self, public: np.ndarray) -> Share:
        """Return a share of public field elements."""
        return Share(fp.scale(public, int(self.one)))

    def const_bits(self, public: np.ndarray) -> BitShare:
        """Return a share of public bits, one a word."""
        return BitShare(public.astype(np.uint8) & np.uint8(self.bit_one), 1)

    def select_bit(self, public_bit: np.ndarray, mask: Share) -> Share:
        """Return a share of the bit b from the opened e = b xor beta and the dealt [beta]."""
        flipped = np.full(mask.shape, self.one)
        return Share(np.where(public_bit == 1, fp.sub(flipped, mask.values), mask.values))

    def look_up(
        self, comparison: Comparison, table: BitShare, values: np.ndarray, mask: BitShare, pairs: Pairs = WHOLE
    ) -> tuple[BitShare, np.ndarray]:
        """Return the masked leaf bits of every comparison at the public values[a] - values[b], and their public sign
        bits.

        Shapes: values (n, rows); results (pairs * rows,); see `comparison`.
        """
        first, second = pairs
        size = first.size * values.shape[1]
        out, sign = np.empty(size, dtype=mask.values.dtype), np.empty(size, dtype=np.uint8)
        c, under = comparison, mask.values.reshape(-1)
        if c.at_once:
            tables = table.values.reshape(size, c.table_bytes)
            kernels.look_up_at_once(tables, values, first, second, c.bits, c.shifts, c.widths, under, out, sign)
        else:
            kernels.look_up(table.values, values, first, second, c.bits, c.shifts, c.widths, under, out, sign)
        return BitShare(out, c.leaf_width), sign

    def resolve(
        self, comparison: Comparison, opened: np.ndarray, mask: BitShare, node: BitShare, public: np.ndarray
    ) -> BitShare:
        """Return the AND node's bit, xor the comparison's free bit and a public one, from the opened leaf words."""
        out = np.empty(opened.shape, dtype=np.uint8)
        chosen, words = comparison.selectors, node.values
        if chosen.short is not None:
            whole = words.reshape(-1).view(f"<u{words.shape[1]}")
            kernels.resolve_short_node(opened, mask.values, whole, chosen.short, public, self.bit_one, out)
        else:
            kernels.resolve_node(
                opened, mask.values, words, chosen.mask, chosen.node, chosen.constant, public, self.bit_one, out
            )
        return BitShare(out, 1)

    def conjunction(self, nodes: Nodes, opened: np.ndarray, node: BitShare, fresh: BitShare) -> BitShare:
        """Return shares of the ANDs of opened bits xor their masks, one for each node, under fresh bits.

        Shapes: opened (bits, rows); node, fresh and the result (nodes, rows).
        """
        out = np.empty(fresh.shape, dtype=np.uint8)
        kernels.and_nodes(opened, nodes.places, nodes.flips, node.values, fresh.values, self.bit_one, out)
        return BitShare(out, 1)

    def select(self, c: np.ndarray, e: np.ndarray, dealt: Selected, bits: int, shift: int, mask: Share) -> Share:
        """Return mask + the sum over the first axis of (e xor beta) y, y the truncation of the public c; see
        `gates.relu`.

        Shapes: c, e and each dealt value (n, rows), mask and the result (rows,).
        """
        out = mask.values.reshape(-1).copy()
        d = dealt
        kernels.select(c, e, d.bit, d.r1, d.bit_r1, d.m, d.bit_m, self.one, bits, shift, out)
        return Share(out)


@dataclass(frozen=True, repr=False)
class Masked:
    """A wire x as x^ = x + a: public to the parties, with this party's share of a where it has one.

    `mask` is None for a derived mask (see gates/bilinear.py): the provider knows it and deals
    functions of it; the parties never need it.
    """

    public: np.ndarray
    mask: Share | None

    def __repr__(self) -> str:
        return f"<Masked shape={self.public.shape}>"

    @property
    def agreed(self) -> memoryview:
        """Bytes of x^, which parties compare before they compute with it."""
        return view_field(self.public)

    def known_mask(self) -> Share:
        """Return this party's share of the mask; `LocalProtocolError` if the mask is derived."""
        if self.mask is None:
            raise LocalProtocolError("the mask of this wire is derived; no party holds a share of it")
        return self.mask

    def share(self, lane: Lane) -> Share:
        """Return [x] = x^ [1] - [a]."""
        return lane.const(self.public) - self.known_mask()
