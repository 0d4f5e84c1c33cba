"""Threads of a daemon that compute at one time."""

from __future__ import annotations

import time

import numpy as np  # noqa: F401 - BLAS comes with it
from threadpoolctl import threadpool_limits

from mpc import prg
from mpc.kernels import cores
from parties import machine

_TRIED_WORDS = prg.GALOIS_LEAST // 2
_TRIES = 5


def use_cores(threads: int | None) -> int:
    """Have so many threads compute at one time, or as many as there are cores; return how many.

    The products of BLAS are cut into blocks as all else is (`mpc/kernels/cores.py`), so it has no threads of its own:
    they would wait actively, and take cores from each other's products.
    """
    count = machine.cores() if threads is None else threads
    threadpool_limits(limits=1, user_api="blas")
    cores.use_threads(count)
    prg.use_galois(count == 1 and _galois_is_faster())  # several threads begin where GCM cannot
    return count


def _galois_is_faster() -> bool:
    """Make a stream each way, by turns; a few tenths of a millisecond."""
    spent: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(_TRIES):
        for way, seconds in spent.items():
            prg.use_galois(way)
            started = time.thread_time()
            prg.expand_words(prg.Seed(bytes(prg.SEED_BYTES)), (_TRIED_WORDS,), 64)
            seconds.append(time.thread_time() - started)
    return min(spent[True]) < min(spent[False])
