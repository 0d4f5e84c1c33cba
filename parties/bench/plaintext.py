"""Compute a model in the clear: by onnxruntime and, where they are installed, PyTorch's own kernels."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpc.compiler.onnx.load import in_one
from mpc.errors import ModelError
from parties.bench.pytorch import TorchModel

Feeds = Mapping[str, np.ndarray]
Answer = Callable[[Feeds], list[Any]]

_AT_LEAST_SECONDS, _AT_LEAST_CALLS = 0.005, 3
NO_ONNXRUNTIME = "onnxruntime is not installed: pip install 'mpc[bench]'"
NO_PYTORCH = "PyTorch is not installed: pip install torch"


@dataclass(frozen=True)
class Baseline:
    """One way to compute the model in the clear.

    Args:
        key: the name of its seconds in a report.
        answer: None if it cannot be had here.
        missing: then why, and what to do.
    """

    key: str
    answer: Answer | None
    missing: str = ""

    def seconds(self, feeds: Feeds) -> float:
        """Measure the median seconds of a few calls; the first of them finds the caches as the last run of the parties
        left them."""
        if self.answer is None:
            raise ModelError(f"{self.key}: {self.missing}")
        times: list[float] = []
        while len(times) < _AT_LEAST_CALLS or (sum(times) < _AT_LEAST_SECONDS and len(times) < 100):
            started = time.perf_counter()
            self.answer(feeds)
            times.append(time.perf_counter() - started)
        return statistics.median(times)


def baselines(model: Path, cores: int) -> list[Baseline]:
    """Return onnxruntime and PyTorch, each with one thread and with all."""
    onnxruntime = (_with_onnxruntime(model, 1), _with_onnxruntime(model, cores))
    pytorch, why = _with_pytorch(model)
    return [
        Baseline("plaintext_s", onnxruntime[0], NO_ONNXRUNTIME),
        Baseline("plaintext_all_threads_s", onnxruntime[1], NO_ONNXRUNTIME),
        Baseline("pytorch_s", _threaded(pytorch, 1), why),
        Baseline("pytorch_all_threads_s", _threaded(pytorch, cores), why),
    ]


def _with_onnxruntime(model: Path, threads: int) -> Answer | None:
    """Return the model in onnxruntime, which is given bytes: of a path it would read files by itself."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(in_one(model), options, providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, dict(feeds))


def _threaded(model: TorchModel | None, threads: int) -> Answer | None:
    return None if model is None else model.with_threads(threads)


def _with_pytorch(model: Path) -> tuple[TorchModel | None, str]:
    """Return the model in PyTorch, or why there is none."""
    try:
        return TorchModel(model), ""
    except ImportError:
        return None, NO_PYTORCH
    except ModelError as error:
        return None, error.what
