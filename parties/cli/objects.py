"""Commands that datasets and models at the parties have in common: lists, searches, descriptions and removals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mpc.errors import UsageError
from parties.cli.display import Display
from parties.cli.options import CLUSTER, FOLDER, JSON, cluster_file
from parties.client.answering import Silent, missing
from parties.client.cluster import Cluster

if TYPE_CHECKING:
    from parties.client.at_rest.listing import Listing, Told
    from parties.client.datasets import Datasets
    from parties.client.models import Models

_NUMBERS = ("rows", "version")
_VERSIONS = click.option("--versions", is_flag=True, help="All versions, not the newest of each.")


@contextmanager
def connected_to(cluster: Path | None, folder: Path) -> Iterator[Cluster]:
    """Connect to the cluster that options name."""
    with Cluster.connect(cluster_file(cluster, folder)) as connected:
        yield connected


def common(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that all these commands have."""
    for option in (click.pass_obj, JSON, FOLDER, CLUSTER):
        command = option(command)
    return command


def add_lists(group: click.Group, many: str, searched: str, objects: Callable[[Cluster], Datasets | Models]) -> None:
    """Add the commands `list` and `search` to a group.

    Args:
        many: the word for its objects.
        searched: where words are looked for.
        objects: finds them in a connected cluster.
    """

    @group.command("list", help=f"List the {many} that you may see.")
    @_VERSIONS
    @common
    def list_(display: Display, versions: bool, cluster: Path | None, folder: Path, as_json: bool) -> None:
        with connected_to(cluster, folder) as connected:
            _show_list(display, many, objects(connected), "", versions, as_json)

    @group.command("search", help=f"List those with all these words, or words that begin so, in {searched}.")
    @click.argument("words", nargs=-1, required=True)
    @_VERSIONS
    @common
    def search(
        display: Display, words: tuple[str, ...], versions: bool, cluster: Path | None, folder: Path, as_json: bool
    ) -> None:
        with connected_to(cluster, folder) as connected:
            _show_list(display, many, objects(connected), " ".join(words), versions, as_json)


def _show_list(
    display: Display, many: str, objects: Datasets | Models, words: str, versions: bool, as_json: bool
) -> None:
    silent = Silent()
    found: Listing = objects.search(words, versions, silent)
    error = missing(silent)
    if as_json:
        display.json({many: found.content()}, error)
    elif found:
        show_table(display, found.table)
    else:
        display.say(f"no {many} that you may see")
    if error is not None:
        raise error


def show_table(display: Display, table: Sequence[tuple[str, ...]]) -> None:
    """Show a table, its head first; numbers stand on the right."""
    head, *rows = table
    display.table([f">{name}" if name in _NUMBERS else name for name in head], rows)


def show_described(display: Display, one: str, described: Told, as_json: bool) -> None:
    """Show all that the owner says of one object; `one` is the word for it."""
    if as_json:
        display.json({one: described.content()})
        return
    display.result(described.manifest.name)
    for line in described.lines:
        display.result(line)
    head, *rows = described.table
    display.table(head, rows)


def show_removed(display: Display, gone: Listing, as_json: bool) -> None:
    """Show the objects that were removed."""
    if as_json:
        display.json({"removed": gone.content()})
        return
    for each in gone:
        display.result(f"removed {each.name}, version {each.version}")


def as_visible(visible: bool, readers: tuple[str, ...]) -> bool | list[str]:
    """Read who may see an object, as --invisible and --visible-to say; `UsageError` where they exclude each other."""
    if readers and not visible:
        raise UsageError("--invisible and --visible-to exclude each other", remedy="leave one of them out")
    return list(readers) or visible
