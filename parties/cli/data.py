"""`mpc data`: tables at the parties - put by their owners, found, described and sampled by whoever may see them."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from mpc.errors import MpcWarning, UsageError
from mpc.text import shown
from parties.cli.display import Display, Stages
from parties.cli.objects import add_lists, as_visible, common, connected_to, show_described, show_removed, show_table
from parties.client.dataset import Dataset
from parties.client.tables.published import MOCK
from parties.client.tables.stated import FROM_DATA, TYPES, as_range

_ROWS = click.IntRange(1, 1 << 20)


@click.group()
def data() -> None:
    """Put tables at the parties, find others, see what their owners say of them.

    A dataset's name is OWNER/NAME; OWNER may be left out of one of your own.
    """


add_lists(data, "datasets", "name, description or columns", lambda connected: connected.datasets)


@data.command("put")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("name")
@click.option("--range", "ranges", multiple=True, metavar="[COLUMN=]LOW:HIGH", help="Where a column's numbers lie.")
@click.option("--category", "categories", multiple=True, metavar="COLUMN=A,B,...", help="A column's categories.")
@click.option(
    "--categories-from-data",
    "taken",
    multiple=True,
    metavar="COLUMN",
    help="Take a column's categories from the data: which ones occur becomes public.",
)
@click.option("--type", "types", multiple=True, metavar="COLUMN=TYPE", help=f"One of {', '.join(TYPES)}.")
@click.option("--bits", multiple=True, metavar="COLUMN=N", help="Fractional bits of a column of reals, 28 unless said.")
@click.option("--unit", "units", multiple=True, metavar="COLUMN=UNIT", help="What a column's numbers count.")
@click.option("--about", "descriptions", multiple=True, metavar="COLUMN=TEXT", help="What a column says.")
@click.option("--column", "columns", multiple=True, metavar="COLUMN", help="Put these alone; default: all.")
@click.option("--missing", "missing", multiple=True, metavar="COLUMN", help="The only columns that may miss values.")
@click.option("--description", default="", help="What the dataset is, for those who search.")
@click.option("--rows-per-person", type=click.IntRange(1), help="The most rows that are one person's.")
@click.option("--person", metavar="COLUMN", help="Whose a row is: checks --rows-per-person, and is not put.")
@click.option("--expires", metavar="TIME", help="When it is removed: 36h, 90d, 2y, 2027-01-31; default: never.")
@click.option("--sample", metavar="FILE|mock", default=MOCK, show_default=True, help="Rows that you publish.")
@click.option("--visible/--invisible", default=True, show_default=True, help="Others may see what you say of it.")
@click.option("--visible-to", "readers", multiple=True, metavar="CLIENT", help="Only these others may.")
@common
def put(
    display: Display, file: Path, name: str, cluster: Path | None, folder: Path, as_json: bool, **said: Any
) -> None:
    """Put the table in FILE (.csv, .tsv, .parquet, .npy, .npz) at the parties as NAME, masked.

    Ranges, categories and all else that you say become public; nothing is taken from the data. Values that do not fit
    are refused here, and then nothing leaves this machine. An interrupted put goes on when it is made again.
    """
    arguments = _arguments(**said)
    with connected_to(cluster, folder) as connected, _putting(display) as (notes, bar):
        dataset = connected.datasets.put(name, file, progress=bar, **arguments)
    _show_put(display, dataset, notes, as_json)


@data.command("append")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--person", metavar="COLUMN", help="Whose a row is: checks how many are one person's, of these rows.")
@click.option("--rows-per-person", type=click.IntRange(1), help="Of old and new rows together; default: as before.")
@click.option("--expires", metavar="TIME", help="As for put; default: as before.")
@common
def append(
    display: Display, name: str, file: Path, cluster: Path | None, folder: Path, as_json: bool, **said: Any
) -> None:
    """Put the rows in FILE beside those of NAME, a dataset of yours: its next version.

    Types, ranges and categories are those of the first version. Only the new rows are masked and sent. Versions before
    stay until they are removed or expire.
    """
    with connected_to(cluster, folder) as connected, _putting(display) as (notes, bar):
        dataset = connected.datasets.append(name, file, progress=bar, **said)
    _show_put(display, dataset, notes, as_json)


@contextmanager
def _putting(display: Display) -> Iterator[tuple[list[str], Callable[[str, int, int | None], None]]]:
    """Show how far a put is; its notes are listed, and shown at its end."""
    notes: list[str] = []
    with display.stages() as stages, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", MpcWarning)
        try:
            yield notes, _bar(stages)
        except KeyboardInterrupt:
            display.say("note: the table is not put yet; the same command goes on where this one was")
            raise
    notes += [str(each.message) for each in told if isinstance(each.message, MpcWarning)]
    for note in notes:
        display.say(f"note: {note}")


def _show_put(display: Display, dataset: Dataset, notes: list[str], as_json: bool) -> None:
    if as_json:
        display.json({"dataset": dataset.describe().content(), "notes": notes})
    else:
        display.result(f"{dataset.name}, version {dataset.manifest.version}: {dataset.rows:,} rows")


def _arguments(
    ranges: tuple[str, ...],
    categories: tuple[str, ...],
    taken: tuple[str, ...],
    types: tuple[str, ...],
    units: tuple[str, ...],
    bits: tuple[str, ...],
    descriptions: tuple[str, ...],
    columns: tuple[str, ...],
    missing: tuple[str, ...],
    visible: bool,
    readers: tuple[str, ...],
    **plain: Any,
) -> dict[str, Any]:
    """Turn options into arguments of `Datasets.put`."""
    if plain["rows_per_person"] is None:
        raise UsageError(
            "--rows-per-person is not said",
            cause="the noise of answers covers so many rows of one person, so a guess would break its promise",
            remedy="--rows-per-person 1 if no person has two rows; --person COLUMN has it checked",
        )
    labels = {column: _labels(text) for column, text in _pairs(categories, "--category").items()}
    if twice := set(labels) & set(taken):
        raise UsageError(
            f"column {shown(min(twice))!r} has categories of yours and from the data", remedy="leave one of them out"
        )
    return {
        **plain,
        "ranges": _ranges(ranges),
        "categories": {**labels, **dict.fromkeys(taken, FROM_DATA)},
        "types": _pairs(types, "--type"),
        "units": _pairs(units, "--unit"),
        "bits": _pairs(bits, "--bits"),
        "descriptions": _pairs(descriptions, "--about"),
        "columns": list(columns) or None,
        "missing": list(missing) or None,
        "visible": as_visible(visible, readers),
    }


def _ranges(entries: tuple[str, ...]) -> Any:
    alone = [entry for entry in entries if "=" not in entry]
    if alone and len(entries) > 1:
        raise UsageError(
            "--range without a column is for all columns, and there are others", remedy="name the column of each"
        )
    return as_range("", alone[0]) if alone else _pairs(entries, "--range")


def _pairs(entries: tuple[str, ...], option: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in entries:
        column, separator, value = entry.partition("=")
        if not separator or not column or column in found:
            problem = "names its column twice" if column in found else "names no column"
            raise UsageError(f"{option} {shown(entry)} {problem}", remedy=f"{option} COLUMN=..., once for each column")
        found[column] = value
    return found


def _labels(text: str) -> list[str]:
    """Split categories at commas; quotes keep one that has a comma."""
    return next(csv.reader([text]), [])


def _bar(stages: Stages) -> Callable[[str, int, int | None], None]:
    names = {"check": "checking the table", "put": "putting it at the parties", "refresh": "masking it anew"}
    begun: list[str] = []

    def tell(stage: str, done: int, of: int | None) -> None:
        if begun[-1:] != [stage]:
            begun.append(stage)
            stages(names[stage])
        stages.rows(done, of)

    return tell


@data.command("show")
@click.argument("name")
@click.option("--versions", is_flag=True, help="List its versions that are there, and how each came from the last.")
@common
def show(display: Display, name: str, versions: bool, cluster: Path | None, folder: Path, as_json: bool) -> None:
    """Show all that its owner says of a dataset: columns, units, ranges, rows, terms."""
    if versions:
        _show_versions(display, name, cluster, folder, as_json)
        return
    with connected_to(cluster, folder) as connected:
        described = connected.dataset(name).describe()
    show_described(display, "dataset", described, as_json)


def _show_versions(display: Display, name: str, cluster: Path | None, folder: Path, as_json: bool) -> None:
    with connected_to(cluster, folder) as connected:
        found = connected.datasets.versions(name)
    if as_json:
        display.json({"name": found[0].name, "versions": found.content()})
        return
    display.result(found[0].name)
    show_table(display, found.table)


@data.command("sample")
@click.argument("name")
@click.option("--rows", default=10, show_default=True, type=_ROWS, help="How many at most.")
@common
def sample(display: Display, name: str, rows: int, cluster: Path | None, folder: Path, as_json: bool) -> None:
    """Show rows that the owner published, or mock rows that are made from the schema alone."""
    with connected_to(cluster, folder) as connected:
        found = connected.dataset(name).sample(rows)
    records = found.records()
    if as_json:
        display.json({"sample": {"name": found.name, "mock": found.mock, "rows": records}})
        return
    display.say(repr(found).split("\n")[0])
    display.table(list(records[0]), [[_cell(value) for value in row.values()] for row in records])


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:g}" if isinstance(value, float) else shown(str(value))
    return text if len(text) <= 40 else f"{text[:37]}..."


@data.command("refresh")
@click.argument("name")
@common
def refresh(display: Display, name: str, cluster: Path | None, folder: Path, as_json: bool) -> None:
    """Mask a dataset of yours anew: its values stay, and what anybody has of the old masks is worthless.

    Do it now and then, and when the provider changes.
    """
    with connected_to(cluster, folder) as connected, display.stages() as stages:
        made = connected.datasets.refresh(name, progress=_bar(stages))
    if as_json:
        display.json({"dataset": made.describe().content()})
    else:
        display.result(f"{made.name}, version {made.manifest.version}: {made.rows:,} rows")


@data.command("remove")
@click.argument("name")
@click.option("--row", "rows", type=int, multiple=True, metavar="K", help="Remove this row alone; the first is 0.")
@click.option("--table", type=click.Path(path_type=Path), help="With --row: your copy of the newest version's rows.")
@common
def remove(
    display: Display,
    name: str,
    rows: tuple[int, ...],
    table: Path | None,
    cluster: Path | None,
    folder: Path,
    as_json: bool,
) -> None:
    """Remove all versions of a dataset of yours, at all parties and for good; with --row, some rows.

    With --row the next version is without these rows, counted in the newest one, and all versions before are removed.
    The blocks that the rows lie in (65,536 rows or less each) are masked anew from your copy, so --table is needed: all
    rows of the newest version in their order, or those of these blocks alone.
    """
    if rows or table is not None:
        if not rows or table is None:
            raise UsageError(
                "--row and --table go together",
                cause="what lies at the parties is masked and cannot be cut: its blocks are made anew from your copy",
                remedy=f"mpc data remove {shown(name)} --row K --table FILE",
            )
        with connected_to(cluster, folder) as connected, _putting(display) as (notes, bar):
            dataset = connected.datasets.remove_rows(name, rows, table, progress=bar)
        _show_put(display, dataset, notes, as_json)
        return
    with connected_to(cluster, folder) as connected:
        gone = connected.datasets.remove(name)
    show_removed(display, gone, as_json)
