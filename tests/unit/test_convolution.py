"""Convolutions over F_p against Python's integers: by patches, and by tiles."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mpc import convolution
from mpc import field as fp
from mpc.convolution import Filters, convolve
from mpc.field import P
from mpc.windows import Windows
from tests.support import naive
from tests.support.bilinear_cases import geometries
from tests.support.effort import FULL, examples
from tests.support.elements import KINDS, adversarial


@pytest.fixture(autouse=True, scope="module", params=[8, 0], ids=["elements", "limbs"])
def few(request: pytest.FixtureRequest) -> Iterator[None]:
    """Few filters are multiplied with whole elements, many by limbs; here every one is, once so and once so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, "FEW_FILTERS", request.param)
        yield


def plane(kernel: tuple, groups: int = 1, stride: int = 1, pads: tuple = (0, 0)) -> Windows:
    axes = len(kernel)
    return Windows(kernel=kernel, strides=(stride,) * axes, dilations=(1,) * axes, pads=(pads,) * axes, groups=groups)


def convolved(x: np.ndarray, filters: np.ndarray, windows: Windows, offset: np.ndarray | int = 0) -> np.ndarray:
    return (naive.convolution(x, filters, windows) + offset) % P


@examples(200 if FULL else 40)
@given(geometries(), st.integers(1, 3), st.integers(1, 3), st.integers(0, 1 << 30), st.sampled_from(KINDS))
def test_convolutions_of_any_small_shape(geometry: tuple, groups: int, images: int, seed: int, kind: str) -> None:
    windows, sizes = geometry
    windows, rng = windows.model_copy(update={"groups": groups}), np.random.default_rng(seed)
    x = adversarial(kind, (images, groups * 2, *sizes), rng)
    filters = adversarial(kind, (groups * 2, 2, *windows.kernel), rng)
    found = convolve(x, Filters(filters, windows))
    assert found.dtype == np.uint64 and (found.astype(object) == convolved(x, filters, windows)).all()


@pytest.mark.parametrize("block", [1, 48 * 18 * 7, 48 * 18 * 16, 48 * 18 * 40, 12 << 20])
@pytest.mark.parametrize("kind", ["random", "p-1"])
def test_convolutions_are_the_same_in_blocks_of_any_size(
    kind: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One window at a time, parts of an image, single images, several, all."""
    monkeypatch.setattr(convolution, "BLOCK_BYTES", block)
    rng, windows = np.random.default_rng(8), plane((3, 3), groups=2, pads=(1, 0))
    x, filters = adversarial(kind, (5, 4, 5, 5), rng), adversarial(kind, (6, 2, 3, 3), rng)
    for shape in ((), (4,), (6, 1, 1), (1, 6, 4, 4), (5, 6, 4, 4), (5, 1, 1, 1), (4, 1)):
        offset = adversarial("edges", shape, rng)
        kept = offset.copy()
        found = convolve(x, Filters(filters, windows), offset)
        assert (found.astype(object) == convolved(x, filters, windows, offset.astype(object))).all(), shape
        assert (offset == kept).all()


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("inner", [512, 513, 3641])
def test_convolutions_are_exact_however_the_inner_dimension_is_split(inner: int, images: int) -> None:
    """Channels and kernel together are the inner dimension; largest limbs of one sign, as for matrices."""
    rng, windows = np.random.default_rng(inner), plane((2,), pads=(1, 0))
    for kind in ("p-1", "negative limbs", "extremes"):
        x, filters = adversarial(kind, (images, inner // 2 + 1, 3), rng), adversarial(kind, (2, inner // 2 + 1, 2), rng)
        offset = np.full((2, 1), P - 1, dtype=np.uint64)
        found = convolve(x, Filters(filters, windows), offset)
        assert (found.astype(object) == convolved(x, filters, windows, P - 1)).all(), kind


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_every_group_of_channels_has_its_own_filters(groups: int) -> None:
    rng, windows = np.random.default_rng(groups), plane((2, 2), groups=groups, stride=2)
    x, filters = adversarial("random", (2, 6, 4, 4), rng), adversarial("random", (6, 6 // groups, 2, 2), rng)
    found = convolve(x, Filters(filters, windows)).astype(object)
    assert (found == convolved(x, filters, windows)).all()
    for group in range(groups):  # each on its own
        part = slice(group * 6 // groups, (group + 1) * 6 // groups)
        alone = convolve(x[:, part], Filters(filters[part], plane((2, 2), stride=2)))
        assert (alone == found[:, part]).all()


def test_filters_are_split_once() -> None:
    filters = Filters(np.ones((12, 1, 3), dtype=np.uint64), plane((3,)))
    room = fp.Room()
    for images in (1, 4):
        x = np.full((images, 1, 5), P - 1, dtype=np.uint64)
        filters.lay_out(x.shape, room)
        assert (convolve(x, filters) == P - 3).all()
    assert filters.kept is not None and room.left == fp.KEPT_BYTES - filters.kept.nbytes
    assert "Filters" in repr(filters) and "values" not in repr(filters)


@pytest.mark.parametrize("groups", [1, 2])
def test_large_filters_are_split_some_at_a_time(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, windows = np.random.default_rng(groups), plane((2, 3), groups=groups)
    x, filters = adversarial("random", (3, 4, 5, 6), rng), adversarial("extremes", (40, 4 // groups, 2, 3), rng)
    offset = adversarial("edges", (40, 1, 1), rng)
    kept = Filters(filters, windows)
    kept.lay_out(x.shape, fp.Room())
    expected = convolve(x, kept, offset)
    monkeypatch.setattr(fp, "LIMB_BYTES", 48 * 24 * 11)
    large = Filters(filters, windows)
    large.lay_out(x.shape, fp.Room(0))
    assert kept.kept is not None and large.kept is None
    assert len(list(large.parts())) == (4 if groups == 1 else 1)
    assert (convolve(x, large, offset) == expected).all()


def test_any_layout_of_an_image_is_read_in_its_own_order() -> None:
    rng, windows = np.random.default_rng(9), plane((2, 2))
    filters = adversarial("random", (2, 3, 2, 2), rng)
    base = adversarial("random", (2, 3, 6, 6), rng)
    frozen = base.copy()
    frozen.flags.writeable = False
    for x in (base.swapaxes(2, 3), base[:, :, ::2, ::-1], frozen, np.broadcast_to(base[:1], base.shape)):
        assert (convolve(x, Filters(filters, windows)).astype(object) == convolved(x, filters, windows)).all()


# ------------------------------------------------------------------ tiles


@pytest.fixture
def always_by_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few channels and tiles there are."""
    monkeypatch.setattr(convolution, "FEWEST_TILES", 1)
    monkeypatch.setattr(convolution, "FEWEST_FILTERS", 1)


@pytest.mark.usefixtures("always_by_tiles")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kernel", [(3, 3), (4, 4), (5, 5), (6, 6), (3, 5), (6, 4)])
def test_tiles_are_exact(kind: str, kernel: tuple[int, int]) -> None:
    rng = np.random.default_rng(kernel)
    windows = plane(kernel, pads=(1, 2))
    for channels in (3, 6):  # one by one, and by BLAS
        _check_tiles(kind, windows, channels, rng)


def _check_tiles(kind: str, windows: Windows, channels: int, rng: np.random.Generator) -> None:
    x = adversarial(kind, (2, channels, 9, 12), rng)
    filters = Filters(adversarial(kind, (4, channels, *windows.kernel), rng), windows)
    assert filters.tiles(x.shape) is not None
    sums = naive.convolution(x, filters.values, windows)  # in Python's integers, which takes nearly all of the time
    for shape in ((), (4, 1, 1), (2, 4, *windows.positions((9, 12)))):
        offset = adversarial("edges", shape, rng)
        found = convolve(x, filters, offset)
        assert (found.astype(object) == (sums + offset.astype(object)) % P).all()


@pytest.mark.usefixtures("always_by_tiles")
@examples(60 if FULL else 12)
@given(
    st.tuples(st.integers(3, 6), st.integers(3, 6)),
    st.tuples(st.integers(6, 20), st.integers(6, 20)),
    st.tuples(*[st.integers(0, 3)] * 4),
    st.integers(1, 3),
    st.integers(0, 1 << 30),
)
def test_tiles_and_patches_agree(kernel: tuple, sizes: tuple, pads: tuple, images: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    windows = Windows(kernel=kernel, strides=(1, 1), dilations=(1, 1), pads=(pads[:2], pads[2:]))
    x = adversarial("random", (images, 2, *sizes), rng)
    filters = Filters(adversarial("random", (3, 2, *kernel), rng), windows)
    assume(filters.tiles(x.shape) is not None)
    assert (convolve(x, filters).astype(object) == convolved(x, filters.values, windows)).all()


def test_tiles_serve_where_they_save_products() -> None:
    def chosen(shape: tuple, windows: Windows, filters: tuple) -> bool:
        return Filters(np.zeros(filters, dtype=np.uint64), windows).tiles(shape) is not None

    many, square = (64, 16, 12, 12), (16, 16, 5, 5)
    assert chosen(many, plane((5, 5)), square)
    assert not chosen((1, 16, 12, 12), plane((5, 5)), square)  # four tiles
    assert not chosen(many, plane((5, 5)), (2, 16, 5, 5))  # two filters
    assert not chosen(many, plane((5, 5), stride=2), square)
    assert not chosen(many, plane((5, 5), groups=2), (16, 8, 5, 5))
    assert not chosen(many, plane((2, 2)), (16, 16, 2, 2))
    assert not chosen((64, 16, 5, 5), plane((5, 5)), square)  # one result a tile


@pytest.mark.parametrize("block", [1, 1 << 15, 1 << 21])
@pytest.mark.usefixtures("always_by_tiles")
def test_tiles_of_a_few_images_at_a_time(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "POINT_BYTES", block)
    rng, windows = np.random.default_rng(block), plane((3, 3))
    x, filters = adversarial("random", (7, 3, 9, 9), rng), adversarial("random", (2, 3, 3, 3), rng)
    assert prod(windows.positions((9, 9))) == 49
    assert (convolve(x, Filters(filters, windows)).astype(object) == convolved(x, filters, windows)).all()
