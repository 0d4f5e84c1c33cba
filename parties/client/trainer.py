"""Training on rows that this client enters: the weights stay shared from the first step to the last, and are kept.

A step is one run.  Which rows it reads this client decides, whose they are; everybody knows how many they are, and how
many steps there will be.  The last step keeps the weights at the parties, as a dataset of this client's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mpc.compiler.onnx.load import Loaded, load_model
from mpc.compiler.training.losses import LOSS
from mpc.compiler.training.optimisers import SGD
from mpc.compiler.training.precision import Precision
from mpc.compiler.training.ranges import BEYOND
from mpc.compiler.training.train import Training, compile_training
from mpc.errors import InputError, UsageError, warn
from mpc.plan.program import Program
from parties.client import catalogue
from parties.client.bar import Bar
from parties.client.channels import Parties
from parties.client.coordinated import RunReport
from parties.client.examples import as_examples, coarse
from parties.client.feeds import read_count
from parties.client.keeping import Keeping, keeps, read_keep
from parties.client.prepared import Prepared
from parties.client.pricing import TrainingCost, training_cost
from parties.client.roles import assign, refuse_machines
from parties.client.session import Session
from parties.client.telling import (
    CHECK_EVERY,
    left_its_range,
    loss_of,
    named,
    read_check,
    read_release,
    tells,
    told,
)
from parties.client.trained import Trained, predictor

if TYPE_CHECKING:
    from mpc.compiler.compile import Ranges
    from mpc.compiler.graph.graph import Range
    from mpc.compiler.onnx.load import Source
    from mpc.compiler.onnx.signature import Shapes

TARGET = "target"
Progress = Callable[[int, int], None]
"""Told how many steps are done, and how many there are."""
CHOICES = frozenset({"loss", "optimizer", "batch", "ranges", "shapes", "frozen", "precision"})
Opened = Callable[[Session], None]


class Trainer:
    """A model that trains.  `cluster.trainer(...)` makes one.

    Args:
        opened: told of each session that is opened, so that somebody may close it.
        last_step: the price of the last step; None before the first.
        losses: step -> the loss, where it was released: the mean over the batch of the squares of what predictions
            are off by, summed over outputs; half of that for "mse".
    """

    def __init__(
        self,
        parties: Parties,
        opened: Opened,
        model: Source,
        loss: str = "one_vs_all",
        optimizer: SGD | None = None,
        batch: int = 128,
        ranges: Ranges | Range | None = None,
        shapes: Shapes | Sequence[int | str | None] | None = None,
        frozen: Collection[str] = (),
        precision: Precision | None = None,
    ) -> None:
        _check(optimizer, precision, loss, frozen)
        self._parties, self._opened, self.batch = parties, opened, read_count(batch, "the batch")
        roles = assign(parties.config.name)
        self._compile = partial(
            compile_training, Loaded(load_model(model)), loss, optimizer, self.batch, ranges, roles, shapes, frozen,
            precision, TARGET, keep=True,
        )  # fmt: skip
        self.training: Training = self._compile(tells=tells(None, CHECK_EVERY))
        self._told = {tells(None, CHECK_EVERY): self.training}
        refuse_machines(self.training.plan, parties.names, parties.config.provider.name)
        self._predicting = predictor(self.training, parties.config.name)  # refused now, or never
        self.last_step: RunReport | None = None
        self.losses: dict[int, float] = {}

    def cost(
        self,
        rows: int,
        epochs: int = 1,
        *,
        release: Mapping[str, int] | None = None,
        check_every: int | None = CHECK_EVERY,
    ) -> TrainingCost:
        """Return what `fit` on so many rows will cost, before anything runs.

        Raises:
            InputError, UsageError: as `fit`.
        """
        rows, epochs = read_count(rows, "the number of rows"), read_count(epochs, "the number of epochs")
        every, check = read_release(release), read_check(check_every)
        shown = every if every is not None and every <= epochs * (rows // self.batch) else None
        return training_cost(self._telling(shown, check), rows, epochs, len(self._parties.names), shown, check)

    def fit(
        self,
        x: Mapping[str, np.ndarray] | np.ndarray,
        y: np.ndarray,
        epochs: int = 1,
        *,
        name: str = "trained",
        seed: int = 0,
        progress: Progress | None = None,
        release: Mapping[str, int] | None = None,
        check_every: int | None = CHECK_EVERY,
    ) -> Trained:
        """Return the model trained on arrays of this client's, from the weights in its file on, and still shared.

        Rows that are left over at the end of an epoch are not read in it.

        Args:
            x: rows of the model's input, or of each by its name.
            y: the targets of these rows, of the model's outputs' shape; for one_vs_all and cross_entropy the number of
                each row's class will do, from 0 on.
            name: of the dataset at the parties that the weights become, as its next version.
            seed: decides the order of the rows, which is another one in each epoch.
            progress: called with the steps done and the steps in all, after each; a bar on the terminal if None.
            release: every how many steps this client is told the loss: {"loss": 100}; see `losses`.
            check_every: steps from one range check to the next, of which the last step's is one.  It tells this client
                one bit: has a weight, or another value whose bound is not proved, left its range?  None for none.

        Raises:
            InputError: the arrays do not fit the model, or hold values out of range; nothing has been sent.
            UsageError: these are no arrays, or an argument says nothing.
            ModelError: a range check has found a value beyond; nothing is kept.
            PolicyError: a party's policy does not let this client train, or keep what it trained.
            PeerError, IntegrityError: a step was aborted, and the training with it.
        """
        every, check = read_release(release), read_check(check_every)
        examples, me = as_examples(self.training.plan, TARGET, x, y), self._parties.config.name
        epochs, seed = read_count(epochs, "the number of epochs"), read_count(seed, "the seed", 0)
        for note in coarse(self.training.plan, examples):
            warn(note)
        rows = len(next(iter(examples.values())))
        steps = epochs * (rows // self.batch)
        if not steps:
            raise InputError(
                f"there are {rows} rows, and a step reads {self.batch}", remedy="give more rows, or use a smaller batch"
            )
        training = self._telling(every if every is not None and every <= steps else None, check)
        plan = training.plan
        order = Program(steps=steps, rows=self.batch, seed=f"{seed:064x}")
        program = Program(steps=steps, told=told(training, steps, every, check))
        said = read_keep({out: Keeping(name) for out in training.keeps.values()}, me)
        kept = keeps(self._parties, plan.with_program(program), said)
        made, self.losses = Prepared(plan.with_program(program), training.weights, [*training.notes]), {}
        with Session(self._parties, made, keeps=kept, quiet=True) as session, Bar(self) as bar:
            self._opened(session)
            for step in range(1, steps + 1):
                read = order.rows_of(step, rows)
                feeds = {each: values[read] for each, values in examples.items()}
                beyond = self._step(session, training, named(program, step), step, feeds)
                if beyond and step < steps:
                    raise left_its_range(step)
                (progress or bar)(step, steps)
        manifest = catalogue.describe(self._parties, kept[0].name)
        if manifest.version != kept[0].version:
            raise InputError(f"{kept[0].name} is another object by now", cause="it was put again meanwhile")
        if beyond:
            catalogue.remove(self._parties, manifest.id)
            raise left_its_range(steps)
        return Trained(self._parties, self._opened, training, manifest, self._predicting)

    def _telling(self, release: int | None, check: int | None) -> Training:
        """Return the step that tells what is asked for; each is compiled once."""
        asked = tells(release, check)
        if asked not in self._told:
            self._told[asked] = self._compile(tells=asked)
        return self._told[asked]

    def _step(
        self, session: Session, training: Training, names: list[str], step: int, feeds: dict[str, np.ndarray]
    ) -> bool:
        """Run one step; keep its price and its loss, and return whether a value has left its range."""
        found = dict(zip(names, session.run(names, feeds), strict=bool(names)))
        self.last_step = session.last_run
        if LOSS in found:
            self.losses[step] = loss_of(training, found[LOSS])
        return BEYOND in found and bool(found[BEYOND].item())


def _check(optimizer: object, precision: object, loss: object, frozen: object) -> None:
    """Raise UsageError if an argument is of a type that says nothing."""
    if not isinstance(optimizer, SGD | None) or not isinstance(precision, Precision | None):
        raise UsageError("an optimizer is an SGD, and a precision a Precision", remedy="optimizer=SGD(0.1)")
    if not isinstance(loss, str) or isinstance(frozen, str):
        raise UsageError("a loss is a name, and frozen are several", remedy="loss='mse', frozen=['fc1.weight']")
