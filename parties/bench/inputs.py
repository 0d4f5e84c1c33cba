"""Rows that a benchmark runs on: the user's own, or made up within the range that bounds are proved for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import numpy as np

from mpc.errors import InputError
from mpc.plan.ends import PlanInput
from mpc.plan.plan import Plan
from parties.client.running.feeds import is_fixed

_GOLDEN = 0.6180339887498949
Say = Callable[[str], None]


def made_up(plan: Plan, batch: int) -> dict[str, np.ndarray]:
    """Make an array for every input, equal each time, spread evenly over the input's range (Weyl's sequence)."""
    return {given.name: _spread(plan, given, batch) for given in plan.entered_inputs}


def _spread(plan: Plan, given: PlanInput, batch: int) -> np.ndarray:
    shape = [batch if size == "batch" else int(size) for size in given.of_numbers(plan.wire[given.wire].shape)]
    fractions = np.mod(np.arange(1, prod(shape) + 1) * _GOLDEN, 1.0).reshape(shape)
    low, high = (np.array([float(end) for end in ends]) for ends in (given.low, given.high))
    values = low + fractions * (high - low)
    dtype = np.dtype(given.dtype)
    spread: np.ndarray = np.rint(values) if dtype.kind in "iu" else values
    return spread.astype(dtype)


def rows(plan: Plan, feeds: Mapping[str, np.ndarray], batch: int, say: Say) -> dict[str, np.ndarray]:
    """Return the first `batch` rows; if there are fewer, repeat them, and say so."""
    chosen = {}
    for given in plan.entered_inputs:
        array = np.asarray(feeds[given.name])
        if is_fixed(plan, given.wire):
            chosen[given.name] = array
            continue
        if not array.ndim or not len(array):
            raise InputError(f"input {given.name!r} has no rows", remedy="give at least one row")
        if len(array) < batch:
            say(f"input {given.name!r} has {len(array)} rows; they are repeated for a batch of {batch}")
        chosen[given.name] = np.resize(array, (batch, *array.shape[1:]))
    return chosen
