"""Training on rows that this client enters: the weights stay shared from the first step to the last, and are kept.

A step is one run.  Which rows it reads this client decides, whose they are; everybody knows how many they are, and how
many steps there will be.  The last step keeps the weights at the parties, as a dataset of this client's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpc.compiler.training.optimisers import SGD
from mpc.compiler.training.precision import Precision
from mpc.compiler.training.train import Training, compile_training
from mpc.errors import InputError, UsageError, warn
from mpc.plan.program import Program, Told
from parties.client import catalogue
from parties.client.channels import Parties
from parties.client.coordinated import RunReport
from parties.client.examples import as_examples, coarse
from parties.client.feeds import read_count
from parties.client.keeping import Keeping, keeps, read_keep
from parties.client.prepared import Prepared
from parties.client.roles import assign, refuse_machines
from parties.client.session import Session
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
        self.precision = precision or Precision()
        self.training: Training = compile_training(
            model, loss, optimizer, self.batch, ranges, assign(parties.config.name), shapes, frozen, self.precision,
            TARGET, keep=True,
        )  # fmt: skip
        refuse_machines(self.training.plan, parties.names, parties.config.provider.name)
        self._predicting = predictor(self.training, parties.config.name, self.precision)  # refused now, or never
        self.last_step: RunReport | None = None

    def fit(
        self,
        x: Mapping[str, np.ndarray] | np.ndarray,
        y: np.ndarray,
        epochs: int = 1,
        *,
        name: str = "trained",
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Trained:
        """Return the model trained on arrays of this client's, from the weights in its file on, and still shared.

        Rows that are left over at the end of an epoch are not read in it.

        Args:
            x: rows of the model's input, or of each by its name.
            y: the targets of these rows, of the model's outputs' shape; for one_vs_all and cross_entropy the number of
                each row's class will do, from 0 on.
            name: of the dataset at the parties that the weights become, as its next version.
            seed: decides the order of the rows, which is another one in each epoch.
            progress: called with the steps done and the steps in all, after each.

        Raises:
            InputError: the arrays do not fit the model, or hold values out of range; nothing has been sent.
            UsageError: these are no arrays, or an argument says nothing.
            PolicyError: a party's policy does not let this client train, or keep what it trained.
            PeerError, IntegrityError: a step was aborted, and the training with it.
        """
        plan, me = self.training.plan, self._parties.config.name
        examples = as_examples(plan, TARGET, x, y)
        epochs, seed = read_count(epochs, "the number of epochs"), read_count(seed, "the seed", 0)
        for note in coarse(plan, examples):
            warn(note)
        rows = len(next(iter(examples.values())))
        steps = epochs * (rows // self.batch)
        if not steps:
            raise InputError(
                f"there are {rows} rows, and a step reads {self.batch}", remedy="give more rows, or use a smaller batch"
            )
        order = Program(steps=steps, rows=self.batch, seed=f"{seed:064x}")
        told = tuple(Told(output=out, first=steps) for out in self.training.keeps.values())
        program = plan.with_program(Program(steps=steps, told=told))
        said = read_keep({each.output: Keeping(name) for each in told}, me)
        kept = keeps(self._parties, program, said)
        made = Prepared(program, self.training.weights, [*self.training.notes])
        with Session(self._parties, made, keeps=kept, quiet=True) as session:
            self._opened(session)
            for step in range(1, steps + 1):
                read = order.rows_of(step, rows)
                session.run(None, {each: values[read] for each, values in examples.items()})
                self.last_step = session.last_run
                if progress is not None:
                    progress(step, steps)
        manifest = catalogue.describe(self._parties, kept[0].name)
        if manifest.version != kept[0].version:
            raise InputError(f"{kept[0].name} is another object by now", cause="it was put again meanwhile")
        return Trained(self._parties, self._opened, self.training, manifest, self._predicting, self.precision)


def _check(optimizer: object, precision: object, loss: object, frozen: object) -> None:
    """Raise UsageError if an argument is of a type that says nothing."""
    if not isinstance(optimizer, SGD | None) or not isinstance(precision, Precision | None):
        raise UsageError("an optimizer is an SGD, and a precision a Precision", remedy="optimizer=SGD(0.1)")
    if not isinstance(loss, str) or isinstance(frozen, str):
        raise UsageError("a loss is a name, and frozen are several", remedy="loss='mse', frozen=['fc1.weight']")
