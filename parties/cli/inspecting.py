"""`mpc inspect --train`: what a training of a model costs, before anything runs."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mpc.compiler.onnx.load import Loaded, load_model
from mpc.compiler.onnx.signature import input_types
from mpc.compiler.roles import Roles
from mpc.errors import UsageError
from parties.cli.display import Display, saying, seconds, size
from parties.cli.options import cluster_file, parse_shapes
from parties.cli.training import BATCH, Chosen, as_examples, ranges_of, rows_at_parties, samples_of, training_ranges
from parties.cli.training_lists import lines_of, load_list, report_of
from parties.client.cluster import Cluster
from parties.client.training.courses import Courses, step_compiler
from parties.client.training.pricing import TrainingCost, training_cost


@dataclass(frozen=True)
class Asked:
    """Options of `mpc inspect` that are of a training.

    Args:
        rows: of an epoch; None: one step's, or those of `data`.
        data: rows at the parties.
        measure: steps that are run, to say how long they take; None for none.
        batch: rows of a step, if said.
    """

    chosen: Chosen
    rows: int | None
    data: tuple[str, ...]
    measure: int | None
    batch: int | None
    parties: int
    cluster: Path | None
    folder: Path

    def require_none(self) -> None:
        """Raise UsageError if one of them was given without --train."""
        if self.chosen.said or self.rows or self.data or self.measure or self.cluster:
            raise UsageError("--loss, --rows and the like are of a training", remedy="add --train")


def show_training(
    display: Display,
    model: Path,
    ranges: tuple[str, ...],
    shapes: tuple[str, ...],
    samples: tuple[str, ...],
    roles: Roles,
    asked: Asked,
    as_json: bool,
) -> None:
    """Print the price of a step and of all epochs, on so many rows, or on rows that lie at the parties."""
    if asked.rows is not None and asked.data:
        raise UsageError("--data says how many rows there are", remedy="leave --rows out")
    loaded = Loaded(load_model(model))
    types = input_types(loaded)
    names, read = [*types], list[str]()
    known, given = training_ranges(ranges, names), parse_shapes(shapes, names)
    rows = samples_of(samples, names, types, read)
    choices = {"batch": asked.batch or BATCH, "shapes": given, "samples": rows, **asked.chosen.trainer}
    with saying(display) as notes:
        if asked.data or asked.measure or asked.cluster:
            cost, told, errors = _in_a_cluster(display, loaded, names, known, choices, asked, roles)
        else:
            compiling = step_compiler(loaded, ranges=known, **choices)
            courses = Courses(compiling, roles, choices["batch"], roles.model_owner)
            course = asked.chosen.course
            epochs, every, release, check = course.values()
            made = courses.priced(asked.rows or choices["batch"], epochs, every, release, check)
            told, errors = made.training.notes, courses.expected_errors
            cost = training_cost(made, asked.parties)
    every_note = [*dict.fromkeys([*read, *told, *notes])]
    report = {"loss": choices["loss"], **asked.chosen.course, **asdict(cost), "seconds": cost.seconds}
    report["expected_errors"] = errors
    if as_json:
        display.json({**report, "notes": every_note})
        return
    for note in every_note:
        if note not in notes:  # which were printed
            display.say(f"note: {note}")
    _print(display, cost, asked, report["check_every"])


def show_list(display: Display, path: Path, as_json: bool) -> None:
    """Print what a training's list says, for whoever is to grant it; datasets are named by their ids."""
    found = load_list(path)
    if as_json:
        display.json(report_of(found, {}))
        return
    for line in lines_of(found, {}):
        display.result(line)


def _in_a_cluster(
    display: Display,
    loaded: Loaded,
    names: list[str],
    known: dict[str, Any],
    choices: dict[str, Any],
    asked: Asked,
    roles: Roles,
) -> tuple[TrainingCost, tuple[str, ...], dict[str, float]]:
    """Return the price of a training on rows at the parties, or of one that is measured, its notes, and its errors."""
    with ExitStack() as stack:
        if asked.data or asked.cluster:
            connected = stack.enter_context(Cluster.connect(cluster_file(asked.cluster, asked.folder)))
        else:
            connected = stack.enter_context(Cluster.local(asked.parties, say=display.say, security=roles.security))
        if roles.security == "active" != connected.parties.config.security:
            raise UsageError(
                "steps of a training in this cluster are not checked",
                remedy='security = "active" in its cluster file, or leave --security out',
            )
        rows = rows_at_parties(connected, asked.data, names)
        trainer = connected.trainer(loaded, ranges=ranges_of(rows, known), link=roles.link, **choices)
        read: Any = as_examples(rows, names) if asked.data else asked.rows or choices["batch"]
        cost = trainer.cost(read, **asked.chosen.course, measure=asked.measure or 0)
    return cost, trainer.notes, trainer.expected_errors


def _print(display: Display, cost: TrainingCost, asked: Asked, check_every: int | None) -> None:
    each, epochs = cost.step, asked.chosen.course["epochs"]
    display.result(
        f"a step        {each.rounds} rounds, {size(each.total_sent(cost.parties))} sent by each party, "
        f"{size(each.total_dealt(cost.parties))} dealt by the provider to {cost.parties} parties (batch {cost.batch})"
    )
    display.result(
        f"{'an epoch' if epochs == 1 else f'{epochs:,} epochs':<14}{cost.steps:,} steps, {cost.rounds:,} rounds, "
        f"{size(cost.sent_bytes)} sent by each party, {size(cost.dealt_bytes)} dealt"
    )
    if check_every is not None:
        display.result(
            f"              (ranges are checked every {check_every:,} steps and in the last, which keeps weights)"
        )
    if cost.sessions > 1:
        display.result(f"              ({cost.sessions:,} sessions, one from each checkpoint to the next)")
    if cost.step_s is not None and cost.seconds is not None:
        where = "in that cluster" if asked.data or asked.cluster else "on this machine, whose cores all parties share"
        display.result(
            f"time          {seconds(cost.step_s)} a step, {seconds(cost.seconds)} in all: an estimate by "
            f"{asked.measure} steps on made-up rows, {where}"
        )
