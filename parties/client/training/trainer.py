"""Training: the weights stay shared from the first step to the last, and are kept.

A step is one run.  Rows are this client's, which then decides what each step reads; or they lie at the parties, where a
public program says that.  Everybody knows how many they are, and how many steps there will be.  The last step, and each
checkpoint, keeps the weights at the parties, as a dataset of this client's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from mpc.compiler.training.losses import LOSS
from mpc.compiler.training.optimisers import SGD
from mpc.compiler.training.precision import Precision
from mpc.compiler.training.ranges import BEYOND
from mpc.compiler.training.train import Training
from mpc.compiler.training.trained import compile_prediction, compile_telling
from mpc.errors import InputError, UsageError
from parties.agreed.objects import Manifest
from parties.agreed.questions import ExactPlan
from parties.client.channels import Parties
from parties.client.running.coordinated import RunReport
from parties.client.running.feeds import read_count
from parties.client.running.roles import assign, refuse_machines
from parties.client.session import Session
from parties.client.training.bar import Bar
from parties.client.training.courses import Courses, Feeds, step_compiler
from parties.client.training.pricing import TrainingCost, training_cost
from parties.client.training.stretches import Course
from parties.client.training.telling import CHECK_EVERY, loss_of, named
from parties.client.training.timing import read_measure, seconds_a_step
from parties.client.training.trained import Trained, predictor
from parties.client.training.training_list import TrainingList, listed

if TYPE_CHECKING:
    from mpc.compiler.compile import Ranges
    from mpc.compiler.graph.graph import Range
    from mpc.compiler.onnx.load import Source
    from mpc.compiler.onnx.signature import Shapes
    from mpc.plan.link import Link

Progress = Callable[[int, int], None]
"""Told how many steps are done, and how many there are."""
CHOICES = frozenset({"loss", "optimizer", "batch", "ranges", "shapes", "frozen", "precision", "samples", "link"})
Opened = Callable[[Session], None]


class Trainer:
    """A model that trains.  `cluster.trainer(...)` makes one.

    Args:
        idle: notes of what the model has and a step leaves out.
        link: what lies between the processes, as `cluster.session` takes it.
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
        samples: Any = None,
        idle: tuple[str, ...] = (),
        link: Link | str | None = None,
    ) -> None:
        _check(optimizer, precision, loss, frozen)
        self._parties, self._opened, self.batch = parties, opened, read_count(batch, "the batch")
        compiling = step_compiler(model, loss, optimizer, self.batch, ranges, shapes, frozen, precision, samples)
        roles = assign(parties.config.name, security=parties.config.security, link=link)
        self._link = roles.link
        self._courses = Courses(compiling, roles, self.batch, parties.config.name, idle)
        self.training: Training = self._courses.training
        refuse_machines(self.training.plan, parties.names, parties.config.provider.name)
        predictor(self.training, parties.config.name, self._link)  # refused now, or never
        self.last_step: RunReport | None = None
        self.losses: dict[int, float] = {}

    @property
    def expected_errors(self) -> dict[str, float]:
        """Return by how much a step's move of each weight is expected to be off, as a part of that move.

        Root mean squares, from the weights in the model's file on, of some steps in the clear on this machine: over the
        samples, or over rows that are drawn from the declared ranges.  What is 5 % or more is among the notes too.
        """
        return dict(self._courses.expected_errors)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what was assumed, and what differs from what was asked for."""
        return self.training.notes

    def cost(
        self,
        rows: Any,
        epochs: int = 1,
        *,
        checkpoint_every: int | None = None,
        release: Mapping[str, int] | None = None,
        check_every: int | None = CHECK_EVERY,
        measure: int = 0,
    ) -> TrainingCost:
        """Return what `fit` on so many rows will cost, before anything runs.

        Args:
            rows: how many; or (x, y), which `fit` will be given: what lies at the parties may cost a round more.
            epochs, checkpoint_every, release, check_every: as `fit` will be given them.
            measure: steps that are run in the cluster on rows and weights that are made up, to say how long a step
                takes (`step_s`, and `seconds` of all): an estimate, as good as machines and links stay as they are.
                Nothing of them is told or kept.

        Raises:
            InputError, UsageError: as `fit`.
        """
        made, steps = self._courses.priced(rows, epochs, checkpoint_every, release, check_every), read_measure(measure)
        step_s = seconds_a_step(self._parties, self._opened, self._courses.bare(), steps) if steps else None
        return training_cost(made, len(self._parties.names), step_s)

    def fit(
        self,
        x: Any,
        y: Any,
        epochs: int = 1,
        *,
        name: str = "trained",
        seed: int = 0,
        progress: Progress | None = None,
        checkpoint_every: int | None = None,
        release: Mapping[str, int] | None = None,
        check_every: int | None = CHECK_EVERY,
        wait: float = 0.0,
    ) -> Trained:
        """Return the model trained from the weights in its file on, and still shared.

        Rows that are left over at the end of an epoch are not read in it.

        Args:
            x: rows of the model's input, or of each by its name: arrays of this client's; or columns at the parties,
                whoever has put them, ds["x"], of several datasets a list, [a["x"], b["x"]], whose rows follow one
                another.
            y: the targets of these rows, likewise, of the model's outputs' shape; for one_vs_all and cross_entropy the
                number of each row's class will do, from 0 on, as a column of categories has it.
            name: of the dataset at the parties that the weights become, as its next version.
            seed: decides the order of the rows, which is another one in each epoch.  Of rows at the parties it is
                public.
            progress: called with the steps done and the steps in all, after each; a bar on the terminal if None.
            checkpoint_every: steps after which all that training goes on with is kept as the next version of `name`,
                for `resume`.  Each stretch between is a session, and one use of rows at the parties.
            release: every how many steps this client is told the loss: {"loss": 100}; see `losses`.
            check_every: steps from one range check to the next, of which the last step's, and each checkpoint's, is
                one.  It tells this client one bit: has a weight, or another value whose bound is not proved, left its
                range?  None for none.
            wait: seconds to wait for the words of operators and owners, where they are missing.

        Raises:
            ModelError: a range check has found a value beyond; nothing is kept from the last checkpoint on.
            InputError: the rows do not fit the model, or hold values out of range; nothing has been sent.
            UsageError: these are no rows, or an argument says nothing.
            PolicyError: a party's policy, or an owner, does not let this client train, or keep what it trained.
            PeerError, IntegrityError: a step was aborted, and the training with it, back to its last checkpoint.
        """
        made, feeds = self._course(x, y, epochs, seed, name, checkpoint_every, release, check_every)
        return self._train(made, feeds, 0, None, progress, wait)

    def resume(
        self,
        x: Any,
        y: Any,
        epochs: int = 1,
        *,
        name: str = "trained",
        seed: int = 0,
        progress: Progress | None = None,
        checkpoint_every: int | None = None,
        release: Mapping[str, int] | None = None,
        check_every: int | None = CHECK_EVERY,
        wait: float = 0.0,
    ) -> Trained:
        """Return the model of a training that stopped: go on from its newest checkpoint, to its end.

        All arguments are those of `fit`, but there may be more epochs: a checkpoint names the plan that it was made by,
        and so the batch, the loss, the rates, the steps, and of rows at the parties their order; another training's is
        none of this one's.  It is the training that would have been, but for the coins of rounding.  One that is at its
        end runs no step.

        Raises:
            InputError: there is no checkpoint of this training; and as `fit`.
            UsageError, PolicyError, PeerError, IntegrityError: as `fit`.
        """
        made, feeds = self._course(x, y, epochs, seed, name, checkpoint_every, release, check_every)
        found = made.last(self._parties)
        if found is None:
            raise InputError(
                f"{made.name} has no checkpoint of this training",
                cause="it stopped before the first, or its model, rows, batch, seed or checkpoint_every differ",
                remedy="give what fit was given, or begin again: trainer.fit(...)",
            )
        return self._train(made, feeds, *found, progress, wait)

    def listed(
        self,
        x: Any,
        y: Any,
        epochs: int = 1,
        *,
        name: str = "trained",
        seed: int = 0,
        checkpoint_every: int | None = None,
        release: Mapping[str, int] | None = None,
        check_every: int | None = CHECK_EVERY,
    ) -> list[ExactPlan]:
        """Describe a training of rows at the parties, and the use of its model, for the grants of who owns the rows.

        Each of these owners grants all of it: `cluster.datasets.grant(NAME, coordinators, plans=listed)`.  The last
        two are predictions of rows that this client enters, and being told the weights: leave out what is not granted.

        Args:
            x, y, epochs, name, seed, checkpoint_every, release, check_every: as `fit` will be given them.
        """
        said: dict[str, Any] = {"checkpoint_every": checkpoint_every, "release": release, "check_every": check_every}
        return [each.exact for each in self.training_list(x, y, epochs, name=name, seed=seed, **said).plans]

    def training_list(
        self,
        x: Any,
        y: Any,
        epochs: int = 1,
        *,
        name: str = "trained",
        seed: int = 0,
        checkpoint_every: int | None = None,
        release: Mapping[str, int] | None = None,
        check_every: int | None = CHECK_EVERY,
    ) -> TrainingList:
        """Describe what `listed` does, with the plans: its `content` is the file of `mpc grant add NAME --train FILE`.

        Args:
            x, y, epochs, name, seed, checkpoint_every, release, check_every: as `fit` will be given them.
        """
        made, _ = self._course(x, y, epochs, seed, name, checkpoint_every, release, check_every)
        if not made.rows:
            raise UsageError("these rows are your own, and nobody has to grant them", remedy="trainer.fit(x, y)")
        me, training = self._parties.config.name, made.training
        used = listed("predictions", compile_prediction(training, me).plan)
        told = listed("weights", compile_telling(training, me).plan)
        return TrainingList(coordinator=me, plans=(*made.listed(), used, told))

    # -- what fit, resume and listed have in common

    def _course(self, *asked: Any) -> tuple[Course, Callable[[int], Feeds]]:
        made = self._courses.of(*asked)
        self.training = self._courses.training
        return made

    def _train(
        self,
        made: Course,
        feeds: Callable[[int], Feeds],
        first: int,
        kept: Manifest | None,
        progress: Progress | None,
        wait: float,
    ) -> Trained:
        self.losses = {}
        with Bar(self) if progress is None else nullcontext(progress) as show:

            def step(number: int, run: int, session: Session) -> bool:
                beyond = self._step(session, made.training, number, run, feeds(number))
                if not beyond or number == made.steps:
                    show(number, made.steps)
                return beyond

            for number in range(first, len(made.plans)):
                kept = made.run(self._parties, self._opened, number, kept, step, wait)
        if kept is None:
            raise InputError("a training has a step", remedy="give rows")
        predicting = predictor(made.training, self._parties.config.name, self._link)
        return Trained(self._parties, self._opened, made.training, kept, predicting)

    def _step(self, session: Session, training: Training, number: int, run: int, feeds: Feeds) -> bool:
        """Run one step; keep its price and its loss, and return whether a value has left its range."""
        program = session.plan.program
        names = [] if program is None else named(program, run)
        found = dict(zip(names, session.run(names, feeds, 1 if feeds is None else None), strict=bool(names)))
        self.last_step = session.last_run
        if LOSS in found:
            self.losses[number] = loss_of(training, found[LOSS])
        return BEYOND in found and bool(found[BEYOND].item())


def _check(optimizer: object, precision: object, loss: object, frozen: object) -> None:
    """Raise UsageError if an argument is of a type that says nothing."""
    if not isinstance(optimizer, SGD | None) or not isinstance(precision, Precision | None):
        raise UsageError("an optimizer is an SGD, and a precision a Precision", remedy="optimizer=SGD(0.1)")
    if not isinstance(loss, str) or isinstance(frozen, str):
        raise UsageError("a loss is a name, and frozen are several", remedy="loss='mse', frozen=['fc1.weight']")
