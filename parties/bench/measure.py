"""Measuring: in one session, a batch in the clear and among the parties by turns; medians of what each phase took."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parties.bench.machine import peak_memory, reset_peak_memory
from parties.bench.plaintext import Baseline
from parties.client.cluster import Cluster
from parties.client.running.coordinated import RunReport
from parties.client.session import Session
from parties.local.processes import running

Feeds = Mapping[str, np.ndarray]
Say = Callable[[str], None]

_WARM_UPS = 2
_PATIENCE_SECONDS, _FEWEST_RUNS = 45.0, 3
_SETTLE_SECONDS = 0.02
"""Between the two: plaintext runtimes' threads spin for a while after their work, and the parties need the cores."""

_PHASES = ("online_s", "offline_s", "provider_s", "online_cpu_s")


@dataclass
class Samples:
    """Seconds and counts of the runs of one batch, run by run."""

    reports: list[RunReport] = field(default_factory=list)
    walls: list[float] = field(default_factory=list)
    plaintext: dict[str, list[float]] = field(default_factory=dict)
    outputs: list[Any] = field(default_factory=list)


def measure(
    cluster: Cluster,
    session: Session,
    baselines: Sequence[Baseline],
    feeds: Feeds,
    repeat: int,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Measure one row: every phase of `repeat` runs of a batch, and of an equal batch in the clear.

    Args:
        repeat: fewer, three at least, where a run takes long; `say` is told.
    """
    pids = [pid for member in cluster.layout.members if (pid := running(member.folder))] if cluster.layout else []
    for pid in pids:
        reset_peak_memory(pid)
    warm = Samples()
    for _ in range(_WARM_UPS):
        _run_both(session, baselines, feeds, warm)
    affordable = max(_FEWEST_RUNS, int(_PATIENCE_SECONDS / warm.walls[-1]))
    if affordable < repeat:
        say(f"a run takes {warm.walls[-1]:.1f} s, so medians are of {affordable} runs")
    samples = Samples()
    for _ in range(min(repeat, affordable)):
        _run_both(session, baselines, feeds, samples)
    peaks = [peak for pid in pids if (peak := peak_memory(pid)) is not None]
    row = summarise(samples)
    row["peak_memory_bytes"] = max(peaks, default=None)
    row.update(compare(session, baselines, feeds, samples.outputs))
    return row


def _run_both(session: Session, baselines: Sequence[Baseline], feeds: Feeds, samples: Samples) -> None:
    for baseline in baselines:
        if baseline.answer is not None:
            samples.plaintext.setdefault(baseline.key, []).append(baseline.seconds(feeds))
    time.sleep(_SETTLE_SECONDS)
    started = time.perf_counter()
    samples.outputs = session.run(None, feeds)
    samples.walls.append(time.perf_counter() - started)
    if session.last_run is not None:
        samples.reports.append(session.last_run)


def summarise(samples: Samples) -> dict[str, Any]:
    """Take the medians of seconds; what is counted is equal in every run, and taken from the last."""
    last = samples.reports[-1]
    plain = {key: statistics.median(times) for key, times in samples.plaintext.items()}
    phases = {key: statistics.median(getattr(report, key) for report in samples.reports) for key in _PHASES}
    total = statistics.median(report.online_s + report.offline_s for report in samples.reports)
    online = [report.online_s for report in samples.reports]
    row: dict[str, Any] = {key: plain.get(key) for key in _PLAINTEXT}
    row.update(phases)
    row["online_range_s"] = [min(online), max(online)]
    row["wall_s"] = statistics.median(samples.walls)
    row["runs_measured"] = len(samples.reports)
    row.update(rounds=last.rounds, sent_bytes=last.sent_bytes, dealt_bytes=last.dealt_bytes)
    for key, name in _SLOWDOWNS.items():
        row[f"slowdown_online{name}"] = phases["online_s"] / plain[key] if key in plain else None
        row[f"slowdown_total{name}"] = total / plain[key] if key in plain else None
    return row


_SLOWDOWNS = {
    "plaintext_s": "",
    "plaintext_all_threads_s": "_all_threads",
    "pytorch_s": "_pytorch",
    "pytorch_all_threads_s": "_pytorch_all_threads",
}
_PLAINTEXT = tuple(_SLOWDOWNS)
# ------------------------------------------------------------------------------ right?


def compare(session: Session, baselines: Sequence[Baseline], feeds: Feeds, outputs: Sequence[Any]) -> dict[str, Any]:
    """Return how far the parties' answer is from the first baseline's: None of both where there is no baseline."""
    answer = next((baseline.answer for baseline in baselines if baseline.answer is not None), None)
    if answer is None:
        return {"max_abs_error": None, "argmax_agreement": None}
    known = dict(zip((out.name for out in session.get_outputs()), outputs, strict=True))
    pairs = [(_array(ours), _array(theirs)) for ours, theirs in zip(known.values(), answer(feeds), strict=True)]
    reals = [(ours, theirs) for ours, theirs in pairs if theirs.dtype.kind == "f"]
    errors = [float(np.abs(ours.astype(float) - theirs.astype(float)).max()) for ours, theirs in reals]
    return {"max_abs_error": max(errors, default=None), "argmax_agreement": _agreement(pairs)}


def _agreement(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float | None:
    """Count the rows with equal labels, or equal largest columns; None where an output is one number a row."""
    for ours, theirs in pairs:
        if theirs.dtype.kind != "f":
            return float((ours == theirs).mean())
        if theirs.ndim > 1 and theirs.shape[-1] > 1:
            return float((ours.argmax(-1) == theirs.argmax(-1)).mean())
    return None


def _array(value: Any) -> np.ndarray:
    """Return an output as an array; dictionaries become one row of values each."""
    if isinstance(value, list):
        return np.array([list(row.values()) for row in value])
    array = np.asarray(value)
    return array.astype(str) if array.dtype == object else array
