"""What every peer's script does: read a request a line, answer a line.  Needs numpy only.

{"network": "C", "batch": 32, "repeat": 5}  ->  {"seconds": 1.23, "runs": 5, "error": 0.0003}, or {"failed": "why"}

seconds: the median, from inputs shared to outputs opened; error: the largest, against the network in numpy.
With "train": the name of a loss, a run is a step of training, from rows and targets shared to weights updated; error is
then the last bias's, after all steps, against PyTorch in the clear, as a part of the largest way that it went.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "networks"))

from definitions import EXISTING, NETWORKS, Layer, Network, parse, random_input, random_weights

PATIENCE_SECONDS = 20.0
_answers = sys.stdout


def requests() -> Iterator[dict]:
    """Until stdin closes.  What a peer prints itself goes to stderr."""
    sys.stdout = sys.stderr
    for line in sys.stdin:
        yield json.loads(line)


def answer(reply: dict) -> None:
    _answers.write(json.dumps(reply) + "\n")
    _answers.flush()


def network(name: str) -> tuple[Network, list[Layer], dict[str, np.ndarray]]:
    """Its definition, its layers and its weights."""
    found = {**NETWORKS, **EXISTING}[name]
    layers = parse(found.definition)
    return found, layers, random_weights(layers)


RATE = 0.5
"""Learning rate of a step, for losses that are summed over outputs and averaged over rows."""


def random_targets(batch: int, outputs: int) -> np.ndarray:
    """Return one-hot classes, the same for everybody."""
    return np.eye(outputs, dtype=np.float32)[np.random.default_rng(batch).integers(0, outputs, batch)]


def training_summary(times: list[float], begun: np.ndarray, ended: np.ndarray, expected: np.ndarray) -> dict:
    error = float(np.abs(ended - expected).max() / np.abs(expected - begun).max())
    return {"seconds": statistics.median(times), "runs": len(times), "error": error}


def runs_of(first_seconds: float, repeat: int) -> int:
    """Fewer than asked, one at least, where a run takes long."""
    return max(1, min(repeat, int(PATIENCE_SECONDS / max(first_seconds, 1e-6))))


def timed(
    run: Callable[[], np.ndarray], repeat: int, agree: Callable[[float], float] = lambda seconds: seconds
) -> tuple[list[float], np.ndarray]:
    """Seconds of each run after one that warms up, and the last answer.

    agree: what all parties hold the first run to have taken, or they would not run equally often.
    """
    started = time.perf_counter()
    result, times = run(), []
    for _ in range(runs_of(agree(time.perf_counter() - started), repeat)):
        started = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - started)
    return times, result


def summary(name: str, batch: int, times: list[float], result: np.ndarray) -> dict:
    found, layers, weights = network(name)
    expected = plain(layers, weights, random_input(found, batch))
    error = float(np.abs(np.asarray(result, float).reshape(expected.shape) - expected).max())
    return {"seconds": statistics.median(times), "runs": len(times), "error": error}


def plain(layers: list[Layer], weights: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """The network in numpy: what is right, not what is fast."""
    for layer in layers:
        if layer.kind == "conv":
            _, outputs, kernel, stride, padding = layer.sizes
            columns = windows(x, kernel, stride, padding)
            x = columns @ weights[f"{layer.name}.weight"].reshape(outputs, -1).T + weights[f"{layer.name}.bias"]
            x = np.moveaxis(x, -1, 1)
        elif layer.kind == "MaxPool":
            size, stride = layer.sizes
            x = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))
            x = x[:, :, ::stride, ::stride].max(axis=(-1, -2))
        elif layer.kind == "FC":
            x = x @ weights[f"{layer.name}.weight"].T + weights[f"{layer.name}.bias"]
        elif layer.kind == "ReLU":
            x = np.maximum(x, 0)
        elif layer.kind == "sigmoid":
            x = 1 / (1 + np.exp(-x))
        else:
            x = x.reshape(len(x), -1)
    return x


def windows(x: np.ndarray, kernel: int, stride: int, padding: int) -> np.ndarray:
    """[rows, height, width, channels * kernel * kernel] of images."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    x = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(2, 3))[:, :, ::stride, ::stride]
    x = np.moveaxis(x, 1, 3)
    return x.reshape(*x.shape[:3], -1)
