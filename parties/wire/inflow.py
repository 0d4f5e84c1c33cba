"""Wait for what another thread puts in: the lock, the wait, and three endings that are told apart.

* **closed**: nothing more will come, and all is in order;
* **failed**: an error ended it, and whoever waits is given that error;
* **late**: the one who waits had a deadline, and it has passed.

What has arrived before an ending can still be taken.  Whoever owns an `Inflow` keeps what arrives in fields of its own,
and touches them with `lock` held, for no longer than it takes to look or to copy: nothing is sent, written or called
back under it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from mpc.errors import DeadlineError, MpcError


def _late() -> MpcError:
    return DeadlineError("what was waited for did not come in time")


class Inflow:
    """One lock, and everything that is waited for under it.  Thread-safe."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.waiting = 0
        """Threads that wait now."""
        self._closed = False
        self._error: MpcError | None = None

    @property
    def over(self) -> bool:
        """True once the inflow was closed or has failed."""
        return self._closed or self._error is not None

    def wait(self, ready: Callable[[], bool], deadline: float = math.inf, late: Callable[[], MpcError] = _late) -> bool:
        """Wait until something is ready; call with the lock held.

        Args:
            ready: looks at what has arrived; it may raise.
            deadline: monotonic seconds.
            late: makes the error to be raised when the deadline has passed.

        Returns:
            True once it is ready, False if it was closed before.

        Raises:
            MpcError: a copy of the error that it has failed with; or what `late` made.
        """
        while not ready():
            self.check()
            if self._closed:
                return False
            left = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
            if not self._sleep(left) and not ready() and not self.over:
                raise late()
        return True

    def hold_back(self, early: Callable[[], bool]) -> None:
        """Hold back the thread that puts, while what it has is too early and nothing is over; with the lock held."""
        while early() and not self.over:
            self._sleep(None)

    def _sleep(self, seconds: float | None) -> bool:
        self.waiting += 1
        try:
            return self.lock.wait(seconds)
        finally:
            self.waiting -= 1

    def check(self) -> None:
        """Raise a copy of the error that the inflow has failed with, if it has."""
        if self._error is not None:
            raise self._error.again()

    def arrived(self) -> None:
        """Wake everybody who waits, since something is there; call with the lock held."""
        self.lock.notify_all()

    def close(self) -> None:
        """Say that nothing more will come, and that this is in order.  A failure stands."""
        with self.lock:
            self._closed = True
            self.lock.notify_all()

    def fail(self, error: MpcError) -> None:
        """Say what has ended the inflow.  The first error stands."""
        with self.lock:
            self._error = self._error or error.again()
            self.lock.notify_all()
