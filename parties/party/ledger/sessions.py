"""Write down what a party must never forget: session ids it has seen and correlations it has consumed.

Whatever was in flight when a process died is burnt at the next start: a crash costs correlations,
it never reuses one.  `file` has what it is written in.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

from mpc.errors import LocalProtocolError, ReuseError, SessionError
from parties.party.ledger.burning import BurntAhead, refused
from parties.party.ledger.file import LedgerFile
from parties.party.ledger.states import (
    CONSUMED,
    DURABLE,
    FINAL,
    TRANSITIONS,
    UNWRITTEN,
    RunState,
    SessionRecord,
    SessionState,
)

SESSION_ID_BYTES = 32
MAX_RUN = (1 << 63) - 1
_REASON = re.compile(r"[a-z][a-z0-9_]{0,31}")


def _no(database: sqlite3.Connection) -> None:
    """Do nothing else."""


class Ledger(LedgerFile):
    """Sessions and runs.  Thread-safe; one per data directory.  Every method raises ConfigError when the disk fails."""

    def __init__(
        self, folder: Path, connection: sqlite3.Connection, lock_file: int, clock: Callable[[], float]
    ) -> None:
        super().__init__(folder, connection, lock_file, clock)
        self._ahead = BurntAhead()
        # States of runs of open sessions, from `burnt` until they are told: what is in between is not written.
        self._underway: dict[tuple[bytes, int], RunState] = {}
        self._taken: tuple[tuple[bytes, int], RunState] | None = None

    def _burn_open(self, database: sqlite3.Connection) -> None:
        database.execute(
            "UPDATE sessions SET state = ?, reason = 'restart' WHERE state = ?",
            (SessionState.BURNT, SessionState.OPEN),
        )

    def _written(self) -> None:
        self._ahead.written()
        if self._taken is not None:
            self._note(*self._taken)
        self._taken = None

    def _failed(self) -> None:
        self._ahead.failed()
        self._taken = None

    def _note(self, key: tuple[bytes, int], state: RunState) -> None:
        """Note the step that a run of an open session has taken; with the lock."""
        self._underway.pop(key, None)
        if state in (RunState.BURNT, *UNWRITTEN):
            self._underway[key] = state

    def open_session(
        self, session_id: bytes, plan_digest: bytes, coordinator: str, also: Callable[[sqlite3.Connection], None] = _no
    ) -> None:
        """Record a new session, durably; SessionError if its id is malformed or was ever seen.

        also: done in the same transaction.
        """
        with self._writing(durable=True) as database:
            self._insert(database, session_id, plan_digest, coordinator, SessionState.OPEN)
            also(database)
        # From here on a copy of the database without this session is recognised.

    def stock_session(self, session_id: bytes, plan_digest: bytes, coordinator: str, runs: int) -> None:
        """Record a session that is dealt ahead, runs 1 to `runs`, durably; it outlives a restart until it is opened.

        SessionError as `open_session`.
        """
        with self._writing(durable=True) as database:
            self._insert(database, session_id, plan_digest, coordinator, SessionState.STOCKED)
            rows = [(session_id.hex(), run, RunState.DEALT) for run in range(1, runs + 1)]
            database.executemany("INSERT INTO runs VALUES (?, ?, ?)", rows)

    def open_stocked(
        self, session_id: bytes, plan_digest: bytes, coordinator: str, also: Callable[[sqlite3.Connection], None] = _no
    ) -> None:
        """Open a session that was dealt ahead, once and durably: from here on a crash burns all of it.

        also: done in the same transaction.  SessionError if it was opened or dropped before, or is not this plan's and
        this coordinator's.
        """
        key = (session_id.hex(), plan_digest.hex(), coordinator, SessionState.STOCKED)
        with self._writing(durable=True) as database:
            done = database.execute(
                "UPDATE sessions SET state = ? WHERE session_id = ? AND plan_digest = ? AND coordinator = ? "
                "AND state = ?",
                (SessionState.OPEN, *key),
            )
            if done.rowcount != 1:
                state = _session_state(database, session_id)
                raise SessionError(
                    f"the correlations dealt ahead for session {session_id.hex()} are not to be used: "
                    f"this ledger has it as {state or 'unknown'}",
                    cause="they were used or given up before, and their files were put back",
                    remedy="deal others: mpc deal; never restore a party's stock from a backup",
                )
            also(database)
            self._count_up(database)

    def drop_stocked(self, session_id: bytes, coordinator: str) -> bool:
        """Give up a session that was dealt ahead and never opened, durably; False if it is no such session."""
        with self._writing(durable=True) as database:
            state = _session_state(database, session_id)
            owner = database.execute("SELECT coordinator FROM sessions WHERE session_id = ?", (session_id.hex(),))
            if state is not SessionState.STOCKED or owner.fetchone()[0] != coordinator:
                return False
            self._end(database, session_id, SessionState.CLOSED, "dropped")
            return True

    def stocked(self) -> dict[bytes, tuple[bytes, str, float]]:
        """Sessions dealt ahead and never opened, the oldest first: id -> (plan digest, coordinator, when)."""
        query = "SELECT session_id, plan_digest, coordinator, opened_at FROM sessions WHERE state = ? ORDER BY rowid"
        with self.reading() as database:
            rows = database.execute(query, (SessionState.STOCKED,)).fetchall()
        return {bytes.fromhex(row[0]): (bytes.fromhex(row[1]), row[2], row[3]) for row in rows}

    def _insert(
        self, database: sqlite3.Connection, session_id: bytes, plan: bytes, coordinator: str, state: SessionState
    ) -> None:
        if len(session_id) != SESSION_ID_BYTES:
            raise refused(f"a session id has {SESSION_ID_BYTES} bytes, not {len(session_id)}")
        if session_id.count(session_id[0]) == SESSION_ID_BYTES:
            raise refused("a session id of equal bytes was not made from nonces")
        if _session_state(database, session_id) is not None:
            raise refused(f"session {session_id.hex()} was used before; an id never runs twice")
        row = (session_id.hex(), plan.hex(), coordinator, state, self._clock())
        database.execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, NULL)", row)
        self._count_up(database)

    def close_session(self, session_id: bytes) -> None:
        """End an open session; runs it never finished are aborted.  SessionError if it is not open."""
        with self._writing() as database:
            _require_open(database, session_id)
            self._end(database, session_id, SessionState.CLOSED, None)

    def abort_session(self, session_id: bytes, code: str) -> bool:
        """End a session with an error's code; False if it had already ended (the first reason stays).

        Aborts come from several tasks at once, so only an unknown session is a SessionError.
        """
        if not _REASON.fullmatch(code):
            raise LocalProtocolError("an abort is recorded by its code: a short word in lower case, no free text")
        with self._writing() as database:
            state = _session_state(database, session_id)
            if state is None:
                raise refused(f"session {session_id.hex()} is unknown")
            if state is SessionState.OPEN:
                self._end(database, session_id, SessionState.ABORTED, code)
            return state is SessionState.OPEN

    def advance(
        self,
        session_id: bytes,
        run: int,
        state: RunState,
        also: Callable[[sqlite3.Connection], bool] | None = None,
        following: int = 0,
        is_named: bool = False,
    ) -> None:
        """Take a run to its next state; `burnt` and `revealed` are on disk before this returns.

        following: runs that are burnt in the same write: a crash burns them too, and their own steps up to `burnt`
            write nothing.
        also: done in the same transaction; if it raises, neither is done, and if it says True, a copy of the database
            from before is refused from then on.
        is_named: what was written as the run was burnt says that it may be told, so `revealed` need not be on the disk.

        ReuseError for a second burn, SessionError for every other step not in TRANSITIONS, for runs
        that do not strictly increase, and for a session that is not open.
        """
        state = RunState(state)
        if not 1 <= run <= MAX_RUN - following:
            raise refused(f"run {run} is out of range")
        with self._lock:
            if self._ahead.pass_by(session_id, run, state):
                self._note((session_id, run), state)
                return
            before = self._underway.get((session_id, run)) if state in UNWRITTEN else None
            if before is not None:  # its session is open: when it ends, none of its runs is under way
                self._require_usable()
                _require_follows(session_id, run, before, state)
                self._note((session_id, run), state)
                return
        if state in UNWRITTEN:
            with self.reading() as database:
                self._require_step(database, session_id, run, state)
                self._note((session_id, run), state)
            return
        with self._writing(durable=state in DURABLE and not is_named) as database:
            before, key = self._require_step(database, session_id, run, state), (session_id.hex(), run)
            if before is None:
                last = database.execute("SELECT max(run) FROM runs WHERE session_id = ?", key[:1]).fetchone()[0]
                if last is not None and run <= last:
                    raise refused(f"run {run} of session {session_id.hex()} comes after run {last}")
                database.execute("INSERT INTO runs VALUES (?, ?, ?)", (*key, state))
                self._ahead.deal(session_id, run)
            else:
                database.execute("UPDATE runs SET state = ? WHERE session_id = ? AND run = ?", (state, *key))
            if state is RunState.BURNT:
                self._ahead.burn(database, session_id, range(run + 1, run + 1 + following))
            if also is not None and also(database):
                self._count_up(database)
            self._taken = ((session_id, run), state)

    def _require_step(
        self, database: sqlite3.Connection, session_id: bytes, run: int, state: RunState
    ) -> RunState | None:
        """Return the state that a run is in; raise as `advance` if the next one is not `state`."""
        _require_open(database, session_id)
        before = self._underway.get((session_id, run))
        if before is None:
            key = (session_id.hex(), run)
            row = database.execute("SELECT state FROM runs WHERE session_id = ? AND run = ?", key).fetchone()
            before = RunState(row[0]) if row else None
        _require_follows(session_id, run, before, state)
        return before

    def _end(self, database: sqlite3.Connection, session_id: bytes, state: SessionState, reason: str | None) -> None:
        """End a session: runs that it never came to leave no row, those that it did not finish are aborted."""
        self._ahead.end(database, session_id)
        self._underway = {key: each for key, each in self._underway.items() if key[0] != session_id}
        _end(database, session_id, state, reason)

    def history(self, limit: int = 20) -> list[SessionRecord]:
        """The newest sessions first."""
        query = """
            SELECT session_id, plan_digest, coordinator, state, opened_at, reason,
                (SELECT count(*) FROM runs WHERE runs.session_id = sessions.session_id),
                (SELECT count(*) FROM runs WHERE runs.session_id = sessions.session_id AND runs.state = 'revealed')
            FROM sessions ORDER BY rowid DESC LIMIT ?"""
        with self.reading() as database:
            rows = database.execute(query, (max(0, limit),)).fetchall()
            ahead = {row[0]: self._ahead.untouched(bytes.fromhex(row[0])) for row in rows}
        return [
            SessionRecord(id, plan, coordinator, SessionState(state), opened_at, reason, runs - ahead[id], revealed)
            for id, plan, coordinator, state, opened_at, reason, runs, revealed in rows
        ]


def _require_follows(session_id: bytes, run: int, before: RunState | None, state: RunState) -> None:
    if state is RunState.BURNT and before in CONSUMED:
        raise ReuseError(f"the correlations of run {run}, session {session_id.hex()}, are already used")
    if state not in TRANSITIONS[before]:
        raise refused(f"run {run} of session {session_id.hex()} cannot go from {before or 'new'} to {state}")


def _session_state(database: sqlite3.Connection, session_id: bytes) -> SessionState | None:
    row = database.execute("SELECT state FROM sessions WHERE session_id = ?", (session_id.hex(),)).fetchone()
    return SessionState(row[0]) if row else None


def _require_open(database: sqlite3.Connection, session_id: bytes) -> None:
    state = _session_state(database, session_id)
    if state is not SessionState.OPEN:
        raise refused(f"session {session_id.hex()} is {state or 'unknown'}, not open")


def _end(database: sqlite3.Connection, session_id: bytes, state: SessionState, reason: str | None) -> None:
    key = session_id.hex()
    database.execute("UPDATE sessions SET state = ?, reason = ? WHERE session_id = ?", (state, reason, key))
    database.execute(
        "UPDATE runs SET state = ? WHERE session_id = ? AND state NOT IN (?, ?, ?)", (RunState.ABORTED, key, *FINAL)
    )
