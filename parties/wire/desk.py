"""Threads for calls of one kind, and every caller's share of them.

Calls of one kind share a desk, with threads of its own: the peers' streams, results that are waited for, health, and
all others never wait for each other.  A desk has `CALLERS` times the share of one caller, so one that takes all it can
leaves the others theirs.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from mpc.errors import SessionError

CALLERS = 4
"""Callers that may take all of their share at once before others wait."""


class Desk:
    """Threads for the calls of one kind, and each caller's share of them.  Thread-safe.

    Args:
        share: calls of one caller that are answered at once.
        callers: how many such shares there are threads for.
    """

    def __init__(self, name: str, share: int, callers: int = CALLERS) -> None:
        self.name, self.share = name, share
        self.threads = share * callers
        self.pool = ThreadPoolExecutor(self.threads, thread_name_prefix=f"rpc-{name}")
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def place(self, client: str) -> Iterator[None]:
        """Take one of the caller's places, for the time of a call.

        Raises:
            SessionError: it has taken all of them.
        """
        with self._lock:
            if self._taken[client] >= self.share:
                raise SessionError(
                    f"{self.share} calls of {client} are being answered, as many as there are at once ({self.name})",
                    cause="it has more sessions at work than this process allows, or does not hang up",
                    remedy="wait for some to end, or raise limits.max_sessions",
                )
            self._taken[client] += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken[client] -= 1
                if not self._taken[client]:
                    del self._taken[client]

    def taken(self, client: str) -> int:
        """Count the places that a caller has now."""
        with self._lock:
            return self._taken[client]

    def close(self) -> None:
        """Take no more calls; those that run go on."""
        self.pool.shutdown(wait=False, cancel_futures=True)
