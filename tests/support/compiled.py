"""What numba still compiles after a warm-up: `python -m tests.support.compiled FOLDER`, in a fresh process.

Writes FOLDER/new, a line for each kernel and array type that a run met first: none if `mpc.interpret.warmup` met them
all.
Writes FOLDER/dealing and FOLDER/evaluating, a line for each kernel that a provider and a party use.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.dispatcher import Dispatcher

from mpc import kernels
from mpc.fixedpoint import encode
from mpc.interpret import world
from mpc.interpret.warmup import warm_up
from tests.support.case import Case
from tests.support.cases import CASES
from tests.support.parties import InProcess, data
from tests.support.vectors import every_gate
from tests.support.worlds import make_world

PUBLIC = {name: kernel for name in kernels.__all__ if isinstance(kernel := kernels.loop(name), Dispatcher)}


def met() -> set[str]:
    """Every kernel with every type it was called with so far, in this process."""
    return {f"{name}{signature}" for name, kernel in PUBLIC.items() for signature in kernel.signatures}


def watch(used: dict[str, set[str]]) -> None:
    """Note from now on which kernels are used in dealing and which in preparing and evaluating."""
    roles = [""]

    def within(role: str, name: str, holder: object) -> None:
        function = getattr(holder, name)

        def call(*arguments: object, **named: object) -> object:
            roles.append(role)
            try:
                return function(*arguments, **named)
            finally:
                roles.pop()

        setattr(holder, name, call)

    def noted(name: str, kernel: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            used.setdefault(roles[-1], set()).add(name)
            return kernel(*arguments)

        return call

    within("dealing", "deal", world)
    within("evaluating", "prepare", world.PartyRun)
    within("evaluating", "exchange", world.World)
    for name in PUBLIC:
        setattr(kernels, name, noted(name, getattr(kernels, name)))


def run_cases() -> None:
    for name in sorted(CASES):

        @settings(max_examples=15, deadline=None, derandomize=True, database=None)
        @given(case=CASES[name], parties=st.sampled_from([2, 3]), seed=st.integers(0, 1 << 30))
        def attempt(case: Case, parties: int, seed: int) -> None:
            plan = case.builder.build()
            weights = {g.out: case.values(g.out, 1, seed) for g in plan.weights}
            for checked in (False, True):
                made = make_world(plan, weights, parties, seed, checked)
                for batch in (1, 9):
                    made.run(case.inputs(batch, seed), batch)

        attempt()


def run_every_gate() -> None:
    plan = every_gate()
    weights = {gate.out: np.ones(plan.wire[gate.out].sizes, dtype=np.int64) for gate in plan.weights}
    for parties in (2, 3):
        made = make_world(plan, weights, parties)
        for batch in (1, 9, 1):
            made.run({"x": np.ones((batch, 2, 2), dtype=np.int64)}, batch)


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
    used: dict[str, set[str]] = {}
    watch(used)
    run_cases()
    run_every_gate()
    for role in ("dealing", "evaluating"):
        (folder / role).write_text("".join(f"{name}\n" for name in sorted(used[role])))
    run_cluster(folder / "cluster")
    (folder / "new").write_text("".join(f"{each}\n" for each in sorted(missed) + sorted(met() - warmed)))


if __name__ == "__main__":
    main()
