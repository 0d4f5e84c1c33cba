"""The compiled loops: everything that numpy would do in more than one pass over memory.

The only module that imports numba.  All functions take and return plain arrays whose
lengths the callers have checked; none of them branches on a secret value.  Field elements
are canonical ``uint64`` in ``[0, p)``, p = 2^61 - 1; bits are ``uint8`` 0 or 1.

Constants are typed `np.uint64` throughout: numba promotes `uint64 + 0` to float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

P = np.uint64((1 << 61) - 1)
_ZERO, _ONE, _TWO, _THREE = (np.uint64(v) for v in range(4))
_S61 = np.uint64(61)
_HALF = np.uint64(1 << 60)

compiled = njit(cache=True, nogil=True, error_model="numpy")


@intrinsic
def _multiply_wide(typing_context: Any, a: Any, b: Any) -> Any:
    """(high, low) 64-bit words of the 128-bit product of two unsigned words."""
    signature = types.UniTuple(types.uint64, 2)(types.uint64, types.uint64)

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        return _emit_pair(context, builder, sig, product)

    return signature, emit


@intrinsic
def _multiply_add_wide(typing_context: Any, high: Any, low: Any, a: Any, b: Any) -> Any:
    """(high, low) of (high, low) + a b, modulo 2^128."""
    word = types.uint64
    signature = types.UniTuple(word, 2)(word, word, word, word)

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        wide = ir.IntType(128)
        upper = builder.shl(builder.zext(args[0], wide), ir.Constant(wide, 64))
        total = builder.or_(upper, builder.zext(args[1], wide))
        product = builder.mul(builder.zext(args[2], wide), builder.zext(args[3], wide))
        return _emit_pair(context, builder, sig, builder.add(total, product))

    return signature, emit


def _emit_pair(context: Any, builder: Any, sig: Any, value: Any) -> Any:
    word, wide = ir.IntType(64), ir.IntType(128)
    high = builder.trunc(builder.lshr(value, ir.Constant(wide, 64)), word)
    low = builder.trunc(value, word)
    return context.make_tuple(builder, sig.return_type, (high, low))


@njit(inline="always")
def _fold(s: np.uint64) -> np.uint64:
    """Any 64-bit word to its canonical residue."""
    s = (s & P) + (s >> _S61)
    return min(s, s - P)


@njit(inline="always")
def _fold_wide(high: np.uint64, low: np.uint64) -> np.uint64:
    """Any 128-bit value high 2^64 + low to its canonical residue (2^64 = 8 mod p)."""
    upper = (high << _THREE) | (low >> _S61)
    carry = high >> _S61
    return _fold(_fold(upper) + (low & P) + (carry << _THREE))


@njit(inline="always")
def _mul(a: np.uint64, b: np.uint64) -> np.uint64:
    """a b mod p for canonical a, b: the product is below 2^122."""
    high, low = _multiply_wide(a, b)
    s = (low & P) + ((high << _THREE) | (low >> _S61))
    return min(s, s - P)


@njit(inline="always")
def _add(a: np.uint64, b: np.uint64) -> np.uint64:
    s = a + b
    return min(s, s - P)


@njit(inline="always")
def _sub(a: np.uint64, b: np.uint64) -> np.uint64:
    s = a + (P - b)
    return min(s, s - P)


@njit(inline="always")
def _rotate(a: np.uint64, k: np.uint64) -> np.uint64:
    """a 2^k mod p, 0 < k < 61: a rotation of 61 bits."""
    return ((a << k) & P) | (a >> (_S61 - k))


# ----------------------------------------------------------------- field arrays


@compiled
def add(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out = a + b mod p, flat arrays of one length."""
    for i in range(out.size):
        out[i] = _add(a[i], b[i])


@compiled
def add_constant(a: np.ndarray, constant: np.uint64, out: np.ndarray) -> None:
    """out = a + constant mod p."""
    for i in range(out.size):
        out[i] = _add(a[i], constant)


@compiled
def sub(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out = a - b mod p, flat arrays of one length."""
    for i in range(out.size):
        out[i] = _sub(a[i], b[i])


@compiled
def mul(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out = a b mod p, flat arrays of one length."""
    for i in range(out.size):
        out[i] = _mul(a[i], b[i])


@compiled
def scale(a: np.ndarray, constant: np.uint64, out: np.ndarray) -> None:
    """out = a constant mod p."""
    for i in range(out.size):
        out[i] = _mul(a[i], constant)


@compiled
def sum_rows(rows: np.ndarray, out: np.ndarray) -> None:
    """out[i] = sum over j of rows[j, i] mod p."""
    count, size = rows.shape
    for i in range(size):
        total = _ZERO
        for j in range(count):
            total = _add(total, rows[j, i])
        out[i] = total


@compiled
def mask_61(words: np.ndarray) -> int:
    """Keep 61 bits of every word in place; returns how many then equal p (to be redrawn)."""
    rejected = 0
    for i in range(words.size):
        value = words[i] & P
        words[i] = value
        if value == P:
            rejected += 1
    return rejected


@compiled
def count_not_canonical(words: np.ndarray) -> int:
    """How many words are p or more."""
    bad = 0
    for i in range(words.size):
        if words[i] >= P:
            bad += 1
    return bad


# --------------------------------------------------------------- matrix products


@compiled
def matmul_thin(a: np.ndarray, b_rows: np.ndarray, out: np.ndarray) -> None:
    """out[i, j] = <a[i], b_rows[j]> mod p for few rows of a; 128-bit accumulators.

    Shapes: a (m, k), b_rows (n, k), out (m, n).  Folded every 32 terms: 32 products of
    122 bits and a residue stay below 2^128.
    """
    m, k = a.shape
    n = b_rows.shape[0]
    for i in range(m):
        for j in range(n):
            high, low = _ZERO, _ZERO
            for start in range(0, k, 32):
                for t in range(start, min(start + 32, k)):
                    high, low = _multiply_add_wide(high, low, a[i, t], b_rows[j, t])
                low = _fold_wide(high, low)
                high = _ZERO
            out[i, j] = low


@compiled
def split_limbs(a: np.ndarray, limbs: np.ndarray) -> None:
    """Centred limbs of 21, 20 and 20 bits and their three pairwise sums, as float64.

    limbs (6, size): l0, l1, l2, l0 + l1, l0 + l2, l1 + l2 with a = l0 + l1 2^21 + l2 2^41
    mod p, |l0| <= 2^20, |l1|, |l2| <= 2^19.
    """
    for i in range(a.size):
        value = np.int64(a[i])
        if a[i] > _HALF:
            value -= np.int64(P)
        l0 = ((value + np.int64(1 << 20)) & np.int64((1 << 21) - 1)) - np.int64(1 << 20)
        value = (value - l0) >> np.int64(21)
        l1 = ((value + np.int64(1 << 19)) & np.int64((1 << 20) - 1)) - np.int64(1 << 19)
        l2 = (value - l1) >> np.int64(20)
        limbs[0, i] = l0
        limbs[1, i] = l1
        limbs[2, i] = l2
        limbs[3, i] = l0 + l1
        limbs[4, i] = l0 + l2
        limbs[5, i] = l1 + l2


@compiled
def split_images(values: np.ndarray, limbs: np.ndarray) -> None:
    """`split_limbs` of (n, rows, places), all images side by side: limbs (6, rows, n * places)."""
    n, rows, places = values.shape
    for row in range(rows):
        for image in range(n):
            part = slice(image * places, (image + 1) * places)
            split_limbs(values[image, row], limbs[:, row, part])


@njit(inline="always")
def _residue(value: float) -> np.uint64:
    """A float64 holding an exact integer below 2^60 in size, as a residue."""
    whole = np.int64(value)
    return np.uint64(whole + (np.int64(P) if whole < 0 else np.int64(0)))


@compiled
def recombine(products: np.ndarray, offset: np.ndarray, out: np.ndarray) -> None:
    """out = offset + the field product whose six Karatsuba limb products are given.

    products (6, size) float64 in the order of `split_limbs`; offset, out (size,).
    2^62 = 2 and 2^82 = 2^21 mod p.
    """
    for i in range(out.size):
        p00, p11, p22 = products[0, i], products[1, i], products[2, i]
        total = _residue(p00) + _rotate(_residue(products[3, i] - p00 - p11), np.uint64(21))
        total += _rotate(_residue(products[4, i] - p00 - p22), np.uint64(41))
        total += _rotate(_residue(p11), np.uint64(42))
        total += _rotate(_residue(products[5, i] - p11 - p22), np.uint64(1))
        total += _rotate(_residue(p22), np.uint64(21))
        out[i] = _fold(_fold(total) + offset[i])


@compiled
def recombine_images(products: np.ndarray, sums: np.ndarray) -> None:
    """`recombine` of (6, rows, n * places), added to sums (n, rows, places)."""
    n, rows, places = sums.shape
    for row in range(rows):
        for image in range(n):
            part = slice(image * places, (image + 1) * places)
            recombine(products[:, row, part], sums[image, row], sums[image, row])


# ---------------------------------------- convolution by tiles (see convolution.py)


@compiled
def gather_tiles(
    x: np.ndarray, top: int, left: int, high: int, wide: int, down: int, across: int, out: np.ndarray
) -> None:
    """Tiles of 8 x 8 inputs, `high` and `wide` apart, zeros outside.

    Shapes: x (n, c, h, w), out (8, 8, c * n * down * across).
    """
    n, c, h, w = x.shape
    for a in range(8):
        for b in range(8):
            plane = out[a, b]
            at = 0
            for channel in range(c):
                for image in range(n):
                    for ty in range(down):
                        y = ty * high + a - top
                        for tx in range(across):
                            z = tx * wide + b - left
                            inside = 0 <= y < h and 0 <= z < w
                            plane[at] = x[image, channel, y, z] if inside else _ZERO
                            at += 1


@njit(inline="always")
def _line_to_points(line: np.ndarray) -> None:
    """B^T d in place, for many lines side by side: line (8, size)."""
    d0, d1, d2, d3, d4, d5, d6, d7 = line[0], line[1], line[2], line[3], line[4], line[5], line[6], line[7]
    for i in range(d0.size):
        v0, v1, v2, v3, v4, v5, v6, v7 = d0[i], d1[i], d2[i], d3[i], d4[i], d5[i], d6[i], d7[i]
        n3, n4 = P - v3, P - v4  # sums of up to seven stay below 2^64
        even, odd = _sub(v2, v4), _sub(v3, v5)
        four, sixteen = np.uint64(2), np.uint64(4)  # as rotations
        d0[i] = _fold(_rotate(v6, four) + _rotate(P - v0, four) + _rotate(even, sixteen) + _rotate(even, four) + even)
        d7[i] = _fold(_rotate(v7, four) + _rotate(P - v1, four) + _rotate(odd, sixteen) + _rotate(odd, four) + odd)
        even = _fold(_rotate(v2, four) + _rotate(v6, four) + _rotate(n4, sixteen) + n4)
        odd = _fold(_rotate(v1, four) + _rotate(v5, four) + _rotate(n3, sixteen) + n3)
        d1[i], d2[i] = _add(even, odd), _sub(even, odd)
        even = _fold(v2 + _rotate(n4, four) + n4 + _rotate(v6, four))
        odd = _rotate(_fold(v1 + _rotate(n3, four) + n3 + _rotate(v5, four)), _ONE)
        d3[i], d4[i] = _add(even, odd), _sub(even, odd)
        even = _rotate(_fold(_rotate(v2, four) + _rotate(n4, four) + n4 + v6), four)
        odd = _rotate(_fold(_rotate(v1, four) + _rotate(n3, four) + n3 + v5), _ONE)
        d5[i], d6[i] = _add(even, odd), _sub(even, odd)


@compiled
def tiles_to_points(tiles: np.ndarray) -> None:
    """B^T d B in place; tiles (8, 8, size)."""
    for k in range(8):
        _line_to_points(tiles[:, k])
    for k in range(8):
        _line_to_points(tiles[k])


@compiled
def multiply_points(points: np.ndarray, data: np.ndarray, out: np.ndarray) -> None:
    """out = points @ data at each point, for few channels: points (64, o, c), data (64, c, n), out (64, o, n)."""
    count, o, c = points.shape
    for point in range(count):
        for filter_ in range(o):
            result = out[point, filter_]
            for channel in range(c):
                factor, row = points[point, filter_, channel], data[point, channel]
                if channel == 0:
                    for i in range(result.size):
                        result[i] = _mul(factor, row[i])
                else:
                    for i in range(result.size):
                        result[i] = _add(result[i], _mul(factor, row[i]))


@njit(inline="always")
def _line_to_results(line: np.ndarray, count: int) -> None:
    """A^T z in the first `count` places, for many lines side by side: line (8, size)."""
    z0, z1, z2, z3, z4, z5, z6, z7 = line[0], line[1], line[2], line[3], line[4], line[5], line[6], line[7]
    for i in range(z0.size):
        ones, other_ones = _add(z1[i], z2[i]), _sub(z1[i], z2[i])
        z1[i], z2[i] = ones, other_ones
        twos, other_twos = _add(z3[i], z4[i]), _sub(z3[i], z4[i])
        z3[i], z4[i] = twos, other_twos
        halves, other_halves = _add(z5[i], z6[i]), _sub(z5[i], z6[i])
        z5[i], z6[i] = halves, other_halves
    results = np.empty((count, z0.size), dtype=np.uint64)
    for place in range(count):
        ones, twos, halves = (z1, z3, z5) if place % 2 == 0 else (z2, z4, z6)
        up = np.uint64(place)
        result = results[place]
        if place == 0:
            for i in range(z0.size):
                result[i] = _fold(z0[i] + ones[i] + twos[i] + halves[i])
        else:
            for i in range(z0.size):
                result[i] = _fold(ones[i] + _rotate(twos[i], up) + _rotate(halves[i], _S61 - up))
    last = results[count - 1]
    for i in range(z0.size):
        last[i] = _add(last[i], z7[i])
    for place in range(count):
        line[place] = results[place]


@compiled
def points_to_tiles(points: np.ndarray, high: int, wide: int) -> None:
    """A^T z A in place, in the first high x wide places; points (8, 8, size)."""
    for k in range(8):
        _line_to_results(points[:, k], high)
    for k in range(high):
        _line_to_results(points[k], wide)


@compiled
def scatter_tiles(tiles: np.ndarray, high: int, wide: int, down: int, across: int, out: np.ndarray) -> None:
    """out (n, o, h, w) += the results of tiles (8, 8, o * n * down * across)."""
    n, o, h, w = out.shape
    for a in range(high):
        for b in range(wide):
            plane = tiles[a, b]
            at = 0
            for channel in range(o):
                for image in range(n):
                    for y in range(a, a + down * high, high):
                        if y >= h:
                            at += across
                            continue
                        row = out[image, channel, y]
                        for z in range(b, b + across * wide, wide):
                            if z < w:
                                row[z] = _add(row[z], plane[at])
                            at += 1


# ------------------------------------------- comparison by dealt tables (see comparison.py)

_BLOCK = 2048
"""Comparisons that stay in the first cache while their chunks are gone through."""


@njit(inline="always")
def _word_size(width: np.uint64) -> np.int64:
    """Bytes of a thermometer for a chunk of that many bits."""
    values = np.int64(1) << np.int64(width)
    return max(np.int64(1), values >> np.int64(3))


@njit(inline="always")
def _difference(values: np.ndarray, a: int, b: int, start: int, low: np.uint64, out: np.ndarray) -> None:
    """out = values[a] - values[b] modulo a power of two, from `start` on; row -1 is zero."""
    end = start + out.size
    left, right = values[max(a, 0), start:end], values[max(b, 0), start:end]
    keep_left, keep_right = (low if a >= 0 else _ZERO), (low if b >= 0 else _ZERO)
    for i in range(out.size):
        out[i] = ((left[i] & keep_left) - (right[i] & keep_right)) & low


@njit(inline="always")
def _add_thermometers(plane: np.ndarray, r: np.ndarray, shift: np.uint64, width: np.uint64) -> None:
    """plane ^= (2 << chunk) - 1, of as many bits as a chunk has values: bit v says chunk > v - 1."""
    low = (_ONE << width) - _ONE
    every = ((_TWO << low) if low < np.uint64(63) else _ZERO) - _ONE
    for i in range(r.size):
        chunk = (r[i] >> shift) & low
        word = ((_TWO << chunk) if chunk < np.uint64(63) else _ZERO) - _ONE
        plane[i] ^= word & every


@compiled
def deal_thermometers(
    values: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    bits: int,
    shifts: np.ndarray,
    widths: np.ndarray,
    table: np.ndarray,
    sign: np.ndarray,
) -> None:
    """Add the thermometers of values[first] - values[second] to a share of the table, pair by pair.

    Shapes: values (n, rows) uint64; first, second (pairs,), -1 for zero; table bytes, a plane a chunk, of
    pairs * rows words; sign (pairs * rows,) uint8, set to the bit above those that are compared.
    """
    rows = values.shape[1]
    size = first.size * rows
    low = (_ONE << np.uint64(bits + 1)) - _ONE
    buffer = np.empty(min(_BLOCK, rows), dtype=np.uint64)
    for pair in range(first.size):
        for start in range(0, rows, _BLOCK):
            r = buffer[: min(_BLOCK, rows - start)]
            _difference(values, first[pair], second[pair], start, low, r)
            at = pair * rows + start
            signs = sign[at : at + r.size]
            for i in range(r.size):
                signs[i] = np.uint8(r[i] >> np.uint64(bits))
            offset = 0
            for j in range(widths.size):
                word = _word_size(widths[j])
                plane = table[offset + word * at : offset + word * (at + r.size)]
                offset += word * size
                if word == 8:
                    _add_thermometers(plane.view(np.uint64), r, shifts[j], widths[j])
                elif word == 4:
                    _add_thermometers(plane.view(np.uint32), r, shifts[j], widths[j])
                elif word == 2:
                    _add_thermometers(plane.view(np.uint16), r, shifts[j], widths[j])
                else:
                    _add_thermometers(plane, r, shifts[j], widths[j])


@compiled
def deal_nodes(mask: np.ndarray, products: np.ndarray, leaf_width: int, node: np.ndarray, free: np.ndarray) -> None:
    """Add the products of plain leaf masks to a share of the nodes; the free bit, above them, comes out."""
    low = (_ONE << np.uint64(leaf_width)) - _ONE
    for i in range(mask.size):
        word = np.uint64(mask[i])
        for b in range(node.shape[1]):
            node[i, b] ^= products[word & low, b]
        free[i] = np.uint8((word >> np.uint64(leaf_width)) & _ONE)


@njit(inline="always")
def _look_up_chunk(
    plane: np.ndarray, c: np.ndarray, shift: np.uint64, width: np.uint64, gt: int, eq: int, out: np.ndarray
) -> None:
    """out ^= [r > c] at bit gt and [r = c] at bit eq, of one chunk; no eq where that is negative."""
    low = (_ONE << width) - _ONE
    above, equal = np.uint64(gt), np.uint64(max(eq, 0))
    wanted = _ONE if eq >= 0 else _ZERO
    for i in range(c.size):
        pair = (np.uint64(plane[i]) >> ((c[i] >> shift) & low)) & _THREE
        over = pair >> _ONE
        out[i] ^= (over << above) | (((pair ^ over) & wanted) << equal)


@njit(inline="always")
def _look_up_block(
    table: np.ndarray,
    size: int,
    at: int,
    c: np.ndarray,
    shifts: np.ndarray,
    widths: np.ndarray,
    mask: np.ndarray,
    out: np.ndarray,
) -> None:
    """Leaf bits of comparisons at .. at + len(c) of `size`, under the low 2 K - 1 bits of mask."""
    count = shifts.size
    keep = (_ONE << np.uint64(2 * count - 1)) - _ONE
    for i in range(c.size):
        out[i] = np.uint64(mask[i]) & keep
    offset = 0
    for j in range(count):
        word = _word_size(widths[j])
        plane = table[offset + word * at : offset + word * (at + c.size)]
        offset += word * size
        eq = count + j if j < count - 1 else -1
        if word == 8:
            _look_up_chunk(plane.view(np.uint64), c, shifts[j], widths[j], j, eq, out)
        elif word == 4:
            _look_up_chunk(plane.view(np.uint32), c, shifts[j], widths[j], j, eq, out)
        elif word == 2:
            _look_up_chunk(plane.view(np.uint16), c, shifts[j], widths[j], j, eq, out)
        else:
            _look_up_chunk(plane, c, shifts[j], widths[j], j, eq, out)


@compiled
def look_up(
    table: np.ndarray,
    values: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    bits: int,
    shifts: np.ndarray,
    widths: np.ndarray,
    mask: np.ndarray,
    out: np.ndarray,
    sign: np.ndarray,
) -> None:
    """Leaf bits at the public values[first] - values[second]; see `deal_thermometers` for the shapes.

    Bit j of out is gt_j and bit K + j is eq_j of chunk j, most significant chunk first, xor the low 2 K - 1 bits
    of mask; the last chunk's eq is never formed, so that it cannot leave unmasked.  sign: the public value's bit
    above those that are compared.
    """
    rows = values.shape[1]
    size = first.size * rows
    low = (_ONE << np.uint64(bits + 1)) - _ONE
    buffer = np.empty(min(_BLOCK, rows), dtype=np.uint64)
    for pair in range(first.size):
        for start in range(0, rows, _BLOCK):
            c = buffer[: min(_BLOCK, rows - start)]
            _difference(values, first[pair], second[pair], start, low, c)
            at = pair * rows + start
            end = at + c.size
            signs = sign[at:end]
            for i in range(c.size):
                signs[i] = np.uint8(c[i] >> np.uint64(bits))
            _look_up_block(table, size, at, c, shifts, widths, mask[at:end], out[at:end])


@njit(inline="always")
def _parity(word: np.uint64) -> np.uint64:
    word ^= word >> np.uint64(32)
    word ^= word >> np.uint64(16)
    word ^= word >> np.uint64(8)
    word ^= word >> np.uint64(4)
    word ^= word >> np.uint64(2)
    return (word ^ (word >> _ONE)) & _ONE


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
    """out = the share of the AND node's bit: the monomials that the opened bits select.

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
    """`resolve_node` where mask (one byte) and node (N,) are one word of at most 31 bits, the constant its top bit."""
    top = np.uint32(31)
    for i in range(opened.size):
        chosen = (np.uint32(mask[i]) | (np.uint32(node[i]) << np.uint32(8))) & selector[opened[i]]
        chosen |= (selector[opened[i]] >> top) * (np.uint32(one) << top)
        chosen ^= chosen >> np.uint32(16)
        chosen ^= chosen >> np.uint32(8)
        chosen ^= chosen >> np.uint32(4)
        chosen ^= chosen >> np.uint32(2)
        chosen ^= chosen >> np.uint32(1)
        out[i] = np.uint8(chosen & np.uint32(1)) ^ (public[i] & np.uint8(one))


# --------------------------------------------------- AND trees (see gates/maximum.py)


@njit(inline="always")
def _gather_words(bits: np.ndarray, place: np.ndarray, flip: np.ndarray, fill: int, words: np.ndarray) -> None:
    """words = up to four rows of bits, side by side; `fill` where there is none."""
    words[:] = np.uint8(0)
    for slot in range(place.size):
        at = np.uint8(slot)
        if place[slot] < 0:
            words |= np.uint8(fill << slot)
            continue
        row, change = bits[place[slot]], flip[slot]
        for i in range(words.size):
            words[i] |= (row[i] ^ change) << at


@compiled
def deal_and_nodes(bits: np.ndarray, places: np.ndarray, monomials: np.ndarray, node: np.ndarray) -> None:
    """Add the products of plain mask bits to a share of the nodes: node ^= monomials[word].

    Shapes: bits (count, rows) uint8; places (nodes, 4), -1 for no input; node (nodes, rows) uint16.
    """
    rows = bits.shape[1]
    words = np.empty(rows, dtype=np.uint8)
    flip = np.zeros(4, dtype=np.uint8)
    for n in range(places.shape[0]):
        _gather_words(bits, places[n], flip, 0, words)
        for i in range(rows):
            node[n, i] ^= monomials[words[i]]


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
) -> None:
    """out = shares of the ANDs of opened bits xor their masks, under `fresh`; see `deal_and_nodes`.

    selection (16,): the monomials that an opened word selects.  All four ones: the constant, this party's share of one.
    """
    rows = bits.shape[1]
    words = np.empty(rows, dtype=np.uint8)
    full, mine = np.uint8(15), np.uint8(one)
    for n in range(places.shape[0]):
        _gather_words(bits, places[n], flips[n], 1, words)
        for i in range(rows):
            chosen = np.uint32(node[n, i] & selection[words[i]])
            chosen ^= chosen >> np.uint32(8)
            chosen ^= chosen >> np.uint32(4)
            chosen ^= chosen >> np.uint32(2)
            chosen ^= chosen >> np.uint32(1)
            constant = mine if words[i] == full else np.uint8(0)
            out[n, i] = np.uint8(chosen & np.uint32(1)) ^ constant ^ fresh[n, i]


# ------------------------------------------ selection by an opened bit (see gates/relu.py)


@compiled
def deal_selected(
    r: np.ndarray,
    beta: np.ndarray,
    shift: int,
    share_beta: np.ndarray,
    share_r1: np.ndarray,
    share_m: np.ndarray,
    share_beta_r1: np.ndarray,
    share_beta_m: np.ndarray,
) -> None:
    """Turn the others' shares of beta, r1 = r >> shift, m = [r >= 2^60], beta r1 and beta m into the last ones.

    Shapes: r (rows, n) plain masks; beta (n, rows) plain bits; the shares (n, rows).
    """
    f, top = np.uint64(shift), np.uint64(60)
    rows, n = r.shape
    for k in range(n):
        for i in range(rows):
            bit, r1, m = np.uint64(beta[k, i]), r[i, k] >> f, r[i, k] >> top
            share_beta[k, i] = _sub(bit, share_beta[k, i])
            share_r1[k, i] = _sub(r1, share_r1[k, i])
            share_m[k, i] = _sub(m, share_m[k, i])
            share_beta_r1[k, i] = _sub(bit * r1, share_beta_r1[k, i])
            share_beta_m[k, i] = _sub(bit * m, share_beta_m[k, i])


@compiled
def offset_columns(public: np.ndarray, constant: np.uint64, shift: int, c: np.ndarray, c1: np.ndarray) -> None:
    """c = public + constant mod p and c1 = c >> shift; public (rows, n), c and c1 (n, rows)."""
    rows, n = public.shape
    f = np.uint64(shift)
    for k in range(n):
        for i in range(rows):
            value = _add(public[i, k], constant)
            c[k, i] = value
            c1[k, i] = value >> f


@compiled
def select(
    c: np.ndarray,
    e: np.ndarray,
    beta: np.ndarray,
    r1: np.ndarray,
    beta_r1: np.ndarray,
    m: np.ndarray,
    beta_m: np.ndarray,
    one: np.uint64,
    bits: int,
    shift: int,
    out: np.ndarray,
) -> None:
    """out[i] += share of the sum over k of (e xor beta)[k, i] y[k, i], y the truncation of c = x + 2^bits + r.

    Shapes: out (rows,), all others (n, rows).
    """
    f = np.uint64(shift)
    centre = _ONE << np.uint64(bits - shift)
    threshold = _ONE << np.uint64(bits + 1)
    wrap = _fold(_ONE << np.uint64(61 - shift))
    n, rows = c.shape
    for k in range(n):
        for i in range(rows):
            value = _sub(c[k, i] >> f, centre)
            chosen = _sub(one, beta[k, i]) if e[k, i] == 1 else beta[k, i]
            minus = _sub(r1[k, i], beta_r1[k, i]) if e[k, i] == 1 else beta_r1[k, i]
            total = _sub(_add(out[i], _mul(value, chosen)), minus)
            if c[k, i] < threshold:
                carry = _sub(m[k, i], beta_m[k, i]) if e[k, i] == 1 else beta_m[k, i]
                total = _add(total, _mul(carry, wrap))
            out[i] = total


# --------------------------------------------------- Fourier series (see gates/fourier.py)


@njit(inline="always")
def _cos_sin(angle: np.uint64, window: np.uint64, table: np.ndarray) -> tuple[np.int64, np.int64]:
    """Cosine and sine of 2 pi angle / 2^window in units of 2^-30, from the integer table."""
    index = angle >> (window - np.uint64(24)) if window >= np.uint64(24) else angle << (np.uint64(24) - window)
    coarse, fine = index >> np.uint64(12), index & np.uint64(4095)
    hc, hs, lc, ls = table[0, coarse], table[1, coarse], table[2, fine], table[3, fine]
    half = np.int64(1 << 29)
    return (hc * lc - hs * ls + half) >> np.int64(30), (hc * ls + hs * lc + half) >> np.int64(30)


@compiled
def harmonics(r: np.ndarray, window: int, terms: int, drop: int, table: np.ndarray, out: np.ndarray) -> None:
    """out[j - 1] = cos, out[terms + j - 1] = sin of 2 pi j r / 2^window, j = 1..terms, `drop` bits fewer."""
    w = np.uint64(window)
    low = (_ONE << w) - _ONE
    half = np.int64((1 << drop) >> 1)
    for i in range(r.size):
        for j in range(terms):
            c, s = _cos_sin((r[i] * np.uint64(j + 1)) & low, w, table)
            out[j, i] = (c + half) >> np.int64(drop)
            out[terms + j, i] = (s + half) >> np.int64(drop)


@compiled
def turned_coefficients(
    c: np.ndarray, window: int, cosines: np.ndarray, sines: np.ndarray, table: np.ndarray, out: np.ndarray
) -> None:
    """The public factors of the dealt cosines and sines: the series' coefficients turned by c.

    out[j - 1] = A_j cos jc + B_j sin jc,  out[J + j - 1] = A_j sin jc - B_j cos jc.
    """
    w = np.uint64(window)
    low = (_ONE << w) - _ONE
    terms = cosines.size
    half = np.int64(1 << 29)
    for i in range(c.size):
        for j in range(terms):
            cos, sin = _cos_sin((c[i] * np.uint64(j + 1)) & low, w, table)
            out[j, i] = (cosines[j] * cos + sines[j] * sin + half) >> np.int64(30)
            out[terms + j, i] = (cosines[j] * sin - sines[j] * cos + half) >> np.int64(30)


@compiled
def dot_planes(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out[i] += sum over j of a[j, i] b[j, i] mod p."""
    planes, size = a.shape
    for i in range(size):
        total = out[i]
        for j in range(planes):
            total = _add(total, _mul(a[j, i], b[j, i]))
        out[i] = total
