"""Count what a party holds of a run's wires, step by step: what nobody reads any more is gone."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from mpc.gates.base import Gate
from mpc.plan.checking import last_used
from mpc.plan.cost import plan_schedule
from mpc.plan.plan import Plan


@dataclass(frozen=True)
class Holding:
    """Counts what there is at one step of a run.

    Args:
        live: elements of wires that are written, or being written, and read later or at this step.
        active: those of them that gates read or write at this step.
    """

    live: int
    active: int


def holdings(plan: Plan) -> tuple[Holding, ...]:
    """Return what is held at each step of a bound plan's run, and behind the last; weights count as nowhere.

    What gates of a run that is checked have read and written stays until their window is checked.
    """
    found = plan_schedule(plan)
    used = last_used(plan, found)
    size = {name: prod(plan.wire[name].sizes) for gate in plan.online for name in gate.writes}
    first = {name: found.starts[gate.name] for gate in plan.online for name in gate.writes}
    last = dict(first)
    end = len(found.steps)
    live, active = [0] * (end + 2), [0] * (end + 2)
    for gate in plan.online:
        start, stop = found.starts[gate.name], found.starts[gate.name] + len(gate.openings(plan.wire))
        touched = sum(size[name] for name in _touched(gate) if name in size)
        _add(active, start, stop, touched)
        for name in _touched(gate):
            last[name] = max(last.get(name, 0), used[gate.name])
    last.update(dict.fromkeys([*plan.carried, *(output.wire for output in plan.outputs)], end))
    for name, start in first.items():
        _add(live, start, last[name], size[name])
    return tuple(Holding(*both) for both in zip(_summed(live), _summed(active), strict=True))


def _touched(gate: Gate) -> set[str]:
    return {*gate.reads, *gate.writes}


def _add(counts: list[int], start: int, stop: int, size: int) -> None:
    """Count from one step to another one, both of them: as a difference to the step before."""
    counts[start] += size
    counts[stop + 1] -= size


def _summed(counts: list[int]) -> list[int]:
    total, out = 0, []
    for change in counts[:-1]:
        total += change
        out.append(total)
    return out
