"""Other systems and this one on the same networks, by turns in one session; one table, or `--json`.

    benchmarks/peers/run [--network L,A,S,C] [--batch 1,32,128] [--peers crypten,dealer,spu,...] [--json]

Weights are random, and the same for everybody; so are inputs.  All processes of all systems share this machine; those
whose turn it is not, wait.  Seconds are medians over all turns.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from serving import EXISTING, NETWORKS, network, plain, random_input, timed
from systems import HERE, PEERS, Running, install

sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "networks")]

from make import make_random_weights  # noqa: E402

from parties import Cluster  # noqa: E402
from parties.bench.machine import describe_machine  # noqa: E402
from parties.bench.plaintext import baselines  # noqa: E402
from parties.cli.display import seconds as shown  # noqa: E402

DEADLINE = 240.0
Ask = Callable[[str, int, int], dict[str, Any]]
ALL_BUT_ONE = "passive, any but one"


class Ours:
    """This runtime: one session a network; every run gives both phases."""

    def __init__(self, parties: int, folder: Path, stack: ExitStack) -> None:
        self._stack, self._folder = stack, folder
        self._cluster = stack.enter_context(Cluster.local(parties, threads=1))
        self._sessions: dict[str, Any] = {}
        self._offline: dict[str, Any] = {}

    def online(self, name: str, batch: int, repeat: int) -> dict[str, Any]:
        """From inputs masked to outputs released; the same runs' sum with the offline phase is kept for `both`."""
        if name not in self._sessions:
            path = make_random_weights(name, self._folder)
            self._sessions[name] = self._stack.enter_context(self._cluster.session(path))
        session, x, reports = self._sessions[name], random_input(network(name)[0], batch), []

        def run() -> np.ndarray:
            [result] = session.run(None, {"x": x})
            reports.append(session.last_run)
            return result

        times, result = timed(run, repeat)
        _, layers, weights = network(name)
        error = float(np.abs(result - plain(layers, weights, x)).max())
        reply = {"runs": len(times), "error": error}
        totals = [one.online_s + one.offline_s for one in reports[1:]]
        self._offline = {**reply, "seconds": statistics.median(totals)}
        return {**reply, "seconds": statistics.median(one.online_s for one in reports[1:])}

    def both(self, name: str, batch: int, repeat: int) -> dict[str, Any]:
        """Online and offline, of the runs that `online` just made."""
        return self._offline

    def plaintext(self, name: str, batch: int, repeat: int) -> dict[str, Any]:
        """onnxruntime on the same file."""
        baseline = baselines(make_random_weights(name, self._folder), 1)[0]
        if baseline.answer is None:
            return {"failed": baseline.missing}
        return {"seconds": baseline.seconds({"x": random_input(network(name)[0], batch)}), "runs": 1, "error": 0.0}


def systems(given: argparse.Namespace, stack: ExitStack) -> Iterator[tuple[dict[str, Any], Ask]]:
    """What every row says of its system, and how to measure it."""
    ours = Ours(given.parties, HERE.parent / "networks" / "made", stack)
    about = {"parties": given.parties, "adversary": ALL_BUT_ONE}
    yield {"system": "mpc", **about, "phases": "online"}, ours.online
    yield {"system": "mpc", **about, "phases": "offline + online"}, ours.both
    for name in given.peers:
        peer = PEERS[name]
        row = {"system": peer.title, "parties": peer.parties, "adversary": peer.adversary, "phases": peer.phases}
        if why := install(name):
            row["not_installed"] = why
            yield row, lambda *_, why=why: {"not_installed": why}
        else:
            running = stack.enter_context(Running(name))
            yield row, lambda *asked, running=running, limits=peer.limits: _ask(running, limits, *asked)
    about = {"system": "onnxruntime, 1 thread", "parties": 1, "adversary": "none", "phases": "in the clear"}
    yield about, ours.plaintext


def _ask(running: Running, limits: dict[str, int], name: str, batch: int, repeat: int) -> dict[str, Any]:
    if batch > limits.get(name, batch):
        return {"failed": "left out: minutes a run"}
    return running.ask({"network": name, "batch": batch, "repeat": repeat}, DEADLINE)


def measure(given: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for every system, network and batch."""
    found = []
    with ExitStack() as stack:
        everybody = list(systems(given, stack))
        for name in given.network:
            for batch in given.batch:
                print(f"{name}, batch {batch}", file=sys.stderr)
                replies: list[list[dict[str, Any]]] = [[] for _ in everybody]
                for _ in range(given.turns):
                    for own, (_, ask) in zip(replies, everybody, strict=True):
                        if not own or "seconds" in own[-1]:
                            own.append(ask(name, batch, given.repeat))
                rows = zip(everybody, replies, strict=True)
                found += [{**row, "network": name, "batch": batch, **merged(own)} for (row, _), own in rows]
    return found


def merged(replies: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of the turns, or the last turn's excuse."""
    last = replies[-1]
    if "seconds" not in last:
        return last
    times = [one["seconds"] for one in replies]
    runs = sum(one["runs"] for one in replies)
    return {"seconds": statistics.median(times), "fastest_turn_s": min(times), "runs": runs, "error": last["error"]}


def print_table(found: list[dict[str, Any]], machine: dict[str, Any]) -> None:
    """One line a system, one column a network and batch."""
    columns = list(dict.fromkeys((row["network"], row["batch"]) for row in found))
    table = Table(box=None, pad_edge=False)
    for title in ("system", "parties", "adversary", "phases", *(f"{name}, {batch}" for name, batch in columns)):
        table.add_column(title, justify="left" if title in ("system", "adversary", "phases") else "right")
    lines: dict[tuple, dict] = {}
    for row in found:
        head = (row["system"], str(row["parties"]), row["adversary"], row["phases"])
        lines.setdefault(head, {})[row["network"], row["batch"]] = row
    for head, cells in lines.items():
        table.add_row(*head, *(cell(cells[column]) for column in columns))
    console = Console(width=None if sys.stdout.isatty() else 60 + 14 * len(columns) + 60)
    console.print(table)
    for row in {row["system"]: row for row in found if "not_installed" in row}.values():
        console.print(f"{row['system']}: not installed: {row['not_installed']}")
    for row in (row for row in found if "failed" in row):
        console.print(f"{row['system']}, {row['network']}, batch {row['batch']}: {row['failed']}")
    for name in dict.fromkeys(row["network"] for row in found):
        console.print(f"{name}: {({**NETWORKS, **EXISTING})[name].definition}")
    console.print(f"{machine['cpu']}, {machine['cores']} cores for all processes, load {machine['load']} at the start")


def cell(row: dict[str, Any]) -> str:
    return shown(row["seconds"]) if "seconds" in row else "not installed" if "not_installed" in row else "-"


def names(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        chosen = [one for one in text.split(",") if one]
        if unknown := set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {', '.join(known)}")
        return chosen

    return read


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/peers/run", description="Measure peers and ours by turns.")
    parser.add_argument("--network", type=names(("L", "A", "S", "M", "C")), default="L,A,S,C", metavar="NAMES")
    parser.add_argument("--batch", type=lambda text: [int(one) for one in text.split(",")], default="1,32,128")
    parser.add_argument("--peers", type=names(tuple(PEERS)), default=",".join(PEERS), metavar="NAMES")
    parser.add_argument("--parties", type=int, default=2, help="of ours")
    parser.add_argument("--repeat", type=int, default=5, help="runs of a turn, fewer where they take long")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="an array of rows")
    given = parser.parse_args()
    machine = describe_machine(threads=1)
    found = measure(given)
    if given.json:
        print(json.dumps([{"version": 1, **row, "machine": machine} for row in found]))
    else:
        print_table(found, machine)


if __name__ == "__main__":
    main()
