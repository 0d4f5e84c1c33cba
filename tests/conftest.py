"""Hypothesis profiles: the usual one repeats exactly, MPC_FULL=1 explores.  Time limits of tests know the machine.

Tests run in random order, and the last lines say how to have that order again.  Modules that take longest come first,
in random order too: at the end no worker waits for another one's last module.

Temporary files lie in memory where there is enough of it: on a disk, ledgers and certificates would be waited for tens
of thousands of times.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from parties.client.compiling.cache import OFF, VARIABLE
from parties.client.training import courses
from parties.process.heap import loading
from tests.support.compiled_once import compiled_once
from tests.support.effort import FULL, patient
from tests.support.logs import log, logs_as_they_were, written

__all__ = ["log", "logs_as_they_were", "written"]  # fixtures of every test

LONGEST = {
    "attack/test_bands_that_lie.py",
    "attack/test_clients.py",
    "attack/test_faults.py",
    "attack/test_fuzz.py",
    "attack/test_kept.py",
    "attack/test_one_certificate.py",
    "attack/test_peers.py",
    "attack/test_segments.py",
    "attack/test_starvation.py",
    "attack/test_stock.py",
    "attack/test_ways.py",
    "cli/test_bench.py",
    "cli/test_cluster.py",
    "cli/test_examples.py",
    "cli/test_interrupts.py",
    "cli/test_manners.py",
    "cli/test_paths.py",
    "cli/test_train.py",
    "gates/test_every_gate.py",
    "onnx_nodes/test_table.py",
    "parties/test_collections.py",
    "parties/test_coordinating.py",
    "parties/test_heap.py",
    "parties/test_inference.py",
    "parties/test_kept_objects.py",
    "parties/test_large_collections.py",
    "parties/test_launcher.py",
    "parties/test_limits.py",
    "parties/test_lives.py",
    "parties/test_owners.py",
    "parties/test_public_weights.py",
    "parties/test_trainer.py",
    "parties/test_training_at_rest.py",
    "parties/test_who_is_late.py",
    "sim/test_links.py",
    "unit/test_warmup.py",
}
"""Modules of more than some twenty seconds, in which they compute or wait."""
MEMORY = Path("/dev/shm")
"""Where Linux has files that lie in memory."""
MEMORY_BYTES = 4 << 30
"""Free bytes there from which on tests use it; a run of all of them leaves less than a tenth of that."""
TEMPORARY = "PYTEST_DEBUG_TEMPROOT"
"""pytest's variable for the folder below which it makes temporary ones."""
_MADE: list[Path] = []
"""The folder below which this process has made temporary ones."""
_HERE = Path(__file__).parent
_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]

settings.register_profile("repeatable", deadline=None, derandomize=True, database=None, suppress_health_check=_QUIET)
settings.register_profile("exploring", deadline=None, print_blob=True, suppress_health_check=_QUIET)
settings.load_profile("exploring" if FULL else "repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """Take interrupts, which the background job of a shell ignores, as would all its children; seeding is ours."""
    config.option.randomly_reset_seed = False
    if TEMPORARY not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES:
        os.environ[TEMPORARY] = str(MEMORY)
    os.environ[VARIABLE] = OFF  # what tests compile they compile, whatever was compiled before
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest modules first; pytest-timeout's limits, multiplied: the nearest mark of a test, or the limit of all.

    And no test's name has an address in memory: workers that run side by side must know each test by one name.
    """
    longest = {_HERE / name for name in LONGEST}
    if not all(path.is_file() for path in longest):
        raise pytest.UsageError("LONGEST in tests/conftest.py names a module that is not there")
    items.sort(key=lambda item: item.path not in longest)  # keeps the order of either kind
    usual = float(config.getini("timeout"))
    for item in items:
        if " at 0x" in item.nodeid:
            raise pytest.UsageError(f"{item.nodeid} has another name in each process: give its parameters ids")
        mark = item.get_closest_marker("timeout")
        limit = float(mark.args[0]) if mark and mark.args else usual
        item.add_marker(pytest.mark.timeout(patient(limit)), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while tests are collected, nor later among the million objects that this makes.

    A quarter of the time of collecting would go there, and each collection of garbage in a test would take a third of a
    second: some tests do dozens.
    """
    with loading():
        return (yield)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(exitstatus: int) -> None:
    """Leave nothing in memory behind a run without a failure; the folder of one with failures is there to be read."""
    if exitstatus == 0 and os.environ.get(TEMPORARY) == str(MEMORY):
        for folder in _MADE:
            shutil.rmtree(folder, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The order's seed, which -q leaves out."""
    if config.getoption("randomly_reorganize", False):
        seed = config.getoption("randomly_seed")
        terminalreporter.write_line(f"The order was random: scripts/test --randomly-seed={seed} FILE repeats it.")


@pytest.fixture(scope="session", autouse=True)
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Put what this process and its children make for a while below pytest's own folder, which goes with later runs.

    Whoever is killed cleans nothing up: clusters of `Cluster.local()`, processes that a test kills, a whole run.
    """
    _MADE.append(tmp_path_factory.getbasetemp())
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def trainings_are_compiled_once() -> Iterator[None]:
    """Have clients of all tests that train alike compile once; with MPC_FULL=1 each compiles."""
    with pytest.MonkeyPatch.context() as patch:
        if not FULL:
            patch.setattr(courses, "compile_training", compiled_once(courses.compile_training))
        yield


_BEGINNINGS: dict[str, Any] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Have libraries that draw from numpy's global generator draw alike in every run: a forest of scikit-learn does.

    One run in hundreds would else grow trees whose votes are even, where rounding decides in float32.
    """
    if not FULL:
        np.random.seed(0)


@pytest.fixture(autouse=True)
def draws_of_its_own(request: pytest.FixtureRequest) -> None:
    """Have each test draw from its module's generator as if it were the first: their order decides nothing."""
    generator = getattr(request.module, "RNG", None)
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = _BEGINNINGS.setdefault(request.module.__name__, generator.bit_generator.state)
