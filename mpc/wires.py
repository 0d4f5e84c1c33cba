"""Wires: what a plan says in public about each value, and nothing of the value.

Every wire of a plan is masked: the parties hold x^ = x + a in public.  Where the mask a comes
from is part of the plan, because the provider deals for it:

* drawn      a is expanded from one sub-seed per party.  The sub-seeds of an input wire go to
             its owner, those of an output wire to its recipients.
* derived    a := s - (a bilinear function of other masks), s expanded from seeds: costs no
             dealt byte, but no party holds a share of it (the s-form).
* inherited  a is a public linear function of other masks.

* flipped    d is a bit, opened as e = d xor a, a bit itself: whoever chooses by d reads e and shares of a.

Two kinds of wire are not masked:

* public     a weight that all parties and the provider know: a = 0, and nothing is dealt for it.
* unopened   there is no x^: the parties hold shares of x itself, and compute public linear maps of
             it until one result is opened under a mask of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from fractions import Fraction
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

MAX_BITS = 59
"""The largest k for which |x| < 2^k fits the exact truncation."""

BATCH: Literal["batch"] = "batch"
MAX_BATCH = 1 << 20
"""The most rows of a run."""
Dimension = Literal["batch"] | Annotated[int, Field(ge=1, le=1 << 32)]


def _fraction(value: Any) -> Fraction:
    if isinstance(value, Fraction | int):
        return Fraction(value)
    # matched first: Fraction("1e999999999") would compute for ever
    if not isinstance(value, str) or not re.fullmatch(r"-?[0-9]{1,80}(/[0-9]{1,80})?", value):
        raise ValueError("a scale is a fraction written 'n/d'")
    parsed = Fraction(value)
    if str(parsed) != value:
        raise ValueError("a scale is written in lowest terms")
    return parsed


Scale = Annotated[Fraction, BeforeValidator(_fraction), PlainSerializer(str, return_type=str)]


class Masking(StrEnum):
    """Where a wire's mask comes from; see the module."""

    DRAWN = "drawn"
    DERIVED = "derived"
    INHERITED = "inherited"
    FLIPPED = "flipped"
    PUBLIC = "public"
    UNOPENED = "unopened"


class Lifetime(StrEnum):
    """How long what an owner enters stays at the parties."""

    SESSION = "session"
    """Weights: entered once, read by every run."""
    RUN = "run"
    """Data: entered for one run."""
    STORED = "stored"
    """Data with rows that lie at the parties since before the session: nobody enters them."""
    STORED_WEIGHT = "stored-weight"
    """Weights that lie at the parties so."""
    STATE = "state"
    """State that the run before has left, masked as it was: nobody enters it."""


class Frozen(BaseModel):
    """Strict, immutable, no unknown keys: plans come from outside."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Wire(Frozen):
    """One wire.

    Args:
        shape: the batch dimension is the word "batch" until a plan is bound to a batch size.
        scale: the real number x is held as round(x scale).
        bits: |round(x scale)| < 2^bits, proved by the compiler.
        holders: the certificate names that receive the mask's sub-seeds: the owner of an
            input, the recipients of an output, nobody for the rest.
        kept: an output that stays at the parties: each keeps its own sub-seed of the mask.
    """

    name: Annotated[str, Field(min_length=1, max_length=200)]
    shape: tuple[Dimension, ...]
    scale: Scale
    bits: Annotated[int, Field(ge=1, le=MAX_BITS)]
    masking: Masking = Masking.DRAWN
    holders: tuple[str, ...] = ()
    kept: bool = False

    @property
    def held(self) -> bool:
        """Do sub-seeds of the mask outlive the run, with holders or at the parties themselves?"""
        return bool(self.holders) or self.kept

    def bind(self, batch: int) -> Wire:
        """Return the wire with the batch dimension made a number."""
        return self.model_copy(update={"shape": tuple(batch if d == BATCH else d for d in self.shape)})

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape of a bound wire; `ValueError` while the batch is still open."""
        if BATCH in self.shape:
            raise ValueError(f"wire {self.name} is not bound to a batch size")
        return cast("tuple[int, ...]", self.shape)


Wires = Mapping[str, Wire]
"""Wires by name."""


class PlanWires(dict[str, Wire]):
    """Wires of one plan by name, none of which changes.

    Attributes:
        declared: what was computed of a gate over them, with the gate, by its `id`; see `mpc.correlations.dealt_for`.
    """

    def __init__(self, wires: Iterable[Wire]) -> None:
        super().__init__((wire.name, wire) for wire in wires)
        self.declared: dict[int, tuple[object, Any]] = {}


def broadcast(*shapes: tuple[Dimension, ...]) -> tuple[Dimension, ...] | None:
    """Return the shape that all of these broadcast to, by numpy's rules; None if there is none."""
    result: list[Dimension] = []
    for place in range(1, max(map(len, shapes), default=0) + 1):
        sizes = {shape[-place] for shape in shapes if len(shape) >= place} - {1}
        if len(sizes) > 1:
            return None
        result.append(sizes.pop() if sizes else 1)
    return tuple(reversed(result))
