"""`mpc budget`: what noised answers about a dataset may still tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from parties.cli.display import Display
from parties.cli.objects import common
from parties.cli.options import cluster_file
from parties.client.cluster import Cluster
from parties.client.consent import granting, remaining
from parties.client.consent.granted import as_amount
from parties.client.consent.told import Left


@click.group()
def budget() -> None:
    """Show or set what all noised answers about a dataset may tell of one person."""


@budget.command("show")
@click.argument("name")
@click.option(
    "--each", metavar="E", help="Count how many more cost this much; default: as those so far, or as granted for one."
)
@click.option("--together", metavar="D", help="Say what all answers tell together at this delta; owners only.")
@common
def show(
    display: Display,
    name: str,
    each: str | None,
    together: str | None,
    cluster: Path | None,
    folder: Path,
    as_json: bool,
) -> None:
    """Show what was spent of a dataset's budget, and what is left."""
    with Cluster.connect(cluster_file(cluster, folder)) as connected:
        _show(display, connected, connected.budget(name, together), each, as_json)


@budget.command("set")
@click.argument("name")
@click.option("--epsilon", required=True, metavar="E", help="In all, over all versions; what is spent stays spent.")
@click.option("--delta", metavar="D", help="In all; default: a millionth.")
@click.option("--with", "group", multiple=True, metavar="NAME", help="A dataset of yours that shares this budget.")
@common
def set_(
    display: Display,
    name: str,
    epsilon: str,
    delta: str | None,
    group: tuple[str, ...],
    cluster: Path | None,
    folder: Path,
    as_json: bool,
) -> None:
    """Set the budget of a dataset of yours: higher, or lower, than before."""
    with Cluster.connect(cluster_file(cluster, folder)) as connected:
        more: dict[str, Any] = {} if delta is None else {"delta": delta}
        _show(display, connected, connected.set_budget(name, epsilon=epsilon, group=group, **more), None, as_json)


def _show(display: Display, connected: Cluster, found: Left, each: str | None, as_json: bool) -> None:
    if each is None:
        given = granting.given(connected.parties)
        like = remaining.usual(found, [one for one in given if one.grant.dataset == found.dataset])
    else:
        like = as_amount(each, "each"), ""
    if as_json:
        display.json({"budget": remaining.numbers(found, like)})
        return
    if found.epsilon is None:
        display.result(f"{found.dataset}: no budget is set, so no noised answers")
    else:
        whole, spent, left = float(found.epsilon), float(found.spent), float(found.left)
        shared = "".join(f", {each}" for each in found.group if each != found.dataset)
        display.result(f"{found.dataset}{shared}: epsilon {spent:g} of {whole:g} spent, {left:g} left")
        if like is not None:
            display.result(remaining.more_like(found, like))
    display.result(found.answers)
    if found.together is not None:
        display.result(str(found.together))
