"""The local cluster: a folder of configs and certificates, and the real daemons started from it.

    .mpc/ca/  provider/  party-0/ ... party-n-1/  coordinator/  cluster.toml

The daemons are those of a real deployment.  A foreground cluster must not outlive its launcher,
even one that is killed: every daemon holds the read end of a pipe whose only writer is the
launcher, and ends when the kernel closes it (prctl's PDEATHSIG is Linux only, and follows the
parent's thread).  A detached cluster has no pipe.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, Self

from mpc.errors import ConfigError, UsageError
from parties.certificates import CA_CERTIFICATE, CERTIFICATE, KEY, Identity, issue, make_ca, private_folder
from parties.config import (
    ClusterConfig,
    Endpoint,
    PartyConfig,
    Peer,
    PolicyConfig,
    ProviderConfig,
    ProviderPeer,
    TlsConfig,
    dump_toml,
    load,
    write_atomic,
)

Role = Literal["party", "provider"]
PROVIDER, COORDINATOR = "provider", "coordinator"
PARENT_PIPE = "MPC_PARENT_PIPE"
READY = "ready"
_POLL = 0.05  # seconds
_RENEW_BEFORE = timedelta(days=7)
# Settings that tell one process from another: from the user's environment they would hit all alike.
_PER_PROCESS = ("NAME", "LISTEN", "DATA_DIR", "TLS_", "PROVIDER_", "PEERS", "PARTIES", "POLICY_", "METRICS")

# --- the folder -------------------------------------------------------------------------


@dataclass(frozen=True)
class Member:
    """One daemon of the local cluster."""

    name: str
    role: Role
    folder: Path
    address: Endpoint

    @property
    def config(self) -> Path:
        return self.folder / "config.toml"

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "log.jsonl"


@dataclass(frozen=True)
class LocalLayout:
    """The provider first, then the parties in the roster's order."""

    folder: Path
    members: tuple[Member, ...]

    @property
    def cluster_file(self) -> Path:
        return self.folder / "cluster.toml"

    @classmethod
    def create(cls, folder: Path, parties: int = 3, base_port: int | None = None, threads: int = 1) -> Self:
        """Write (again) every config and missing certificate; ledgers and the CA of an older layout stay.

        base_port: the provider's port, the parties' follow; None lets the system pick free ones.
        """
        if parties < 2:
            raise UsageError(f"a cluster has at least 2 parties, not {parties}", remedy="--parties 2 or more")
        folder = folder.absolute()
        if (folder / "cluster.toml").exists():
            _refuse_running(cls.open(folder))
        names = [PROVIDER, *(f"party-{index}" for index in range(parties))]
        ports = _pick_ports(len(names), base_port)
        members = tuple(
            Member(name, "provider" if name == PROVIDER else "party", folder / name, Endpoint(f"127.0.0.1:{port}"))
            for name, port in zip(names, ports, strict=True)
        )
        if not (folder / "ca" / CA_CERTIFICATE).exists():
            make_ca(folder / "ca", "mpc-development-ca")
        for name in (*names, COORDINATOR):
            _certify(folder, name)
        layout = cls(folder, members)
        layout._write_configs(threads)
        return layout

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The layout an earlier `create` wrote; ConfigError if there is none."""
        folder = folder.absolute()
        cluster = load(ClusterConfig, folder / "cluster.toml", environ={})
        parties = (Member(peer.name, "party", folder / peer.name, peer.address) for peer in cluster.parties)
        provider = cluster.provider
        return cls(folder, (Member(provider.name, "provider", folder / provider.name, provider.address), *parties))

    def _write_configs(self, threads: int) -> None:
        provider = ProviderPeer(name=self.members[0].name, address=self.members[0].address)
        peers = tuple(Peer(name=member.name, address=member.address) for member in self.members[1:])
        everyone = (COORDINATOR,)
        policy = PolicyConfig(plans=("any",), coordinators=everyone, owners=everyone, recipients=everyone)
        for member in self.members:
            private_folder(member.data_dir)
            common = {
                "name": member.name,
                "listen": member.address,
                "data_dir": member.data_dir.name,
                "tls": {"ca": CA_CERTIFICATE, "certificate": CERTIFICATE, "key": KEY},
                "threads": threads,
            }
            if member.role == "provider":
                text = dump_toml(ProviderConfig.model_validate({**common, "parties": [peer.name for peer in peers]}))
            else:
                text = dump_toml(
                    PartyConfig.model_validate({**common, "provider": provider, "peers": peers, "policy": policy})
                )
            _write_config(member.config, text)
        own = Path(COORDINATOR)
        tls = TlsConfig(ca=own / CA_CERTIFICATE, certificate=own / CERTIFICATE, key=own / KEY)
        client = ClusterConfig(name=COORDINATOR, tls=tls, provider=provider, parties=peers)
        _write_config(self.cluster_file, dump_toml(client))


def _write_config(path: Path, text: str) -> None:
    write_atomic(path, f"# Written by `mpc up`, which will write it again.\n{text}".encode())


def _certify(folder: Path, name: str) -> None:
    own = folder / name
    tls = TlsConfig(ca=own / CA_CERTIFICATE, certificate=own / CERTIFICATE, key=own / KEY)
    with suppress(ConfigError):  # missing, expired, of another CA: whatever it is, a new one is the answer
        identity = Identity.load(tls, name)
        same_ca = identity.ca_pem == (folder / "ca" / CA_CERTIFICATE).read_bytes()
        if same_ca and identity.not_after - datetime.now(UTC) > _RENEW_BEFORE:
            return
    issue(folder / "ca", name, own)


def _pick_ports(count: int, base: int | None) -> list[int]:
    if base is not None and not 1024 <= base <= 65536 - count:
        raise ConfigError(
            f"ports {base} to {base + count - 1} cannot be used", remedy=f"--port 1024 to {65536 - count}"
        )
    with ExitStack() as held:  # all at once, or the system could hand out one port twice
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for index, candidate in enumerate(sockets):
            port = 0 if base is None else base + index
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError as error:
                raise ConfigError(
                    f"port {port} is taken ({error.strerror})",
                    cause=_holder(port) or f"another cluster or program: lsof -nP -iTCP:{port} -sTCP:LISTEN",
                    remedy="stop it (mpc down), choose another --port, or leave --port out",
                ) from None
        return [candidate.getsockname()[1] for candidate in sockets]


def _holder(port: int) -> str | None:
    """`name (pid n)` of who listens on a port, where /proc can tell."""
    with suppress(OSError, ValueError):
        rows = [row.split() for file in ("tcp", "tcp6") for row in Path("/proc/net", file).read_text().splitlines()[1:]]
        links = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}
        for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
            with suppress(OSError):
                if str(descriptor.readlink()) in links:
                    process = descriptor.parents[1]
                    return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return None


# --- the processes ----------------------------------------------------------------------

Command = Callable[[Member], list[str]]
_children: dict[int, subprocess.Popen[bytes]] = {}  # ours, so that they are reaped
_lifelines: dict[Path, int] = {}  # write ends, by layout folder; closing one ends its cluster


@dataclass(frozen=True)
class MemberStatus:
    """state: serving, starting, died (it left its pid file) or stopped; uptime in seconds."""

    name: str
    role: Role
    pid: int | None
    address: Endpoint
    state: Literal["serving", "starting", "died", "stopped"]
    uptime: float | None


def daemon_command(member: Member) -> list[str]:
    # -P: a file in the user's working directory must not stand in for a module of a daemon.
    return [sys.executable, "-P", "-m", "parties.cli", member.role, "serve", "--config", str(member.config)]


def start(
    layout: LocalLayout, *, detach: bool = False, deadline: float = 60, command: Command = daemon_command
) -> None:
    """Start every daemon and wait, at most `deadline` seconds, until all of them serve.

    A daemon says so with `announce_ready`; a probe of its port would only log a failed TLS handshake.
    If one fails, or the wait is interrupted, all are stopped.  Raises ConfigError.
    """
    _refuse_running(layout)
    _cut_lifeline(layout)  # of an earlier start, all of whose daemons are gone
    reader, writer = (None, None) if detach else os.pipe()
    if writer is not None:
        _lifelines[layout.folder] = writer
    try:
        for member in layout.members:
            _spawn(member, command(member), reader)
        _await_ready(layout, deadline)
    except BaseException:
        stop(layout, grace=2)
        raise
    finally:
        if reader is not None:
            os.close(reader)


def stop(layout: LocalLayout, grace: float = 10) -> list[str]:
    """SIGTERM, after `grace` seconds SIGKILL; returns who was stopped.  Nothing running is no error."""
    running = {member.name: pid for member in layout.members if (pid := _running(member))}
    for pid in running.values():
        _signal_group(pid, signal.SIGTERM)
    end = time.monotonic() + grace
    left = [member for member in layout.members if member.name in running]
    while left and time.monotonic() < end:
        time.sleep(_POLL)
        left = [member for member in left if _running(member)]
    for member in left:
        if pid := _running(member):
            _signal_group(pid, signal.SIGKILL)
    while any(_running(member) for member in left):
        time.sleep(_POLL)
    for member in layout.members:
        _pid_file(member).unlink(missing_ok=True)
        (member.data_dir / READY).unlink(missing_ok=True)
    _cut_lifeline(layout)
    return list(running)


def status(layout: LocalLayout) -> list[MemberStatus]:
    """One line per daemon, the provider first."""
    return [_status(member) for member in layout.members]


def _status(member: Member) -> MemberStatus:
    record, pid = _record(member), _running(member)
    if pid is None or record is None:
        return MemberStatus(member.name, member.role, None, member.address, "died" if record else "stopped", None)
    state: Literal["serving", "starting"] = "serving" if _is_ready(member, pid) else "starting"
    return MemberStatus(member.name, member.role, pid, member.address, state, max(0.0, time.time() - record.started))


def _refuse_running(layout: LocalLayout) -> None:
    running = [member.name for member in layout.members if _running(member)]
    if running:
        raise ConfigError(
            f"the cluster in {layout.folder} is running already ({', '.join(running)})",
            remedy="use it, or stop it: mpc down"
            if len(running) == len(layout.members)
            else "mpc down, then mpc up again",
        )


def _cut_lifeline(layout: LocalLayout) -> None:
    if (writer := _lifelines.pop(layout.folder, None)) is not None:
        os.close(writer)


def _spawn(member: Member, argv: list[str], reader: int | None) -> None:
    (member.data_dir / READY).unlink(missing_ok=True)
    if member.log.exists():
        member.log.replace(member.log.with_suffix(".1.jsonl"))  # the last start stays readable, older ones go
    log = os.open(member.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(member, os.environ, reader),
            pass_fds=() if reader is None else (reader,),
            start_new_session=True,  # Ctrl-C is for the launcher, which then stops the daemons in order
        )
    except OSError as error:
        raise ConfigError(f"{member.name} cannot be started", cause=f"{argv[0]}: {error.strerror}") from None
    finally:
        os.close(log)
    _children[child.pid] = child
    record = {"pid": child.pid, "birth": _birth(child.pid), "started": time.time()}
    write_atomic(_pid_file(member), json.dumps(record).encode())


def _environment(member: Member, environ: Mapping[str, str], reader: int | None) -> dict[str, str]:
    dropped = tuple(f"MPC_{prefix}" for prefix in _PER_PROCESS)
    child = {name: value for name, value in environ.items() if not name.startswith(dropped) and name != PARENT_PIPE}
    config = load(ProviderConfig if member.role == "provider" else PartyConfig, member.config, environ=child)
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        child[name] = str(config.threads)
    root = Path(__file__).parents[1]
    if root.name != "site-packages":  # a source tree: the daemons run the code their launcher runs
        child["PYTHONPATH"] = os.pathsep.join(filter(None, (child.get("PYTHONPATH"), str(root))))
    if reader is not None:
        child[PARENT_PIPE] = str(reader)
    return child


def _await_ready(layout: LocalLayout, deadline: float) -> None:
    end = time.monotonic() + deadline
    waiting = list(layout.members)
    while waiting:
        for member in layout.members:
            if not (pid := _running(member)):
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


# --- pids -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Record:
    pid: int
    birth: str
    started: float


def _pid_file(member: Member) -> Path:
    return member.folder / "pid"


def _record(member: Member) -> _Record | None:
    try:
        fields = json.loads(_pid_file(member).read_bytes())
        return _Record(int(fields["pid"]), str(fields["birth"]), float(fields["started"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return _Record(0, "", 0)  # damaged: someone was started here, and we must not guess whom to kill


def _running(member: Member) -> int | None:
    """The daemon's pid, only if that is still the process we started and not a later one of that number."""
    record = _record(member)
    if record is None or record.pid <= 1:
        return None
    birth = _birth(record.pid)
    if birth is None and (child := _children.pop(record.pid, None)):
        child.wait()  # it is dead already; this takes the zombie away
    return record.pid if birth == record.birth else None


def _birth(pid: int) -> str | None:
    """What tells this process from others that had or will have its pid; None if it is dead."""
    if not sys.platform.startswith("linux"):
        fields = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
        shown = subprocess.run(fields, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, check=False)
        state, _, birth = shown.stdout.strip().partition(" ")
        return None if not birth or state.startswith("Z") else birth.strip()
    try:
        # The command's name is in parentheses and may contain anything, so count from the last one.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise ConfigError(
            f"process {pid} belongs to another user", remedy="stop the cluster as the user who started it"
        ) from None


# --- the daemon's side ------------------------------------------------------------------


def announce_ready(data_dir: Path) -> None:
    """Called by a daemon once it serves."""
    write_atomic(data_dir / READY, f"{os.getpid()}\n".encode())


def watch_parent(grace: float = 10) -> threading.Thread | None:
    """Called by a daemon at its start: when the launcher is gone, SIGTERM itself, after `grace` seconds exit hard.

    None if nobody asked for it (a detached or real daemon).
    """
    number = os.environ.pop(PARENT_PIPE, None)
    if number is None:
        return None
    try:
        descriptor = int(number)
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            raise ValueError
    except (ValueError, OSError):
        raise ConfigError(
            f"{PARENT_PIPE} is not a pipe", remedy=f"unset {PARENT_PIPE}; only the launcher sets it"
        ) from None
    os.set_inheritable(descriptor, False)

    def wait() -> None:
        while os.read(descriptor, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
        os._exit(1)  # the main thread is stuck in a kernel or ignores SIGTERM

    watcher = threading.Thread(target=wait, name="parent-watch", daemon=True)
    watcher.start()
    return watcher
