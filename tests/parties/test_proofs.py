"""Proofs that a party keeps: one for each plan and what it is asked of, and not more than so many."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from mpc.errors import PlanError
from mpc.privacy.facts import Guarantee, StoredFacts
from parties.party.consent import proofs
from parties.party.consent.proofs import Proofs
from tests.support.asking import ROWS, Kept, above, noised_sum
from tests.support.parties import InProcess


@pytest.fixture
def proved(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, StoredFacts]]:
    """What was proved since."""
    made: list[dict[str, StoredFacts]] = []
    real = proofs.guarantee

    def counting(plan: Any, stored: Any) -> Any:
        made.append(dict(stored))
        return real(plan, stored)

    monkeypatch.setattr(proofs, "guarantee", counting)
    return made


def facts(rows: int = ROWS, origin: str = "one") -> dict[str, StoredFacts]:
    return {"x": StoredFacts(rows, 1, origin)}


def test_a_proof_is_of_one_plan_and_one_set_of_facts(proved: list[Any]) -> None:
    kept, plan = Proofs(), noised_sum()
    first = kept.find(plan, facts())
    assert isinstance(first, Guarantee) and first.of(["x"]).epsilon == Fraction(1, 2)
    assert kept.find(noised_sum(), facts()) is first and len(proved) == 1
    kept.find(plan, facts(origin="two"))
    kept.find(plan, {"x": StoredFacts(ROWS, 2, "one")})
    assert len(proved) == 3
    refused = kept.find(above(), facts())
    assert isinstance(refused, PlanError) and kept.find(above(), facts()) is refused and len(proved) == 4
    assert isinstance(kept.find(plan, {"x": StoredFacts(ROWS, 2, "one")}), PlanError)  # its noise is for one row


def test_no_more_are_kept_than_so_many(proved: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "MOST_PROOFS", 3)
    kept, plan = Proofs(), noised_sum()
    for origin in "abcd":
        kept.find(plan, facts(origin=origin))
    kept.find(plan, facts(origin="d"))
    assert len(proved) == 4
    kept.find(plan, facts(origin="a"))
    assert len(proved) == 5 and len(kept) == 3


def test_one_plan_is_proved_once_by_each_party(proved: list[Any], tmp_path: Path) -> None:
    """However often a session of it is opened, asked about and told."""
    with InProcess(tmp_path, 2) as cluster:
        kept = Kept(cluster)
        kept.allow(2, 2)
        for _ in range(3):
            kept.ask(noised_sum())
        assert len(proved) == 2 and kept.spent() == 1_500_000_000
