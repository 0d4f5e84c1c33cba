"""Runs that are checked: honest ones pass, at the declared cost; tags are the key times what is opened."""

from __future__ import annotations

import tracemalloc
from functools import reduce
from operator import add
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc import field as fp
from mpc import tags
from mpc.comparison import Comparison
from mpc.entry import EntryId
from mpc.errors import LocalProtocolError
from mpc.gates import GATES
from mpc.gates.base import Opening
from mpc.gates.maximum import Maximum
from mpc.gates.relu import Relu
from mpc.interpret.active import audit
from mpc.interpret.active.world import CheckedWorld
from mpc.interpret.world import World
from mpc.plan.checking import CHECK_SIZES, check_windows, entry_tags
from mpc.plan.cost import session_dealt
from mpc.plan.plan import Plan
from mpc.prg import Seed
from mpc.shares import BitShare, Share
from mpc.tags import SparseTags, TagLane
from tests.support.case import Case
from tests.support.cases import CASES
from tests.support.effort import examples
from tests.support.plans import Builder, wire
from tests.support.programs import data, learning
from tests.support.vectors import every_gate
from tests.support.worlds import Trial, make_world, seed

BATCH = 3
SEEDS = st.integers(0, 1 << 30)
RNG = np.random.default_rng(0)


def golden() -> tuple[Plan, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A plan with every gate; its weights and inputs."""
    plan = every_gate()
    weights = {gate.out: RNG.integers(-99, 99, plan.wire[gate.out].sizes) for gate in plan.weights}
    return plan, weights, {"x": RNG.integers(-999, 999, (BATCH, 2, 2))}


def check(case: Case, parties: int, batches: list[int], seed: int) -> None:
    plan = case.builder.build()
    weights = {gate.out: case.values(gate.out, 1, seed) for gate in plan.weights}
    trial = Trial(plan, weights, parties, number=seed, checked=True)
    for number, batch in enumerate(batches):
        case.judge(trial.run(case.inputs(batch, seed + number), batch).values)


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("kind", sorted(CASES))
def test_an_honest_run_of_every_gate_passes_at_the_declared_cost(kind: str, parties: int) -> None:
    @examples({2: 6, 3: 4}[parties])
    @given(case=CASES[kind], batches=st.lists(st.sampled_from([1, 3, 9]), min_size=1, max_size=2), seed=SEEDS)
    def attempt(case: Case, batches: list[int], seed: int) -> None:
        check(case, parties, batches, seed)

    attempt()


@pytest.mark.slow
@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("kind", sorted(CASES))
def test_ten_thousand_honest_evaluations_of_every_gate_never_abort(kind: str, parties: int) -> None:
    """Each of so many plans on as many rows; a case that holds for nine rows at most has more plans instead."""
    rows = 9 if kind == "rows" else 256
    plans = 40 if rows == 256 else 600

    @settings(max_examples=plans, deadline=None)
    @given(case=CASES[kind], seed=SEEDS)
    def attempt(case: Case, seed: int) -> None:
        plan = case.builder.build()
        world = make_world(plan, {g.out: case.values(g.out, 1, seed) for g in plan.weights}, parties, seed, True)
        for number in range(1 if rows == 256 else 2):
            world.run(case.inputs(rows, seed + number), rows)

    attempt()


@pytest.mark.parametrize("parties", [2, 3])
def test_a_checked_run_opens_and_tells_what_an_unchecked_one_does(parties: int) -> None:
    plan, weights, inputs = golden()
    plain, checked = (make_world(plan, weights, parties, checked=each) for each in (False, True))
    for _ in range(parties + 1):  # whoever is corrected
        expected, found = plain.run(inputs, BATCH), checked.run(inputs, BATCH)
        assert found.payloads[: len(expected.payloads)] == expected.payloads
        assert [len(payload) for payload, *_ in found.payloads[len(expected.payloads) :]] == list(CHECK_SIZES)
        assert sum(CHECK_SIZES) < 1024
        assert found.transcripts == expected.transcripts
        for name, value in expected.outputs.items():
            np.testing.assert_array_equal(found.outputs[name], value)


@pytest.mark.parametrize("parties", [2, 3])
def test_the_replay_of_every_gate_is_the_key_times_what_is_opened(
    parties: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gate by gate: alpha times each opened value, Delta times each bit, alpha times each share that stays unopened."""
    plan, weights, inputs = golden()
    world = make_world(plan, weights, parties, checked=True)
    key = reduce(add, world.keys)  # type: ignore[attr-defined]
    seen: dict[tuple[object, ...], list[Any]] = {}
    unopened: dict[str, list[Share]] = {}
    fold, sets = audit.fold_one, audit.TagReading.set_share

    def noted(opening: Opening, tag: Share | BitShare, value: np.ndarray, coin: Seed, *rest: Any) -> None:
        seen.setdefault((coin.secret, opening.name), []).append((opening, tag, value))
        fold(opening, tag, value, coin, *rest)

    def written(reading: audit.TagReading, name: str, share: Share) -> None:
        unopened.setdefault(name, []).append(share)
        sets(reading, name, share)

    monkeypatch.setattr(audit, "is_joined", lambda *_: False)
    monkeypatch.setattr(audit, "fold_one", noted)
    monkeypatch.setattr(audit.TagReading, "set_share", written)
    run = world.run(inputs, BATCH)
    bound = plan.bind(BATCH)
    declared = [each for gate in bound.online for openings in gate.openings(bound.wire) for each in openings]
    assert len(seen) == len(declared)
    for parts in seen.values():
        opening, _, value = parts[0]
        assert len(parts) == parties and all(np.array_equal(value, other) for _, _, other in parts)
        if opening.width:
            total = np.bitwise_xor.reduce([tag.values for _, tag, _ in parts], axis=0)
            bits = value.astype(np.uint64)[..., None] >> np.arange(opening.width, dtype=np.uint64) & np.uint64(1)
            np.testing.assert_array_equal(total, bits * key.delta)
        else:
            total = reduce(fp.add, [tag.values for _, tag, _ in parts])
            np.testing.assert_array_equal(total, fp.scale(value, int(key.alpha)))
    assert set(unopened) == set(run.unopened)
    for name, shares in unopened.items():
        total = reduce(fp.add, [share.values for share in shares])
        np.testing.assert_array_equal(total, fp.scale(fp.from_signed(run.unopened[name]), int(key.alpha)))


@pytest.mark.parametrize("segment", [None, 8])
def test_state_stored_rows_and_programs_are_checked(segment: int | None) -> None:
    """Weights that are learned from rows at the parties, told now and then, and used for answers; in windows, too."""
    plan = learning().with_segments(segment)
    world = make_world_stored(plan, checked=True)
    world.window, world.forgets = None if segment is None else 1, True
    plain = make_world_stored(plan, checked=False)
    for number in range(1, 16):
        part = plan.at(number)
        asked = {g.out: np.full(plan.wire[g.out].sizes, 3) for g in part.entered}
        found, expected = world.run(asked, 1), plain.run(asked, 1)
        assert found.transcripts == expected.transcripts and len(set(found.transcripts)) == 1
        windows = len(check_windows(part.bind(1)))
        assert (windows > 1) == (segment is not None and number <= 12), "runs that only answer have one step"
        assert len(found.sent) == len(expected.sent) + windows * len(CHECK_SIZES)


def make_world_stored(plan: Plan, checked: bool) -> World:
    return (CheckedWorld if checked else World)(plan, {}, 3, seed(4), stored=data())


def test_no_seed_of_an_output_leaves_before_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, weights, inputs = golden()
    world = make_world(plan, weights, 2, checked=True)
    waiting: list[Any] = []
    monkeypatch.setattr(world, "exchange", lambda parties, *_: waiting.extend(parties))
    with pytest.raises(KeyError):
        world.run(inputs, BATCH)
    for party in waiting:
        for give in (party.release, party.keep):
            with pytest.raises(LocalProtocolError, match="before the run is checked"):
                give("v")


def test_every_gate_has_a_case_here() -> None:
    assert set(CASES) == set(GATES)


def test_keys_are_never_shown() -> None:
    _, weights, _ = golden()
    world = make_world(every_gate(), weights, 2, checked=True)
    for secret in (*world.keys, *world.tags, TagLane.of(world.keys[0])):  # type: ignore[attr-defined]
        assert str(int(world.keys[0].alpha)) not in repr(secret)  # type: ignore[attr-defined]
        assert str(int(world.keys[0].delta)) not in repr(secret)  # type: ignore[attr-defined]


def test_what_the_weights_tags_cost_is_dealt_once() -> None:
    """8 bytes for each element of a weight that somebody multiplies with; nothing for one that is public."""
    plan, weights, _ = golden()
    secret = [name for name in weights if name != "r"]
    assert session_dealt(plan.with_security("active")) == 8 * sum(weights[name].size for name in secret)
    world = make_world(plan, weights, 2, checked=True)
    dealt, _ = world.deal(plan, plan.weights, 0, 1)
    assert len(dealt.corrections) == session_dealt(plan.with_security("active"))


def test_a_check_holds_a_fixed_number_of_words_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a replay takes beside what the run and its preparation hold grows by a few numbers an element, and not by
    its words: those of a comparison on 20 bits take 976 bytes."""
    b = Builder()
    b.enter("x", ("batch", 8), 20)
    b.gate(Relu(name="r", x="x", out="y", shift=0, chunks=5), wire("y", ("batch", 8), 20))
    b.output("y")
    plan, peaks = b.build(), {}
    honest = audit.Audit.fold

    def fold(self: audit.Audit, *given: Any) -> audit.Sums:
        tracemalloc.start()
        try:
            return honest(self, *given)
        finally:
            peaks[self.wires["x"].sizes[0]] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()

    world = make_world(plan, {}, 2, checked=True)
    world.run({"x": RNG.integers(-999, 999, (64, 8))}, 64)  # kernels are loaded
    monkeypatch.setattr(audit.Audit, "fold", fold)
    few, many = 4096, 16384
    for rows in (few, many):
        world.run({"x": RNG.integers(-999, 999, (rows, 8))}, rows)
    words = sum(spec.size for spec in entry_tags(plan.bind(1), EntryId(1))["r"] if spec.width) / 8
    assert words == 976
    assert (peaks[many] - peaks[few]) / (8 * (many - few)) < words / 10


def test_words_of_every_kind_are_asked_for_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of ANDs behind comparisons, too: of nodes with three inputs seven, and one under which each is opened."""
    b, rows, window = Builder(), 2048, 64
    b.enter("x", ("batch", 4), 20)
    b.gate(Maximum(name="m", x="x", value="y", shift=0, chunks=5), wire("y", ("batch", 1), 21))
    b.output("y")
    plan, asked = b.build(), dict[str, int]()
    honest = audit.TagReading.take_bits

    def noted(self: audit.TagReading, name: str) -> BitShare:
        found = cast(SparseTags, honest(self, name))

        def some(start: int, stop: int) -> np.ndarray:
            asked[name] = max(asked.get(name, 0), stop - start)
            return found.part(start, stop)

        return SparseTags(found.shape, found.width, found.at, some, 0)  # nobody asks for all of them

    monkeypatch.setattr(tags, "WINDOW", window)
    monkeypatch.setattr(tags.cores, "threads", lambda: 1)  # else each thread asks for its part of a window
    monkeypatch.setattr(audit.TagReading, "take_bits", noted)
    make_world(plan, {}, 2, checked=True).run({"x": RNG.integers(-999, 999, (rows, 4))}, rows)
    shape = Comparison(21, 5)
    leaves = {"leaf_mask": shape.mask_width, "node": shape.node_words}
    assert asked == {name: window * words for name, words in {**leaves, "node0": 7, "fresh0": 1}.items()}
