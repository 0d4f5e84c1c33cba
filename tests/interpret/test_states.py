"""State wires: what a run leaves is what the next one reads, masked as it is; integers in the clear say the same."""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
import pytest

from mpc import field as fp
from mpc.errors import PlanError, ReuseError
from mpc.gates.input import Input
from mpc.gates.linear import Combine
from mpc.gates.matmul import Matmul
from mpc.gates.moves import Reshape
from mpc.gates.open import Open
from mpc.gates.relu import Relu
from mpc.gates.truncate import Truncate
from mpc.interpret.state_wires import Carried
from mpc.plan.cost import plan_cost
from mpc.plan.ends import PlanOutput
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan
from mpc.plan.verify import verify
from mpc.privacy.dependence import dependence
from mpc.wires import Masking
from tests.support.effort import patient
from tests.support.plans import Builder, replace_wires, wire, with_parts
from tests.support.statistics import assert_uniform
from tests.support.worlds import Trial, make_world, seed

INHERITED, DERIVED, UNOPENED = Masking.INHERITED, Masking.DERIVED, Masking.UNOPENED
X, W = Fraction(1 << 4), Fraction(1 << 12)
ROWS, WIDE, NARROW = 8, 5, 3


def step(*, init: str | None = None, public: bool = False, told: bool = True) -> Plan:
    """One step of least squares: w := w - k x' (x w - y), the update exact, all else at four fractional bits."""
    b = Builder()
    if init is not None:
        b.enter(init, (WIDE, NARROW), 20, W, session=True, public=public)
    b.enter("x", (ROWS, WIDE), 8, X)
    b.enter("y", (ROWS, NARROW), 10, X)
    b.state("w", (WIDE, NARROW), 20, W)
    b.state("steps", (1,), 10)
    b.gate(Matmul(name="forward", x="x", y="w", out="z"), wire("z", (ROWS, NARROW), 40, X * W, masking=DERIVED))
    b.gate(Truncate(name="short", x="z", out="p", shift=12), wire("p", (ROWS, NARROW), 28, X))
    difference = Combine(name="difference", xs=("p", "y"), factors=(1, -1), out="d")
    b.gate(difference, wire("d", (ROWS, NARROW), 29, X, masking=INHERITED))
    b.gate(Reshape(name="turn", x="x", axes=(1, 0), out="t"), wire("t", (WIDE, ROWS), 8, X, masking=INHERITED))
    b.gate(Matmul(name="gradient", x="t", y="d", out="g"), wire("g", (WIDE, NARROW), 40, X * X))
    update = Combine(name="update", xs=("w", "g"), factors=(1, -1), out="w_out")
    b.gate(update, wire("w_out", (WIDE, NARROW), 20, W, masking=INHERITED))
    count = Combine(name="count", xs=("steps",), factors=(1,), constant=1, out="steps_out")
    b.gate(count, wire("steps_out", (1,), 10, masking=INHERITED))
    b.carry("w", "w_out", init)
    b.carry("steps", "steps_out")
    if told:
        b.gate(Truncate(name="tell", x="p", out="told", shift=0), wire("told", (ROWS, NARROW), 28, X))
        b.output("told")
    return b.build()


def data(number: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    x = rng.integers(-16, 16, (ROWS, WIDE))
    return {"x": x, "y": x @ np.arange(-7, 8).reshape(WIDE, NARROW) // 4}


@pytest.mark.parametrize("parties", [2, 3])
def test_thirty_steps_are_those_of_integers_bit_for_bit(parties: int) -> None:
    trial = Trial(step(), {}, parties, 5)
    for number in range(30):
        before = trial.state["w"]
        checked = trial.run(data(number), 1)  # holds every wire, its mask and the cost to what they should be
        np.testing.assert_array_equal(checked.values["w"], before)
    assert trial.state["steps"] == [30]
    learned = trial.state["w"] / float(W) * 4
    assert np.abs(learned - np.arange(-7, 8).reshape(WIDE, NARROW)).max() < 1  # it did learn


def test_state_is_handed_on_when_the_last_segment_is_prepared() -> None:
    """Whether all of a run is prepared before its inputs, or gate by gate as it is computed: bit for bit."""

    def answers(plan: Plan, window: int | None) -> list[tuple[bytes, list[bytes]]]:
        world = make_world(plan, {}, 2, 5)
        world.window, world.forgets = window, True
        runs = [world.run(data(number), 1) for number in range(4)]
        return [(run.outputs["told"].tobytes(), run.transcripts) for run in runs]

    assert answers(step().with_segments(1), 1) == answers(step(), None)


@pytest.mark.parametrize("public", [False, True])
def test_the_first_run_reads_a_weight_and_all_later_ones_what_was_left(public: bool) -> None:
    start = np.arange(WIDE * NARROW).reshape(WIDE, NARROW) * 100
    trial = Trial(step(init="w_0", public=public), {"w_0": start}, 2)
    first, second = (trial.run(data(number), 1) for number in range(2))
    np.testing.assert_array_equal(first.values["w"], start)
    np.testing.assert_array_equal(second.values["w"], first.values["w_out"])
    assert (first.values["w_out"] != start).any()


def test_zeros_in_public_are_what_a_plan_begins_with() -> None:
    trial = Trial(step(), {}, 2)
    first = trial.run(data(0), 1)
    assert not first.run.public["w"].any() and not first.masks["w"].any()


def test_a_plan_may_tell_nobody_anything_if_it_leaves_state() -> None:
    trial = Trial(step(told=False), {}, 2)
    assert trial.run(data(0), 1).run.outputs == {}
    with pytest.raises(PlanError, match="nothing comes of it"):
        verify(with_parts(step(told=False), inputs=[], outputs=[], states=[], gates=[], wires=[]))


def test_state_costs_nothing_beside_the_step_itself() -> None:
    """The same gates on an input: as many rounds, bytes sent and bytes dealt, and a mask less to be expanded."""
    b = Builder()
    b.enter("x", (ROWS, WIDE), 8, X)
    b.enter("w", (WIDE, NARROW), 20, W)
    b.gate(Matmul(name="g", x="x", y="w", out="z"), wire("z", (ROWS, NARROW), 40, X * W, masking=DERIVED))
    b.gate(Truncate(name="t", x="z", out="p", shift=12), wire("p", (ROWS, NARROW), 28, X))
    b.output("p")
    entered = b.build()
    b.states, b.inputs = [], b.inputs[:1]
    b.gates[1] = Input(name="in:w", out="w", lifetime="state")
    b.wires[1] = wire("w", (WIDE, NARROW), 20, W)
    b.carry("w", "w")
    carried = b.build()
    before, after = plan_cost(entered, 1), plan_cost(carried, 1)
    assert (after.rounds, after.sent, after.dealt) == (before.rounds, before.sent, before.dealt)
    assert before.held - after.held == 8 * WIDE * NARROW


# ------------------------------------------------------------------ masks


def deep() -> Plan:
    """One state whose mask is drawn each time, and one whose mask is a map of that of the run before."""
    b, size = Builder(), (40, 50)
    b.state("drawn", size, 30)
    b.state("mapped", size, 30)
    b.enter("x", size, 20)
    total = Combine(name="s", xs=("drawn", "x"), factors=(1, 1), out="sum")
    b.gate(total, wire("sum", size, 31, masking=INHERITED))
    b.gate(Relu(name="r", x="sum", out="next", shift=1), wire("next", size, 30, Fraction(1, 2)))
    b.gate(Combine(name="c", xs=("next",), factors=(1,), out="again"), wire("again", size, 30, masking=INHERITED))
    b.gate(Combine(name="m", xs=("mapped", "x"), factors=(1, 3), out="fed"), wire("fed", size, 30, masking=INHERITED))
    b.carry("drawn", "again")
    b.carry("mapped", "fed")
    b.gate(Truncate(name="tell", x="again", out="told", shift=0), wire("told", size, 30))
    b.output("told")
    return b.build()


def test_both_views_of_a_states_mask_are_uniform() -> None:
    """The parties see x^ and all but one of the shares of its mask; the provider the mask, and never x^."""
    plan, parties = deep(), 3
    world = make_world(plan, {}, parties, 9)
    values = {"x": np.full((40, 50), 77)}
    shown: dict[str, list[np.ndarray]] = {"drawn": [], "mapped": []}
    for _ in range(4):
        run = world.run(values, 1)
        masks = world.masks.states.held
        for name in shown:
            shares = [session.states.masks.held[name].values for session in world.sessions]
            public = [session.states.public.held[name] for session in world.sessions]
            assert all((each == public[0]).all() for each in public)
            total = fp.add(fp.add(shares[0], shares[1]), shares[2])
            np.testing.assert_array_equal(total, masks[name])
            for what, found in (("x^", public[0]), ("mask", masks[name]), *(("share", each) for each in shares)):
                assert_uniform(found, 0, f"{name}: {what}")
            assert_uniform(fp.sub(public[0], fp.add(shares[0], shares[1])), 0, f"{name}: x^ and two shares")
            shown[name].append(public[0])
        assert len(set(run.transcripts)) == 1
    for name, each in shown.items():
        for one, two in zip(each, each[1:], strict=False):
            assert_uniform(fp.sub(two, one), 0, f"{name}: x^ of two runs")


def test_no_mask_holds_two_values() -> None:
    """Each run's x^ of a state whose value does not change is another one, wherever a gate has written it anew."""
    b = Builder()
    b.enter("start", (1000,), 20, session=True)
    b.state("s", (1000,), 20)
    b.gate(Truncate(name="t", x="s", out="same", shift=0), wire("same", (1000,), 20))
    b.carry("s", "same", "start")
    world = make_world(b.build(), {"start": np.arange(1000)}, 2)
    runs = [world.run({}, 1).public["s"] for _ in range(3)]
    words = np.concatenate(runs)
    assert len(np.unique(words)) == words.size


# ------------------------------------------------------------------ order


def test_runs_hand_on_in_turn_and_once() -> None:
    carried: Carried[np.ndarray] = Carried("masks")
    with pytest.raises(ReuseError, match="run 2 reads masks that run 1 does not hand on"):
        carried.read(2)
    carried.begin({"w": np.zeros(1)})
    assert carried.read(1)["w"] == [0]
    with pytest.raises(ReuseError, match="run 1 reads"):  # replayed while it runs
        carried.read(1)
    with pytest.raises(ReuseError, match="run 2 reads"):  # reordered: run 1 is not over
        carried.read(2)
    with pytest.raises(ReuseError, match="run 2 leaves masks out of turn"):
        carried.leave(2, {})
    carried.leave(1, {"w": np.ones(1)})
    for again in (lambda: carried.leave(1, {}), lambda: carried.read(1), lambda: carried.read(3)):
        with pytest.raises(ReuseError):
            again()
    with pytest.raises(ReuseError, match="begins anew in another session only"):
        carried.begin({})
    with pytest.raises(ReuseError, match="run 2 leaves masks out of turn"):  # it has not read
        carried.leave(2, {})
    assert carried.read(2)["w"] == [1]
    carried.leave(2, {"w": np.full(1, 2)})
    with pytest.raises(ReuseError, match="run 1 reads"):  # an older one, once run 2 is over
        carried.read(1)
    fresh: Carried[np.ndarray] = Carried("masks")
    fresh.read(1)
    with pytest.raises(ReuseError, match="begins anew in another session only"):  # run 1 has read, and not yet left
        fresh.begin({"w": np.ones(1)})
    carried.forget()
    assert "1" not in repr(carried)[8:].replace("run=1", "")


def test_a_run_is_neither_dealt_nor_prepared_nor_computed_out_of_turn() -> None:
    world = make_world(step(), {}, 2)
    world.run(data(0), 1)
    bound = world.plan.bind(1)
    for number in (1, 3):  # replayed, or one is skipped
        with pytest.raises(ReuseError):
            world.deal(bound, bound.online, number, 1)
    world.runs -= 1
    with pytest.raises(ReuseError):
        world.run(data(0), 1)
    assert seed(1).derive("session").secret  # the world's own seeds repeat, so nothing else refused it


def test_parties_whose_state_differs_stop_before_anything_is_unmasked() -> None:
    world = make_world(step(), {}, 2)
    world.run(data(0), 1)
    kept = world.sessions[1].states.public.held
    kept["w"] = fp.add_int(kept["w"], 1)
    with pytest.raises(Exception, match="not all sent the same"):
        world.run(data(1), 1)


# ------------------------------------------------------------------ what verify refuses


def refuses(plan: Plan, problem: str) -> None:
    with pytest.raises(PlanError, match=problem):
        verify(plan)
    with pytest.raises(PlanError):
        parse_plan(plan.canonical)


def test_plans_without_states_say_nothing_of_them() -> None:
    b = Builder()
    b.enter("x", (4,), 10)
    b.gate(Truncate(name="t", x="x", out="y", shift=0), wire("y", (4,), 10))
    b.output("y")
    assert b"state" not in b.build().canonical
    with pytest.raises(PlanError, match="canonical"):
        parse_plan(b.build().canonical.replace(b'"outputs"', b'"states":[],"outputs"', 1))


def test_states_are_read_as_in_and_out() -> None:
    assert b'"states":[{"in":"w","name":"w","out":"w_out"},' in step().canonical
    assert b'{"in":"w","init":"w_0","name":"w","out":"w_out"}' in step(init="w_0").canonical


def _pair(plan: Plan, **changes: str | None) -> Plan:
    first, *others = plan.states
    return with_parts(plan, states=[first.model_copy(update=changes), *others])


PLAN, STARTED = step(), step(init="w_0")


@pytest.mark.parametrize(
    ("plan", "problem"),
    [
        (with_parts(PLAN, states=PLAN.states[:1]), "not the wires that its inputs of state write"),
        (with_parts(PLAN, states=(*PLAN.states, PLAN.states[0])), "not the wires that its inputs of state write"),
        (_pair(PLAN, in_="x"), "not the wires that its inputs of state write"),
        (_pair(PLAN, name="steps"), "two states of the plan, or a state and an input, have one name"),
        (_pair(PLAN, name="x"), "two states of the plan, or a state and an input, have one name"),
        (_pair(PLAN, name="w\u0000"), "name"),
        (_pair(PLAN, out="nothing"), "reads what no run writes"),
        (_pair(STARTED, out="w_0"), "reads what no run writes"),
        (_pair(PLAN, out="z"), "mask is derived"),
        (_pair(PLAN, out="g"), "another shape, scale or bound"),
        (_pair(PLAN, out="steps_out"), "another shape, scale or bound"),
        (_pair(PLAN, init="w"), "begins with what is no weight"),
        (_pair(PLAN, init="x"), "begins with what is no weight"),
        (replace_wires(PLAN, {"w_out": {"bits": 21}}), "another shape, scale or bound"),
        (replace_wires(PLAN, {"w_out": {"scale": Fraction(1 << 11)}}), "another shape, scale or bound"),
        (replace_wires(STARTED, {"w_0": {"bits": 19}}), "'w_0' has another shape, scale or bound"),
        (replace_wires(PLAN, {"w": {"holders": ("owner",)}}), "state has no holder"),
        (replace_wires(PLAN, {"w": {"masking": INHERITED}}), "state has no holder"),
        (replace_wires(PLAN, {"steps": {"shape": ("batch",)}}), "no batch dimension"),
    ],
)
def test_what_is_no_state_is_refused(plan: Plan, problem: str) -> None:
    refuses(plan, problem)


def test_state_is_no_weight_no_input_of_an_owner_and_no_output() -> None:
    b = Builder()
    b.enter("x", (4, 4), 10)
    b.state("w", (4, 4), 10)
    b.gate(Matmul(name="m", x="x", weight="w", out="z"), wire("z", (4, 4), 30))
    b.carry("w", "w")
    b.output("z")
    refuses(b.unchecked(), "is a weight where data belongs, or the reverse")
    plan = step()
    entered = [*plan.inputs, plan.inputs[0].model_copy(update={"name": "more", "wire": "w"})]
    refuses(with_parts(plan, inputs=entered), "inputs are not the wires that its input gates write")
    told = plan.outputs[0].model_copy(update={"wire": "w", "shape": (WIDE, NARROW)})
    refuses(with_parts(replace_wires(plan, {"told": {"holders": ()}}), outputs=[told]), "no recipient")


def test_what_is_not_opened_is_no_state() -> None:
    b = Builder()
    b.state("s", (4,), 20)
    b.gate(Relu(name="r", x="s", out="half", shift=0), wire("half", (4,), 20, masking=UNOPENED))
    b.carry("s", "half")
    refuses(b.unchecked(), "not opened, or whose mask is derived")
    b.gate(Open(name="o", x="half", out="open"), wire("open", (4,), 20))
    b.states = []
    b.carry("s", "open")
    b.build()


def test_what_is_kept_depends_on_all_that_earlier_runs_have_read() -> None:
    """Of two states one reads the other: x comes to what is kept in the third run, and not row by row."""
    b = Builder()
    b.enter("x", (4, 3), 20)
    b.enter("w_0", (4, 3), 20, session=True)
    b.inputs, b.gates[0] = [], Input(name="in:x", out="x", lifetime="stored-weight")
    b.gates[1] = Input(name="in:w_0", out="w_0", lifetime="stored-weight")
    b.state("one", (4, 3), 20)
    b.state("two", (4, 3), 20)
    added = Combine(name="c", xs=(), factors=(), stored="x", out="w")
    b.gate(added, wire("w", (4, 3), 20, masking=INHERITED))
    b.gate(Truncate(name="t", x="two", out="kept", shift=0), wire("kept", (4, 3), 20, kept=True))
    b.outputs.append(PlanOutput(name="kept", wire="kept", shape=(4, 3), dtype="float32", keep=True))
    b.carry("one", "w", "w_0")
    b.carry("two", "one")
    assert dependence(b.build()) == {"kept": {"x": False, "w_0": False}}


def test_a_state_that_reads_one_stored_wire_comes_to_another_by_the_state_that_it_reads() -> None:
    """What a state has of its own does not hide what reaches it, though a run reads on what it hands on."""
    b = Builder()
    for place, name in enumerate(("x", "u")):
        b.enter(name, (4, 3), 20, session=True)
        b.gates[place] = Input(name=f"in:{name}", out=name, lifetime="stored-weight")
    b.inputs = []
    for name in ("one", "two"):
        b.state(name, (4, 3), 20)
    b.gate(Combine(name="c", xs=(), factors=(), stored="x", out="w"), wire("w", (4, 3), 20, masking=INHERITED))
    mixed = Combine(name="d", xs=("one",), factors=(1,), stored="u", out="m")
    b.gate(mixed, wire("m", (4, 3), 21, masking=INHERITED))
    b.gate(Truncate(name="next", x="m", out="two+", shift=0), wire("two+", (4, 3), 21))
    for name, read in (("kept", "two"), ("after", "two+")):  # nothing reads what goes on later than this
        b.gate(Truncate(name=f"t:{name}", x=read, out=name, shift=0), wire(name, (4, 3), 21, kept=True))
        b.outputs.append(PlanOutput(name=name, wire=name, shape=(4, 3), dtype="float32", keep=True))
    b.carry("one", "w", "u")
    b.carry("two", "two+")
    both = {"x": False, "u": False}
    assert dependence(b.unchecked()) == {"kept": both, "after": both}


def test_what_many_states_hand_on_is_found_in_one_pass() -> None:
    """A thousand states, each of which reads the next: who asks keeps no party busy."""
    b, many = Builder(), 1000
    b.enter("x", (1, 1), 20, session=True)
    b.inputs, b.gates[0] = [], Input(name="in:x", out="x", lifetime="stored-weight")
    for number in range(many):
        b.state(f"s{number}", (1, 1), 20)
    for number in range(many - 1):
        b.carry(f"s{number}", f"s{number + 1}")
    b.gate(Combine(name="c", xs=(), factors=(), stored="x", out="w"), wire("w", (1, 1), 20, masking=INHERITED))
    b.carry(f"s{many - 1}", "w")
    b.gate(Truncate(name="t", x="s0", out="kept", shift=0), wire("kept", (1, 1), 20, kept=True))
    b.outputs.append(PlanOutput(name="kept", wire="kept", shape=(1, 1), dtype="float32", keep=True))
    plan, began = b.build(), time.process_time()
    assert dependence(plan) == {"kept": {"x": False}}
    assert time.process_time() - began < patient(2)
