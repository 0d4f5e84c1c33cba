"""The local cluster's processes, with a stub in the daemons' place."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from decimal import Decimal
from pathlib import Path

import grpc
import psutil
import pytest
import tomli_w

from mpc.errors import ConfigError, UsageError
from parties.config.load import load
from parties.config.models import ClusterConfig, Limits, PartyConfig, PolicyConfig, ProviderConfig, TlsConfig
from parties.disk import private_folder
from parties.local import launcher
from parties.local.launcher import revive, spread, start, status, stop
from parties.local.layout import LocalLayout, Member, is_left_in_part
from parties.local.ports import Ports
from parties.local.processes import are_one, birth_of, children, running, signal_group
from parties.party.policy import Policy
from parties.process import lifeline, lock
from parties.trust.authority import issue
from parties.trust.identity import Identity
from tests.support.effort import patient
from tests.support.parties import eventually

TLS = {"ca": "ca", "certificate": "certificate", "key": "key"}
REPOSITORY = Path(__file__).parents[2]

# What a daemon does as far as the launcher sees.  argv: data_dir, behaviour.
STUB = """
import os, signal, sys, time
from pathlib import Path
from parties.process import lifeline, lock
data_dir, behaviour = Path(sys.argv[1]), sys.argv[2]
if "stubborn" in behaviour:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
lifeline.watch_parent(grace=0.3)
threads = ",".join(os.environ[f"{name}_NUM_THREADS"] for name in ("OPENBLAS", "OMP", "MKL"))
print("started", threads, sorted(name for name in os.environ if name.startswith("MPC_")), flush=True)
if "dies" in behaviour:
    print("last words: the ledger was restored from a backup", file=sys.stderr)
    sys.exit(3)
if "locks" in behaviour:
    held = lock.take(data_dir, lock.LEDGER)
if "mute" not in behaviour:
    lifeline.announce_ready(data_dir)
time.sleep(600)
"""


def stub(**behaviours: str) -> Callable[[Member], list[str]]:
    """A command for `start`; behaviours by member name (`_` for `-`), anything else serves."""

    def command(member: Member) -> list[str]:
        behaviour = behaviours.get(member.name.replace("-", "_"), "serves")
        return [sys.executable, "-c", STUB, str(member.data_dir), behaviour]

    return command


def alive(pid: int) -> bool:
    return birth_of(pid) is not None


def gone(pids: list[int], seconds: float = 10) -> bool:
    end = time.monotonic() + patient(seconds)
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(alive, pids))


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[LocalLayout]:
    made = LocalLayout.create(tmp_path / ".mpc", parties=2)
    yield made
    stop(made, grace=0.2)


# --- the folder -------------------------------------------------------------------------


def test_the_layout_is_configs_that_load_and_certificates_that_fit(tmp_path: Path) -> None:
    layout = LocalLayout.create(tmp_path / ".mpc", parties=3, threads=2)
    provider, *parties = layout.members
    config = load(ProviderConfig, provider.config, environ={})
    assert (config.name, config.parties, config.threads) == ("provider", ("party-0", "party-1", "party-2"), 2)
    assert Identity.load(config.tls, "provider").name == "provider"
    for member in parties:
        party = load(PartyConfig, member.config, environ={})
        assert (party.name, party.listen, party.data_dir) == (member.name, member.address, member.data_dir)
        assert [peer.address for peer in party.peers] == [one.address for one in parties]
        assert party.provider.address == provider.address
        Identity.load(party.tls, member.name)
        Policy(party.policy).check_session(bytes(32), "coordinator", ["coordinator"], ["coordinator"])
    shares = [config.limits.memory, *(load(PartyConfig, each.config, environ={}).limits.memory for each in parties)]
    assert 0 < sum(shares) <= Limits().memory  # they are on one machine
    cluster = load(ClusterConfig, layout.cluster_file, environ={})
    assert Identity.load(cluster.tls, "coordinator").ca_pem == Identity.load(config.tls).ca_pem
    assert LocalLayout.open(tmp_path / ".mpc") == layout
    assert len({member.address for member in layout.members}) == 4


def test_what_is_compiled_first_does_not_count(layout: LocalLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any daemon is there, said aloud; and without a place for it, each has the time to compile its own."""
    said, deadlines = [], []

    def compiles(say: Callable[[str], None]) -> bool:
        assert not any(running(member.folder) for member in layout.members)
        say("compiling")
        return len(said) == 1

    monkeypatch.setattr(launcher.warming, "warm", compiles)
    monkeypatch.setattr(launcher, "await_ready", lambda _, deadline: deadlines.append(deadline))
    for _ in range(2):
        start(layout, deadline=7, command=stub(), say=said.append)
        stop(layout, grace=0.2)
    assert said == ["compiling"] * 2 and deadlines == [7, 70]


def test_others_cannot_enter_or_read(layout: LocalLayout) -> None:
    for path in layout.folder.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir():
            assert mode == 0o700, path
        elif path.name not in ("ca.pem", "certificate.pem"):
            assert mode == 0o600, path


def test_creating_again_keeps_the_ca_good_certificates_and_ledgers(layout: LocalLayout) -> None:
    party = layout.members[1]
    (party.data_dir / "ledger.sqlite").write_text("kept")
    kept = {name: (layout.folder / name).read_bytes() for name in ("ca/ca.key", "party-0/key.pem", "provider/key.pem")}
    (layout.folder / "party-1" / "key.pem").unlink()
    again = LocalLayout.create(layout.folder, parties=3)
    assert kept == {name: (layout.folder / name).read_bytes() for name in kept}
    assert (party.data_dir / "ledger.sqlite").read_text() == "kept"
    for member in again.members[1:]:
        Identity.load(load(PartyConfig, member.config, environ={}).tls, member.name)


def test_creating_again_keeps_what_an_operator_has_changed(layout: LocalLayout) -> None:
    """Policy, limits and all else that `create` does not decide itself; addresses are those of this start."""
    party, other = layout.members[1:]
    changed = tomllib.loads(party.config.read_text())
    changed |= {"log_level": "warning", "data_key": "../key", "listen": "127.0.0.1:9"}
    changed["policy"] |= {"coordinators": ["dr-house"], "owners": ["any"], "askers": ["bob"], "max_epsilon": "1.5"}
    changed["deadlines"]["step"] = 7
    party.config.write_text(tomli_w.dumps(changed))
    provider, client = layout.members[0].config, layout.cluster_file
    for path in (provider, client):
        path.write_text(path.read_text().replace("step = 30.0", "step = 8.0"))
    again = LocalLayout.create(layout.folder, parties=3, clients=("bob",))
    kept = load(PartyConfig, party.config, environ={})
    policy = kept.policy
    assert (policy.coordinators, policy.owners, policy.askers) == (("dr-house",), ("any",), ("bob",))
    assert (policy.max_epsilon, policy.recipients) == (Decimal("1.5"), ("coordinator", "bob"))
    assert (kept.log_level, kept.data_key, kept.deadlines.step) == ("warning", layout.folder / "key", 7)
    assert kept.listen == again.members[1].address and len(kept.peers) == 3
    assert load(ProviderConfig, provider, environ={}).deadlines.step == 8
    assert load(ClusterConfig, client, environ={}).deadlines.step == 8
    assert load(PartyConfig, other.config, environ={}).policy == PolicyConfig(
        plans=("any",), **dict.fromkeys(("coordinators", "owners", "recipients", "data_owners"), ("coordinator", "bob"))
    )


def test_creating_again_does_not_write_over_a_config_that_cannot_be_read(layout: LocalLayout) -> None:
    path = layout.members[1].config
    path.write_text(path.read_text().replace("log_level", "log_lovel"))
    text = path.read_text()
    with pytest.raises(ConfigError, match="unknown key log_lovel") as caught:
        LocalLayout.create(layout.folder, parties=2)
    assert "log_level" in (caught.value.remedy or "") and path.read_text() == text


def test_a_data_folder_on_a_read_only_disk_is_told_in_words(
    layout: LocalLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By who starts there, and by who stops what ended there, which has no error of its own."""

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "chmod", refuse)
    folder = layout.members[1].data_dir
    with pytest.raises(ConfigError, match="cannot be changed") as caught:
        private_folder(folder)
    assert caught.value.cause == "Read-only file system" and "written to" in (caught.value.remedy or "")
    unlink = Path.unlink
    monkeypatch.setattr(
        Path, "unlink", lambda path, **how: (refuse if path.name == lifeline.READY else unlink)(path, **how)
    )
    assert stop(layout) == []


def test_a_clusters_id_is_in_every_config_and_stays(layout: LocalLayout) -> None:
    def ids(folder: Path) -> set[str | None]:
        found = {load(ClusterConfig, folder / "cluster.toml", environ={}).cluster}
        for member in layout.members:
            kind = ProviderConfig if member.role == "provider" else PartyConfig
            found.add(load(kind, folder / member.name / "config.toml", environ={}).cluster)
        return found

    [first] = ids(layout.folder)
    assert first is not None and len(bytes.fromhex(first)) == 16
    LocalLayout.create(layout.folder, 2)
    assert ids(layout.folder) == {first}
    for path in layout.folder.rglob("*.toml"):  # as clusters were before they had one
        path.write_text("".join(line for line in path.open() if not line.startswith("cluster = ")))
    assert ids(layout.folder) == {None}
    assert LocalLayout.open(layout.folder).members
    LocalLayout.create(layout.folder, 2)
    [fresh] = ids(layout.folder)
    assert fresh not in (None, first)


def test_a_certificate_is_renewed_with_its_key(layout: LocalLayout) -> None:
    """What its owner has put at the parties is that key's."""
    folder = layout.folder / "coordinator"
    key, old = (folder / "key.pem").read_bytes(), (folder / "certificate.pem").read_bytes()
    issue(layout.folder / "ca", "coordinator", folder, days=3)
    assert (folder / "key.pem").read_bytes() != key
    key = (folder / "key.pem").read_bytes()
    LocalLayout.create(layout.folder, 2)
    assert (folder / "key.pem").read_bytes() == key and (folder / "certificate.pem").read_bytes() != old
    assert Identity.load(TlsConfig(**{k: folder / f"{v}.pem" for k, v in TLS.items()}), "coordinator").days_left() > 3


def test_certificates_of_another_ca_are_replaced(layout: LocalLayout) -> None:
    for file in (layout.folder / "ca").iterdir():
        file.unlink()
    again = LocalLayout.create(layout.folder, parties=2)
    pem = (layout.folder / "ca" / "ca.pem").read_bytes()
    assert Identity.load(load(PartyConfig, again.members[1].config, environ={}).tls).ca_pem == pem


def test_fixed_ports_follow_the_base(tmp_path: Path) -> None:
    base = free_base(3)
    layout = LocalLayout.create(tmp_path / "a", parties=2, base_port=base)
    assert [member.address.port for member in layout.members] == [base, base + 1, base + 2]


def test_a_taken_port_names_its_holder(tmp_path: Path) -> None:
    base = free_base(3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", base + 1))
        taken.listen()
        with pytest.raises(ConfigError, match=f"port {base + 1} is taken") as caught:
            LocalLayout.create(tmp_path / "a", parties=2, base_port=base)
    assert "--port" in (caught.value.remedy or "")
    assert f"(pid {os.getpid()})" in (caught.value.cause or "")
    assert not (tmp_path / "a" / "cluster.toml").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere ports cannot be kept")
def test_ports_are_kept_until_somebody_listens() -> None:
    """Nobody else is given them, nor finds anybody there, and who is meant to listen there can."""
    kept = Ports(3)
    with ExitStack() as stack:
        others = [stack.enter_context(closing(socket.socket())) for _ in range(3)]
        for other, port in zip(others, kept.numbers, strict=True):
            with pytest.raises(OSError):
                other.bind(("127.0.0.1", port))
            assert other.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
        server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
        held = Ports(1)
        assert server.add_insecure_port(f"127.0.0.1:{held.numbers[0]}") == held.numbers[0]
        server.start()
        server.stop(0)
    kept.release()
    with socket.socket() as other:
        other.bind(("127.0.0.1", kept.numbers[0]))


def test_a_started_cluster_keeps_no_ports(layout: LocalLayout) -> None:
    assert layout.ports is not None and layout.ports.release.alive
    start(layout, command=stub())
    assert not layout.ports.release.alive


def free_base(count: int) -> int:
    for base in range(21000, 30000, 10):
        try:
            Ports(count, base).release()
        except ConfigError:
            continue
        return base
    pytest.skip("no free ports")


def test_impossible_sizes_and_ports(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        LocalLayout.create(tmp_path, parties=1)
    for base in (80, 65535, -5):
        with pytest.raises(ConfigError, match="cannot be used"):
            LocalLayout.create(tmp_path, base_port=base)
    with pytest.raises(ConfigError, match="does not exist"):
        LocalLayout.open(tmp_path / "nothing")


# --- the processes ----------------------------------------------------------------------


def test_start_status_stop(layout: LocalLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MPC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MPC_LISTEN", "127.0.0.1:1")  # meant for one process, it must not reach all
    monkeypatch.setenv("MPC_THREADS", "3")
    assert [(line.state, line.pid) for line in status(layout)] == [("stopped", None)] * 3
    start(layout, command=stub())
    lines = status(layout)
    assert [(line.name, line.role, line.state) for line in lines] == [
        ("provider", "provider", "serving"),
        ("party-0", "party", "serving"),
        ("party-1", "party", "serving"),
    ]
    pids = [line.pid for line in lines if line.pid]
    assert all(os.getpgid(pid) == pid and os.getsid(pid) == pid for pid in pids)
    assert all(line.uptime is not None and 0 <= line.uptime < 60 for line in lines)
    for member in layout.members:
        assert member.log.read_text() == "started 1,1,1 ['MPC_KERNEL_CACHE', 'MPC_THREADS']\n"
    with pytest.raises(ConfigError, match="running already"):
        start(layout, command=stub())
    with pytest.raises(ConfigError, match="running already"):
        LocalLayout.create(layout.folder, parties=2)
    assert stop(layout) == ["provider", "party-0", "party-1"]
    assert not any(map(alive, pids))
    assert not any(pid in children or Path(f"/proc/{pid}").exists() for pid in pids)  # no zombies
    assert stop(layout) == []
    assert {line.state for line in status(layout)} == {"stopped"}


@pytest.mark.parametrize(
    ("parties", "available", "expected"),
    [
        (2, {0, 1}, [{0}, {1}]),
        (2, {3, 1, 7, 5}, [{1, 3}, {5, 7}]),
        (3, {0, 1, 2, 3}, [{0}, {1}, {2}]),
        (3, {4, 6}, [{4}, {6}, {4}]),
        (2, {0}, []),
        (2, set(), []),
    ],
)
def test_parties_have_cores_of_their_own(tmp_path: Path, parties: int, available: set, expected: list) -> None:
    members = LocalLayout.create(tmp_path / "c", parties=parties).members
    found = spread(members, available)
    assert [found[f"party-{index}"] for index in range(len(expected))] == expected and len(found) == len(expected)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system binds no process to cores")
@pytest.mark.parametrize("threads", [1, 1024])
def test_daemons_run_where_they_are_bound(tmp_path: Path, threads: int) -> None:
    """Unless they are to have more threads than that."""
    layout = LocalLayout.create(tmp_path / "c", parties=2, threads=threads)
    start(layout, command=stub())
    mine = os.sched_getaffinity(0)
    bound = spread(layout.members) if threads == 1 else {}
    for member in status(layout):
        assert member.pid is not None
        assert os.sched_getaffinity(member.pid) == bound.get(member.name, mine)
    stop(layout)


def test_a_daemon_that_dies_early_ends_all_and_its_last_words_are_shown(layout: LocalLayout) -> None:
    with pytest.raises(ConfigError, match="party-1 stopped while starting") as caught:
        start(layout, command=stub(party_1="dies", party_0="mute"))
    assert "last words: the ledger was restored" in (caught.value.cause or "")
    assert {line.state for line in status(layout)} == {"stopped"}


def test_a_daemon_that_never_serves_ends_all_at_the_deadline(layout: LocalLayout) -> None:
    began = time.monotonic()
    with pytest.raises(ConfigError, match="provider did not serve within 2 s"):  # the first of all who do not
        start(layout, command=stub(provider="mute stubborn"), deadline=2)
    assert time.monotonic() - began < patient(20)
    assert {line.state for line in status(layout)} == {"stopped"}


def test_a_program_that_is_not_there(layout: LocalLayout) -> None:
    with pytest.raises(ConfigError, match="cannot be started"):
        start(layout, command=lambda member: ["/nowhere/mpc"])


def test_a_stale_ready_file_is_not_believed(layout: LocalLayout) -> None:
    lifeline.announce_ready(layout.members[0].data_dir)
    with pytest.raises(ConfigError, match="provider did not serve"):
        start(layout, command=stub(provider="mute"), deadline=2)
    start(layout, command=stub())
    (layout.members[1].data_dir / lifeline.READY).write_text("1\n")
    assert status(layout)[1].state == "starting"


def test_sigkill_for_those_who_ignore_sigterm(layout: LocalLayout) -> None:
    start(layout, command=stub(party_0="stubborn"))
    pids = [line.pid for line in status(layout) if line.pid]
    stop(layout, grace=0.3)
    assert not any(map(alive, pids))


def test_one_that_dies_later_shows_as_died_and_the_rest_can_be_stopped(layout: LocalLayout) -> None:
    start(layout, command=stub())
    victim = status(layout)[1].pid
    os.kill(victim, signal.SIGKILL)
    assert gone([victim])
    assert [line.state for line in status(layout)] == ["serving", "died", "serving"]
    assert stop(layout) == ["provider", "party-1"]


def test_one_that_is_frozen_shows_as_frozen_and_ends_as_the_others_do(layout: LocalLayout) -> None:
    """A signal that stopped it stops no SIGTERM: it was killed after the grace."""
    start(layout, command=stub())
    victim = status(layout)[1].pid
    assert victim is not None
    os.kill(victim, signal.SIGSTOP)
    assert eventually(lambda: [line.state for line in status(layout)] == ["serving", "frozen", "serving"])
    assert [line.pid for line in status(layout)][1] == victim
    with pytest.raises(ConfigError) as caught:
        start(layout, command=stub())
    assert "frozen party-0" in str(caught.value.cause) and f"kill -CONT {victim}" in str(caught.value.remedy)
    killed = list[int]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launcher, "signal_group", lambda pid, number: (killed.append(number), signal_group(pid, number)))
        assert stop(layout, grace=patient(60)) == ["provider", "party-0", "party-1"]
    assert signal.SIGKILL not in killed


def test_one_that_has_died_is_started_again_and_the_others_go_on(layout: LocalLayout) -> None:
    start(layout, command=stub())
    before = {line.name: line.pid for line in status(layout)}
    os.kill(before["party-0"], signal.SIGKILL)
    assert gone([before["party-0"]])
    assert is_left_in_part(layout)
    with pytest.raises(ConfigError, match="dies|stopped while starting"):
        revive(layout, command=stub(party_0="dies"))
    assert [line.state for line in status(layout)] == ["serving", "died", "serving"]
    assert revive(layout, command=stub()) == ["party-0"]
    after = {line.name: line.pid for line in status(layout)}
    assert [line.state for line in status(layout)] == ["serving"] * 3 and not is_left_in_part(layout)
    assert {name for name in after if after[name] != before[name]} == {"party-0"}


def test_one_that_somebody_started_by_hand_is_known_and_ends_with_the_others(layout: LocalLayout) -> None:
    """As doctor's own line says: `mpc party serve`.  It has its data folder's lock, which a copy of that has not."""
    start(layout, detach=True, command=stub())
    member = layout.members[1]
    os.kill(int((member.data_dir / lifeline.READY).read_text()), signal.SIGKILL)
    assert eventually(lambda: status(layout)[1].state == "died")
    threads = dict.fromkeys((f"{name}_NUM_THREADS" for name in ("OPENBLAS", "OMP", "MKL")), "1")
    argv = [sys.executable, "-c", STUB, str(member.data_dir), "locks"]
    with subprocess.Popen(argv, env={**os.environ, **threads}) as own:
        assert eventually(lambda: status(layout)[1].state == "serving")
        found = status(layout)[1]
        assert found.pid == own.pid != os.getpgid(own.pid) and 0 <= (found.uptime or 0) < patient(60)
        assert not is_left_in_part(layout) and revive(layout) == []
        copied = layout.folder / "copied"
        shutil.copytree(member.folder, copied)
        assert running(copied) is None
        os.utime(member.data_dir / lock.LEDGER, (1, 1))  # as if that number were now a later process's
        assert running(member.folder) is None
        os.utime(member.data_dir / lock.LEDGER)
        assert sorted(stop(layout, grace=20)) == ["party-0", "party-1", "provider"]
        own.wait(patient(20))
    assert [line.state for line in status(layout)] == ["stopped"] * 3


def test_a_birth_is_none_of_the_dead_and_no_matter_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is set moves the moments of the machine's start and of the process's, and not what is between."""
    before, boot = birth_of(os.getpid()), psutil.boot_time()
    with monkeypatch.context() as patch:
        patch.setattr(psutil._psplatform, "boot_time", lambda: boot + 3600.25)
        assert psutil.boot_time() == boot + 3600.25
        found = birth_of(os.getpid())
        assert before is not None and found is not None and are_one(found, before)
    child = subprocess.Popen(["sleep", "600"])
    other = birth_of(child.pid)
    assert other is not None and not are_one(other, before)
    child.kill()
    assert gone([child.pid])  # a zombie: nobody has waited for it
    child.wait()
    assert birth_of(child.pid) is None


def test_a_daemon_is_found_though_the_clock_was_set(layout: LocalLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS psutil corrects a process's start by what the clock was set since psutil was imported, and no more.

    So a command that starts later sees the process's own time as it was, and another time of the machine's start.
    """
    daemon = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        record = {"pid": daemon.pid, "birth": birth_of(daemon.pid), "started": 0.0}
        (layout.members[1].folder / "pid").write_text(json.dumps(record))
        boot, created = psutil.boot_time(), psutil.Process(daemon.pid).create_time()
        with monkeypatch.context() as patch:
            patch.setattr(psutil._psplatform, "boot_time", lambda: boot + 3600)
            patch.setattr(psutil.Process, "create_time", lambda self: created + 0.004)
            assert running(layout.members[1].folder) == daemon.pid
            assert stop(layout, grace=patient(5)) == ["party-0"]
        assert daemon.wait(patient(5)) == -signal.SIGTERM
    finally:
        daemon.kill()
        daemon.wait()


@pytest.mark.parametrize(
    ("birth", "recorded", "one"),
    [
        ("a:500:9000", "a:500:9000", True),
        ("a:501:9100", "a:500:9000", True),
        ("a:900:9001", "a:500:9000", True),
        ("a:900:9100", "a:500:9000", False),
        ("b:500:9000", "a:500:9000", False),
        ("a:500:9000", "a:500", True),  # as an earlier version wrote it
        ("a:500:9000", "a", False),
        ("a:500:9000", "a:x:y", False),
        ("a:500:9000", "", False),
    ],
)
def test_births_of_one_process(birth: str, recorded: str, one: bool) -> None:
    assert are_one(birth, recorded) is one


def test_a_recycled_pid_is_never_killed(layout: LocalLayout) -> None:
    """The pid file points at a living process that is not the one we started."""
    bystander = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        record = {"pid": bystander.pid, "birth": birth_of(bystander.pid), "started": 0.0}
        for wrong in (record | {"birth": "an earlier one"}, record | {"pid": -1}, record | {"pid": 0}, {"pid": "x"}):
            (layout.members[1].folder / "pid").write_text(json.dumps(wrong))
            assert status(layout)[1].state == "died"
            assert stop(layout) == []
        assert bystander.poll() is None
        (layout.members[1].folder / "pid").write_text(json.dumps(record))  # control: the true record does stop it
        assert stop(layout, grace=patient(5)) == ["party-0"]
        assert bystander.wait(patient(5)) == -signal.SIGTERM
    finally:
        bystander.kill()
        bystander.wait()


LAUNCH = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from test_launcher import stub
from parties.local.launcher import start
from parties.local.layout import LocalLayout
start(LocalLayout.open(Path(sys.argv[3])), detach=sys.argv[4] == "detach", command=stub(party_0="stubborn"))
print("up", flush=True)
if sys.argv[4] != "detach":
    time.sleep(60)
"""


def launched(layout: LocalLayout, how: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", LAUNCH, str(REPOSITORY), str(Path(__file__).parent), str(layout.folder), how]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def test_a_foreground_cluster_dies_with_its_killed_launcher(layout: LocalLayout) -> None:
    process = launched(layout, "foreground")
    pids = [line.pid for line in status(layout) if line.pid]
    assert len(pids) == 3
    process.kill()
    process.communicate()
    assert gone(pids)  # also the one that ignores SIGTERM


def test_a_detached_cluster_outlives_its_launcher_and_is_stopped_by_another(layout: LocalLayout) -> None:
    process = launched(layout, "detach")
    process.communicate()
    assert process.returncode == 0
    assert [line.state for line in status(layout)] == ["serving"] * 3
    pids = [line.pid for line in status(layout) if line.pid]
    assert stop(layout, grace=1) == ["provider", "party-0", "party-1"]
    assert not any(map(alive, pids))


def test_the_log_of_the_last_start_is_kept(layout: LocalLayout) -> None:
    start(layout, command=stub())
    stop(layout)
    first = layout.members[0].log.read_text()
    start(layout, command=stub())
    assert layout.members[0].log.with_suffix(".1.jsonl").read_text() == first
    assert len(layout.members[0].log.read_text().splitlines()) == 1


def test_watch_parent_without_a_launcher_and_with_nonsense(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(lifeline.PARENT_PIPE, raising=False)
    assert lifeline.watch_parent() is None
    with (tmp_path / "file").open("w") as file:
        for nonsense in ("x", "-1", "987654", str(file.fileno())):
            monkeypatch.setenv(lifeline.PARENT_PIPE, nonsense)
            with pytest.raises(ConfigError, match="is not a pipe"):
                lifeline.watch_parent()


def test_the_command_runs_the_cli_of_this_interpreter(layout: LocalLayout) -> None:
    for member in layout.members:
        argv = launcher.daemon_command(member)
        assert argv == [sys.executable, "-P", "-m", "parties.cli", member.role, "serve", "--config", str(member.config)]
