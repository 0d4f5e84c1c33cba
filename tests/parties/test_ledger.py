"""The ledger: tests 6, 16, 17, 18, 19 and 25 of security.md, as far as one party's disk goes."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from mpc.errors import ConfigError, LocalProtocolError, MpcError, ReuseError, SessionError
from parties.database import transaction
from parties.party.ledger import file as module
from parties.party.ledger.sessions import Ledger
from parties.party.ledger.states import TRANSITIONS, RunState, SessionState
from tests.support.databases import refusing

REPOSITORY = Path(__file__).parents[2]
PLAN = bytes(range(32))
PATH = [RunState.DEALT, RunState.BURNT, RunState.OPENED, RunState.CHECKED, RunState.REVEALED]


def session(number: int) -> bytes:
    return b"session-" + number.to_bytes(24, "big")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "data", clock=lambda: 1000.5) as opened:
        yield opened


def restarted(ledger: Ledger, folder: Path) -> Ledger:
    ledger.close()
    return Ledger.open(folder)


def test_a_whole_session_and_its_history(ledger: Ledger) -> None:
    ledger.open_session(session(1), PLAN, "analyst")
    for run in (1, 2):
        for state in PATH:
            ledger.advance(session(1), run, state)
    ledger.advance(session(1), 7, RunState.DEALT)
    ledger.close_session(session(1))
    ledger.open_session(session(2), PLAN, "other")
    newest, oldest = ledger.history(10)
    assert (newest.state, newest.coordinator, newest.runs) == (SessionState.OPEN, "other", 0)
    assert (oldest.session_id, oldest.plan_digest) == (session(1).hex(), PLAN.hex())
    assert (oldest.state, oldest.reason, oldest.opened_at) == (SessionState.CLOSED, None, 1000.5)
    assert (oldest.runs, oldest.revealed) == (3, 2)
    assert ledger.history(1) == [newest]


@pytest.mark.parametrize(
    "session_id", [bytes(32), b"\xff" * 32, b"\x07" * 32, b"", b"short", session(1)[:-1], session(1) + b"x"]
)
def test_malformed_session_ids_are_refused(ledger: Ledger, session_id: bytes) -> None:
    with pytest.raises(SessionError):
        ledger.open_session(session_id, PLAN, "analyst")
    assert ledger.history() == []


@pytest.mark.parametrize("ending", ["none", "close", "abort", "restart"])
def test_a_session_id_never_runs_twice(ledger: Ledger, tmp_path: Path, ending: str) -> None:
    ledger.open_session(session(1), PLAN, "analyst")
    if ending == "close":
        ledger.close_session(session(1))
    elif ending == "abort":
        ledger.abort_session(session(1), "deadline")
    elif ending == "restart":
        ledger = restarted(ledger, tmp_path / "data")
    with pytest.raises(SessionError, match="used before"):
        ledger.open_session(session(1), PLAN, "analyst")
    ledger.close()


def test_every_pair_of_states_is_allowed_or_refused_by_the_table(ledger: Ledger) -> None:
    numbers = itertools.count()
    for before, after in itertools.product([None, *RunState], RunState):
        session_id = session(next(numbers))
        ledger.open_session(session_id, PLAN, "analyst")
        route = (
            []
            if before is None
            else [RunState.DEALT, before]
            if before is RunState.ABORTED
            else [*PATH[:-1], before]
            if before is RunState.KEPT
            else PATH[: PATH.index(before) + 1]
        )
        for state in route:
            ledger.advance(session_id, 1, state)
        if after in TRANSITIONS[before]:
            ledger.advance(session_id, 1, after)
            continue
        consumed = before in (*PATH[1:], RunState.KEPT) and after is RunState.BURNT
        with pytest.raises(ReuseError if consumed else SessionError):
            ledger.advance(session_id, 1, after)


def test_the_table_is_a_line_that_can_abort() -> None:
    """Written out, so that a change of the table is a decision."""
    for before, after in itertools.pairwise(PATH):
        told = {after, RunState.KEPT} if before is RunState.CHECKED else {after}
        assert TRANSITIONS[before] == told | {RunState.ABORTED}
    assert TRANSITIONS[None] == {RunState.DEALT}
    assert not TRANSITIONS[RunState.REVEALED] and not TRANSITIONS[RunState.KEPT]


def states(ledger: Ledger, session_id: bytes) -> dict[int, str]:
    with ledger.reading() as database:
        rows = database.execute("SELECT run, state FROM runs WHERE session_id = ?", (session_id.hex(),))
        return dict(rows.fetchall())


def test_runs_are_burnt_together_and_each_of_them_once(ledger: Ledger) -> None:
    """One write burns 32; those that nobody came to leave no row, and one that was dealt in vain is aborted."""
    ledger.open_session(session(1), PLAN, "analyst")
    ledger.advance(session(1), 1, RunState.DEALT)
    ledger.advance(session(1), 1, RunState.BURNT, following=31)
    assert states(ledger, session(1)) == dict.fromkeys(range(1, 33), "burnt")
    for state in (RunState.DEALT, RunState.BURNT):
        ledger.advance(session(1), 2, state)
    with pytest.raises(ReuseError, match="already used"):
        ledger.advance(session(1), 2, RunState.BURNT)
    for state in (RunState.OPENED, RunState.CHECKED, RunState.KEPT):
        ledger.advance(session(1), 2, state)
    ledger.advance(session(1), 3, RunState.DEALT)
    ledger.close_session(session(1))
    assert states(ledger, session(1)) == {1: "aborted", 2: "kept", 3: "aborted"}


def test_what_is_burnt_ahead_is_what_nobody_used_yet(ledger: Ledger) -> None:
    """Of runs that have begun nothing is burnt again; what was dealt keeps its row, and history counts no other."""
    ledger.open_session(session(1), PLAN, "analyst")
    for run in (1, 2, 3):
        ledger.advance(session(1), run, RunState.DEALT)
    ledger.advance(session(1), 2, RunState.BURNT)
    ledger.advance(session(1), 1, RunState.BURNT, following=4)
    assert states(ledger, session(1)) == dict.fromkeys(range(1, 6), "burnt")
    assert ledger.history()[0].runs == 3
    with pytest.raises(ReuseError, match="already used"):
        ledger.advance(session(1), 2, RunState.BURNT)
    ledger.advance(session(1), 3, RunState.BURNT)
    ledger.close_session(session(1))
    assert states(ledger, session(1)) == dict.fromkeys(range(1, 4), "aborted")


def test_a_write_that_fails_burns_nothing_ahead(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full as the window is written: no run of it counts as burnt, and each waits for its own write."""
    ledger.open_session(session(1), PLAN, "analyst")
    ledger.advance(session(1), 1, RunState.DEALT)

    @contextmanager
    def full(database: sqlite3.Connection) -> Iterator[None]:
        with transaction(database):
            yield
            raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(module, "transaction", full)
        with pytest.raises(ConfigError, match="disk is full"):
            ledger.advance(session(1), 1, RunState.BURNT, following=7)
    assert states(ledger, session(1)) == {1: "dealt"}
    ledger.advance(session(1), 2, RunState.DEALT)
    ledger.advance(session(1), 2, RunState.BURNT)
    assert states(ledger, session(1)) == {1: "dealt", 2: "burnt"}


def test_runs_that_are_burnt_ahead_are_dealt_once_and_in_their_order(ledger: Ledger) -> None:
    """Each has the steps of a run that nobody burnt ahead, refused alike; what is refused changes nothing."""
    ledger.open_session(session(1), PLAN, "analyst")
    for run in (1, 7):
        ledger.advance(session(1), run, RunState.DEALT)
    ledger.advance(session(1), 1, RunState.BURNT, following=15)
    with pytest.raises(SessionError, match="run 3 .* comes after run 7"):
        ledger.advance(session(1), 3, RunState.DEALT)
    with pytest.raises(SessionError, match="from dealt to dealt"):
        ledger.advance(session(1), 7, RunState.DEALT)
    with pytest.raises(SessionError, match="from new to burnt"):
        ledger.advance(session(1), 9, RunState.BURNT)
    ledger.advance(session(1), 9, RunState.DEALT)
    with pytest.raises(SessionError, match="from dealt to dealt"):
        ledger.advance(session(1), 9, RunState.DEALT)
    with pytest.raises(SessionError, match="run 8 .* comes after run 9"):
        ledger.advance(session(1), 8, RunState.DEALT)
    ledger.advance(session(1), 17, RunState.DEALT)  # behind the window
    with pytest.raises(SessionError, match="run 10 .* comes after run 17"):
        ledger.advance(session(1), 10, RunState.DEALT)
    for run in (7, 9, 17):
        ledger.advance(session(1), run, RunState.BURNT)
        with pytest.raises(ReuseError, match="already used"):
            ledger.advance(session(1), run, RunState.BURNT)
    ledger.close_session(session(1))
    assert states(ledger, session(1)) == dict.fromkeys((1, 7, 9, 17), "aborted")


def test_a_stock_that_is_burnt_ahead_is_dealt_already(ledger: Ledger) -> None:
    ledger.stock_session(session(1), PLAN, "analyst", 4)
    ledger.open_stocked(session(1), PLAN, "analyst")
    ledger.advance(session(1), 1, RunState.BURNT, following=3)
    with pytest.raises(SessionError, match="from dealt to dealt"):
        ledger.advance(session(1), 2, RunState.DEALT)
    ledger.advance(session(1), 2, RunState.BURNT)


@pytest.mark.parametrize("state", [RunState.DEALT, RunState.BURNT])
def test_after_a_crash_no_run_that_was_burnt_ahead_is_dealt_again(
    ledger: Ledger, tmp_path: Path, state: RunState
) -> None:
    ledger.open_session(session(1), PLAN, "analyst")
    ledger.advance(session(1), 1, RunState.DEALT)
    ledger.advance(session(1), 1, RunState.BURNT, following=3)
    ledger.advance(session(1), 2, RunState.DEALT)
    ledger = restarted(ledger, tmp_path / "data")
    for run in (2, 3):
        with pytest.raises(SessionError, match="is burnt, not open"):
            ledger.advance(session(1), run, state)
    ledger.close()


def test_a_crash_burns_all_that_were_burnt_together(ledger: Ledger, tmp_path: Path) -> None:
    ledger.open_session(session(1), PLAN, "analyst")
    ledger.advance(session(1), 1, RunState.DEALT)
    ledger.advance(session(1), 1, RunState.BURNT, following=31)
    ledger = restarted(ledger, tmp_path / "data")
    assert states(ledger, session(1)) == dict.fromkeys(range(1, 33), "burnt")
    with pytest.raises(SessionError, match="is burnt, not open"):
        ledger.advance(session(1), 2, RunState.BURNT)
    ledger.close()
    assert not TRANSITIONS[RunState.ABORTED]


def test_runs_strictly_increase(ledger: Ledger) -> None:
    ledger.open_session(session(1), PLAN, "analyst")
    ledger.open_session(session(2), PLAN, "analyst")
    ledger.advance(session(1), 5, RunState.DEALT)
    for run in (4, 0, -1, 1 << 63):
        with pytest.raises(SessionError):
            ledger.advance(session(1), run, RunState.DEALT)
    ledger.advance(session(1), 6, RunState.DEALT)
    ledger.advance(session(2), 1, RunState.DEALT)  # each session counts for itself


def test_nothing_happens_in_a_session_that_is_not_open(ledger: Ledger) -> None:
    for number, end in enumerate((ledger.close_session, lambda one: ledger.abort_session(one, "peer"))):
        ledger.open_session(session(number), PLAN, "analyst")
        ledger.advance(session(number), 1, RunState.DEALT)
        end(session(number))
        for run, state in ((1, RunState.BURNT), (2, RunState.DEALT)):
            with pytest.raises(SessionError, match="not open"):
                ledger.advance(session(number), run, state)
        with pytest.raises(SessionError):
            ledger.close_session(session(number))
    with pytest.raises(SessionError, match="unknown"):
        ledger.advance(session(9), 1, RunState.DEALT)


def test_the_first_abort_stays_and_takes_no_free_text(ledger: Ledger) -> None:
    ledger.open_session(session(1), PLAN, "analyst")
    assert ledger.abort_session(session(1), "integrity") is True
    assert ledger.abort_session(session(1), "deadline") is False
    assert (ledger.history()[0].state, ledger.history()[0].reason) == (SessionState.ABORTED, "integrity")
    for code in ("", "The value was 7", "x" * 40, "a\n"):
        with pytest.raises(LocalProtocolError):
            ledger.abort_session(session(1), code)
    with pytest.raises(SessionError):
        ledger.abort_session(session(2), "peer")


def test_a_failed_step_leaves_no_trace(ledger: Ledger) -> None:
    ledger.open_session(session(1), PLAN, "analyst")
    epoch = ledger.epoch
    with pytest.raises(SessionError):
        ledger.open_session(session(1), PLAN, "analyst")
    with pytest.raises(ValueError, match="burned"):
        ledger.advance(session(1), 1, "burned")  # type: ignore[arg-type]
    assert ledger.epoch == epoch
    assert ledger.history()[0].runs == 0


def test_a_step_that_fails_half_way_is_rolled_back(ledger: Ledger, tmp_path: Path) -> None:
    with refusing(tmp_path / "data" / "ledger.sqlite", "epoch"), pytest.raises(ConfigError, match="disk full"):
        ledger.open_session(session(1), PLAN, "analyst")
    assert ledger.history() == []
    ledger.open_session(session(1), PLAN, "analyst")


# --- concurrency ------------------------------------------------------------------------


def test_of_sixteen_threads_one_burns(ledger: Ledger) -> None:
    ledger.open_session(session(1), PLAN, "analyst")
    for run in range(1, 6):
        ledger.advance(session(1), run, RunState.DEALT)
        together, outcomes = threading.Barrier(16), []

        def burn(run: int = run, together: threading.Barrier = together, outcomes: list = outcomes) -> None:
            together.wait()
            try:
                ledger.advance(session(1), run, RunState.BURNT)
                outcomes.append("won")
            except MpcError as error:
                outcomes.append(type(error).__name__)

        threads = [threading.Thread(target=burn) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["ReuseError"] * 15 + ["won"]


def test_a_second_daemon_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"in use by another process .pid {os.getpid()}."):
        Ledger.open(tmp_path / "data")
    ledger.close()
    Ledger.open(tmp_path / "data").close()


# --- crashes ----------------------------------------------------------------------------

CRASH = """
import os, sys
from pathlib import Path
from parties.party.ledger.sessions import Ledger
session = bytes.fromhex(sys.argv[2])
ledger = Ledger.open(Path(sys.argv[1]))
ledger.open_session(session, bytes(32), "analyst")
for state in sys.argv[3].split(","):
    ledger.advance(session, 3, state)
print("there", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("reached", ["dealt", "dealt,burnt", "dealt,burnt,opened,checked,revealed"])
def test_kill_minus_nine_burns_the_session(tmp_path: Path, reached: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CRASH, str(tmp_path / "data"), session(1).hex(), reached],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    try:
        assert child.stdout.readline() == b"there\n"
        with pytest.raises(ConfigError, match="in use"):
            Ledger.open(tmp_path / "data")
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    with Ledger.open(tmp_path / "data") as ledger:
        assert (ledger.history()[0].state, ledger.history()[0].reason) == (SessionState.BURNT, "restart")
        for run, state in itertools.product((3, 4), RunState):
            with pytest.raises(SessionError, match="burnt"):
                ledger.advance(session(1), run, state)
        with pytest.raises(SessionError):
            ledger.open_session(session(1), PLAN, "analyst")
        assert ledger.abort_session(session(1), "peer") is False


def test_ended_sessions_keep_their_state_over_a_restart(ledger: Ledger, tmp_path: Path) -> None:
    for number in (1, 2):
        ledger.open_session(session(number), PLAN, "analyst")
    ledger.close_session(session(1))
    ledger.abort_session(session(2), "peer")
    with restarted(ledger, tmp_path / "data") as again:
        assert [record.state for record in again.history()] == [SessionState.ABORTED, SessionState.CLOSED]


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """The connections that ledgers make from now on; name it before `ledger`."""
    made: list[sqlite3.Connection] = []
    connect = module.connect
    monkeypatch.setattr(module, "connect", lambda path: [made.append(connect(path)), made[-1]][1])
    return made


def synced(connection: sqlite3.Connection, steps: Callable[[], None]) -> list[str]:
    """strace-free: sqlite's own setting at the moment of each commit."""
    seen: list[str] = []
    connection.set_trace_callback(seen.append)
    steps()
    connection.set_trace_callback(None)
    return [line.rpartition(" ")[2] for line in seen if "synchronous" in line]


def test_what_must_be_durable_is_synced_before_it_returns(connection: list[sqlite3.Connection], ledger: Ledger) -> None:
    def steps() -> None:
        ledger.open_session(session(1), PLAN, "analyst")
        for state in PATH:
            ledger.advance(session(1), 1, state)

    #                                             open    dealt     burnt   revealed
    assert synced(connection[0], steps) == ["FULL", "NORMAL", "FULL", "FULL"], "opened and checked are not written"
    assert connection[0].execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_what_is_told_of_a_run_that_was_named_as_it_was_burnt_waits_for_no_disk(
    connection: list[sqlite3.Connection], ledger: Ledger
) -> None:
    ledger.open_session(session(1), PLAN, "analyst")
    for state in PATH[:-1]:
        ledger.advance(session(1), 1, state)
    assert synced(connection[0], lambda: ledger.advance(session(1), 1, PATH[-1], is_named=True)) == ["NORMAL"]
    with pytest.raises(SessionError, match="from revealed to revealed"):
        ledger.advance(session(1), 1, PATH[-1], is_named=True)


def test_steps_that_are_not_written_read_nothing_and_end_with_their_session(
    connection: list[sqlite3.Connection], ledger: Ledger
) -> None:
    ledger.open_session(session(1), PLAN, "analyst")
    for run in (1, 2):
        ledger.advance(session(1), run, RunState.DEALT)
        ledger.advance(session(1), run, RunState.BURNT, following=1)
    seen: list[str] = []
    connection[0].set_trace_callback(seen.append)
    for run in (1, 2):
        ledger.advance(session(1), run, RunState.OPENED)
    ledger.advance(session(1), 1, RunState.CHECKED)
    connection[0].set_trace_callback(None)
    assert not seen
    with pytest.raises(SessionError, match="from checked to opened"):
        ledger.advance(session(1), 1, RunState.OPENED)
    with pytest.raises(ReuseError, match="already used"):
        ledger.advance(session(1), 1, RunState.BURNT)
    ledger.abort_session(session(1), "peer")
    for run in (1, 2):
        with pytest.raises(SessionError, match="not open"):
            ledger.advance(session(1), run, RunState.CHECKED)


def test_the_log_has_room_from_the_start_and_begins_again_within_it(ledger: Ledger, tmp_path: Path) -> None:
    """What is written over bytes that are there does not wait for the file system's journal."""
    log = tmp_path / "data" / "ledger.sqlite-wal"
    size = log.stat().st_size
    assert size == 1 << 20
    ledger.open_session(session(1), PLAN, "analyst")
    for run in range(1, 401):
        ledger.advance(session(1), run, RunState.DEALT)
    ledger.advance(session(1), 400, RunState.BURNT)
    assert log.stat().st_size == size
    shutil.copytree(tmp_path / "data", tmp_path / "crashed")  # as it lies on the disk, zeros and all
    for again in (Ledger.open(tmp_path / "crashed"), restarted(ledger, tmp_path / "data")):
        assert again.history()[0].state is SessionState.BURNT
        assert states(again, session(1)) == {**dict.fromkeys(range(1, 400), "dealt"), 400: "burnt"}
        again.close()


# --- sessions that were dealt ahead -------------------------------------------------------


def test_a_stock_outlives_restarts_until_it_is_opened(ledger: Ledger, tmp_path: Path) -> None:
    ledger.stock_session(session(1), PLAN, "analyst", 3)
    ledger.stock_session(session(2), PLAN, "other", 1)
    assert ledger.stocked() == {session(1): (PLAN, "analyst", 1000.5), session(2): (PLAN, "other", 1000.5)}
    for action in (
        lambda: ledger.advance(session(1), 1, RunState.BURNT),
        lambda: ledger.close_session(session(1)),
        lambda: ledger.open_session(session(1), PLAN, "analyst"),
        lambda: ledger.stock_session(session(1), PLAN, "analyst", 3),
        lambda: ledger.open_stocked(session(1), PLAN, "other"),
        lambda: ledger.open_stocked(session(1), bytes(32), "analyst"),
        lambda: ledger.open_stocked(session(3), PLAN, "analyst"),
    ):
        with pytest.raises(SessionError):
            action()
    assert ledger.abort_session(session(1), "peer") is False
    with restarted(ledger, tmp_path / "data") as again:
        assert list(again.stocked()) == [session(1), session(2)]
        again.open_stocked(session(1), PLAN, "analyst")
        assert list(again.stocked()) == [session(2)] and again.history()[1].runs == 3
        for state in PATH[1:]:
            again.advance(session(1), 2, state)
        with pytest.raises(ReuseError):
            again.advance(session(1), 2, RunState.BURNT)
        with pytest.raises(SessionError, match="has it as open"):
            again.open_stocked(session(1), PLAN, "analyst")
    with Ledger.open(tmp_path / "data") as again:
        assert again.history()[1].state == SessionState.BURNT
        with pytest.raises(SessionError, match="has it as burnt"):
            again.open_stocked(session(1), PLAN, "analyst")


def test_a_dropped_stock_is_never_opened(ledger: Ledger) -> None:
    ledger.stock_session(session(1), PLAN, "analyst", 2)
    assert not ledger.drop_stocked(session(1), "other") and not ledger.drop_stocked(session(2), "analyst")
    assert ledger.drop_stocked(session(1), "analyst") and not ledger.drop_stocked(session(1), "analyst")
    assert (ledger.history()[0].state, ledger.history()[0].reason) == (SessionState.CLOSED, "dropped")
    with pytest.raises(SessionError, match="has it as closed"):
        ledger.open_stocked(session(1), PLAN, "analyst")


def test_of_sixteen_threads_one_opens_a_stock(ledger: Ledger) -> None:
    ledger.stock_session(session(1), PLAN, "analyst", 1)
    results: list[bool] = []

    def attempt() -> None:
        try:
            ledger.open_stocked(session(1), PLAN, "analyst")
            results.append(True)
        except SessionError:
            results.append(False)

    threads = [threading.Thread(target=attempt) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 15 + [True]


def test_stocking_and_opening_are_synced_and_move_the_epoch(
    connection: list[sqlite3.Connection], ledger: Ledger
) -> None:
    counts = [ledger.epoch.counter]

    def steps() -> None:
        ledger.stock_session(session(1), PLAN, "analyst", 1)
        counts.append(ledger.epoch.counter)
        ledger.open_stocked(session(1), PLAN, "analyst")
        counts.append(ledger.epoch.counter)

    assert synced(connection[0], steps) == ["FULL", "FULL"]
    assert counts == [counts[0], counts[0] + 1, counts[0] + 2]


def test_a_backup_from_before_a_stock_was_opened_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    ledger.stock_session(session(1), PLAN, "analyst", 1)
    copy_database(tmp_path / "data", tmp_path / "backup")
    ledger.open_stocked(session(1), PLAN, "analyst")
    ledger.open_session(session(2), PLAN, "analyst")
    ledger.close()
    restore(tmp_path / "data", tmp_path / "backup")
    refuses_as_restored(tmp_path / "data")


# --- backups ----------------------------------------------------------------------------


def copy_database(folder: Path, to: Path) -> None:
    source, target = sqlite3.connect(folder / "ledger.sqlite"), sqlite3.connect(to)
    source.backup(target)
    source.close()
    target.close()


def restore(folder: Path, backup: Path) -> None:
    for old in folder.glob("ledger.sqlite*"):
        old.unlink()
    shutil.copy(backup, folder / "ledger.sqlite")


def refuses_as_restored(folder: Path) -> None:
    for _ in range(2):  # and goes on refusing
        with pytest.raises(ConfigError, match="was restored from a backup") as caught:
            Ledger.open(folder)
        assert "empty data_dir" in (caught.value.remedy or "")


def test_a_backup_from_before_a_restart_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    folder, backup = tmp_path / "data", tmp_path / "backup"
    restarted(ledger, folder).close()
    copy_database(folder, backup)
    Ledger.open(folder).close()
    restore(folder, backup)
    refuses_as_restored(folder)


def test_a_backup_taken_while_running_is_refused_once_a_session_followed(ledger: Ledger, tmp_path: Path) -> None:
    folder, backup = tmp_path / "data", tmp_path / "backup"
    copy_database(folder, backup)
    ledger.open_session(session(1), PLAN, "analyst")
    ledger.close()
    restore(folder, backup)
    refuses_as_restored(folder)


def test_a_backup_from_within_a_session_burns_it(ledger: Ledger, tmp_path: Path) -> None:
    folder, backup = tmp_path / "data", tmp_path / "backup"
    ledger.open_session(session(1), PLAN, "analyst")
    copy_database(folder, backup)
    ledger.advance(session(1), 1, RunState.DEALT)
    ledger.advance(session(1), 1, RunState.BURNT)
    ledger.close()
    restore(folder, backup)
    with Ledger.open(folder) as again, pytest.raises(SessionError, match="burnt"):
        again.advance(session(1), 1, RunState.DEALT)


def test_a_lost_database_and_a_foreign_or_damaged_epoch_are_refused(ledger: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    ledger.open_session(session(1), PLAN, "analyst")
    ledger.close()
    epoch = (folder / "epoch").read_text()
    number, counter = epoch.split()
    for wrong in (
        f"{'0' * 32} {counter}",
        f"{number} {int(counter) + 1}",
        f"{number} 0",
        "",
        "x",
        f"{number} y",
        "\xff",
    ):
        (folder / "epoch").write_text(wrong)
        refuses_as_restored(folder)
    (folder / "epoch").unlink()
    refuses_as_restored(folder)
    (folder / "epoch").write_text(epoch)
    Ledger.open(folder).close()
    (folder / "ledger.sqlite").unlink()
    refuses_as_restored(folder)
    with pytest.raises(ConfigError, match="the database is gone"):
        Ledger.open(folder)


@pytest.mark.parametrize("first_start", [True, False])
def test_a_crash_between_database_and_epoch_file_is_no_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_start: bool
) -> None:
    folder = tmp_path / "data"
    if not first_start:
        Ledger.open(folder).close()

    def dies(*_: object) -> None:
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomic", dies)
        with pytest.raises(ConfigError, match="power cut"):
            Ledger.open(folder)
    with Ledger.open(folder) as again:
        assert again.epoch.counter == (2 if first_start else 3)


def failing_epoch(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The file beside the database cannot be written; the database can."""

    def full(path: Path, *_: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(module, "write_atomic", full)
    return monkeypatch


@pytest.mark.parametrize("failures", [1, 2, 5])
@pytest.mark.parametrize("restarts", [False, True])
def test_a_full_disk_makes_no_healthy_ledger_refuse_itself(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int, restarts: bool
) -> None:
    """However often the epoch's file cannot be written: once there is room again, the ledger opens and goes on."""
    folder = tmp_path / "data"
    if restarts:
        ledger.close()
    with monkeypatch.context() as patch:
        failing_epoch(patch)
        for number in range(failures):
            with pytest.raises(ConfigError, match="No space left"):
                if restarts:
                    Ledger.open(folder)
                else:
                    ledger.open_session(session(number), PLAN, "analyst")
    if not restarts:
        ledger.open_session(session(98), PLAN, "analyst")
        ledger.close_session(session(98))
        ledger.close()
    with Ledger.open(folder) as again:
        again.open_session(session(99), PLAN, "analyst")
        assert (folder / "epoch").read_text() == f"{again.epoch.id} {again.epoch.counter}\n"


def test_a_very_first_start_on_a_full_disk_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        failing_epoch(patch)
        for _ in range(3):
            with pytest.raises(ConfigError, match="No space left"):
                Ledger.open(tmp_path / "data")
    Ledger.open(tmp_path / "data").close()


def test_a_run_whose_epoch_file_fails_is_revealed_and_charged_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database has `revealed` and the charge already: whoever tries again is refused, and charged nothing."""
    charges: list[int] = []

    def charge(database: sqlite3.Connection) -> bool:
        charges.append(1)
        return True

    ledger.open_session(session(1), PLAN, "analyst")
    for state in PATH[:-1]:
        ledger.advance(session(1), 1, state)
    with monkeypatch.context() as patch:
        failing_epoch(patch)
        with pytest.raises(ConfigError, match="No space left"):
            ledger.advance(session(1), 1, RunState.REVEALED, charge)
    for _ in range(2):
        with pytest.raises(SessionError, match="from revealed to revealed"):
            ledger.advance(session(1), 1, RunState.REVEALED, charge)
    assert len(charges) == 1 and ledger.history()[0].revealed == 1


@pytest.mark.parametrize("failures", [0, 1, 3])
def test_a_backup_is_refused_whatever_the_disk_did_meanwhile(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """18: a database that does not know a session which was opened is refused, with failed writes before and after."""
    folder = tmp_path / "data"
    with monkeypatch.context() as patch:
        failing_epoch(patch)
        for number in range(failures):
            with pytest.raises(ConfigError, match="No space left"):
                ledger.open_session(session(number), PLAN, "analyst")
    copy_database(folder, tmp_path / "backup")
    ledger.open_session(session(50), PLAN, "analyst")
    with monkeypatch.context() as patch:
        failing_epoch(patch)
        for number in range(failures):
            with pytest.raises(ConfigError, match="No space left"):
                ledger.open_session(session(60 + number), PLAN, "analyst")
    ledger.close()
    restore(folder, tmp_path / "backup")
    refuses_as_restored(folder)


def test_an_open_ledger_tells_no_path(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its errors travel to clients."""
    failing_epoch(monkeypatch)
    with pytest.raises(ConfigError, match="No space left") as caught:
        ledger.open_session(session(1), PLAN, "analyst")
    assert str(tmp_path) not in str(caught.value)


def test_the_epoch_counts_openings_of_ledger_and_sessions(ledger: Ledger, tmp_path: Path) -> None:
    first = ledger.epoch
    ledger.open_session(session(1), PLAN, "analyst")
    ledger.close_session(session(1))
    with restarted(ledger, tmp_path / "data") as again:
        assert (again.epoch.id, again.epoch.counter) == (first.id, first.counter + 2)


# --- the disk ---------------------------------------------------------------------------


def test_every_file_is_the_owners_alone(ledger: Ledger, tmp_path: Path) -> None:
    ledger.open_session(session(1), PLAN, "analyst")
    files = list((tmp_path / "data").iterdir())
    assert {file.name for file in files} >= {"ledger.sqlite", "ledger.sqlite-wal", "epoch", "ledger.lock"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_a_damaged_or_newer_file_is_a_config_error(ledger: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    ledger.close()
    database = sqlite3.connect(folder / "ledger.sqlite")
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(ConfigError, match="version 99"):
        Ledger.open(folder)
    (folder / "ledger.sqlite").write_bytes(b"not a database" * 1000)
    with pytest.raises(ConfigError, match="cannot be used"):
        Ledger.open(folder)


def test_a_folder_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError):
        Ledger.open(tmp_path / "file")


def test_a_closed_ledger_says_so(ledger: Ledger) -> None:
    ledger.close()
    ledger.close()
    with pytest.raises(LocalProtocolError, match="closed"):
        ledger.history()
    with pytest.raises(LocalProtocolError, match="closed"):
        ledger.open_session(session(1), PLAN, "analyst")


def test_a_ledger_says_whether_its_disk_takes_what_is_written(ledger: Ledger, tmp_path: Path) -> None:
    before = ledger.epoch
    ledger.check_writable()
    assert ledger.epoch == before  # what was there is written again, and nothing else
    with refusing(tmp_path / "data" / "ledger.sqlite", "epoch"), pytest.raises(ConfigError):
        ledger.check_writable()
    ledger.check_writable()


def test_those_whose_tables_lie_in_the_same_file_write_all_or_nothing(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "data") as ledger:
        for fails in (False, True):
            with pytest.raises(ValueError) if fails else nullcontext(), ledger.writing() as database:
                database.execute("INSERT INTO data_clock VALUES (?)", (1.0 + fails,))
                if fails:
                    raise ValueError
        with ledger.reading() as database:
            assert database.execute("SELECT latest FROM data_clock").fetchall() == [(1.0,)]
        before = ledger.epoch.counter
        with ledger.writing(counted=True) as database:
            database.execute("DELETE FROM data_clock")
        assert ledger.epoch.counter == before + 1
        assert (tmp_path / "data" / "epoch").read_text() == f"{ledger.epoch.id} {before + 1}\n"
        assert (tmp_path / "data" / "ledger.sqlite-wal").stat().st_size > 0
        ledger.forget_deleted()
        assert (tmp_path / "data" / "ledger.sqlite-wal").stat().st_size == 0
    for use in (ledger.reading, ledger.writing):
        with pytest.raises(LocalProtocolError, match="closed"), use():
            pass
