"""The list of the runs in which a client has entered something."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mpc.entry import EntryId
from mpc.errors import ConfigError, IntegrityError
from parties.client.running import entered
from parties.client.running.entered import EnteredRuns

ONE, OTHER = b"1" * 32, b"2" * 32
ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import os, pathlib, signal, sys
from mpc.entry import EntryId
from mpc.errors import IntegrityError
from parties.client.running.entered import EnteredRuns
runs, won = EnteredRuns(pathlib.Path(sys.argv[1])), []
for run in range(int(sys.argv[2])):
    try:
        runs.claim(b"1" * 32, EntryId(run))
        won.append(str(run))
    except IntegrityError:
        pass
print(" ".join(won), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "me.entered.sqlite"


def rows(path: Path) -> list[tuple]:
    with sqlite3.connect(path) as database:
        return database.execute("SELECT session, first, last FROM entered ORDER BY session, first").fetchall()


def claim(path: Path, session: bytes, run: int) -> bool:
    """By somebody who has just started."""
    runs = EnteredRuns(path)
    try:
        runs.claim(session, EntryId(run))
        return True
    except IntegrityError:
        return False
    finally:
        runs.close()


def test_a_run_is_entered_once_also_after_a_restart(path: Path) -> None:
    runs = EnteredRuns(path)
    runs.claim(ONE, EntryId(0))
    for again in (runs.claim, lambda *key: EnteredRuns(path).claim(*key)):
        with pytest.raises(IntegrityError, match="entered something in the weights of this session before"):
            again(ONE, EntryId(0))
    runs.claim(ONE, EntryId(1))
    runs.claim(OTHER, EntryId(1))
    with pytest.raises(IntegrityError, match="in run 1 of this session before"):
        runs.claim(OTHER, EntryId(1))


def test_a_session_takes_one_row_however_many_runs_it_has(path: Path) -> None:
    runs = EnteredRuns(path)
    for run in range(100):
        runs.claim(ONE, EntryId(run))
    assert rows(path) == [(ONE, 0, 99)]


def test_any_order_of_runs_is_remembered(path: Path) -> None:
    order = list(range(40))
    random.Random(5).shuffle(order)
    runs = EnteredRuns(path)
    for number, run in enumerate(order):
        runs.claim(ONE, EntryId(run))
        assert not claim(path, ONE, run)
        assert all(not claim(path, ONE, known) for known in order[:number:7])
    assert sorted(run for _, first, last in rows(path) for run in range(first, last + 1)) == sorted(order)


@pytest.mark.parametrize("run", [0, 3, 7])
def test_a_claim_is_withdrawn_alone(path: Path, run: int) -> None:
    runs = EnteredRuns(path)
    for other in (2, 5, 6):
        runs.claim(ONE, EntryId(other))
    runs.claim(ONE, EntryId(run))
    runs.withdraw(ONE, EntryId(run))
    runs.withdraw(OTHER, EntryId(6))
    assert not any(claim(path, ONE, other) for other in (2, 5, 6))
    assert claim(path, ONE, run) and not claim(path, ONE, run)


def test_what_was_extended_since_is_not_withdrawn(path: Path) -> None:
    """It stays listed, which costs a run and no secret."""
    runs = EnteredRuns(path)
    for run in (1, 2):
        runs.claim(ONE, EntryId(run))
    runs.withdraw(ONE, EntryId(1))
    assert not claim(path, ONE, 1) and not claim(path, ONE, 2)


def test_runs_that_follow_are_listed_with_one_and_entered_once_each(path: Path) -> None:
    """By this process alone; a file that cannot be written stops nobody but who needs it."""
    runs = EnteredRuns(path)
    for run in (1, 2):
        runs.claim(ONE, EntryId(run))
    runs.claim(ONE, EntryId(9))
    runs.claim(ONE, EntryId(3), following=31)  # up to 8: the ninth is another's
    assert rows(path) == [(ONE, 1, 8), (ONE, 9, 9)]
    assert not any(claim(path, ONE, run) for run in range(1, 10)), "they are this process's"
    for run in (4, 6, 5, 7, 8):
        runs.claim(ONE, EntryId(run))
    for run in range(1, 10):
        with pytest.raises(IntegrityError, match="entered something"):
            runs.claim(ONE, EntryId(run))
    runs.claim(ONE, EntryId(10), following=3)
    runs.withdraw(ONE, EntryId(10))  # it stays listed, and is for this process to enter
    assert rows(path) == [(ONE, 1, 8), (ONE, 9, 13)] and not claim(path, ONE, 10)
    runs.claim(ONE, EntryId(10))
    runs.forget(ONE)
    with pytest.raises(IntegrityError, match="entered something"):
        runs.claim(ONE, EntryId(11))


def test_of_many_threads_one_enters(path: Path) -> None:
    won: list[int] = []
    runs = EnteredRuns(path)

    def attempt() -> None:
        for run in range(20):
            try:
                runs.claim(ONE, EntryId(run))
                won.append(run)
            except IntegrityError:
                pass

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(20))


def test_of_many_processes_one_enters_and_a_kill_forgets_nothing(path: Path) -> None:
    """They start at once, on a file that is not there yet, and are killed without closing it."""
    count = 30
    command = [sys.executable, "-c", CHILD, str(path), str(count)]
    children = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    won = [int(run) for child in children for run in child.communicate()[0].split()]
    assert sorted(won) == list(range(count))
    assert [child.returncode for child in children] == [-9] * 4
    assert not any(claim(path, ONE, run) for run in range(count))


def test_it_is_on_the_disk_when_the_call_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[sqlite3.Connection] = []
    connect = entered.connect
    monkeypatch.setattr(entered, "connect", lambda *how: [made.append(connect(*how)), made[-1]][1])
    runs = EnteredRuns(path)
    runs.claim(ONE, EntryId(0))
    [connection] = made
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL: a commit waits for the disk
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "truncate"
    runs.close()


def test_the_file_alone_is_the_list_also_after_a_kill(path: Path, tmp_path: Path) -> None:
    """Whoever moves it, as 'entered' in the cluster file invites to, need not know of files beside it."""
    command = [sys.executable, "-c", CHILD, str(path), "4"]
    won = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False).stdout.split()
    assert len(won) == 4
    moved = tmp_path / "elsewhere.sqlite"
    shutil.copy(path, moved)
    assert not any(claim(moved, ONE, int(run)) for run in won)


def test_only_its_owner_may_read_it(path: Path) -> None:
    before = os.umask(0)
    try:
        EnteredRuns(path).claim(ONE, EntryId(0))
    finally:
        os.umask(before)
    assert {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()} == {0o600}


def test_a_file_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"not a database" * 100)
    for path in (tmp_path / "missing" / "list", tmp_path, damaged):
        with pytest.raises(ConfigError) as caught:
            EnteredRuns(path).claim(ONE, EntryId(0))
        assert str(path) in caught.value.what and "'entered'" in (caught.value.remedy or "")


def test_a_fork_enters_nothing_that_was_listed_ahead(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has what its parent listed ahead in its memory, and both would enter it."""
    runs = EnteredRuns(path)
    runs.claim(ONE, EntryId(2), 1)
    child = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: child)
    with pytest.raises(IntegrityError, match="before"):
        runs.claim(ONE, EntryId(3))
    assert rows(path) == [(ONE, 2, 3)]
