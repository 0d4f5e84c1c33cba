"""Outputs that stay at the parties: what becomes of them, whose they are, and what their use needs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mpc.errors import PolicyError, SessionError, UsageError
from mpc.plan.cost import plan_cost
from mpc.stored import BLOCK_ROWS
from parties.agreed.keeps import Keep
from parties.agreed.memory import needed_memory
from parties.agreed.refreshing import identity_plan, refresh_bindings
from parties.client.at_rest import catalogue, keeping
from parties.client.at_rest.keeping import Keeping, read_keep
from parties.client.datasets import Datasets
from parties.client.running.coordinated import CoordinatedSession
from tests.support.asking import AGES, ANALYST, HOSPITAL, ROWS, Kept, above, exactly, noised_sum
from tests.support.grants import budget, dp, grant, revocation
from tests.support.keeping import (
    SCORES,
    counted_plan,
    keep,
    kept_binding,
    kept_plan,
    noised_kept,
    opened,
    vault,
)
from tests.support.objects import described, put, schema, table
from tests.support.parties import EVERYONE, InProcess

BITS = (AGES >= 60).astype(np.int64)


@pytest.fixture(params=[2, 3])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    with InProcess(tmp_path, request.param) as cluster:
        yield Kept(cluster)


def test_an_output_becomes_an_object_at_all_parties(kept: Kept) -> None:
    kept.allow()
    made, received = keep(kept, kept_plan())
    assert received == [{}]
    for index in range(len(kept.cluster.names)):
        assert vault(kept.cluster, index).find(SCORES).id == made.id
    assert np.array_equal(opened(kept.cluster, made, "y").reshape(-1), BITS)
    assert (made.owner, made.version, made.rows, made.visible) == (ANALYST, 1, ROWS, ())
    assert made.kept is not None and made.kept.plan == kept_plan().digest.hex()
    [origin] = made.kept.origins
    assert (origin.object, origin.name, origin.owner) == (kept.manifest.id.hex(), "hospital/patients", HOSPITAL)
    assert origin.by_row and origin.rows_per_person == 1


def test_who_receives_it_too_gets_it_as_ever(kept: Kept) -> None:
    kept.say(budget())
    plan = kept_plan((ANALYST,))
    kept.grant(dataset=kept.manifest.id.hex(), question=exactly(plan, kept.manifest))
    made, [received] = keep(kept, plan)
    assert np.array_equal(received["y"].reshape(-1), BITS)
    assert np.array_equal(opened(kept.cluster, made, "y").reshape(-1), BITS)


def test_runs_become_blocks_and_all_rows_one_object(kept: Kept) -> None:
    kept.allow()
    made, _ = keep(kept, kept_plan(), batches=(2, 2, 1))
    assert (made.lengths, made.block_count) == ((2, 2, 1), 3)
    assert np.array_equal(opened(kept.cluster, made, "y").reshape(-1), BITS)
    noised = noised_kept(made)
    found = kept.ask(noised, kept_binding(made))  # rows across blocks, in one run
    assert abs(int(found.reshape(-1)[0]) - int(BITS.sum())) < 200


def test_some_of_the_rows_are_no_object(kept: Kept) -> None:
    kept.allow()
    with pytest.raises(SessionError):
        keep(kept, kept_plan(), batches=(2, 2))
    for index in range(len(kept.cluster.names)):
        assert rows_of(kept, index) == [("hospital/patients", "living")]
        assert len(list(vault(kept.cluster, index).folder.glob("*.block"))) == 1  # the ages


def test_a_session_keeps_once(kept: Kept) -> None:
    kept.allow()
    with pytest.raises(SessionError, match="whole with the runs before"):
        keep(kept, kept_plan(), batches=(ROWS, ROWS))
    assert vault(kept.cluster).find(SCORES).version == 1
    again, _ = keep(kept, kept_plan())
    assert (again.version, again.previous) == (2, keepers_first(kept))


def keepers_first(kept: Kept) -> str:
    with kept.cluster.ledgers[0].reading() as database:
        query = "SELECT object FROM data_objects WHERE name = ? AND version = 1"
        return str(database.execute(query, (SCORES,)).fetchone()[0])


def rows_of(kept: Kept, index: int) -> list[tuple[str, str]]:
    with kept.cluster.ledgers[index].reading() as database:
        return database.execute("SELECT name, state FROM data_objects ORDER BY name").fetchall()


def test_a_sum_is_kept_as_a_weight_is_put(kept: Kept) -> None:
    plan = counted_plan()
    kept.grant(dataset=kept.manifest.id.hex(), question=exactly(plan, kept.manifest))
    made, _ = keep(kept, plan)
    assert made.kept is not None and not made.kept.origins[0].by_row
    assert (made.rows, made.columns[0].shape) == (1, (1, 1))
    assert opened(kept.cluster, made, "t").item() == BITS.sum()


# -- whose it is


def test_its_use_needs_the_word_of_all_that_it_came_from(kept: Kept) -> None:
    given = kept.allow(coordinators=(ANALYST,), recipients=(ANALYST, "bob"))
    made, _ = keep(kept, kept_plan(), Keeping(SCORES, visible=True))
    plan, bindings = noised_kept(made, "bob"), kept_binding(made)
    with pytest.raises(PolicyError, match="analyst has granted bob nothing"):
        kept.ask(plan, bindings, "bob")  # who has the word of neither; the keeper's is missed first
    own = grant(
        owner=ANALYST, dataset=SCORES, coordinators=("bob",), recipients=("bob",), parties=kept.cluster.names, **now()
    )
    kept.say(own, ANALYST)
    with pytest.raises(PolicyError, match=r"hospital/patients may not be used for this: grant .* names other"):
        kept.ask(plan, bindings, "bob")
    assert kept.spent() == 0
    kept.grant(coordinators=("bob",), recipients=("bob",))
    session = kept.open(plan, bindings, "bob")
    session.run({}, ROWS, lambda: 0.0)
    session.close()
    assert kept.spent() == 500_000_000 == kept.spent(dataset=SCORES)
    kept.say(revocation(given))  # under which it was kept
    with pytest.raises(PolicyError, match="under which it was kept has been revoked"):
        kept.ask(plan, bindings, "bob")


def now() -> dict[str, int]:
    present = int(time.time())
    return {"created": present, "not_before": present - 60, "expires": present + 3600}


def test_a_noised_question_is_charged_to_what_it_came_from(kept: Kept) -> None:
    kept.allow(epsilon=2, total=1)
    made, _ = keep(kept, kept_plan())
    assert kept.spent() == 0  # nobody was told anything
    plan = noised_kept(made)
    for index, spent in enumerate((500_000_000, 1_000_000_000)):
        kept.ask(plan, kept_binding(made))
        assert [kept.spent(each) for each in range(len(kept.cluster.names))] == [spent] * len(kept.cluster.names)
        assert kept.revealed() == 2 + index
    with pytest.raises(PolicyError, match="0 of its budget is left"):
        kept.ask(plan, kept_binding(made))


def test_rows_that_met_are_no_rows_for_noise(kept: Kept) -> None:
    kept.allow()
    plan = counted_plan()
    kept.grant(dataset=kept.manifest.id.hex(), question=exactly(plan, kept.manifest))
    made, _ = keep(kept, plan)
    with pytest.raises(PolicyError, match="is not about a row of hospital/patients alone"):
        kept.ask(noised_kept(made), kept_binding(made))


def test_a_grant_of_noise_keeps_no_sums_without(kept: Kept) -> None:
    kept.allow()
    with pytest.raises(PolicyError, match="leaves a sum over rows without the noise"):
        keep(kept, counted_plan())
    with pytest.raises(PolicyError, match="tells single rows"):
        keep(kept, kept_plan((ANALYST,)))


def test_the_keeper_is_a_recipient(kept: Kept) -> None:
    kept.say(budget())
    kept.grant(question=dp(1), recipients=("bob",))
    with pytest.raises(PolicyError, match="does not name the recipient analyst"):
        keep(kept, kept_plan())


def test_its_owner_keeps_its_own_without_a_word(kept: Kept) -> None:
    made, _ = keep(kept, kept_plan(), f"{HOSPITAL}/old", coordinator=HOSPITAL)
    assert made.owner == HOSPITAL and made.kept is not None


# -- the end of what it came from


def test_what_was_kept_goes_with_what_it_came_from(kept: Kept) -> None:
    kept.allow()
    made, _ = keep(kept, kept_plan())
    Datasets(kept.cluster.client(HOSPITAL)).remove("patients")
    for index in range(len(kept.cluster.names)):
        assert rows_of(kept, index) == []
        assert not list(vault(kept.cluster, index).folder.glob("*.block"))
        with pytest.raises(SessionError, match="no such object"):
            vault(kept.cluster, index).manifest(made.id)


def test_it_expires_with_the_first_that_it_came_from(tmp_path: Path) -> None:
    with InProcess(tmp_path, 2) as cluster:
        kept = Kept(cluster)
        until = int(time.time()) + 7200
        lasting = kept.put("short", expires=until)
        kept.say(budget(dataset="hospital/short"))
        kept.grant(dataset="hospital/short")
        made, _ = keep(kept, kept_plan(), Keeping(SCORES, expires="2y"), kept.binding(lasting))
        assert made.expires == until
        sooner, _ = keep(kept, kept_plan(), Keeping(SCORES, expires="1h"), kept.binding(lasting))
        assert sooner.expires is not None and sooner.expires < until


# -- names


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("hospital/scores", UsageError, "no name of yours"),
        ("a b", UsageError, "no name of yours"),
        (3, UsageError, "kept under a name"),
    ],
)
def test_a_name_that_is_nobody_s_to_give(name: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_keep({"y": name}, ANALYST)


def test_a_dataset_that_was_put_is_not_kept_over(kept: Kept) -> None:
    with pytest.raises(PolicyError, match="is a dataset that was put"):
        keep(kept, kept_plan(), kept.manifest.name, coordinator=HOSPITAL)


def test_a_party_that_lets_nobody_put_data_keeps_nothing(tmp_path: Path) -> None:
    policy = EVERYONE.model_copy(update={"data_owners": (HOSPITAL,)})
    with InProcess(tmp_path, 2, policies={1: policy}) as cluster:
        kept = Kept(cluster)
        kept.allow()
        with pytest.raises(PolicyError) as refused:
            keep(kept, kept_plan())
        assert "party-1" in str(refused.value.remedy)


# -- refresh


def test_a_refresh_has_the_values_under_new_seeds_and_the_old_ones_are_gone(kept: Kept) -> None:
    names = range(len(kept.cluster.names))
    old = [vault(kept.cluster, index).seed(kept.manifest.id, "age", 0).secret for index in names]
    before = vault(kept.cluster).block(kept.manifest.id, "age", 0)
    told: list[tuple[str, int, int | None]] = []
    made = Datasets(kept.cluster.client(HOSPITAL)).refresh("patients", lambda *each: told.append(each)).manifest
    assert told == [("refresh", ROWS, ROWS)]
    old_id = kept.manifest.id.hex()
    [(of, entry)] = catalogue.named(kept.cluster.client(HOSPITAL), {old_id, "0" * 64}).items()  # as grants are listed
    assert (of, entry.name, entry.version) == (old_id, "hospital/patients", 2)
    assert np.array_equal(opened(kept.cluster, made, "age"), AGES)
    assert (made.version, made.previous, made.aliases) == (2, kept.manifest.id.hex(), {kept.manifest.id.hex()})
    said = {name: getattr(made, name) for name in ("columns", "rows", "rows_per_person", "visible", "description")}
    assert said == {name: getattr(kept.manifest, name) for name in said}
    for index in names:
        there = vault(kept.cluster, index)
        assert there.seed(made.id, "age", 0).secret not in old
        with pytest.raises(SessionError):
            there.seed(kept.manifest.id, "age", 0)
        assert len(list(there.folder.glob("*.block"))) == 1
        assert rows_of(kept, index) == [("hospital/patients", "living")]
    assert not np.array_equal(vault(kept.cluster).block(made.id, "age", 0), before)


def test_words_of_the_old_version_hold_for_the_new_one(kept: Kept) -> None:
    kept.allow()
    plan = above()
    kept.grant(dataset=kept.manifest.id.hex(), question=exactly(plan, kept.manifest))
    kept.ask(noised_sum())
    datasets = Datasets(kept.cluster.client(HOSPITAL))
    twice = [datasets.refresh("patients").manifest for _ in range(2)][1]
    assert twice.version == 3 and len(twice.aliases) == 2
    assert np.array_equal(kept.ask(plan, kept.binding(twice)).reshape(-1), BITS)
    kept.ask(noised_sum(), kept.binding(twice))
    assert kept.spent() == 1_000_000_000
    datasets.remove("patients")
    assert rows_of(kept, 0) == []


def test_what_was_kept_of_the_old_version_goes_with_the_new_one(kept: Kept) -> None:
    kept.allow()
    made, _ = keep(kept, kept_plan())
    datasets = Datasets(kept.cluster.client(HOSPITAL))
    datasets.refresh("patients")
    assert np.array_equal(opened(kept.cluster, made, "y").reshape(-1), BITS)  # it has seeds of its own
    datasets.remove("patients")
    assert rows_of(kept, 0) == []


def test_what_was_kept_is_refreshed_by_its_keeper_with_the_word_of_all(kept: Kept) -> None:
    given = kept.allow()
    made, _ = keep(kept, kept_plan())
    datasets = Datasets(kept.cluster.client(ANALYST))
    again = datasets.refresh("scores").manifest
    assert np.array_equal(opened(kept.cluster, again, "y").reshape(-1), BITS)
    assert again.kept is not None and made.kept is not None and again.kept.origins == made.kept.origins
    kept.say(revocation(given))
    with pytest.raises(PolicyError):
        datasets.refresh("scores")
    with pytest.raises(UsageError, match="you are analyst"):
        datasets.refresh("hospital/patients")


def test_a_refresh_takes_one_round_and_eight_bytes_an_element(kept: Kept) -> None:
    plan = identity_plan(kept.manifest)
    cost = plan_cost(plan, ROWS)
    assert (cost.rounds, cost.sent, cost.dealt) == (1, 8 * ROWS + 32, 8 * ROWS)
    keeping_it = Keep(kept.manifest.name, ("y0",), 2, kept.manifest.id.hex(), int(time.time()))
    session = CoordinatedSession(
        kept.cluster.client(HOSPITAL), plan, {}, bindings=refresh_bindings(kept.manifest), keeps=(keeping_it,)
    )
    _, report = session.run({}, ROWS, lambda: 0.0)
    session.close()
    peers = len(kept.cluster.names) - 1
    assert (report.rounds, report.sent_bytes) == (1, peers * (8 * ROWS + 32))


def test_a_large_object_is_refreshed_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "BLOCK_BYTES", 2 * needed_memory(identity_plan(schema()), BLOCK_ROWS) // BLOCK_ROWS)
    with InProcess(tmp_path, 2) as cluster:
        said = described()
        values = table(said)
        put(cluster.client(HOSPITAL), said, values)
        made = Datasets(cluster.client(HOSPITAL)).refresh("patients").manifest
        assert made.lengths == (2, 2, 1)
        for name, expected in values.items():
            assert np.array_equal(opened(cluster, made, name), expected)
        again = Datasets(cluster.client(HOSPITAL)).refresh("patients").manifest
        assert np.array_equal(opened(cluster, again, "scan"), values["scan"])
