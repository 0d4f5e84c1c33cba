"""`mpc train`: training a model on rows at the parties, or on your own, from the command line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from mpc.compiler.onnx.load import Loaded, load_model
from mpc.compiler.onnx.signature import input_types
from mpc.errors import IntegrityError, MpcError, PeerError, UsageError
from parties.cli.display import Display, saying, seconds, silence, size
from parties.cli.inputs import load_inputs
from parties.cli.options import (
    CLUSTER,
    FOLDER,
    JSON,
    LINK,
    RANGE,
    SECURITY,
    SHAPE,
    WAIT,
    cluster_file,
    parse_shapes,
    require_folder,
    require_npz,
)
from parties.cli.outputs import plain_outputs, print_outputs, write_outputs
from parties.cli.private_training import Private, private_options, train_privately
from parties.cli.training import (
    BATCH,
    DATA,
    SAMPLES,
    Chosen,
    as_examples,
    own_rows,
    ranges_of,
    rows_at_parties,
    samples_of,
    training_options,
    training_ranges,
)
from parties.client.cluster import Cluster
from parties.client.running.roles import PASSIVE
from parties.client.training.bar import Bar
from parties.client.training.trained import Trained
from parties.client.training.trainer import Trainer
from parties.disk import write_atomic
from parties.local.warming import warm

_GO_ON = "the same command with --resume goes on from the last checkpoint"


@dataclass(frozen=True)
class Request:
    """Options of the command, as they were given."""

    model: Path | None
    data: tuple[str, ...]
    inputs: tuple[str, ...]
    chosen: Chosen
    private: Private
    batch: int
    seed: int
    name: str
    resume: bool
    save: Path | None
    predict: tuple[str, ...]
    output: Path | None
    listed: Path | None
    parties: int | None
    cluster: Path | None
    security: str | None
    link: str | None
    samples: tuple[str, ...]
    ranges: tuple[str, ...]
    shapes: tuple[str, ...]
    wait: float
    folder: Path
    as_json: bool

    def check(self) -> None:
        """Raise UsageError if options exclude each other, or a file could not be written in the end."""
        if self.parties is not None and (self.data or self.resume or self.listed or self.cluster):
            raise UsageError(
                "--parties starts a cluster of its own, where no datasets and no checkpoints are",
                remedy="mpc up --detach, then leave --parties out",
            )
        if self.parties is not None and not (self.save or self.predict):
            raise UsageError(
                "a cluster of --parties ends with this command, and the model with it",
                remedy="add --save WEIGHTS.npz or --predict X.npy, or train in a cluster that stays: mpc up --detach",
            )
        if self.output is not None and not self.predict:
            raise UsageError("--output is for predictions", remedy="add --predict X.npy; weights are for --save")
        for path in filter(None, (self.save, self.output)):
            require_npz(path)
        if self.listed is not None:
            require_folder(self.listed)

    @property
    def only_with_a_model(self) -> list[str]:
        """Options that were given and say nothing of a logistic regression with noise."""
        mine = {
            "--input": self.inputs, "--predict": self.predict, "--list": self.listed, "--parties": self.parties,
            "--range": self.ranges, "--shape": self.shapes, "--resume": self.resume, "--output": self.output,
            "--calibrate": self.samples,
        }  # fmt: skip
        return [*self.chosen.beside_the_rate, *(name for name, value in mine.items() if value)]

    @property
    def file(self) -> Path:
        """Path of the model's file."""
        if self.model is None:
            raise UsageError("there is no MODEL to train", remedy="name an ONNX file")
        return self.model

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of `trainer.fit`, but for the rows."""
        return {**self.chosen.course, "name": self.name, "seed": self.seed}


@click.command()
@click.argument("model", required=False, type=click.Path(path_type=Path))
@DATA
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="[INPUT=|y=]X.npy|X.npz|X.csv",
    help="Rows of your own, of an input or of the targets (y), which are entered step by step.",
)
@training_options
@private_options
@click.option("--batch", default=BATCH, show_default=True, type=click.IntRange(1, 1 << 20), help="Rows of a step.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Decides the order of the rows.")
@click.option("--keep", "name", default="trained", show_default=True, metavar="NAME", help="What the weights become.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of this very training.")
@click.option("--save", type=click.Path(path_type=Path), help="Be told the weights, and write them to this .npz file.")
@click.option("--predict", multiple=True, metavar="[INPUT=]X.npy|X.npz|X.csv", help="Run the trained model on this.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the predictions to this .npz file.")
@click.option(
    "--list",
    "listed",
    type=click.Path(path_type=Path),
    help="Write what owners of the rows need to grant this training ('mpc grant add NAME --train FILE'), and stop.",
)
@click.option("--parties", type=click.IntRange(2), help="Start this many parties just for this training.")
@CLUSTER
@SECURITY
@LINK
@SAMPLES
@RANGE
@SHAPE
@WAIT
@FOLDER
@JSON
@click.pass_obj
def train(display: Display, /, **said: Any) -> None:
    """Train MODEL (ONNX) from the weights in its file on; nobody sees them from then on.

    Rows lie at the parties (--data), whose owners grant the training, or are your own (--input); y are the targets:
    numbers, or for classes the number of each row's class. The weights stay at the parties, as the dataset of yours
    that --keep names; --save has you told them, --predict runs the model where it lies. After a crash, the same
    command with --resume goes on from the last checkpoint, if there was a --checkpoint-every.

    With --epsilon, and no MODEL, it is a logistic regression of x=OWNER/NAME:COLUMN,... for labels y=OWNER/NAME:COLUMN
    under a grant of answers with Gaussian noise: you are told its weights, which hide each person in the rows.
    """
    request = Request(**said)
    if request.private.check(request.model, request.only_with_a_model):
        _train_privately(display, request)
        return
    request.check()
    with saying(display) as notes, _connected(display, request) as connected:
        with display.stages() as stage:
            stage("compiling")
            trainer, x, y, feeds = _prepare(display, connected, request)
        if request.listed is not None:
            _list(display, trainer, x, y, request, request.listed)
            return
        tally = Tally(trainer, None if request.as_json else display.result)
        with _going_on(display, request, tally), nullcontext() if display.quiet else tally.bar:
            begin = trainer.resume if request.resume else trainer.fit
            found = begin(x, y, **request.options, wait=request.wait, progress=tally)
        took = time.perf_counter() - tally.started
        with found:
            weights = found.release() if request.save is not None else {}
            outputs = _predict(found, feeds) if request.predict else {}
    report = _report(request, trainer, found, tally, took, notes)
    for path, arrays in ((request.save, weights), (request.output, outputs)):
        if path is not None:
            write_outputs(path, arrays)
    if request.as_json:
        display.json({**report, "outputs": plain_outputs(outputs)})
        return
    _print(display, report)
    print_outputs(display, outputs, request.output)


def _train_privately(display: Display, request: Request) -> None:
    if request.save is not None:
        require_folder(request.save)
    with Cluster.connect(cluster_file(request.cluster, request.folder)) as connected, display.stages() as stage:
        warm(display.say)
        stage("training")
        train_privately(
            display, connected, request.data, request.private, request.chosen.rate, request.wait, request.save,
            request.as_json, request.link,
        )  # fmt: skip


def _connected(display: Display, request: Request) -> Cluster:
    if request.parties is not None:
        return Cluster.local(request.parties, say=display.say, security=request.security or PASSIVE)
    path = cluster_file(request.cluster, request.folder)
    warm(display.say)
    return Cluster.connect(path, request.security)


def _prepare(
    display: Display, connected: Cluster, request: Request
) -> tuple[Trainer, dict[str, Any], Any, dict[str, np.ndarray]]:
    """Return the trainer, all rows and their targets, and what the model is run on in the end."""
    loaded = Loaded(load_model(request.file))
    types = input_types(loaded)
    names, told = [*types], list[str]()
    rows = rows_at_parties(connected, request.data, names)
    known = ranges_of(rows, training_ranges(request.ranges, names))
    x, y = as_examples({**rows, **own_rows(request.inputs, names, types, told)}, names)
    feeds = load_inputs(request.predict, names, types=types, told=told) if request.predict else {}
    samples = samples_of(request.samples, names, types, told)
    for note in dict.fromkeys(told):
        display.say(f"note: {note}")
    shapes = parse_shapes(request.shapes, names)
    choices = {"batch": request.batch, "ranges": known, "shapes": shapes, "samples": samples, "link": request.link}
    trainer = connected.trainer(loaded, **choices, **request.chosen.trainer)
    return trainer, x, y, feeds


def _list(display: Display, trainer: Trainer, x: Any, y: Any, request: Request, path: Path) -> None:
    """Write the list that owners grant."""
    found = trainer.training_list(x, y, **request.options)
    write_atomic(path, found.content, 0o644)
    if request.as_json:
        display.json({"list": str(path), "coordinator": found.coordinator, "plans": found.brief})
        return
    for each in found.brief:
        display.result(f"{each['plan']}  {each['use']}")
    display.say(f"each owner: mpc grant add NAME --coordinator {found.coordinator} --train {path}")


class Tally:
    """Adds up what steps cost, and shows the bar and each loss that is told; `trainer.fit` calls it after each.

    Args:
        tell: prints a line; None if losses are printed in the end.
    """

    def __init__(self, trainer: Trainer, tell: Callable[[str], None] | None) -> None:
        self._trainer, self.bar, self.started = trainer, Bar(trainer), time.perf_counter()
        self._tell, self._told = tell, set[int]()
        self.steps = self.rounds = self.sent_bytes = self.dealt_bytes = 0

    def __call__(self, done: int, steps: int) -> None:
        last = self._trainer.last_step
        self.steps += 1
        if last is not None:
            self.rounds += last.rounds
            self.sent_bytes += last.sent_bytes
            self.dealt_bytes += last.dealt_bytes
        self.bar(done, steps)
        if self._tell is not None:
            try:
                self.tell(self._tell)
            except (BrokenPipeError, SystemExit):  # nobody reads any more: the training is none the worse for it
                self._tell = None
                silence()

    def tell(self, tell: Callable[[str], None]) -> None:
        """Print the losses that were told since this was called last."""
        losses = {step: loss for step, loss in self._trainer.losses.items() if step not in self._told}
        if losses:
            with self.bar.away():
                for step, loss in losses.items():
                    tell(f"loss          {loss:.6g} in step {step:,}")
            self._told.update(losses)


@contextmanager
def _going_on(display: Display, request: Request, tally: Tally) -> Iterator[None]:
    """Say which losses were told in a training that was cut off, and how it goes on."""
    try:
        with _told(display, request, tally):
            yield
    except (PeerError, IntegrityError) as error:
        if request.chosen.every is None:
            raise
        remedy = _GO_ON if error.remedy is None else f"{error.remedy}; then {_GO_ON}"
        raise error.with_(remedy=remedy) from error.__cause__
    except KeyboardInterrupt:
        if request.chosen.every is not None:
            display.say(f"note: {_GO_ON}")
        raise


@contextmanager
def _told(display: Display, request: Request, tally: Tally) -> Iterator[None]:
    """Print, if the training fails, the losses that were told and are not printed: beside JSON, as notes."""
    try:
        yield
    except (MpcError, KeyboardInterrupt):
        tally.tell((lambda line: display.say(f"note: {' '.join(line.split())}")) if request.as_json else display.result)
        raise


def _predict(found: Trained, feeds: dict[str, np.ndarray]) -> dict[str, Any]:
    names = [each.name for each in found.get_outputs()]
    return dict(zip(names, found.run(names, feeds), strict=True))


def _report(
    request: Request, trainer: Trainer, found: Trained, tally: Tally, took: float, notes: list[str]
) -> dict[str, Any]:
    kept = found.manifest
    return {
        "model": str(request.model),
        "plan": kept.kept.plan if kept.kept is not None else None,
        "security": trainer.training.plan.security,
        "loss": trainer.training.loss,
        "learning_rate": trainer.training.learning_rate,
        "batch": trainer.batch,
        "epochs": request.options["epochs"],
        "steps": tally.steps,
        "rounds": tally.rounds,
        "sent_bytes": tally.sent_bytes,
        "dealt_bytes": tally.dealt_bytes,
        "seconds": took,
        "losses": {str(step): loss for step, loss in trainer.losses.items()},
        "kept": {"name": kept.name, "version": kept.version},
        "saved": None if request.save is None else str(request.save),
        "notes": notes,
    }


def _print(display: Display, report: dict[str, Any]) -> None:
    display.result(f"kept as       {report['kept']['name']}, version {report['kept']['version']}")
    if report["saved"] is not None:
        display.result(f"weights       in {report['saved']}")
    display.say("")
    display.say(f"steps         {report['steps']:,} of {report['batch']:,} rows in {seconds(report['seconds'])}")
    display.say(f"rounds        {report['rounds']:,}")
    display.say(f"sent          {size(report['sent_bytes'])} by the largest party")
    display.say(f"dealt         {size(report['dealt_bytes'])}")
