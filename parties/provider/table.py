"""Keeps the provider's sessions: opened by the first party that asks, joined by the others, found, and forgotten."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from mpc.errors import HandshakeError, PlanError, PolicyError, SessionError
from mpc.plan.parse import outline, parse_plan
from mpc.plan.plan import Plan, digest_of
from parties.agreed.bindings import read_binding
from parties.agreed.keeps import read_keep
from parties.agreed.memory import plan_memory
from parties.agreed.terms import Terms
from parties.config.models import ProviderConfig
from parties.pb import provider_pb2
from parties.process.budget import MemoryBudget
from parties.provider.sessions import ProviderSession, over
from parties.telemetry import logger

_REMEMBERED = 4096
"""Ended sessions that are told from ones that never were, with the party that ended each."""


class SessionTable:
    """All sessions of one provider, by id.  Thread-safe.

    Args:
        budget: what sessions are granted memory of.
        clock: monotonic seconds, for idle sessions.
    """

    def __init__(self, config: ProviderConfig, budget: MemoryBudget, clock: Callable[[], float]) -> None:
        self._config, self._budget, self._clock = config, budget, clock
        self.open: dict[bytes, ProviderSession] = {}
        self._ended: OrderedDict[bytes, str] = OrderedDict()
        self._lock = threading.Lock()
        self._parsing = threading.Lock()
        self._opening = {party: threading.Lock() for party in config.parties}

    def sessions(self) -> list[ProviderSession]:
        """Return the open ones, in the order in which they were opened."""
        with self._lock:
            return list(self.open.values())

    def enter(self, request: provider_pb2.DealRequest, party: str) -> ProviderSession:
        """The session of these terms: made by the first party that asks, found by the others.

        What costs nothing is asked first, and a plan is parsed once a session.
        """
        given = request.terms
        if len(given.plan) > self._config.limits.max_plan_bytes:
            raise PlanError(
                f"a plan of {len(given.plan):,} bytes; this provider accepts {self._config.limits.max_plan_bytes:,}",
                remedy="raise limits.max_plan_bytes",
            )
        bindings = tuple(read_binding(each) for each in given.bindings)
        keeps = tuple(read_keep(each) for each in given.keeps)
        agreed = (tuple(given.parties), tuple(given.nonces), bindings, keeps)
        terms = Terms(digest_of(given.plan), self._config.name, *agreed)
        if terms.session_id != request.session_id:
            raise HandshakeError("the session id does not belong to these terms")
        if party not in terms.parties:
            raise PolicyError(f"{party!r} is not a party of this session")
        if not set(terms.parties) <= set(self._config.parties):
            raise PolicyError("the session has parties that this provider does not deal to")
        with self._opening[party]:
            return self._join(request.session_id, party) or self._make(terms, given.plan, party)

    def _join(self, session_id: bytes, party: str) -> ProviderSession | None:
        """The session, if another party has opened it."""
        with self._lock:
            if session_id in self._ended:
                raise over(self._ended[session_id])
            session = self.open.get(session_id)
            if session is not None:
                session.joined.add(party)
            return session

    def _make(self, terms: Terms, plan_bytes: bytes, party: str) -> ProviderSession:
        with self._lock:
            self._require_room(party)
        known = outline(plan_bytes)
        with self._parsing:  # another party of it may have come meanwhile, and has parsed the plan
            joined = self._join(terms.session_id, party)
            return joined or self._parsed(terms, parse_plan(plan_bytes, known), party)

    def _parsed(self, terms: Terms, plan: Plan, party: str) -> ProviderSession:
        granted = plan_memory(plan, self._config.limits)
        with self._lock:
            self._require_room(party)
            self._budget.take(granted)
            made = ProviderSession(terms, plan, opener=party, used_at=self._clock(), granted=granted)
            self.open[terms.session_id] = made
            logger().info("session opened", session=terms.session_id.hex()[:16], parties=list(terms.parties))
        found = self._join(terms.session_id, party)
        if found is None:
            raise over("")
        return found

    def _require_room(self, party: str) -> None:
        """Require a place for a session that this party opens.  With the lock.

        Sessions that not all their parties have joined count for who opened them, and take nobody else's places.  There
        are twice as many places as a party has: of those that end there, this process hears a moment later.
        """
        whole = [session for session in self.open.values() if session.whole]
        mine = sum(session.opener == party for session in self.open.values() if not session.whole)
        most = self._config.limits.max_sessions
        if mine >= self._config.limits.sessions_of_one or len(whole) + mine >= 2 * most:
            raise SessionError(
                f"this provider has {len(whole)} open sessions, and {mine} that only {party} has joined",
                cause="as many as it allows; idle ones end by themselves",
                remedy="close some (session.close()), wait, or raise limits.max_sessions of the provider",
            )

    def find(self, session_id: bytes) -> ProviderSession:
        """Return an open session; `SessionError` if it has ended, or was never here."""
        with self._lock:
            if session_id in self._ended:
                raise over(self._ended[session_id])
            if session_id not in self.open:
                raise SessionError(
                    "the provider does not know this session",
                    cause="it was restarted, or the session ended long ago",
                    remedy="start a new session",
                )
            return self.open[session_id]

    def finish(self, session_id: bytes, party: str) -> None:
        """Forget a session that a party of it says is over."""
        with self._lock:
            session = self.open.get(session_id)
            ended = session is not None and party in session.terms.parties
            if ended:
                self._forget(session_id, party)
        if session is not None and ended:
            self._settle(session)

    def _forget(self, session_id: bytes, by: str = "") -> None:
        """Nobody finds the session from now on; call with the lock held, and `_settle` without it.

        by: the party that ended it, if one did.
        """
        self.open.pop(session_id).ended_by = by
        self._ended[session_id] = by
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)

    def _settle(self, session: ProviderSession) -> None:
        """Give back what a forgotten session held: now, or when a deal that is under way is done."""
        with session.lock:
            session.over = True
            session.changed.notify_all()
            for bundle in session.bundles.values():
                bundle.forsake(over(session.ended_by))  # whoever deals it may be held back
            session.give_back(self._budget)

    def drop_idle(self) -> None:
        """End the sessions that nobody has used for the idle deadline, and of which no part is being sent."""
        limit = self._clock() - self._config.deadlines.idle
        with self._lock:
            idle = {sid: session for sid, session in self.open.items() if session.is_idle(limit)}
            for session_id in idle:
                self._forget(session_id)
        for session in idle.values():
            self._settle(session)
