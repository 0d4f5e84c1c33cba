"""Versions that keep blocks of the one before: rows are added, rows are taken out, and no block ever changes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.encoding import encode_field
from mpc.errors import InputError, IntegrityError, MpcWarning, PeerError, PolicyError, SessionError, UsageError
from parties.agreed.objects import Manifest
from parties.client.at_rest import catalogue
from parties.client.at_rest.putlog import place_of
from parties.client.channels import PartyClient
from parties.client.cluster import Cluster
from parties.client.consent import granting
from parties.client.dataset import Dataset
from parties.client.datasets import Datasets
from parties.pb import data_pb2
from tests.parties.test_vault import opened
from tests.support.grants import exact
from tests.support.objects import AGE, RawPut, table
from tests.support.parties import InProcess, eventually, tiny_answer, tiny_model

SAID: dict[str, Any] = {
    "ranges": {"a": (-4, 4), "b": (-4, 4), "c": (-4, 4)},
    "types": {"a": "number", "b": "number", "c": "number"},
    "rows_per_person": 1,
    "missing": ["c"],
}


def rows(count: int, seed: int) -> dict[str, np.ndarray]:
    """Rows of three numbers, which 28 bits hold exactly."""
    rng = np.random.default_rng(seed)
    return {name: rng.integers(-1024, 1024, count) / 256 for name in "abc"}


def joined(*tables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([each[name] for each in tables]) for name in "abc"}


FIRST, SECOND, THIRD = rows(5, 1), rows(3, 2), rows(2, 3)
WHOLE = joined(FIRST, SECOND, THIRD)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("cluster"), 2) as running:
        yield running


@pytest.fixture(scope="module")
def hospital(cluster: InProcess) -> Datasets:
    return Datasets(cluster.client("hospital"))


def three(hospital: Datasets, name: str) -> tuple[Dataset, Dataset, Dataset]:
    """A dataset of 5, 3 and 2 rows, in three versions."""
    first = hospital.put(name, FIRST, **SAID)
    return first, hospital.append(name, SECOND), hospital.append(f"hospital/{name}", THIRD)


def values_of(cluster: InProcess, whole: Manifest, column: str) -> list[float]:
    parts = [opened(cluster, whole, column, block) for block in range(whole.block_count)]
    return [value / (1 << 28) for value in np.concatenate(parts).tolist()]


def files(cluster: InProcess, index: int) -> set[str]:
    return {path.stem for path in cluster.nodes[index].vault.folder.glob("*.block")}


def granted_bytes(cluster: InProcess, name: str) -> list[int]:
    with cluster.ledgers[0].reading() as database:
        query = "SELECT size FROM data_objects WHERE name = ? ORDER BY version"
        return [size for (size,) in database.execute(query, (name,))]


# --- rows are added ---------------------------------------------------------------------------


def test_added_rows_are_blocks_of_their_own_and_no_other_block_changes(cluster: InProcess, hospital: Datasets) -> None:
    before = files(cluster, 0)
    versions = [each.manifest for each in three(hospital, "grown")]
    assert [each.version for each in versions] == [1, 2, 3] and [each.rows for each in versions] == [5, 8, 10]
    assert [each.lengths for each in versions] == [(), (5, 3), (5, 3, 2)]
    assert [each.previous for each in versions[1:]] == [each.id.hex() for each in versions[:2]]
    for column in ("a", "b", "c", "c.missing"):
        assert versions[2].commitments[column][:2] == versions[1].commitments[column]
        assert versions[1].commitments[column][:1] == versions[0].commitments[column]
    for node in cluster.nodes:
        for block in (0, 1):
            first, last = (node.vault.block(each.id, "a", block) for each in versions[1:])
            assert encode_field(first) == encode_field(last)
            assert node.vault.seed(versions[1].id, "a", block) == node.vault.seed(versions[2].id, "a", block)
    for name in "abc":
        assert values_of(cluster, versions[2], name) == WHOLE[name].tolist()
        assert values_of(cluster, versions[0], name) == FIRST[name].tolist()
    assert len(files(cluster, 0) - before) == 4 * 3  # a kept block's file is there once, for all versions


def test_a_session_reads_rows_of_any_version_across_its_blocks(
    cluster: InProcess, hospital: Datasets, tmp_path: Path
) -> None:
    first, _, last = three(hospital, "asked")
    with Cluster(cluster.client("hospital").config) as connected:
        for dataset, whole in ((last, WHOLE), (first, FIRST)):
            with pytest.warns(MpcWarning, match="may miss values"):
                session = connected.session(tiny_model(tmp_path / "m.onnx"), data={"x": dataset[["a", "b", "c"]]})
            [found] = session.run(None, None)
            expected = tiny_answer(np.stack([whole[name] for name in "abc"], axis=1))
            np.testing.assert_allclose(found, expected, atol=1e-4)
            session.close()


def test_history_says_how_each_version_came_from_the_last(hospital: Datasets) -> None:
    three(hospital, "told")
    found = hospital.versions("told")
    assert [each["version"] for each in found.content()] == [3, 2, 1]
    assert [row[4] for row in found.table[1:]] == [
        "2 of 3 blocks kept, +2 rows",
        "1 of 2 blocks kept, +3 rows",
        "the first",
    ]
    assert "blocks kept" in repr(found) and "<table>" in found._repr_html_()
    with pytest.raises(SessionError, match="no dataset hospital/unheard"):
        hospital.versions("unheard")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({**SECOND, "a": np.array([0.0, 9.0, 8.5])}, "column 'a' has 2 values outside its range -4:4"),
        ({**SECOND, "b": np.array([0.0, np.nan, 1.0])}, "misses values in b, where the dataset misses none"),
        ({name: SECOND[name] for name in "ab"}, "has no column 'c'"),
        ({**SECOND, "a": np.zeros((3, 2))}, "an array of shape .2,. a row, and the dataset one value"),
        ({**SECOND, "a": np.array(["2020-01-01"] * 3, "datetime64[D]")}, "holds dates or times"),
        ({name: SECOND[name][:0] for name in "abc"}, "has no rows"),
    ],
)
def test_rows_that_do_not_fit_what_was_said_first_are_refused(
    hospital: Datasets, table: dict[str, np.ndarray], words: str
) -> None:
    hospital.put("fits", FIRST, **SAID)
    with pytest.raises(InputError, match=words) as caught:
        hospital.append("fits", table)
    assert "8.5" not in str(caught.value) and hospital.get("fits").rows == 5


def test_rows_of_every_type_are_read_as_the_first_ones_were(hospital: Datasets, cluster: InProcess) -> None:
    first = {"sex": ["f", "m"], "smokes": ["yes", "no"], "age": [40.0, 50.0], "scan": np.zeros((2, 2), np.int64)}
    hospital.put(
        "types",
        first,
        ranges={"age": (0, 120), "scan": (0, 255)},
        categories={"sex": ["m", "f"]},
        types={"smokes": "boolean", "age": "integer"},
        rows_per_person=1,
    )
    more = {"scan": np.ones((1, 2)), "age": ["61"], "other": [5], "smokes": ["1.0"], "sex": ["f"]}
    whole = hospital.append("types", more).manifest
    held = {name: opened(cluster, whole, name, 1).tolist() for name in first}
    assert held == {"sex": [1], "smokes": [1], "age": [61], "scan": [[1, 1]]}
    for wrong, words in (
        ({**more, "sex": ["x"]}, "in none of its categories"),
        ({**more, "scan": np.full((1, 2), 0.5)}, "column 'scan' has 2 values that are not whole"),
        ({**more, "age": ["61.5"]}, "not whole"),
    ):
        with pytest.raises(InputError, match=words):
            hospital.append("types", wrong)


def test_how_many_rows_are_one_persons_is_said_of_all_rows(hospital: Datasets) -> None:
    hospital.put("people", FIRST, **{**SAID, "rows_per_person": 2})
    assert hospital.append("people", SECOND).manifest.rows_per_person == 2
    with pytest.raises(InputError, match="at most 1 rows would be one person's"):
        hospital.append("people", SECOND, rows_per_person=1)
    named = {**SECOND, "who": np.array(["ann", "ann", "ann"])}
    with pytest.raises(InputError, match="more than rows_per_person=2"):
        hospital.append("people", named, person="who")
    last = hospital.append("people", named, person="who", rows_per_person=3, expires="90d").manifest
    assert last.rows_per_person == 3 and last.expires is not None and "who" not in last.commitments


# --- rows are taken out -------------------------------------------------------------------------


def test_a_row_is_gone_with_every_version_that_had_it_and_other_blocks_stay(
    cluster: InProcess, hospital: Datasets
) -> None:
    versions = [each.manifest for each in three(hospital, "cut")]
    before = files(cluster, 0)
    stores = [node.vault.folder.parent for node in cluster.nodes]
    keys = [(store / "vault" / "key").read_bytes() for store in stores]
    last = hospital.remove_rows("cut", [6], WHOLE).manifest
    assert (last.version, last.rows, last.lengths) == (4, 9, (5, 2, 2))
    left = {name: np.delete(WHOLE[name], 6).tolist() for name in "abc"}
    assert {name: values_of(cluster, last, name) for name in "abc"} == left
    for column in ("a", "c.missing"):
        old, new = versions[2].commitments[column], last.commitments[column]
        assert [each == was for each, was in zip(new, old, strict=True)] == [True, False, True]
    for node, key in zip(cluster.nodes, keys, strict=True):
        for each in versions:
            with pytest.raises(SessionError, match="no such object"):
                node.vault.manifest(each.id)
        with node.ledger.reading() as database:
            buried = {name for (name,) in database.execute("SELECT object FROM data_tombstones")}
        assert {each.id.hex() for each in versions} <= buried
        assert (node.vault.folder / "key").read_bytes() != key
    assert len(before - files(cluster, 0)) == 4  # of the block that the row was in, one a column
    assert [row[4] for row in hospital.versions("cut").table[1:]] == ["the one before is not here"]


def test_what_the_disk_has_left_of_a_removed_row_opens_nothing(cluster: InProcess, hospital: Datasets) -> None:
    first = hospital.put("erased", FIRST, **SAID).manifest
    hospital.append("erased", SECOND)
    vault = cluster.nodes[0].vault
    seed, masked = vault.seed(first.id, "a", 0), vault.block(first.id, "a", 0)
    with cluster.ledgers[0].reading() as database:
        query = "SELECT sealed FROM data_blocks WHERE number IN (SELECT number FROM data_objects WHERE name = ?)"
        sealed = [each for (each,) in database.execute(query + " AND block = 0", ("hospital/erased",))]
    assert len(sealed) == 2 * 4
    hospital.remove_rows("erased", [0], joined(FIRST, SECOND))
    everything = b"".join(path.read_bytes() for path in vault.folder.parent.rglob("*") if path.is_file())
    for secret in (seed.secret, encode_field(masked)[:40], *sealed):
        assert secret not in everything


def test_a_copy_of_the_rows_blocks_alone_is_enough(cluster: InProcess, hospital: Datasets) -> None:
    three(hospital, "alone")
    last = hospital.remove_rows("alone", [0, 9, 8], joined(FIRST, THIRD)).manifest
    assert last.lengths == (4, 3) and last.block_count == 2  # the third block has no rows left, and is none any more
    expected = joined({name: FIRST[name][1:] for name in "abc"}, SECOND)
    assert values_of(cluster, last, "b") == expected["b"].tolist()
    again = hospital.append("alone", FIRST).manifest
    assert again.lengths == (4, 3, 5) and values_of(cluster, again, "b")[7:] == FIRST["b"].tolist()
    only = hospital.remove_rows("alone", [*range(7)], joined(expected, FIRST)).manifest
    assert only.lengths == () and values_of(cluster, only, "a") == FIRST["a"].tolist()


def test_a_copy_that_is_not_what_was_put_is_refused_before_anything_is_sent(hospital: Datasets) -> None:
    three(hospital, "copied")
    sorted_ = {name: np.sort(WHOLE[name]) for name in "abc"}
    for wrong, words in (
        (sorted_, "column 'a' differs in rows 5 to 7"),
        (FIRST, r"the copy has 5 rows, and version 3 of hospital/copied 10.*or rows 5 to 7 alone \(3\)"),
    ):
        with pytest.raises(InputError, match=words):
            hospital.remove_rows("copied", [5], wrong)
    for row, error in ((10, InputError), (-1, InputError), (True, UsageError), ("1", UsageError)):
        with pytest.raises(error):
            hospital.remove_rows("copied", [row], WHOLE)
    for none in ([], [1, 1]):
        with pytest.raises(UsageError, match="no row is named, or one twice"):
            hospital.remove_rows("copied", none, WHOLE)
    with pytest.raises(InputError, match="would have no rows left; fix: .*mpc data remove hospital/copied"):
        hospital.remove_rows("copied", [*range(10)], WHOLE)
    assert [each["version"] for each in hospital.versions("copied").content()] == [3, 2, 1]


def test_a_machine_that_did_not_put_it_says_that_nothing_was_compared(cluster: InProcess, hospital: Datasets) -> None:
    hospital.put("moved", FIRST, **SAID)
    place_of(cluster.client("hospital").config).unlink()
    with pytest.warns(MpcWarning, match="was not compared with what was put"):
        assert hospital.remove_rows("moved", [0], FIRST).rows == 4


def test_rows_that_were_published_are_not_published_again(hospital: Datasets) -> None:
    sample = {name: FIRST[name][:1] for name in "abc"}
    hospital.put("shown", FIRST, **SAID, sample=sample)
    assert not hospital.append("shown", SECOND).sample().mock
    assert hospital.remove_rows("shown", [0], joined(FIRST, SECOND)).sample().mock
    left = {name: np.delete(joined(FIRST, SECOND)[name], 0) for name in "abc"}
    assert hospital.remove_rows("shown", [0], left, sample=sample).sample()["a"].tolist() == sample["a"].tolist()


# --- what is interrupted ------------------------------------------------------------------------


class Called:
    """Stands for a party's stubs: a call is its name."""

    def __getattr__(self, name: str) -> Any:
        return self if name.islower() else name


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Break one kind of call to one party, as it begins, until it is mended."""
    honest = PartyClient.begin

    def breaks(method: str, party: str) -> None:
        def begin(self: PartyClient, call: Any, request: Any, seconds: float, *more: Any) -> Any:
            if self.name == party and call(Called()) == method:
                raise PeerError("the connection is lost", peer=party)
            return honest(self, call, request, seconds, *more)

        monkeypatch.setattr(PartyClient, "begin", begin)

    breaks.mend = lambda: monkeypatch.setattr(PartyClient, "begin", honest)  # type: ignore[attr-defined]
    return breaks


@pytest.mark.parametrize("method", ["Begin", "Seeds", "Block", "Commit", "Complete"])
def test_an_interrupted_append_goes_on_when_it_is_made_again(
    cluster: InProcess, hospital: Datasets, broken: Any, method: str
) -> None:
    name = f"lost-{method.lower()}"
    hospital.put(name, FIRST, **SAID)
    broken(method, "party-1")
    with pytest.raises(PeerError, match="is lost"):
        hospital.append(name, SECOND)
    broken.mend()
    last = hospital.append(name, SECOND).manifest
    assert (last.version, last.lengths) == (2, (5, 3))
    assert values_of(cluster, last, "c") == joined(FIRST, SECOND)["c"].tolist()


def test_an_interrupted_removal_goes_on_and_removes_no_other_row(
    cluster: InProcess, hospital: Datasets, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    three(hospital, "resumed")
    broken("Complete", "party-1")
    with pytest.raises(PeerError, match="is lost"):
        hospital.remove_rows("resumed", [1], WHOLE)
    vaults = [node.vault for node in cluster.nodes]
    assert eventually(lambda: vaults[0].find("hospital/resumed").version == 4)
    assert vaults[1].find("hospital/resumed").version == 3
    with pytest.raises(SessionError):  # no version is at both
        hospital.get("resumed")
    broken.mend()
    with monkeypatch.context() as patch:
        patch.setattr(
            "parties.client.at_rest.putlog.PutLog.finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):  # all parties have it, and this client does not know
            hospital.remove_rows("resumed", [1], WHOLE)
    last = hospital.remove_rows("resumed", [1], WHOLE).manifest
    assert (last.version, last.rows) == (4, 9) and [each.version for each in hospital.versions("resumed")] == [4]
    assert values_of(cluster, last, "a") == np.delete(WHOLE["a"], 1).tolist()
    left = {name: np.delete(WHOLE[name], 1) for name in "abc"}
    assert hospital.remove_rows("resumed", [1], left).rows == 8  # and now that is another one


def test_what_is_removed_takes_a_put_along_that_keeps_blocks_of_it(hospital: Datasets, broken: Any) -> None:
    hospital.put("both", FIRST, **SAID)
    broken("Block", "party-1")
    with pytest.raises(PeerError):
        hospital.append("both", SECOND)
    broken.mend()
    hospital.remove("both")
    with pytest.raises(SessionError, match="no such object"):
        hospital.append("both", SECOND)


# --- room, files, lies ---------------------------------------------------------------------------


def test_room_is_counted_once_for_each_block_that_is_there(cluster: InProcess, hospital: Datasets) -> None:
    wide = {"x": np.zeros((3, 1 << 17))}
    first = hospital.put("room", wide, ranges=(0, 1), rows_per_person=1).manifest
    alone = granted_bytes(cluster, "hospital/room")
    hospital.append("room", {"x": np.zeros((1, 1 << 17))})
    both = granted_bytes(cluster, "hospital/room")
    assert both[0] == alone[0] > 3 << 20 and 1 << 20 <= both[1] < 2 << 20
    catalogue.remove(cluster.client("hospital"), first.id)
    [left] = granted_bytes(cluster, "hospital/room")
    assert left == pytest.approx(both[0] + both[1], rel=0.01)
    assert hospital.get("room").rows == 4
    last = hospital.get("room").manifest
    assert opened(cluster, last, "x", 0).sum() == 0  # its file is still there


def test_security_43_a_kept_block_takes_no_second_value(cluster: InProcess, hospital: Datasets) -> None:
    first = hospital.put("kept", {"age": [1, 2, 3]}, ranges=(0, 120), rows_per_person=1).manifest
    age = first.columns[0]
    raw = RawPut(
        cluster, name="hospital/kept", version=2, previous=first.id.hex(), rows=4, lengths=(3, 1), columns=(age,)
    )
    kept = [data_pb2.KeptBlock(block=0, of=0)]
    for index in raw.parties:
        raw.call(index, "Begin", data_pb2.BeginRequest(put=raw.id, schema=raw.schema.content, kept=kept))
    with pytest.raises(SessionError, match="is kept from the version before"):
        raw.draw(0)
    commitment = cluster.nodes[0].vault.seed(first.id, "age", 0).commitment()
    with pytest.raises(IntegrityError, match="second value under one seed"):
        raw.send(0, 0, encode_field(np.zeros(3, np.uint64)), commitment)
    masked = cluster.nodes[0].vault.block(first.id, "age", 0)
    assert raw.send(0, 0, masked, commitment)  # the one that it has, once more
    assert encode_field(cluster.nodes[0].vault.block(first.id, "age", 0)) == encode_field(masked)
    [held] = raw.call(0, "Held", data_pb2.HeldRequest(put=raw.id))
    assert held.commitment == commitment


@pytest.mark.parametrize(
    ("changes", "kept", "words"),
    [
        ({}, [(0, 0), (1, 0)], "keep a block twice"),
        ({"lengths": (2, 2)}, [(0, 0)], "does not have the rows of the block"),
        ({}, [(5, 0)], "no block 5"),
        ({}, [(0, 7)], "no block 7"),
        ({"columns": (AGE.model_copy(update={"high": 119}),)}, [(0, 0)], "has other columns"),
        ({"previous": "ab" * 32}, [(0, 0)], "does not follow the newest one"),
        ({}, [(0, 0), (0, 0)], "a block is kept twice"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_each_party(
    cluster: InProcess, hospital: Datasets, changes: dict[str, Any], kept: list[tuple[int, int]], words: str
) -> None:
    first = RawPut(cluster, name=f"hospital/refused-{time.monotonic_ns()}", rows=3).begin().enter()
    whole = first.manifest()
    receipts = [first.commit(index, whole) for index in first.parties]
    for index in first.parties:
        first.complete(index, whole, receipts)
    fields = {"version": 2, "previous": whole.id.hex(), "rows": 4, "lengths": (3, 1), **changes}
    raw = RawPut(cluster, name=whole.name, **fields)
    blocks = [data_pb2.KeptBlock(block=block, of=of) for block, of in kept]
    for index in raw.parties:
        with pytest.raises((InputError, SessionError), match=words):
            raw.call(index, "Begin", data_pb2.BeginRequest(put=raw.id, schema=raw.schema.content, kept=blocks))


def test_a_version_takes_no_tombstone_but_its_own_olders(cluster: InProcess, hospital: Datasets) -> None:
    other = hospital.put("bystander", FIRST, **SAID).manifest
    first = RawPut(cluster, name="hospital/strict", rows=3).begin().enter(table(RawPut(cluster, rows=3).schema))
    whole = first.manifest()
    receipts = [first.commit(index, whole) for index in first.parties]
    client, stranger = cluster.client("hospital"), cluster.client("analyst")
    wrong = [
        (catalogue.tombstone(client, other.id), IntegrityError),
        (catalogue.tombstone(client, whole.id), IntegrityError),
    ]
    wrong.append((catalogue.tombstone(stranger, other.id), SessionError))
    for stone, error in wrong:
        request = data_pb2.CompleteRequest(object=whole.id, receipts=receipts, tombstones=[stone])
        with pytest.raises(error):
            first.call(0, "Complete", request)
    with pytest.raises(SessionError, match="no such object"):
        cluster.nodes[0].vault.manifest(whole.id)
    assert hospital.get("bystander").rows == 5


def test_a_party_that_keeps_something_else_is_named(
    cluster: InProcess, hospital: Datasets, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital.put("named", FIRST, **SAID)
    honest = PartyClient.stream

    def stream(self: PartyClient, call: Any, request: Any, seconds: float) -> Any:
        found = honest(self, call, request, seconds)
        if self.name == "party-1" and isinstance(request, data_pb2.HeldRequest):
            changes = {"commitment": bytes(32)} if kind == "seed" else {"digest": bytes(32)}
            replies = list(found)
            for each in replies:
                for name, value in changes.items():
                    setattr(each, name, value)
            return iter(replies)
        return found

    monkeypatch.setattr(PartyClient, "stream", stream)
    for kind, words in (("seed", "party-1 does not keep block 0"), ("x", "do not hold one block 0")):
        with pytest.raises(IntegrityError, match=words) as caught:
            hospital.append("named", SECOND)
        assert caught.value.peer == ("party-1" if kind == "seed" else None)


def test_nobody_else_adds_or_takes_out_rows(cluster: InProcess, hospital: Datasets) -> None:
    hospital.put("mine", FIRST, **SAID)
    analyst = Datasets(cluster.client("analyst"))
    for refused in (
        lambda: analyst.append("hospital/mine", SECOND),
        lambda: analyst.remove_rows("hospital/mine", [0], FIRST),
    ):
        with pytest.raises((UsageError, PolicyError), match="you are analyst"):
            refused()


# --- two versions, two exact answers --------------------------------------------------------------


def test_who_adds_or_removes_rows_is_told_what_exact_grants_would_tell(cluster: InProcess, hospital: Datasets) -> None:
    client = cluster.client("hospital")
    first = hospital.put("granted", FIRST, **SAID).manifest
    given = granting.give(client, first.id.hex(), exact(dataset=first.id.hex()), ["analyst"], ["analyst"])
    with pytest.warns(
        MpcWarning, match=f"exact grants \\({given.id[:16]}\\) of versions without the 3 rows that you add"
    ):
        hospital.append("granted", SECOND)
    granting.revoke(client, given.id)
    second = hospital.get("granted").manifest
    given = granting.give(client, second.id.hex(), exact(dataset=second.id.hex()), ["analyst"], ["analyst"])
    with pytest.warns(MpcWarning, match="of versions with the 1 row that you remove"):
        hospital.remove_rows("granted", [0], joined(FIRST, SECOND))
