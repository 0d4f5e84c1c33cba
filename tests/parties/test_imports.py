"""What each process imports before it does anything: nothing that only others use."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Set
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.effort import patient

ROOT = Path(__file__).parents[2]
COMMAND = """
import sys
from parties.cli import cli
command = cli.get_command(None, "{name}")
"""
DAEMON = """
import sys
from parties.cli import serve
from parties.{name} import daemon
class Begins(Exception):
    pass
def begin(*_):
    raise Begins
daemon.begin = begin
try:
    daemon.run_{name}(None)
except Begins:
    pass
"""
SDK = """
import sys
import parties
parties.{name}
"""
COMPILES = {"mpc.compiler.compile", "mpc.compiler.lowering", "onnx"}
COMPUTES = {"mpc.interpret.dealer", "mpc.interpret.party", "numba", "scipy"}
LOGS = {"parties.telemetry", "prometheus_client", "structlog"}
CLIENT = {"parties.client.channels", "parties.client.cluster", "parties.client.running.participant"}
PARTY = {"parties.party.ledger.sessions", "parties.party.node", "parties.party.stock.shelf", "parties.party.supply"}
PROVIDER = {"parties.provider.public_weights", "parties.provider.service"}
SERVES = PARTY | PROVIDER | {"grpc_health.v1.health", "parties.process.life", "parties.wire.server"}
LATER = {"psutil", "tomli_w"}
"""Imported by whoever starts processes or writes a configuration, when they do."""
TALKS = {"grpc", "parties.pb", "parties.wire"}
TESTS = {"mpc.interpret.reference", "mpc.interpret.warmup", "mpc.interpret.world"}


def imported(program: str, known: Set[str] = frozenset()) -> set[str]:
    """Every module of a new process at the end of a program, but for packages that are known."""
    program += "\nprint('modules:', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=patient(60), check=False
    )
    assert done.returncode == 0, done.stderr
    names = done.stdout.rpartition("modules:")[2].split()
    return {name for name in names if name.split(".")[0] not in known}


@pytest.mark.parametrize(
    ("program", "name", "without"),
    [
        (COMMAND, "ps", LATER | COMPILES | COMPUTES | LOGS | SERVES | TALKS | TESTS | {"mpc.gates", "numpy"}),
        (COMMAND, "run", LATER | COMPUTES | LOGS | SERVES | TESTS | {"rich", "onnx.reference"}),
        (COMMAND, "join", LATER | COMPILES | COMPUTES | LOGS | SERVES | TESTS | {"rich"}),
        (SDK, "Cluster", LATER | COMPILES | COMPUTES | LOGS | SERVES | TESTS | {"click", "rich"}),
        (DAEMON, "party", LATER | COMPILES | TESTS | CLIENT | PROVIDER | {"mpc.interpret.dealer", "numba"}),
        (DAEMON, "provider", LATER | COMPILES | TESTS | CLIENT | PARTY | {"numba"}),
    ],
    ids=["mpc ps", "mpc run", "mpc join", "the SDK", "a party", "the provider"],
)
def test_a_process_imports_what_it_uses(program: str, name: str, without: set[str]) -> None:
    assert all(find_spec(module) for module in without)
    assert without & imported(program.format(name=name)) == set()


def test_help_imports_the_command_line_alone() -> None:
    program = "import sys\nfrom parties.cli import cli\ncli.main(['--help'], standalone_mode=False)"
    foreign = {name.split(".")[0] for name in imported(program, known=sys.stdlib_module_names)}
    assert {name for name in foreign if not name.startswith("_")} == {"click", "mpc", "parties"}  # _: installers' own
