"""Convolutions over F_p, exactly: as products with patches, or by tiles.

By tiles (Toom and Cook; Winograd 1980; Lavin and Gray 2016): 8 x 8 inputs at a time are mapped to
64 points, where the convolution is one product of the channels a point, and back,

    y = A^T [(G g G^T) (B^T d B)] A        for each tile, at every point a matrix product over channels

with the points 0, 1, -1, 2, -2, 1/2, -1/2 and infinity on each axis.  Over a field that is exact:
fractions are elements like others, and stand in G, which is applied to filters once.  B has small
integers only, A powers of two.  A kernel of r places gives 9 - r results a tile and axis, for 8 / (9 - r)
products each instead of r.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from math import prod

import numpy as np

from mpc import field as fp
from mpc import kernels
from mpc.encoding import view_words
from mpc.kernels import cores
from mpc.windows import Windows, blocks

BLOCK_BYTES = 3 << 20
"""Of the limbs of patches at one time, or of their products: they stay in a core's cache."""
POINT_BYTES = 6 << 20
"""Of results at the points of tiles at one time."""
_SPLITTING = 20
"""Taking an element apart takes about as long as so many products."""
TILE = 8
FEWEST_TILES = 32
FEWEST_FILTERS = 8
_THIN = 4
"""So few channels are multiplied one by one: BLAS has nothing to gain there."""
FEW_FILTERS = 8
"""Nor with so few filters a group: taking patches apart would cost more than all products."""
_KERNELS = range(3, 7)


@dataclass(frozen=True)
class Filters:
    """The filters (o, c / groups, *kernel) of a convolution, in the forms that products take: each made once, kept."""

    values: np.ndarray = field(repr=False)
    windows: Windows

    @property
    def kept(self) -> np.ndarray | None:
        """(5, groups, o / groups, c / groups * prod(kernel)) float64, limbs, if they are kept."""
        return self.__dict__.get("_kept")

    def parts(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield limbs (5, groups, o / groups, c / groups * prod(kernel)), with the filters that they are of.

        Limbs of large filters that are not kept are split anew, some filters at a time.
        """
        groups, per_group, inner = self.grouped.shape
        each = fp.limb_bytes((groups, inner))
        most = per_group if self.kept is not None or groups > 1 else max(FEWEST_FILTERS, fp.LIMB_BYTES // each)
        for start in range(0, per_group, most):
            chosen = slice(start, min(start + most, per_group))
            split = fp.limbs(self.grouped[:, chosen]) if self.kept is None else self.kept
            yield slice(chosen.start, chosen.stop) if groups == 1 else slice(None), split

    @cached_property
    def grouped(self) -> np.ndarray:
        """(groups, o / groups, c / groups * prod(kernel)) over F_p."""
        groups = self.windows.groups
        return np.ascontiguousarray(self.values).reshape(groups, self.values.shape[0] // groups, -1)

    @property
    def few(self) -> bool:
        """Are there so few of them that their products are made one by one?"""
        return self.grouped.shape[1] <= FEW_FILTERS

    @cached_property
    def points(self) -> np.ndarray:
        """(64, o, c) over F_p, the filters at the points of a tile; their limbs would take five times as much."""
        o, c, high, wide = self.values.shape
        across = fp.matmul(self.values.reshape(-1, wide), _filter_map(wide).T.copy())
        down = np.ascontiguousarray(across.reshape(o, c, high, TILE).transpose(2, 3, 0, 1)).reshape(high, -1)
        return fp.matmul(_filter_map(high), down).reshape(TILE * TILE, o, c)

    def tiles(self, x: tuple[int, ...]) -> tuple[int, int] | None:
        """Return tiles along both axes if an input of this shape is better convolved by tiles, else None."""
        return tiles(x, self.values.shape, self.windows)

    def lay_out(self, x: tuple[int, ...], room: fp.Room) -> None:
        """Make now what a convolution of an input of this shape will need, as far as there is room for it."""
        if self.tiles(x):
            _ = self.points
        elif not self.few and self.kept is None and room.take(fp.limb_bytes(self.values.shape)):
            self.__dict__["_kept"] = fp.limbs(self.grouped)


def tiles(x: tuple[int, ...], filters: tuple[int, ...], windows: Windows) -> tuple[int, int] | None:
    """Return tiles along both axes if inputs and filters of these shapes are better convolved by tiles, else None."""
    plain = windows.groups == 1 and not any(n > 1 for n in (*windows.strides, *windows.dilations))
    if len(windows.kernel) != 2 or not plain or not all(k in _KERNELS for k in windows.kernel):
        return None
    positions = windows.positions(x[2:])
    down, across = (-(-n // (TILE + 1 - k)) for n, k in zip(positions, windows.kernel, strict=True))
    count = x[0] * down * across
    saved = x[0] * prod(positions) * prod(windows.kernel) >= 2 * TILE * TILE * count
    many = filters[0] >= FEWEST_FILTERS and count >= FEWEST_TILES and filters[1] <= fp.MAX_INNER
    return (down, across) if saved and many else None


def convolve(x: np.ndarray, filters: Filters, offset: np.ndarray | None = None) -> np.ndarray:
    """Return the convolution (+ offset) over F_p.

    Shapes: x (n, c, *sizes), offset broadcastable to the result (n, o, *positions).  Error: exact.
    """
    out = np.empty((x.shape[0], filters.values.shape[0], *filters.windows.positions(x.shape[2:])), dtype=np.uint64)
    base = np.broadcast_to(fp.zeros(()) if offset is None else offset, out.shape)
    across = filters.tiles(x.shape)
    if across is None and filters.few:
        _one_by_one(x, filters, base, out)
    elif across is None:
        for chosen, right in filters.parts():
            _by_patches(x, right, filters.windows, base[:, chosen], out[:, chosen])
    else:
        _by_tiles(np.ascontiguousarray(x), filters, across, base, out)
    return out


def _sharing() -> int:
    """Among how many threads the bytes of blocks are divided: up to four, since BLAS is slow on little."""
    return min(cores.threads(), 4)


# ------------------------------------------------------------------- patches


def _by_patches(x: np.ndarray, right: np.ndarray, windows: Windows, base: np.ndarray, out: np.ndarray) -> None:
    """Products of filters' limbs with the patches of a few images, or of a few windows of one, at a time."""
    positions = out.shape[2:]
    _, groups, per_group, inner = right.shape
    most = max(1, BLOCK_BYTES // _sharing() // (8 * fp.POINTS * groups * max(inner, per_group)))
    images = max(1, min(x.shape[0], most // prod(positions)))
    size = images * min(prod(positions), most)
    parts = [(start, block) for start in range(0, x.shape[0], images) for block in blocks(positions, most)]

    def some_parts(begin: int, end: int) -> None:
        split = np.empty(fp.POINTS * groups * inner * size, dtype=np.float64)
        products = np.empty(fp.POINTS * groups * per_group * size, dtype=np.float64)
        for start, block in parts[begin:end]:
            some = x[start : start + images]
            place = (slice(start, start + images), slice(None), *block)
            columns = _columns(some, windows, block, groups, split)
            found = products[: fp.POINTS * groups * per_group * columns.shape[-1]].reshape(
                fp.POINTS, groups, per_group, -1
            )
            added = np.array(base[place], order="C")
            for first in range(0, inner, fp.MAX_INNER):
                part = slice(first, first + fp.MAX_INNER)
                np.matmul(right[..., part], columns[:, :, part], out=found)
                sums = added.reshape(len(some), groups * per_group, -1)
                kernels.recombine_images(found.reshape(fp.POINTS, groups * per_group, -1), sums)
            out[place] = added

    each = x.shape[0] * groups * inner * (per_group + _SPLITTING) * prod(positions) // max(1, len(parts))
    cores.in_blocks(some_parts, len(parts), fp.NANOSECONDS_A_PRODUCT * each, 1)


def _one_by_one(x: np.ndarray, filters: Filters, base: np.ndarray, out: np.ndarray) -> None:
    """Convolve with few filters, on whole elements, which are read where they lie in padded images."""
    windows, left = filters.windows, filters.grouped
    sizes = windows.padded(x.shape[2:])
    places = windows.places(sizes, x.shape[1] // windows.groups)
    starts = windows.starts(x.shape[2:])
    images = max(1, BLOCK_BYTES // (8 * x.shape[1] * prod(sizes)))
    for start in range(0, x.shape[0], images):
        some = windows.pad(x[start : start + images]).reshape(
            -1, windows.groups, x.shape[1] // windows.groups * prod(sizes)
        )
        sums = np.array(base[start : start + images], order="C")
        kernels.multiply_windows(view_words(left), view_words(some), places, starts, sums.reshape(*sums.shape[:2], -1))
        out[start : start + images] = sums


def _columns(x: np.ndarray, windows: Windows, block: tuple[slice, ...], groups: int, room: np.ndarray) -> np.ndarray:
    """Limbs of the patches (5, groups, inner, images * positions), all images side by side; made in `room`."""
    patches = windows.patches(x, block)
    count, rows, places = patches.shape
    split = room[: fp.POINTS * patches.size].reshape(fp.POINTS, rows, count * places)
    kernels.split_images(patches, split)
    return split.reshape(fp.POINTS, groups, rows // groups, count * places)


# --------------------------------------------------------------------- tiles


def _by_tiles(x: np.ndarray, filters: Filters, counts: tuple[int, int], base: np.ndarray, out: np.ndarray) -> None:
    """Compute out = base + the convolution, the tiles of a few images at a time."""
    (down, across), points = counts, filters.points
    o, c = points.shape[1:]
    high, wide = (TILE + 1 - k for k in filters.windows.kernel)
    top, left = (before for before, _ in filters.windows.pads)
    each = TILE * TILE * down * across
    images = max(1, min(x.shape[0], POINT_BYTES // _sharing() // (8 * each * max(o, c))))

    def some_images(begin: int, end: int) -> None:
        inputs, results = (np.empty(n * each * images, dtype=np.uint64) for n in (c, o))
        for start in range(begin * images, min(end * images, x.shape[0]), images):
            chosen = slice(start, start + images)
            count = len(x[chosen]) * down * across
            data, at_points = (
                room[: n * TILE * TILE * count].reshape(TILE, TILE, -1) for room, n in ((inputs, c), (results, o))
            )
            kernels.gather_tiles(x[chosen], top, left, high, wide, down, across, data)
            kernels.tiles_to_points(data)
            _multiply_points(data.reshape(-1, c, count), points, at_points.reshape(-1, o, count))
            kernels.points_to_tiles(at_points, high, wide)
            kernels.scatter_tiles(at_points, high, wide, down, across, view_words(base[chosen]), out[chosen])

    cost = images * each * (c * o * fp.NANOSECONDS_A_PRODUCT + c + o)
    cores.in_blocks(some_images, -(-x.shape[0] // images), cost, 1)


def _multiply_points(data: np.ndarray, points: np.ndarray, out: np.ndarray) -> None:
    """out = points @ data at each point.  Shapes: data (64, c, n), points (64, o, c), out (64, o, n)."""
    if data.shape[1] <= _THIN:
        kernels.multiply_points(points, data, out)
        return
    zero = fp.zeros(out[0].size)

    def some_points(start: int, stop: int) -> None:
        products, right, left = (
            np.empty((fp.POINTS, *shape), dtype=np.float64)
            for shape in (out.shape[1:], data.shape[1:], points.shape[1:])
        )
        for place in range(start, stop):
            multiply(data[place], points[place], out[place], products, right, left)

    def multiply(
        channels: np.ndarray,
        filters: np.ndarray,
        found: np.ndarray,
        products: np.ndarray,
        right: np.ndarray,
        left: np.ndarray,
    ) -> None:
        kernels.split_limbs(channels.reshape(-1), right.reshape(fp.POINTS, -1))
        kernels.split_limbs(filters.reshape(-1), left.reshape(fp.POINTS, -1))
        np.matmul(left, right, out=products)
        kernels.recombine(products.reshape(fp.POINTS, -1), zero, found.reshape(-1))

    cost = fp.NANOSECONDS_A_PRODUCT * data[0].size * out.shape[1]
    cores.in_blocks(some_points, len(data), cost, 1)


@cache
def _filter_map(size: int) -> np.ndarray:
    """G (8, size) over F_p: powers of the points, over what B^T's rows are too large by."""
    half = pow(2, -1, fp.P)
    points = [0, 1, -1, 2, -2, half, -half]
    rows = []
    for point in points:
        excess = 4 * prod(point - other for other in points if other != point)
        rows.append([pow(point, j, fp.P) * pow(excess, -1, fp.P) % fp.P for j in range(size)])
    rows.append([pow(4, -1, fp.P) if j == size - 1 else 0 for j in range(size)])
    return np.array(rows, dtype=np.uint64)
