"""So many lines of one kind in so much time: who can make this process write cannot fill its disk."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass


@dataclass
class _Window:
    since: float
    written: int = 0
    left_out: int = 0


class Ration:
    """At most `most` of each kind in any `seconds`.  Thread-safe.

    Args:
        kinds: how many kinds are told apart; of more, the one that was seen longest ago is forgotten.
        clock: monotonic seconds.
    """

    def __init__(
        self, most: int = 20, seconds: float = 60.0, kinds: int = 256, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._seconds, self._kinds, self._clock = most, seconds, kinds, clock
        self._windows: OrderedDict[Hashable, _Window] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, kind: Hashable) -> int | None:
        """Ask for one more of a kind: how many were left out before it, or None if it is to be left out itself."""
        with self._lock:
            now = self._clock()
            window = self._windows.setdefault(kind, _Window(now))
            self._windows.move_to_end(kind)
            while len(self._windows) > self._kinds:
                self._windows.popitem(last=False)
            if now - window.since >= self._seconds:
                window.since, window.written = now, 0
            if window.written >= self._most:
                window.left_out += 1
                return None
            window.written += 1
            left_out, window.left_out = window.left_out, 0
            return left_out
