"""`mpc doctor`: what is wrong with a cluster, line by line, each with its fix."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import click
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

import mpc
from mpc.errors import ConfigError, MpcError
from parties.agreed.terms import PROTOCOL, roster_digest
from parties.cli.display import Display, many, seconds, size
from parties.cli.members import behind, describe
from parties.cli.options import FOLDER, JSON, PROMISE, TRUST, no_cluster
from parties.client.running.roles import ACTIVE
from parties.config.load import load
from parties.config.models import ClusterConfig, Peer
from parties.local.launcher import status
from parties.local.layout import LocalLayout, in_folder
from parties.local.processes import let_go_on
from parties.pb import party_pb2
from parties.process.watch import ROOM_EVERY, WARN_DAYS, WRITE_EVERY
from parties.trust.identity import Identity
from parties.wire.dialling import NOT_RUNNING, SILENT
from parties.wire.direct import DIRECT
from parties.wire.probe import probe

_CLOCK_SKEW = 30.0
_AES_FLOOR = 5e8
_FULL = 0.95


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, whether it is fine, what was found, what to do."""

    check: str
    ok: bool
    found: str
    fix: str = ""


@click.command()
@click.option("--cluster", type=click.Path(path_type=Path), help="A cluster.toml; default: the local cluster's.")
@FOLDER
@JSON
@click.pass_obj
def doctor(display: Display, cluster: Path | None, folder: Path, as_json: bool) -> None:
    """Check certificates, clock, versions, reachability and round trips, ledgers, AES speed."""
    path = cluster or folder / "cluster.toml"
    if not path.is_file():
        raise no_cluster(path, folder if cluster is None else None, "--cluster FILE")
    config = load(ClusterConfig, path)
    findings = []
    for finding in examine(config, "" if cluster else in_folder(folder), {} if cluster else _frozen(folder)):
        findings.append(finding)
        if not as_json:
            fix = f"  fix: {finding.fix}" if finding.fix else ""
            display.result(f"{'ok ' if finding.ok else 'BAD'}  {finding.check:<28} {finding.found}{fix}")
    healthy = all(finding.ok for finding in findings)
    if as_json:
        display.json({"healthy": healthy, "findings": [asdict(finding) for finding in findings]})
    if not healthy:
        raise click.exceptions.Exit(6)


def _frozen(folder: Path) -> dict[str, int]:
    """Return the pids of the local cluster's processes that a signal has frozen; none, if it is no local cluster."""
    with suppress(ConfigError):
        members = status(LocalLayout.open(folder))
        return {member.name: member.pid for member in members if member.state == "frozen" and member.pid}
    return {}


def examine(
    config: ClusterConfig, where: str = "", frozen: Mapping[str, int] = MappingProxyType({})
) -> Iterator[Finding]:
    """Make all checks, in order; later ones are made even if earlier ones fail.

    Args:
        where: option that commands for the local cluster need.
        frozen: pids of those of its processes that a signal has frozen, by their names.
    """
    yield aes()
    try:
        identity = Identity.load(config.tls, config.name, members=config.machines)
    except MpcError as error:
        yield Finding("own certificate", False, error.what, error.remedy or f"mpc up{where}")
        return
    yield Finding("security", True, PROMISE if config.security == ACTIVE else TRUST)
    fix = f"issue new certificates: mpc up{where} makes them, or your CA"
    yield _lifetime("own certificate", f"{identity.name}, ", identity.days_left(), fix)
    for peer, role in ((config.provider, "provider"), *((party, "party") for party in config.parties)):
        yield from _examine_process(config, identity, peer, role, where, frozen)


def _examine_process(
    config: ClusterConfig, identity: Identity, peer: Peer, role: str, where: str, frozen: Mapping[str, int]
) -> Iterator[Finding]:
    if peer.name in frozen:
        found = f"{peer.address}: it runs, but a signal has frozen it"
        yield Finding(peer.name, False, found, f"let it go on: {let_go_on(frozen[peer.name])}")
        return
    reach = probe(identity, peer.name, peer.address, config.deadlines.connect)
    if not reach.reachable:
        fix = f"start it: mpc {role} serve --config ... (locally: mpc up{where} --detach)"
        if SILENT in reach.problem:
            fix = "look at its log and at its machine's load; if a signal has frozen it: kill -CONT its process"
        yield Finding(peer.name, False, f"{peer.address}: {reach.problem}", fix)
        return
    yield Finding(peer.name, True, f"{peer.address}, round trip {seconds(reach.round_trip_seconds)}")
    try:
        reply = describe(identity, peer, role, 2 * config.deadlines.connect, probe=role == "party")
        asked = time.time()
        # once more: the first one waits for peers that are silent
        clock = describe(identity, peer, role, 2 * config.deadlines.connect).clock
        skew = apart(clock, asked, time.time())
    except MpcError as error:
        yield Finding(f"{peer.name} answers", False, error.what, error.remedy or f"mpc logs {peer.name}{where}")
        return
    yield from _wellbeing(config, peer.name, role, reply)
    same = reply.protocol == PROTOCOL
    fix = "" if same else "install the same version everywhere"
    yield Finding(
        f"{peer.name} version", same, f"{reply.version}, protocol {reply.protocol}; here {mpc.__version__}", fix
    )
    fix = "" if skew < _CLOCK_SKEW else "set both clocks by NTP"
    yield Finding(f"{peer.name} clock", skew < _CLOCK_SKEW, f"{skew:.1f} s apart", fix)
    if lag := behind(reply):
        own = f"mpc clock --party CONFIG --accept (locally: mpc clock{where} --accept)"
        fix = f"set its clock right; if it is right now, its operator says so: {own}"
        yield Finding(f"{peer.name} kept time", False, lag, fix)
    if role == "party":
        yield Finding(
            f"{peer.name} ledger",
            bool(reply.ledger),
            f"epoch {reply.ledger}, {many(reply.open_sessions, 'session')} open",
        )
        yield _stock(peer.name, reply)
    for other in reply.peers:
        fix = "" if other.reachable else _way(peer.name, other, where, frozen)
        found = seconds(other.round_trip_seconds) if other.reachable else other.problem
        yield Finding(f"{peer.name} -> {other.name}", other.reachable, found, fix)
        if other.rounds:
            yield _rounds(peer.name, other)


def _way(name: str, other: party_pb2.Reach, where: str, frozen: Mapping[str, int]) -> str:
    """Say what helps a process that cannot reach another."""
    if SILENT in other.problem:
        own = f": {let_go_on(frozen[other.name])}" if other.name in frozen else ", as its own line says"
        return f"have {other.name} answer again{own}"
    if NOT_RUNNING in other.problem:
        return f"start {other.name} (locally: mpc up{where} --detach), or correct its address in the config of {name}"
    return f"open the way from {name} to {other.name}; check the address in its config"


def _rounds(name: str, other: party_pb2.Reach) -> Finding:
    """Look at which way payloads of rounds took between two parties in their last session."""
    if other.rounds == DIRECT:
        return Finding(f"{name} -> {other.name} rounds", True, "by a connection of their own")
    fix = f"let {name} reach the port that is rounds_port at {other.name}, or take rounds_port out of both configs"
    return Finding(f"{name} -> {other.name} rounds", False, f"through gRPC, which is slower; {other.rounds}", fix)


def _wellbeing(config: ClusterConfig, name: str, role: str, reply: party_pb2.DescribeReply) -> Iterator[Finding]:
    """Look at a process's disk and certificate, and whether it means the cluster of the file at hand."""
    fix = f"free space on its disk, or mend it; it looks every {ROOM_EVERY:g} s, and serves again by itself"
    found = reply.problem or f"could be written as it looked last, every {WRITE_EVERY:g} s"
    yield Finding(f"{name} disk", not reply.problem, found, fix if reply.problem else "")
    fix = f"issue another certificate for {name}, and restart it"
    yield _lifetime(f"{name} certificate", "", reply.certificate_days, fix)
    names = [party.name for party in config.parties]
    if role == "party":
        same = reply.roster_digest == roster_digest(config.provider.name, names, config.cluster)
        fix = (
            ""
            if same
            else f"name the same provider and parties, in the same order, in its config: {', '.join(names)}; 'cluster' "
            "must be equal too"
        )
        yield Finding(f"{name} roster", same, "as in this file" if same else "another one than in this file", fix)
        if reply.policy_stale:
            fix = f"its operator corrects the config: mpc policy show --party CONFIG at {name} says what is wrong"
            yield Finding(f"{name} policy", False, "the one in its config cannot be read, so an older one holds", fix)
        return
    missing = [party for party in names if party not in reply.deals_to]
    fix = f"add {', '.join(missing)} to 'parties' in its config, and restart it" if missing else ""
    found = f"does not deal to {', '.join(missing)}" if missing else "deals to all of them"
    yield Finding(f"{name} parties", not missing, found, fix)


def _lifetime(check: str, whose: str, days: float, fix: str) -> Finding:
    """Say how long a certificate lasts; less than a day counts as none, and is shown as none."""
    return Finding(check, days >= 1, f"{whose}{max(0, int(days))} days left", "" if days > WARN_DAYS else fix)


def _stock(name: str, reply: party_pb2.DescribeReply) -> Finding:
    """Say how many runs are dealt ahead; a full disk allowance is worth a word before somebody deals more."""
    found = f"{many(reply.stocked_runs, 'run')} for {many(reply.stocks, 'session')}, {size(reply.stock_bytes)} of "
    full = reply.stock_bytes > _FULL * reply.stock_limit
    fix = "drop some (mpc deal --drop), or raise limits.max_stock_bytes" if full else ""
    return Finding(f"{name} stock", not full, found + size(reply.stock_limit), fix)


def apart(clock: float, asked: float, answered: float) -> float:
    """Return the seconds that a clock, read between two moments of the own one, is off by at least."""
    return max(asked - clock, clock - answered, 0.0)


def aes() -> Finding:
    """Measure how fast this processor encrypts."""
    cipher = Cipher(algorithms.AES(bytes(32)), modes.CTR(bytes(16))).encryptor()
    block, rounds, rate = bytes(1 << 20), 16, 0.0
    for _ in range(4):  # CPU time, the best of four: a machine that is busy has the same instructions
        started = time.thread_time()
        for _ in range(rounds):
            cipher.update(block)
        rate = max(rate, rounds * len(block) / max(time.thread_time() - started, 1e-9))
    fix = "" if rate > _AES_FLOOR else "this processor has no AES instructions: dealing will be slow"
    return Finding("AES", rate > _AES_FLOOR, f"{rate / 1e9:.1f} GB/s", fix)
