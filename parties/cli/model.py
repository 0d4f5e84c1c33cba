"""`mpc compile`, `mpc inspect`: everything about a plan before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from mpc.compiler.compile import Compiled
from mpc.compiler.onnx.load import Loaded, load_model
from mpc.compiler.onnx.signature import input_names, output_names
from mpc.compiler.operators import supported
from mpc.compiler.roles import Roles
from mpc.errors import PlanError
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan
from parties.agreed.ticket import Ticket
from parties.cli.compiling import noted
from parties.cli.describing import describe, print_report
from parties.cli.display import Display
from parties.cli.inputs import load_inputs
from parties.cli.inspecting import Asked, show_list, show_training
from parties.cli.join import read_ticket
from parties.cli.noise import Wanted, noise_and_total, noise_options
from parties.cli.options import (
    CALIBRATE,
    CLUSTER,
    FOLDER,
    JSON,
    LINK,
    OWNER,
    PLAN_SECURITY,
    RANGE,
    RECIPIENT,
    SECRET_WEIGHTS,
    SHAPE,
    WEIGHTS,
    parse_ranges,
    parse_shapes,
    require_folder,
)
from parties.cli.training import DATA, training_options
from parties.cli.training_lists import BEGINNING
from parties.client.compiling.cached import compile_cached
from parties.client.running.roles import parse_roles, require_security
from parties.client.training.timing import MOST
from parties.config.models import Security
from parties.disk import write_atomic
from parties.local.layout import COORDINATOR

_CLIENT = click.option(
    "--client",
    default=COORDINATOR,
    show_default=True,
    help="The certificate name of who enters the model, and all that is nobody else's; it is part of the plan.",
)
_TICKET = b'{"bindings":'
"""Begin every ticket so, and no plan."""
_MODEL = click.argument("model", type=click.Path(path_type=Path))


@dataclass(frozen=True)
class Choices:
    """Options that say how to compile a model."""

    ranges: tuple[str, ...]
    shapes: tuple[str, ...]
    samples: tuple[str, ...]
    roles: Roles
    noise: Wanted = Wanted()

    @property
    def none(self) -> bool:
        """Was nothing chosen, but perhaps a client's name, or a security that a plan may have as well?"""
        owner = self.roles.model_owner
        return not (self.ranges or self.shapes or self.samples or self.noise) and self.roles == Roles(
            owner, owner, (owner,), security=self.roles.security
        )

    def compile(self, display: Display, path: Path) -> Compiled:
        """Compile a model; tell the user what was taken for granted."""
        loaded = Loaded(load_model(path))
        names = input_names(loaded)
        feeds = load_inputs(self.samples, names) if self.samples else None
        ranges, shapes = parse_ranges(self.ranges, names), parse_shapes(self.shapes, names)
        noise = self.noise.noising(output_names(loaded), {}, None)
        return noted(display, compile_cached(loaded, ranges, self.roles, feeds, shapes, noise=noise))


def _choices(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of one that compiles; it receives them as `choices`."""

    @RANGE
    @SHAPE
    @CALIBRATE
    @_CLIENT
    @OWNER
    @RECIPIENT
    @WEIGHTS
    @SECRET_WEIGHTS
    @PLAN_SECURITY
    @LINK
    @noise_options
    @wraps(command)
    def chosen(
        ranges: tuple[str, ...],
        shapes: tuple[str, ...],
        samples: tuple[str, ...],
        client: str,
        owners: tuple[str, ...],
        recipients: tuple[str, ...],
        weights: str,
        secret_weights: tuple[str, ...],
        security: Security,
        link: str | None,
        noise: Wanted,
        **others: Any,
    ) -> None:
        roles = parse_roles(client, owners, recipients, weights, security, secret_weights, link)
        command(choices=Choices(ranges, shapes, samples, roles, noise), **others)

    return chosen


@click.command("compile")
@_MODEL
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Where the plan goes.")
@_choices
@click.pass_obj
def compile_(display: Display, model: Path, output: Path, choices: Choices) -> None:
    """Compile MODEL (ONNX) to a plan: public, without weights; prints its digest."""
    require_folder(output)
    compiled = choices.compile(display, model)
    write_atomic(output, compiled.plan.canonical, 0o644)
    display.result(compiled.plan.digest.hex())


@click.command()
@_MODEL
@click.option("--batch", type=click.IntRange(1, 1 << 20), help="Rows of a run, or of a step; default: 1, or 128.")
@click.option("--parties", default=2, show_default=True, type=click.IntRange(2))
@click.option(
    "--operators",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda context, _, asked: _list_operators(context) if asked else None,
    help="List the operators that are supported, and stop.",
)
@click.option("--train", is_flag=True, help="Say what training MODEL costs; the options behind this one are for that.")
@training_options
@click.option("--rows", type=click.IntRange(1), help="Rows of an epoch; default: one step's, or those of --data.")
@DATA
@click.option(
    "--measure",
    type=click.IntRange(1, MOST),
    metavar="STEPS",
    help="Run so many steps on made-up rows, to say how long they take: in the cluster of --data or --cluster, "
    "else in one of --parties on this machine.",
)
@CLUSTER
@FOLDER
@_choices
@JSON
@click.pass_obj
def inspect(
    display: Display,
    /,
    model: Path,
    batch: int | None,
    parties: int,
    train: bool,
    choices: Choices,
    as_json: bool,
    **training: Any,
) -> None:
    """Say what MODEL (an ONNX model, a plan, a ticket, a training list) costs, gate by gate, and who learns what."""
    asked = Asked(batch=batch, parties=parties, **training)
    if train:
        show_training(display, model, choices.ranges, choices.shapes, choices.samples, choices.roles, asked, as_json)
        return
    asked.require_none()
    if model.is_file() and model.open("rb").read(len(BEGINNING)) == BEGINNING:
        show_list(display, model, as_json)
        return
    batch = batch or 1
    plan, origins, undeclared = read_model(display, model, choices)
    noise, together = noise_and_total(plan)
    told = {"undeclared": list(undeclared), "noise": noise, "noise_together": together}
    report = describe(plan, origins, batch, parties) | told
    if as_json:
        display.json(report)
        return
    print_report(display, report)


def _list_operators(context: click.Context) -> None:
    click.echo("\n".join(supported()))
    context.exit()


def read_plan(display: Display, path: Path, choices: Choices) -> Plan:
    """Read a plan from any kind of file."""
    return read_model(display, path, choices)[0]


def read_model(display: Display, path: Path, choices: Choices) -> tuple[Plan, dict[str, str], tuple[str, ...]]:
    """Read a plan from any kind of file, each gate's node in the model if it is known, and inputs without a range."""
    if path.is_file() and path.open("rb").read(1) == b"{":
        if not choices.none:
            raise PlanError("a plan's ranges and names are part of it", remedy="compile the model again with them")
        ticket = path.open("rb").read(len(_TICKET)) == _TICKET
        plan = Ticket.parse(read_ticket(path)).plan if ticket else parse_plan(path.read_bytes())
        require_security(plan, choices.roles.security)
        return plan, {}, ()
    compiled = choices.compile(display, path)
    return compiled.plan, {gate: origin.node for gate, origin in compiled.origins.items()}, compiled.undeclared
