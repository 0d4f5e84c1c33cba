"""Programs: what each run of a session computes follows from its number, and is part of the one plan."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mpc import field as fp
from mpc.errors import InputError, PlanError
from mpc.interpret import reference
from mpc.interpret.world import World
from mpc.plan.cost import plan_cost
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan
from mpc.plan.program import Paced, Program, Rate, Told
from mpc.plan.verify import verify
from mpc.privacy.facts import StoredFacts
from mpc.privacy.guarantee import guarantee
from mpc.wires import BATCH as B
from tests.support.plans import replace_wires, with_parts
from tests.support.programs import PROGRAM, ROWS, SEED, STEPS, TOTAL, WIDE, W, X, data, learning, stepped
from tests.support.questions import FACTS, Question
from tests.support.worlds import seed

PLAN = learning()
ASKED = np.arange(2 * WIDE).reshape(2, WIDE)


@pytest.mark.parametrize("parties", [2, 3])
def test_every_run_of_a_program_is_that_of_integers_bit_for_bit(parties: int) -> None:
    world = World(PLAN, {}, parties, seed(3), data())
    state, real = reference.first_states(PLAN, {}), np.zeros((WIDE, 1))
    for number in range(1, STEPS + 4):
        part, rows = PLAN.at(number), PROGRAM.rows_of(number, TOTAL)
        entered = {"asked": ASKED} if number > STEPS + 1 else {}
        run = world.run(entered, 1)
        stored = {name: values[rows] for name, values in data().items()}
        values = reference.evaluate(part, {**state, **stored, **entered}, lambda name, _, run=run: run.public[name])
        assert {out.name for out in part.outputs} == set(run.outputs)
        for out, found in run.outputs.items():
            np.testing.assert_array_equal(found, values[out])
        state = reference.next_states(part, values)
        cost = plan_cost(part)
        assert (len(run.sent), sum(run.sent), run.dealt) == (cost.rounds, cost.sent, cost.dealt)
        if number <= STEPS:
            real, loss = stepped(real, rows, PROGRAM.k(number))
            if "loss" in run.outputs:
                assert abs(int(run.outputs["loss"][0, 0]) / float(X * X) - loss) < 2
        np.testing.assert_allclose(state["w"] / float(W), real, atol=0.1)
    np.testing.assert_allclose(real, [[1], [-2], [3]], atol=0.7)


def test_a_run_has_no_gate_that_it_does_not_need() -> None:
    kinds = {number: {gate.name for gate in PLAN.at(number).gates} for number in (1, 3, STEPS + 1, STEPS + 2)}
    assert kinds[3] - kinds[1] == {"square", "sum", "tell"} and kinds[1] < kinds[3]
    assert kinds[STEPS + 1] == {"in:w", "final"}
    assert kinds[STEPS + 2] == {"in:w", "in:asked", "answer"}
    assert [given.name for given in PLAN.at(1).inputs] == ["x", "y"]
    assert PLAN.at(1).wire.keys() & {"loss", "w_final", "answers"} == set()
    costs = [plan_cost(PLAN.at(number)) for number in (1, 2, 3, STEPS + 1)]
    assert costs[0] == costs[1] and costs[0].sent < costs[2].sent and costs[3].sent == 32 + 8 * WIDE
    assert PLAN.at(1) is PLAN.at(2) and PLAN.at(1).digest != PLAN.at(8).digest  # another k


def test_an_output_that_is_not_told_has_no_recipient_in_that_run() -> None:
    told = Told(output="loss", first=1, every=2)
    plan = learning(told=(told, *PROGRAM.told[1:]))
    assert plan.at(1).wire["loss"].holders and "loss" not in plan.at(2).wire
    world = World(plan, {}, 2, seed(3), data())
    assert set(world.run({}, 1).outputs) == {"loss"}
    assert world.run({}, 1).outputs == {}


def test_states_stay_as_they_are_behind_the_last_step() -> None:
    world = World(PLAN, {}, 2, seed(4), data())
    for _ in range(STEPS):
        world.run({}, 1)
    first = world.run({}, 1)
    second = world.run({"asked": ASKED}, 1)
    np.testing.assert_array_equal(first.public["w"], second.public["w"])
    np.testing.assert_array_equal(second.outputs["answers"], ASKED @ first.outputs["w_final"])


def test_a_run_of_which_nothing_comes_is_refused() -> None:
    plan = learning()
    assert plan.computes(STEPS + 3) and not plan.computes(STEPS + 4)
    with pytest.raises(PlanError, match="neither updates nor tells"):
        plan.at(STEPS + 4)


# ------------------------------------------------------------------ rows


def test_each_epoch_goes_through_all_rows_but_what_is_left_over_in_an_order_of_its_own() -> None:
    each = TOTAL // ROWS
    epochs = [
        np.concatenate([PROGRAM.rows_of(epoch * each + place + 1, TOTAL) for place in range(each)])
        for epoch in range(4)
    ]
    for rows in epochs:
        assert len(rows) == each * ROWS == len({*rows.tolist()}) and rows.min() >= 0 and rows.max() < TOTAL
    assert len({tuple(rows.tolist()) for rows in epochs}) == 4
    assert len({tuple(sorted({*range(TOTAL)} - {*rows.tolist()})) for rows in epochs}) > 1  # others are left over
    other = PROGRAM.model_copy(update={"seed": "08" * 32})
    assert PROGRAM.rows_of(1, TOTAL).tolist() != other.rows_of(1, TOTAL).tolist()


def test_everybody_shuffles_alike() -> None:
    """Pinned: processes of two versions that shuffle in two ways would compute on other rows than they agreed on."""
    program = Program(steps=9, rows=3, seed=SEED)
    assert [program.rows_of(run, 10).tolist() for run in (1, 2, 3, 4)] == [[6, 4, 8], [1, 9, 5], [0, 7, 2], [8, 7, 6]]


def test_rows_are_a_fair_shuffle() -> None:
    program = Program(steps=1, rows=1, seed=SEED)
    counts = np.bincount([int(program.rows_of(8 * epoch + 1, 8)[0]) for epoch in range(4000)], minlength=8)
    assert np.abs(counts - 500).max() < 5 * 500**0.5


def test_data_with_fewer_rows_than_a_run_reads_is_refused() -> None:
    with pytest.raises(InputError, match="reads 4 rows, of data that have 3"):
        PROGRAM.rows_of(1, 3)


def test_data_of_just_as_many_rows_are_read_whole() -> None:
    rows = [PROGRAM.rows_of(run, PROGRAM.rows).tolist() for run in range(1, 9)]
    assert all(sorted(each) == [*range(PROGRAM.rows)] for each in rows) and len({*map(tuple, rows)}) > 1


def test_data_with_more_rows_than_are_shuffled_are_refused() -> None:
    """2^22, whose order takes 32 MiB: nobody is kept busy by a plan."""
    rows = PROGRAM.rows_of(1, 1 << 22)
    assert len({*rows.tolist()}) == PROGRAM.rows and rows.max() < 1 << 22
    with pytest.raises(InputError, match=r"at most 4,194,304"):
        PROGRAM.rows_of(1, (1 << 22) + 1)


# ------------------------------------------------------------------ what is agreed on


def test_the_plans_digest_is_the_programs() -> None:
    digests = {
        learning(**changes).digest
        for changes in (
            {},
            {"seed": "08" * 32},
            {"steps": STEPS - 1},
            {"rates": (Rate(first=1, k=4),)},
            {"told": PROGRAM.told[:2]},
            {"told": (PROGRAM.told[0].model_copy(update={"every": 1}), *PROGRAM.told[1:])},
        )
    }
    assert len(digests) == 6
    assert parse_plan(PLAN.canonical) == PLAN and b'"program":{' in PLAN.canonical


TOLD = PROGRAM.told


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"seed": None}, "shuffles them by a seed"),
        ({"rows": None, "seed": None}, "reads 4 rows of stored data, where a run has batch"),
        ({"rows": ROWS + 1}, "rows of stored data, where a run has 5"),
        ({"told": (*TOLD, TOLD[0])}, "one in two ways"),
        ({"told": (*TOLD, Told(output="w", first=1))}, "tells what is no output"),
        ({"told": (TOLD[0].model_copy(update={"last": TOLD[0].first - 1}), *TOLD[1:])}, "tells an output in no run"),
        ({"rates": ()}, "rates for no sum"),
        ({"paced": ()}, "rates for no sum"),
        ({"paced": PROGRAM.paced * 2}, "rates for no sum, or for one twice"),
        ({"paced": (Paced(gate="gradient", operand=1),)}, "no such sum"),
        ({"paced": (Paced(gate="update", operand=2),)}, "no such sum"),
        ({"paced": (Paced(gate="nothing", operand=0),)}, "no such sum"),
        ({"rates": (Rate(first=1, k=0),)}, "zero, or too large"),
        ({"rates": (Rate(first=2, k=1),)}, "do not begin with run 1"),
        ({"after": 4}, "names the plan of these"),
        ({"previous": "ab" * 32}, "names the plan of these"),
        ({"after": 4, "previous": "ab" * 32}, "begins with states that were kept"),
        ({"rates": (Rate(first=1, k=1), Rate(first=1, k=2))}, "do not begin with run 1"),
    ],
)
def test_what_is_no_program_is_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(PlanError, match=problem):
        learning(**changes)


def test_a_factor_may_not_grow_too_large() -> None:
    gates = [g.model_copy(update={"factors": (1, 1 << 57)}) if g.name == "update" else g for g in PLAN.gates]
    with pytest.raises(PlanError, match="zero, or too large"):
        verify(with_parts(PLAN, gates=gates))


def test_a_program_is_for_plans_with_states_and_rows_of_its_number() -> None:
    bare = with_parts(PLAN, states=[], gates=[g for g in PLAN.gates if g.name != "in:w"])
    with pytest.raises(PlanError):
        verify(bare)
    kept = [out.model_copy(update={"keep": out.name == "w_final"}) for out in PLAN.outputs]
    keeping = with_parts(replace_wires(PLAN, {"w_final": {"kept": True, "holders": ()}}), outputs=kept)
    verify(keeping)
    again = (PROGRAM.told[0], PROGRAM.told[1].model_copy(update={"every": 2}), PROGRAM.told[2])
    with pytest.raises(PlanError, match="told in one run, once"):
        verify(keeping.with_program(PROGRAM.model_copy(update={"told": again})))
    fixed = Plan(**{name: getattr(PLAN, name) for name in ("inputs", "outputs", "wires", "gates", "states")})
    with pytest.raises(PlanError, match="reads 4 rows of stored data, where a run has batch"):
        verify(fixed)


@pytest.mark.parametrize("fault", [lambda told: {**told, "every": -1}, lambda told: {**told, "first": 0}])
def test_runs_are_counted_from_one(fault: Callable[[dict[str, object]], dict[str, object]]) -> None:
    with pytest.raises(ValueError, match="greater than or equal"):
        Told(**fault({"output": "loss", "first": 1, "every": 1}))


def test_a_program_needs_states_reads_what_is_there_and_keeps_no_rows() -> None:
    q = Question()
    q.bound()
    q.rows()
    q.noised(sensitivity=60)
    with pytest.raises(PlanError, match="a program and no states"):
        verify(q.build().with_program(Program(steps=2)))
    answered = [gate for gate in PLAN.gates if gate.name in ("in:w", "in:asked", "answer")]
    parts = {
        "gates": answered,
        "wires": [wire for wire in PLAN.wires if wire.name in ("w", "asked", "answers")],
        "inputs": [given for given in PLAN.inputs if given.name == "asked"],
        "outputs": [out for out in PLAN.outputs if out.name == "answers"],
        "states": [state.model_copy(update={"out": "w"}) for state in PLAN.states],
    }
    asking, told = with_parts(PLAN, **parts), Told(output="answers", first=1)
    verify(asking.with_program(Program(steps=2, told=(told,))))
    with pytest.raises(PlanError, match="which rows a run reads, and the plan reads none"):
        verify(asking.with_program(Program(steps=2, told=(told,), rows=ROWS, seed=SEED)))
    many = {"asked": {"shape": (B, WIDE)}, "answers": {"shape": (B, 1), "kept": True, "holders": ()}}
    rows = replace_wires(asking, many)
    kept = [out.model_copy(update={"shape": (B, 1), "keep": True}) for out in rows.outputs]
    with pytest.raises(PlanError, match="what a plan with a program keeps has no rows"):
        verify(with_parts(rows, outputs=kept).with_program(Program(steps=2, told=(told,))))


def test_nothing_is_proved_of_sums_whose_factors_change() -> None:
    q = Question()
    q.bound()
    q.rows()
    q.combine("s", factors=(1,), out="paced")
    q.noised("paced", sensitivity=60)
    q.state("count", (1,), 10)
    q.carry("count", "count")
    plan = q.build()
    assert guarantee(plan, FACTS).vectors
    program = Program(steps=2, rates=(Rate(first=1, k=1),), paced=(Paced(gate="combine:paced", operand=0),))
    with pytest.raises(PlanError, match="its factors change from run to run"):
        guarantee(plan.with_program(program), FACTS)


def test_rows_of_a_program_are_no_rows_of_people_yet() -> None:
    with pytest.raises(PlanError, match="no input of the plan with rows"):
        guarantee(PLAN, {"x": StoredFacts(TOTAL, 1, "one")})


def test_x_that_is_read_again_is_what_it_was() -> None:
    """A stored row keeps x^ and mask in whichever run it is read; and openings of two runs have nothing in common."""
    world = World(PLAN, {}, 2, seed(9), data())
    seen: dict[int, np.ndarray] = {}
    for number in range(1, STEPS + 1):
        public = world.run({}, 1).public["x"]
        for row, values in zip(PROGRAM.rows_of(number, TOTAL), public, strict=True):
            np.testing.assert_array_equal(seen.setdefault(int(row), values), values)
    assert len(seen) > TOTAL - ROWS and not fp.from_signed(data()["x"])[0].tolist() == seen[0].tolist()
