"""Answer what may be asked of a party: a message for each dataset, and one for the operator's word."""

from __future__ import annotations

from collections.abc import Sequence

from mpc.errors import SessionError
from parties.party.consent.decide import Allowed, Missing
from parties.party.consent.operator import Silent
from parties.party.vault.ending import unknown
from parties.pb import party_pb2


def answers(found: Sequence[Allowed | Missing], silent: Silent | None) -> list[party_pb2.Answer]:
    """Return what is told of datasets, and of the operator if its word is missing."""
    told = [answer(each) for each in found]
    if silent is not None:
        word = party_pb2.Answer(
            whose="its operator", why=silent.why, remedy=silent.remedy, operator=True, denied=silent.denied
        )
        told.append(word)
    return told


def nothing(error: SessionError) -> party_pb2.Answer:
    """Return the one answer for what is not here, or not for who asks."""
    return party_pb2.Answer(why=error.what, remedy=error.remedy or "")


def answer(found: Allowed | Missing) -> party_pb2.Answer:
    """Return what is told of one dataset."""
    if isinstance(found, Allowed):
        return party_pb2.Answer(
            dataset=found.part.name,
            allowed=True,
            mechanism=found.mechanism,
            grant=found.grant or "",
            epsilon=found.amount.epsilon,
            delta=found.amount.delta,
        )
    if not found.known:
        return nothing(unknown())
    return party_pb2.Answer(
        dataset=found.part.name,
        whose=found.whose,
        why=found.why,
        remedy=found.remedy,
        lacks_grant=found.lacks_grant,
        lacks_budget=found.lacks_budget,
    )
