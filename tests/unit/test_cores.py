"""Work in blocks on several threads: all of it is done, once, and the bits are those of one thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from mpc import field as fp
from mpc import kernels, prg
from mpc.at_once import AtOnce
from mpc.convolution import Filters, convolve
from mpc.kernels import cores
from mpc.prg import WordStream, expand_field, expand_words
from mpc.windows import Windows
from tests.support.effort import patient
from tests.support.vectors import every_gate
from tests.support.worlds import make_world, seed

LARGE = 2 * cores.LEAST_NANOSECONDS


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Other tests compute on one thread."""
    yield
    cores.use_threads(1)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut even what is small."""
    monkeypatch.setattr(cores, "LEAST_NANOSECONDS", 1)


# ------------------------------------------------------------------- blocks


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("size", [0, 1, 63, 64, 1000, 4096, 100_003])
def test_blocks_make_up_all_in_order_at_multiples_of_the_grain(threads: int, size: int) -> None:
    cores.use_threads(threads)
    found = cores.in_blocks(lambda start, stop: (start, stop), size, LARGE)
    assert [start for start, _ in found] == [0, *(stop for _, stop in found[:-1])]
    assert found[-1][1] == size
    assert all(start % cores.GRAIN == 0 for start, _ in found)
    assert len(found) == 1 if threads == 1 or size <= cores.GRAIN else 1 < len(found) <= 4 * threads


def test_what_is_small_is_not_cut() -> None:
    cores.use_threads(3)
    assert len(cores.in_blocks(lambda *_: None, 6400, LARGE / 6401)) == 1
    assert len(cores.in_blocks(lambda *_: None, 6400, LARGE / 6399)) == 2


def test_several_threads_work_at_one_time() -> None:
    cores.use_threads(3)
    met = threading.Barrier(3, timeout=patient(20))
    found = cores.in_blocks(lambda *_: (met.wait(), threading.get_ident())[1], 3, LARGE, grain=1)
    assert len(set(found)) == 3 and threading.get_ident() in found


def test_a_block_cuts_no_further() -> None:
    cores.use_threads(2)
    found = cores.in_blocks(lambda *_: len(cores.in_blocks(lambda *_: None, 1000, LARGE)), 1000, LARGE)
    assert len(found) > 1 and set(found) == {1}
    assert len(cores.in_blocks(lambda *_: None, 1000, LARGE)) > 1


def test_an_error_is_raised_when_all_blocks_are_over() -> None:
    cores.use_threads(2)
    begun: list[int] = []

    def work(start: int, stop: int) -> None:
        begun.append(start)
        if start in (2, 3):
            raise ValueError(f"at {start}")

    with pytest.raises(ValueError, match="at 2"):
        cores.in_blocks(work, 8, LARGE, grain=1)
    assert sorted(begun) == list(range(8))
    assert len(cores.in_blocks(lambda *_: None, 1000, LARGE)) > 1, "the next one is cut again"


def test_threads_that_cut_at_once_share_the_pool() -> None:
    """Each gets its own results, whoever's blocks its helper takes first."""
    cores.use_threads(2)
    found: dict[int, list[int]] = {}

    def call(number: int) -> None:
        found[number] = [
            sum(cores.in_blocks(lambda start, stop: stop - start + number, 64, LARGE, 8)) for _ in range(50)
        ]

    callers = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(patient(60))
    assert found == {number: [64 + 8 * number] * 50 for number in range(4)}


def test_its_threads_end_with_their_number() -> None:
    cores.use_threads(3)
    cores.use_threads(2)
    assert cores.threads() == 2
    assert [thread.name for thread in threading.enumerate()].count("kernels") == 1
    cores.use_threads(1)
    assert cores.threads() == 1 and "kernels" not in {thread.name for thread in threading.enumerate()}


# ------------------------------------------------------------------- the same bits


def on_threads(compute: Callable[[], list[np.ndarray]]) -> None:
    """Compute on one thread, on two and on three, and compare."""
    cores.use_threads(1)
    alone = compute()
    for count in (2, 3):
        cores.use_threads(count)
        for one, other in zip(alone, compute(), strict=True):
            assert one.dtype == other.dtype and np.array_equal(one, other)


def drawn(name: str, *shape: int) -> np.ndarray:
    return expand_field(seed(5).derive(name), shape)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("size", [1, 63, 129, 5000])
def test_what_is_drawn(size: int) -> None:
    def compute() -> list[np.ndarray]:
        words = [expand_words(seed(1), (size,), width) for width in (1, 5, 8, 13, 31, 64)]
        return [
            *words,
            expand_field(seed(1), (size,)),
            expand_field(seed(1), (1, size), np.empty((1, size), np.uint64)),
        ]

    on_threads(compute)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("rejected", [0, 64, 200])
def test_a_word_that_is_drawn_again_in_any_block(monkeypatch: pytest.MonkeyPatch, rejected: int) -> None:
    """p itself is redrawn, by its place among all words and not in its block."""
    reject = prg.reject

    def rejecting(words: np.ndarray, of: prg.Seed, first: int = 0) -> np.ndarray:
        if first <= rejected < first + words.size:
            words[rejected - first] = fp.P
        return reject(words, of, first)

    monkeypatch.setattr(prg, "reject", rejecting)
    on_threads(lambda: [expand_field(seed(2), (300,))])


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("rows", [1, 7, 130])
def test_sums_and_products(rows: int) -> None:
    a, b, few = drawn("a", rows, 70), drawn("b", 70, 133), drawn("c", 70, 3)
    public = fp.from_signed(np.arange(-700, 700).reshape(70, 20))

    def compute() -> list[np.ndarray]:
        kept = fp.Operand(few)
        kept.keep(fp.Room())
        found = [fp.add(a, a), fp.sub(a, drawn("d", 70)), fp.mul(a, a), fp.scale(a, 7), fp.add_int(a, 7), fp.total(a)]
        found += [fp.matmul(a, b), fp.matmul(a, b, drawn("e", 133)), fp.matmul(a, kept), fp.matmul(a, few[:, :1])]
        found += [fp.matmul(a, fp.Operand(public, public=True))]
        stack = np.broadcast_to(a, (5, rows, 70)).copy()
        return [
            *found,
            fp.matmul(stack, b),
            fp.matmul(stack, drawn("f", 5, 70, 9)),
            fp.matmul(drawn("g", 2, 1, 3, 70), b),
        ]

    on_threads(compute)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("images", [1, 5])
@pytest.mark.parametrize(("filters", "channels", "stride"), [(16, 3, 1), (16, 8, 1), (12, 8, 2), (2, 8, 1)])
def test_convolutions(monkeypatch: pytest.MonkeyPatch, images: int, filters: int, channels: int, stride: int) -> None:
    """By tiles of few channels and of many, by patches, and one by one; of a few images at a time."""
    monkeypatch.setattr("mpc.convolution.POINT_BYTES", 1 << 16)
    monkeypatch.setattr("mpc.convolution.BLOCK_BYTES", 1 << 16)
    monkeypatch.setattr("mpc.convolution.FEWEST_TILES", 1)
    windows = Windows(kernel=(3, 3), strides=(stride, stride), dilations=(1, 1), pads=((1, 1), (1, 1)))
    x, values = drawn("x", images, channels, 14, 14), drawn("w", filters, channels, 3, 3)
    on_threads(lambda: [convolve(x, Filters(values, windows)), convolve(x, Filters(values, windows), drawn("o", 1))])


@pytest.mark.usefixtures("eager")
@pytest.mark.usefixtures("eager")
def test_comparisons_at_once() -> None:
    rng, c, pairs, rows = np.random.default_rng(5), AtOnce(18), (np.array([0, 1]), np.array([1, -1])), 700
    r, places = (rng.integers(0, 1 << 61, (2, rows), dtype=np.uint64) for _ in range(2))
    mask = rng.integers(0, 1 << c.mask_width, 2 * rows).astype(np.uint16)

    def compute() -> list[np.ndarray]:
        table, opened = np.zeros((2 * rows, c.table_bytes), dtype=np.uint8), np.empty_like(mask)
        signs, free, found = (np.empty(2 * rows, dtype=np.uint8) for _ in range(3))
        shape = (*pairs, c.bits, c.shifts, c.widths, mask)
        kernels.deal_at_once(r, *shape, table, signs, free)
        kernels.look_up_at_once(table, places, *shape, opened, signs)
        kernels.settle(opened, c.chunks, signs, found)
        return [table, free, opened, signs, found]

    on_threads(compute)


def test_words_of_one_stream_that_several_threads_ask_for() -> None:
    stream, places = WordStream(seed(3)), np.arange(999, -1, -1)

    def compute() -> list[np.ndarray]:
        looked_up = cores.in_blocks(lambda start, stop: stream.at(places[start:stop]), 1000, 1, 50)
        return [np.concatenate(cores.in_blocks(stream.part, 1000, 1, 50)), np.concatenate(looked_up)]

    on_threads(compute)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("checked", [False, True])
def test_whole_runs_say_the_same_to_everybody(monkeypatch: pytest.MonkeyPatch, checked: bool) -> None:
    """Everything that is opened and told, of every gate; checked, by some words at a time."""
    monkeypatch.setattr("mpc.tags.WINDOW", 64)
    plan = every_gate()
    weights = {gate.out: np.ones(plan.wire[gate.out].sizes, dtype=np.int64) for gate in plan.weights}

    def compute() -> list[np.ndarray]:
        run = make_world(plan, weights, 2, checked=checked).run({"x": np.arange(800).reshape(200, 2, 2)}, 200)
        told = b"".join([*run.transcripts, *(payload for step in run.payloads for payload in step)])
        return [np.frombuffer(told, dtype=np.uint8), *run.outputs.values(), *run.public.values()]

    on_threads(compute)


def test_every_loop_is_cut_or_known_not_to_be() -> None:
    """What is not cut is called by what is, block by block."""
    whole = {name for name in kernels.__all__ if getattr(kernels, name) is kernels.loop(name)}
    assert whole == {
        "P",
        "and_words",
        "dot",
        "find_signs",
        "find_words",
        "fold_leaves",
        "fold_words",
        "recombine_images",
        "split_images",
    }
