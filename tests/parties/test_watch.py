"""A daemon's own health: its disk, its certificate, its folder, hang-ups."""

from __future__ import annotations

import errno
import io
import os
import signal
import socket
import threading
import time
from collections import namedtuple
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mpc.errors import ConfigError
from parties.addresses import Endpoint
from parties.cli.doctor import examine
from parties.cli.members import ask_members
from parties.config.load import dump_toml
from parties.config.models import ClusterConfig, ProviderConfig
from parties.local.launcher import MemberStatus
from parties.party import services
from parties.party.ledger.sessions import Ledger
from parties.pb import party_pb2
from parties.process import life as life_module
from parties.process import lifeline, lock, watch
from parties.process.watch import Watch
from parties.provider.service import ProviderService
from parties.telemetry import Counters
from parties.trust.identity import Identity
from parties.wire.dialling import SILENT
from parties.wire.transport import connect
from tests.support.authority import Issuer
from tests.support.databases import refusing
from tests.support.effort import patient
from tests.support.logs import lines
from tests.support.parties import COORDINATOR, InProcess, eventually, free_ports
from tests.support.parties_commands import mpc_here as mpc
from tests.support.parties_commands import signals_put_back

pytestmark = pytest.mark.timeout(90)
doctor = import_module("parties.cli.doctor")  # the package has a command of this name
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity.load(Issuer.root().leaf("provider", tmp_path / "provider", days=400))


def test_a_disk_that_is_full_and_empty_again(
    tmp_path: Path, identity: Identity, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    time, counters = [0.0], Counters()
    watched = Watch(tmp_path, identity, counters, clock=lambda: time[0])
    watched.tick()
    assert watched.problem == "" and list(tmp_path.glob(".disk*")) == []
    monkeypatch.setattr(watch.shutil, "disk_usage", lambda _: Usage(1 << 40, 1 << 40, 4096))
    watched.tick()
    assert watched.problem == ""  # looked a moment ago
    time[0] += 6
    watched.tick()
    assert watched.problem == "its disk is full" and counters.registry.get_sample_value("mpc_disk_ok") == 0
    monkeypatch.undo()
    time[0] += 6
    watched.tick()
    assert watched.problem == "" and counters.registry.get_sample_value("mpc_disk_ok") == 1
    assert [entry["event"] for entry in lines(log)] == ["not serving", "serving again"]


def test_a_disk_that_takes_no_write(tmp_path: Path, identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quota, a read-only mount, a failing disk: seen by writing, and no path is told."""
    time = [0.0]
    watched = Watch(tmp_path, identity, Counters(), clock=lambda: time[0])

    def full(_: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(watch.os, "fsync", full)
    watched.tick()
    assert "quota" in watched.problem.lower() and str(tmp_path) not in watched.problem
    monkeypatch.undo()
    time[0] += 6
    watched.tick()
    assert watched.problem == ""


def test_a_ledger_that_cannot_be_written(tmp_path: Path, identity: Identity) -> None:
    time = [0.0]
    with Ledger.open(tmp_path / "data") as ledger:
        watched = Watch(tmp_path / "data", identity, Counters(), ledger.check_writable, clock=lambda: time[0])
        epoch = ledger.epoch
        watched.tick()
        assert watched.problem == "" and ledger.epoch == epoch
        with refusing(tmp_path / "data" / "ledger.sqlite", "epoch"):
            time[0] += 61
            watched.tick()
            assert watched.problem == "its ledger cannot be written"
        time[0] += 6
        watched.tick()
        assert watched.problem == ""
        ledger.open_session(bytes(range(32)), bytes(32), "coordinator")  # and it is as usable as before


def test_a_certificate_that_ends_soon(tmp_path: Path, log: io.StringIO) -> None:
    """From thirty days on, once a day; the number is a metric, too."""
    root, time = Issuer.root(), [0.0]
    for days, expected in ((31, 0), (29, 2), (3, 2)):
        log.truncate(0), log.seek(0)
        counters = Counters()
        identity = Identity.load(root.leaf("party-0", tmp_path / str(days), days=days))
        watched = Watch(tmp_path, identity, counters, clock=lambda: time[0])
        for _ in range(48):
            watched.tick()
            time[0] += 3600
        spoken = [entry for entry in lines(log) if entry["event"] == "the certificate ends soon"]
        assert len(spoken) == expected
        assert all(days - 1 < entry["days_left"] <= days for entry in spoken)
        [sample] = [s for m in counters.registry.collect() for s in m.samples if s.name == "mpc_certificate_days_left"]
        assert days - 1 < sample.value <= days


def test_two_providers_on_one_folder(tmp_path: Path) -> None:
    tls = Issuer.root().leaf("provider", tmp_path / "provider")
    config = ProviderConfig(
        name="provider",
        listen=Endpoint(f"127.0.0.1:{free_ports(1)[0]}"),
        data_dir=tmp_path / "data",
        tls=tls,
        parties=("party-0", "party-1"),
    )
    (tmp_path / "data").mkdir()
    path = tmp_path / "provider.toml"
    path.write_text(dump_toml(config))
    held = lock.take(tmp_path / "data")
    try:
        done = mpc("provider", "serve", "--config", path)
        assert done.returncode == 3
        assert "is in use by another process" in done.stderr and str(os.getpid()) in done.stderr
        with pytest.raises(ConfigError, match="in use"):
            lock.take(tmp_path / "data")
    finally:
        os.close(held)
    os.close(lock.take(tmp_path / "data"))


def test_a_daemon_says_when_it_is_not_well_and_outlives_a_hangup(
    tmp_path: Path, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon's own loop: health, `Describe` and log follow the disk, both ways; SIGHUP changes nothing."""
    root = Issuer.root()
    tls, client = root.leaf("provider", tmp_path / "provider"), Identity.load(root.leaf("client", tmp_path / "client"))
    address = Endpoint(f"127.0.0.1:{free_ports(1)[0]}")
    config = ProviderConfig(name="provider", listen=address, data_dir=tmp_path, tls=tls, parties=("party-0", "party-1"))
    identity, life, counters, broken = Identity.load(tls), life_module.Life(), Counters(), threading.Event()

    def writable() -> None:
        if broken.is_set():
            raise ConfigError("the ledger in /srv/data cannot be used")

    monkeypatch.setattr(watch, "ROOM_EVERY", 0.0)
    monkeypatch.setattr(watch, "WRITE_EVERY", 0.0)
    monkeypatch.setattr(life_module, "TICK", 0.02)
    monkeypatch.setattr(life_module, "get_kernels", lambda config: None)
    monkeypatch.setattr(lifeline, "announce_ready", lambda _: None)
    service = ProviderService(config, identity, counters)
    seen: list[object] = []

    def healthy(stub: health_pb2_grpc.HealthStub) -> bool | None:
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=patient(10))
            return reply.status == health_pb2.HealthCheckResponse.SERVING
        except grpc.RpcError:
            return None

    def drive() -> None:
        try:
            with closing(connect(client, "provider", address)) as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                seen.append(eventually(lambda: healthy(stub) is True))
                broken.set()
                seen.append(eventually(lambda: healthy(stub) is False))
                seen.append(service.problem)
                broken.clear()
                seen.append(eventually(lambda: healthy(stub) is True))
                os.kill(os.getpid(), signal.SIGHUP)
                seen.append(eventually(lambda: "SIGHUP" in log.getvalue()))
                seen.append(healthy(stub))
        finally:
            life.stop.set()

    driver = threading.Thread(target=drive)
    driver.start()
    with signals_put_back():
        try:
            watched = Watch(tmp_path, identity, counters, writable)
            life_module.serve_until_told(
                config, identity, service, service.register, service.desks, life, watched, lambda: None, lambda: None
            )
        finally:
            driver.join()
    assert seen == [True, True, "its ledger cannot be written", True, True, True]
    said = [entry["event"] for entry in lines(log)]
    assert said.index("serving") < said.index("not serving") < said.index("serving again") < said.index("stopped")


class Fewer(ProviderService):
    """A provider that says that it deals to these parties, if any are set."""

    parties: ClassVar[list[str]] = []

    def Describe(self, request: party_pb2.DescribeRequest, context: grpc.ServicerContext) -> party_pb2.DescribeReply:
        reply = super().Describe(request, context)
        if self.parties:
            reply.deals_to[:] = self.parties
        return reply


def test_doctor_finds_what_is_wrong_with_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rosters that differ, a provider that does not know a party, a full disk, a certificate that ends soon."""
    with InProcess(tmp_path, 3, provider=Fewer) as cluster:
        config = cluster.client().config
        fine = {finding.check: finding for finding in examine(config)}
        for check in ("party-1 roster", "provider parties", "party-2 disk", "provider disk", "party-0 certificate"):
            assert fine[check].ok and not fine[check].fix, fine[check]
        cluster.nodes[1].roster = ("party-1", "party-0", "party-2")
        cluster.nodes[2].problem = "its disk is full"
        monkeypatch.setattr(Fewer, "parties", ["party-0", "party-1"])
        object.__setattr__(
            cluster.nodes[0].identity, "not_after", cluster.identity(COORDINATOR).not_after.replace(year=2000)
        )
        found = {finding.check: finding for finding in examine(config)}
        for check, said in {
            "party-1 roster": "another one",
            "provider parties": "does not deal to party-2",
            "party-2 disk": "its disk is full",
            "party-0 certificate": "0 days left",
        }.items():
            assert not found[check].ok and said in found[check].found and found[check].fix, found[check]
        assert found["party-0 roster"].ok and found["provider disk"].ok


def test_ps_shows_who_runs_and_does_not_serve(tmp_path: Path) -> None:
    """And who says nothing; those that do not serve are not asked."""
    with InProcess(tmp_path, 2) as cluster, closing(socket.create_server(("127.0.0.1", 0))) as silent:
        config = cluster.client().config
        soon = config.deadlines.model_copy(update={"connect": patient(2.0)})
        file = tmp_path / "cluster.toml"
        file.write_text(dump_toml(config.model_copy(update={"deadlines": soon})))
        peers = {peer.name: peer.address for peer in (config.provider, *config.parties)}
        peers["silent"] = Endpoint(f"127.0.0.1:{silent.getsockname()[1]}")
        members = [
            MemberStatus(name, "provider" if name == "provider" else "party", 1, Endpoint(address), "serving", 1.0)
            for name, address in peers.items()
        ]
        members.append(replace(members[1], state="frozen"))
        cluster.nodes[1].problem = "its disk is full"
        layout: Any = SimpleNamespace(cluster_file=file)
        found = ask_members(layout, members)
        assert [each.state for each in found] == ["serving", "serving", "not serving", "serving", "frozen"]
        assert [each.note for each in found[:3]] == ["", "", "its disk is full"] and not found[4].note
        assert "silent" in found[3].note
        file.write_text("nonsense")
        assert ask_members(layout, members) == members


def test_doctor_sends_nobody_to_the_way_of_one_that_takes_connections_and_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that a signal has frozen, as is known on its own machine, it says what lets it go on."""
    seen = [party_pb2.Reach(name="party-1", problem=f"{SILENT} in 10 s: it is busy, or a signal has frozen it")]
    monkeypatch.setattr(services, "probe_all", lambda *arguments: seen)
    with InProcess(tmp_path, 2) as cluster, closing(socket.create_server(("127.0.0.1", 0))) as silent:
        config = cluster.client().config
        there = Endpoint(f"127.0.0.1:{silent.getsockname()[1]}")
        parties = (config.parties[0], config.parties[1].model_copy(update={"address": there}))
        soon = config.deadlines.model_copy(update={"connect": 1.0})
        config = config.model_copy(update={"parties": parties, "deadlines": soon})
        for frozen, found, fix in (
            ({}, SILENT, "kill -CONT its process"),
            ({"party-1": 4711}, "a signal has frozen it", "kill -CONT 4711"),
        ):
            bad = {each.check: each for each in examine(config, "", frozen) if not each.ok}
            assert {*bad} == {"party-1", "party-0 -> party-1"}, bad
            assert found in bad["party-1"].found and fix in bad["party-1"].fix
            way = bad["party-0 -> party-1"].fix
            assert "have party-1 answer again" in way and "open the way" not in way
            assert ("kill -CONT 4711" in way) is bool(frozen)


def test_doctor_counts_no_wait_as_a_difference_of_clocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A party that is asked waits for peers that are silent; its clock is none the worse for that."""
    now, ahead = [1e9], [0.0]

    def waits(*arguments: object) -> list[party_pb2.Reach]:
        now[0] += 60
        return []

    def clock(offset: list[float]) -> SimpleNamespace:
        return SimpleNamespace(**{**vars(time), "time": lambda: now[0] + offset[0]})

    with InProcess(tmp_path, 2) as cluster:
        config = cluster.client().config
        monkeypatch.setattr(services, "probe_all", waits)
        monkeypatch.setattr(services, "time", clock(ahead))
        monkeypatch.setattr(doctor, "time", clock([0.0]))
        for offset, ok in ((0.0, True), (45.0, False), (-45.0, False)):
            ahead[0] = offset
            found = {each.check: each for each in examine(config)}["party-0 clock"]
            assert found.ok is ok and found.found == f"{abs(offset):.1f} s apart", found


@pytest.mark.parametrize(
    ("days", "healthy", "shown", "told"),
    [(400, True, "399 days left", False), (20, True, "19 days left", True), (0.9, False, "0 days left", True)],
)
def test_doctor_counts_less_than_a_day_as_none(
    tmp_path: Path, days: float, healthy: bool, shown: str, told: bool
) -> None:
    """One's own certificate, and a daemon's as it describes it; the last month comes with what to do."""
    with InProcess(tmp_path, 2) as cluster:
        config = cluster.client().config
        issuer = Issuer.root()
        own = ClusterConfig.model_validate(
            {**config.model_dump(), "tls": issuer.leaf(COORDINATOR, tmp_path / "own", days=days)}
        )
        [mine] = [finding for finding in examine(own) if finding.check == "own certificate"]
        end = datetime.now(UTC) + timedelta(days=days)
        object.__setattr__(cluster.nodes[0].identity, "not_after", end)
        [theirs] = [finding for finding in examine(config) if finding.check == "party-0 certificate"]
    for finding in (mine, theirs):
        assert (finding.ok, bool(finding.fix)) == (healthy, told) and shown in finding.found, finding


def test_doctor_measures_a_processor_in_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's load does not make AES slow; a processor that needs a second for 16 MiB is."""
    clock = SimpleNamespace(now=0.0, step=1e-3)

    def ticking() -> float:
        clock.now += clock.step
        return clock.now

    hours = SimpleNamespace(thread_time=ticking, perf_counter=lambda: 3600 * ticking(), time=lambda: 3600 * ticking())
    monkeypatch.setattr(doctor, "time", hours)
    quick = doctor.aes()
    assert quick.ok and quick.found == "16.8 GB/s" and not quick.fix
    clock.step = 1.0
    slow = doctor.aes()
    assert not slow.ok and slow.found == "0.0 GB/s" and "no AES instructions" in slow.fix
