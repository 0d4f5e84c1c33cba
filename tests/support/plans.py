"""Plans written by hand, a line a gate."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any, Literal

from mpc.gates import Gate
from mpc.gates.input import Input
from mpc.plan.ends import PlanInput, PlanOutput, PlanState
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan
from mpc.plan.program import Program
from mpc.wires import Masking, Wire

OWNER, RECIPIENT = "owner", "recipient"
Shape = tuple[int | Literal["batch"], ...]


def wire(name: str, shape: Shape, bits: int, scale: Fraction | int = 1, **more: Any) -> Wire:
    """A wire; scale 1 and mask drawn unless said otherwise."""
    return Wire(name=name, shape=shape, scale=Fraction(scale), bits=bits, **more)


class Builder:
    """Gates and their wires, in order."""

    def __init__(self) -> None:
        self.wires: list[Wire] = []
        self.gates: list[Gate] = []
        self.inputs: list[PlanInput] = []
        self.outputs: list[PlanOutput] = []
        self.states: list[PlanState] = []
        self.program: Program | None = None

    def enter(
        self,
        name: str,
        shape: Shape,
        bits: int,
        scale: Fraction | int = 1,
        *,
        session: bool = False,
        public: bool = False,
    ) -> str:
        """An input of the run, or of the session; there it may be public."""
        masking = Masking.PUBLIC if public else Masking.DRAWN
        self.wires.append(wire(name, shape, bits, scale, holders=(OWNER,), masking=masking))
        self.gates.append(Input(name=f"in:{name}", out=name, lifetime="session" if session else "run"))
        if not session:
            self.inputs.append(
                PlanInput(name=name, wire=name, dtype="float32", low=(Fraction(-1),), high=(Fraction(1),))
            )
        return name

    def gate(self, gate: Gate, *written: Wire) -> None:
        """A gate and the wires it writes; what is mapped from an unopened wire is unopened too."""
        known = {w.name: w for w in self.wires}
        if gate.is_linear(known) and gate.inherited(known) is Masking.UNOPENED:
            written = tuple(w.model_copy(update={"masking": Masking.UNOPENED}) for w in written)
        self.gates.append(gate)
        self.wires.extend(written)

    def output(self, *names: str) -> None:
        """Make wires outputs."""
        for name in names:
            index = next(i for i, w in enumerate(self.wires) if w.name == name)
            self.wires[index] = self.wires[index].model_copy(update={"holders": (RECIPIENT,)})
            self.outputs.append(PlanOutput(name=name, wire=name, shape=self.wires[index].shape, dtype="float32"))

    def state(self, name: str, shape: Shape, bits: int, scale: Fraction | int = 1) -> str:
        """What the run before has left; `carry` says which wire that is."""
        self.wires.append(wire(name, shape, bits, scale))
        self.gates.append(Input(name=f"in:{name}", out=name, lifetime="state"))
        return name

    def carry(self, name: str, out: str, init: str | None = None) -> None:
        """Have the next run read a wire."""
        self.states.append(PlanState(name=name, in_=name, out=out, init=init))

    def unchecked(self) -> Plan:
        """The plan, not verified."""
        return Plan(
            inputs=tuple(self.inputs),
            outputs=tuple(self.outputs),
            wires=tuple(self.wires),
            gates=tuple(self.gates),
            states=tuple(self.states),
            program=self.program,
        )

    def build(self) -> Plan:
        """The plan as every process reads it: through its bytes, verified."""
        plan = self.unchecked()
        read = parse_plan(plan.canonical)
        assert read.digest == plan.digest
        return read


def replace_wires(plan: Plan, changes: dict[str, dict[str, Any]]) -> Plan:
    """The plan with fields of some wires changed, not verified."""
    wires = tuple(Wire(**(dict(w) | changes.get(w.name, {}))) for w in plan.wires)
    return with_parts(plan, wires=wires)


def with_parts(plan: Plan, **parts: Iterable[Any]) -> Plan:
    """The plan with some of its lists replaced, not verified."""
    fields = {name: getattr(plan, name) for name in ("inputs", "outputs", "wires", "gates", "states")}
    return Plan(**fields | {name: tuple(value) for name, value in parts.items()}, program=plan.program)
