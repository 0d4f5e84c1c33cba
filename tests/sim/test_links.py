"""Seeded faults between parties (security.md 27): a right result or a typed abort, never a wrong one, never a hang.

The parties' own links, inboxes and evaluation, each in a thread; between each two links stands a
network that drops, delays, repeats, reorders and cuts frames as its seed says.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from mpc import field as fp
from mpc.compiler.compile import Compiled, compile_model
from mpc.errors import MpcError, PeerError
from mpc.fixedpoint import decode, encode
from mpc.interpret.party import PartyRun
from mpc.interpret.world import World
from mpc.prg import Seed, expand_field
from mpc.shares import Lane
from parties.party.link import Link, exchange
from parties.pb.party_pb2 import Frame, Hello
from tests.support.effort import FULL, patient
from tests.support.parties import data, tiny_answer, tiny_model

STEP_SECONDS = patient(0.6)
HANG_SECONDS = patient(30.0)
RUNS = 2
FAULTS = ("drop", "delay", "repeat", "reorder", "cut")


class Cut(Exception):
    """What a transport raises when it loses its connection."""


@dataclass
class Network:
    """One direction between two links.

    Args:
        rates: how probable each fault is, frame by frame.
    """

    rates: dict[str, float]
    rng: random.Random
    log: list[str]
    frames: queue.SimpleQueue[Frame | None | Cut] = field(default_factory=queue.SimpleQueue)

    def carry(self, link: Link) -> None:
        """Take what a link sends and pass it on, or not; a thread of its own."""
        held: Frame | None = None
        for frame in link.frames():
            fault = self._draw()
            if fault != "none":
                self.log.append(fault)
            if fault == "cut":
                self.frames.put(Cut())
                return
            if fault == "drop":
                continue
            if fault == "delay":
                time.sleep(self.rng.uniform(0.001, 0.03))
            if fault == "reorder" and held is None:
                held = frame
                continue
            for _ in range(2 if fault == "repeat" else 1):
                self.frames.put(frame)
            if held is not None:
                self.frames.put(held)
                held = None
        if held is not None:
            self.frames.put(held)
        self.frames.put(None)

    def _draw(self) -> str:
        point = self.rng.random()
        for name, rate in self.rates.items():
            if point < rate:
                return name
            point -= rate
        return "none"

    def arriving(self) -> Iterator[Frame]:
        """What the other link receives."""
        while (frame := self.frames.get()) is not None:
            if isinstance(frame, Cut):
                raise frame
            yield frame


class Node:
    """One party: a thread that greets, runs, and aborts as a session does."""

    def __init__(self, index: int, count: int, crash_at: int) -> None:
        self.index, self._crash_at = index, crash_at
        hello = Hello(
            protocol=1,
            session_id=b"s" * 32,
            plan_digest=b"p" * 32,
            field="2^61-1",
            roster=b"r" * 32,
            salt=b"n" * 32,
            window=1,
        )
        self.links = {
            other: Link(f"party-{other}", hello, self.abort, lambda _: None, "coordinator")
            for other in range(count)
            if other != index
        }
        self.error: BaseException | None = None
        self.outputs: list[np.ndarray] = []
        self.transcripts: list[bytes] = []
        self._lock = threading.Lock()

    def abort(self, error: MpcError) -> None:
        with self._lock:
            if self.error is not None:
                return
            self.error = error
        for link in self.links.values():
            link.abort(error)

    def live(self, runs: list[PartyRun], given: list[dict[str, np.ndarray]], wire: str) -> None:
        try:
            deadline = time.monotonic() + STEP_SECONDS
            for link in self.links.values():
                link.await_agreement(deadline)
            for number, run in enumerate(runs, 1):
                self._run(number, run, given[number - 1])
                self.outputs.append(run.output(wire))
                self.transcripts.append(run.transcript.digest)
        except MpcError as error:
            self.abort(error)
        except BaseException as error:  # a bug: the test shows it
            self.error = error
        finally:
            for link in self.links.values():
                link.close()

    def _run(self, number: int, run: PartyRun, given: dict[str, np.ndarray]) -> None:
        steps, links = run.schedule.steps, list(self.links.values())
        for link in links:
            link.inbox.begin(number, [step.size for step in steps])
        evaluation = run.steps(given)
        payload = next(evaluation)
        for step in steps:
            if self._crash_at == (number - 1) * len(steps) + step.number:
                raise PeerError("crashed", peer=f"party-{self.index}")
            received = exchange(links, number, step.number, payload, STEP_SECONDS)
            try:
                payload = evaluation.send(received)
            except StopIteration:
                return


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    path: Path = tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx")
    return compile_model(path, {"x": (-4.0, 4.0)})


def simulate(compiled: Compiled, seed: int, count: int, kinds: tuple[str, ...], rate: float) -> tuple[str, list[str]]:
    """One session of two runs; ("right" or "aborted", the faults there were)."""
    rng = random.Random(seed)
    world = World(compiled.plan, compiled.weights, count, Seed(seed.to_bytes(32, "big")))
    bound = compiled.plan.bind(2)
    [given_wire], [out] = compiled.plan.inputs, compiled.plan.outputs
    xs = [data(2, seed=seed + run) for run in range(RUNS)]
    runs: list[list[PartyRun]] = [[] for _ in range(count)]
    given, masks = [], []
    for number, x in enumerate(xs, 1):
        _, bundles = world.deal(bound, bound.online, number, 2)
        wire = bound.wire[given_wire.wire]
        given.append({wire.name: world.mask_input(wire, encode(x, wire.scale), bundles)})
        for index, bundle in enumerate(bundles):
            run = PartyRun(bound, Lane.passive(index), bundle, world.sessions[index])
            run.prepare()
            runs[index].append(run)
        masks.append([bundle.mask_seed(out.wire) for bundle in bundles])

    log: list[str] = []
    crash_at = rng.randrange(2 * len(runs[0][0].schedule.steps)) if "crash" in kinds else -1
    nodes = [Node(index, count, crash_at if index == 0 else -1) for index in range(count)]
    threads = [
        threading.Thread(target=node.live, args=(runs[node.index], given, out.wire), daemon=True) for node in nodes
    ]
    rates = {kind: rate / len(kinds) for kind in kinds if kind != "crash"}
    for node in nodes:
        for other, link in node.links.items():
            network = Network(rates, random.Random(rng.random()), log)
            receiver = nodes[other].links[node.index]

            def lost(error: Exception, peer: str = receiver.peer) -> MpcError:
                assert isinstance(error, Cut), error
                return PeerError(f"the connection to {peer} was lost", peer=peer)

            threads.append(threading.Thread(target=network.carry, args=(link,), daemon=True))
            threads.append(threading.Thread(target=receiver.receive, args=(network.arriving(), lost), daemon=True))
    for thread in threads:
        thread.start()
    end = time.monotonic() + HANG_SECONDS
    for thread in threads[:count]:
        thread.join(max(0.0, end - time.monotonic()))
        assert not thread.is_alive(), f"seed {seed}: a party hangs after {log}"
    judge(compiled, nodes, xs, masks, f"seed {seed}, {log}")
    for thread in threads[count:]:
        thread.join(max(0.0, end - time.monotonic()))
        assert not thread.is_alive(), f"seed {seed}: a stream hangs after {log}"
    return "right" if all(len(node.outputs) == RUNS for node in nodes) else "aborted", log


def judge(compiled: Compiled, nodes: list[Node], xs: list[np.ndarray], masks: list, story: str) -> None:
    """Whoever finished a run has the right output; whoever did not has a typed error."""
    [out] = compiled.plan.outputs
    wire = compiled.plan.bind(2).wire[out.wire]
    for number, x in enumerate(xs):
        finished = [node for node in nodes if len(node.outputs) > number]
        for node in finished:
            total = node.outputs[number]
            for seed in masks[number]:
                total = fp.sub(total, expand_field(seed, wire.sizes))
            got = decode(fp.to_signed(total), wire.scale).reshape(tiny_answer(x).shape)
            assert np.abs(got - tiny_answer(x)).max() < 1e-3, story
        assert len({node.transcripts[number] for node in finished}) <= 1, story
    for node in nodes:
        if len(node.outputs) < RUNS:
            assert isinstance(node.error, MpcError), (story, node.error)
            assert node.error.code != "internal" and node.error.peer, (story, node.error)


@pytest.mark.parametrize("count", [2, 3])
def test_without_faults(compiled: Compiled, count: int) -> None:
    assert simulate(compiled, 1, count, FAULTS, 0.0) == ("right", [])


@pytest.mark.parametrize("kind", [*FAULTS, "crash"])
def test_one_kind_of_fault(compiled: Compiled, kind: str) -> None:
    """Frequent: every kind happens, and the harmless ones do no harm."""
    outcomes: Counter[str] = Counter()
    happened = 0
    for seed in range(20 if FULL else 4):
        outcome, log = simulate(compiled, seed, 2 + seed % 2, (kind,), 0.12)
        outcomes[outcome] += 1
        happened += bool(log) or kind == "crash"
        if not log and kind != "crash":
            assert outcome == "right"
        if kind == "delay":
            assert outcome == "right"
    assert happened
    if kind == "crash":
        assert set(outcomes) == {"aborted"}


def test_every_kind_together(compiled: Compiled) -> None:
    outcomes: Counter[str] = Counter()
    for seed in range(100, 112):
        outcomes[simulate(compiled, seed, 2 + seed % 3, FAULTS, 0.02)[0]] += 1
    assert outcomes["right"] and outcomes["aborted"], outcomes


@pytest.mark.slow
def test_many_seeds(compiled: Compiled) -> None:
    for seed in range(1000, 1150):
        simulate(compiled, seed, 2 + seed % 4, (*FAULTS, "crash")[: 3 + seed % 4], 0.01 * (1 + seed % 8))
