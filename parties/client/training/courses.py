"""Trainings of one model, compiled for what is asked of each: what a step tells and reads, and in which stretches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.compiler.onnx.load import Loaded, load_model
from mpc.compiler.onnx.signature import input_types
from mpc.compiler.roles import Roles
from mpc.compiler.training.calibrate import Calibration
from mpc.compiler.training.errors import notes_of
from mpc.compiler.training.train import Training, compile_training
from mpc.errors import InputError, warn
from mpc.plan.program import Program
from parties.client.at_rest.keeping import read_keep
from parties.client.running.feeds import read_count
from parties.client.training.examples import as_examples, as_samples, coarse
from parties.client.training.rows import Rows, lie_there, notes, read_rows
from parties.client.training.stretches import Course, course
from parties.client.training.telling import CHECK_EVERY, read_check, read_release, tells

if TYPE_CHECKING:
    from mpc.compiler.compile import Ranges
    from mpc.compiler.graph.graph import Range
    from mpc.compiler.onnx.load import Source
    from mpc.compiler.onnx.signature import Shapes
    from mpc.compiler.training.optimisers import SGD
    from mpc.compiler.training.precision import Precision

TARGET = "target"
Feeds = dict[str, np.ndarray] | None
"""Arrays that this client enters in a step, by input; None of rows at the parties."""


def step_compiler(
    model: Source,
    loss: str,
    optimizer: SGD | None,
    batch: int,
    ranges: Ranges | Range | None,
    shapes: Shapes | Sequence[int | str | None] | None,
    frozen: Collection[str],
    precision: Precision | None = None,
    samples: Any = None,
) -> Callable[..., Training]:
    """Return `compile_training` with all that does not depend on what is asked of a training.

    Args:
        samples: (x, y), as `Trainer.fit` takes arrays; steps over them run once, however often it compiles.
    """
    loaded = Loaded(load_model(model))
    rows = None if samples is None else Calibration(as_samples([*input_types(loaded)], TARGET, samples))
    return partial(
        compile_training, loaded, loss, optimizer, batch, ranges, shapes=shapes, frozen=frozen, precision=precision,
        target=TARGET, samples=rows, keep=True,
    )  # fmt: skip


class Courses:
    """Compiles trainings of one model.

    Args:
        compile: compiles a step (`step_compiler`).
        roles: of the client that trains.
        me: its name.
        idle: notes of what the model has and a step leaves out.
        expected_errors: weight -> the part of a step's move of it by which that is expected to be off.
    """

    def __init__(
        self, compile: Callable[..., Training], roles: Roles, batch: int, me: str, idle: tuple[str, ...] = ()
    ) -> None:
        self._compile, self._roles, self._me, self.batch = compile, roles, me, batch
        self._compiled: dict[tuple[tuple[str, ...], bool], Training] = {}
        asked = tells(None, CHECK_EVERY)
        first = self._compile(roles=roles, tells=asked, checkpoints=False)
        self.expected_errors = first.expected_errors
        self._told = (*idle, *notes_of(self.expected_errors))
        self.training = self._compiled[asked, False] = self._noted(first)

    def of(
        self,
        x: Any,
        y: Any,
        epochs: int,
        seed: int,
        name: str,
        every: int | None,
        release: Mapping[str, int] | None,
        check_every: int | None,
    ) -> tuple[Course, Callable[[int], Feeds]]:
        """Return a training in stretches, and what this client enters in each step; the arguments are those of `fit`.

        Raises:
            InputError, UsageError: as `fit`.
        """
        told = read_release(release), read_check(check_every)
        epochs, seed = read_count(epochs, "the number of epochs"), read_count(seed, "the seed", 0)
        every = None if every is None else read_count(every, "checkpoint_every")
        full = read_keep({"": name}, self._me)[""].name
        if not (lie_there(x) or lie_there(y)):
            examples = as_examples(self.training.plan, TARGET, x, y)
            for note in coarse(self.training.plan, examples):
                warn(note)
            total = len(next(iter(examples.values())))
            steps = self.steps(total, epochs)
            order = Program(steps=steps, rows=self.batch, seed=f"{seed:064x}")

            def feeds(step: int) -> Feeds:
                read = order.rows_of(step, total)
                return {each: values[read] for each, values in examples.items()}

            return course(self.step(steps, *told, every), {}, steps, seed, every, full, told), feeds
        rows = read_rows([given.name for given in self.training.plan.inputs if given.name != TARGET], TARGET, x, y)
        for note in notes(rows, self.training.precision):
            warn(note)
        steps = self.steps(rows[TARGET].count, epochs)
        self.training = self.step(steps, *told, every, rows)
        return course(self.training, rows, steps, seed, every, full, told), lambda step: None

    def priced(
        self,
        rows: Any,
        epochs: int,
        every: int | None,
        release: Mapping[str, int] | None,
        check_every: int | None,
    ) -> Course:
        """Return a training in stretches, to know what it costs.

        Args:
            rows: how many; or (x, y), as `fit` takes them.
            epochs, every, release, check_every: as in `of`.

        Raises:
            InputError, UsageError: as `fit`.
        """
        if isinstance(rows, tuple) and len(rows) == 2:
            return self.of(*rows, epochs, 0, "trained", every, release, check_every)[0]
        rows, epochs = read_count(rows, "the number of rows"), read_count(epochs, "the number of epochs")
        told, steps = (read_release(release), read_check(check_every)), self.steps(rows, epochs)
        every = None if every is None else read_count(every, "checkpoint_every")
        return course(self.step(steps, *told, every), {}, steps, 0, every, f"{self._me}/trained", told)

    def bare(self) -> Training:
        """Return the step on rows that this client enters, which keeps and tells nothing."""
        return self._compile(roles=self._roles, keep=False)

    def step(
        self,
        steps: int,
        release: int | None,
        check: int | None,
        every: int | None,
        rows: Mapping[str, Rows] | None = None,
    ) -> Training:
        """Return the step that tells what is asked for; of arrays each is compiled once."""
        asked = tells(release if release is not None and release <= steps else None, check)
        if rows is not None:
            roles = replace(self._roles, together={each: found.owners for each, found in rows.items()})
            stored = {each: found.described(each) for each, found in rows.items()}
            return self._noted(self._compile(roles=roles, stored=stored, tells=asked, checkpoints=every is not None))
        key = asked, every is not None
        if key not in self._compiled:
            self._compiled[key] = self._noted(self._compile(roles=self._roles, tells=asked, checkpoints=key[1]))
        return self._compiled[key]

    def _noted(self, training: Training) -> Training:
        """Return a training whose notes say too what its steps leave out, and are expected to be off by."""
        return replace(training, notes=(*training.notes, *self._told))

    def steps(self, rows: int, epochs: int) -> int:
        """Return how many steps a training on so many rows has.

        Raises:
            InputError: there are fewer rows than a step reads.
        """
        if rows < self.batch:
            raise InputError(
                f"there are {rows} rows, and a step reads {self.batch}", remedy="give more rows, or use a smaller batch"
            )
        return epochs * (rows // self.batch)
