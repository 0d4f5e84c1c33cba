"""Real models on real processes: right answers at the price that was foretold."""

from __future__ import annotations

import json
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from math import frexp
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime
import pytest

from mpc.compiler.compile import compile_model
from mpc.plan.cost import plan_cost
from mpc.transcript import DIGEST_BYTES
from parties import Cluster, Session
from parties.addresses import Endpoint
from parties.config.load import dump_toml, load
from parties.config.models import PartyConfig, Peer
from parties.local import launcher
from parties.local.layout import LocalLayout
from tests.support.effort import FULL
from tests.support.parties import data, free_ports, tiny_answer, tiny_model
from tests.support.parties_commands import mpc

EXAMPLES = Path(__file__).parents[2] / "examples"
NETWORK_A, NETWORK_L = EXAMPLES / "mnist_mlp.onnx", EXAMPLES / "breast_cancer_lr.onnx"
TOLERANCE = 1e-3
FRAMING = 1.5
"""TLS records, HTTP/2 frames, gRPC and protobuf headers and acknowledgements, beside a small payload."""


class CountingProxy:
    """Copies bytes to and from ports of 127.0.0.1, and counts them: knows nothing of TLS or gRPC.

    It listens at the same ports of 127.0.0.2.
    """

    HOST = "127.0.0.2"

    def __init__(self, *ports: int) -> None:
        self._listeners = {port: socket.create_server((self.HOST, port)) for port in ports}
        self.counted = {"out": 0, "back": 0}
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._accept, args=(port,), daemon=True) for port in ports]

    def __enter__(self) -> Self:
        for thread in [*self._threads]:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(5)
        for listener in self._listeners.values():
            listener.close()

    def _accept(self, port: int) -> None:
        listener = self._listeners[port]
        listener.settimeout(0.2)
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                near, _ = listener.accept()
                self._threads.append(threading.Thread(target=self._copy, args=(near, port), daemon=True))
                self._threads[-1].start()

    def _copy(self, near: socket.socket, port: int) -> None:
        with near, socket.create_connection(("127.0.0.1", port)) as far, selectors.DefaultSelector() as waiting:
            for end, other, way in ((near, far, "out"), (far, near, "back")):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                waiting.register(end, selectors.EVENT_READ, (other, way))
            while not self._stopping.is_set():
                for key, _ in waiting.select(0.2):
                    other, way = key.data
                    try:
                        chunk = key.fileobj.recv(1 << 16)
                        other.sendall(chunk)
                    except OSError:
                        return
                    if not chunk:
                        return
                    self.counted[way] += len(chunk)


PROXIES: dict[int, CountingProxy] = {}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    with np.load(EXAMPLES / "mnist_sample.npz") as sample:
        return (sample["images"] / np.float32(255)).astype(np.float32)


@pytest.fixture(scope="module")
def patients() -> np.ndarray:
    with np.load(EXAMPLES / "breast_cancer_test.npz") as rows:
        return rows["x"]


@pytest.fixture(scope="module", params=[2, 3, 5])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if request.param != 2:
        with Cluster.local(parties=request.param) as running:
            yield running
        return
    # The same by hand: party 0 reaches party 1 through a proxy that counts, its port for rounds included.
    layout = LocalLayout.create(tmp_path_factory.mktemp("two") / ".mpc", parties=2)
    first, second = layout.members[1:]
    [rounds] = free_ports(1)
    dialled = load(PartyConfig, second.config).model_copy(update={"rounds_port": rounds})
    second.config.write_text(dump_toml(dialled))
    with CountingProxy(second.address.port, rounds) as proxy:
        config = load(PartyConfig, first.config)
        through = Peer(name=second.name, address=Endpoint(f"{proxy.HOST}:{second.address.port}"))
        peers = tuple(through if peer.name == second.name else peer for peer in config.peers)
        first.config.write_text(dump_toml(config.model_copy(update={"peers": peers})))
        launcher.start(layout)
        try:
            with Cluster.connect(layout.cluster_file) as running:
                PROXIES[id(running)] = proxy
                yield running
        finally:
            launcher.stop(layout)


@pytest.fixture(scope="module")
def network_a(cluster: Cluster) -> Session:
    return cluster.session(NETWORK_A)


def plaintext(model: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    [y] = session.run(None, {session.get_inputs()[0].name: x})
    return np.asarray(y)


def check_price(session: Session, batch: int, parties: int) -> None:
    """What was counted is what the plan says, to the byte."""
    report, cost = session.last_run, plan_cost(session.plan, batch)
    assert report is not None
    assert (report.batch, report.parties, report.rounds) == (batch, parties, cost.rounds)
    assert report.sent_bytes == cost.total_sent(parties)
    assert report.dealt_bytes == cost.total_dealt(parties)
    assert report.recipients == ("coordinator",)
    assert 0 < report.online_s and 0 < report.provider_s <= report.offline_s
    assert frexp(report.provider_s)[0] == 0.5  # the provider tells no more than a power of two


def test_network_a_at_small_batches(cluster: Cluster, network_a: Session, images: np.ndarray) -> None:
    for batch in (1, 1, 7):
        [logits] = network_a.run(None, {"x": images[:batch]})
        assert logits.dtype == np.float32 and logits.shape == (batch, 10)
        assert np.abs(logits - plaintext(NETWORK_A, images[:batch])).max() < TOLERANCE
        check_price(network_a, batch, len(cluster.config.parties))


@pytest.mark.filterwarnings("ignore:column 502:mpc.errors.MpcWarning")  # a pixel that is nearly always white
def test_network_a_on_a_thousand_images(cluster: Cluster, network_a: Session, images: np.ndarray) -> None:
    x = images if FULL or len(cluster.config.parties) == 2 else images[:200]
    [logits] = network_a.run(None, {"x": x})
    expected = plaintext(NETWORK_A, x)
    assert len(images) == 1000
    assert np.abs(logits - expected).max() < TOLERANCE
    assert (logits.argmax(1) == expected.argmax(1)).mean() >= 0.998
    check_price(network_a, len(x), len(cluster.config.parties))


def test_network_l(cluster: Cluster, patients: np.ndarray) -> None:
    session = cluster.session(NETWORK_L)
    for batch in (1, len(patients)):
        [probability] = session.run(None, {"x": patients[:batch]})
        assert np.abs(probability - plaintext(NETWORK_L, patients[:batch])).max() < TOLERANCE
        check_price(session, batch, len(cluster.config.parties))
    session.close()


def test_a_column_of_one_value(cluster: Cluster, tmp_path: Path) -> None:
    """Ranges of the SDK: a constant column beside others, and nothing but constants."""
    x = data(3)
    x[:, 1] = 1.5
    path = tiny_model(tmp_path / "tiny.onnx")
    constant = np.full_like(x, 0.25)
    for values, declared in ((x, ((-4, 1.5, -4), (4, 1.5, 4))), (constant, (0.25, 0.25))):
        with cluster.session(path, ranges={"x": declared}) as session:
            [y] = session.run(None, {"x": values})
            assert np.abs(y - tiny_answer(values)).max() < 1e-3


def test_a_session_looks_like_onnxruntimes(network_a: Session) -> None:
    theirs = onnxruntime.InferenceSession(str(NETWORK_A), providers=["CPUExecutionProvider"])
    for own, other in zip(
        [*network_a.get_inputs(), *network_a.get_outputs()], [*theirs.get_inputs(), *theirs.get_outputs()], strict=True
    ):
        assert (own.name, own.shape, own.type) == (other.name, other.shape, other.type)


# ---------------------------------------------------------------------------- the price


def test_the_promised_price_of_network_a() -> None:
    """At most 9 rounds, 4.5 kB to each peer, 20 kB dealt; `mpc inspect` says the same as the counters' oracle."""
    cost = plan_cost(compile_model(NETWORK_A).plan)
    assert cost.rounds <= 9
    assert cost.sent <= 4500
    assert cost.total_dealt(2) <= 20_000
    shown = json.loads(mpc("inspect", NETWORK_A, "--json").stdout)
    assert (shown["rounds"], shown["sent_bytes_per_peer"]) == (cost.rounds, cost.sent)
    assert shown["sent_bytes"] == cost.total_sent(2) and shown["dealt_bytes"] == cost.total_dealt(2)
    assert sum(gate["sent_bytes_per_peer"] for gate in shown["gates"]) == cost.sent - DIGEST_BYTES
    assert shown["agreement_bytes_per_peer"] == DIGEST_BYTES == 32


@pytest.mark.parametrize("cluster", [2], indirect=True)
def test_bytes_on_the_wire_between_two_parties(cluster: Cluster, network_a: Session, images: np.ndarray) -> None:
    """Counted on the loopback: the payload, and little else."""
    proxy = PROXIES[id(cluster)]
    for batch, factor in ((1, FRAMING), (64, 1.05)):
        before = dict(proxy.counted)
        network_a.run(None, {"x": images[:batch]})
        assert network_a.last_run is not None
        payload = network_a.last_run.sent_bytes
        for way, count in proxy.counted.items():
            assert payload <= count - before[way] <= factor * payload, (batch, way, count - before[way])
