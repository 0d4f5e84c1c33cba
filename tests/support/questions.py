"""Questions by hand: stored columns, bounded, summed over their rows and noised."""

from __future__ import annotations

from fractions import Fraction

from mpc.gates.bound import Bound
from mpc.gates.draw import Draw
from mpc.gates.gaussian import Gaussian
from mpc.gates.linear import Combine
from mpc.gates.moves import Reshape, Take
from mpc.gates.multiply import Multiply
from mpc.gates.open import Open
from mpc.gates.rows import Rows
from mpc.gates.step import Step
from mpc.gates.truncate import Truncate
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

    def gaussian(self, shape: Shape, out: str = "n", sigma: Fraction = Fraction(1000)) -> str:
        gate = Gaussian(name=f"gaussian:{out}", out=out, sigma=sigma, epsilon=EPSILON)
        self.gate(gate, wire(out, shape, WIDE, **UNOPENED))
        return out

    def rounded(self, x: str = "s", shift: int = 2, out: str = "t") -> str:
        """The sum, opened under a mask, and without its lowest bits."""
        known = {w.name: w for w in self.wires}
        if known[x].masking is Masking.UNOPENED:
            self.gate(Open(name=f"open:{x}", x=x, out=f"{x}^"), wire(f"{x}^", known[x].shape, known[x].bits))
            x = f"{x}^"
        gate = Truncate(name=f"truncate:{out}", x=x, shift=shift, out=out)
        self.gate(gate, wire(out, known[x.rstrip("^")].shape, WIDE, Fraction(1, 1 << shift), **UNOPENED))
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


def by_category(bins: int, constant: int = 0, raw: bool = False, hard: bool = True) -> Question:
    """The sum of a bounded value in each bin of another: one-hot bits times the value, x[1] by x[0].

    Args:
        constant: that is added to the bits.
        raw: the bits are of data as they are.
        hard: the value is bounded.
    """
    q = Question((B, 2))
    for place, name in enumerate(("key", "value")):
        q.gate(Take(name=name, x="x", axis=1, indices=(place,), out=name), wire(name, (B, 1), 20, **INHERITED))
    key = "key" if raw else q.bound("key", "held", drawn=True)
    value = q.bound("value", "y", drawn=True) if hard else "value"
    q.step(*range(bins + 1), x=key, out="bits")
    q.gate(Reshape(name="flat", x="bits", out="flat"), wire("flat", (B, bins + 1), 1, **INHERITED))
    for name, places in (("lower", range(bins)), ("upper", range(1, bins + 1))):
        gate = Take(name=name, x="flat", axis=1, indices=tuple(places), out=name)
        q.gate(gate, wire(name, (B, bins), 1, **INHERITED))
    gate = Combine(name="hot", xs=("lower", "upper"), factors=(1, -1), constant=constant, out="hot")
    q.gate(gate, wire("hot", (B, bins), 2, **INHERITED))
    q.gate(Multiply(name="p", x="hot", y=value, out="p"), wire("p", (B, bins), 30))
    q.rows("p", "p_sum")
    return q


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
