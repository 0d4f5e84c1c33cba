"""A policy is exchanged while a party runs: as a whole or not at all, and for what is in flight too."""

from __future__ import annotations

import io
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from mpc.errors import ConfigError, PolicyError, WaitingError
from parties.agreed.bindings import write_bindings
from parties.client.running.stocks import propose
from parties.config.load import dump_toml, load
from parties.config.models import PartyConfig, PolicyConfig
from parties.party.rules import Rules
from parties.pb import consent_pb2, party_pb2
from tests.support.asking import ANALYST, ROWS, Kept, noised_sum
from tests.support.logs import lines
from tests.support.parties import EVERYONE, InProcess


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    with InProcess(tmp_path, 2) as cluster:
        found = Kept(cluster)
        found.allow(9, 9)
        for index in range(2):
            write(cluster, index, EVERYONE)
            config = file_of(cluster, index)
            cluster.nodes[index].rules.read = lambda config=config: load(PartyConfig, config, environ={})
        yield found


def file_of(cluster: InProcess, index: int) -> Path:
    return cluster.folder / f"party-{index}.toml"


def write(cluster: InProcess, index: int, policy: PolicyConfig | str) -> None:
    """Change a party's config file; a text is put behind what is there."""
    config = cluster.party_config(index).model_copy(update={} if isinstance(policy, str) else {"policy": policy})
    text = dump_toml(config)
    file_of(cluster, index).write_text(text + policy if isinstance(policy, str) else text)


def reload(cluster: InProcess, index: int) -> consent_pb2.PolicyReply:
    """Have a party read its policy again, as its operator."""
    reply: consent_pb2.PolicyReply = cluster.consent(index, cluster.names[index]).Policy(
        consent_pb2.PolicyRequest(reload=True)
    )
    return reply


def test_another_policy_holds_from_then_on(kept: Kept) -> None:
    cluster = kept.cluster
    kept.ask(noised_sum())
    write(cluster, 1, EVERYONE.model_copy(update={"coordinators": ("somebody",)}))
    kept.ask(noised_sum())  # a file alone changes nothing
    reply = reload(cluster, 1)
    assert (list(reply.changed), reply.problem, list(reply.restart)) == (["coordinators"], "", [])
    with pytest.raises(PolicyError, match="does not allow the coordinator 'analyst'"):
        kept.ask(noised_sum())
    write(cluster, 1, EVERYONE)
    reload(cluster, 1)
    kept.ask(noised_sum())


def test_what_is_in_flight_is_decided_again_before_it_is_told(kept: Kept) -> None:
    """A session that was opened under another policy tells no more answers, and its budget is not charged."""
    cluster = kept.cluster
    session = kept.open(noised_sum())
    session.run({}, ROWS, lambda: 0.0)
    spent = kept.spent(1)
    write(cluster, 1, EVERYONE.model_copy(update={"recipients": ("somebody",)}))
    reload(cluster, 1)
    with pytest.raises(PolicyError, match="policy of party-1 does not cover this any more"):
        session.run({}, ROWS, lambda: 0.0)
    assert (kept.spent(1), kept.revealed(1)) == (spent, 1)


def test_a_proposal_of_before_is_not_opened_after(kept: Kept) -> None:
    cluster, plan = kept.cluster, noised_sum()
    terms = propose(cluster.client(ANALYST), plan, bindings=kept.binding())
    write(cluster, 0, EVERYONE.model_copy(update={"plans": ()}))
    reload(cluster, 0)
    opening = party_pb2.OpenRequest(
        plan_digest=plan.digest, parties=terms.parties, nonces=terms.nonces, bindings=write_bindings(terms.bindings)
    )
    with pytest.raises(PolicyError, match="does not allow the plan"):
        cluster.party(0, ANALYST).Open(opening)


def test_the_cap_on_epsilon_is_read_again(kept: Kept) -> None:
    kept.ask(noised_sum())
    write(kept.cluster, 0, EVERYONE.model_copy(update={"max_epsilon": Decimal("0.75")}))
    reload(kept.cluster, 0)
    with pytest.raises(PolicyError, match="0.25 of its budget is left"):
        kept.ask(noised_sum())


def test_askers_begin_to_wait(kept: Kept) -> None:
    write(kept.cluster, 0, PolicyConfig(askers=(ANALYST,), recipients=("any",), data_owners=("any",)))
    reload(kept.cluster, 0)
    with pytest.raises(WaitingError, match="waits for the word of the operator of party-0"):
        kept.ask(noised_sum())


@pytest.mark.parametrize(
    "wrong",
    ["\nnonsense", "\n[limits]\nmax_batch = 0\n", '\n[policies]\nplans = ["any"]\n', "gone"],
    ids=["no TOML", "another section", "an unknown key", "no file"],
)
def test_a_file_that_cannot_be_read_changes_nothing_and_that_is_said(kept: Kept, wrong: str, log: io.StringIO) -> None:
    """Not even what of it could be read: the policy above the fault is another one, too."""
    cluster = kept.cluster
    before = cluster.nodes[0].rules.policy
    write(cluster, 0, EVERYONE.model_copy(update={"coordinators": ()}))
    if wrong == "gone":
        file_of(cluster, 0).unlink()
    else:
        file_of(cluster, 0).write_text(file_of(cluster, 0).read_text() + wrong)
    reply = reload(cluster, 0)
    assert reply.problem and cluster.nodes[0].rules.policy is before
    kept.ask(noised_sum())
    described = cluster.party(0, ANALYST).Describe(party_pb2.DescribeRequest())
    assert described.policy_stale and not described.problem  # it serves
    assert lines(log, "the policy cannot be read again, and the old one stays in force")
    write(cluster, 0, EVERYONE)
    assert reload(cluster, 0).problem == ""
    assert not cluster.party(0, ANALYST).Describe(party_pb2.DescribeRequest()).policy_stale


def test_settings_beside_the_policy_wait_for_a_restart(kept: Kept) -> None:
    cluster = kept.cluster
    config = cluster.party_config(0)
    limits = config.limits.model_copy(update={"max_sessions": 3})
    file_of(cluster, 0).write_text(dump_toml(config.model_copy(update={"limits": limits, "policy": EVERYONE})))
    assert list(reload(cluster, 0).restart) == ["limits"]
    assert cluster.nodes[0].config.limits.max_sessions != 3


def test_another_partys_config_is_none(kept: Kept) -> None:
    cluster = kept.cluster
    file_of(cluster, 0).write_text(dump_toml(cluster.party_config(1)))
    assert "party-1's now" in reload(cluster, 0).problem


def test_a_party_without_a_file_says_so(tmp_path: Path) -> None:
    config = InProcess(tmp_path, 2).party_config(0)
    with pytest.raises(ConfigError, match="no config file"):
        Rules(config).reload()


def test_only_the_operator_sees_the_policy(kept: Kept) -> None:
    for who in (ANALYST, "party-1", "hospital"):
        with pytest.raises(PolicyError):
            kept.cluster.consent(0, who).Policy(consent_pb2.PolicyRequest(reload=True))
