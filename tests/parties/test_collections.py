"""Collections: many clients enter a row each, at different times; one noised sum is told, or nothing."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from mpc.errors import InputError, MpcWarning, PeerError, PolicyError, SessionError, UsageError, WaitingError
from mpc.privacy.facts import Loss
from parties import Cluster
from parties.agreed.collecting import Collection as Said
from parties.agreed.collecting import contribution_name
from parties.agreed.keeps import Keep
from parties.agreed.signed import key_of
from parties.client.at_rest.said import as_end
from parties.client.collections import collection
from parties.client.collections.spent import Spent, place_of
from parties.party.vault import catalogue
from parties.party.vault.ending import NEVER_COMPLETED
from parties.party.vault.keeps import Making
from parties.pb import collect_pb2
from tests.support import objects
from tests.support.collections import SIZE, enter, enter_all, finish, opened, over, raw, row
from tests.support.objects import RawPut
from tests.support.parties import COORDINATOR, InProcess
from tests.support.parties_commands import ROOT


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("collections"), 2) as running:
        yield running


def test_a_sum_of_those_who_came(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four of five come, one of them drops out half way; the coordinator is not there meanwhile, nor is the provider
    asked for anything."""
    made = opened(cluster, "updates")
    rows = enter_all(cluster, made, 3)
    dropped = raw(cluster, made, "half").begin().enter()
    dropped.commit(0, dropped.manifest())
    assert made.standing.entered == 3
    assert not made.standing.closed
    with pytest.raises(SessionError, match="is open for"):
        made.close()
    over(cluster, monkeypatch)
    with pytest.raises(SessionError, match="is closed"):
        enter(cluster, made, "late", row(9))
    again = collection.find(cluster.client(), "updates")  # a new process of the coordinator's
    found = again.sum()
    assert found.rows == 3
    assert np.abs(found.value - sum(rows)).max() < 6 * found.std
    assert (found.epsilon, found.mechanism) == (2, "gaussian")
    assert found.delta <= Fraction(1, 10**6)
    assert made.standing.closed
    with pytest.raises(PolicyError, match="has been told") as caught:
        again.sum()
    assert not isinstance(caught.value, WaitingError) and "mpc requests" not in str(caught.value)
    assert caught.value.remedy == "open another collection for another sum"


def test_a_mean_of_a_full_one_before_its_time(cluster: InProcess) -> None:
    made = opened(cluster, "means", epsilon=4, at_least=2, at_most=2)
    said = re.search(r"the mean's noise has a standard deviation of ([\d.e-]+) if 2 enter a row", repr(made))
    rows = enter_all(cluster, made, 2)
    with pytest.raises(SessionError, match="is full"):
        enter(cluster, made, "client-2", row(3))
    found = made.mean()
    assert said is not None and float(said[1]) == pytest.approx(found.std, rel=0.05)
    assert np.abs(found.value - np.mean(rows, axis=0)).max() < 6 * found.std


def test_a_count_has_laplace_noise(cluster: InProcess) -> None:
    parties = cluster.client()
    made = collection.open_collection(parties, "count", 1, 0, 1, at_least=2, at_most=4, epsilon=5, until=60)
    for number, bit in enumerate((1, 0, 1, 1)):
        enter(cluster, made, f"client-{number}", np.array([bit]))
    found = made.sum()
    assert found.mechanism == "laplace"
    assert abs(found.value[0] - 3) < 12 * found.std


def test_fewer_than_were_promised_are_told_nothing_ever(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    made = opened(cluster, "few")
    enter_all(cluster, made, 2)
    over(cluster, monkeypatch)
    for _ in range(2):
        with pytest.raises(SessionError, match="has 2 rows, and nothing of fewer than 3 is ever told"):
            made.sum()
    monkeypatch.undo()
    with pytest.raises(SessionError, match="is closed"):
        enter(cluster, made, "client-2", row(2))


def test_one_row_of_each(cluster: InProcess) -> None:
    made = opened(cluster, "once")
    enter(cluster, made, "client-0", row(0))
    with pytest.raises(SessionError, match="has entered a row"):
        enter(cluster, made, "client-0", row(1))
    with pytest.raises(SessionError, match="does not follow"):
        raw(cluster, made, "client-0").begin()
    mine = collection.find(cluster.client("client-0"), made.name)
    mine.take_back()
    assert made.standing.entered == 0
    with pytest.raises(SessionError, match="has entered a row"):
        enter(cluster, made, "client-0", row(1))
    with pytest.raises(SessionError, match="has no row"):
        collection.find(cluster.client("client-1"), made.name).take_back()


def test_what_is_entered_by_hand_is_counted_before_it_leaves(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each collection, whatever comes of it: a total, as clients of Flower have one, is of all of them."""
    parties = cluster.client("counting")
    spent = Spent(place_of(parties.config))
    made = opened(cluster, "by-hand")
    with pytest.raises(InputError):  # of a row that is none nothing leaves
        enter(cluster, made, "counting", np.full(SIZE, np.nan))
    assert spent.loss == Loss()
    with monkeypatch.context() as patch:
        patch.setattr(collection.upload, "put", MagicMock(side_effect=PeerError("a connection was lost")))
        with pytest.raises(PeerError):
            enter(cluster, made, "counting", row(0))
    told = Loss(made.said.epsilon, made.said.delta)
    assert spent.loss == told
    enter(cluster, made, "counting", row(0))
    assert spent.loss == told
    enter(cluster, opened(cluster, "by-hand-too"), "counting", row(0))
    assert spent.loss == told + told
    with pytest.raises(PolicyError, match="would tell more than it allows"):
        spent.spend("0" * 64, "lab/round-1", told, told + told)


def test_a_row_is_not_taken_back_once_it_counts(cluster: InProcess) -> None:
    made = opened(cluster, "counted", at_least=2, at_most=2)
    enter_all(cluster, made, 2)
    for index in range(2):  # closed at both, gathered at none
        service = cluster.collect(index, COORDINATOR)
        service.CloseCollection(collection_request(made.said))
    with pytest.raises(SessionError, match="counts on this row"):
        collection.find(cluster.client("client-0"), made.name).take_back()
    assert made.sum().rows == 2


def collection_request(said: Said) -> collect_pb2.CollectionRequest:
    return collect_pb2.CollectionRequest(collection=said.id)


def test_rows_that_are_none(cluster: InProcess) -> None:
    made = opened(cluster, "shapes")
    for values in (np.zeros(SIZE + 1), np.full(SIZE, np.nan)):
        with pytest.raises(InputError, match="finite numbers"):
            enter(cluster, made, "client-0", values)
    with pytest.raises(InputError, match="outside of -1 to 1"):
        enter(cluster, made, "client-0", np.full(SIZE, 2.0))
    enter(cluster, made, "client-0", np.full(SIZE, 2.0), clip=True)
    assert made.standing.entered == 1


def test_who_may_enter(cluster: InProcess) -> None:
    made = opened(cluster, "named", contributors=("client-0", "client-1", "client-2"), at_most=None)
    assert made.said.at_most == 3
    with pytest.raises(SessionError, match="no such collection"):
        enter(cluster, made, "stranger", row(0))
    with pytest.raises(SessionError, match="no such collection"):
        raw(cluster, made, "stranger").begin()
    with pytest.raises(PolicyError, match="another name"):
        raw(cluster, made, "client-0", name="client-0/something-else").begin()
    with pytest.raises(PolicyError, match="another time"):
        raw(cluster, made, "client-0", expires=None).begin()
    enter(cluster, made, "client-1", row(1))
    for asked in (collection.Collection.sum, collection.Collection.mean, collection.Collection.close):
        with pytest.raises(PolicyError, match=f"the sum of {made.name} is for {COORDINATOR}"):
            asked(collection.find(cluster.client("client-1"), made.name))
    assert "client-1/in-" in contribution_name("client-1", made.said.id)


@pytest.mark.parametrize(("until", "seconds"), [("90s", 90), (" 10m", 600), ("2h", 7200), ("1d", 86_400), (60, 60)])
def test_until_when(until: object, seconds: int) -> None:
    assert 0 <= as_end(until, 1000.0) - 1000 - seconds <= 1


def test_what_is_no_time_names_the_option_and_all_units() -> None:
    with pytest.raises(UsageError, match=r"^until is no duration") as caught:
        as_end("10 minutes", 1000.0)
    assert "seconds, minutes, hours, days" in str(caught.value) and "expires" not in str(caught.value)


@pytest.mark.parametrize(
    "terms",
    [
        {"at_least": 1},
        {"at_least": 6},
        {"epsilon": 6},
        {"delta": 0.1},
        {"until": -1},
        {"until": None},
        {"mechanism": "cauchy"},
        {"width": 40},
        {"at_most": 10_001},
    ],
)
def test_terms_that_make_no_sense(cluster: InProcess, terms: dict) -> None:
    with pytest.raises(UsageError):
        opened(cluster, "never", **terms)


def test_a_collection_that_is_too_large_for_a_run_is_said_to_be_when_it_is_opened(cluster: InProcess) -> None:
    """And as many rows as it says are not."""
    said = {"at_least": 2, "epsilon": 2, "until": 60}
    with pytest.warns(MpcWarning, match=r"needs 4\.. GiB of memory at each process, and one .* allows 4 GiB") as noted:
        collection.open_collection(cluster.client(), "huge", 150_000, -1, 1, at_most=10_000, **said)
    fits = int(re.findall(r"at_most=(\d+)", str(noted[0].message))[0])
    assert 8000 < fits < 9000
    with warnings.catch_warnings():
        warnings.simplefilter("error", MpcWarning)
        collection.open_collection(cluster.client(), "large", 150_000, -1, 1, at_most=fits, **said)
        collection.open_collection(cluster.client(), "many", 10_000, -1, 1, at_most=10_000, **said)


def test_a_name_is_spent_once(cluster: InProcess) -> None:
    opened(cluster, "spent")
    with pytest.raises(SessionError, match="is a name that is spent"):
        opened(cluster, "spent", epsilon=3)


def test_a_party_that_crashes_between(cluster: InProcess) -> None:
    made = opened(cluster, "crash", at_most=3)
    enter_all(cluster, made, 2)
    cluster.crash(0)
    cluster.revive(0)
    enter(cluster, made, "client-2", row(2))
    cluster.collect(1).CloseCollection(collection_request(made.said))
    cluster.crash(1)
    cluster.revive(1)
    made = collection.find(cluster.client(), "crash")
    assert made.sum().rows == 3


def test_entries_are_erased_with_their_files(cluster: InProcess) -> None:
    made = opened(cluster, "erased", at_most=3)
    enter_all(cluster, made, 3)
    made.sum()
    for index in range(2):
        with cluster.ledgers[index].reading() as database:
            query = "SELECT count(*) FROM data_contributions WHERE collection = ?"
            assert database.execute(query, (made.said.id,)).fetchone() == (0,)
            listed = {file for (file,) in database.execute("SELECT file FROM data_blocks WHERE file IS NOT NULL")}
        here = {path.stem for path in cluster.nodes[index].vault.folder.glob("*.block")}
        assert here == listed


def at_one_party(cluster: InProcess, made: collection.Collection, client: str, index: int) -> None:
    """A client vanishes when its row exists at one party."""
    half = raw(cluster, made, client).begin().enter()
    whole = half.manifest()
    receipts = [half.commit(each, whole) for each in half.parties]
    half.complete(index, whole, receipts)


def test_a_row_at_one_party_alone_is_in_no_sum_and_in_nobodys_place(cluster: InProcess) -> None:
    """Two clients vanish, and all places of a collection that needs each of its rows are taken all the same."""
    made = opened(cluster, "partly", at_least=4, at_most=4)
    enter_all(cluster, made, 3)
    at_one_party(cluster, made, "half", 0)
    at_one_party(cluster, made, "other-half", 1)
    assert made.standing.entered == 4
    with pytest.raises(SessionError, match=r"is open for") as early:  # each party has four rows, and would close it
        made.sum()
    assert "3 of 4 rows are in at all parties" in str(early.value.cause)
    assert not made.standing.closed
    enter_raw(cluster, made, "client-3", row(3))
    found = made.sum()
    assert found.rows == 4
    assert np.abs(found.value - sum(map(row, range(4)))).max() < 6 * found.std


def enter_raw(cluster: InProcess, made: collection.Collection, client: str, values: np.ndarray) -> None:
    """Enter without asking how many rows are in."""
    put = raw(cluster, made, client)
    scaled = np.rint(values * float(made.said.column.scale)).astype(np.int64).reshape(1, -1)
    put.begin().enter({"x": scaled})
    finish(put)


def test_two_that_take_the_last_place_at_once_both_keep_it(cluster: InProcess) -> None:
    """Each is the last one at one of the parties: of more rows than count, the first ones do, at all parties alike."""
    made = opened(cluster, "race", at_least=3, at_most=3)
    enter_all(cluster, made, 2)
    puts = [raw(cluster, made, f"last-{place}").begin().enter() for place in range(2)]
    receipts = [[put.commit(index, put.manifest()) for index in put.parties] for put in puts]
    for index in (0, 1):
        puts[index].complete(index, puts[index].manifest(), receipts[index])
    for index in (0, 1):
        puts[1 - index].complete(index, puts[1 - index].manifest(), receipts[1 - index])
    assert made.standing.entered == 4
    assert made.sum().rows == 3


def test_places_at_a_party_are_not_without_end(cluster: InProcess) -> None:
    made = opened(cluster, "places", at_least=2, at_most=2)
    for number in range(made.said.places):
        at_one_party(cluster, made, f"half-{number}", 0)
    with pytest.raises(SessionError, match="is full: it takes 2 rows"):
        raw(cluster, made, "late").begin()


def test_a_client_that_was_cut_off_enters_the_rest_of_its_row(
    cluster: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = opened(cluster, "cut-off", at_least=3, at_most=3)
    enter_all(cluster, made, 2)
    parties = cluster.client("client-2")
    mine = collection.find(parties, made.name)
    with monkeypatch.context() as patch:
        begin = parties.clients[1].begin

        def lost(call: Any, request: Any, seconds: float, *more: Any) -> Any:
            stub = MagicMock()
            if call(stub) is stub.data.Complete:
                raise PeerError("the connection to party-1 was lost", peer="party-1")
            return begin(call, request, seconds, *more)

        patch.setattr(parties.clients[1], "begin", lost)
        with pytest.raises(PeerError):
            mine.enter(row(2))
    assert made.standing.entered == 2
    again = collection.find(cluster.client("client-2"), made.name)
    with pytest.raises(InputError, match="not those of the interrupted put") as other:
        again.enter(row(3))
    assert other.value.remedy == "enter the row that it was"
    again.enter(row(2))
    assert made.sum().rows == 3


# ------------------------------------------------------------------ what is gathered, and not complete


def gathered_at(cluster: InProcess, made: collection.Collection, *indices: int) -> list[Any]:
    """Close a collection, and gather it at some of the parties."""
    request = collection_request(made.said)
    lists = [cluster.collect(index).CloseCollection(request) for index in range(len(cluster.names))]
    parts = [collect_pb2.GatherPart(collection=made.said.id), *(collect_pb2.GatherPart(list=each) for each in lists)]
    return [cluster.collect(index).Gather(iter(parts)) for index in indices]


def test_whoever_collects_does_not_give_up_what_was_gathered(cluster: InProcess) -> None:
    """Neither by a put nor by an output that is kept: its name is no dataset's, before it is whole or later."""
    made = opened(cluster, "given-up", at_least=3, at_most=3)
    enter_all(cluster, made, 3)
    with pytest.raises(SessionError, match="is the name of a collection"):
        objects.put(cluster.client(), objects.described("given-up", columns=(objects.AGE,)))
    gathered_at(cluster, made, 0, 1)
    with pytest.raises(SessionError, match="is the name of a collection"):
        RawPut(cluster, COORDINATOR, name=made.name).begin()
    for node in cluster.nodes:
        keep = Keep(made.name, ("y",), 1, None, int(time.time()))
        key = key_of(cluster.identity(COORDINATOR).certificate_pem)
        making = Making(node.vault, keep, key)
        with pytest.raises(SessionError, match="is the name of a collection"):
            making.require_new(False)
        making.clear()  # of a session that was opened before the collection was
        with node.vault.ledger.reading() as database:
            assert [row.state for row in catalogue.unfinished(database, made.name)] == [catalogue.RECEIVED]
    assert made.sum().rows == 3


def test_a_name_under_which_something_is_being_put_is_no_collections(cluster: InProcess) -> None:
    RawPut(cluster, COORDINATOR, name=f"{COORDINATOR}/begun").begin()
    with pytest.raises(SessionError, match="is a name that is spent"):
        opened(cluster, "begun")


def test_what_was_gathered_and_dropped_is_gathered_again(cluster: InProcess) -> None:
    """A party that waits too long for the signatures drops it, and makes the very object again of its contributions."""
    made = opened(cluster, "dropped", at_least=3, at_most=3)
    enter_all(cluster, made, 3)
    gathered_at(cluster, made, 0, 1)
    node = cluster.nodes[0]
    with cluster.ledgers[0].writing() as database:
        [before] = catalogue.unfinished(database, made.name)
        database.execute("UPDATE data_objects SET touched = touched - ?", (NEVER_COMPLETED + 3600,))
    node.vault.times.stored -= 3600
    node.vault.ending.tick()
    with cluster.ledgers[0].reading() as database:
        assert not catalogue.unfinished(database, made.name)
    assert made.sum().rows == 3
    with cluster.ledgers[0].reading() as database:
        [after] = catalogue.versions(database, made.name)
    assert after.object == before.object
    assert after.put != before.put


# ------------------------------------------------------------------ the operator's word


def test_an_operators_cap_holds_for_collections(cluster: InProcess) -> None:
    """When one is opened, and when its sum is about to be told: whatever clients have consented to."""
    made = opened(cluster, "capped", at_least=3, at_most=3, epsilon=2)
    rows = enter_all(cluster, made, 3)
    rules = cluster.nodes[1].rules
    before = rules.policy
    for most, told in (("1.5", False), ("2", True)):
        rules.policy = replace(before, config=before.config.model_copy(update={"max_epsilon": Decimal(most)}))
        with pytest.raises(PolicyError, match="more than party-1 lets") as refused:
            opened(cluster, f"dear-{most[0]}", epsilon=2.25)
        assert "policy.max_epsilon" in str(refused.value.remedy)
        if told:
            found = made.sum()
            assert np.abs(found.value - sum(rows)).max() < 6 * found.std
        else:
            with pytest.raises(PolicyError, match=r"1\.5 is what the operator allows") as refused:
                made.sum()
            assert "policy.max_epsilon" in str(refused.value.remedy)
    rules.policy = before


def test_the_documents_python(cluster: InProcess, capsys: pytest.CaptureFixture[str]) -> None:
    """Line for line, with further clients between."""
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "collections.md").read_text(), re.DOTALL)
    names = {"cluster": Cluster(cluster.client().config), "other": Cluster(cluster.client("client-3").config)}
    names["row"] = row(3)
    for snippet in snippets[:2]:
        exec(compile(snippet, "collections.md", "exec"), names)
    rows = enter_all(cluster, names["made"], 3)
    exec(compile(snippets[2], "collections.md", "exec"), names)
    found = names["found"]
    assert np.abs(found.value - np.mean([*rows, row(3)], axis=0)).max() < 6 * found.std
    told = capsys.readouterr().out
    assert "of 3 to 4 clients; one sum with gaussian noise, epsilon 2" in told
    assert "of 4" in told
    for each in ("cluster", "other"):
        names[each].close()
