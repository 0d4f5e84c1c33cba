"""A cluster at whose parties a laboratory's model lies, and who wants to use it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mpc.plan.plan import Plan
from parties.agreed.bindings import Binding
from parties.client.dataset import Dataset
from parties.client.datasets import Datasets
from parties.client.model import Model, Placed
from parties.client.models import Models
from parties.client.running.coordinated import CoordinatedSession
from parties.client.session import Session
from tests.support.parties import InProcess, tiny_model

LAB, ANALYST, HOSPITAL, DOCTOR = "lab", "analyst", "hospital", "doctor"
RANGES = {"x": (-4.0, 4.0)}


@dataclass
class Lab:
    """A cluster with the tiny model at its parties, as lab/triage."""

    cluster: InProcess
    folder: Path
    model: Model = field(init=False)

    def __post_init__(self) -> None:
        self.model = self.put("triage", description="Triage of admissions")

    def models(self, client: str = LAB) -> Models:
        return Models(self.cluster.client(client))

    def datasets(self, client: str = HOSPITAL) -> Datasets:
        return Datasets(self.cluster.client(client))

    def put(self, name: str, secret: float = 0.625, owner: str = LAB, **said: Any) -> Model:
        given = {} if "data" in said else {"ranges": RANGES}
        path = tiny_model(self.folder / f"{owner}-{name}.onnx", secret)
        return self.models(owner).put(name, path, **{**given, **said})

    def table(self, name: str = "visits", rows: int = 6, owner: str = HOSPITAL) -> np.ndarray:
        """Three columns of a hospital's, in the range of the tiny model; what they hold."""
        values = np.random.default_rng(rows).integers(-4, 5, (rows, 3)).astype(np.float64)
        columns = {column: values[:, place] for place, column in enumerate(("a", "b", "c"))}
        self.datasets(owner).put(name, columns, ranges=(-4, 4), rows_per_person=1)
        return values

    def dataset(self, name: str) -> Dataset:
        """A new table of the hospital's, as its owner has it."""
        self.table(name)
        return self.datasets().get(name)

    def open(self, placed: Placed, client: str = ANALYST) -> Session:
        return Session(self.cluster.client(client), placed, bindings=placed.bindings)

    def use(self, placed: Placed, feeds: Mapping[str, np.ndarray] | None = None, client: str = ANALYST) -> np.ndarray:
        """Open a session, run once, close it."""
        with self.open(placed, client) as session:
            answer: np.ndarray = session.run(None, feeds or {})[0]
        return answer

    def ask_raw(self, plan: Plan, bindings: Iterable[Binding], weights: Any = None, client: str = ANALYST) -> None:
        """Open a session of any plan and bindings, as an attacker's client does."""
        parties = self.cluster.client(client)
        CoordinatedSession(parties, plan, weights or {}, bindings=tuple(bindings)).close()

    def revealed(self, index: int = 0) -> int:
        return self.cluster.revealed(index)
