"""A training as owners of its rows grant it: each of its plans with what that reads, in a file that they are given.

Whoever trains writes it (`mpc train --list`), an owner reads it (`mpc grant add --train`).  Plans are parsed and
verified anew, what they read is looked up at the parties, and grants are of digests.  Each plan has to tell no more
than its use does: a stretch one number that is called the loss and one that is called a range check, as its program
says; all else reads no rows of an owner's.  What such a number is made of, a list does not prove.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from mpc.errors import InputError, PlanError
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan
from mpc.wires import Frozen, Wire
from parties.agreed.bindings import Binding
from parties.agreed.fields import Process
from parties.agreed.questions import Bound, ExactPlan
from parties.client.consent import granting

LARGEST = 1 << 26
"""Bytes of the largest file."""
Use = Literal["train", "predictions", "weights"]
AFTERWARDS: tuple[Use, ...] = ("predictions", "weights")
"""List the uses of the trained model that may be granted beside the training itself."""


class Listed(Frozen):
    """One plan of a training, or of what is done with its model.

    Args:
        use: "train" for a stretch of the training; "predictions" of rows that whoever trains enters; "weights" tells
            these.
        text: the plan's canonical bytes.
        exact: its digest, and all that it reads.
    """

    use: Use
    text: Annotated[str, Field(max_length=LARGEST)]
    exact: ExactPlan

    @cached_property
    def plan(self) -> Plan:
        """Parse and verify the plan, once."""
        return parse_plan(self.text.encode())


class TrainingList(Frozen):
    """All plans of a training, in the order in which they run.

    Args:
        training: the version of this format.
        coordinator: who trains.
    """

    training: Literal[1] = 1
    coordinator: Process
    plans: Annotated[tuple[Listed, ...], Field(min_length=1, max_length=256)]

    @property
    def content(self) -> bytes:
        """Return the file's content."""
        return f"{self.model_dump_json()}\n".encode()

    @property
    def brief(self) -> list[dict[str, str]]:
        """Return the use and the digest of each plan, for JSON."""
        return [{"use": each.use, "plan": each.exact.plan} for each in self.plans]

    @property
    def parts(self) -> list[Bound]:
        """Return all rows that the training reads, each as often as a plan does."""
        bound = [one for each in self.plans for one in each.exact.bindings.values()]
        return [part for one in bound for part in ((one,) if isinstance(one, Bound) else one)]

    def granted(self, afterwards: Collection[Use] = ()) -> list[Listed]:
        """Return the stretches of the training, and those uses of its model that are named."""
        return [each for each in self.plans if each.use == "train" or each.use in afterwards]


def listed(use: Use, plan: Plan, bindings: Collection[Binding] = ()) -> Listed:
    """Return a plan as a list has it.

    Args:
        bindings: of its stored rows.
    """
    return Listed(use=use, text=plan.canonical.decode(), exact=granting.listed(plan, [*bindings]))


def read_list(content: bytes) -> TrainingList:
    """Read a list from outside; each plan is verified, and is what the list says of it.

    Raises:
        InputError: it is none, or a plan is another one.
        PlanError: a plan is refused.
    """
    try:
        found = TrainingList.model_validate_json(content) if len(content) <= LARGEST else None
    except ValidationError:
        found = None
    if found is None:
        raise InputError(
            "this is no list of a training",
            cause="it is another file, was cut short, or comes from another version of mpc",
            remedy="have whoever trains write it again: mpc train MODEL ... --list FILE",
        )
    before: str | None = None
    for each in found.plans:
        as_named, before = _is_as_named(each, before), each.exact.plan
        if not as_named or granting.listed(each.plan, _bindings(each)) != each.exact:
            raise InputError(
                "a plan of this list is not what the list says of it",
                cause="the file was altered, or comes from another version of mpc",
                remedy="have whoever trains write it again: mpc train MODEL ... --list FILE",
            )
    return found


def told(plan: Plan) -> dict[str, Wire]:
    """Return what somebody is told of a plan, by output."""
    return {out.name: plan.wire[out.wire] for out in plan.outputs if plan.wire[out.wire].holders}


def _is_as_named(each: Listed, before: str | None) -> bool:
    """Does a plan tell no more than its use says?

    Args:
        before: digest of the plan that stands before it in the list.
    """
    from mpc.compiler.training.losses import LOSS
    from mpc.compiler.training.ranges import BEYOND

    plan, program = each.plan, each.plan.program
    if each.use != "train":
        return not each.exact.bindings
    numbers = told(plan)
    named = set() if program is None else {said.output for said in program.told}
    single = all(wire.shape == (1, 1) for wire in numbers.values())
    return program is not None and program.previous == before and single and numbers.keys() <= {LOSS, BEYOND} & named


def _bindings(given: Listed) -> list[Binding]:
    """Return what the plan's stored rows are bound to, in its order."""
    found = []
    for gate in given.plan.stored:
        if gate.is_weight:
            continue
        if gate.out not in given.exact.bindings:
            raise PlanError(f"the list does not say what {gate.out!r} is read from", remedy="have it written again")
        bound = given.exact.bindings[gate.out]
        parts = (bound,) if isinstance(bound, Bound) else bound
        found += [Binding(gate.out, bytes.fromhex(each.dataset), each.columns, each.first, each.rows) for each in parts]
    return found
