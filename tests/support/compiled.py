"""What numba still compiles after a warm-up: `python -m tests.support.compiled FOLDER`, in a fresh process.

Writes FOLDER/new, a line for each kernel and array type that a run met first: none if `mpc.interpret.warmup` met them
all.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.dispatcher import Dispatcher

from mpc import kernels
from mpc.fixedpoint import encode
from mpc.interpret.warmup import warm_up
from tests.support.case import Case
from tests.support.cases import CASES
from tests.support.parties import InProcess, data
from tests.support.vectors import every_gate
from tests.support.worlds import make_world

PUBLIC = {name: kernel for name in kernels.__all__ if isinstance(kernel := getattr(kernels, name), Dispatcher)}


def met() -> set[str]:
    """Every kernel with every type it was called with so far, in this process."""
    return {f"{name}{signature}" for name, kernel in PUBLIC.items() for signature in kernel.signatures}


def run_cases() -> None:
    for name in sorted(CASES):

        @settings(max_examples=15, deadline=None, derandomize=True, database=None)
        @given(case=CASES[name], parties=st.sampled_from([2, 3]), seed=st.integers(0, 1 << 30))
        def attempt(case: Case, parties: int, seed: int) -> None:
            plan = case.builder.build()
            world = make_world(plan, {g.out: case.values(g.out, 1, seed) for g in plan.weights}, parties, seed)
            for batch in (1, 9):
                world.run(case.inputs(batch, seed), batch)

        attempt()


def run_every_gate() -> None:
    plan = every_gate()
    weights = {gate.out: np.ones(plan.wire[gate.out].sizes, dtype=np.int64) for gate in plan.weights}
    for parties in (2, 3):
        world = make_world(plan, weights, parties)
        for batch in (1, 9, 1):
            world.run({"x": np.ones((batch, 2, 2), dtype=np.int64)}, batch)


def run_cluster(folder: Path) -> None:
    with InProcess(folder, 2) as cluster:
        session = cluster.session()
        (given,) = session.plan.inputs
        for batch in (1, 8):
            integers = encode(data(batch), session.plan.wire[given.wire].scale)
            session.run({given.wire: integers}, batch, time.perf_counter)
        session.close()


def main() -> None:
    folder = Path(sys.argv[1])
    warm_up()
    warmed = met()
    missed = [name for name, kernel in PUBLIC.items() if not kernel.signatures]
    run_cases()
    run_every_gate()
    run_cluster(folder / "cluster")
    (folder / "new").write_text("".join(f"{each}\n" for each in sorted(missed) + sorted(met() - warmed)))


if __name__ == "__main__":
    main()
