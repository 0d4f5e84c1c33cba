"""Sliding windows: where a convolution's kernel lies on its input, for any number of spatial axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from typing import Annotated

import numpy as np
from pydantic import Field

from mpc.wires import Frozen

Count = Annotated[int, Field(ge=1, le=1 << 16)]
Padding = Annotated[int, Field(ge=0, le=1 << 16)]


class Windows(Frozen):
    """The geometry of a convolution; one entry a spatial axis.

    Args:
        pads: zeros before and after each axis.
        groups: the channels are cut into as many groups, each with filters of its own.
    """

    kernel: tuple[Count, ...] = Field(min_length=1, max_length=8)
    strides: tuple[Count, ...]
    dilations: tuple[Count, ...]
    pads: tuple[tuple[Padding, Padding], ...]
    groups: Count = 1

    @property
    def fits(self) -> bool:
        """Has every list an entry for each axis?"""
        return len(self.kernel) == len(self.strides) == len(self.dilations) == len(self.pads)

    def positions(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Return how many windows there are along each axis of an input; not positive where none fits."""
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        return tuple(
            (size + sum(pad) - span) // stride + 1
            for size, pad, span, stride in zip(sizes, self.pads, reach, self.strides, strict=True)
        )

    def patches(self, x: np.ndarray, block: tuple[slice, ...] | None = None) -> np.ndarray:
        """Copy (..., channels, *sizes) to a contiguous (..., channels * prod(kernel), positions of the block).

        For each place in the kernel what lies under it, at all positions at once; padding is never made.
        """
        axes = len(self.kernel)
        lead, sizes = x.shape[:-axes], x.shape[-axes:]
        block = block or tuple(slice(0, count) for count in self.positions(sizes))
        counts = [part.stop - part.start for part in block]
        out = np.zeros((*lead, *self.kernel, *counts), dtype=x.dtype)
        for place in np.ndindex(self.kernel):
            covered = [self._covered(axis, place[axis], block[axis], sizes[axis]) for axis in range(axes)]
            if all(under.start < under.stop for _, under in covered):
                to, under = zip(*covered, strict=True)
                out[(..., *place, *to)] = x[(..., *under)]
        return out.reshape(*lead[:-1], lead[-1] * prod(self.kernel), prod(counts))

    def padded(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Return the sizes of a padded input."""
        return tuple(size + sum(pad) for size, pad in zip(sizes, self.pads, strict=True))

    def pad(self, x: np.ndarray) -> np.ndarray:
        """Return (n, channels, *sizes), contiguous, with the zeros around it."""
        if not any(map(any, self.pads)):
            return np.ascontiguousarray(x)
        out = np.zeros((*x.shape[:2], *self.padded(x.shape[2:])), dtype=x.dtype)
        inside = [slice(before, before + size) for (before, _), size in zip(self.pads, x.shape[2:], strict=True)]
        out[:, :, *inside] = x
        return out

    def starts(self, sizes: tuple[int, ...]) -> np.ndarray:
        """Return where in a channel of a padded input each window begins: (positions,) int64."""
        return _flat(
            [range(0, n * s, s) for n, s in zip(self.positions(sizes), self.strides, strict=True)], self.padded(sizes)
        )

    def places(self, sizes: tuple[int, ...], channels: int) -> np.ndarray:
        """Return where each element of a window of so many channels lies behind its first, as `patches` orders them.

        Args:
            sizes: of a padded input, as of all offsets.
        """
        within = [range(0, n * d, d) for n, d in zip(self.kernel, self.dilations, strict=True)]
        return _flat([range(channels), *within], (channels, *sizes))

    def _covered(self, axis: int, place: int, block: slice, size: int) -> tuple[slice, slice]:
        """Along one axis: the windows of a block that have this place of theirs on the input, and where there."""
        stride, ahead = self.strides[axis], place * self.dilations[axis] - self.pads[axis][0]
        first = max(block.start, -(ahead // stride))
        stop = min(block.stop, (size - 1 - ahead) // stride + 1)
        under = slice(first * stride + ahead, (stop - 1) * stride + ahead + 1, stride)
        return slice(first - block.start, stop - block.start), under if first < stop else slice(0, 0)

    def convolve(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the convolution over Z or the reals: x (n, c, *sizes), weight (o, c / groups, *kernel)."""
        columns = self.patches(x).reshape(x.shape[0], self.groups, -1, prod(self.positions(x.shape[2:])))
        rows = weight.reshape(self.groups, weight.shape[0] // self.groups, -1)
        return (rows @ columns).reshape(x.shape[0], weight.shape[0], *self.positions(x.shape[2:]))


def _flat(axes: Sequence[range], sizes: tuple[int, ...]) -> np.ndarray:
    """Return the places of a grid's points in a row of all elements: (points,) int64."""
    return np.ravel_multi_index(np.ix_(*axes), sizes).astype(np.int64).reshape(-1)


def blocks(positions: tuple[int, ...], most: int) -> Iterator[tuple[slice, ...]]:
    """Yield positions in blocks of at most `most`, as many of the last axes whole as fit."""
    sizes = [max(1, min(size, most // prod(positions[axis + 1 :]))) for axis, size in enumerate(positions)]
    starts = (range(0, count, size) for count, size in zip(positions, sizes, strict=True))
    for start in product(*starts):
        yield tuple(slice(a, min(a + n, c)) for a, n, c in zip(start, sizes, positions, strict=True))
