"""Consent of a collection's clients: to one plan, once, over all rows, for whom it says.

No grant and no budget of whoever collects counts here: the rows are its clients'.  What each of them signed by entering
a row is the collection's own word.
"""

from __future__ import annotations

import sqlite3

from mpc.errors import InputError, IntegrityError
from parties.agreed.collecting import SUM_TOLD, Collection
from parties.agreed.grants import Grant
from parties.agreed.questions import Dp, Question
from parties.party.collecting import tables as collections
from parties.party.consent import tables
from parties.party.consent.asked import Asked, Part
from parties.party.consent.conditions import House


def collected(
    database: sqlite3.Connection, asked: Asked, part: Part, house: House, batch: int | None
) -> tuple[Grant | None, str]:
    """Return (a collection's word as a grant, ""), or (None, why it does not allow this).

    Args:
        batch: rows of the run that is about to tell its answer; None when a session opens.
    """
    kept = collections.find(database, asked.gathered(part) or "")
    if kept is None or kept.owner_key != part.key:
        return None, "this party does not know its collection"
    try:
        said = Collection.verify(house.trust, kept.signed, house.cluster, lambda: house.now)
    except (IntegrityError, InputError):
        return None, f"{kept.owner}'s certificate, with which the collection was signed, is not good any more"
    fault = _fault(said, asked, part, batch) or _spent(database, said)
    return (None, fault) if fault else (_as_grant(said), "")


def _fault(said: Collection, asked: Asked, part: Part, batch: int | None) -> str:
    """Say what of a session the collection does not allow."""
    whole = asked.manifests[bytes.fromhex(part.objects[0])]
    others = sorted(asked.receivers - {*said.recipients})
    bound = asked.terms.bindings
    if (asked.coordinator, asked.key) != (said.owner, part.key):
        return f"{said.owner} alone asks about its collection"
    if asked.terms.plan_digest.hex() != said.plan:
        return "its clients consented to another plan"
    if others:
        return f"it does not name the recipient {', '.join(others)}"
    if asked.terms.provider != said.provider or asked.terms.parties != said.parties:
        return "it is for other parties, or another provider"
    if asked.plan.kept or asked.plan.states or asked.plan.program is not None:
        return "nothing of it stays at the parties, and one run tells all there is"
    every = {(each.object, each.columns, each.first, each.rows) for each in bound}
    if asked.parts != (part,) or every != {(whole.id, (said.column.name,), 0, whole.rows)}:
        return "it is asked of all its rows, and of nothing else beside them"
    if batch is not None and batch != whole.rows:
        return f"one run goes through all its {whole.rows:,} rows"
    return ""


def _spent(database: sqlite3.Connection, said: Collection) -> str:
    runs, _ = tables.spent_under(database, said.id)
    return SUM_TOLD if runs else ""


def _as_grant(said: Collection) -> Grant:
    """Return the grant that a collection amounts to: one noised answer, to its recipients."""
    dp = Dp(mechanisms=(said.mechanism,), epsilon_each=said.epsilon, epsilon=said.epsilon, delta=said.delta, outputs=1)
    return Grant(
        cluster=said.cluster,
        owner=said.owner,
        dataset=said.name,
        parties=said.parties,
        provider=said.provider,
        coordinators=(said.owner,),
        recipients=said.recipients,
        uses=1,
        created=said.created,
        not_before=said.created,
        expires=said.expires,
        question=Question(dp=dp),
    )
