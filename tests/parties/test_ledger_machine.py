"""The ledger under any order of calls, kills and restored copies: no run is burnt twice, whatever happens."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mpc.errors import ConfigError, MpcError, ReuseError, SessionError
from parties.party.ledger.schema import DATABASE
from parties.party.ledger.sessions import Ledger
from parties.party.ledger.states import CONSUMED, FINAL, TRANSITIONS, RunState, SessionState
from tests.support.databases import refusing
from tests.support.effort import examples

PLAN = bytes(range(32))
SESSIONS, RUNS, FOLLOWING = st.integers(1, 6), st.integers(1, 4), st.integers(0, 3)
STOCKED_RUNS = 2

Runs = dict[tuple[int, int], RunState]
States = dict[int, SessionState]


def session(number: int) -> bytes:
    return b"session-" + number.to_bytes(24, "big")


class Ledgers(RuleBasedStateMachine):
    """A ledger beside a model of it: dictionaries, and the set of all runs that were ever burnt."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="mpc-ledger-"))
        self.folders = 0
        self.folder = self.root / "0"
        self.sessions: States = {}
        self.runs: Runs = {}
        self.burnt: set[tuple[int, int]] = set()
        self.ahead: set[tuple[int, int]] = set()
        """Runs that were burnt with one before them, and have yet to come; all of it is gone with the process."""
        self.untouched: set[tuple[int, int]] = set()
        """Those of them that the ledger knew nothing of, and nobody came to."""
        self.copies: list[tuple[int, States, Runs]] = []
        self.openings = 0
        """How often the ledger or a session was opened, or one was stocked: a copy from before the last time is old."""
        self.windows = 0
        self.ledger = Ledger.open(self.folder)

    def teardown(self) -> None:
        self.ledger.close()
        shutil.rmtree(self.root)

    # -- what a party does

    @rule(number=SESSIONS)
    def open_session(self, number: int) -> None:
        self._begin(number, SessionState.OPEN, lambda: self.ledger.open_session(session(number), PLAN, "analyst"))

    @rule(number=SESSIONS)
    def stock(self, number: int) -> None:
        new = number not in self.sessions
        self._begin(
            number,
            SessionState.STOCKED,
            lambda: self.ledger.stock_session(session(number), PLAN, "analyst", STOCKED_RUNS),
        )
        if new:
            self.runs |= {(number, run): RunState.DEALT for run in range(1, STOCKED_RUNS + 1)}

    @rule(number=SESSIONS)
    def open_stocked(self, number: int) -> None:
        if self.sessions.get(number) is SessionState.STOCKED:
            self.ledger.open_stocked(session(number), PLAN, "analyst")
            self.sessions[number] = SessionState.OPEN
            self.openings += 1
        else:
            with pytest.raises(SessionError):
                self.ledger.open_stocked(session(number), PLAN, "analyst")

    @rule(number=SESSIONS)
    def drop(self, number: int) -> None:
        known = self.sessions.get(number) is SessionState.STOCKED
        assert self.ledger.drop_stocked(session(number), "analyst") is known
        if known:
            self._end(number, SessionState.CLOSED)

    @rule(number=SESSIONS, run=RUNS, state=st.sampled_from(RunState), following=FOLLOWING)
    def advance(self, number: int, run: int, state: RunState, following: int) -> None:
        if (number, run) in self.ahead and state in (RunState.DEALT, RunState.BURNT):
            self._come_to(number, run, state)
            return
        before = self.runs.get((number, run))
        late = before is None and any(run <= other for known, other in self.runs if known == number)
        allowed = self.sessions.get(number) is SessionState.OPEN and state in TRANSITIONS[before] and not late
        if not allowed:
            reused = self.sessions.get(number) is SessionState.OPEN and state is RunState.BURNT and before in CONSUMED
            with pytest.raises(ReuseError if reused else MpcError):
                self.ledger.advance(session(number), run, state)
            return
        if state in (RunState.DEALT, RunState.BURNT):
            assert (number, run) not in self.burnt
        if state is RunState.BURNT and following and self._disk_is_full(number, run, following):
            return
        self.ledger.advance(session(number), run, state, following=following if state is RunState.BURNT else 0)
        self.runs[number, run] = state
        if state is RunState.BURNT:
            self.burnt.add((number, run))
            self._burn_ahead(number, range(run + 1, run + 1 + following))

    def _come_to(self, number: int, run: int, state: RunState) -> None:
        """A run that was burnt ahead comes in its turn: it is dealt once, and then burnt in name, once."""
        dealt = [other for known, other in self.runs if known == number and (known, other) not in self.untouched]
        new = (number, run) in self.untouched
        if new is (state is RunState.BURNT) or (new and run <= max(dealt)):
            with pytest.raises(SessionError):
                self.ledger.advance(session(number), run, state)
            return
        self.ledger.advance(session(number), run, state)
        self.untouched.discard((number, run))
        if state is RunState.BURNT:
            assert (number, run) not in self.burnt
            self.burnt.add((number, run))
            self.ahead.discard((number, run))

    def _burn_ahead(self, number: int, runs: range) -> None:
        for key in [(number, run) for run in runs if self.runs.get((number, run)) in (None, RunState.DEALT)]:
            if key not in self.runs:
                self.untouched.add(key)
            self.ahead.add(key)
            self.runs[key] = RunState.BURNT

    def _disk_is_full(self, number: int, run: int, following: int) -> bool:
        """Now and then a window is not written: nothing of it is burnt then, on the disk or in memory."""
        self.windows += 1
        if self.windows % 3:
            return False
        with refusing(self.folder / DATABASE, "runs"), pytest.raises(ConfigError, match="disk full"):
            self.ledger.advance(session(number), run, RunState.BURNT, following=following)
        return True

    @precondition(lambda self: SessionState.OPEN in self.sessions.values())
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        """A step that is allowed: chance alone seldom takes a run to its end."""
        number = data.draw(st.sampled_from([n for n, state in self.sessions.items() if state is SessionState.OPEN]))
        last = max((run for known, run in self.runs if known == number), default=0)
        run = data.draw(st.integers(1, last + 1))
        before = RunState.DEALT if (number, run) in self.ahead else self.runs.get((number, run))
        following = sorted(TRANSITIONS[before])
        if following:
            self.advance(number, run, data.draw(st.sampled_from(following)), data.draw(FOLLOWING))

    @rule(number=SESSIONS)
    def close_session(self, number: int) -> None:
        if self.sessions.get(number) is SessionState.OPEN:
            self.ledger.close_session(session(number))
            self._end(number, SessionState.CLOSED)
        else:
            with pytest.raises(SessionError):
                self.ledger.close_session(session(number))

    @rule(number=SESSIONS)
    def abort_session(self, number: int) -> None:
        if number not in self.sessions:
            with pytest.raises(SessionError):
                self.ledger.abort_session(session(number), "peer")
            return
        is_open = self.sessions[number] is SessionState.OPEN
        assert self.ledger.abort_session(session(number), "peer") is is_open
        if is_open:
            self._end(number, SessionState.ABORTED)

    # -- what happens to a party

    @rule()
    def restart(self) -> None:
        self.ledger.close()
        self._open()

    @rule()
    def kill(self) -> None:
        """What is on the disk now, and nothing that closing would still write, is opened by the next process."""
        self.folders += 1
        left, self.folder = self.folder, self.root / str(self.folders)
        self.folder.mkdir()
        for name in (DATABASE, f"{DATABASE}-wal", "epoch"):
            shutil.copy(left / name, self.folder / name)
        self.ledger.close()
        self._open()

    @rule()
    def copy(self) -> None:
        """Somebody backs up the database while it is in use."""
        target = sqlite3.connect(self.root / f"copy-{len(self.copies)}")
        source = sqlite3.connect(self.folder / DATABASE)
        source.backup(target)
        source.close()
        target.close()
        self.copies.append((self.openings, dict(self.sessions), dict(self.runs)))

    @rule(number=SESSIONS, stocked=st.booleans())
    def forget(self, number: int, stocked: bool) -> None:
        """One session more, and back to the moment before it: chance alone seldom does that."""
        self.copy()
        (self.stock if stocked else self.open_session)(number)
        self._restore(len(self.copies) - 1)

    @precondition(lambda self: self.copies)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        self._restore(data.draw(st.integers(0, len(self.copies) - 1)))

    def _restore(self, number: int) -> None:
        """The party is stopped, and a copy put in the database's place: refused, but for the moment's own."""
        openings, sessions, runs = self.copies[number]
        self.ledger.close()
        path, kept = self.folder / DATABASE, self.root / "kept"
        shutil.move(path, kept)
        assert not path.with_name(f"{DATABASE}-wal").exists()  # what is closed is one file
        shutil.copy(self.root / f"copy-{number}", path)
        if openings == self.openings:  # no session and no ledger was opened since, so what is open there is burnt
            self.sessions, self.runs = dict(sessions), dict(runs)
        else:
            with pytest.raises(ConfigError, match="restored from a backup"):
                Ledger.open(self.folder)
            for left in self.folder.glob(f"{DATABASE}*"):
                left.unlink()
            shutil.move(kept, path)
        self._open()

    # -- what is always so

    @invariant()
    def sessions_are_as_the_model_has_them(self) -> None:
        found = {record.session_id: record for record in self.ledger.history(100)}
        assert {session(number).hex(): state for number, state in self.sessions.items()} == {
            key: record.state for key, record in found.items()
        }
        stocked = {session(number) for number, state in self.sessions.items() if state is SessionState.STOCKED}
        assert self.ledger.stocked().keys() == stocked
        for number in self.sessions:
            mine = [state for key, state in self.runs.items() if key[0] == number and key not in self.untouched]
            record = found[session(number).hex()]
            assert (record.runs, record.revealed) == (len(mine), mine.count(RunState.REVEALED))

    @invariant()
    def what_was_burnt_is_never_fresh(self) -> None:
        for number, run in self.burnt:
            if self.sessions.get(number) in (SessionState.OPEN, SessionState.STOCKED):
                assert self.runs[number, run] not in (None, RunState.DEALT)

    # -- the model

    def _begin(self, number: int, state: SessionState, call: Callable[[], None]) -> None:
        if number in self.sessions:
            with pytest.raises(SessionError, match="used before"):
                call()
            return
        call()
        self.sessions[number] = state
        self.openings += 1

    def _end(self, number: int, state: SessionState) -> None:
        self.sessions[number] = state
        for key in [key for key in self.untouched if key[0] == number]:
            del self.runs[key]
        self._forget(number)
        for key, run in self.runs.items():
            if key[0] == number and run not in FINAL:
                self.runs[key] = RunState.ABORTED

    def _forget(self, *numbers: int) -> None:
        for kept in (self.ahead, self.untouched):
            kept -= {key for key in kept if key[0] in numbers}

    def _open(self) -> None:
        self.ledger = Ledger.open(self.folder)
        self.openings += 1
        self._forget(*self.sessions)
        for number, state in self.sessions.items():
            if state is SessionState.OPEN:
                self.sessions[number] = SessionState.BURNT


Ledgers.TestCase.settings = settings(examples(8), stateful_step_count=30, deadline=None)
TestLedgers = Ledgers.TestCase
