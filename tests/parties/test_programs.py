"""Programs through real links: rows of data at rest by a public order, rates, what is told when; and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mpc.compiler.roles import Roles
from mpc.errors import InputError, MpcError, PlanError, SessionError, UsageError
from mpc.plan.cost import plan_cost
from mpc.plan.plan import Plan
from mpc.plan.program import Program, Told
from parties import State
from parties.agreed.bindings import Binding
from parties.agreed.columns import Column
from parties.client.at_rest.keeping import Keeping, keeps
from parties.client.cluster import Cluster
from parties.client.running.coordinated import CoordinatedSession
from parties.client.running.stocks import order
from parties.client.session import Session
from parties.pb import party_pb2
from tests.support.keeping import opened as opened_object
from tests.support.keeping import vault
from tests.support.objects import described, put
from tests.support.parties import COORDINATOR, InProcess
from tests.support.plans import replace_wires, with_parts
from tests.support.programs import PROGRAM, STEPS, TOTAL, WIDE, W, X, learning, stepped
from tests.support.programs import data as rows_of_data
from tests.support.states import FEATURES, RANGES, compiled, data, descent
from tests.support.states import stepped as stepped_on_reals

pytestmark = pytest.mark.filterwarnings("ignore:output 'w_out' has an expected error:mpc.errors.MpcWarning")
COLUMNS = (
    Column(name="x", type="array", scale=X, low=-1, high=1, shape=(WIDE,)),
    Column(name="y", type="number", scale=X, low=-7, high=7),
)


def mine() -> Plan:
    """The program, everything the coordinator's."""
    plan = learning()
    held = {wire.name: {"holders": (COORDINATOR,)} for wire in plan.wires if wire.holders}
    wide = [
        each.model_copy(update={"low": (Fraction(-7),), "high": (Fraction(7),)}) if each.name == "y" else each
        for each in plan.inputs
    ]
    return with_parts(replace_wires(plan, held), inputs=wide)


@pytest.fixture(params=[2, 3])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[InProcess, CoordinatedSession]]:
    """A session on a table that lies at the parties."""
    with InProcess(tmp_path, request.param) as cluster:
        table = {name: np.concatenate([values[:1], values]) for name, values in rows_of_data().items()}
        table["y"] = table["y"][:, 0]
        made = put(cluster.client(COORDINATOR), described("t", TOTAL + 1, COLUMNS), table)
        bindings = [Binding(name, made.id, (name,), 1, TOTAL) for name in ("x", "y")]  # not from the first row on
        yield cluster, CoordinatedSession(cluster.client(COORDINATOR), mine(), {}, bindings=bindings)


def run(session: CoordinatedSession, **entered: np.ndarray) -> dict[str, np.ndarray]:
    found, report = session.run(entered, 1, lambda: 0.0)
    cost = plan_cost(session.plan.at(session.following - 1))
    assert (report.rounds, report.sent_bytes) == (cost.rounds, cost.total_sent(report.parties))
    return found


def test_a_program_learns_tells_and_answers(opened: tuple[InProcess, CoordinatedSession]) -> None:
    cluster, session = opened
    w = np.zeros((WIDE, 1))
    for number in range(1, STEPS + 1):
        found = run(session)
        w, loss = stepped(w, PROGRAM.rows_of(number, TOTAL), PROGRAM.k(number))
        assert found.keys() == ({"loss"} if number % 3 == 0 else set())
        if found:
            assert abs(int(found["loss"][0, 0]) / float(X * X) - loss) < 2
    learned = run(session)["w_final"]
    np.testing.assert_allclose(learned / float(W), w, atol=0.1)
    for asked in (np.arange(6).reshape(2, 3), np.ones((2, 3), np.int64)):
        np.testing.assert_array_equal(run(session, asked=asked)["answers"], asked @ learned)
    with pytest.raises(PlanError, match="neither updates nor tells"):
        run(session)
    session.close()
    told = [number % 3 == 0 or number > STEPS for number in range(1, STEPS + 4)]
    assert cluster.run_states(0, session.id) == ["revealed" if each else "kept" for each in told]


def test_no_party_runs_what_the_program_does_not_say(opened: tuple[InProcess, CoordinatedSession]) -> None:
    """A coordinator that asks for the first run of another number of rows, or for a later one, gets neither."""
    cluster, session = opened
    request = party_pb2.PrepareRequest(session_id=session.id, run=STEPS + 1, batch=1)  # which would tell w
    with pytest.raises(MpcError, match="comes too early; runs never repeat"):
        cluster.party(0).Prepare(request)
    assert cluster.has_ended(session.id)


# ------------------------------------------------------------------ as users see it


TOLD_NOW_AND_THEN = Program(steps=4, told=(Told(output="loss", first=2, every=2),))


def of(cluster: InProcess, roles: Roles | None = None, batch: int | None = None) -> Session:
    found = compiled(roles)
    return Session(cluster.client(), replace(found, plan=found.plan.with_program(TOLD_NOW_AND_THEN)), batch)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[InProcess]:
    with InProcess(tmp_path, 2) as running:
        yield running


def learn(session: Session) -> None:
    for number in range(1, 5):
        found = session.run(None, data(number))
        assert len(found) == (number % 2 == 0)
        if number == 1:
            assert session.remote.ahead == 2


def test_sessions_give_what_a_run_tells(pair: InProcess) -> None:
    session = of(pair)
    with pytest.raises(UsageError, match="no output 'loss'"):
        session.run(["loss"], data(1))  # not told in run 1; nothing has been sent
    learn(session)
    assert session.remote.ahead is None  # run 5 would neither update nor tell
    with pytest.raises(PlanError, match="neither updates nor tells"):
        session.run(None, data(5))
    session.close()


def test_owners_enter_what_a_run_reads(pair: InProcess) -> None:
    session = of(pair, Roles(owners={"x": "bob", "y": "bob"}, readers={"loss": ("bob",)}))
    with Cluster(pair.client("bob").config) as bob, ThreadPoolExecutor(1) as pool:
        guest = bob.join(session.ticket)
        for number in range(1, 4):
            waiting = pool.submit(session.run)
            assert len(guest.run(data(number))) == (number % 2 == 0)
            waiting.result()
    session.close()


def test_programs_are_dealt_ahead_run_by_run(pair: InProcess) -> None:
    plan = compiled().plan.with_program(TOLD_NOW_AND_THEN)
    order(pair.client(), plan, [1] * 4)
    pair.stop_provider()
    session = of(pair, batch=1)
    assert session.stocked == 4
    learn(session)
    session.close()


def test_a_stock_of_runs_of_which_nothing_comes_is_refused(pair: InProcess) -> None:
    with pytest.raises(PlanError, match="neither updates nor tells"):
        order(pair.client(), compiled().plan.with_program(TOLD_NOW_AND_THEN), [1] * 5)


# ------------------------------------------------------------------ checkpoints


CHECKPOINT = Program(steps=4, told=(Told(output="loss", first=1, every=1), Told(output="w_out", first=3)))


def test_a_state_is_kept_in_the_run_that_the_program_says(pair: InProcess) -> None:
    """And training goes on behind it: what is kept is one value under a mask of its own."""
    found = compiled(Roles(keeps=frozenset({"w_out"})))
    plan, client = found.plan.with_program(CHECKPOINT), pair.client()
    name = f"{COORDINATOR}/w"
    made = Session(client, replace(found, plan=plan), keeps=keeps(client, plan, {"w_out": Keeping(name)}))
    w, kept = np.zeros((FEATURES, 1)), None
    for number in range(1, 5):
        [loss] = made.run(None, data(number))
        w, expected = stepped_on_reals(w, data(number))
        assert abs(loss[0] - expected) < 2e-2
        kept = w if number == 3 else kept
        there = [vault(pair, index).find(name) if number >= 3 else None for index in range(2)]
        assert len({each.id if each else None for each in there}) == 1
    made.close()
    manifest = vault(pair, 0).find(name)
    scale = float(manifest.column("w_out").scale)
    np.testing.assert_allclose(opened_object(pair, manifest, "w_out").reshape(FEATURES, 1) / scale, kept, atol=1e-3)


def test_what_was_kept_is_what_another_session_begins_with(pair: InProcess) -> None:
    """Six steps in two sessions are those of one, but for roundings; a stranger is not even told that it is there."""
    recipients = {"w_out": COORDINATOR}
    first = Program(steps=3, told=(Told(output="loss", first=1, every=1), Told(output="w_out", first=3)))
    found = compiled(Roles(keeps=frozenset({"w_out"})))
    plan, client = found.plan.with_program(first), pair.client()
    session = Session(
        client, replace(found, plan=plan), keeps=keeps(client, plan, {"w_out": Keeping(f"{COORDINATOR}/w")})
    )
    w = np.zeros((FEATURES, 1))
    for number in range(3):
        session.run(None, data(number))
        w, _ = stepped_on_reals(w, data(number))
    session.close()
    with Cluster(client.config) as cluster:
        state = {"w_out": State("w", start=cluster.dataset(f"{COORDINATOR}/w")[["w_out"]])}
        with cluster.session(descent(), RANGES, recipients=recipients, state=state) as again:
            for number in range(3, 6):
                loss, told = again.run(["loss", "w_out"], data(number))
                w, expected = stepped_on_reals(w, data(number))
                assert abs(loss[0] - expected) < 2e-2 and np.abs(told - w).max() < 1e-3
        wrong = {"w_out": State("w", start=cluster.dataset(f"{COORDINATOR}/w")[["w_out"]])}
        with pytest.raises(InputError, match="its range ends at 1"):
            cluster.session(descent(), {**RANGES, "w": (-1, 1)}, recipients=recipients, state=wrong)
    with Cluster(pair.client("mallory").config) as cluster, pytest.raises(SessionError):
        cluster.dataset(f"{COORDINATOR}/w")
