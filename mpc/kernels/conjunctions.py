"""AND nodes of four inputs, see `mpc.conjunction`."""

from __future__ import annotations

import numpy as np
from numba import njit

from mpc.kernels.scalar import compiled


@njit(inline="always")
def _gather_words(
    bits: np.ndarray, place: np.ndarray, flip: np.ndarray, fill: int, start: int, words: np.ndarray
) -> None:
    """words = up to four rows of bits from `start` on, side by side; `fill` where there is none."""
    words[:] = np.uint8(0)
    for slot in range(place.size):
        at = np.uint8(slot)
        if place[slot] < 0:
            words |= np.uint8(fill << slot)
            continue
        row, change = bits[place[slot]][start : start + words.size], flip[slot]
        for i in range(words.size):
            words[i] |= (row[i] ^ change) << at


@compiled
def deal_and_nodes(bits: np.ndarray, places: np.ndarray, node: np.ndarray, start: int, stop: int) -> None:
    """Add the products of plain mask bits to a share of the nodes, for the rows from start to stop: bit s - 1 is that
    of the bits in s.

    From [1], the empty product, each bit in turn doubles the list: all so far, times it, stand above.

    Shapes: bits (count, rows) uint8; places (nodes, 4), -1 for no input; node (nodes, rows) uint16.
    """
    words = np.empty(stop - start, dtype=np.uint8)
    flip = np.zeros(4, dtype=np.uint8)
    for n in range(places.shape[0]):
        _gather_words(bits, places[n], flip, 0, start, words)
        row = node[n][start:stop]
        for i in range(words.size):
            word = np.uint32(words[i])
            products = np.uint32(1)
            for k in range(4):
                chosen = np.uint32(0) - ((word >> np.uint32(k)) & np.uint32(1))
                products |= (products << np.uint32(1 << k)) & chosen
            row[i] ^= np.uint16(products >> np.uint32(1))


@compiled
def and_nodes(
    bits: np.ndarray,
    places: np.ndarray,
    flips: np.ndarray,
    node: np.ndarray,
    selection: np.ndarray,
    fresh: np.ndarray,
    one: np.uint64,
    out: np.ndarray,
    start: int,
    stop: int,
) -> None:
    """Compute out = shares of the ANDs of opened bits xor their masks, under `fresh`; see `deal_and_nodes`.

    selection (16,): the monomials that an opened word, which is public, selects.  All four ones: the constant, this
    party's share of one.
    """
    words = np.empty(stop - start, dtype=np.uint8)
    full, mine = np.uint8(15), np.uint8(one)
    for n in range(places.shape[0]):
        _gather_words(bits, places[n], flips[n], 1, start, words)
        dealt, added, results = node[n][start:stop], fresh[n][start:stop], out[n][start:stop]
        for i in range(words.size):
            chosen = np.uint32(dealt[i] & selection[words[i]])
            chosen ^= chosen >> np.uint32(8)
            chosen ^= chosen >> np.uint32(4)
            chosen ^= chosen >> np.uint32(2)
            chosen ^= chosen >> np.uint32(1)
            constant = mine if words[i] == full else np.uint8(0)
            results[i] = np.uint8(chosen & np.uint32(1)) ^ constant ^ added[i]
