"""Rows to train on, as a caller gives them: checked whole before the first of them is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from mpc.errors import InputError, UsageError
from mpc.fixedpoint import check_range
from mpc.plan.ends import PlanInput
from mpc.plan.plan import Plan
from mpc.text import shown

_CLASSES = (Fraction(0), Fraction(1))
"""The range of targets of losses that know classes."""
_FEWEST_STEPS = 4.0
"""Parts of fixed point that a column's standard deviation should have; its rounding has 0.29."""


def as_examples(plan: Plan, target: str, x: Any, y: Any) -> dict[str, np.ndarray]:
    """Return all rows of each input of a step and of its targets, float or whole as the plan has them.

    Args:
        plan: of a step, whose inputs have a fixed number of rows.
        target: the name of the targets among its inputs.

    Raises:
        UsageError: these are no arrays.
        InputError: a name, a shape, the number of rows or a value is wrong.
    """
    inputs = {given.name: given for given in plan.inputs}
    names = [name for name in inputs if name != target]
    given = dict(x) if isinstance(x, Mapping) else {names[0]: x} if len(names) == 1 else None
    if given is None or set(given) != set(names):
        raise InputError(
            "x is not what the model reads", remedy=f"give an array of each input: {', '.join(map(shown, names))}"
        )
    found = {name: _array(given[name], f"input {shown(name)!r}") for name in names}
    found[target] = as_targets(_array(y, "y"), plan.wire[inputs[target].wire].sizes, inputs[target])
    rows = {name: len(values) for name, values in found.items()}
    if len(set(rows.values())) > 1:
        raise InputError(
            "x and y have different numbers of rows",
            cause=", ".join(f"{name}: {number}" for name, number in rows.items()),
            remedy="give one target for each row",
        )
    for name, values in found.items():
        found[name] = _checked(values, plan.wire[inputs[name].wire].sizes, inputs[name])
    return found


def as_samples(names: Sequence[str], target: str, samples: Any) -> dict[str, np.ndarray]:
    """Return rows that may become known by the names of a step's inputs; y may be numbers of classes.

    Args:
        samples: (x, y), as `as_examples` takes them.

    Raises:
        UsageError: these are no arrays.
        InputError: an input has none.
    """
    if not isinstance(samples, tuple) or len(samples) != 2:
        raise UsageError("samples are rows and their targets", remedy="samples=(x, y), as trainer.fit takes arrays")
    x, y = samples
    given = dict(x) if isinstance(x, Mapping) else {names[0]: x} if len(names) == 1 else {}
    if set(given) != set(names):
        raise InputError(
            "the samples are not what the model reads", remedy=f"give an array of each input: {', '.join(names)}"
        )
    found = {name: _array(given[name], f"input {shown(name)!r}") for name in names}
    return {**found, target: _array(y, "y")}


def _array(given: Any, what: str) -> np.ndarray:
    try:
        values = np.asarray(given)
    except (ValueError, TypeError):
        values = np.empty((), object)
    if values.dtype.kind not in "fiub" or not values.ndim:
        raise UsageError(f"{what} is no array of numbers", remedy="trainer.fit(x, y) with numpy arrays, row by row")
    return values


def as_targets(y: np.ndarray, sizes: tuple[int, ...], given: PlanInput) -> np.ndarray:
    """Give targets the shape that the model's outputs have: classes one-hot, a column of one output.

    Raises:
        InputError: there is one class of several for a row, and it is none.
    """
    if len(sizes) == 2 and y.shape[1:] == (1,):  # as tables have a column
        y = y[:, 0]
    if y.ndim != 1 or len(sizes) != 2:
        return y
    outputs = sizes[1]
    if outputs == 1:
        return y[:, None]
    whole = np.isfinite(y).all() and (y == np.floor(y)).all()
    if (*given.low, *given.high) != _CLASSES or not whole or y.min(initial=0) < 0 or y.max(initial=0) >= outputs:
        amiss = y[~(np.isfinite(y) & (y == np.floor(y)) & (y >= 0) & (y < outputs))]
        label = f"{amiss[0]:g} is none of the classes 0 to {outputs - 1}" if amiss.size else None
        raise InputError(
            f"y does not say what each of the {outputs} outputs should be",
            cause=label if (*given.low, *given.high) == _CLASSES else None,
            remedy=f"give an array of shape (rows, {outputs}); with one_vs_all or cross_entropy the numbers of the "
            f"rows' classes will do, 0 to {outputs - 1}",
        )
    return np.eye(outputs, dtype=np.float32)[y.astype(np.int64)]


def _checked(values: np.ndarray, sizes: tuple[int, ...], given: PlanInput) -> np.ndarray:
    if values.shape[1:] != tuple(sizes[1:]):
        raise InputError(
            f"{shown(given.name)!r} has rows of shape {values.shape[1:]}, and the model's have {tuple(sizes[1:])}",
            remedy="give one row an example",
        )
    check_range(values, given.low, given.high, given.name)
    return values.astype(given.dtype)


def coarse(plan: Plan, examples: Mapping[str, np.ndarray]) -> list[str]:
    """Describe the columns of inputs whose values differ by hardly more than a step's fixed point resolves."""
    found = []
    for given in plan.inputs:
        values, scale = examples[given.name], float(plan.wire[given.wire].scale)
        if not given.dtype.startswith("float") or values.ndim < 2:
            continue
        spread = values.std(axis=0, dtype=np.float64).ravel()
        for column in np.flatnonzero((spread > 0) & (spread * scale < _FEWEST_STEPS))[:1].tolist():
            found.append(
                f"column {column} (the first is column 0) of {shown(given.name)!r} varies by about "
                f"{spread[column]:.2g}, and a step reads it in parts of {1 / scale:.2g}: little is learned of it; "
                "scale it up, or train with more digits, in Python: cluster.trainer(..., "
                "precision=Precision(activations=12))"
            )
    return found
