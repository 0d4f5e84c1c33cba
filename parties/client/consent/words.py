"""Words that are missing: what parties answer to a proposal that nobody has allowed yet, and how long one waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from mpc.errors import IntegrityError, PolicyError, WaitingError
from mpc.plan.plan import Plan
from parties.agreed.bindings import Binding
from parties.agreed.keeps import Keep
from parties.agreed.requests import how_to_approve
from parties.client.channels import Parties
from parties.client.consent import granting
from parties.client.consent.told import Verdict
from parties.pb import party_pb2

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
"""Seconds between two looks at whether a word has been said."""
_SHOWN = 16


def require_none(waiting: Mapping[str, party_pb2.Waiting]) -> None:
    """Require that no party waits for a word.

    Args:
        waiting: what those that do have answered, by their names.

    Raises:
        WaitingError: words are missing: whose, and what to do next.
        PolicyError: an operator said no.
        IntegrityError: parties do not describe one request alike.
    """
    if not waiting:
        return
    ids = {each.request for each in waiting.values()}
    if len(ids) > 1:
        raise IntegrityError(
            "the parties do not describe what was asked alike",
            cause=f"{', '.join(f'{name}: {each.request[:_SHOWN]}' for name, each in waiting.items())}",
            remedy="they run different versions, or one deviates from the protocol: mpc doctor",
        )
    raise explain([granting.verdict(party, each) for party, said in waiting.items() for each in said.answers], min(ids))


def explain(verdicts: Sequence[Verdict], request: str = "") -> PolicyError:
    """Return the error that says whose words are missing, and the commands that say them.

    Args:
        verdicts: those that do not allow it.
        request: the id under which operators and owners see what was asked, if it was written down.
    """
    short = request[:_SHOWN]
    denied = [each for each in verdicts if each.denied]
    if denied:
        return PolicyError(denied[0].why, remedy=denied[0].remedy, peer=denied[0].party)
    operators = sorted({each.party for each in verdicts if each.operator})
    owners = {(each.dataset, each.why): each for each in reversed(verdicts) if not each.operator}
    if owners:
        [first, *others] = [*owners.values()][::-1]
        name = first.dataset or "what it reads"
        causes = [f"{each.dataset}: {each.why} ({each.party})" for each in others]
        causes += [f"and no rule of the policy of {_and(operators)} covers it"] if operators else []
        seen = f"; they see it as request {short}: mpc requests" if request else ""
        return WaitingError(
            f"{first.party}: {name} may not be used for this: {first.why}",
            cause="; ".join(causes) or None,
            remedy=f"{first.remedy}{seen}" if first.remedy else None,
            peer=first.party,
            request=request or None,
        )
    return WaitingError(
        f"request {short} waits for the word of the operator{'s' * (len(operators) > 1)} of {_and(operators)}"
        if request
        else f"it would wait for the word of the operator{'s' * (len(operators) > 1)} of {_and(operators)}",
        cause="no rule of their policies covers it",
        remedy=f"tell them: {how_to_approve(request)}; then ask again, or with wait=600 (--wait)"
        if request
        else verdicts[0].remedy,
        peer=operators[0],
        request=request or None,
    )


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)


def await_words(
    parties: Parties,
    plan: Plan,
    bindings: Sequence[Binding],
    keeps: Sequence[Keep],
    until: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until no word is missing; False if one still is at that time.

    Args:
        until: as the clock shows it (monotonic seconds).

    Raises:
        PolicyError: an operator said no, or who asks may not wait.
    """
    pause = _FIRST_PAUSE
    while True:
        missing = [each for each in granting.ask(parties, plan, bindings, keeps) if not each.allowed]
        if not missing:
            return True
        if any(each.denied for each in missing):
            raise explain(missing)
        if clock() >= until:
            return False
        sleep(max(0.0, min(pause, until - clock())))
        pause = min(2 * pause, _LONGEST_PAUSE)
