"""Runs a network whole, in processes of its own: what it takes of time, memory and bytes, and what its error is.

    python benchmarks/networks/whole.py MODEL.onnx [--runs N] [--batch N] [--parties N] [--calibrate N]

Starts parties and a provider on this machine, compiles the model or finds it in the user's cache, opens a session, runs
it on drawn inputs, and compares answers with onnxruntime's.  Prints one JSON object.  CPU seconds of a process are
those of all its threads; memory is the most that was resident at once (Linux).  With MPC_PLAN_CACHE=off it compiles.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import psutil

from parties import Cluster
from parties.bench.machine import describe_machine, peak_memory
from parties.client.compiling.cached import compile_cached
from parties.local.processes import running
from parties.machine import cores_each

SEED = 3


class Processes:
    """The daemons of a local cluster and this process, by name."""

    def __init__(self, cluster: Cluster) -> None:
        members = cluster.layout.members if cluster.layout else ()
        pids = {member.name: running(member.folder) for member in members}
        self.pids = {**{name: pid for name, pid in pids.items() if pid is not None}, "client": os.getpid()}

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds of each process so far."""
        return {name: sum(psutil.Process(pid).cpu_times()[:2]) for name, pid in self.pids.items()}

    def peaks(self) -> dict[str, float | None]:
        """Return the most memory of each process so far, in MB."""
        found = {name: peak_memory(pid) for name, pid in self.pids.items()}
        return {name: None if peak is None else round(peak / 1e6) for name, peak in found.items()}


class Timing:
    """What a part of the work took: seconds of the clock, and CPU seconds of each process."""

    def __init__(self, processes: Processes) -> None:
        self._processes, self._cpu, self._began = processes, processes.cpu(), time.perf_counter()

    def lap(self) -> dict[str, float]:
        """Return what it took since the last lap."""
        cpu, now = self._processes.cpu(), time.perf_counter()
        taken = {"seconds": round(now - self._began, 2)}
        taken |= {f"cpu {name}": round(spent - self._cpu[name], 2) for name, spent in cpu.items()}
        self._cpu, self._began = cpu, now
        return taken


def draw(model: onnx.ModelProto, batch: int, seed: int) -> dict[str, np.ndarray]:
    """Draw normal rows of every input, within the range that its metadata declare."""
    rng, declared = np.random.default_rng(seed), {entry.key: entry.value for entry in model.metadata_props}
    feeds = {}
    for given in model.graph.input:
        sizes = [dim.dim_value or batch for dim in given.type.tensor_type.shape.dim]
        low, high = map(float, declared.get(f"mpc.range.{given.name}", "-3:3").split(":"))
        feeds[given.name] = rng.standard_normal(sizes, dtype=np.float32).clip(low, high)
    return feeds


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a network whole, and measure it.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--parties", type=int, default=2)
    parser.add_argument("--calibrate", type=int, default=0, help="rows of samples for bounds; 0: proved bounds")
    given = parser.parse_args()
    out = measure(given.model, given.runs, given.batch, given.parties, given.calibrate)
    print(json.dumps(out, indent=1))


def measure(path: Path, runs: int, batch: int, parties: int, calibrate: int) -> dict[str, object]:
    """Return what one model took, part by part."""
    model = onnx.load(path)
    out: dict[str, object] = {"model": path.name, "machine": describe_machine(cores_each(parties + 1))}
    samples = draw(model, calibrate, SEED + 1) if calibrate else None
    with Cluster.local(parties=parties) as cluster:
        processes = Processes(cluster)
        timing = Timing(processes)
        compiled = compile_cached(path, samples=samples)
        out["compile"] = timing.lap()
        out["messages"] = compiled.messages
        out["rehearse"] = timing.lap()
        out["weights"] = sum(each.size for each in compiled.weights.values())
        session = cluster.open(compiled, batch)
        out["session"] = timing.lap()
        out["runs"] = []
        clear = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for number in range(runs):
            feeds = draw(model, batch, SEED + 2 + number)
            [expected, *_] = clear.run(None, feeds)
            timing.lap()
            [found, *_] = session.run(None, feeds)
            report = session.last_run
            out["runs"].append(
                {
                    **timing.lap(),
                    "rounds": report.rounds,
                    "sent_mb": report.sent_bytes / 1e6,
                    "dealt_mb": report.dealt_bytes / 1e6,
                    "offline_s": report.offline_s,
                    "online_s": report.online_s,
                    "online_cpu_s": report.online_cpu_s,
                    "error": float(np.abs(found - expected).max()),
                    "largest": float(np.abs(expected).max()),
                    "argmax": bool((found.argmax(-1) == expected.argmax(-1)).all()),
                }
            )
        out["peak_mb"] = processes.peaks()
        session.close()
        out["load"] = os.getloadavg()[0]
    return out


if __name__ == "__main__":
    main()
