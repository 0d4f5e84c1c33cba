"""Trainings whose processes are killed: real daemons and a real client, started again, and what has come of it.

The model is linear and its loss is squares, so nothing but p - y and momentum is rounded: a training that goes on where
it stopped is off by so little that no step left out, made twice or out of turn is taken for it.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np

from mpc.compiler.onnx.load import Loaded, load_model
from mpc.compiler.training.train import Training, compile_training
from mpc.errors import InputError, MpcError
from mpc.plan.program import Program
from parties import SGD, Cluster, Trainer
from parties.client.training.trained import Trained
from parties.local import launcher
from parties.local.layout import LocalLayout, Member
from parties.local.processes import running
from tests.support import failpoints
from tests.support.effort import patient
from tests.support.parties import eventually
from tests.support.parties_commands import ROOT
from tests.support.training import on_integers, on_reals, perceptron

BATCH, WIDE, OUTPUTS, EVERY, STEPS = 8, 5, 2, 3, 8
ROWS = BATCH * STEPS // 2
"""Two epochs, and three stretches: two whole ones and the rest."""
OPTIMIZER, RANGES = SGD(0.25, momentum=0.5), {"x": (0, 1), "target": (-8, 8)}
NEAR = 0.001
"""What the coins of rounding may move weights by, as a part of their way."""
SEED = 5
LONG = 180.0


def data() -> tuple[np.ndarray, np.ndarray]:
    """Rows and their targets."""
    rng = np.random.default_rng(3)
    x = np.rint(256 * rng.random((ROWS, WIDE))) / 256
    y = np.rint(256 * (x @ rng.uniform(-1, 1, (WIDE, OUTPUTS)) + rng.uniform(-0.5, 0.5, (ROWS, OUTPUTS)))) / 256
    return x.astype(np.float32), y.astype(np.float32)


def trainer(cluster: Cluster) -> Trainer:
    """A linear model that is trained with momentum."""
    return cluster.trainer(
        perceptron((WIDE, OUTPUTS)),
        loss="mse",
        optimizer=OPTIMIZER,
        batch=BATCH,
        ranges=RANGES,
    )


def put(cluster: Cluster) -> Any:
    """Rows that lie at the parties."""
    x, y = data()
    return cluster.datasets.put(
        "rows", {"x": x, "y": y}, ranges={"x": (0, 1), "y": (-8, 8)}, bits={"x": 8, "y": 8}, rows_per_person=1
    )


def train(cluster: Cluster, name: str, stored: bool, **more: Any) -> Trained:
    """Train from the newest checkpoint on, if there is one, as people would; from the beginning else."""
    made = trainer(cluster)
    read = data()
    if stored:
        rows = cluster.dataset("rows")
        read = rows["x"], rows["y"]
    said: dict[str, Any] = {"epochs": 2, "seed": SEED, "name": name, "checkpoint_every": EVERY, "check_every": None}
    said |= {"progress": lambda done, steps: None, **more}
    try:
        return made.resume(*read, **said)
    except InputError as error:
        if "has no checkpoint" not in error.what:
            raise
        return made.fit(*read, **said)


def train_alone(file: str, name: str, stored: str) -> None:
    """Train in a process of its own."""
    with Cluster.connect(file) as cluster:
        train(cluster, name, stored == "stored").close()


# ------------------------------------------------------------------ what has to come of it


@cache
def training() -> Training:
    """A step of it, compiled without a cluster."""
    return compile_training(
        Loaded(load_model(perceptron((WIDE, OUTPUTS)))), "mse", OPTIMIZER, BATCH, RANGES, target="target"
    )


def feeds(order: list[int]) -> Iterator[dict[str, np.ndarray]]:
    """What these steps read, in this order; steps count from 1."""
    x, y = data()
    program = Program(steps=STEPS, rows=BATCH, seed=f"{SEED:064x}")
    for step in order:
        read = program.rows_of(step, ROWS)
        yield {"x": x[read], "target": y[read]}


def on_reals_in(made: Training, order: list[int]) -> dict[str, np.ndarray]:
    """What real numbers make of these steps."""
    *_, found = on_reals(made, feeds(order))
    return found


def on_integers_in(made: Training, order: list[int], coins: int) -> dict[str, np.ndarray]:
    """What the parties make of them, with coins of that seed."""
    *_, found = on_integers(made, feeds(order), coins)
    return found


def off(made: Training, found: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """How far weights are from others, as a part of how far those went."""
    begun = {state.name: np.asarray(state.values) for state in made.step.states if not state.velocity}
    assert found.keys() == other.keys()
    apart, went = (
        sum(float(np.square(values - one[name]).sum()) for name, values in other.items()) for one in (found, begun)
    )
    return float((apart / went) ** 0.5)


def wrong_orders() -> Iterator[list[int]]:
    """Each step left out, made twice, or before the one in front of it; and each stretch."""
    steps = [*range(1, STEPS + 1)]
    for place in range(STEPS):
        yield steps[:place] + steps[place + 1 :]
        yield steps[: place + 1] + steps[place:]
        if place:
            yield [*steps[: place - 1], steps[place], steps[place - 1], *steps[place + 1 :]]
    for start in range(0, STEPS, EVERY):
        stretch = steps[start : start + EVERY]
        yield steps[:start] + steps[start + EVERY :]
        yield steps[:start] + stretch + stretch + steps[start + EVERY :]


def require_whole(model: Trained) -> None:
    """The training is the one that nobody has interrupted, but for the coins of rounding."""
    assert off(training(), model.release(), on_reals_in(training(), [*range(1, STEPS + 1)])) < NEAR


# ------------------------------------------------------------------ processes that die


@dataclass
class Mortal:
    """A cluster of daemons, each of which can be armed to kill itself; a context manager."""

    folder: Path
    parties: int = 2

    def __enter__(self) -> Self:
        self.layout = LocalLayout.create(self.folder / ".mpc", parties=self.parties)
        launcher.start(self.layout, detach=True, deadline=patient(LONG), command=self._command)
        return self

    def __exit__(self, *_: object) -> None:
        launcher.stop(self.layout, grace=3)

    def _command(self, member: Member) -> list[str]:
        self.place(member.name).mkdir(exist_ok=True)
        script = [sys.executable, "-P", str(ROOT / "tests" / "support" / "failpoints.py"), *self._words(member)]
        return ["/usr/bin/env", f"{failpoints.FOLDER}={self.place(member.name)}", *script]

    @staticmethod
    def _words(member: Member) -> list[str]:
        return [member.role, "serve", "--config", str(member.config)]

    def place(self, name: str) -> Path:
        """Return the folder of what is armed in a process."""
        return self.folder / f"armed-{name}"

    def client(self) -> Cluster:
        """Connect as the coordinator."""
        return Cluster.connect(self.layout.cluster_file)

    def arm(self, name: str, moment: str, count: int) -> None:
        """Have a process kill itself when it comes to a moment for the count-th time."""
        self.place(name).mkdir(exist_ok=True)
        failpoints.arm(self.place(name), moment, count)

    def disarm(self, name: str) -> None:
        """Have a process kill itself no more."""
        failpoints.disarm(self.place(name))

    def came_to(self, name: str) -> str | None:
        """Return the moment in which a process has killed itself; None if it has not."""
        with suppress(FileNotFoundError):
            return (self.place(name) / failpoints.PASSED).read_text()
        return None

    def revive(self, name: str) -> None:
        """Start a daemon again that is dead."""
        [(number, member)] = [pair for pair in enumerate(self.layout.members) if pair[1].name == name]
        self.disarm(name)
        assert eventually(lambda: running(member.folder) is None, LONG)
        launcher.spawn(member, self._command(member), None)
        assert eventually(lambda: launcher.status(self.layout)[number].state == "serving", LONG)

    def start_client(self, name: str, stored: bool) -> subprocess.Popen[str]:
        """Start a client that trains, and can be armed."""
        script = ROOT / "tests" / "support" / "failpoints.py"
        words = ["client", str(self.layout.cluster_file), name, "stored" if stored else "arrays"]
        environment = {**os.environ, failpoints.FOLDER: str(self.place("client"))}
        return subprocess.Popen(
            [sys.executable, "-P", str(script), *words],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    # -- nothing is used twice

    def require_single_use(self) -> None:
        """What parties opened never comes again, and the provider dealt each run of a session once."""
        for member in self.layout.members:
            if member.role == "party":
                self._require_single_use(member)
        dealt = Counter(
            (line["session"], line["run"]) for line in self._log("provider") if line.get("event") == "dealt"
        )
        assert dealt and max(dealt.values()) == 1

    def _require_single_use(self, member: Member) -> None:
        opened = (self.place(member.name) / failpoints.OPENED).read_bytes()
        parts = [opened[at : at + 32] for at in range(0, len(opened), 32)]
        assert len(parts) > 50
        assert len({*parts}) == len(parts)
        with closing(sqlite3.connect(member.data_dir / "ledger.sqlite")) as ledger:
            runs = ledger.execute("SELECT run FROM runs WHERE state IN ('kept', 'revealed')").fetchall()
        assert runs and all(run > 0 for (run,) in runs)

    def newest_session(self, name: str) -> str:
        """Return the state of the session that a party opened last."""
        [member] = [each for each in self.layout.members if each.name == name]
        with closing(sqlite3.connect(member.data_dir / "ledger.sqlite")) as ledger:
            [(state,)] = ledger.execute("SELECT state FROM sessions ORDER BY rowid DESC LIMIT 1").fetchall()
        return str(state)

    def _log(self, name: str) -> Iterator[dict[str, Any]]:
        [member] = [each for each in self.layout.members if each.name == name]
        for path in sorted(member.folder.glob("*.jsonl")):
            for line in path.read_text().splitlines():
                with suppress(ValueError):
                    yield json.loads(line)


def require_remedy(error: MpcError) -> None:
    """A refusal names what helps."""
    assert error.remedy, f"{error} names no remedy"


def wait_for(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait until a client is gone; its status, negative for a signal, and what it said."""
    try:
        out, _ = process.communicate(timeout=patient(LONG))
    finally:
        process.kill()
        process.wait()
    return process.returncode, out


def is_killed(status: int) -> bool:
    """Was it killed?"""
    return status == -signal.SIGKILL
