"""Where a kernel lies on its input, against a loop that asks for every place whether it is there."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mpc.windows import Windows, blocks
from tests.support import naive
from tests.support.bilinear_cases import geometries
from tests.support.effort import examples

SQUARE = {"kernel": (2, 2), "strides": (1, 1), "dilations": (1, 1), "pads": ((0, 0), (0, 0))}


def counted(x: np.ndarray, windows: Windows) -> np.ndarray:
    """(channels, kernel places, positions) of one image (channels, *sizes), element by element."""
    positions = windows.positions(x.shape[1:])
    out = np.zeros((x.shape[0], prod(windows.kernel), prod(positions)), dtype=x.dtype)
    for number, position in enumerate(np.ndindex(*positions)):
        for row, place in enumerate(np.ndindex(*windows.kernel)):
            at = [
                p * s + o * d - before
                for p, s, o, d, (before, _) in zip(
                    position, windows.strides, place, windows.dilations, windows.pads, strict=True
                )
            ]
            if all(0 <= a < size for a, size in zip(at, x.shape[1:], strict=True)):
                out[:, row, number] = x[(slice(None), *at)]
    return out


@examples(60)
@given(geometries(), st.integers(1, 3), st.integers(1, 2))
def test_patches_are_what_lies_under_the_windows(geometry: tuple, channels: int, images: int) -> None:
    windows, sizes = geometry
    x = np.arange(1, images * channels * prod(sizes) + 1).reshape(images, channels, *sizes)
    found = windows.patches(x)
    assert found.flags.c_contiguous and found.dtype == x.dtype
    expected = np.stack([counted(image, windows) for image in x])
    assert (found == expected.reshape(found.shape)).all()
    assert (windows.patches(np.stack([x, 2 * x])) == np.stack([found, 2 * found])).all()  # any leading axes


@examples(60)
@given(geometries(), st.integers(1, 400))
def test_blocks_cut_the_positions_and_patches_along(geometry: tuple, most: int) -> None:
    windows, sizes = geometry
    positions = windows.positions(sizes)
    x = np.arange(1, 2 * prod(sizes) + 1).reshape(2, *sizes)
    whole = windows.patches(x).reshape(-1, *positions)
    seen = np.zeros(positions, dtype=int)
    for block in blocks(positions, most):
        seen[block] += 1
        size = seen[block].size
        assert 0 < size <= most
        assert (windows.patches(x, block) == whole[(slice(None), *block)].reshape(-1, size)).all()
    assert (seen == 1).all()


@pytest.mark.parametrize(
    ("positions", "most", "sizes"),
    [
        ((4, 5), 20, [20]),
        ((4, 5), 19, [15, 5]),
        ((4, 5), 5, [5] * 4),
        ((4, 5), 4, [4, 1] * 4),
        ((4, 5), 1, [1] * 20),
        ((3, 4, 5), 7, [5] * 12),
        ((7,), 3, [3, 3, 1]),
    ],
)
def test_blocks_keep_the_last_axes_whole(positions: tuple, most: int, sizes: list[int]) -> None:
    found = [prod(part.stop - part.start for part in block) for block in blocks(positions, most)]
    assert found == sizes


@examples(40)
@given(geometries(), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2), st.integers(0, 1 << 30))
def test_convolutions_over_integers(geometry: tuple, groups: int, per_group: int, filters: int, seed: int) -> None:
    windows, sizes = geometry
    windows = windows.model_copy(update={"groups": groups})
    rng = np.random.default_rng(seed)
    x = rng.integers(-1000, 1000, (2, groups * per_group, *sizes))
    weight = rng.integers(-1000, 1000, (groups * filters, per_group, *windows.kernel))
    assert (windows.convolve(x, weight) == naive.convolution(x, weight, windows)).all()
    halves = windows.convolve(x / 2, weight / 4)
    assert (halves * 8 == naive.convolution(x, weight, windows).astype(float)).all()


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "pads", "count"),
    [
        (5, 3, 1, 1, (0, 0), 3),
        (5, 3, 2, 1, (0, 0), 2),
        (6, 3, 2, 1, (0, 0), 2),  # the last element is under no window
        (5, 3, 1, 2, (0, 0), 1),
        (4, 3, 1, 2, (0, 0), 0),
        (1, 3, 7, 2, (0, 0), 0),  # far too large is not negative by much
        (4, 3, 1, 2, (1, 0), 1),
        (4, 3, 3, 1, (2, 3), 3),
        (1, 1, 9, 9, (0, 0), 1),
    ],
)
def test_positions(size: int, kernel: int, stride: int, dilation: int, pads: tuple, count: int) -> None:
    windows = Windows(kernel=(kernel,), strides=(stride,), dilations=(dilation,), pads=(pads,))
    assert windows.positions((size,)) == (count,)


def test_every_list_has_an_entry_an_axis() -> None:
    assert Windows(**SQUARE).fits
    for name, value in SQUARE.items():
        for other in (value[:1], value * 2):
            assert not Windows(**SQUARE | {name: other}).fits


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": ()},
        {"kernel": (1,) * 9},
        {"kernel": (0, 2)},
        {"kernel": ((1 << 16) + 1, 2)},
        {"strides": (0, 1)},
        {"strides": (-1, 1)},
        {"dilations": (0, 1)},
        {"pads": ((-1, 0), (0, 0))},
        {"pads": ((0, (1 << 16) + 1), (0, 0))},
        {"pads": ((0,), (0, 0))},
        {"groups": 0},
        {"extra": 1},
    ],
)
def test_what_no_geometry_has_is_refused(change: dict) -> None:
    with pytest.raises(ValidationError):
        Windows(**SQUARE | change)
