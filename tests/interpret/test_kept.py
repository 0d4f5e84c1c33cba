"""Outputs that stay at the parties: nobody is given their masks, and the provider commits to every party's part."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.roles import Roles
from mpc.errors import LocalProtocolError, ModelError, PlanError, ReuseError
from mpc.gates.input import Input
from mpc.gates.linear import Combine
from mpc.gates.moves import Reshape
from mpc.gates.rows import Rows
from mpc.gates.truncate import Truncate
from mpc.interpret.party import PartyRun
from mpc.plan.ends import PlanInput, PlanOutput, PlanState
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan
from mpc.plan.verify import verify
from mpc.privacy.dependence import dependence
from mpc.privacy.facts import StoredFacts
from mpc.privacy.guarantee import guarantee
from mpc.wires import Lifetime, Masking
from tests.support.graphs import node, save_model
from tests.support.plans import Builder, replace_wires, wire, with_parts
from tests.support.worlds import make_world

B: Any = "batch"


def two_outputs(tmp_path: Any, **roles: Any) -> Compiled:
    """y = 2 x and s = x > 0, of which something is kept."""
    nodes = [node("Add", ["x", "x"], ["y"]), node("Relu", ["x"], ["s"])]
    path = save_model(tmp_path, nodes, shape=("batch", 3), outputs=("y", "s"))
    return compile_model(path, (-4.0, 4.0), Roles(**roles))


def test_a_kept_output_has_recipients_only_if_they_are_named(tmp_path: Any) -> None:
    plan = two_outputs(tmp_path, keeps=frozenset({"y"})).plan
    kept, told = plan.outputs
    assert (kept.keep, plan.wire[kept.wire].kept, plan.wire[kept.wire].holders) == (True, True, ())
    assert (told.keep, plan.wire[told.wire].holders) == (False, ("coordinator",))
    assert parse_plan(plan.canonical) == plan
    both = two_outputs(tmp_path, keeps=frozenset({"y"}), readers={"y": ("bob",)}).plan
    assert both.wire[both.outputs[0].wire].holders == ("bob",) and both.outputs[0].keep


def test_a_plan_that_keeps_nothing_has_the_bytes_that_it_had(tmp_path: Any) -> None:
    canonical = two_outputs(tmp_path).plan.canonical
    assert b"keep" not in canonical and b"kept" not in canonical


def test_nothing_is_kept_that_the_model_has_not(tmp_path: Any) -> None:
    with pytest.raises(ModelError, match="no output 'z'"):
        two_outputs(tmp_path, keeps=frozenset({"z"}))


def test_two_kept_outputs_of_one_value_have_masks_of_their_own(tmp_path: Any) -> None:
    nodes = [node("Relu", ["x"], ["a"]), node("Identity", ["a"], ["b"]), node("Identity", ["a"], ["c"])]
    path = save_model(tmp_path, nodes, shape=("batch", 3), outputs=("b", "c"))
    plan = compile_model(path, (-4.0, 4.0), Roles(keeps=frozenset({"b", "c"}))).plan
    assert len({out.wire for out in plan.outputs}) == 2


@pytest.mark.parametrize("parties", [2, 3])
def test_each_party_keeps_its_own_part_of_the_mask(tmp_path: Any, parties: int) -> None:
    compiled = two_outputs(tmp_path, keeps=frozenset({"y"}), readers={"y": ("bob",)})
    world = make_world(compiled.plan, compiled.weights, parties)
    given = {compiled.plan.inputs[0].wire: np.array([[1, -2, 3]]) << 20}
    run = world.run(given, 1)
    [out] = compiled.plan.kept
    real = run.outputs[out.wire] / float(compiled.plan.wire[out.wire].scale)
    scale = float(compiled.plan.wire[compiled.plan.inputs[0].wire].scale)
    assert np.abs(real - 2 * np.array([[1, -2, 3]]) * (1 << 20) / scale).max() < 1e-4
    assert [seed.commitment() for seed in run.kept[out.wire]] == run.commitments[out.wire]
    assert len({seed.secret for seed in run.kept[out.wire]}) == parties
    again = world.run(given, 1)  # fresh masks: no seed is kept twice
    assert not {seed.secret for seed in run.kept[out.wire]} & {seed.secret for seed in again.kept[out.wire]}


def test_what_is_not_kept_is_given_to_no_vault_and_what_is_once(tmp_path: Any) -> None:
    found: list[PartyRun] = []
    steps = PartyRun.steps

    compiled = two_outputs(tmp_path, keeps=frozenset({"y"}))
    world = make_world(compiled.plan, compiled.weights, 2)

    def watch(self: PartyRun, given: Any) -> Any:
        found.append(self)
        return steps(self, given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartyRun, "steps", watch)
        world.run({compiled.plan.inputs[0].wire: np.zeros((1, 3), np.int64)}, 1)
    kept, told = (out.wire for out in compiled.plan.outputs)
    for again in (found[0].keep, found[0].release):
        with pytest.raises(ReuseError):
            again(kept)
    with pytest.raises(ReuseError):
        found[0].keep(told)


def test_nothing_is_kept_before_the_parties_agree(tmp_path: Any) -> None:
    compiled = two_outputs(tmp_path, keeps=frozenset({"y"}))
    world = make_world(compiled.plan, compiled.weights, 2)
    prepare, early = PartyRun.prepare, []

    def ask(self: PartyRun) -> None:
        prepare(self)
        with pytest.raises(LocalProtocolError, match="agree"):
            self.keep(compiled.plan.outputs[0].wire)
        early.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartyRun, "prepare", ask)
        world.run({compiled.plan.inputs[0].wire: np.zeros((1, 3), np.int64)}, 1)
    assert len(early) == 2


# -- plans from outside


def kept_plan(shape: tuple[Any, ...] = (B, 3), **out: Any) -> Plan:
    """The identity on stored data, kept."""
    x = wire("x", (B, 3), 20, holders=("owner",))
    y = wire("y", shape, 20, kept=True)
    given = PlanInput(name="x", wire="x", dtype="float32", low=(Fraction(-1),), high=(Fraction(1),))
    return Plan(
        inputs=(given,),
        outputs=(PlanOutput(name="y", wire="y", dtype="float32", keep=True, **{"shape": shape, **out}),),
        wires=(x, y),
        gates=(
            Input(name="i", out="x", lifetime=Lifetime.STORED),
            Truncate(name="t", x="x", out="y", shift=0),
        ),
    )


def test_a_good_plan_is_taken() -> None:
    verify(kept_plan())
    assert parse_plan(kept_plan().canonical) == kept_plan()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plan: replace_wires(plan, {"y": {"kept": False, "holders": ("bob",)}}), "or the reverse"),
        (lambda plan: with_parts(plan, outputs=[plan.outputs[0].model_copy(update={"keep": False})]), "or the reverse"),
        (lambda plan: replace_wires(plan, {"x": {"kept": True}}), "not the wire of one output"),
        (
            lambda plan: with_parts(plan, outputs=[plan.outputs[0], plan.outputs[0].model_copy(update={"name": "z"})]),
            "not the wire of one output",
        ),
        (lambda plan: with_parts(plan, outputs=[plan.outputs[0].model_copy(update={"shape": (3, B)})]), "first axis"),
        (lambda plan: replace_wires(plan, {"y": {"masking": Masking.DERIVED}}), "drawn"),
    ],
)
def test_a_plan_that_keeps_what_cannot_be_kept_is_refused(change: Callable[[Plan], Plan], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        verify(change(kept_plan()))


# -- what a kept output depends on


def question(*gates: Any, shape: tuple[Any, ...] = (B, 3)) -> Plan:
    """Two stored inputs and gates, the last of which writes what is kept."""
    b = Builder()
    for name in ("u", "v"):
        b.enter(name, (B, 3), 20)
        b.gates[-1] = b.gates[-1].model_copy(update={"lifetime": Lifetime.STORED})
    for gate, written in gates:
        b.gate(gate, written)
    last = b.wires[-1].name
    b.gate(Truncate(name="last", x=last, out="kept", shift=0), wire("kept", shape, b.wires[-1].bits, kept=True))
    b.outputs.append(PlanOutput(name="kept", wire="kept", shape=shape, dtype="float32", keep=True))
    return b.build()


ADDED = Combine(name="c", xs=("u", "v"), factors=(1, 1), out="w"), wire("w", (B, 3), 22, masking=Masking.INHERITED)


def test_rows_depend_on_rows_only_where_every_gate_stays_within_a_row() -> None:
    assert dependence(question(ADDED)) == {"kept": {"u": True, "v": True}}
    one = Reshape(name="r", x="u", out="w"), wire("w", (B, 3), 20, masking=Masking.INHERITED)
    assert dependence(question(one)) == {"kept": {"u": True}}


def test_a_sum_over_rows_is_about_everybody() -> None:
    summed = (
        Rows(name="s", x="w", out="z", most=4),
        wire("z", (3,), 25, masking=Masking.INHERITED),
    )
    assert dependence(question(ADDED, summed, shape=(3,))) == {"kept": {"u": False, "v": False}}


def test_rows_that_are_laid_on_another_axis_are_not_rows_any_more() -> None:
    moved = Reshape(name="r", x="w", axes=(1, 0), out="z"), wire("z", (3, B), 22, masking=Masking.INHERITED)
    back = Reshape(name="q", x="z", axes=(1, 0), out="y"), wire("y", (B, 3), 22, masking=Masking.INHERITED)
    assert dependence(question(ADDED, moved, back)) == {"kept": {"u": False, "v": False}}


def test_rows_that_the_next_run_reads_do_not_stay_unheard() -> None:
    """An output that nobody receives may hold rows, but not one that a later run computes with."""
    facts = {name: StoredFacts(4, 1, name) for name in ("u", "v")}
    plan = question(ADDED)
    state = PlanState(name="state", in_="read", out="kept")
    assert guarantee(plan, facts).vectors == ()
    with pytest.raises(PlanError, match="state 'state' tells single rows"):
        guarantee(with_parts(plan, states=[state]), facts)


def test_rows_may_stay_at_the_parties_where_nobody_receives_them() -> None:
    facts = {name: StoredFacts(4, 1, name) for name in ("u", "v")}
    plan = question(ADDED)
    assert guarantee(plan, facts).vectors == ()
    with pytest.raises(PlanError, match="tells single rows"):
        guarantee(replace_wires(plan, {"kept": {"holders": ("bob",)}}), facts)
    summed = Rows(name="s", x="w", out="z", most=4), wire("z", (3,), 25, masking=Masking.INHERITED)
    with pytest.raises(PlanError, match=r"nothing is proved of what a row contributes"):
        guarantee(question(ADDED, summed, shape=(3,)), facts)
