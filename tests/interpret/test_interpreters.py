"""Interpreters hold gates to what they declare, keep wires single-assignment, and show no secret."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import pytest

from mpc import field as fp
from mpc.correlations import Bundle, BundleId
from mpc.errors import EncodingError, LocalProtocolError, PlanError, ReuseError
from mpc.gates.base import Correlation, Evaluation, Gate, Opening, drawn_mask
from mpc.gates.convolution import Convolution
from mpc.gates.matmul import Matmul
from mpc.gates.moves import Reshape
from mpc.gates.multiply import Multiply
from mpc.gates.truncate import Truncate
from mpc.interpret import reference
from mpc.interpret.dealer import Dealer, Dealt, SessionMasks, deal
from mpc.interpret.party import Party, PartyRun
from mpc.interpret.session_wires import SessionWires
from mpc.plan.ends import PlanOutput
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan
from mpc.prg import Seed, expand_field
from mpc.shares import BitShare, Lane, Share
from mpc.windows import Windows
from mpc.wires import Masking, Wires
from tests.support import naive
from tests.support.plans import OWNER, Builder, wire, with_parts
from tests.support.vectors import every_gate
from tests.support.worlds import Trial, deal_by_hand, make_world, openings, seed

B = "batch"


class Odd(Gate):
    """Copies x under a fresh mask, or does one thing wrong."""

    kind: ClassVar[str] = "odd"
    x: str = "x"
    out: str = "y"
    fault: str = ""

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.x,)

    @property
    def writes(self) -> tuple[str, ...]:
        return (self.out,)

    def check(self, wires: Wires) -> None: ...

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        if self.fault == "one round more":
            return ((Opening("y", wires[self.out].sizes),),) * 2
        return ((Opening("y", wires[self.out].sizes),),)

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        return (drawn_mask(wires[self.out]), Correlation("d", wires[self.x].sizes, dependent=True))

    def reference(self, run: Any) -> None:
        run.set(self.out, run.value(self.x))

    def deal(self, run: Dealer) -> None:
        run.draw_mask(self.out)
        r, fault = run.mask(self.x), self.fault
        if fault != "deals none":
            run.dependent("d", r.reshape(-1) if fault == "deals another shape" else r)
        if fault == "deals twice":
            run.dependent("d", r)
        if fault == "deals what it did not declare":
            run.dependent("e", r)
        if fault == "deals a dependent value as uniform":
            run.uniform("d")
        if fault == "draws twice":
            run.draw_mask(self.out)

    def prepare(self, run: Party) -> tuple[Share, Share]:
        mask, d = run.take_mask(self.out), run.take("d")
        if self.fault == "takes twice":
            run.take("d")
        if self.fault == "takes what was not dealt":
            run.take("e")
        if self.fault == "sets a mask twice":
            run.set_mask(self.out, mask)
        return mask, d

    def evaluate(self, run: Party, kept: tuple[Share, Share]) -> Evaluation:
        mask, d = kept
        share: Share | BitShare = run.lane.const(run.public(self.x)) - d + mask
        fault = self.fault
        if fault == "opens another shape":
            share = share.reshape((-1,))
        if fault == "opens bits":
            share = BitShare(share.values, 1)
        (opened,) = yield (share,)
        if fault == "opens once more":
            yield (share,)
        run.set(self.out, opened.reshape(-1) if fault == "writes another shape" else opened)
        if fault == "writes twice":
            run.set(self.out, opened)


def odd_plan(fault: str = "") -> Plan:
    """Not registered, so never in a plan from outside; good enough for an interpreter."""
    b = Builder()
    b.enter("x", (B, 2), 20)
    b.gate(Odd(name="odd", fault=fault), wire("y", (B, 2), 20))
    b.output("y")
    return b.unchecked()


def odd_world(fault: str = "") -> dict[str, np.ndarray]:
    return make_world(odd_plan(fault), {}, 3).run({"x": np.array([[1, -2]])}, 1).outputs


def test_the_odd_gate_is_right_without_a_fault() -> None:
    assert odd_world()["y"].tolist() == [[1, -2]]


@pytest.mark.parametrize(
    "fault",
    [
        "deals none",
        "deals twice",
        "deals another shape",
        "deals what it did not declare",
        "deals a dependent value as uniform",
        "draws twice",
        "takes what was not dealt",
        "sets a mask twice",
        "opens another shape",
        "opens bits",
        "writes another shape",
        "writes twice",
    ],
)
def test_a_gate_that_breaks_its_declaration_is_stopped(fault: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        odd_world(fault)
    assert not re.search(r"\d{7}", str(caught.value))  # no element of anything


@pytest.mark.parametrize("fault", ["takes twice"])
def test_a_gate_that_takes_twice_is_stopped(fault: str) -> None:
    with pytest.raises(ReuseError):
        odd_world(fault)


@pytest.mark.parametrize("fault", ["opens once more", "one round more"])
def test_a_gate_with_other_rounds_than_declared_is_stopped(fault: str) -> None:
    with pytest.raises((LocalProtocolError, KeyError)):
        odd_world(fault)


# ------------------------------------------------------------------ a party's run


def party_runs(plan: Plan, batch: int = 2, parties: int = 2) -> tuple[list[PartyRun], dict[str, np.ndarray]]:
    """Parties of one prepared run of a plan without weights, and a masked input."""
    found = deal_by_hand(plan, parties, batch=batch)
    runs = [PartyRun(found.plan, Lane.passive(i), bundle, SessionWires()) for i, bundle in enumerate(found.bundles)]
    given = {g.wire: found.masks[g.wire] for g in plan.inputs}  # all inputs zero
    return runs, given


def test_a_run_is_prepared_once() -> None:
    runs, _ = party_runs(odd_plan())
    runs[0].prepare()
    with pytest.raises((ReuseError, LocalProtocolError)):
        runs[0].prepare()


def drive(runs: list[PartyRun], given: dict[str, np.ndarray]) -> None:
    running = [run.steps(given) for run in runs]
    payloads = [next(steps) for steps in running]
    while any(payloads):
        following = []
        for index, steps in enumerate(running):
            try:
                following.append(steps.send([p for i, p in enumerate(payloads) if i != index]))
            except StopIteration:
                following.append(b"")
        payloads = following


def test_a_run_is_evaluated_once() -> None:
    runs, given = party_runs(odd_plan())
    for run in runs:
        run.prepare()
    drive(runs, given)
    with pytest.raises(LocalProtocolError, match="written twice"):
        next(runs[0].steps(given))


def test_an_output_is_released_once() -> None:
    runs, given = party_runs(odd_plan())
    for run in runs:
        run.prepare()
    drive(runs, given)
    total = runs[0].output("y")
    for run in runs:
        total = fp.sub(total, expand_field(run.release("y"), total.shape))
    assert not total.any()
    for run in runs:
        with pytest.raises(ReuseError):
            run.release("y")


def test_a_masked_input_of_another_shape_is_refused() -> None:
    runs, given = party_runs(odd_plan())
    runs[0].prepare()
    with pytest.raises(LocalProtocolError, match="shape"):
        next(runs[0].steps({"x": given["x"].reshape(-1)}))


def test_the_number_of_peers_is_the_callers_the_order_is_not() -> None:
    """Additions commute: payloads of peers may come in any order."""
    plan = odd_plan()
    runs, given = party_runs(plan, parties=3)
    for run in runs:
        run.prepare()
    running = [run.steps(given) for run in runs]
    payloads = [next(steps) for steps in running]
    for index, steps in enumerate(running):
        others = [p for i, p in enumerate(payloads) if i != index]
        with pytest.raises(StopIteration):
            steps.send(others[::-1] if index else others)
    assert len({run.transcript.digest for run in runs}) == 1
    assert len({run.output("y").tobytes() for run in runs}) == 1


def test_a_malformed_payload_ends_the_generator() -> None:
    runs, given = party_runs(odd_plan())
    runs[0].prepare()
    steps = runs[0].steps(given)
    next(steps)
    with pytest.raises(EncodingError):
        steps.send([b"short"])
    with pytest.raises(StopIteration):  # terminal: nothing can be sent again
        steps.send([bytes(32)])


def test_transcripts_name_session_run_and_batch() -> None:
    bound = odd_plan().bind(2)
    digests = set()
    for session, run, batch in ((b"a" * 32, 1, 2), (b"b" * 32, 1, 2), (b"a" * 32, 2, 2), (b"a" * 32, 1, 3)):
        bundle = Bundle(BundleId.of_run(session, run, batch), seed(1), bound.online, bound.wire, None)
        digests.add(PartyRun(bound, Lane.passive(0), bundle, SessionWires()).transcript.digest)
    assert len(digests) == 4


def test_once_makes_a_thing_once() -> None:
    session, made = SessionWires(), []
    for _ in range(3):
        session.once("key", lambda: made.append(1))
    assert made == [1]


# ------------------------------------------------------------------ the reference


def linear_plan() -> Plan:
    b = Builder()
    b.enter("x", (B, 2), 20)
    b.gate(Truncate(name="t", x="x", out="y", shift=4), wire("y", (B, 2), 17, Fraction(1, 16)))
    b.output("y")
    return b.build()


def evaluate(x: np.ndarray, plan: Plan | None = None) -> dict[str, np.ndarray]:
    bound = (plan or linear_plan()).bind(1)
    return reference.evaluate(bound, {"x": x}, lambda _, shape: np.zeros(shape, dtype=np.uint64))


@pytest.mark.parametrize("value", [1 << 20, -(1 << 20), (1 << 62), np.iinfo(np.int64).max, np.iinfo(np.int64).min])
def test_a_value_outside_its_bound_is_refused(value: int) -> None:
    with pytest.raises(PlanError, match="leaves the bound of 20 bits"):
        evaluate(np.array([[0, value]]))


@pytest.mark.parametrize("value", [(1 << 20) - 1, 1 - (1 << 20), 0])
def test_a_value_inside_its_bound_is_accepted(value: int) -> None:
    assert evaluate(np.array([[0, value]]))["x"].tolist() == [[0, value]]


def test_a_value_of_another_shape_is_refused() -> None:
    with pytest.raises(PlanError, match="shape"):
        evaluate(np.zeros((2, 2), dtype=np.int64))


def test_the_reference_is_a_function_of_inputs_and_coins() -> None:
    bound = linear_plan().bind(1)
    x = np.array([[8, -8]])
    seen = set()
    for coin in range(64):
        coins = expand_field(seed(coin), (1, 2))
        values = [reference.evaluate(bound, {"x": x}, lambda *_, c=coins: c)["y"].tolist() for _ in range(2)]
        assert values[0] == values[1]
        seen.add(tuple(values[0][0]))
    assert seen == {(0, -1), (0, 0), (1, -1), (1, 0)}


# ------------------------------------------------------------------ whole plans


@pytest.mark.parametrize("parties", [2, 3, 5])
def test_every_gate_in_one_plan(parties: int) -> None:
    rng = np.random.default_rng(parties)
    weights = {
        "w": rng.integers(-(1 << 17), 1 << 17, (4, 3)),
        "b": rng.integers(-(1 << 33), 1 << 33, 3),
        "k": rng.integers(-(1 << 17), 1 << 17, (2, 1, 2)),
        "r": rng.integers(-(1 << 17), 1 << 17, (3, 4)),
    }
    trial = Trial(every_gate(), weights, parties)
    for batch in (1, 4, 1, 33):
        x = rng.integers(-20_000, 20_000, (batch, 2, 2))
        checked = trial.run({"x": x}, batch)
        z = x.transpose(0, 2, 1).reshape(batch, 4) @ weights["w"] + weights["b"]
        assert (checked.values["z"] == z).all()
        floor = np.maximum(z >> 16, 0)
        assert np.isin(checked.values["y"] - floor, (0, 1)).all()
        v, before = checked.values, np.pad(x, [(0, 0), (0, 0), (1, 0)])[..., :2]
        assert (v["c"] == before * weights["k"][:, 0, :1] + x * weights["k"][:, 0, 1:]).all()
        assert np.isin(v["h"] - np.maximum(v["c"] >> 16, 0).max(-1, keepdims=True), (0, 1)).all()
        u = np.stack([2 * v["h"][:, 1], np.zeros((batch, 1)), -3 * v["h"][:, 0]], axis=1)
        assert (v["u"] == u).all() and (v["e"] == 2 * u + weights["b"] - 9).all()
        above = v["e"][..., None] - [-70, 1 << 20]
        assert ((v["o"] == (above >= 0)) | (above > -(1 << 14)) & (v["o"] == 1)).all()
        assert (v["a"] == v["y"] @ weights["r"]).all() and (v["n"] == v["q"] @ weights["r"]).all()
        assert (v["q"] == v["y"]).all()  # the same coins, whatever is opened


def shared_weight() -> Plan:
    """One weight in a stack of matrices, twice as filters of other windows, and element by element."""
    b = Builder()
    b.enter("w", (2, 2, 2), 10, session=True)
    b.enter("x", (B, 2, 2), 10)
    wide, inherited = (B, 1, 2, 2), {"masking": Masking.INHERITED}
    b.gate(Reshape(name="r", x="x", out="stack"), wire("stack", wide, 10, **inherited))
    b.gate(Matmul(name="a", x="stack", weight="w", out="product"), wire("product", (B, 2, 2, 2), 22))
    b.gate(Matmul(name="again", x="stack", weight="w", out="twice"), wire("twice", (B, 2, 2, 2), 22))
    # named as if its layouts were the matrices'
    b.gate(Convolution(name="matmul/w", x="x", weight="w", windows=SLIDE, out="slid"), wire("slid", (B, 2, 1), 22))
    padded = SLIDE.model_copy(update={"pads": ((1, 2),)})
    b.gate(Convolution(name="c", x="x", weight="w", windows=padded, out="padded"), wire("padded", (B, 2, 4), 22))
    b.gate(Multiply(name="m", x="stack", weight="w", out="scaled"), wire("scaled", (B, 2, 2, 2), 20))
    b.output("product", "twice", "slid", "padded", "scaled")
    return b.build()


SLIDE = Windows(kernel=(2,), strides=(1,), dilations=(1,), pads=((0, 0),))


@pytest.mark.parametrize("parties", [2, 3])
def test_gates_that_share_a_weight(parties: int) -> None:
    rng = np.random.default_rng(parties)
    w = rng.integers(-1000, 1000, (2, 2, 2))
    trial = Trial(shared_weight(), {"w": w}, parties)
    for batch in (3, 1, 8):
        x = rng.integers(-1000, 1000, (batch, 2, 2))
        v = trial.run({"x": x}, batch).values
        assert (v["product"] == x[:, None] @ w).all() and (v["twice"] == v["product"]).all()
        assert (v["scaled"] == x[:, None] * w).all()
        assert (v["slid"] == naive.convolution(x, w, SLIDE)).all()
        padded = np.pad(x, [(0, 0), (0, 0), (1, 2)])
        assert (v["padded"] == naive.convolution(padded, w, SLIDE)).all()


def test_layouts_of_a_weight_are_made_once_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    for kind in (Matmul, Convolution):
        original = kind.lay_out
        monkeypatch.setattr(kind, "lay_out", lambda self, y, do=original: (made.append(self.name), do(self, y))[1])
    world = make_world(shared_weight(), {"w": np.ones((2, 2, 2), dtype=np.int64)}, 3)
    for batch in (1, 9, 9, 1):
        world.run({"x": np.ones((batch, 2, 2), dtype=np.int64)}, batch)
    # the provider's mask, and for each party w^ and its share; both products have one
    assert {name: made.count(name) for name in made} == {"a": 1 + 2 * 3, "matmul/w": 1 + 2 * 3, "c": 1 + 2 * 3}


@pytest.mark.parametrize(("batch", "at_party", "at_provider"), [(1, 32, 16), (9, 24, 8)])
def test_a_large_weight_takes_a_few_bytes_an_element(
    batch: int, at_party: int, at_provider: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """w^, this party's share of its mask, and of it; with few rows w^ once more, turned."""
    monkeypatch.setattr(fp.Room.__init__, "__defaults__", (0,))
    b = Builder()
    b.enter("w", (60, 50), 8, session=True)
    b.enter("x", (B, 60), 10)
    b.gate(Matmul(name="m", x="x", weight="w", out="z"), wire("z", (B, 50), 30))
    b.output("z")
    world = make_world(b.build(), {"w": np.ones((60, 50), dtype=np.int64)}, 2)
    for _ in range(2):
        world.run({"x": np.ones((batch, 60), dtype=np.int64)}, batch)

    def held(*holders: object) -> float:
        arrays: dict[int, int] = {}
        waiting = list(holders)
        while waiting:
            node = waiting.pop()
            if isinstance(node, np.ndarray):
                whole = node if not isinstance(node.base, np.ndarray) else node.base
                arrays[id(whole)] = whole.nbytes
            elif isinstance(node, dict):
                waiting += node.values()
            elif isinstance(node, list | tuple):
                waiting += node
            elif hasattr(node, "__dict__") and type(node).__module__.startswith("mpc"):
                waiting += vars(node).values()
        return sum(size for size in arrays.values() if size >= 8 * 60 * 50) / (60 * 50)

    assert [held(session) for session in world.sessions] == [at_party, at_party]
    assert held(world.masks) == at_provider


def test_layouts_of_a_secret_are_made_in_every_run() -> None:
    """What is laid out of a run's wire says nothing in the next run."""
    b = Builder()
    b.enter("x", (B, 2, 2), 10)
    b.enter("y", (B, 2, 2), 10)
    b.enter("f", (3, 2, 2), 10)
    b.gate(Matmul(name="a", x="x", y="y", out="z"), wire("z", (B, 2, 2), 22))
    b.gate(Convolution(name="c", x="z", y="f", windows=SLIDE, out="s"), wire("s", (B, 3, 1), 35))
    b.output("s")
    trial, rng = Trial(b.build(), {}, 3), np.random.default_rng(0)
    for batch in (2, 2, 5):
        x, y, f = (rng.integers(-1000, 1000, shape) for shape in ((batch, 2, 2), (batch, 2, 2), (3, 2, 2)))
        values = trial.run({"x": x, "y": y, "f": f}, batch).values
        assert (values["s"] == naive.convolution(x @ y, f, SLIDE)).all()
    assert not trial.world.masks.made


def test_two_outputs_of_one_wire() -> None:
    plan = linear_plan()
    again = PlanOutput(name="again", wire="y", shape=(B, 2, 1), dtype="float32")
    plan = parse_plan(with_parts(plan, outputs=(*plan.outputs, again)).canonical)
    assert Trial(plan, {}, 2).run({"x": np.array([[160, -160]])}, 1).run.outputs["y"].tolist() in (
        [[10, -10]], [[11, -10]], [[10, -9]], [[11, -9]])  # fmt: skip


@pytest.mark.parametrize("kind", ["truncate", "scalar"])
def test_scalar_wires(kind: str) -> None:
    b = Builder()
    b.enter("x", (), 20)
    b.gate(Truncate(name="t", x="x", out="y", shift=0), wire("y", (), 21))
    b.output("y")
    assert Trial(b.build(), {}, 3).run({"x": np.array(-7)}, 1).run.outputs["y"] == -7


def test_a_world_repeats_exactly() -> None:
    """Every value follows from the master seed: what a failing run needs to be looked at again."""
    plan, x = linear_plan(), {"x": np.array([[5, 6]])}
    first, again, other = (make_world(plan, {}, 3, number).run(x, 1) for number in (1, 1, 2))
    assert first.payloads == again.payloads != other.payloads
    assert first.transcripts == again.transcripts != other.transcripts


def test_openings_are_what_is_masked() -> None:
    plan, x = linear_plan(), {"x": np.array([[5, 6]])}
    run = make_world(plan, {}, 3).run(x, 1)
    ((key, (_, values)),) = openings(plan.bind(1), run).items()
    assert key == (0, "t", "y") and (values == run.public["y"]).all()


# ------------------------------------------------------------------ canary

SHOWN = re.compile(r"\d{6,}|[0-9a-fA-F]{16,}")


def secrets_in(root: object) -> Iterator[object]:
    """Every object reachable from `root` through attributes and containers."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if id(node) in seen or isinstance(node, type | str | int | bytes):
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, dict):
            stack += [*node.keys(), *node.values()]
        elif isinstance(node, list | tuple | set | frozenset):
            stack += list(node)
        elif type(node).__module__.startswith(("mpc", "tests")):
            stack += list(vars(node).values()) if hasattr(node, "__dict__") else []


def prepared() -> dict[str, Callable[[], object]]:
    plan = every_gate().bind(2)
    session, seeds = SessionMasks(), [seed(i + 7) for i in range(2)]
    stored = BundleId.of_weights(b"s" * 32)
    deal(plan.weights, plan.wire, stored, seeds, session)
    session.made["matmul/w/mask"] = fp.Operand(session.masks["w"])
    session.public["r"] = fp.from_signed(np.arange(12).reshape(3, 4))
    bundle = BundleId.of_run(b"s" * 32, 2, 2)
    dealt = deal(plan.online, plan.wire, bundle, seeds, session)
    mine = Bundle(bundle, seeds[0], plan.online, plan.wire, dealt.corrections)
    wires = SessionWires()
    weights = Bundle(stored, seeds[0], plan.weights, plan.wire, None)
    for name in ("w", "b", "k"):
        public = expand_field(seed(3), plan.wire[name].sizes)
        wires.add(plan.wire[name], public, weights.take(f"in:{name}", f"mask:{name}"))
    wires.add(plan.wire["r"], session.public["r"])
    run = PartyRun(plan, Lane.passive(0), mine, wires, bytes(range(32)))
    return {
        "a bundle": lambda: Bundle(bundle, seeds[0], plan.online, plan.wire, dealt.corrections),
        "the session's masks": lambda: session,
        "the session's wires": lambda: wires,
        "a run": lambda: run,
        "a prepared run": lambda: (run.prepare(), run)[1],
        "what is dealt": lambda: dealt,
        "a dealer": lambda: Dealer(plan.wire, [bundle.draws(s) for s in seeds], 0, session),
        "draws": lambda: bundle.draws(seeds[0]),
    }


PREPARED = prepared()


@pytest.mark.parametrize("name", PREPARED)
def test_no_object_shows_a_secret(name: str) -> None:
    root = PREPARED[name]()
    nodes = list(secrets_in(root))
    arrays = [n for n in nodes if isinstance(n, np.ndarray) and n.dtype.kind == "u"]
    secrets = {str(v) for n in arrays for v in n.reshape(-1)[:50].tolist() if v > 10**6}
    for node in nodes:
        if isinstance(node, Seed):
            secrets |= {node.secret.hex(), repr(node.secret)}
        if isinstance(node, Dealt):
            secrets |= {node.corrections[:24].hex(), repr(node.corrections[:24])[2:-1]}
    assert secrets  # there was something to show
    shown_of = [n for n in nodes if type(n).__module__.startswith("mpc") and not isinstance(n, Plan | Gate)]
    assert shown_of
    for node in shown_of:
        shown = repr(node) + str(node)
        assert not [s for s in secrets if s in shown], type(node)


def test_a_whole_runs_errors_show_no_secret() -> None:
    """The message of an error that a gate's fault raises in the middle of a run."""
    for fault in ("opens another shape", "opens bits", "writes another shape", "takes twice", "deals another shape"):
        with pytest.raises(LocalProtocolError) as caught:
            odd_world(fault)
        assert not SHOWN.search(str(caught.value)), str(caught.value)


def test_wires_hold_what_their_owner_may_know() -> None:
    """A session input's owner is in the plan; nobody else receives its sub-seeds."""
    plan = every_gate()
    assert {w.name: w.holders for w in plan.wires if w.holders} == {
        "w": (OWNER,), "b": (OWNER,), "k": (OWNER,), "r": (OWNER,), "x": (OWNER,),
        "v": ("recipient",), "i": ("recipient",), "g": ("recipient",), "o": ("recipient",), "n": ("recipient",),
        "m2": ("recipient",), "m3": ("recipient",), "f4": ("recipient",), "g4": ("recipient",), "y3": ("recipient",),
        "f5": ("recipient",), "y6": ("recipient",),
    }  # fmt: skip
