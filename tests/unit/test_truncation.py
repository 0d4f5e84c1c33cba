"""The exact truncation: its algebra exhaustively at small Mersenne primes, the module at the real one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import truncation
from mpc.field import BITS, P
from tests.support.case import edgy
from tests.support.effort import examples

# ------------------------------------------------------------------ the algebra, at p = 2^L - 1


def truncate_at(length: int, x: np.ndarray, r: np.ndarray, k: int, f: int) -> tuple[np.ndarray, np.ndarray]:
    """(y, c) by the formula of protocols.md section 3, with its public and its dealt wrap bit."""
    p = (1 << length) - 1
    c = (x + (1 << k) + r) % p
    wrap = (c < 1 << (k + 1)) & (r >= 1 << (length - 1))
    assert (wrap == (x + (1 << k) + r >= p)).all()  # w = pub m, exactly
    return (c >> f) - (r >> f) + (wrap.astype(np.int64) << (length - f)) - (1 << (k - f)), c


def every(length: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """All |x| < 2^k, a column, against all r in F_p, a row."""
    return np.arange(1 - (1 << k), 1 << k)[:, None], np.arange((1 << length) - 1)[None, :]


def check_exhaustively(length: int, k: int, f: int, step: int = 1) -> None:
    x, r = every(length, k)
    x = x[::step]
    y, _ = truncate_at(length, x, r, k, f)
    above = y - (x >> f)
    assert np.isin(above, (0, 1)).all()
    # unbiased: the mean over r is x / 2^f, up to what the wrap's +1 and the missing residue p can do
    bias = y.mean(axis=1) - x[:, 0] / (1 << f)
    assert (np.abs(bias) <= 2.0 ** (k + 1 - length - f) + 2.0 ** (1 - length)).all()


@pytest.mark.parametrize("length", [3, 5, 7])
def test_the_formula_exhaustively_at_small_primes(length: int) -> None:
    for k in range(1, length - 1):  # k <= L - 2, as 59 is for 61
        for f in range(k + 1):
            check_exhaustively(length, k, f)


def test_the_largest_k_is_length_minus_two() -> None:
    """At k = L - 1 the public bit says nothing, and the formula is wrong: why MAX_BITS is 59."""
    with pytest.raises(AssertionError):
        check_exhaustively(7, 6, 3)


@pytest.mark.slow
@pytest.mark.parametrize("k", range(1, 12))
def test_the_formula_for_every_mask_at_8191(k: int) -> None:
    for f in range(k + 1):
        check_exhaustively(13, k, f, step=max(1, (1 << k) // 100))


@pytest.mark.parametrize("length", [5, 7])
def test_what_is_opened_is_uniform_whatever_x(length: int) -> None:
    for k in range(1, length - 1):
        x, r = every(length, k)
        _, c = truncate_at(length, x, r, k, 0)
        assert (np.sort(c, axis=1) == r).all()


# ------------------------------------------------------------------ the module, at 2^61 - 1

K_AND_F = [(k, f) for k in (1, 2, 16, 30, 47, 58, 59) for f in sorted({0, 1, 10, 16, k - 1, k}) if f <= k]


def edge_masks(k: int) -> list[int]:
    near = (0, 1 << 60, P, P - (1 << k), P - (1 << k + 1), 1 << k, 1 << k + 1)
    return sorted({v + d for v in near for d in (-2, -1, 0, 1, 2) if 0 <= v + d < P})


def check_at_p(x: np.ndarray, r: np.ndarray, k: int, f: int) -> None:
    """The reference, and what the parties compute, against integers of any size."""
    public = ((x.astype(object) + r.astype(object)) % P).astype(np.uint64)
    y = truncation.reference(x, public, k, f)
    above = y.astype(object) - (x.astype(object) >> f)
    assert np.isin(above.astype(np.int64), (0, 1)).all()
    c = truncation.offset(public, k).astype(object)
    assert (c == (x.astype(object) + (1 << k) + r.astype(object)) % P).all()
    r1, m = truncation.mask_parts(r, f)
    assert (m.astype(object) == (r.astype(object) >= 1 << 60)).all() and (
        r1.astype(object) == r.astype(object) >> f
    ).all()
    wrap = (c < 1 << (k + 1)) * m.astype(object)
    assert (wrap == (x.astype(object) + (1 << k) + r.astype(object) >= P)).all()
    by_parties = (c >> f) - r1.astype(object) + (wrap << (BITS - f)) - (1 << (k - f))
    assert (y == by_parties).all()


@pytest.mark.parametrize(("k", "f"), K_AND_F)
def test_edges_at_the_real_prime(k: int, f: int) -> None:
    r = np.array(edge_masks(k), dtype=np.uint64)
    limit = (1 << k) - 1
    near = {0, 1, limit, limit - 1, (1 << f) - 1, 1 << f, (1 << f) + 1, limit - (1 << f), limit + 1 - (1 << f)}
    x = np.array(sorted({s * v for v in near for s in (1, -1) if 0 <= v <= limit}), dtype=np.int64)
    check_at_p(np.repeat(x, r.size), np.tile(r, x.size), k, f)


@examples(60)
@given(st.integers(1, 59), st.integers(0, 59), st.integers(0, 1 << 30))
def test_random_values_at_the_real_prime(k: int, f: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    f = min(f, k)
    x = edgy(rng, (200,), (1 << k) - 1, 1 << f)
    r = np.where(rng.random(200) < 0.3, rng.choice(edge_masks(k), 200), rng.integers(0, P, 200)).astype(np.uint64)
    check_at_p(x, r, k, f)


@pytest.mark.parametrize(("k", "f"), [(20, 16), (40, 16), (59, 16), (59, 8), (30, 30)])
def test_rounding_is_unbiased(k: int, f: int) -> None:
    """Over many coins the mean of y is x / 2^f: five deviations and the exact bias of the formula."""
    rng = np.random.default_rng([k, f])
    count = 100_000
    for x in (0, 1, -1, (1 << f - 1) + 3, -(1 << f - 1) - 5, (1 << k) - 1, 1 - (1 << k), 12345 % (1 << k)):
        public = rng.integers(0, P, count, dtype=np.uint64)
        y = truncation.reference(np.full(count, x), public, k, f)
        part = (x % (1 << f)) / (1 << f)
        mean = (y - (x >> f)).mean()
        assert abs(mean - part) <= 5 * np.sqrt(part * (1 - part) / count) + 2.0 ** (k + 1 - BITS - f) + 1e-4


def test_the_coin_decides() -> None:
    """The same x rounds both ways, and the same x and coin always the same way."""
    x = np.full(1000, 1 << 15)
    public = np.random.default_rng(0).integers(0, P, 1000, dtype=np.uint64)
    y = truncation.reference(x, public, 30, 16)
    assert set(y.tolist()) == {0, 1}
    assert (y == truncation.reference(x, public, 30, 16)).all()


def test_arguments_stay_as_they_are() -> None:
    x, public = np.array([-5, 5]), np.array([0, P - 1], dtype=np.uint64)
    truncation.reference(x, public, 8, 2)
    assert x.tolist() == [-5, 5] and public.tolist() == [0, P - 1]


@pytest.mark.parametrize("by", [0, 1, -1, 1 << 59, -(1 << 59), P - 1, 1 - P])
def test_what_is_opened_moves_modulo_p(by: int) -> None:
    public = np.array([0, 1, 2, P // 2, P - 2, P - 1], dtype=np.uint64)
    expected = [(int(each) + by) % P for each in public]
    assert truncation.moved(public, by).tolist() == expected
    assert truncation.moved(public, np.full(public.shape, by)).tolist() == expected
    assert truncation.moved(public[1], by) == expected[1]
