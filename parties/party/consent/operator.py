"""Judge what a party's operator allows: what a rule of its policy covers, and what it has approved by hand.

An approval stands for the policy only.  It is of one record (`parties/agreed/requests.py`), which says all that a
session may be told apart by, and of so many runs, counted in the transaction that writes `revealed`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from mpc.errors import InputError, MpcError, PlanError, PolicyError, SessionError
from mpc.plan.plan import Plan
from parties.agreed.requests import Proves, Request, how_to_approve, make_request
from parties.config.models import PartyConfig
from parties.party.consent import requests
from parties.party.consent.asked import Asked, Part, Protected
from parties.party.consent.decide import Missing
from parties.party.consent.requests import DENIED, Draw, Kept
from parties.party.ledger.sessions import Ledger
from parties.party.rules import Rules
from parties.party.vault.times import Times
from parties.telemetry import logger

_MOST_PROVED = 16
"""Datasets of a session that are proved each for itself, if nothing is proved of them together."""
_AGAIN = 60.0
"""Seconds after which requests are forgotten that could not be."""


@dataclass(frozen=True)
class Silent:
    """The operator's word about a request, which is missing or no.

    Args:
        request: its id.
    """

    request: str
    denied: bool
    why: str
    remedy: str

    def error(self) -> PolicyError:
        """Return the refusal as it is told."""
        return PolicyError(self.why, remedy=self.remedy)


@dataclass(frozen=True)
class Waits:
    """A request that is kept, and whose words it waits for.

    Args:
        silent: the operator's, unless it has been given.
        missing: owners'.
    """

    request: str
    silent: Silent | None
    missing: tuple[Missing, ...]


class Operator:
    """The operator of one party.  Thread-safe.

    Args:
        draw: fresh random bytes.
    """

    def __init__(self, config: PartyConfig, rules: Rules, ledger: Ledger, times: Times, draw: Draw) -> None:
        self._config, self.rules, self._ledger, self._times, self._draw = config, rules, ledger, times, draw
        self._again = 0.0

    # -- may a session be opened?

    def silent(self, asked: Asked) -> Silent | None:
        """Say whether the operator's word is missing; None if the policy covers what is asked, or it is approved.

        Raises:
            PolicyError: neither, and who asks may not wait.
            SessionError: it is approved, and the party's clock is behind.
        """
        if self.rules.covers(asked.plan, asked.coordinator):
            return None
        self.require_asker(asked.plan, asked.coordinator)
        request = self.request(asked)
        with self._ledger.reading() as database:
            return self._word(requests.find(database, request.id, self._times.shown()), request)

    def require(self, asked: Asked) -> None:
        """Require that a session may be opened; raises as `silent`, and `PolicyError` where that word is missing."""
        self.require_read(asked)
        silent = self.silent(asked)
        if silent is not None:
            raise silent.error()

    def require_read(self, asked: Asked) -> None:
        """Require that the policy takes what a session reads, as it was kept; `PolicyError`.

        It tells of what is here, and so is asked once it is clear that the asker may know of that.  No approval stands
        in for it.
        """
        self.rules.require_read(asked.reads_unchecked)

    def require_asker(self, plan: Plan, coordinator: str) -> None:
        """Require that a rule covers what is asked, or that it may wait for a word; `PolicyError`.

        Nothing at rest is looked at, so it tells nothing of what is here.  The security that the policy asks for is
        asked of what an operator approves too.
        """
        self.rules.require_security(plan)
        if self.rules.covers(plan, coordinator):
            return
        if not self.rules.policy.asks(coordinator):
            self.rules.require(plan, coordinator)
        self.rules.require_no_machines(plan, coordinator)

    def _word(self, known: Kept | None, request: Request) -> Silent | None:
        if known is not None and known.is_approved:
            self._times.now()  # while the clock is behind, nobody can tell when the approval ends
            return None
        who, short = f"the operator of {self._config.name}", request.id[:16]
        if known is not None and known.state == DENIED:
            reason = f": {known.reason}" if known.reason else ""
            return Silent(request.id, True, f"{who} denied request {short}{reason}", f"ask {who}")
        why = f"no rule of {self._config.name}'s policy covers it, and {who} has not approved request {short}"
        return Silent(request.id, False, why, f"ask {who}: {how_to_approve(short)}")

    # -- requests

    def request(self, asked: Asked) -> Request:
        """Describe what is asked as every party does; `PolicyError` if that cannot be written down."""
        manifests = asked.manifests
        try:
            return make_request(
                asked.plan, asked.terms, self._config.cluster, asked.coordinator, asked.key, manifests, _proves(asked)
            )
        except InputError as error:
            raise PolicyError(error.what, cause=error.cause) from None

    def keep(self, asked: Asked, missing: Sequence[Missing], silent: Silent | None) -> Waits:
        """Keep what is asked until those whose words are missing have said them.

        Raises:
            SessionError: as many wait for the operator as may.
        """
        request, now = self.request(asked), self._times.shown()
        owners = [(part.owner, part.key) for part in asked.parts]
        with self._ledger.writing() as database:
            plan, operator = asked.plan.canonical, silent is not None
            kept = requests.keep(database, self._draw, request, plan, owners, operator, now)
            silent = self._word(kept, request) if operator else None
        if kept.made == now:  # asked again, it is no news
            logger().info("a request waits for a word", request=request.id, coordinator=asked.coordinator)
        return Waits(request.id, silent, tuple(missing))

    def waiting(self, asked: Asked, missing: Sequence[Missing], silent: Silent | None) -> Waits:
        """Keep what is asked if there is room; an owner's refusal is told in any case.

        Raises:
            SessionError, PolicyError: nothing is kept, and that is why.
        """
        try:
            return self.keep(asked, missing, silent)
        except (SessionError, PolicyError):
            if silent is None:
                raise missing[0].error() from None
            raise

    def settle(self, asked: Asked) -> None:
        """Forget that a session waited for words, now that all of them are said: nobody is to say one twice."""
        with self._ledger.reading() as database:
            if not requests.has_waiting(database, asked.coordinator):
                return
        try:
            request = self.request(asked).id
        except PolicyError:  # what cannot be written down has not waited
            return
        with self._ledger.writing() as database:
            requests.forget(database, request)

    def decide(self, request: str, uses: int, seconds: float, reason: str) -> bytes:
        """Write the operator's word down, durably; the new head of the audit chain.

        uses: runs that are approved; 0 denies it.

        Raises:
            SessionError: it is approved, and the party's clock is behind.
            UsageError: there is no such request, or that is no decision.
        """
        now = self._times.now() if uses else self._times.shown()  # an approval holds from now on, a denial at once
        with self._ledger.writing(counted=True) as database:
            head = requests.decide(database, self._draw, request, uses, seconds, reason, now)
        logger().info("the operator decided", request=request, approved=uses)
        return head

    def tick(self) -> None:
        """Forget requests that have expired."""
        now = self._times.shown()
        if now < self._again:
            return
        try:
            with self._ledger.reading() as database:
                if not requests.has_expired(database, now):
                    return
            with self._ledger.writing() as database:
                requests.drop(database, now)
        except MpcError as error:  # a disk that is full ends no daemon
            self._again = now + _AGAIN
            logger().warning("requests that have expired are not forgotten yet", why=error.what)

    # -- may an answer be told?

    def needed(self, asked: Asked) -> str | None:
        """Return the id of the request that has to be approved for the session; None if the policy covers it."""
        return None if self.rules.covers(asked.plan, asked.coordinator) else self.request(asked).id

    def spend(self, database: sqlite3.Connection, asked: Asked, request: str | None) -> bool:
        """Require once more that the operator allows a run, and count it under the approval, if it needs one.

        Args:
            request: as `needed` said a moment ago.

        Returns:
            Was a use counted?

        Raises:
            PolicyError: the policy has changed, or the approval is used up, has expired or was taken back.
            SessionError: an approval is needed, and the party's clock is behind.
        """
        self.rules.require_security(asked.plan)
        self.require_read(asked)
        if self.rules.covers(asked.plan, asked.coordinator):
            return False
        if request is not None:
            self._times.now()  # as in `_word`
            if requests.use(database, request, self._times.shown()):
                return True
        raise PolicyError(
            f"the policy of {self._config.name} does not cover this any more, or its operator's approval is used up",
            remedy=f"ask the operator of {self._config.name}",
        )


def _proves(asked: Asked) -> list[Proves]:
    """Return what a run tells of a person through each dataset that is not the asker's own, as far as it is proved.

    Of a person who may be in all of them; or of one who is in datasets of one owner alone, as owners may state; or of
    one who is in this dataset alone, where exact answers are asked of others.  Models have no rows, and no people in
    them.
    """
    parts = [part for part in asked.parts if not asked.is_own(part) and not asked.is_model(part)]
    every = frozenset(wire for part in parts for wire in part.wires)
    pairs = frozenset(frozenset((one.name, other.name)) for one in parts for other in parts if one.owner != other.owner)
    found = []
    for part in parts:
        others = [other.name for other in parts if other.owner != part.owner]
        tries = [(Protected(every), []), (Protected(every, pairs), others)]
        if len(parts) <= _MOST_PROVED:
            tries.append((Protected(frozenset(part.wires)), [other.name for other in parts if other != part]))
        found.append(_first_proved(asked, part, tries))
    return found


def _first_proved(asked: Asked, part: Part, tries: Sequence[tuple[Protected, Sequence[str]]]) -> Proves:
    for people, apart in tries:
        asked.prove(people)
        with suppress(PlanError):
            return Proves.of(part.name, asked.loss(part, people), tuple(apart))
    return Proves.of(part.name, None)
