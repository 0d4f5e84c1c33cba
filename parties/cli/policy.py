"""`mpc policy`: what is in force at a party, as its operator sees it, and how another one takes its place."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import click

from mpc.errors import ConfigError
from parties.cli.display import Display
from parties.cli.operators import PARTY, operators
from parties.cli.options import FOLDER, JSON
from parties.client.answering import Silent, ask_each, missing
from parties.client.channels import PartyClient
from parties.pb import consent_pb2


@click.group()
def policy() -> None:
    """Show the policy that is in force at your party, or have it read again, without a restart."""


@policy.command("show")
@PARTY
@FOLDER
@JSON
@click.pass_obj
def show(display: Display, configs: tuple[Path, ...], folder: Path, as_json: bool) -> None:
    """Show the policy that a running party goes by, which is not always what its config says by now."""
    _ask(display, configs, folder, as_json, reload=False)


@policy.command("reload")
@PARTY
@FOLDER
@JSON
@click.pass_obj
def reload(display: Display, configs: tuple[Path, ...], folder: Path, as_json: bool) -> None:
    """Have a running party read its policy again, as SIGHUP does; where it cannot be read the old one stays in force.

    Sessions that are open are decided about again before they tell another answer.
    """
    _ask(display, configs, folder, as_json, reload=True)


def _ask(display: Display, configs: tuple[Path, ...], folder: Path, as_json: bool, reload: bool) -> None:
    request = consent_pb2.PolicyRequest(reload=reload)
    silent = Silent()
    with operators(configs, folder) as (clients, wait):

        def ask(client: PartyClient) -> consent_pb2.PolicyReply:
            return client.begin(lambda stub: stub.consent.Policy, request, wait).result()

        found = ask_each(clients, ask, silent)
    error = missing(silent)
    if as_json:
        display.json({"policies": [_content(name, each) for name, each in found.items()]}, error)
    for name, each in found.items() if not as_json else ():
        for line in _lines(name, each, reload):
            display.result(line)
    failed = {name: each.problem for name, each in found.items() if each.problem}
    if failed:
        name = min(failed)
        raise ConfigError(
            f"{name} goes by an older policy: {failed[name]}", remedy="correct its config, then mpc policy reload"
        )
    if error is not None:
        raise error


def _content(name: str, found: consent_pb2.PolicyReply) -> dict[str, Any]:
    return {
        "party": name,
        "policy": json.loads(found.policy),
        "read_at": found.read_at,
        "problem": found.problem or None,
        "changed": list(found.changed),
        "restart": list(found.restart),
    }


def _lines(name: str, found: consent_pb2.PolicyReply, reload: bool) -> list[str]:
    when = datetime.datetime.fromtimestamp(found.read_at, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
    lines = [f"{name}: policy of {when} UTC"]
    lines += [f"  {key} = {json.dumps(value)}" for key, value in json.loads(found.policy).items()]
    if reload and not found.problem:
        lines.append(f"  changed: {', '.join(found.changed) or 'nothing'}")
    if found.restart:
        lines.append(f"  changed in the file, and taken with a restart only: {', '.join(found.restart)}")
    return lines
