"""Prepare a run's gates segment by segment: a window of segments ahead, the others as they are needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from mpc.errors import LocalProtocolError, ReuseError
from mpc.gates.base import Gate
from mpc.plan.segments import Segment

Prepare = Callable[[Gate], Any]
"""Prepares one gate.  It is handed over call by call: whoever it belongs to holds this."""


class Arrivals(Protocol):
    """Holds what a run was dealt, segment by segment: here, or on its way."""

    def check(self, number: int) -> None:
        """Wait until a segment, and all before it, is here and is what the provider has signed.

        Raises:
            IntegrityError: it is not.
            PeerError: it does not come.
        """

    def release(self, number: int) -> None:
        """Let go of a segment: all that is computed with it is done."""


class AllHere:
    """Stands for what was dealt in this process: there is nothing to wait for."""

    def check(self, number: int) -> None:
        """Find nothing wrong."""

    def release(self, number: int) -> None:
        """Let go of nothing."""


class Preparing:
    """The records that gates prepare, by segment: made once, taken once, and let go of.

    Args:
        window: bytes of correlations that are prepared before inputs exist; one segment at least is, and all if it is
            None.
    """

    def __init__(self, segments: Sequence[Segment], arrivals: Arrivals, window: int | None) -> None:
        self._segments, self._arrivals, self._window = segments, arrivals, window
        self._place = {gate.name: number for number, segment in enumerate(segments) for gate in segment.gates}
        self._left = [len(segment.gates) for segment in segments]
        self._records: dict[str, Any] = {}
        self.ready = 0
        """Segments that are prepared."""
        self._checked = 0

    def __repr__(self) -> str:
        return f"<Preparing ready={self.ready} of {len(self._segments)}>"

    @property
    def whole(self) -> bool:
        """Are all gates prepared, of what was checked?"""
        return self.ready == self._checked == len(self._segments)

    def ahead(self, prepare: Prepare) -> None:
        """Make the records of as many segments as the window has room for, once; they are checked by then.

        Raises:
            ReuseError: they were prepared before.
        """
        if self.ready:
            raise ReuseError("a run is prepared a second time")
        held = 0
        for number, segment in enumerate(self._segments):
            held += segment.held
            if self._window is not None and number and held > self._window:
                break
            self._prepare_next(prepare)
        self._check(self.ready - 1)

    def take(self, gate: Gate, prepare: Prepare) -> Any:
        """Return what was prepared for a gate, once; all of its segment, and of those before it, is checked by then.

        Raises:
            LocalProtocolError: nothing was, or it was taken before.
        """
        place = self._place[gate.name]
        while 0 < self.ready <= place:
            self._prepare_next(prepare)
        if gate.name not in self._records:
            raise LocalProtocolError(f"gate {gate.name} is not prepared, or what it writes would be written twice")
        self._check(place)
        return self._records.pop(gate.name)

    def over(self, gate: Gate) -> None:
        """Let go of a gate's segment if this was the last gate of it that had to be evaluated."""
        place = self._place[gate.name]
        self._left[place] -= 1
        if not self._left[place]:
            self._arrivals.release(place)

    def _prepare_next(self, prepare: Prepare) -> None:
        number = self.ready
        try:
            for gate in self._segments[number].gates:
                self._records[gate.name] = prepare(gate)
        except Exception:
            self._check(number)  # says first if what was dealt was altered
            raise
        self.ready += 1

    def _check(self, number: int) -> None:
        while self._checked <= number:
            self._arrivals.check(self._checked)
            self._checked += 1
