"""Puts that nobody finished: their room is free again, and no name is stuck because one party alone has a version."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from mpc.errors import InputError, MpcWarning, PeerError
from parties.agreed.objects import Schema
from parties.client.at_rest import catalogue, upload
from parties.client.channels import Parties
from parties.party.ledger.sessions import Ledger
from parties.party.vault import catalogue as rows
from parties.party.vault.ending import GIVEN_UP, NEVER_COMPLETED
from parties.party.vault.vault import Vault
from tests.support.objects import AGE, RawPut, described, put, table
from tests.support.parties import InProcess

SAID = described(columns=(AGE,))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[InProcess]:
    with InProcess(tmp_path, 2) as running:
        yield running


class Lost:
    """A call that never reached its party."""

    is_done = True

    def result(self) -> Any:
        raise PeerError("the connection to party-1 was lost", peer="party-1")


def cut_at_complete(client: Parties, monkeypatch: pytest.MonkeyPatch, **put_with: Any) -> None:
    """Put a table that exists at the first party and is whole, but does not count, at the second one."""
    begin = client.clients[1].begin

    def lost(call: Any, request: Any, seconds: float, *more: Any) -> Any:
        stub = MagicMock()
        return Lost() if call(stub) is stub.data.Complete else begin(call, request, seconds, *more)

    with monkeypatch.context() as patch:
        patch.setattr(client.clients[1], "begin", lost)
        with pytest.raises(PeerError):
            put(client, SAID, **put_with)


@contextmanager
def made(days: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """What is put here was made so many days ago, as its schema says."""
    schema = upload.schema_of

    def of_then(*said: Any) -> Schema:
        return schema(*said).model_copy(update={"created": int(time.time()) - days * 86_400})

    with monkeypatch.context() as patch:
        patch.setattr("parties.party.vault.puts.MOST_SKEW", 90 * 86_400)
        patch.setattr(upload, "schema_of", of_then)
        yield patch


def taken(cluster: InProcess, index: int) -> tuple[int, int]:
    """(bytes granted to the hospital, objects that it is putting) at one party."""
    with cluster.ledgers[index].reading() as database:
        _, own, open_ = rows.taken(database, "hospital")
    return own, open_


def age(cluster: InProcess, index: int, seconds: float) -> None:
    """Let a party look after its puts as if its owner had not gone on with any for so long."""
    vault = cluster.nodes[index].vault
    with cluster.ledgers[index].writing() as database:
        database.execute("UPDATE data_objects SET touched = touched - ?", (seconds,))
    vault.times.stored -= 3600
    vault.ending.tick()


def test_what_was_received_and_never_completed_gives_its_room_back(cluster: InProcess) -> None:
    kept = put(cluster.client("hospital"), described("kept", columns=(AGE,)))
    before = taken(cluster, 0)
    half = RawPut(cluster, name="hospital/half").begin().enter()
    whole = half.manifest()
    half.commit(0, whole)
    assert taken(cluster, 0)[1] == taken(cluster, 1)[1] == 1
    age(cluster, 0, GIVEN_UP + 60)  # all of it is here: perhaps the other party has let it exist
    age(cluster, 1, GIVEN_UP + 60)  # a part of it is here
    assert taken(cluster, 0)[1] == 1 and taken(cluster, 1) == before
    age(cluster, 0, NEVER_COMPLETED)
    assert taken(cluster, 0) == before
    assert len(list(cluster.nodes[0].vault.folder.glob("*.block"))) == 1
    assert cluster.nodes[0].vault.manifest(kept.id) == kept


def test_a_receipt_that_is_asked_for_again_keeps_a_put(cluster: InProcess) -> None:
    half = RawPut(cluster, name="hospital/half").begin().enter()
    whole = half.manifest()
    half.commit(0, whole)
    with cluster.ledgers[0].writing() as database:
        database.execute("UPDATE data_objects SET touched = touched - ?", (NEVER_COMPLETED + 60,))
    half.commit(0, whole)
    age(cluster, 0, 0)
    assert taken(cluster, 0)[1] == 1


def test_a_version_that_one_party_alone_has_is_replaced(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner puts other data under that name: nothing is stuck, and no version counts twice."""
    client = cluster.client("hospital")
    first = put(client, SAID)
    cut_at_complete(client, monkeypatch)
    other = described(rows=7, columns=(AGE,))
    with pytest.warns(MpcWarning, match="version 2 of hospital/patients is whole at party-0 alone"):
        third = put(client, other)
    assert third.version == 3
    assert [node.vault.find("hospital/patients") for node in cluster.nodes] == [third, third]
    assert catalogue.describe(client, object_id=first.id) == first
    assert put(client, other).version == 4
    assert [taken(cluster, index)[1] for index in range(2)] == [0, 0]


def test_data_that_have_changed_take_the_place_of_a_put_that_was_cut(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = cluster.client("hospital")
    cut_at_complete(client, monkeypatch)
    with pytest.raises(InputError, match="that begins anew"):
        put(client, SAID, table(SAID, seed=8))
    with pytest.warns(MpcWarning, match="at party-0 alone"):
        assert put(client, SAID, table(SAID, seed=8)).version == 2


@pytest.mark.parametrize("days", [0, 30])
def test_what_a_party_has_dropped_is_put_anew(cluster: InProcess, monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    """The owner comes back after the other party has given up what it was never told to complete."""
    client = cluster.client("hospital")
    with made(days, monkeypatch) as patch:
        cut_at_complete(client, patch)
    age(cluster, 1, NEVER_COMPLETED + 60)
    assert taken(cluster, 1) == (0, 0)
    with pytest.warns(MpcWarning, match="at party-0 alone"):
        again = put(client, SAID)
    assert again.version == 2
    assert [node.vault.find("hospital/patients") for node in cluster.nodes] == [again, again]


def test_a_receipt_of_long_ago_is_still_completed(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three days later, which is more than a put may be old when it begins."""
    client = cluster.client("hospital")
    with made(3, monkeypatch) as patch:
        cut_at_complete(client, patch)
    whole = put(client, SAID)
    assert whole.version == 1
    assert [node.vault.find("hospital/patients") for node in cluster.nodes] == [whole, whole]


def test_numbers_of_versions_only_rise(cluster: InProcess) -> None:
    first = put(cluster.client("hospital"), SAID)
    for version, previous, fits in (
        (1, None, False),
        (2, "ab" * 32, False),
        (2, first.id.hex(), True),
        (5, "ab" * 32, True),
    ):
        raw = RawPut(cluster, version=version, previous=previous, columns=(AGE,))
        if fits:
            raw.begin()
        else:
            with pytest.raises(Exception, match="does not follow"):
                raw.begin()


def test_puts_are_dropped_by_the_partys_own_clock(cluster: InProcess) -> None:
    half = RawPut(cluster, name="hospital/half").begin().enter()
    half.commit(0, half.manifest())
    node = cluster.nodes[0]
    cluster.crash(0)
    clock = [time.time()]
    with Ledger.open(node.config.data_dir) as ledger:
        vault = Vault(node.config, node.identity, ledger, clock=lambda: clock[0])
        vault.times.now()
        clock[0] += NEVER_COMPLETED - 60
        vault.times.now()
        vault.ending.tick()
        assert len(list(vault.folder.glob("*.block"))) == 1
        clock[0] += 120
        vault.times.now()
        vault.ending.tick()
        assert not list(vault.folder.glob("*.block"))
