"""The integer sines: right, and the same for ever."""

from __future__ import annotations

import numpy as np
import pytest

from mpc import encoding, kernels, tables
from mpc import field as fp
from mpc.kernels import waves

UNIT = float(1 << tables.UNIT_BITS)
DIGEST = "d6b98e8f9e2987b75d326a1995dc9245ba53bdfe17e52bb613ab097925df8e93"


def test_the_table_is_right() -> None:
    steps = 1 << (tables.ANGLE_BITS // 2)
    coarse = 2 * np.pi * np.arange(steps) / steps
    fine = 2 * np.pi * (np.arange(steps) + 0.5) / (1 << tables.ANGLE_BITS)
    expected = np.array([np.cos(coarse), np.sin(coarse), np.cos(fine), np.sin(fine)])
    table = tables.sincos()
    assert table.shape == expected.shape and table.dtype == np.int64
    # correctly rounded, up to what numpy itself does not know; far below the 1e-8 that gates count on
    assert np.abs(table - expected * UNIT).max() < 0.5 + 1e-5
    assert np.abs(table / UNIT - expected).max() < 1e-8


def test_exact_points() -> None:
    cos, sin, *_ = tables.sincos()
    one = 1 << tables.UNIT_BITS
    assert (cos[[0, 1024, 2048, 3072]].tolist(), sin[[0, 1024, 2048, 3072]].tolist()) == (
        [one, 0, -one, 0],
        [0, one, 0, -one],
    )
    assert (cos[1:] == cos[1:][::-1]).all() and (sin[1:] == -sin[1:][::-1]).all()


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        tables.sincos()[0, 0] = 0


def test_the_digest_is_of_the_table_and_pinned() -> None:
    """Plans name this digest: another table is another protocol, and needs another version."""
    assert tables.sincos_digest() == DIGEST
    assert encoding.digest("mpc/v1/table/sincos", tables.sincos().astype("<i8").tobytes()).hex() == DIGEST


# ------------------------------------------------------------------ the kernels that read it


def edges(window: int) -> np.ndarray:
    rng = np.random.default_rng(window)
    top = (1 << 61) - 1
    near = [0, 1, 2, (1 << window) - 1, 1 << window, 1 << (window - 1), 1 << (window - 2), top - 1]
    return np.concatenate([np.array(near, dtype=np.uint64), rng.integers(0, top, 500, dtype=np.uint64)])


def true_waves(r: np.ndarray, window: int, terms: int) -> np.ndarray:
    turns = np.array([[(int(v) * j) % (1 << window) for v in r] for j in range(1, terms + 1)], dtype=np.float64)
    angles = turns * (2 * np.pi / (1 << window))
    return np.concatenate([np.cos(angles), np.sin(angles)])


ANGLE_ERROR = np.pi / (1 << tables.ANGLE_BITS) * 1.01  # half a step of the fine table


def elements(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, fp.P, shape, dtype=np.uint64)


@pytest.mark.parametrize("window", [8, 12, 23, 24, 25, 37, 56])
@pytest.mark.parametrize("drop", [0, 1, 12, 26])
def test_dealt_waves(window: int, drop: int) -> None:
    r, terms = edges(window), 5
    found = waves.harmonics(r, window, terms, drop)
    unit = UNIT / (1 << drop)
    assert np.abs(found / unit - true_waves(r, window, terms)).max() <= ANGLE_ERROR + 4 / UNIT + 0.5 / unit
    rng = np.random.default_rng(drop)
    others, beta = elements(rng, 2, 2 * terms, r.size), rng.integers(0, 2, r.size, dtype=np.uint64)
    share, chosen = others.copy()
    kernels.deal_waves(r, window, terms, drop, beta, share, chosen)
    assert (fp.add(share, others[0]) == fp.from_signed(found)).all()
    assert (fp.add(chosen, others[1]) == fp.from_signed(found * beta.astype(np.int64))).all()
    alone = others[0].copy()
    kernels.deal_waves(r, window, terms, drop, beta, alone, elements(rng, 0, r.size))
    assert (alone == share).all()


def coefficients(size: int, terms: int) -> np.ndarray:
    """(2, terms), of which the first are the largest that there are."""
    found = np.random.default_rng(size).integers(-size, size, (2, terms), endpoint=True)
    found[:, 0] = size, -size
    return found


@pytest.mark.parametrize("window", [8, 24, 37, 56])
@pytest.mark.parametrize("size", [1, 1000, (1 << 31) - 1])
def test_public_factors(window: int, size: int) -> None:
    c, terms = edges(window), 3
    cosines, sines = coefficients(size, terms)
    found = waves.turned_coefficients(c, window, cosines, sines, 0, tables.sincos())
    cos, sin = np.split(true_waves(c, window, terms), 2)
    a, b = cosines[:, None].astype(float), sines[:, None].astype(float)
    expected = np.concatenate([a * cos + b * sin, a * sin - b * cos])
    assert np.abs(found - expected).max() <= 0.5 + 2 * size * (ANGLE_ERROR + 4 / UNIT) + 1e-6


@pytest.mark.parametrize("window", [8, 24, 37, 56])
@pytest.mark.parametrize(("size", "terms", "fine"), [(1, 3, 0), (1000, 3, 6), ((1 << 31) - 1, 256, 0)])
def test_a_series_of_shares(window: int, size: int, terms: int, fine: int) -> None:
    """The loop adds what numpy's factors times field elements are, for as many elements as do not fill a block."""
    rng = np.random.default_rng(window)
    c = np.concatenate([edges(window), elements(rng, 300)])
    cosines, sines = coefficients(size, terms)
    factors = waves.turned_coefficients(c, window, cosines, sines, fine, tables.sincos())
    shares, flips = elements(rng, 2, 2 * terms, c.size), rng.integers(0, 2, c.size, dtype=np.uint8)
    shares[0, :, :2] = fp.P - 1
    start, out = elements(rng, c.size), np.empty(c.size, dtype=np.uint64)
    for chosen, taken in (
        (shares[1], np.where(flips == 1, shares[1], fp.sub(*shares))),
        (shares[1, :0], shares[0]),
    ):
        out[:] = start
        kernels.add_series(c, window, cosines, sines, fine, tables.sincos(), flips, shares[0], chosen, out)
        assert (out == fp.add(start, fp.total(fp.mul(fp.from_signed(factors), taken)))).all()
