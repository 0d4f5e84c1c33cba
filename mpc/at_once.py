"""Comparison of a public number with a dealt one whose bit is opened in one round: [r mod 2^q > c mod 2^q].

`mpc.comparison` opens each chunk's bits, and then what an AND node makes of them.  Here the chunks' bits are opened as
the entries of a randomised matrix, whose determinant is the result under its mask, and which tells nothing else
(Ishai, Kushilevitz 2000: Randomizing polynomials).  With g_i = [r_i > c_i], e_i = [r_i = c_i] of chunk i of K, most
significant first,

    [r > c] = h_1        h_i = g_i xor e_i h_(i+1)        h_K = g_K

At level i there are i values a_k h_i xor b_k to tell, k = 1 .. i; the last one's a_i is 1.  For random nu_k and mu

    E_k = a_k e_i xor nu_k                           is opened, for each k
    nu_k h_(i+1) xor b_k xor a_k (g_i xor mu e_i) xor nu_k mu        has to be told, for each k
    H = h_(i+1) xor mu                               has to be told besides

which are i + 1 values of level i + 1, and the k-th of level i is E_k H xor the k-th of these.  At level K they are
opened.  Of each level the provider deals, for each value v of its chunk, the words a_k [r_i = v] and
a_k [r_i + mu > v] (of the last one a_k [r_K > v]), XOR-shared; a party reads them at v = c_i and adds them up.

All K (K + 1) / 2 opened bits have a mask of their own, a seed bit each: the nu, and one for each that is told at last.
From these follow all mu, and the bit beta under which h_1 is told: they are what `settle` makes of the masks, as the
opened bit is what it makes of the opened word.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import ClassVar

import numpy as np

from mpc.comparison import CHUNK_BITS, Comparison
from mpc.encoding import bits_size
from mpc.errors import PlanError
from mpc.planes import Plane

MOST_CHUNKS = 7
"""Their opened words have 28 bits."""
_SENT_BYTES = 4
"""Weigh a byte that is sent as so many that are dealt."""


@dataclass(frozen=True)
class AtOnce(Comparison):
    """The shape of one comparison whose bit is opened in one round.

    Args:
        bits: that are compared.
        split: into so many chunks; None: as suits one whose bits have no tags.

    Raises:
        PlanError: fewer than 1 bit, or more than 42; or chunks of no bit, or of too many.
    """

    at_once: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= CHUNK_BITS * MOST_CHUNKS:
            raise PlanError(
                f"a comparison on {self.bits} bits in one round; 1 to {CHUNK_BITS * MOST_CHUNKS} are possible",
                remedy="compile the model anew, without a link that makes rounds dear",
            )
        if self.split is not None and self.split not in _possible(self.bits):
            raise PlanError(
                f"a comparison on {self.bits} bits in one round and {self.split} chunks, which have 1 to "
                f"{CHUNK_BITS} bits each",
                remedy="compile the model anew",
            )

    @cached_property
    def chunks(self) -> int:
        """K: the one with which the fewest bytes are dealt, those that are opened counted four times."""
        return _best_chunks(self.bits) if self.split is None else self.split

    @cached_property
    def widths(self) -> np.ndarray:
        """Bits of each chunk, most significant first, such that the tables are smallest."""
        return np.array(_widths(self.bits, self.chunks), dtype=np.uint64)

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(bits of a word, bits of the chunk) of each level's table, in the order in which they are dealt."""
        return tuple(zip(_words(self.chunks), self.widths.tolist(), strict=True))

    @property
    def table_words(self) -> int:
        """Bits of the tables of one comparison."""
        return _table_bits(tuple(self.widths.tolist()))

    @property
    def table_bytes(self) -> int:
        """Bytes of the tables of one comparison, which lie one behind the other."""
        return -(-self.table_words // 8)

    @property
    def leaf_width(self) -> int:
        """Opened bits a comparison: E of each level but the last, then the told ones."""
        return self.chunks * (self.chunks + 1) // 2

    @property
    def mask_width(self) -> int:
        """Seed bits a comparison, one for each opened bit."""
        return self.leaf_width

    @property
    def node_bytes(self) -> int:
        """There is no AND node."""
        return 0

    @property
    def node_words(self) -> int:
        """There is no AND node."""
        return 0

    def table_planes(self, size: int) -> tuple[Plane, ...]:
        """Return where the tables of `size` comparisons have bits that are none: they fill up the last byte."""
        return (Plane(size, 8 * self.table_bytes, 0, self.table_words),)


@cache
def shape(bits: int, split: int | None, at_once: bool) -> Comparison:
    """Return the shape of a comparison, in one round or in two; raises as these do."""
    return AtOnce(bits, split) if at_once else Comparison(bits, split)


@cache
def fewest_words(bits: int) -> int:
    """Return the K with which a comparison, and its tables, are dealt in the fewest bytes if bits have tags."""

    def dealt(chunks: int) -> int:
        c = AtOnce(bits, chunks)
        return 8 * (c.table_words + c.mask_width) + c.table_bytes

    return min(_possible(bits), key=dealt)


def _words(chunks: int) -> tuple[int, ...]:
    return (*(2 * level for level in range(1, chunks)), chunks)


def _table_bits(widths: tuple[int, ...]) -> int:
    return sum(word << width for word, width in zip(_words(len(widths)), widths, strict=True))


@cache
def _widths(bits: int, chunks: int) -> tuple[int, ...]:
    """Give bit after bit to the chunk whose table grows least by it."""
    words, widths = _words(chunks), [1] * chunks
    for _ in range(bits - chunks):
        fitting = [j for j in range(chunks) if widths[j] < CHUNK_BITS]
        widths[min(fitting, key=lambda j: words[j] << widths[j])] += 1
    return tuple(widths)


@cache
def _best_chunks(bits: int) -> int:
    def cost(chunks: int) -> int:
        opened = bits_size((8,), chunks * (chunks + 1) // 2)  # of eight: single bits are packed
        return _table_bits(_widths(bits, chunks)) + _SENT_BYTES * opened

    return min(_possible(bits), key=cost)


def _possible(bits: int) -> range:
    return range(-(-bits // CHUNK_BITS), min(bits, MOST_CHUNKS) + 1)
