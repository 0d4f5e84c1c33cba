"""Find which gate is in which round: independent gates share one.

Steps are counted from 0.  A gate starts as soon as everything it reads or awaits is there, so the last
step is the plan's depth; every party and the compiler compute the same schedule.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from mpc.gates.base import Gate, Opening
from mpc.transcript import DIGEST_BYTES
from mpc.wires import Wires


@dataclass(frozen=True)
class Turn:
    """One gate's part of a step."""

    gate: Gate
    openings: tuple[Opening, ...]


@dataclass(frozen=True)
class Step:
    """One round: what is opened, in plan order, which is the order of the bytes."""

    number: int
    turns: tuple[Turn, ...]

    @property
    def agreement(self) -> int:
        """Bytes in front of the openings: a run's first payload begins with a digest of all that was entered."""
        return 0 if self.number else DIGEST_BYTES

    @cached_property
    def size(self) -> int:
        """Payload bytes of one party to each peer."""
        return self.agreement + sum(opening.size for turn in self.turns for opening in turn.openings)


@dataclass(frozen=True)
class Schedule:
    """The steps of a run, and the step at which each gate starts."""

    steps: tuple[Step, ...]
    starts: dict[str, int]


def schedule(gates: Iterable[Gate], wires: Wires) -> Schedule:
    """Return the schedule of these gates over bound wires; wires that no gate here writes are there already."""
    ready: dict[str, int] = {}
    starts: dict[str, int] = {}
    turns: list[list[Turn]] = []
    for gate in gates:
        start = max((ready.get(name, 0) for name in (*gate.reads, *gate.awaits)), default=0)
        starts[gate.name] = start
        rounds = gate.openings(wires)
        while len(turns) < start + len(rounds):
            turns.append([])
        for number, openings in enumerate(rounds, start):
            turns[number].append(Turn(gate, openings))
        for name in gate.writes:
            ready[name] = start + len(rounds)
    return Schedule(tuple(Step(i, tuple(t)) for i, t in enumerate(turns)), starts)
