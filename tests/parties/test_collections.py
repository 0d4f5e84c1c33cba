"""Collections: many clients enter a row each, at different times; one noised sum is told, or nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from mpc.errors import InputError, PolicyError, SessionError, UsageError
from parties import Cluster
from parties.agreed.collecting import Collection as Said
from parties.agreed.collecting import contribution_name
from parties.client.collections import collection
from parties.pb import collect_pb2
from tests.support.collections import SIZE, enter, enter_all, opened, over, raw, row
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
    with pytest.raises(PolicyError, match="has been told"):
        again.sum()


def test_a_mean_of_a_full_one_before_its_time(cluster: InProcess) -> None:
    made = opened(cluster, "means", epsilon=4, at_least=2, at_most=2)
    rows = enter_all(cluster, made, 2)
    with pytest.raises(SessionError, match="is full"):
        enter(cluster, made, "client-2", row(3))
    found = made.mean()
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
    assert "client-1/in-" in contribution_name("client-1", made.said.id)


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


def test_a_put_that_only_looks_finished(cluster: InProcess) -> None:
    """A contribution that was completed at one party alone is in no sum."""
    made = opened(cluster, "partly", at_most=4)
    enter_all(cluster, made, 3)
    half = raw(cluster, made, "half").begin().enter()
    whole = half.manifest()
    receipts = [half.commit(index, whole) for index in half.parties]
    half.complete(0, whole, receipts)
    assert made.standing.entered == 3
    with pytest.raises(SessionError, match="is full"):  # there, and at the other party it comes to nothing
        raw(cluster, made, "client-3").begin()


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
