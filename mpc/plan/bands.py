"""Cut a sum over many long rows into bands, which are read and summed one after another: one band is in memory.

A band is some neighbouring numbers of every row.  Each has an input of its own, which awaits the sum of the band
before; so a run has as many bands' rounds, and holds one band at a time.  The sums are laid side by side as the one
vector that there was, and what comes behind it - the noise, and what is told - is as it was, gate by gate.  So whoever
proves something of the plan finds one vector of the same sensitivity.
"""

from __future__ import annotations

from mpc.errors import PlanError
from mpc.gates.base import Gate
from mpc.gates.bound import Bound
from mpc.gates.input import Input
from mpc.gates.linear import Combine
from mpc.gates.moves import Concat
from mpc.gates.rows import Rows
from mpc.plan.ends import PlanInput
from mpc.plan.plan import Plan
from mpc.wires import BATCH, Lifetime, Wire

MOST_BANDS = 256
"""Inputs that a plan may have."""


def in_bands(plan: Plan, count: int) -> Plan:
    """Return the plan whose rows are summed in so many bands, or in fewer if some would be empty.

    Args:
        plan: of one stored input, (batch, numbers), of which each number is brought to a sum over the rows by itself.

    Raises:
        PlanError: it is another one.
    """
    if not 1 <= count <= MOST_BANDS:
        raise PlanError(f"a sum in {count} bands; 1 to {MOST_BANDS} are possible")
    before, rows, behind = _parts(plan)
    size = _size(plan.wire[before[0].writes[0]])
    width = -(-size // count)
    firsts = range(0, size, width)
    if len(firsts) == 1:
        return plan
    every = [_Band(number, first, min(width, size - first)) for number, first in enumerate(firsts)]
    gates: list[Gate] = []
    wires: list[Wire] = []
    awaited = None
    for band in every:
        for gate in (*before, rows):
            made = band.of(gate)
            gates.append(made.model_copy(update={"after": awaited}) if isinstance(made, Input) else made)
            wires += [band.wire(plan.wire[name]) for name in gate.writes]
        awaited = band.name(rows.out)
    gates.append(Concat(name=rows.name, xs=tuple(band.name(rows.out) for band in every), axis=0, out=rows.out))
    wires += [plan.wire[name] for gate in (rows, *behind) for name in gate.writes]
    parts = {name: getattr(plan, name) for name in Plan.model_fields}
    parts |= {"gates": (*gates, *behind), "wires": tuple(wires)}
    return Plan(**parts | {"inputs": tuple(band.input(plan.inputs[0]) for band in every)})


def _parts(plan: Plan) -> tuple[list[Gate], Rows, list[Gate]]:
    """Return (gates from the input on, the sum over rows, those behind it)."""
    place = next((number for number, gate in enumerate(plan.gates) if isinstance(gate, Rows)), None)
    before = list(plan.gates[:place])
    rows = None if place is None else plan.gates[place]
    if not isinstance(rows, Rows) or place is None or not _is_chain(plan, [*before, rows]):
        raise PlanError("only a plan that sums the numbers of one stored input, each by itself, is cut into bands")
    return before, rows, list(plan.gates[place + 1 :])


def _is_chain(plan: Plan, gates: list[Gate]) -> bool:
    """Does each gate read what the one before has written, number by number, and nothing else?"""
    first, *others = gates
    if not isinstance(first, Input) or first.lifetime is not Lifetime.STORED or len(plan.inputs) != 1:
        return False
    shape, given = plan.wire[first.out].shape, plan.inputs[0]
    if len(shape) != 2 or shape[0] != BATCH or given.missing is not None or given.first is not None:
        return False
    kinds = all(isinstance(gate, Combine | Bound) for gate in others[:-1])
    linked = all(gate.reads == before.writes for before, gate in zip(gates, others, strict=False))
    alike = all(plan.wire[name].shape == shape for gate in gates[:-1] for name in gate.writes)
    inside = {name for gate in gates[:-1] for name in gate.writes}
    left = any(inside.intersection(gate.reads) for gate in plan.gates if gate not in gates)
    return kinds and linked and alike and not left


def _size(wire: Wire) -> int:
    return int(wire.shape[-1])


class _Band:
    """Neighbouring numbers of every row, of which it makes gates, wires and an input.

    Args:
        number: of the band, from 0.
        first, size: its numbers' places among all.
    """

    def __init__(self, number: int, first: int, size: int) -> None:
        self._number, self._first, self._size = number, first, size

    def name(self, name: str) -> str:
        """Return what something is called in this band."""
        return f"{name}.{self._number}"

    def of(self, gate: Gate) -> Gate:
        """Return the gate on this band."""
        update: dict[str, object] = {"name": self.name(gate.name)}
        for field in (*gate.operands, *gate.results):
            value = getattr(gate, field)
            if value is not None:
                update[field] = self.name(value) if isinstance(value, str) else tuple(map(self.name, value))
        return gate.model_copy(update=update)

    def wire(self, wire: Wire) -> Wire:
        """Return the wire of this band."""
        return wire.model_copy(update={"name": self.name(wire.name), "shape": (*wire.shape[:-1], self._size)})

    def input(self, given: PlanInput) -> PlanInput:
        """Return the input that reads this band."""
        update: dict[str, object] = {name: self._some(getattr(given, name)) for name in _BY_COLUMN}
        ends = {"name": self.name(given.name), "wire": self.name(given.wire), "first": self._first}
        return given.model_copy(update={**update, **ends})

    def _some(self, values: tuple[object, ...]) -> tuple[object, ...]:
        return values if len(values) == 1 else values[self._first : self._first + self._size]


_BY_COLUMN = ("low", "high", "offset", "factor")
