"""A party that is silent, slow or cut off at any step (security.md 26): everyone aborts in time, and says who."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpc.errors import ConfigError, DeadlineError, MpcError, PeerError
from mpc.fixedpoint import encode
from mpc.plan.checking import CHECK_SIZES
from parties import disk
from parties.client.running import stocks as ordering
from parties.config.models import Limits
from parties.party.ledger import file as ledger
from parties.party.stock import ordering as stock
from parties.pb import provider_pb2
from parties.pb.party_pb2 import Frame, Payload
from parties.provider.service import ProviderService
from parties.wire.frames import Chunk
from tests.support.effort import patient
from tests.support.parties import OWNER, RECIPIENT, SEPARATE, InProcess, Script, data, deadlines, eventually

pytestmark = pytest.mark.timeout(90)
BAD = "party-1"
QUICK = deadlines(connect=2, setup=6, step=1.5, submit=6)
GENEROUS = patient(20.0)
"""Seconds; a loaded machine's allowance over the deadlines above."""
STEPS = 5


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    folder = tmp_path_factory.mktemp("cluster")
    pairs = [(0, 1), (1, 2)]
    with InProcess(folder, 3, middles=pairs, deadlines=QUICK, limits=Limits(max_sessions=256)) as running:
        yield running


@pytest.fixture(autouse=True)
def honest(cluster: InProcess) -> Iterator[None]:
    yield
    for middle in cluster.middles:
        middle.tamper = lambda sender, number, frame: [frame]


def silent(number: int, frame: Frame) -> Sequence[Frame] | None:
    return []


def cut(number: int, frame: Frame) -> Sequence[Frame] | None:
    return None


def trickle(number: int, frame: Frame) -> Sequence[Frame] | None:
    """A byte now and then: always alive, never done."""
    if frame.WhichOneof("body") != "payload":
        return [frame]
    payload = frame.payload

    def pieces() -> Iterator[Frame]:
        for position in range(len(payload.data)):
            time.sleep(QUICK.step / 3)
            yield Frame(payload=Payload(run=payload.run, step=payload.step, data=payload.data[position : position + 1]))

    return pieces()  # type: ignore[return-value]


def from_frame(first: int, fault: Callable[[int, Frame], Sequence[Frame] | None]) -> Callable:
    """party-1 keeps to the protocol for `first` frames (its greeting is frame 0); then the fault, towards everyone."""

    def tamper(sender: str, number: int, frame: Frame) -> Sequence[Frame] | None:
        return fault(number, frame) if sender == BAD and number >= first else [frame]

    return tamper


def check_abort(cluster: InProcess, script: Script, released: bool = False) -> None:
    """Both others ended the session about party-1; no seed of an output left them."""
    for index in (0, 2):
        assert eventually(lambda index=index: cluster.ledger_states(index)[0][0] == "aborted")
        states = cluster.ledgers[index].history(1)[0]
        assert states.revealed == 0 or released
    with pytest.raises(MpcError) as caught:
        script.everyone(lambda i: script.result(i, 1, RECIPIENT))
    assert isinstance(caught.value, PeerError)
    for index in (0, 2):
        error = script.errors[index]
        assert isinstance(error, PeerError) and error.peer == BAD, (index, error)


AT_STEPS = [(fault, step) for fault in (silent, cut, trickle) for step in range(STEPS)]
WAITED_FOR = {(silent, 0), (trickle, STEPS // 2)}
"""Of the faults that only a deadline ends, those that are always tried."""


@pytest.mark.parametrize(
    ("fault", "step"),
    [
        pytest.param(fault, step, marks=[] if fault is cut or (fault, step) in WAITED_FOR else pytest.mark.slow)
        for fault, step in AT_STEPS
    ],
    ids=[f"{step}-{fault.__name__}" for fault, step in AT_STEPS],
)
def test_at_every_step(cluster: InProcess, fault: Callable, step: int) -> None:
    for middle in cluster.middles:
        middle.tamper = from_frame(1 + step, fault)
    started = time.monotonic()
    script = cluster.script().ready()
    with suppress(PeerError):  # the fault may come before the last party has its input
        script.enter(1, script.integers(data(1)), OWNER)
    check_abort(cluster, script)
    assert time.monotonic() - started < QUICK.step + GENEROUS


@pytest.mark.parametrize("step", [1, *(pytest.param(step, marks=pytest.mark.slow) for step in (0, 2, STEPS - 2))])
def test_who_has_only_waited_for_another_is_not_blamed(tmp_path: Path, step: int) -> None:
    """The last party falls silent towards the second one, and a step later towards the first, which then misses both.

    So it is with one that is stopped between two of its sends.
    """
    with InProcess(tmp_path, 3, middles=[(0, 2), (1, 2)], deadlines=QUICK) as cluster:
        for later, middle in zip((1, 0), cluster.middles, strict=True):
            first = 1 + step + later
            middle.tamper = lambda sender, number, frame, first=first: (
                [] if sender == "party-2" and number >= first else [frame]
            )
        script = cluster.script().ready()
        with suppress(PeerError):
            script.enter(1, script.integers(data(1)), OWNER)
        sessions = [cluster.of(index, script.id) for index in (0, 1) if script.id in cluster.sessions(index)]
        with pytest.raises(PeerError) as caught:
            script.everyone(lambda i: script.result(i, 1, RECIPIENT))
        assert [error and error.peer for error in script.errors[:2]] == ["party-2", "party-2"], script.errors
        assert caught.value.peer == "party-2"
        assert all(session.life.error and session.life.error.peer == "party-2" for session in sessions)


@pytest.mark.parametrize("victims", [(0,), (0, 2)], ids=["one", "all"])
def test_security_active_who_does_not_end_a_check_is_named_and_no_answer_is_whole(
    cluster: InProcess, victims: tuple[int, ...]
) -> None:
    """It has seen everybody's sums by then.  Who was told its own passes; nobody else gives a recipient a seed."""
    for middle, victim in zip(cluster.middles, (0, 2), strict=True):
        if victim in victims:
            middle.tamper = from_frame(1 + STEPS + len(CHECK_SIZES) - 1, silent)
    started = time.monotonic()
    script = cluster.script(replace(SEPARATE, security="active")).ready()
    script.enter(1, script.integers(data(1)), OWNER)
    with pytest.raises(PeerError):
        script.everyone(lambda i: script.result(i, 1, RECIPIENT))
    assert time.monotonic() - started < QUICK.step + GENEROUS
    for index in victims:
        error = script.errors[index]
        assert isinstance(error, PeerError) and error.peer == BAD, (index, error)
        assert cluster.ledger_states(index)[0] == ("aborted", "deadline")
        assert cluster.run_states(index, script.id) == ["aborted"]
    for index in {0, 2}.difference(victims):
        assert cluster.run_states(index, script.id) == ["revealed"]


@pytest.mark.parametrize("fault", [silent, cut], ids=lambda fault: fault.__name__)
def test_at_the_handshake(cluster: InProcess, fault: Callable) -> None:
    for middle in cluster.middles:
        middle.tamper = from_frame(0, fault)
    started = time.monotonic()
    script = cluster.script()
    with pytest.raises(PeerError):
        script.open()
    assert time.monotonic() - started < QUICK.connect + GENEROUS
    for index in (0, 2):
        error = script.errors[index]
        assert isinstance(error, PeerError) and error.peer == BAD, (index, error)
        assert eventually(lambda index=index: cluster.ledger_states(index)[0][0] == "aborted")


def test_between_two_runs(cluster: InProcess) -> None:
    """Cut off when nothing is awaited: the next call says why, and about whom."""
    script = cluster.script().open().enter_weights()
    for link in cluster.of(1, script.id).links.values():
        link.send_entered(7, [])  # a frame out of turn, from party-1
    assert eventually(lambda: cluster.ledger_states(0)[0][0] == cluster.ledger_states(2)[0][0] == "aborted")
    for index in (0, 2):
        with pytest.raises(PeerError) as caught:
            script.result(index, 1, RECIPIENT)
        assert caught.value.peer == BAD


def test_one_client_is_told_who(cluster: InProcess) -> None:
    """The error that the SDK raises, of all that the parties say."""
    for fault in (silent, cut):
        for middle in cluster.middles:
            middle.tamper = from_frame(3, fault)
        session = cluster.session()
        [given] = session.plan.inputs
        with pytest.raises(PeerError) as caught:
            integers = encode(data(1), session.plan.wire[given.wire].scale)
            session.run({given.wire: integers}, 1, time.perf_counter)
        assert caught.value.peer == BAD and caught.value.exit_code == 6
        session.close()


def test_a_party_that_is_not_there(tmp_path: Path) -> None:
    with InProcess(tmp_path, 3, absent=[1], deadlines=QUICK) as three:
        started = time.monotonic()
        with pytest.raises(PeerError) as caught:
            three.session()
        assert caught.value.peer == BAD
        assert time.monotonic() - started < QUICK.connect + GENEROUS
        script = three.script()
        with pytest.raises(PeerError):
            script.propose()
        assert script.errors[0] is None and script.errors[2] is None


# ------------------------------------------------------------------------------ provider


class Stalling(ProviderService):
    stall_run = -1
    at = "header"

    def deal(self, request: provider_pb2.DealRequest, context: Any) -> Iterator[provider_pb2.DealPart | Chunk]:
        for part in super().deal(request, context):
            kind = "chunk" if isinstance(part, Chunk) else part.WhichOneof("part")
            if request.run == Stalling.stall_run and Stalling.at == kind:
                end = time.monotonic() + GENEROUS
                while context.is_active() and time.monotonic() < end:
                    time.sleep(0.05)
                return
            yield part


@pytest.mark.parametrize(("run", "at"), [(0, "header"), (1, "header"), (1, "chunk"), (1, "end")])
def test_a_provider_that_stalls(tmp_path: Path, run: int, at: str) -> None:
    impatient = deadlines(connect=4, setup=2, step=4, submit=6)
    with InProcess(tmp_path, 2, provider=Stalling, deadlines=impatient) as cluster:
        Stalling.stall_run, Stalling.at = run, at
        script = cluster.script()
        started = time.monotonic()
        with pytest.raises(MpcError):
            script.open().enter_weights().prepare(1)
        assert time.monotonic() - started < GENEROUS
        assert any(isinstance(e, DeadlineError) and e.peer == "provider" for e in script.errors), script.errors
        assert cluster.is_idle()
        Stalling.stall_run = -1
        assert cluster.script().started().finish()


# ------------------------------------------------------------------------ what errors tell


def full_disk(path: Path, *_: object) -> None:
    raise OSError(28, "No space left on device", str(path))


def test_errors_of_a_partys_disk_name_no_path_to_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails, and at whom, is told; where that party keeps its files is not.  With room again all goes on."""
    with InProcess(tmp_path, 2) as cluster:
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "write_atomic", full_disk)
            with pytest.raises(ConfigError, match="party-[01]: the ledger cannot be used: No space left") as told:
                cluster.session()
            assert str(tmp_path) not in str(told.value)
        with monkeypatch.context() as patch:
            patch.setattr(stock, "private_folder", lambda path: disk.private_folder(tmp_path / "ca" / path.name))
            (tmp_path / "ca" / "stock").touch()
            client = cluster.client()
            with pytest.raises(ConfigError, match="party-[01]: a fault of its own disk") as told:
                ordering.order(client, cluster.compiled().plan, [1])
            assert str(tmp_path) not in str(told.value)
        assert cluster.is_idle()
        cluster.session().close()
