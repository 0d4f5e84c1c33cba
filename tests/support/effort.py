"""How hard to try, and how long to wait: a sample always, more with MPC_FULL=1; longer with MPC_TEST_SLOWNESS=3."""

from __future__ import annotations

import os

from hypothesis import settings

FULL = os.environ.get("MPC_FULL") == "1"

_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
SLOWNESS = float(os.environ.get("MPC_TEST_SLOWNESS", "1")) * max(1.0, min(_WORKERS, 2 * _WORKERS / _CORES))
"""How much slower this machine is than two cores that have nothing else to do: all waits and deadlines of tests grow by
it.  Workers that run tests side by side count too."""


def examples(count: int) -> settings:
    """`count` hypothesis examples, ten times as many with MPC_FULL=1."""
    return settings(max_examples=count * 10 if FULL else count)


def patient(seconds: float) -> float:
    """Seconds to wait at most on this machine, for what takes at most so many on an idle one."""
    return seconds * SLOWNESS
