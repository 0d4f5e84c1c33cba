"""Ten clients of Flower and a server that averages: it learns one noised mean a round, and no client's update."""

from __future__ import annotations

import stat
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from mpc.errors import ConfigError, InputError, MpcWarning, PolicyError, UsageError
from mpc.privacy.facts import Loss
from parties import Cluster
from parties.client.collections.spent import Spent, place_of
from parties.config.load import dump_toml
from parties.integrations import flower as flower_module
from parties.integrations.flower import as_arrays, move, moved, private_mean, sends_privately
from tests.support.collections import over
from tests.support.flower import (
    Array,
    ArrayRecord,
    Context,
    Everybody,
    Message,
    Metadata,
    MetricRecord,
    RecordDict,
    Simulation,
    flower,
)
from tests.support.parties import InProcess

__all__ = ["flower"]
CLIENTS, BOUND = 10, 0.5
MODEL = {"layer.weight": np.zeros((3, 4), np.float32), "layer.bias": np.zeros(4, np.float32), "10": np.array([7])}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with InProcess(tmp_path_factory.mktemp("flower"), 2) as running:
        yield running


def update_of(node: int) -> np.ndarray:
    """How far a client's training moves the arrays; of one client further than the bound."""
    found = np.random.default_rng(node).uniform(-0.4, 0.4, 17)
    return found + 2 if node == 3 else found


def train(message: Message, context: Context) -> Message:
    """An app that knows nothing of parties."""
    if message.metadata.message_type == "evaluate":
        return Message(RecordDict({"metrics": MetricRecord({"loss": 0.5})}), message.metadata)
    arrays = as_arrays(message.content["arrays"])
    by = update_of(context.node_config["partition-id"])
    record = ArrayRecord({key: Array(values) for key, values in move_floats(arrays, by).items()})
    metrics = MetricRecord({"num-examples": 12, "train_loss": 0.25})
    return Message(RecordDict({"arrays": record, "metrics": metrics}), message.metadata)


def move_floats(arrays: dict[str, np.ndarray], by: np.ndarray) -> dict[str, np.ndarray]:
    return move({key: values.astype(np.float64) for key, values in arrays.items()}, by)


def simulation(
    cluster: InProcess, most: float = 5, total: float = 1000, named: str = "client", **more: frozenset[int]
) -> Simulation:
    """Ten nodes, each with a cluster file of its own."""

    def cluster_file(context: Context) -> str:
        name = f"{named}-{context.node_config['partition-id']}"
        path = cluster.folder / f"{name}.toml"
        path.write_text(dump_toml(cluster.client(name).config))
        return str(path)

    return Simulation(
        train, sends_privately(cluster_file, epsilon=most, total=total, total_delta="1/10"), CLIENTS, **more
    )


def initial() -> ArrayRecord:
    return ArrayRecord({key: Array(values) for key, values in MODEL.items()})


@pytest.mark.usefixtures("flower")
def test_a_client_says_how_much_a_round_may_tell_of_it(cluster: InProcess) -> None:
    with Cluster(cluster.client().config) as server:
        strategy = private_mean(Everybody(), server, bound=BOUND, epsilon=5, delta="1/100000", at_least=8, name="much")
        with pytest.raises(PolicyError, match="would tell more of this client than it allows"):
            simulation(cluster, most=4.9).run(strategy, initial(), 1)


@pytest.mark.usefixtures("flower")
def test_ten_clients_average_and_the_server_sees_no_update(cluster: InProcess) -> None:
    nodes, inner = simulation(cluster), Everybody()
    with Cluster(cluster.client().config) as server:
        strategy = private_mean(inner, server, bound=BOUND, epsilon=5, delta="1/100000", at_least=8, name="ten")
        arrays, told = nodes.run(strategy, initial(), 2)
    assert nodes.seen == [RecordDict()] * 2 * CLIENTS
    assert len(inner.evaluated) == 2 * CLIENTS
    [first, second] = [metrics for metrics, _ in told]
    assert (first["rows"], first["epsilon"]) == (CLIENTS, 5.0)
    cut = np.mean([np.clip(update_of(node), -BOUND, BOUND) for node in range(CLIENTS)], axis=0)
    found = as_arrays(arrays)
    assert [*found] == [*MODEL]
    assert [each.dtype for each in found.values()] == [each.dtype for each in MODEL.values()]
    floats = {key: values for key, values in found.items() if key != "10"}
    wanted = move_floats({key: values.astype(float) for key, values in MODEL.items()}, 2 * cut)
    noise = 6 * (first["std"] ** 2 + second["std"] ** 2) ** 0.5
    for key, values in floats.items():
        assert np.abs(values - wanted[key]).max() < noise
    assert found["10"] == np.rint(found["10"]) and abs(found["10"] - 7) < noise + 1


@pytest.mark.usefixtures("flower")
def test_a_client_counts_what_rounds_tell_of_it(cluster: InProcess) -> None:
    """All its rounds, of whatever server; of one too many nothing leaves, and the file that counts is its own."""
    said = {"bound": BOUND, "epsilon": 5, "delta": "1/100000", "at_least": 8}
    nodes = simulation(cluster, total=11, named="counting")
    with Cluster(cluster.client().config) as server:
        strategy = private_mean(Everybody(), server, name="count", **said)
        _, told = nodes.run(strategy, initial(), 2)
        assert [metrics["rows"] for metrics, _ in told] == [CLIENTS, CLIENTS]
        with pytest.raises(PolicyError, match="would tell more than it allows"):
            nodes.run(private_mean(Everybody(), server, name="again", **said), initial(), 1)
    for node in range(CLIENTS):
        path = place_of(cluster.client(f"counting-{node}").config)
        assert Spent(path).loss == Loss(Fraction(10), Fraction(1, 50_000))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.usefixtures("flower")
def test_rounds_in_which_clients_fail(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are averaged once the time is over; of too few nothing is told, and the arrays stay."""
    waited = list[float]()

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        over(cluster, monkeypatch)

    with Cluster(cluster.client().config) as server:
        said = {"bound": BOUND, "epsilon": 5, "delta": "1/100000", "at_least": 8, "seconds": 150.0}
        strategy = private_mean(Everybody(), server, name="some", **said)
        monkeypatch.setattr(
            flower_module, "time", SimpleNamespace(sleep=sleep, time=time.time, monotonic=time.monotonic)
        )
        _, [(metrics, _)] = simulation(cluster, lost=frozenset({0, 9})).run(strategy, initial(), 1)
        assert metrics["rows"] == CLIENTS - 2
        assert len(waited) == 1 and 0 < waited[0] < 153
        for node in cluster.nodes:
            monkeypatch.setattr(node.vault.times, "clock", time.time)
        strategy = private_mean(Everybody(), server, name="few", **said)
        with pytest.warns(MpcWarning, match="round 1 is left out: 7 clients have entered, of 8"):
            arrays, [(metrics, _)] = simulation(cluster, lost=frozenset({0, 8, 9})).run(strategy, initial(), 1)
        assert metrics is None
        assert all(np.array_equal(values, MODEL[key]) for key, values in as_arrays(arrays).items())


@pytest.mark.usefixtures("flower")
def test_a_server_that_asks_for_the_update_itself_gets_none(cluster: InProcess) -> None:
    """Its message names no collection: the client does not even train."""
    nodes = simulation(cluster)
    message = Message(RecordDict({"arrays": initial()}), Metadata("train", 0))
    with pytest.raises(InputError, match="asks for an update that is not private"):
        nodes.mod(message, Context({"partition-id": 0}), lambda *_: pytest.fail("it was trained"))


@pytest.mark.usefixtures("flower")
def test_what_makes_no_sense_is_refused(cluster: InProcess) -> None:
    with Cluster(cluster.client().config) as server:
        for bound in (0, -1, float("inf"), True, "1"):
            with pytest.raises(UsageError, match="bound"):
                private_mean(Everybody(), server, bound=bound, epsilon=1)
        strategy = private_mean(Everybody(), server, bound=1, epsilon=1, at_least=11)
        with pytest.raises(UsageError, match="10 clients train, and nothing of fewer than 11"):
            simulation(cluster).run(strategy, initial(), 1)
    one = {"w": np.zeros(2)}
    for other in ({"v": np.zeros(2)}, {"w": np.zeros(3)}, {"w": np.array([0, np.nan])}):
        with pytest.raises(InputError):
            moved(one, other)


def test_without_flower_the_module_is_there_and_says_so(cluster: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("flwr", "flwr.app", "flwr.serverapp", "flwr.serverapp.strategy"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match="Flower is not installed"):
        sends_privately(lambda context: "", epsilon=1, total=1)
