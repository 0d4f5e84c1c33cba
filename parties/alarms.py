"""Do at a moment what is due unless something else comes first: one thread for all alarms of a process."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc

_FEW = 256


class Alarm:
    """One that is set; `cancel` lets go of what it would have called."""

    def __init__(self, owner: Alarms, ring: Callable[[], object]) -> None:
        self._owner, self.ring = owner, ring
        self.over = False

    def cancel(self) -> None:
        """It will not ring, unless it is ringing already."""
        self._owner.cancel(self)


class Alarms:
    """Calls functions at their time, in a thread that begins with the first; they must not wait.  Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Alarm]] = []
        self._numbers = self._cancelled = 0
        self._thread: threading.Thread | None = None
        self._wakes = float("inf")

    def set(self, seconds: float, ring: Callable[[], object]) -> Alarm:
        """Call `ring` in so many seconds."""
        alarm, when = Alarm(self, ring), time.monotonic() + seconds
        with self._changed:
            self._numbers += 1
            heapq.heappush(self._heap, (when, self._numbers, alarm))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="alarms", daemon=True)
                self._thread.start()
            if when < self._wakes:
                self._changed.notify()
        return alarm

    def cancel(self, alarm: Alarm) -> None:
        """Keep an alarm from ringing; nothing happens if it rings already."""
        with self._changed:
            if alarm.over:
                return
            alarm.over, alarm.ring = True, _nothing
            self._cancelled += 1
            if self._cancelled > max(_FEW, len(self._heap) // 2):
                self._heap = [entry for entry in self._heap if not entry[2].over]
                heapq.heapify(self._heap)
                self._cancelled = 0

    def _run(self) -> None:
        while True:
            ring = self._next()
            try:
                ring()
            except Exception as error:
                from parties import telemetry  # a client has no log, and nearly nobody gets here

                telemetry.logger().error("unexpected error in an alarm", exc_info=error)
            del ring  # it may hold what the next wait should not keep

    def _next(self) -> Callable[[], object]:
        with self._changed:
            while True:
                self._wakes = self._heap[0][0] if self._heap else float("inf")
                left = self._wakes - time.monotonic()
                if left > 0:
                    self._changed.wait(None if left == float("inf") else min(left, threading.TIMEOUT_MAX))
                    continue
                _, _, alarm = heapq.heappop(self._heap)
                if alarm.over:
                    self._cancelled -= 1
                    continue
                ring, alarm.ring, alarm.over = alarm.ring, _nothing, True
                self._wakes = 0.0  # this thread is awake, and looks at the heap before it sleeps again
                return ring


def _nothing() -> None:
    return None


ALARMS = Alarms()
"""The process's."""


@contextmanager
def ends_within(context: grpc.ServicerContext, seconds: float) -> Iterator[None]:
    """Cancel the call if the block takes longer: a caller that opens a stream and is silent holds a thread."""
    alarm = ALARMS.set(seconds, context.cancel)
    try:
        yield
    finally:
        alarm.cancel()


@contextmanager
def ends_behind(is_over: Callable[[], bool], context: grpc.ServicerContext, seconds: float) -> Iterator[None]:
    """End the call in this block when its session has been over for so many seconds, at least.

    A caller that asks something meanwhile is told what ended the session; one that does not hang up keeps no place.
    """
    alarms: list[Alarm] = []

    def look(was_over: bool) -> None:
        if was_over:
            context.cancel()
        else:
            over = is_over()
            alarms[:] = [ALARMS.set(seconds, lambda: look(over))]

    look(False)
    try:
        yield
    finally:
        alarms.pop().cancel()
