"""Polynomials over GF(2) in words: products, by the processor and by integers, and the field of 2^64 elements."""

from __future__ import annotations

from functools import reduce
from operator import xor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit, types
from numba.core.errors import TypingError

from mpc import kernels
from mpc.comparison import Comparison
from mpc.encoding import view_words
from mpc.kernels.carryless import (
    dot_by_integers,
    dot_carryless,
    multiply_by_integers,
    multiply_carryless,
    reduce_carryless,
)
from mpc.tags import BitTags, LeafTags, SparseTags, WordCoins
from tests.support.constant_time import branches_for_selects, compiled, leaks

WORDS = st.integers(0, (1 << 64) - 1)
MODULUS = (1 << 64) | 0b11011


def product(a: int, b: int) -> int:
    """Long multiplication without carries."""
    return reduce(xor, [a << place for place in range(64) if b >> place & 1], 0)


def remainder(value: int) -> int:
    """Long division by the modulus."""
    while value.bit_length() > 64:
        value ^= MODULUS << (value.bit_length() - 65)
    return value


@njit
def by_processor(a: np.uint64, b: np.uint64) -> tuple[np.uint64, np.uint64]:
    return multiply_carryless(a, b)


@njit
def reduced(high: np.uint64, middle: np.uint64, low: np.uint64) -> np.uint64:
    return reduce_carryless(high, middle, low)


@njit
def dot_by_processor(a: np.ndarray, b: np.ndarray) -> tuple[np.uint64, np.uint64]:
    return dot_carryless(a, b)


inlined = njit(inline="always")(multiply_by_integers.py_func)


@njit
def by_integers(secret: np.ndarray, out: np.ndarray) -> None:
    for i in range(secret.size):
        out[i], _ = inlined(secret[i], secret[i] + np.uint64(1))


@given(a=WORDS, b=WORDS)
def test_products_are_those_of_polynomials(a: int, b: int) -> None:
    for multiply in (by_processor, multiply_by_integers):
        high, low = multiply(np.uint64(a), np.uint64(b))
        assert (int(high) << 64) | int(low) == product(a, b)


@given(words=st.lists(st.tuples(WORDS, WORDS), max_size=9))
def test_sums_of_products_are_those_of_polynomials(words: list[tuple[int, int]]) -> None:
    a, b = (np.array([word[side] for word in words], dtype=np.uint64) for side in (0, 1))
    for dot in (dot_by_processor, dot_by_integers):
        high, low = dot(a, b)
        assert (int(high) << 64) | int(low) == reduce(xor, [product(*word) for word in words], 0)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("kind", ["steps", "rows", "signed"])
def test_a_dot_product_compiles_for_contiguous_words_alone(kind: str, which: int) -> None:
    """Words of a column were read as if they lay beside each other."""
    table = np.arange(12, dtype=np.uint64).reshape(3, 4)
    operands = [table[0, :3].copy()] * 2
    operands[which] = {"steps": table[:, 1], "rows": table, "signed": np.arange(3)}[kind]
    with pytest.raises(TypingError, match="contiguous"):
        dot_by_processor(*operands)


@given(high=WORDS, middle=WORDS, low=WORDS)
def test_what_is_reduced_is_the_remainder(high: int, middle: int, low: int) -> None:
    found = int(reduced(np.uint64(high), np.uint64(middle), np.uint64(low)))
    assert found == remainder((high << 128) | (middle << 64) | low)


def test_the_modulus_is_irreducible() -> None:
    """Rabin's test: X^(2^64) = X, and X^(2^32) - X has no factor in common with it."""
    powers = [2]
    for _ in range(64):
        powers.append(remainder(product(powers[-1], powers[-1])))
    assert powers[64] == 2
    a, b = MODULUS, powers[32] ^ 2
    while b:
        while a.bit_length() >= b.bit_length():
            a ^= b << (a.bit_length() - b.bit_length())
        a, b = b, a
    assert a == 1


@pytest.mark.parametrize("width", [1, 7, 9])
def test_words_are_folded_with_a_coin_of_the_element_and_one_of_the_place(width: int) -> None:
    rng = np.random.default_rng(width)
    count = 530  # more than are joined at one time
    words, rows, columns = (
        rng.integers(0, 1 << 64, shape, dtype=np.uint64) for shape in ((count, width), count, width)
    )
    opened, one = rng.integers(0, 1 << width, count, dtype=np.uint64), np.uint64(rng.integers(0, 1 << 63))
    expected = 5
    for element in range(count):
        for place in range(width):
            off = int(words[element, place]) ^ (int(one) if int(opened[element]) >> place & 1 else 0)
            expected ^= remainder(product(remainder(product(off, int(columns[place]))), int(rows[element])))
    sums = np.array([5], dtype=np.uint64)
    kernels.fold_words(view_words(words), opened, one, columns, rows, sums)
    assert int(sums[0]) == expected


@pytest.mark.parametrize("chunks", [1, 2, 4])
def test_leaf_words_are_folded_as_if_they_were_masked_first(chunks: int) -> None:
    rng = np.random.default_rng(chunks)
    comparison, count = Comparison(3 * chunks, chunks), 530
    words, places = (
        rng.integers(0, 1 << 64, (2 * chunks, count), dtype=np.uint64),
        rng.integers(-2, 2, (2 * chunks, count)),
    )
    under = rng.integers(0, 1 << 64, (count, 2 * chunks), dtype=np.uint64)
    opened, one = rng.integers(0, 2 << (2 * chunks - 2), count, dtype=np.uint64), np.uint64(rng.integers(1, 1 << 63))
    rows, columns = (rng.integers(0, 1 << 64, size, dtype=np.uint64) for size in (count, 2 * chunks - 1))
    coins = WordCoins(columns, lambda start, stop: rows[start:stop])
    masks = SparseTags((count,), 2 * chunks, None, lambda start, stop: under.reshape(-1)[start:stop], under.size)
    leaves = LeafTags(
        count,
        comparison,
        one,
        lambda start, stop: (
            *(np.ascontiguousarray(x[:, start:stop]) for x in (words, places)),
            view_words(under[start:stop]),
        ),
        masks,
    )
    sums, expected = (np.array([5], dtype=np.uint64) for _ in range(2))
    leaves.fold(opened, one, coins, sums)
    BitTags(leaves.values, leaves.width).fold(opened, one, coins, expected)
    assert sums[0] == expected[0] != 5
    chosen = comparison.selectors.words[0][opened][:, : 2 * chunks].astype(bool)
    selected = masks.take_selected()
    assert selected is not None and masks.take_selected() is None
    np.testing.assert_array_equal(selected, np.bitwise_xor.reduce(np.where(chosen, under, np.uint64(0)), axis=1))


def test_no_time_of_the_products_by_integers_depends_on_a_secret() -> None:
    array = types.Array(types.uint64, 1, "C")
    code = compiled(by_integers, (array, array))
    assert code.branches
    assert leaks(code, ("secret",)) == []
    assert branches_for_selects(code.machine) == []
