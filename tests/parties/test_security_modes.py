"""Which security a session has: as its coordinator asks, as every party allows, and never less than a client wants."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpc.compiler.roles import Roles
from mpc.errors import PolicyError, UsageError
from parties import Cluster
from parties.agreed.requests import Request, make_request
from parties.agreed.ticket import Ticket
from parties.client.guest import Guest
from parties.client.running.roles import read_security
from parties.client.running.stocks import order
from parties.client.session import Session
from parties.config.load import dump_toml, load
from parties.config.models import ClusterConfig, PartyConfig, PolicyConfig
from parties.local.layout import LocalLayout
from parties.party.policy import Policy
from tests.parties.test_requests import STRICT, approve
from tests.support.asking import ROWS, Kept, noised_sum
from tests.support.parties import COORDINATOR, EVERYONE, RECIPIENT, InProcess, data, tiny_model
from tests.support.parties_commands import mpc_here

ACTIVE = Roles(security="active")
ONLY_ACTIVE = EVERYONE.model_copy(update={"security": ("active",)})
ONLY_PASSIVE = EVERYONE.model_copy(update={"security": ("passive",)})


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    """One of whose parties wants every run checked."""
    with InProcess(tmp_path_factory.mktemp("cluster"), 2, policies={1: ONLY_ACTIVE}) as running:
        yield running


def test_a_party_that_wants_runs_checked_opens_no_others(strict: InProcess) -> None:
    with pytest.raises(PolicyError, match="party's policy allows active security, and not passive") as caught:
        strict.session()
    assert "--security active" in str(caught.value) and strict.is_idle()
    assert all(not any(state == "open" for state, _ in strict.ledger_states(index)) for index in (0, 1))
    with Session(strict.client(), strict.compiled(ACTIVE)) as session:
        session.run(None, {"x": data(1)})


def test_a_party_that_wants_none_checked_opens_no_others(tmp_path: Path) -> None:
    """No mode stands in for another, not the stronger one either."""
    with InProcess(tmp_path, 2, policies={0: ONLY_PASSIVE}) as cluster:
        with pytest.raises(PolicyError, match="allows passive security, and not active"):
            cluster.session(roles=ACTIVE)
        cluster.session().close()


def test_nothing_is_dealt_ahead_for_runs_that_may_not_be(strict: InProcess) -> None:
    with pytest.raises(PolicyError, match="and not passive"):
        order(strict.client(), strict.compiled().plan, [1])
    made = order(strict.client(), strict.compiled(ACTIVE).plan, [1])
    assert made.batches == (1,)


def test_no_approval_stands_in_for_it(tmp_path: Path) -> None:
    """What an operator approves by hand is checked all the same, where its policy says so."""
    policies = dict.fromkeys((0, 1), STRICT.model_copy(update={"security": ("active",)}))
    with InProcess(tmp_path, 2, policies=policies) as cluster:
        kept = Kept(cluster)
        kept.allow()
        with pytest.raises(PolicyError, match="and not passive"):
            kept.open(noised_sum())
        plan = noised_sum().with_security("active")
        with pytest.raises(PolicyError) as caught:
            kept.open(plan)
        approve(cluster, caught.value.request)  # type: ignore[attr-defined]
        kept.ask(plan)


def test_a_policy_that_changes_ends_what_is_in_flight(tmp_path: Path) -> None:
    with InProcess(tmp_path, 2) as cluster:
        kept = Kept(cluster)
        kept.allow()
        session = kept.open(noised_sum())
        cluster.nodes[1].rules.policy = Policy(ONLY_ACTIVE)
        with pytest.raises(PolicyError, match="and not passive"):
            session.run({}, ROWS, lambda: 0.0)
        assert kept.revealed(1) == 0 and kept.spent(1) == 0


def test_parties_that_are_started_so_check_every_run_and_open_no_session_without(tmp_path: Path) -> None:
    model, ranges = tiny_model(tmp_path / "tiny.onnx"), {"x": (-4, 4)}
    with Cluster.local(2, security="active") as cluster:
        assert cluster.layout is not None
        with cluster.session(model, ranges=ranges) as session:
            assert session.compiled.plan.security == "active"
            session.run(None, {"x": data(2)})
        careless = load(ClusterConfig, cluster.layout.cluster_file).model_copy(update={"security": "passive"})
        with Cluster(careless) as other, pytest.raises(PolicyError, match="allows active security, and not passive"):
            other.session(model, ranges=ranges)


# ------------------------------------------------------------------ what clients want


def test_a_client_takes_part_in_nothing_less_than_its_file_says(strict: InProcess) -> None:
    careful = strict.client(COORDINATOR, "active")
    with pytest.raises(UsageError, match="the plan's runs are not checked"):
        Session(careful, strict.compiled())
    with InProcess(strict.folder / "both", 2) as cluster:
        roles = Roles(recipients=(RECIPIENT,))
        with Session(cluster.client(), cluster.compiled(roles)) as session:
            with pytest.raises(UsageError, match="the plan's runs are not checked"):
                Guest(cluster.client(RECIPIENT, "active"), Ticket.parse(session.ticket))
            Guest(cluster.client(RECIPIENT), Ticket.parse(session.ticket))
            session.abandon()


def test_nothing_that_was_compiled_before_runs_with_less_than_is_asked_for(strict: InProcess, tmp_path: Path) -> None:
    """A plan, or a model that has a place already, has the security that it has."""
    plan, active = strict.compiled().plan, strict.compiled(ACTIVE).plan
    with Cluster(strict.client().config) as cluster:
        with pytest.raises(UsageError, match="the plan's runs are not checked"):
            cluster.deal(plan, 1, security="active")
        [made] = cluster.deal(active, 1, security="active")
        cluster.drop(made)
    files = {name: tmp_path / name for name in ("plain.plan", "active.plan")}
    for file, each in zip(files.values(), (plan, active), strict=True):
        file.write_bytes(each.canonical)
        assert mpc_here("inspect", str(file), folder=tmp_path).returncode == 0
    refused = mpc_here("inspect", str(files["plain.plan"]), "--security", "active", folder=tmp_path)
    assert refused.returncode == 2 and "the plan's runs are not checked" in refused.stderr
    assert mpc_here("inspect", str(files["active.plan"]), "--security", "active", folder=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("asked", "least", "found"),
    [(None, "passive", "passive"), (None, "active", "active"), ("active", "passive", "active"), ("passive",) * 3],
)
def test_what_is_asked_for_and_what_the_file_says(asked: Any, least: Any, found: str) -> None:
    assert read_security(asked, least) == found


@pytest.mark.parametrize("asked", ["Active", "", 1, True, ["active"]])
def test_another_word_is_refused(asked: Any) -> None:
    with pytest.raises(UsageError, match="security is 'passive' or 'active'"):
        read_security(asked, "passive")
    with pytest.raises(UsageError, match="every session is active"):
        read_security("passive", "active")


# ------------------------------------------------------------------ what is shown, and files


def test_a_request_says_it_and_others_have_the_bytes_that_they_had(tmp_path: Path) -> None:
    with InProcess(tmp_path, 2) as cluster:
        kept = Kept(cluster)
        records = []
        for plan in (noised_sum(), noised_sum().with_security("active")):
            terms = cluster.nodes[0].imagined(plan, kept.binding())
            made = make_request(plan, terms, None, "analyst", bytes(32), {kept.manifest.id: kept.manifest}, [])
            assert Request.parse(made.content) == made
            records.append(made)
    plain, checked = records
    assert b"security" not in plain.content and plain.id != checked.id
    assert not any("checked" in line for line in plain.lines)
    assert "checked   each run, before anything of it is told" in checked.lines


def test_a_local_cluster_keeps_what_it_was_started_with(tmp_path: Path) -> None:
    for asked, allowed, least in (
        (None, ("passive", "active"), "passive"),
        ("active", ("active",), "active"),
        (None, ("active",), "active"),
        ("passive", ("passive", "active"), "passive"),
    ):
        layout = LocalLayout.create(tmp_path / "c", 2, security=asked, clients=("bob",))  # type: ignore[arg-type]
        if layout.ports is not None:
            layout.ports.release()
        configs = [load(PartyConfig, member.config, environ={}) for member in layout.members[1:]]
        assert [config.policy.security for config in configs] == [allowed] * 2
        files = [layout.cluster_file, layout.client_file("bob")]
        assert [load(ClusterConfig, file, environ={}).security for file in files] == [least] * 2


def test_a_policy_names_one_mode_at_least() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        PolicyConfig(security=())
    with pytest.raises(ValueError, match="'passive' or 'active'"):
        PolicyConfig(security=("none",))  # type: ignore[arg-type]
    assert dump_toml(ONLY_ACTIVE).endswith('security = [\n    "active",\n]\n')
