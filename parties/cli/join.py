"""`mpc join`: take part in a run that somebody else coordinates."""

from __future__ import annotations

from pathlib import Path

import click

from mpc.errors import UsageError
from parties.agreed.ticket import LARGEST
from parties.cli.display import Display
from parties.cli.inputs import load_inputs
from parties.cli.options import CLUSTER, FOLDER, JSON, cluster_file
from parties.cli.outputs import plain_outputs, print_outputs, require_output, say_roles, write_outputs
from parties.client.cluster import Cluster
from parties.local.warming import warm


@click.command()
@click.argument("ticket", type=click.Path(path_type=Path))
@click.option("--input", "inputs", multiple=True, metavar="[NAME=]X.npy|X.npz|X.csv", help="The data you enter.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the outputs you receive to this .npz file.")
@click.option("--plan", "digest", metavar="DIGEST", help="Take part only if this is the plan's digest.")
@CLUSTER
@FOLDER
@JSON
@click.pass_obj
def join(
    display: Display,
    ticket: Path,
    inputs: tuple[str, ...],
    output: Path | None,
    digest: str | None,
    cluster: Path | None,
    folder: Path,
    as_json: bool,
) -> None:
    """Enter and receive what the plan of TICKET gives you; TICKET is what 'mpc run --ticket' wrote.

    'mpc inspect TICKET' shows who learns what before you do.
    """
    with Cluster.connect(cluster_file(cluster, folder)) as connected, display.stages() as stage:
        guest = connected.join(read_ticket(ticket), digest)
        me = connected.config.name
        require_output(output, guest.plan, me)
        types = {given.name: given.dtype for given in guest.plan.entered_inputs}
        feeds = load_inputs(inputs, [*types], guest.inputs, types)
        say_roles(display, guest.plan)
        warm(display.say)
        guest.on_progress = stage.rounds
        stage("waiting for the others, computing on shares")
        named = dict(zip(guest.outputs, guest.run(feeds), strict=True))
        for note in guest.notes:
            display.say(f"note: {note}")
    if output is not None:
        write_outputs(output, named)
    if as_json:
        display.json({"ticket": str(ticket), "plan": guest.plan.digest.hex(), "outputs": plain_outputs(named)})
        return
    print_outputs(display, named, output)
    if not named:
        display.say(f"done; the outputs are with {', '.join(sorted(guest.plan.recipients))}")


def read_ticket(path: Path) -> str:
    """Read a ticket's text; raise UsageError if there is no such file."""
    try:
        with path.open("rb") as file:
            return file.read(LARGEST + 1).decode("ascii", "replace")
    except OSError as error:
        raise UsageError(
            f"the ticket {path} cannot be read",
            cause=error.strerror,
            remedy="ask the coordinator for the file that 'mpc run --ticket FILE' wrote",
        ) from None
