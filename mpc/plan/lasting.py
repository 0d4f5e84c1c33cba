"""Count down who still reads a wire: what nobody reads any more is let go of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from mpc.gates.base import Gate


class Readers:
    """The gates that have yet to read each wire, in whatever order they come.

    Args:
        wanted: wires that are read behind all gates, and so stay.
    """

    def __init__(self, gates: Iterable[Gate], wanted: Collection[str]) -> None:
        gates = tuple(gates)
        self._reads = {gate.name: frozenset(gate.reads) for gate in gates}
        self._writes = {gate.name: gate.writes for gate in gates}
        self._left = Counter(name for reads in self._reads.values() for name in reads)
        self._wanted = frozenset(wanted)

    def over(self, gate: Gate) -> list[str]:
        """Return the wires that nobody reads any more, now that this gate has; what it writes is among them if nobody
        reads that.
        """
        reads = self._reads[gate.name]
        for name in reads:
            self._left[name] -= 1
        touched = reads.union(self._writes[gate.name])
        return [name for name in touched if self._left[name] <= 0 and name not in self._wanted]
