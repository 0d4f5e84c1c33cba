"""How hard to try, and how long to wait: a sample always, more with MPC_FULL=1; longer with MPC_TEST_SLOWNESS=3."""

from __future__ import annotations

import os

from hypothesis import settings

FULL = os.environ.get("MPC_FULL") == "1"
SLOWNESS = float(os.environ.get("MPC_TEST_SLOWNESS", "1"))
"""How much slower this machine is than one that has nothing else to do: all waits and deadlines of tests grow by it."""


def examples(count: int) -> settings:
    """`count` hypothesis examples, ten times as many with MPC_FULL=1."""
    return settings(max_examples=count * 10 if FULL else count)


def patient(seconds: float) -> float:
    """Seconds to wait at most on this machine, for what takes at most so many on an idle one."""
    return seconds * SLOWNESS
