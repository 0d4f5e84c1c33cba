"""Segments of a run that are altered, exchanged, left out, cut off or another run's: nothing is opened with them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpc.compiler.roles import Roles
from mpc.entry import EntryId
from mpc.errors import DeadlineError, IntegrityError, MpcError, PeerError
from mpc.plan.checking import check_windows, step_of
from mpc.plan.segments import segments, spans
from parties.agreed.segments import sign_segment, verify_segment
from parties.agreed.terms import Terms
from parties.client.session import Session
from parties.config.models import Limits
from parties.party.arriving import Arriving
from parties.pb import party_pb2, provider_pb2
from parties.pb.provider_pb2 import DealPart
from parties.provider.service import ProviderService
from parties.trust import identity as identities
from parties.wire.frames import Chunk
from parties.wire.transport import caller
from tests.support.effort import patient
from tests.support.parties import (
    SEPARATE,
    InProcess,
    Script,
    data,
    deadlines,
    eventually,
)

CORRECTED = "party-1"
"""Of run 1 between two parties."""
Part = DealPart | Chunk
Parts = list[list[Part]]
"""What one party is sent of a bundle, segment by segment: chunks, and what is signed behind them."""
WINDOW = Limits(max_sessions=256, max_window_bytes=1)
"""Nothing is prepared ahead but the first segment."""


def pieces(parts: Iterator[Part]) -> Iterator[list[Part]]:
    """A bundle's header, and then segment by segment."""
    held: list[Part] = []
    for part in parts:
        held.append(part)
        if not isinstance(part, Chunk):
            yield held
            held = []


class Tampering(ProviderService):
    """Changes one segment of run 1 on its way, and keeps what it sent in sessions before."""

    change: Callable[[int, list[Part]], list[Part]] | None = None
    paused: Callable[[int], None] = staticmethod(lambda segment: None)
    told: dict[tuple[str, int], list[Part]]

    def deal(self, request: provider_pb2.DealRequest, context: Any) -> Iterator[Part]:
        who, dealt = caller(context), pieces(super().deal(request, context))
        yield from next(dealt)
        for number, parts in enumerate(dealt):
            if request.run != 1:
                yield from parts
                continue
            self.paused(number)
            change = Tampering.change
            changed = parts if change is None else change(number, list(parts))
            Tampering.told.setdefault((who, number), parts)
            yield from changed
            if not changed and number in CUT:
                return

    def Deals(self, request: Iterator[provider_pb2.DealRequest], context: Any) -> Iterator[Part]:
        for asked in request:
            yield from self.deal(asked, context)
            if Tampering.change is not None and asked.run == 1:
                return  # what was left out is waited for no longer


CUT: set[int] = set()
"""Segments behind which the stream ends, if nothing of them is sent."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    folder = tmp_path_factory.mktemp("cluster")
    with InProcess(folder, 2, provider=Tampering, limits=WINDOW, middles=[(0, 1)]) as running:
        yield running


@pytest.fixture(autouse=True)
def honest() -> Iterator[None]:
    Tampering.told = {}
    yield
    Tampering.change, Tampering.paused = None, staticmethod(lambda segment: None)
    CUT.clear()


def segmented(cluster: InProcess, roles: Roles = SEPARATE) -> Script:
    """A session of the tiny model in which each gate is a segment."""
    compiled = cluster.compiled(roles)
    return Script(cluster, replace(compiled, plan=compiled.plan.with_segments(1)))


def parts_of(script: Script) -> tuple[list[int], list[int]]:
    """Bytes of corrections of each segment, and the step at which its first gate starts."""
    bound = script.plan.bind(1)
    found = segments(bound, EntryId(1))
    return [part.dealt for part in found], [first for first, _ in spans(bound, found)]


def steps_sent(cluster: InProcess) -> dict[str, set[int]]:
    """Which steps of run 1 each party sends from now on."""
    sent: dict[str, set[int]] = {name: set() for name in cluster.names}

    def watch(sender: str, number: int, frame: party_pb2.Frame) -> list[party_pb2.Frame]:
        if frame.WhichOneof("body") == "payload":
            sent[sender].add(frame.payload.step)
        return [frame]

    cluster.middles[0].tamper = watch
    return sent


def answer(script: Script, replies: list[list[party_pb2.ResultPart]]) -> None:
    assert len(replies) == 2 and all(parts[0].WhichOneof("part") == "header" for parts in replies)


def flipped(parts: list[Part]) -> list[Part]:
    """One bit of the segment's corrections, or of what is signed of it where another party has those."""
    if isinstance(parts[0], Chunk):
        changed = bytearray(parts[0].data)
        changed[len(changed) // 2] ^= 1
        return [Chunk(bytes(changed)), *parts[1:]]
    return [*parts[:-1], signed(parts, parts[-1].segment.content.replace(b'"segment"', b'"Segment"'))]


def signed(parts: list[Part], content: bytes) -> DealPart:
    """The segment's last message with other content."""
    part = DealPart()
    part.CopyFrom(parts[-1])
    part.segment.content = content
    return part


def exchanged(target: int, before: dict[tuple[str, int], list[Part]]) -> Callable[[int, list[Part]], list[Part]]:
    """The segment before it once more, in the place of one."""
    last: list[list[Part]] = []

    def change(number: int, parts: list[Part]) -> list[Part]:
        if number == target:
            found = [part for part in last[-1] if not isinstance(part, Chunk)]
            chunks = [part for part in parts if isinstance(part, Chunk)]
            return [*chunks, *found]
        last.append(parts)
        return parts

    return change


CHANGES: dict[str, Callable[[list[Part]], list[Part]]] = {
    "a bit": flipped,
    "cut short": lambda parts: (
        [*(Chunk(part.data[:-1]) for part in parts[:1] if isinstance(part, Chunk)), parts[-1]]
        if isinstance(parts[0], Chunk)
        else [signed(parts, parts[-1].segment.content[:-1])]
    ),
    "left out": lambda parts: [],
    "its corrections twice": lambda parts: [parts[0], *parts],
    "no signature": lambda parts: [*parts[:-1], DealPart(segment=provider_pb2.DealtSegment())],
    "nothing more": lambda parts: [],
}


def refused(cluster: InProcess, script: Script, target: int, errors: tuple[type[MpcError], ...]) -> None:
    """Run 1 ends at both parties before anything is opened with the segment by whoever was sent something else."""
    _, firsts = parts_of(script)
    sent = steps_sent(cluster)
    with pytest.raises(errors):
        script.started().finish()
    assert cluster.has_ended(script.id)
    bound = script.plan.bind(1)
    of_steps = [step_of(bound, each) if bound.is_checked else each for each in sent[CORRECTED]]
    assert all(step is None or step < firsts[target] for step in of_steps), (sent, firsts)
    for index in range(2):
        assert eventually(lambda index=index: cluster.ledger_states(index)[0][0] == "aborted")
        assert "revealed" not in cluster.run_states(index, script.id)


@pytest.mark.parametrize("damage", CHANGES)
def test_a_segment_that_is_not_what_was_dealt_opens_nothing(cluster: InProcess, damage: str) -> None:
    script = segmented(cluster)
    dealt, firsts = parts_of(script)
    target = max(number for number, size in enumerate(dealt) if size)
    assert firsts[target] > 0 and target > 1, "there is something before it"
    if damage == "nothing more":
        CUT.add(target)

    def change(number: int, parts: list[Part]) -> list[Part]:
        return CHANGES[damage](parts) if number == target else parts

    Tampering.change = staticmethod(change)
    refused(cluster, script, target, (IntegrityError, PeerError))


def test_what_was_signed_of_another_segment_opens_nothing(cluster: InProcess) -> None:
    script = segmented(cluster)
    dealt, _ = parts_of(script)
    target = max(number for number, size in enumerate(dealt) if size)
    Tampering.change = staticmethod(exchanged(target, Tampering.told))
    refused(cluster, script, target, (IntegrityError,))


def test_a_segment_of_another_run_opens_nothing(cluster: InProcess) -> None:
    """Signed by the provider, with its corrections, of the same plan and segment - and of another session."""
    other = segmented(cluster)
    answer(other, other.started().finish())
    kept = dict(Tampering.told)
    script = segmented(cluster)
    dealt, _ = parts_of(script)
    target = max(number for number, size in enumerate(dealt) if size)

    def replay(number: int, parts: list[Part]) -> list[Part]:
        who = CORRECTED if isinstance(parts[0], Chunk) else "party-0"
        return kept[who, number] if number == target else parts

    Tampering.change = staticmethod(replay)
    refused(cluster, script, target, (IntegrityError,))


def test_where_runs_are_checked_it_opens_nothing_either(cluster: InProcess) -> None:
    """Windows before it have been checked; nobody was told anything."""
    script = segmented(cluster, replace(SEPARATE, security="active"))
    dealt, _ = parts_of(script)
    target = max(number for number, size in enumerate(dealt) if size)
    assert len(check_windows(script.plan.bind(1))) > 1

    def change(number: int, parts: list[Part]) -> list[Part]:
        return flipped(parts) if number == target and isinstance(parts[0], Chunk) else parts

    Tampering.change = staticmethod(change)
    refused(cluster, script, target, (IntegrityError,))


@pytest.mark.parametrize("security", ["passive", "active"])
def test_many_segments_give_the_right_answer(
    cluster: InProcess, security: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control; whoever is sent corrections never holds all of them, checked or not."""
    held, come = list[int](), Arriving.release

    def release(self: Arriving, number: int) -> None:
        held.append(len(self._buffers))
        come(self, number)

    monkeypatch.setattr(Arriving, "release", release)
    script = segmented(cluster, replace(SEPARATE, security=security))
    answer(script, script.started().finish())
    assert 0 < max(held) < len(parts_of(script)[0])
    assert eventually(lambda: not cluster.dealt(script.id).bundles), "the provider has forgotten the run"


def test_a_provider_that_dies_in_the_middle_of_a_run_is_named(tmp_path: Path) -> None:
    reached, stopped = threading.Event(), threading.Event()

    def paused(number: int) -> None:
        if number == 2:
            reached.set()
            stopped.wait(patient(30))

    Tampering.paused = staticmethod(paused)
    with InProcess(tmp_path, 2, provider=Tampering, limits=WINDOW) as own:
        script = segmented(own).started()
        assert reached.wait(patient(30))
        threading.Timer(0.2, stopped.set).start()
        own.stop_provider()
        with pytest.raises(PeerError) as caught:
            script.finish()
        assert caught.value.peer == "provider"
        assert own.has_ended(script.id) and own.is_idle()


def test_a_provider_may_take_as_long_as_it_likes_but_not_be_silent(tmp_path: Path) -> None:
    """The deadline is for each segment, not for all of a run."""
    seconds = deadlines(connect=10, setup=3, step=20, submit=20)
    over, silent = threading.Event(), [False]

    def paused(number: int) -> None:
        if number:
            over.wait(patient(60) if silent[0] else patient(1.2))

    Tampering.paused = staticmethod(paused)
    with InProcess(tmp_path, 2, provider=Tampering, limits=WINDOW, deadlines=seconds) as own:
        started, script = time.monotonic(), segmented(own)
        answer(script, script.started().finish())
        assert time.monotonic() - started > seconds.setup
        silent[0] = True
        script = segmented(own)
        with pytest.raises((DeadlineError, PeerError)) as caught:
            script.started().finish()
        assert caught.value.peer == "provider"
        assert own.has_ended(script.id)
        over.set()


@pytest.mark.parametrize("window", [None, 1], ids=["all ahead", "segment by segment"])
def test_no_client_ends_a_run_of_a_provider_that_is_slow(
    tmp_path: Path, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long values take their time, also where all are dealt before inputs; here the 132 bytes of the tiny model."""
    monkeypatch.setattr("parties.wire.pieces.SLOWEST", 30 / patient(1))
    seconds = deadlines(connect=10, setup=3, step=20, submit=20)
    Tampering.paused = staticmethod(lambda number: time.sleep(patient(1.2) if number else 0))
    limits = Limits(max_sessions=256) if window is None else WINDOW
    with InProcess(tmp_path, 2, provider=Tampering, limits=limits, deadlines=seconds) as own:
        compiled = own.compiled(Roles())
        compiled = replace(compiled, plan=compiled.plan.with_segments(1))
        started = time.monotonic()
        with Session(own.client(), compiled) as session:
            [found] = session.run(None, {compiled.plan.inputs[0].name: data(1, seed=1)})
        assert found.shape[0] == 1 and time.monotonic() - started > seconds.setup


def test_a_link_of_the_chain_fits_its_place_alone(cluster: InProcess) -> None:
    identity = cluster.identity("provider")
    trust, certificate = identity.trust, identity.certificate_pem
    terms = Terms(bytes(32), "provider", cluster.names, (bytes(32), bytes([1]) * 32))
    content, signature = sign_segment(identity, b"the manifest", 1, bytes(32))
    assert verify_segment(trust, terms, certificate, b"the manifest", 1, content, signature) == bytes(32).hex()
    for before, number in ((b"another manifest", 1), (b"the manifest", 2), (content, 1)):
        with pytest.raises(IntegrityError, match=f"is not of segment {number} of this bundle"):
            verify_segment(trust, terms, certificate, before, number, content, signature)
    for odd in (b"[]", b"{}", b'{"corrections":1}', b"{", b"\xff"):
        with pytest.raises(IntegrityError, match="malformed"):
            verify_segment(trust, terms, certificate, b"m", 1, odd, identities.sign(identity, odd))
    with pytest.raises(IntegrityError, match="too long"):
        verify_segment(trust, terms, certificate, b"m", 1, b"x" * 2000, signature)
    forger = cluster.identity("party-0")
    forged, own = sign_segment(forger, b"the manifest", 1, bytes(32))
    with pytest.raises(IntegrityError, match="was rejected"):
        verify_segment(trust, terms, forger.certificate_pem, b"the manifest", 1, forged, own)
