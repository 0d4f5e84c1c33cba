"""Runs that are checked, over daemons: they cost what is said beforehand, answer as others do, and are told last."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mpc.compiler.roles import Roles
from mpc.errors import PlanError, PolicyError
from mpc.field import P
from mpc.fixedpoint import decode, encode
from mpc.plan.cost import plan_cost, session_dealt
from mpc.plan.plan import Plan
from mpc.prg import SEED_BYTES
from parties import SGD, Cluster
from parties.agreed.memory import needed_memory, plan_memory
from parties.agreed.refreshing import identity_plan
from parties.cli.preparing import place_model
from parties.client.at_rest import keeping
from parties.client.datasets import Datasets
from parties.client.models import Models
from parties.client.running.stocks import order, stocks
from parties.client.session import Session
from parties.config.models import Limits
from tests.support import states
from tests.support.asking import AGES, ANALYST, HOSPITAL, Kept, above, exactly, noised_sum
from tests.support.grants import budget, dp
from tests.support.keeping import keep, kept_plan, opened
from tests.support.lab import LAB, RANGES, Lab
from tests.support.parties import InProcess, data, eventually, id_of, tiny_answer
from tests.support.training import perceptron

ACTIVE = Roles(security="active")
BITS = (AGES >= 60).astype(np.int64)


@pytest.fixture(scope="module", params=[2, 3])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("cluster"), request.param) as running:
        yield running


@pytest.fixture(scope="module")
def kept(cluster: InProcess) -> Kept:
    found = Kept(cluster)
    found.say(budget(20))
    return found


def checked(plan: Plan) -> Plan:
    return plan.with_security("active")


def near(found: np.ndarray, x: np.ndarray) -> bool:
    return bool(np.abs(found - tiny_answer(x)).max() < 1e-3)


def test_checked_runs_answer_and_cost_what_is_said(cluster: InProcess) -> None:
    parties = len(cluster.names)
    session, weights = cluster.session(roles=ACTIVE), cluster.compiled(ACTIVE).weights
    assert session.plan.is_checked and session.setup_dealt == session_dealt(session.plan) + SEED_BYTES * parties
    assert session_dealt(session.plan) == 8 * sum(each.size for each in weights.values())
    [given], [out] = session.plan.inputs, session.plan.outputs
    for batch in (1, 5):
        x = data(batch)
        integers = encode(x, session.plan.wire[given.wire].scale)
        found, report = session.run({given.wire: integers}, batch, time.perf_counter)
        assert near(decode(found[out.wire], session.plan.wire[out.wire].scale), x)
        cost, unchecked = plan_cost(session.plan, batch), plan_cost(session.plan.with_security("passive"), batch)
        assert (report.rounds, report.sent_bytes) == (cost.rounds, cost.total_sent(parties))
        assert report.dealt_bytes == cost.total_dealt(parties)
        assert (report.rounds, cost.sent) == (unchecked.rounds + 4, unchecked.sent + 208)
    session.close()
    assert cluster.has_ended(session.id)
    for index in range(parties):
        assert cluster.ledger_states(index)[0] == ("closed", None)
        assert cluster.run_states(index, session.id) == ["revealed", "revealed"]


def test_a_plan_that_is_not_checked_costs_what_it_did(cluster: InProcess) -> None:
    session = cluster.session()
    assert session.setup_dealt == SEED_BYTES * len(cluster.names)
    [given] = session.plan.inputs
    _, report = session.run({given.wire: encode(data(2), session.plan.wire[given.wire].scale)}, 2, time.perf_counter)
    session.close()
    assert (report.rounds, report.sent_bytes) == (5, 133 * (len(cluster.names) - 1))


def test_each_session_has_keys_of_its_own(cluster: InProcess) -> None:
    """Also of sessions that are open at once; the provider's are the sums of the parties' shares."""
    sessions = [cluster.session(roles=ACTIVE) for _ in range(2)]
    keys = [next(each for each in cluster.provider.sessions() if each.terms.session_id == s.id).key for s in sessions]
    assert None not in keys
    assert len({int(key.alpha) for key in keys if key}) == len({int(key.delta) for key in keys if key}) == 2
    for key, session in zip(keys, sessions, strict=True):
        tags = [cluster.of(index, session.id).evaluations.tags for index in range(len(cluster.names))]
        lanes = [each.lane for each in tags if each is not None]
        assert key is not None and sum(int(lane.one) for lane in lanes) % P == int(key.alpha)
        assert np.bitwise_xor.reduce([lane.bit_one for lane in lanes]) == key.delta
        session.close()


def test_weights_may_be_public(cluster: InProcess) -> None:
    compiled = cluster.compiled(Roles(public_weights=True, security="active"))
    with Session(cluster.client(), compiled) as session:
        x = data(3)
        assert near(session.run(None, {"x": x})[0], x)
        assert session.remote.setup_dealt == SEED_BYTES * len(cluster.names) and session_dealt(compiled.plan) == 0


def test_others_enter_and_receive(cluster: InProcess) -> None:
    roles = Roles("model-owner", "data-owner", ("recipient",), security="active")
    script = cluster.script(roles).started(batch=2)
    headers = [parts[0].header for parts in script.finish()]
    assert len({header.transcript for header in headers}) == 1 and headers[0].rounds == plan_cost(script.plan).rounds


@pytest.mark.filterwarnings("ignore::mpc.errors.MpcWarning")
def test_state_is_handed_on_with_its_tags(cluster: InProcess) -> None:
    roles = Roles(readers={"w_out": ("coordinator",)}, security="active")
    for start in (None, np.array([[0.5], [1.0], [-0.25]])):
        with Session(cluster.client(), states.compiled(roles, start=start)) as session:
            w = np.zeros((states.FEATURES, 1)) if start is None else start
            for number in range(4):
                found = session.run(["w_out"], states.data(number))[0]
                w, _ = states.stepped(w, states.data(number))
                assert np.abs(found - w).max() < 1e-3


@pytest.mark.filterwarnings("ignore::mpc.errors.MpcWarning")
def test_a_training_is_checked_from_its_first_step_to_what_it_predicts(cluster: InProcess) -> None:
    """Steps that tell nothing, weights that are kept, and what reads these."""
    rng = np.random.default_rng(3)
    x = rng.random((16, 6)).astype(np.float32)
    y = ((x - 0.5) @ rng.standard_normal((6, 3))).argmax(axis=1)
    with Cluster(cluster.client("coordinator", "active").config) as connected:
        trainer = connected.trainer(perceptron((6, 3)), optimizer=SGD(0.5), batch=8, ranges={"x": (0, 1)})
        assert trainer.training.plan.is_checked
        with trainer.fit(x, y, epochs=1, seed=5) as model:
            assert model.manifest.kept is not None
            found = model.release()
            np.testing.assert_allclose(model.run(None, {"x": x[:5]})[0], x[:5] @ found["w0"] + found["b0"], atol=0.01)


# ------------------------------------------------------------------ data at rest


def test_noised_answers_about_data_at_rest(kept: Kept) -> None:
    kept.grant(question=dp(1))
    before = kept.spent()
    found = kept.ask(checked(noised_sum()))
    assert abs(int(found.reshape(-1)[0]) - int(AGES.sum())) < 40_000
    assert kept.spent() == before + 500_000_000


def test_exact_answers_and_kept_ones(kept: Kept) -> None:
    plan = checked(above())
    kept.grant(dataset=kept.manifest.id.hex(), question=exactly(plan, kept.manifest))
    assert np.array_equal(kept.ask(plan).reshape(-1), BITS)
    keeps = checked(kept_plan())
    kept.grant(dataset=kept.manifest.id.hex(), question=exactly(keeps, kept.manifest))
    made, _ = keep(kept, keeps, batches=(2, 2, 1))
    assert np.array_equal(opened(kept.cluster, made, "y").reshape(-1), BITS)


def test_what_lies_there_is_refreshed(kept: Kept) -> None:
    parties = kept.cluster.client(HOSPITAL, "active")
    datasets = Datasets(parties)
    datasets.put("refreshed", {"age": AGES}, ranges=(0, 127), rows_per_person=1)
    before = datasets.get("refreshed").manifest
    made = keeping.refresh(parties, before)
    assert made.kept is not None and made.kept.plan == checked(identity_plan(before)).digest.hex()
    assert before.id.hex() in made.aliases and made.version == 2


def test_models_at_the_parties(tmp_path: Path) -> None:
    """One that was put without checks may be used with them, and one that was put with them not without."""
    x = data(4)
    with InProcess(tmp_path, 2) as cluster:
        lab = Lab(cluster, tmp_path)
        placed = lab.models().get("triage").place(security="active")
        assert placed.plan.is_checked and near(lab.use(placed, {"x": x}, LAB), x)
        with Cluster(cluster.client(LAB).config) as connected:
            for security in ("passive", "active"):
                roles = Roles(LAB, LAB, (LAB,), security=security)  # type: ignore[arg-type]
                found, _ = place_model(connected, "lab/triage", roles, ())
                assert found.plan.security == security
        own = Models(cluster.client(LAB, "active"))
        strict = own.put("strict", tmp_path / "lab-triage.onnx", ranges=RANGES).place()
        assert strict.plan.is_checked and near(lab.use(strict, {"x": x}, LAB), x)
        lab.models().grant("strict", ANALYST)
        found = lab.models(ANALYST).get("lab/strict").place()
        assert found.plan.is_checked and near(lab.use(found, {"x": x}), x)
        with pytest.raises(PolicyError, match="bound to another plan than the one that the model was put for"):
            lab.use(replace(found, plan=found.plan.with_security("passive")), {"x": x})


# ------------------------------------------------------------------ dealt ahead


def test_checked_runs_are_dealt_ahead_and_used_once(tmp_path: Path) -> None:
    with InProcess(tmp_path, 2) as cluster:
        compiled = cluster.compiled(ACTIVE)
        made = order(cluster.client(), compiled.plan, [2, 2])
        cluster.stop_provider()
        for index in (0, 1):
            cluster.crash(index)
            cluster.revive(index)
        client = cluster.client()
        assert [each.terms for each in stocks(client, compiled.plan)] == [made.terms]
        assert not stocks(client, cluster.compiled().plan)  # it is of no use for runs that are not checked
        with Session(client, compiled, 2) as session:
            for left in (1, 0):
                x = data(2, left)
                assert near(session.run(None, {"x": x})[0], x) and session.stocked == left
        assert not stocks(client)
        states = [cluster.run_states(index, id_of(session)) for index in (0, 1)]
        assert states == [["revealed", "revealed"]] * 2


def test_tags_are_counted_where_memory_and_disk_are_granted(tmp_path: Path) -> None:
    with InProcess(tmp_path, 2, limits=Limits(max_stock_bytes=20_000)) as cluster:
        plan, strict = cluster.compiled().plan, cluster.compiled(ACTIVE).plan
        limits = Limits()
        more = plan_cost(strict, 8).held - plan_cost(plan, 8).held
        assert needed_memory(strict, 8) > needed_memory(plan, 8) + more > needed_memory(plan, 8)
        assert plan_memory(strict, limits) >= plan_memory(plan, limits) + 4 * session_dealt(strict)
        order(cluster.client(), plan, [2])
        with pytest.raises(PlanError, match="bytes of disk"):
            order(cluster.client(), strict, [2, 2])


def test_who_refuses_what_is_dealt_ahead_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider waits for every party where runs are checked; the others' orders are called off."""
    with InProcess(tmp_path, 3) as cluster:
        honest = cluster.nodes[1].orders.order

        def refuses(*_: object) -> None:
            assert eventually(lambda: any(len(each.joined) == 2 for each in cluster.provider.sessions()))
            raise PlanError("no room")

        monkeypatch.setattr(cluster.nodes[1].orders, "order", refuses)
        began = time.monotonic()
        with pytest.raises(PlanError, match="no room"):
            order(cluster.client(), cluster.compiled(ACTIVE).plan, [1])
        assert time.monotonic() - began < 0.7 * cluster.deadlines.setup
        assert eventually(lambda: not cluster.provider.sessions()) and not any(n.orders.open for n in cluster.nodes)
        monkeypatch.setattr(cluster.nodes[1].orders, "order", honest)
        assert order(cluster.client(), cluster.compiled(ACTIVE).plan, [1]).batches == (1,)
