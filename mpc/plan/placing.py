"""One plan, for other people: who enters its inputs, which of these lie at the parties, and who receives its outputs.

Whoever agrees to a plan whoever takes part in it agrees to its template, in which one name has every part.  Two plans
have one template if they differ in nothing else; all parties compute that from public bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from mpc.errors import PlanError
from mpc.gates.base import Gate
from mpc.gates.input import Input
from mpc.plan.plan import Plan
from mpc.wires import BATCH, Lifetime

_DATA = (Lifetime.RUN, Lifetime.STORED)


def template(plan: Plan, owner: str) -> Plan:
    """Return the plan in which `owner` enters all inputs, for every run, and receives all outputs.

    Weights stay whose they are and what they are, and so does everything else.
    """
    wires = [*_data_wires(plan), *(out.wire for out in plan.outputs)]
    return _with(plan, dict.fromkeys(wires, (owner,)), dict.fromkeys(_data_wires(plan), Lifetime.RUN))


def place(
    plan: Plan,
    owners: Mapping[str, str],
    recipients: Mapping[str, Collection[str]],
    stored: Collection[str] = (),
) -> Plan:
    """Return the plan for these people, which `parse_plan` then judges as any other.

    Args:
        owners: input -> who enters it, or has put what it is read from; of all inputs.
        recipients: output -> who receives it; of all outputs.
        stored: inputs that lie at the parties; the others are entered for every run.

    Raises:
        PlanError: an input cannot lie at the parties, or two outputs that are one value have different recipients.
    """
    holders: dict[str, tuple[str, ...]] = {}
    lifetimes: dict[str, Lifetime] = {}
    for given in plan.inputs:
        holders |= dict.fromkeys(given.wires, (owners[given.name],))
        lifetimes |= dict.fromkeys(given.wires, Lifetime.STORED if given.name in stored else Lifetime.RUN)
        entered = given.missing is not None or given.places is not None
        if given.name in stored and (entered or plan.wire[given.wire].shape[:1] != (BATCH,)):
            raise PlanError(
                f"input {given.name!r} cannot be read from a dataset",
                cause="its numbers may be missing or enter as places of a table, or its first axis is not the batch",
                remedy="enter it for the run",
            )
    for out in plan.outputs:
        names = tuple(sorted({*recipients[out.name]}))
        if holders.setdefault(out.wire, names) != names:
            raise PlanError(
                f"output {out.name!r} is one value with another output, which has other recipients",
                remedy="give both to all of them",
            )
    return _with(plan, holders, lifetimes)


def _data_wires(plan: Plan) -> list[str]:
    return [gate.out for gate in _inputs(plan.gates) if gate.lifetime in _DATA]


def _inputs(gates: Iterable[Gate]) -> Iterable[Input]:
    return (gate for gate in gates if isinstance(gate, Input))


def _with(plan: Plan, holders: Mapping[str, tuple[str, ...]], lifetimes: Mapping[str, Lifetime]) -> Plan:
    """Return the plan with other holders of some wires, and other lifetimes of some inputs."""
    parts = {name: getattr(plan, name) for name in Plan.model_fields}
    parts["wires"] = tuple(
        wire.model_copy(update={"holders": holders[wire.name]}) if wire.name in holders else wire for wire in plan.wires
    )
    changed = {gate.name: lifetimes[gate.out] for gate in _inputs(plan.gates) if gate.out in lifetimes}
    parts["gates"] = tuple(
        gate.model_copy(update={"lifetime": changed[gate.name]}) if gate.name in changed else gate
        for gate in plan.gates
    )
    return Plan(**parts)
