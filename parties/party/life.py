"""The states of a session at one party, the lock that guards them, and the error that ended it.

    opening -> open -> closed
         \\        \\-> aborted        an abort is terminal: there is no retry, only a new session

Every part of a session asks here whether it is still open.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from structlog.stdlib import BoundLogger

from mpc.errors import MpcError, PeerError, SessionError
from mpc.plan.plan import Plan
from parties.agreed.terms import Terms
from parties.alarms import ALARMS, Alarm
from parties.config.models import PartyConfig
from parties.party.inbox import over_at
from parties.party.ledger.sessions import Ledger
from parties.telemetry import Counters

_FAREWELL_SECONDS = 5.0
Arg = TypeVar("Arg")
TRANSITIONS = {
    "opening": frozenset({"open", "aborted"}),
    "open": frozenset({"closed", "aborted"}),
    "closed": frozenset(),
    "aborted": frozenset(),
}


@dataclass(frozen=True)
class SessionFacts:
    """Everything that all parts of a session work with, from its first moment to its last."""

    config: PartyConfig
    terms: Terms
    plan: Plan
    coordinator: str
    ledger: Ledger
    counters: Counters
    log: BoundLogger


class SessionLife:
    """The state of one session.  Thread-safe.

    Attributes:
        lock: guards the state, and the session's runs and inputs; `changed` is its condition.
        error: what ended the session, unless that was its coordinator.
        used_at, opened_at, renewed_at: monotonic seconds; the last is the coordinator's last sign of life.
    """

    def __init__(self) -> None:
        self.state = "opening"
        self.error: MpcError | None = None
        self.used_at = self.opened_at = self.renewed_at = time.monotonic()
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)

    def move(self, state: str) -> None:
        """Take the session to its next state; the error that ended it if that cannot be."""
        with self.lock:
            if state not in TRANSITIONS[self.state]:
                raise self.ending()
            self.state = state

    @property
    def is_over(self) -> bool:
        """Has it ended, well or not?"""
        return not TRANSITIONS[self.state]

    def require_open(self) -> None:
        """Raise what ended the session if it is not open; it is used now."""
        if self.state != "open":
            raise self.ending()
        self.used_at = time.monotonic()

    def fail(self, error: MpcError, first_hand: Callable[[MpcError], MpcError]) -> MpcError | None:
        """Mark the session as aborted, and return the error that it keeps; None if it had ended before.

        first_hand: turns the error into what this party knows itself; called with the lock.
        """
        with self.lock:
            if self.state in ("closed", "aborted"):
                return None
            error = first_hand(error)
            self.error = error.again()
            self.state = "aborted"
            return error

    def ending(self, otherwise: MpcError | None = None) -> MpcError:
        """Return the error that ended it, to be raised; `otherwise` if none did."""
        if self.error is not None:
            return self.error.again()
        return otherwise or SessionError(f"the session is {self.state}", remedy="start a new session")

    def told(self, error: MpcError) -> MpcError:
        """Return the error that a failed call answers with: the one that ended the session, unless `error` says more.

        A peer that ended it for the same reason gives a code and a name only: what this party found itself says more,
        unless it found no more than that a peer is gone, or that the session is not open any longer.
        """
        ended = self.error
        found = not error.heard_from and error.code not in (PeerError.code, SessionError.code)
        if ended is None or ended.peer == error.peer or (ended.heard_from and found):
            return error
        return ended.again()


class Farewells:
    """Peers that closed their side in good order: the coordinator's own call may be on its way, so wait a moment.

    Args:
        coordinator: of the session.
        abort: ends the session with an error; keeps nothing alive.
    """

    def __init__(self, life: SessionLife, coordinator: str, abort: Callable[[MpcError], None]) -> None:
        self._life, self._coordinator, self._abort = life, coordinator, abort
        self._alarms: list[Alarm] = []

    def heard(self, peer: str) -> None:
        """The session has ended at a peer; if the coordinator does not end it here, that is an error."""
        error = over_at(peer, self._coordinator)
        lost = weakly(self._abort_aside)
        with self._life.lock:
            if self._life.state in ("opening", "open"):
                self._alarms.append(ALARMS.set(_FAREWELL_SECONDS, lambda: lost(error)))

    def _abort_aside(self, error: MpcError) -> None:
        """Abort in a thread of its own: the ledger is written."""
        if self._life.state == "open":
            threading.Thread(target=self._abort, args=(error,), name="abort", daemon=True).start()

    def cancel(self) -> None:
        """The session has ended."""
        for alarm in self._alarms:
            alarm.cancel()


def weakly(method: Callable[[Arg], None]) -> Callable[[Arg], None]:
    """The method of an object that it does not keep: nothing happens once that is gone."""
    kept = weakref.WeakMethod(method)

    def call(argument: Arg) -> None:
        if (found := kept()) is not None:
            found(argument)

    return call
