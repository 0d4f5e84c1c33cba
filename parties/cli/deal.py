"""`mpc deal`: correlations dealt ahead, so that runs start at once; what is in stock, and giving it up."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from mpc.errors import MpcError, UsageError
from mpc.plan.plan import Plan
from parties.cli.display import Display, many, seconds, size
from parties.cli.model import Choices, read_plan
from parties.cli.options import CLUSTER, FOLDER, JSON, LINK, OWNER, RANGE, RECIPIENT, SECURITY, SHAPE, cluster_file
from parties.client.answering import Silent, missing
from parties.client.cluster import Cluster, Stock
from parties.client.running import stocks as ordering
from parties.client.running.roles import parse_roles, read_security, refuse_machines
from parties.client.running.room import sizes


@click.command()
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option("--runs", type=click.IntRange(1), help="How many batches are dealt for, all sessions together.")
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1), help="Rows of each.")
@click.option(
    "--sessions",
    type=click.IntRange(1),
    help="How many sessions share the runs; what a session leaves over is lost. Default: one run each, as 'mpc run' "
    "takes them.",
)
@click.option("--list", "listing", is_flag=True, help="Show what is in stock, and deal nothing.")
@click.option("--drop", "dropping", is_flag=True, help="Give up what is in stock, of MODEL if it is given.")
@CLUSTER
@OWNER
@RECIPIENT
@SECURITY
@LINK
@RANGE
@SHAPE
@FOLDER
@JSON
@click.pass_obj
def deal(
    display: Display,
    model: Path | None,
    runs: int | None,
    batch: int,
    sessions: int | None,
    listing: bool,
    dropping: bool,
    cluster: Path | None,
    owners: tuple[str, ...],
    recipients: tuple[str, ...],
    security: str | None,
    link: str | None,
    ranges: tuple[str, ...],
    shapes: tuple[str, ...],
    folder: Path,
    as_json: bool,
) -> None:
    """Have correlations for MODEL (ONNX, or a plan) dealt ahead; the parties keep them until a session uses them.

    Give the options that 'mpc run' will be given: a range, an owner or a recipient is part of the plan.
    """
    if sum((listing, dropping, runs is not None)) != 1:
        raise UsageError("say what to do", remedy="mpc deal MODEL --runs N, mpc deal --list, or mpc deal --drop")
    if model is None and runs is not None:
        raise UsageError("no model is given", remedy="mpc deal MODEL.onnx --runs N")
    with Cluster.connect(cluster_file(cluster, folder)) as connected:
        least = read_security(security, connected.config.security)
        roles = parse_roles(connected.config.name, owners, recipients, security=least, link=link)
        plan = read_plan(display, model, Choices(ranges, shapes, (), roles)) if model is not None else None
        if listing:
            silent = Silent()
            _list(display, ordering.stocks(connected.parties, plan, silent), missing(silent), as_json)
        elif dropping:
            _drop(display, connected, plan, as_json)
        elif plan is not None and runs is not None:
            _deal(display, connected, plan, runs, batch, sessions or runs, as_json)


def _deal(display: Display, cluster: Cluster, plan: Plan, runs: int, batch: int, sessions: int, as_json: bool) -> None:
    if runs % sessions:
        raise UsageError(f"{runs} runs cannot be shared by {sessions} sessions", remedy="make --runs a multiple")
    refuse_machines(plan, cluster.parties.names, cluster.config.provider.name)
    batches = sizes(cluster.parties, plan, batch) * (runs // sessions)
    started, taken = time.perf_counter(), 0
    with display.stages() as stage:
        for number in range(1, sessions + 1):
            stage(f"dealing for session {number} of {sessions}")
            made = ordering.order(cluster.parties, plan, batches, stage.bundles)
            taken += made.size
    elapsed = time.perf_counter() - started
    if as_json:
        content = {"plan": plan.digest.hex(), "runs": runs, "batch": batch, "sessions": sessions}
        display.json({**content, "bytes": taken, "seconds": elapsed})
        return
    what = f"{many(runs, 'run')} of {many(batch, 'row')} for {many(sessions, 'session')}"
    display.result(f"dealt         {what}, in {seconds(elapsed)}")
    display.result(f"on disk       {size(taken)} at the party with most")
    display.result(f"plan          {plan.digest.hex()}")
    if sessions < runs:
        display.say(
            "they are taken by cluster.session(model, batch=...) in Python; 'mpc run' takes sessions of one run"
        )


def _list(display: Display, stocks: list[Stock], error: MpcError | None, as_json: bool) -> None:
    """Show what is in stock, and raise why some parties did not say so."""
    if as_json:
        display.json({"stocks": [_describe(stock) for stock in stocks]}, error)
    else:
        _show(display, stocks)
    if error is not None:
        raise error


def _show(display: Display, stocks: list[Stock]) -> None:
    groups: dict[tuple[Any, ...], list[Stock]] = {}
    for stock in stocks:
        groups.setdefault((stock.terms.plan_digest, stock.batches, stock.missing), []).append(stock)
    rows = [
        (
            plan.hex()[:16],
            len(group),
            len(batches),
            _rows(batches),
            size(sum(stock.size for stock in group)),
            f"not with {', '.join(missing)}: drop it" if missing else "",
        )
        for (plan, batches, missing), group in groups.items()
    ]
    display.table(["plan", ">sessions", ">runs each", ">rows a run", ">on disk", ""], rows)


def _rows(batches: tuple[int, ...]) -> str:
    return "/".join(str(batch) for batch in sorted(set(batches), reverse=True))


def _describe(stock: Stock) -> dict[str, Any]:
    return {
        "session": stock.terms.session_id.hex(),
        "plan": stock.terms.plan_digest.hex(),
        "batches": list(stock.batches),
        "bytes": stock.size,
        "made_at": stock.made_at,
        "missing": list(stock.missing),
    }


def _drop(display: Display, cluster: Cluster, plan: Plan | None, as_json: bool) -> None:
    stocks = cluster.stocks(plan)
    for stock in stocks:
        cluster.drop(stock)
    if as_json:
        display.json({"dropped": [_describe(stock) for stock in stocks]})
        return
    runs = sum(len(stock.batches) for stock in stocks)
    display.result(f"dropped       {many(runs, 'run')} of {many(len(stocks), 'session')}")
