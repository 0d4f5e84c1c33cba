"""Runs that are burnt ahead of their turn, in one write with a run before them, while their session is open.

On the disk they are burnt, and a crash loses them.  In memory stands which of them have yet to come: their own steps up
to `burnt` are done already, and write nothing, once.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict

from parties.party.ledger.states import RunState


class BurntAhead:
    """Guarded by the ledger's lock: the write that burns, and `written` or `failed`, are under it together."""

    def __init__(self) -> None:
        self._waiting: defaultdict[bytes, set[int]] = defaultdict(set)
        self._untouched: defaultdict[bytes, set[int]] = defaultdict(set)
        self._pending: list[tuple[bytes, dict[int, bool]]] = []

    def burn(self, database: sqlite3.Connection, session_id: bytes, runs: range) -> None:
        """Burn those of these runs of which the ledger knows nothing yet, or that they are dealt."""
        between = (session_id.hex(), runs.start, runs.stop)
        query = "SELECT run, state FROM runs WHERE session_id = ? AND run >= ? AND run < ?"
        known: dict[int, str] = dict(database.execute(query, between).fetchall())
        burnt = {run: run not in known for run in runs if known.get(run, RunState.DEALT) == RunState.DEALT}
        database.executemany(
            "INSERT INTO runs VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET state = excluded.state",
            [(session_id.hex(), run, RunState.BURNT) for run in burnt],
        )
        self._pending.append((session_id, burnt))

    def written(self) -> None:
        """Note that what was burnt since the last write is on the disk."""
        for session_id, burnt in self._pending:
            self._waiting[session_id].update(burnt)
            self._untouched[session_id].update(run for run, new in burnt.items() if new)
        self._pending.clear()

    def failed(self) -> None:
        """Note that it is not."""
        self._pending.clear()

    def pass_by(self, session_id: bytes, run: int, state: RunState) -> bool:
        """Tell whether this step of a run was done with one before it; `burnt` is done once."""
        if run not in self._waiting.get(session_id, ()) or state not in (RunState.DEALT, RunState.BURNT):
            return False
        self._untouched[session_id].discard(run)
        if state is RunState.BURNT:
            self._waiting[session_id].discard(run)
        return True

    def untouched(self, session_id: bytes) -> int:
        """Count the runs of an open session that nobody came to, though they are burnt."""
        return len(self._untouched.get(session_id, ()))

    def end(self, database: sqlite3.Connection, session_id: bytes) -> None:
        """Forget a session that ends; runs that it never came to leave no row."""
        self._waiting.pop(session_id, None)
        unused = [(session_id.hex(), run) for run in self._untouched.pop(session_id, ())]
        database.executemany("DELETE FROM runs WHERE session_id = ? AND run = ?", unused)
