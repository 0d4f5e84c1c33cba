"""After a warm-up no run waits for a compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mpc import kernels
from tests.support.effort import patient

ROOT = Path(__file__).parents[2]


def run(module: str, *arguments: object, **environment: str) -> None:
    """A module in a process of its own, in which nothing was compiled yet."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=patient(110)
    )
    assert done.returncode == 0, done.stderr


def test_every_kernel_is_compiled_for_every_type_that_runs_give_it(tmp_path: Path) -> None:
    """Every gate on inputs and computed wires, among two and three parties, and a cluster's own encodings; and no
    daemon leaves out a kernel that its role uses, or loads what the other's alone does."""
    run("tests.support.compiled", tmp_path)
    assert (tmp_path / "new").read_text() == ""
    dealing, evaluating = ({*(tmp_path / role).read_text().split()} for role in ("dealing", "evaluating"))
    assert not kernels.EVALUATING & dealing and kernels.EVALUATING <= evaluating
    assert not kernels.DEALING & evaluating and kernels.DEALING <= dealing


@pytest.mark.slow
def test_a_run_adds_nothing_to_a_fresh_cache(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run("mpc.interpret.warmup", MPC_KERNEL_CACHE=str(cache))
    compiled = sorted(cache.rglob("*.nbc"))
    assert len(compiled) > 20
    run("tests.support.compiled", tmp_path, MPC_KERNEL_CACHE=str(cache))
    assert sorted(cache.rglob("*.nbc")) == compiled
