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
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from mpc import field as fp
from mpc import kernels
from mpc.errors import LocalProtocolError

if TYPE_CHECKING:
    from mpc.comparison import Comparison


class _Secret:
    """What every share type refuses: to be shown, to decide a branch, to become a number."""

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
        """Elementwise product with public field elements, or with one public integer."""
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
        """The sum over the first axis."""
        return Share(fp.total(self.values))

    def where(self, public_bit: np.ndarray, otherwise: Share) -> Share:
        """self where the public bit is 1, otherwise the other."""
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
        return BitShare(self.values ^ other.values, self.width)

    @classmethod
    def stack(cls, rows: Sequence[BitShare]) -> BitShare:
        """Rows of one shape and width, along a new first axis."""
        return cls(np.stack([row.values for row in rows]), rows[0].width)

    def reshape(self, shape: tuple[int, ...]) -> BitShare:
        return BitShare(self.values.reshape(shape), self.width)


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
        """The value lane: the first party's shares of one are 1, every other's are 0."""
        mine = np.uint64(1 if index == 0 else 0)
        return cls(one=mine, bit_one=mine)

    def const(self, public: np.ndarray) -> Share:
        """A share of public field elements."""
        return Share(fp.mul(public, np.full((), self.one)))

    def const_bits(self, public: np.ndarray) -> BitShare:
        """A share of public bits, one a word."""
        return BitShare(public.astype(np.uint8) & np.uint8(self.bit_one), 1)

    def select_bit(self, public_bit: np.ndarray, mask: Share) -> Share:
        """A share of the bit b from the opened e = b xor beta and the dealt [beta]."""
        flipped = np.full(mask.shape, self.one)
        return Share(np.where(public_bit == 1, fp.sub(flipped, mask.values), mask.values))

    def sum_selected(self, words: BitShare, selected: np.ndarray) -> BitShare:
        """The XOR of those bits of every word that a public word selects, one bit a word."""
        parity = np.bitwise_count(words.values & selected) & 1
        return BitShare(parity.astype(np.uint8), 1)

    def look_up(self, comparison: Comparison, table: BitShare, c: np.ndarray, mask: BitShare) -> BitShare:
        """The masked leaf bits of every comparison at the public c; see `comparison`."""
        out = np.empty(c.shape, dtype=mask.values.dtype)
        kernels.look_up(table.values, c, comparison.shifts, comparison.widths, mask.values, out)
        return BitShare(out, comparison.leaf_width)

    def resolve(self, comparison: Comparison, opened: np.ndarray, mask: BitShare, node: BitShare) -> BitShare:
        """The AND node's bit, xor the comparison's free bit, from the opened leaf words."""
        out = np.empty(opened.shape, dtype=np.uint8)
        chosen = comparison.selectors
        kernels.resolve_node(
            opened, mask.values, node.values, chosen.mask, chosen.node, chosen.constant, self.bit_one, out
        )
        return BitShare(out, 1)


@dataclass(frozen=True, repr=False)
class Masked:
    """A wire x as x^ = x + a: public to the parties, with this party's share of a where it has one.

    `mask` is None for a derived mask (see gates/affine.py): the provider knows it and deals
    functions of it; the parties never need it.
    """

    public: np.ndarray
    mask: Share | None

    def __repr__(self) -> str:
        return f"<Masked shape={self.public.shape}>"

    def known_mask(self) -> Share:
        """This party's share of the mask; `LocalProtocolError` if the mask is derived."""
        if self.mask is None:
            raise LocalProtocolError("the mask of this wire is derived; no party holds a share of it")
        return self.mask

    def share(self, lane: Lane) -> Share:
        """[x] = x^ [1] - [a]."""
        return lane.const(self.public) - self.known_mask()
