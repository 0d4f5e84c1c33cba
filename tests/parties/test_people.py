"""People in several datasets: apart where all owners state it, and budgets that an owner's datasets share.

Each party decides alone, by the words that it has: what one owner states counts for nothing without the other's.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from mpc.errors import PolicyError, WaitingError
from mpc.gates.rows import Rows
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan
from mpc.privacy.facts import StoredFacts
from mpc.privacy.guarantee import sensitivities
from mpc.privacy.states import Moved, most
from mpc.wires import BATCH
from parties.agreed.bindings import Binding
from parties.agreed.objects import Manifest
from parties.agreed.requests import Request
from parties.client.consent import granting
from parties.client.datasets import Datasets
from tests.support.asking import ANALYST, HOSPITAL, ROWS, Kept, noised_sum, stored
from tests.support.grants import budget, dp, grant
from tests.support.parties import InProcess
from tests.support.plans import replace_wires, wire
from tests.support.questions import INHERITED, WIDE, Question, fitted

CLINIC = "clinic"
OURS, THEIRS = "hospital/patients", "clinic/patients"


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    with InProcess(tmp_path, 2) as cluster:
        yield Kept(cluster)


@cache
def both(apart: bool) -> Plan:
    """The sum over the rows of both owners' tables, with noise for who is in one of them, or may be in both."""
    q = Question((BATCH, 1), bits=7)
    q.enter("u", (BATCH, 1), 7)
    q.bound(width=8)
    q.bound("u", "w", width=8)
    for x, out in (("y", "s"), ("w", "t")):
        q.gate(Rows(name=f"rows:{out}", x=x, most=100, out=out), wire(out, (1,), WIDE, **INHERITED))
    q.draw((1,))
    q.told(q.combine("s", "t", "n"))
    plan = stored(q.unchecked(), ["x"], HOSPITAL, ANALYST)
    plan = replace_wires(stored(plan, ["u"], CLINIC, ANALYST), {"x": {"holders": (HOSPITAL,)}})
    return parse_plan(fitted(plan, facts(apart)).canonical)


def facts(apart: bool) -> dict[str, StoredFacts]:
    def one(origin: str, other: str) -> StoredFacts:
        return StoredFacts(ROWS, 1, origin, apart=frozenset([other] if apart else []))

    return {"x": one("one", "two"), "u": one("two", "one")}


def bindings(kept: Kept, theirs: Manifest) -> tuple[Binding, ...]:
    return tuple(Binding(name, each.id, ("age",), 0, ROWS) for name, each in (("x", kept.manifest), ("u", theirs)))


def theirs_with(kept: Kept, **changes: Any) -> Manifest:
    """The clinic's table, with a budget."""
    manifest = kept.put(owner=CLINIC)
    kept.say(budget(4, dataset=THEIRS, owner=CLINIC), CLINIC)
    return manifest


def grant_of(kept: Kept, owner: str, apart: tuple[str, ...], only: list[int] | None = None) -> None:
    kept.grant(only, owner=owner, dataset=f"{owner}/patients", question=dp(4, apart=apart))


def test_noise_is_for_one_of_them_where_both_state_it(kept: Kept) -> None:
    """And each dataset is charged the whole epsilon."""
    assert sensitivities(both(True), facts(True))["draw:n"] == 255
    assert sensitivities(both(False), facts(False))["draw:n"] == 510
    theirs = theirs_with(kept)
    kept.say(budget(4))
    grant_of(kept, HOSPITAL, (THEIRS,))
    grant_of(kept, CLINIC, (OURS,))
    assert kept.ask(both(True), bindings(kept, theirs)).shape == (1,)
    assert [kept.spent(index, name) for index in (0, 1) for name in (OURS, THEIRS)] == [500_000_000] * 4


def test_a_request_says_whose_people_its_epsilon_is_of(kept: Kept) -> None:
    """Of who is in one table alone, where noise is for no more; the owners' commands state that, and it is allowed."""
    theirs = theirs_with(kept)
    kept.say(budget(4))
    for apart in (True, False):
        with pytest.raises(WaitingError):
            kept.ask(both(apart), bindings(kept, theirs))
    stated, whole = Datasets(kept.cluster.client(HOSPITAL)).requests()
    told = [line for line in stated.lines if line.startswith("tells")]
    assert [(each.dataset, each.epsilon, each.apart) for each in stated.request.proves] == [
        (THEIRS, 500_000_000, (OURS,)), (OURS, 500_000_000, (THEIRS,))
    ]  # fmt: skip
    assert told[0].endswith("of a person in clinic/patients who is not in hospital/patients")
    assert [each.apart for each in whole.request.proves] == [(), ()]
    assert "apart" not in whole.request.model_dump(mode="json")["proves"][0]  # its bytes are as they were
    assert Request.parse(stated.request.content) == stated.request
    [command] = stated.grants(HOSPITAL)
    assert "--apart clinic/patients" in command and "--apart" not in whole.grants(HOSPITAL)[0]
    grant_of(kept, HOSPITAL, (THEIRS,))
    grant_of(kept, CLINIC, (OURS,))
    kept.ask(both(True), bindings(kept, theirs))


@pytest.mark.parametrize("party", [0, 1])
def test_security_40_one_owner_alone_states_nothing(kept: Kept, party: int) -> None:
    """Each party refuses by itself: the other one has both owners' words."""
    theirs = theirs_with(kept)
    kept.say(budget(4))
    grant_of(kept, HOSPITAL, (THEIRS,))
    grant_of(kept, CLINIC, (OURS,), only=[1 - party])
    grant_of(kept, CLINIC, (), only=[party])
    with pytest.raises(PolicyError, match=f"party-{party}.*not those of epsilon"):
        kept.ask(both(True), bindings(kept, theirs))
    grant_of(kept, CLINIC, ("other/patients",), only=[party])  # of somebody else's
    with pytest.raises(PolicyError, match="not those of epsilon"):
        kept.ask(both(True), bindings(kept, theirs))
    grant_of(kept, CLINIC, (OURS,), only=[party])
    kept.ask(both(True), bindings(kept, theirs))


def test_nobody_is_apart_within_one_owners_name() -> None:
    with pytest.raises(ValidationError, match="never apart"):
        grant(question=dp(1, apart=("hospital/others",)))
    plain, stating = grant(question=dp(1)), grant(question=dp(1, apart=(THEIRS,)))
    assert "apart" not in plain.model_dump_json() and THEIRS in stating.model_dump_json() and plain.id != stating.id
    assert "group" not in budget(1).model_dump_json()


def test_who_may_be_in_three_datasets_is_in_those_that_are_not_apart() -> None:
    """a and b are apart, c with neither: the most is a and c, or b and c."""
    apart = {"a": frozenset("b"), "b": frozenset("a"), "c": frozenset[str]()}
    parts = {"a": Moved(5, Fraction(5)), "b": Moved(7, Fraction(4)), "c": Moved(10, Fraction(10))}
    assert most(parts, apart) == Moved(17, Fraction(15))
    assert most(parts, {**apart, "b": frozenset()}) == Moved(22, Fraction(19))  # one side's word is none
    every = {name: frozenset(parts) - {name} for name in parts}
    assert most(parts, every) == Moved(10, Fraction(10))
    many = {f"{number}": Moved(1, Fraction(1)) for number in range(13)}
    assert most(many, {name: frozenset(many) for name in many}) == Moved(13, Fraction(13))


# ------------------------------------------------------------------ groups


def test_datasets_of_a_group_share_one_budget(kept: Kept) -> None:
    """What is spent on either is spent of it, also what was spent before there was a group; and none is added."""
    others = kept.put("others")
    binding = kept.binding(others)
    for name in ("patients", "others"):
        kept.say(budget(10, dataset=f"hospital/{name}"))
        kept.grant(dataset=f"hospital/{name}", question=dp(10))
    kept.ask(noised_sum(), binding)
    kept.say(budget(Fraction(5, 4), 2, group=("hospital/others",)))
    kept.ask(noised_sum())
    for bound in (binding, None):
        with pytest.raises(
            PolicyError, match=r"costs epsilon 0\.5, and 0\.25 of its budget of hospital/patients and 1 more"
        ):
            kept.ask(noised_sum(), bound)
    kept.say(budget(Fraction(3, 2), 3, group=("hospital/others",)))
    kept.ask(noised_sum(), binding)
    assert (kept.spent(), kept.spent(dataset="hospital/others")) == (500_000_000, 10**9)


def test_a_dataset_of_a_group_needs_no_budget_of_its_own(kept: Kept) -> None:
    others = kept.put("others")
    kept.grant(dataset="hospital/others", question=dp(10))
    with pytest.raises(PolicyError, match="has set no budget"):
        kept.ask(noised_sum(), kept.binding(others))
    kept.say(budget(1, group=("hospital/others",)))
    kept.ask(noised_sum(), kept.binding(others))
    found = granting.budget(kept.cluster.client(HOSPITAL), "hospital/others")
    assert (found.epsilon, found.left, found.sequence) == (1, Fraction(1, 2), 0)
    assert found.group == ("hospital/patients", "hospital/others")
    again = granting.set_budget(kept.cluster.client(HOSPITAL), "hospital/others", Fraction(1, 4), Fraction(1, 100))
    assert again.left == 0 and again.sequence == 1


def test_a_group_is_of_the_owners_own_datasets() -> None:
    for group in (("clinic/patients",), ("hospital/patients",), ("hospital/a", "hospital/a")):
        with pytest.raises(ValidationError, match="a group is of|twice"):
            budget(1, group=group)
    assert np.all([name.startswith("hospital/") for name in budget(1, group=("hospital/a",)).datasets])
