"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mpc.errors import ConfigError, UsageError
from parties.client.running.roles import ACTIVE, PASSIVE, PUBLIC, SECRET, read_security
from parties.config.load import load
from parties.config.models import ClusterConfig, Security
from parties.disk import DEFAULT_FOLDER

if TYPE_CHECKING:
    from mpc.compiler.graph.graph import Range

FOLDER = click.option(
    "--dir",
    "folder",
    default=DEFAULT_FOLDER,
    show_default=True,
    envvar="MPC_DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the local cluster lives.",
)
CLUSTER = click.option(
    "--cluster", type=click.Path(path_type=Path), help="Your cluster.toml; default: the local cluster's."
)
OWNER = click.option(
    "--owner", "owners", multiple=True, metavar="INPUT=NAME", help="Who enters an input, by certificate; default: you."
)
RECIPIENT = click.option(
    "--recipient",
    "recipients",
    multiple=True,
    metavar="[OUTPUT=]NAME",
    help="Who receives an output, or all for which nobody else is named; several; default: you.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="One versioned JSON object on stdout.")
_CHECKED = "Active: each run is checked before anything of it is told, so that a party that deviates is caught."
SECURITY = click.option(
    "--security",
    type=click.Choice([PASSIVE, ACTIVE]),
    help=f"{_CHECKED} Default: as the cluster file says, else passive.",
)
PLAN_SECURITY = click.option(
    "--security", type=click.Choice([PASSIVE, ACTIVE]), default=PASSIVE, show_default=True, help=_CHECKED
)
LINK = click.option(
    "--link",
    metavar="LINK",
    help="What lies between the processes: lan, wan or MS:MBIT. Where rounds are dear, comparisons take one less, for "
    "more bytes; the choice is part of the plan.",
)
GRANTED_SECURITY = click.option(
    "--security",
    type=click.Choice([PASSIVE, ACTIVE]),
    help="Active: only in sessions whose runs are checked, and that read nothing kept in unchecked ones. Default: as "
    "the cluster file says.",
)
PROMISE = (
    "active: a party that deviates is caught before anything of a run is told; not promised are an answer, an honest "
    "provider, or true inputs"
)
TRUST = "passive: parties are trusted to follow the protocol; active (--security) would catch one that does not"
"""Say in one sentence what active security is, and what it is not; and what passive is."""
WEIGHTS = click.option(
    "--weights",
    default=SECRET,
    show_default=True,
    type=click.Choice([SECRET, PUBLIC]),
    help="Public: the model is told to all parties and the provider, and linear layers need no communication.",
)
SECRET_WEIGHTS = click.option(
    "--secret-weights",
    "secret_weights",
    multiple=True,
    metavar="NAME",
    help="With --weights public: constants and nodes of the model whose weights stay secret, as an adapter's; * stands "
    "for any text.",
)
RANGE = click.option(
    "--range",
    "ranges",
    multiple=True,
    metavar="[NAME=]LOW:HIGH",
    help="Declared range of an input, in the model's units; bounds are proved for it. One pair for each "
    "column of the last axis, separated by commas, is possible too.",
)
SHAPE = click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="[NAME=]D,D,...",
    help="Sizes of an input that the model leaves open: numbers, the first may be 'batch'.",
)

CALIBRATE = click.option(
    "--calibrate",
    "samples",
    multiple=True,
    metavar="[NAME=]X.npy|X.npz",
    help="Samples that may become known, since the plan tells of them: ranges that are not declared are a power of two "
    "around them, and bounds that cannot be proved rest on them.",
)

WAIT = click.option(
    "--wait",
    default=0.0,
    type=click.FloatRange(0, 31 * 86_400),
    metavar="SECONDS",
    help="Wait so long for the words of operators and owners, where they are missing.",
)


def security_for(path: Path | None, asked: str | None) -> Security:
    """Return the security that was asked for, or that a cluster file says; without a file that is passive.

    Raises:
        UsageError: it is less than the file says.
    """
    return read_security(asked, PASSIVE if path is None else load(ClusterConfig, path).security)


def require_folder(output: Path) -> None:
    """Require that the folder that an output file goes to is there, and that the file is no folder."""
    if not output.parent.is_dir():
        raise UsageError(f"cannot write {output}: there is no folder {output.parent}", remedy="make it first")
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write {output}: you may not write to {output.parent}", remedy="name another folder")
    if output.is_dir():
        raise UsageError(f"cannot write {output}: it is a folder", remedy="name a file in it")


def require_npz(output: Path) -> None:
    """Require what `require_folder` does, of a file of arrays, and that its name says what it is."""
    if output.suffix not in (".npz", ""):
        raise UsageError(
            f"arrays are written as .npz, and {output} is named otherwise",
            remedy=f"name it {output.with_suffix('.npz')}; numpy.load reads it",
        )
    require_folder(output)


def cluster_file(cluster: Path | None, folder: Path) -> Path:
    """Return the path of the cluster file that was named, or of the local cluster's."""
    path = cluster or folder / "cluster.toml"
    if not path.is_file():
        command = click.get_current_context(silent=True)
        own = command is not None and any(each.name == "parties" for each in command.command.params)
        others = ("add --parties 3" if own else "--cluster FILE",)
        raise no_cluster(path, None if cluster else folder, *others)
    return path


def no_cluster(path: Path, folder: Path | None, *others: str) -> ConfigError:
    """Make the error that there is no cluster file; `folder` is the local cluster's, if that was asked for."""
    from parties.local.layout import in_folder  # most commands find their cluster

    ways = ["check the path"] if folder is None else [f"mpc up{in_folder(folder)} --detach", *others]
    return ConfigError(f"no cluster: {path} does not exist", remedy=", or ".join(ways))


def parse_ranges(entries: tuple[str, ...], inputs: list[str] | None = None) -> dict[str, Range]:
    """Read `NAME=LOW:HIGH` entries, or `LOW:HIGH` for every input; return (low, high) by input.

    Args:
        inputs: the model's input names, for entries without one.
    """
    from mpc.compiler.onnx.declared import parse_range  # commands that compile nothing do without the compiler

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


def parse_shapes(entries: tuple[str, ...], inputs: list[str]) -> dict[str, tuple[int | None, ...]]:
    """Read `NAME=batch,3,48,192` entries, or without a name for every input; return shapes by input, with None for the
    batch."""
    found: dict[str, tuple[int | None, ...]] = {}
    for entry in entries:
        name, separator, text = entry.rpartition("=")
        if separator and name not in inputs:
            raise UsageError(f"the model has no input {name!r}", remedy=f"its inputs are {', '.join(inputs)}")
        sizes = [None if part.strip() == "batch" else part.strip() for part in text.split(",")]
        if None in sizes[1:] or not all(size is None or (size.isdigit() and int(size)) for size in sizes):
            raise UsageError(f"{entry!r} is no shape", remedy="write it like --shape x=batch,3,224,224")
        shape = tuple(None if size is None else int(size) for size in sizes)
        found.update(dict.fromkeys([name] if separator else inputs, shape))
    return found
