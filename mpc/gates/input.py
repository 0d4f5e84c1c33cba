"""Input: a wire whose owner masks it.

    x^ = x + sum_i PRG(k_i)

The owner receives every party's sub-seed k_i of this wire, and of no other, and sends x^ to
all parties: no round between them.  Data is entered for one run, weights for a session.
Weights may be public: then x^ = x, nothing is dealt, and the provider is told x as well.

What is stored was entered so once, and serves many sessions: x^ and k_i are kept, each party shows
the provider its k_i, and no bundle deals anything for it.

State is entered by nobody: x^, its mask and the parties' shares of the mask are those that a wire of the
run before had, and nothing is dealt for it either.

What is stored may be read late: after a wire that the run computes first.  Until then x^ is not in memory, so inputs
that are read one after another need room for one of them.  No gate may compute with shares of such a mask: they would
be there before, since what a run needs is prepared ahead.
"""

from __future__ import annotations

from typing import ClassVar

from mpc.gates.base import Correlation, Evaluation, Gate, Name, drawn_mask
from mpc.gates.readings import ClearReading, DealReading, PartyReading
from mpc.wires import BATCH, Lifetime, Masking, Wires


class Input(Gate):
    """[x] from its owner, or from the run before.

    Shapes:   out: S          Scale: as declared
    Deals:    the mask, from seeds: 0 bytes; of a public weight, of what is stored, and of state, nothing
    Rounds:   0               Opens: nothing
    """

    kind: ClassVar[str] = "input"
    operands: ClassVar[tuple[str, ...]] = ()
    later: ClassVar[tuple[str, ...]] = ("after",)
    out: Name
    lifetime: Lifetime = Lifetime.RUN
    after: Name | None = None

    @property
    def awaits(self) -> tuple[str, ...]:
        return self._named(("after",))

    def check(self, wires: Wires) -> None:
        wire = wires[self.out]
        if self.after is not None and self.lifetime is not Lifetime.STORED:
            raise self.refuse("only rows that lie at the parties are read after something else")
        if self.is_state:
            if wire.masking is not Masking.DRAWN or wire.holders or BATCH in wire.shape:
                raise self.refuse("state has no holder and no batch dimension, and its mask was drawn before")
            return
        entered_once = self.lifetime is Lifetime.SESSION
        allowed = {Masking.DRAWN, Masking.PUBLIC} if entered_once else {Masking.DRAWN}
        several = self.lifetime is Lifetime.STORED and wire.holders == tuple(sorted({*wire.holders})) != ()
        if wire.masking not in allowed or not (len(wire.holders) == 1 or several):
            raise self.refuse(
                "an input's mask is drawn, and held by its one owner, or rows that lie there are several owners'; only "
                "a weight may be public"
            )
        if self.is_weight and BATCH in wire.shape:
            raise self.refuse("a weight has no batch dimension")
        if self.lifetime is Lifetime.STORED and (not wire.shape or BATCH in wire.shape[1:]):
            raise self.refuse("the rows of stored data are its first axis, and no other")

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        dealt = self.is_entered and not self.is_public(wires)
        return (drawn_mask(wires[self.out]),) if dealt else ()

    @property
    def is_stored(self) -> bool:
        """Does it lie at the parties since before the session?"""
        return self.lifetime in (Lifetime.STORED, Lifetime.STORED_WEIGHT)

    @property
    def is_state(self) -> bool:
        """Is it what the run before has left?"""
        return self.lifetime is Lifetime.STATE

    @property
    def is_entered(self) -> bool:
        """Does an owner enter it into the session?"""
        return not (self.is_stored or self.is_state)

    @property
    def is_weight(self) -> bool:
        """Does every run of a session read one and the same value of it?"""
        return self.lifetime in (Lifetime.SESSION, Lifetime.STORED_WEIGHT)

    def is_public(self, wires: Wires) -> bool:
        """Is it a weight that is nobody's secret?"""
        return wires[self.out].masking is Masking.PUBLIC

    def reference(self, run: ClearReading) -> None:
        run.set(self.out, run.given(self.out))

    def deal(self, run: DealReading) -> None:
        if self.is_stored:
            run.derive_mask(self.out, run.stored_mask(self.out))
        elif self.is_state:
            run.derive_mask(self.out, run.state_mask(self.out))
        elif not self.is_public(run.wires):
            run.draw_mask(self.out)

    def prepare(self, run: PartyReading) -> None:
        if self.after is not None:
            return
        if self.is_stored:
            run.set_mask(self.out, run.stored_mask(self.out))
        elif self.is_state:
            run.set_mask(self.out, run.state_mask(self.out))
        else:
            run.take_mask(self.out)

    def evaluate(self, run: PartyReading, kept: None) -> Evaluation:
        run.set(self.out, run.given(self.out))
        yield from ()
