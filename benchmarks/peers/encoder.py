"""One encoder block, post-norm with the pooler of its first token, here and in SPU by turns in one session; JSON.

    .venv/bin/python benchmarks/peers/encoder.py [--sizes 768,12,3072,128] [--protocols SEMI2K,CHEETAH]

Sizes are width, heads, hidden units and tokens: BERT-base's layer, or BERT-tiny's with 128,2,512,128.  Weights and the
row are random and the same for everybody, all weights are secret, and errors are against onnxruntime.
"""

import argparse
import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from systems import HERE, PEERS, Running, install

sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "networks")]

from big import Transformer, transformer  # noqa: E402
from whole import Processes  # noqa: E402

from parties import Cluster  # noqa: E402
from parties.bench.machine import describe_machine  # noqa: E402

DEADLINE = 1800.0
SEED = 3


def written(sizes: tuple[int, int, int, int], folder: Path) -> tuple[Path, Path]:
    """Write the model, and what a peer needs of it: its weights in order, a row and the answer."""
    width, heads, hidden, tokens = sizes
    model, path = transformer(Transformer(1, width, heads, hidden, tokens)), folder / "encoder.onnx"
    onnx.save(model, path)
    weights = [numpy_helper.to_array(each) for each in model.graph.initializer]
    weights = [each for each in weights if each.ndim and each.dtype == np.float32]
    x = np.random.default_rng(SEED).standard_normal((1, tokens, width), dtype=np.float32).clip(-8, 8)
    [expected] = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    given = folder / "encoder.npz"
    np.savez(given, x=x, expected=expected, **{f"w{i}": each for i, each in enumerate(weights)})
    return path, given


class Ours:
    """This runtime: one session, of which every run gives both phases."""

    def __init__(self, path: Path, given: Path, stack: ExitStack) -> None:
        stored = np.load(given)
        self._x, self._expected = stored["x"], stored["expected"]
        cluster = stack.enter_context(Cluster.local(2))
        self._processes, self._session = Processes(cluster), stack.enter_context(cluster.session(path))
        self._ask()  # warms up

    def _ask(self) -> dict[str, Any]:
        before = self._processes.cpu()
        [found] = self._session.run(None, {"x": self._x})
        report, after = self._session.last_run, self._processes.cpu()
        spent = {name: after[name] - before[name] for name in after}
        return {
            "cpu_s": statistics.mean(each for name, each in spent.items() if name.startswith("party")),
            "provider_cpu_s": spent["provider"],
            "online_s": report.online_s,
            "offline_s": report.offline_s,
            "rounds": report.rounds,
            "sent": report.sent_bytes,
            "dealt": report.dealt_bytes,
            "error": float(np.abs(found - self._expected).max()),
        }

    def turn(self, repeat: int) -> list[dict[str, Any]]:
        return [self._ask() for _ in range(repeat)]


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Return what each system took, run by run, and the medians."""
    found: dict[str, list[dict[str, Any]]] = {"mpc": [], **{name: [] for name in given.protocols}}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        path, stored = written(given.sizes, folder)
        ours = Ours(path, stored, stack)
        if why := install("spu"):
            return {"not_installed": why}
        peer = stack.enter_context(Running("spu", "encoder_peer.py"))
        request = {"file": str(stored), "heads": given.sizes[1], "repeat": given.repeat}
        for _ in range(given.turns):
            found["mpc"] += ours.turn(given.repeat)
            for name in given.protocols:
                reply = peer.ask({**request, "protocol": name}, DEADLINE)
                found[name] += [{**reply, "online_s": each} for each in reply.pop("times", [])] or [reply]
    medians = {
        name: {
            what: statistics.median(run[what] for run in runs)
            for what in ("online_s", "offline_s", "cpu_s", "provider_cpu_s", "error")
            if all(what in run for run in runs)
        }
        for name, runs in found.items()
    }
    return {"sizes": given.sizes, "spu": PEERS["spu"].title, "medians": medians, "runs": found}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure an encoder block here and in SPU by turns.")
    parser.add_argument("--sizes", type=lambda text: tuple(map(int, text.split(","))), default=(768, 12, 3072, 128))
    parser.add_argument("--protocols", type=lambda text: text.split(","), default=["SEMI2K"])
    parser.add_argument("--repeat", type=int, default=2, help="runs of a turn")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    machine = describe_machine(threads=1)
    print(json.dumps({**measure(given), "machine": machine}, indent=1))


if __name__ == "__main__":
    main()
