"""Sums in bands: as a whole sum's, but for the rounds, and with one band in memory."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from mpc.errors import PlanError
from mpc.gates.bound import Bound
from mpc.gates.gaussian import Gaussian
from mpc.gates.input import Input
from mpc.gates.linear import Combine
from mpc.interpret.active.world import CheckedWorld
from mpc.interpret.run_wires import RunWires
from mpc.interpret.world import World
from mpc.plan.bands import MOST_BANDS, in_bands
from mpc.plan.cost import plan_cost
from mpc.plan.holding import holdings
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan
from mpc.privacy.facts import StoredFacts
from mpc.privacy.guarantee import guarantee
from mpc.wires import Lifetime
from parties.agreed.memory import needed_memory, needed_to_deal
from parties.client.collections.sums import BAND, CHECKED_BAND, Wishes, compiled, undivided
from tests.support.plans import with_parts
from tests.support.worlds import seed

SIZE, MOST, COUNT = 12, 6, 4
FACTS = StoredFacts(MOST, 1, "collection")


def wishes(size: int = SIZE, most: int = MOST) -> Wishes:
    return Wishes(size, Fraction(-1), Fraction(1), 3, most, Fraction(5), Fraction(1, 10**5), "gaussian", 12)


@cache
def whole(size: int = SIZE, most: int = MOST) -> Plan:
    return undivided("me", wishes(size, most)).plan


def bare(plan: Plan) -> Plan:
    """The plan with noise of next to nothing, so that a sum can be looked at; a test's own, which nobody proves."""
    gates = [
        gate.model_copy(update={"sigma": Fraction(1, 4)}) if isinstance(gate, Gaussian) else gate for gate in plan.gates
    ]
    return with_parts(plan, gates=gates)


def stored(plan: Plan, rows: np.ndarray) -> dict[str, np.ndarray]:
    """What lies at the parties as each of the plan's wires."""
    found = {}
    for given in plan.inputs:
        first, size = given.first or 0, plan.wire[given.wire].shape[-1]
        found[given.wire] = rows[:, first : first + int(size)]
    return found


@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize("count", [2, 4, 5, 12])
def test_a_sum_in_bands_is_the_sum(checked: bool, count: int) -> None:
    """Within a rounding of each number, of 5 rows; the last band may be shorter."""
    plan = bare(in_bands(whole(), count)).with_security("active" if checked else "passive")
    scale = float(plan.wire[plan.inputs[0].wire].scale)
    values = np.random.default_rng(3).uniform(-1, 1, (5, SIZE))
    rows = np.rint(values * scale).astype(np.int64)
    world = (CheckedWorld if checked else World)(plan, {}, 3, seed(4), stored=stored(plan, rows))
    world.forgets = True
    wire = plan.outputs[0].wire
    found = world.run({}, 5).outputs[wire]
    assert np.abs(found / float(plan.wire[wire].scale) - values.sum(axis=0)).max() < 0.5


def test_rows_that_lie_about_their_range_move_each_number_by_the_range_alone() -> None:
    """In every band: field elements of any size are held to it."""
    plan = bare(in_bands(whole(), COUNT))
    rng = np.random.default_rng(5)
    rows = rng.integers(-(1 << 60), 1 << 60, (MOST, SIZE))
    found = World(plan, {}, 2, seed(1), stored=stored(plan, rows)).run({}, MOST).outputs[plan.outputs[0].wire]
    assert np.abs(found / float(plan.wire[plan.outputs[0].wire].scale)).max() < MOST + 0.5


@pytest.mark.parametrize("count", [2, 3, 5, 12])
def test_bands_change_the_rounds_alone(count: int) -> None:
    one, plan = plan_cost(whole(), MOST), plan_cost(in_bands(whole(), count), MOST)
    bands = len(in_bands(whole(), count).inputs)
    assert (one.rounds, plan.rounds) == (4, 2 * bands + 2)
    assert (one.dealt, one.held) == (plan.dealt, plan.held)
    assert one.sent <= plan.sent < one.sent + 2 * bands  # bits of a band end in a whole byte


def test_small_collections_have_the_plan_that_they_had() -> None:
    for size, most, security in [(40, 10_000, "passive"), (4_000, 1_000, "passive"), (4_000, 1_000, "active")]:
        asked = wishes(size, most)
        assert asked.bands(security) == 1
        assert compiled("me", asked, security).plan.digest == undivided("me", asked, security).plan.digest
    assert in_bands(whole(), 1) is whole()
    assert b"after" not in whole().canonical and b"first" not in whole().canonical


def test_the_proof_is_that_of_the_whole_vector() -> None:
    plan = in_bands(whole(), COUNT)
    assert parse_plan(plan.canonical).digest == plan.digest
    [one] = guarantee(whole(), {whole().inputs[0].wire: FACTS}).vectors
    [vector] = guarantee(plan, {given.wire: FACTS for given in plan.inputs}).vectors
    for name in ("elements", "sensitivity", "euclidean", "loss", "variance", "mechanism", "sigma"):
        assert getattr(one, name) == getattr(vector, name)
    assert vector.sources == {given.wire for given in plan.inputs}


@pytest.mark.parametrize(("security", "most"), [("passive", BAND), ("active", CHECKED_BAND)])
def test_memory_does_not_grow_with_the_numbers(security: str, most: int) -> None:
    """At parties and at the provider; a band's is what it was."""
    every = [compiled("me", wishes(size, 10_000), security).plan for size in (1_000, 10_000, 20_000)]
    needed = [(needed_memory(plan, 10_000, 64 << 20), needed_to_deal(plan, 10_000, 64 << 20)) for plan in every]
    for one, other in zip(needed[1:], needed, strict=False):
        assert one[0] < 1.3 * other[0] and one[1] < 1.3 * other[1]
    assert max(max(each) for each in needed) < 4 << 30
    bands = {given.wire: every[1].wire[given.wire].shape[1] for given in every[1].inputs}
    assert sum(bands.values()) == 10_000 and max(bands.values()) * 10_000 <= most * 1.01


def test_one_band_is_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is declared as live is: no wire of a band is there when the one behind the next begins."""
    held = list[set[str]]()
    over = RunWires.over

    def watched(wires: RunWires, gate: object) -> None:
        over(wires, gate)  # type: ignore[arg-type]
        held.append({name.rpartition(".")[2] for name in wires.held if name.startswith(("0.", "1.", "2.", "3."))})

    monkeypatch.setattr(RunWires, "over", watched)
    plan = in_bands(whole(), COUNT)
    world = World(plan, {}, 2, seed(2), stored=stored(plan, np.zeros((3, SIZE), dtype=np.int64)))
    world.forgets = True
    world.run({}, 3)
    assert max(map(len, held)) == 1
    assert {name for names in held for name in names} == {str(number) for number in range(COUNT)}
    live = max(each.live for each in holdings(plan.bind(3)))
    assert live < 0.6 * max(each.live for each in holdings(whole().bind(3)))


# ------------------------------------------------------------------ what is refused


def test_only_a_sum_of_numbers_each_by_itself_is_cut() -> None:
    plan = whole()
    for count in (0, MOST_BANDS + 1):
        with pytest.raises(PlanError, match="bands"):
            in_bands(plan, count)
    with pytest.raises(PlanError, match="each by itself"):
        in_bands(in_bands(plan, 2), 2)
    [given] = plan.inputs
    entered = [
        gate.model_copy(update={"lifetime": Lifetime.RUN}) if isinstance(gate, Input) else gate for gate in plan.gates
    ]
    with pytest.raises(PlanError, match="each by itself"):
        in_bands(with_parts(plan, gates=entered), 2)
    [held] = [gate for gate in plan.gates if isinstance(gate, Bound)]
    beside = held.model_copy(update={"name": "beside", "out": "beside"})
    with pytest.raises(PlanError, match="each by itself"):  # what is held to its range has another reader
        in_bands(with_parts(plan, gates=[*plan.gates, beside]), 2)
    several = [
        gate.model_copy(update={"xs": (given.wire, given.wire), "factors": (1, 1)})
        if isinstance(gate, Combine) and gate.reads == (given.wire,)
        else gate
        for gate in plan.gates
    ]
    with pytest.raises(PlanError, match="each by itself"):
        in_bands(with_parts(plan, gates=several), 2)
