"""`mpc train --epsilon`: logistic regression with noise in every step, on columns of others, from the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click
import numpy as np

from mpc.errors import UsageError
from mpc.text import shown
from parties.cli.datasets import selections
from parties.cli.display import Display, size
from parties.cli.outputs import write_outputs
from parties.client.cluster import Cluster
from parties.client.training.private import PrivateModel
from parties.client.training.unrolled import X, Y

_OPTIONS = (
    click.option(
        "--epsilon",
        metavar="EPSILON",
        help="Instead of a MODEL: a logistic regression that tells of each person no more than this.",
    ),
    click.option("--delta", metavar="DELTA", help="Beside --epsilon; default: 1/1000000."),
    click.option(
        "--steps", type=click.IntRange(1), metavar="STEPS", help="Of gradient descent over all rows, with it."
    ),
    click.option("--center", metavar="NUMBER,...", help="With --epsilon: what columns' means are known to be about."),
    click.option("--spread", metavar="NUMBER,...", help="With --epsilon: what their deviations are known to be about."),
)


@dataclass(frozen=True)
class Private:
    """Options of a training with noise; None where nothing was said."""

    epsilon: str | None
    delta: str | None
    steps: int | None
    center: str | None
    spread: str | None

    @property
    def said(self) -> list[str]:
        """Names of the options that were given."""
        return [f"--{name}" for name, value in vars(self).items() if value is not None]

    def check(self, model: Path | None, others: Sequence[str]) -> bool:
        """Return whether noise is asked for.

        Args:
            others: options that only go with a model, as far as they were given.

        Raises:
            UsageError: these options and those of a training without noise exclude each other.
        """
        if self.epsilon is None:
            if self.said:
                raise UsageError(f"{self.said[0]} is for a training with noise", remedy="add --epsilon 1, and no MODEL")
            if model is None:
                raise UsageError(
                    "there is no MODEL to train",
                    remedy="name an ONNX file; or --epsilon 1 for a private logistic regression, which needs none",
                )
            return False
        if model is not None:
            raise UsageError(
                f"noise of --epsilon is for a logistic regression, and {shown(str(model))} is a model of yours",
                remedy="leave the file out, or --epsilon",
            )
        if others:
            raise UsageError(f"{others[0]} does not go with --epsilon", remedy="leave it out")
        return True


def private_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options, as one argument `private`."""

    @wraps(command)
    def taken(*args: Any, **said: Any) -> Any:
        own = {name: said.pop(name) for name in ("epsilon", "delta", "steps", "center", "spread")}
        return command(*args, private=Private(**own), **said)

    for option in reversed(_OPTIONS):
        taken = option(taken)
    return taken


def train_privately(
    display: Display,
    connected: Cluster,
    data: Sequence[str],
    chosen: Private,
    rate: float | None,
    wait: float,
    save: Path | None,
    as_json: bool,
    link: str | None = None,
) -> None:
    """Train, and print or save what was told."""
    found = selections(connected, data, [X, Y])
    for name in (X, Y):
        if name not in found:
            raise UsageError(
                f"no --data is named for {'the rows' if name == X else 'the labels'}",
                remedy="--data x=hospital/visits:age,bmi --data y=hospital/visits:ill",
            )
    given: dict[str, Any] = {"delta": chosen.delta, "steps": chosen.steps, "rate": rate, "link": link}
    given |= {"center": _numbers("--center", chosen.center), "spread": _numbers("--spread", chosen.spread)}
    said = {key: each for key, each in given.items() if each is not None}
    model = connected.fit_private(found[X], found[Y], chosen.epsilon, wait=wait, **said)
    names = [column.name for column in found[X].columns]
    if save is not None:
        write_outputs(save, {"coef": model.coef, "intercept": np.array(model.intercept)})
    report = _report(model, names, save)
    if as_json:
        display.json(report)
        return
    for name, weight in report["coef"].items():
        display.result(f"{name:<14}{weight:.6g}")
    display.result(f"{'intercept':<14}{model.intercept:.6g}")
    display.say("")
    display.say(f"epsilon       {float(model.epsilon):g}, delta {float(model.delta):.2g}, charged once")
    display.say(f"trained       on {model.rows:,} rows")
    display.say(f"rounds        {model.rounds:,}")
    display.say(f"sent          {size(model.sent_bytes)} by a party to each other one")


def _report(model: PrivateModel, names: Sequence[str], save: Path | None) -> dict[str, Any]:
    return {
        "coef": dict(zip(names, map(float, model.coef), strict=True)),
        "intercept": model.intercept,
        "rows": model.rows,
        "epsilon": float(model.epsilon),
        "delta": float(model.delta),
        "rounds": model.rounds,
        "sent_bytes": model.sent_bytes,
        "saved": None if save is None else str(save),
    }


def _numbers(option: str, text: str | None) -> list[float] | float | None:
    if text is None:
        return None
    try:
        found = [float(each) for each in text.split(",")]
    except ValueError:
        raise UsageError(f"{option} {shown(text)} is no list of numbers", remedy=f"{option} 50,27.5") from None
    return found if len(found) > 1 else found[0]
