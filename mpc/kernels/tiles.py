"""Convolutions by tiles: the transforms of `mpc.convolution`, for many tiles side by side."""

from __future__ import annotations

import numpy as np
from numba import njit

from mpc.kernels.scalar import ONE, S61, ZERO, P, add_mod, compiled, fold, mul_mod, rotate, sub_mod

STRIP = 128
"""Tiles that are transformed at one time, along both axes: all 64 points of them stay in the nearest cache."""


@compiled
def gather_tiles(
    x: np.ndarray,
    top: int,
    left: int,
    high: int,
    wide: int,
    down: int,
    across: int,
    out: np.ndarray,
    start: int,
    stop: int,
) -> None:
    """Gather tiles of 8 x 8 inputs, `high` and `wide` apart, zeros outside, of the channels from start to stop.

    Shapes: x (n, c, h, w), out (8, 8, c * n * down * across).
    """
    n, _, h, w = x.shape
    at = start * n * down * across
    for channel in range(start, stop):
        for image in range(n):
            plane = x[image, channel]
            for ty in range(down):
                for tx in range(across):
                    y, z = ty * high - top, tx * wide - left
                    if y >= 0 and z >= 0 and y + 8 <= h and z + 8 <= w:
                        for a in range(8):
                            for b in range(8):
                                out[a, b, at] = plane[y + a, z + b]
                    else:
                        for a in range(8):
                            for b in range(8):
                                inside = 0 <= y + a < h and 0 <= z + b < w
                                out[a, b, at] = plane[y + a, z + b] if inside else ZERO
                    at += 1


@njit(inline="always")
def _row(planes: np.ndarray, row: int, start: int) -> np.ndarray:
    """A strip of one plane, contiguous as the compiler sees it: only then are loops over it vectorised."""
    return planes[row][start : start + STRIP]


@njit(inline="always")
def _line_to_points(planes: np.ndarray, first: int, step: int, start: int) -> None:
    """B^T d in place, d the strips of eight planes (64, size): `first`, and each `step` after the one before."""
    d0, d1 = _row(planes, first, start), _row(planes, first + step, start)
    d2, d3 = _row(planes, first + 2 * step, start), _row(planes, first + 3 * step, start)
    d4, d5 = _row(planes, first + 4 * step, start), _row(planes, first + 5 * step, start)
    d6, d7 = _row(planes, first + 6 * step, start), _row(planes, first + 7 * step, start)
    for i in range(d0.size):
        v0, v1, v2, v3, v4, v5, v6, v7 = d0[i], d1[i], d2[i], d3[i], d4[i], d5[i], d6[i], d7[i]
        n3, n4 = P - v3, P - v4  # sums of up to seven stay below 2^64
        even, odd = sub_mod(v2, v4), sub_mod(v3, v5)
        four, sixteen = np.uint64(2), np.uint64(4)  # as rotations
        d0[i] = fold(rotate(v6, four) + rotate(P - v0, four) + rotate(even, sixteen) + rotate(even, four) + even)
        d7[i] = fold(rotate(v7, four) + rotate(P - v1, four) + rotate(odd, sixteen) + rotate(odd, four) + odd)
        even = fold(rotate(v2, four) + rotate(v6, four) + rotate(n4, sixteen) + n4)
        odd = fold(rotate(v1, four) + rotate(v5, four) + rotate(n3, sixteen) + n3)
        d1[i], d2[i] = add_mod(even, odd), sub_mod(even, odd)
        even = fold(v2 + rotate(n4, four) + n4 + rotate(v6, four))
        odd = rotate(fold(v1 + rotate(n3, four) + n3 + rotate(v5, four)), ONE)
        d3[i], d4[i] = add_mod(even, odd), sub_mod(even, odd)
        even = rotate(fold(rotate(v2, four) + rotate(n4, four) + n4 + v6), four)
        odd = rotate(fold(rotate(v1, four) + rotate(n3, four) + n3 + v5), ONE)
        d5[i], d6[i] = add_mod(even, odd), sub_mod(even, odd)


@compiled
def tiles_to_points(tiles: np.ndarray, start: int, stop: int) -> None:
    """Compute B^T d B in place, for the tiles (8, 8, size) from start to stop; start is a multiple of STRIP."""
    planes = tiles.reshape(64, tiles.shape[2])
    for first in range(start, stop, STRIP):
        for k in range(8):
            _line_to_points(planes, k, 8, first)
        for k in range(8):
            _line_to_points(planes, 8 * k, 1, first)


@compiled
def multiply_points(points: np.ndarray, data: np.ndarray, out: np.ndarray, start: int, stop: int) -> None:
    """Compute out = points @ data at each point, for few channels and the columns from start to stop.

    Shapes: points (64, o, c), data (64, c, n), out (64, o, n).
    """
    count, o, c = points.shape
    for point in range(count):
        for filter_ in range(o):
            result = out[point, filter_][start:stop]
            for channel in range(c):
                factor, row = points[point, filter_, channel], data[point, channel][start:stop]
                if channel == 0:
                    for i in range(result.size):
                        result[i] = mul_mod(factor, row[i])
                else:
                    for i in range(result.size):
                        result[i] = add_mod(result[i], mul_mod(factor, row[i]))


@njit(inline="always")
def _line_to_results(planes: np.ndarray, first: int, step: int, start: int, count: int, room: np.ndarray) -> None:
    """A^T z in the first `count` places, in place; planes as in `_line_to_points`, room (6, STRIP)."""
    z0, z7 = _row(planes, first, start), _row(planes, first + 7 * step, start)
    size = z0.size
    for pair in range(3):
        z, other = (
            _row(planes, first + (2 * pair + 1) * step, start),
            _row(planes, first + (2 * pair + 2) * step, start),
        )
        sums, differences = room[pair], room[3 + pair]
        for i in range(size):
            sums[i], differences[i] = add_mod(z[i], other[i]), sub_mod(z[i], other[i])
    for place in range(count):
        odd = 3 * (place % 2)
        ones, twos, halves = room[odd], room[odd + 1], room[odd + 2]
        up, result = np.uint64(place), _row(planes, first + place * step, start)
        if place == 0:
            for i in range(size):
                result[i] = fold(z0[i] + ones[i] + twos[i] + halves[i])
        else:
            for i in range(size):
                result[i] = fold(ones[i] + rotate(twos[i], up) + rotate(halves[i], S61 - up))
    last = _row(planes, first + (count - 1) * step, start)
    for i in range(size):
        last[i] = add_mod(last[i], z7[i])


@compiled
def points_to_tiles(points: np.ndarray, high: int, wide: int, start: int, stop: int) -> None:
    """Compute A^T z A in place, in the first high x wide places, as `tiles_to_points`; points (8, 8, size)."""
    room = np.empty((6, STRIP), dtype=np.uint64)
    planes = points.reshape(64, points.shape[2])
    for first in range(start, stop, STRIP):
        for k in range(8):
            _line_to_results(planes, k, 8, first, high, room)
        for k in range(high):
            _line_to_results(planes, 8 * k, 1, first, wide, room)


@compiled
def scatter_tiles(
    tiles: np.ndarray,
    high: int,
    wide: int,
    down: int,
    across: int,
    base: np.ndarray,
    out: np.ndarray,
    start: int,
    stop: int,
) -> None:
    """Compute out = base + the results of tiles (8, 8, o * n * down * across), both (n, o, h, w), of the channels from
    start to stop.
    """
    n, _, h, w = out.shape
    each = down * across
    together = max(1, STRIP // 2 // each)  # images: few pages of `out` are in use at one time, and whole lines of tiles
    room = np.empty(across * wide, dtype=np.uint64)  # a row of results, and what is beyond
    for first in range(0, n, together):
        for channel in range(start, stop):
            for image in range(first, min(first + together, n)):
                at = (channel * n + image) * each
                plane, added = out[image, channel], base[image, channel]
                for y in range(0, down * high, high):
                    for a in range(min(high, h - y)):
                        for b in range(wide):
                            places = tiles[a, b][at : at + across]
                            for z in range(across):
                                room[z * wide + b] = places[z]
                        row, more = plane[y + a], added[y + a]
                        for x in range(w):
                            row[x] = add_mod(more[x], room[x])
                    at += across
