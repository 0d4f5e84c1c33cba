"""A training that is made in several sessions: each but the first begins with what the one before it has left.

A session none of whose steps tells an output has a step without it: an output is told in every run, unless a program
says in which.
"""

from __future__ import annotations

from mpc.gates.base import Gate
from mpc.gates.input import Input
from mpc.plan.ends import PlanState
from mpc.plan.plan import Plan
from mpc.plan.verify import verify
from mpc.wires import Lifetime


def goes_on(plan: Plan, owner: str) -> Plan:
    """Return a step's plan all of whose states begin with weights that lie at the parties.

    Args:
        owner: whose they are, as what is kept is its keeper's.

    Raises:
        PlanError: it is no plan of a step.
    """
    gates, wires = {gate.name: gate for gate in plan.gates}, {wire.name: wire for wire in plan.wires}
    inits = {gate.out: gate.name for gate in plan.weights}
    states = []
    for state in plan.states:
        init = state.init or f"{state.in_}.begun"
        name = inits.get(init, init)
        gates[name] = Input(name=name, out=init, lifetime=Lifetime.STORED_WEIGHT)
        wires[init] = plan.wire[state.in_].model_copy(update={"name": init, "holders": (owner,)})
        states.append(PlanState(name=state.name, in_=state.in_, out=state.out, init=init))
    parts = {name: getattr(plan, name) for name in ("inputs", "outputs", "program", "security")}
    found = Plan(**parts, gates=tuple(gates.values()), wires=tuple(wires.values()), states=tuple(states))
    verify(found)
    return found


def untold(plan: Plan, output: str) -> Plan:
    """Return a step's plan that lacks an output, and all gates that only this output is computed by.

    Raises:
        PlanError: it is no plan of a step.
    """
    outputs = tuple(out for out in plan.outputs if out.name != output)
    needed = {out.wire for out in outputs} | {name for state in plan.states for name in (state.in_, state.out)}
    gates = list[Gate]()
    for gate in reversed(plan.gates):
        if isinstance(gate, Input) or needed.intersection(gate.writes):
            needed.update(gate.reads)
            gates.append(gate)
    written = {name for gate in gates for name in gate.writes}
    parts = {name: getattr(plan, name) for name in Plan.model_fields}
    wires = tuple(wire for wire in plan.wires if wire.name in written)
    found = Plan(**parts | {"outputs": outputs, "gates": tuple(reversed(gates)), "wires": wires})
    verify(found)
    return found
