"""Owners' consent in running clusters: what is granted is answered and charged, and everything else is refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mpc.errors import MpcError, PolicyError, SessionError
from parties.party.consent import consent as consent_module
from tests.support.asking import AGES, HOSPITAL, ROWS, Kept, above, exactly, noised_sum
from tests.support.grants import LATER, budget, dp, grant, revocation
from tests.support.parties import InProcess

HALF = 500_000_000
"""What the noised sum costs, in billionths."""


@pytest.fixture(params=[2, 3])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    with InProcess(tmp_path, request.param) as cluster:
        yield Kept(cluster)


def test_a_noised_sum_is_answered_and_charged_at_every_party(kept: Kept) -> None:
    kept.allow()
    found = kept.ask(noised_sum())
    assert abs(int(found[0]) - int(AGES.sum())) < 256 * 40  # D1 / epsilon is about 510
    assert [kept.spent(index) for index in range(len(kept.cluster.names))] == [HALF] * len(kept.cluster.names)


def test_an_exact_plan_is_answered_and_costs_a_use(kept: Kept) -> None:
    plan = above()
    kept.grant(dataset=kept.manifest.id.hex(), question=exactly(plan, kept.manifest), uses=2)
    for _ in range(2):
        assert np.array_equal(kept.ask(plan).reshape(-1), AGES >= 60)
    with pytest.raises(PolicyError, match="used up"):
        kept.ask(plan)
    assert kept.spent() == 0 and kept.revealed() == 2


def test_an_owner_needs_no_grant_for_itself_alone(kept: Kept) -> None:
    assert kept.ask(above(HOSPITAL), coordinator=HOSPITAL).sum() == 3
    with pytest.raises(PolicyError, match="hospital has granted hospital nothing of it"):
        kept.ask(above(), coordinator=HOSPITAL)  # for somebody else
    assert kept.spent() == 0


def test_a_budget_ends(kept: Kept) -> None:
    kept.allow(2, Fraction(5, 4))
    kept.ask(noised_sum())
    kept.ask(noised_sum())
    with pytest.raises(PolicyError, match=r"costs epsilon 0\.5, and 0\.25 of its budget is left"):
        kept.ask(noised_sum())
    kept.say(budget(2, 2))
    kept.ask(noised_sum())
    kept.say(budget(Fraction(1, 2), 3))
    with pytest.raises(PolicyError, match="0 of its budget is left"):
        kept.ask(noised_sum())
    assert kept.spent() == 3 * HALF


def test_a_grant_has_an_end_of_its_own(kept: Kept) -> None:
    kept.allow(Fraction(3, 4), 10)
    kept.ask(noised_sum())
    with pytest.raises(PolicyError, match="has less left"):
        kept.ask(noised_sum())
    kept.grant(question=dp(10, Fraction(1, 4)))
    with pytest.raises(PolicyError, match="allows 0.25 a run|has less left"):
        kept.ask(noised_sum())


def test_all_versions_share_one_budget(kept: Kept) -> None:
    kept.allow(2, 1)
    kept.ask(noised_sum())
    second = kept.put()
    kept.ask(noised_sum(), kept.binding(second))
    for manifest in (kept.manifest, second):
        with pytest.raises(PolicyError, match="0 of its budget is left"):
            kept.ask(noised_sum(), kept.binding(manifest))


def test_strangers_are_told_one_thing(kept: Kept) -> None:
    hidden = kept.put("hidden", visible=())
    texts = set()
    for bindings in (kept.binding(hidden), kept.binding(object=b"7" * 32)):
        with pytest.raises(SessionError) as caught:
            kept.ask(noised_sum("stranger"), bindings, "stranger")
        texts.add(str(caught.value).partition(": ")[2])  # which party says it first is chance
    assert len(texts) == 1
    with pytest.raises(PolicyError, match="mpc grant add hospital/patients --coordinator analyst"):
        kept.ask(noised_sum())  # visible to the analyst: what is missing is said


def test_one_partys_no_is_final_and_costs_nothing(kept: Kept) -> None:
    given = kept.allow()
    kept.say(revocation(given), only=[1])
    with pytest.raises(PolicyError, match="was revoked"):
        kept.ask(noised_sum())
    assert [kept.spent(index) for index in range(2)] == [0, 0]


def test_a_revocation_stops_what_is_not_told_yet(kept: Kept) -> None:
    given = kept.allow()
    session = kept.open(noised_sum())
    kept.say(revocation(given))
    with pytest.raises(MpcError, match="was revoked"):
        session.run({}, ROWS, lambda: 0.0)
    assert kept.revealed() == 0 and kept.spent() == 0


def test_whatever_is_here_can_be_revoked_however_much_was(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Revocations of grants that never came are counted, and no others: neither of those here nor one said again."""
    monkeypatch.setattr(consent_module, "MOST_REVOCATIONS", 1)
    absent = [grant(expires=LATER + number) for number in range(2)]
    kept.say(revocation(absent[0]))
    kept.say(revocation(absent[0]))
    for _ in range(3):
        kept.say(revocation(kept.allow(total=10)))
    with pytest.raises(SessionError, match="1 grants that are not here"):
        kept.say(revocation(absent[1]))
    with pytest.raises(PolicyError, match="was revoked"):
        kept.ask(noised_sum())


def test_a_revocation_outlives_its_grant(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """A month after its end the grant is forgotten, and not taken again; the clock may have been ahead, though."""

    def rows() -> list[int]:
        found = []
        for ledger in kept.cluster.ledgers:
            with ledger.reading() as database:
                query = "SELECT (SELECT count(*) FROM consent_grants), (SELECT count(*) FROM consent_revocations)"
                found += [*database.execute(query).fetchone()]
        return found

    given = kept.allow()
    kept.say(revocation(given))
    parties = len(kept.cluster.names)
    assert rows() == [1, 1] * parties
    later = time.time() + 32 * 86_400
    for node in kept.cluster.nodes:
        monkeypatch.setattr(node.vault.times, "clock", lambda: later)
    kept.say(revocation(grant(expires=LATER)))  # any word of a grant looks after those that are over
    assert rows() == [0, 2] * parties
    with pytest.raises(SessionError, match="has expired"):
        kept.say(given)


def test_a_plan_of_which_nothing_is_proved_is_refused(kept: Kept) -> None:
    kept.allow()
    with pytest.raises(PolicyError, match="tells single rows"):
        kept.ask(above())
