"""The runs of one session that can still be asked for."""

from __future__ import annotations

import time
from collections.abc import Callable

from mpc.errors import PlanError, SessionError
from parties.party.life import SessionLife
from parties.party.run import Run

_KEPT_RUNS = 8
"""Runs whose outputs can still be fetched."""
_LOOKED_AT = 0.05
"""Seconds between two looks at a run that is being dealt."""


class Runs:
    """Runs by number, guarded by their session's lock.

    Args:
        give: gives back the memory of runs that are over, in bytes.
    """

    def __init__(self, life: SessionLife, give: Callable[[int], None]) -> None:
        self.kept: dict[int, Run] = {}
        self._life, self._lock, self._give = life, life.lock, give

    @property
    def latest(self) -> int:
        """The last run that was prepared; 0 if none was."""
        with self._lock:
            return max(self.kept, default=0)

    def get(self, number: int) -> Run:
        """A run that was prepared; `SessionError` if it was not, or is long over."""
        with self._lock:
            if number not in self.kept:
                raise SessionError(f"run {number} is not prepared, or is over")
            return self.kept[number]

    def await_whole(self, number: int, seconds: float) -> None:
        """Wait until all of a run is here and prepared: what a window did not hold comes while it computes.

        Raises:
            PlanError: it is not begun in so many seconds; nothing else is wrong with the session.
        """
        deadline = time.monotonic() + seconds
        with self._life.changed:
            while (run := self.kept.get(number)) is not None and not run.whole:
                self._life.require_open()
                if time.monotonic() >= deadline and not run.started:  # one that computes has deadlines of its own
                    raise PlanError(
                        f"run {number + 1} is to be prepared while run {number} is still being dealt",
                        cause="a run that needs more than limits.max_window_bytes is dealt while it computes",
                        remedy=f"prepare it when run {number} is over",
                    )
                self._life.changed.wait(_LOOKED_AT)

    def add(self, run: Run) -> None:
        """Take a run that is prepared."""
        with self._lock:
            self.kept[run.number] = run
            self._life.changed.notify_all()

    def shrink_done(self, number: int) -> None:
        """Give back the memory of runs that are over; recipients may still fetch the latest ones' outputs."""
        with self._lock:
            for run in [run for run in self.kept.values() if run.done.is_set()]:
                self._give(run.shrink())
                if run.number < number - _KEPT_RUNS:
                    del self.kept[run.number]

    def end(self) -> None:
        """The session has ended: nobody waits any longer."""
        with self._lock:
            for run in self.kept.values():
                run.done.set()
