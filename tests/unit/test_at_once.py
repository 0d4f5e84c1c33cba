"""Comparison whose bit is opened in one round: right for all values, and what is opened tells nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from mpc import kernels
from mpc.at_once import MOST_CHUNKS, AtOnce, fewest_words
from mpc.comparison import CHUNK_BITS
from mpc.encoding import word_type
from mpc.errors import PlanError
from mpc.shares import WHOLE, BitShare, Lane
from mpc.tags import BitTags, TagLane
from tests.support import naive


def possible(bits: int) -> range:
    return range(-(-bits // CHUNK_BITS), min(bits, MOST_CHUNKS) + 1)


def deal(c: AtOnce, r: np.ndarray, mask: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add the tables of r, (n,), to a share of them; the bits under which results are opened, and the signs."""
    sign, free = (np.empty(r.size, dtype=np.uint8) for _ in range(2))
    kernels.deal_at_once(r[None], *WHOLE, c.bits, c.shifts, c.widths, mask, share, sign, free)
    return free, sign


def opened_words(c: AtOnce, r: np.ndarray, places: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is opened at the public places, and the bits under which the results are."""
    table = np.zeros((r.size, c.table_bytes), dtype=np.uint8)
    free, _ = deal(c, r, mask, table)
    found, _ = Lane.passive(0).look_up(c, BitShare(table.reshape(-1), 8), places[None], BitShare(mask, c.mask_width))
    return found.values, free


def settled(c: AtOnce, opened: np.ndarray) -> np.ndarray:
    out = np.empty(opened.shape, dtype=np.uint8)
    kernels.settle(opened, c.chunks, np.zeros_like(out), out)
    return out


@pytest.mark.parametrize("chunks", [1, 2, 3, 4])
def test_for_every_pair_of_values_and_every_mask(chunks: int) -> None:
    """A word for each mask, all of them different: so what is opened is uniform, whatever is compared with what."""
    bits = {1: 3, 2: 4, 3: 4, 4: 4}[chunks]
    c = AtOnce(bits, chunks)
    masks = np.arange(1 << c.mask_width, dtype=word_type(c.mask_width))
    for r in range(1 << bits):
        for place in range(1 << bits):
            values = np.full(masks.size, r, dtype=np.uint64)
            opened, free = opened_words(c, values, np.full(masks.size, place, dtype=np.uint64), masks)
            assert (settled(c, opened) ^ free == (r > place)).all()
            assert (np.sort(opened) == masks).all()


@pytest.mark.parametrize("bits", [1, 2, 5, 6, 7, 12, 13, 18, 24, 31, 42])
def test_shares_of_three_parties_open_the_bit(bits: int) -> None:
    rng = np.random.default_rng(bits)
    for chunks in (None, *possible(bits)):
        c, size = AtOnce(bits, chunks), 200
        kind, top = word_type(c.mask_width), np.uint64(1) << np.uint64(bits)
        r = rng.integers(0, 2 << bits, size, dtype=np.uint64)
        places = r.copy()
        places[50:] = rng.integers(0, 2 << bits, size - 50, dtype=np.uint64)
        places[50:100] = r[50:100] ^ rng.integers(0, 2, 50, dtype=np.uint64)
        mask = rng.integers(0, 1 << c.mask_width, size, dtype=np.uint32).astype(kind)
        shares = [rng.integers(0, 256, (size, c.table_bytes), dtype=np.uint8) for _ in range(2)]
        masks = [rng.integers(0, 1 << c.mask_width, size, dtype=np.uint32).astype(kind) for _ in range(2)]
        last = shares[0] ^ shares[1]
        free, sign = deal(c, r, mask, last)
        assert (sign == r >> np.uint64(bits)).all()
        assert ((last ^ shares[0] ^ shares[1]).reshape(-1) == naive.tables_at_once(c, r, mask)).all()
        found = [
            Lane.passive(index).look_up(c, BitShare(t.reshape(-1), 8), places[None], BitShare(m, c.mask_width))
            for index, (t, m) in enumerate(zip([*shares, last], [*masks, masks[0] ^ masks[1] ^ mask], strict=True))
        ]
        opened = found[0][0].values ^ found[1][0].values ^ found[2][0].values
        assert (opened >> kind.type(c.leaf_width - 1) <= 1).all()  # nothing beside the declared bits
        assert (settled(c, opened) ^ free == (r % top > places % top)).all()
        assert all((public == places >> np.uint64(bits)).all() for _, public in found)


def test_several_rows_are_compared_in_pairs() -> None:
    rng, c, rows = np.random.default_rng(0), AtOnce(9), 40
    pairs = (np.array([0, 0, 1]), np.array([1, -1, -1]))
    r, places = (rng.integers(0, 1 << 61, (2, rows), dtype=np.uint64) for _ in range(2))
    mask = rng.integers(0, 1 << c.mask_width, 3 * rows).astype(word_type(c.mask_width))
    table = np.zeros((3 * rows, c.table_bytes), dtype=np.uint8)
    sign, free = (np.empty(3 * rows, dtype=np.uint8) for _ in range(2))
    kernels.deal_at_once(r, *pairs, c.bits, c.shifts, c.widths, mask, table, sign, free)
    found, public = Lane.passive(0).look_up(
        c, BitShare(table.reshape(-1), 8), places, BitShare(mask, c.mask_width), pairs
    )
    low = np.uint64(1023)
    hidden, shown = (np.concatenate([(x[0] - x[1]) & low, x[0] & low, x[1] & low]) for x in (r, places))
    assert (settled(c, found.values) ^ free == (hidden % 512 > shown % 512)).all()
    assert (sign == hidden >> np.uint64(9)).all() and (public == shown >> np.uint64(9)).all()


@pytest.mark.parametrize("chunks", [1, 2, 4, 6])
def test_tags_of_what_is_opened_are_delta_times_it(chunks: int) -> None:
    """Of dealt words b Delta for each bit the lane of tags makes o Delta for each opened one."""
    rng, c, rows = np.random.default_rng(chunks), AtOnce(2 * chunks, chunks), 30
    delta, pairs = rng.integers(1, 1 << 63, dtype=np.uint64), (np.array([0, 1]), np.array([-1, 0]))
    r, places = (rng.integers(0, 1 << 61, (2, rows), dtype=np.uint64) for _ in range(2))
    mask = rng.integers(0, 1 << c.mask_width, 2 * rows).astype(word_type(c.mask_width))
    table = np.zeros((2 * rows, c.table_bytes), dtype=np.uint8)
    spare = [np.empty(2 * rows, dtype=np.uint8) for _ in range(2)]
    kernels.deal_at_once(r, *pairs, c.bits, c.shifts, c.widths, mask, table, *spare)
    found, _ = Lane.passive(0).look_up(c, BitShare(table.reshape(-1), 8), places, BitShare(mask, c.mask_width), pairs)

    def bits(words: np.ndarray, width: int) -> np.ndarray:
        return (words.astype(np.uint64)[:, None] >> np.arange(width, dtype=np.uint64)) & np.uint64(1)

    of_table = np.unpackbits(table, axis=1, bitorder="little")[:, : c.table_words].reshape(-1) * delta
    of_mask = bits(mask, c.mask_width) * delta
    lane = TagLane(one=np.uint64(0), bit_one=delta)
    tagged, _ = lane.look_up(c, BitTags(of_table, 8), places, BitTags(of_mask, c.mask_width), pairs)
    assert (tagged.values == bits(found.values, c.leaf_width) * delta).all()


def test_what_it_costs() -> None:
    for bits in range(1, CHUNK_BITS * MOST_CHUNKS + 1):
        for chunks in possible(bits):
            c = AtOnce(bits, chunks)
            widths = c.widths.tolist()
            assert sum(widths) == bits and min(widths) >= 1 and max(widths) <= CHUNK_BITS
            words = [*(2 * level for level in range(1, chunks)), chunks]
            assert c.table_words == sum(word << width for word, width in zip(words, widths, strict=True))
            assert c.leaf_width == c.mask_width == chunks * (chunks + 1) // 2
            assert c.table_bytes == -(-c.table_words // 8) and c.node_bytes == c.node_words == 0
            assert sum(plane.bits for plane in c.table_planes(3)) == 3 * c.table_words

        def tagged(chunks: int, bits: int = bits) -> int:
            c = AtOnce(bits, chunks)
            return 8 * (c.table_words + c.mask_width) + c.table_bytes

        assert tagged(fewest_words(bits)) == min(map(tagged, possible(bits)))
    assert [(AtOnce(bits).chunks, AtOnce(bits).table_bytes) for bits in (12, 18, 24)] == [(3, 18), (5, 35), (7, 59)]


@pytest.mark.parametrize(("bits", "chunks"), [(0, None), (43, None), (12, 1), (12, 8), (3, 4)])
def test_what_cannot_be_compared_at_once_is_refused(bits: int, chunks: int | None) -> None:
    with pytest.raises(PlanError, match="in one round"):
        AtOnce(bits, chunks)
