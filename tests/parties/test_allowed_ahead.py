"""That a run may be told which costs nobody anything is on the disk since it was burnt: telling it waits for none."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mpc.compiler.compile import Compiled
from mpc.errors import MpcError
from parties import Session
from parties.client.consent import auditing
from parties.party.consent.operator import Operator
from parties.party.ledger.schema import connect
from parties.party.ledger.states import RunState
from parties.party.run import Run
from tests.support.layer import compile_layer, run
from tests.support.parties import InProcess, id_of


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compile_layer(tmp_path_factory.mktemp("model"))


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> dict[Path, sqlite3.Connection]:
    """Each ledger's connection, by its folder."""
    made: dict[Path, sqlite3.Connection] = {}
    monkeypatch.setattr("parties.party.ledger.file.connect", lambda path: made.setdefault(path.parent, connect(path)))
    return made


@pytest.fixture
def cluster(tmp_path: Path, connections: dict[Path, sqlite3.Connection]) -> Iterator[InProcess]:
    with InProcess(tmp_path / "cluster", 2) as made:
        yield made


class Synced:
    """What of one ledger is on the disk: its file and log as the last write left them that waited for it.

    Such a write leaves all of the log on the disk, what earlier ones put there too.  sqlite says before each write
    whether it waits.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.waited: list[bool] = []
        self._paths = [folder / "ledger.sqlite", folder / "ledger.sqlite-wal"]
        self._kept: list[bytes] = []
        connection.set_trace_callback(self._note)

    def _note(self, statement: str) -> None:
        if "PRAGMA synchronous" in statement:
            self._look()
            self.waited.append(statement.endswith("FULL"))

    def _look(self) -> None:
        if not self.waited or self.waited[-1]:
            self._kept = [path.read_bytes() for path in self._paths]

    def end(self) -> Callable[[], None]:
        """Return what leaves, once the ledger is closed, what a power failure now leaves at worst."""
        self._look()

        def fail() -> None:
            for path, content in zip(self._paths, self._kept, strict=True):
                path.write_bytes(content)

        return fail


def rows_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The rows of a kind in a party's audit chain, as another process reads them."""
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as reader:
        rows = [json.loads(row) for (row,) in reader.execute("SELECT row FROM audit ORDER BY number")]
    return [row for row in rows if row["kind"] == kind]


def named(folder: Path, session: bytes) -> set[int]:
    """The runs of a session that rows of the chain allow."""
    rows = [row for row in rows_of(folder, "allow") if row["session"] == session.hex()]
    return {number for row in rows for number in range(row["run"], row["through"] + 1)}


def test_a_row_on_the_disk_names_a_run_before_any_seed_of_it_leaves_and_no_run_waits_for_another(
    cluster: InProcess,
    compiled: Compiled,
    monkeypatch: pytest.MonkeyPatch,
    connections: dict[Path, sqlite3.Connection],
) -> None:
    folders = [node.config.data_dir for node in cluster.nodes]
    synced = Synced(folders[0], connections[folders[0]])
    opened: list[bytes] = []
    seen: list[tuple[int, bool]] = []
    reveal = Run.reveal

    def watched(self: Run) -> None:
        seen.append((self.number, all(self.number in named(folder, *opened) for folder in folders)))
        reveal(self)

    monkeypatch.setattr(Run, "reveal", watched)
    with Session(cluster.client(), compiled) as session:
        opened.append(id_of(session))
        run(session)
        del synced.waited[:]
        for _ in range(8):
            run(session)
        assert synced.waited.count(True) == 3, "windows of 2, 4 and 8 runs"
    assert sorted(seen) == [(number, True) for number in range(1, 10) for _ in range(2)]
    [ours, others] = [[row["run"] for row in rows_of(folder, "reveal")] for folder in folders]
    assert ours == others == [*range(1, 10)], "and each is listed as it is told"


def test_security_17_a_power_failure_loses_no_row_that_a_client_was_given_the_head_of(
    cluster: InProcess, compiled: Compiled, connections: dict[Path, sqlite3.Connection]
) -> None:
    folder = cluster.nodes[0].config.data_dir
    synced = Synced(folder, connections[folder])
    client = cluster.client()
    session = Session(client, compiled)
    id: bytes = id_of(session)
    for _ in range(4):
        run(session)
    heads = client.heads.known()
    fail = synced.end()
    cluster.crash(0)
    connections.clear()
    fail()
    cluster.revive(0)
    assert cluster.ledger_states(0)[0] == ("burnt", "restart")
    assert cluster.run_states(0, id)[:4] == ["revealed"] * 3 + ["burnt"], "the newest row was on no disk"
    assert named(folder, id) == {*range(1, 8)}, "what says that it may have been told was"
    assert [each.fault for each in auditing.check_chains(client.clients, heads, 30)] == [None, None]
    for number in range(1, 9):
        with pytest.raises(MpcError, match="is burnt, not open"):
            cluster.ledgers[0].advance(id, number, RunState.BURNT)


def test_security_17_a_power_failure_loses_no_row_that_a_client_was_shown(
    cluster: InProcess, compiled: Compiled, connections: dict[Path, sqlite3.Connection]
) -> None:
    folder = cluster.nodes[0].config.data_dir
    synced = Synced(folder, connections[folder])
    client = cluster.client()
    session = Session(client, compiled)
    for _ in range(3):
        run(session)
    shown = auditing.check_chains(client.clients, {}, 30)
    assert [row["run"] for row in shown[0].rows if row["kind"] == "reveal"] == [1, 2, 3]
    fail = synced.end()
    cluster.crash(0)
    connections.clear()
    fail()
    cluster.revive(0)
    heads = {each.party: each.head for each in shown}
    assert [each.fault for each in auditing.check_chains(client.clients, heads, 30)] == [None, None]


def test_a_head_that_a_client_keeps_does_not_go_back_to_where_its_session_was_burnt(
    cluster: InProcess, compiled: Compiled
) -> None:
    folders = [node.config.data_dir for node in cluster.nodes]
    client = cluster.client()
    with Session(client, compiled) as first:
        for _ in range(4):  # the last one burns four
            run(first)
        with Session(client, compiled) as second:
            run(second)
        run(first)
        heads = client.heads.known()
    for folder, head in zip(folders, heads.values(), strict=True):
        with closing(sqlite3.connect(folder / "ledger.sqlite")) as reader:
            query = "SELECT row FROM audit WHERE number > (SELECT number FROM audit WHERE head = ?)"
            behind = [json.loads(row)["kind"] for (row,) in reader.execute(query, (head,))]
        assert {*behind} <= {"reveal"}, "a ledger put back to before the second session would not be seen"


def test_where_an_approval_is_used_up_nothing_is_allowed_ahead_and_each_run_waits_for_the_disk(
    cluster: InProcess,
    compiled: Compiled,
    monkeypatch: pytest.MonkeyPatch,
    connections: dict[Path, sqlite3.Connection],
) -> None:
    folder = cluster.nodes[0].config.data_dir
    monkeypatch.setattr(Operator, "needed", lambda operator, asked: "7" * 64)
    synced = Synced(folder, connections[folder])
    with Session(cluster.client(), compiled) as session:
        run(session)
        del synced.waited[:]
        for _ in range(8):
            run(session)
        assert synced.waited.count(True) == 3 + 8
    assert not rows_of(folder, "allow") and len(rows_of(folder, "reveal")) == 9
