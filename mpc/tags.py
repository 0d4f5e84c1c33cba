"""Tags: shares of alpha v for each shared field value v, and of a word Delta b for each shared bit b.

alpha, in F_p, and Delta, of 64 bits, are keys of a session that no party knows: each holds a share.  Whatever a gate
does with its shares is linear with public coefficients, and constants enter through its lane; so on tags, with the lane
whose "share of one" is the share of a key, the gate's own code computes a share of the key times whatever it opens
or leaves unopened.  Who opens something else cannot make a tag for it without guessing the key (SPDZ: Damgard, Pastro,
Smart, Zakarias 2012; for bits the global keys of TinyOT: Nielsen, Nordholt, Orlandi, Burra 2012).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TypeVar

import numpy as np

from mpc import field as fp
from mpc import kernels
from mpc.at_once import AtOnce
from mpc.comparison import Comparison
from mpc.conjunction import Nodes
from mpc.encoding import view_words
from mpc.errors import LocalProtocolError
from mpc.kernels import cores
from mpc.prg import Draws, Seed, expand_field, expand_words
from mpc.shares import WHOLE, BitShare, Lane, Pairs

WORD_BITS = 64
"""Bits of a bit's tag."""


@dataclass(frozen=True, repr=False)
class Key:
    """The keys of a session, or one party's share of them."""

    alpha: np.uint64
    delta: np.uint64

    __secret__ = True

    def __repr__(self) -> str:
        return "<Key>"

    @classmethod
    def expand(cls, seed: Seed, session: bytes) -> Key:
        """Return a party's share, from its seed of the session's weights."""
        draws = Draws(seed, "key", session)
        return cls(
            expand_field(draws.sub_seed("alpha"), (1,))[0], expand_words(draws.sub_seed("delta"), (1,), WORD_BITS)[0]
        )

    def __add__(self, other: Key) -> Key:
        total = fp.add(np.array([self.alpha]), np.array([other.alpha]))
        return Key(total[0], self.delta ^ other.delta)


WINDOW = 1 << 13
"""Elements whose words are there at one time, of all threads; those of a comparison take up to some kilobytes."""
NANOSECONDS_A_WORD = 5.0
"""Of expanding a word and adding it up."""
T = TypeVar("T")
Places = Callable[[np.ndarray], np.ndarray]
Part = Callable[[int, int], np.ndarray]
Leaves = Callable[[int, int], tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True, repr=False)
class WordCoins:
    """The coins of one opening's words: of the places in a word, (width,), and of the elements, from one to another."""

    columns: np.ndarray
    rows: Part

    __secret__ = True


@dataclass(frozen=True, repr=False, eq=False)
class BitTags(BitShare):
    """One party's share of the tags of a `BitShare`: behind its axes, a word for each of the `width` bits.

    Of dealt values with constant bits the words of all others are in a row (`plan.tagging.tag_of`).
    """

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape[:-1]

    def reshape(self, shape: tuple[int, ...]) -> BitTags:
        return BitTags(self.values.reshape(*shape, self.width), self.width)

    def at(self, places: np.ndarray) -> np.ndarray:
        """Return the words at some places, of all in a row; any, at a place below 0."""
        return self.values.reshape(-1)[np.maximum(places, 0)]

    def part(self, start: int, stop: int) -> np.ndarray:
        """Return the words from a place on, up to another one, of all in a row."""
        return self.values.reshape(-1)[start:stop]

    def fold(self, opened: np.ndarray, one: np.uint64, coins: WordCoins, sums: np.ndarray) -> None:
        """Add to sums (1,) each tag xor its opened bit times `one`, times its coins; opened (elements,) uint64."""

        def fold(start: int, stop: int) -> np.ndarray:
            words, found = self.part(start * self.width, stop * self.width), np.zeros_like(sums)
            rows = view_words(words.reshape(-1, self.width))
            kernels.fold_words(rows, opened[start:stop], one, coins.columns, coins.rows(start, stop), found)
            return found

        for found in in_windows(fold, opened.size, NANOSECONDS_A_WORD * self.width):
            sums ^= found


class SparseTags(BitTags):
    """Tags that are expanded when they are asked for: of a table, those alone that are looked up.

    Args:
        shape, width: of the bits.
        at: returns the words at some places, of all in a row.
        part: returns the words from a place on, up to another one.
        size: of all words.
    """

    def __init__(self, shape: tuple[int, ...], width: int, at: Places | None, part: Part, size: int) -> None:
        object.__setattr__(self, "width", width)
        object.__setattr__(self, "_parts", (shape, at, part, size))
        object.__setattr__(self, "_selected", [])

    _parts: tuple[tuple[int, ...], Places | None, Part, int]
    _selected: list[np.ndarray]

    @property
    def shape(self) -> tuple[int, ...]:
        return self._parts[0]

    @property
    def values(self) -> np.ndarray:
        """All of them, expanded each time."""
        shape, _, part, size = self._parts
        words = part(0, size)
        return words.reshape(*shape, self.width) if size == prod(shape) * self.width else words

    def at(self, places: np.ndarray) -> np.ndarray:
        """Return the words at some places, of all in a row; any, at a place below 0."""
        at = self._parts[1]
        return super().at(places) if at is None else at(places)

    def part(self, start: int, stop: int) -> np.ndarray:
        """Return the words from a place on, up to another one."""
        return self._parts[2](start, stop)

    def keep_selected(self, words: np.ndarray) -> None:
        """Keep what opened bits have selected of them, added up, (elements,): so they are expanded once, not twice."""
        self._selected.append(words)

    def take_selected(self) -> np.ndarray | None:
        """Return what was kept, once; None if nothing was."""
        return self._selected.pop() if self._selected else None

    def _of(self, values: np.ndarray) -> BitTags:
        return BitTags(values, self.width)


class LeafTags(SparseTags):
    """Tags of the masked leaf bits of comparisons.

    Args:
        size: of the comparisons.
        comparison: whose leaf bits they are.
        one: this party's share of the word of the bit 1.
        leaves: returns of some comparisons the words that are looked up and where, each (2 K, comparisons), and the
            words of the masks, (comparisons, 2 K).
        mask: the tags of the masks.
    """

    def __init__(self, size: int, comparison: Comparison, one: np.uint64, leaves: Leaves, mask: BitTags) -> None:
        width = comparison.leaf_width
        super().__init__((size,), width, None, self._masked, size * width)
        object.__setattr__(self, "_looked_up", (one, leaves))
        object.__setattr__(self, "_masks", (mask, comparison.selectors.mask))

    _looked_up: tuple[np.uint64, Leaves]
    _masks: tuple[BitTags, np.ndarray]

    def _masked(self, start: int, stop: int) -> np.ndarray:
        """Return words in a row, of whole comparisons."""
        one, leaves = self._looked_up
        words, places, under = leaves(start // self.width, stop // self.width)
        over = np.where(places[1::2] >= 0, words[1::2], np.uint64(0))
        equal = np.where(places[::2] >= 0, words[::2], one) ^ over
        return (np.concatenate([over, equal[:-1]]).T ^ under[:, :-1]).reshape(-1)

    def fold(self, opened: np.ndarray, one: np.uint64, coins: WordCoins, sums: np.ndarray) -> None:
        """Add up as of other tags, in one loop over what is looked up; and keep for `TagLane.resolve` what the opened
        bits select of the masks.
        """
        leaves, (mask, selector) = self._looked_up[1], self._masks
        selected = np.empty(opened.size, dtype=np.uint64)

        def fold(start: int, stop: int) -> np.ndarray:
            part, drawn, found = slice(start, stop), (coins.columns, coins.rows(start, stop)), np.zeros_like(sums)
            kernels.fold_leaves(*leaves(start, stop), opened[part], one, *drawn, selector, selected[part], found)
            return found

        for found in in_windows(fold, opened.size, NANOSECONDS_A_WORD * self.width):
            sums ^= found
        if isinstance(mask, SparseTags):
            mask.keep_selected(selected)


@dataclass(frozen=True, repr=False)
class TagLane(Lane):
    """The lane of tags: the share of 1 is the share of alpha, that of the bit 1 the share of Delta."""

    __secret__ = True

    def __repr__(self) -> str:
        return "<TagLane>"

    @classmethod
    def of(cls, key: Key) -> TagLane:
        """Return the lane of the party that holds this share of the keys."""
        return cls(one=key.alpha, bit_one=key.delta)

    def const_bits(self, public: np.ndarray) -> BitTags:
        """Return the tags of public bits."""
        chosen = np.uint64(0) - public.astype(np.uint64)
        return BitTags((chosen & self.bit_one)[..., None], 1)

    def look_up(
        self, comparison: Comparison, table: BitShare, values: np.ndarray, mask: BitShare, pairs: Pairs = WHOLE
    ) -> tuple[BitShare, np.ndarray]:
        """Return the tags of the masked leaf bits, and the public sign bits."""
        first, second = pairs
        c, size = comparison, first.size * values.shape[1]
        sign = np.empty(size, dtype=np.uint8)
        kernels.find_signs(values, first, second, c.bits, sign)
        if isinstance(c, AtOnce):
            public = values[first] * (first >= 0)[:, None].astype(np.uint64)
            public -= values[second] * (second >= 0)[:, None].astype(np.uint64)
            part = partial(_opened_at_once, c, tags(table), tags(mask), public.reshape(-1))
            return SparseTags((size,), c.leaf_width, None, part, size * c.leaf_width), sign

        def leaves(start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            places = np.empty((c.mask_width, stop - start), dtype=np.int64)
            kernels.find_words(values, first, second, start, c.bits, c.shifts, c.widths, places)
            under = view_words(tags(mask).part(start * c.mask_width, stop * c.mask_width).reshape(-1, c.mask_width))
            return tags(table).at(places), places, under

        return LeafTags(size, c, self.bit_one, leaves, tags(mask)), sign

    def resolve(
        self, comparison: Comparison, opened: np.ndarray, mask: BitShare, node: BitShare, public: np.ndarray
    ) -> BitShare:
        """Return the tag of the AND node's bit."""
        out, (of_mask, of_node) = np.empty(opened.shape, dtype=np.uint64), comparison.selectors.words
        constant, products, width = comparison.selectors.constant, comparison.node_words, comparison.mask_width
        selected = mask.take_selected() if isinstance(mask, SparseTags) else None

        def resolve(start: int, stop: int) -> None:
            part = slice(start, stop)
            if selected is None:
                masks = np.empty(stop - start, dtype=np.uint64)
                words = view_words(tags(mask).part(start * width, stop * width).reshape(-1, width))
                kernels.select_words(words, opened[part], of_mask, masks)
            else:
                masks = selected[part]
            nodes = view_words(tags(node).part(start * products, stop * products).reshape(stop - start, products))
            kernels.resolve_words(opened[part], masks, nodes, of_node, constant, public[part], self.bit_one, out[part])

        in_windows(resolve, opened.size, NANOSECONDS_A_WORD * (width + products))
        return BitTags(out[..., None], 1)

    def conjunction(self, nodes: Nodes, opened: np.ndarray, node: BitShare, fresh: BitShare) -> BitShare:
        """Return the tags of the ANDs of opened bits xor their masks, under fresh bits."""
        bits, rows = np.ascontiguousarray(opened), opened.shape[1]
        sizes = [plane.bits for plane in nodes.planes(rows)]  # words of each node's products

        def ands(start: int, stop: int) -> np.ndarray:
            out, one = np.empty(stop - start, dtype=np.uint64), start
            while one < stop:
                which, first = divmod(one, rows)
                end = min(stop, one + WINDOW, (which + 1) * rows)
                last, before, products = end - which * rows, sum(sizes[:which]), sizes[which] // rows
                kernels.and_words(
                    np.ascontiguousarray(bits[:, first:last]),
                    nodes.places[which : which + 1],
                    nodes.flips[which : which + 1],
                    view_words(tags(node).part(before + first * products, before + last * products)),
                    nodes.selection,
                    view_words(tags(fresh).part(one, end).reshape(1, -1, 1)),
                    self.bit_one,
                    out[one - start : end - start].reshape(1, -1, 1),
                )
                one = end
            return out

        return SparseTags(fresh.shape, 1, None, ands, len(nodes.places) * rows)


def _opened_at_once(
    comparison: AtOnce, table: BitTags, mask: BitTags, values: np.ndarray, start: int, stop: int
) -> np.ndarray:
    """Return the tags of what comparisons open at public values, of the words from a place on up to another one; they
    are those of whole comparisons.
    """
    c, width = comparison, comparison.leaf_width
    one, end = start // width, stop // width
    out = np.array(mask.part(start, stop)).reshape(end - one, width)
    told, offset = width - c.chunks, np.arange(one, end, dtype=np.int64) * c.table_words
    for level, ((size, bits), shift) in enumerate(zip(c.levels, c.shifts, strict=True), start=1):
        chunk = ((values[one:end] >> shift) & np.uint64((1 << bits) - 1)).astype(np.int64)
        found = table.at((offset + chunk * size)[:, None] + np.arange(size))
        if level < c.chunks:
            first = level * (level - 1) // 2
            out[:, first : first + level] ^= found[:, :level]
        out[:, told : told + level] ^= found[:, -level:]
        offset += size << bits
    return out.reshape(-1)


def tags(bits: BitShare) -> BitTags:
    """Return bits that are tags; `LocalProtocolError` if they are not."""
    if not isinstance(bits, BitTags):
        raise LocalProtocolError("what is replayed on tags is given bits that are none")
    return bits


def in_windows(work: Callable[[int, int], T], size: int, nanoseconds: float) -> list[T]:
    """Call work(start, stop) for parts of 0 .. size, so that a fixed number of words is there at a time.

    Several threads take them (`mpc.kernels.cores`): work writes to places of its own.

    Args:
        nanoseconds: about what an element takes.

    Returns:
        The results of all parts, in order.
    """
    most = max(1, WINDOW // cores.threads())

    def some(begin: int, end: int) -> list[T]:
        return [work(start, min(start + most, size)) for start in range(begin * most, min(end * most, size), most)]

    found = cores.in_blocks(some, -(-size // most), nanoseconds * most, 1)
    return [each for results in found for each in results]
