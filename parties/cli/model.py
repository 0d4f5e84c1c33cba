"""`mpc compile`, `mpc inspect`: everything about a plan before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from mpc.compiler.compile import Compiled, compile_model
from mpc.compiler.onnx.load import Loaded, load_model
from mpc.compiler.onnx.signature import input_names, output_names
from mpc.compiler.operators import supported
from mpc.compiler.roles import Roles
from mpc.errors import PlanError, UsageError
from mpc.gates.input import Input
from mpc.plan.cost import Cost, gate_cost, plan_cost, session_dealt
from mpc.plan.parse import parse_plan
from mpc.plan.plan import Plan
from mpc.prg import SEED_BYTES
from mpc.transcript import DIGEST_BYTES
from parties.agreed import programs
from parties.agreed.ticket import Ticket
from parties.cli.compiling import noted
from parties.cli.display import Display, size
from parties.cli.inputs import load_inputs
from parties.cli.inspecting import show_training
from parties.cli.join import read_ticket
from parties.cli.noise import Wanted, noise_of, noise_options
from parties.cli.options import (
    CALIBRATE,
    JSON,
    OWNER,
    PLAN_SECURITY,
    PROMISE,
    RANGE,
    RECIPIENT,
    SHAPE,
    WEIGHTS,
    parse_ranges,
    parse_shapes,
    require_folder,
)
from parties.cli.outputs import AT_REST, ENTERS
from parties.client.at_rest.model_listing import said_ranges
from parties.client.running.feeds import split
from parties.client.running.roles import PASSIVE, SECRET, known_weights, parse_roles
from parties.client.training.trainer import TARGET
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
"""How a ticket begins, and no plan."""
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
        """Was nothing chosen, but perhaps a client's name?"""
        owner = self.roles.model_owner
        return not (self.ranges or self.shapes or self.samples or self.noise) and self.roles == Roles(
            owner, owner, (owner,)
        )

    def compile(self, display: Display, path: Path) -> Compiled:
        """Compile a model; tell the user what was taken for granted."""
        loaded = Loaded(load_model(path))
        names = input_names(loaded)
        feeds = load_inputs(self.samples, names) if self.samples else None
        ranges, shapes = parse_ranges(self.ranges, names), parse_shapes(self.shapes, names)
        noise = self.noise.noising(output_names(loaded), {}, None)
        return noted(display, compile_model(loaded, ranges, self.roles, feeds, shapes, noise=noise))


def _choices(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of one that compiles; it receives them as `choices`."""

    @RANGE
    @SHAPE
    @CALIBRATE
    @_CLIENT
    @OWNER
    @RECIPIENT
    @WEIGHTS
    @PLAN_SECURITY
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
        security: Security,
        noise: Wanted,
        **others: Any,
    ) -> None:
        roles = parse_roles(client, owners, recipients, weights, security)
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
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1, 1 << 20))
@click.option("--parties", default=2, show_default=True, type=click.IntRange(2))
@click.option(
    "--operators",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda context, _, asked: _list_operators(context) if asked else None,
    help="List the operators that are supported, and stop.",
)
@click.option("--train", is_flag=True, help="Say what training MODEL costs, a step and an epoch.")
@click.option("--loss", type=click.Choice(["one_vs_all", "cross_entropy", "mse"]), help="With --train.")
@click.option("--rows", type=click.IntRange(1), help="With --train: rows of an epoch; default: one step's.")
@_choices
@JSON
@click.pass_obj
def inspect(
    display: Display,
    model: Path,
    batch: int,
    parties: int,
    train: bool,
    loss: str | None,
    rows: int | None,
    choices: Choices,
    as_json: bool,
) -> None:
    """Say what MODEL (an ONNX model, a plan, or a ticket) costs, gate by gate, and who learns what."""
    if not train and (loss or rows):
        raise UsageError("--loss and --rows are of a training", remedy="add --train")
    if train:
        loaded = Loaded(load_model(model))
        names = input_names(loaded)
        ranges, shapes = parse_ranges(choices.ranges, [*names, TARGET]), parse_shapes(choices.shapes, names)
        show_training(
            display, loaded, ranges, shapes, choices.roles, loss or "one_vs_all", batch, parties, rows, as_json
        )
        return
    plan, origins, undeclared = read_model(display, model, choices)
    report = describe(plan, origins, batch, parties) | {"undeclared": list(undeclared), "noise": noise_of(plan)}
    if as_json:
        display.json(report)
        return
    _print(display, report)


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
        if path.open("rb").read(len(_TICKET)) == _TICKET:
            return Ticket.parse(read_ticket(path)).plan, {}, ()
        return parse_plan(path.read_bytes()), {}, ()
    compiled = choices.compile(display, path)
    return compiled.plan, {gate: origin.node for gate, origin in compiled.origins.items()}, compiled.undeclared


def _cost(plan: Plan, batch: int) -> Cost:
    """Add up the cost of all runs that the batch is split into; memory is that of the largest."""
    parts = [plan_cost(plan, size) for size in split(plan, batch)]
    return Cost(
        rounds=sum(part.rounds for part in parts),
        sent=sum(part.sent for part in parts),
        dealt=sum(part.dealt for part in parts),
        held=max(part.held for part in parts),
    )


def _check(plan: Plan, batch: int) -> dict[str, int] | None:
    """Count what checking adds to the cost of these runs, and once to that of a session; None if they are not."""
    if not plan.is_checked:
        return None
    cost, plain = _cost(plan, batch), _cost(plan.with_security(PASSIVE), batch)
    return {
        "rounds": cost.rounds - plain.rounds,
        "sent_bytes_per_peer": cost.sent - plain.sent,
        "dealt_bytes": cost.dealt - plain.dealt,
        "dealt_bytes_once": session_dealt(plan),
    }


def describe(plan: Plan, origins: dict[str, str], batch: int, parties: int) -> dict[str, Any]:
    """Return the report that `mpc inspect --json` prints."""
    bound, cost = plan.bind(batch), _cost(plan, batch)
    gates = []
    for gate in plan.gates:
        part, wires = gate_cost(gate, bound.wire), [bound.wire[name] for name in gate.writes]
        setup = isinstance(gate, Input) and gate.is_weight
        gates.append(
            {
                "gate": gate.name,
                "node": origins.get(gate.name, ""),
                "phase": "session" if setup else "run",
                "shape": list(wires[0].sizes),
                "rounds": part.rounds,
                "sent_bytes_per_peer": part.sent,
                "dealt_bytes": part.dealt,
                "scale": str(wires[0].scale),
                "bits": max(wire.bits for wire in wires),
            }
        )
    learns = [
        {"who": list(bound.wire[out.wire].holders), "output": out.name, "shape": list(out.shape), "kept": out.keep}
        for out in bound.outputs
    ]
    enters = [
        {
            "who": list(bound.wire[given.wire].holders),
            "input": given.name,
            "range": [[*map(float, given.low)], [*map(float, given.high)]],
            "shape": list(bound.wire[given.wire].sizes),
            "missing": list(given.missing.columns) if given.missing else [],
            "stored": given not in plan.entered_inputs,
        }
        for given in plan.inputs
    ]
    owners = {holder for gate in plan.weights for holder in plan.wire[gate.out].holders}
    return {
        "digest": plan.digest.hex(),
        "batch": batch,
        "parties": parties,
        "rounds": cost.rounds,
        "sent_bytes_per_peer": cost.sent,
        "agreement_bytes_per_peer": DIGEST_BYTES * len(split(plan, batch)),
        "sent_bytes": cost.total_sent(parties),
        "runs": len(split(plan, batch)),
        "dealt_bytes": cost.dealt + SEED_BYTES * parties * len(split(plan, batch)),
        "correlation_bytes": cost.held,
        "security": plan.security,
        "check": _check(plan, batch),
        "model_owners": sorted(owners),
        "weights": known_weights(plan),
        "stored_weights": any(gate.is_stored for gate in plan.weights),
        "enters": enters,
        "learns": learns,
        "gates": gates,
        **programs.described(plan),
    }


def _print(display: Display, report: dict[str, Any]) -> None:
    rows = [
        (
            entry["gate"],
            entry["node"],
            "x".join(map(str, entry["shape"])),
            entry["rounds"] or "-",
            size(entry["sent_bytes_per_peer"]) if entry["sent_bytes_per_peer"] else "-",
            size(entry["dealt_bytes"]) if entry["dealt_bytes"] else "-",
            _scale(entry["scale"]),
            f"2^{entry['bits']}",
        )
        for entry in report["gates"]
        if entry["phase"] == "run"
    ]
    display.table(["gate", "node", ">shape", ">rounds", ">sent to each peer", ">dealt", ">scale", ">bound"], rows)
    display.result("")
    display.result(f"digest        {report['digest']}")
    split = f" (split into {report['runs']} runs)" if report["runs"] > 1 else ""
    display.result(f"rounds        {report['rounds']}{split}")
    for entry in report["noise"]:
        display.result(
            f"noise         {entry['mechanism']}, of {entry['elements']} sums, standard deviation {entry['std']:.4g}: "
            f"epsilon {entry['epsilon']:g}, delta {entry['delta']:.2g}, if each person is in one row"
        )
    if report["undeclared"]:
        names = ", ".join(map(repr, report["undeclared"]))
        display.result(f"              (no range is declared for {names}: 'mpc run' may take another one, that suits")
        display.result(
            "              the data, and another plan with other rounds; --range, here and there, settles it)"
        )
    each = size(report["sent_bytes_per_peer"])
    display.result(
        f"sent          {each} by each party to each peer (batch {report['batch']}), of which "
        f"{size(report['agreement_bytes_per_peer'])} to compare what was entered"
    )
    display.result(f"dealt         {size(report['dealt_bytes'])} by the provider to {report['parties']} parties, a run")
    if (check := report["check"]) is not None:
        display.result(
            f"checked       each run before anything of it is told: of this {check['rounds']} rounds, "
            f"{size(check['sent_bytes_per_peer'])} to each peer, {size(check['dealt_bytes'])} dealt; once a session "
            f"{size(check['dealt_bytes_once'])} dealt"
        )
        display.result(f"              ({PROMISE})")
    weights = sum(entry["phase"] == "session" for entry in report["gates"])
    if weights:
        how = "put at the parties" if report["stored_weights"] else "entered once a session"
        entered = f"{how} by {', '.join(report['model_owners'])}"
        display.result(f"weights       {weights} arrays, {report['weights']}, {entered}")
        if report["weights"] != SECRET:
            display.result("              (all parties and the provider know public weights, other clients do not)")
    for entry in report["enters"]:
        within = said_ranges(*entry["range"])
        missing = f", {_may_miss(entry['missing'], entry['shape'][-1])}" if entry["missing"] else ""
        how = AT_REST if entry["stored"] else ENTERS
        display.result(f"{how:<14}{', '.join(entry['who'])}: input {entry['input']!r} in {within}{missing}")
    for entry in report["learns"]:
        what = f"output {entry['output']!r} {tuple(entry['shape'])}"
        if entry["kept"]:
            display.result(f"keeps         the parties, for the coordinator: {what}")
        if entry["who"]:
            display.result(f"learns        {', '.join(entry['who'])}: {what}")
    for label, words in programs.said(report):
        display.result(f"{label:<14}{words}")
    display.result("everyone      the plan: shapes, scales, bounds, ranges and names above; no weight, no datum")


def _may_miss(columns: list[int], size: int) -> str:
    """Word which columns of an input NaN may stand in."""
    if len(columns) == size:
        return "where any number may be missing (NaN)"
    groups: list[list[int]] = []
    for column in columns:
        if groups and groups[-1][-1] + 1 == column:
            groups[-1].append(column)
        else:
            groups.append([column])
    ends = ", ".join(str(group[0]) if len(group) == 1 else f"{group[0]}-{group[-1]}" for group in groups)
    return f"where numbers of column{'s' if len(columns) > 1 else ''} {ends} may be missing (NaN)"


def _scale(text: str) -> str:
    number = int(text) if text.isdigit() else 0
    return f"2^{number.bit_length() - 1}" if number and number & (number - 1) == 0 else text
