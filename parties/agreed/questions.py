"""Questions that an owner allows: exact plans, a class of noised ones, or the use of a model."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from mpc.privacy.facts import LAPLACE, Mechanism
from mpc.wires import Frozen, Scale
from parties.agreed.fields import DatasetName, Digest, Process, Text, check_readers

ANY = "any"
"""In place of a stored weight: whichever its own owner allows, chosen by the asker for each session."""
MOST_EPSILON = Fraction(10**6)
MOST_NAMES = 256
"""Names in one list, at most."""
_MOST_PLANS, _MOST_WIRES = 256, 256
_MOST_DIGITS = 10**18


def _bounded(value: Fraction) -> Fraction:
    if not 0 <= value <= MOST_EPSILON or value.denominator > _MOST_DIGITS:
        raise ValueError("it is 0 to 1,000,000, as a fraction of at most 18 digits")
    return value


def _positive(value: Fraction) -> Fraction:
    if value <= 0:
        raise ValueError("it is above 0")
    return value


def _small(value: Fraction) -> Fraction:
    if value >= 1:
        raise ValueError("it is below 1")
    return value


def distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return names of which none is given twice; ValueError if one is."""
    if len(set(names)) != len(names):
        raise ValueError("a name is given twice")
    return names


Epsilon = Annotated[Scale, AfterValidator(_bounded)]
Delta = Annotated[Scale, AfterValidator(_bounded), AfterValidator(_small)]
Names = Annotated[tuple[Process, ...], Field(min_length=1, max_length=MOST_NAMES), AfterValidator(distinct)]
Clients = Annotated[
    tuple[str, ...],
    Field(min_length=1, max_length=MOST_NAMES),
    AfterValidator(distinct),
    AfterValidator(check_readers),
]
Count = Annotated[int, Field(ge=1, lt=1 << 40)]
Wire = Annotated[Text, Field(max_length=200)]


class Bound(Frozen):
    """Rows of columns of one object: what a stored wire of a plan stands for.

    Args:
        dataset: the object's id.
        columns: whose elements make up a row, in this order.
        first, rows: of a weight 0 and 1.
    """

    dataset: Digest
    columns: Annotated[tuple[Text, ...], Field(min_length=1, max_length=4096)]
    first: Annotated[int, Field(ge=0, lt=1 << 40)]
    rows: Count


Parts = Annotated[tuple[Bound, ...], Field(min_length=2, max_length=256)]


class ExactPlan(Frozen):
    """One plan, with everything that it reads of what lies at the parties; what is not listed is refused.

    Args:
        plan: its digest.
        bindings: every stored input of the plan, other owners' too, by wire; of rows of several objects, each of them.
        weights: every weight wire of the plan: what a stored one is bound to, or "any".  One that is entered is "any".
    """

    plan: Digest
    bindings: Annotated[dict[Wire, Bound | Parts], Field(max_length=_MOST_WIRES)] = {}
    weights: Annotated[dict[Wire, Bound | Literal["any"]], Field(max_length=4096)] = {}


class Exact(Frozen):
    """Exactly these plans.

    Args:
        outputs_bits: 1: each plan has one output, a single bit that a comparison writes; see `consent.bits`.
    """

    plans: Annotated[tuple[ExactPlan, ...], Field(min_length=1, max_length=_MOST_PLANS)]
    outputs_bits: Literal[1] | None = None


class Dp(Frozen):
    """Any plan of which every party proves a guarantee within these limits.

    Args:
        mechanisms: kinds of noise that are taken.
        epsilon_each, epsilon: of one run, and of all runs under this grant.
        delta: of all runs under this grant.
        outputs: the most outputs that a plan may have.
        apart: datasets of other owners in which, as this one states, nobody is who is in this one.  It counts where the
            other owner states it too: then a sum over both is noised for one of them, not for both.
    """

    mechanisms: Annotated[tuple[Mechanism, ...], Field(min_length=1, max_length=2), AfterValidator(distinct)] = (
        LAPLACE,
    )
    epsilon_each: Annotated[Epsilon, AfterValidator(_positive)]
    epsilon: Annotated[Epsilon, AfterValidator(_positive)]
    delta: Delta
    outputs: Annotated[int, Field(ge=1, le=4096)]
    apart: Annotated[tuple[DatasetName, ...], Field(max_length=MOST_NAMES), AfterValidator(distinct)] = ()

    @model_serializer(mode="wrap")
    def _dump(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        if not self.apart:  # the bytes of a grant that states nothing of that are as before
            content.pop("apart", None)
        return content

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.epsilon_each > self.epsilon:
            raise ValueError("one run may not cost more than all of them")
        return self


class Use(Frozen):
    """Runs of the plan that a model was put for, without noise; see `parties/agreed/models.py`.

    Args:
        data_owners: who may enter inputs, or have put what they are read from; ("any",): whoever the asker names.
        entered: inputs may be entered for a run; whoever does that chooses them, anew each time.
        datasets: by name or id, the only ones that inputs may be read from; (): any that a data owner has put.
        rows: of one run, at most; None: as many as a run may have.
    """

    data_owners: Clients = (ANY,)
    entered: bool = True
    datasets: Annotated[tuple[Digest | DatasetName, ...], Field(max_length=MOST_NAMES), AfterValidator(distinct)] = ()
    rows: Count | None = None


class Question(Frozen):
    """Questions that may be asked: one of the three kinds."""

    exact: Exact | None = None
    dp: Dp | None = None
    use: Use | None = None

    @model_serializer(mode="wrap")
    def _dump(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        if self.use is None:  # grants of datasets have the bytes that they had before there were models
            content.pop("use", None)
        return content

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(each is not None for each in (self.exact, self.dp, self.use)) != 1:
            raise ValueError("a question is either exact plans, a class of noised ones, or the use of a model")
        return self
