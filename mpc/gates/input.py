"""Input: a wire whose owner masks it.

    x^ = x + sum_i PRG(k_i)

The owner receives every party's sub-seed k_i of this wire, and of no other, and sends x^ to
all parties: no round between them.  Data is entered for one run, weights for a session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from mpc.gates.base import Correlation, Evaluation, Gate, Name, Wires, drawn_mask
from mpc.wires import BATCH, Masking

if TYPE_CHECKING:
    from mpc.interpret.dealer import Dealer
    from mpc.interpret.party import Party
    from mpc.interpret.reference import Reference


class Input(Gate):
    """[x] from its owner.

    Shapes:   out: S          Scale: as declared
    Deals:    the mask, from seeds: 0 bytes
    Rounds:   0               Opens: nothing
    """

    kind: ClassVar[str] = "input"
    operands: ClassVar[tuple[str, ...]] = ()
    out: Name
    lifetime: Literal["session", "run"] = "run"

    def check(self, wires: Wires) -> None:
        wire = wires[self.out]
        if wire.masking is not Masking.DRAWN or len(wire.holders) != 1:
            raise self.refuse("an input's mask is drawn, and held by its one owner")
        if self.lifetime == "session" and BATCH in wire.shape:
            raise self.refuse("what lives for a session has no batch dimension")

    def correlations(self, wires: Wires) -> tuple[Correlation, ...]:
        return (drawn_mask(wires[self.out]),)

    def reference(self, run: Reference) -> None:
        run.set(self.out, run.given(self.out))

    def deal(self, run: Dealer) -> None:
        run.draw_mask(self.out)

    def prepare(self, run: Party) -> None:
        run.take_mask(self.out)

    def evaluate(self, run: Party) -> Evaluation:
        run.set(self.out, run.given(self.out))
        yield from ()
