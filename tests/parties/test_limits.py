"""What a run is granted is what it takes: measured at the provider and at a party, for every kind of gate."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mpc import tables
from mpc.compiler.compile import compile_model
from mpc.compiler.roles import Roles
from mpc.correlations import Bundle, BundleId
from mpc.entry import EntryId
from mpc.errors import PlanError, SessionError
from mpc.gates.base import Gate
from mpc.gates.convolution import Convolution
from mpc.gates.fourier import Clamp, Fourier
from mpc.gates.linear import Combine
from mpc.gates.matmul import Matmul
from mpc.gates.maximum import Maximum
from mpc.gates.moves import Take
from mpc.gates.multiply import Multiply
from mpc.gates.relu import Relu
from mpc.gates.step import Step
from mpc.gates.truncate import Truncate
from mpc.interpret.dealer import Final, SessionMasks, deal
from mpc.interpret.session_wires import SessionWires
from mpc.plan.checking import check_windows, dealt_tags
from mpc.plan.cost import plan_cost
from mpc.plan.holding import holdings
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan, Security
from mpc.plan.program import Paced, Program, Rate
from mpc.plan.segments import Segment, segments
from mpc.shares import Masked, Share
from mpc.windows import Windows
from mpc.wires import Masking
from parties import machine
from parties.agreed.memory import deal_memory, needed_to_deal, parsed_memory, plan_memory, run_memory
from parties.agreed.terms import Terms
from parties.client.running.feeds import is_room_for_two, split
from parties.config.models import USUAL_MEMORY, Limits
from parties.provider.bundles import DealtBundle
from parties.wire.transport import FRAME_BYTES
from tests.support.plans import Builder, Shape, wire
from tests.support.worlds import make_world, seed

ROOT = Path(__file__).parents[2]

B = "batch"
AMPLE = Limits(max_memory_bytes=1 << 50, max_batch=1 << 20)
RUN = 2  # the world's second: the layouts of weights are there


class Peak:
    """Bytes that a block of code had allocated at most, and has still."""

    most = left = 0


@contextmanager
def measured() -> Iterator[Peak]:
    found = Peak()
    gc.collect()
    tracemalloc.start()
    try:
        yield found
        found.most = tracemalloc.get_traced_memory()[1]
        gc.collect()
        found.left = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


class Measured:
    """A session of which the provider's part and one party's part can be done again, alone."""

    def __init__(self, plan: Plan, batch: int, parties: int) -> None:
        rng, self.parties, self.bound = np.random.default_rng(0), parties, plan.bind(batch)
        weights = {gate.out: rng.integers(-3, 4, plan.wire[gate.out].sizes) for gate in plan.weights}
        inputs = {each.wire: rng.integers(-3, 4, self.bound.wire[each.wire].sizes) for each in plan.inputs}
        self.world = make_world(plan, weights, parties, checked=plan.is_checked)
        for _ in range(RUN):
            self.run = self.world.run(inputs, batch)
        self.given = {each.wire: self.run.public[each.wire] for each in plan.inputs}
        self.world.forgets = True
        self.id = BundleId.of_run(seed(1).derive("session").secret, RUN, batch)
        self.seeds = [seed(1).derive("party", index, RUN) for index in range(parties)]
        self.corrected, self.parts = self.deal(self.world.masks)

    def deal(self, masks: SessionMasks, final: Final | None = None) -> tuple[int, list[memoryview]]:
        """Deal the run once more: (whose the corrections are, all of them as they were dealt if nothing takes them)."""
        parts: list[memoryview] = []
        final = parts.append if final is None else final
        kind, _ = self.world.dealing(self.bound, self.id.entry)
        dealt = deal(self.bound.online, self.bound.wire, self.id, self.seeds, masks, final, kind=kind)
        return dealt.corrected, parts

    def evaluate(self, index: int, wires: SessionWires, corrections: bytes | None = None) -> None:
        """All that one party does, its peers' messages those of the run that was; checks its own."""
        if index == self.corrected and corrections is None:
            corrections = b"".join(self.parts)  # its own copy, made at once
        tags = dealt_tags(self.bound, self.id.entry)
        bundle = Bundle(self.id, self.seeds[index], self.bound.online, self.bound.wire, corrections, tags)
        kept, self.world.sessions[index] = self.world.sessions[index], wires
        party = self.world.make_party(self.bound, index, bundle, {})
        self.world.sessions[index] = kept
        party.prepare()
        steps = party.steps(self.given)
        payload = next(steps)
        for sent in self.run.payloads:
            assert payload == sent[index]
            try:
                payload = steps.send([each for sender, each in enumerate(sent) if sender != index])
            except StopIteration:
                break
        else:
            raise AssertionError("the run has more steps than were sent")


def entered(shape: Shape, bits: int, **weights: Shape) -> Builder:
    b = Builder()
    for name, each in weights.items():
        b.enter(name, each, 10, session=True)
    b.enter("x", shape, bits)
    return b


def one(
    gate: Gate, out: Shape, bits: int, scale: Fraction | int = 1, shape: Shape = (), of: int = 20, **w: Shape
) -> Plan:
    """A plan of one gate, from x to y."""
    b = entered(shape, of, **w)
    b.gate(gate, wire("y", out, bits, scale))
    b.output("y")
    return b.build()


def convolved(filters: Shape, size: int, pads: int, relu: bool = False) -> Plan:
    axes = ((pads, pads),) * 2
    windows = Windows(kernel=filters[2:], strides=(1, 1), dilations=(1, 1), pads=axes)
    b = entered((B, filters[1], size, size), 10, w=filters)
    out = (B, filters[0], *windows.positions((size, size)))
    masking = Masking.DERIVED if relu else Masking.DRAWN
    b.gate(Convolution(name="c", x="x", weight="w", windows=windows, out="z"), wire("z", out, 36, masking=masking))
    if relu:
        b.gate(Relu(name="r", x="z", out="y", shift=12), wire("y", out, 24, Fraction(1, 1 << 12)))
    b.output("y" if relu else "z")
    return b.build()


def maximum(n: int, rows: int, bits: int, **settings: object) -> Plan:
    gate = Maximum(name="m", x="x", shift=0, **settings)
    return one(gate, (B, rows, 1), bits + 1, 1, (B, rows, n), bits)


def products_of_secrets(m: int, k: int, n: int) -> Plan:
    b = entered((B, m, k), 20)
    b.enter("v", (k, n), 20)
    b.gate(Matmul(name="a", x="x", y="v", out="y"), wire("y", (B, m, n), 55))
    b.output("y")
    return b.build()


def taken_and_combined() -> Plan:
    b = entered((B, 20_000), 20)
    b.gate(
        Take(name="t", x="x", axis=1, indices=(*range(20_000), *range(20_000)), out="l"),
        wire("l", (B, 40_000), 20, masking=Masking.INHERITED),
    )
    combine = Combine(name="c", xs=("l", "l", "l"), factors=(2, 3, -1), out="s")
    b.gate(combine, wire("s", (B, 40_000), 24, masking=Masking.INHERITED))
    b.gate(Truncate(name="u", x="s", out="y", shift=0), wire("y", (B, 40_000), 25))
    b.output("y")
    return b.build()


WAVES = {"name": "f", "x": "x", "out": "y", "window": 24, "constant": 0, "cosines": (1,) * 20, "sines": (1,) * 20,
         "dealt_bits": 8, "table": tables.sincos_digest()}  # fmt: skip
CLAMP = Clamp(low=-5, high=5, below=0, above=1, shift=0)
N = 30_000
# (plan, batch): wide enough that what does not grow with the plan does not count
PLANS: dict[str, tuple[Callable[[], Plan], int]] = {
    "convolution and relu": (lambda: convolved((16, 16, 3, 3), 16, 1, relu=True), 8),
    "a wide convolution": (lambda: convolved((48, 48, 3, 3), 26, 1), 1),
    "a convolution from few channels": (lambda: convolved((64, 3, 7, 7), 40, 3), 2),
    "a small convolution": (lambda: convolved((6, 1, 5, 5), 28, 2), 1),
    "pointwise": (lambda: convolved((256, 64, 1, 1), 20, 0), 2),
    "one large window": (lambda: convolved((4, 16, 30, 30), 30, 0), 9),
    "pairs": (lambda: maximum(2, 4_000, 24, value="y", rectify=True), 2),
    "windows of nine": (lambda: maximum(9, 500, 24, value="y", rectify=True), 2),
    "windows of nine, narrow": (lambda: maximum(9, 700, 5, value="y", rectify=True), 2),
    "windows of nine, wide": (lambda: maximum(9, 300, 47, value="y"), 2),
    "128 candidates": (lambda: maximum(128, 4, 24, value="y", rectify=True), 2),
    "128 candidates, narrow": (lambda: maximum(128, 5, 5, value="y", rectify=True), 2),
    "index of 128": (lambda: maximum(128, 4, 24, index="y"), 2),
    "one level": (lambda: one(Step(name="s", x="x", levels=(1,), shift=4, out="y"), (B, N, 1), 1, 1, (B, N)), 1),
    "64 levels": (
        lambda: one(
            Step(name="s", x="x", levels=tuple(range(64)), shift=4, out="y"), (B, N // 64, 64), 1, 1, (B, N // 64)
        ),
        1,
    ),
    "relu": (lambda: one(Relu(name="r", x="x", shift=6, out="y"), (B, N), 14, Fraction(1, 64), (B, N)), 1),
    "truncate": (lambda: one(Truncate(name="t", x="x", shift=6, out="y"), (B, N), 15, Fraction(1, 64), (B, N)), 1),
    "multiply": (lambda: one(Multiply(name="m", x="x", y="x", out="y"), (B, N), 40, 1, (B, N)), 1),
    "matmul": (lambda: one(Matmul(name="a", x="x", weight="w", out="y"), (B, 90), 40, 1, (B, 90), w=(90, 90)), 400),
    "secret matrices": (lambda: products_of_secrets(60, 60, 60), 10),
    "a wide secret matrix": (lambda: products_of_secrets(8, 300, 300), 1),
    "taken and combined": (taken_and_combined, 1),
    "series": (lambda: one(Fourier(**WAVES), (B, N // 8), 40, 1, (B, N // 8)), 1),
    "series, clamped": (lambda: one(Fourier(**WAVES, clamp=CLAMP), (B, N // 8), 40, 1, (B, N // 8)), 1),
}


SHAPES = {
    "a wide convolution",
    "a convolution from few channels",
    "a small convolution",
    "pointwise",
    "one large window",
    "windows of nine, narrow",
    "windows of nine, wide",
    "128 candidates, narrow",
    "a wide secret matrix",
    "series",
}
"""Further shapes of gates that the other plans have."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SHAPES else []) for name in PLANS]
)
def test_a_run_takes_what_it_is_granted_and_not_much_less(name: str) -> None:
    make, batch = PLANS[name]
    plan = make()
    granted, parties = run_memory(plan, batch, AMPLE), 3
    session = Measured(plan, batch, parties)
    with measured() as provider:
        dealt = session.deal(session.world.masks)
    assert dealt[0] == RUN % parties
    taken = [provider.most]
    for index in (session.corrected, 0):
        with measured() as party:
            session.evaluate(index, session.world.sessions[index])
        taken.append(party.most)
    assert granted / 8 < max(taken) <= granted, f"{name}: {granted} granted, {taken} taken"


@pytest.mark.parametrize("segment", [1 << 19, 1 << 21])
def test_a_run_in_segments_takes_what_its_window_is_granted(segment: int) -> None:
    """Of what is dealt ahead the provider holds a window, and whose the corrections are another one, as they came."""
    b, window, batch, parties = entered((B, 250), 20), 1 << 22, 8, 3
    for n in range(60):
        b.gate(Relu(name=f"r{n}", x=f"z{n}" if n else "x", out=f"z{n + 1}", shift=0), wire(f"z{n + 1}", (B, 250), 20))
    b.output("z60")
    plan = b.build().with_segments(segment)
    granted = run_memory(plan, batch, AMPLE.model_copy(update={"max_window_bytes": window}))
    assert 1.5 * granted < run_memory(plan, batch, AMPLE)
    session = Measured(plan, batch, parties)
    session.world.window = window
    with measured() as provider:
        session.deal(session.world.masks, len)
    taken = [provider.most + window]
    for index in range(parties):
        came = b"".join(session.parts) if index == session.corrected else None
        with measured() as party:
            session.evaluate(index, session.world.sessions[index], came)
        taken.append(party.most + window * (came is not None))
    assert granted / 8 < max(taken) <= granted, f"{granted} granted, {taken} taken"


CHECKED = ("convolution and relu", "windows of nine", "truncate", "matmul", "secret matrices", "series, clamped")


@pytest.mark.parametrize("name", CHECKED)
def test_a_run_that_is_checked_takes_what_it_is_granted(name: str) -> None:
    make, batch = PLANS[name]
    plan = make().with_security("active")
    granted, session = run_memory(plan, batch, AMPLE), Measured(plan, batch, 3)
    with measured() as provider:
        session.deal(session.world.masks)
    taken = [provider.most]
    for index in (RUN % 3, 0):
        with measured() as party:
            session.evaluate(index, session.world.sessions[index])
        taken.append(party.most)
    assert granted / 8 < max(taken) <= granted, f"{name}: {granted} granted, {taken} taken"


@pytest.mark.parametrize("window", [1, 1 << 40])
@pytest.mark.parametrize("security", ["passive", "active"])
@pytest.mark.parametrize("name", CHECKED)
def test_the_provider_is_granted_what_dealing_takes(name: str, security: Security, window: int) -> None:
    """What waits to be sent is a window, or one gate's, beside the gate that is being dealt."""
    make, batch = PLANS[name]
    plan = make().with_security(security)
    session, granted, parts = Measured(plan, batch, 3), needed_to_deal(plan, batch, window), list[memoryview]()

    def wait(part: memoryview) -> None:
        while parts and sum(map(len, parts)) + len(part) > window:
            del parts[0]
        parts.append(part)

    with measured() as provider:
        session.deal(session.world.masks, wait)
    assert granted / 8 < provider.most <= granted, f"{granted} granted, {provider.most} taken"


def test_what_is_being_sent_counts_until_it_is_sent() -> None:
    terms = Terms(bytes(32), "provider", ("a", "b"), (b"a" * 32, b"b" * 32))
    parts = tuple(Segment((), start, start + 4, 4) for start in (0, 4))
    bundle = DealtBundle(BundleId.of_run(bytes(32), 1, 1), [], terms, parts, held=0, window=4)
    bundle.forsake(SessionError("it would be held back"))
    bundle.add(memoryview(b"1234"))
    sending = bundle.corrections(parts[0])
    assert bytes(next(sending)) == b"1234"
    with pytest.raises(SessionError, match="held back"):
        bundle.add(memoryview(b"5678"))
    assert next(sending, None) is None
    bundle.add(memoryview(b"5678"))


def test_small_corrections_are_sent_together() -> None:
    terms = Terms(bytes(32), "provider", ("a", "b"), (b"a" * 32, b"b" * 32))
    sizes, room = (5, 7, FRAME_BYTES - 12, 1, 2 * FRAME_BYTES, 3), 8 * FRAME_BYTES
    parts = (Segment((), 0, sum(sizes), 0), Segment((), sum(sizes), sum(sizes) + 2, 0))
    bundle = DealtBundle(BundleId.of_run(bytes(32), 1, 1), [], terms, parts, held=0, window=room)
    dealt = [bytes([number]) * size for number, size in enumerate((*sizes, 2))]
    for part in dealt:
        bundle.add(memoryview(part))
    sent = [[bytes(part) for part in bundle.corrections(each)] for each in parts]
    assert [[len(part) for part in some] for some in sent] == [[FRAME_BYTES, 1, 2 * FRAME_BYTES, 3], [2]]
    assert b"".join(sum(sent, [])) == b"".join(dealt)


def test_security_active_the_provider_is_granted_a_window_of_what_parties_hold_whole() -> None:
    """C's 128 rows are more than 3 GiB at a party until their check, and never lie together at the provider."""
    lenet = compile_model(ROOT / "benchmarks/networks/lenet_c.onnx", roles=Roles(security="active")).plan
    usual = Limits(max_memory_bytes=USUAL_MEMORY)
    granted = deal_memory(lenet, 128, usual)
    assert usual.max_window_bytes < granted < 0.6 * run_memory(lenet, 128, usual)
    with pytest.raises(PlanError, match="dealing this run needs"):
        deal_memory(lenet, 128, Limits(max_memory_bytes=granted - 1))


def long_plan(shape: Shape) -> Builder:
    """Six hundred gates, one behind another."""
    b = entered(shape, 10)
    for number in range(600):
        gate = Combine(name=f"c{number}", xs=(f"s{number}" if number else "x",), factors=(1,), out=f"s{number + 1}")
        b.gate(gate, wire(f"s{number + 1}", shape, 11, masking=Masking.INHERITED))
    b.gate(Truncate(name="t", x="s600", shift=2, out="y"), wire("y", shape, 12, Fraction(1, 4)))
    b.output("y")
    return b


def ask(plan: Plan, batch: int) -> None:
    """Ask of a plan what parties do of every run; it remembers some of it."""
    bound = plan.bind(batch)
    plan_cost(plan, batch), run_memory(plan, batch, AMPLE), segments(bound, EntryId(1)), holdings(bound)


def test_what_a_plan_remembers_is_granted_with_it() -> None:
    """However many batches its runs have."""
    data = long_plan((B, 4)).build().canonical
    ask(parse_plan(data), 1)
    with measured() as asked:
        plan = parse_plan(data)
        for batch in range(1, 9):
            ask(plan, batch)
    assert parsed_memory(len(data)) / 3 < asked.left <= parsed_memory(len(data))


def test_what_the_plan_of_a_program_remembers_is_granted_with_it() -> None:
    """Each run has another rate, and so a plan of its own, in its own batches."""
    b = long_plan((4, 4))
    b.state("w", (4, 4), 20)
    update = Combine(name="update", xs=("w", "s600"), factors=(1, 1), out="w_next")
    b.gate(update, wire("w_next", (4, 4), 20, masking=Masking.INHERITED))
    b.carry("w", "w_next")
    rates = tuple(Rate(first=run, k=run) for run in range(1, 7))
    b.program = Program(steps=6, rates=rates, paced=(Paced(gate="update", operand=1),))
    plan = b.build()
    data = plan.canonical
    ask(parse_plan(data).at(1), 1)
    with measured() as asked:
        plan = parse_plan(data)
        for run in range(1, 7):
            for batch in range(1, 4):
                ask(plan.at(run), batch)
    assert plan_memory(plan, AMPLE) / 3 < asked.left <= plan_memory(plan, AMPLE)


def test_a_plan_takes_what_it_is_granted_when_it_is_parsed() -> None:
    data = long_plan((B, 4)).build().canonical
    parse_plan(data)
    with measured() as parsing:
        plan = parse_plan(data)
    assert plan.canonical == data
    assert parsed_memory(len(data)) / 4 < parsing.left < parsing.most <= parsed_memory(len(data))


def test_the_provider_adds_shares_up_one_party_after_another() -> None:
    taken = []
    for parties in (3, 9):
        session = Measured(maximum(9, 500, 24, value="y"), 2, parties)
        with measured() as provider:
            session.deal(session.world.masks)
        taken.append(provider.most)
    assert taken[1] < 1.05 * taken[0]


def test_weights_take_what_their_session_is_granted() -> None:
    """Filters that slide in two ways, a matrix, a stack of them, factors."""
    square = (4, 64, 64)
    b = entered((B, 48, 3, 3), 10, filters=(48, 48, 3, 3), matrix=(128, 128), stack=square, factors=square)
    b.enter("u", (B, 128), 10)
    b.enter("v", (B, 4, 64, 64), 10)
    for name, pad in (("c", 0), ("d", 1)):
        windows = Windows(kernel=(3, 3), strides=(3, 3), dilations=(1, 1), pads=((0, pad), (0, pad)))
        gate = Convolution(name=name, x="x", weight="filters", windows=windows, out=name)
        b.gate(gate, wire(name, (B, 48, 1, 1), 40))
    b.gate(Matmul(name="a", x="u", weight="matrix", out="a"), wire("a", (B, 128), 40))
    b.gate(Matmul(name="s", x="v", weight="stack", out="s"), wire("s", (B, 4, 64, 64), 40))
    b.gate(Multiply(name="m", x="v", weight="factors", out="m"), wire("m", (B, 4, 64, 64), 40))
    b.output("c", "d", "a", "s", "m")
    plan = b.build()
    granted = plan_memory(plan, AMPLE)
    session = Measured(plan, 1, 2)
    with measured() as party:
        wires = SessionWires()
        for name, masked in session.world.sessions[1].masked.items():
            wires.masked[name] = Masked(masked.public.copy(), Share(masked.known_mask().values.copy()))
        session.evaluate(1, wires)
    assert granted / 2 < party.left <= granted
    assert party.most <= granted + run_memory(plan, 1, AMPLE)


def test_a_batch_is_split_into_runs_that_fit_the_memory() -> None:
    """C would need more than a party's usual limit for 1,024 rows at once; a small model does not, and is not split."""
    lenet = compile_model(ROOT / "benchmarks/networks/lenet_c.onnx").plan
    sizes = split(lenet, 1024)
    assert sum(sizes) == 1024 and len(sizes) > 1 and max(sizes) - min(sizes) <= 1
    usual = Limits(max_memory_bytes=USUAL_MEMORY)
    two = 2 * run_memory(lenet, max(sizes), usual)  # one is prepared while another is online
    assert plan_memory(lenet, usual) + two <= usual.memory
    with pytest.raises(PlanError, match="memory"):
        run_memory(lenet, 1024, usual)
    small = compile_model(ROOT / "examples/breast_cancer_lr.onnx").plan
    assert split(small, 1024) == [1024] and split(small, 2049) == [683, 683, 683]


def test_security_active_a_batch_is_split_into_runs_that_fit_the_memory_with_one_check_each() -> None:
    """C's 128 rows are one run, for six rounds more than unchecked; two such runs are not under way at once."""
    path = ROOT / "benchmarks/networks/lenet_c.onnx"
    lenet, unchecked = (compile_model(path, roles=Roles(security=each)).plan for each in ("active", "passive"))
    usual, sizes = Limits(max_memory_bytes=USUAL_MEMORY), split(lenet, 1024)
    assert sum(sizes) == 1024 and max(sizes) - min(sizes) <= 1 and split(lenet, 128) == [128]
    assert plan_memory(lenet, usual) + run_memory(lenet, max(sizes), usual) <= usual.memory
    assert len(check_windows(lenet.bind(max(sizes)))) == 1 < len(check_windows(lenet.bind(1024)))
    assert plan_cost(lenet, 128).rounds == plan_cost(unchecked, 128).rounds + 6
    assert is_room_for_two(lenet, 32, 32) and is_room_for_two(unchecked, 1024, 1024)
    assert not is_room_for_two(lenet, max(sizes), max(sizes))


def test_memory_is_the_machine_s_or_the_container_s_unless_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "container_memory", lambda: None)
    physical = machine.memory()
    assert physical > 1 << 28 and Limits().memory == physical * 3 // 4
    monkeypatch.setattr(machine, "container_memory", lambda: 1 << 28)
    assert Limits().memory == 3 << 26 and Limits(max_memory_bytes=5 << 30).memory == 5 << 30
    monkeypatch.setattr(machine, "container_memory", lambda: 1 << 60)
    assert machine.memory() == physical
