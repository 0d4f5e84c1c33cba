"""`mpc inspect --train`: what a training of a model costs, before anything runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mpc.compiler.onnx.load import Loaded
from mpc.compiler.onnx.signature import Shapes
from mpc.compiler.roles import Roles
from mpc.compiler.training.train import compile_training
from parties.cli.display import Display, size
from parties.client.training.pricing import training_cost
from parties.client.training.telling import CHECK_EVERY, tells
from parties.client.training.trainer import TARGET


def show_training(
    display: Display,
    model: Loaded,
    ranges: dict[str, Any],
    shapes: Shapes,
    roles: Roles,
    loss: str,
    batch: int,
    parties: int,
    rows: int | None,
    as_json: bool,
) -> None:
    """Print the price of a step and of an epoch on so many rows, of one step if it is not said how many there are."""
    training = compile_training(
        model, loss, None, batch, ranges, roles, shapes, target=TARGET, keep=True, tells=tells(None, CHECK_EVERY)
    )
    cost = training_cost(training, batch if rows is None else rows, 1, parties, None, CHECK_EVERY)
    report = {"digest": training.plan.digest.hex(), "loss": loss, "check_every": CHECK_EVERY, **asdict(cost)}
    if as_json:
        display.json(report | {"notes": list(training.notes)})
        return
    for note in training.notes:
        display.say(f"note: {note}")
    each = cost.step
    display.result(
        f"a step        {each.rounds} rounds, {size(each.total_sent(parties))} sent by each party, "
        f"{size(each.total_dealt(parties))} dealt by the provider to {parties} parties (batch {batch})"
    )
    display.result(
        f"an epoch      {cost.steps:,} steps, {cost.rounds:,} rounds, {size(cost.sent_bytes)} sent by each party, "
        f"{size(cost.dealt_bytes)} dealt"
    )
    display.result(f"              (ranges are checked every {CHECK_EVERY} steps and in the last, which keeps weights)")
