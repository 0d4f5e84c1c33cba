"""How many threads a daemon computes on: what its config says, wherever it is started, or the cores that it has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from parties import machine
from parties.config.load import load
from parties.config.models import ProviderConfig
from parties.local.layout import LocalLayout
from parties.machine import container_cores
from tests.support.effort import patient

DAEMON = """
import sys
from contextlib import ExitStack
from pathlib import Path
from threadpoolctl import threadpool_info
from mpc.kernels import cores
from parties import machine
from parties.config.load import load
from parties.config.models import ProviderConfig
from parties.process.life import begin
with ExitStack() as stack:
    begin(load(ProviderConfig, Path(sys.argv[1]), environ={}), stack)
    blas = {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}
    print(cores.threads(), blas, machine.cores())
"""


@pytest.mark.parametrize("threads", [3, None])
def test_a_config_reaches_the_pool_and_blas(tmp_path: Path, threads: int | None) -> None:
    """Without a launcher, and without environment variables that would say it to BLAS."""
    config = LocalLayout.create(tmp_path / "c", parties=2, threads=threads or 1).members[0].config
    if threads is None:
        config.write_text("".join(line for line in config.open() if not line.startswith("threads")))
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command = [sys.executable, "-c", DAEMON, str(config)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=patient(60))
    found, blas, available = done.stdout.splitlines()[-1].split()
    assert (found, blas) == (str(threads) if threads else available, "{1}")


@pytest.mark.parametrize(("available", "each"), [(1, 1), (2, 1), (7, 2), (16, 5)])
def test_daemons_of_one_machine_share_its_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, available: int, each: int
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: available)
    layout = LocalLayout.create(tmp_path / "c", parties=2)
    assert load(ProviderConfig, layout.members[0].config, environ={}).threads == each


def test_cores_are_those_that_it_may_run_on_or_fewer_in_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for share, expected in ((None, 8), (2.5, 2), (0.5, 1), (64.0, 8)):
        monkeypatch.setattr(machine, "container_cores", lambda share=share: share)
        assert machine.cores() == expected


def test_a_container_s_share_of_the_cores(tmp_path: Path) -> None:
    """By cgroup v2, where groups above count too, and by v1; "max" and -1 limit nothing."""
    groups, mounted = tmp_path / "cgroup", tmp_path / "fs"
    assert container_cores(groups, mounted) is None
    inner = mounted / "outer" / "inner"
    inner.mkdir(parents=True)
    groups.write_text("0::/outer/inner\n")
    (inner / "cpu.max").write_text("max 100000\n")
    assert container_cores(groups, mounted) is None
    (inner / "cpu.max").write_text("400000 100000\n")
    assert container_cores(groups, mounted) == 4
    (inner.parent / "cpu.max").write_text("150000 100000\n")
    assert container_cores(groups, mounted) == 1.5
    old = mounted / "cpu" / "box"
    old.mkdir(parents=True)
    groups.write_text("5:cpu,cpuacct:/box\n4:memory:/box\n")
    (old / "cpu.cfs_period_us").write_text("100000\n")
    (old / "cpu.cfs_quota_us").write_text("-1\n")
    assert container_cores(groups, mounted) is None
    (old / "cpu.cfs_quota_us").write_text("300000\n")
    assert container_cores(groups, mounted) == 3
