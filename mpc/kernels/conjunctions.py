"""AND nodes of four inputs, see `mpc.conjunction`."""

from __future__ import annotations

import numpy as np
from numba import njit

from mpc.kernels.scalar import compiled, shift_left, shift_right


@njit(inline="always")
def _gather_words(
    bits: np.ndarray, place: np.ndarray, flip: np.ndarray, fill: int, start: int, words: np.ndarray
) -> None:
    """words = up to four rows of bits from `start` on, side by side; `fill` where there is none."""
    words[:] = np.uint8(0)
    for slot in range(place.size):
        at = np.uint8(1 << slot)
        if place[slot] < 0:
            words |= np.uint8(fill << slot)
            continue
        row, change = bits[place[slot]][start : start + words.size], flip[slot]
        for i in range(words.size):
            words[i] |= (np.uint8(0) - (row[i] ^ change)) & at  # a byte stays one, as in shifts it does not


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
    fresh: np.ndarray,
    one: np.uint64,
    out: np.ndarray,
    start: int,
    stop: int,
) -> None:
    """Compute out = shares of the ANDs of opened bits xor their masks, under `fresh`; see `deal_and_nodes`.

    An opened bit that is 1 selects the monomials without that input beside those with it: so it adds the half of the
    list without to the other one, which is what is left, input by input.  The empty product is this party's share of
    one.
    """
    words = np.empty(stop - start, dtype=np.uint8)
    first, bit = np.uint32(one), np.uint32(1)
    for n in range(places.shape[0]):
        _gather_words(bits, places[n], flips[n], 1, start, words)
        dealt, added, results = node[n][start:stop], fresh[n][start:stop], out[n][start:stop]
        for i in range(words.size):
            opened, left = np.uint32(words[i]), np.uint32(shift_left(np.uint32(dealt[i]), bit) | first)
            for k in (3, 2, 1, 0):
                chosen = np.uint32(np.uint32(0) - (shift_right(opened, np.uint32(k)) & bit))  # all ones or none
                half = np.uint32(1 << k)
                left = np.uint32(shift_right(left, half) ^ (left & chosen & np.uint32((1 << (1 << k)) - 1)))
            results[i] = np.uint8(left & bit) ^ added[i]
