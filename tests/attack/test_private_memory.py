"""security.md 37: what a process holds does not reach a disk or another process through a core dump or a debugger."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from parties.local import launcher
from parties.local.layout import LocalLayout
from parties.local.processes import birth_of, running
from tests.support.parties_commands import ROOT, environment, mpc

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl and /proc are Linux's")
GET_DUMPABLE = 3
REPORT = f"""
import ctypes, json, resource
print(json.dumps([ctypes.CDLL(None).prctl({GET_DUMPABLE}, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)]))
"""
DAEMON = (
    """
import sys
from pathlib import Path
from parties.party import daemon as party
from parties.provider import daemon as provider
from parties.config.models import PartyConfig, ProviderConfig
from parties.config.load import load
def serve(*_):
"""
    + "".join(f"    {line}\n" for line in REPORT.strip().splitlines())
    + """
party.serve_until_told = provider.serve_until_told = serve
role, path = sys.argv[1:]
if role == "party":
    party.run_party(load(PartyConfig, Path(path), environ={}))
else:
    provider.run_provider(load(ProviderConfig, Path(path), environ={}))
"""
)
COMMAND = """
import sys
from parties import cli
cli.cli.main = lambda words, **more: report()
def report():
""" + "".join(f"    {line}\n" for line in REPORT.strip().splitlines())


ALLOW_CORES = """
import resource
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
"""
"""A script does so itself: code between fork and exec, in a process that has used gRPC, may end in an abort."""


def told(script: str, *arguments: object) -> list:
    """What a script reports of itself."""
    command = [sys.executable, "-c", ALLOW_CORES + script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list = json.loads(done.stdout)
    return found


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[LocalLayout]:
    made = LocalLayout.create(tmp_path / ".mpc", parties=2)
    yield made
    launcher.stop(made, grace=5)


@LINUX
def test_security_37_daemons_and_commands_leave_no_core_dump_and_cannot_be_looked_into(layout: LocalLayout) -> None:
    assert told(REPORT)[0] == 1  # as a process is, if it does nothing about it
    provider, party, _ = layout.members
    for role, member in (("provider", provider), ("party", party)):
        assert told(DAEMON, role, member.config) == [0, [0, 0]]
    assert told(COMMAND + "cli.main()") == [0, [0, 0]]
    kept = told(COMMAND + "cli.main(['ps'])")  # called from somebody's own program: that one is theirs
    assert kept[0] == 1


@LINUX
def test_security_37_an_abort_writes_nothing(tmp_path: Path) -> None:
    script = "import os\nfrom parties.process.private_memory import keep_private\nkeep_private()\nos.abort()"
    process = subprocess.Popen(
        [sys.executable, "-c", ALLOW_CORES + script],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.DEVNULL,
    )
    _, status = os.waitpid(process.pid, 0)
    process.returncode = 0
    assert os.WTERMSIG(status) == signal.SIGABRT and not os.WCOREDUMP(status)
    assert not list(tmp_path.iterdir())


LOOK = """
import ctypes, os
import psutil  # while this process may still read its folder
from parties.local.processes import birth_of
from parties.process.private_memory import keep_private

def become_nobody():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)

for private in (False, True):
    (there, say_there), (wait, end) = os.pipe(), os.pipe()
    secretive = os.fork()
    if secretive == 0:
        become_nobody()
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # which a change of the user takes away
        if private:
            keep_private()
        os.write(say_there, b"x")
        os.read(wait, 1)
        os._exit(0)
    os.read(there, 1)
    looks = os.fork()
    if looks == 0:
        become_nobody()
        found = [birth_of(secretive) is not None]
        os.sched_setaffinity(secretive, os.sched_getaffinity(0))
        try:
            os.close(os.open(f"/proc/{secretive}/mem", os.O_RDONLY))
            found.append("read")
        except PermissionError:
            found.append("refused")
        os.kill(secretive, 0)
        print(*found, flush=True)
        os._exit(0)
    os.waitpid(looks, 0)
    os.write(end, b"x")
    os.waitpid(secretive, 0)
"""


@LINUX
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two processes of somebody else")
def test_security_37_another_process_of_the_same_user_reads_nothing() -> None:
    """Nor does the launcher need to: that it runs, since when, on which cores, and signals are no matter of memory."""
    command = [sys.executable, "-c", LOOK]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    open_to_look, private = done.stdout.splitlines()
    if open_to_look == "True refused":
        pytest.skip("this system lets nobody look into other processes")
    assert (open_to_look, private) == ("True read", "True refused"), done.stderr


def test_a_cluster_of_private_processes_is_started_seen_and_stopped(layout: LocalLayout) -> None:
    folder = layout.folder
    launcher.start(layout, detach=True)
    pids = [running(member.folder) for member in layout.members]
    assert all(pid is not None and birth_of(pid) for pid in pids)
    if sys.platform.startswith("linux"):
        for pid in pids:
            limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
            assert next(line for line in limits if line.startswith("Max core file size")).split()[4:6] == ["0", "0"]
    members = json.loads(mpc("ps", "--json", "--dir", folder).stdout)["members"]
    assert [member["state"] for member in members] == ["serving"] * 3
    assert mpc("down", "--dir", folder).returncode == 0
    assert not any(birth_of(pid) for pid in pids if pid)
