"""Words of answers and of refusals: as fine as the noise lets them be, and the commands that would change something."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from mpc.errors import InputError, WaitingError
from mpc.plan.ends import PlanInput
from parties.client.consent.remaining import Affordable
from parties.client.consent.told import Verdict
from parties.client.questions.asking import Answer
from parties.client.questions.refusals import Asked, private
from parties.client.training.examples import as_targets

ASKED = Asked(cast(Any, SimpleNamespace(name="hospital/stays", owner="hospital")), "lab", "mean of age", Fraction(1, 2))
GRANT, BUDGET = "mpc grant add hospital/stays", "mpc budget set hospital/stays"


def verdict(why: str, operator: bool = False, lacks: str = "") -> Verdict:
    said = {"allowed": False, "mechanism": "", "epsilon": Fraction(0), "whose": "", "why": why, "remedy": ""}
    lacking = {"lacks_grant": "grant" in lacks, "lacks_budget": "budget" in lacks}
    return Verdict(party="party-0", dataset="" if operator else "hospital/stays", operator=operator, **said, **lacking)


@pytest.mark.parametrize(
    ("value", "std", "words"),
    [
        (3.14159265, 0.005598355536391429, "3.1416, give or take 0.0056 ("),
        (12345.678, 123.4, "12350, give or take 120 ("),
        (np.array([1.23456, 20.0]), np.array([0.5, 0.01234]), "[ 1.235 20.   ], give or take [0.5   0.012] ("),
        (2.5, 0.0, "2.5, give or take 0.0 ("),
    ],
)
def test_an_answer_is_printed_as_finely_as_its_noise_is(value: Any, std: Any, words: str) -> None:
    assert str(Answer(value, std, Fraction(1, 2))).startswith(words)


@pytest.mark.parametrize(
    ("lacks", "offered"),
    [("grant, budget", {GRANT, BUDGET}), ("grant", {GRANT}), ("budget", {BUDGET}), ("", {"ask somebody"})],
)
def test_an_owner_is_asked_for_what_is_missing_alone(lacks: str, offered: set[str]) -> None:
    """As parties say it in so many words, whatever the sentence is that they give as the reason."""
    refused = WaitingError("no", remedy="ask somebody")
    told = private(ASKED, refused, [verdict("grant 0123456789abcdef was revoked", lacks=lacks)]).remedy or ""
    assert {each for each in (GRANT, BUDGET, "ask somebody") if each in told} == offered


@pytest.mark.parametrize(
    ("granted", "left", "instead", "offered"),
    [
        (Fraction(1, 4), Fraction(1), ".get(epsilon=0.25) is allowed", {GRANT, BUDGET}),
        (Fraction(1, 2), Fraction(1, 3), ".get(epsilon=0.333333) is allowed", {BUDGET}),
        (Fraction(0), Fraction(1), "", {GRANT, BUDGET}),
        (Fraction(1, 2), Fraction(0), "", {BUDGET}),
    ],
)
def test_what_is_allowed_already_is_offered_first_and_a_budget_not_alone_where_grants_do_not_reach(
    granted: Fraction, left: Fraction, instead: str, offered: set[str]
) -> None:
    """A party that finds the budget too small has not looked at grants."""
    asked = replace(ASKED, affordable=Affordable(granted, left))
    told = private(asked, WaitingError("no"), [verdict("too little is left", lacks="budget")]).remedy or ""
    assert {each for each in (GRANT, BUDGET) if each in told} == offered
    assert told.startswith(instead) and (" is allowed" in told) is bool(instead)


def test_both_words_of_an_owner_are_offered_where_no_party_says_which_is_missing() -> None:
    told = private(ASKED, WaitingError("no"), []).remedy or ""
    assert GRANT in told and BUDGET in told


def test_no_approval_stands_for_the_word_of_an_owner() -> None:
    refused = WaitingError("no", request="ab" * 32)
    operator = verdict("no rule covers it", operator=True)
    both = private(ASKED, refused, [verdict("nothing of it", lacks="grant"), operator]).remedy or ""
    assert "no approval stands for hospital's word" in both and "mpc approve abab" in both
    assert "stands for" not in (private(ASKED, refused, [operator]).remedy or "")


def test_a_label_that_is_no_class_is_named() -> None:
    given = cast(PlanInput, SimpleNamespace(low=(0,), high=(1,)))
    with pytest.raises(InputError, match="10 is none of the classes 0 to 9"):
        as_targets(np.arange(1, 11), (10, 10), given)
    with pytest.raises(InputError, match=r"0\.5 is none of the classes 0 to 2"):
        as_targets(np.array([0, 0.5, 2]), (3, 3), given)
