"""One certificate with the smallest role does what it can; somebody else goes on working (security.md 33)."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from parties.client.cluster import Cluster
from parties.client.running.coordinated import prepare
from parties.config.load import dump_toml, load
from parties.config.models import PartyConfig, PolicyConfig
from parties.local import launcher
from parties.local.layout import LocalLayout
from parties.local.processes import running
from tests.support.effort import patient
from tests.support.parties import data, id_of, tiny_answer, tiny_model
from tests.support.parties_commands import ROOT, environment

RANGE = {"x": (-4.0, 4.0)}
MALLORY, GOOD = "mallory", "coordinator"
MEMORY = 256 << 20
PLACES = 8 << 20
"""Bytes of messages that are being read, at most: some hundred calls, of 1 MiB each at worst, and few of them are."""
SLACK = 0.05
"""Seconds: what a machine with two cores needs to change between three processes of the cluster and two clients."""


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[LocalLayout]:
    """Two parties, where mallory may receive outputs and nothing else."""
    made = LocalLayout.create(tmp_path / ".mpc", parties=2, clients=(MALLORY,))
    policy = PolicyConfig(plans=("any",), coordinators=(GOOD,), owners=(GOOD,), recipients=(GOOD, MALLORY))
    for member in made.members[1:]:
        config = load(PartyConfig, member.config, environ={})
        limits = config.limits.model_copy(update={"max_memory_bytes": MEMORY, "max_kept_bytes": 0})
        member.config.write_text(dump_toml(config.model_copy(update={"policy": policy, "limits": limits})))
    launcher.start(made)
    yield made
    launcher.stop(made, grace=3)


@contextmanager
def attacking(layout: LocalLayout, session_id: bytes) -> Iterator[subprocess.Popen[str]]:
    """Mallory at work, in a process that leaves the processor to everybody else."""
    words = [sys.executable, "-m", "tests.support.mallory", str(layout.client_file(MALLORY)), session_id.hex()]
    process = subprocess.Popen(
        ["nice", "-n", "19", *words], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def resident(layout: LocalLayout) -> list[int]:
    pids = [running(member.folder) for member in layout.members[1:]]
    return [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") for pid in pids]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.timeout(400)
@pytest.mark.parametrize("turns", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_security_33_one_certificate_with_the_smallest_role_starves_nobody(
    layout: LocalLayout, tmp_path: Path, turns: int
) -> None:
    """The good client's median latency at most doubles, all of its runs are right, and memory has its limit.

    Turns with and without mallory alternate and are compared one by one: what else this machine does, it does in both.
    """
    model, x = tiny_model(tmp_path / "tiny.onnx"), data(1)
    expected = tiny_answer(x)
    with ExitStack() as stack:
        good = stack.enter_context(Cluster.connect(layout.cluster_file))
        shared = good.session(model, RANGE, recipients=MALLORY)  # the one in which mallory has a part
        stack.callback(shared.abandon)
        prepare(good.parties, shared.compiled.plan, id_of(shared), 1, 1, 0)[0].result()
        session = stack.enter_context(good.session(model, RANGE))

        def median(seconds: float) -> float:
            times, end = [], time.monotonic() + seconds
            while time.monotonic() < end or len(times) < 10:
                started = time.perf_counter()
                [y] = session.run(None, {"x": x})
                times.append(time.perf_counter() - started)
                assert np.abs(y - expected).max() < 1e-3
            return statistics.median(times)

        median(1)
        before = resident(layout)
        quiet, loud, most = [], [], before
        with attacking(layout, id_of(shared)) as mallory:
            for _ in range(turns):
                loud.append(median(1.0))
                most = [max(pair) for pair in zip(most, resident(layout), strict=True)]
                with good.session(model, RANGE) as another:  # a new session is opened meanwhile
                    assert np.abs(another.run(None, {"x": x})[0] - expected).max() < 1e-3
                mallory.send_signal(signal.SIGSTOP)
                quiet.append(median(0.5))
                mallory.send_signal(signal.SIGCONT)
            assert mallory.poll() is None
        worse = [under - 2 * usual for under, usual in zip(loud, quiet, strict=True)]
        assert statistics.median(worse) <= patient(SLACK), (loud, quiet)
        assert all(now - then < MEMORY + PLACES for then, now in zip(before, most, strict=True)), (before, most)
        print("latency", statistics.median(quiet), statistics.median(loud), "memory", before, most)
