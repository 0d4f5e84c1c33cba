"""The consent that one session was opened with, and what is written of its runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from parties.party.consent import audit, tables
from parties.party.consent.asked import Asked
from parties.party.consent.conditions import House
from parties.party.consent.decide import EXACT, OWN, Allowed, decide, require
from parties.party.consent.tables import Charge
from parties.party.ledger.sessions import Ledger
from parties.party.ledger.states import RunState

if TYPE_CHECKING:
    from parties.party.consent.consent import Consent

Also = Callable[[sqlite3.Connection, Sequence[Allowed]], None]
"""Done in the transaction of `revealed`, given what is allowed."""


def _nothing(database: sqlite3.Connection, allowed: Sequence[Allowed]) -> None:
    """Do nothing else."""


class SessionConsent:
    """The consent that one session was opened with; asked again for each run that is about to tell its answer.

    Args:
        asked: what the session asks.
    """

    def __init__(self, consent: Consent, asked: Asked) -> None:
        self._consent, self.asked = consent, asked
        plan = asked.plan
        self._session = asked.terms.session_id.hex()
        owners = {part.owner for part in asked.parts}
        self._about = {asked.coordinator, *plan.owners, *plan.recipients, *owners}
        self._allowed: set[int] = set()

    def opened(self, database: sqlite3.Connection) -> None:
        """Note that the session is opened, in the transaction that opens it."""
        asked = self.asked
        objects = {part.name: list(part.objects) for part in asked.parts}
        facts = {"session": self._session, "plan": asked.terms.plan_digest.hex(), "coordinator": asked.coordinator}
        self._consent.note(database, audit.OPEN, self._about, **facts, datasets=objects)

    def burn(self, ledger: Ledger, run: int, following: int) -> None:
        """Burn a run, and those that follow in the same write, durably.

        Where answers cost nobody anything, that write has a row of the audit chain too, which says that these runs may
        be told: what `reveal` writes of each of them waits for no disk then.
        """
        window = range(run, run + following + 1)
        allowed: list[int] = []

        def allow(database: sqlite3.Connection) -> bool:
            facts = {"session": self._session, "run": run, "through": window[-1]}
            plan, recipients = self.asked.terms.plan_digest.hex(), sorted(self.asked.plan.recipients)
            self._consent.note(database, audit.ALLOW, self._about, **facts, plan=plan, recipients=recipients)
            allowed.extend(window)
            return False

        ledger.advance(self.asked.terms.session_id, run, RunState.BURNT, allow if self._is_free else None, following)
        self._allowed.update(allowed)  # none where the run was burnt with one before it

    @property
    def _is_free(self) -> bool:
        """Does no answer of the session cost anybody anything, and does nothing stay of it at the parties?"""
        asked = self.asked
        return not (asked.parts or asked.terms.keeps) and self._consent.operator.needed(asked) is None

    def reveal(self, ledger: Ledger, run: int, batch: int, also: Also = _nothing) -> bytes:
        """Take a run to `revealed` if all that it reads may still be told.

        What it costs is durable then.  Of a run that costs nothing a row is on the disk already (`burn`), and a power
        failure may lose this one.

        Args:
            batch: rows of the run.
            also: done in the same transaction, given what is allowed.

        Returns:
            The newest head of the audit chain that is on the disk; it stands behind a row that names the run.

        Raises:
            PolicyError: it may not: nothing is written, and nothing may leave.
        """
        house = self._consent.house() if self.asked.parts else None
        operator = self._consent.operator
        request = operator.needed(self.asked)
        is_named = run in self._allowed and house is None and request is None and also is _nothing

        def spend(database: sqlite3.Connection) -> bool:
            used = operator.spend(database, self.asked, request)
            allowed = [] if house is None else require(decide(database, self.asked, house, batch))
            charges = [] if house is None else self._spend(database, house, run, allowed)
            recipients = sorted(self.asked.plan.recipients)
            facts = {"session": self._session, "run": run, "plan": self.asked.terms.plan_digest.hex()}
            approval = {"request": request} if used else {}
            self._consent.note(database, audit.REVEAL, self._about, **facts, recipients=recipients, **approval)
            also(database, allowed)
            return used or bool(charges)

        ledger.advance(self.asked.terms.session_id, run, RunState.REVEALED, spend, is_named=is_named)
        self._allowed.discard(run)
        return ledger.head

    def _spend(self, database: sqlite3.Connection, house: House, run: int, allowed: Sequence[Allowed]) -> list[Charge]:
        charges = [self._charge(run, each) for each in allowed if each.mechanism != OWN]
        if self.asked.is_one_question:  # its first answer is charged for all of them, but for what noise costs
            charges = [each for each in charges if each.mechanism != EXACT or not tables.is_charged(database, each)]
        for made in charges:
            tables.charge(database, made, house.now)
            self._note_charge(database, made)
        return charges

    def _charge(self, run: int, allowed: Allowed) -> Charge:
        plan = self.asked.terms.plan_digest.hex()
        grant = allowed.grant or ""
        return Charge(self._session, run, allowed.part.name, grant, plan, allowed.mechanism, allowed.amount)

    def _note_charge(self, database: sqlite3.Connection, made: Charge) -> None:
        owner = made.dataset.partition("/")[0]
        facts = {"session": made.session, "run": made.run, "dataset": made.dataset, "grant": made.grant}
        amount = {"epsilon": made.amount.epsilon, "delta": made.amount.delta, "mechanism": made.mechanism}
        self._consent.note(database, audit.CHARGE, {owner, self.asked.coordinator}, **facts, **amount)
