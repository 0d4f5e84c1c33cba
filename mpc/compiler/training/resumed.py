"""A training that goes on in another session: its states begin with what an earlier one has kept at the parties."""

from __future__ import annotations

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
