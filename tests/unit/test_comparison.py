"""[r mod 2^q > c mod 2^q] from dealt tables, for every q: dealt by hand, evaluated through the lanes."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import kernels
from mpc.comparison import CHUNK_BITS, MAX_CHUNKS, Comparison, fewest_tags
from mpc.encoding import word_type
from mpc.errors import PlanError
from mpc.field import P
from mpc.shares import BitShare, Lane
from tests.support import naive
from tests.support.effort import FULL, examples
from tests.support.statistics import assert_uniform_words

MOST = CHUNK_BITS * MAX_CHUNKS


def split(plain: np.ndarray, width: int, parties: int, rng: np.random.Generator) -> list[BitShare]:
    """XOR shares of plain words."""
    top = (1 << width) - 1
    shares = [rng.integers(0, top, plain.shape, dtype=plain.dtype, endpoint=True) for _ in range(parties - 1)]
    last = plain.copy()
    for share in shares:
        last ^= share
    return [BitShare(values, width) for values in (*shares, last)]


def with_chunks(chunks: int) -> Comparison:
    """The smallest comparison that takes so many."""
    return next(c for c in map(Comparison, range(1, MOST + 1)) if c.chunks == chunks)


def xor(shares: list[BitShare]) -> np.ndarray:
    total = shares[0]
    for share in shares[1:]:
        total = total ^ share
    return total.values


def compare(bits: int, r: np.ndarray, c: np.ndarray, parties: int, rng: np.random.Generator) -> np.ndarray:
    """The result that the parties hold, the free bit taken off; checks the opened words on the way."""
    comparison = Comparison(bits)
    kind = word_type(comparison.mask_width)
    mask = rng.integers(0, (1 << comparison.mask_width) - 1, r.shape, dtype=kind, endpoint=True)
    tables = split(naive.thermometers(comparison, r), 8, parties, rng)
    masks = split(mask, comparison.mask_width, parties, rng)
    nodes = split(dealt_nodes(comparison, mask), 8, parties, rng)
    lanes = [Lane.passive(index) for index in range(parties)]
    looked_up = [lane.look_up(comparison, t, c[None], m) for lane, t, m in zip(lanes, tables, masks, strict=True)]
    leaves, signs = zip(*looked_up, strict=True)
    sign = (c >> np.uint64(bits)) & np.uint64(1)
    assert all((found == sign).all() for found in signs)
    assert all(leaf.width == comparison.leaf_width and leaf.shape == c.shape for leaf in leaves)
    opened = xor(leaves)
    assert (opened >> kind.type(comparison.leaf_width) == 0).all()  # nothing beside the declared bits
    leaf_mask = mask & kind.type((1 << comparison.leaf_width) - 1)
    assert (opened ^ leaf_mask == expected_leaves(comparison, r, c)).all()
    public = rng.integers(0, 2, r.shape, dtype=np.uint8)
    results = [
        lane.resolve(comparison, opened, m, node, public) for lane, m, node in zip(lanes, masks, nodes, strict=True)
    ]
    assert all(result.width == 1 and set(np.unique(result.values)) <= {0, 1} for result in results)
    return xor(results) ^ comparison.free_bit(mask) ^ public


def dealt_nodes(comparison: Comparison, mask: np.ndarray) -> np.ndarray:
    """The node's bytes as the provider's kernel makes them; its free bits are those of the words."""
    node, free = np.zeros((mask.size, comparison.node_bytes), dtype=np.uint8), np.empty(mask.size, dtype=np.uint8)
    kernels.deal_nodes(mask, comparison.product_factors, comparison.leaf_width, node, free)
    assert (free == comparison.free_bit(mask)).all()
    return node


@pytest.mark.parametrize("chunks", range(1, MAX_CHUNKS + 1))
def test_every_word_of_masks_is_dealt_its_products(chunks: int) -> None:
    """All words of up to five chunks, more than one block of the kernel; a share is added to, not written over."""
    comparison = with_chunks(chunks)
    kind = word_type(comparison.mask_width)
    words, rng = 1 << comparison.mask_width, np.random.default_rng(chunks)
    chosen = np.arange(words) if words <= 1 << 10 else rng.integers(0, words, 700)
    mask = chosen.astype(kind)
    before = rng.integers(0, 256, (mask.size, comparison.node_bytes), dtype=np.uint8)
    node, free = before.copy(), np.empty(mask.size, dtype=np.uint8)
    kernels.deal_nodes(mask, comparison.product_factors, comparison.leaf_width, node, free)
    assert (node ^ before == naive.products(comparison, mask)).all()
    assert (free == mask >> kind.type(comparison.leaf_width)).all()


def expected_leaves(comparison: Comparison, r: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Bit j: chunk j of r is larger; bit K + j: it is equal, but not for the last."""
    words = np.zeros(r.shape, dtype=np.uint64)
    for j, (shift, width) in enumerate(zip(comparison.shifts, comparison.widths, strict=True)):
        low = (np.uint64(1) << width) - np.uint64(1)
        mine, other = (r >> shift) & low, (c >> shift) & low
        words |= (mine > other).astype(np.uint64) << np.uint64(j)
        if j < comparison.chunks - 1:
            words |= (mine == other).astype(np.uint64) << np.uint64(comparison.chunks + j)
    return words


def check(bits: int, r: np.ndarray, c: np.ndarray, parties: int, rng: np.random.Generator) -> None:
    low = np.uint64((1 << bits) - 1)
    got = compare(bits, r, c, parties, rng)
    assert (got == ((r & low) > (c & low))).all(), f"q = {bits}"


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_pair_for_small_q(bits: int) -> None:
    every = np.arange(1 << bits, dtype=np.uint64)
    r, c = np.repeat(every, every.size), np.tile(every, every.size)
    for parties in (2, 3, 5):
        check(bits, r, c, parties, np.random.default_rng(bits))


@pytest.mark.parametrize("bits", range(1, MOST + 1))
def test_random_and_close_pairs_for_every_q(bits: int) -> None:
    rng = np.random.default_rng([bits, 1])
    count = 4000 if FULL else 400
    r = rng.integers(0, P, count, dtype=np.uint64)  # bits above q have to be ignored
    top = rng.integers(0, P, count, dtype=np.uint64) >> np.uint64(bits) << np.uint64(bits)
    low = np.uint64((1 << bits) - 1)
    flips = np.uint64(1) << rng.integers(0, bits, count, dtype=np.uint64)
    edges = np.array([0, 1, (1 << bits) - 1, (1 << bits) - 2, 1 << (bits - 1)], dtype=np.uint64)
    c = np.choose(
        rng.integers(0, 6, count),
        [
            rng.integers(0, P, count, dtype=np.uint64),
            r & low,
            (r + np.uint64(1)) & low,
            (r - np.uint64(1)) & low,
            (r ^ flips) & low,  # equal chunks, but for one bit
            rng.choice(edges, count),
        ],
    )
    r = np.where(rng.random(count) < 0.1, rng.choice(edges, count), r)
    for parties in (2, 3, 5):
        check(bits, r, (c & low) | top, parties, rng)


@examples(40)
@given(st.integers(1, MOST), st.data())
def test_any_pair(bits: int, data: st.DataObject) -> None:
    value = st.integers(0, (1 << bits) - 1)
    pairs = data.draw(st.lists(st.tuples(value, value), min_size=1, max_size=5))
    r, c = (np.array(column, dtype=np.uint64) for column in zip(*pairs, strict=True))
    check(bits, r, c, data.draw(st.sampled_from([2, 3, 5])), np.random.default_rng(0))


@pytest.mark.parametrize("bits", [1, 6, 7, 24, 48])
def test_two_look_ups_of_one_table(bits: int) -> None:
    """The same r at two public positions, each under its own masks."""
    rng = np.random.default_rng(bits)
    r = rng.integers(0, 1 << bits, 100, dtype=np.uint64)
    for _ in range(2):
        check(bits, r, rng.integers(0, 1 << bits, 100, dtype=np.uint64), 3, rng)


# ------------------------------------------------------------------ shape and size


@pytest.mark.parametrize("bits", [-1, 0, MOST + 1, 64])
def test_other_widths_are_refused(bits: int) -> None:
    with pytest.raises(PlanError, match="1 to 48"):
        Comparison(bits)


@pytest.mark.parametrize("bits", range(1, MOST + 1))
def test_chunks_cover_the_bits(bits: int) -> None:
    comparison = Comparison(bits)
    widths, shifts = comparison.widths.tolist(), comparison.shifts.tolist()
    assert -(-bits // 6) <= comparison.chunks == len(widths) <= MAX_CHUNKS
    assert sum(widths) == bits and max(widths) <= CHUNK_BITS and max(widths) - min(widths) <= 1
    position = bits
    for width, shift in zip(widths, shifts, strict=True):  # most significant first, no gap
        position -= width
        assert shift == position
    assert position == 0


def cost(chunks: int, bits: int) -> tuple[float, int]:
    """(opened bytes, dealt bytes) of one comparison with that many chunks, by the formulas of protocols.md."""
    widths = [bits // chunks + (j < bits % chunks) for j in range(chunks)]
    products = (2**chunks - 1 - chunks) + (2 ** (chunks - 1) - chunks)
    opened = 1 / 8 if chunks == 1 else 1 if chunks <= 4 else 2
    return opened, sum(max(1, 2**width // 8) for width in widths) + -(-products // 8)


@pytest.mark.parametrize("bits", range(1, MOST + 1))
def test_no_other_number_of_chunks_is_cheaper(bits: int) -> None:
    comparison = Comparison(bits)
    possible = range(-(-bits // 6), min(bits, MAX_CHUNKS) + 1)
    found = cost(comparison.chunks, bits)
    assert found == min(cost(chunks, bits) for chunks in possible)
    assert found[1] == comparison.table_bytes + comparison.node_bytes


@pytest.mark.parametrize("chunks", range(1, MAX_CHUNKS + 1))
def test_the_products_are_those_of_the_formula(chunks: int) -> None:
    comparison = with_chunks(chunks)
    count = (2**chunks - 1 - chunks) + (2 ** (chunks - 1) - chunks)  # protocols.md section 4
    assert comparison.node_bytes == -(-count // 8)
    masks = np.arange(1 << comparison.leaf_width, dtype=word_type(comparison.mask_width))
    table = dealt_nodes(comparison, masks)
    assert table.shape == (masks.size, comparison.node_bytes) and table.dtype == np.uint8
    bits = np.unpackbits(table, axis=1, bitorder="little")
    # A product of d of the mask bits is 1 for 2^(width - d) masks: the degrees have to be those of mu_j nu_S, nu_S.
    degrees = dict.fromkeys(range(2, chunks + 1), 0)
    for column in bits[:, :count].T:
        degrees[comparison.leaf_width - int(column.sum()).bit_length() + 1] += 1
    assert degrees == {
        d: sum(comb(j, d - 1) for j in range(chunks)) + comb(chunks - 1, d) for d in range(2, chunks + 1)
    }
    assert len({tuple(column) for column in bits[:, :count].T}) == count
    assert not bits[:, count:].any()  # the padding of the last byte


@pytest.mark.parametrize("chunks", range(1, MAX_CHUNKS + 1))
def test_products_ignore_the_free_bit(chunks: int) -> None:
    comparison = with_chunks(chunks)
    kind = word_type(comparison.mask_width)
    mask = np.random.default_rng(chunks).integers(0, 1 << comparison.leaf_width, 50).astype(kind)
    high = kind.type(1 << comparison.leaf_width)
    assert (dealt_nodes(comparison, mask) == dealt_nodes(comparison, mask | high)).all()
    assert not comparison.free_bit(mask).any() and comparison.free_bit(mask | high).all()


@pytest.mark.parametrize("chunks", range(1, MAX_CHUNKS + 1))
def test_selectors_hold_every_opened_word_and_always_the_free_bit(chunks: int) -> None:
    chosen = with_chunks(chunks).selectors
    size = 1 << (2 * chunks - 1)
    assert chosen.mask.shape == chosen.constant.shape == (size,)
    assert chosen.node.shape == (size, with_chunks(chunks).node_bytes)
    assert ((chosen.mask >> (2 * chunks - 1)) == 1).all()


@pytest.mark.parametrize("bits", range(1, MOST + 1))
@pytest.mark.parametrize("pairs", [([0], [-1]), ([0, 2, 1], [1, -1, 2])])
def test_thermometers_are_dealt_for_differences(bits: int, pairs: tuple[list[int], list[int]]) -> None:
    comparison, rng = Comparison(bits), np.random.default_rng(bits)
    rows = 5000 if bits in (7, 24) else 50  # more than one block
    values = rng.integers(0, P, (3, rows), dtype=np.uint64)
    first, second = map(np.array, pairs)
    whole = np.vstack([values, np.zeros((1, rows), dtype=np.uint64)])  # -1: zero
    differences = (whole[first] - whole[second]).reshape(-1)
    plain = naive.thermometers(comparison, differences & np.uint64((1 << bits) - 1))
    share = rng.integers(0, 256, plain.shape, dtype=np.uint8)
    found, sign = share.copy(), np.empty(differences.size, dtype=np.uint8)
    kernels.deal_thermometers(values, first, second, bits, comparison.shifts, comparison.widths, found, sign)
    assert (found ^ share == plain).all()
    assert (sign == (differences >> np.uint64(bits)) & np.uint64(1)).all()


@pytest.mark.parametrize("bits", [6, 12, 24, 42])
def test_opened_words_are_uniform_whatever_is_compared(bits: int) -> None:
    rng = np.random.default_rng(bits)
    comparison, count = Comparison(bits), 8192
    for r, c in ((0, 0), (1, 0), ((1 << bits) - 1, 1 << (bits - 1))):
        kind = word_type(comparison.mask_width)
        mask = rng.integers(0, (1 << comparison.mask_width) - 1, count, dtype=kind, endpoint=True)
        table = BitShare(naive.thermometers(comparison, np.full(count, r, dtype=np.uint64)), 8)
        leaf, _ = Lane.passive(0).look_up(
            comparison, table, np.full((1, count), c, dtype=np.uint64), BitShare(mask, comparison.mask_width)
        )
        assert_uniform_words(leaf.values, comparison.leaf_width, f"r = {r}, c = {c}")


@pytest.mark.parametrize("bits", range(1, MOST + 1))
@pytest.mark.parametrize("looks", [1, 2])
def test_no_other_number_of_chunks_has_fewer_bytes_if_bits_have_tags(bits: int, looks: int) -> None:
    def tagged(chunks: int) -> int:
        """Bytes of a table, its look-ups' products and masks, with 8 more for each bit that is not constant."""
        widths = [bits // chunks + (j < bits % chunks) for j in range(chunks)]
        products = (2**chunks - 1 - chunks) + (2 ** (chunks - 1) - chunks)
        plain = sum(max(1, 2**width // 8) for width in widths) + looks * -(-products // 8)
        return plain + 8 * (sum(2**width - 1 for width in widths) + looks * (products + 2 * chunks))

    possible = range(-(-bits // 6), min(bits, MAX_CHUNKS) + 1)
    assert tagged(fewest_tags(bits, looks)) == min(map(tagged, possible))


@pytest.mark.parametrize(("bits", "split"), [(7, 1), (6, 0), (5, 6), (48, 7), (20, 9)])
def test_chunks_of_no_bit_or_of_too_many_are_refused(bits: int, split: int) -> None:
    with pytest.raises(PlanError, match="chunks, which have 1 to 6 bits"):
        Comparison(bits, split)


@pytest.mark.parametrize(("bits", "split"), [(6, 1), (6, 6), (20, 5), (24, 8)])
def test_bits_that_are_said_to_be_constant_are(bits: int, split: int) -> None:
    """Of thermometers the lowest bit and what fills up their bytes, of nodes what fills up theirs."""
    comparison, rng = Comparison(bits, split), np.random.default_rng(bits)
    kind = word_type(comparison.mask_width)
    mask = rng.integers(0, (1 << comparison.mask_width) - 1, 500, dtype=kind, endpoint=True)
    table = naive.thermometers(comparison, rng.integers(0, 1 << bits, 500, dtype=np.uint64))
    for dealt, planes in (
        (table, comparison.table_planes(500)),
        (dealt_nodes(comparison, mask), comparison.node_planes(500)),
    ):
        data, start = dealt.reshape(-1), 0
        for plane in planes:
            size = plane.count * plane.width // 8
            words = data[start : start + size].reshape(plane.count, -1)
            found = np.unpackbits(words, axis=1, bitorder="little")
            start += size
            assert found[:, : plane.first].all() and not found[:, plane.stop :].any()
            free = found[:, plane.first : plane.stop]
            assert (free.any(axis=0) & ~free.all(axis=0)).all()  # each of the others is 0 here and 1 there
        assert start == data.size
