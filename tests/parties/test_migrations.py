"""Files of every version that ever was are opened, and nothing that was used is forgotten.

The vectors are dumps of files that those versions wrote, by processes that were then killed: by the programs of that
time, not by today's.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mpc.entry import EntryId
from mpc.errors import ConfigError, IntegrityError, LocalProtocolError, MpcError, SessionError
from parties import database as files
from parties.agreed.audit import START, follow, row_digest
from parties.agreed.models import read_model
from parties.agreed.objects import Manifest
from parties.agreed.requests import request_id
from parties.client.at_rest import putlog
from parties.client.at_rest.putlog import PutLog, Sent
from parties.client.running import entered
from parties.client.running.entered import EnteredRuns
from parties.party.collecting import tables as collections
from parties.party.consent import audit, requests, tables
from parties.party.ledger import schema
from parties.party.ledger.sessions import Ledger
from parties.party.ledger.states import RunState, SessionState
from parties.party.vault import catalogue
from parties.trust import authority
from parties.trust.identity import Identity

VECTORS = Path(__file__).parents[1] / "vectors" / "databases"
LEDGERS, LISTS = sorted(VECTORS.glob("ledger-*.sql")), sorted(VECTORS.glob("entered-*.sql"))
PLAN = bytes(range(32))
ONE, OTHER = b"1" * 32, b"2" * 32


def session(number: int) -> bytes:
    return b"session-" + number.to_bytes(24, "big")


def restore(vector: Path, path: Path) -> str:
    """Make the file of a dump; what the dump says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = vector.read_text()
    connection = sqlite3.connect(path)
    connection.executescript(text)
    connection.close()
    return text


def old_ledger(vector: Path, folder: Path) -> Path:
    """The data folder of a party of then."""
    text = restore(vector, folder / schema.DATABASE)
    (folder / "epoch").write_text(re.search("^-- epoch: (.*)$", text, re.MULTILINE)[1] + "\n")
    return folder


def version(path: Path) -> int:
    connection = sqlite3.connect(path)
    found = files.version_of(connection)
    connection.close()
    return found


def table(path: Path) -> list[tuple]:
    """The tables and indices, as sqlite lists them."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT type, name, tbl_name FROM sqlite_master ORDER BY name").fetchall()
    columns = [(row[1], connection.execute(f"PRAGMA table_info({row[1]})").fetchall()) for row in rows]
    connection.close()
    return [*rows, *columns]


@pytest.mark.parametrize(
    ("name", "migrations"),
    [("ledger", schema.MIGRATIONS), ("entered", entered.MIGRATIONS), ("puts", putlog.MIGRATIONS)],
    ids=["ledger", "entered", "puts"],
)
def test_there_is_a_vector_of_every_version(name: str, migrations: Sequence[files.Migration]) -> None:
    known = {int(path.stem.split("-")[1]) for path in VECTORS.glob(f"{name}-*.sql")}
    assert known == set(range(1, len(migrations) + 1))


@pytest.mark.parametrize("vector", LEDGERS, ids=[path.stem for path in LEDGERS])
def test_an_old_ledger_is_brought_forward_and_forgets_nothing(vector: Path, tmp_path: Path) -> None:
    folder = old_ledger(vector, tmp_path / "old")
    with Ledger.open(folder) as ledger:
        found = {record.session_id: record for record in ledger.history()}
        states = {number: found[session(number).hex()].state for number in (1, 2, 3)}
        assert states == {1: SessionState.BURNT, 2: SessionState.CLOSED, 3: SessionState.ABORTED}
        assert found[session(1).hex()].reason == "restart" and found[session(3).hex()].reason == "deadline"
        assert (found[session(1).hex()].runs, found[session(1).hex()].revealed) == (5, 1)
        for record in found.values():
            with pytest.raises(SessionError, match="used before"):
                ledger.open_session(bytes.fromhex(record.session_id), PLAN, "analyst")
            if record.state is SessionState.STOCKED:
                continue
            with pytest.raises(SessionError, match="are not to be used"):
                ledger.open_stocked(bytes.fromhex(record.session_id), PLAN, "analyst")
            for run in range(1, 6):
                for state in RunState:
                    with pytest.raises(MpcError):
                        ledger.advance(bytes.fromhex(record.session_id), run, state)
    Ledger.open(tmp_path / "new").close()
    assert table(folder / schema.DATABASE) == table(tmp_path / "new" / schema.DATABASE)
    assert version(folder / schema.DATABASE) == len(schema.MIGRATIONS)


def test_what_was_spent_and_revoked_is_remembered(tmp_path: Path) -> None:
    with Ledger.open(old_ledger(VECTORS / "ledger-3-consent.sql", tmp_path / "old")) as ledger:
        with ledger.reading() as database:
            name = "hospital/patients"
            key = tables.key_of_name(database, name)
            assert key is not None
            grants = tables.grants_of(database, "hospital", key, [name])
            assert sorted(row.revoked for row in grants) == [False, True]
            assert tables.spent_on(database, name).epsilon == 500_000_000
            [used] = [row for row in grants if not row.revoked]
            assert tables.spent_under(database, used.id)[0] == 1
            rows, head = list(audit.entries(database, 0, None)), START
            for row in rows:
                assert row_digest(row.row) == row.digest
                head = follow(head, row.digest)
            assert head == audit.head_of(database) and len(rows) >= 7


def test_a_collection_of_then_stays_closed_and_told(tmp_path: Path) -> None:
    with Ledger.open(old_ledger(VECTORS / "ledger-7-collections.sql", tmp_path / "old")) as ledger:
        with ledger.reading() as database:
            found = {name: collections.named(database, f"coordinator/{name}") for name in ("told", "closed", "open")}
            assert all(each is not None for each in found.values())
            told, closed, still = found["told"], found["closed"], found["open"]
            assert told.gathered is not None and told.contributions is not None
            assert closed.gathered is None and closed.contributions is not None and still.contributions is None
            assert tables.spent_under(database, told.id)[0] == 1
            counts = [collections.count_contributions(database, each.id) for each in (told, closed, still)]
            assert counts == [0, 3, 1]
            listed = json.loads(closed.contributions.content)["contributions"]
            assert listed == collections.contributions(database, closed.id)


def test_a_model_of_then_is_of_the_plan_that_it_was_put_with(tmp_path: Path) -> None:
    with Ledger.open(old_ledger(VECTORS / "ledger-4-models.sql", tmp_path / "old")) as ledger:
        with ledger.reading() as database:
            row = catalogue.newest(database, "lab/triage", 0.0)
            assert row is not None
            content, signed = catalogue.plan_of(database, row.number), catalogue.signed_of(database, row.number)
        manifest = Manifest.parse(signed.content)
        assert manifest.id.hex() == row.object and read_model(manifest, content).digest.hex() == manifest.plan


def test_what_waits_was_approved_and_denied_is_remembered(tmp_path: Path) -> None:
    with Ledger.open(old_ledger(VECTORS / "ledger-6-requests.sql", tmp_path / "old")) as ledger:
        with ledger.writing() as database:
            then = 1_796_000_100.0
            numbers = [number for number, _ in requests.every(database, then)]
            kept = {each.state: each for number in numbers if (each := requests.by_number(database, number))}
            assert kept.keys() == {"waiting", "approved", "denied"} and kept["denied"].reason == "ask the board"
            assert all(request_id(each.record) == each.id for each in kept.values())
            used = [requests.use(database, kept["approved"].id, then) for _ in range(2)]
            assert used == [True, False]  # it was of two runs, and one was told
            assert requests.about(database, "hospital", b"k" * 32, then) == requests.every(database, then)


def test_what_an_old_ledger_has_in_stock_is_opened_once(tmp_path: Path) -> None:
    folder = old_ledger(VECTORS / "ledger-1-stocked.sql", tmp_path / "old")
    with Ledger.open(folder) as ledger:
        assert list(ledger.stocked()) == [session(4)]  # 5 was opened, and its process killed; 6 was dropped
        ledger.open_stocked(session(4), PLAN, "analyst")
        ledger.advance(session(4), 1, RunState.BURNT)
    with Ledger.open(folder) as ledger, pytest.raises(SessionError, match="has it as burnt"):
        ledger.open_stocked(session(4), PLAN, "analyst")


@pytest.mark.parametrize("vector", LEDGERS, ids=[path.stem for path in LEDGERS])
def test_an_old_ledger_that_was_put_back_is_refused(vector: Path, tmp_path: Path) -> None:
    """As of any version: what is opened once moves the epoch, and the dump is behind it."""
    folder = old_ledger(vector, tmp_path / "old")
    Ledger.open(folder).close()
    for path in folder.glob(f"{schema.DATABASE}*"):
        path.unlink()
    restore(vector, folder / schema.DATABASE)
    with pytest.raises(ConfigError, match="restored from a backup"):
        Ledger.open(folder)


@pytest.mark.parametrize("vector", LISTS, ids=[path.stem for path in LISTS])
def test_a_clients_old_list_is_brought_forward_and_forgets_nothing(vector: Path, tmp_path: Path) -> None:
    path = tmp_path / "me.entered.sqlite"
    restore(vector, path)
    runs = EnteredRuns(path)
    for run in (0, 1, 2, 5):
        with pytest.raises(IntegrityError, match="before"):
            runs.claim(ONE, EntryId(run))
    for claim in ((ONE, EntryId(3)), (OTHER, EntryId(7))):  # a claim that was withdrawn is none
        runs.claim(*claim)
        with pytest.raises(IntegrityError):
            runs.claim(*claim)
    runs.close()
    assert not path.with_name(path.name + "-wal").exists()
    assert version(path) == len(entered.MIGRATIONS)


@pytest.fixture
def hospital(tmp_path: Path) -> Identity:
    authority.make_ca(tmp_path / "ca", "test-ca")
    return Identity.load(authority.issue(tmp_path / "ca", "hospital", tmp_path / "hospital"), "hospital")


def test_a_put_of_an_old_list_goes_on(tmp_path: Path, hospital: Identity) -> None:
    path = tmp_path / "hospital.puts.sqlite"
    restore(VECTORS / "puts-1.sql", path)
    log = PutLog(path, hospital)
    found = log.find("hospital/patients")
    assert found is not None and found.schema.rows == 5 and not found.fresh and found.signed is None
    assert found.blocks == {(0, 0): Sent(b"m" * 32, b"d" * 32, b"c" * 64)} and len(found.put) == 16
    log.forget(found)
    assert log.find("hospital/patients") is None
    log.close()
    assert version(path) == len(putlog.MIGRATIONS)
    assert b"mmmmmmmm" not in path.read_bytes()  # nothing is left of what is forgotten


def test_a_put_that_keeps_blocks_goes_on_from_an_old_list(tmp_path: Path, hospital: Identity) -> None:
    path = tmp_path / "hospital.puts.sqlite"
    restore(VECTORS / "puts-2.sql", path)
    log = PutLog(path, hospital)
    found = log.find("hospital/patients")
    assert found is not None and found.base is not None and found.kept == {0: 0} and found.schema.lengths == (5, 3)
    assert found.schema.previous == found.base.id.hex() and [*found.blocks] == [(0, 1)]
    other = np.zeros(5, np.int64)  # digests of what is done are there, keyed by that client's key
    assert log.is_of("hospital/done", bytes(range(32)), 0, 0, other) is False
    assert log.is_of("hospital/done", bytes(range(32)), 0, 1, other) is None
    log.drop("hospital/done")
    assert log.is_of("hospital/done", bytes(range(32)), 0, 0, other) is None
    log.close()


def test_a_newer_list_of_puts_is_refused_and_says_what_to_do(tmp_path: Path, hospital: Identity) -> None:
    path = tmp_path / "hospital.puts.sqlite"
    restore(VECTORS / "puts-1.sql", path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(ConfigError, match="version 7") as caught:
        PutLog(path, hospital)
    assert "interrupted puts then begin anew" in (caught.value.remedy or "")


def test_a_newer_list_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "me.entered.sqlite"
    restore(LISTS[0], path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(ConfigError, match="version 7") as caught:
        EnteredRuns(path).claim(ONE, EntryId(3))
    assert "run the version that wrote it" in (caught.value.remedy or "")


# --- how files are brought forward --------------------------------------------------------

THREE: tuple[files.Migration, ...] = (
    ("CREATE TABLE a (x INTEGER)",),
    ("ALTER TABLE a ADD COLUMN y INTEGER", "UPDATE a SET y = x + 1"),
    ("CREATE TABLE b (z INTEGER)", "INSERT INTO b SELECT y FROM a"),
)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A file of version 1 with one row."""
    connection = files.connect(tmp_path / "file")
    with files.transaction(connection):
        files.migrate(connection, THREE[:1])
        connection.execute("INSERT INTO a VALUES (4)")
    connection.close()
    return tmp_path / "file"


def test_each_migration_runs_once_and_in_order(first: Path) -> None:
    for newest in (2, 3, 3):
        connection = files.connect(first)
        with files.transaction(connection):
            files.migrate(connection, THREE[:newest])
        assert files.version_of(connection) == newest
        connection.close()
    connection = files.connect(first)
    assert connection.execute("SELECT x, y, z FROM a, b").fetchall() == [(4, 5, 5)]
    with pytest.raises(files.UnknownVersionError, match="it has version 3, this program reads versions up to 2"):
        with files.transaction(connection):
            files.migrate(connection, THREE[:2])
    with pytest.raises(LocalProtocolError):
        files.migrate(connection, THREE)
    connection.close()


@pytest.mark.parametrize("broken", [1, 2])
def test_a_migration_that_fails_leaves_the_old_file(first: Path, broken: int) -> None:
    wrong = [*THREE]
    wrong[broken] = (*wrong[broken], "INSERT INTO nowhere VALUES (1)")
    before = first.read_bytes()
    connection = files.connect(first)
    with pytest.raises(sqlite3.OperationalError, match="nowhere"), files.transaction(connection):
        files.migrate(connection, wrong)
    assert files.version_of(connection) == 1
    connection.close()
    assert first.read_bytes() == before


def test_a_ledger_whose_migration_fails_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the version nor the epoch has moved, and the program of before opens it again."""
    folder = tmp_path / "data"
    with Ledger.open(folder) as ledger:
        ledger.stock_session(session(1), PLAN, "analyst", 1)
    epoch = (folder / "epoch").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ("DROP TABLE runs", "DROP TABLE nowhere")))
        with pytest.raises(ConfigError, match="cannot be used"):
            Ledger.open(folder)
    assert (folder / "epoch").read_text() == epoch
    with Ledger.open(folder) as ledger:
        assert list(ledger.stocked()) == [session(1)]


def test_a_ledger_is_brought_forward_when_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data"
    Ledger.open(folder).close()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ("CREATE TABLE budgets (spent REAL)",)))
        Ledger.open(folder).close()
        Ledger.open(folder).close()
        assert version(folder / schema.DATABASE) == len(schema.MIGRATIONS)
    with pytest.raises(ConfigError, match="newer version of mpc") as caught:  # and there is no way back
        Ledger.open(folder)
    assert "run the version of mpc that wrote it" in (caught.value.remedy or "")


def test_a_transaction_that_sqlite_has_undone_already_raises_what_undid_it(tmp_path: Path) -> None:
    """A full disk, for one, rolls back by itself: there is nothing left to undo, and the cause is what is raised."""
    database = files.connect(tmp_path / "file.db")
    database.execute("CREATE TABLE t (x INTEGER)")
    with pytest.raises(OSError, match="full"):
        with files.transaction(database):
            database.execute("INSERT INTO t VALUES (1)")
            database.execute("ROLLBACK")
            raise OSError("full")
    with files.transaction(database):
        database.execute("INSERT INTO t VALUES (2)")
    assert database.execute("SELECT x FROM t").fetchall() == [(2,)]
    database.close()
