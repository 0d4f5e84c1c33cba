"""Draw on a terminal, by rich: text, tables, spinners.  Imported by whoever draws: a daemon does not."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from mpc.text import shown

_WIDEST = 1 << 16


def plain(text: str, keep: str = "") -> Text:
    """Return text as it is, whoever wrote it: no markup, and what a terminal would obey as escapes, but for what is in
    `keep`.

    All that the commands print comes through here, or is JSON in ASCII.
    """
    return Text(shown(text, keep))


def error_line(text: str) -> Text:
    """Return the first line of an error."""
    return Text.assemble(("error:", "bold red"), " ", plain(text))


def console(stderr: bool = False) -> Console:
    """Open stdout or stderr for text that is printed as it is."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


class _Console(Console):
    """A console that lets the command end in good order when nobody reads it any more."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def print_table(out: Console, columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None) -> None:
    """Print a table to stdout, whose width `out` knows; columns whose name starts with '>' are right-aligned."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left")
    for row in rows:
        table.add_row(*(plain(str(cell)) for cell in row))
    wide = out.measure(table, options=out.options.update(max_width=_WIDEST)).maximum
    _Console(highlight=False, soft_wrap=True, width=wide).print(table, crop=False)  # a terminal wraps lines itself


def spinner(notes: Console, quiet: bool) -> Progress:
    """Make a spinner that names what is being done; it is shown on a terminal only."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[detail]}", markup=False),
        TimeElapsedColumn(),
        console=notes,
        transient=True,
        disable=quiet or not notes.is_terminal,
    )
