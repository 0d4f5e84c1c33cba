"""`mpc run`: private inference from the command line."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from mpc.compiler.compile import Compiled
from mpc.errors import PolicyError, UsageError, WaitingError
from mpc.plan.checking import CHECK_SIZES, check_windows
from mpc.plan.plan import Plan
from mpc.text import shown
from parties.agreed.bindings import rows_of
from parties.cli.display import Display, seconds, size
from parties.cli.noise import Wanted, noise_of, noise_options
from parties.cli.options import (
    CALIBRATE,
    CLUSTER,
    FOLDER,
    JSON,
    LINK,
    OWNER,
    RANGE,
    RECIPIENT,
    SECRET_WEIGHTS,
    SECURITY,
    SHAPE,
    WAIT,
    WEIGHTS,
    cluster_file,
    require_folder,
    require_npz,
    security_for,
)
from parties.cli.outputs import plain_outputs, print_outputs, require_output, say_roles, write_outputs
from parties.cli.preparing import Prepared, Said, prepare
from parties.client.at_rest import keeping
from parties.client.cluster import Cluster
from parties.client.model import Placed
from parties.client.running.feeds import agree_on_batch, check_own, owned, received
from parties.client.running.narrowing import Narrowing
from parties.client.running.roles import SECRET, others, parse_roles
from parties.client.running.room import sizes
from parties.client.session import Session
from parties.config.load import load
from parties.config.models import ClusterConfig
from parties.disk import write_atomic
from parties.local.layout import COORDINATOR, in_folder
from parties.local.warming import warm
from parties.trust.identity import Identity


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--input", "inputs", multiple=True, metavar="[NAME=]X.npy|X.npz|X.csv", help="The data you enter.")
@click.option(
    "--data",
    multiple=True,
    metavar="[INPUT=]OWNER/NAME[:COLUMN,...][@FIRST:END]",
    help="An input that lies at the parties: columns of a dataset, all of them if none is named.",
)
@click.option(
    "--keep",
    "kept",
    multiple=True,
    metavar="[OUTPUT=]NAME",
    help="An output that stays at the parties as your dataset; without --recipient OUTPUT=NAME nobody receives it.",
)
@click.option("--output", type=click.Path(path_type=Path), help="Write the outputs you receive to this .npz file.")
@click.option("--parties", type=click.IntRange(2), help="Start this many parties just for this run.")
@OWNER
@RECIPIENT
@click.option("--ticket", type=click.Path(path_type=Path), help="Write what the others need for 'mpc join' here.")
@click.option("--batch", type=click.IntRange(1), help="How many rows there are, if none of your inputs says it.")
@CLUSTER
@SECURITY
@LINK
@WEIGHTS
@SECRET_WEIGHTS
@RANGE
@SHAPE
@CALIBRATE
@noise_options
@WAIT
@FOLDER
@JSON
@click.pass_obj
def run(
    display: Display,
    model: Path,
    inputs: tuple[str, ...],
    data: tuple[str, ...],
    kept: tuple[str, ...],
    output: Path | None,
    parties: int | None,
    owners: tuple[str, ...],
    recipients: tuple[str, ...],
    ticket: Path | None,
    batch: int | None,
    cluster: Path | None,
    security: str | None,
    link: str | None,
    weights: str,
    secret_weights: tuple[str, ...],
    ranges: tuple[str, ...],
    shapes: tuple[str, ...],
    samples: tuple[str, ...],
    wait: float,
    noise: Wanted,
    folder: Path,
    as_json: bool,
) -> None:
    """Run private inference of MODEL (ONNX) on --input, by the running cluster or by --parties of its own.

    MODEL may be one that lies at the parties, by its name: OWNER/NAME, or @OWNER/NAME.
    With --data an input is read from a dataset at the parties, and its owner takes no part.
    With --epsilon an output is a sum over rows and noise, which its data's owner may have granted.
    With --owner and --recipient others enter inputs and receive outputs: they join with the file that --ticket
    writes, and this command waits for them.
    """
    if not inputs and not owners and not data:
        raise UsageError(
            "--input is missing",
            remedy="give the data: --input [NAME=]X.npy, or --data OWNER/NAME; --owner says whose it is else",
        )
    if (data or kept) and parties is not None:
        raise UsageError("--parties starts a cluster of its own, where no datasets are", remedy="mpc up; mpc data put")
    if output is not None:
        require_npz(output)
    if ticket is not None:
        require_folder(ticket)
    if parties is not None and cluster is not None:
        raise UsageError("--parties starts a cluster of its own; --cluster names one that runs")
    with display.stages() as stage:
        stage("compiling")
        path = None if parties is not None else cluster_file(cluster, folder)
        me, ours = whose(path)
        roles = parse_roles(me, owners, recipients, weights, security_for(path, security), secret_weights, link)
        who = others(roles, me)
        _require_ticket(who, ticket, parties, in_folder(folder))
        said = Said(model, inputs, data, ranges, shapes, samples, roles, kept, noise)
        prepared = prepare(display, path, said, me, ours and not (who or ticket))
        compiled, feeds = prepared.of, prepared.feeds
        found = check_own(compiled.plan, me, feeds) or rows_of(compiled.plan, prepared.bindings)
        rows = agree_on_batch(compiled.plan, found, batch)
        require_output(output, compiled.plan, me)
        if path is not None:
            warm(display.say)
        stage("connecting" if path is not None else f"starting a provider and {parties} parties")
        with Cluster.connect(path) if path is not None else Cluster.local(parties or 2, say=display.say) as connected:
            stage(_setting_up(compiled, weights))
            started = time.perf_counter()
            session = _open(
                connected,
                compiled,
                who if cluster is None else [],
                rows if path is not None else None,
                in_folder(folder),
                prepared,
                wait,
            )
            _say_notes(display, session, compiled.messages)  # which were said when it was compiled
            setup = time.perf_counter() - started
            if ticket is not None:
                write_atomic(ticket, f"{session.ticket}\n".encode(), 0o644)
                _say_who(display, ticket, compiled, who, path)
            session.on_progress(stage.rounds)
            stage("waiting for the others, computing on shares" if who else "computing on shares")
            told = list(session.notes)
            named = dict(zip(received(compiled.plan, me), session.run(None, feeds, rows), strict=True))
            narrowing, session.narrowing = session.narrowing, None  # it is said when the answer has been shown
            _say_notes(display, session, told)
            if output is not None:
                write_outputs(output, named)
            stage("waiting until the others have their outputs" if who else "closing the session")
            session.close()
            runs = sizes(connected.parties, compiled.plan, session.last_run.batch) if session.last_run else []
    spreads = compiled.deviations if isinstance(compiled, Compiled) else {}
    noises = noise_of(compiled.plan)
    price = {**asdict(session.last_run), "setup_s": setup} if session.last_run is not None else {}
    if as_json:
        content, digest = plain_outputs(named), compiled.plan.digest.hex()
        made = [{"name": each.name, "version": each.version, "outputs": each.outputs} for each in session.keeps]
        told_of = {"model": str(model), "security": compiled.plan.security, "weights": weights, "plan": digest}
        noised = {"noise": noises, "deviations": spreads} if noises else {}
        display.json({**told_of, **price, "outputs": content, "kept": made, **noised})
        _say_narrowing(display, narrowing)
        return
    print_outputs(display, named, output)
    for name, spread in spreads.items():
        display.result(f"noise of {shown(name)}: standard deviation {spread:.4g}")
    for each in session.keeps:
        display.result(f"kept as {each.name}, version {each.version}")
    _print_price(display, price, isinstance(compiled, Placed), compiled.plan, runs)
    _say_narrowing(display, narrowing)


def _say_narrowing(display: Display, narrowing: Narrowing | None) -> None:
    """Say what a narrower range would save; which one it is stays on the user's terminal, and out of a log."""
    if narrowing is not None and not display.quiet and (hint := narrowing.hint()) is not None:
        elsewhere = f"{hint.discreet} (run on a terminal to see which)"
        display.say(f"note: {hint.whole if display.notes.is_terminal else elsewhere}")


def _setting_up(compiled: Compiled | Placed, weights: str) -> str:
    if isinstance(compiled, Placed):
        return "opening a session of the model at the parties"
    return "sharing the weights" if weights == SECRET else "telling the parties the weights"


def whose(path: Path | None) -> tuple[str, bool]:
    """Return this client's name, and whether all processes of the cluster are this user's own.

    They are in a cluster of --parties, and for whoever started it in one of `mpc up`, whose development CA is good for
    this machine only; other clients of that have names of their own.
    """
    if path is None:
        return COORDINATOR, True
    config = load(ClusterConfig, path)
    ours = config.name == COORDINATOR and Identity.load(config.tls, config.name).trust.is_development
    return config.name, ours


def _say_notes(display: Display, session: Session, told: list[str]) -> None:
    """Say those notes of the session that its user has not been told."""
    for note in session.notes[len(told) :]:
        display.say(f"note: {note}")


def _require_ticket(who: list[str], ticket: Path | None, parties: int | None, where: str) -> None:
    """Require that others can take part: they have to reach the cluster, and to be told of the session."""
    if who and parties is not None:
        raise UsageError(
            f"{', '.join(who)} cannot join a cluster that --parties starts for one run",
            remedy=f"mpc up{where}{_clients(who)} --detach, then leave --parties out",
        )
    if who and ticket is None:
        raise UsageError(f"{', '.join(who)} must be told of this run", remedy="add --ticket FILE, and give them FILE")


def _clients(who: list[str]) -> str:
    return "".join(f" --client {name}" for name in who)


def _open(
    cluster: Cluster,
    compiled: Compiled | Placed,
    local: list[str],
    rows: int | None,
    where: str,
    prepared: Prepared,
    wait: float,
) -> Session:
    """Open the session, of what was dealt ahead for one such run if there is any.  Where `mpc up` wrote the policies, a
    refusal says how it writes others."""
    try:
        keeps = keeping.keeps(cluster.parties, compiled.plan, prepared.kept)
        return cluster.open(compiled, rows, calls=1, bindings=prepared.bindings, keeps=keeps, wait=wait)
    except PolicyError as refusal:
        if not local or isinstance(refusal, WaitingError):
            raise
        again = f"mpc down{where}; mpc up{where}{_clients(local)} --detach"
        remedy = f"{refusal.remedy}; a cluster of 'mpc up': {again}"
        raise refusal.with_(remedy=remedy) from refusal.__cause__


def _say_who(display: Display, ticket: Path, compiled: Compiled | Placed, who: list[str], cluster: Path | None) -> None:
    """Say what each of the others types, with its cluster file where `mpc up` made that beside this one."""
    say_roles(display, compiled.plan)
    for name in who:
        given = [f"--input {given}=FILE" for given in owned(compiled.plan, name)]
        own = cluster.with_name(f"{name}.toml") if cluster is not None else None
        given += [f"--cluster {own}"] if own is not None and own.is_file() else []
        display.say(f"{name + ':':<13} mpc join {' '.join([str(ticket), *given])}")


def _print_price(display: Display, price: dict[str, Any], stored: bool, plan: Plan, runs: list[int]) -> None:
    display.say("")
    display.say(f"online        {seconds(price['online_s'])}  (largest party's CPU {seconds(price['online_cpu_s'])})")
    dealt = "dealt ahead" if price["stocked"] else f"of it the provider {seconds(price['provider_s'])} or more"
    display.say(f"offline       {seconds(price['offline_s'])}  ({dealt})")
    weights = "weights read where they lie" if stored else "weights shared"
    display.say(f"set-up        {seconds(price['setup_s'])}  ({weights}, once a session)")
    windows = sum(len(check_windows(plan.bind(rows))) for rows in runs)
    checked = f", of them {len(CHECK_SIZES) * windows} to check what was opened" if plan.is_checked else ""
    display.say(f"rounds        {price['rounds']}{checked}")
    peers = "its peer" if price["parties"] == 2 else f"all {price['parties'] - 1} peers"
    display.say(f"sent          {size(price['sent_bytes'])} by the largest party to {peers}")
    display.say(f"dealt         {size(price['dealt_bytes'])}")
    display.say(f"learned by    {', '.join(price['recipients']) or 'nobody'}")
