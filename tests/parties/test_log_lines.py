"""One line for each run's end and for each refusal: enough for an operator, rationed, and nothing secret."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from mpc.compiler.roles import Roles
from mpc.errors import PolicyError, SessionError
from parties import telemetry
from parties.config.models import PolicyConfig
from parties.pb import party_pb2, provider_pb2
from parties.ration import Ration
from tests.support.logs import lines
from tests.support.parties import COORDINATOR, OWNER, SEPARATE, InProcess, eventually

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def ration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with a whole ration of lines: earlier tests may have used it up."""
    monkeypatch.setattr(telemetry, "RATION", Ration())


def test_a_run_s_end_is_one_line_a_party(tmp_path: Path, log: io.StringIO) -> None:
    with InProcess(tmp_path, 2) as cluster:
        script = cluster.script(SEPARATE).started(batch=3)
        replies = script.finish()
        ended = lines(log, "run ended")
        assert len(ended) == 2
        for entry in ended:
            assert entry["session"] == script.id.hex()[:16] and (entry["run"], entry["rows"]) == (1, 3)
            assert entry["rounds"] == replies[0][0].header.rounds
            assert entry["sent_bytes"] in {parts[0].header.sent_bytes for parts in replies}
            assert entry["seconds"] >= 0
            assert entry["coordinator"] == COORDINATOR and OWNER in entry["owners"]
            assert entry["recipients"] == ["recipient"]
        dealt = lines(log, "dealt")
        assert [(entry["run"], entry["rows"]) for entry in dealt] == [(0, 1), (1, 3)]
        cluster.party(0).Close(party_pb2.CloseRequest(session_id=script.id))
        assert [(each["runs"], each["coordinator"]) for each in lines(log, "session closed")] == [(1, COORDINATOR)]
        assert eventually(lambda: cluster.dealt(script.id) is None)
        with pytest.raises(SessionError, match="it has ended at party-0, whose log says who ended it"):
            cluster.dealer("party-1").deal(provider_pb2.DealRequest(session_id=script.id, run=2, batch=1))


def test_a_refusal_says_to_the_operator_which_line_would_allow_it(tmp_path: Path, log: io.StringIO) -> None:
    policy = PolicyConfig(plans=("any",), coordinators=("clinic",), owners=("clinic",), recipients=("clinic",))
    with InProcess(tmp_path, 2, policies={0: policy}) as cluster:
        plan = cluster.compiled(Roles("clinic", OWNER, ("clinic",))).plan
        request = party_pb2.ProposeRequest(plan=plan.canonical)
        for caller in ("stranger", "clinic"):
            with pytest.raises(PolicyError) as caught:
                cluster.party(0, caller).Propose(request)
            assert "policy." not in str(caught.value) and "coordinators" not in str(caught.value)
        first, second = lines(log, "refused by policy")
        assert first["caller"] == "stranger" and first["call"] == "Propose" and first["address"].startswith("ipv")
        assert 'coordinators = ["clinic", "stranger"]' in first["why"]
        assert second["caller"] == "clinic" and 'owners = ["clinic", "data-owner"]' in second["why"]


def test_refusals_are_rationed_for_each_caller(tmp_path: Path, log: io.StringIO) -> None:
    """One that asks for ever fills no disk, and hides nobody else's."""
    with InProcess(tmp_path, 2) as cluster:
        request = party_pb2.StatusRequest(session_id=bytes(32))
        for _ in range(50):
            with pytest.raises(SessionError):
                cluster.party(0, "noisy").Status(request)
        with pytest.raises(SessionError):
            cluster.party(0, "quiet").Status(request)
        callers = [entry["caller"] for entry in lines(log, "a call failed")]
        assert callers.count("noisy") == 20 and callers.count("quiet") == 1


def test_a_process_that_plays_a_client_is_a_line_with_its_address(tmp_path: Path, log: io.StringIO) -> None:
    with InProcess(tmp_path, 2) as cluster:
        with pytest.raises(PolicyError):
            cluster.party(1, "party-0").Propose(party_pb2.ProposeRequest(plan=b"{}"))
        [entry] = lines(log, "refused by policy")
        assert entry["caller"] == "party-0" and entry["address"].startswith("ipv")
        assert "process of the cluster" in entry["why"]
