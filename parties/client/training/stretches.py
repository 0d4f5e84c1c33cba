"""A training as the sessions that it is made of: from one checkpoint to the next.

What a stretch leaves is an object of this client's at the parties: the weights, and what else the next stretch begins
with.  Which stretch has left it is told by the plan that it was made by, whose digest says the rows, their order, the
steps and how many were made before; so a training goes on where it stopped, and no other one does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mpc.compiler.training.losses import LOSS
from mpc.compiler.training.resumed import goes_on, untold
from mpc.compiler.training.train import Training
from mpc.errors import InputError, UsageError
from mpc.plan.plan import Plan
from mpc.plan.program import Program
from parties.agreed.bindings import Binding, parts_of
from parties.agreed.objects import Manifest
from parties.client.at_rest import catalogue
from parties.client.at_rest.keeping import Keeping, keeps, read_keep
from parties.client.channels import Parties
from parties.client.running.prepared import Prepared
from parties.client.session import Session
from parties.client.training.rows import Rows, data_bindings
from parties.client.training.telling import left_its_range, silent, told
from parties.client.training.training_list import Listed, listed

MOST_STRETCHES = 250
"""One grant lists 256 plans: all of these, and what is done with the model."""
Step = Callable[[int, int, Session], bool]
"""Runs one step, given its number in the whole training and in its session; has a value left its range?"""


@dataclass(frozen=True)
class Course:
    """All stretches of one training.

    Args:
        rows: at the parties, by input; {} for arrays, which are entered step by step.
        plans: one a stretch; it has so many `steps`.
        name: OWNER/NAME of what the stretches leave, each as the next version.
    """

    training: Training = field(repr=False)
    rows: Mapping[str, Rows] = field(repr=False)
    plans: tuple[Plan, ...] = field(repr=False)
    name: str

    @property
    def steps(self) -> int:
        """Number of steps, all stretches together."""
        return sum(self.length(number) for number in range(len(self.plans)))

    def length(self, number: int) -> int:
        """Return the number of steps of a stretch."""
        program = self.plans[number].program
        return 0 if program is None else program.steps

    def before(self, number: int) -> int:
        """Return the number of steps that are made before a stretch."""
        return sum(self.length(each) for each in range(number))

    def bindings(self, number: int, kept: Manifest | None) -> list[Binding]:
        """Return what a stretch reads at the parties."""
        plan, states = self.plans[number], {**self.training.keeps, **self.training.moves}
        columns = {state.init: states[state.name] for state in plan.states if state.init}
        data, found = data_bindings(plan, self.rows), list[Binding]()
        for gate in plan.stored:
            if gate.is_weight and kept is not None:
                found.append(Binding(gate.out, kept.id, (columns[gate.out],), 0, 1))
            else:
                found += parts_of(data, gate.out)
        return found

    def listed(self) -> list[Listed]:
        """Describe all plans of the training, for the grants of who owns the rows."""
        return [listed("train", plan, data_bindings(plan, self.rows)) for plan in self.plans]

    # -- running

    def run(
        self,
        parties: Parties,
        opened: Callable[[Session], None],
        number: int,
        kept: Manifest | None,
        step: Step,
        wait: float = 0.0,
    ) -> Manifest:
        """Run one stretch; return what it leaves.

        Raises:
            ModelError: a value has left its range; nothing of the stretch is kept.
            PolicyError, SessionError: somebody does not allow it.
            PeerError, IntegrityError: a step was aborted, and all since the last checkpoint is lost.
        """
        plan = self.plans[number]
        said = read_keep({each.name: Keeping(self.name) for each in plan.kept}, parties.config.name)
        made = keeps(parties, plan, said)
        weights = {gate.out: self.training.weights[gate.out] for gate in plan.entered_once}
        notes = [*self.training.notes] if not number else []
        ready, read, first = Prepared(plan, weights, notes), self.bindings(number, kept), self.before(number)
        beyond = False
        with Session(parties, ready, bindings=read, keeps=made, wait=wait, quiet=True) as session:
            opened(session)
            for run in range(1, self.length(number) + 1):
                beyond = step(first + run, run, session)
                if beyond and run < self.length(number):
                    raise left_its_range(first + run)
        left = catalogue.describe(parties, made[0].name)
        if left.kept is None or (left.version, left.kept.plan) != (made[0].version, plan.digest.hex()):
            raise InputError(
                f"{made[0].name} is another object by now",
                cause="another process puts, trains or keeps something under that name",
                remedy="go on from the newest checkpoint: trainer.resume(...); or train under another name",
            )
        if beyond:
            catalogue.remove(parties, left.id)
            raise left_its_range(first + self.length(number))
        return left

    def last(self, parties: Parties) -> tuple[int, Manifest] | None:
        """Return (the stretch that comes next, what the last one left) of this training; None if it left nothing."""
        digests = {plan.digest.hex(): number for number, plan in enumerate(self.plans)}
        entries = [each for each in catalogue.search(parties) if each.name == self.name]
        for entry in sorted(entries, key=lambda each: -each.version):
            found = catalogue.describe(parties, self.name, entry.id)
            if found.kept is not None and found.kept.plan in digests:
                return digests[found.kept.plan] + 1, found
        return None


def course(
    training: Training,
    rows: Mapping[str, Rows],
    steps: int,
    seed: int,
    every: int | None,
    name: str,
    tells: tuple[int | None, int | None] = (None, None),
) -> Course:
    """Cut a training into stretches.

    Args:
        every: steps of a stretch, but for the last one; None: all of them are one.
        name: OWNER/NAME of what they leave.
        tells: steps from one loss that is told to the next, and from one range check to the next.

    Raises:
        UsageError: there would be too many.
    """
    if every is not None and -(-steps // every) > MOST_STRETCHES:
        raise UsageError(
            f"{steps:,} steps with a checkpoint every {every}: more than {MOST_STRETCHES} of them",
            remedy=f"checkpoint_every={-(-steps // MOST_STRETCHES)} or more",
        )
    plans, after = list[Plan](), 0
    following = goes_on(training.plan, name.partition("/")[0]) if every is not None and steps > every else None
    while after < steps:
        base, length = (following if after and following else training.plan), min(every or steps, steps - after)
        if silent(training, length, tells[0], after):
            base = untold(base, LOSS)
        said = told(training, length, *tells, after)
        order = {"rows": training.batch, "seed": f"{seed:064x}"} if rows else {}
        behind = {"after": after, "previous": plans[-1].digest.hex()} if plans else {}
        plans.append(base.with_program(Program(steps=length, told=said, **behind, **order)))
        after += length
    return Course(training, rows, tuple(plans), name)
