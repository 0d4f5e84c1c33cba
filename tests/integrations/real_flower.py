"""Ten clients in Flower's own simulation, against daemons of this project: run by hand, where Flower is installed.

    .venv/bin/python tests/integrations/real_flower.py OTHER/bin/python

OTHER is an environment with `flwr[simulation]`, what this project needs, and this project's protobuf, as
docs/collections.md says.  Daemons run in this one.  It prints what each round told, and fails if one told nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

CLIENTS, WIDE, ROUNDS = 10, 16, 3
TRUE = np.linspace(-1, 1, WIDE)


def rows(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A client's own rows."""
    rng = np.random.default_rng(number)
    x = rng.uniform(-1, 1, (64, WIDE))
    return x, x @ TRUE + rng.normal(0, 0.05, 64)


def simulate(folder: Path) -> None:
    """Train one linear model, in Flower's environment."""
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    from parties import Cluster
    from parties.integrations.flower import private_mean, sends_privately

    def who(context: Any) -> int:
        return int(context.node_config["partition-id"])

    private = sends_privately(lambda at: folder / f"client-{who(at)}.toml", epsilon=5, total=5 * ROUNDS)
    client, server = ClientApp(mods=[private]), ServerApp()

    @client.train()
    def train(message: Any, context: Any) -> Any:
        x, y = rows(who(context))
        w = message.content["arrays"].to_numpy_ndarrays()[0].copy()
        for _ in range(20):
            w -= 0.3 * x.T @ (x @ w - y) / len(y)
        told = {"arrays": ArrayRecord([w]), "metrics": MetricRecord({"num-examples": len(y)})}
        return Message(RecordDict(told), reply_to=message)

    @client.evaluate()
    def evaluate(message: Any, context: Any) -> Any:
        x, y = rows(100 + who(context))
        [w] = message.content["arrays"].to_numpy_ndarrays()
        told = {"num-examples": len(y), "mse": float(np.mean((x @ w - y) ** 2))}
        return Message(RecordDict({"metrics": MetricRecord(told)}), reply_to=message)

    @server.main()
    def run(grid: Any, context: Any) -> None:
        with Cluster.connect(folder / "cluster.toml") as cluster:
            inner = FedAvg(min_train_nodes=CLIENTS, min_available_nodes=CLIENTS)
            strategy = private_mean(inner, cluster, bound=1, epsilon=5, delta="1/100000", at_least=8)
            result = strategy.start(grid, ArrayRecord([np.zeros(WIDE)]), num_rounds=ROUNDS)
        told = result.train_metrics_clientapp
        print("told:", told, "evaluated:", result.evaluate_metrics_clientapp, flush=True)
        if [each["rows"] for each in told.values()] != [CLIENTS] * ROUNDS:
            raise SystemExit("a round told nothing, or not of all clients")
        (folder / "done").touch()

    resources = {"client_resources": {"num_cpus": 1}, "init_args": {"num_cpus": 2, "include_dashboard": False}}
    run_simulation(server, client, num_supernodes=CLIENTS, backend_config=resources)


def main(python: str) -> None:
    """Start daemons, and the simulation with another Python."""
    from parties.local import launcher
    from parties.local.layout import LocalLayout

    root = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / ".mpc"
        layout = LocalLayout.create(folder, parties=2, clients=[f"client-{number}" for number in range(CLIENTS)])
        launcher.start(layout, detach=True)
        try:
            environment = {**os.environ, "PYTHONPATH": str(root), "FLWR_TELEMETRY_ENABLED": "0"}
            subprocess.run([python, __file__, "--simulate", str(folder)], env=environment, check=True)
            if not (folder / "done").exists():
                raise SystemExit("the simulation did not come to its end")
        finally:
            launcher.stop(layout, grace=3)


if __name__ == "__main__":
    if sys.argv[1] == "--simulate":
        simulate(Path(sys.argv[2]))
    else:
        main(sys.argv[1])
