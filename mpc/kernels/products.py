"""Matrix products: few rows by halves of elements, many through limbs and BLAS."""

from __future__ import annotations

import numpy as np
from numba import njit

from mpc.kernels.scalar import (
    HALF,
    ONE,
    S61,
    ZERO,
    P,
    add_mod,
    compiled,
    fold,
    fold_wide,
    mul_mod,
    multiply_add_wide,
    rotate,
)

_S30, _S31, _S32 = np.uint64(30), np.uint64(31), np.uint64(32)
_THIRD = np.uint64(0xAAAAAAAAAAAAAAAB)
"""1/3 modulo 2^64."""
_LOW_30, _LOW_31, _WORD = np.uint64((1 << 30) - 1), np.uint64((1 << 31) - 1), np.uint64((1 << 32) - 1)


@njit(inline="always")
def _split(a: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """The lower 31 bits of elements, and those above."""
    for t in range(a.size):
        low[t] = a[t] & _LOW_31
        high[t] = a[t] >> _S31


@njit(inline="always")
def _joined(low: np.uint64, middle: np.uint64, high: np.uint64) -> np.uint64:
    """low + middle 2^31 + high 2^62 mod p, not reduced: below 2^64, where high is below 2^62 (2^61 = 1 mod p)."""
    return (low & P) + (low >> S61) + ((middle & _LOW_30) << _S31) + (middle >> _S30) + (high << ONE)


@njit(inline="always")
def _inner(low: np.ndarray, high: np.ndarray, b: np.ndarray) -> np.uint64:
    """<a, b> mod p of a that is split, and b.

    Four products of halves of 31 and 30 bits are added up at one time: their sums stay below 2^64.  These are added up
    by halves of words, which up to 2^32 of them fit.
    """
    size = b.size >> 2
    one, two, three = size, 2 * size, 3 * size
    x0, x1, x2, x3 = low[:one], low[one:two], low[two:three], low[three : three + size]
    y0, y1, y2, y3 = high[:one], high[one:two], high[two:three], high[three : three + size]
    b0, b1, b2, b3 = b[:one], b[one:two], b[two:three], b[three : three + size]
    below, above = ZERO, ZERO
    for t in range(size):
        k0, k1, k2, k3 = x0[t] & _WORD, x1[t] & _WORD, x2[t] & _WORD, x3[t] & _WORD  # tells the compiler what it is
        l0, l1, l2, l3 = y0[t] & _WORD, y1[t] & _WORD, y2[t] & _WORD, y3[t] & _WORD
        m0, m1, m2, m3 = b0[t] & _LOW_31, b1[t] & _LOW_31, b2[t] & _LOW_31, b3[t] & _LOW_31
        n0, n1, n2, n3 = (
            (b0[t] >> _S31) & _LOW_30,
            (b1[t] >> _S31) & _LOW_30,
            (b2[t] >> _S31) & _LOW_30,
            (b3[t] >> _S31) & _LOW_30,
        )
        middle = k0 * n0 + l0 * m0 + k1 * n1 + l1 * m1 + k2 * n2 + l2 * m2 + k3 * n3 + l3 * m3
        total = _joined(k0 * m0 + k1 * m1 + k2 * m2 + k3 * m3, middle, l0 * n0 + l1 * n1 + l2 * n2 + l3 * n3)
        below += total & _WORD
        above += total >> _S32
    for t in range(4 * size, b.size):
        m, n = b[t] & _LOW_31, b[t] >> _S31
        total = _joined(low[t] * m, low[t] * n + high[t] * m, high[t] * n)
        below += total & _WORD
        above += total >> _S32
    return fold(rotate(fold(above), _S32) + below)


@compiled
def matmul_thin(a: np.ndarray, b_rows: np.ndarray, out: np.ndarray, start: int, stop: int) -> None:
    """Compute out[i, j] = <a[i], b_rows[j]> mod p for few rows of a and j from start to stop.

    Shapes: a (m, k), b_rows (n, k), out (m, n).
    """
    m, k = a.shape
    rows = b_rows[start:stop]
    low, high = np.empty(k, dtype=np.uint64), np.empty(k, dtype=np.uint64)
    for i in range(m):
        results = out[i][start:stop]
        _split(a[i], low, high)
        for j in range(results.size):
            results[j] = _inner(low, high, rows[j])


@compiled
def dot_rows(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Compute out[i] = <a[i], b[i]> mod p; a and b (m, k), out (m,); 128-bit accumulators.

    Folded every 32 terms: 32 products of 122 bits and a residue stay below 2^128.
    """
    m, k = a.shape
    for i in range(m):
        high, low = ZERO, ZERO
        for start in range(0, k, 32):
            for t in range(start, min(start + 32, k)):
                high, low = multiply_add_wide(high, low, a[i, t], b[i, t])
            low = fold_wide(high, low)
            high = ZERO
        out[i] = low


@njit(inline="always")
def _centred(a: np.uint64) -> np.int64:
    """A canonical residue as the integer in (-p/2, p/2] that it stands for, without a branch."""
    above = (HALF - a) >> np.uint64(63)  # 1 where a is above 2^60
    return np.int64(a - (P & (ZERO - above)))


@compiled
def split_limbs(a: np.ndarray, limbs: np.ndarray, start: int, stop: int) -> None:
    """Split elements from start to stop into centred limbs of 20, 20 and 21 bits, as the polynomial l0 + l1 x + l2 x^2,
    of which five values are given as float64.

    limbs (5, size): at 0, at infinity, at 1, at -1 and, times four, at 1/2: l0, l2, l0 + l1 + l2, l0 - l1 + l2 and
    4 l0 + 2 l1 + l2 with a = l0 + l1 2^20 + l2 2^40 mod p, |l0|, |l1| <= 2^19, |l2| <= 2^20, and all below 2^22.
    """
    values = a[start:stop]
    limb0, limb2 = limbs[0][start:stop], limbs[1][start:stop]
    plus, minus, half = limbs[2][start:stop], limbs[3][start:stop], limbs[4][start:stop]
    for i in range(values.size):
        value = _centred(values[i])
        l0 = ((value + np.int64(1 << 19)) & np.int64((1 << 20) - 1)) - np.int64(1 << 19)
        value = (value - l0) >> np.int64(20)
        l1 = ((value + np.int64(1 << 19)) & np.int64((1 << 20) - 1)) - np.int64(1 << 19)
        l2 = (value - l1) >> np.int64(20)
        ends = l0 + l2
        limb0[i], limb2[i], plus[i], minus[i] = l0, l2, ends + l1, ends - l1
        half[i] = l2 + ((l1 + l0 + l0) << np.int64(1))


@compiled
def split_images(values: np.ndarray, limbs: np.ndarray) -> None:
    """Split as `split_limbs` does (n, rows, places), all images side by side: limbs (5, rows, n * places)."""
    n, rows, places = values.shape
    for row in range(rows):
        for image in range(n):
            part = slice(image * places, (image + 1) * places)
            split_limbs(values[image, row], limbs[:, row, part], 0, places)


@compiled
def split_digits(a: np.ndarray, width: int, digits: np.ndarray, start: int, stop: int) -> None:
    """Split elements from start to stop into centred digits of `width` bits as float64, the least first:
    a = sum_j digits[j] 2^(width j) mod p.

    Shapes: a (size,), digits (count, size) with width count > 61; |digits| <= 2^(width - 1).
    """
    half, mask, bits = np.int64(1) << np.int64(width - 1), (np.int64(1) << np.int64(width)) - 1, np.int64(width)
    values, results = a[start:stop], digits[:, start:stop]
    for i in range(values.size):
        value = _centred(values[i])
        for j in range(digits.shape[0]):
            digit = ((value + half) & mask) - half
            results[j, i] = digit
            value = (value - digit) >> bits


@compiled
def join_digits(products: np.ndarray, width: int, offset: np.ndarray, out: np.ndarray, start: int, stop: int) -> None:
    """Compute out = offset + sum_j products[j] 2^(width j) mod p from start to stop, for at most six products that are
    integers below 2^53.

    Shapes: products (count, size), offset, out (size,).
    """
    terms, added, results = products[:, start:stop], offset[start:stop], out[start:stop]
    for i in range(results.size):
        total = _residue(terms[0, i])
        for j in range(1, products.shape[0]):
            total += rotate(_residue(terms[j, i]), np.uint64(width * j))
        results[i] = fold(fold(total) + added[i])


@njit(inline="always")
def _residue(value: float) -> np.uint64:
    """A float64 holding an exact integer below 2^60 in size, as a residue."""
    return _wrapped(np.int64(value))


@njit(inline="always")
def _wrapped(whole: np.int64) -> np.uint64:
    """An integer below 2^60 in size, as a residue."""
    return np.uint64(whole + (np.int64(P) & (whole >> np.int64(63))))  # the sign's bit, everywhere: no branch


@compiled
def recombine(products: np.ndarray, offset: np.ndarray, out: np.ndarray, start: int, stop: int) -> None:
    """Compute out = offset + the field product of whose limbs' polynomial five values are given, from start to stop.

    products (5, size) float64 in the order of `split_limbs`; offset, out (size,).  With c0 .. c4 the coefficients,
    whole numbers, c0 + c2 + c4 and c1 + c3 are half the sum and the difference of the values at 1 and -1; what is left
    of that at 1/2 is 8 c1 + 2 c3, hence 3 c1, and a division by three without rest is a product modulo 2^64.
    2^80 = 2^19 mod p.
    """
    at_zero, at_infinity = products[0][start:stop], products[1][start:stop]
    at_plus, at_minus, at_half = products[2][start:stop], products[3][start:stop], products[4][start:stop]
    added, results = offset[start:stop], out[start:stop]
    for i in range(results.size):
        c0, c4 = np.int64(at_zero[i]), np.int64(at_infinity[i])
        plus, minus = np.int64(at_plus[i]), np.int64(at_minus[i])
        odd = (plus - minus) >> np.int64(1)
        c2 = plus - odd - c0 - c4
        left = (np.int64(at_half[i]) - (c0 << np.int64(4)) - (c2 << np.int64(2)) - c4) >> np.int64(1)
        c1 = np.int64(np.uint64(left - odd) * _THIRD)
        total = _wrapped(c0) + rotate(_wrapped(c1), np.uint64(20)) + rotate(_wrapped(c2), np.uint64(40))
        total += rotate(_wrapped(odd - c1), np.uint64(60)) + rotate(_wrapped(c4), np.uint64(19))
        results[i] = fold(fold(total) + added[i])


@compiled
def recombine_images(products: np.ndarray, sums: np.ndarray) -> None:
    """Recombine limbs (5, rows, n * places), and add to sums (n, rows, places)."""
    n, rows, places = sums.shape
    for row in range(rows):
        for image in range(n):
            part = slice(image * places, (image + 1) * places)
            recombine(products[:, row, part], sums[image, row], sums[image, row], 0, places)


@compiled
def multiply_patches(filters: np.ndarray, patches: np.ndarray, sums: np.ndarray) -> None:
    """Add filters @ patches to sums for each image, element by element.

    Shapes: filters (g, o, k), patches (n, g * k, places), sums (n, g * o, places).
    """
    groups, count, inner = filters.shape
    for image in range(patches.shape[0]):
        for group in range(groups):
            for place in range(inner):
                row = patches[image, group * inner + place]
                for filter_ in range(count):
                    factor, result = filters[group, filter_, place], sums[image, group * count + filter_]
                    for i in range(result.size):
                        result[i] = add_mod(result[i], mul_mod(factor, row[i]))


@compiled
def multiply_windows(
    filters: np.ndarray,
    x: np.ndarray,
    places: np.ndarray,
    starts: np.ndarray,
    sums: np.ndarray,
    start: int,
    stop: int,
) -> None:
    """Add to sums the products of filters with the windows of padded images, read where they lie: those of the places
    from start to stop.

    Shapes: filters (g, o, k); x (n, g, size); places (k,), of a window's elements behind its first; starts (count,), of
    the first ones; sums (n, g * o, count).
    """
    groups, count, inner = filters.shape
    window = np.empty(inner, dtype=np.uint64)
    low, high = np.empty((count, inner), dtype=np.uint64), np.empty((count, inner), dtype=np.uint64)
    for group in range(groups):
        for filter_ in range(count):
            _split(filters[group, filter_], low[filter_], high[filter_])
        for image in range(x.shape[0]):
            values, results = x[image, group], sums[image, group * count : (group + 1) * count]
            for i in range(start, stop):
                for t in range(inner):
                    window[t] = values[starts[i] + places[t]]
                for filter_ in range(count):
                    found = _inner(low[filter_], high[filter_], window)
                    results[filter_, i] = add_mod(results[filter_, i], found)
