"""The cores of a process: work on many elements is cut into blocks, and several threads take them one after another.

All that is large goes through `in_blocks`: the compiled loops (`mpc.kernels.cutting` says along which axis each is
cut), products, expanding and dealing.

Where blocks begin and end follows from shapes and from the number of threads, which are public, and never from a value.
Blocks write to places of their own, and sums over them are exact: results are the same bits for any number of threads.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

LEAST_NANOSECONDS = 100_000
"""Make no block that takes less: handing one over to a thread that sleeps takes about a fifth of it."""
BLOCKS_A_THREAD = 4
"""So that a thread which the system holds up does not hold up all."""
GRAIN = 64
"""Elements by whose multiple a block begins: no two write to one line of a cache, or share a block of AES."""


@dataclass
class _Job:
    """Blocks that have not been begun, and what came of the others: (place, result, error)."""

    work: Callable[[int, int], Any]
    todo: deque[tuple[int, int, int]]
    done: SimpleQueue[tuple[int, Any, BaseException | None]] = field(default_factory=SimpleQueue)

    def take_all(self) -> None:
        """Take blocks until none is left."""
        while True:
            try:
                place, start, stop = self.todo.popleft()
            except IndexError:
                return
            try:
                self.done.put((place, self.work(start, stop), None))
            except BaseException as error:  # whoever waits for it raises it
                self.done.put((place, None, error))


class _Pool:
    """Threads that help those which call `in_blocks`: one fewer than may work, since the caller works too."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._helpers = [threading.Thread(target=self._help, name="kernels", daemon=True) for _ in range(threads - 1)]
        for helper in self._helpers:
            helper.start()

    def _help(self) -> None:
        _this_thread.within = True
        while (job := self._jobs.get()) is not None:
            job.take_all()

    def run(self, work: Callable[[int, int], T], size: int, step: int) -> list[T]:
        """Have all blocks of `step` elements done; return their results in order."""
        blocks = deque((place, start, min(start + step, size)) for place, start in enumerate(range(0, size, step)))
        job, count = _Job(work, blocks), len(blocks)
        for _ in range(min(count, self.threads) - 1):
            self._jobs.put(job)
        _this_thread.within = True
        try:
            job.take_all()
        finally:
            _this_thread.within = False
        found = sorted((job.done.get() for _ in range(count)), key=lambda each: each[0])
        for _, _, error in found:
            if error is not None:
                raise error
        return [result for _, result, _ in found]

    def end(self) -> None:
        """Have the threads end, and wait until they have."""
        for _ in self._helpers:
            self._jobs.put(None)
        for helper in self._helpers:
            helper.join()


_this_thread = threading.local()
"""`within`: a block is being done in it; what that cuts is not cut once more."""
_pool: _Pool | None = None


def use_threads(count: int) -> None:
    """Have so many threads of this process compute at one time, at most; 1 until then.  Nothing may be computing."""
    global _pool
    before, _pool = _pool, None
    if before is not None:
        before.end()
    if count > 1:
        _pool = _Pool(count)


def threads() -> int:
    """Return how many threads compute at one time, at most."""
    return 1 if _pool is None else _pool.threads


def in_blocks(work: Callable[[int, int], T], size: int, nanoseconds: float, grain: int = GRAIN) -> list[T]:
    """Call work(start, stop) for blocks that make up 0 .. size, on as many threads as may compute.

    What is small is done at once, in one block; so is what another block's work cuts.

    Args:
        work: writes to places of its own; what it computes depends on no other block.
        nanoseconds: about what an element takes.
        grain: blocks begin at multiples of it.

    Returns:
        The results of the blocks, in their order; raises what the first that failed has raised, when all are over.
    """
    pool = _pool
    if pool is None or size * nanoseconds < 2 * LEAST_NANOSECONDS or getattr(_this_thread, "within", False):
        return [work(0, size)]
    count = min(int(size * nanoseconds) // LEAST_NANOSECONDS, BLOCKS_A_THREAD * pool.threads)
    step = -(-size // (count * grain)) * grain
    return [work(0, size)] if step >= size else pool.run(work, size, step)
