"""What one certificate can have a party keep, hold or tell: less than it would like, whatever it asks for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from mpc.errors import HandshakeError, SessionError
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan
from parties.agreed.bindings import write_bindings
from parties.agreed.keeps import Keep, write_keeps
from parties.agreed.provenance import Provenance
from parties.agreed.signed import key_of
from parties.client.consent.auditing import follow_chain
from parties.config.models import Limits, PolicyConfig
from parties.party import proposals
from parties.party.consent import audit, consent
from parties.party.vault import catalogue
from parties.party.vault.keeps import Making
from parties.pb import consent_pb2
from tests.support.asking import ANALYST, HOSPITAL, Kept, noised_sum
from tests.support.grants import budget, dp
from tests.support.keeping import kept_plan
from tests.support.objects import AGE, schema
from tests.support.parties import InProcess


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    limits = Limits(max_data_bytes=8 << 20, max_data_bytes_per_owner=3 << 20)
    strict = PolicyConfig(data_owners=("any",), askers=(ANALYST,))
    with InProcess(tmp_path, 2, limits=limits, policies={1: strict}) as cluster:
        yield Kept(cluster)


def key(kept: Kept, name: str) -> bytes:
    return key_of(kept.cluster.identity(name).certificate_pem)


def asks(kept: Kept, plan: Plan, **more: Any) -> consent_pb2.AskReply:
    said = {"plan": plan.canonical, "bindings": write_bindings(kept.binding()), **more}
    reply: consent_pb2.AskReply = kept.cluster.consent(0, ANALYST).Ask(consent_pb2.AskRequest(**said))
    return reply


def test_what_is_kept_run_after_run_takes_no_more_room_than_its_owner_has(kept: Kept) -> None:
    """The first block fits.  All of them would be more than the operator gives one owner."""
    vault, ledger, now = kept.cluster.nodes[0].vault, kept.cluster.ledgers[0], int(time.time())
    making = Making(vault, Keep(f"{ANALYST}/much", ("y",), 1, None, now), key(kept, ANALYST))
    history = Provenance(plan="0" * 64, session="0" * 64)
    said = {"owner": ANALYST, "name": f"{ANALYST}/much", "created": now, "columns": (AGE,), "kept": history}

    def enter(blocks: int) -> int:
        lengths = {"rows": 65_000 * blocks, "lengths": (65_000,) * blocks if blocks > 1 else ()}
        whole = schema(kept.cluster.names, **lengths, **said)
        with ledger.writing() as database:
            made = making.enter(database, whole, [], [])
            found = catalogue.by_put(database, made.put)
        assert found is not None
        return found.size

    sizes = [enter(1)]
    making.listed()
    sizes.append(enter(4))
    assert sizes[0] == 1 << 20 and sizes[1] > 2_000_000  # 520,000 bytes a block, and tables
    with pytest.raises(SessionError, match="max_data_bytes_per_owner"):
        enter(7)
    with ledger.reading() as database:
        assert catalogue.taken(database, ANALYST)[1] == sizes[1]


def test_grants_are_listed_to_the_key_that_signed_them_and_to_whom_they_name(kept: Kept) -> None:
    given = kept.allow()

    def listed(who: str) -> int:
        return len(list(kept.cluster.consent(0, who).Grants(consent_pb2.GrantsRequest())))

    assert [listed(who) for who in (HOSPITAL, ANALYST, "stranger")] == [1, 1, 0]
    kept.cluster.renew(HOSPITAL)  # somebody else is issued that name
    assert [listed(who) for who in (HOSPITAL, ANALYST)] == [0, 1]
    assert given.owner == HOSPITAL


def test_an_owner_s_words_are_so_many_and_so_large(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consent, "MOST_BUDGETS", 2)
    kept.say(budget(1))
    kept.say(budget(1, dataset=f"{HOSPITAL}/other"))
    with pytest.raises(SessionError, match="has set 2 budgets"):
        kept.say(budget(1, dataset=f"{HOSPITAL}/third"))
    kept.say(budget(2, sequence=2))  # one that is there can be set again
    kept.grant(question=dp(1))
    monkeypatch.setattr(consent, "MOST_BYTES", 4_000)
    with pytest.raises(SessionError, match="as many as there may be"):
        for days in range(2, 9):
            kept.grant(question=dp(1), expires=int(time.time()) + days * 86_400)


def test_a_page_of_the_audit_chain_has_so_many_bytes(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    for sequence in range(1, 20):
        kept.say(budget(1, sequence=sequence), only=[0])
    whole = follow_chain(kept.cluster.client(HOSPITAL).clients[0], b"\0" * 32, 30)
    monkeypatch.setattr(audit, "MOST_BYTES", 1_000)
    page = list(kept.cluster.consent(0, HOSPITAL).Audit(consent_pb2.AuditRequest()))
    assert 1 <= len(page) < 10 < whole.count
    assert follow_chain(kept.cluster.client(HOSPITAL).clients[0], b"\0" * 32, 30) == whole
    monkeypatch.setattr(audit, "MOST_BYTES", 10)  # one row comes, however large it is
    assert len(list(kept.cluster.consent(0, HOSPITAL).Audit(consent_pb2.AuditRequest()))) == 1


def test_plans_that_are_only_asked_about_are_parsed_one_at_a_time(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    active, most, parsed = [0], [0], []
    changing = threading.Lock()

    def parse(content: bytes, known: dict[str, Any]) -> Plan:
        with changing:
            active[0] += 1
            most[0] = max(most[0], active[0])
        time.sleep(0.1)
        found = parse_plan(content, known)
        with changing:
            active[0] -= 1
            parsed.append(found.digest)
        return found

    monkeypatch.setattr(proposals, "parse_plan", parse)
    plans = [noised_sum(epsilon=Fraction(1, each)) for each in (2, 3, 4)]
    threads = [threading.Thread(target=asks, args=(kept, plan)) for plan in plans]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert most == [1] and {*parsed} == {plan.digest for plan in plans}
    assert kept.cluster.nodes[0].budget.taken == 0


def test_nothing_is_asked_of_what_is_kept_under_another_name(kept: Kept) -> None:
    plan, now = kept_plan(), int(time.time())
    keeps = [Keep(f"{ANALYST}/scores", (plan.kept[0].name,), 1, None, now)]
    assert asks(kept, plan, keeps=write_keeps(keeps)).answers
    for wrong in (f"{HOSPITAL}/scores", "stranger/scores"):
        with pytest.raises(HandshakeError, match="keeps nothing under the name of"):
            asks(kept, plan, keeps=write_keeps([Keep(wrong, (plan.kept[0].name,), 1, None, now)]))
    with pytest.raises(HandshakeError, match="do not name what becomes"):
        asks(kept, plan, keeps=write_keeps([Keep(f"{ANALYST}/scores", ("z",), 1, None, now)]))


def test_who_opens_a_session_on_what_it_may_not_see_is_told_nothing_of_it(kept: Kept) -> None:
    """Not by the operator's word either: a request that it has not approved would be one of something that is there."""
    hidden = kept.put("hidden", visible=())
    node, plan = kept.cluster.nodes[1], noised_sum()
    told = []
    for found in (kept.binding(hidden), kept.binding(object=b"n" * 32)):
        with pytest.raises(SessionError) as caught:
            node.consent.open(plan, node.imagined(plan, found), ANALYST, key(kept, ANALYST), node.vault)
        told.append(str(caught.value))
    assert told[0] == told[1]
