"""Expansion against an AES and an HMAC written from their standards, rejection forced, no draw twice."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from mpc import prg
from mpc.encoding import word_type
from mpc.errors import EntropyError, ReuseError
from mpc.field import P
from mpc.prg import Draws, Seed, WordStream, expand_field, expand_words
from tests.support import crypto
from tests.support.effort import examples
from tests.support.statistics import assert_uniform_field, assert_uniform_words

SEED = Seed(bytes(range(32)))
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "prg.json").read_text())
parts = st.one_of(st.binary(max_size=9), st.text(max_size=5), st.integers(0, (1 << 64) - 1))
contexts = st.lists(parts, max_size=4)


# ------------------------------------------------------------------ the independent implementation


def test_draws_are_derived_from_the_whole_context() -> None:
    draws = Draws(Seed(bytes(32)), "bundle", b"session", 7)
    assert draws.sub_seed("gate", "value", "alice") == Seed(bytes(32)).derive(
        "bundle", b"session", 7, "gate", "value", "alice"
    )


def test_the_tests_own_aes_is_aes() -> None:
    """FIPS 197, appendix C.3; SP 800-38A, F.1.5."""
    key, block = bytes(range(32)), bytes.fromhex("00112233445566778899aabbccddeeff")
    assert crypto.aes256(key, block).hex() == "8ea2b7ca516745bfeafc49904b496089"
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    block = bytes.fromhex("6bc1bee22e409f96e93d7e117393172a")
    assert crypto.aes256(key, block).hex() == "f3eed1bdb5d2a03c064b5a7e3db181f8"


@pytest.mark.parametrize(
    ("key", "message"),
    [(b"\x0b" * 20, b"Hi There"), (b"Jefe", b"what do ya want for nothing?"), (b"\xaa" * 131, b"larger than a block")],
)
def test_the_tests_own_hmac_is_hmac(key: bytes, message: bytes) -> None:
    assert crypto.hmac_sha256(key, message) == hmac.digest(key, message, "sha256")


# ------------------------------------------------------------------ seeds


@examples(60)
@given(st.binary(min_size=32, max_size=32), contexts)
def test_derive_is_hmac_of_the_context(secret: bytes, context: list) -> None:
    assert Seed(secret).derive(*context).secret == crypto.derive(secret, *context)


@examples(150)
@given(contexts, contexts)
def test_no_two_contexts_share_a_seed(first: list, second: list) -> None:
    same = [(type(p), p) for p in first] == [(type(p), p) for p in second]
    assert (SEED.derive(*first) == SEED.derive(*second)) == same


def test_contexts_that_look_alike_do_not_collide() -> None:
    alike = [(), ("",), (b"",), ("a", "b"), ("ab",), ("a", b"b"), ("1",), (1,), (b"1",), ("a/b",), (1, 1), (11,)]
    assert len({SEED.derive(*context).secret for context in alike}) == len(alike)
    assert SEED.derive("a", "b") != SEED.derive("a").derive("b")


def test_commitment_is_a_hash_under_its_own_tag() -> None:
    expected = hashlib.sha256(crypto.canonical("mpc/v1/seed-commitment", SEED.secret)).digest()
    assert SEED.commitment() == expected != SEED.derive("seed-commitment").secret


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_seed_has_32_bytes(size: int) -> None:
    with pytest.raises(EntropyError):
        Seed(bytes(size))


def test_a_seed_shows_nothing() -> None:
    secret = bytes(range(65, 97))
    shown = repr(Seed(secret)) + str(Seed(secret)) + f"{Seed(secret)}"
    assert secret.decode() not in shown and secret.hex() not in shown and str(secret) not in shown


# ------------------------------------------------------------------ expansion


def words_of(data: bytes) -> list[int]:
    return [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8)]


@pytest.mark.parametrize("shape", [(), (1,), (2,), (3, 5), (2, 3, 4)])
@pytest.mark.parametrize("number", [0, 1])
def test_field_elements_are_61_bits_of_the_key_stream(shape: tuple[int, ...], number: int) -> None:
    seed = Seed(hashlib.sha256(bytes([number])).digest())
    values = expand_field(seed, shape)
    assert values.shape == shape and values.dtype == np.uint64
    stream = crypto.keystream(seed.secret, "field", 8 * values.size)
    assert values.reshape(-1).tolist() == [word & P for word in words_of(stream)]


@pytest.mark.parametrize("width", [1, 2, 7, 8, 9, 15, 16, 17, 32, 33, 61, 64])
@pytest.mark.parametrize("count", [1, 3, 17])
def test_words_are_the_low_bits_of_the_key_stream(width: int, count: int) -> None:
    kind = word_type(width)
    values = expand_words(SEED, (count,), width)
    assert values.dtype == kind and values.shape == (count,)
    stream = crypto.keystream(SEED.secret, f"words/{width}", count * kind.itemsize)
    size = kind.itemsize
    chunks = [int.from_bytes(stream[i : i + size], "little") for i in range(0, len(stream), size)]
    assert values.tolist() == [word & ((1 << width) - 1) for word in chunks]


def test_the_stream_goes_on_across_internal_buffers() -> None:
    """Around 1 MiB, where the implementation starts another piece, and at the end."""
    count = 2 * (1 << 17) + 5
    values = expand_field(SEED, (count,))
    for start in (0, (1 << 17) - 3, (1 << 18) - 3, count - 4):
        stream = crypto.keystream(SEED.secret, "field", 8 * 4, skip=8 * start)
        assert values[start : start + 4].tolist() == [word & P for word in words_of(stream)]


@pytest.mark.parametrize(
    "size", [prg.GCM_FROM - 8, prg.GCM_FROM, (1 << 18) + 24, (1 << 18) + 40, (1 << 19) + 32, 600_008]
)
def test_both_ways_to_encrypt_make_the_same_stream(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the processor has wide registers for AES decides how it is made, and nothing else."""
    made: dict[bool, list[str]] = {}
    asked: list[str] = []
    monkeypatch.setattr(prg, "Cipher", lambda key, mode: (asked.append(mode.name), Cipher(key, mode))[1])
    for wide in (False, True):
        monkeypatch.setattr(prg.processor, "has_wide_aes", lambda wide=wide: wide)
        values = [expand_field(SEED, (size // 8,)), *(expand_words(SEED, (size,), width) for width in (1, 7, 8))]
        made[wide] = [hashlib.sha256(each).hexdigest() for each in values]
        assert ("GCM" in asked) == (wide and size >= prg.GCM_FROM)
    assert made[True] == made[False]


def test_a_longer_expansion_starts_with_the_shorter() -> None:
    assert (expand_field(SEED, (100,))[:7] == expand_field(SEED, (7,))).all()


def test_nothing_is_expanded_to_nothing() -> None:
    assert expand_field(SEED, (0, 4)).shape == (0, 4)
    assert expand_words(SEED, (3, 0), 8).shape == (3, 0)


def test_expansions_are_writable_and_fresh() -> None:
    first = expand_field(SEED, (4,))
    first[:] = 0
    assert expand_field(SEED, (4,)).all()


def test_kinds_and_widths_have_streams_of_their_own() -> None:
    streams = [expand_field(SEED, (64,)) & np.uint64(0xFF)]
    streams += [expand_words(SEED, (64,), width) & np.uint64(0xFF) for width in (8, 9, 16, 17, 32, 33, 64)]
    assert len({tuple(stream.tolist()) for stream in streams}) == len(streams)


@pytest.mark.parametrize("vector", VECTORS["field"] + VECTORS["words"])
def test_pinned_vectors(vector: dict) -> None:
    """Stored seeds have to mean the same masks for ever: data at rest is w + PRG(seed)."""
    seed = Seed(bytes.fromhex(vector["seed"])).derive(*vector["context"])
    shape = (len(vector["values"]),)
    values = expand_words(seed, shape, vector["width"]) if "width" in vector else expand_field(seed, shape)
    assert [str(v) for v in values.tolist()] == vector["values"]


def test_expansions_look_uniform() -> None:
    assert_uniform_field(expand_field(SEED, (20_000,)), "field")
    for width in (1, 7, 8, 15, 64):
        assert_uniform_words(expand_words(SEED, (20_000,), width), width, f"width {width}")


# ------------------------------------------------------------------ rejection


def redrawn(index: int, attempt: int = 0) -> int:
    return words_of(crypto.keystream(SEED.secret, f"field/redraw/{index}/{attempt}", 8))[0] & P


@pytest.mark.parametrize("top", range(8))
def test_p_is_redrawn_whatever_the_three_bits_above(top: int) -> None:
    words = np.array([5, (top << 61) | P, 7], dtype=np.uint64)
    assert prg.reject(words, SEED).tolist() == [5, redrawn(1), 7]


@pytest.mark.parametrize("position", range(4))
def test_p_alone_is_redrawn_at_any_position(position: int) -> None:
    words = np.arange(4, dtype=np.uint64)
    words[position] = P
    expected = [redrawn(i) if i == position else i for i in range(4)]
    assert prg.reject(words, SEED).tolist() == expected


def test_every_position_has_its_own_redraw_and_the_others_stay() -> None:
    words = np.arange(100, dtype=np.uint64)
    hit = [0, 1, 50, 99]
    words[hit] = P
    result = prg.reject(words, SEED)
    assert [int(result[i]) for i in hit] == [redrawn(i) for i in hit]
    assert len({redrawn(i) for i in hit}) == len(hit)
    assert (np.delete(result, hit) == np.delete(np.arange(100, dtype=np.uint64), hit)).all()


def replaced(monkeypatch: pytest.MonkeyPatch, kinds: dict[str, tuple[int, int] | None]) -> list[str]:
    """Have AES give another word at one place of these streams of SEED; which of them are asked for from now on."""
    keys, asked = {SEED.derive("aes", kind).secret: kind for kind in kinds}, []

    class Changed:
        def __init__(self, algorithm: algorithms.AES, mode: modes.CTR) -> None:
            self.kind, self.real = keys.get(bytes(algorithm.key)), Cipher(algorithm, mode).encryptor()
            if self.kind is not None:
                asked.append(self.kind)

        def encryptor(self) -> Changed:
            return self

        def update_into(self, zeros: memoryview, out: memoryview) -> int:
            written = self.real.update_into(zeros, out)
            change = kinds.get(self.kind)
            if change is not None:
                place, word = change
                out[8 * place : 8 * place + 8] = word.to_bytes(8, "little")
            return written

    monkeypatch.setattr(prg, "Cipher", Changed)
    return asked


def test_a_redraw_that_is_p_is_redrawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [f"field/redraw/2/{attempt}" for attempt in range(3)]
    asked = replaced(monkeypatch, dict.fromkeys(kinds[:2], (0, (3 << 61) | P)) | {kinds[2]: None})
    words = np.array([1, 2, P, 4], dtype=np.uint64)
    assert prg.reject(words, SEED).tolist() == [1, 2, redrawn(2, 2), 4]
    assert asked == kinds


def test_expansion_goes_through_rejection(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = expand_field(SEED, (6,)).tolist()
    replaced(monkeypatch, {"field": (3, (1 << 64) - 1)})
    assert expand_field(SEED, (2, 3)).reshape(-1).tolist() == [*honest[:3], redrawn(3), *honest[4:]]


def test_zero_and_the_largest_element_are_reachable() -> None:
    words = np.array([0, 1 << 61, 7 << 61, P - 1, (7 << 61) | (P - 1)], dtype=np.uint64)
    assert prg.reject(words, SEED).tolist() == [0, 0, 0, P - 1, P - 1]


def test_aes_that_returns_too_little_stops_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, *_: object) -> None: ...

        def encryptor(self) -> Broken:
            return self

        def update_into(self, data: memoryview, out: memoryview) -> int:
            return len(data) - 1

    monkeypatch.setattr(prg, "Cipher", Broken)
    with pytest.raises(EntropyError):
        expand_field(SEED, (4,))
    with pytest.raises(EntropyError):
        expand_words(SEED, (4,), 9)


# ------------------------------------------------------------------ draws


def test_a_label_is_drawn_once() -> None:
    draws = Draws(SEED, "run", 1)
    first = draws.sub_seed("gate", "mask")
    assert first == SEED.derive("run", 1, "gate", "mask")
    with pytest.raises(ReuseError, match="gate/mask"):
        draws.sub_seed("gate", "mask")
    assert draws.sub_seed("gate", "mask", "owner") != first  # the holders are part of the label
    with pytest.raises(ReuseError):
        draws.sub_seed("gate", "mask", "owner")


@examples(100)
@given(st.lists(st.lists(parts, min_size=1, max_size=3), min_size=2, max_size=8))
def test_reuse_is_refused_for_equal_labels_and_no_others(labels: list) -> None:
    draws, seen, seeds = Draws(SEED, "context"), [], set()
    for label in labels:
        typed = [(type(part), part) for part in label]
        if typed in seen:
            with pytest.raises(ReuseError):
                draws.sub_seed(*label)
        else:
            seeds.add(draws.sub_seed(*label).secret)
            seen.append(typed)
    assert len(seeds) == len(seen)


def test_other_contexts_draw_other_seeds() -> None:
    drawn = [Draws(SEED, *context).sub_seed("g", "v") for context in (("a",), ("b",), ("a", 1), ("a", 2), ())]
    assert len({seed.secret for seed in drawn}) == len(drawn)


def test_a_refused_draw_shows_no_secret() -> None:
    draws = Draws(SEED)
    draws.sub_seed("x")
    with pytest.raises(ReuseError) as caught:
        draws.sub_seed("x")
    assert SEED.secret.hex() not in str(caught.value) and repr(SEED.secret) not in str(caught.value)


def test_words_at_some_places_are_those_of_the_whole_stream() -> None:
    whole = expand_words(SEED, (1001,), 64)
    places = np.array([[0, 1, 2], [999, 1000, 1], [7, 7, 500]])
    stream = WordStream(SEED)
    np.testing.assert_array_equal(stream.at(places), whole[places])
    assert stream.at(np.zeros((0, 3), dtype=np.int64)).shape == (0, 3)
    assert stream.at(np.array([-1, 5, -2]))[1] == whole[5]
    for start, stop in ((0, 1001), (7, 9), (8, 9), (1000, 1001), (4, 4), (0, 3)):  # in any order, each on its own
        np.testing.assert_array_equal(stream.part(start, stop), whole[start:stop])
    assert str(whole[0]) not in repr(stream)
