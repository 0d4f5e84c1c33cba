"""`mpc requests`, `mpc approve`, `mpc deny`: what waits for a word, and the operators' words."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from mpc.errors import UsageError
from mpc.privacy.facts import CHARGE_UNIT
from parties.cli.display import Display
from parties.cli.operators import PARTY, operators
from parties.cli.options import CLUSTER, FOLDER, JSON, cluster_file, require_folder
from parties.client.answering import Silent, ask_each, missing
from parties.client.at_rest.said import as_expiry, day
from parties.client.channels import Parties, PartyClient
from parties.client.cluster import Cluster
from parties.client.consent.requests import Requested, choose, commands, decide, list_requests, plan_of
from parties.disk import write_atomic

_SHOWN = 16


@click.group("requests", invoke_without_command=True)
@PARTY
@CLUSTER
@FOLDER
@JSON
@click.pass_context
def requests(
    context: click.Context, configs: tuple[Path, ...], cluster: Path | None, folder: Path, as_json: bool
) -> None:
    """List requests that wait for somebody's word: those that concern your data, and your own.

    With --party, by a party's operator: all that wait at that party. Each has an id, the digest of what is shown of it,
    equal at all parties.
    """
    if context.invoked_subcommand is not None:
        return
    display: Display = context.obj
    with _asked(configs, cluster, folder) as (clients, seconds, me):
        silent = Silent()
        found = list_requests(clients, seconds, silent=silent)
        words = {each.id: _commands(each, me) for each in found}
    error = missing(silent)
    if as_json:
        display.json({"requests": [_content(each, me, words[each.id]) for each in found]}, error)
    elif found:
        display.table(["request", "asked by", "reads", ">epsilon", "learned by", "until", "state"], [*_lines(found)])
        for each in found:
            _say_commands(display, each, me, words[each.id], configs)
    elif me is None:
        display.say("no requests")
    else:
        name = me.config.name
        display.say(f"no requests by {name}, or of its data; a party's operator sees all of them: --party config.toml")
    if error is not None:
        raise error


def _lines(found: Sequence[Requested]) -> Iterator[list[str]]:
    for each in found:
        request = each.request
        proved = {"exact" if one.epsilon is None else f"{one.epsilon / CHARGE_UNIT:.9g}" for one in request.proves}
        state = "; ".join(dict.fromkeys(f"{one.party}: {one.text}" for one in each.standings))
        until = day(int(min(one.expires for one in each.standings)))
        yield [
            each.id[:_SHOWN],
            request.coordinator,
            ", ".join(request.datasets) or "nothing at rest",
            ", ".join(sorted(proved)),
            ", ".join(request.recipients),
            until,
            state,
        ]


def _commands(each: Requested, me: Parties | None) -> list[str]:
    """List the commands with which a client would allow a request of its data; an operator, None, has others."""
    return [] if me is None else commands(me, each, me.config.name)


def _say_commands(
    display: Display, each: Requested, me: Parties | None, words: Sequence[str], configs: Sequence[Path]
) -> None:
    """Say with which commands whoever looks can allow a request."""
    short = each.id[:_SHOWN]
    if me is None:
        own = shlex.join([short, *(word for path in configs for word in ("--party", str(path)))])
        display.say(f"{short}: mpc approve {own}, or mpc deny {own}")
    elif me.config.name != each.request.coordinator:
        for command in words:
            display.say(f"{short}: {command}")


@requests.command("show")
@click.argument("request", metavar="ID")
@click.option("--plan", type=click.Path(path_type=Path), help="Write its plan to this file, for mpc inspect.")
@PARTY
@CLUSTER
@FOLDER
@JSON
@click.pass_obj
def show(
    display: Display,
    request: str,
    plan: Path | None,
    configs: tuple[Path, ...],
    cluster: Path | None,
    folder: Path,
    as_json: bool,
) -> None:
    """Show all of a request: plan, datasets, columns, rows, who asks, who learns what, and what is proved of it.

    Every party shows the same lines; ID, or 8 digits of it, is their digest.
    """
    if plan is not None:
        require_folder(plan)
    with _asked(configs, cluster, folder) as (clients, seconds, me):
        found = choose(list_requests(clients, seconds), request)
        if plan is not None:
            write_atomic(plan, plan_of(clients, found.request, seconds), 0o644)
        words = _commands(found, me)
    if as_json:
        display.json(_content(found, me, words))
        return
    for line in found.lines:
        display.result(line)
    _say_commands(display, found, me, words, configs)


def _content(found: Requested, me: Parties | None, words: Sequence[str]) -> dict[str, Any]:
    content = found.content()
    return content if me is None else {**content, "commands": [*words]}


@contextmanager
def _asked(
    configs: Sequence[Path], cluster: Path | None, folder: Path
) -> Iterator[tuple[list[PartyClient], float, Parties | None]]:
    """Connect as a party's operator, or as a client; (parties, seconds, all of them as the client calls them)."""
    if configs and cluster is not None:
        raise UsageError("--party and --cluster exclude each other", remedy="--party is for a party's operator")
    if configs:
        with operators(configs, folder) as (clients, wait):
            yield clients, wait, None
        return
    with Cluster.connect(cluster_file(cluster, folder)) as connected:
        parties = connected.parties
        yield parties.clients, parties.config.deadlines.submit, parties


@click.command()
@click.argument("request", metavar="ID")
@click.option("--uses", default=1, show_default=True, type=click.IntRange(1), help="Runs that may be told.")
@click.option("--expires", default="30d", show_default=True, metavar="TIME", help="36h, 90d, 2027-01-31.")
@PARTY
@FOLDER
@JSON
@click.pass_obj
def approve(
    display: Display,
    request: str,
    uses: int,
    expires: str,
    configs: tuple[Path, ...],
    folder: Path,
    as_json: bool,
) -> None:
    """Allow a request that no rule of your party's policy covers: exactly that, so many times.

    It stands for your policy alone: what is read of owners' data needs their grants as before.
    """
    until = as_expiry(expires)
    if until is None:
        raise UsageError("an approval ends", remedy="--expires 30d")
    _decide(display, request, uses, until, "", configs, folder, as_json)


@click.command()
@click.argument("request", metavar="ID")
@click.option("--reason", default="", metavar="TEXT", help="Told to who asks.")
@PARTY
@FOLDER
@JSON
@click.pass_obj
def deny(display: Display, request: str, reason: str, configs: tuple[Path, ...], folder: Path, as_json: bool) -> None:
    """Say no to a request; also to one that was approved before."""
    _decide(display, request, 0, 0, reason, configs, folder, as_json)


def _decide(
    display: Display,
    request: str,
    uses: int,
    until: int,
    reason: str,
    configs: tuple[Path, ...],
    folder: Path,
    as_json: bool,
) -> None:
    seconds = max(1, until - int(time.time())) if uses else 0
    with operators(configs, folder) as (clients, wait):
        silent = Silent()
        found = choose(list_requests(clients, wait, silent=silent), request)
        there = [client for client in clients if client.name in {each.party for each in found.standings}]
        heads = ask_each(there, lambda client: decide(client, found.id, uses, seconds, reason, wait), silent)
    said, error = "approved" if uses else "denied", missing(silent)
    if as_json:
        display.json({said: found.id, "heads": {name: head.hex() for name, head in heads.items()}}, error)
    for name in heads if not as_json else ():
        display.result(f"{said} {found.id} at {name}")
    if error is not None:
        raise error
