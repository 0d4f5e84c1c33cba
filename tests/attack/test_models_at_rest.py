"""Attempts to get more of a model at the parties than its use: refused by each party alone.

In every attack all parties but one let everything pass; the one that is left refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mpc.errors import InputError, IntegrityError, MpcError, PlanError, PolicyError, SessionError
from mpc.gates.input import Input
from mpc.plan.parse import parse_plan
from mpc.plan.placing import place, template
from mpc.plan.plan import Plan
from mpc.wires import Lifetime, Masking
from parties.agreed.bindings import Binding
from parties.agreed.models import read_model, uses_as_put, weight_bindings, weight_columns
from parties.party import stored
from parties.pb import data_pb2
from tests.support.graphs import node, save_model
from tests.support.lab import ANALYST, LAB, Lab
from tests.support.objects import AGE, RawPut, schema
from tests.support.parties import InProcess, data
from tests.support.plans import with_parts

pytestmark = pytest.mark.filterwarnings("ignore::mpc.errors.MpcWarning")  # of precision
Attack = tuple[Plan, tuple[Binding, ...]]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("cluster")
    with InProcess(folder, 2) as running:
        made = Lab(running, folder)
        made.models().grant("triage", ANALYST, versions=True)
        yield made


@pytest.fixture(params=[0, 1])
def only(request: pytest.FixtureRequest, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> int:
    """The one party that still asks; the others let everything pass."""
    for index, party in enumerate(lab.cluster.nodes):
        if index != request.param:
            monkeypatch.setattr(party.consent, "ask", lambda asked: [])
    return int(request.param)


def placed(lab: Lab) -> Attack:
    found = lab.models(ANALYST).get("lab/triage").place()
    return found.plan, found.bindings


def renamed(plan: Plan, old: str, new: str) -> Plan:
    return parse_plan(plan.canonical.replace(f'"{old}"'.encode(), f'"{new}"'.encode()))


def opens_an_inner_value(plan: Plan) -> Plan:
    """Tells what is behind the first layer as well."""
    ends = {given.wire for given in plan.inputs} | {out.wire for out in plan.outputs}
    weights = {gate.out for gate in plan.weights}
    inner = next(w for w in plan.wires if w.masking is Masking.DRAWN and w.name not in ends | weights)
    wires = [w.model_copy(update={"holders": (ANALYST,)}) if w is inner else w for w in plan.wires]
    more = plan.outputs[0].model_copy(update={"name": "inner", "wire": inner.name, "shape": inner.shape})
    return parse_plan(with_parts(plan, wires=wires, outputs=[*plan.outputs, more]).canonical)


def chosen_weights(plan: Plan, count: int = 1) -> Plan:
    """The last weights are the asker's own, for this session: an identity would show what they are multiplied with."""
    taken = {gate.out for gate in plan.weights[-count:]}
    gates = [
        g.model_copy(update={"lifetime": Lifetime.SESSION}) if isinstance(g, Input) and g.out in taken else g
        for g in plan.gates
    ]
    wires = [w.model_copy(update={"holders": (ANALYST,)}) if w.name in taken else w for w in plan.wires]
    return parse_plan(with_parts(plan, gates=gates, wires=wires).canonical)


def wider(plan: Plan) -> Plan:
    """Another range than the owner's, beyond which the answer is another function."""
    inputs = [given.model_copy(update={"high": (given.high[0] * 1000,)}) for given in plan.inputs]
    return parse_plan(with_parts(plan, inputs=inputs).canonical)


def fewer_bits(plan: Plan) -> Plan:
    """Another bound of an inner wire, so that it wraps."""
    name = plan.outputs[0].wire
    wires = [w.model_copy(update={"bits": w.bits + 1}) if w.name == name else w for w in plan.wires]
    return parse_plan(with_parts(plan, wires=wires).canonical)


CHANGED: dict[str, Callable[[Plan], Plan]] = {
    "an inner value is opened": opens_an_inner_value,
    "a layer of the asker's own": chosen_weights,
    "another range": wider,
    "other bounds": fewer_bits,
    "a renamed wire": lambda plan: renamed(plan, plan.weights[0].out, "w"),
    "a renamed output": lambda plan: with_parts(plan, outputs=[plan.outputs[0].model_copy(update={"name": "z"})]),
}


@pytest.mark.parametrize("case", CHANGED)
def test_security_42_another_plan_of_the_weights(lab: Lab, only: int, case: str) -> None:
    honest, bindings = placed(lab)
    plan = CHANGED[case](honest)
    assert plan.digest != honest.digest
    stored = {gate.out for gate in plan.weights if gate.is_stored}
    taken = [replace(b, wire=gate.out) for b, gate in zip(bindings, plan.weights, strict=True) if gate.out in stored]
    weights = {gate.out: np.zeros(plan.wire[gate.out].sizes, np.int64) for gate in plan.entered_once}
    before = lab.revealed(only)
    with pytest.raises(PolicyError, match="bound to another plan than the one that the model was put for") as caught:
        lab.ask_raw(plan, taken, weights)
    assert caught.value.peer in (None, lab.cluster.names[only]) and lab.cluster.names[only] in str(caught.value)
    assert lab.revealed(only) == before


def test_a_weight_that_may_be_larger_than_its_plan_says(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has consented: what the plan proves of its bounds would not hold."""
    for party in lab.cluster.nodes:
        monkeypatch.setattr(party.consent, "ask", lambda asked: [])
    honest, bindings = placed(lab)
    taken = honest.weights[-1].out
    wires = [w.model_copy(update={"bits": w.bits - 1}) if w.name == taken else w for w in honest.wires]
    with pytest.raises(InputError, match="may be larger than the plan's bounds allow"):
        lab.ask_raw(parse_plan(with_parts(honest, wires=wires).canonical), bindings, {})


@pytest.fixture(scope="module")
def pair(lab: Lab) -> Attack:
    """A model whose two weights have one shape and one scale."""
    (lab.folder / "pair").mkdir()
    vectors = {"a": np.array([0.7, -0.9, 0.6], np.float32), "b": np.array([-0.8, 0.65, 0.9], np.float32)}
    layers = [node("Mul", ["x", each], [f"{each}x"], each) for each in vectors]
    bent = [node("Relu", [f"{each}x"], [f"{each}r"], f"{each}r") for each in vectors]
    nodes = [*layers, *bent, node("Sub", ["ar", "br"], ["y"])]
    path = save_model(lab.folder / "pair", nodes, vectors, ("batch", 3))
    lab.models().put("pair", path, {"x": (-4.0, 4.0)})
    lab.models().grant("pair", ANALYST, versions=True)
    found = lab.models(ANALYST).get("lab/pair").place()
    first, second = (found.plan.wire[gate.out] for gate in found.plan.weights)
    assert (first.sizes, first.scale) == (second.sizes, second.scale)
    return found.plan, found.bindings


@pytest.mark.parametrize("columns", [("w2", "w1"), ("w1", "w1"), ("w2", "w2")])
def test_security_42_weights_in_other_places(lab: Lab, only: int, pair: Attack, columns: tuple[str, ...]) -> None:
    plan, bindings = pair
    lab.ask_raw(plan, bindings)
    before = lab.revealed(only)
    with pytest.raises(PolicyError, match="or to other places in it"):
        lab.ask_raw(plan, [replace(each, columns=(name,)) for each, name in zip(bindings, columns, strict=True)])
    assert lab.revealed(only) == before


def test_security_42_weights_of_two_versions(lab: Lab, only: int) -> None:
    """Both are granted, and of one plan: a mixture is a third model that nobody has put."""
    one, other = (lab.put("two", secret) for secret in (0.6251, 0.6254))
    assert one.plan.digest == other.plan.digest
    lab.models().grant("two", ANALYST, versions=True)
    found = lab.models(ANALYST).get("lab/two").place()
    mixed = [replace(found.bindings[0], object=one.manifest.id), *found.bindings[1:]]
    with pytest.raises(PolicyError, match="bound to another plan|or to other places in it"):
        lab.ask_raw(found.plan, mixed)


def test_security_42_a_model_is_not_what_it_reads(lab: Lab, only: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each party refuses to have the weights as data, even for their owner: the answer would be a function of them."""
    vault = lab.cluster.nodes[1 - only].vault
    known = vault.manifest
    monkeypatch.setattr(vault, "manifest", lambda object_id: known(object_id).model_copy(update={"plan": None}))
    monkeypatch.setattr(stored, "check_columns", lambda *_: None)
    found = lab.models().get("lab/triage")
    plan = parse_plan(place(found.plan, {"x": LAB}, {"y": (LAB,)}, ["x"]).canonical)
    x = plan.inputs[0].wire
    weights = {each.wire: each for each in weight_bindings(plan, found.manifest)}
    data_binding = Binding(x, found.manifest.id, ("w1",), 0, 1)
    bindings = tuple(weights.get(gate.out, data_binding) for gate in plan.stored)
    assert not uses_as_put(plan, bindings, found.manifest)
    with pytest.raises(InputError, match=f"party-{only}: lab/triage is a model, and its weights are no data"):
        lab.ask_raw(plan, bindings, client=LAB)


def test_security_42_a_foreign_model_in_a_plan_of_ones_own(lab: Lab, only: int) -> None:
    """A plan whose weights are the attacker's to enter or to have put takes nobody else's."""
    mine = lab.put("mine", 0.6252, owner=ANALYST)
    own = mine.place()
    theirs = tuple(replace(each, object=lab.model.manifest.id) for each in own.bindings)
    with pytest.raises(MpcError, match="is not analyst's|granted analyst|bound to another plan"):
        lab.ask_raw(own.plan, theirs)
    plan, bindings = placed(lab)
    with pytest.raises(MpcError, match="is not lab's"):
        lab.ask_raw(plan, [replace(each, object=mine.manifest.id) for each in bindings])
    other = lab.put("other", ranges={"x": (-1.0, 1.0)})
    with pytest.raises(MpcError, match="bound to another plan|not the weight|granted analyst no use"):
        lab.ask_raw(plan, [replace(each, object=other.manifest.id) for each in bindings])


@pytest.mark.parametrize("index", [0, 1])
def test_security_42_no_grant_a_revoked_one_a_used_one_and_what_is_gone(
    lab: Lab, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in range(2):
        if other != index:
            monkeypatch.setattr(lab.cluster.nodes[other].consent, "ask", lambda asked: [])
    name = f"gone-{index}"
    lab.put(name)
    found = lab.models(ANALYST).get(f"lab/{name}").place()
    with pytest.raises(PolicyError, match=f"{lab.cluster.names[index]}: .*no use of it"):
        lab.open(found)
    once = lab.models().grant(name, ANALYST, uses=1)
    lab.use(found, {"x": data(1)})
    with pytest.raises(PolicyError, match="is used up"):
        lab.open(found)
    many = lab.models().grant(name, ANALYST, uses=2)
    session = lab.open(found)
    session.run(None, {"x": data(1)})
    lab.models().revoke(many)
    before = lab.revealed(index)
    with pytest.raises(PolicyError, match="revoked|used up"):  # in the middle of a session, before it is told
        session.run(None, {"x": data(1)})
    assert lab.revealed(index) == before and once.id != many.id
    lab.models().grant(name, ANALYST, uses=3)
    lab.models().remove(name)
    with pytest.raises(SessionError, match="no such object"):
        lab.open(found)


def test_security_42_an_expired_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with InProcess(tmp_path, 2) as cluster:
        made = Lab(cluster, tmp_path)
        made.put("short", expires="36h")
        made.models().grant("short", ANALYST)
        found = made.models(ANALYST).get("lab/short").place()
        made.use(found, {"x": data(1)})
        vault = cluster.nodes[1].vault
        later = vault.times.clock() + 40 * 3600
        monkeypatch.setattr(vault.times, "clock", lambda: later)
        with pytest.raises(SessionError, match="no such object"):
            made.open(found)


def test_security_42_sessions_side_by_side_have_the_uses_of_one(lab: Lab) -> None:
    lab.put("raced")
    lab.models().grant("raced", ANALYST, uses=1)
    found = lab.models(ANALYST).get("lab/raced").place()
    first, second = lab.open(found), lab.open(found)
    first.run(None, {"x": data(1)})
    with pytest.raises(PolicyError, match="is used up"):
        second.run(None, {"x": data(1)})
    first.close()


def test_who_may_not_see_a_model_does_not_see_its_plan_and_a_removed_one_has_none(lab: Lab) -> None:
    hidden = lab.put("hidden", visible=["doctor"])
    request = data_pb2.PlanRequest(object=hidden.manifest.id)
    for index in range(2):
        assert b"".join(each.chunk for each in lab.cluster.data(index, "doctor").Plan(request)) == hidden.plan.canonical
        with pytest.raises(SessionError, match="no such object"):
            list(lab.cluster.data(index, ANALYST).Plan(request))
    lab.models().remove("hidden")
    for index in range(2):
        with pytest.raises(SessionError, match="no such object"):
            list(lab.cluster.data(index, "doctor").Plan(request))
        with lab.cluster.ledgers[index].reading() as database:
            orphans = "SELECT count(*) FROM data_plans WHERE number NOT IN (SELECT number FROM data_objects)"
            assert database.execute(orphans).fetchone() == (0,)
    lab.table("plain")
    table_of = lab.datasets().get("hospital/plain").manifest
    with pytest.raises(SessionError, match="no such object"):
        list(lab.cluster.data(0, "hospital").Plan(data_pb2.PlanRequest(object=table_of.id)))


# -- what is put


def test_a_plan_that_is_not_the_model_s_is_not_taken(tmp_path: Path) -> None:
    with InProcess(tmp_path, 2) as cluster:
        made = Lab(cluster, tmp_path)
        plan = made.model.plan
        columns = weight_columns(plan)
        fields = {"rows": 1, "columns": columns, "plan": plan.digest.hex(), "visible": ("any",)}
        other = template(place(plan, {"x": LAB}, {"y": (LAB,)}), LAB)
        inner = opens_an_inner_value(place(plan, {"x": LAB}, {"y": (LAB,)}))
        narrow = columns[0].model_copy(update={"high": columns[0].high / 2})
        for said, sent, words in (
            (fields, inner, "not the one that"),
            ({**fields, "plan": inner.digest.hex()}, inner, "not the one that"),
            ({**fields, "columns": columns[:-1]}, plan, "are not those of"),
            ({**fields, "columns": (narrow, *columns[1:])}, plan, "are not those of"),
        ):
            begun = RawPut(cluster, LAB, name="lab/other", **said).begin()
            with pytest.raises(InputError, match=words):
                begun.call(0, "PutPlan", data_pb2.PutPlanRequest(put=begun.id, plan=sent.canonical))
        assert other.digest == plan.digest
        begun = RawPut(cluster, "eve", name="eve/stolen", **fields).begin()  # a plan of somebody else's weights
        with pytest.raises(InputError, match="not the one that"):
            begun.call(0, "PutPlan", data_pb2.PutPlanRequest(put=begun.id, plan=plan.canonical))
        with pytest.raises(PlanError):
            begun.call(0, "PutPlan", data_pb2.PutPlanRequest(put=begun.id, plan=b"{}"))
        entered = RawPut(cluster, LAB, name="lab/bare", **fields).begin().enter()
        with pytest.raises(SessionError, match="plan of lab/bare is not here"):
            entered.commit(0, entered.manifest())


def test_a_party_that_hands_over_another_plan_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, _ = placed(lab)
    monkeypatch.setattr(lab.cluster.nodes[0].vault, "plan", lambda object_id: opens_an_inner_value(plan).canonical)
    with pytest.raises(IntegrityError, match="party-0 sent another plan") as caught:
        lab.models(ANALYST).get("lab/triage")
    assert caught.value.peer == "party-0"


def test_what_is_no_model_is_none(lab: Lab) -> None:
    for changes in ({"rows": 2}, {"rows_per_person": 2, "rows": 2}):
        with pytest.raises(ValueError, match="one row"):
            schema(plan="ab" * 32, **changes)
    plain = schema(columns=(AGE,))
    assert b'"plan"' not in plain.content
    with pytest.raises(InputError, match="not the one that"):
        read_model(plain, lab.model.plan.canonical)
