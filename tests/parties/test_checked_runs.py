"""Runs that are checked, over daemons: they cost what is said beforehand, answer as others do, and are told last."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from mpc.compiler.roles import Roles
from mpc.fixedpoint import decode, encode
from mpc.plan.cost import plan_cost, session_dealt
from mpc.prg import SEED_BYTES
from tests.support.parties import InProcess, data, tiny_answer

ACTIVE = Roles(security="active")


@pytest.fixture(scope="module", params=[2, 3])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("cluster"), request.param) as running:
        yield running


def test_checked_runs_answer_and_cost_what_is_said(cluster: InProcess) -> None:
    parties = len(cluster.names)
    session = cluster.session(roles=ACTIVE)
    plain = cluster.compiled().plan
    assert session.plan.is_checked and session.setup_dealt == session_dealt(session.plan) + SEED_BYTES * parties > 0
    [given], [out] = session.plan.inputs, session.plan.outputs
    for batch in (1, 5):
        x = data(batch)
        integers = encode(x, session.plan.wire[given.wire].scale)
        opened, report = session.run({given.wire: integers}, batch, time.perf_counter)
        assert np.abs(decode(opened[out.wire], session.plan.wire[out.wire].scale) - tiny_answer(x)).max() < 1e-3
        cost, unchecked = plan_cost(session.plan, batch), plan_cost(plain, batch)
        assert (report.rounds, report.sent_bytes) == (cost.rounds, cost.total_sent(parties))
        assert report.dealt_bytes == cost.total_dealt(parties)
        assert (report.rounds, cost.sent) == (unchecked.rounds + 4, unchecked.sent + 744)
    session.close()
    assert cluster.has_ended(session.id)
    for index in range(parties):
        assert cluster.ledger_states(index)[0] == ("closed", None)
        assert cluster.run_states(index, session.id) == ["revealed", "revealed"]
