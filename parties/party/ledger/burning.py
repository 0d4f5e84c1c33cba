"""Runs that are burnt ahead of their turn, in one write with a run before them, while their session is open.

On the disk they are burnt, and a crash loses them.  In memory stands which of them have yet to come: their own steps up
to `burnt` are done already, and write nothing.  Each step is taken once and in its order, as on the disk.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from mpc.errors import SessionError
from parties.party.ledger.states import RunState


@dataclass
class _Ahead:
    """The runs of one session that were burnt ahead.

    Args:
        dealt: run -> whether it is dealt; a run goes when its own step to `burnt` is taken.
        newest: the last run that was dealt; no later step deals one before it.
    """

    dealt: dict[int, bool] = field(default_factory=dict)
    newest: int = 0


class BurntAhead:
    """Guarded by the ledger's lock: the write that burns, and `written` or `failed`, are under it together."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, _Ahead] = {}
        self._pending: list[tuple[bytes, _Ahead]] = []

    def burn(self, database: sqlite3.Connection, session_id: bytes, runs: range) -> None:
        """Burn those of these runs of which the ledger knows nothing yet, or that they are dealt."""
        between = (session_id.hex(), runs.start, runs.stop)
        query = "SELECT run, state FROM runs WHERE session_id = ? AND run >= ? AND run < ?"
        known: dict[int, str] = dict(database.execute(query, between).fetchall())
        newest = self._newest(database, session_id)
        burnt = {run: run in known for run in runs if known.get(run, RunState.DEALT) == RunState.DEALT}
        database.executemany(
            "INSERT INTO runs VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET state = excluded.state",
            [(session_id.hex(), run, RunState.BURNT) for run in burnt],
        )
        self._pending.append((session_id, _Ahead(burnt, newest)))

    def _newest(self, database: sqlite3.Connection, session_id: bytes) -> int:
        """Return the last run that was dealt, whatever became of it."""
        untouched = {*self._untouched(session_id)}
        query = "SELECT run FROM runs WHERE session_id = ? ORDER BY run DESC LIMIT ?"
        runs: list[tuple[int]] = database.execute(query, (session_id.hex(), len(untouched) + 1)).fetchall()
        return next(run for (run,) in runs if run not in untouched)

    def deal(self, session_id: bytes, run: int) -> None:
        """Note that a run was dealt that nobody burnt ahead."""
        if session_id in self._sessions:
            self._pending.append((session_id, _Ahead(newest=run)))

    def written(self) -> None:
        """Note that what was burnt and dealt since the last write is on the disk."""
        for session_id, more in self._pending:
            ahead = self._sessions.setdefault(session_id, _Ahead())
            ahead.dealt.update(more.dealt)
            ahead.newest = max(ahead.newest, more.newest)
        self._pending.clear()

    def failed(self) -> None:
        """Note that it is not."""
        self._pending.clear()

    def pass_by(self, session_id: bytes, run: int, state: RunState) -> bool:
        """Tell whether this step of a run was done with one before it.

        Raises:
            SessionError: a run is dealt a second time or after a later one, or is burnt before it is dealt.
        """
        ahead = self._sessions.get(session_id)
        if ahead is None or run not in ahead.dealt or state not in (RunState.DEALT, RunState.BURNT):
            return False
        if state is RunState.DEALT:
            if ahead.dealt[run]:
                raise refused(f"run {run} of session {session_id.hex()} cannot go from dealt to dealt")
            if run <= ahead.newest:
                raise refused(f"run {run} of session {session_id.hex()} comes after run {ahead.newest}")
            ahead.dealt[run], ahead.newest = True, run
            return True
        if not ahead.dealt[run]:
            raise refused(f"run {run} of session {session_id.hex()} cannot go from new to burnt")
        del ahead.dealt[run]
        return True

    def untouched(self, session_id: bytes) -> int:
        """Count the runs of an open session that nobody came to, though they are burnt."""
        return len(self._untouched(session_id))

    def _untouched(self, session_id: bytes) -> list[int]:
        ahead = self._sessions.get(session_id)
        return [] if ahead is None else [run for run, dealt in ahead.dealt.items() if not dealt]

    def end(self, database: sqlite3.Connection, session_id: bytes) -> None:
        """Forget a session that ends; runs that it never came to leave no row."""
        unused = [(session_id.hex(), run) for run in self._untouched(session_id)]
        self._sessions.pop(session_id, None)
        database.executemany("DELETE FROM runs WHERE session_id = ? AND run = ?", unused)


def refused(what: str) -> SessionError:
    """Make the error of a step that the ledger does not take."""
    return SessionError(what, remedy="start a new session; it gets a new id and new correlations")
