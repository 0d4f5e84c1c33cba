"""An honest cluster inside this process: what the attacks depart from, and every value against the reference."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import mpc
from mpc.encoding import decode_field
from mpc.errors import HandshakeError
from mpc.fixedpoint import decode, encode
from mpc.interpret import reference
from mpc.interpret.run_wires import RunWires
from parties.agreed.terms import PROTOCOL
from parties.party import services
from parties.pb import party_pb2
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


def test_parties_of_another_protocol_are_named_with_both_numbers(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two protocols the same terms make two sessions: whoever opens one is told which protocol is where."""

    class Others(ModuleType):
        """Messages, and another session's id in the place of this one's."""

        @staticmethod
        def OpenReply(**parts: Any) -> party_pb2.OpenReply:
            return party_pb2.OpenReply(**{**parts, "session_id": bytes(32)})

        def __getattr__(self, name: str) -> Any:
            return getattr(party_pb2, name)

    monkeypatch.setattr(services, "party_pb2", Others("messages"))
    with pytest.raises(HandshakeError, match="made another session of the same terms"):
        cluster.session()
    monkeypatch.setattr(services, "PROTOCOL", PROTOCOL - 1)
    with pytest.raises(HandshakeError) as caught:
        cluster.session()
    told = str(caught.value)
    assert f"party-0 speaks protocol {PROTOCOL - 1}, and this client protocol {PROTOCOL}" in told
    assert f"mpc {mpc.__version__}" in told and "mpc doctor" in told


def test_every_role_its_own_certificate_and_every_wire_as_the_reference_says(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunWires, "over", lambda wires, gate: None)  # all of them stay, to be looked at
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
