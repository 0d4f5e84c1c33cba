"""Tell processes apart: a pid alone could by now be somebody else's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mpc.errors import ConfigError
from parties.process import lock

DATA = "data"
"""Name of a member's folder of data, beside its config."""
_ROUNDING = 2
"""Hundredths of a second by which two readings of one process's start may differ."""
_CLOCKS = 2.0
"""Seconds by which a process's start may be read later than it was: the machine's is known to a second."""

children: dict[int, subprocess.Popen[bytes]] = {}
"""Processes that this one started, so that they are reaped."""


@dataclass(frozen=True)
class Record:
    """A started daemon: `birth` tells its process from later ones with its pid; started in seconds since 1970."""

    pid: int
    birth: str
    started: float


def pid_file(folder: Path) -> Path:
    """Return the path of the file where a daemon's record is kept."""
    return folder / "pid"


def record_of(folder: Path) -> Record | None:
    """Read the record of a daemon that was started here; None if there was none, or it was stopped."""
    try:
        fields = json.loads(pid_file(folder).read_bytes())
        return Record(int(fields["pid"]), str(fields["birth"]), float(fields["started"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return Record(0, "", 0)  # damaged: someone was started here, and we must not guess whom to kill


def running(folder: Path) -> int | None:
    """Return the pid of the daemon that runs there; None if none does."""
    found = present(folder)
    return None if found is None else found.pid


def present(folder: Path) -> Record | None:
    """Return the record of the daemon that runs there, whoever started it; None if none does.

    That is the process that we started, and not a later one of its number, or one that has the folder of data.
    """
    record = record_of(folder)
    if record is None or record.pid <= 1:
        return _by_hand(folder / DATA)
    birth = birth_of(record.pid)
    if birth is None and (child := children.pop(record.pid, None)):
        child.wait()  # it is dead already; this takes the zombie away
    return record if birth is not None and are_one(birth, record.birth) else _by_hand(folder / DATA)


def _by_hand(data_dir: Path) -> Record | None:
    """Return a record of the daemon that has a folder of data, which somebody has started with `serve`."""
    found = lock.holder(data_dir)
    if found is None:
        return None
    import psutil

    pid, written = found
    birth = birth_of(pid)
    try:
        started = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None
    # whoever has the lock began before it wrote its number there: another process of that number began later
    return Record(pid, birth, started) if birth is not None and started <= written + _CLOCKS else None


def is_frozen(pid: int) -> bool:
    """Has a signal stopped this process, so that it does nothing until SIGCONT?  No, if it is dead."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


def let_go_on(*pids: int) -> str:
    """Return the command that has frozen processes go on."""
    return f"kill -CONT {' '.join(map(str, pids))}"


def birth_of(pid: int) -> str | None:
    """Tell this process from others that had or will have its pid; None if it is dead.

    Two births are compared by `are_one`.  It is the machine's start, if that has a name, and in hundredths of a second
    when the process started: since the machine did, and since 1970.
    """
    import psutil  # a tenth of a second on a cold disk, which most commands spare

    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        booted, created = psutil.boot_time(), process.create_time()
        while booted != (again := psutil.boot_time()):  # the clock was set while they were read
            booted, created = again, psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None
    return f"{_boot()}:{round(100 * (created - booted))}:{round(100 * created)}"


def are_one(birth: str, recorded: str) -> bool:
    """Tell whether two births are those of one process, though the clock was set in between.

    That moves the time since 1970 on Linux.  On macOS it moves the time since the machine's start, as psutil tells it
    to a process that began after the clock was set.  Each is compared to within a rounding, and one that is equal does.
    """
    ours, theirs = birth.split(":"), recorded.split(":")
    if ours[0] != theirs[0]:
        return False
    return any(
        theirs.lstrip("-").isdigit() and abs(int(ours) - int(theirs)) <= _ROUNDING
        for ours, theirs in zip(ours[1:], theirs[1:], strict=False)
    )


def _boot() -> str:
    """Name this start of the machine, where the system has a name for it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to a daemon and all that it started; that it is gone is no error.  Raise ConfigError if that is
    refused."""
    try:
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:  # somebody started it by hand, from a script perhaps, which is none of ours
            os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise ConfigError(
            f"process {pid} belongs to another user", remedy="stop the cluster as the user who started it"
        ) from None
