"""Outputs of a training on its way: the loss where it is released, and whether anything has left its range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mpc.compiler.training.losses import LOSS
from mpc.compiler.training.ranges import BEYOND
from mpc.compiler.training.train import Training
from mpc.errors import ModelError, UsageError
from mpc.plan.program import Program, Told
from parties.client.running.feeds import read_count

CHECK_EVERY = 100
"""Steps from one range check to the next, unless somebody says another number."""


def read_release(release: object) -> int | None:
    """Return every how many steps the loss is told; None for never.

    Raises:
        UsageError: it says nothing of the kind.
    """
    if release is None:
        return None
    if not isinstance(release, Mapping) or set(release) != {LOSS}:
        raise UsageError("release says every how many steps the loss is told", remedy="release={'loss': 100}")
    return read_count(release[LOSS], "the number of steps from one loss to the next")


def read_check(every: object) -> int | None:
    """Return every how many steps ranges are checked; None for never.

    Raises:
        UsageError: it is no number of steps.
    """
    return None if every is None else read_count(every, "the number of steps from one range check to the next")


def tells(release: int | None, check: int | None) -> tuple[str, ...]:
    """Name the outputs that a step needs beside the weights."""
    return tuple(name for name, every in ((LOSS, release), (BEYOND, check)) if every is not None)


def silent(training: Training, steps: int, release: int | None, after: int = 0) -> bool:
    """Do steps compute the loss, though no run of a session tells it?  Then the session needs a step without it.

    Args:
        steps, after: as in `told`.
    """
    computed = LOSS in {out.name for out in training.plan.outputs}
    return computed and release is not None and release - after % release > steps


def told(training: Training, steps: int, release: int | None, check: int | None, after: int = 0) -> tuple[Told, ...]:
    """Say in which runs of a session what is told: all is kept in the last, where ranges are checked in any case.

    Args:
        steps: of the session.
        after: steps that were made before it: the loss is told every so many steps of the whole training.
    """
    found = [Told(output=out, first=steps) for out in (*training.keeps.values(), *training.moves.values())]
    names = {out.name for out in training.plan.outputs}
    if release is not None and LOSS in names and not silent(training, steps, release, after):
        found.append(Told(output=LOSS, first=release - after % release, every=release, last=steps))
    if check is not None:
        found.append(Told(output=BEYOND, first=(steps - 1) % check + 1, every=check, last=steps))
    return tuple(found)


def named(program: Program, step: int) -> list[str]:
    """Name the outputs beside the weights that a step tells."""
    return [each.output for each in program.told if each.output in (LOSS, BEYOND) and program.tells(each.output, step)]


def loss_of(training: Training, value: Any) -> float:
    """Return the mean over a batch's rows of the squares of what its predictions are off by; half of that for "mse"."""
    return float(value.item()) / (training.batch * (2 if training.loss == "mse" else 1))


def left_its_range(step: int) -> ModelError:
    """Return the error of a training that the range check has stopped."""
    return ModelError(
        f"a value has left the range that the plan takes for granted, by step {step}: the training is stopped, and "
        "none of its weights are kept",
        cause="a weight, or a sum before the sigmoid, went beyond its bound: mostly since the learning rate is too "
        "large; or data are much unlike the samples that bounds rest on",
        remedy="train with a smaller rate, with weight_decay, or with wider ranges, in Python: "
        "cluster.trainer(..., precision=Precision(weights=16, logits=96)); the notes of the trainer say which bounds "
        "are taken for granted",
    )
