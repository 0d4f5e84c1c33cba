"""`mpc model`: models at the parties - put by their owners, granted, found and described by whoever may see them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mpc.compiler.onnx.load import Loaded, load_model
from mpc.compiler.onnx.signature import input_names
from parties.cli.consent import DATA, show_verdicts
from parties.cli.datasets import selections
from parties.cli.display import Display, noting
from parties.cli.inputs import load_inputs
from parties.cli.objects import add_lists, as_visible, common, connected_to, show_described, show_removed
from parties.cli.options import (
    CALIBRATE,
    GRANTED_SECURITY,
    OWNER,
    RANGE,
    RECIPIENT,
    SHAPE,
    parse_ranges,
    parse_shapes,
    require_folder,
)
from parties.cli.preparing import place_model
from parties.client.cluster import Cluster
from parties.client.model import Placed
from parties.client.running.roles import parse_roles
from parties.disk import write_atomic


@click.group()
def model() -> None:
    """Put models at the parties, say who may use them, find others.

    A model's name is OWNER/NAME; OWNER may be left out of one of your own. Use one by mpc run OWNER/NAME.
    """


add_lists(model, "models", "name or description", lambda connected: connected.models)


def _placing(command: Callable[..., None]) -> Callable[..., None]:
    for option in (DATA, RECIPIENT, OWNER):
        command = option(command)
    return command


@model.command("put")
@click.argument("file", metavar="MODEL", type=click.Path(path_type=Path))
@click.argument("name")
@RANGE
@SHAPE
@CALIBRATE
@DATA
@click.option("--description", default="", help="What the model is, for those who search.")
@click.option("--expires", metavar="TIME", help="When it is removed: 36h, 90d, 2y, 2027-01-31; default: never.")
@click.option("--visible/--invisible", default=True, show_default=True, help="Others may see it and its plan.")
@click.option("--visible-to", "readers", multiple=True, metavar="CLIENT", help="Only these others may.")
@common
def put(
    display: Display,
    file: Path,
    name: str,
    ranges: tuple[str, ...],
    shapes: tuple[str, ...],
    samples: tuple[str, ...],
    data: tuple[str, ...],
    visible: bool,
    readers: tuple[str, ...],
    cluster: Path | None,
    folder: Path,
    as_json: bool,
    **said: Any,
) -> None:
    """Compile MODEL (ONNX) and put its weights at the parties as NAME, masked.

    Its plan becomes public to those who may see it: shapes, scales and bounds, and no weight. With --data it reads
    datasets of these units and ranges. An interrupted put goes on when it is made again.
    """
    seen, loaded = as_visible(visible, readers), Loaded(load_model(file))
    names = input_names(loaded)
    with connected_to(cluster, folder) as connected, display.stages() as stages, noting(display) as told:
        stages("compiling, and putting it at the parties")
        made = connected.models.put(
            name,
            loaded,
            parse_ranges(ranges, names) or None,
            data=selections(connected, data, names) or None,
            samples=load_inputs(samples, names) if samples else None,
            shapes=parse_shapes(shapes, names) or None,
            visible=seen,
            progress=stages.weights,
            **said,
        )
    if as_json:
        display.json({"model": made.describe().content(), "notes": told})
    else:
        display.result(f"{made.name}, version {made.version}: {len(made.manifest.columns)} arrays of weights")


@model.command("show")
@click.argument("name")
@common
def show(display: Display, name: str, cluster: Path | None, folder: Path, as_json: bool) -> None:
    """Show all that its owner says of a model, and what its plan says of its inputs and outputs."""
    with connected_to(cluster, folder) as connected:
        described = connected.model(name).describe()
    show_described(display, "model", described, as_json)


@model.command("plan")
@click.argument("name")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Where the plan goes.")
@_placing
@common
def plan(
    display: Display,
    name: str,
    output: Path,
    cluster: Path | None,
    folder: Path,
    as_json: bool,
    **placing: tuple[str, ...],
) -> None:
    """Write the plan of a model for those who take part; prints its digest. mpc inspect says what it costs."""
    require_folder(output)
    with connected_to(cluster, folder) as connected:
        placed = _place(connected, name, **placing)
    write_atomic(output, placed.plan.canonical, 0o644)
    digest = placed.plan.digest.hex()
    if as_json:
        display.json({"plan": digest})
    else:
        display.result(digest)


def _place(
    connected: Cluster, name: str, owners: tuple[str, ...], recipients: tuple[str, ...], data: tuple[str, ...]
) -> Placed:
    roles = parse_roles(connected.config.name, owners, recipients)
    return place_model(connected, name, roles, data)[0]


@model.command("grant")
@click.argument("name")
@click.option("--coordinator", "coordinators", multiple=True, required=True, metavar="CLIENT", help="Who may use it.")
@click.option(
    "--recipient", "recipients", multiple=True, metavar="CLIENT", help="Who may learn outputs; default: who uses it."
)
@click.option(
    "--data-owner",
    "data_owners",
    multiple=True,
    metavar="CLIENT",
    help="Whose inputs and datasets it may read; default: anybody's.",
)
@click.option("--stored-only", is_flag=True, help="No inputs that are entered for a run: these, somebody chooses.")
@click.option("--dataset", "datasets", multiple=True, metavar="OWNER/NAME", help="The only ones that it may read.")
@click.option("--rows", type=click.IntRange(1), help="Rows of one run at most.")
@click.option("--uses", type=click.IntRange(1), help="Runs at most; default: as many as there are.")
@click.option("--expires", metavar="TIME", help="36h, 90d, 2y, 2027-01-31; default: never.")
@click.option("--versions", is_flag=True, help="All versions of that name, also later ones; default: the newest.")
@GRANTED_SECURITY
@common
def grant(
    display: Display,
    name: str,
    recipients: tuple[str, ...],
    data_owners: tuple[str, ...],
    stored_only: bool,
    cluster: Path | None,
    folder: Path,
    as_json: bool,
    **said: Any,
) -> None:
    """Allow others to use your model NAME, by its own plan and no other. mpc grant revoke takes it back."""
    with connected_to(cluster, folder) as connected, noting(display):
        made = connected.models.grant(
            name, recipients=recipients or None, data_owners=data_owners or None, entered=not stored_only, **said
        )
    if as_json:
        display.json({"grant": {"id": made.id, **made.model_dump(mode="json")}})
    else:
        display.result(made.id)


@model.command("check")
@click.argument("name")
@_placing
@common
def check(
    display: Display,
    name: str,
    cluster: Path | None,
    folder: Path,
    as_json: bool,
    **placing: tuple[str, ...],
) -> None:
    """Ask whether you may use a model so, and if not, whose word is missing. Nothing runs."""
    with connected_to(cluster, folder) as connected:
        placed = _place(connected, name, **placing)
        found = connected.datasets.ask(placed, {})
    show_verdicts(display, found, as_json)


@model.command("refresh")
@click.argument("name")
@common
def refresh(display: Display, name: str, cluster: Path | None, folder: Path, as_json: bool) -> None:
    """Mask a model of yours anew: its weights stay, and what was known of the old masks opens nothing any more."""
    with connected_to(cluster, folder) as connected, display.stages() as stages:
        stages("masking it anew")
        made = connected.models.refresh(name)
    if as_json:
        display.json({"model": made.describe().content()})
    else:
        display.result(f"{made.name}, version {made.version}: refreshed")


@model.command("remove")
@click.argument("name")
@common
def remove(display: Display, name: str, cluster: Path | None, folder: Path, as_json: bool) -> None:
    """Remove all versions of a model of yours, at all parties and for good."""
    with connected_to(cluster, folder) as connected:
        gone = connected.models.remove(name)
    show_removed(display, gone, as_json)
