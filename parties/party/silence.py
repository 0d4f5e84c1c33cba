"""Whom a session waits for: who has been silent for too long, and whom an error has to name."""

from __future__ import annotations

from collections.abc import Callable

from mpc.errors import IntegrityError, MpcError, PeerError, SessionError
from parties.party import agreement
from parties.party.evaluating import failed_check
from parties.party.life import SessionFacts, SessionLife
from parties.party.runs import Runs


class Silence:
    """Those who keep one session waiting.

    Args:
        preparing: is a run being prepared right now?
    """

    def __init__(self, facts: SessionFacts, life: SessionLife, runs: Runs, preparing: Callable[[], bool]) -> None:
        self._plan, self._coordinator, self._deadlines = facts.plan, facts.coordinator, facts.config.deadlines
        self._life, self._runs, self._preparing = life, runs, preparing

    def overdue(self, now: float) -> MpcError | None:
        """Return the error that ends the session, if somebody has been silent for too long."""
        with self._life.lock:
            for run in self._runs.kept.values():
                if run.entering and now - (run.entry.asked_at or now) > self._deadlines.submit:
                    return run.overdue()
            silent = now - self._life.renewed_at > self._deadlines.grace
            if self._life.state == "open" and silent and not self._awaited(now):
                return SessionError(
                    f"{self._coordinator}, who coordinates the session, is gone",
                    cause=f"there was no sign of its life for {self._deadlines.grace:g} s (deadlines.grace)",
                    remedy="start a new session",
                    peer=self._coordinator,
                )
            running = any(run.entry.asked_at and not run.done.is_set() for run in self._runs.kept.values())
            if not running and now - self._life.used_at > self._deadlines.idle:
                return SessionError("the session was idle for too long")
            return None

    def _awaited(self, now: float) -> bool:
        """Does anybody but the coordinator still wait for something that may come?  With the lock."""
        if self._preparing():
            return True
        for run in self._runs.kept.values():
            if run.entry.asked_at and not run.done.is_set() and set(run.entering) != {self._coordinator}:
                return True
            others = run.unheard - {self._coordinator}
            if run.revealed and others and now - run.ended_at < self._deadlines.submit:
                return True
        return False

    def _has_computed(self) -> bool:
        """Has a run begun?  One that has passed here may have failed elsewhere: a cheater tells each what it likes."""
        return any(run.started for run in self._runs.kept.values())

    def first_hand(self, error: MpcError) -> MpcError:
        """Prefer own evidence: if this party misses that peer's input too, it says so and does not repeat the abort."""
        if error.code == IntegrityError.code and error.peer in self._plan.owners and error.heard_from:
            return agreement.differing([error.peer], self._plan.is_checked)
        unnamed = error.heard_from is not None and error.peer == error.heard_from
        if unnamed and error.code == IntegrityError.code and self._plan.is_checked and self._has_computed():
            return failed_check()
        late = [run for run in self._runs.kept.values() if run.entry.asked_at and error.peer in run.entering]
        return late[0].overdue() if late and error.code == PeerError.code else error
