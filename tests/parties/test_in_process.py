"""An honest cluster inside this process: what the attacks depart from, and every value against the reference."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mpc.encoding import decode_field
from mpc.fixedpoint import decode, encode
from mpc.interpret import reference
from tests.support.parties import OWNER, RECIPIENT, InProcess, data, tiny_answer


@pytest.fixture(scope="module", params=[2, 3])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("cluster"), request.param, middles=[(0, 1)]) as running:
        yield running


def test_one_client_that_plays_every_part(cluster: InProcess) -> None:
    session = cluster.session()
    [given], [out] = session.plan.inputs, session.plan.outputs
    for batch in (1, 5):
        x = data(batch)
        integers = encode(x, session.plan.wire[given.wire].scale)
        opened, report = session.run({given.wire: integers}, batch, time.perf_counter)
        assert np.abs(decode(opened[out.wire], session.plan.wire[out.wire].scale) - tiny_answer(x)).max() < 1e-3
        assert report.batch == batch
    session.close()
    assert cluster.has_ended(session.id)
    for index in range(len(cluster.names)):
        assert cluster.ledger_states(index)[0] == ("closed", None)
        assert cluster.run_states(index, session.id) == ["revealed", "revealed"]


def test_every_role_its_own_certificate_and_every_wire_as_the_reference_says(cluster: InProcess) -> None:
    script = cluster.script().started(batch=3)
    replies = script.finish()
    runs = [cluster.of(index, script.id).runs.get(1) for index in range(len(cluster.names))]
    bound = script.plan.bind(3)
    coins = {wire.name: [run.party.masked(wire.name).public for run in runs] for wire in bound.wires}
    for public in coins.values():
        assert all(np.array_equal(public[0], other) for other in public)
    given = {**script.compiled.weights, **script.integers(data(3))}
    values = reference.evaluate(bound, given, lambda name, shape: coins[name][0])
    headers = [parts[0].header for parts in replies]
    opened = script.masked({script.output_wire: -values[script.output_wire]}, headers_as_masks(headers), batch=3)
    # z^ = z + sum of masks, so -z + masks = z^ - 2z: add z twice.
    total = decode_field(opened[script.output_wire], bound.wire[script.output_wire].sizes)
    expected = decode_field(replies[0][1].chunk.data, bound.wire[script.output_wire].sizes)
    assert np.array_equal(
        (total.astype(object) + 2 * values[script.output_wire]) % ((1 << 61) - 1), expected.astype(object)
    )
    assert {OWNER, RECIPIENT} <= set(cluster.of(0, script.id).members)


def headers_as_masks(headers: list) -> list:
    """Replies of which `Script.masked` can read the outputs' seeds."""

    class Reply:
        def __init__(self, seeds: list) -> None:
            self.seeds = seeds

    return [Reply(list(header.outputs)) for header in headers]


def test_two_sessions_at_once(cluster: InProcess) -> None:
    one, other = cluster.script().started(), cluster.script().started(batch=2)
    assert one.id != other.id
    for script in (one, other):
        transcripts = {parts[0].header.transcript for parts in script.finish()}
        assert len(transcripts) == 1


def test_a_proxy_for_the_web_is_not_asked_for_the_parties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`http_proxy` in the environment, as in many companies: nobody listens there."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.setenv(name, "elsewhere.example")
    with InProcess(tmp_path, 2) as cluster:
        cluster.session().close()
