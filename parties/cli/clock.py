"""`mpc clock`: what a party's clock says beside the latest time that it has shown, for the party's operator."""

from __future__ import annotations

import datetime
import time
from functools import partial
from pathlib import Path

import click

from parties.cli.display import Display, many
from parties.cli.operators import PARTY, operators
from parties.cli.options import FOLDER, JSON
from parties.client.answering import Silent, ask_each, missing
from parties.client.channels import PartyClient
from parties.pb import consent_pb2


@click.command()
@PARTY
@click.option("--accept", is_flag=True, help="The clock is right now: go on from there.")
@FOLDER
@JSON
@click.pass_obj
def clock(display: Display, configs: tuple[Path, ...], accept: bool, folder: Path, as_json: bool) -> None:
    """Show what your party's clock says, and the latest time that it has shown before.

    A clock more than 5 minutes behind that time was set back, or was ahead for a while.  What has expired would live
    again, so the party gives nothing at rest until its clock has caught up.  If it is right now, say so with --accept.
    Grants and objects that had expired by the latest time end for good then, and their owners give them anew.  What was
    spent of budgets, charged or revoked stays.  The party's audit chain says that you have done it.
    """
    silent = Silent()
    with operators(configs, folder) as (clients, wait):
        replies = ask_each(clients, partial(_ask, consent_pb2.ClockRequest(), wait), silent)
        done: dict[str, consent_pb2.ClockReply] = {}
        if accept:
            behind = [client for client in clients if client.name in replies and replies[client.name].behind]
            done = ask_each(behind, partial(_ask, consent_pb2.ClockRequest(accept=True, at=time.time()), wait), silent)
    lines, content = [], []
    for name, reply in replies.items():
        ended = done.get(name)
        lines += _lines(name, reply, ended)
        content.append(
            {
                "party": name,
                "clock": reply.clock,
                "latest": reply.latest,
                "behind_seconds": reply.behind,
                "accepted": ended is not None,
                "ended": None if ended is None else {"grants": ended.grants, "objects": ended.objects},
            }
        )
    error = missing(silent)
    if as_json:
        display.json({"clocks": content}, error)
    for line in lines if not as_json else ():
        display.result(line)
    if error is not None:
        raise error


def _ask(request: consent_pb2.ClockRequest, wait: float, client: PartyClient) -> consent_pb2.ClockReply:
    return client.begin(lambda stub: stub.consent.Clock, request, wait).result()


def _lines(name: str, reply: consent_pb2.ClockReply, ended: consent_pb2.ClockReply | None) -> list[str]:
    lines = [f"{name}: {_utc(reply.clock)}"]
    if not reply.behind:
        return [f"{lines[0]}, which is not behind"]
    behind = datetime.timedelta(seconds=round(reply.behind))
    lines[0] += f", {behind} behind the latest time that it has shown, {_utc(reply.latest)}"
    if ended is None:
        lines.append("  it gives nothing at rest; set its clock right, or say that it is: mpc clock --accept")
    else:
        grants, objects = many(ended.grants, "grant"), many(ended.objects, "object")
        lines.append(f"  accepted; {grants} and {objects} that had expired by that time have ended")
    return lines


def _utc(when: float) -> str:
    return datetime.datetime.fromtimestamp(when, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
