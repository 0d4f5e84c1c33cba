"""`mpc collect` against daemons that run: twenty clients, some of whom never come back, one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mpc.errors import SessionError
from parties import Cluster
from parties.local import launcher
from parties.local.layout import LocalLayout
from parties.pb import data_pb2
from tests.support.parties_commands import mpc_here

pytestmark = pytest.mark.timeout(150)
CLIENTS = tuple(f"client-{number:02}" for number in range(20))
SIZE, DROPPED = 16, 4
ROWS = np.random.default_rng(2).uniform(-1, 1, (len(CLIENTS), SIZE))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("collect")
    layout = LocalLayout.create(made / ".mpc", parties=3, clients=CLIENTS)
    launcher.start(layout, detach=True)
    try:
        yield made
    finally:
        launcher.stop(LocalLayout.open(made / ".mpc"), grace=3)


def collect(folder: Path, *words: object, status: int = 0) -> dict:
    found = mpc_here("collect", *words, "--json", folder=folder)
    assert found.returncode == status, found.stderr
    return json.loads(found.stdout or found.stderr)


def file_of(client: str) -> Path:
    return Path(".mpc", f"{client}.toml")


def drop_out(folder: Path, name: str, client: str) -> None:
    """A client that is killed once the parties have its row's seeds, and before its row counts anywhere."""
    with Cluster.connect(folder / file_of(client)) as cluster:
        collection = cluster.collection(name)
        stop = RuntimeError("killed")

        def complete(request: data_pb2.CompleteRequest, timeout: float | None = None) -> None:
            raise stop

        for party in cluster.parties.clients:
            party.stub.data.Complete = type("Killed", (), {"future": staticmethod(complete)})()
        with pytest.raises(RuntimeError, match="killed"):
            collection.enter(ROWS[CLIENTS.index(client)])


def test_twenty_clients_of_whom_four_drop_out(folder: Path) -> None:
    terms = ("--size", SIZE, "--low", -1, "--high", 1, "--at-least", 10, "--epsilon", 4, "--until", "1h")
    opened = collect(folder, "open", "round", *terms, "--at-most", len(CLIENTS) - DROPPED)
    name = opened["collection"]
    assert (opened["entered"], opened["closed"], opened["mechanism"]) == (0, False, "gaussian")
    for number, client in enumerate(CLIENTS):
        np.save(folder / "row.npy", ROWS[number])
        if number < DROPPED:
            drop_out(folder, name, client)
        else:
            collect(folder, "enter", name, "row.npy", "--cluster", file_of(client))
    twice = collect(folder, "enter", name, "row.npy", "--cluster", file_of(CLIENTS[-1]), status=6)
    assert "has entered a row" in json.dumps(twice)
    assert collect(folder, "show", name, "--cluster", file_of(CLIENTS[0]))["entered"] == len(CLIENTS) - DROPPED
    assert collect(folder, "sum", name, "--output", "sum.npy")["rows"] == len(CLIENTS) - DROPPED
    shown = collect(folder, "show", name)
    assert shown["closed"]
    error = np.load(folder / "sum.npy") - ROWS[DROPPED:].sum(axis=0)
    assert 0 < np.abs(error).max() < 6 * 12  # a standard deviation of about 10: the range, the root of 16, epsilon 4
    with Cluster.connect(folder / ".mpc" / "cluster.toml") as cluster, pytest.raises(SessionError):
        cluster.collection(name).enter(ROWS[0])
