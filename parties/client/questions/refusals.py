"""Refusals of questions: whose data it is, whose words are missing, and which commands say them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from mpc.errors import MpcError, PolicyError, PrivateDataError, SessionError, WaitingError
from mpc.plan.plan import Plan
from parties.agreed.bindings import Binding
from parties.agreed.objects import Manifest
from parties.agreed.requests import how_to_approve
from parties.client.consent import granting
from parties.client.consent.remaining import Affordable
from parties.client.consent.told import Verdict

if TYPE_CHECKING:
    from parties.client.channels import Parties

_SHOWN = 16


@dataclass(frozen=True)
class Asked:
    """A question, for the error that refuses it.

    affordable: what one more noised question may cost, if parties tell.
    """

    manifest: Manifest
    me: str
    text: str
    epsilon: Fraction | None
    affordable: Affordable | None = None

    @property
    def instead(self) -> str:
        """The noised question that is allowed as things are; "" if there is none, or it would cost as much."""
        most = Fraction(0) if self.affordable is None else self.affordable.most
        usual = most if self.epsilon is not None else min(most, Fraction(1, 2))
        written = f"{math.floor(usual * 10**6) / 10**6:g}"
        return (
            f".get(epsilon={written})" if float(written) > 0 and (self.epsilon is None or most < self.epsilon) else ""
        )

    @property
    def exceeds_grants(self) -> bool:
        """Does it cost more than any grant allows for one?  No, where parties do not tell."""
        return self.epsilon is not None and self.affordable is not None and self.epsilon > self.affordable.granted

    @property
    def what(self) -> str:
        """The question in words."""
        return self.text if self.text.startswith("values") else f"the {self.text}"

    @property
    def grant(self) -> str:
        """The command that allows a noised answer."""
        each, me = f"{float(self.epsilon or Fraction(1, 2)):g}", self.me
        name = self.manifest.name
        return f"mpc grant add {name} --epsilon {each} --epsilon-each {each} --coordinator {me} --recipient {me}"


def exact_is_private(asked: Asked) -> PrivateDataError:
    """Make the error that an exact answer is its owner's alone."""
    name, owner = asked.manifest.name, asked.manifest.owner
    noised = "on a sum over rows asks for a noised one, which"
    could = f".get(epsilon=0.5) {noised} {owner} may allow: {asked.grant}"
    return PrivateDataError(
        f"{asked.what}, exactly, is {owner}'s alone",
        cause=f"{name} is {owner}'s, and an exact answer may tell of a single person",
        remedy=f"{asked.instead} {noised} {owner} has allowed" if asked.instead else could,
    )


def private(asked: Asked, refused: PolicyError | SessionError, words: Sequence[Verdict] = ()) -> PrivateDataError:
    """Make the error that says whose data it is, whose words are missing and which commands say them.

    words: those that are missing, as far as parties say.
    """
    name, owner = asked.manifest.name, asked.manifest.owner
    operators = sorted({each.party for each in words if each.operator and not each.denied})
    request = refused.request if isinstance(refused, WaitingError) else None
    fixes = [f"{asked.instead} is allowed, by what is granted and left"] if asked.instead else []
    owners = not words or any(not each.operator for each in words)
    commands = _of_owner(asked, words)
    if commands:
        fixes.append(f"{owner} may allow it: {'; '.join(commands)}")
    if request is not None:
        if operators:
            many = "s" * (len(operators) > 1)
            who, how = f"the operator{many} of {' and '.join(operators)}", how_to_approve(request)
            also = f"no approval stands for {owner}'s word, and beside it {who} may have to approve this: {how}"
            fixes.append(also if owners else f"{who} may: {how}")
        seen = f"they see it as request {request[:_SHOWN]} (mpc requests); " if owners else ""
        fixes.append(f"{seen}.get(epsilon=..., wait=600) waits for their words")
    elif not commands and refused.remedy:
        fixes.append(refused.remedy)
    whose = f"{name} is {owner}'s, and only what {owner} has granted is computed from it"
    each = f" at epsilon {float(asked.epsilon):g}" if asked.epsilon is not None else ""
    return PrivateDataError(
        f"{asked.what}{each} was refused: {refused.what}",
        cause=whose if owners else refused.cause,
        remedy="; ".join(fixes),
    )


def _of_owner(asked: Asked, words: Sequence[Verdict]) -> list[str]:
    """Return the owner's commands that help as parties say: a grant, a budget, or both; both where none says."""
    budget = f"mpc budget set {asked.manifest.name} --epsilon E raises what all answers may cost"
    budgets = any(each.lacks_budget for each in words)
    grants = any(each.lacks_grant for each in words) or (budgets and asked.exceeds_grants)
    return [
        *([asked.grant] if grants or not words else []),
        *([budget] if budgets or not words else []),
    ]


def missing(parties: Parties, plan: Plan, bindings: Sequence[Binding]) -> list[Verdict]:
    """Return whose words are missing, as far as parties say; the refusal is told in any case."""
    with suppress(MpcError):
        return [each for each in granting.ask(parties, plan, bindings) if not each.allowed]
    return []
