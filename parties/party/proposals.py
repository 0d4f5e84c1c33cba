"""Plans that a party was proposed and agreed to, each for one session: who may, how many, how large, for how long.

What costs nothing is asked first: who calls, how long the plan is, and whether the policy lists its digest, which is
computed of its bytes, or the caller may wait for a word.  Only then is it read and counted, of one coordinator one
plan at a time: whoever proposes large plans waits for itself.  What is left is parsed, one plan at a time.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mpc.errors import HandshakeError, PlanError, SessionError
from mpc.plan.parse import outline, parse_plan
from mpc.plan.plan import Plan, digest_of
from parties.agreed.memory import parsed_memory, plan_memory
from parties.agreed.terms import NONCE_BYTES
from parties.config.models import Deadlines, Limits
from parties.party.consent.operator import Waits
from parties.party.slots import Slot, Slots
from parties.process.budget import MemoryBudget

_PER_SESSION = 4
"""Proposals that a coordinator may have for each session that it may have; the oldest gives way."""


@dataclass
class Proposal:
    """A plan that this party's policy allows, and the nonce that stands for its consent to one session.

    Args:
        slot: the session's place, unless it is one that is dealt ahead.
        held: bytes of memory it was granted.
    """

    plan: Plan
    coordinator: str
    made_at: float
    slot: Slot | None
    held: int


class Proposals:
    """All of a party's, by nonce.  Thread-safe.

    Args:
        draw: fresh random bytes.
    """

    def __init__(
        self,
        limits: Limits,
        deadlines: Deadlines,
        slots: Slots,
        budget: MemoryBudget,
        draw: Callable[[int], bytes],
    ) -> None:
        self._limits, self._slots, self._budget, self._draw = limits, slots, budget, draw
        self._reserved, self._kept = deadlines.connect, deadlines.connect + deadlines.setup
        self._most = _PER_SESSION * limits.sessions_of_one
        self._open: OrderedDict[bytes, Proposal] = OrderedDict()
        self._parsed: weakref.WeakValueDictionary[bytes, Plan] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()
        self.parsing = threading.Lock()
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def __len__(self) -> int:
        with self._lock:
            return len(self._open)

    def require_size(self, plan_bytes: bytes) -> None:
        """Require that a plan is not too long to be read; `PlanError`."""
        if len(plan_bytes) > self._limits.max_plan_bytes:
            raise PlanError(
                f"a plan of {len(plan_bytes):,} bytes; this party accepts {self._limits.max_plan_bytes:,}",
                remedy="raise limits.max_plan_bytes",
            )

    def propose(
        self, plan_bytes: bytes, coordinator: str, ahead: bool, consent: Callable[[Plan], Waits | None]
    ) -> bytes | Waits:
        """Check a plan that the caller may have read; a nonce for one session, whose place is kept for
        `deadlines.connect`.

        ahead: it will be dealt now and opened later, so it needs no place.
        consent: says whose words are missing; raises what refuses it for good.

        Raises:
            PlanError: it is malformed, or there is no memory for it.
            SessionError: there is no place for another session.
        """
        digest = digest_of(plan_bytes)
        slot = None if ahead else self._slots.reserve(coordinator, self._reserved)
        held = parsed_memory(len(plan_bytes))
        try:
            self._budget.take(held, coordinator)
        except PlanError:
            self._slots.free(slot)
            raise
        try:
            plan = self._parse(plan_bytes, digest, coordinator)
            plan_memory(plan, self._limits)
            waits = consent(plan)
            nonce = self._draw(NONCE_BYTES)
        except BaseException:
            self._slots.free(slot)
            self._budget.give(held, coordinator)
            raise
        if waits is not None:
            self._slots.free(slot)
            self._budget.give(held, coordinator)
            return waits
        with self._lock:
            self._open[nonce] = Proposal(plan, coordinator, time.monotonic(), slot, held)
            mine = [old for old, proposal in self._open.items() if proposal.coordinator == coordinator]
            self._forget(mine[: max(0, len(mine) - self._most)])
        return nonce

    @contextmanager
    def reading(self, plan_bytes: bytes, client: str) -> Iterator[Plan]:
        """Parse a plan that the caller may have read, in its turn, and hold memory for it in the block.

        Raises:
            PlanError: it is malformed, or there is no memory for it.
        """
        held = parsed_memory(len(plan_bytes))
        self._budget.take(held, client)
        try:
            plan = self._parse(plan_bytes, digest_of(plan_bytes), client)
            plan_memory(plan, self._limits)
            yield plan
        finally:
            self._budget.give(held, client)

    def _parse(self, plan_bytes: bytes, digest: bytes, coordinator: str) -> Plan:
        with self._lock:
            turn = self._turns[coordinator]
        with turn:
            plan = self._parsed.get(digest)
            if plan is None:
                known = outline(plan_bytes)
                with self.parsing:
                    plan = parse_plan(plan_bytes, known)
                self._parsed[digest] = plan
            return plan

    def claim(self, nonce: bytes, coordinator: str, plan_digest: bytes) -> Proposal:
        """The proposal behind a nonce: used up, whatever comes of it.  The caller gives back what it holds."""
        with self._lock:
            proposal = self._open.pop(nonce, None)
        if proposal is None or proposal.coordinator != coordinator:
            self.give_back(proposal)
            raise SessionError("this party did not draw that nonce for you, or it was used", remedy="propose again")
        if proposal.plan.digest != plan_digest:
            self.give_back(proposal)
            raise HandshakeError("the nonce was drawn for another plan")
        return proposal

    def withdraw(self, nonce: bytes, coordinator: str) -> None:
        """Forget a proposal whose coordinator does not go on with it, so that its place is free; nothing happens if
        it is used or not the caller's."""
        with self._lock:
            found = self._open.get(nonce)
            if found is not None and found.coordinator == coordinator:
                self._forget([nonce])

    def give_back(self, proposal: Proposal | None) -> None:
        """Its memory, and its place if no session has taken that."""
        if proposal is not None:
            self._budget.give(proposal.held, proposal.coordinator)
            self._slots.free(proposal.slot)
            proposal.held, proposal.slot = 0, None

    def drop_old(self, now: float) -> None:
        """Forget those that nobody has used in time (monotonic seconds)."""
        with self._lock:
            self._forget([nonce for nonce, old in self._open.items() if now - old.made_at > self._kept])

    def _forget(self, nonces: list[bytes]) -> None:
        for nonce in nonces:
            self.give_back(self._open.pop(nonce))
