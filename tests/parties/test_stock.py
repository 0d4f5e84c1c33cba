"""Sessions that were dealt ahead: what they need, what they cost, what is left of them."""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from mpc.compiler.roles import Roles
from mpc.errors import InputError, MpcWarning, PlanError, SessionError, UsageError
from mpc.fixedpoint import decode, encode
from parties.agreed.ticket import Ticket
from parties.client.cluster import Cluster
from parties.client.guest import Guest
from parties.client.running.coordinated import CoordinatedSession, Parties
from parties.client.running.feeds import BLOCK_ROWS
from parties.client.running.stocks import find, order, stocks
from parties.client.session import Session
from parties.config.models import Limits
from parties.party.stock.files import FOLDER
from tests.support.parties import InProcess, data, eventually, id_of, tiny_answer
from tests.support.stocks import being_dealt, deal, folder

ALL_MINE = Roles()


@pytest.fixture(scope="module", params=[2, 3])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("cluster"), request.param) as running:
        yield running


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[InProcess]:
    with InProcess(tmp_path, 2) as running:
        yield running


def of(cluster: InProcess, batch: int | None, calls: int | None = None, client: Parties | None = None) -> Session:
    return Session(client or cluster.client(), cluster.compiled(ALL_MINE), batch, calls)


def check(session: Session, batch: int, seed: int = 1) -> None:
    x = data(batch, seed)
    [y] = session.run(None, {"x": x})
    assert np.abs(y - tiny_answer(x)).max() < 1e-3


def test_without_the_provider_and_after_a_restart(fresh: InProcess) -> None:
    plan = fresh.compiled(ALL_MINE).plan
    made = order(fresh.client(), plan, [2, 2])
    assert eventually(lambda: not fresh.provider.sessions())  # it forgets what it has dealt
    fresh.stop_provider()
    for index in (0, 1):
        assert fresh.ledger_states(index)[0] == ("stocked", None)
        assert fresh.run_states(index, made.terms.session_id) == ["dealt", "dealt"]
        fresh.crash(index)
        fresh.revive(index)
    client = fresh.client()
    [listed] = stocks(client, plan)
    assert listed.terms == made.terms and listed.batches == (2, 2) and not listed.missing
    session = of(fresh, 2, client=client)
    assert session.stocked == 2 and not stocks(client)
    for left in (1, 0):
        check(session, 2, seed=left)
        assert session.stocked == left and session.last_run is not None and session.last_run.stocked
    session.close()
    assert session.notes == []
    for index in (0, 1):
        assert fresh.ledger_states(index)[0] == ("closed", None)
        assert fresh.run_states(index, made.terms.session_id) == ["revealed", "revealed"]
        assert eventually(lambda index=index: not folder(fresh, index, made).exists())


def test_the_price_is_that_of_any_run(cluster: InProcess) -> None:
    deal(cluster, [3], ALL_MINE)
    ahead, now = of(cluster, 3), of(cluster, None)
    check(ahead, 3)
    check(now, 3)
    assert ahead.last_run is not None and now.last_run is not None
    assert now.stocked is None and not now.last_run.stocked and ahead.last_run.stocked
    for name in ("batch", "rounds", "sent_bytes", "dealt_bytes"):
        assert getattr(ahead.last_run, name) == getattr(now.last_run, name)
    assert ahead.last_run.provider_s == 0
    ahead.close()
    now.close()


def test_the_next_run_is_prepared_before_anybody_asks(cluster: InProcess) -> None:
    deal(cluster, [1, 1], ALL_MINE)
    session = of(cluster, 1)
    for run in (1, 2):
        assert eventually(lambda run=run: cluster.of(0, id_of(session)).runs.latest == run)
        check(session, 1)
    session.close()
    assert cluster.is_idle()
    assert all(node.budget.taken == 0 for node in cluster.nodes)


def test_a_used_up_session_is_followed_by_another_aloud(cluster: InProcess) -> None:
    for batches in ([1, 1], [1]):
        deal(cluster, batches, ALL_MINE)
    session = of(cluster, 1)
    ids = []
    for left, notes in ((1, 0), (0, 0), (0, 1), (None, 2), (None, 2)):
        first = (left, notes) == (0, 1)  # it is said once a session
        follows = pytest.warns(MpcWarning, match="used up: a new one was opened") if first else nullcontext()
        with follows:
            check(session, 1)
        ids.append(id_of(session))
        assert (session.stocked, len(session.notes)) == (left, notes)
    assert len(set(ids)) == 3 and ids[0] == ids[1] and ids[3] == ids[4]
    assert all("used up" in note for note in session.notes)
    session.close()
    assert cluster.is_idle()


def test_other_rows_are_refused_and_cost_nothing(cluster: InProcess) -> None:
    deal(cluster, [2, 2], ALL_MINE)
    session = of(cluster, 2)
    with pytest.raises(InputError, match="dealt ahead for batches of 2 rows, not of 3"):
        session.run(None, {"x": data(3)})
    check(session, 2)
    assert session.stocked == 1
    session.close()


def test_large_batches_are_dealt_as_they_are_split(cluster: InProcess) -> None:
    rows = BLOCK_ROWS + 6
    half = rows // 2
    stock = deal(cluster, [half, half], ALL_MINE)
    assert stock.calls([half, half]) == 1 and stock.calls([half]) == 2 and stock.calls([rows]) == 0
    session = of(cluster, rows, calls=1)
    check(session, rows)
    assert session.stocked == 0
    session.close()


def test_what_fits_is_found(fresh: InProcess) -> None:
    client, plan = fresh.client(), fresh.compiled(ALL_MINE).plan
    one, three, other = (order(client, plan, batches) for batches in ([1], [1, 1, 1], [2]))
    assert find(client, plan, [1]).terms == three.terms
    assert find(client, plan, [1], calls=1).terms == one.terms
    assert find(client, plan, [2]).terms == other.terms
    assert find(client, plan, [1], calls=2) is None and find(client, plan, [5]) is None
    another = fresh.compiled(Roles(recipients=("recipient",))).plan
    assert find(client, another, [1]) is None
    with pytest.warns(MpcWarning, match="is for sessions of more runs"):
        session = of(fresh, 1, calls=2, client=client)
    assert session.stocked is None and "sessions of more runs" in session.notes[0]
    check(session, 1)
    session.close()
    assert len(stocks(client)) == 3


def test_a_stock_is_shown_in_a_line_of_words(fresh: InProcess) -> None:
    """In a shell of Python, which prints what `Cluster.deal` returns."""
    stock = order(fresh.client(), fresh.compiled(ALL_MINE).plan, [2, 2, 1])
    [line] = repr([stock]).splitlines()
    assert stock.terms.session_id.hex()[:16] in line and stock.terms.plan_digest.hex()[:16] in line
    assert ": 3 runs of 2/1 rows, " in line and f"{stock.size:,} bytes on disk" in line and "\\x" not in line
    assert len(line) < 200


def test_dropped_stocks_are_gone(fresh: InProcess) -> None:
    client, plan = fresh.client(), fresh.compiled(ALL_MINE).plan
    cluster = Cluster(client.config)
    made = cluster.deal(plan, runs=4, sessions=2)
    assert [stock.batches for stock in cluster.stocks()] == [(1, 1), (1, 1)]
    assert fresh.nodes[0].stocks.totals.runs == 4
    cluster.drop(made[0])
    with pytest.raises(SessionError, match="no party holds"):
        cluster.drop(made[0])
    assert [stock.terms for stock in cluster.stocks(plan)] == [made[1].terms]
    assert not folder(fresh, 0, made[0]).exists() and fresh.nodes[0].stocks.totals.runs == 2
    fresh.crash(0)
    fresh.revive(0)
    assert fresh.nodes[0].stocks.totals.runs == 2
    with pytest.raises(UsageError):
        cluster.deal(plan, runs=3, sessions=2)
    cluster.parties.close()


def test_others_join_a_session_that_was_dealt_ahead(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    roles = Roles("coordinator", "data-owner", ("recipient",))
    deal(cluster, [2], roles)
    compiled = cluster.compiled(roles)
    client = cluster.client()
    start, calls = client.start, []

    def recorded(call: object, request: object, seconds: float, *more: object) -> object:
        calls.append(type(request).__name__)
        return start(call, request, seconds, *more)

    monkeypatch.setattr(client, "start", recorded)
    session = Session(client, compiled, 2)
    ticket = Ticket.parse(session.ticket)
    owner, recipient = (Guest(cluster.client(name), ticket) for name in ("data-owner", "recipient"))
    assert "PrepareRequest" not in calls  # guests are told how many rows follow, so nothing is prepared ahead
    x = data(2)
    values: list[np.ndarray] = []

    def answer() -> None:
        owner.submit(1, {"x": x})
        values.append(recipient.receive(1)[0])

    other = threading.Thread(target=answer)
    other.start()
    session.run(None, batch=2)
    other.join()
    assert np.abs(values[0] - tiny_answer(x)).max() < 1e-3
    with pytest.raises(SessionError, match="used up"):
        session.run(None, batch=2)
    assert calls.count("PrepareRequest") == 1
    session.abandon()


def test_only_its_owner_may_read_a_stock(cluster: InProcess) -> None:
    stock = deal(cluster)
    for index in range(len(cluster.names)):
        place = folder(cluster, index, stock)
        assert stat.S_IMODE(place.stat().st_mode) == stat.S_IMODE(place.parent.stat().st_mode) == 0o700
        names = sorted(path.name for path in place.iterdir())
        assert names == [*(f"{run:06d}.bundle" for run in range(4)), "plan", "terms.json"]
        assert {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()} == {0o600}
        assert sum(path.stat().st_size for path in place.iterdir()) <= stock.size


def test_a_file_is_deleted_when_it_is_read(cluster: InProcess) -> None:
    stock = deal(cluster, [1, 1], ALL_MINE)
    compiled = cluster.compiled(ALL_MINE)
    session = CoordinatedSession(cluster.client(), compiled.plan, compiled.weights, stock)
    names = {"000002.bundle", "plan", "terms.json"}
    assert eventually(lambda: {path.name for path in folder(cluster, 0, stock).iterdir()} == names)
    [given], [out] = session.plan.inputs, session.plan.outputs
    integers = encode(data(1), session.plan.wire[given.wire].scale)
    opened, _ = session.run({given.wire: integers}, 1, time.perf_counter)
    assert np.abs(decode(opened[out.wire], session.plan.wire[out.wire].scale) - tiny_answer(data(1))).max() < 1e-3
    session.close()


def test_a_party_keeps_no_more_than_it_allows(tmp_path: Path) -> None:
    with InProcess(tmp_path, 2, limits=Limits(max_stock_bytes=60_000, max_batch=64)) as small:
        client, plan = small.client(), small.compiled(ALL_MINE).plan
        for batches, message in (
            ([1] * 20, "bytes of disk"),
            ([65], "are accepted"),
            ([], "1 to 65,536"),
            ([0], "a b"),
        ):
            with pytest.raises(PlanError, match=message):
                order(client, plan, batches)
            assert not any(path for index in (0, 1) for path in _files(small, index))
        order(client, plan, [1, 1])
        order(client, plan, [1, 1])
        with pytest.raises(PlanError, match="max_stock_bytes"):
            [order(client, plan, [1, 1, 1, 1]) for _ in range(4)]
        assert small.nodes[0].stocks.totals.size <= 60_000
        assert not any(being_dealt(small, index) for index in (0, 1))
        assert eventually(lambda: not small.provider.sessions())


def _files(cluster: InProcess, index: int) -> list[Path]:
    return list((cluster.party_config(index).data_dir / FOLDER).glob("*/*"))
