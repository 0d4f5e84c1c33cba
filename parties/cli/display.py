"""Voice of the command line: tables and results on stdout, notes and errors on stderr."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mpc.errors import MpcError, MpcWarning

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

JSON_VERSION = 1


def _terminal() -> ModuleType:
    from parties.cli import terminal

    return terminal


class Display:
    """A command's one voice.

    Args:
        as_json: an error becomes one JSON object on stdout too.
    """

    def __init__(self, quiet: bool = False, verbose: bool = False, as_json: bool = False) -> None:
        self.quiet, self.verbose, self.as_json = quiet, verbose, as_json
        self._has_object = False

    @cached_property
    def out(self) -> Console:
        """Return stdout; rich is imported when something is printed."""
        out: Console = _terminal().console()
        return out

    @cached_property
    def notes(self) -> Console:
        """Return stderr."""
        notes: Console = _terminal().console(stderr=True)
        return notes

    def say(self, text: str) -> None:
        """Print a note on stderr."""
        if not self.quiet:
            self.notes.print(_terminal().plain(text))

    def result(self, text: str) -> None:
        """Print a line on stdout."""
        self.out.print(_terminal().plain(text))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
        """Print a table on stdout; columns whose name starts with '>' are right-aligned."""
        _terminal().print_table(self.out, columns, rows, title)

    def json(self, content: dict[str, Any], error: MpcError | None = None) -> None:
        """Print one versioned object on stdout; it has the error that is raised behind it, if there is one."""
        failed = {} if error is None else {"error": _fields(error)}
        sys.stdout.write(json.dumps({"version": JSON_VERSION, **content, **failed}) + "\n")
        self._has_object = True

    def error(self, error: MpcError) -> None:
        """Print an error: what failed, the likely cause, the fix."""
        if self.as_json and not self._has_object:
            self.json_error(error)
        first, *rest = error.lines()
        self.notes.print(_terminal().error_line(first))
        for line in rest:
            self.notes.print(_terminal().plain(f"  {line}", "\n"))

    def json_error(self, error: MpcError) -> None:
        """Print an error as one object on stdout."""
        self.json({}, error)

    @contextmanager
    def stages(self) -> Iterator[Stages]:
        """Show a spinner that names what is being done, on a terminal only."""
        progress = _terminal().spinner(self.notes, self.quiet)
        with progress:
            yield Stages(progress)


def _fields(error: MpcError) -> dict[str, Any]:
    fields = {"code": error.code, "what": error.what, "cause": error.cause, "fix": error.remedy}
    return {**fields, "peer": error.peer, "exit_code": error.exit_code}


@contextmanager
def noting(display: Display) -> Iterator[list[str]]:
    """Print what the library warns of as notes, in the end; they are added to the list then."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", MpcWarning)
        yield notes
    notes += [str(each.message) for each in told if isinstance(each.message, MpcWarning)]
    for note in notes:
        display.say(f"note: {note}")


@contextmanager
def saying(display: Display) -> Iterator[list[str]]:
    """Print what the library warns of as notes, at once and each once; they are added to the list."""
    notes: list[str] = []

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, MpcWarning) and str(message) not in notes:
            notes.append(str(message))
            display.say(f"note: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", MpcWarning)
        warnings.showwarning = show
        yield notes


def silence() -> None:
    """Have nothing more printed on stdout, which nobody reads any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Stages:
    """A spinner or nothing, made by `Display.stages`: call it with the name of each stage as it begins."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: Any = None

    def __call__(self, name: str) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(name, total=None, detail="")

    def rounds(self, done: int, of: int, sent_bytes: int) -> None:
        """Show how far a run is."""
        detail = f"round {done}/{of}, {size(sent_bytes)} sent"
        self._progress.update(self._task, completed=done, total=of, detail=detail)

    def rows(self, done: int, of: int | None) -> None:
        """Show how far a table is."""
        detail = f"{done:,}{f'/{of:,}' if of else ''} rows"
        self._progress.update(self._task, completed=done, total=of, detail=detail)

    def weights(self, done: int, of: int) -> None:
        """Show how far a model is."""
        self._progress.update(self._task, completed=done, total=of, detail=f"{done}/{of} arrays of weights")

    def bundles(self, done: int, of: int) -> None:
        """Show how far dealing ahead is."""
        self._progress.update(self._task, completed=done, total=of, detail=f"{done}/{of} bundles stored")


def seconds(value: float) -> str:
    """Write a duration for people."""
    if value < 1e-3:
        return f"{value * 1e6:.0f} us"
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"


def many(count: int, what: str) -> str:
    """Write how many there are of something, whose plural has an s more."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def size(count: int) -> str:
    """Write a number of bytes for people; exact below 10 kB."""
    if count < 10_000:
        return f"{count:,} B"
    return f"{count / 1e3:,.1f} kB" if count < 1e6 else f"{count / 1e6:,.1f} MB"
