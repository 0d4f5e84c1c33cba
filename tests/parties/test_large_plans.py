"""Plans of large models: longer than a piece of an input, and than what somebody takes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from mpc.errors import MpcError, PlanError
from mpc.fixedpoint import decode, encode
from mpc.gates.moves import Take
from mpc.plan.plan import Plan
from mpc.wires import Masking
from parties.client.running.coordinated import CoordinatedSession
from parties.config.models import Limits
from parties.pb import party_pb2
from parties.wire.transport import FRAME_BYTES, OVERHEAD
from tests.support.parties import InProcess, data, tiny_answer
from tests.support.plans import with_parts

PLACES = 600_000


def large(plan: Plan) -> Plan:
    """The same, which also gathers its input again and again for nobody, as masks of many softmaxes do."""
    [given] = plan.inputs
    wire = plan.wire[given.wire]
    gathered = wire.model_copy(
        update={"name": "places", "shape": (*wire.shape[:-1], PLACES), "masking": Masking.INHERITED, "holders": ()}
    )
    take = Take(name="places", out="places", x=wire.name, axis=len(wire.shape) - 1, indices=(0, 1) * (PLACES // 2))
    return with_parts(plan, gates=[*plan.gates, take], wires=[*plan.wires, gathered])


def test_a_plan_that_is_longer_than_a_piece_of_an_input_runs(tmp_path: Path) -> None:
    with InProcess(tmp_path, 2) as cluster:
        compiled = cluster.compiled()
        plan = large(compiled.plan)
        assert len(plan.canonical) > FRAME_BYTES + OVERHEAD
        session = CoordinatedSession(cluster.client(), plan, compiled.weights)
        [given], [out], x = plan.inputs, plan.outputs, data(1)
        opened, _ = session.run({given.wire: encode(x, plan.wire[given.wire].scale)}, 1, time.perf_counter)
        assert np.abs(decode(opened[out.wire], plan.wire[out.wire].scale) - tiny_answer(x)).max() < 1e-3
        session.close()


def test_a_plan_that_a_party_does_not_take_in_says_which_limit_to_raise(tmp_path: Path) -> None:
    with InProcess(tmp_path, 2, limits=Limits(max_plan_bytes=FRAME_BYTES // 4)) as cluster:
        plan = large(cluster.compiled().plan)
        with pytest.raises(
            PlanError, match="raise limits.max_plan_bytes of every party and of the provider to 2,097,152"
        ):
            CoordinatedSession(cluster.client(), plan, cluster.compiled().weights)


def test_other_messages_are_no_longer_than_a_piece_of_an_input(tmp_path: Path) -> None:
    """A plan's length is the server's own limit, which is for plans alone."""
    with InProcess(tmp_path, 2) as cluster:
        long = party_pb2.StatusRequest(session_id=bytes(2 * FRAME_BYTES))
        with pytest.raises(MpcError, match="longer than a piece of an input"):
            cluster.party(0).Status(long)
