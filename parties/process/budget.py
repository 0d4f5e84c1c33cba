"""Share out the memory that all sessions of one process may take together."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mpc.errors import PlanError
from parties.config.models import Limits


class MemoryBudget:
    """Memory that all sessions of one process may take together, and each client's part of it.  Thread-safe."""

    def __init__(self, limits: Limits) -> None:
        self._limit, self._each = limits.memory, limits.memory_of_one
        self._taken = 0
        self._of = Counter[str]()
        self._lock = threading.Lock()

    def take(self, count: int, client: str = "") -> None:
        """Take so many bytes; raise PlanError if they are not left.

        client: whose they count as; nobody's where it is empty.
        """
        with self._lock:
            if client and self._of[client] + count > self._each < self._limit:
                raise PlanError(
                    f"the sessions and runs of {client} need more memory than those of one client may",
                    remedy="finish some first, use a smaller batch, or raise limits.max_memory_bytes_per_caller",
                )
            if self._taken + count > self._limit:
                raise PlanError(
                    "the sessions and runs that are open need more memory than the limit",
                    remedy="finish some first, use a smaller batch, or raise limits.max_memory_bytes",
                )
            self._taken += count
            self._of[client] += count

    def give(self, count: int, client: str = "") -> None:
        """Give so many bytes back, which were taken as this client's."""
        with self._lock:
            self._taken -= count
            self._of[client] -= count
            if not self._of[client]:
                del self._of[client]

    @contextmanager
    def growing(self) -> Iterator[Callable[[int], None]]:
        """Give a function that takes so many more bytes; all of them are given back when the block ends."""
        held = 0

        def take(count: int) -> None:
            nonlocal held
            self.take(count)
            held += count

        try:
            yield take
        finally:
            self.give(held)

    @property
    def taken(self) -> int:
        """Bytes granted now."""
        with self._lock:
            return self._taken
