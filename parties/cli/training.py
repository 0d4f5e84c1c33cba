"""Options that commands of a training share, and the rows that they name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click
import numpy as np

from mpc.compiler.training.losses import LOSSES
from mpc.compiler.training.optimisers import SGD
from mpc.errors import UsageError
from mpc.text import shown
from parties.cli.datasets import joined_selections
from parties.cli.inputs import load_inputs
from parties.cli.options import parse_ranges
from parties.client.at_rest import bound
from parties.client.cluster import Cluster
from parties.client.training.courses import TARGET
from parties.client.training.rows import Rows
from parties.client.training.telling import CHECK_EVERY

DATA = click.option(
    "--data",
    multiple=True,
    metavar="[INPUT=|y=]OWNER/NAME[:COLUMN,...]",
    help="Rows at the parties, of an input or of the targets (y): columns of a dataset. Named again, more rows follow.",
)
SAMPLES = click.option(
    "--calibrate",
    "samples",
    multiple=True,
    metavar="[INPUT=|y=]X.npy|X.npz|X.csv",
    help="Samples that may become known, a batch of rows or more of each input and of the targets (y): bounds that "
    "cannot be proved rest on them.",
)
BATCH, RATE = 128, 0.1
"""Rows of a step and learning rate, unless said otherwise."""
_OPTIONS = (
    click.option("--loss", type=click.Choice([*LOSSES]), help="Default: one_vs_all, a sigmoid an output."),
    click.option("--learning-rate", "rate", type=float, metavar="LR", help=f"Of the mean loss; default: {RATE:g}."),
    click.option("--momentum", type=float, metavar="M", help="0 to 0.99; 0.5, 0.75 and 0.875 cost least; default: 0."),
    click.option("--weight-decay", "decay", type=float, metavar="D", help="A step takes LR D off each weight."),
    click.option("--epochs", type=click.IntRange(1), help="Times that all rows are read; default: 1."),
    click.option("--frozen", multiple=True, metavar="WEIGHT", help="A weight that stays as it is."),
    click.option(
        "--checkpoint-every", "every", type=click.IntRange(1), metavar="STEPS", help="Keep all that --resume needs."
    ),
    click.option("--release", metavar="loss=STEPS", help="Every how many steps you are told the loss."),
    click.option(
        "--check-every",
        type=click.IntRange(0),
        metavar="STEPS",
        help=f"From one range check to the next; 0: never; default: {CHECK_EVERY}.",
    ),
)


@dataclass(frozen=True)
class Chosen:
    """Options of a training; None where nothing was said."""

    loss: str | None
    rate: float | None
    momentum: float | None
    decay: float | None
    epochs: int | None
    frozen: tuple[str, ...]
    every: int | None
    release: str | None
    check_every: int | None

    @property
    def said(self) -> bool:
        """Was any of them given?"""
        return any(each not in (None, ()) for each in vars(self).values())

    @property
    def beside_the_rate(self) -> list[str]:
        """Name the options that were given, but for the learning rate."""
        return [
            f"--{name.replace('_', '-')}"
            for name, each in vars(self).items()
            if name != "rate" and each not in (None, ())
        ]

    @property
    def trainer(self) -> dict[str, Any]:
        """Arguments of `cluster.trainer`, but for batch, ranges and shapes."""
        optimizer = SGD(RATE if self.rate is None else self.rate, self.momentum or 0.0, self.decay or 0.0)
        return {"loss": self.loss or "one_vs_all", "optimizer": optimizer, "frozen": self.frozen}

    @property
    def course(self) -> dict[str, Any]:
        """Arguments of `trainer.fit` and `trainer.cost` that they share."""
        check = CHECK_EVERY if self.check_every is None else self.check_every or None
        released = None if self.release is None else _released(self.release)
        epochs = 1 if self.epochs is None else self.epochs
        return {"epochs": epochs, "checkpoint_every": self.every, "release": released, "check_every": check}


def _released(text: str) -> dict[str, int]:
    name, _, steps = text.partition("=")
    if name != "loss" or not steps.isdigit() or not int(steps):
        raise UsageError(f"{shown(text)!r} says nothing that is released", remedy="--release loss=100")
    return {name: int(steps)}


def training_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a training; it receives them as `chosen`."""

    @wraps(command)
    def collected(**given: Any) -> None:
        mine = {name: given.pop(name) for name in Chosen.__dataclass_fields__}
        command(chosen=Chosen(**mine), **given)

    made: Callable[..., None] = collected
    for option in reversed(_OPTIONS):
        made = option(made)
    return made


def target_of(names: Sequence[str]) -> str:
    """Return what the targets are called on the command line: y, unless an input of the model has that name."""
    return TARGET if "y" in names else "y"


def training_ranges(entries: tuple[str, ...], names: Sequence[str]) -> dict[str, Any]:
    """Read `--range` of a training, of its targets too."""
    found = parse_ranges(entries, [*names, TARGET])
    if "y" in found and "y" not in names:
        found[TARGET] = found.pop("y")
    return found


def rows_at_parties(connected: Cluster, data: tuple[str, ...], names: Sequence[str]) -> dict[str, Rows]:
    """Find the rows that `--data` names, by input; of the targets by `TARGET`."""
    found = joined_selections(connected, data, [*names, target_of(names)])
    return {TARGET if name == target_of(names) else name: Rows(parts) for name, parts in found.items()}


def ranges_of(rows: Mapping[str, Rows], said: Mapping[str, Any]) -> dict[str, Any]:
    """Return all ranges: those that were said, and those of columns at the parties.

    Raises:
        UsageError: both are there of one input.
    """
    bound.refuse_said(said, rows, "a range")
    return {**said, **{name: each.described(name).range for name, each in rows.items()}}


def own_rows(
    inputs: tuple[str, ...], names: Sequence[str], types: Mapping[str, str], told: list[str]
) -> dict[str, np.ndarray]:
    """Read the files that `--input` names, by input; of the targets by `TARGET`."""
    target = target_of(names)
    found = load_inputs(inputs, [*names, target], names, types, told=told)
    return {TARGET if name == target else name: values for name, values in found.items()}


def as_examples(rows: Mapping[str, Any], names: Sequence[str]) -> tuple[dict[str, Any], Any]:
    """Return (x, y) as `trainer.fit` takes them.

    Raises:
        UsageError: an input, or the targets, have no rows.
    """
    if missing := _missing(rows, names):
        raise UsageError(
            f"{missing[0]} no rows",
            remedy=f"--data {missing[1]}=OWNER/NAME:COLUMN for rows at the parties, or "
            f"--input {missing[1]}=FILE for your own",
        )
    found = {name: [*each.parts] if isinstance(each, Rows) else each for name, each in rows.items()}
    return {name: found[name] for name in names}, found[TARGET]


def samples_of(
    entries: tuple[str, ...], names: Sequence[str], types: Mapping[str, str], told: list[str]
) -> tuple[dict[str, np.ndarray], np.ndarray] | None:
    """Return (x, y) of the files that `--calibrate` names, as `cluster.trainer` takes samples; None if it names none.

    Raises:
        UsageError: an input, or the targets, have none.
    """
    if not entries:
        return None
    found = own_rows(entries, names, types, told)
    if missing := _missing(found, names):
        raise UsageError(
            f"{missing[0]} no samples, and others have",
            remedy=f"add --calibrate {missing[1]}=FILE, of as many rows",
        )
    return {name: found[name] for name in names}, found[TARGET]


def _missing(rows: Mapping[str, Any], names: Sequence[str]) -> tuple[str, str] | None:
    """Return (what has no rows, its name in an option) of the first input that has none."""
    target = target_of(names)
    for name in (*names, TARGET):
        if name not in rows:
            return (f"input {shown(name)!r} has", shown(name)) if name != TARGET else ("the targets have", target)
    return None
