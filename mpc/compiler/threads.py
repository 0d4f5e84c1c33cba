"""Threads of matrix products while something is compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def on_one_thread() -> Iterator[None]:
    """Have matrix products take one thread meanwhile: several of them wait for one another by spinning, which takes
    eight times as long where other processes want the cores.

    Libraries are looked for anew each time, in 0.6 ms: one may have been loaded since.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        yield
