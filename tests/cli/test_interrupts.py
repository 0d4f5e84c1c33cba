"""Ctrl-C in the first seconds of a command: whatever it is about to do, it ends quietly and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tests.support.parties import data, eventually, tiny_model
from tests.support.parties_commands import LONG, environment, start

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks at processes through /proc"),
]
RUN = ("run", "tiny.onnx", "--range", "-4:4", "--input", "x.npy", "--parties", "2")
DEFAULT = False


def handles(pid: int) -> bool:
    """Has the process a handler of its own for SIGINT?"""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGINT - 1) & 1)
    return DEFAULT


def turns(pid: int) -> Iterator[bool]:
    """Each time that it is asked: has the process's handling of SIGINT changed?"""
    before = handles(pid)
    while True:
        now = handles(pid)
        yield now != before
        before = now


def after_turns(count: int) -> Callable[[int, Path], Callable[[], bool]]:
    """Python takes SIGINT when it starts; the command gives it back with its first line (2), and takes it again when it
    is loaded (3), after which it loads what the sub-command needs."""

    def condition(pid: int, folder: Path) -> Callable[[], bool]:
        seen, changes = [0], turns(pid)

        def reached() -> bool:
            seen[0] += next(changes)
            return seen[0] >= count

        return reached

    return condition


def made(pattern: str) -> Callable[[int, Path], Callable[[], bool]]:
    """A file of the cluster is there."""

    def condition(pid: int, folder: Path) -> Callable[[], bool]:
        def reached() -> bool:
            time.sleep(0.001)  # whoever makes it needs the core
            return any(folder.glob(f"tmp/mpc-*/{pattern}"))

        return reached

    return condition


def left(folder: Path) -> list[int]:
    """Processes that have this folder for their temporary files."""
    found, mark = [], f"TMPDIR={folder / 'tmp'}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def at_once(condition: Callable[[], bool]) -> bool:
    """Wait without a pause: the moments are short."""
    end = time.monotonic() + LONG
    while not condition():
        if time.monotonic() > end:
            return False
    return True


def ended(process: subprocess.Popen[str], folder: Path) -> tuple[int, str]:
    """(status as a shell shows it, stderr) of an interrupted command that left nothing."""
    out, err = process.communicate(timeout=LONG)
    assert out == "" and "Traceback" not in err and "Error" not in err, err
    assert eventually(lambda: not left(folder), LONG), left(folder)
    assert not list(folder.glob("tmp/mpc-*"))
    return process.returncode if process.returncode >= 0 else 128 - process.returncode, err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model(tmp_path / "tiny.onnx")
    np.save(tmp_path / "x.npy", data(4))
    (tmp_path / "tmp").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(after_turns(2), id="first line"),
        pytest.param(after_turns(3), id="loaded"),
        pytest.param(made("ca"), id="certificates"),
        pytest.param(made("provider/pid"), id="first daemon"),
        pytest.param(made("party-1/pid"), id="last daemon"),
        pytest.param(made("*/data/ready"), id="first that serves"),
    ],
)
def test_an_early_interrupt(folder: Path, moment: Callable[[int, Path], Callable[[], bool]]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "parties", *RUN],
        cwd=folder,
        env=environment(TMPDIR=str(folder / "tmp")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert at_once(moment(process.pid, folder))
        os.kill(process.pid, signal.SIGINT)
        status, _ = ended(process, folder)
        assert status == 130
    finally:
        process.kill()
        process.communicate()


def test_an_interrupt_while_kernels_are_compiled(folder: Path) -> None:
    """The first line of output says so; who compiles ends too."""
    process = start(*RUN, folder=folder, TMPDIR=str(folder / "tmp"), MPC_KERNEL_CACHE=str(folder / "cache"))
    try:
        assert process.stderr is not None and "compiling the kernels" in process.stderr.readline()
        assert eventually(lambda: any(folder.glob("cache/*/.compiling")), LONG)  # it has begun
        assert len(left(folder)) == 2
        os.kill(process.pid, signal.SIGINT)
        status, err = ended(process, folder)
        assert status == 130 and "interrupted" in err
    finally:
        process.kill()
        process.communicate()


LOST = """
import os, signal, time
import click

class Cleaning:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass

@click.command()
def lost():
    Cleaning()
    time.sleep({seconds})
"""


def test_an_interrupt_that_a_destructor_swallows_comes_again(folder: Path) -> None:
    """Python prints what a destructor raises and goes on; the command ends all the same."""
    (folder / "lost.py").write_text(LOST.format(seconds=10 * LONG))
    code = "from parties import cli; cli.COMMANDS['lost'] = ('lost', 'lost', ''); cli.main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "lost"],
        cwd=folder,
        env=environment(TMPDIR=str(folder / "tmp")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        status, err = ended(process, folder)
        assert status == 130 and "interrupted" in err
    finally:
        process.kill()
        process.communicate()
