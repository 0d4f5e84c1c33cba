"""Seconds that a training's step takes in a cluster: some are run there, on rows and weights that are made up.

No step depends on what its rows hold, so any will do.  Nothing of these steps is told to anybody, or kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from mpc.compiler.training.train import Training
from mpc.errors import UsageError
from mpc.plan.ends import PlanInput
from parties.client.channels import Parties
from parties.client.running.prepared import Prepared
from parties.client.session import Session

_FIRST = 2
"""Steps that are not measured: the first is prepared while nothing runs, and kernels may be loaded in it."""
MOST = 1000


def read_measure(measure: object) -> int:
    """Return how many steps are measured, 0 for none.

    Raises:
        UsageError: it is no such number.
    """
    if isinstance(measure, bool) or not isinstance(measure, int) or not 0 <= measure <= MOST:
        raise UsageError(f"measure is a number of steps, up to {MOST}", remedy="measure=5, or 0")
    return measure


def seconds_a_step(parties: Parties, opened: Callable[[Session], None], training: Training, steps: int) -> float:
    """Run steps in the cluster; return the mean of their times, each from the end of the one before it.

    Args:
        training: one that keeps and tells nothing, on rows that this client enters.
        steps: that are measured, behind two others.

    Raises:
        PolicyError, PeerError, IntegrityError: as of a training.
    """
    feeds = {given.name: _made_up(training, given) for given in training.plan.inputs}
    weights = {wire: np.zeros_like(values) for wire, values in training.weights.items()}
    ends = []
    with Session(parties, Prepared(training.plan, weights, []), quiet=True) as session:
        opened(session)
        for _ in range(_FIRST + steps):
            session.run([], feeds)
            ends.append(time.perf_counter())
    return (ends[-1] - ends[_FIRST - 1]) / steps


def _made_up(training: Training, given: PlanInput) -> np.ndarray:
    """Return the lowest values that an input may have."""
    shape = training.plan.wire[given.wire].sizes
    low = np.array([float(end) for end in given.low])
    return np.broadcast_to(low if low.size > 1 else low[0], shape).astype(given.dtype)
