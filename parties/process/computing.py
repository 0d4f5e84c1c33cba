"""Threads of a daemon that compute at one time."""

from __future__ import annotations

import numpy as np  # noqa: F401 - BLAS comes with it
from threadpoolctl import threadpool_limits

from mpc.kernels import cores
from parties import machine


def use_cores(threads: int | None) -> int:
    """Have so many threads compute at one time, or as many as there are cores; return how many.

    The products of BLAS are cut into blocks as all else is (`mpc/kernels/cores.py`), so it has no threads of its own:
    they would wait actively, and take cores from each other's products.
    """
    count = machine.cores() if threads is None else threads
    threadpool_limits(limits=1, user_api="blas")
    cores.use_threads(count)
    return count
