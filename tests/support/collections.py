"""Collections for tests: opened by the coordinator, entered by clients of any name, some of whom lie."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from mpc import field as fp
from mpc.prg import expand_field
from parties.agreed.collecting import contribution_name
from parties.client.collections import collection
from parties.client.collections.collection import Collection
from tests.support.objects import RawPut
from tests.support.parties import COORDINATOR, InProcess

SIZE = 40
LATER = 200.0
"""Seconds, fewer than a party minds that a clock was ahead."""


def opened(cluster: InProcess, name: str, client: str = COORDINATOR, **terms: Any) -> Collection:
    """A collection of numbers from -1 to 1, of 3 to 5 clients, open for 100 s."""
    said = {"at_least": 3, "at_most": 5, "epsilon": 2, "until": 100, **terms}
    return collection.open_collection(cluster.client(client), name, SIZE, -1, 1, **said)


def row(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, SIZE)


def enter(cluster: InProcess, made: Collection, client: str, values: np.ndarray, **how: Any) -> None:
    """A client comes, enters its row and goes."""
    parties = cluster.client(client)
    collection.find(parties, made.name).enter(values, **how)
    parties.close()


def enter_all(cluster: InProcess, made: Collection, count: int) -> list[np.ndarray]:
    rows = [row(seed) for seed in range(count)]
    for number, values in enumerate(rows):
        enter(cluster, made, f"client-{number}", values)
    return rows


def over(cluster: InProcess, monkeypatch: pytest.MonkeyPatch, seconds: float = LATER) -> None:
    """Time passes at all parties."""
    for node in cluster.nodes:
        monkeypatch.setattr(node.vault.times, "clock", lambda: time.time() + seconds)


def raw(cluster: InProcess, made: Collection, client: str, kind: type[RawPut] = RawPut, **changes: Any) -> RawPut:
    """A client's contribution, call by call."""
    said = made.said
    fields = {"columns": (said.column,), "rows": 1, "visible": (), "description": "", "expires": said.expires}
    fields |= {"collection": said.id, "name": contribution_name(client, said.id)}
    return kind(cluster, client, **{**fields, **changes})


class Wild(RawPut):
    """Enters field elements of any size: no client of ours looks at them."""

    def masked(self, values: Any) -> list[np.ndarray]:
        found = np.asarray(values["x"], dtype=np.uint64)
        for own in self.seeds:
            found = fp.add(found, expand_field(own[0], found.shape))
        return [found]


def finish(put: RawPut) -> None:
    """Commit and complete at all parties."""
    whole = put.manifest()
    receipts = [put.commit(index, whole) for index in put.parties]
    for index in put.parties:
        put.complete(index, whole, receipts)
