"""`mpc collect`: one noised sum of rows that many clients enter, one each."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import click
import numpy as np

from mpc.errors import InputError, UsageError
from mpc.text import shown
from parties.cli.display import Display
from parties.cli.objects import common, connected_to
from parties.cli.options import require_folder
from parties.client.at_rest.said import day
from parties.client.collections.collection import Collection
from parties.disk import write_atomic

_SHOWN = 10


@click.group()
def collect() -> None:
    """Have many clients enter a row each, and learn one noised sum of all rows; or enter yours."""


@collect.command("open")
@click.argument("name")
@click.option("--size", type=click.IntRange(1), required=True, help="Numbers of a row.")
@click.option("--low", required=True, metavar="X", help="The least that each of them is.")
@click.option("--high", required=True, metavar="X", help="The most that each of them is.")
@click.option("--at-least", type=click.IntRange(1), required=True, help="Of fewer rows nothing is ever told.")
@click.option("--at-most", type=click.IntRange(1), help="Rows that it takes; when all are in it may be closed.")
@click.option("--epsilon", required=True, metavar="E", help="What the sum tells of each client, at most.")
@click.option("--delta", metavar="D", help="Likewise, of Gaussian noise; default: a millionth.")
@click.option("--mechanism", type=click.Choice(["laplace", "gaussian"]), help="Default: gaussian from 12 numbers on.")
@click.option(
    "--until", required=True, metavar="TIME", help="When it is closed: seconds from now, 10m, 2h, 2027-01-31."
)
@click.option("--expires", metavar="TIME", help="When all of it is erased; default: 7d.")
@click.option("--contributor", "contributors", multiple=True, metavar="CLIENT", help="Who may enter; default: any.")
@common
def open_(display: Display, name: str, cluster: Path | None, folder: Path, as_json: bool, **said: Any) -> None:
    """Open the collection NAME, on terms that you sign and that every client sees before it enters a row."""
    terms = {key: value for key, value in said.items() if value is not None and value != ()}
    if terms["until"].isdigit():
        terms["until"] = int(terms["until"])
    with connected_to(cluster, folder) as connected:
        made = connected.collect(name, terms.pop("size"), terms.pop("low"), terms.pop("high"), **terms)
        _show(display, made, as_json)


@collect.command("show")
@click.argument("name", metavar="OWNER/NAME")
@common
def show(display: Display, name: str, cluster: Path | None, folder: Path, as_json: bool) -> None:
    """Show a collection's terms, and how many rows are in."""
    with connected_to(cluster, folder) as connected:
        _show(display, connected.collection(name), as_json)


@collect.command("enter")
@click.argument("name", metavar="OWNER/NAME")
@click.argument("row", type=click.Path(path_type=Path), metavar="ROW.npy")
@click.option("--clip", is_flag=True, help="Bring numbers outside of the range to its ends.")
@common
def enter(
    display: Display, name: str, row: Path, clip: bool, cluster: Path | None, folder: Path, as_json: bool
) -> None:
    """Enter your one row, a .npy file: masked here, and seen by nobody."""
    values = _read(row)
    with connected_to(cluster, folder) as connected:
        found = connected.collection(name)
        found.enter(values, clip)
    if as_json:
        display.json({"collection": found.name, "entered": True})
    else:
        display.result(f"entered a row of {found.size:,} numbers into {shown(found.name)}")


@collect.command("take-back")
@click.argument("name", metavar="OWNER/NAME")
@common
def take_back(display: Display, name: str, cluster: Path | None, folder: Path, as_json: bool) -> None:
    """Take your row back, while the collection is open; no other can be entered in its place."""
    with connected_to(cluster, folder) as connected:
        found = connected.collection(name)
        found.take_back()
    if as_json:
        display.json({"collection": found.name, "entered": False})
    else:
        display.result(f"took the row back from {shown(found.name)}")


@collect.command("sum")
@click.argument("name")
@click.option("--mean", is_flag=True, help="Divide by how many rows there are.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE.npy", help="Write the numbers there.")
@common
def sum_(
    display: Display, name: str, mean: bool, output: Path | None, cluster: Path | None, folder: Path, as_json: bool
) -> None:
    """Close your collection NAME, and learn its sum with noise, which is told once."""
    if output is not None:
        require_folder(output)
        if output.suffix != ".npy":
            raise UsageError(f"{output} is no .npy file", remedy=f"--output {output.stem}.npy")
    with connected_to(cluster, folder) as connected:
        made = connected.collection(name)
        found = made.mean() if mean else made.sum()
    if output is not None:
        data = io.BytesIO()
        np.save(data, found.value, allow_pickle=False)
        write_atomic(output, data.getvalue())
    if as_json:
        values = None if output is not None else found.value.tolist()
        cost = {"epsilon": float(found.epsilon), "delta": float(found.delta), "mechanism": found.mechanism}
        display.json({"collection": made.name, "rows": found.rows, "std": found.std, "values": values, **cost})
        return
    what = "mean" if mean else "sum"
    numbers = " ".join(f"{each:.6g}" for each in found.value[:_SHOWN]) + " ..." * (found.value.size > _SHOWN)
    display.result(f"{what} of {found.rows:,} rows, each number with noise of standard deviation {found.std:.3g}")
    display.result(f"written to {output}" if output is not None else numbers)


def _read(path: Path) -> np.ndarray:
    try:
        found = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise InputError(f"{path} is no .npy file of numbers", remedy="save it with numpy.save") from None
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "biuf":
        raise InputError(f"{path} holds no array of numbers", remedy="save it with numpy.save")
    return found


def _show(display: Display, found: Collection, as_json: bool) -> None:
    said, standing = found.said, found.standing
    column = said.column
    low, high = float(column.low), float(column.high)
    if as_json:
        display.json(
            {
                "collection": said.name,
                "size": found.size,
                "low": low,
                "high": high,
                "at_least": said.at_least,
                "at_most": said.at_most,
                "contributors": [*said.contributors],
                "recipients": [*said.recipients],
                "mechanism": said.mechanism,
                "epsilon": float(said.epsilon),
                "delta": float(said.delta),
                **({} if found.std is None else {"std": found.std}),
                "until": said.until,
                "expires": said.expires,
                "entered": standing.entered,
                "closed": standing.closed,
            }
        )
        return
    lines = {
        "collection": shown(said.name),
        "rows": f"{found.size:,} numbers, {low:g} to {high:g}",
        "clients": f"{said.at_least:,} to {said.at_most:,}, {', '.join(map(shown, said.contributors))}",
        "tells": f"one sum, to {', '.join(map(shown, said.recipients))}",
        "noise": f"{said.mechanism}, epsilon {float(said.epsilon):g}, delta {float(said.delta):g}",
        "expires": day(said.expires),
        "entered": f"{standing.entered:,}" + ", closed" * standing.closed,
    }
    if found.std is not None:
        lines["of a mean"] = f"standard deviation {found.mean_noise}"
    for key, value in lines.items():
        display.result(f"{key:<13} {value}")
