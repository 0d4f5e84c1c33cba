"""A step of training in other systems and in this one, by turns in one session; a line each, or `--json`.

    .venv/bin/python benchmarks/peers/training_steps.py [--network A] [--batch 128] [--turns 5] [--repeat 10] [--json]

Everybody begins with the same random weights, on rows and targets that are secret in all but PyTorch.  A step goes from
rows and targets shared to weights updated.  CrypTen's is measured with the loss that mpc has by default, a sigmoid and
binary cross entropy an output, and with squares, the cheapest that it has; without its dealer it has triples for free.
mpc's has both phases: one step is dealt and prepared while the step before it runs.  Seconds are medians over turns.
"""

import argparse
import json
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
from serving import RATE, network, random_targets
from systems import HERE, PEERS, Running, install

sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "networks")]

from make import make_random_weights  # noqa: E402

from mpc.errors import MpcWarning  # noqa: E402
from parties import SGD, Cluster  # noqa: E402
from parties.bench.machine import describe_machine  # noqa: E402

DEADLINE = 600.0
DEEP = frozenset({"M", "C"})
"""Networks whose bounds rest on samples."""
LOSSES = ("one_vs_all", "mse")
"""The first is measured of everybody."""
Ask = Callable[[], dict[str, Any]]


def ours(given: argparse.Namespace, stack: ExitStack) -> tuple[dict[str, Any], Ask]:
    """Return what is counted of mpc's step, and how to measure it."""
    found, rng = network(given.network)[0], np.random.default_rng(1)
    cluster = stack.enter_context(Cluster.local(given.parties, threads=1))
    choices: dict[str, Any] = {"loss": LOSSES[0], "optimizer": SGD(RATE), "batch": given.batch, "ranges": {"x": (0, 1)}}
    if given.network in DEEP:
        x = rng.random((2 * given.batch, *found.image), dtype=np.float32)
        choices["samples"] = x, random_targets(2 * given.batch, 10)
    path = make_random_weights(given.network, HERE.parent / "networks" / "made")
    trainer = cluster.trainer(path, **choices)
    step = trainer.cost(4 * given.batch).step  # not the last one, which tells more
    counted = {"rounds": step.rounds, "sent_bytes": step.sent, "dealt_bytes": step.dealt}
    return counted, lambda: {"seconds": trainer.cost(given.batch, measure=given.repeat).step_s, "runs": given.repeat}


def systems(given: argparse.Namespace, stack: ExitStack) -> Iterator[tuple[dict[str, Any], Ask]]:
    """Yield what a row says of its system, and how to measure it."""
    counted, ask = ours(given, stack)
    yield {"system": "mpc", "parties": given.parties, "loss": LOSSES[0], "phases": "offline + online", **counted}, ask
    for name in ("crypten", "dealer", "torch"):
        peer, why = PEERS[name], install(name)
        if why:
            print(f"{peer.title}: not installed: {why}", file=sys.stderr)
            continue
        running = stack.enter_context(Running(name))
        for loss in LOSSES:
            request = {"network": given.network, "batch": given.batch, "repeat": given.repeat, "train": loss}
            about = {"system": peer.title, "parties": peer.parties, "loss": loss, "phases": peer.phases}
            yield about, lambda request=request, running=running: running.ask(request, DEADLINE)


def measure(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a row for every system and loss."""
    with ExitStack() as stack:
        everybody = list(systems(given, stack))
        replies: list[list[dict[str, Any]]] = [[] for _ in everybody]
        for turn in range(given.turns):
            print(f"turn {turn + 1} of {given.turns}", file=sys.stderr)
            for own, (_, ask) in zip(replies, everybody, strict=True):
                if not own or "seconds" in own[-1]:
                    own.append(ask())
    for (about, _), own in zip(everybody, replies, strict=True):
        if "seconds" not in own[-1]:
            yield {**about, **own[-1]}
            continue
        times = [one["seconds"] for one in own]
        row = {**about, "seconds": statistics.median(times), "fastest_s": min(times), "slowest_s": max(times)}
        yield {**row, **({"error": own[-1]["error"]} if "error" in own[-1] else {})}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure steps of training by turns.")
    parser.add_argument("--network", choices=("A", "S", "M", "C"), default="A")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--parties", type=int, default=2, help="of ours")
    parser.add_argument("--repeat", type=int, default=10, help="steps of a turn, fewer where they take long")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="a row a line")
    given = parser.parse_args()
    warnings.simplefilter("ignore", MpcWarning)
    machine = describe_machine(threads=1)
    for row in measure(given):
        row = {"network": given.network, "batch": given.batch, **row}
        print(
            json.dumps({"version": 1, **row, "machine": machine})
            if given.json
            else "  ".join(f"{k} {v}" for k, v in row.items())
        )


if __name__ == "__main__":
    main()
