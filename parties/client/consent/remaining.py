"""Budgets in units that people think in: how many more questions like this one there may be."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

from mpc.errors import MpcError
from mpc.privacy.facts import Loss
from parties.agreed.objects import Manifest
from parties.client.channels import Parties
from parties.client.consent import granting
from parties.client.consent.told import Given, Left


class Remaining(Fraction):
    """Epsilon that is left of a dataset's budget.

    Args:
        more: how many more questions like this one there may be, of this budget and by these grants.
    """

    more: int

    def __new__(cls, left: Fraction, more: int) -> Self:
        """Make it of what is left and how many more questions that is."""
        found = super().__new__(cls, left)
        found.more = more
        return found

    def __str__(self) -> str:
        return f"epsilon {float(self):g}, {questions(self.more)} like this one"

    def __repr__(self) -> str:
        return f"<{self}>"


def questions(count: int) -> str:
    """Say how many more questions there may be."""
    return f"{count:,} more question{'s' if count != 1 else ''}"


def remaining(parties: Parties, manifest: Manifest, cost: Loss) -> Remaining | None:
    """Return what is left behind a question that cost so much; None if no budget is set.

    Raises:
        MpcError: the parties do not tell.
    """
    found = granting.budget(parties, manifest.name)
    if found.epsilon is None:
        return None
    more = found.more_of(cost)
    if manifest.owner != parties.config.name:
        under = [more_under(each, cost) for each in noised_grants(parties, manifest)]
        more = min(more, max(under, default=0))
    return Remaining(found.left, more)


def noised_grants(parties: Parties, manifest: Manifest) -> list[Given]:
    """List the grants of noised answers about a dataset under which this client may ask today."""
    me, now = parties.config.name, time.time()
    return [
        each
        for each in granting.given(parties)
        if each.grant.question.dp is not None
        and each.grant.dataset in (manifest.name, manifest.id.hex())
        and me in each.grant.coordinators
        and me in each.grant.recipients
        and not each.revoked
        and each.grant.expires > now
    ]


def more_under(given: Given, cost: Loss) -> int:
    """Count the answers of a cost that a grant still allows, by its epsilon and its delta."""
    dp = given.grant.question.dp
    if dp is None or cost.epsilon > dp.epsilon_each:
        return 0
    left = int(max(Fraction(0), dp.epsilon - given.spent) / cost.epsilon)
    if cost.delta:
        left = min(left, int(max(Fraction(0), dp.delta - given.spent_delta) / cost.delta))
    return left if given.grant.uses is None else min(left, max(0, given.grant.uses - given.uses))


def most_of_one(given: Given) -> Fraction:
    """Return the most epsilon that one more answer may cost under a grant, whatever is left of the budget."""
    dp = given.grant.question.dp
    if dp is None or (given.grant.uses is not None and given.uses >= given.grant.uses):
        return Fraction(0)
    return max(Fraction(0), min(dp.epsilon_each, dp.epsilon - given.spent))


@dataclass(frozen=True)
class Affordable:
    """Price that one more noised question of a client may have.

    Args:
        granted: the most epsilon that a grant allows for one, and still has.
        left: epsilon that is left of the budget.
    """

    granted: Fraction
    left: Fraction

    @property
    def most(self) -> Fraction:
        """The most epsilon that one may cost now."""
        return min(self.granted, self.left)


def affordable(parties: Parties, manifest: Manifest) -> Affordable | None:
    """Return what one more noised question of this client may cost; None where the parties do not tell."""
    try:
        left = granting.budget(parties, manifest.name)
        given = noised_grants(parties, manifest)
    except MpcError:
        return None
    most = max(map(most_of_one, given), default=Fraction(0))
    return Affordable(most, left.left if left.epsilon is not None else Fraction(0))


def usual(left: Left, given: Sequence[Given]) -> tuple[Fraction, str] | None:
    """Return (what a question usually costs, which one that is): as those so far did, or the most that grants allow.

    None if nothing was asked and nothing is granted.
    """
    if left.noised and left.spent:
        return left.spent / left.noised, ", like those so far"
    each = [dp.epsilon_each for grant in given if (dp := grant.grant.question.dp) is not None and not grant.revoked]
    return (max(each), ", the most that one may cost") if each else None


def told(parties: Parties, manifest: Manifest) -> tuple[str, dict[str, Any]] | None:
    """Say what is left of a dataset's budget, in a line and in numbers; None to whom the parties do not tell."""
    try:
        left = granting.budget(parties, manifest.name)
        named = (manifest.name, manifest.id.hex())
        given = [each for each in granting.given(parties) if each.grant.dataset in named]
    except MpcError:
        return None
    like = usual(left, given)
    return line(left, like), numbers(left, like)


def numbers(left: Left, like: tuple[Fraction, str] | None) -> dict[str, Any]:
    """Return what JSON has of a budget: `each` is what a question costs, `more` how many of these there may be."""
    return {**left.content(), **({} if like is None else {"each": float(like[0]), "more": left.more(like[0])})}


def line(left: Left, like: tuple[Fraction, str] | None) -> str:
    """Say in a line what is left, and how many questions that is."""
    if left.epsilon is None:
        return "budget: none is set, so there are no noised answers"
    said = f"budget: epsilon {float(left.left):g} of {float(left.epsilon):g} left"
    if like is None:
        return said
    return f"{said}: {more_like(left, like)}"


def more_like(left: Left, like: tuple[Fraction, str]) -> str:
    """Say how many more questions of a cost there may be, as "3 more questions at epsilon 1, like those so far"."""
    each, which = like
    return f"{questions(left.more(each))} at epsilon {float(each):g}{which}"
