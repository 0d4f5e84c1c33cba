"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

from mpc.compiler.graph import Range
from mpc.compiler.onnx_import import parse_range
from mpc.errors import UsageError

FOLDER = click.option(
    "--dir",
    "folder",
    default=Path(".mpc"),
    show_default=True,
    envvar="MPC_DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the local cluster lives.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="One versioned JSON object on stdout.")
SECURITY = click.option(
    "--security", default="passive", show_default=True, type=click.Choice(["passive", "active"]), help="Against whom."
)
RANGE = click.option(
    "--range",
    "ranges",
    multiple=True,
    metavar="[NAME=]LOW:HIGH",
    help="Declared range of an input, in the model's units; bounds are proved for it. One pair for each "
    "column of the last axis, separated by commas, is possible too.",
)


def require_passive(security: str) -> None:
    """Active security is a later version's; nothing runs under a weaker promise than was asked for."""
    if security != "passive":
        raise UsageError(
            "active security is not there yet",
            remedy="use --security passive, and read THREATS.md for what it promises",
        )


def require_folder(output: Path) -> None:
    """The folder that an output file goes to is there, and the file is no folder."""
    if not output.parent.is_dir():
        raise UsageError(f"cannot write {output}: there is no folder {output.parent}", remedy="make it first")
    if output.is_dir():
        raise UsageError(f"cannot write {output}: it is a folder", remedy="name a file in it")


def parse_ranges(entries: tuple[str, ...], inputs: list[str] | None = None) -> dict[str, Range]:
    """`NAME=LOW:HIGH`, or `LOW:HIGH` for every input.

    Args:
        inputs: the model's input names, for entries without one.
    """
    found: dict[str, Range] = {}
    for entry in entries:
        name, separator, text = entry.rpartition("=")
        if separator:
            found[name] = parse_range(text)
            continue
        if inputs is None:
            raise UsageError(f"--range {entry} needs the input's name", remedy=f"--range NAME={entry}")
        found.update(dict.fromkeys(inputs, parse_range(text)))
    return found
