"""Data at rest: what lies on disks, what an owner or a party may lie about, who may put and see what."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import blake3
import numpy as np
import pytest

from mpc import field as fp
from mpc.compiler.compile import compile_model
from mpc.compiler.roles import Roles
from mpc.encoding import encode_field
from mpc.errors import (
    EncodingError,
    InputError,
    IntegrityError,
    MpcError,
    PeerError,
    PlanError,
    PolicyError,
    SessionError,
)
from mpc.prg import Seed, expand_field
from parties.agreed.columns import Column
from parties.agreed.objects import Manifest
from parties.agreed.receipts import Receipt, Tombstone
from parties.agreed.signed import key_of
from parties.client.at_rest import bound, catalogue, sending, upload
from parties.client.channels import Parties
from parties.client.datasets import Datasets
from parties.client.running.coordinated import CoordinatedSession
from parties.client.selection import Selection
from parties.config.models import Limits, PolicyConfig
from parties.party.node import PartyNode
from parties.party.vault.admission import MOST_PUTS
from parties.party.vault.blocks import Block
from parties.party.vault.puts import Puts
from parties.pb import data_pb2, data_pb2_grpc
from parties.pb.data_pb2 import SignedStatement
from tests.support.objects import AGE, BMI, COLUMNS, RawPut, blocks, described, put, table
from tests.support.parties import CLUSTER, FEATURES, PATIENCE, InProcess, deadlines, eventually, tiny_model

TINY = Column(name="scan", type="array", scale=Fraction(1 << 20), low=-4, high=4, shape=(FEATURES,))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[InProcess]:
    with InProcess(tmp_path, 2) as running:
        yield running


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- one seed, one value --------------------------------------------------------------------


def test_security_43_two_values_under_one_seed_are_impossible(cluster: InProcess) -> None:
    raw = RawPut(cluster).begin().enter()
    one, other = raw.x[0], raw.masked(table(raw.schema, seed=4))[0]
    assert raw.send(0, 0, one)  # the same once more is no second value
    with pytest.raises(IntegrityError, match="second value under one seed") as caught:
        raw.send(0, 0, other)
    assert caught.value.peer == "hospital"
    [held] = raw.call(0, "Held", data_pb2.HeldRequest(put=raw.id))
    assert held.digest == blake3.blake3(encode_field(one)).digest()
    drawn = {seed.secret for _ in range(4) for seed in raw.draw(1)} | {raw.seeds[1][0].secret}
    assert len(drawn) == 5  # asked again, a party gives another: what lay under the old one is gone, and stays out
    assert not list(cluster.nodes[1].vault.folder.glob("*.block"))
    with pytest.raises(SessionError, match="another seed"):
        raw.send(1, 0, one)
    with pytest.raises(SessionError, match="is not here"):
        raw.commit(1, raw.manifest())
    raw.enter()
    whole = raw.manifest()
    receipts = [raw.commit(index, whole) for index in raw.parties]
    for state in ("received", "living"):
        for call in (lambda: raw.draw(0), lambda: raw.send(0, 0, other), lambda: raw.send(0, 0, raw.x[0])):
            with pytest.raises(SessionError, match="nothing of it changes"):
                call()
        for index in raw.parties if state == "received" else ():
            raw.complete(index, whole, receipts)
    assert np.array_equal(cluster.nodes[0].vault.block(whole.id, "age", 0), raw.x[0])


# --- disks, logs, the provider ---------------------------------------------------------------


def test_nothing_lies_on_a_disk_or_in_a_log_in_the_clear(
    cluster: InProcess, written: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    client, said = cluster.client("hospital"), described(rows=4096, columns=(AGE, BMI))
    whole = put(client, said)
    values, printed = table(said), "".join(capsys.readouterr())
    logged = written.getvalue()
    assert "an object was put" in logged
    for index, node in enumerate(cluster.nodes):
        found = files_of(cluster.folder / f"data-{index}")
        everything = b"".join(found.values()) + logged.encode() + printed.encode()
        for column in ("age", "bmi"):
            seed, masked = node.vault.seed(whole.id, column, 0), node.vault.block(whole.id, column, 0)
            secrets = [seed.secret, seed.secret.hex().encode(), encode_field(masked)[:64], encode_field(masked)[-64:]]
            secrets += [values[column].astype("<i8").tobytes()[:64]]
            assert not any(secret in everything for secret in secrets)
        assert sum(path.suffix == ".block" for path in found) == 2
        for path in found:
            assert path.stat().st_mode & 0o077 == 0
            assert path.suffix != ".block" or len(bytes.fromhex(path.stem)) == 16
    log = (cluster.client("hospital").config.tls.key.parent / "hospital.puts.sqlite").read_bytes()
    assert whole.columns[0].name.encode() not in log  # what is done leaves no row


def test_what_is_removed_cannot_be_opened_with_what_the_party_has_left(cluster: InProcess) -> None:
    client, said = cluster.client("hospital"), described(rows=4096, columns=(AGE,))
    whole, stays = put(client, said), put(client, described("others", columns=(AGE,)))
    folder = cluster.folder / "data-0"
    before = files_of(folder)
    with cluster.ledgers[0].reading() as database:
        [sealed] = database.execute("SELECT key FROM data_objects WHERE object = ?", (whole.id.hex(),)).fetchone()
        rows = database.execute(
            "SELECT sealed FROM data_blocks WHERE number = (SELECT number FROM data_objects WHERE object = ?)",
            (whole.id.hex(),),
        ).fetchall()
    catalogue.remove(client, whole.id)
    after = files_of(folder)
    everything = b"".join(after.values())
    wrapping = before[folder / "vault" / "key"]
    assert wrapping not in everything and sealed not in everything and rows[0][0] not in everything
    assert sum(path.suffix == ".block" for path in after) == 1
    # a copy of the database from before is refused, since the removal moved the ledger's epoch
    cluster.crash(0)
    for name in ("ledger.sqlite-wal", "ledger.sqlite-shm"):
        (folder / name).unlink(missing_ok=True)
    (folder / "ledger.sqlite").write_bytes(before[folder / "ledger.sqlite"] or b"")
    (folder / "ledger.sqlite-wal").write_bytes(before[folder / "ledger.sqlite-wal"])
    with pytest.raises(MpcError, match="restored from a backup"):
        cluster.revive(0)
    assert stays.version == 1


def test_the_provider_has_no_part_in_a_put(cluster: InProcess) -> None:
    cluster.stop_provider()
    whole = put(cluster.client("hospital"), described())
    for name in ("provider", "party-1"):
        for method, request in (
            ("Describe", data_pb2.DescribeObjectRequest(object=whole.id)),
            ("List", data_pb2.ListRequest()),
            ("Newest", data_pb2.NewestRequest(name=whole.name)),
        ):
            with pytest.raises(PolicyError):
                getattr(cluster.data(0, name), method)(request)


# --- owners that lie --------------------------------------------------------------------------


def test_an_owners_lies_are_refused_and_named(cluster: InProcess) -> None:
    raw = RawPut(cluster, columns=(AGE, BMI)).begin().enter()
    good = raw.manifest()
    swapped = {"age": good.commitments["bmi"], "bmi": good.commitments["age"]}
    lies = {
        "another seed": good.model_copy(update={"commitments": swapped}),
        "other contents": good.model_copy(update={"contents": "ab" * 32}),
        "something else than its schema": good.model_copy(update={"rows_per_person": 2}),
    }
    for message, lie in lies.items():
        with pytest.raises(IntegrityError, match=message) as caught:
            raw.commit(0, lie)
        assert caught.value.peer == "hospital"
    with pytest.raises(IntegrityError, match="for 'clinic', not 'hospital'"):
        raw.commit(0, good, signer="clinic")
    with pytest.raises(SessionError, match="no such object"):
        cluster.nodes[0].vault.manifest(good.id)


def test_values_that_differ_between_the_parties_are_found_by_the_one_that_has_others(cluster: InProcess) -> None:
    raw = RawPut(cluster).begin()
    raw.seeds = [raw.draw(index) for index in raw.parties]
    raw.x = raw.masked(table(raw.schema))
    raw.send(0, 0, raw.x[0])
    raw.send(1, 0, raw.masked(table(raw.schema, seed=9))[0])
    whole = raw.manifest()
    receipt = raw.commit(0, whole)
    with pytest.raises(IntegrityError, match="hospital sent party-1 other contents") as caught:
        raw.commit(1, whole)
    assert caught.value.peer == "hospital"
    for receipts in ([receipt], [receipt, receipt], []):
        with pytest.raises(IntegrityError):
            raw.complete(0, whole, receipts)
    with pytest.raises(SessionError, match="no such object"):
        cluster.nodes[0].vault.manifest(whole.id)


def test_an_object_exists_only_once_all_receipts_were_shown(cluster: InProcess) -> None:
    raw = RawPut(cluster).begin().enter()
    whole = raw.manifest()
    receipts = [raw.commit(index, whole) for index in raw.parties]
    other = Receipt(cluster=CLUSTER, party="party-1", object="ab" * 32, at=1).sign(cluster.identity("party-1"))
    foreign = Receipt(cluster="f" * 32, party="party-1", object=whole.id.hex(), at=1)
    forged = Receipt(cluster=CLUSTER, party="party-1", object=whole.id.hex(), at=1).sign(cluster.identity("hospital"))
    for wrong in (other, foreign.sign(cluster.identity("party-1")), forged):
        message = SignedStatement(content=wrong.content, signature=wrong.signature, certificate=wrong.certificate)
        with pytest.raises(IntegrityError):
            raw.complete(0, whole, [receipts[0], message])
    with pytest.raises(IntegrityError):
        raw.complete(0, whole, receipts[::-1])
    for vault in (node.vault for node in cluster.nodes):
        with pytest.raises(SessionError, match="no such object"):
            vault.find(whole.name)
    raw.complete(0, whole, receipts)
    assert cluster.nodes[0].vault.find(whole.name) == whole
    with pytest.raises(SessionError, match="no such object"):
        cluster.nodes[1].vault.find(whole.name)


def test_blocks_are_checked_before_they_count(cluster: InProcess) -> None:
    raw = RawPut(cluster).begin()
    raw.seeds = [raw.draw(index) for index in raw.parties]
    for wrong, error in (
        (b"\xff" * 40, EncodingError),
        ((2**61 - 1).to_bytes(8, "little") * 5, EncodingError),
        (bytes(39), PeerError),
        (bytes(48), PeerError),
        (b"", PeerError),
        (bytes(8 << 20), PeerError),
    ):
        with pytest.raises(error):
            raw.send(0, 0, wrong)
        assert not list(cluster.nodes[0].vault.folder.glob("*.block"))
    for place in (1, 1 << 31):
        with pytest.raises(MpcError):
            raw.send(0, place, bytes(40), raw.seeds[0][0].commitment())
    assert raw.send(0, 0, bytes(40))


# --- parties that lie -------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["seed", "commitment"])
def test_a_party_that_commits_to_another_seed_is_named(
    cluster: InProcess, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = cluster.client("hospital")
    honest = stub.clients[1].begin

    def lying(call: Any, request: Any, seconds: float, *more: Any) -> Any:
        reply = honest(call, request, seconds, *more)
        if not isinstance(request, data_pb2.SeedsRequest):
            return reply

        class Lie:
            def result(self) -> data_pb2.SeedsReply:
                given = reply.result()
                setattr(given.seeds[0], field, bytes(32))
                return given

        return Lie()

    monkeypatch.setattr(stub.clients[1], "begin", lying)
    with pytest.raises(IntegrityError, match="party-1 commits to another seed") as caught:
        put(stub, described())
    assert caught.value.peer == "party-1"


def test_a_party_that_says_it_received_something_else_is_named(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = Puts.receive

    def lying(self: Puts, *args: Any) -> bytes:
        found = receive(self, *args)
        return bytes(32) if self._config.name == "party-1" else found

    monkeypatch.setattr(Puts, "receive", lying)
    with pytest.raises(IntegrityError, match="party-1 says that it received something else"):
        put(cluster.client("hospital"), described())


def test_a_seed_that_is_not_the_one_that_was_put_never_leaves_a_party(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = put(cluster.client("hospital"), described(columns=(AGE,)))
    node: PartyNode = cluster.nodes[0]
    monkeypatch.setattr("parties.party.vault.vault.open_block", lambda *_: Block(Seed(bytes(32)), bytes(32), "ab" * 16))
    with pytest.raises(IntegrityError, match="not the one it was put with"):
        node.vault.seed(whole.id, "age", 0)


def test_no_block_takes_anothers_place_on_a_disk(cluster: InProcess) -> None:
    """Each file is whole, and its key fits: which block it is of is sealed, too."""
    columns = (AGE, AGE.model_copy(update={"name": "age again"}))
    whole = put(cluster.client("hospital"), described(columns=columns))
    vault = cluster.nodes[0].vault
    right = vault.rows(whole.id, "age", 0, 0, 5)
    with cluster.ledgers[0].writing() as database:
        database.execute("UPDATE data_blocks SET file = (SELECT file FROM data_blocks WHERE place = 1) WHERE place = 0")
    with pytest.raises(IntegrityError, match="another file was laid"):
        vault.rows(whole.id, "age", 0, 0, 5)
    assert right.tolist() != vault.rows(whole.id, "age again", 0, 0, 5).tolist()


# --- others' certificates -----------------------------------------------------------------------


def refusal(call: Any) -> tuple[str, str]:
    with pytest.raises(MpcError) as caught:
        call()
    return caught.value.code, str(caught.value)


def test_another_certificate_puts_nothing_under_a_name(cluster: InProcess) -> None:
    whole = put(cluster.client("hospital"), described(columns=(AGE,)))
    raw = RawPut(cluster, owner="mallory")
    raw.schema = RawPut(cluster).schema
    with pytest.raises(PolicyError, match="puts nothing under the name of 'hospital'"):
        raw.begin()
    mine = RawPut(cluster, "hospital", name="hospital/new").begin()
    mine.owner = "mallory"
    for call in (lambda: mine.draw(0), lambda: mine.call(0, "Held", data_pb2.HeldRequest(put=mine.id))):
        assert refusal(call)[1].count("no such put of yours")
    stone = Tombstone(cluster=CLUSTER, owner="hospital", object=whole.id.hex(), at=1)
    for signer in ("mallory", "hospital"):
        signed = stone.sign(cluster.identity(signer))
        message = SignedStatement(content=signed.content, signature=signed.signature, certificate=signed.certificate)
        with pytest.raises(MpcError):
            cluster.data(0, "mallory").Remove(message)
    elsewhere = stone.model_copy(update={"cluster": "f" * 32}).sign(cluster.identity("hospital"))
    message = SignedStatement(
        content=elsewhere.content, signature=elsewhere.signature, certificate=elsewhere.certificate
    )
    with pytest.raises(IntegrityError, match="another cluster"):
        cluster.data(0, "hospital").Remove(message)
    assert cluster.nodes[0].vault.manifest(whole.id) == whole


def test_a_name_that_is_issued_again_inherits_nothing(cluster: InProcess) -> None:
    whole = put(cluster.client("hospital"), described(columns=(AGE,), visible=()))
    cluster.renew("hospital")
    client = cluster.client("hospital")
    assert catalogue.search(client) == []
    with pytest.raises(PolicyError, match="put with another key"):
        put(client, described(columns=(AGE,)))
    with pytest.raises(SessionError, match="no such object"):
        catalogue.remove(client, whole.id)
    with pytest.raises(SessionError, match="no such object"):
        catalogue.describe(client, whole.name)
    assert put(client, described("fresh", columns=(AGE,))).version == 1


def reading(tmp_path: Path, made: Manifest, client: Parties, **changes: Any) -> CoordinatedSession:
    """A session of the tiny model over all rows of a table of one array."""
    chosen = Selection(made, ("scan",), False)
    me = client.config.name
    roles, stored = Roles(me, made.owner, (me,)), {"x": bound.described(chosen)}
    compiled = compile_model(tiny_model(tmp_path / "m.onnx"), None, roles, stored=stored)
    bindings = [replace(each, **changes) for each in bound.bindings(compiled.plan, {"x": chosen})]
    return CoordinatedSession(client, compiled.plan, compiled.weights, bindings=bindings)


def test_a_name_that_is_issued_again_reads_nothing_in_a_session(cluster: InProcess, tmp_path: Path) -> None:
    """An object belongs to a key also where it is computed on: else the name's next holder asks for the identity."""
    client = cluster.client("hospital")
    made = put(client, described(columns=(TINY,)))
    reading(tmp_path, made, client).close()
    cluster.renew("hospital")
    with pytest.raises(SessionError, match="no such object"):
        reading(tmp_path, made, cluster.client("hospital"))


def test_nobody_learns_from_a_binding_that_an_object_is_there(cluster: InProcess, tmp_path: Path) -> None:
    """Rows, columns, ranges, the name: what a binding does not fit is told to the owner alone."""
    made = put(cluster.client("hospital"), described(columns=(TINY,), visible=()))
    wrong: list[dict[str, Any]] = [
        {},
        {"rows": 6},
        {"columns": ("nobody",)},
        {"columns": ("scan", "scan")},
        {"object": bytes(32)},
    ]
    for owner in ("hospital", "stranger"):
        as_if = made.model_copy(update={"owner": owner})
        for more in wrong:
            asked = {"object": made.id, **more}
            code, told = refusal(lambda a=asked, m=as_if: reading(tmp_path, m, cluster.client("stranger"), **a))
            assert code == "session" and told.partition(": ")[2].startswith("there is no such object here")


def test_a_name_that_is_issued_again_is_asked_of_the_policy(tmp_path: Path) -> None:
    """What everybody may see whom a party lets in, an owner's name alone does not show."""
    with InProcess(tmp_path, 2) as cluster:
        made = put(cluster.client("hospital"), described(visible=("any",)))
        for index in range(2):
            cluster.crash(index)
            cluster.revive(index, PolicyConfig(coordinators=("somebody",)))
        assert catalogue.describe(cluster.client("hospital"), made.name) == made  # it may look after what is its own
        cluster.renew("hospital")
        client = cluster.client("hospital")
        for ask in (lambda: catalogue.search(client), lambda: catalogue.describe(client, made.name)):
            with pytest.raises(PolicyError, match="has no part"):
                ask()


def test_unknown_invisible_and_removed_objects_get_one_answer(cluster: InProcess) -> None:
    client = cluster.client("hospital")
    hidden, gone = (
        put(client, described("hidden", visible=("analyst",))),
        put(client, described("gone", visible=("any",))),
    )
    catalogue.remove(client, gone.id)
    unfinished = RawPut(cluster, name="hospital/half", visible=("any",)).begin().enter()
    half = unfinished.manifest()
    unfinished.commit(0, half)
    ask = cluster.data(0, "stranger").Describe
    answers = {
        refusal(lambda name=name: ask(data_pb2.DescribeObjectRequest(name=name)))
        for name in ("hospital/hidden", "hospital/gone", "hospital/half", "hospital/never", "", "\x00")
    } | {
        refusal(lambda each=each: ask(data_pb2.DescribeObjectRequest(object=each)))
        for each in (hidden.id, gone.id, half.id, bytes(32), b"x")
    }
    assert len(answers) == 1
    assert catalogue.describe(cluster.client("analyst"), "hospital/hidden") == hidden
    vault = cluster.nodes[0].vault
    assert vault.find("hospital/hidden") == hidden
    told = {refusal(lambda name=name: vault.find(name, "stranger", b"k")) for name in ("hospital/hidden", "a/b")}
    assert len(told) == 1
    assert catalogue.search(cluster.client("stranger")) == []


# --- interrupted puts ---------------------------------------------------------------------------


def test_an_interrupted_put_goes_on_where_it_was(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    said = described(rows=3 * 65_536, columns=(AGE, BMI))
    values, client = table(said), cluster.client("hospital")

    def broken() -> Iterator[Any]:
        for number, block in enumerate(blocks(values)):
            if number == 2:
                raise KeyboardInterrupt
            yield block

    monkeypatch.setattr(sending, "ON_THEIR_WAY", 0)  # each block is answered before the next one is sent
    with pytest.raises(KeyboardInterrupt):
        upload.put(client, said, broken())
    asked: list[tuple[int, tuple[int, ...]]] = []
    seeds = Puts.seeds

    def counting(self: Puts, put_id: bytes, block: int, places: Any, key: bytes) -> list[Seed]:
        asked.append((block, tuple(places)))
        return seeds(self, put_id, block, places, key)

    monkeypatch.setattr(Puts, "seeds", counting)
    values["bmi"][0] += 1 if values["bmi"][0] < BMI.ends[1] else -1  # the table has changed meanwhile
    whole = put(client, said, values)
    assert asked.count((0, (1,))) == asked.count((2, (0, 1))) == 2  # once a party
    assert not [(block, places) for block, places in asked if block < 2 and 0 in places]
    assert whole.version == 1
    assert [len(list(node.vault.folder.glob("*.block"))) for node in cluster.nodes] == [6, 6]
    for column in ("age", "bmi"):
        assert np.array_equal(shared(cluster, whole.id, column, 0), values[column][:65_536])


def shared(cluster: InProcess, object_id: bytes, column: str, block: int) -> np.ndarray:
    """What all parties together hold."""
    vaults = [node.vault for node in cluster.nodes]
    value = vaults[0].block(object_id, column, block)
    for vault in vaults:
        value = fp.sub(value, expand_field(vault.seed(object_id, column, block), value.shape))
    return fp.to_signed(value)


class Lost:
    """A call that never reached its party."""

    is_done = True

    def result(self) -> Any:
        raise PeerError("the connection to party-1 was lost", peer="party-1")


@pytest.mark.parametrize("method", ["Commit", "Complete"])
def test_a_put_that_was_cut_at_its_end_is_finished(
    cluster: InProcess, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One party has given its receipt, or was shown all of them; the other has not."""
    client, said = cluster.client("hospital"), described(columns=(AGE,))
    with monkeypatch.context() as patch:
        begin = client.clients[1].begin

        def lost(call: Any, request: Any, seconds: float, *more: Any) -> Any:
            stub = MagicMock()
            return Lost() if call(stub) is getattr(stub.data, method) else begin(call, request, seconds, *more)

        patch.setattr(client.clients[1], "begin", lost)
        with pytest.raises(PeerError):
            put(client, said)
    first = [node.vault.entries("hospital", key_of(client.identity.certificate_pem)) for node in cluster.nodes]
    assert [len(entries) for entries in first] == ([0, 0] if method == "Commit" else [1, 0])
    whole = put(client, said)
    assert whole.version == 1
    assert [node.vault.find(whole.name) for node in cluster.nodes] == [whole, whole]
    assert put(client, said).version == 2
    with (
        monkeypatch.context() as patch
    ):  # and if the data are others by then, that is said, and nothing is masked twice
        patch.setattr(client.clients[1], "begin", lost)
        with pytest.raises(PeerError):
            put(client, said)
    if method == "Commit":
        with pytest.raises(InputError, match="not those of the interrupted put"):
            put(client, said, table(said, seed=8))
        assert put(client, said, table(said, seed=8)).version == 3


def test_sample_rows_that_are_taken_back_are_not_published_by_an_interrupted_put(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest was signed, and nobody else has it: what its owner says now is what is put."""
    client = cluster.client("hospital")
    published = described(columns=(AGE,), sample={"age": (61, 17)})
    with monkeypatch.context() as patch:
        patch.setattr(client.clients[0], "begin", _without(client.clients[0].begin, "Commit"))
        patch.setattr(client.clients[1], "begin", _without(client.clients[1].begin, "Commit"))
        with pytest.raises(PeerError):
            put(client, published)
    whole = put(client, described(columns=(AGE,)))
    assert (whole.version, whole.sample) == (1, {})
    assert catalogue.describe(client, whole.name) == whole


def _without(begin: Any, method: str) -> Any:
    """Calls, but for those of one method, which nobody answers."""

    def call(of: Any, request: Any, seconds: float, *more: Any) -> Any:
        stub = MagicMock()
        return Lost() if of(stub) is getattr(stub.data, method) else begin(of, request, seconds, *more)

    return call


def test_what_is_here_in_part_is_removed_too(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that one party lets exist and the other has received goes with its name."""
    client, said = cluster.client("hospital"), described(columns=(AGE,))
    put(client, said)
    with monkeypatch.context() as patch:
        patch.setattr(client.clients[1], "begin", _without(client.clients[1].begin, "Complete"))
        with pytest.raises(PeerError):
            put(client, said)
    assert [len(list(node.vault.folder.glob("*.block"))) for node in cluster.nodes] == [2, 2]
    removed = Datasets(client).remove(said.name)
    assert sorted(entry.version for entry in removed) == [1, 2]
    assert not any(list(node.vault.folder.glob("*.block")) for node in cluster.nodes)


def test_a_party_that_lists_another_object_under_a_name_has_nothing_removed(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = cluster.client("hospital")
    kept, other = put(client, described(columns=(AGE,))), put(client, described("other", columns=(AGE,)))
    real = catalogue.list_of

    def lying(parties: Any, party: Any, words: str) -> Any:
        listed = real(parties, party, words)
        return (
            {each: replace(entry, name=kept.name) for each, entry in listed.items()}
            if party.name == "party-1"
            else listed
        )

    monkeypatch.setattr(catalogue, "list_of", lying)
    with pytest.raises(IntegrityError, match="lists another object") as caught:
        Datasets(client).remove("patients")
    assert caught.value.peer == "party-1"
    assert all(node.vault.manifest(whole.id) == whole for node in cluster.nodes for whole in (kept, other))


# --- one certificate that takes all it can -----------------------------------------------------


def test_an_owner_that_takes_all_its_places_leaves_the_others_theirs(tmp_path: Path) -> None:
    """Half a block on each of its places: others put meanwhile, and what it began ends by itself."""
    quick = deadlines(connect=2, setup=8, step=2, submit=4)
    with InProcess(tmp_path, 2, deadlines=quick) as cluster:
        raw, over = RawPut(cluster, "mallory").begin(), threading.Event()
        raw.seeds = [raw.draw(index) for index in raw.parties]
        header = data_pb2.BlockHeader(put=raw.id, commitment=raw.seeds[0][0].commitment())

        def half() -> Iterator[data_pb2.BlockPart]:
            yield data_pb2.BlockPart(header=header)
            yield data_pb2.BlockPart(chunk=bytes(8))
            over.wait(PATIENCE)

        stub = data_pb2_grpc.DataStub(cluster.channel("mallory", "party-0"))
        calls = [stub.Block.future(half(), timeout=PATIENCE) for _ in range(12)]
        assert put(cluster.client("hospital"), described()).version == 1
        assert all(call.exception(timeout=PATIENCE) is not None for call in calls)
        over.set()
        assert eventually(lambda: cluster.nodes[0].budget.taken == 0)
        assert len(list(cluster.nodes[0].vault.folder.glob("*.block"))) == len(COLUMNS)


def test_what_a_call_takes_is_asked_of_the_budget_before(tmp_path: Path) -> None:
    with InProcess(tmp_path, 2, limits=Limits(max_memory_bytes=3 << 20)) as cluster:
        raw = RawPut(cluster).begin()
        raw.seeds = [raw.draw(index) for index in raw.parties]
        with pytest.raises(PlanError, match="more memory than the limit"):
            raw.send(0, 0, bytes(40))
        with pytest.raises(InputError, match="has .* at most"):
            header = data_pb2.CommitHeader(put=raw.id, size=1 << 24)
            raw.call(0, "Commit", iter([data_pb2.CommitPart(header=header)]))
        assert cluster.nodes[0].budget.taken == 0


def test_an_owner_puts_so_many_at_once(cluster: InProcess) -> None:
    for number in range(MOST_PUTS):
        RawPut(cluster, name=f"hospital/t{number}").begin()
    with pytest.raises(SessionError, match="as many as one owner may"):
        RawPut(cluster, name="hospital/more").begin()
    RawPut(cluster, name="hospital/t3").begin()  # in the place of its older one
    RawPut(cluster, "clinic").begin()
