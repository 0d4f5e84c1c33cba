"""Objects that owners put: whole at every party or not there, encrypted on its disk, and gone when they are removed."""

from __future__ import annotations

import errno
import os
import time
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from mpc import field as fp
from mpc.encoding import encode_field
from mpc.errors import ConfigError, InputError, IntegrityError, MpcError, PolicyError, SessionError
from mpc.prg import expand_field
from mpc.stored import BLOCK_ROWS
from parties.agreed.objects import Manifest
from parties.agreed.signed import key_of
from parties.client.at_rest import catalogue, upload
from parties.client.cluster import Cluster
from parties.config.models import Limits, PolicyConfig
from parties.local import launcher
from parties.local.layout import LocalLayout, Member
from parties.local.processes import running
from parties.party.ledger.sessions import Ledger
from parties.party.vault import catalogue as rows
from parties.party.vault import files
from parties.party.vault.vault import Vault
from parties.pb import data_pb2
from tests.support.effort import patient
from tests.support.objects import AGE, COLUMNS, blocks, described, put, table
from tests.support.parties import EVERYONE, InProcess

ROWS = BLOCK_ROWS + 3


def opened(cluster: InProcess, whole: Manifest, column: str, block: int) -> np.ndarray:
    """What all parties together hold."""
    vaults = [node.vault for node in cluster.nodes]
    masked = {encode_field(vault.block(whole.id, column, block)) for vault in vaults}
    assert len(masked) == 1
    value = vaults[0].block(whole.id, column, block)
    for vault in vaults:
        value = fp.sub(value, expand_field(vault.seed(whole.id, column, block), value.shape))
    return fp.to_signed(value)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[InProcess]:
    with InProcess(tmp_path, 2) as running:
        yield running


def key(cluster: InProcess, name: str) -> bytes:
    return key_of(cluster.identity(name).certificate_pem)


def test_what_was_put_is_what_the_parties_share(cluster: InProcess) -> None:
    said = described(rows=ROWS)
    values, told = table(said), []
    whole = upload.put(cluster.client("hospital"), said, blocks(values), lambda *progress: told.append(progress))
    assert told == [(BLOCK_ROWS, ROWS), (ROWS, ROWS)]
    assert (whole.version, whole.previous, whole.rows, whole.owner) == (1, None, ROWS, "hospital")
    for column in COLUMNS:
        for block in range(2):
            expected = values[column.name][block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS]
            assert np.array_equal(opened(cluster, whole, column.name, block), expected)
    assert all(node.vault.find("hospital/patients") == node.vault.manifest(whole.id) == whole for node in cluster.nodes)
    for index in range(2):  # and after a restart
        cluster.crash(index)
        cluster.revive(index)
    assert np.array_equal(opened(cluster, whole, "age", 1), values["age"][BLOCK_ROWS:])


def test_a_new_version_follows_the_old_one_which_stays(cluster: InProcess) -> None:
    client = cluster.client("hospital")
    first = put(client, described())
    second = put(client, described(rows=7))
    assert (second.version, second.previous) == (2, first.id.hex())
    vault = cluster.nodes[0].vault
    assert vault.find("hospital/patients") == second and vault.manifest(first.id) == first
    assert {c.hex() for c in _commitments(first)}.isdisjoint({c.hex() for c in _commitments(second)})
    stale = cluster.nodes[0].vault
    schema = second.model_copy(update={"version": 2, "previous": first.id.hex()})
    begin = data_pb2.BeginRequest(put=b"p" * 16, schema=_schema_of(schema))
    with pytest.raises(SessionError, match="does not follow"):
        cluster.data(0, "hospital").Begin(begin)
    assert stale.find("hospital/patients") == second


def _commitments(whole: Manifest) -> list[bytes]:
    return [whole.commitment(c.name, 0, party) for c in whole.columns for party in whole.parties]


def _schema_of(whole: Manifest) -> bytes:
    return whole.schema_content


def test_what_is_removed_is_gone_and_its_name_is_spent(cluster: InProcess) -> None:
    client = cluster.client("hospital")
    gone, stays = put(client, described()), put(client, described("others"))
    kept_keys = [(cluster.folder / f"data-{i}" / "vault" / "key").read_bytes() for i in range(2)]
    values = opened(cluster, stays, "age", 0)
    catalogue.remove(client, gone.id)
    catalogue.remove(client, gone.id)  # it is gone, and that is all the same
    for index, node in enumerate(cluster.nodes):
        folder = cluster.folder / f"data-{index}"
        for ask in (
            lambda vault: vault.find("hospital/patients"),
            lambda vault: vault.manifest(gone.id),
            lambda vault: vault.seed(gone.id, "age", 0),
            lambda vault: vault.block(gone.id, "age", 0),
        ):
            with pytest.raises(SessionError, match="no such object"):
                ask(node.vault)
        assert len(list((folder / "vault").glob("*.block"))) == len(COLUMNS)
        assert (folder / "vault" / "key").read_bytes() != kept_keys[index]
        assert not (folder / "vault" / "key.next").exists()
        assert (folder / "ledger.sqlite-wal").stat().st_size == 0 or _wal_is_new(folder)
    assert np.array_equal(opened(cluster, stays, "age", 0), values)
    again = put(client, described())
    assert (again.version, again.previous) == (2, gone.id.hex())


def _wal_is_new(folder: Path) -> bool:
    """What stands in the log was written after the removal, and is no longer than a page or two."""
    return (folder / "ledger.sqlite-wal").stat().st_size < 64 << 10


def test_nothing_is_written_that_exceeds_the_limits(tmp_path: Path) -> None:
    limits = Limits(max_data_bytes=4 << 20, max_data_bytes_per_owner=3 << 20)
    with InProcess(tmp_path, 2, limits=limits) as cluster:
        client, other = cluster.client("hospital"), cluster.client("clinic")
        big = described("big", 1 << 19, (AGE,))
        with pytest.raises(SessionError, match="max_data_bytes"):
            put(client, big)
        for name in ("a", "b", "c"):
            put(client, described(name))
        with pytest.raises(SessionError, match="max_data_bytes_per_owner"):
            put(client, described("d"))
        kept = put(other, described("a"))
        with pytest.raises(SessionError, match="raise limits.max_data_bytes"):
            put(other, described("b"))
        assert len(list((tmp_path / "data-0" / "vault").glob("*.block"))) == 4 * len(COLUMNS)
        catalogue.remove(other, kept.id)
        put(other, described("b"))


def test_only_whom_the_policy_lists_puts_data(tmp_path: Path) -> None:
    strict = EVERYONE.model_copy(update={"data_owners": ("hospital",)})
    with InProcess(tmp_path, 2, policies={1: strict}) as cluster:
        put(cluster.client("hospital"), described())
        with pytest.raises(PolicyError, match="data owner 'clinic'"):
            put(cluster.client("clinic"), described())
        with pytest.raises(PolicyError, match="process of the cluster"):
            cluster.data(0, "party-1").Newest(data_pb2.NewestRequest(name="party-1/x"))
        assert [node.vault.owns("clinic") for node in cluster.nodes] == [False, False]
    assert PolicyConfig().data_owners == ()


def test_an_object_expires_and_no_clock_brings_it_back(tmp_path: Path) -> None:
    with InProcess(tmp_path, 2) as cluster:
        now = int(time.time())
        whole = put(cluster.client("hospital"), described(expires=now + 1000))
        lasting = put(cluster.client("hospital"), described("lasting"))
        node = cluster.nodes[0]
        cluster.crash(0)
        clock = [float(now)]
        with Ledger.open(node.config.data_dir) as ledger:
            vault = Vault(node.config, node.identity, ledger, clock=lambda: clock[0])
            assert vault.manifest(whole.id) == whole
            clock[0] += 1001
            with pytest.raises(SessionError, match="no such object"):
                vault.manifest(whole.id)
            assert vault.manifest(lasting.id) == lasting
            clock[0] -= 299
            assert vault.manifest(lasting.id) == lasting
            clock[0] -= 10
            for ask in (lambda: vault.manifest(lasting.id), lambda: vault.find("hospital/lasting")):
                with pytest.raises(SessionError, match="clock is"):
                    ask()
            vault.ending.tick()  # says so, and goes on
            clock[0] = now + 1001
            vault.ending.tick()
            assert len(list(vault.folder.glob("*.block"))) == len(COLUMNS)
        clock[0] = now + 10
        with Ledger.open(node.config.data_dir) as ledger:  # and the ledger remembers
            vault = Vault(node.config, node.identity, ledger, clock=lambda: clock[0])
            with pytest.raises(SessionError, match="clock is"):
                vault.manifest(lasting.id)


def test_objects_are_found_by_their_words(cluster: InProcess) -> None:
    client = cluster.client("hospital")
    patients = put(client, described(description="Admissions of a year; blood and pressure"))
    put(client, described("secret", visible=()))
    put(client, described("all", visible=("any",), description="Trees"))

    def names(who: str, words: str = "") -> list[str]:
        return [entry.name for entry in catalogue.search(cluster.client(who), words)]

    assert names("hospital") == ["hospital/all", "hospital/patients", "hospital/secret"]
    assert names("analyst") == ["hospital/all", "hospital/patients"]
    assert names("stranger") == ["hospital/all"]
    assert names("analyst", "pres blood") == names("analyst", "Admission pressure") == ["hospital/patients"]
    assert names("analyst", "tree") == ["hospital/all"] and names("analyst", "bmi") == [
        "hospital/all",
        "hospital/patients",
    ]
    for odd in ('"', '" OR "', "NEAR(a b)", "name:x", "*", "-", "\x00", "a AND", "(" * 100):
        assert names("stranger", odd) == []
    assert catalogue.describe(cluster.client("analyst"), "hospital/patients") == patients
    [entry] = catalogue.search(cluster.client("analyst"), "pressure")
    assert (entry.id, entry.rows, entry.owner, entry.version) == (patients.id, 5, "hospital", 1)


def test_lists_come_in_pages(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parties.party.vault.vault.MOST_LISTED", 2)
    client = cluster.client("hospital")
    expected = []
    for name in ("a", "b", "b", "c"):
        expected.append((f"hospital/{name}", put(client, described(name, columns=(AGE,))).version))
    found = [(entry.name, entry.version) for entry in catalogue.search(client)]
    assert found == sorted(expected, key=lambda each: (each[0], -each[1]))


def test_data_that_are_not_as_said_are_refused_without_a_value(cluster: InProcess) -> None:
    client, said = cluster.client("hospital"), described(columns=(AGE,))
    good = table(said)["age"]
    wrong: list[Mapping[str, Any]] = [
        {"age": good.astype(np.float64)},
        {"age": good[:4]},
        {"age": np.where(np.arange(5) == 2, 917_531, good)},
        {"age": np.where(np.arange(5) == 2, -917_531, good)},
        {"bmi": good},
        {"age": good.reshape(5, 1)},
    ]
    for values in wrong:
        with pytest.raises(InputError) as caught:
            upload.put(client, said, [values])
        assert "917531" not in str(caught.value).replace(",", "") and "917531" not in repr(caught.value)
    with pytest.raises(InputError, match="fewer"):
        upload.put(client, said, [])
    with pytest.raises(InputError, match="more"):
        upload.put(client, said, [{"age": good}] * 2)
    with pytest.raises(MpcError):
        cluster.nodes[0].vault.find("hospital/patients")
    assert put(client, said).version == 1


def test_a_disk_that_somebody_wrote_to_is_named(cluster: InProcess) -> None:
    whole = put(cluster.client("hospital"), described(columns=(AGE,)))
    vault = cluster.nodes[0].vault
    [path] = vault.folder.glob("*.block")
    data = path.read_bytes()
    for altered in (data[:-1], data + b"x", bytes([data[0] ^ 1]) + data[1:], b""):
        path.write_bytes(altered)
        with pytest.raises(IntegrityError, match="missing or was altered"):
            vault.block(whole.id, "age", 0)
    path.write_bytes(data)
    vault.block(whole.id, "age", 0)
    path.unlink()
    with pytest.raises(IntegrityError):
        vault.block(whole.id, "age", 0)
    with cluster.ledgers[0].writing() as database:
        database.execute("UPDATE data_blocks SET sealed = zeroblob(60)")
    with pytest.raises(IntegrityError, match="cannot be unwrapped"):
        vault.seed(whole.id, "age", 0)


@pytest.mark.parametrize("place", ["open", "fsync"])
def test_a_disk_that_takes_no_block_is_told_in_words_and_no_path_of_it(
    cluster: InProcess, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left of what was begun, and once the disk takes it the same data can be put."""
    vault, working = cluster.nodes[0].vault, getattr(os, place)

    def refuse(what: str | int, *more: object) -> Any:
        if place == "fsync" or str(what).endswith(files.SUFFIX):
            raise OSError(errno.EROFS, "Read-only file system", str(vault.folder))
        return working(what, *more)

    client, said = cluster.client("hospital"), described(columns=(AGE,))
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", SimpleNamespace(**{**vars(os), place: refuse}))
        with pytest.raises(ConfigError, match="cannot write data: Read-only file system") as caught:
            put(client, said)
    assert "check the disk" in (caught.value.remedy or "") and str(vault.folder) not in repr(caught.value)
    assert not [*vault.folder.glob("*.block")]
    assert put(client, described("others", columns=(AGE,))).version == 1


def steps(cluster: InProcess, who: str, words: str) -> tuple[int, list[str]]:
    """How many instructions of sqlite's machine a search takes, and what it finds."""
    counted = [0]

    def count() -> int:
        counted[0] += 1
        return 0

    with cluster.ledgers[0].reading() as database:
        database.set_progress_handler(count, 1)
        try:
            found = rows.entries(database, who, b"k" * 32, words, ("", 0), 256, time.time())
        finally:
            database.set_progress_handler(None, 0)
    return counted[0], [each.name for each in found]


def test_a_search_takes_no_longer_for_what_one_may_not_see(cluster: InProcess) -> None:
    """Counted in instructions, not in time: neither the number of hidden objects nor their words change it."""
    client = cluster.client("hospital")
    put(client, described("open", columns=(AGE,), visible=("any",), description="Blood pressure"))
    hidden = put(client, described("hidden", columns=(AGE,), visible=("analyst",), description="Blood pressure"))
    before = {words: steps(cluster, "stranger", words) for words in ("", "pressure", "zebra", "blood pres")}
    assert before["pressure"][1] == before[""][1] == ["hospital/open"] and before["zebra"][1] == []
    assert len(steps(cluster, "analyst", "pressure")[1]) == 2
    with cluster.ledgers[0].writing() as database:
        copy = "put, state, object, owner, owner_key, name, version, schema, size, expires, touched, key"
        for number in range(300):
            database.execute(
                f"INSERT INTO data_objects ({copy}) SELECT randomblob(16), state, hex(randomblob(32)), owner, "
                "owner_key, name || ?, version, schema, size, expires, touched, key FROM data_objects WHERE object = ?",
                (str(number), hidden.id.hex()),
            )
            made = database.execute("SELECT max(number), schema FROM data_objects").fetchone()
            database.execute("INSERT INTO data_readers VALUES (?, 'analyst')", made[:1])
            rows.index(database, *made)
    assert {words: steps(cluster, "stranger", words) for words in before} == before
    assert len(steps(cluster, "analyst", "pressure")[1]) == 256


@pytest.mark.parametrize("words", ["BLUT", "bluté", "druck", "ＢＬＵＴ", "blut_druck"])
def test_words_are_found_without_their_accents_and_in_any_case(cluster: InProcess, words: str) -> None:
    put(
        cluster.client("hospital"),
        described("a", columns=(AGE,), visible=("any",), description="Blüte, Blutdruck; Drück"),
    )
    found = [entry.name for entry in catalogue.search(cluster.client("stranger"), words)]
    assert found == ["hospital/a"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_million_rows_are_put_in_a_minute_in_bounded_memory(tmp_path: Path) -> None:
    """Ten columns: 80 MB at each of three parties."""
    said = described("big", 1_000_000, tuple(AGE.model_copy(update={"name": f"c{i}"}) for i in range(10)), visible=())
    layout = LocalLayout.create(tmp_path / ".mpc", 3)
    launcher.start(layout)
    try:
        with Cluster.connect(layout.cluster_file) as cluster:
            put(cluster.parties, described("first", columns=(AGE,), visible=()))
            before = [resident(member) for member in layout.members[1:]]
            rng, started = np.random.default_rng(1), time.monotonic()

            def rows() -> Iterator[dict[str, np.ndarray]]:
                for start in range(0, said.rows, BLOCK_ROWS):
                    count = min(BLOCK_ROWS, said.rows - start)
                    yield {column.name: rng.integers(0, 120, count) for column in said.columns}

            tracemalloc.start()
            upload.put(cluster.parties, said, rows())
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert time.monotonic() - started < patient(60.0)
            assert peak < 40 << 20
            grown = [resident(member) - old for member, old in zip(layout.members[1:], before, strict=True)]
            assert max(grown) < 48 << 20, grown
    finally:
        launcher.stop(layout)


def resident(member: Member) -> int:
    """Bytes of memory of a daemon."""
    return psutil.Process(running(member.folder)).memory_info().rss
