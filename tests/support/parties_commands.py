"""The `mpc` command in a process of its own, as its users run it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from parties.client.compiling.cache import OFF, VARIABLE
from tests.support.effort import patient

ROOT = Path(__file__).parents[2]
LONG = patient(60.0)
"""Seconds; nothing here takes nearly as long unless it hangs."""


def environment(**more: str) -> dict[str, str]:
    """This process's, without anything that would change the command."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MPC_", "NO_COLOR", "PYTEST"))}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, "COLUMNS": "200", VARIABLE: OFF, **more}


def command(*words: object) -> list[str]:
    """argv."""
    return [sys.executable, "-P", "-m", "parties.cli", *map(str, words)]


def mpc(
    *words: object, folder: Path | None = None, seconds: float = LONG, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `mpc` to its end in `folder`."""
    return subprocess.run(
        command(*words),
        cwd=folder or ROOT,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=seconds,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@contextmanager
def signals_put_back() -> Iterator[None]:
    """Put back what this process did at signals that commands and daemons take."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def mpc_here(*words: object, folder: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `mpc` within this process: no second is spent on imports.  For commands that start nothing."""
    from parties.cli import main

    out, err = io.StringIO(), io.StringIO()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MPC_", "NO_COLOR"))}
    status: object = 0
    with ExitStack() as stack:
        stack.enter_context(
            mock.patch.dict(os.environ, {**kept, "COLUMNS": "200", VARIABLE: OFF, **variables}, clear=True)
        )
        stack.enter_context(chdir(folder or ROOT))
        stack.enter_context(signals_put_back())
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        try:
            main(list(map(str, words)))
        except SystemExit as ended:
            status = ended.code
    return subprocess.CompletedProcess(list(words), int(status or 0), out.getvalue(), err.getvalue())


def start(*words: object, folder: Path, **variables: str) -> subprocess.Popen[str]:
    """Start `mpc` and do not wait; a process group of its own, as a shell gives it."""
    return subprocess.Popen(
        command(*words),
        cwd=folder,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
