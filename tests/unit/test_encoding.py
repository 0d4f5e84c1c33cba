"""Canonical bytes: what is decoded was encoded so, and nothing else is accepted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import encoding
from mpc.errors import EncodingError
from mpc.field import P
from tests.support import crypto
from tests.support.effort import examples

array_shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
parts = st.one_of(st.binary(max_size=12), st.text(max_size=6), st.integers(0, (1 << 64) - 1))


# ------------------------------------------------------------------ field elements


@examples(50)
@given(array_shapes, st.integers(0, 1 << 30))
def test_field_round_trip(shape: tuple[int, ...], seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, P, size=shape, dtype=np.uint64)
    data = encoding.encode_field(values)
    assert len(data) == encoding.field_size(shape) == 8 * values.size
    decoded = encoding.decode_field(data, shape)
    assert decoded.shape == shape and decoded.dtype == np.uint64 and (decoded == values).all()


def test_field_elements_are_little_endian() -> None:
    assert encoding.encode_field(np.array([1, P - 1], dtype=np.uint64)).hex() == "0100000000000000feffffffffffff1f"


def test_any_layout_is_encoded_row_by_row() -> None:
    values = np.arange(6, dtype=np.uint64).reshape(2, 3)
    assert encoding.encode_field(values.T) == encoding.encode_field(np.ascontiguousarray(values.T))
    assert encoding.encode_field(values[:, ::2]) == encoding.encode_field(np.array([0, 2, 3, 5], dtype=np.uint64))


@pytest.mark.parametrize("bad", [P, P + 1, 1 << 61, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("position", [0, 2, 4])
def test_an_element_not_below_p_is_rejected(bad: int, position: int) -> None:
    words = [0, P - 1, 1, 2, 3]
    words[position] = bad
    data = b"".join(word.to_bytes(8, "little") for word in words)
    with pytest.raises(EncodingError):
        encoding.decode_field(data, (5,))


def test_zero_and_the_largest_element_are_accepted() -> None:
    data = (0).to_bytes(8, "little") + (P - 1).to_bytes(8, "little")
    assert encoding.decode_field(data, (2,)).tolist() == [0, P - 1]


@pytest.mark.parametrize("size", [0, 1, 7, 15, 17, 23, 24, 1 << 16])
def test_field_bytes_of_a_wrong_length_are_rejected(size: int) -> None:
    with pytest.raises(EncodingError, match=f"{size} bytes where 16 belong"):
        encoding.decode_field(bytes(size), (2,))


def test_bytes_where_nothing_belongs_are_rejected() -> None:
    assert encoding.decode_field(b"", (0, 3)).shape == (0, 3)
    assert encoding.decode_bits(b"", (0,), 1).shape == (0,)
    for decode in (lambda: encoding.decode_field(b"\0", (0,)), lambda: encoding.decode_bits(b"\0", (0,), 1)):
        with pytest.raises(EncodingError):
            decode()


def test_a_huge_declared_shape_is_refused_by_length_alone() -> None:
    for decode in (
        lambda: encoding.decode_field(bytes(8), (1 << 40, 1 << 40)),
        lambda: encoding.decode_bits(bytes(8), (1 << 40, 1 << 40), 1),
        lambda: encoding.decode_bits(bytes(8), (1 << 40, 1 << 40), 7),
    ):
        with pytest.raises(EncodingError):
            decode()


# ------------------------------------------------------------------ bits and words


def random_words(shape: Sequence[int], width: int, seed: int) -> np.ndarray:
    kind = encoding.word_type(width)
    top = (1 << width) - 1
    return np.random.default_rng(seed).integers(0, top, size=tuple(shape), dtype=kind, endpoint=True)


@examples(80)
@given(array_shapes, st.integers(1, 64), st.integers(0, 1 << 30))
def test_words_round_trip(shape: tuple[int, ...], width: int, seed: int) -> None:
    values = random_words(shape, width, seed)
    data = encoding.encode_bits(values, width)
    assert len(data) == encoding.bits_size(shape, width)
    decoded = encoding.decode_bits(data, shape, width)
    assert decoded.shape == shape and (decoded == values).all()


def test_single_bits_are_packed_lowest_first() -> None:
    bits = np.array([1, 0, 0, 0, 0, 0, 1, 0, 1], dtype=np.uint8)
    assert encoding.encode_bits(bits, 1) == bytes([0b01000001, 0b1])


@pytest.mark.parametrize("count", range(1, 17))
def test_padding_bits_have_to_be_zero(count: int) -> None:
    size = encoding.bits_size((count,), 1)
    for bit in range(8 * size):
        data = bytearray(size)
        data[bit // 8] |= 1 << (bit % 8)
        if bit < count:
            assert np.flatnonzero(encoding.decode_bits(bytes(data), (count,), 1)).tolist() == [bit]
        else:
            with pytest.raises(EncodingError, match="padding"):
                encoding.decode_bits(bytes(data), (count,), 1)


@pytest.mark.parametrize("width", [w for w in range(2, 65) if w not in (8, 16, 32, 64)])
def test_a_word_with_more_bits_than_its_width_is_rejected(width: int) -> None:
    size = encoding.word_type(width).itemsize
    fits, overflows = ((1 << width) - 1).to_bytes(size, "little"), (1 << width).to_bytes(size, "little")
    assert encoding.decode_bits(fits * 3, (3,), width).tolist() == [(1 << width) - 1] * 3
    for data in (overflows + fits * 2, fits * 2 + overflows, b"\xff" * (3 * size)):
        with pytest.raises(EncodingError, match=f"more than {width} bits"):
            encoding.decode_bits(data, (3,), width)


@pytest.mark.parametrize("width", [1, 2, 8, 9, 16, 17, 33, 64])
def test_words_of_a_wrong_length_are_rejected(width: int) -> None:
    right = encoding.bits_size((9,), width)
    for size in (0, right - 1, right + 1, 2 * right, 10 * right):
        with pytest.raises(EncodingError, match=f"{size} bytes where {right} belong"):
            encoding.decode_bits(bytes(size), (9,), width)


@pytest.mark.parametrize(("width", "size"), [(1, 1), (8, 1), (9, 2), (16, 2), (17, 4), (32, 4), (33, 8), (64, 8)])
def test_words_take_the_smallest_type(width: int, size: int) -> None:
    assert encoding.word_type(width).itemsize == size


def test_there_is_no_word_of_65_bits() -> None:
    with pytest.raises(ValueError):
        encoding.word_type(65)


@pytest.mark.parametrize("source", [bytes, bytearray, memoryview])
def test_decoded_arrays_cannot_be_written(source: type) -> None:
    for decoded in (
        encoding.decode_field(source(bytes(16)), (2,)),
        encoding.decode_bits(source(bytes(1)), (8,), 1),
        encoding.decode_bits(source(bytes(8)), (8,), 7),
    ):
        with pytest.raises(ValueError, match="read-only"):
            decoded[0] = 1


# ------------------------------------------------------------------ canonical


@examples(200)
@given(st.lists(parts, max_size=5), st.lists(parts, max_size=5))
def test_canonical_is_injective(first: list, second: list) -> None:
    same = [(type(p), p) for p in first] == [(type(p), p) for p in second]
    assert (encoding.canonical(*first) == encoding.canonical(*second)) == same


def parse(data: bytes) -> list:
    """The parts that `canonical` encoded: that they can be read back is why it is injective."""
    found, position = [], 0
    while position < len(data):
        tag, size = data[position : position + 1], int.from_bytes(data[position + 1 : position + 9], "big")
        body = data[position + 9 : position + 9 + size]
        assert len(body) == size
        found.append({b"i": lambda b: int.from_bytes(b, "big"), b"s": bytes.decode, b"b": bytes}[tag](body))
        position += 9 + size
    return found


@examples(100)
@given(st.lists(parts, max_size=6))
def test_canonical_can_be_read_back(values: list) -> None:
    data = encoding.canonical(*values)
    assert parse(data) == values
    assert data == crypto.canonical(*values)


def test_what_looks_alike_is_told_apart() -> None:
    alike = [
        ("a", "b"), ("ab",), ("ab", ""), ("", "ab"), (b"ab",), (b"a", b"b"), (b"ab", b""), ("a", b"b"),
        (1,), ("1",), (b"1",), (1, 0), (0, 1), ((1).to_bytes(8, "big"),), (), ("",), (b"",), (0,),
        (encoding.canonical("a"),), ("a", encoding.canonical("b")),
    ]  # fmt: skip
    assert len({encoding.canonical(*values) for values in alike}) == len(alike)


@pytest.mark.parametrize("bad", [-1, 1 << 64])
def test_integers_outside_eight_bytes_have_no_encoding(bad: int) -> None:
    with pytest.raises(OverflowError):
        encoding.canonical(bad)


def test_digest_is_sha256_under_a_tag() -> None:
    assert encoding.digest("t", 1, b"x") == hashlib.sha256(crypto.canonical("t", 1, b"x")).digest()
    assert encoding.digest("t", "x") != encoding.digest("tx")


@pytest.mark.parametrize("start", [0, 3])
def test_a_view_of_words_has_one_kind_wherever_they_lie(start: int) -> None:
    data = bytes(range(80))
    words = np.frombuffer(memoryview(data)[start : start + 64], dtype="<u8")
    view = encoding.view_words(words)
    assert (view == words).all() and np.shares_memory(view, words)
    assert not view.flags.aligned and not view.flags.writeable
    own = np.arange(3, dtype=np.uint64)
    assert not encoding.view_words(own).flags.writeable and own.flags.writeable
