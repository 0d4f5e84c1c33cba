"""Comparison of a public number with a dealt one, by tables: [r mod 2^q > c mod 2^q].

r is cut into K chunks r_1 (most significant) .. r_K of at most six bits.  For each the
provider deals an XOR-shared thermometer, one word of 2^w bits for a chunk of w, whose bit v
says r_j > v - 1.  At the public chunk c_j two neighbouring bits give, locally,

    gt_j = [r_j > c_j]        eq_j = [r_j >= c_j] xor [r_j > c_j] = [r_j = c_j]

and  [r > c] = XOR_j gt_j prod_{i < j} eq_i  is one multi-input AND node: all gt_j and eq_j
(not the last) are opened under fresh bits mu_j, nu_i, and the parties add up, over the dealt
shares of the monomials mu_j nu_S and nu_S, those that the opened bits select.  One round.
Single mask bits are seed bits; only products of two or more cost dealt bytes.

One further seed bit per comparison, the *free bit*, is added to the result: what the node
yields is already masked, and the gate defines its own mask bit from the free bit.

(The tables are those of TinyTable, Damgard et al. 2017, evaluated at a public position.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations
from typing import ClassVar

import numpy as np

from mpc.encoding import bits_size, word_type
from mpc.errors import PlanError
from mpc.planes import Plane

CHUNK_BITS = 6
MAX_CHUNKS = 8


@dataclass(frozen=True)
class Selectors:
    """Tables over the opened leaf word: which monomials enter the node's sum.

    Args:
        short: all three as one uint32 - the mask's byte, the node's one or two, and the constant in the top bit -
            where they fit; else None.
    """

    mask: np.ndarray
    node: np.ndarray
    constant: np.ndarray
    short: np.ndarray | None

    @cached_property
    def words(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mask's and node's with a byte for each bit, int8: -1 where it is 1, else 0; (opened words, bits)."""
        of_mask = np.ascontiguousarray(self.mask, dtype="<u2").view(np.uint8).reshape(len(self.mask), 2)
        return _each_bit(of_mask), _each_bit(self.node)


@dataclass(frozen=True)
class Comparison:
    """The shape of one comparison on `bits` bits.

    Args:
        split: into so many chunks; None: as suits one whose bits have no tags, see `chunks`.

    Raises:
        PlanError: fewer than 1 bit, or more than 48; or chunks of no bit, or of too many.
    """

    at_once: ClassVar[bool] = False
    """Is its bit opened in the round in which its leaf words are?  See `mpc.at_once`."""
    bits: int
    split: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= CHUNK_BITS * MAX_CHUNKS:
            raise PlanError(
                f"a comparison on {self.bits} bits; 1 to {CHUNK_BITS * MAX_CHUNKS} are possible",
                remedy="a smaller input range, or fewer fractional bits",
            )
        if self.split is not None and self.split not in _possible(self.bits):
            raise PlanError(
                f"a comparison on {self.bits} bits in {self.split} chunks, which have 1 to {CHUNK_BITS} bits each",
                remedy="compile the model anew",
            )

    @cached_property
    def chunks(self) -> int:
        """K: of those whose opened words are shortest, the one whose tables and products are smallest."""
        return _best_chunks(self.bits) if self.split is None else self.split

    @cached_property
    def widths(self) -> np.ndarray:
        """Bits of each chunk, most significant first, as even as they can be."""
        return np.array(_even(self.bits, self.chunks), dtype=np.uint64)

    @cached_property
    def shifts(self) -> np.ndarray:
        """Position of each chunk's lowest bit."""
        below = np.cumsum(self.widths[::-1], dtype=np.uint64)[::-1]
        return (below - self.widths).astype(np.uint64)

    @property
    def table_bytes(self) -> int:
        """Bytes of the thermometers of one comparison; each kind of chunk is a plane of its own, the widest first."""
        return sum(map(_word_bytes, self.widths.tolist()))

    @property
    def leaf_width(self) -> int:
        """Opened bits a comparison."""
        return 2 * self.chunks - 1

    @property
    def mask_width(self) -> int:
        """Seed bits a comparison: the leaf masks, then the free bit on top."""
        return 2 * self.chunks

    @property
    def node_bytes(self) -> int:
        """Whole bytes that the dealt products take."""
        return -(-len(_products(self.chunks)) // 8)

    @property
    def table_words(self) -> int:
        """Bits of the thermometers of one comparison that are not constant: the lowest of each is 1."""
        return sum((1 << width) - 1 for width in self.widths.tolist())

    @property
    def node_words(self) -> int:
        """Count the dealt products."""
        return len(_products(self.chunks))

    def table_planes(self, size: int) -> tuple[Plane, ...]:
        """Return where the tables of `size` comparisons have constant bits."""
        return tuple(Plane(size, 8 * _word_bytes(width), 1, 1 << width) for width in self.widths.tolist())

    def node_planes(self, size: int) -> tuple[Plane, ...]:
        """Return where the products of `size` nodes have bits that are none: they fill up the last byte."""
        return (Plane(size, 8 * self.node_bytes, 0, self.node_words),)

    @property
    def selectors(self) -> Selectors:
        """Which monomials each opened word selects."""
        return _selectors(self.chunks)

    def free_bit(self, mask: np.ndarray) -> np.ndarray:
        """Return the free bit of plain mask words, uint8."""
        return (mask >> mask.dtype.type(self.mask_width - 1)).astype(np.uint8) & np.uint8(1)

    @property
    def product_factors(self) -> np.ndarray:
        """(products, 2) int64: each dealt product is that of two rows.

        Rows are the bits of the leaf masks, mu_0 .. and nu_0 .., and behind them the products so far.
        """
        return _product_factors(self.chunks)


def _each_bit(rows: np.ndarray) -> np.ndarray:
    return -np.unpackbits(rows, axis=1, bitorder="little").view(np.int8)


def _word_bytes(width: int) -> int:
    return max(1, (1 << width) // 8)


def _even(bits: int, chunks: int) -> list[int]:
    small, larger = divmod(bits, chunks)
    return [small + (j < larger) for j in range(chunks)]


@cache
def _best_chunks(bits: int) -> int:
    def cost(chunks: int) -> tuple[int, int]:
        tables = sum(map(_word_bytes, _even(bits, chunks)))
        return bits_size((8,), 2 * chunks - 1), tables + -(-len(_products(chunks)) // 8)

    return min(_possible(bits), key=cost)


def _possible(bits: int) -> range:
    return range(-(-bits // CHUNK_BITS), min(bits, MAX_CHUNKS) + 1)


@cache
def fewest_tags(bits: int, looks: int = 1) -> int:
    """Return the K with which a table, and all that its look-ups need, is dealt in the fewest bytes if bits have tags.

    Each bit that is not constant, of a table, a product or a mask, has a word of 8 bytes beside it (`mpc.tags`): so
    chunks are smaller than without tags, and more.
    """

    def dealt(chunks: int) -> int:
        c = Comparison(bits, chunks)
        words = c.table_words + looks * (c.node_words + c.mask_width)
        return 8 * words + c.table_bytes + looks * c.node_bytes

    return min(_possible(bits), key=dealt)


Monomial = tuple[int | None, frozenset[int]]


@cache
def _products(chunks: int) -> tuple[Monomial, ...]:
    """The monomials of degree two and more, in the order of their dealt bits.

    (j, S) stands for mu_j nu_S, (None, S) for nu_S.
    """
    with_gt: list[Monomial] = [(j, s) for j in range(chunks) for s in _subsets(range(j)) if s]
    without: list[Monomial] = [(None, s) for s in _subsets(range(chunks - 1)) if len(s) > 1]
    return tuple(with_gt + without)


def _subsets(items: range) -> Iterator[frozenset[int]]:
    for size in range(len(items) + 1):
        yield from (frozenset(chosen) for chosen in combinations(items, size))


def _bit(words: np.ndarray, position: int) -> np.ndarray:
    return ((words >> position) & 1).astype(bool)


@cache
def _product_factors(chunks: int) -> np.ndarray:
    """Each product is one of a degree less, or a single bit, times the last of its nu."""
    row: dict[Monomial, int] = {(j, frozenset()): j for j in range(chunks)}
    row |= {(None, frozenset({i})): chunks + i for i in range(chunks - 1)}
    singles, factors = len(row), []
    for position, (only, subset) in enumerate(_products(chunks)):
        last = max(subset)
        factors.append((row[only, subset - {last}], chunks + last))
        row[only, subset] = singles + position
    return np.array(factors, dtype=np.int64).reshape(-1, 2)


def _coefficient(words: np.ndarray, chunks: int, monomial: Monomial) -> np.ndarray:
    """The public coefficient of a monomial in XOR_j (G_j + mu_j) prod_{i<j} (E_i + nu_i)."""
    only, subset = monomial
    total = np.zeros(len(words), dtype=bool)
    for j in range(chunks):
        if any(i >= j for i in subset) or (only is not None and only != j):
            continue
        term = np.ones(len(words), dtype=bool) if only is not None else _bit(words, j)
        for i in range(j):
            if i not in subset:
                term = term & _bit(words, chunks + i)
        total ^= term
    return total


@cache
def _selectors(chunks: int) -> Selectors:
    words = np.arange(1 << (2 * chunks - 1))
    singles: list[Monomial] = [(j, frozenset()) for j in range(chunks)]
    singles += [(None, frozenset({i})) for i in range(chunks - 1)]
    mask = np.full(len(words), 1 << (2 * chunks - 1), dtype=np.int64)  # the free bit, always
    for position, monomial in enumerate(singles):
        mask |= _coefficient(words, chunks, monomial).astype(np.int64) << position
    node = np.zeros((len(words), -(-len(_products(chunks)) // 8) * 8), dtype=bool)
    for position, monomial in enumerate(_products(chunks)):
        node[:, position] = _coefficient(words, chunks, monomial)
    constant = _coefficient(words, chunks, (None, frozenset())).astype(np.uint8)
    packed = np.packbits(node, axis=1, bitorder="little")
    return Selectors(mask.astype(word_type(2 * chunks)), packed, constant, _short(mask, packed, constant))


def _short(mask: np.ndarray, node: np.ndarray, constant: np.ndarray) -> np.ndarray | None:
    if mask.max() > 0xFF or node.shape[1] not in (1, 2):
        return None
    above = sum(node[:, byte].astype(np.uint32) << np.uint32(8 * byte) for byte in range(node.shape[1]))
    return mask.astype(np.uint32) | (above << np.uint32(8)) | (constant.astype(np.uint32) << np.uint32(31))
