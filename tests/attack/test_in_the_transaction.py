"""What was looked at before may be otherwise by the time it is written: whoever writes looks again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mpc.errors import SessionError
from parties.agreed.objects import Manifest
from parties.agreed.signed import Signed
from parties.client.at_rest import catalogue
from parties.party.vault import catalogue as rows
from parties.party.vault.ending import Ending
from parties.party.vault.vault import Vault
from parties.pb import data_pb2
from tests.support.objects import AGE, RawPut, described, put
from tests.support.parties import InProcess


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[InProcess]:
    with InProcess(tmp_path, 2) as running:
        yield running


def before_the_transaction(vault: Vault, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    """Act once, between what a removal looks at and what it writes."""
    prepare, done = vault.keys.prepare, []

    def then() -> Any:
        if not done:
            done.append(True)
            act()
        return prepare()

    monkeypatch.setattr(vault.keys, "prepare", then)


def tombstone(cluster: InProcess, whole: Manifest) -> Signed:
    message = catalogue.tombstone(cluster.client("hospital"), whole.id)
    return Signed(message.content, message.signature, message.certificate)


def begin_next(cluster: InProcess, whole: Manifest) -> None:
    """Begin the next version at party 0, which keeps the block of this one."""
    said = {"name": whole.name, "version": 2, "previous": whole.id.hex(), "columns": whole.columns}
    next_ = RawPut(cluster, **said)
    kept = [data_pb2.KeptBlock(block=0, of=0)]
    next_.call(0, "Begin", data_pb2.BeginRequest(put=next_.id, schema=next_.schema.content, kept=kept))


def test_security_43_what_is_removed_is_not_kept_by_a_put_that_begins_meanwhile(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its seeds would lie there under another key, though its owner was told that they are gone."""
    whole = put(cluster.client("hospital"), described(columns=(AGE,)))
    vault, ledger = cluster.nodes[0].vault, cluster.ledgers[0]
    before_the_transaction(vault, monkeypatch, lambda: begin_next(cluster, whole))
    vault.ending.remove(tombstone(cluster, whole), "hospital", vault.owner_key(whole.id))
    with ledger.reading() as database:
        assert database.execute("SELECT count(*) FROM data_blocks").fetchone() == (0,)
    assert not list(vault.folder.glob("*.block"))


def test_an_object_is_removed_once_however_many_ask_at_once(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = put(cluster.client("hospital"), described(columns=(AGE,)))
    vault, stone = cluster.nodes[0].vault, tombstone(cluster, whole)
    key = vault.owner_key(whole.id)
    again = Ending.erase
    done: list[bool] = []

    def twice(self: Ending, which: Any) -> Any:
        if not done:  # somebody else's call comes first
            done.append(True)
            vault.ending.remove(stone, "hospital", key)
        return again(self, which)

    monkeypatch.setattr(Ending, "erase", twice)
    vault.ending.remove(stone, "hospital", key)
    with cluster.ledgers[0].reading() as database:
        query = 'SELECT count(*) FROM audit WHERE instr(CAST(row AS TEXT), \'"kind":"remove"\')'
        assert database.execute(query).fetchone() == (1,)


def test_who_ends_a_put_that_has_ended_ends_no_other(cluster: InProcess) -> None:
    """Numbers of rows are given again."""
    vault = cluster.nodes[0].vault
    half = RawPut(cluster, name="hospital/half").begin()
    with cluster.ledgers[0].reading() as database:
        row = rows.by_put(database, half.id)
    assert row is not None
    vault.ending.erase_all([row])
    whole = put(cluster.client("hospital"), described(columns=(AGE,)))
    with cluster.ledgers[0].reading() as database:
        found = rows.by_id(database, whole.id.hex())
    assert found is not None and found.number == row.number
    vault.ending.erase_all([row])
    assert vault.manifest(whole.id) == whole


def test_a_put_that_its_owner_completes_is_not_given_up_meanwhile(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A week after the last word of its owner, who comes just then: all other parties have it."""
    late = RawPut(cluster, name="hospital/late").begin().enter()
    whole = late.manifest()
    receipts = [late.commit(index, whole) for index in late.parties]
    vault = cluster.nodes[0].vault
    with cluster.ledgers[0].writing() as database:
        database.execute("UPDATE data_objects SET touched = touched - ?", (30 * 86_400,))
    vault.times.stored -= 3600
    before_the_transaction(vault, monkeypatch, lambda: late.complete(0, whole, receipts))
    vault.ending.tick()
    assert vault.manifest(whole.id) == whole


def test_an_object_that_goes_while_it_is_read_is_one_that_is_not_here(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = put(cluster.client("hospital"), described(columns=(AGE,)))
    vault, stone = cluster.nodes[0].vault, tombstone(cluster, whole)
    key, reading, looks = vault.owner_key(whole.id), vault.ledger.reading, []

    def then() -> Any:
        looks.append(True)
        if len(looks) == 2:  # the first one found that it is here
            vault.ending.remove(stone, "hospital", key)
        return reading()

    monkeypatch.setattr(vault.ledger, "reading", then)
    with pytest.raises(SessionError, match="no such object here"):
        vault.signed(whole.id)
