"""Convolutions by tiles: the transforms of `mpc.convolution`, for many tiles side by side."""

from __future__ import annotations

import numpy as np
from numba import njit

from mpc.kernels.scalar import ONE, S61, ZERO, P, add_mod, compiled, fold, mul_mod, rotate, sub_mod


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
                            plane[at] = x[image, channel, y, z] if inside else ZERO
                            at += 1


@njit(inline="always")
def _line_to_points(line: np.ndarray) -> None:
    """B^T d in place, for many lines side by side: line (8, size)."""
    d0, d1, d2, d3, d4, d5, d6, d7 = line[0], line[1], line[2], line[3], line[4], line[5], line[6], line[7]
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
                        result[i] = mul_mod(factor, row[i])
                else:
                    for i in range(result.size):
                        result[i] = add_mod(result[i], mul_mod(factor, row[i]))


@njit(inline="always")
def _line_to_results(line: np.ndarray, count: int) -> None:
    """A^T z in the first `count` places, for many lines side by side: line (8, size)."""
    z0, z1, z2, z3, z4, z5, z6, z7 = line[0], line[1], line[2], line[3], line[4], line[5], line[6], line[7]
    for i in range(z0.size):
        ones, other_ones = add_mod(z1[i], z2[i]), sub_mod(z1[i], z2[i])
        z1[i], z2[i] = ones, other_ones
        twos, other_twos = add_mod(z3[i], z4[i]), sub_mod(z3[i], z4[i])
        z3[i], z4[i] = twos, other_twos
        halves, other_halves = add_mod(z5[i], z6[i]), sub_mod(z5[i], z6[i])
        z5[i], z6[i] = halves, other_halves
    results = np.empty((count, z0.size), dtype=np.uint64)
    for place in range(count):
        ones, twos, halves = (z1, z3, z5) if place % 2 == 0 else (z2, z4, z6)
        up = np.uint64(place)
        result = results[place]
        if place == 0:
            for i in range(z0.size):
                result[i] = fold(z0[i] + ones[i] + twos[i] + halves[i])
        else:
            for i in range(z0.size):
                result[i] = fold(ones[i] + rotate(twos[i], up) + rotate(halves[i], S61 - up))
    last = results[count - 1]
    for i in range(z0.size):
        last[i] = add_mod(last[i], z7[i])
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
                                row[z] = add_mod(row[z], plane[at])
                            at += 1
