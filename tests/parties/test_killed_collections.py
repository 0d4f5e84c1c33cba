"""A large collection's sum survives the death of daemons: it is told once, or was charged and is never told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from mpc.errors import MpcError, PolicyError
from parties.client.cluster import Cluster
from parties.client.collections import sums
from parties.local import launcher
from parties.local.layout import LocalLayout
from tests.support.effort import patient
from tests.support.killing import LONG, Mortal

pytestmark = pytest.mark.timeout(patient(300))
SIZE, CLIENTS = 40, ("one", "two", "three")
BAND = 30
"""Numbers of three rows: ten of each, in four bands."""


@dataclass
class Many(Mortal):
    """A cluster of daemons that die, with clients who enter a row each."""

    def __enter__(self) -> Self:
        self.layout = LocalLayout.create(self.folder / ".mpc", parties=self.parties, clients=CLIENTS)
        launcher.start(self.layout, detach=True, deadline=patient(LONG), command=self._command)
        return self


@pytest.mark.parametrize(
    ("who", "moment", "count", "told"),
    [
        ("party-1", "opening", 5, True),
        pytest.param("party-0", "opening-done", 9, True, marks=pytest.mark.slow),
        pytest.param("provider", "part", 1, True, marks=pytest.mark.slow),
        pytest.param("party-1", "revealed", 1, False, marks=pytest.mark.slow),
        pytest.param("party-1", "revealed-done", 1, False, marks=pytest.mark.slow),
    ],
)
def test_security_17_a_daemon_is_killed_and_a_sum_in_bands_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str, moment: str, count: int, told: bool
) -> None:
    """Between two bands nothing was told, and nothing charged; once it was charged there is no second answer."""
    monkeypatch.setattr(sums, "BAND", BAND)
    monkeypatch.setitem(sums.BANDS, "passive", BAND)
    rows = [np.random.default_rng(number).uniform(-1, 1, SIZE) for number in range(len(CLIENTS))]
    with Many(tmp_path) as mortal, mortal.client() as cluster:
        terms = {"at_least": len(CLIENTS), "at_most": len(CLIENTS), "epsilon": 5, "until": "1h"}
        made = cluster.collect("killed", size=SIZE, low=-1, high=1, **terms)
        for name, row in zip(CLIENTS, rows, strict=True):
            with Cluster.connect(mortal.layout.client_file(name)) as client:
                client.collection(made.name).enter(row)
        mortal.arm(who, moment, count)
        with pytest.raises(MpcError):
            made.sum()
        assert mortal.came_to(who) == moment
        mortal.revive(who)
        if told:
            found = made.sum()
            assert np.abs(found.value - sum(rows)).max() < 6.5 * found.std
        with pytest.raises(PolicyError, match="has been told"):
            made.sum()
