"""Sessions that hand on state, through real links: what runs carry, in which order alone, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc import field as fp
from mpc.compiler.roles import Roles
from mpc.errors import InputError, IntegrityError, MpcError, PeerError, PlanError, SessionError, UsageError
from parties import State
from parties.client.cluster import Cluster
from parties.client.running.stocks import order
from parties.client.session import Session
from parties.pb import party_pb2, provider_pb2
from tests.support.parties import InProcess, eventually, id_of
from tests.support.states import FEATURES, RANGES, compiled, data, descent, stepped

pytestmark = pytest.mark.filterwarnings("ignore:output 'w_out' has an expected error:mpc.errors.MpcWarning")
BOB = "bob"
START = np.array([[0.5], [1.0], [-0.25]])
TOLD = Roles(readers={"w_out": ("coordinator",)})


@pytest.fixture(scope="module", params=[2, 3])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("cluster"), request.param) as running:
        yield running


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[InProcess]:
    with InProcess(tmp_path, 2) as running:
        yield running


def of(cluster: InProcess, batch: int | None = None, **choices: Any) -> Session:
    return Session(cluster.client(), compiled(choices.pop("roles", TOLD), **choices), batch)


def learn(session: Session, steps: range, w: np.ndarray | None = None) -> np.ndarray:
    """Run, and compare with the model on reals, step by step; w behind the last one."""
    w = np.zeros((FEATURES, 1)) if w is None else w
    for number in steps:
        loss, found = session.run(["loss", "w_out"], data(number))
        w, expected = stepped(w, data(number))
        assert abs(loss[0] - expected) < 2e-2 and np.abs(found - w).max() < 1e-3
    return w


def prepare(cluster: InProcess, index: int, session_id: bytes, number: int) -> None:
    cluster.party(index).Prepare(party_pb2.PrepareRequest(session_id=session_id, run=number, batch=1))


# ------------------------------------------------------------------ what runs carry


def test_runs_hand_on_what_they_have_left(cluster: InProcess) -> None:
    session = of(cluster)
    w = learn(session, range(6))
    assert np.abs(w - [[1], [-2], [3]]).max() < 2.5
    ends = [cluster.of(index, id_of(session)).runs for index in range(len(cluster.names))]
    assert session.remote.ahead == 7  # the next one is prepared while the last is online
    assert eventually(lambda: {runs.latest for runs in ends} == {7})
    session.close()
    states = [cluster.run_states(index, id_of(session)) for index in range(len(cluster.names))]
    assert all(each[:6] == ["revealed"] * 6 for each in states)


@pytest.mark.parametrize("public", [False, True])
def test_the_first_run_reads_what_the_session_begins_with(cluster: InProcess, public: bool) -> None:
    session = of(cluster, start=START, public=public)
    learn(session, range(2), START)
    session.close()


def test_nobody_is_told_state_unless_they_are_named_for_it(cluster: InProcess) -> None:
    session = of(cluster, roles=Roles(), outputs=False)
    for number in range(3):
        assert session.run(None, data(number)) == []
    session.close()
    assert cluster.run_states(0, id_of(session))[:3] == ["kept"] * 3
    session = of(cluster, roles=Roles())
    assert [out.name for out in session.get_outputs()] == ["loss"]
    with pytest.raises(UsageError, match="no output 'w_out'"):
        session.run(["w_out"], data(0))
    session.close()


def test_state_costs_what_the_step_costs(cluster: InProcess) -> None:
    session = of(cluster, roles=Roles())
    reports = []
    for number in range(3):
        session.run(None, data(number))
        reports.append(session.last_run)
    session.close()
    assert len({(each.rounds, each.sent_bytes, each.dealt_bytes) for each in reports if each is not None}) == 1


def test_an_owner_enters_its_data_and_the_state_goes_on(pair: InProcess) -> None:
    session = of(pair, roles=Roles(owners={"x": BOB, "y": BOB}, readers={"w_out": (BOB,)}))
    w = np.zeros((FEATURES, 1))
    with Cluster(pair.client(BOB).config) as bob, ThreadPoolExecutor(1) as pool:
        guest = bob.join(session.ticket)
        for number in range(3):
            waiting = pool.submit(session.run)
            [found] = guest.run(data(number))
            waiting.result()
            w, _ = stepped(w, data(number))
            assert np.abs(found - w).max() < 1e-3
            assert session.remote.ahead is None  # others see what is prepared, and would enter for two runs at once
    session.close()


# ------------------------------------------------------------------ order


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_step_that_is_replayed_left_out_or_taken_out_of_turn_is_refused(cluster: InProcess, number: int) -> None:
    """Run 1 is over, run 2 is prepared: by each party, and the session ends with it everywhere."""
    for index in range(len(cluster.names)):
        session = of(cluster)
        learn(session, range(1))
        with pytest.raises(SessionError, match="was prepared before, or comes too early; runs never repeat"):
            prepare(cluster, index, id_of(session), number)
        assert cluster.has_ended(id_of(session))
        assert cluster.run_states(index, id_of(session)) == ["revealed", "aborted"]


def test_the_provider_deals_steps_in_their_order_and_once(cluster: InProcess) -> None:
    session = of(cluster)
    w = learn(session, range(1))
    for name in cluster.names:
        for number in (1, 2, 4):
            request = provider_pb2.DealRequest(session_id=id_of(session), run=number, batch=1)
            with pytest.raises(MpcError, match="dealt before, or comes too early"):
                list(cluster.dealer(name).deal(request))
    learn(session, range(1, 3), w)  # and nothing of that did any harm
    session.close()


def test_a_run_that_is_asked_for_another_number_of_rows_is_refused_before_anything_is_sent(pair: InProcess) -> None:
    session = of(pair)
    session.run(None, data(0))
    with pytest.raises(InputError, match=r"batch|rows"):
        session.run(None, data(1), batch=2)
    session.run(None, data(1))
    session.close()


# ------------------------------------------------------------------ failures


def test_a_failed_run_ends_the_session_everywhere_and_its_state_with_it(pair: InProcess) -> None:
    session = of(pair)
    learn(session, range(2))
    lost = id_of(session)
    ended = pair.of(0, lost)
    pair.crash(1)
    with pytest.raises(MpcError):
        session.run(None, data(2))
    assert pair.has_ended(lost) or pair.ledger_states(0)[0][0] == "aborted"
    with pytest.raises(SessionError):
        session.run(None, data(2))
    pair.revive(1)
    for index in (0, 1):
        with pytest.raises((SessionError, PeerError)):
            prepare(pair, index, lost, 3)
    assert pair.dealt(lost) is None or pair.dealt(lost).over
    assert ended.life.state == "aborted"
    fresh = of(pair)
    learn(fresh, range(2))  # from the beginning
    fresh.close()


def test_parties_whose_states_differ_end_the_session_before_anything_is_unmasked(pair: InProcess) -> None:
    session = of(pair)
    learn(session, range(2))
    kept = pair.of(1, id_of(session)).wires.states.public.held
    kept.update({name: fp.add_int(values, 1) for name, values in kept.items()})
    with pytest.raises(IntegrityError, match="what lies at it was altered"):
        session.run(None, data(2))
    assert all(pair.run_states(index, id_of(session))[2] != "revealed" for index in (0, 1))


def test_the_provider_keeps_masks_of_state_only_while_the_session_lives(pair: InProcess) -> None:
    session = of(pair)
    learn(session, range(2))
    dealt = pair.dealt(id_of(session))
    assert dealt is not None and dealt.masks.states.held
    session.close()
    assert eventually(lambda: not dealt.masks.states.held)


# ------------------------------------------------------------------ dealt ahead


def test_steps_that_were_dealt_the_night_before(pair: InProcess) -> None:
    plan = compiled(TOLD).plan
    order(pair.client(), plan, [1] * 4)
    pair.stop_provider()
    for index in (0, 1):
        pair.crash(index)
        pair.revive(index)
    session = of(pair, batch=1)
    assert session.stocked == 4
    learn(session, range(4))
    with pytest.raises(SessionError, match="used up") as caught:
        session.run(None, data(4))
    assert "its state ends with it" in str(caught.value.cause)
    session.close()


def test_what_a_stock_begins_with_is_entered_when_it_is_opened(pair: InProcess) -> None:
    for public in (False, True):
        found = compiled(TOLD, START, public=public)
        order(pair.client(), found.plan, [1, 1])
        session = Session(pair.client(), found, 1)
        assert session.stocked == 2
        learn(session, range(2), START)
        session.close()


# ------------------------------------------------------------------ the front door


def test_the_sdk_takes_state_by_name(pair: InProcess) -> None:
    with Cluster(pair.client().config) as cluster:
        recipients = {"w_out": "coordinator"}
        pairs = {"w_out": State("w", start=START)}
        with cluster.session(descent(), RANGES, recipients=recipients, state=pairs) as session:
            learn(session, range(2), START)
        with cluster.session(descent(), RANGES, recipients=recipients, state={"w_out": "w"}) as session:
            learn(session, range(2))
        made = cluster.deal(descent(), 2, ranges=RANGES, recipients=recipients, state={"w_out": "w"})
        with cluster.session(descent(), RANGES, recipients=recipients, state={"w_out": "w"}, batch=1) as session:
            assert session.stocked == 2 and len(made) == 1
            learn(session, range(2))


@pytest.mark.parametrize(
    ("choices", "error", "problem"),
    [
        ({"state": ["w_out"]}, UsageError, "by output"),
        ({"state": {"w_out": 3}}, UsageError, "is no input"),
        ({"state": {"w_out": State(3)}}, UsageError, "is no input"),  # type: ignore[arg-type]
        ({"state": {"w_out": "w"}, "owners": {"w": BOB}}, UsageError, "somebody enters it as well"),
        ({"state": {"w_out": "v"}}, PlanError, "no input 'v'"),
    ],
)
def test_what_says_nothing_of_state_is_refused(
    pair: InProcess, choices: dict[str, Any], error: type[MpcError], problem: str
) -> None:
    with Cluster(pair.client().config) as cluster, pytest.raises(error, match=problem):
        cluster.session(descent(), RANGES, **choices)
