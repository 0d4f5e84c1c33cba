"""Plans for other people: what changes, and what two plans have in common if they are for one model."""

from __future__ import annotations

from typing import Any

import pytest

from mpc.compiler.compile import compile_model
from mpc.compiler.roles import Roles
from mpc.errors import PlanError
from mpc.gates.input import Input
from mpc.plan.ends import Missing
from mpc.plan.parse import parse_plan
from mpc.plan.placing import place, template
from mpc.plan.plan import Plan
from mpc.privacy.dependence import rows_meet
from mpc.wires import Lifetime
from tests.support.parties import tiny_model
from tests.support.plans import with_parts


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path = tiny_model(tmp_path_factory.mktemp("model") / "m.onnx")
    return template(compile_model(path, {"x": (-4.0, 4.0)}, Roles("lab", "lab", ("lab",))).plan, "lab")


def without_roles(plan: Plan) -> dict[str, Any]:
    content = plan.model_dump(mode="json")
    for wire in content["wires"]:
        del wire["holders"]
    content["gates"] = [gate.model_dump(exclude={"lifetime"}) for gate in plan.gates]
    return content


def test_a_placed_plan_differs_in_its_roles_and_in_nothing_else(plan: Plan) -> None:
    for stored in ((), ("x",)):
        placed = parse_plan(place(plan, {"x": "hospital"}, {"y": ("doctor", "analyst", "doctor")}, stored).canonical)
        assert without_roles(placed) == without_roles(plan)
        assert placed.recipients == {"doctor", "analyst"} and placed.digest != plan.digest
        entered = next(gate for gate in placed.online if isinstance(gate, Input))
        assert entered.lifetime is (Lifetime.STORED if stored else Lifetime.RUN)
        assert placed.wire[entered.out].holders == ("hospital",)
        assert {placed.wire[gate.out].holders for gate in placed.weights} == {("lab",)}
        assert template(placed, "lab").digest == plan.digest


def test_a_template_keeps_whose_the_weights_are(plan: Plan) -> None:
    assert template(plan, "lab").digest == plan.digest
    other = template(plan, "eve")
    assert other.digest != plan.digest  # eve enters and receives, and the weights are still the lab's
    assert {other.wire[gate.out].holders for gate in other.weights} == {("lab",)}
    assert template(plan.with_stored_weights(), "lab").digest != plan.digest


def test_outputs_that_are_one_value_have_one_set_of_recipients(plan: Plan) -> None:
    [out] = plan.outputs
    both = plan.model_copy(update={"outputs": (out, out.model_copy(update={"name": "again"}))})
    assert place(both, {"x": "lab"}, {"y": ("doctor",), "again": ("doctor",)}).recipients == {"doctor"}
    with pytest.raises(PlanError, match="one value"):
        place(both, {"x": "lab"}, {"y": ("doctor",), "again": ("analyst",)})


def test_a_weight_at_the_parties_is_no_row_that_meets_others(plan: Plan) -> None:
    """Every row is multiplied by all of it, and each answer is still about one row of the data."""
    stored = place(plan.with_stored_weights(), {"x": "hospital"}, {"y": ("doctor",)}, ("x",))
    weights = {gate.out for gate in stored.stored if gate.is_weight}
    assert weights and not rows_meet(stored)
    data = [gate for gate in stored.stored if not gate.is_weight]
    assert len(data) == 1 and data[0].lifetime is Lifetime.STORED


def test_what_no_dataset_can_hold_is_not_read_from_one(plan: Plan) -> None:
    """Numbers that may be missing have marks of their own at the parties, and rows are the first axis."""
    [given] = plan.inputs
    people = {"x": "hospital"}, {"y": ("doctor",)}
    missing = with_parts(plan, inputs=[given.model_copy(update={"missing": Missing(columns=(0,))})])
    wires = [w.model_copy(update={"shape": (1, *w.shape[1:])}) if w.name == given.wire else w for w in plan.wires]
    fixed = with_parts(plan, wires=wires)
    for other in (missing, fixed):
        assert place(other, *people).recipients == {"doctor"}
        with pytest.raises(PlanError, match="input 'x' cannot be read from a dataset"):
            place(other, *people, stored=("x",))


def test_whoever_is_given_a_place_runs_it_as_securely(plan: Plan) -> None:
    active = plan.with_security("active")
    assert template(active, "lab").is_checked and template(active, "lab").digest != template(plan, "lab").digest
