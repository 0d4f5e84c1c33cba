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
        self._left = Counter(name for gate in gates for name in {*gate.reads})
        self._wanted = frozenset(wanted)

    def over(self, gate: Gate) -> list[str]:
        """Return the wires that nobody reads any more, now that this gate has; what it writes is among them if nobody
        reads that.
        """
        self._left.subtract({*gate.reads})
        return [name for name in {*gate.reads, *gate.writes} if self._left[name] <= 0 and name not in self._wanted]
