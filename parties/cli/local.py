"""`mpc up`, `ps`, `logs`, `down`: a cluster on this machine, under `.mpc/`."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
from rich.live import Live
from rich.table import Table

from mpc.errors import ConfigError, PeerError
from parties.cli.display import Display, seconds
from parties.cli.options import FOLDER, JSON, SECURITY
from parties.config.models import Security
from parties.local.launcher import MemberStatus, revive, start, status, stop
from parties.local.layout import LocalLayout, in_folder, is_left_in_part

_PARTIES = 3
_POLL = 0.5
_COLUMNS = ("name", "role", "state", "pid", "address", "up")


@click.command()
@click.option(
    "--parties",
    type=click.IntRange(2),
    help="How many. Default: with --detach as many as the folder's cluster has, if there is one; else 3.",
)
@click.option("--detach", is_flag=True, help="Return once they serve; 'mpc down' stops them.")
@click.option(
    "--client",
    "clients",
    multiple=True,
    metavar="NAME",
    help="Somebody else who may enter inputs and receive outputs: makes a certificate and NAME.toml for it.",
)
@click.option("--port", type=int, help="The provider's port; the parties' follow. Default: free ones.")
@SECURITY
@FOLDER
@click.pass_obj
def up(
    display: Display,
    parties: int | None,
    detach: bool,
    clients: tuple[str, ...],
    port: int | None,
    security: Security | None,
    folder: Path,
) -> None:
    """Start a provider and N parties as processes of their own, with a development CA.

    Configs, certificates, ledgers and logs are made under .mpc/.  Clients stay until their NAME.toml is deleted.
    With --security active the parties take no sessions whose runs are not checked, until it is passive again.
    Of a detached cluster in which a process has ended, --detach starts that one again, and leaves the others alone.
    """
    parties = parties or _usual(folder, detach)
    if detach and not (clients or port or security) and _revived(display, folder, parties):
        return
    layout = LocalLayout.create(folder, parties, port, clients=clients, security=security)
    with display.stages() as stage:
        stage(f"starting a provider and {parties} parties")
        start(layout, detach=detach, say=display.say)
    display.say(f"a provider and {parties} parties serve; cluster file: {layout.cluster_file}")
    for client in layout.clients:
        display.say(f"client {client}: {layout.client_file(client)}")
    if detach:
        where = in_folder(folder)
        display.say(f"next: mpc run MODEL.onnx --input X.npy{where}; mpc ps{where}; mpc down{where}")
        return
    try:
        _watch(display, layout)
    finally:
        stop(layout)
        display.say("stopped")


def _usual(folder: Path, detach: bool) -> int:
    """Return how many parties there are where nobody says it."""
    there = detach and (folder / "cluster.toml").exists()
    return len(LocalLayout.open(folder).members) - 1 if there else _PARTIES


def _revived(display: Display, folder: Path, parties: int) -> bool:
    """Start what has ended of a cluster of so many parties, if there is one of which some still run."""
    layout = LocalLayout.open(folder) if (folder / "cluster.toml").exists() else None
    if layout is None or len(layout.members) != 1 + parties or not is_left_in_part(layout):
        return False
    with display.stages() as stage:
        stage("starting those that have ended")
        started = revive(layout, say=display.say)
    display.say(f"started again: {', '.join(started)}")
    return True


def _watch(display: Display, layout: LocalLayout) -> None:
    """Show the status of all processes until ctrl-C; raise an error if one of them dies."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    live_on = display.out.is_terminal and not display.quiet
    with Live(_table(status(layout)), console=display.out, auto_refresh=False, transient=True) as live:
        display.say("ctrl-C stops them")
        while not ended.wait(_POLL):
            members = status(layout)
            if live_on:
                live.update(_table(members), refresh=True)
            for member in members:
                if member.state in ("died", "stopped"):
                    raise PeerError(
                        f"{member.name} died",
                        remedy=f"mpc logs {member.name}{in_folder(layout.folder)}",
                        peer=member.name,
                    )


def _table(members: list[MemberStatus]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        table.add_column(column)
    for member in members:
        table.add_row(*_row(member))
    return table


def _row(member: MemberStatus) -> tuple[str, ...]:
    up_for = seconds(member.uptime) if member.uptime is not None else "-"
    return member.name, member.role, member.state, str(member.pid or "-"), str(member.address), up_for


@click.command()
@FOLDER
@JSON
@click.pass_obj
def ps(display: Display, folder: Path, as_json: bool) -> None:
    """Show every process of the local cluster and its state, and what those that serve say is wrong with them."""
    layout = _layout(folder)
    members = status(layout)
    if any(member.state == "serving" for member in members):
        from parties.cli.members import ask_members  # gRPC, which nobody waits for where nobody is asked

        members = ask_members(layout, members)
    if as_json:
        display.json({"members": [asdict(member) for member in members]})
        return
    if any(member.note for member in members):
        display.table((*_COLUMNS, "note"), [(*_row(member), member.note) for member in members])
    else:
        display.table(_COLUMNS, [*map(_row, members)])


@click.command()
@FOLDER
@click.pass_obj
def down(display: Display, folder: Path) -> None:
    """Stop every process of the local cluster."""
    stopped = stop(_layout(folder))
    display.say(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


@click.command()
@click.argument("who", required=False)
@click.option("-f", "--follow", is_flag=True, help="Wait for more.")
@FOLDER
@click.pass_obj
def logs(display: Display, who: str | None, follow: bool, folder: Path) -> None:
    """Print what WHO (default: everyone) has logged since it was started."""
    members = _layout(folder).members
    if who is not None and who not in [member.name for member in members]:
        raise ConfigError(f"there is no process {who!r}", remedy=f"one of {', '.join(m.name for m in members)}")
    paths = [member.log for member in members if who in (None, member.name)]
    for line in _lines(paths, follow):
        display.result(line)


def _lines(paths: list[Path], follow: bool) -> Iterator[str]:
    """Yield rendered lines in the order of time; then, if asked for, new ones as they come."""
    offsets = dict.fromkeys(paths, 0)
    while True:
        found: list[tuple[str, str]] = []
        for path in paths:
            data = path.read_bytes()[offsets[path] :] if path.exists() else b""
            complete = data[: data.rfind(b"\n") + 1]
            offsets[path] += len(complete)
            found += [_render(line) for line in complete.decode("utf-8", "replace").splitlines()]
        yield from (text for _, text in sorted(found, key=lambda entry: entry[0]))
        if not follow:
            return
        time.sleep(_POLL)


def _render(line: str) -> tuple[str, str]:
    """Return the time and the text of one JSON line; other lines as they are."""
    try:
        event = json.loads(line)
        stamp, level = event.pop("timestamp"), event.pop("level")
        who, what = event.pop("process"), event.pop("event")
    except (ValueError, KeyError, AttributeError):
        return "", line
    rest = " ".join(f"{key}={value}" for key, value in event.items())
    return stamp, f"{stamp[11:23]} {who:<10} {level:<8} {what} {rest}".rstrip()


def _layout(folder: Path) -> LocalLayout:
    if not (folder / "cluster.toml").exists():
        raise ConfigError(
            f"there is no cluster under {folder}", remedy=f"start one: mpc up{in_folder(folder)} --detach"
        )
    return LocalLayout.open(folder)
