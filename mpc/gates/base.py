"""Define what a gate is: one operation of a plan and all of its readings, side by side.

A gate names the wires it reads and writes and declares, before anything runs, what it opens
in which round (`openings`) and what the provider deals for it (`correlations`); its cost
follows from the two declarations, and the interpreters hold it to them.  Then come the
readings:

    reference   on integers in the clear, with the public rounding coins
    deal        on masks, by the provider
    prepare     on correlations, by each party, before inputs exist; returns a frozen record of
                what evaluate will need, or None
    evaluate    on masked wires, shares and that record, by each party: a generator that yields,
                round by round, the shares it wants opened and is sent the opened values
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from mpc import encoding
from mpc.errors import PlanError
from mpc.gates.readings import ClearReading, DealReading, PartyReading
from mpc.planes import Plane
from mpc.shares import BitShare, Share
from mpc.wires import MAX_BATCH, Frozen, Masking, Wire, Wires

Name = Annotated[str, Field(min_length=1, max_length=200)]
COMPILE_ANEW = (
    "compile the model anew ('mpc compile') with the version of mpc that all processes run, and give each of them "
    "the file as it was written"
)
Evaluation = Generator[tuple[Share | BitShare, ...], tuple[np.ndarray, ...], None]


@dataclass(frozen=True)
class Layout:
    """Kind and shape of an array on the wire: field elements (width 0) or words of `width` bits."""

    name: str
    shape: tuple[int, ...]
    width: int = 0

    @property
    def packed(self) -> bool:
        """Are elements smaller on the wire than in memory?"""
        return self.width == 1

    @property
    def word(self) -> np.dtype:
        """The type of an element in memory."""
        return encoding.word_type(self.width or 64)

    @cached_property
    def size(self) -> int:
        """Encoded bytes."""
        if self.width:
            return encoding.bits_size(self.shape, self.width)
        return encoding.field_size(self.shape)

    def encode(self, values: np.ndarray) -> memoryview:
        """Return canonical bytes, which may be the array's own: it must not change while they are used."""
        return encoding.view_bits(values, self.width) if self.width else encoding.view_field(values)

    def decode(self, data: bytes | memoryview) -> np.ndarray:
        if self.width:
            return encoding.decode_bits(data, self.shape, self.width)
        return encoding.decode_field(data, self.shape)


@dataclass(frozen=True)
class Opening(Layout):
    """Something all parties learn in one round: what is opened is always masked."""

    def reconstruct(self, own: memoryview, received: Iterable[memoryview]) -> tuple[np.ndarray, memoryview]:
        """Return (what is opened, its canonical bytes), from the encoding of this party's share and of every peer's.

        Raises:
            EncodingError: a peer's is the encoding of nothing.
        """
        total = own
        for data in received:
            total = encoding.add_bits(total, data) if self.width else encoding.add_field(total, data)
        if self.width:
            return encoding.read_bits(total, self.shape, self.width), total
        return np.frombuffer(total, dtype=np.uint64).reshape(self.shape), total


@dataclass(frozen=True)
class Correlation(Layout):
    """One named value that the provider deals.

    Uniform values are expanded from the parties' seeds and cost nothing; dependent ones need
    a correction, which goes to one party.  A wire's mask names who receives its sub-seeds, and whether the parties
    keep them.  Of a *hidden* value the provider deals functions, and no party takes its share.  The `planes` of words
    say which of their bits are always 0 or 1; without any all bits of the width are dealt.
    """

    dependent: bool = False
    holders: tuple[str, ...] = ()
    kept: bool = False
    hidden: bool = False
    planes: tuple[Plane, ...] = ()

    @property
    def held(self) -> bool:
        """Are its sub-seeds used after the run?  Then the provider commits to them."""
        return bool(self.holders) or self.kept


class Gate(Frozen):
    """Base of every gate; subclasses set `kind` and are registered in `mpc.gates`."""

    kind: ClassVar[str]
    operands: ClassVar[tuple[str, ...]] = ("x",)
    later: ClassVar[tuple[str, ...]] = ()
    """Fields that plans leave out where they have their default: plans were written before there were any."""
    results: ClassVar[tuple[str, ...]] = ("out",)
    """The fields that name wires: one, several, or None for one that is left out."""
    name: Name

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the wires it consumes, in the order of its equation."""
        return self._named(self.operands)

    @property
    def writes(self) -> tuple[str, ...]:
        """Names of the wires it produces."""
        return self._named(self.results)

    def _named(self, fields: tuple[str, ...]) -> tuple[str, ...]:
        names: list[str] = []
        for value in (getattr(self, name) for name in fields):
            names += [value] if isinstance(value, str) else value or ()
        return tuple(names)

    @property
    def awaits(self) -> tuple[str, ...]:
        """List the wires behind which it starts, though it reads none of them."""
        return ()

    @property
    def weights(self) -> tuple[str, ...]:
        """List the wires it reads that have to live for a session; no other may."""
        return ()

    @property
    def chooses_by(self) -> tuple[str, ...]:
        """List the flipped bits that it reads; no other gate may read them."""
        return ()

    @property
    def most_rows(self) -> int:
        """The largest batch that its bounds hold for."""
        return MAX_BATCH

    def is_linear(self, wires: Wires) -> bool:
        """Is it a public linear map of the run's values, so that masks move with them and nothing is opened?"""
        return False

    def needs_masks(self, wires: Wires) -> bool:
        """Does it multiply with the parties' shares of its operands' masks?"""
        return False

    def takes_shares(self, wires: Wires) -> bool:
        """Can it read a wire that is never opened?"""
        return self.is_linear(wires)

    def inherited(self, wires: Wires) -> Masking:
        """Return the masking of what a public linear map writes: unopened, if it reads such a wire."""
        late = any(wires[name].masking is Masking.UNOPENED for name in {*self.reads})
        return Masking.UNOPENED if late else Masking.INHERITED

    def check(self, wires: Wires) -> None:
        """Raise `PlanError`, naming the gate, unless shapes, scales and bounds fit together."""
        raise NotImplementedError

    def openings(self, wires: Wires) -> tuple[tuple[Opening, ...], ...]:
        """List what it opens, round by round."""
        return ()

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        """List what is dealt for it, in the order of its bytes."""
        return ()

    def reference(self, run: ClearReading) -> None:
        """Compute the integers the parties must reconstruct, bit for bit."""
        raise NotImplementedError

    def deal(self, run: DealReading) -> None:
        """Name the plain values of its correlations and the mask of each wire it writes."""

    def prepare(self, run: PartyReading) -> Any:
        """Compute what can be computed before inputs exist: the record that `evaluate` receives."""
        return None

    def evaluate(self, run: PartyReading, kept: Any) -> Evaluation:
        """Compute the written wires; yields exactly what `openings` declares.

        Args:
            kept: what `prepare` returned, of that type.
        """
        raise NotImplementedError

    def refuse(self, problem: str, remedy: str = COMPILE_ANEW) -> PlanError:
        """Return the error for a plan whose wires do not fit this gate."""
        return PlanError(f"gate {self.name} ({self.kind}): {problem}", remedy=remedy)

    def require_same_size(self, wires: Wires, *names: str) -> None:
        """Raise `PlanError` unless all these wires have one shape."""
        shapes = {wires[name].shape for name in names}
        if len(shapes) != 1:
            raise self.refuse(f"shapes differ: {sorted(map(str, shapes))}")


NO_GATE = ""
"""Name of what is dealt for no gate: what closes the check of a run."""


def mask_name(wire: str) -> str:
    """Return the correlation that is a wire's own mask."""
    return f"mask:{wire}"


def drawn_mask(wire: Wire) -> Correlation:
    """Return the declaration of a wire's mask, for a bound wire."""
    return Correlation(mask_name(wire.name), wire.sizes, holders=wire.holders, kept=wire.kept)


def drawn_masks(*wires: Wire) -> tuple[Correlation, ...]:
    """Return the declarations of the masks of those that are opened."""
    return tuple(drawn_mask(wire) for wire in wires if wire.masking is not Masking.UNOPENED)


def count(wire: Wire) -> int:
    """Count the elements of a bound wire."""
    return prod(wire.sizes)


def to_dict(gate: Gate) -> dict[str, Any]:
    """Return the gate as canonical JSON takes it."""
    content = gate.model_dump(mode="json")
    for name in gate.later:
        if getattr(gate, name) == type(gate).model_fields[name].default:
            del content[name]
    return {"kind": gate.kind, **content}
