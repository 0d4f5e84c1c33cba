"""Starting and stopping a local cluster's daemons, which are those of a real deployment.

A foreground cluster must not outlive its launcher, even one that is killed: every daemon holds
the read end of a pipe whose only writer is the launcher, and ends when the kernel closes it
(prctl's PDEATHSIG is Linux only, and follows the parent's thread).  A detached cluster has no
pipe.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mpc.errors import ConfigError
from parties.addresses import Endpoint
from parties.config.load import load
from parties.config.models import PartyConfig, ProviderConfig
from parties.disk import write_atomic
from parties.local import warming
from parties.local.layout import LocalLayout, Member, Role, refuse_running
from parties.local.processes import birth_of, children, is_frozen, pid_file, present, record_of, running, signal_group
from parties.process.lifeline import PARENT_PIPE, READY

_POLL = 0.05  # seconds
_COMPILING = 10
"""How many times as long daemons take to start where nothing that was compiled can be kept."""
# Settings that tell one process from another: from the user's environment they would hit all alike.
_PER_PROCESS = ("NAME", "LISTEN", "DATA_DIR", "TLS_", "PROVIDER_", "PEERS", "PARTIES", "POLICY_", "METRICS")

Command = Callable[[Member], list[str]]
State = Literal["serving", "not serving", "starting", "frozen", "died", "stopped"]
_lifelines: dict[Path, int] = {}  # write ends, by layout folder; closing one ends its cluster


@dataclass(frozen=True)
class MemberStatus:
    """A daemon's state, and its uptime in seconds.

    It is serving, not serving (it runs, and says why it does not), starting, frozen (a signal has stopped it: it is
    there and answers nothing), died (it left its pid file) or stopped.

    Args:
        note: what it says is wrong with it, or that it says nothing, if it was asked.
    """

    name: str
    role: Role
    pid: int | None
    address: Endpoint
    state: State
    uptime: float | None
    note: str = ""


def daemon_command(member: Member) -> list[str]:
    """Return the command that starts a daemon."""
    # -P: a file in the user's working directory must not stand in for a module of a daemon.
    return [sys.executable, "-P", "-m", "parties.cli", member.role, "serve", "--config", str(member.config)]


def start(
    layout: LocalLayout,
    *,
    detach: bool = False,
    deadline: float = 60,
    command: Command = daemon_command,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Start every daemon and wait, at most `deadline` seconds, until all of them serve.

    What they need compiled is compiled before, which does not count; `say` is told of it.  A daemon says that it
    serves with `announce_ready`; a probe of its port would only log a failed TLS handshake.
    If one fails, or the wait is interrupted, all are stopped.  Raises ConfigError.
    """
    refuse_running(layout)
    if not warming.warm(say):
        deadline *= _COMPILING
    _cut_lifeline(layout)  # of an earlier start, all of whose daemons are gone
    reader, writer = (None, None) if detach else os.pipe()
    if writer is not None:
        _lifelines[layout.folder] = writer
    try:
        cores = spread(layout.members)
        for member in layout.members:
            spawn(member, command(member), reader, cores.get(member.name, frozenset()))
        await_ready(layout, deadline)
    except BaseException:
        stop(layout, grace=2)
        raise
    finally:
        if reader is not None:
            os.close(reader)
        if layout.ports is not None:
            layout.ports.release()


def revive(
    layout: LocalLayout,
    *,
    deadline: float = 60,
    command: Command = daemon_command,
    say: Callable[[str], None] = lambda text: None,
) -> list[str]:
    """Start those daemons of a detached cluster that have ended while others run; return their names once all serve.

    Those that run go on.  If one that is started fails, only those that were started are stopped.  Raises ConfigError.
    """
    if not warming.warm(say):
        deadline *= _COMPILING
    cores, ended = spread(layout.members), [member for member in layout.members if not running(member.folder)]
    try:
        for member in ended:
            spawn(member, command(member), None, cores.get(member.name, frozenset()))
        await_ready(layout, deadline)
    except BaseException:
        for member in ended:
            if pid := running(member.folder):
                signal_group(pid, signal.SIGKILL)
        raise
    return [member.name for member in ended]


def spread(members: Sequence[Member], available: Collection[int] | None = None) -> dict[str, frozenset[int]]:
    """Choose the cores of this process that each party is bound to, as evenly as can be.

    Parties hand every message from thread to thread.  On cores of their own that is done in half the time it takes when
    the system moves threads about between parties.  The provider, which works at other times, may use all.
    """
    if available is None:
        available = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    names, cores = [member.name for member in members if member.role == "party"], sorted(available)
    if len(cores) < 2:
        return {}
    share = len(cores) // len(names)
    if not share:
        return {name: frozenset({cores[index % len(cores)]}) for index, name in enumerate(names)}
    return {name: frozenset(cores[index * share : (index + 1) * share]) for index, name in enumerate(names)}


def stop(layout: LocalLayout, grace: float = 10) -> list[str]:
    """Stop every daemon with SIGTERM, after `grace` seconds with SIGKILL; return the names of those that were stopped.
    Nothing running is no error.  One that is frozen is let go on, to end as the others do."""
    alive = {member.name: pid for member in layout.members if (pid := running(member.folder))}
    for pid in alive.values():
        signal_group(pid, signal.SIGTERM)
        signal_group(pid, signal.SIGCONT)
    end = time.monotonic() + grace
    left = [member for member in layout.members if member.name in alive]
    while left and time.monotonic() < end:
        time.sleep(_POLL)
        left = [member for member in left if running(member.folder)]
    for member in left:
        if pid := running(member.folder):
            signal_group(pid, signal.SIGKILL)
    while any(running(member.folder) for member in left):
        time.sleep(_POLL)
    for member in layout.members:
        pid_file(member.folder).unlink(missing_ok=True)
        with suppress(OSError):  # a disk that is read-only; what stays there is another process's, and says nothing
            (member.data_dir / READY).unlink(missing_ok=True)
    _cut_lifeline(layout)
    return list(alive)


def status(layout: LocalLayout) -> list[MemberStatus]:
    """Return one line for each daemon, the provider first."""
    return [_status(member) for member in layout.members]


def _status(member: Member) -> MemberStatus:
    found = present(member.folder)
    if found is None:
        left = record_of(member.folder)
        return MemberStatus(member.name, member.role, None, member.address, "died" if left else "stopped", None)
    pid, uptime = found.pid, max(0.0, time.time() - found.started)
    state: State = "frozen" if is_frozen(pid) else "serving" if _is_ready(member, pid) else "starting"
    return MemberStatus(member.name, member.role, pid, member.address, state, uptime)


def _cut_lifeline(layout: LocalLayout) -> None:
    if (writer := _lifelines.pop(layout.folder, None)) is not None:
        os.close(writer)


def spawn(member: Member, argv: list[str], reader: int | None, cores: frozenset[int] = frozenset()) -> None:
    """Start one daemon, without waiting until it serves.

    Args:
        reader: the launcher's pipe, with which the daemon ends; None for one that outlives its launcher.
        cores: that it may run on; all if there are none.
    """
    (member.data_dir / READY).unlink(missing_ok=True)
    if member.log.exists():
        member.log.replace(member.log.with_suffix(".1.jsonl"))  # the last start stays readable, older ones go
    environment, threads = _environment(member, os.environ, reader)
    log = os.open(member.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            pass_fds=() if reader is None else (reader,),
            start_new_session=True,  # Ctrl-C is for the launcher, which then stops the daemons in order
        )
    except OSError as error:
        raise ConfigError(
            f"{member.name} cannot be started", cause=f"{argv[0]}: {error.strerror}", local=True
        ) from None
    finally:
        os.close(log)
    children[child.pid] = child
    if threads is None or len(cores) >= threads:
        with suppress(OSError):  # it has ended already, or a container's cores have changed
            os.sched_setaffinity(child.pid, cores)
    record = {"pid": child.pid, "birth": birth_of(child.pid), "started": time.time()}
    write_atomic(pid_file(member.folder), json.dumps(record).encode())


def _environment(member: Member, environ: Mapping[str, str], reader: int | None) -> tuple[dict[str, str], int | None]:
    """Return a daemon's environment, and how many threads its config asks for; None if that is not said."""
    dropped = tuple(f"MPC_{prefix}" for prefix in _PER_PROCESS)
    kept = {name: value for name, value in environ.items() if not name.startswith(dropped) and name != PARENT_PIPE}
    child = warming.environment(kept)
    config = load(ProviderConfig if member.role == "provider" else PartyConfig, member.config, environ=child)
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        child[name] = "1"  # it has threads of its own: see `process/computing.py`
    if reader is not None:
        child[PARENT_PIPE] = str(reader)
    return child, config.threads


def await_ready(layout: LocalLayout, deadline: float) -> None:
    """Wait until every daemon serves.

    Raises:
        ConfigError: one stopped, or does not serve within so many seconds.
    """
    end = time.monotonic() + deadline
    waiting = list(layout.members)
    while waiting:
        for member in layout.members:
            if not (pid := running(member.folder)):
                raise ConfigError(
                    f"{member.name} stopped while starting", cause=_last_words(member), remedy=f"see {member.log}"
                )
            if member in waiting and _is_ready(member, pid):
                waiting.remove(member)
        if waiting and time.monotonic() > end:
            late = waiting[0]
            raise ConfigError(
                f"{late.name} did not serve within {deadline:g} s",
                cause=_last_words(late),
                remedy=f"see {late.log}; then try again",
            )
        time.sleep(_POLL if waiting else 0)


def _last_words(member: Member, lines: int = 10) -> str:
    text = member.log.read_bytes()[-16384:].decode("utf-8", "replace")
    return "\n".join(line[:500] for line in text.splitlines()[-lines:]) or "it wrote nothing to its log"


def _is_ready(member: Member, pid: int) -> bool:
    try:
        return (member.data_dir / READY).read_text() == f"{pid}\n"
    except OSError:
        return False


# --- the daemon's side ------------------------------------------------------------------
