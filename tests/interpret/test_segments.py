"""What is dealt in segments: the plan alone says which, answers do not depend on them, and nothing outlives its use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from mpc.entry import WEIGHTS, EntryId
from mpc.errors import IntegrityError, LocalProtocolError, PlanError, ReuseError
from mpc.gates.matmul import Matmul
from mpc.gates.relu import Relu
from mpc.interpret.active.world import CheckedWorld
from mpc.interpret.party import PartyRun
from mpc.interpret.preparing import AllHere, Preparing
from mpc.interpret.run_wires import RunWires
from mpc.interpret.world import World, WorldRun
from mpc.plan.checking import check_windows, step_of
from mpc.plan.cost import plan_cost
from mpc.plan.holding import holdings
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan
from mpc.plan.segments import segments, spans
from mpc.shares import Lane
from parties.agreed.memory import needed_memory
from tests.support.plans import Builder, wire
from tests.support.vectors import every_gate
from tests.support.worlds import seed

B = "batch"
BATCH, PARTIES = 3, 3
RUN = EntryId(1)
SIZES = [1, 500, 20_000]
"""Bytes of a segment: a gate each, a few gates, nearly all."""


def deep(layers: int, width: int = 8) -> Plan:
    """A chain of products and ReLUs that share one weight."""
    b = Builder()
    b.enter("w", (width, width), 8, session=True)
    b.enter("x0", (B, width), 20)
    for n in range(layers):
        b.gate(Matmul(name=f"m{n}", x=f"x{n}", weight="w", out=f"z{n}"), wire(f"z{n}", (B, width), 36))
        out = wire(f"x{n + 1}", (B, width), 20)
        b.gate(Relu(name=f"r{n}", x=f"z{n}", out=f"x{n + 1}", shift=0), out)
    b.output(f"x{layers}")
    return b.unchecked()


def world(plan: Plan, checked: bool = False, parties: int = PARTIES) -> World:
    rng = np.random.default_rng(0)
    weights = {gate.out: rng.integers(-9, 9, plan.wire[gate.out].sizes) for gate in plan.weights}
    made: World = (CheckedWorld if checked else World)(plan, weights, parties, seed(1))
    return made


def twice(made: World) -> list[WorldRun]:
    rng = np.random.default_rng(1)
    bound = made.plan.bind(BATCH)
    given = {each.wire: rng.integers(-99, 99, bound.wire[each.wire].sizes) for each in made.plan.inputs}
    return [made.run(given, BATCH) for _ in range(2)]


def told(made: World, run: WorldRun) -> tuple[object, ...]:
    """All but checks, which the plan's digest is in: there are as many as windows."""
    plan = made.plan.bind(BATCH)
    windows = len(check_windows(plan)) if plan.is_checked else 0
    steps = [each for each in range(len(run.sent)) if not plan.is_checked or step_of(plan, each) is not None]
    assert len(steps) == len(run.sent) - 4 * windows
    return (
        {name: out.tobytes() for name, out in run.outputs.items()},
        run.transcripts,
        [run.sent[each] for each in steps],
        run.dealt - 16 * windows,
        [run.payloads[each] for each in steps],
    )


@pytest.mark.parametrize("security", ["passive", "active"])
@pytest.mark.parametrize("size", SIZES)
def test_segments_are_all_that_is_dealt_in_an_order_in_which_it_can_be(size: int, security: Any) -> None:
    plan = every_gate().with_security(security).with_segments(size).bind(BATCH)
    parts, cost = segments(plan, RUN), plan_cost(plan.with_segments(size), BATCH)
    gates = [gate for part in parts for gate in part.gates]
    assert {*gates} == {*plan.online} and len(gates) == len(plan.online)
    assert (parts[0].start, parts[-1].stop, sum(part.held for part in parts)) == (0, cost.dealt, cost.held)
    assert all(one.stop == other.start for one, other in zip(parts, parts[1:], strict=False))
    written = {gate.out for gate in plan.weights}
    for gate in gates:
        assert written.issuperset(gate.reads)
        written.update(gate.writes)
    starts = [first for first, _ in spans(plan, parts)]
    assert starts == sorted(starts)
    for part in parts:
        dealt = [gate for gate in part.gates if gate.correlations(plan.wire)]
        assert part.held <= size or len(dealt) <= 1 or part is parts[-1]


def test_a_plan_that_says_nothing_has_one_segment_and_the_bytes_that_it_had() -> None:
    plan = every_gate()
    assert len(segments(plan.bind(BATCH), RUN)) == len(segments(plan.bind(BATCH), WEIGHTS)) == 1
    assert b"segment" not in plan.canonical
    other = plan.with_segments(500)
    assert other.digest != plan.digest and parse_plan(other.canonical).segment_bytes == 500
    assert other.with_segments(None).canonical == plan.canonical
    for wrong in (b"0", b"-1", b"true", b"1.5"):
        with pytest.raises(PlanError):
            parse_plan(other.canonical.replace(b'"segment_bytes":500', b'"segment_bytes":' + wrong))


@pytest.mark.parametrize("checked", [False, True])
def test_many_segments_give_what_one_gives_bit_for_bit(checked: bool) -> None:
    """Outputs, transcripts, each payload, rounds and what is dealt; whether parties prepare ahead or as they go."""
    plan = every_gate().with_security("active" if checked else "passive")
    made = world(plan, checked)
    whole = [told(made, run) for run in twice(made)]
    for size in SIZES[:2]:
        for window in (None, 1):
            made = world(plan.with_segments(size), checked)
            made.window, made.forgets = window, True
            runs = [made.run({"x": np.random.default_rng(1).integers(-99, 99, (BATCH, 2, 2))}, BATCH) for _ in range(2)]
            assert [told(made, run) for run in runs] == whole


class Watched(AllHere):
    """Says when segments were checked and let go of; one of them is not what was signed."""

    def __init__(self, altered: int | None = None) -> None:
        self.altered, self.events = altered, list[tuple[str, int]]()

    def check(self, number: int) -> None:
        if number == self.altered:
            raise IntegrityError("altered")
        self.events.append(("checked", number))

    def release(self, number: int) -> None:
        self.events.append(("released", number))


def party(plan: Plan, watched: Watched, window: int | None) -> tuple[PartyRun, Mapping[str, np.ndarray], WorldRun]:
    """Party 0 of a run, what it is given, and the run that all parties had."""
    made = world(plan)
    [run, _] = twice(made)
    bound = plan.bind(BATCH)
    _, bundles = world(plan).deal(bound, bound.online, 1, BATCH)
    lane, key = Lane.passive(0), made.transcript_key
    own = PartyRun(bound, lane, bundles[0], made.sessions[0], key, arrivals=watched, window=window)
    return own, {each.wire: run.public[each.wire] for each in plan.inputs}, run


def evaluate(own: PartyRun, given: Mapping[str, np.ndarray], run: WorldRun) -> int:
    """Evaluate against the other parties' payloads; return how many were sent."""
    own.prepare()
    steps, received = own.steps(given), None
    for number, sent in enumerate(run.payloads):
        try:
            payload = next(steps) if received is None else steps.send(received)
        except IntegrityError:
            return number
        assert bytes(payload) == sent[0]
        received = sent[1:]
    with pytest.raises(StopIteration):
        steps.send(received)
    return len(run.payloads)


@pytest.mark.parametrize("window", [None, 1, 3_000])
def test_a_segment_is_checked_before_its_first_opening_and_let_go_of_behind_its_last_gate(window: int | None) -> None:
    plan = deep(4).with_segments(1)
    watched = Watched()
    own, given, run = party(plan, watched, window)
    assert evaluate(own, given, run) == len(run.payloads)
    count = len(segments(plan.bind(BATCH), RUN))
    assert [number for what, number in watched.events if what == "checked"] == [*range(count)]
    assert sorted(number for what, number in watched.events if what == "released") == [*range(count)]
    if window == 1:  # one at a time: the chain's third gate is checked when its first is over
        order = watched.events
        assert order.index(("released", 0)) < order.index(("checked", 3))


@pytest.mark.parametrize("altered", [1, 3, 5])
def test_nothing_is_opened_with_a_segment_that_is_not_what_was_signed(altered: int) -> None:
    plan = deep(3).with_segments(1)
    bound = plan.bind(BATCH)
    first, _ = spans(bound, segments(bound, RUN))[altered]
    own, given, run = party(plan, Watched(altered), 1)
    assert evaluate(own, given, run) == first < len(run.payloads)
    own, given, run = party(plan, Watched(altered), None)
    with pytest.raises(IntegrityError, match="altered"):  # where the window has room for it, before anything is sent
        own.prepare()


def test_wires_are_gone_when_nobody_reads_them() -> None:
    plan = deep(5)
    own, given, run = party(plan, Watched(), None)
    assert evaluate(own, given, run) == len(run.payloads)
    assert own.wires.held == {"x5"}
    kept = RunWires(plan.bind(BATCH), wanted=["z1"], replayed=True)
    with pytest.raises(LocalProtocolError, match="evaluated alone"):
        RunWires(plan.bind(BATCH)).replayed(plan.online[0])
    assert not kept.held


def test_what_a_run_holds_does_not_grow_with_its_depth() -> None:
    shallow, far = (deep(layers, 64).with_segments(1 << 16) for layers in (4, 16))
    window = 1 << 17
    assert plan_cost(far, 32).held > 3.9 * plan_cost(shallow, 32).held > 3.9 * window
    assert needed_memory(far, 32, window) == needed_memory(shallow, 32, window) < needed_memory(shallow, 32)
    assert max(each.live for each in holdings(far.bind(32))) == max(each.live for each in holdings(shallow.bind(32)))
    some, more = (deep(layers, 64).with_segments(1 << 16).with_security("active") for layers in (16, 32))
    assert [len(check_windows(each.bind(32))) for each in (some, more)] == [16, 32]
    least, most = (needed_memory(each, 32, window) for each in (some, more))
    assert least <= most <= least + 16 * 16 * 4 < needed_memory(some, 32) / 5  # but for its own zeros, of every window


def test_a_run_is_granted_the_segments_that_are_evaluated_at_one_step_and_one_that_comes() -> None:
    plan = every_gate().with_segments(500)
    bound = plan.bind(BATCH)
    parts = segments(bound, RUN)
    assert parts is segments(bound, EntryId(7)), "those of all runs are alike, and computed once"
    evaluated = spans(bound, parts)
    together = max(
        sum(part.held for part, (first, last) in zip(parts, evaluated, strict=True) if first <= step <= last)
        for step in range(max(last for _, last in evaluated) + 1)
    )
    total, largest = sum(part.held for part in parts), max(part.held for part in parts)
    assert largest < together < total - largest, "else the plan shows nothing"
    saved = needed_memory(plan, BATCH, None) - needed_memory(plan, BATCH, 1)
    assert saved == 4 * total - 2 * together - 4 * largest, "what is made takes more than what waits"


def test_what_is_prepared_is_taken_once() -> None:
    plan = deep(2).with_segments(1).bind(BATCH)
    preparing, first = Preparing(segments(plan, RUN), AllHere(), 1), plan.online[0]
    with pytest.raises(LocalProtocolError, match="is not prepared"):
        preparing.take(first, lambda gate: gate.name)
    preparing.ahead(lambda gate: gate.name)
    assert preparing.take(first, lambda gate: gate.name) == first.name and not preparing.whole
    with pytest.raises(LocalProtocolError, match="is not prepared, or what it writes would be written twice"):
        preparing.take(first, lambda gate: gate.name)
    with pytest.raises(ReuseError):
        preparing.ahead(lambda gate: gate.name)
    assert preparing.take(plan.online[-1], lambda gate: gate.name) == plan.online[-1].name and preparing.whole
