"""Share out the memory that all sessions of one process may take together."""

from __future__ import annotations

import threading

from mpc.errors import PlanError
from parties.config.models import Limits


class MemoryBudget:
    """Memory that all sessions of one process may take together.  Thread-safe."""

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.memory
        self._taken = 0
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Take so many bytes; raise PlanError if they are not left."""
        with self._lock:
            if self._taken + count > self._limit:
                raise PlanError(
                    "the sessions and runs that are open need more memory than the limit",
                    remedy="finish some first, use a smaller batch, or raise limits.max_memory_bytes",
                )
            self._taken += count

    def give(self, count: int) -> None:
        """Give so many bytes back."""
        with self._lock:
            self._taken -= count

    @property
    def taken(self) -> int:
        """Bytes granted now."""
        with self._lock:
            return self._taken
