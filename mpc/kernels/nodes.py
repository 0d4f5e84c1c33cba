"""The AND node that ends a comparison, see `mpc.comparison`: its products, and the bit that opened words make of it."""

from __future__ import annotations

import numpy as np
from numba import njit

from mpc.kernels.scalar import ONE, ZERO, compiled

_EACH_BYTE = np.uint64(0x0101010101010101)
_PAIRS, _OTHERS = np.uint64(0x0000FFFF0000FFFF), np.uint64(0x00FF00FF00FF00FF)
_NODE_BLOCK = 512
"""Nodes whose bits and products, a byte each, stay in a near cache."""
_RESOLVED = 2048
"""Nodes that are resolved at one time: their words stay in the first cache."""


@njit(inline="always")
def _byte_planes(words: np.ndarray, out: np.ndarray) -> None:
    """The low bytes of words of one or two, and the high ones if there are any, each in a row."""
    low = out[0]
    for i in range(words.size):
        low[i] = np.uint8(words[i])
    if out.shape[0] > 1:
        high = out[1]
        for i in range(words.size):
            high[i] = np.uint8(words[i] >> np.uint16(8))


@njit(inline="always")
def _pack_bytes(products: np.ndarray, out: np.ndarray) -> None:
    """Up to eight rows of bytes, all ones or none, as the bits of one row; eight bytes a word."""
    out[:] = ZERO
    for place in range(products.shape[0]):
        row, bit = products[place], _EACH_BYTE << np.uint64(place)
        for i in range(out.size):
            out[i] |= row[i] & bit


@njit(inline="always")
def _every_other(word: np.uint64) -> np.uint64:
    """Four bytes, with room for another beside each."""
    word = (word | (word << np.uint64(16))) & _PAIRS
    return (word | (word << np.uint64(8))) & _OTHERS


@njit(inline="always")
def _add_pairs(packed: np.ndarray, room: np.ndarray, nodes: np.ndarray) -> None:
    """nodes ^= two rows of packed bytes, byte by byte beside each other; room for as many bytes."""
    halves = packed.view(np.uint32)
    low, high = halves[0], halves[1]
    for i in range(low.size):
        room[i] = _every_other(np.uint64(low[i])) | (_every_other(np.uint64(high[i])) << np.uint64(8))
    flat, added = nodes.reshape(-1), room.view(np.uint8)
    for i in range(flat.size):
        flat[i] ^= added[i]


@compiled
def deal_nodes(mask: np.ndarray, factors: np.ndarray, leaf_width: int, node: np.ndarray, free: np.ndarray) -> None:
    """Add the products of plain leaf masks to a share of the nodes; the free bit, above them, comes out.

    Products are made bit by bit, a byte for each bit and eight bytes a word: a table would be read at secret places.

    Shapes: mask (n,) words of one or two bytes; factors (products, 2), which bit or product before is multiplied with
    which bit; node (n, bytes) uint8, contiguous; free (n,) uint8.
    """
    count, lanes, last = factors.shape[0], _NODE_BLOCK // 8, leaf_width + factors.shape[0]
    plain = np.zeros((mask.itemsize, _NODE_BLOCK), dtype=np.uint8)
    planes = plain.view(np.uint64)
    bits = np.empty((last + 1, lanes), dtype=np.uint64)  # of the leaf masks, the products, the free one
    packed, room = np.empty((2, lanes), dtype=np.uint64), np.empty(2 * lanes, dtype=np.uint64)
    for start in range(0, mask.size, _NODE_BLOCK):
        words, nodes = mask[start : start + _NODE_BLOCK], node[start : start + _NODE_BLOCK]
        _byte_planes(words, plain)
        for k in range(leaf_width + 1):
            row, plane, at = bits[k if k < leaf_width else last], planes[k >> 3], np.uint64(k & 7)
            for i in range(lanes):
                bit = (plane[i] >> at) & _EACH_BYTE
                row[i] = (bit << np.uint64(8)) - bit  # 255 times each byte
        found, top = free[start : start + _NODE_BLOCK], bits[last].view(np.uint8)
        for i in range(words.size):
            found[i] = top[i] & np.uint8(1)
        for place in range(count):
            left, right, row = bits[factors[place, 0]], bits[factors[place, 1]], bits[leaf_width + place]
            for i in range(lanes):
                row[i] = left[i] & right[i]
        products = bits[leaf_width:last]
        if node.shape[1] == 2:
            _pack_bytes(products[:8], packed[0])
            _pack_bytes(products[8:], packed[1])
            _add_pairs(packed, room, nodes)
        else:
            for b in range(node.shape[1]):
                _pack_bytes(products[8 * b : 8 * b + 8], packed[0])
                row = packed[0].view(np.uint8)
                for i in range(words.size):
                    nodes[i, b] ^= row[i]


@njit(inline="always")
def _parity(word: np.uint64) -> np.uint64:
    word ^= word >> np.uint64(32)
    word ^= word >> np.uint64(16)
    word ^= word >> np.uint64(8)
    word ^= word >> np.uint64(4)
    word ^= word >> np.uint64(2)
    return (word ^ (word >> ONE)) & ONE


@compiled
def resolve_node(
    opened: np.ndarray,
    mask: np.ndarray,
    node: np.ndarray,
    mask_selector: np.ndarray,
    node_selector: np.ndarray,
    constant: np.ndarray,
    public: np.ndarray,
    one: np.uint64,
    out: np.ndarray,
) -> None:
    """Compute out = the share of the AND node's bit: the monomials that the opened bits select.

    mask (N,) and node (N, bytes) are shares of the monomials of the masks; the selectors
    are tables over the opened word; `constant`, and the public bit that is added to the
    result, enter through this party's share of one.
    """
    width = node.shape[1]
    for i in range(opened.size):
        o = opened[i]
        chosen = np.uint64(mask[i]) & np.uint64(mask_selector[o])
        for b in range(width):
            chosen ^= np.uint64(node[i, b] & node_selector[o, b])
        chosen ^= np.uint64(constant[o] ^ public[i]) & one
        out[i] = np.uint8(_parity(chosen))


@compiled
def resolve_short_node(
    opened: np.ndarray,
    mask: np.ndarray,
    node: np.ndarray,
    selector: np.ndarray,
    public: np.ndarray,
    one: np.uint64,
    out: np.ndarray,
) -> None:
    """Resolve a node whose mask (one byte) and node (N,) are one word of at most 31 bits, the constant its top bit."""
    top = np.uint32(31)
    constant, bit = np.uint32(one) << top, np.uint8(one)
    chosen = np.empty(min(_RESOLVED, opened.size), dtype=np.uint32)
    for start in range(0, opened.size, _RESOLVED):
        words = opened[start : start + _RESOLVED]
        for i in range(words.size):
            chosen[i] = selector[words[i]]
        masks, nodes = mask[start : start + _RESOLVED], node[start : start + _RESOLVED]
        added, bits = public[start : start + _RESOLVED], out[start : start + _RESOLVED]
        for i in range(words.size):
            word = (np.uint32(masks[i]) | (np.uint32(nodes[i]) << np.uint32(8)) | constant) & chosen[i]
            word ^= word >> np.uint32(16)
            word ^= word >> np.uint32(8)
            word ^= word >> np.uint32(4)
            word ^= word >> np.uint32(2)
            word ^= word >> np.uint32(1)
            bits[i] = np.uint8(word & np.uint32(1)) ^ (added[i] & bit)
