"""Keep what a graph becomes: wires with scales, proved bounds and masks, the gates that write them, and weights.

A wire's public bound is only the power of two above the largest its elements reach.  A graph whose bounds do not fit
is refused, naming the node, the bound and what to do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
from pydantic import ValidationError

from mpc.compiler.graph.graph import Graph, Origin, Shape, static
from mpc.compiler.graph.notes import Notes
from mpc.compiler.lowering.intervals import Interval, bound_of, widened
from mpc.compiler.lowering.norms import Norms
from mpc.compiler.lowering.scales import log2
from mpc.compiler.roles import Roles
from mpc.gates import GATES
from mpc.gates.base import Gate
from mpc.plan.verify import MAX_SCALE_BITS
from mpc.wires import MAX_BITS, Lifetime, Masking, Wire

FRACTION_BITS = 16
"""Fractional bits of what leaves a truncation."""
SMALLER = (
    "declare a smaller input range (--range NAME=LOW:HIGH), or give samples of the input to bound it by "
    "(--calibrate X.npy, in Python samples=...)"
)
Names = tuple[str, ...]


@dataclass(frozen=True)
class Value:
    """A wire while compiling.

    Args:
        norms: what is proved of its elements together; None of nothing that intervals do not say.
    """

    wire: Wire
    interval: Interval
    norms: Norms | None = None

    @property
    def scale(self) -> Fraction:
        return self.wire.scale

    @property
    def shape(self) -> Shape:
        return self.wire.shape

    @property
    def reals(self) -> tuple[float, float]:
        """The interval that covers all elements, in the model's units."""
        unit = float(self.scale)
        return self.interval.least / unit, self.interval.most / unit

    def overall(self) -> Value:
        """Return the value with its ends alone, the same as before; see `Interval.overall`."""
        return replace(self, interval=self.interval.overall())

    @property
    def coarse(self) -> tuple[float, float]:
        """`reals`, widened to a coarse grid: what a plan may follow from, where the ends tell of secret weights."""
        return widened(*self.reals)


@dataclass
class Emitted:
    """The wires, gates and weights that have been emitted so far.

    Args:
        writers: wire -> the gate that writes it.
        weights: weight wire -> int64 integers, the owner's secret unless the roles say that they are public.
        origins: gate -> the model's node.
        notes: what the model's owner should know.
        origin: the node that is being lowered.
        told: the parties may be told the weights of the node that is being lowered.
    """

    graph: Graph
    roles: Roles
    wires: dict[str, Wire] = field(default_factory=dict)
    gates: list[Gate] = field(default_factory=list)
    writers: dict[str, Gate] = field(default_factory=dict)
    weights: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    origins: dict[str, Origin] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)
    origin: Origin = Origin("", "input")
    told: bool = False

    def note(self, text: str) -> None:
        """Note something that the model's owner should know about the node that is being lowered."""
        self.notes.of(self.origin, text)

    def bits(self, bound: float, scale: Fraction) -> int:
        """Return the proved power of two, with room for a truncation's rounding; a refusal if there is none."""
        if not bound < math.inf or max(map(int.bit_length, scale.as_integer_ratio())) > MAX_SCALE_BITS:
            raise self.origin.refuse(
                "its result can be too large, or too small, for fixed point: a plan holds no such scale",
                remedy=f"{SMALLER}, or divide by a constant before it",
            )
        least = 8 + max(0, log2(scale) - FRACTION_BITS)
        bits = max(least, math.frexp(bound * (1 + 1 / 64) + 2)[1])
        if bits > MAX_BITS:
            raise self.origin.refuse(
                f"its result can reach {bound / float(scale):.3g}, which needs {bits} bits where {MAX_BITS} fit",
                remedy=f"{SMALLER}, or divide by a constant before it",
            )
        return bits

    def wire(
        self,
        name: str,
        shape: Shape,
        scale: Fraction,
        interval: Interval,
        masking: Masking = Masking.DRAWN,
        holders: Names = (),
        least_bits: int = 1,
    ) -> Value:
        """Append a wire with its bound.

        Raises:
            ModelError: there is no room for it in a plan, or for so many bits.
        """
        interval = interval.broadcast_to(static(shape))
        return Value(self._wire(name, shape, scale, interval.bound, masking, holders, least_bits), interval)

    def _wire(
        self, name: str, shape: Shape, scale: Fraction, bound: float, masking: Masking, holders: Names, least_bits: int
    ) -> Wire:
        bits = max(least_bits, self.bits(bound, scale))
        try:
            self.wires[name] = Wire(name=name, shape=shape, scale=scale, bits=bits, masking=masking, holders=holders)
        except ValidationError as error:
            field = error.errors()[0]["loc"][0]
            raise self.origin.refuse(
                f"a value of shape {shape} on {bits} bits is too large for a plan ({field})", remedy=SMALLER
            ) from None
        return self.wires[name]

    def gate(self, kind: str, **settings: Any) -> Gate:
        """Append a gate.

        Raises:
            ModelError: one of its numbers is beyond what a plan can hold, since values can get so large.
        """
        try:
            self.gates.append(GATES[kind](name=f"{len(self.gates)}.{kind}", **settings))
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            raise self.origin.refuse(
                f"what it computes with can get too large for a plan ({kind}: {place})", remedy=SMALLER
            ) from None
        self.writers.update(dict.fromkeys(self.gates[-1].writes, self.gates[-1]))
        self.origins[self.gates[-1].name] = self.origin
        return self.gates[-1]

    def add(
        self,
        kind: str,
        shape: Shape,
        scale: Fraction,
        interval: Interval,
        least_bits: int = 1,
        holders: Names = (),
        **settings: Any,
    ) -> Value:
        """Append a gate and the one wire it writes."""
        name = f"{len(self.gates)}.{kind}"
        gate = self.gate(kind, out=name, **settings)
        masking = gate.inherited(self.wires) if gate.is_linear(self.wires) else Masking.DRAWN
        return self.wire(name, shape, scale, interval, masking, holders, least_bits)

    def flipped(self, name: str, shape: Shape) -> Wire:
        """Append the wire of a comparison's bits, which selections read."""
        self.wires[name] = Wire(name=name, shape=shape, scale=Fraction(1), bits=1, masking=Masking.FLIPPED)
        return self.wires[name]

    def stored(self, values: np.ndarray, scale: Fraction, public: bool | None = None, least_bits: int = 1) -> str:
        """Append a weight wire, which the model's owner enters once a session; return its name.

        Args:
            public: all parties know it; None: as the node that is being lowered says of its weights.
        """
        name, owner = f"{len(self.gates)}.input", (self.roles.model_owner,)
        known = self.told if public is None else public
        masking = Masking.PUBLIC if known else Masking.DRAWN
        self.gate("input", out=name, lifetime=Lifetime.SESSION)
        self._wire(name, values.shape, scale, bound_of(values), masking, owner, least_bits)
        self.weights[name] = values
        return name
