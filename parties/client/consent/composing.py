"""Show what noised answers so far tell together, which is less than what the budget counts for them.

A budget counts plain sums, at every party alike, and nothing here changes what is allowed.  Where answers have one
epsilon, `mpc.privacy.composition` finds the least that can be said of all of them; of others the sum is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from mpc.errors import IntegrityError, UsageError
from mpc.privacy.composition import MOST_ANSWERS, composed
from mpc.privacy.facts import CHARGE_UNIT, DELTA_UNIT, Loss
from parties.agreed.audit import START
from parties.client.channels import Parties
from parties.client.consent import granting
from parties.client.consent.auditing import follow_chain
from parties.client.consent.told import Amount, Left, Together


def budget(parties: Parties, dataset: str, delta: Fraction) -> Left:
    """Return what is left of a dataset's budget, and what its answers tell together at a delta of them all.

    Raises:
        UsageError: it is not this client's dataset, and others do not see all that was charged; or delta is 1 or more.
        SessionError, IntegrityError: a party's audit chain does not say.
    """
    if dataset.partition("/")[0] != parties.config.name:
        raise UsageError(
            f"what all answers about {dataset} tell together is shown to its owner alone",
            cause="charges of other askers are not shown to you",
            remedy="leave out the delta: what is left of the budget is",
        )
    if not 0 < delta < 1:
        raise UsageError("that is no delta of answers together", remedy="a number above 0 and far below 1, 1e-6")
    found = granting.budget(parties, dataset)
    names = {dataset, *found.group}
    costs = max((_costs(parties, place, names) for place in range(len(parties.clients))), key=_spent)
    return replace(found, together=_together(costs, delta))


def _costs(parties: Parties, place: int, names: set[str]) -> Counter[Loss]:
    """Return how many answers cost how much, by the audit chain of one party."""
    chain = follow_chain(parties.clients[place], START, parties.config.deadlines.submit)
    charges = [row for row in chain.rows if row["kind"] == "charge"]
    if chain.fault is not None or not all(_is_whole(row) for row in charges):
        raise IntegrityError(
            f"the audit chain of {chain.party} does not say what was charged",
            cause=chain.fault or "a row of it is malformed",
            remedy="mpc audit shows which of its rows",
            peer=chain.party,
        )
    return Counter(
        Loss(Fraction(row["epsilon"], CHARGE_UNIT), Fraction(row["delta"], DELTA_UNIT))
        for row in charges
        if row["dataset"] in names and row["epsilon"]
    )


def _is_whole(row: Mapping[str, Any]) -> bool:
    """Does a row say of which dataset so much was charged?"""
    amounts = row.get("epsilon"), row.get("delta")
    return isinstance(row.get("dataset"), str) and all(type(each) is int and each >= 0 for each in amounts)


def _spent(costs: Counter[Loss]) -> Fraction:
    return sum((cost.epsilon * often for cost, often in costs.items()), Fraction(0))


def _together(costs: Counter[Loss], delta: Fraction) -> Together:
    answers, spent = costs.total(), Amount(_spent(costs))
    epsilons = {each.epsilon for each in costs}
    if len(epsilons) != 1 or answers > MOST_ANSWERS:
        return Together(answers, Amount(delta), spent, None)
    deltas = [each.delta for each in costs.elements()]
    return Together(answers, Amount(delta), spent, Amount(composed(epsilons.pop(), deltas, delta)))
