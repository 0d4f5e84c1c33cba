"""Parties that forget: all restored to one moment, or lying about what they handed out (security.md 32)."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Literal

import grpc
import numpy as np
import pytest

from mpc import field as fp
from mpc.compiler.roles import Roles
from mpc.encoding import decode_field
from mpc.entry import EntryId
from mpc.errors import ConfigError, IntegrityError, MpcError, SessionError
from parties.client.channels import Parties
from parties.client.running.coordinated import CoordinatedSession
from parties.client.running.entered import place_of
from parties.client.running.participant import Participant
from parties.client.running.stocks import Stock
from parties.party.services import PartyService
from parties.pb import party_pb2
from tests.support.cheaters import cheating
from tests.support.cheating import Deviation, once, opened
from tests.support.parties import MODEL_OWNER, OWNER, InProcess, Script, data, deadlines
from tests.support.stocks import deal, open_stock

QUICK = deadlines(connect=5, setup=15, step=5, submit=10)
TWO_PEOPLE = Roles(MODEL_OWNER, OWNER, (OWNER,))


class Recorded(PartyService):
    """Keeps what it was submitted, and what the client's list says at that moment."""

    submitted: list[bytes]
    seen: list[tuple]
    listed: Callable[[], list[tuple]]

    def SubmitWhole(self, request: party_pb2.WholeInput, context: grpc.ServicerContext) -> party_pb2.SubmitReply:
        Recorded.submitted.append(request.data)
        Recorded.seen.append((request.header.session_id, request.header.run, Recorded.listed()))
        return super().SubmitWhole(request, context)


class Forgetful(Recorded):
    """Hands out masks as often as anybody asks, and takes inputs as often."""

    given: dict

    def Masks(self, request: party_pb2.MasksRequest, context: grpc.ServicerContext) -> party_pb2.MasksReply:
        key = (self._node.config.name, request.session_id, request.run)
        if key not in Forgetful.given:
            Forgetful.given[key] = super().Masks(request, context)
        return Forgetful.given[key]

    def SubmitWhole(self, request: party_pb2.WholeInput, context: grpc.ServicerContext) -> party_pb2.SubmitReply:
        Recorded.submitted.append(request.data)
        return party_pb2.SubmitReply()


@pytest.fixture(autouse=True)
def fresh() -> None:
    Recorded.submitted, Recorded.seen, Recorded.listed, Forgetful.given = [], [], list, {}


def cluster_of(folder: Path, service: type[PartyService], parties: int = 2) -> InProcess:
    return InProcess(folder, parties, services=dict.fromkeys(range(parties), service), deadlines=QUICK)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[InProcess]:
    with cluster_of(tmp_path / "cluster", Recorded) as running:
        yield running


def snapshot(cluster: InProcess) -> Callable[[], None]:
    """Copies of all parties' data folders, taken now; calling it puts them back."""
    places = [cluster.party_config(index).data_dir for index in range(len(cluster.names))]
    copies = [cluster.folder / f"snapshot-{index}" for index in range(len(places))]

    def swap(source: list[Path], target: list[Path]) -> None:
        for index, (old, new) in enumerate(zip(source, target, strict=True)):
            cluster.crash(index)
            shutil.rmtree(new, ignore_errors=True)
            shutil.copytree(old, new)
        for index in range(len(places)):
            cluster.revive(index)

    swap(places, copies)
    return lambda: swap(copies, places)


def owner_of(cluster: InProcess, script: Script, name: str = OWNER) -> Participant:
    """The data's owner, as a process that has just started."""
    return Participant(cluster.client(name), script.plan, script.terms)


def through_a_run(cluster: InProcess, stock: Stock, seed: int, roles: Roles = TWO_PEOPLE) -> None:
    """A stock is opened; the weights come from an attacker, who keeps no list."""
    script = open_stock(cluster, stock, roles).enter_weights()
    script.prepare(1)
    owner_of(cluster, script).enter(1, 1, script.integers(data(1, seed)))


@pytest.mark.parametrize("security", ["passive", "active"])
def test_security_32_all_parties_restored_with_a_stock_that_was_used(
    cluster: InProcess, security: Literal["passive", "active"]
) -> None:
    roles = replace(TWO_PEOPLE, security=security)
    stock = deal(cluster, [1], roles)
    restore = snapshot(cluster)
    through_a_run(cluster, stock, 1, roles)
    sent = list(Recorded.submitted)
    restore()
    with pytest.raises(IntegrityError, match="entered something in run 1 of this session before"):
        through_a_run(cluster, stock, 2, roles)
    masked_inputs = {value for value in Recorded.submitted if value not in sent and len(value) == len(sent[-1])}
    assert not masked_inputs  # the second x^ never left


def test_security_active_keys_that_a_failed_check_has_told_are_of_no_use(cluster: InProcess) -> None:
    """They lie with the stock, and a cheater knows them by now.  With all parties put back behind that run the client,
    which has entered something in it, does not do so again; so no honest party goes on to a later one."""
    roles = replace(TWO_PEOPLE, security="active")
    stock = deal(cluster, [1, 1], roles)
    restore = snapshot(cluster)
    place = next(opened(cluster.compiled(roles).plan))
    with cheating(Deviation(opens=(place, once)), 1):
        script = open_stock(cluster, stock, roles).enter_weights()
        script.prepare(1)
        owner_of(cluster, script).enter(1, 1, script.integers(data(1)))
        with pytest.raises(IntegrityError):
            script.everyone(lambda index: script.result(index, 1, OWNER))
    restore()
    script = open_stock(cluster, stock, roles).enter_weights()
    for run in (1, 2):
        script.prepare(run)
    owner = owner_of(cluster, script)
    with pytest.raises(IntegrityError, match="entered something in run 1 of this session before"):
        owner.enter(1, 1, script.integers(data(1)))
    owner.enter(2, 1, script.integers(data(1)))
    session = cluster.of(0, script.id)
    assert session.runs.kept[2].entry.complete and not any(run.started for run in session.runs.kept.values())
    assert cluster.revealed(0) == 0


def test_what_the_list_prevents(cluster: InProcess) -> None:
    """The control: with its list gone, the client enters twice, and the difference of its data shows."""
    stock = deal(cluster, [1], TWO_PEOPLE)
    restore = snapshot(cluster)
    values = []
    for seed in (1, 2):
        through_a_run(cluster, stock, seed)
        values.append(decode_field(Recorded.submitted[-1], (1, 3)))
        if seed == 1:
            restore()
            place_of(cluster.client(OWNER).config).unlink()
    script = cluster.script(TWO_PEOPLE)
    [first, second] = [next(iter(script.integers(data(1, seed)).values())) for seed in (1, 2)]
    assert np.array_equal(fp.to_signed(fp.sub(values[0], values[1])), first - second)


def test_security_32_the_coordinator_that_enters_the_weights(cluster: InProcess) -> None:
    """Its weights would be masked by the masks of before: run 0 is on its list."""
    stock = deal(cluster, [1], Roles())
    restore = snapshot(cluster)
    compiled = cluster.compiled()
    CoordinatedSession(cluster.client(), compiled.plan, compiled.weights, stock).close()
    restore()
    before = len(Recorded.submitted)
    other = {name: value + 1 for name, value in compiled.weights.items()}
    with pytest.raises(IntegrityError, match="entered something in the weights of this session before"):
        CoordinatedSession(cluster.client(), compiled.plan, other, stock)
    assert len(Recorded.submitted) == before and cluster.is_idle()


@pytest.mark.parametrize("parties", [2, 3])
def test_security_32_parties_that_hand_out_a_runs_masks_twice(tmp_path: Path, parties: int) -> None:
    """All of them lie, in a session that is open: the client refuses by itself, also after a restart."""
    with cluster_of(tmp_path, Forgetful, parties) as lying:
        script = lying.script(TWO_PEOPLE).open()
        owner = owner_of(lying, script, MODEL_OWNER)
        owner.enter_weights(script.compiled.weights)
        sent = len(Recorded.submitted)
        for again in (owner, owner_of(lying, script, MODEL_OWNER)):
            with pytest.raises(IntegrityError, match="before"):
                again.enter_weights({name: value + 1 for name, value in script.compiled.weights.items()})
        assert len(Recorded.submitted) == sent


def test_security_32_the_run_is_listed_before_anything_leaves(cluster: InProcess) -> None:
    script = cluster.script(TWO_PEOPLE).open().enter_weights()
    script.prepare(1)
    owner = owner_of(cluster, script)

    def listed() -> list[tuple]:
        with sqlite3.connect(place_of(owner.parties.config)) as database:  # another connection: what was committed
            return database.execute("SELECT session, first, last FROM entered").fetchall()

    Recorded.seen.clear()
    Recorded.listed = staticmethod(listed)
    owner.enter(1, 1, script.integers(data(1)))
    assert Recorded.seen == [(script.id, 1, [(script.id, 1, 1)])] * 2


def test_security_32_a_client_that_was_killed_after_its_claim_does_not_enter_again(cluster: InProcess) -> None:
    """Its process ended between the list and x^: honest parties refuse, and if they did not, the list would."""
    script = cluster.script(TWO_PEOPLE).open().enter_weights()
    script.prepare(1)
    killed = owner_of(cluster, script)
    killed.parties.entered.claim(script.id, EntryId(1))
    with pytest.raises(IntegrityError, match="in run 1 of this session before"):
        owner_of(cluster, script).enter(1, 1, script.integers(data(1)))


def test_each_name_has_a_list_of_its_own(cluster: InProcess) -> None:
    """Whoever shares a folder of keys shares no list."""
    script = cluster.script(TWO_PEOPLE).open()
    owner, model_owner = (place_of(cluster.client(name).config) for name in (OWNER, MODEL_OWNER))
    assert owner != model_owner and owner.name == f"{OWNER}.entered.sqlite"
    owner_of(cluster, script, MODEL_OWNER).enter_weights(script.compiled.weights)
    assert model_owner.exists() and not owner.exists()


def test_masks_that_did_not_come_leave_the_run_free(cluster: InProcess) -> None:
    """Nothing left, so the client may try again: the run was not prepared yet."""
    script = cluster.script(TWO_PEOPLE).open().enter_weights()
    owner = owner_of(cluster, script)
    with pytest.raises(SessionError, match="not prepared"):
        owner.enter(1, 1, script.integers(data(1)))
    script.prepare(1)
    owner.enter(1, 1, script.integers(data(1)))


def test_a_list_that_cannot_be_written_lets_nothing_leave(cluster: InProcess, tmp_path: Path) -> None:
    script = cluster.script(TWO_PEOPLE).open()
    honest = cluster.client(MODEL_OWNER)
    config = honest.config.model_copy(update={"entered": tmp_path / "missing" / "list"})
    with closing(Parties(config, honest.identity)) as client, pytest.raises(ConfigError) as caught:
        Participant(client, script.plan, script.terms).enter_weights(script.compiled.weights)
    assert "'entered' in the cluster file" in (caught.value.remedy or "")
    assert not Recorded.submitted and isinstance(caught.value, MpcError)
