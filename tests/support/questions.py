"""Questions by hand: stored columns, bounded, summed over their rows and noised."""

from __future__ import annotations

from fractions import Fraction

from mpc.gates.bound import Bound
from mpc.gates.draw import Draw
from mpc.gates.linear import Combine
from mpc.gates.open import Open
from mpc.gates.rows import Rows
from mpc.gates.step import Step
from mpc.plan.plan import Plan
from mpc.privacy import law
from mpc.privacy.facts import StoredFacts
from mpc.privacy.guarantee import sensitivities
from mpc.wires import MAX_BITS, Masking
from tests.support.plans import Builder, Shape, wire, with_parts

B = "batch"
EPSILON = Fraction(1, 2)
UNOPENED, INHERITED = {"masking": Masking.UNOPENED}, {"masking": Masking.INHERITED}
FACTS = {"x": StoredFacts(rows=100, rows_per_person=1, origin="one")}
WIDE = 40
"""Bits enough for every sum here."""


class Question(Builder):
    """A plan over stored columns x (batch, 4), unless said otherwise."""

    def __init__(self, shape: Shape = (B, 4), bits: int = 20, name: str = "x") -> None:
        super().__init__()
        self.enter(name, shape, bits)

    def bound(self, x: str = "x", out: str = "y", width: int = 4, drawn: bool = False) -> str:
        """[0, 2^width), whatever x is."""
        known = {w.name: w for w in self.wires}
        self.gate(
            Bound(name=f"bound:{out}", x=x, out=out, width=width, shift=0),
            wire(out, known[x].shape, width, masking=Masking.DRAWN if drawn else Masking.UNOPENED),
        )
        return out

    def step(self, *levels: int, x: str = "x", out: str = "y") -> str:
        known = {w.name: w for w in self.wires}
        self.gate(
            Step(name=f"step:{out}", x=x, levels=levels, shift=0, out=out),
            wire(out, (*known[x].shape, len(levels)), 1),
        )
        return out

    def rows(self, x: str = "y", out: str = "s") -> str:
        """The sum over the rows."""
        known = {w.name: w for w in self.wires}
        self.gate(Rows(name=f"rows:{out}", x=x, most=100, out=out), wire(out, known[x].shape[1:], WIDE, **INHERITED))
        return out

    def draw(self, shape: Shape, out: str = "n", epsilon: Fraction = EPSILON, sensitivity: int = 1) -> str:
        levels = law.thresholds(epsilon, sensitivity)
        gate = Draw(name=f"draw:{out}", out=out, thresholds=levels, epsilon=epsilon)
        self.gate(gate, wire(out, shape, max(WIDE, len(levels)), **UNOPENED))
        return out

    def combine(self, *names: str, factors: tuple[int, ...] = (), out: str = "v", shape: Shape | None = None) -> str:
        """Of the first one's shape unless another is given."""
        known = {w.name: w for w in self.wires}
        gate = Combine(name=f"combine:{out}", xs=names, factors=factors or (1,) * len(names), out=out)
        self.gate(gate, wire(out, known[names[0]].shape if shape is None else shape, WIDE + 2, **INHERITED))
        return out

    def noised(self, name: str = "s", epsilon: Fraction = EPSILON, sensitivity: int = 1, tag: str = "") -> str:
        """The sum and a draw of its own, told."""
        shape = next(w.shape for w in self.wires if w.name == name)
        noise = self.draw(shape, f"n{tag}", epsilon, sensitivity)
        return self.told(self.combine(name, noise, out=f"v{tag}"), f"z{tag}")

    def told(self, name: str = "v", out: str = "z") -> str:
        """Open a wire and make it an output."""
        known = {w.name: w for w in self.wires}
        if known[name].masking is Masking.UNOPENED:
            self.gate(Open(name=f"open:{out}", x=name, out=out), wire(out, known[name].shape, known[name].bits))
            name = out
        self.output(name)
        return name


def fitted(plan: Plan, stored: dict[str, StoredFacts] | None = None) -> Plan:
    """The plan with the thresholds that its own sensitivities ask for."""
    needed = sensitivities(plan, FACTS if stored is None else stored)
    gates = [
        gate.model_copy(update={"thresholds": law.thresholds(gate.epsilon, needed[gate.name])})
        if isinstance(gate, Draw)
        else gate
        for gate in plan.gates
    ]
    return with_parts(
        plan,
        gates=gates,
        wires=[
            w.model_copy(
                update={"bits": MAX_BITS if w.name in {g.out for g in gates if isinstance(g, Draw)} else w.bits}
            )
            for w in plan.wires
        ],
    )
