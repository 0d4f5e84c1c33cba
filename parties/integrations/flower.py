"""Federated averaging in Flower, in which nobody sees a client's update: one noised mean a round, or nothing.

    from parties.integrations.flower import private_mean, sends_privately

    mods = [sends_privately(cluster_file_of, epsilon=1, total=10)]  # at the clients
    app = ClientApp(mods=mods)  # which itself stays as it is
    strategy = private_mean(FedAvg(), cluster, bound=0.5, epsilon=1, at_least=8)        # at the server
    strategy.start(grid, initial_arrays, num_rounds=10)

Each round is a collection (docs/collections.md).  A client trains, and enters how far its arrays have moved, cut to the
bound; of its reply nothing but that it is there goes to the server.  The server learns the mean of all that moved, with
noise, and moves its arrays by that.  Which clients take part, and evaluation, stay the inner strategy's.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mpc.errors import ConfigError, InputError, PolicyError, SessionError, UsageError, warn
from mpc.privacy.facts import Loss
from parties.client.cluster import Cluster
from parties.client.collections import calls
from parties.client.collections.collection import Collected, Collection
from parties.client.collections.spent import Spent, place_of
from parties.client.consent.granted import as_amount

_LATE = 10.0
"""Seconds that a party's clock may be behind the server's."""
COLLECTION = "mpc-collection"
"""Key under which a round's configuration names its collection."""
Arrays = dict[str, np.ndarray]
ClusterFile = Callable[[Any], str | Path]
"""Given a client's context, names its cluster file."""


def private_mean(
    inner: Any,
    cluster: Cluster,
    *,
    bound: Any,
    epsilon: Any,
    at_least: int = 2,
    delta: Any = "1/1000000",
    seconds: float = 600.0,
    name: str = "flower",
    contributors: Sequence[str] | None = None,
) -> Any:
    """Return a Flower strategy that moves arrays by a noised mean of what clients enter.

    Args:
        inner: a strategy, which says who trains and who evaluates, and adds up what evaluation tells.
        cluster: of this server, which opens a collection each round and learns its mean.
        bound: no number of an update moves by more: what is beyond is cut at the client, and held at the parties.
        epsilon, delta: what each round tells of a client that takes part in it, at most.  Rounds add up.
        at_least: clients; a round of fewer is left out, and nothing of it is told.
        seconds: after which a round's collection is closed if not all clients have entered.
        name: the first part of its collections' names.
        contributors: names of those who may enter; None for every client that the parties let put data.

    Raises:
        ConfigError: Flower is not installed.
        UsageError: the bound is no number above 0.
    """
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not 0 < bound < math.inf:
        raise UsageError("the bound of an update is a number above 0", remedy="bound=0.5")
    terms = {"epsilon": epsilon, "delta": delta, "until": seconds, "contributors": contributors}
    rounds = Rounds(cluster, float(bound), at_least, f"{name}-{secrets.token_hex(4)}", terms)
    strategy, flower = _flower("flwr.serverapp.strategy"), _flower("flwr.app")

    class PrivateMean(strategy.Strategy):  # type: ignore[misc, name-defined]
        """Asks the inner strategy all but for what is averaged."""

        def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Iterable[Any]:
            """Open the round's collection for those whom the inner strategy has train."""
            config[COLLECTION] = rounds.full_name(server_round)
            messages = list(inner.configure_train(server_round, arrays, config, grid))
            if messages:
                rounds.open(server_round, as_arrays(arrays), len(messages))
            return messages

        def aggregate_train(self, server_round: int, replies: Iterable[Any]) -> tuple[Any, Any]:
            """Close it, and move the arrays by the mean."""
            entered = sum(not reply.has_error() for reply in replies)
            found = rounds.close(server_round, entered)
            if found is None:
                return None, None
            arrays, about = found
            record = flower.ArrayRecord({key: flower.Array(values) for key, values in arrays.items()})
            return record, flower.MetricRecord(about)

        def configure_evaluate(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Iterable[Any]:
            """Leave it to the inner strategy."""
            found: Iterable[Any] = inner.configure_evaluate(server_round, arrays, config, grid)
            return found

        def aggregate_evaluate(self, server_round: int, replies: Iterable[Any]) -> Any:
            """Leave it to the inner strategy: what clients say of an evaluation is told as it is."""
            return inner.aggregate_evaluate(server_round, replies)

        def summary(self) -> None:
            """Say what the inner strategy says of itself."""
            inner.summary()

    return PrivateMean()


def sends_privately(
    cluster_file: ClusterFile, *, epsilon: Any, total: Any, total_delta: Any = "1/10000", at_least: int = 2
) -> Callable[[Any, Any, Callable[[Any, Any], Any]], Any]:
    """Return a mod for a ClientApp: an update goes to the parties, masked, and nothing of it into the reply.

    Args:
        cluster_file: given a client's context, names its cluster file: each client has a certificate of its own.
        epsilon: most that a round may tell of this client.
        total, total_delta: epsilon and delta that all rounds together may tell of it, of all servers and for ever.
            Rounds add up, and each client counts its own, in a file beside its key; a round that would be too much is
            refused before anything of it leaves.
        at_least: clients that a round is told of, or more.  The server may have certificates of its own among them.

    Raises:
        ConfigError: Flower is not installed.
        UsageError: an epsilon or delta is none.
    """
    most = as_amount(epsilon, "epsilon")
    in_all = Loss(as_amount(total, "total"), as_amount(total_delta, "total_delta"))
    flower = _flower("flwr.app")

    def mod(message: Any, context: Any, call_next: Callable[[Any, Any], Any]) -> Any:
        name = next((each[COLLECTION] for each in message.content.config_records.values() if COLLECTION in each), None)
        if message.metadata.message_type.partition(".")[0] != "train":
            return call_next(message, context)
        if name is None:
            raise InputError(
                "the server asks for an update that is not private",
                cause="its strategy is another one than private_mean",
                remedy="let the server use parties.integrations.flower.private_mean",
            )
        before = _only(message.content)  # read first: an app may train its arrays in place
        reply = call_next(message, context)
        if reply.has_error():
            return reply
        update = moved(before, _only(reply.content))
        with Cluster.connect(cluster_file(context)) as cluster:
            asked = cluster.collection(str(name))
            if asked.said.epsilon > most or asked.said.at_least < at_least:
                raise PolicyError(
                    f"{asked.name} would tell more of this client than it allows",
                    cause=f"epsilon {float(asked.said.epsilon):g}, of {asked.said.at_least:,} clients or more",
                    remedy="ask the server for less, or allow it: sends_privately(..., epsilon=, at_least=)",
                )
            loss = Loss(asked.said.epsilon, asked.said.delta)
            Spent(place_of(cluster.config)).spend(asked.said.id, asked.name, loss, in_all)
            asked.enter(update, clip=True)
        reply.content = flower.RecordDict()  # neither arrays nor what training says of itself
        return reply

    return mod


# ------------------------------------------------------------------ rounds


@dataclass
class Rounds:
    """Rounds of one run: the collection of each, and the arrays that it moves.

    Args:
        bound: of each number of an update.
        name: that the collections' names begin with.
        terms: of each collection, but for how many rows it has.
    """

    cluster: Cluster
    bound: float
    at_least: int
    name: str
    terms: Mapping[str, Any]
    opened: dict[int, tuple[Collection, Arrays]] = field(default_factory=dict)

    def full_name(self, number: int) -> str:
        """Name the collection of a round, OWNER/NAME."""
        return f"{self.cluster.config.name}/{self.name}-{number}"

    def open(self, number: int, arrays: Arrays, clients: int) -> None:
        """Open the collection of a round for so many clients.

        Raises:
            UsageError: there are fewer clients than the collection needs, or its terms make no sense.
            PolicyError, SessionError, PeerError: a party refuses, or is lost.
        """
        if clients < self.at_least:
            raise UsageError(
                f"{clients} clients train, and nothing of fewer than {self.at_least} is told",
                remedy="let more take part: FedAvg(min_train_nodes=...)",
            )
        made = self.cluster.collect(
            f"{self.name}-{number}",
            sum(values.size for values in arrays.values()),
            -self.bound,
            self.bound,
            at_least=self.at_least,
            at_most=clients,
            **self.terms,
        )
        self.opened[number] = made, arrays

    def close(self, number: int, replied: int) -> tuple[Arrays, dict[str, int | float]] | None:
        """Return the arrays, moved, and what may be told beside: rows, noise, epsilon; None if too few have entered.

        Waits until the collection's time is over, unless all clients have entered.

        Raises:
            PolicyError, SessionError, PeerError: a party refuses, or is lost.
        """
        if number not in self.opened:
            return None
        made, arrays = self.opened.pop(number)
        _, standing = calls.read(self.cluster.parties, made.name, listed=True)
        if standing.in_all < made.said.at_most and (replied or standing.in_all >= self.at_least):
            time.sleep(max(0.0, made.said.until + 1 - time.time()))
            _, standing = calls.read(self.cluster.parties, made.name, listed=True)
        if standing.in_all < self.at_least:
            warn(f"round {number} is left out: {standing.in_all} clients have entered, of {self.at_least} or more")
            return None
        found = _mean(made)
        about = {"rows": found.rows, "std": found.std, "epsilon": float(found.epsilon), "delta": float(found.delta)}
        return move(arrays, found.value), about


def _mean(made: Collection) -> Collected:
    """Ask for the mean, again for as long as a party's clock may say that the time is not over yet."""
    end = time.monotonic() + _LATE
    while True:
        try:
            return made.mean()
        except SessionError:
            if time.monotonic() >= end or time.time() <= made.said.until:
                raise
        time.sleep(1)


# ------------------------------------------------------------------ arrays


def as_arrays(record: Any) -> Arrays:
    """Read a Flower record of arrays, by name."""
    return {str(key): np.asarray(each.numpy()).copy() for key, each in record.items()}


def _only(content: Any) -> Arrays:
    records = list(content.array_records.values())
    if len(records) != 1:
        raise InputError(
            f"a message has {len(records)} records of arrays, and one is averaged",
            remedy="send the model as one ArrayRecord",
        )
    return as_arrays(records[0])


def moved(before: Arrays, after: Arrays) -> np.ndarray:
    """Return how far arrays have moved, all numbers in one row, float64, in the order of their names.

    Raises:
        InputError: they have other names or shapes, or numbers that are not finite.
    """
    if before.keys() != after.keys() or any(before[key].shape != after[key].shape for key in before):
        raise InputError("training returned arrays of other names or shapes than it was given")
    parts = [(after[key].astype(np.float64) - before[key].astype(np.float64)).reshape(-1) for key in sorted(before)]
    found = np.concatenate(parts) if parts else np.zeros(0)
    if not np.isfinite(found).all():
        raise InputError("training returned numbers that are not finite", remedy="train with a smaller rate")
    return found


def move(arrays: Arrays, by: np.ndarray) -> Arrays:
    """Move arrays by a row of numbers, as `moved` has it; those of integers to the nearest ones."""
    found, start = {**arrays}, 0
    for key in sorted(arrays):
        values = arrays[key]
        went = values.astype(np.float64) + by[start : start + values.size].reshape(values.shape)
        start += values.size
        whole = np.issubdtype(values.dtype, np.integer)
        found[key] = (np.rint(went) if whole else went).astype(values.dtype)
    return found


def _flower(module: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            "Flower is not installed here",
            cause=f"there is no module {error.name}",
            remedy="install flwr in an environment of its own, as docs/collections.md says",
        ) from error
