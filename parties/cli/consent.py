"""`mpc grant`: what owners allow others to compute from their data."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from mpc.errors import InputError, MpcWarning, UsageError
from mpc.plan.plan import Plan
from mpc.text import shown
from parties.agreed.grants import Grant
from parties.agreed.listed import Entry
from parties.cli.datasets import joined_selections, selections
from parties.cli.display import Display
from parties.cli.objects import common
from parties.cli.options import GRANTED_SECURITY, cluster_file
from parties.cli.training_lists import lines_of, load_list
from parties.client.answering import Silent, missing
from parties.client.at_rest import catalogue
from parties.client.at_rest.said import day
from parties.client.cluster import Cluster
from parties.client.consent import granting
from parties.client.consent.granted import as_plans, require_checked
from parties.client.consent.told import Given, Verdict
from parties.client.running.roles import ACTIVE, read_security
from parties.client.selection import Selection
from parties.client.training.training_list import AFTERWARDS, TrainingList, Use

_SHOWN = 16


DATA = click.option(
    "--data",
    "data",
    multiple=True,
    metavar="[INPUT=]OWNER/NAME[:COLUMN,...][@FIRST:END]",
    help="What an input of the plan is read from: columns of a dataset, all of them if none is named; its rows from "
    "FIRST, counted from 0, to before END, all of them if not said.",
)


@click.group()
def grant() -> None:
    """Allow others to compute from your datasets, and take it back."""


@grant.command("add")
@click.argument("name")
@click.option("--coordinator", "coordinators", multiple=True, required=True, metavar="CLIENT", help="Who may ask.")
@click.option(
    "--recipient", "recipients", multiple=True, metavar="CLIENT", help="Who may learn answers; default: who asks."
)
@click.option("--epsilon", metavar="E", help="Noised answers, which together cost this much at most.")
@click.option("--epsilon-each", metavar="E", help="The most that one of them costs; default: all.")
@click.option("--delta", metavar="D", help="Delta of all of them; default: a millionth.")
@click.option("--outputs", type=click.IntRange(1), help="The most outputs of one question with noise; default: 64.")
@click.option(
    "--mechanism",
    "mechanisms",
    multiple=True,
    type=click.Choice(["laplace", "gaussian"]),
    help="Kinds of noise; default: both. Gaussian noise, of long vectors, costs delta.",
)
@click.option(
    "--apart",
    multiple=True,
    metavar="OWNER/NAME",
    help="Another owner's dataset in which, as you state, nobody is who is in this one.",
)
@click.option("--plan", "plans", multiple=True, type=click.Path(path_type=Path), help="This plan exactly, unnoised.")
@click.option("--model", "models", multiple=True, metavar="OWNER/NAME", help="This model at the parties, exactly.")
@click.option(
    "--train",
    "trainings",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="LIST",
    help="This training exactly, by the list that whoever trains has written (mpc train --list).",
)
@click.option(
    "--allow",
    "allowed",
    multiple=True,
    type=click.Choice(AFTERWARDS),
    help="With --train: what may be done with the trained model; nothing unless you say so.",
)
@DATA
@click.option("--bit", is_flag=True, help="Each plan tells one bit, and nothing else: a grant of --uses bits.")
@click.option("--uses", type=click.IntRange(1), help="Runs at most; default: as many as the other limits allow.")
@click.option("--expires", metavar="TIME", help="36h, 90d, 2y, 2027-01-31; default: never.")
@GRANTED_SECURITY
@common
def add(
    display: Display,
    name: str,
    plans: tuple[Path, ...],
    models: tuple[str, ...],
    trainings: tuple[Path, ...],
    allowed: tuple[Use, ...],
    data: tuple[str, ...],
    cluster: Path | None,
    folder: Path,
    as_json: bool,
    **said: Any,
) -> None:
    """Allow noised answers about your dataset NAME (--epsilon), or exact plans (--plan, --model, --train).

    What you sign decides at every party, not what a coordinator says. Noised answers need a budget too: mpc budget set.
    """
    if bool(plans or models or trainings) == bool(said["epsilon"]):
        raise UsageError("say --epsilon or --plan", remedy="--epsilon 1 for noised answers, --plan FILE for exact ones")
    if allowed and not trainings:
        raise UsageError("--allow is of a training", remedy="--train LIST")
    lists = [load_list(each) for each in trainings]
    said["recipients"], said["mechanisms"] = said["recipients"] or None, said["mechanisms"] or None
    for left in [name for name in ("delta", "outputs") if said[name] is None]:
        del said[left]
    with Cluster.connect(cluster_file(cluster, folder)) as connected, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", MpcWarning)
        read, chosen = _exact_plans(connected, plans, models, data, said["recipients"] or said["coordinators"])
        listed = [each for one in lists for each in one.granted(allowed)]
        _require_read(connected, name, said["coordinators"], lists)
        if read_security(said["security"], connected.config.security) == ACTIVE:
            require_checked(*(each.plan for each in listed))
        exact = [*read, *(each.exact for each in listed)]
        made = connected.datasets.grant(name, plans=exact or None, data=chosen, **said)
        names = names_of(connected) if lists else {}
        lies = not made.by_name or catalogue.own(connected.parties, connected.datasets.full_name(name))
    for note in told:
        display.say(f"note: {note.message}")
    if not lies:
        display.say(f"note: no dataset {shown(name)} of yours lies at the parties yet; the grant is of that name")
    anew = [line for plan in (*as_plans(read), *(each.plan for each in listed)) for line in chosen_anew(plan, made)]
    for line in dict.fromkeys(anew):
        display.say(f"note: {line}")
    for line in [line for one in lists for line in lines_of(one, names, allowed)]:
        display.say(line)
    if as_json:
        display.json({"grant": {"id": made.id, **made.model_dump(mode="json")}})
    else:
        display.result(made.id)


def _exact_plans(
    connected: Cluster, plans: tuple[Path, ...], models: tuple[str, ...], data: tuple[str, ...], recipients: Any
) -> tuple[list[Any], dict[str, tuple[Selection, ...]]]:
    """Return plans and placed models, and what their inputs are read from."""
    found = [connected.model(each) for each in models]
    read: list[Any] = as_plans([*plans]) if plans else []
    inputs = sorted({given.name for each in (*read, *(each.plan for each in found)) for given in each.inputs})
    if not found:
        return read, joined_selections(connected, data, inputs)
    chosen = selections(connected, data, inputs)
    for each in found:
        reading = {given.name: chosen[given.name] for given in each.plan.inputs if given.name in chosen}
        read.append(each.place(recipients=recipients, data=reading))
    return read, {name: (each,) for name, each in chosen.items()}


def _require_read(connected: Cluster, name: str, coordinators: Sequence[str], lists: Sequence[TrainingList]) -> None:
    """Require that each listed training reads the dataset, of its newest version, and is of who is to coordinate it."""
    if not lists:
        return
    mine = connected.dataset(connected.datasets.full_name(name)).manifest
    for one in lists:
        if [*coordinators] != [one.coordinator]:
            raise UsageError(
                f"the list is of a training of {one.coordinator}'s", remedy=f"--coordinator {one.coordinator} alone"
            )
        if not any(mine.id.hex() == part.dataset for part in one.parts):
            raise InputError(
                f"the training does not read {mine.name}, version {mine.version}",
                remedy="have whoever trains write the list again, of the version that is there now",
            )


def names_of(connected: Cluster) -> dict[str, str]:
    """Return the names of the datasets that this client may see, with their versions, by id."""
    found = catalogue.search(connected.parties)
    return {each.id.hex(): f"{each.name}, version {each.version}" for each in found}


def chosen_anew(plan: Plan, made: Grant) -> list[str]:
    """List what of a plan the asker chooses by itself, newly for each use."""
    begins = {state.init for state in plan.states}
    first = sum(gate.out in begins for gate in plan.entered_once)
    others = len(plan.entered_once) - first
    names = [f"input {given.name!r}" for given in plan.entered_inputs]
    if first:
        names.append(f"the weights that the first run begins with ({_arrays(first)})")
    if others:
        names.append(f"weights of the model ({_arrays(others)})")
    if not names:
        return []
    most = "" if made.uses is None else f", {made.uses} times"
    said = [f"chosen by the asker, newly for each use{most}: {shown(', '.join(names))}"]
    exact = made.question.exact
    if exact is not None and exact.outputs_bits is not None:
        said.append(f"so these are {made.uses} bits about whomever the asker chooses")
    return said


def _arrays(number: int) -> str:
    return "1 array" if number == 1 else f"{number:,} arrays"


@grant.command("list")
@common
def list_(display: Display, cluster: Path | None, folder: Path, as_json: bool) -> None:
    """List the grants that you have given, and those that name you."""
    with Cluster.connect(cluster_file(cluster, folder)) as connected:
        silent = Silent()
        found = granting.given(connected.parties, silent)
        by_id = {each.grant.dataset for each in found if not each.grant.by_name}
        named = {} if silent else catalogue.named(connected.parties, by_id)
    error = missing(silent)
    if as_json:
        display.json({"grants": [each.content() for each in found]}, error)
    elif found:
        head = ["grant", "dataset or model", "of", "asked by", ">used", ">epsilon", "expires", "state"]
        display.table(head, [_line(each, named.get(each.grant.dataset)) for each in found])
    else:
        display.say("no grants")
    if error is not None:
        raise error


def _line(each: Given, of: Entry | None) -> list[str]:
    """Return a line of the table; `of` is the version that it allows to use, if it is one that its reader may see."""
    said, dp, exact = each.grant, each.grant.question.dp, each.grant.question.exact
    dataset = said.dataset if said.by_name else said.dataset[:_SHOWN]
    if of is not None:
        dataset = f"{of.name}, version {of.version}"
    what = "noised answers" if dp is not None else "use of a model"
    if exact is not None:
        what = "exact plans" if exact.outputs_bits is None else "single bits"
    what += ", checked" if said.security == ACTIVE else ""
    spent = f"{float(each.spent):g} of {float(dp.epsilon):g}" if dp is not None else ""
    used = f"{each.uses}" if said.uses is None else f"{each.uses} of {said.uses}"
    expires = "never" if said.expires >= granting.FOR_EVER else day(said.expires)
    state = "revoked" if each.revoked else "given"
    return [each.id[:_SHOWN], dataset, what, ", ".join(said.coordinators), used, spent, expires, state]


@grant.command("revoke")
@click.argument("grant_id", metavar="GRANT")
@common
def revoke(display: Display, grant_id: str, cluster: Path | None, folder: Path, as_json: bool) -> None:
    """Take a grant back, by its id or its first digits: nothing opens under it, and nothing more is told."""
    with Cluster.connect(cluster_file(cluster, folder)) as connected:
        gone = connected.datasets.revoke(grant_id)
    if as_json:
        display.json({"revoked": gone})
    else:
        display.result(f"revoked {gone}")


@grant.command("check")
@click.argument("plan", type=click.Path(path_type=Path))
@DATA
@common
def check(
    display: Display, plan: Path, data: tuple[str, ...], cluster: Path | None, folder: Path, as_json: bool
) -> None:
    """Ask whether PLAN would be answered for you, and if not, whose word is missing. Nothing runs."""
    with Cluster.connect(cluster_file(cluster, folder)) as connected:
        [read] = as_plans(plan)
        chosen = joined_selections(connected, data, [given.name for given in read.inputs])
        found = connected.datasets.ask(read, chosen)
    show_verdicts(display, found, as_json)


def show_verdicts(display: Display, found: Sequence[Verdict], as_json: bool) -> None:
    """Print what each party says of each dataset and model."""
    if as_json:
        display.json({"answers": [_verdict(each) for each in found]})
        return
    for each in found:
        what = each.whose if each.operator else each.dataset or "a dataset"
        display.result(f"{each.party}: {what}: {'yes' if each.allowed else f'no: {each.why}'}")
        if each.remedy:
            display.say(f"  fix: {each.remedy}")


def _verdict(each: Verdict) -> dict[str, Any]:
    return {
        "party": each.party,
        "dataset": each.dataset,
        "allowed": each.allowed,
        "mechanism": each.mechanism,
        "epsilon": float(each.epsilon),
        "whose": each.whose,
        "operator": each.operator,
        "denied": each.denied,
        "why": each.why,
        "fix": each.remedy,
    }
