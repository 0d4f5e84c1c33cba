"""Threads of matrix products while something is compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def on_one_thread() -> Iterator[None]:
    """Have matrix products take one thread meanwhile: several of them wait for one another by spinning, which takes
    eight times as long where other processes want the cores.
    """
    with _controller().limit(limits=1, user_api="blas"):
        yield
